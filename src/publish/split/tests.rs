use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn reject() -> Answer {
    Answer::Reject { why: "field type conflict".to_owned() }
}

fn fail(why: &str) -> Answer {
    Answer::Retry { after: None, why: why.to_owned(), of_content: true, in_doubt: true }
}

/// Sends everything to a backend. Returns what was delivered and what is dead, and the number of requests.
fn send_all(
    records: usize,
    mut backend: impl FnMut(Range<usize>) -> Answer,
) -> (Vec<usize>, Vec<usize>, u32) {
    let mut delivery = Delivery::new(records, records, false);
    let (mut delivered, mut dead, mut requests) = (Vec::new(), Vec::new(), 0);
    while let Some(range) = delivery.next_range() {
        requests += 1;
        for outcome in delivery.take_answer(backend(range), 0.5) {
            match outcome {
                Outcome::Delivered(records) => delivered.extend(records),
                Outcome::Dead { records, .. } => dead.extend(records),
                Outcome::Partly { records, refused, .. } => {
                    let refused = usize::try_from(refused).unwrap();
                    dead.extend(records.clone().take(refused));
                    delivered.extend(records.skip(refused));
                }
                Outcome::Shrink => {}
                Outcome::Wait { .. } => assert!(requests < 100_000, "it never ends"),
            }
        }
    }
    delivered.sort_unstable();
    (delivered, dead, requests)
}

#[test]
fn several_culprits_are_found_and_all_else_arrives() {
    let bad = BTreeSet::from([0, 17, 2500, 4999]);
    let (delivered, mut dead, requests) =
        send_all(5000, |range| if bad.range(range).next().is_some() { reject() } else { Answer::Ok });
    dead.sort_unstable();
    assert_eq!(dead, [0, 17, 2500, 4999]);
    assert_eq!(delivered.len(), 4996);
    assert!(requests <= 100, "{requests}");
}

#[test]
fn a_backend_that_refuses_everything_kills_nothing() {
    let mut delivery = Delivery::new(1000, 1000, false);
    let mut held = 0;
    for _ in 0..200 {
        for outcome in delivery.take_answer(reject(), 0.5) {
            match outcome {
                Outcome::Wait { reason: WaitReason::Refusing, .. } => held += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(held >= 4 && delivery.next_range().is_some());
    // Once it accepts them, all arrive.
    let mut delivered = 0;
    while delivery.next_range().is_some() {
        for outcome in delivery.take_answer(Answer::Ok, 0.5) {
            if let Outcome::Delivered(records) = outcome {
                delivered += records.len();
            }
        }
    }
    assert_eq!(delivered, 1000);
}

#[test]
fn what_a_backend_refuses_that_has_just_accepted_other_things_does_not_hold_up_what_follows() {
    let mut delivery = Delivery::new(1000, 1000, true);
    let (mut dead, mut requests) = (0, 0);
    while delivery.next_range().is_some() {
        requests += 1;
        for outcome in delivery.take_answer(reject(), 0.5) {
            let Outcome::Dead { records, .. } = outcome else { panic!("{outcome:?}") };
            dead += records.len();
        }
    }
    assert_eq!(dead, 1000);
    assert!(requests < 100, "{requests}");
}

#[test]
fn a_search_that_finds_too_much_sends_the_rest_once_more_before_it_gives_up() {
    // The last half is good, and every second record of the first half is bad.
    let bad = |n: usize| n < 5000 && n.is_multiple_of(2);
    let (delivered, dead, requests) =
        send_all(10_000, |range| if range.into_iter().any(bad) { reject() } else { Answer::Ok });
    assert_eq!(delivered.len() + dead.len(), 10_000);
    assert!(delivered.len() >= 5000 && requests < 1500, "{} {requests}", delivered.len());
}

#[test]
fn a_server_that_fails_with_one_text_is_searched_for_a_cause_only_where_something_is_accepted() {
    let (delivered, dead, _) =
        send_all(1000, |range| if range.contains(&700) { fail("bad histogram") } else { Answer::Ok });
    assert_eq!((delivered.len(), dead), (999, vec![700]));
    let mut delivery = Delivery::new(1000, 1000, false);
    for _ in 0..500 {
        let outcomes = delivery.take_answer(fail("the disk is full"), 0.5);
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Outcome::Wait { reason: WaitReason::Failing, .. }))
        );
    }
    let mut delivered = BTreeSet::new();
    while delivery.next_range().is_some() {
        for outcome in delivery.take_answer(Answer::Ok, 0.5) {
            if let Outcome::Delivered(records) = outcome {
                delivered.extend(records);
            }
        }
    }
    assert_eq!(delivered.len(), 1000, "nothing was given up");
    let mut single = Delivery::new(1, 1, true);
    for _ in 0..500 {
        assert!(matches!(single.take_answer(fail("no"), 0.5)[..], [Outcome::Wait { .. }]));
    }
}

