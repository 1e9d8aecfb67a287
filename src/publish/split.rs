//! What is still to be sent of a round, and what an answer changes about it: repeats, halving, and the search for the series
//! that a backend refuses.
//!
//! A request that is refused is divided until the refused series stands alone; every other series arrives. One bad series
//! among 10,000 costs at most 29 requests. Records are indices here, times and chance are arguments.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::answer::Answer;
use super::backoff::Backoff;

/// Requests of a search, before any culprit is found.
const SEARCH_REQUESTS: u32 = 32;
/// Further requests for each culprit.
const REQUESTS_PER_CULPRIT: u32 = 26;
/// Requests of a search, at most: a backend that refuses thousands of series is not asked thousands of times.
const MOST_REQUESTS: u32 = 256;
/// After how many failures with one text a search begins for the series that may cause them.
const SAME_FAILURES: u32 = 5;
/// Requests of a search after failures, while none is accepted: then the backend fails, not a series.
const FAILING_REQUESTS: u32 = 6;

/// The records of a round that are still to be sent.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    /// Beside the search; the next is last.
    rest: Vec<Range<usize>>,
    search: Option<Search>,
    backoff: Backoff,
    /// The text of the last failure, and how often it came.
    failures: Option<(String, u32)>,
    /// Whether the backend has accepted something lately, so that what it refuses is refused for what it says.
    trusted: bool,
    /// Whether the records were refused before where others were accepted, so that they are the cause of failures.
    suspected: bool,
}

/// What an answer leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// These records arrived.
    Delivered(Range<usize>),
    /// These records arrived but for some of them; it is not known which.
    Partly {
        /// Which.
        records: Range<usize>,
        /// How many did not.
        refused: u64,
        /// What the backend said.
        why: String,
    },
    /// These records were refused for good.
    Dead {
        /// Which.
        records: Range<usize>,
        /// What the backend said.
        why: String,
    },
    /// Requests are to be half as large from now on.
    Shrink,
    /// Nothing is sent for this long.
    Wait {
        /// How long.
        wait: Duration,
        /// Why.
        reason: WaitReason,
        /// What the backend said.
        why: String,
    },
}

/// Why a publisher waits.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum WaitReason {
    /// The backend, or the way to it, fails.
    Failing,
    /// It does not admit this client.
    Auth,
    /// It does not have the place that records go to.
    Gone,
    /// It refuses everything that it is sent.
    Refusing,
}

/// The search for what a backend refuses.
#[derive(Clone, Debug)]
struct Search {
    whole: Range<usize>,
    /// Breadth first: one culprit shows in the second answer, because the other half is accepted.
    queue: VecDeque<Range<usize>>,
    /// Whether it began with failures, whose cause may be the backend itself.
    by_failures: bool,
    /// The answer that began it.
    why: String,
    requests: u32,
    accepted: bool,
    /// Culprits that stand alone.
    found: Vec<(Range<usize>, String)>,
    /// No part is divided any more.
    exhausted: bool,
}

impl Delivery {
    /// All of this many records, in parts of at most `most`. `trusted` says whether the backend has accepted something lately:
    /// if not, and it refuses everything, nothing is given up.
    #[must_use]
    pub(super) fn new(records: usize, most: usize, trusted: bool) -> Self {
        Self::with_parts(std::iter::once(0..records), most, trusted)
    }

    /// These ranges of records, one after the other, in parts of at most `most`.
    #[must_use]
    pub(super) fn with_parts(
        ranges: impl IntoIterator<Item = Range<usize>>,
        most: usize,
        trusted: bool,
    ) -> Self {
        let most = most.max(1);
        let divide = |Range { start, end }: Range<usize>| {
            (start..end).step_by(most).map(move |start| start..end.min(start + most))
        };
        let mut rest: Vec<_> = ranges.into_iter().flat_map(divide).collect();
        rest.reverse();
        let backoff = Backoff::default();
        Self { rest, search: None, backoff, failures: None, trusted, suspected: false }
    }

    /// These records, each alone, which were found to be refused before.
    #[must_use]
    pub(super) fn of_suspects(records: impl IntoIterator<Item = Range<usize>>) -> Self {
        Self { suspected: true, ..Self::with_parts(records, 1, true) }
    }

    /// The records that are sent next; `None` if nothing is left.
    #[must_use]
    pub(super) fn next_range(&self) -> Option<Range<usize>> {
        match &self.search {
            Some(search) => search.queue.front().cloned(),
            None => self.rest.last().cloned(),
        }
    }

    /// Replaces the next range by these parts of it: by none where nothing in it can be sent, by several where it is too
    /// large for one request.
    pub(super) fn replace_next(
        &mut self,
        parts: impl DoubleEndedIterator<Item = Range<usize>>,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        match &mut self.search {
            Some(search) => {
                search.queue.pop_front();
                parts.rev().for_each(|part| search.queue.push_front(part));
                self.end_search(&mut outcomes, 0.0);
            }
            None => {
                self.rest.pop();
                self.rest.extend(parts.rev());
            }
        }
        outcomes
    }

