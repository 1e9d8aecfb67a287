//! Cutting rounds out of the sequence: which windows are complete, and what is sent of them.
//!
//! A cut is a range of places. It holds one interval as long as the publisher keeps up, and several where it is behind. What
//! an interval's records have become is sent with the interval's end as their time: late samples and containers that closed
//! late make a cut of their own, and are sent as the whole that they are part of.
//!
//! Receivers that are sent running totals accept the samples of a series in order only. What comes late is part of the next
//! round for them, and of late samples only what they add.

mod entry;
mod rules;

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use self::entry::{Entry, RecordPart};
pub(super) use self::rules::{PlacedWindow, RoundRules};
use super::parcel::RoundSource;
use super::selection::SeriesSelection;
use super::totals::{RunningTotals, SeriesRunning};
use crate::aggregate::WindowSpan;
use crate::model::{MetricType, Timestamp};
use crate::render::prometheus::{Level, MarksOfAll, SeriesIdentity};
use crate::render::publish::{Round, RoundRecord};
use crate::store::Published;

/// Which state of a record is sent.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum RecordReading {
    /// What it has become, for receivers that overwrite.
    Became,
    /// What was added to it, for receivers that are sent running totals or add up themselves.
    Added,
}

/// What a publisher sends of windows.
#[derive(Copy, Clone, Debug)]
pub(super) struct RoundScope<'a> {
    /// When rounds are complete.
    pub rules: RoundRules,
    /// The level of identities; records of one identity are merged.
    pub level: Level,
    /// Which series.
    pub selection: &'a SeriesSelection,
    /// The number of this run of the agent.
    pub epoch: u64,
    /// Which state of their records.
    pub reading: RecordReading,
    /// Groups of types that are sent apart; a round has its records in their order.
    pub group: fn(MetricType) -> u8,
}

/// One interval's records of a cut.
#[derive(Debug)]
pub(super) struct IntervalRecords<'w> {
    /// Its start (inclusive).
    pub start: Timestamp,
    /// Its end (exclusive).
    pub end: Timestamp,
    level: Level,
    /// Sorted.
    identities: Vec<SeriesIdentity>,
    entries: Vec<Entry<'w>>,
}

/// The intervals of a cut, oldest first, and how many of its records the publisher does not send.
#[derive(Debug)]
pub(super) struct CutRecords<'w> {
    /// Oldest first.
    pub intervals: Vec<IntervalRecords<'w>>,
    /// Records of the cut that are not selected.
    pub excluded: u64,
    /// Records of the cut that correct what was sent, for a receiver that cannot be corrected.
    pub late: u64,
}

/// The end of an interval, and its windows, each with whether it is in the cut.
type EndAndWindows<'w> = (Timestamp, Vec<(&'w Arc<Published>, bool)>);

impl<'w> CutRecords<'w> {
    /// Groups the records with places in `cut` by interval. `earlier` are windows that were cut before, or will be later: where
    /// records of the cut are a part of an identity's record, they are the other parts.
    #[must_use]
    pub(super) fn collect_records(
        windows: &'w [Arc<Published>],
        earlier: &'w [Arc<Published>],
        cut: RangeInclusive<u64>,
        scope: RoundScope<'_>,
    ) -> Self {
        let (mut excluded, mut late) = (0, 0);
        let mut of_start: BTreeMap<Timestamp, EndAndWindows<'w>> = BTreeMap::new();
        let all =
            windows.iter().map(|window| (window, true)).chain(earlier.iter().map(|window| (window, false)));
        for (published, in_cut) in all {
            let span = published.window().span;
            let end = scope.rules.round_end(span);
            let of = of_start.entry(scope.rules.round_start(span)).or_insert((end, Vec::new()));
            of.0 = of.0.max(end);
            of.1.push((published, in_cut));
        }
        let intervals = of_start.into_iter().filter_map(|(start, (end, windows))| {
            let (interval, left_out, too_late) =
                IntervalRecords::collect_records((start, end), &windows, &cut, scope);
            excluded += left_out;
            late += too_late;
            (!interval.entries.is_empty()).then_some(interval)
        });
        let intervals = intervals.collect();
        Self { intervals, excluded, late }
    }
}