#[test]
fn what_is_too_large_is_halved_and_a_single_record_that_is_too_large_is_dead() {
    let (delivered, dead, _) = send_all(100, |range| {
        if range.len() > 10 || range.contains(&42) {
            Answer::TooLarge { why: String::new() }
        } else {
            Answer::Ok
        }
    });
    assert_eq!((delivered.len(), dead), (99, vec![42]));
}

#[test]
fn a_wait_repeats_the_same_records_and_takes_as_long_as_the_server_asks() {
    let mut delivery = Delivery::new(10, 4, false);
    let (after, why) = (Some(Duration::from_secs(3)), "429".to_owned());
    let asked = Answer::Retry { after, why, of_content: false, in_doubt: false };
    let outcomes = delivery.take_answer(asked, 0.0);
    assert!(matches!(&outcomes[..], [Outcome::Wait { wait, .. }] if *wait == Duration::from_secs(3)));
    assert_eq!(delivery.next_range(), Some(0..4));
    for answer in [Answer::Auth { why: String::new() }, Answer::Gone { why: String::new() }] {
        assert!(matches!(delivery.take_answer(answer, 0.0)[..], [Outcome::Wait { .. }]));
        assert_eq!(delivery.next_range(), Some(0..4));
    }
    assert_eq!(delivery.take_answer(Answer::Ok, 0.0), [Outcome::Delivered(0..4)]);
    assert_eq!(delivery.next_range(), Some(4..8));
}

#[test]
fn a_suspect_that_goes_on_failing_is_dead_and_holds_up_nothing() {
    let mut delivery = Delivery::of_suspects([3..4, 7..8]);
    let mut dead = Vec::new();
    for _ in 0..5 {
        for outcome in delivery.take_answer(fail("label name is not unique"), 0.0) {
            if let Outcome::Dead { records, .. } = outcome {
                dead.push(records);
            }
        }
    }
    assert_eq!((dead.pop(), dead.len(), delivery.next_range()), (Some(3..4), 0, Some(7..8)));
    assert_eq!(delivery.take_answer(Answer::Ok, 0.0), [Outcome::Delivered(7..8)]);
}

#[test]
fn what_was_refused_in_part_or_not_understood_is_not_sent_again_as_it_was() {
    let mut delivery = Delivery::with_parts([0..3, 3..5], 10, false);
    assert!(delivery.take_answer(Answer::Unspoken { why: String::new() }, 0.0).is_empty());
    assert_eq!(delivery.next_range(), Some(0..3), "the same records, in another version");
    let partly = Answer::Partly { refused: 1, why: "old".to_owned() };
    let expected = Outcome::Partly { records: 0..3, refused: 1, why: "old".to_owned() };
    assert_eq!(delivery.take_answer(partly, 0.0), [expected]);
    assert_eq!(delivery.next_range(), Some(3..5));
}

proptest! {
    #[test]
    fn one_bad_series_of_ten_thousand_costs_at_most_thirty_requests(bad in 0_usize..10_000, records in 2_usize..=10_000) {
        let bad = bad % records;
        let (delivered, dead, requests) =
            send_all(records, |range| if range.contains(&bad) { reject() } else { Answer::Ok });
        prop_assert_eq!(dead, [bad]);
        prop_assert_eq!(delivered.len(), records - 1);
        prop_assert!(requests <= 30, "{}", requests);
    }

    #[test]
    fn every_record_ends_once_whatever_is_answered(answers in proptest::collection::vec(0_u8..8, 0..400), records in 1_usize..300) {
        let mut answers = answers.into_iter();
        let (mut delivered, dead, _) = send_all(records, |_| match answers.next() {
            None | Some(0 | 1) => Answer::Ok,
            Some(2) => reject(),
            Some(3) => fail("same"),
            Some(4) => Answer::Auth { why: String::new() },
            Some(5) => Answer::TooLarge { why: String::new() },
            Some(6) => Answer::Unspoken { why: String::new() },
            Some(_) => {
                let why = "unreachable".to_owned();
                Answer::Retry { after: None, why, of_content: false, in_doubt: false }
            }
        });
        delivered.extend(dead);
        delivered.sort_unstable();
        // A search that was given up sends again what was accepted in it.
        delivered.dedup();
        prop_assert_eq!(delivered, (0..records).collect::<Vec<_>>());
    }
}
