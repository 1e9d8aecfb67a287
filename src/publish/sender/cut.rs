//! One cut of the sequence: its rounds, what is left of them, and what became of their records.

use std::collections::BTreeSet;
use std::hash::{Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::{MOST_UNACCEPTED, PublisherTask};
use crate::model::{Origin, SeriesKey, Timestamp};
use crate::net::clock;
use crate::publish::answer::Answer;
use crate::publish::dead_letters::request_document;
use crate::publish::follow::TakenWindows;
use crate::publish::round::{CutRecords, IntervalRecords};
use crate::publish::sinks::RoundStage;
use crate::publish::split::{Delivery, Outcome, WaitReason};
use crate::publish::tally::{EXPIRED, Fate, LATE, RecordTally, RoundTally, TOO_OLD};
use crate::render::prometheus::Level;
use crate::render::publish::{Encoded, EncodedRequest, RequestRoom, Round, encode_json};
use crate::store::{Cursor, Published};
use crate::wire::DeadLetterDocument;

/// The most records that are taken for the cause of refused zeros.
const MOST_SUSPECTS: usize = 16;

/// A part of the sequence.
#[derive(Debug)]
pub(super) struct Cut {
    /// The cursor before it.
    pub(super) from: Cursor,
    /// The cursor after it.
    pub(super) to: Cursor,
    /// `None` once they were let go.
    windows: Option<Vec<Arc<Published>>>,
    /// The number of records in its windows.
    records: u64,
    /// Records that were missing when it was taken.
    missed: u64,
}

impl Cut {
    /// The windows that a publisher was handed out after a cursor.
    pub(super) fn new(from: Cursor, taken: TakenWindows) -> Self {
        let TakenWindows { windows, to, missed } = taken;
        let records = windows.iter().map(|published| published.window().len() as u64).sum();
        Self { from, to, windows: Some(windows), records, missed }
    }

    /// The same cut, whose windows are read again.
    pub(super) fn without_windows(self) -> Self {
        Self { windows: None, ..self }
    }
}

/// A request that was not accepted, and the wait before it is repeated.
#[derive(Debug)]
pub(super) struct StuckRequest {
    /// `None` if another request is next.
    pub(super) request: Option<EncodedRequest>,
    pub(super) wait: Duration,
    pub(super) reason: WaitReason,
    pub(super) why: String,
}

/// How far a cut is sent. Holds no windows.
#[derive(Debug, Default)]
pub(super) struct CutProgress {
    /// The starts of the rounds that are finished.
    finished: BTreeSet<Timestamp>,
    current: Option<CurrentRound>,
    /// What became of records outside the current round.
    tally: RecordTally,
    counted: bool,
    /// Whether a request was accepted; `None` while none was answered.
    accepted: Option<bool>,
    /// Whether the backend may have some of the cut.
    may_have_arrived: bool,
    newest_start: Option<Timestamp>,
    newest_end: Option<Timestamp>,
}

#[derive(Debug)]
struct CurrentRound {
    start: Timestamp,
    /// Of its records: after it was read again some may be gone.
    keys: Vec<u64>,
    stage: RoundStage,
    delivery: Delivery,
    /// Ranges of its records that can be in one request.
    groups: Vec<Range<usize>>,
    /// Records whose zeros were refused.
    suspects: Vec<Range<usize>>,
    tally: RoundTally,
    /// Records that were refused and are not kept yet, because their round was not in hand.
    dead: Vec<(Range<usize>, String)>,
}

/// The bytes of a request before it was compressed; the most there can be, if that is not known.
pub(super) fn measure_request(request: &EncodedRequest) -> usize {
    if request.content_encoding.is_some() { usize::MAX } else { request.body.len() }
}

impl PublisherTask {
    /// Sends what is left of a cut.
    ///
    /// # Errors
    /// With the request that has to be repeated, when windows are to be held no longer.
    pub(super) async fn send_windows(
        &mut self,
        cut: &mut Cut,
        progress: &mut CutProgress,
    ) -> Result<(), StuckRequest> {
        let taken = cut.windows.take();
        let mut windows = taken.unwrap_or_else(|| self.follower.read_again((cut.from, cut.to)));
        let before = windows.iter().filter(|published| self.is_sent_before(published));
        let sent_before = before.map(|published| published.window().len() as u64).sum();
        windows.retain(|published| !self.is_sent_before(published));
        let run = self.follower.epoch();
        let epoch = windows.first().map_or(run, |published| published.birth_in(run).epoch);
        let earlier = self.read_earlier(&windows, cut);
        let mut records = CutRecords::collect_records(&windows, &earlier, 0..=u64::MAX, self.scope());
        progress.count_unsent(&records, sent_before);
        let marks = self.follower.read_marks(self.sink.identity_level());
        let node = self.shared.node.clone();
        for interval in &mut records.intervals {
            if progress.finished.contains(&interval.start) {
                continue;
            }
            if self.adds_up() {
                interval.stage_totals(&mut self.totals);
            }
            let round = interval.as_round(&node, epoch, &marks);
            let trusted = self.unaccepted < MOST_UNACCEPTED;
            let groups = interval.group_ranges(self.sink.type_groups());
            progress.begin_round(&round, interval, (groups, self.room.records), trusted);
            let is_sent = !self.is_too_old(interval.end);
            if is_sent {
                self.send_round(&round, cut, progress).await?;
            } else {
                progress.settle_records(0..round.records.len(), Fate::Dropped(TOO_OLD));
            }
            if self.adds_up() {
                self.totals.commit_round(is_sent);
            }
            progress.finish_round(interval);
        }
        Ok(())
    }

    fn is_too_old(&self, end: Timestamp) -> bool {
        self.config.max_age.is_some_and(|age| end.saturating_add(age) < clock::wall_time())
    }

    /// The other windows of rounds that this cut has a late part of, where records of several windows are merged.
    fn read_earlier(&self, windows: &[Arc<Published>], cut: &Cut) -> Vec<Arc<Published>> {
        if self.adds_up() {
            // What they have added is counted already.
            return Vec::new();
        }
        let rules = self.rules();
        let through = self.position.through;
        let is_merged = |published: &Published| {
            let span = published.window().span;
            self.sink.identity_level() != Level::High || span.nominal_length() < rules.interval
        };
        let mut starts: Vec<_> = windows
            .iter()
            .filter(|published| is_merged(published))
            .map(|published| rules.round_start(published.window().span))
            .filter(|start| {
                self.newest_sent.is_some_and(|newest| *start <= newest)
                    || through.is_some_and(|through| *start < through)
            })
            .collect();
        starts.sort_unstable();
        starts.dedup();
        if starts.is_empty() {
            return Vec::new();
        }
        self.follower.read_rounds(&rules, &starts, (cut.from, cut.to))
    }

    async fn send_round(
        &mut self,
        round: &Round<'_>,
        cut: &Cut,
        progress: &mut CutProgress,
    ) -> Result<(), StuckRequest> {
        loop {
            self.keep_dead(round, progress);
            let Some((stage, range)) = progress.next_request(self.room.records) else { return Ok(()) };
            let encoded = match stage {
                RoundStage::Zeros => Encoded {
                    requests: self.sink.encode_zeros(round, range, self.room),
                    left_out: Vec::new(),
                },
                RoundStage::Records | RoundStage::Suspects => self.sink.encode_round(round, range, self.room),
            };
            for left_out in &encoded.left_out {
                let records = left_out.record..left_out.record.saturating_add(1);
                progress.settle_records(records, Fate::Dropped(left_out.why.as_str()));
            }
            progress.replace_next(encoded.requests.iter().map(|request| request.records.clone()));
            for request in encoded.requests {
                if progress.next_range().as_ref() != Some(&request.records) {
                    break;
                }
                self.note_sending(Some(self.sending_round(round.end, cut)));
                let answer = self.send_request(&request).await;
                let size = measure_request(&request);
                let Some(waits) = self.apply_answer(answer, size, progress) else { continue };
                let Outcome::Wait { wait, reason, why } = waits else { continue };
                let same = progress.next_range().as_ref() == Some(&request.records);
                return Err(StuckRequest { request: same.then_some(request), wait, reason, why });
            }
        }
    }

    /// Keeps records that were refused, each with the request that has it alone.
    fn keep_dead(&self, round: &Round<'_>, progress: &mut CutProgress) {
        let refused = progress.take_dead();
        if refused.is_empty() {
            return;
        }
        let mut letters = Vec::new();
        for (records, why) in refused {
            for record in records.clone() {
                letters.extend(self.dead_letter(round, record, &why));
            }
            progress.settle_records(records, Fate::Dead);
        }
        let kept = letters.len() as u64;
        match self.dead.append_letters(&letters) {
            Ok(given_up) => self.status.update_with(|status| {
                status.dead_letters = (status.dead_letters + kept).saturating_sub(given_up);
            }),
            Err(error) => {
                let name = &self.config.name;
                tracing::error!(publisher = name, %error, records = kept, "refused records cannot be kept");
            }
        }
    }

    fn dead_letter(&self, round: &Round<'_>, record: usize, why: &str) -> Option<DeadLetterDocument> {
        const ANY_SIZE: RequestRoom = RequestRoom { bytes: usize::MAX, records: 1 };
        let only = record..record.saturating_add(1);
        let request = self.sink.encode_round(round, only.clone(), ANY_SIZE).requests.into_iter().next()?;
        let document = encode_json(round, only, ANY_SIZE).requests.into_iter().next();
        let record = document.and_then(|document| serde_json::from_slice(&document.body).ok());
        let name = &self.config.name;
        tracing::warn!(
            publisher = name,
            answer = why,
            "a record was refused; see `tallyport publish dead {name}`"
        );
        Some(DeadLetterDocument {
            at: clock::wall_time(),
            answer: why.to_owned(),
            record: record.unwrap_or_default(),
            request: request_document(&request),
        })
    }
}

impl CutProgress {
    /// Counts, once, records of the cut that are not sent.
    fn count_unsent(&mut self, records: &CutRecords<'_>, sent_before: u64) {
        if !std::mem::replace(&mut self.counted, true) {
            self.tally.excluded += records.excluded;
            self.tally.add(Fate::Dropped(LATE), records.late);
            self.tally.sent_before += sent_before;
        }
    }

    /// Begins a round, or goes on with it if it still has the same records. Of one that has lost some, what is settled stays so
    /// and is not sent again: a merged record without its part in a lost window would replace the whole.
    fn begin_round(
        &mut self,
        round: &Round<'_>,
        interval: &IntervalRecords<'_>,
        (groups, most): (Vec<Range<usize>>, usize),
        trusted: bool,
    ) {
        let keys = key_records(round);
        if self.current.as_ref().is_some_and(|it| it.start == interval.start && it.keys == keys) {
            return;
        }
        let mut tally = RoundTally::new(interval.record_places());
        if let Some(before) = self.current.take() {
            let gone = match before.start == interval.start {
                true => tally.carry_settled(&keys, &before.tally, &before.keys),
                // Everything of that round is gone.
                false => before.tally.settled_records(),
            };
            self.tally.merge(&gone);
        }
        let groups: Vec<_> = groups.into_iter().flat_map(|group| tally.unsettled_ranges(group)).collect();
        let begins_series = round.records.iter().any(|record| record.running.is_some_and(|it| it.first));
        self.current = Some(CurrentRound {
            start: interval.start,
            keys,
            stage: if begins_series { RoundStage::Zeros } else { RoundStage::Records },
            delivery: Delivery::with_parts(
                groups.iter().cloned(),
                most,
                trusted || self.accepted == Some(true),
            ),
            groups,
            suspects: Vec::new(),
            tally,
            dead: Vec::new(),
        });
    }

    fn finish_round(&mut self, interval: &IntervalRecords<'_>) {
        if let Some(current) = self.current.take() {
            self.tally.merge(&current.tally.settled_records());
        }
        self.finished.insert(interval.start);
        self.newest_start = self.newest_start.max(Some(interval.start));
        self.newest_end = self.newest_end.max(Some(interval.end));
    }

    /// What is sent next of the round. After its zeros, its records are.
    fn next_request(&mut self, most: usize) -> Option<(RoundStage, Range<usize>)> {
        let accepted = self.accepted == Some(true);
        let current = self.current.as_mut()?;
        loop {
            if let Some(range) = current.delivery.next_range() {
                return Some((current.stage, range));
            }
            match current.stage {
                RoundStage::Zeros => current.begin_records(most, accepted),
                RoundStage::Records => current.begin_suspects(),
                RoundStage::Suspects => return None,
            }
        }
    }

    /// Whether the backend may have some of the cut.
    pub(super) fn may_have_arrived(&self) -> bool {
        self.may_have_arrived
    }

    /// The records that are sent next.
    pub(super) fn next_range(&self) -> Option<Range<usize>> {
        self.current.as_ref()?.delivery.next_range()
    }

    fn replace_next(&mut self, parts: impl DoubleEndedIterator<Item = Range<usize>>) {
        let Some(current) = &mut self.current else { return };
        let outcomes = current.delivery.replace_next(parts);
        // A search that ends here has nothing to wait for.
        let _no_wait = self.settle_outcomes(outcomes);
    }

    /// What an answer to the next request leads to: the wait, where there is one, and whether requests have to be smaller.
    pub(super) fn take_answer(&mut self, answer: Answer, random: f64) -> Vec<Outcome> {
        let accepts = matches!(answer, Answer::Ok | Answer::Partly { .. });
        self.accepted = Some(accepts || self.accepted == Some(true));
        self.may_have_arrived |= answer.may_have_arrived();
        let Some(current) = &mut self.current else { return Vec::new() };
        let outcomes = current.delivery.take_answer(answer, random);
        self.settle_outcomes(outcomes)
    }

    /// Notes what became of records. Returns the other outcomes.
    fn settle_outcomes(&mut self, outcomes: Vec<Outcome>) -> Vec<Outcome> {
        let Some(current) = &mut self.current else { return outcomes };
        let mut rest = Vec::new();
        for outcome in outcomes {
            match (outcome, current.stage) {
                (other @ (Outcome::Shrink | Outcome::Wait { .. }), _) => rest.push(other),
                (Outcome::Dead { records, .. }, RoundStage::Zeros) => current.suspects.push(records),
                (Outcome::Delivered(_) | Outcome::Partly { .. }, RoundStage::Zeros) => {}
                (Outcome::Delivered(records), _) => current.tally.settle_records(records, Fate::Delivered),
                (Outcome::Dead { records, why }, _) => current.dead.push((records, why)),
                (Outcome::Partly { records, refused, why }, _) => {
                    current.tally.settle_partly(records.clone(), refused);
                    rest.push(Outcome::Partly { records, refused, why });
                }
            }
        }
        rest
    }

    fn take_dead(&mut self) -> Vec<(Range<usize>, String)> {
        self.current.as_mut().map(|current| std::mem::take(&mut current.dead)).unwrap_or_default()
    }

    fn settle_records(&mut self, records: Range<usize>, fate: Fate) {
        if let Some(current) = &mut self.current {
            current.tally.settle_records(records, fate);
        }
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

impl CurrentRound {
    /// Goes on to the records. A few whose zeros were refused come last, so that they are not searched for again; many are refused
    /// for another reason than what they say.
    fn begin_records(&mut self, most: usize, trusted: bool) {
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

/// A hash of what each record of a round is of. It is the same when the round is read again, from memory or from files.
fn key_records(round: &Round<'_>) -> Vec<u64> {
    let keys = round.records.iter().map(|record| {
        let mut hasher = Xxh3::new();
        (record.identity.as_str(), SeriesKey(record.series)).hash(&mut hasher);
        // Of a merged record, any of its containers may be gone.
        if let Some(number) = record.number {
            let Origin { container_id, generation, .. } = record.origin;
            (container_id.as_str(), generation.0, record.span.start, number.rev).hash(&mut hasher);
        }
        hasher.finish()
    });
    keys.collect()
}
