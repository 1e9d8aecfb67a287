//! One cut of the sequence: its batches, and the rounds in them.

use std::sync::Arc;

use super::progress::{BatchHeading, CutProgress, RequestRules};
use super::{MOST_UNACCEPTED, PublisherTask};
use crate::model::Timestamp;
use crate::net::clock;
use crate::publish::cursor_file::SendingRound;
use crate::publish::dead_letters::request_document;
use crate::publish::follow::TakenWindows;
use crate::publish::parcel::{Parcel, RoundShare};
use crate::publish::round::{CutRecords, IntervalRecords};
use crate::publish::tally::Fate;
use crate::render::prometheus::{Level, MarksOfAll};
use crate::render::publish::{RequestRoom, encode_json};
use crate::store::{Cursor, Published};
use crate::wire::DeadLetterDocument;

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
    pub(super) records: u64,
    /// Records that were missing when it was taken.
    pub(super) missed: u64,
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

/// Nothing is sent before a wait is over, so that windows are to be held no longer.
#[derive(Copy, Clone, Debug)]
pub(super) struct HeldUp;

impl PublisherTask {
    /// Sends what is left of a cut.
    ///
    /// # Errors
    /// When windows are to be held no longer, although something is left.
    pub(super) async fn send_windows(
        &mut self,
        cut: &mut Cut,
        progress: &mut CutProgress,
    ) -> Result<(), HeldUp> {
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
        records.intervals.retain(|interval| !progress.is_finished(interval.start));
        let rules = self.rules();
        let is_of_same_batch = |a: &IntervalRecords<'_>, b: &IntervalRecords<'_>| {
            rules.batch_start(a.start) == rules.batch_start(b.start)
        };
        for batch in records.intervals.chunk_by_mut(is_of_same_batch) {
            let Some((first, last)) = batch.first().zip(batch.last()) else { continue };
            let start = rules.batch_start(first.start);
            let sending = self.sending_round(last.end, cut);
            self.send_intervals(batch, (start, sending), (epoch, &marks), progress).await?;
        }
        Ok(())
    }

    /// Sends a batch: intervals whose records can share requests.
    async fn send_intervals(
        &mut self,
        intervals: &mut [IntervalRecords<'_>],
        (start, sending): (Timestamp, SendingRound),
        (epoch, marks): (u64, &MarksOfAll),
        progress: &mut CutProgress,
    ) -> Result<(), HeldUp> {
        if self.sink.sends_totals() {
            intervals.iter_mut().for_each(|interval| interval.stage_totals(&mut self.totals));
        }
        let node = self.shared.node.clone();
        let parcels = self.make_parcels(intervals, (&node, epoch), marks);
        self.batches += 1;
        let heading = BatchHeading { start, sending, number: self.batches };
        progress.begin_batch(heading, &parcels, self.request_rules());
        self.keep_dead(&parcels, progress);
        let now = clock::wall_time();
        let is_old = |end: Timestamp| self.is_too_old(end, now);
        let old: Vec<_> = parcels.iter().map(|parcel| parcel.ranges_of(|round| is_old(round.end))).collect();
        let is_sent = intervals.iter().any(|interval| !is_old(interval.end));
        progress.drop_old(&old, is_sent, self.request_rules());
        match is_sent {
            true => self.send_batch(&parcels, progress).await?,
            false => self.await_answers(progress).await,
        }
        if self.sink.sends_totals() {
            self.totals.commit_round(is_sent);
        }
        progress.finish_batch(intervals.iter().map(|interval| (interval.start, interval.end)));
        Ok(())
    }

    /// The records of intervals, divided between the workers.
    fn make_parcels<'s>(
        &self,
        intervals: &'s [IntervalRecords<'_>],
        (node, epoch): (&'s str, u64),
        marks: &'s MarksOfAll,
    ) -> Vec<Parcel<'s>> {
        let workers = self.config.workers.max(1);
        let mut shares: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for interval in intervals {
            let round = interval.as_empty_round(node, epoch, marks);
            let divided = RoundShare::of_all(round, interval).divide_records(workers);
            shares.iter_mut().zip(divided).for_each(|(share, part)| share.push(part));
        }
        shares.into_iter().map(|rounds| Parcel::new(rounds, self.sink.type_groups())).collect()
    }

    pub(super) fn request_rules(&self) -> RequestRules {
        RequestRules { most: self.room.records, trusted: self.unaccepted < MOST_UNACCEPTED }
    }

    fn is_too_old(&self, end: Timestamp, now: Timestamp) -> bool {
        self.config.max_age.is_some_and(|age| end.saturating_add(age) < now)
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

    /// Keeps records that were refused, each with the request that has it alone.
    pub(super) fn keep_dead(&self, parcels: &[Parcel<'_>], progress: &mut CutProgress) {
        let mut letters = Vec::new();
        for (worker, parcel) in parcels.iter().enumerate() {
            for (records, why) in progress.take_dead(worker) {
                for record in records.clone() {
                    letters.extend(self.dead_letter(parcel, record, &why));
                }
                progress.settle_records(worker, records, Fate::Dead);
            }
        }
        let kept = letters.len() as u64;
        if kept == 0 {
            return;
        }
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

    fn dead_letter(&self, parcel: &Parcel<'_>, record: usize, why: &str) -> Option<DeadLetterDocument> {
        const ANY_SIZE: RequestRoom = RequestRoom { bytes: usize::MAX, records: 1 };
        let (round, record) = parcel.find_record(record)?;
        let only = record..record.saturating_add(1);
        let request = self.sink.encode_round(&round, only.clone(), ANY_SIZE).requests.into_iter().next()?;
        let document = encode_json(&round, only, ANY_SIZE).requests.into_iter().next();
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
