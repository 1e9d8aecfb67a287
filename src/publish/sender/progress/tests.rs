use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::MetricType;
use crate::publish::parcel::tests::{Sources, TestRound};
use crate::store::Cursor;

const RULES: RequestRules = RequestRules { most: 16, trusted: true };

fn heading(number: u64) -> BatchHeading {
    let start = Timestamp::from_secs(1_767_225_600);
    let sending = SendingRound { end: start, to: Cursor { epoch: 1, seq: 1 } };
    BatchHeading { start, sending, number }
}

fn one_group(_: MetricType) -> u8 {
    0
}

/// Rounds with these numbers of counters.
fn make_rounds<'s>(sources: &'s Sources, counters: &[usize]) -> Vec<TestRound<'s>> {
    counters.iter().enumerate().map(|(n, counters)| sources.round(n, *counters, 0)).collect()
}

/// The parcels of each worker.
fn parcels<'r>(rounds: &'r [TestRound<'r>], workers: usize) -> Vec<Parcel<'r>> {
    let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    for round in rounds {
        let divided = round.share().divide_records(workers);
        shares.iter_mut().zip(divided).for_each(|(share, part)| share.push(part));
    }
    shares.into_iter().map(|rounds| Parcel::new(rounds, one_group)).collect()
}

fn encode_all(progress: &mut CutProgress, workers: usize) {
    for worker in 0..workers {
        while let Some((_, records)) = progress.next_to_encode(worker, RULES) {
            let held = records.len();
            let body = vec![b'x'; held];
            let request =
                EncodedRequest { body, content_type: "text/plain", content_encoding: None, records, held };
            progress.take_encoded(worker, vec![request], 1 << 20);
        }
    }
}

/// An answer of each kind.
fn answer(kind: u8) -> Answer {
    let why = String::from("no");
    match kind {
        0 => Answer::Reject { why },
        1 => Answer::Auth { why },
        2 => Answer::TooLarge { why },
        3 => Answer::Retry { after: None, why, of_content: true, in_doubt: true },
        4 => Answer::Retry { after: Some(Duration::from_secs(2)), why, of_content: false, in_doubt: false },
        5 => Answer::Partly { refused: 2, why },
        6 => Answer::Unspoken { why },
        _ => Answer::Ok,
    }
}

fn settled(progress: &CutProgress) -> RecordTally {
    progress.current.as_ref().unwrap().tally.settled_records()
}

#[test]
fn of_a_batch_only_rounds_that_are_too_old_are_given_up() {
    let sources = Sources::new(1, 4);
    let of_rounds = make_rounds(&sources, &[4, 4, 4]);
    let (all, now) = (parcels(&of_rounds, 1), Instant::now());
    let mut progress = CutProgress::default();
    progress.begin_batch(heading(1), &all, RequestRules { most: 2, ..RULES });
    // Two records of the first round arrive, then it becomes too old.
    let (_, records) = progress.next_to_encode(0, RULES).unwrap();
    assert_eq!(records, 0..2);
    progress.settle_records(0, records, Fate::Delivered);
    let old = [all[0].ranges_of(|round| round.end.as_secs() == 1_767_225_610)];
    for _ in 0..2 {
        progress.drop_old(&old, true, RULES);
        encode_all(&mut progress, 1);
    }
    let tally = settled(&progress);
    assert_eq!((tally.delivered, tally.dropped.get(TOO_OLD)), (2, Some(&2)));
    let begun = progress.begin_requests(now);
    let [(0, request, false)] = &begun[..] else { panic!("{begun:?}") };
    assert_eq!(request.request.records, 4..12);
}

#[test]
fn an_answer_for_rounds_that_were_given_up_meanwhile_settles_no_others() {
    let sources = Sources::new(1, 4);
    let of_rounds = make_rounds(&sources, &[4, 4]);
    let (all, now) = (parcels(&of_rounds, 1), Instant::now());
    let mut progress = CutProgress::default();
    progress.begin_batch(heading(1), &all, RULES);
    encode_all(&mut progress, 1);
    let (worker, request, _) = progress.begin_requests(now).pop().unwrap();
    let old = [all[0].ranges_of(|round| round.end.as_secs() == 1_767_225_610)];
    progress.drop_old(&old, false, RULES);
    progress.take_answer((worker, 1), request, Answer::Ok, (0.5, now));
    assert_eq!((settled(&progress).delivered, settled(&progress).sum()), (0, 4));
    encode_all(&mut progress, 1);
    let (_, request, _) = progress.begin_requests(now).pop().unwrap();
    assert_eq!(request.request.records, 4..8);
}

#[test]
fn records_that_become_too_old_while_their_request_is_under_way_are_given_up_once_it_fails() {
    let sources = Sources::new(1, 4);
    let of_rounds = make_rounds(&sources, &[4, 4]);
    let (all, now) = (parcels(&of_rounds, 1), Instant::now());
    let old = [all[0].ranges_of(|round| round.end.as_secs() == 1_767_225_610)];
    // The records of the second round are of two windows.
    for (said, delivered, given_up) in [(Answer::Ok, 12, None), (answer(3), 0, Some(4))] {
        let mut progress = CutProgress::default();
        progress.begin_batch(heading(1), &all, RULES);
        encode_all(&mut progress, 1);
        let (worker, request, _) = progress.begin_requests(now).pop().unwrap();
        progress.drop_old(&old, true, RULES);
        assert!(!progress.is_batch_sent());
        progress.take_answer((worker, 1), request, said, (0.5, now));
        progress.drop_old(&old, true, RULES);
        let tally = settled(&progress);
        assert_eq!((tally.delivered, tally.dropped.get(TOO_OLD).copied()), (delivered, given_up));
    }
}

#[test]
fn a_wait_that_the_server_asked_for_outlasts_the_batch_and_the_cut() {
    let sources = Sources::new(1, 4);
    let rounds = make_rounds(&sources, &[4]);
    let (all, now) = (parcels(&rounds, 1), Instant::now());
    let mut progress = CutProgress::default();
    progress.begin_batch(heading(1), &all, RULES);
    encode_all(&mut progress, 1);
    let (worker, request, _) = progress.begin_requests(now).pop().unwrap();
    progress.take_answer((worker, 1), request, answer(4), (0.0, now));
    let asked = now + Duration::from_secs(2);
    // Meanwhile its records become too old, and the batch ends.
    let old = [all[0].ranges_of(|_| true)];
    progress.drop_old(&old, false, RULES);
    progress.finish_batch(std::iter::empty());
    for is_next_cut in [false, true] {
        if is_next_cut {
            progress = CutProgress::with_hold(progress.take_hold());
        }
        let later = heading(2 + u64::from(is_next_cut));
        progress.begin_batch(
            BatchHeading { start: later.start.saturating_add(Duration::from_secs(10)), ..later },
            &all,
            RULES,
        );
        encode_all(&mut progress, 1);
        assert!(progress.begin_requests(now).is_empty(), "next cut: {is_next_cut}");
        assert!(progress.is_held_up(now));
        assert_eq!(progress.next_wait().map(|wait| wait.until), Some(asked));
    }
    progress.end_waits(Some(asked));
    assert_eq!(progress.begin_requests(asked).len(), 1);
}

#[test]
fn what_arrived_is_not_sent_again_by_another_number_of_workers() {
    let sources = Sources::new(20, 3);
    let rounds = [3, 2];
    let closed: u64 = 20 * 3 + 20 * 2 * 2;
    let of_rounds = make_rounds(&sources, &rounds);
    let (four, now) = (parcels(&of_rounds, 4), Instant::now());
    let mut progress = CutProgress::default();
    progress.begin_batch(heading(1), &four, RULES);
    encode_all(&mut progress, 4);
    for (worker, request, _) in progress.begin_requests(now) {
        progress.take_answer((worker, 1), request, Answer::Ok, (0.5, now));
    }
    let arrived = settled(&progress).delivered;
    assert!(arrived > 0 && arrived < closed, "{arrived} of {closed}");
    let three = parcels(&of_rounds, 3);
    progress.begin_batch(heading(2), &three, RULES);
    assert_eq!(settled(&progress).delivered, arrived);
    let left: usize = three.iter().map(|parcel| parcel.record_places().len()).sum();
    let mut sent = 0;
    while !progress.is_batch_sent() {
        encode_all(&mut progress, 3);
        for (worker, request, _) in progress.begin_requests(now) {
            sent += request.request.held;
            progress.take_answer((worker, 2), request, Answer::Ok, (0.5, now));
        }
    }
    assert!(sent < left, "{sent} of {left}");
    assert_eq!((settled(&progress).delivered, settled(&progress).sum()), (closed, closed));
}

#[test]
fn an_answer_to_a_request_of_a_batch_that_was_begun_anew_settles_nothing() {
    let sources = Sources::new(2, 2);
    let of_rounds = make_rounds(&sources, &[2, 2]);
    let of_part = make_rounds(&sources, &[2]);
    let (whole, part, now) = (parcels(&of_rounds, 1), parcels(&of_part, 1), Instant::now());
    let mut progress = CutProgress::default();
    progress.begin_batch(heading(1), &whole, RULES);
    encode_all(&mut progress, 1);
    let (worker, request, _) = progress.begin_requests(now).pop().unwrap();
    // A window is gone when the batch is read again.
    progress.begin_batch(heading(2), &part, RULES);
    progress.take_answer((worker, 1), request, Answer::Ok, (0.5, now));
    assert_eq!(settled(&progress).sum(), 0);
    assert_eq!(progress.is_accepted(), Some(true));
}

#[test]
fn a_busy_server_is_sent_nothing_by_any_worker() {
    let sources = Sources::new(20, 3);
    let of_rounds = make_rounds(&sources, &[3]);
    let (all, now) = (parcels(&of_rounds, 4), Instant::now());
    let mut progress = CutProgress::default();
    progress.begin_batch(heading(1), &all, RULES);
    encode_all(&mut progress, 4);
    let mut begun = progress.begin_requests(now);
    assert_eq!(begun.len(), 4);
    let (worker, request, _) = begun.pop().unwrap();
    progress.take_answer((worker, 1), request, answer(4), (0.5, now));
    assert!(!progress.is_held_up(now), "the others are under way");
    for (worker, request, _) in begun {
        progress.take_answer((worker, 1), request, Answer::Ok, (0.5, now));
    }
    let soon = now + Duration::from_millis(1900);
    progress.end_waits(Some(soon));
    assert!(progress.begin_requests(soon).is_empty() && progress.is_held_up(soon));
    assert!(!progress.needs_batch(soon), "windows are not read again for it");
    let wait = progress.next_wait().unwrap();
    assert_eq!(wait.until - now, Duration::from_secs(2));
    progress.end_waits(Some(wait.until));
    assert_eq!(progress.begin_requests(wait.until).len(), 1);
}

#[test]
fn workers_that_only_repeat_hold_no_batch() {
    let sources = Sources::new(20, 3);
    let of_rounds = make_rounds(&sources, &[3]);
    let (all, now) = (parcels(&of_rounds, 2), Instant::now());
    let mut progress = CutProgress::default();
    progress.begin_batch(heading(1), &all, RULES);
    encode_all(&mut progress, 2);
    let mut begun = progress.begin_requests(now);
    let (worker, request, _) = begun.pop().unwrap();
    progress.take_answer((worker, 1), request, answer(3), (0.5, now));
    assert!(!progress.is_held_up(now), "the other's first request is under way");
    let (other, request, _) = begun.pop().unwrap();
    progress.take_answer((other, 1), request, answer(3), (0.5, now));
    assert!(progress.is_held_up(now));
    let later = now + Duration::from_mins(1);
    progress.end_waits(Some(later));
    let begun = progress.begin_requests(later);
    assert!(begun.len() == 2 && begun.iter().all(|(.., is_repeat)| *is_repeat));
    assert!(progress.is_held_up(later), "also while they are under way");
    for (worker, request, _) in begun {
        progress.take_answer((worker, 1), request, Answer::Ok, (0.5, later));
    }
    assert!(progress.needs_batch(later) && !progress.is_held_up(later));
}

proptest! {
    #[test]
    fn every_record_is_counted_once_and_sent_by_one_worker_at_a_time(
        rounds in proptest::collection::vec(0_usize..4, 1..4),
        workers in 1_usize..6,
        answers in proptest::collection::vec((0_u8..12, any::<u8>()), 0..200),
    ) {
        let sources = Sources::new(9, 4);
        let of_rounds = make_rounds(&sources, &rounds);
        let all = parcels(&of_rounds, workers);
        let closed: u64 = all.iter().flat_map(Parcel::record_places).sum();
        let mut progress = CutProgress::default();
        progress.begin_batch(heading(1), &all, RULES);
        let (mut now, mut answers) = (Instant::now(), answers.into_iter());
        let mut under_way = BTreeMap::new();
        while !progress.is_batch_sent() {
            progress.end_waits(Some(now));
            encode_all(&mut progress, workers);
            for worker in 0..workers {
                for (records, _) in progress.take_dead(worker) {
                    progress.settle_records(worker, records, Fate::Dead);
                }
            }
            for (worker, request, _) in progress.begin_requests(now) {
                prop_assert!(under_way.insert(worker, request).is_none(), "one request of a worker at a time");
            }
            prop_assert!(settled(&progress).sum() <= closed);
            let (kind, which) = answers.next().unwrap_or((11, 0));
            let ahead = under_way.keys().copied().nth(usize::from(which) % under_way.len().max(1));
            match ahead.and_then(|worker| Some((worker, under_way.remove(&worker)?))) {
                Some((worker, request)) => {
                    progress.take_answer((worker, 1), request, answer(kind), (0.5, now));
                }
                None => match progress.next_wait() {
                    Some(wait) => now = wait.until,
                    None => prop_assert!(progress.is_batch_sent(), "nothing goes on"),
                },
            }
        }
        prop_assert!(under_way.is_empty());
        prop_assert_eq!(settled(&progress).sum(), closed);
    }
}
