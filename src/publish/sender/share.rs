//! What is left of a worker's share of a batch, and the one request of it that is under way.
//!
//! A worker sends its next request when the one before is answered, so the samples of a series arrive in order. Records have the
//! numbers of the worker's parcel.

use std::collections::VecDeque;
use std::ops::Range;

use tokio::time::Instant;

use crate::publish::answer::Answer;
use crate::publish::parcel::Parcel;
use crate::publish::sinks::RoundStage;
use crate::publish::split::{Delivery, Outcome, WaitReason};
use crate::render::publish::EncodedRequest;

/// The most records that are taken for the cause of refused zeros.
const MOST_SUSPECTS: usize = 16;

/// What is left of a worker's share of a batch.
#[derive(Debug)]
pub(super) struct WorkerShare {
    /// The number of its first record in the batch.
    pub(super) first: usize,
    /// Ranges of its records that can be in one request.
    pub(super) groups: Vec<Range<usize>>,
    stage: RoundStage,
    delivery: Delivery,
    /// Records whose zeros were refused.
    suspects: Vec<Range<usize>>,
    /// Records that were refused and are not kept yet, because their batch was not in hand.
    dead: Vec<(Range<usize>, String)>,
    /// Requests for what is left to send, the next first.
    requests: VecDeque<PreparedRequest>,
    state: ShareState,
    /// Whether the last answer asked for a wait.
    fails: bool,
}

/// A request that can be sent.
#[derive(Debug)]
pub(super) struct PreparedRequest {
    pub(super) request: EncodedRequest,
    /// The bytes that it may have, before it is compressed.
    pub(super) size: usize,
}

/// What a worker does.
#[derive(Debug)]
enum ShareState {
    Ready,
    /// Its request is not answered.
    UnderWay,
    Waiting(ShareWait),
}

/// Why a worker waits, and how long.
#[derive(Clone, Debug)]
pub(super) struct ShareWait {
    pub(super) until: Instant,
    pub(super) reason: WaitReason,
    pub(super) why: String,
}

impl WorkerShare {
    /// For these records of a parcel, whose first has this number in the batch.
    pub(super) fn new(
        parcel: &Parcel<'_>,
        first: usize,
        groups: Vec<Range<usize>>,
        (most, trusted): (usize, bool),
    ) -> Self {
        let stage = if parcel.begins_series() { RoundStage::Zeros } else { RoundStage::Records };
        Self {
            first,
            stage,
            delivery: Delivery::with_parts(groups.iter().cloned(), most, trusted),
            groups,
            suspects: Vec::new(),
            dead: Vec::new(),
            requests: VecDeque::new(),
            state: ShareState::Ready,
            fails: false,
        }
    }

    /// Sends only these ranges from now on: the others are given up.
    pub(super) fn restrict_to(&mut self, groups: Vec<Range<usize>>, (most, trusted): (usize, bool)) {
        self.delivery = Delivery::with_parts(groups.iter().cloned(), most, trusted);
        self.groups = groups;
        self.requests.clear();
    }

    /// The stage that its answers concern.
    pub(super) fn current_stage(&self) -> RoundStage {
        self.stage
    }

    /// What has to be encoded for the next request. `None` while one is under way or prepared, or if nothing is left.
    pub(super) fn next_to_encode(&mut self, room: (usize, bool)) -> Option<(RoundStage, Range<usize>)> {
        if !matches!(self.state, ShareState::Ready) || !self.requests.is_empty() {
            return None;
        }
        loop {
            if let Some(range) = self.delivery.next_range() {
                return Some((self.stage, range));
            }
            match self.stage {
                RoundStage::Zeros => self.begin_records(room),
                RoundStage::Records => self.begin_suspects(),
                RoundStage::Suspects => return None,
            }
        }
    }

    /// Takes the requests for what had to be encoded.
    pub(super) fn take_encoded(&mut self, requests: Vec<EncodedRequest>, room: usize) -> Vec<Outcome> {
        let outcomes = self.delivery.replace_next(requests.iter().map(|request| request.records.clone()));
        let prepare = |request: EncodedRequest| {
            // The bytes of a compressed body are not known.
            let bytes = if request.content_encoding.is_some() { usize::MAX } else { request.body.len() };
            PreparedRequest { request, size: bytes.min(room) }
        };
        self.requests = requests.into_iter().map(prepare).collect();
        self.drop_outdated();
        outcomes
    }

    /// Takes the next request, to be sent at this time. Returns it, and whether it is a repeat.
    pub(super) fn begin_request(&mut self, now: Instant) -> Option<(PreparedRequest, bool)> {
        self.end_wait(now);
        if !matches!(self.state, ShareState::Ready) {
            return None;
        }
        let request = self.requests.pop_front()?;
        self.state = ShareState::UnderWay;
        Some((request, self.fails))
    }