    /// What the answer to the request for [`Self::next_range`] leads to. `random` is in `[0, 1)`.
    pub(super) fn take_answer(&mut self, answer: Answer, random: f64) -> Vec<Outcome> {
        let Some(range) = self.next_range() else { return Vec::new() };
        let mut outcomes = Vec::new();
        if let Some(search) = &mut self.search {
            search.requests += 1;
        }
        match answer {
            Answer::Ok => {
                self.backoff.start_over();
                self.failures = None;
                if let Some(search) = &mut self.search {
                    search.accepted = true;
                }
                self.remove_next();
                outcomes.push(Outcome::Delivered(range));
            }
            Answer::Partly { refused, why } => {
                self.backoff.start_over();
                self.failures = None;
                if let Some(search) = &mut self.search {
                    search.accepted = true;
                }
                self.remove_next();
                outcomes.push(Outcome::Partly { records: range, refused, why });
            }
            // The same records are written in another version.
            Answer::Unspoken { .. } => {}
            Answer::Retry { after, why, of_content, .. } => {
                let searched = self.search.as_ref().map(|search| search.by_failures);
                if of_content && searched == Some(true) {
                    self.refuse_next(range, why);
                } else if of_content && searched.is_none() && self.count_failure(&why) && range.len() > 1 {
                    self.begin_search(range, why, true);
                } else if of_content && self.suspected && self.has_failed_often() {
                    self.remove_next();
                    outcomes.push(Outcome::Dead { records: range, why });
                } else {
                    let wait = self.backoff.next_asked(random, after);
                    outcomes.push(Outcome::Wait { wait, reason: WaitReason::Failing, why });
                }
            }
            Answer::Auth { why } => {
                let wait = self.backoff.next_wait(random).max(SHORTEST_HOLD);
                outcomes.push(Outcome::Wait { wait, reason: WaitReason::Auth, why });
            }
            Answer::Gone { why } => {
                let wait = self.backoff.next_wait(random).max(SHORTEST_HOLD);
                outcomes.push(Outcome::Wait { wait, reason: WaitReason::Gone, why });
            }
            Answer::TooLarge { why } => {
                self.backoff.start_over();
                outcomes.push(Outcome::Shrink);
                match halve(&range) {
                    Some(halves) => outcomes.extend(self.replace_next(halves.into_iter())),
                    None => {
                        self.remove_next();
                        outcomes.push(Outcome::Dead { records: range, why });
                    }
                }
            }
            Answer::Reject { why } => {
                self.backoff.start_over();
                match (&self.search, range.len()) {
                    (None, 0 | 1) => {
                        self.remove_next();
                        outcomes.push(Outcome::Dead { records: range, why });
                    }
                    (None, _) => self.begin_search(range, why, false),
                    (Some(_), _) => self.refuse_next(range, why),
                }
            }
        }
        self.end_search(&mut outcomes, random);
        outcomes
    }

    fn remove_next(&mut self) {
        match &mut self.search {
            Some(search) => drop(search.queue.pop_front()),
            None => drop(self.rest.pop()),
        }
    }

    /// Counts a failure. Returns whether it is one of several with the same text.
    fn count_failure(&mut self, why: &str) -> bool {
        let times = match &self.failures {
            Some((text, times)) if text == why => times + 1,
            _ => 1,
        };
        let again = times >= SAME_FAILURES;
        // A search that has found nothing begins again only after as many failures.
        self.failures = Some((why.to_owned(), if again { 0 } else { times }));
        again
    }

    /// Whether the last failure is one of several with the same text.
    fn has_failed_often(&self) -> bool {
        self.failures.as_ref().is_some_and(|(_, times)| *times == 0)
    }

    fn begin_search(&mut self, range: Range<usize>, why: String, by_failures: bool) {
        self.rest.pop();
        self.search = Some(Search {
            queue: halve(&range).into_iter().flatten().collect(),
            whole: range,
            by_failures,
            why,
            requests: 0,
            accepted: false,
            found: Vec::new(),
            exhausted: false,
        });
    }

    /// Divides a part of the search that was refused, or notes it as found.
    fn refuse_next(&mut self, range: Range<usize>, why: String) {
        let Some(search) = &mut self.search else { return };
        search.queue.pop_front();
        match halve(&range).filter(|_| !search.exhausted) {
            Some(halves) => search.queue.extend(halves),
            None => search.found.push((range, why)),
        }
    }

    /// Ends the search if it has sent everything, or if it is of no use.
    fn end_search(&mut self, outcomes: &mut Vec<Outcome>, random: f64) {
        let Some(search) = &mut self.search else { return };
        let culprits = u32::try_from(search.count_culprits()).unwrap_or(u32::MAX);
        let most =
            SEARCH_REQUESTS.saturating_add(culprits.saturating_mul(REQUESTS_PER_CULPRIT)).min(MOST_REQUESTS);
        search.exhausted |= search.requests >= most;
        let useless = match search.by_failures {
            true => !search.accepted && search.requests >= FAILING_REQUESTS,
            false => !search.accepted && search.exhausted && !self.trusted,
        };
        let finished = search.queue.is_empty();
        if !finished && !useless {
            return;
        }
        let Some(search) = self.search.take() else { return };
        if useless || search.by_failures && !search.accepted {
            // Nothing shows that a series is the cause.
            let wait = self.backoff.next_wait(random).max(SHORTEST_HOLD);
            let reason = if search.by_failures { WaitReason::Failing } else { WaitReason::Refusing };
            self.rest.push(search.whole);
            outcomes.push(Outcome::Wait { wait, reason, why: search.why });
            return;
        }
        let dead = search.found.into_iter();
        outcomes.extend(dead.map(|(records, why)| Outcome::Dead { records, why }));
    }
}

impl Search {
    /// The fewest culprits that can explain the answers: those that stand alone, and one in each pair of halves that are to be
    /// sent. Zero while nothing was accepted: then the backend may refuse everything.
    fn count_culprits(&self) -> usize {
        if self.accepted { self.found.len() + self.queue.len() / 2 } else { 0 }
    }
}

/// The shortest wait for an operator to change something.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);

/// Both halves of a range; `None` if it cannot be divided.
fn halve(range: &Range<usize>) -> Option<[Range<usize>; 2]> {
    let middle = range.start + range.len() / 2;
    (range.len() > 1).then_some([range.start..middle, middle..range.end])
}

#[cfg(test)]
mod tests {
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
}
