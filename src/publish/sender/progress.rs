//! How far a cut is sent, and what became of its records. Holds no windows.

use std::collections::BTreeSet;
use std::ops::Range;

use tokio::time::Instant;

use super::cut::Cut;
use super::share::{PreparedRequest, ShareWait, WorkerShare};
use crate::model::Timestamp;
use crate::publish::answer::Answer;
use crate::publish::cursor_file::SendingRound;
use crate::publish::parcel::Parcel;
use crate::publish::round::CutRecords;
use crate::publish::sinks::RoundStage;
use crate::publish::split::Outcome;
use crate::publish::tally::{EXPIRED, Fate, LATE, RecordTally, RoundTally, TOO_OLD};
use crate::render::publish::EncodedRequest;

/// How far a cut is sent.
#[derive(Debug, Default)]
pub(super) struct CutProgress {
    /// The starts of the rounds that are finished.
    finished: BTreeSet<Timestamp>,
    current: Option<CurrentBatch>,
    /// The server has asked for no request before the end of this wait. It outlasts the batch and the cut.
    hold: Option<ShareWait>,
    /// What became of records outside the current batch.
    tally: RecordTally,
    counted: bool,
    /// Whether a request was accepted; `None` while none was answered.
    accepted: Option<bool>,
    /// Whether the backend may have some of the cut.
    may_have_arrived: bool,
    newest_start: Option<Timestamp>,
    newest_end: Option<Timestamp>,
}

/// The batch that is being sent. Its records have the numbers of the workers' parcels, one after the other.
#[derive(Debug)]
struct CurrentBatch {
    heading: BatchHeading,
    /// Of its records: after it was read again some may be gone.
    keys: Vec<u64>,
    tally: RoundTally,
    /// One for each worker.
    shares: Vec<WorkerShare>,
}

/// Which batch it is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct BatchHeading {
    pub(super) start: Timestamp,
    /// How it is noted while it is sent.
    pub(super) sending: SendingRound,
    /// Answers that have another number are those of a batch that was begun anew.
    pub(super) number: u64,
}

/// How the requests of a batch begin.
#[derive(Copy, Clone, Debug)]
pub(super) struct RequestRules {
    /// The most records of a request.
    pub(super) most: usize,
    /// Whether the backend has accepted something lately.
    pub(super) trusted: bool,
}

impl CutProgress {
    /// Nothing is sent yet, of a cut or of the one before it that the server has asked to wait after.
    pub(super) fn with_hold(hold: Option<ShareWait>) -> Self {
        Self { hold, ..Self::default() }
    }

    /// The wait that the server has asked for, for whatever is sent next.
    pub(super) fn take_hold(&mut self) -> Option<ShareWait> {
        self.hold.take()
    }

    /// Counts, once, records of the cut that are not sent.
    pub(super) fn count_unsent(&mut self, records: &CutRecords<'_>, sent_before: u64) {
        if !std::mem::replace(&mut self.counted, true) {
            self.tally.excluded += records.excluded;
            self.tally.add(Fate::Dropped(LATE), records.late);
            self.tally.sent_before += sent_before;
        }
    }

    /// Whether the round with this start is finished.
    pub(super) fn is_finished(&self, start: Timestamp) -> bool {
        self.finished.contains(&start)
    }

    fn room(&self, RequestRules { most, trusted }: RequestRules) -> (usize, bool) {
        (most, trusted || self.accepted == Some(true))
    }