    /// What the answer to its request leads to. A request that has to be repeated is kept.
    pub(super) fn take_answer(
        &mut self,
        request: PreparedRequest,
        answer: Answer,
        (random, now): (f64, Instant),
    ) -> Vec<Outcome> {
        if self.delivery.next_range().as_ref() != Some(&request.request.records) {
            // The records were given up meanwhile, because they are too old.
            (self.state, self.fails) = (ShareState::Ready, false);
            return Vec::new();
        }
        let outcomes = self.delivery.take_answer(answer, random);
        let wait = outcomes.iter().find_map(|outcome| match outcome {
            Outcome::Wait { wait, reason, why } => {
                Some(ShareWait { until: now + *wait, reason: *reason, why: why.clone() })
            }
            _ => None,
        });
        self.fails = wait.is_some();
        if self.fails && self.delivery.next_range().as_ref() == Some(&request.request.records) {
            self.requests.push_front(request);
        }
        self.state = wait.map_or(ShareState::Ready, ShareState::Waiting);
        self.drop_outdated();
        outcomes
    }

    /// Drops requests that are for other records than those that are next.
    fn drop_outdated(&mut self) {
        let next = self.delivery.next_range();
        if self.requests.front().is_some_and(|front| Some(&front.request.records) != next.as_ref()) {
            self.requests.clear();
        }
    }

    /// Drops all requests but the next.
    pub(super) fn keep_next_request(&mut self) {
        self.requests.truncate(1);
        self.requests.shrink_to_fit();
    }

    /// Drops all requests and waits.
    pub(super) fn start_over(&mut self) {
        self.requests.clear();
        (self.state, self.fails) = (ShareState::Ready, false);
    }

    /// Ends a wait that is over at this time.
    pub(super) fn end_wait(&mut self, now: Instant) {
        if self.current_wait().is_some_and(|wait| wait.until <= now) {
            self.state = ShareState::Ready;
        }
    }

    /// The wait before its next request.
    pub(super) fn current_wait(&self) -> Option<&ShareWait> {
        match &self.state {
            ShareState::Waiting(wait) => Some(wait),
            ShareState::Ready | ShareState::UnderWay => None,
        }
    }

    /// Whether its request is not answered.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, ShareState::UnderWay)
    }

    /// Whether something is left to be sent, answered or kept.
    pub(super) fn has_more(&self) -> bool {
        let has_stage = match self.stage {
            RoundStage::Zeros => true,
            RoundStage::Records => !self.suspects.is_empty(),
            RoundStage::Suspects => false,
        };
        has_stage || self.is_under_way() || self.delivery.next_range().is_some() || !self.dead.is_empty()
    }

    /// Whether it could go on if its records were in hand.
    pub(super) fn needs_records(&self) -> bool {
        matches!(self.state, ShareState::Ready) && self.requests.is_empty() && self.has_more()
    }

    /// Whether it has a request that waits for nothing.
    pub(super) fn has_request(&self) -> bool {
        matches!(self.state, ShareState::Ready) && !self.requests.is_empty()
    }

    /// Whether it goes on, as far as its answers say. `may_start` says whether it may send something now.
    pub(super) fn goes_on(&self, may_start: bool) -> bool {
        let is_able = match self.state {
            ShareState::Ready => may_start && self.has_more(),
            ShareState::UnderWay => true,
            ShareState::Waiting(_) => false,
        };
        is_able && !self.fails
    }

    /// Notes records whose zeros were refused.
    pub(super) fn suspect_records(&mut self, records: Range<usize>) {
        self.suspects.push(records);
    }

    /// Notes records that were refused.
    pub(super) fn refuse_records(&mut self, records: Range<usize>, why: String) {
        self.dead.push((records, why));
    }

    /// Takes the records that were refused.
    pub(super) fn take_dead(&mut self) -> Vec<(Range<usize>, String)> {
        std::mem::take(&mut self.dead)
    }

    /// Goes on to the records. A few whose zeros were refused come last, so that they are not searched for again; many are refused
    /// for another reason than what they say.
    fn begin_records(&mut self, (most, trusted): (usize, bool)) {
        let is_known = self.suspects.len() <= MOST_SUSPECTS && self.suspects.iter().all(|it| it.len() == 1);
        self.suspects.retain(|_| is_known);
        self.suspects.sort_unstable_by_key(|records| records.start);
        let mut parts = Vec::new();
        for group in &self.groups {
            let mut start = group.start;
            for suspects in self.suspects.iter().filter(|suspects| group.contains(&suspects.start)) {
                parts.push(start..suspects.start);
                start = suspects.end;
            }
            parts.push(start..group.end);
        }
        self.stage = RoundStage::Records;
        self.delivery = Delivery::with_parts(parts, most, trusted);
    }

    fn begin_suspects(&mut self) {
        self.stage = RoundStage::Suspects;
        self.delivery = Delivery::of_suspects(self.suspects.drain(..));
    }
}