impl<'w> IntervalRecords<'w> {
    fn collect_records(
        (start, end): (Timestamp, Timestamp),
        windows: &[(&'w Arc<Published>, bool)],
        cut: &RangeInclusive<u64>,
        scope: RoundScope<'_>,
    ) -> (Self, u64, u64) {
        let mut of_identity: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for window in windows {
            let identity = SeriesIdentity::from_origin(window.0.origin(), scope.level);
            of_identity.entry(identity).or_default().push(window);
        }
        let span = WindowSpan { start, end, covered: Duration::ZERO };
        let most = windows.iter().map(|(published, _)| published.window().len()).sum();
        let (mut identities, mut entries) = (Vec::with_capacity(of_identity.len()), Vec::with_capacity(most));
        let (mut excluded, mut late) = (0, 0);
        // Of one identity after the other: the parts of a whole interval would take more memory than what is made of them.
        let mut parts = Vec::new();
        for (number, (identity, windows)) in (0..).zip(of_identity) {
            parts.clear();
            for &(published, in_cut) in windows {
                let cut = in_cut.then_some(cut);
                excluded += push_parts(&mut parts, published, cut, scope);
            }
            identities.push(identity);
            parts.sort_unstable_by(|a, b| a.compare_parts(b, scope.epoch));
            for parts in parts.chunk_by(RecordPart::is_of_same_series) {
                match Entry::from_parts(parts, number, span, scope.reading) {
                    Ok(entry) => entries.extend(entry),
                    Err(places) => late += places,
                }
            }
        }
        let group_of = |entry: &Entry<'_>| (scope.group)(entry.metric_type);
        if !entries.is_sorted_by_key(group_of) {
            entries.sort_by_key(group_of);
        }
        (Self { start, end, level: scope.level, identities, entries }, excluded, late)
    }

    /// Adds what the interval adds to the totals of its series, and takes the totals for its records.
    pub(super) fn stage_totals(&mut self, totals: &mut RunningTotals) {
        let span = (self.start, self.end);
        for entries in self.entries.chunk_by_mut(|a, b| a.identity == b.identity) {
            let Some((identity, origin)) = entries.first().and_then(|first| {
                let (origin, ..) = first.read_view()?;
                Some((self.identities.get(first.identity as usize)?, origin))
            }) else {
                continue;
            };
            let mut of_identity = totals.stage_identity(identity, origin);
            for entry in entries {
                let running = entry
                    .read_view()
                    .and_then(|(_, series, view)| of_identity.stage_record(series, &view, span));
                entry.running = running;
            }
        }
    }

    /// The records of each group, as ranges in the order of the round.
    #[must_use]
    pub(super) fn group_ranges(&self, group: fn(MetricType) -> u8) -> Vec<Range<usize>> {
        let mut start = 0;
        let groups = self.entries.chunk_by(|a, b| group(a.metric_type) == group(b.metric_type));
        let ranges = groups.map(|entries| {
            let range = start..start + entries.len();
            start = range.end;
            range
        });
        ranges.collect()
    }

    /// How many places of the cut each record stands for.
    #[cfg(test)]
    pub(super) fn record_places(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.places)
    }

    /// All records as a round.
    #[must_use]
    pub(super) fn as_round<'s>(&'s self, node: &'s str, epoch: u64, marks: &'s MarksOfAll) -> Round<'s> {
        let records = (0..self.entries.len()).filter_map(|index| self.record_at(index)).collect();
        Round { records, ..self.as_empty_round(node, epoch, marks) }
    }

    /// A round of the interval without records.
    #[must_use]
    pub(super) fn as_empty_round<'s>(
        &'s self,
        node: &'s str,
        epoch: u64,
        marks: &'s MarksOfAll,
    ) -> Round<'s> {
        let Self { start, end, level, .. } = *self;
        Round { node, epoch, start, end, level, marks, records: Vec::new() }
    }
}

impl RoundSource for IntervalRecords<'_> {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn record_at(&self, index: usize) -> Option<RoundRecord<'_>> {
        let entry = self.entries.get(index)?;
        entry.to_record(self.identities.get(entry.identity as usize)?)
    }

    fn type_at(&self, index: usize) -> Option<MetricType> {
        self.entries.get(index).map(|entry| entry.metric_type)
    }

    fn identity_at(&self, index: usize) -> Option<&SeriesIdentity> {
        self.identities.get(self.entries.get(index)?.identity as usize)
    }

    fn places_at(&self, index: usize) -> u64 {
        self.entries.get(index).map_or(0, |entry| entry.places)
    }

    fn begins_at(&self, index: usize) -> bool {
        let running = self.entries.get(index).and_then(|entry| entry.running.as_ref());
        running.is_some_and(SeriesRunning::is_first)
    }
}

/// Adds the selected records of a window to the parts of its identity. Returns how many records of the cut are not selected; with
/// `None`, none of them is in the cut.
fn push_parts<'w>(
    parts: &mut Vec<RecordPart<'w>>,
    published: &'w Published,
    cut: Option<&RangeInclusive<u64>>,
    scope: RoundScope<'_>,
) -> u64 {
    let chosen = scope.selection.for_origin(published.origin());
    let is_late = scope.rules.is_late(published.window().span);
    let mut excluded = 0;
    for (number, record) in published.numbered_records() {
        let in_cut = cut.is_some_and(|cut| cut.contains(&number.seq));
        if !chosen.contains(record.series) {
            excluded += u64::from(in_cut);
            continue;
        }
        // A window with more records than that would not fit in memory.
        let Ok(index) = u32::try_from(number.seq - published.first_seq()) else { continue };
        parts.push(RecordPart { published, series: record.series, index, rev: number.rev, in_cut, is_late });
    }
    excluded
}

#[cfg(test)]
mod tests;