    /// Begins a batch, or goes on with it if it still has the same records. Of one that has lost some, what is settled stays so
    /// and is not sent again: a merged record without its part in a lost window would replace the whole.
    pub(super) fn begin_batch(&mut self, heading: BatchHeading, parcels: &[Parcel<'_>], rules: RequestRules) {
        let keys: Vec<_> = parcels.iter().flat_map(Parcel::record_keys).collect();
        if self.current.as_ref().is_some_and(|it| it.heading.start == heading.start && it.keys == keys) {
            return;
        }
        let mut tally = RoundTally::new(parcels.iter().flat_map(Parcel::record_places).copied());
        if let Some(before) = self.current.take() {
            let gone = match before.heading.start == heading.start {
                true => tally.carry_settled(&keys, &before.tally, &before.keys),
                // Everything of that batch is gone.
                false => before.tally.settled_records(),
            };
            self.tally.merge(&gone);
        }
        let (mut shares, mut first) = (Vec::new(), 0);
        for parcel in parcels {
            let groups = unsettled_groups(&tally, first, parcel.group_ranges());
            shares.push(WorkerShare::new(parcel, first, groups, self.room(rules)));
            first += parcel.record_places().len();
        }
        self.current = Some(CurrentBatch { heading, keys, tally, shares });
    }

    /// Gives up records that are too old by now: ranges of each parcel. If some of the batch are sent, a worker whose request is
    /// under way keeps its records until it is answered: they may be delivered, and the others in it are not to be sent twice.
    pub(super) fn drop_old(&mut self, old: &[Vec<Range<usize>>], is_sent: bool, rules: RequestRules) {
        let room = self.room(rules);
        let Some(CurrentBatch { tally, shares, .. }) = &mut self.current else { return };
        for (share, ranges) in shares.iter_mut().zip(old) {
            let of_batch = |range: &Range<usize>| share.first + range.start..share.first + range.end;
            let is_left = |range: &Range<usize>| !tally.unsettled_ranges(of_batch(range)).is_empty();
            if !ranges.iter().any(is_left) || (is_sent && share.is_under_way()) {
                continue;
            }
            ranges.iter().for_each(|range| tally.settle_records(of_batch(range), Fate::Dropped(TOO_OLD)));
            let groups = unsettled_groups(tally, share.first, std::mem::take(&mut share.groups));
            share.restrict_to(groups, room);
        }
    }

    /// What a worker has to have encoded for its next request.
    pub(super) fn next_to_encode(
        &mut self,
        worker: usize,
        rules: RequestRules,
    ) -> Option<(RoundStage, Range<usize>)> {
        let room = self.room(rules);
        self.current.as_mut()?.shares.get_mut(worker)?.next_to_encode(room)
    }

    /// Takes the requests for what a worker had to have encoded, each of at most `room` bytes.
    pub(super) fn take_encoded(&mut self, worker: usize, requests: Vec<EncodedRequest>, room: usize) {
        let share = self.current.as_mut().and_then(|current| current.shares.get_mut(worker));
        let Some(share) = share else { return };
        let outcomes = share.take_encoded(requests, room);
        // A search that ends here has nothing to wait for.
        let _no_wait = self.settle_outcomes(worker, outcomes);
    }

    /// Takes the requests that can be sent at this time, at most one for each worker, and whether each is a repeat.
    pub(super) fn begin_requests(&mut self, now: Instant) -> Vec<(usize, PreparedRequest, bool)> {
        if self.is_on_hold(now) {
            return Vec::new();
        }
        let Some(current) = &mut self.current else { return Vec::new() };
        let shares = current.shares.iter_mut().enumerate();
        let begun = shares.filter_map(|(worker, share)| {
            let (request, is_repeat) = share.begin_request(now)?;
            Some((worker, request, is_repeat))
        });
        begun.collect()
    }

    /// What the answer to a worker's request leads to: the wait, where there is one, and whether requests have to be smaller.
    pub(super) fn take_answer(
        &mut self,
        (worker, number): (usize, u64),
        request: PreparedRequest,
        answer: Answer,
        (random, now): (f64, Instant),
    ) -> Vec<Outcome> {
        let accepts = matches!(answer, Answer::Ok | Answer::Partly { .. });
        self.accepted = Some(accepts || self.accepted == Some(true));
        self.may_have_arrived |= answer.may_have_arrived();
        let asks = matches!(answer, Answer::Retry { after: Some(_), .. });
        let Some(current) = self.current.as_mut().filter(|current| current.heading.number == number) else {
            return Vec::new();
        };
        let Some(share) = current.shares.get_mut(worker) else { return Vec::new() };
        let outcomes = share.take_answer(request, answer, (random, now));
        if asks {
            // It is the server that is busy, whichever worker asks.
            let asked = share.current_wait().cloned();
            self.hold = self.hold.take().into_iter().chain(asked).max_by_key(|wait| wait.until);
        }
        self.settle_outcomes(worker, outcomes)
    }

    /// Notes what became of records of a worker. Returns the other outcomes.
    fn settle_outcomes(&mut self, worker: usize, outcomes: Vec<Outcome>) -> Vec<Outcome> {
        let Some(CurrentBatch { tally, shares, .. }) = &mut self.current else { return outcomes };
        let Some(share) = shares.get_mut(worker) else { return outcomes };
        let (stage, first) = (share.current_stage(), share.first);
        let of_batch = |range: &Range<usize>| first + range.start..first + range.end;
        let mut rest = Vec::new();
        for outcome in outcomes {
            match (outcome, stage) {
                (other @ (Outcome::Shrink | Outcome::Wait { .. }), _) => rest.push(other),
                (Outcome::Dead { records, .. }, RoundStage::Zeros) => share.suspect_records(records),
                (Outcome::Delivered(_) | Outcome::Partly { .. }, RoundStage::Zeros) => {}
                (Outcome::Delivered(records), _) => tally.settle_records(of_batch(&records), Fate::Delivered),
                (Outcome::Dead { records, why }, _) => share.refuse_records(records, why),
                (Outcome::Partly { records, refused, why }, _) => {
                    tally.settle_partly(of_batch(&records), refused);
                    rest.push(Outcome::Partly { records, refused, why });
                }
            }
        }
        rest
    }

    /// Takes the records of a worker that were refused.
    pub(super) fn take_dead(&mut self, worker: usize) -> Vec<(Range<usize>, String)> {
        let share = self.current.as_mut().and_then(|current| current.shares.get_mut(worker));
        share.map(WorkerShare::take_dead).unwrap_or_default()
    }

    /// Settles what became of records of a worker.
    pub(super) fn settle_records(&mut self, worker: usize, records: Range<usize>, fate: Fate) {
        if let Some(CurrentBatch { tally, shares, .. }) = &mut self.current
            && let Some(share) = shares.get(worker)
        {
            tally.settle_records(share.first + records.start..share.first + records.end, fate);
        }
    }

    /// Whether nothing is left of the batch.
    pub(super) fn is_batch_sent(&self) -> bool {
        !self.shares().any(WorkerShare::has_more)
    }

    /// Whether no worker goes on before a wait is over or a repeated request is answered.
    pub(super) fn is_held_up(&self, now: Instant) -> bool {
        let may_start = !self.is_on_hold(now);
        !self.shares().any(|share| share.goes_on(may_start))
    }

    /// Whether a worker could go on if the batch was in hand.
    pub(super) fn needs_batch(&self, now: Instant) -> bool {
        !self.is_on_hold(now) && self.shares().any(WorkerShare::needs_records)
    }

    /// Whether a worker has a request that can be sent now.
    pub(super) fn may_repeat(&self, now: Instant) -> bool {
        !self.is_on_hold(now) && self.shares().any(WorkerShare::has_request)
    }

    /// The wait that ends first, at the time at which a request may be sent again.
    pub(super) fn next_wait(&self) -> Option<ShareWait> {
        let first = self.shares().filter_map(WorkerShare::current_wait).min_by_key(|wait| wait.until);
        // No worker waits of itself at the beginning of a batch.
        first.into_iter().chain(&self.hold).max_by_key(|wait| wait.until).cloned()
    }

    /// Ends the waits that are over at this time; all of them, if there is no time to wait.
    pub(super) fn end_waits(&mut self, now: Option<Instant>) {
        if now.is_none_or(|now| !self.is_on_hold(now)) {
            self.hold = None;
        }
        let Some(current) = &mut self.current else { return };
        for share in &mut current.shares {
            if let Some(until) = now.or_else(|| share.current_wait().map(|wait| wait.until)) {
                share.end_wait(until);
            }
        }
    }

    fn is_on_hold(&self, now: Instant) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.until > now)
    }

    fn shares(&self) -> impl Iterator<Item = &WorkerShare> {
        self.current.iter().flat_map(|current| &current.shares)
    }

    /// Drops all requests but the next of each worker.
    pub(super) fn keep_next_requests(&mut self) {
        let shares = self.current.iter_mut().flat_map(|current| &mut current.shares);
        shares.for_each(WorkerShare::keep_next_request);
    }

    /// Drops requests and waits, for a task that goes on with the cut.
    pub(super) fn start_over(&mut self) {
        self.hold = None;
        let Some(current) = &mut self.current else { return };
        current.shares.iter_mut().for_each(WorkerShare::start_over);
    }

    /// The batch that is being sent.
    pub(super) fn batch_heading(&self) -> Option<BatchHeading> {
        self.current.as_ref().map(|current| current.heading)
    }

    /// Is done with the rounds of the batch, which start and end at these times.
    pub(super) fn finish_batch(&mut self, rounds: impl Iterator<Item = (Timestamp, Timestamp)>) {
        if let Some(current) = self.current.take() {
            self.tally.merge(&current.tally.settled_records());
        }
        for (start, end) in rounds {
            self.finished.insert(start);
            self.newest_start = self.newest_start.max(Some(start));
            self.newest_end = self.newest_end.max(Some(end));
        }
    }

    /// Whether the backend may have some of the cut.
    pub(super) fn may_have_arrived(&self) -> bool {
        self.may_have_arrived
    }

    /// Whether a request of the cut was accepted; `None` if none was answered.
    pub(super) fn is_accepted(&self) -> Option<bool> {
        self.accepted
    }

    /// The start of the newest round.
    pub(super) fn newest_start(&self) -> Option<Timestamp> {
        self.newest_start
    }

    /// The end of the newest round.
    pub(super) fn newest_end(&self) -> Option<Timestamp> {
        self.newest_end
    }

    /// What became of the records of the cut. Those that were gone before they could be sent are lost, `reason` is why those that
    /// the publisher had in hand before are.
    pub(super) fn finish_tally(&self, cut: &Cut, reason: &'static str) -> RecordTally {
        let mut tally = self.tally.clone();
        if let Some(current) = &self.current {
            tally.merge(&current.tally.settled_records());
        }
        tally.add(Fate::Dropped(reason), cut.records.saturating_sub(tally.sum()));
        tally.add(Fate::Dropped(EXPIRED), cut.missed);
        tally
    }
}

/// The parts of ranges of a parcel that are not settled.
fn unsettled_groups(tally: &RoundTally, first: usize, groups: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let unsettled = |group: Range<usize>| tally.unsettled_ranges(first + group.start..first + group.end);
    let of_parcel = |range: Range<usize>| range.start.saturating_sub(first)..range.end.saturating_sub(first);
    groups.into_iter().flat_map(unsettled).map(of_parcel).collect()
}

#[cfg(test)]
mod tests;
