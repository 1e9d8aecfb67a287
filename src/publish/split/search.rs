//! The search for the records that a backend refuses.

use std::collections::VecDeque;
use std::ops::Range;

use super::{WaitReason, halve};

/// Requests of a search, before any culprit is found.
const SEARCH_REQUESTS: u32 = 32;
/// Further requests for each culprit.
const REQUESTS_PER_CULPRIT: u32 = 26;
/// Requests of a search, at most: a backend that refuses thousands of series is not asked thousands of times.
const MOST_REQUESTS: u32 = 256;
/// Requests of a search after failures, while none is accepted: then the backend fails, not a series.
const FAILING_REQUESTS: u32 = 6;

/// The search for what a backend refuses.
#[derive(Clone, Debug)]
pub(super) struct Search {
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

/// What becomes of a search.
pub(super) enum SearchState {
    GoesOn(Search),
    /// Everything else is accepted.
    Found(Vec<(Range<usize>, String)>),
    /// Nothing shows that a series is the cause: everything is sent again later.
    InVain {
        whole: Range<usize>,
        /// What the backend said first.
        why: String,
        reason: WaitReason,
    },
}

impl Search {
    /// The search in records that were refused together.
    pub(super) fn begin_in(range: Range<usize>, why: String, by_failures: bool) -> Self {
        Self {
            queue: halve(&range).into_iter().flatten().collect(),
            whole: range,
            by_failures,
            why,
            requests: 0,
            accepted: false,
            found: Vec::new(),
            exhausted: false,
        }
    }

    pub(super) fn is_by_failures(&self) -> bool {
        self.by_failures
    }

    pub(super) fn next_range(&self) -> Option<Range<usize>> {
        self.queue.front().cloned()
    }

    pub(super) fn count_request(&mut self) {
        self.requests += 1;
    }

    /// Notes that the backend takes something, so that it refuses for what it is sent.
    pub(super) fn accept(&mut self) {
        self.accepted = true;
    }

    /// Replaces the next range by these parts of it.
    pub(super) fn replace_next(&mut self, parts: impl DoubleEndedIterator<Item = Range<usize>>) {
        self.queue.pop_front();
        parts.rev().for_each(|part| self.queue.push_front(part));
    }

    /// Divides the next range, which was refused, or notes it as found.
    pub(super) fn refuse_next(&mut self, range: Range<usize>, why: String) {
        self.queue.pop_front();
        match halve(&range).filter(|_| !self.exhausted) {
            Some(halves) => self.queue.extend(halves),
            None => self.found.push((range, why)),
        }
    }

    /// Ends if everything is sent, or if it is of no use. `trusted` says whether the backend has accepted something lately.
    pub(super) fn try_end(mut self, trusted: bool) -> SearchState {
        let culprits = u32::try_from(self.count_culprits()).unwrap_or(u32::MAX);
        let most =
            SEARCH_REQUESTS.saturating_add(culprits.saturating_mul(REQUESTS_PER_CULPRIT)).min(MOST_REQUESTS);
        self.exhausted |= self.requests >= most;
        let useless = match self.by_failures {
            true => !self.accepted && self.requests >= FAILING_REQUESTS,
            false => !self.accepted && self.exhausted && !trusted,
        };
        if !self.queue.is_empty() && !useless {
            return SearchState::GoesOn(self);
        }
        if useless || self.by_failures && !self.accepted {
            let reason = if self.by_failures { WaitReason::Failing } else { WaitReason::Refusing };
            return SearchState::InVain { whole: self.whole, why: self.why, reason };
        }
        SearchState::Found(self.found)
    }

    /// The fewest culprits that can explain the answers: those that stand alone, and one in each pair of halves that are to be
    /// sent. Zero while nothing was accepted: then the backend may refuse everything.
    fn count_culprits(&self) -> usize {
        if self.accepted { self.found.len() + self.queue.len() / 2 } else { 0 }
    }
}
