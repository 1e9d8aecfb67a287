//! What is still to be sent of a round, and what an answer changes about it: repeats, halving, and the search for the series
//! that a backend refuses.
//!
//! A request that is refused is divided until the refused series stands alone; every other series arrives. One bad series
//! among 10,000 costs at most 29 requests. Records are indices here, times and chance are arguments.

mod search;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use self::search::{Search, SearchState};
use super::answer::Answer;
use super::backoff::Backoff;

/// After how many failures with one text a search begins for the series that may cause them.
const SAME_FAILURES: u32 = 5;
/// The shortest wait for an operator to change something.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);

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
            Some(search) => search.next_range(),
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
                search.replace_next(parts);
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
            search.count_request();
        }
        match answer {
            Answer::Ok => {
                self.accept_next();
                outcomes.push(Outcome::Delivered(range));
            }
            Answer::Partly { refused, why } => {
                self.accept_next();
                outcomes.push(Outcome::Partly { records: range, refused, why });
            }
            // The same records are written in another version.
            Answer::Unspoken { .. } => {}
            Answer::Retry { after, why, of_content, .. } => {
                let is_searching = self.search.is_some();
                if of_content
                    && let Some(search) = self.search.as_mut().filter(|search| search.is_by_failures())
                {
                    search.refuse_next(range, why);
                } else if of_content && !is_searching && self.count_failure(&why) && range.len() > 1 {
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
                match (&mut self.search, range.len()) {
                    (None, 0 | 1) => {
                        self.remove_next();
                        outcomes.push(Outcome::Dead { records: range, why });
                    }
                    (None, _) => self.begin_search(range, why, false),
                    (Some(search), _) => search.refuse_next(range, why),
                }
            }
        }
        self.end_search(&mut outcomes, random);
        outcomes
    }

    /// Notes that the backend takes something.
    fn accept_next(&mut self) {
        self.backoff.start_over();
        self.failures = None;
        if let Some(search) = &mut self.search {
            search.accept();
        }
        self.remove_next();
    }

    fn remove_next(&mut self) {
        match &mut self.search {
            Some(search) => search.replace_next(std::iter::empty()),
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
        self.search = Some(Search::begin_in(range, why, by_failures));
    }

    /// Ends the search if it has sent everything, or if it is of no use.
    fn end_search(&mut self, outcomes: &mut Vec<Outcome>, random: f64) {
        let Some(search) = self.search.take() else { return };
        match search.try_end(self.trusted) {
            SearchState::GoesOn(search) => self.search = Some(search),
            SearchState::Found(found) => {
                outcomes.extend(found.into_iter().map(|(records, why)| Outcome::Dead { records, why }));
            }
            SearchState::InVain { whole, why, reason } => {
                let wait = self.backoff.next_wait(random).max(SHORTEST_HOLD);
                self.rest.push(whole);
                outcomes.push(Outcome::Wait { wait, reason, why });
            }
        }
    }
}

/// Both halves of a range; `None` if it cannot be divided.
fn halve(range: &Range<usize>) -> Option<[Range<usize>; 2]> {
    let middle = range.start + range.len() / 2;
    (range.len() > 1).then_some([range.start..middle, middle..range.end])
}
