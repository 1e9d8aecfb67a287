//! Cutting rounds out of the sequence: which windows are complete, and what is sent of them.
//!
//! A cut is a range of places. It holds one interval as long as the publisher keeps up, and several where it is behind. What
//! an interval's records have become is sent with the interval's end as their time: late samples and containers that closed
//! late make a cut of their own, and are sent as the whole that they are part of.
//!
//! Receivers that are sent running totals accept the samples of a series in order only. What comes late is part of the next
//! round for them, and of late samples only what they add.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use super::selection::SeriesSelection;
use super::totals::{RunningTotals, SeriesRunning, is_cumulative};
use crate::aggregate::{SeriesState, View, WindowSpan};
use crate::model::{MetricType, Origin, Series, SeriesKey, Timestamp};
use crate::render::prometheus::{Level, MarksOfAll, SeriesIdentity};
use crate::render::publish::{Merged, Round, RoundRecord};
use crate::render::record::RecordNumber;
use crate::store::Published;

/// When windows are complete.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct RoundRules {
    /// The length of a round.
    pub interval: Duration,
    /// How long after its end a round is waited for.
    pub settle: Duration,
    /// Records after which a cut ends with its interval.
    pub records: usize,
    /// For receivers that accept only what is newer: no round starts before this, and what would is part of the first that
    /// can.
    pub floor: Option<Timestamp>,
}

/// A window, as far as it matters for where a cut ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct PlacedWindow {
    /// Its interval.
    pub span: WindowSpan,
    /// Its number of records.
    pub records: usize,
}

impl RoundRules {
    /// How many of these windows, which are in the order of the sequence, make up the next cut, and when there may be more if
    /// there are none.
    ///
    /// Windows that start further ahead than a clock that was corrected can explain are not waited for: what the clock says
    /// then is not known. Receivers that accept only what is newer would then accept nothing until that time, so for them
    /// windows are waited for.
    pub(super) fn count_due(
        &self,
        windows: impl IntoIterator<Item = PlacedWindow>,
        now: Timestamp,
    ) -> Result<usize, Option<Timestamp>> {
        let (mut taken, mut records, mut newest) = (0, 0_usize, None::<Timestamp>);
        for window in windows {
            let (start, due) = (self.round_start(window.span), self.due_at(window.span));
            let ahead = self.floor.is_none() && start > now.saturating_add(self.interval.saturating_mul(2));
            if due > now && !ahead {
                return if taken > 0 { Ok(taken) } else { Err(Some(due)) };
            }
            let is_new = newest.is_some_and(|newest| start > newest);
            if records >= self.records && is_new || records >= self.records.saturating_mul(8) {
                return Ok(taken);
            }
            newest = newest.max(Some(start));
            records = records.saturating_add(window.records);
            taken += 1;
        }
        if taken > 0 { Ok(taken) } else { Err(None) }
    }

    /// When the round that a window is sent in starts.
    #[must_use]
    pub(super) fn round_start(&self, span: WindowSpan) -> Timestamp {
        let start = self.interval_start(span);
        self.floor.map_or(start, |floor| start.max(floor))
    }

    /// When the interval that a window belongs to starts.
    #[must_use]
    pub(super) fn interval_start(&self, span: WindowSpan) -> Timestamp {
        if self.is_one_window(span) { span.start } else { span.start.floor_to_window(self.interval) }
    }

    /// Whether a window comes after the round of its interval was sent, to a receiver that accepts only what is newer.
    fn is_late(&self, span: WindowSpan) -> bool {
        self.round_start(span) > self.interval_start(span)
    }

    fn round_end(&self, span: WindowSpan) -> Timestamp {
        if self.is_one_window(span) && !self.is_late(span) {
            return span.end;
        }
        span.end.max(self.round_start(span).saturating_add(self.interval))
    }

    fn due_at(&self, span: WindowSpan) -> Timestamp {
        self.round_end(span).saturating_add(self.settle)
    }

    /// Whether a window is a round of its own, because it is as long as one.
    fn is_one_window(&self, span: WindowSpan) -> bool {
        span.nominal_length() >= self.interval
    }
}

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

/// One series of an interval.
#[derive(Debug)]
struct Entry<'w> {
    identity: usize,
    origin: &'w Origin,
    series: &'w Arc<Series>,
    span: WindowSpan,
    /// How many places of the cut it stands for.
    places: u64,
    content: Content<'w>,
    running: Option<SeriesRunning>,
}

/// What the parts of a series make up.
enum SeriesParts<'w> {
    Entry(Entry<'w>),
    /// Nothing is new, or nothing can be decoded.
    Nothing,
    /// So many places of the cut are corrections of values that were sent and cannot be sent again.
    Late(u64),
}

#[derive(Debug)]
enum Content<'w> {
    Alone(View<'w>, RecordNumber),
    Merged { state: SeriesState, packed: Vec<u8>, total: f64, records: usize, others: Vec<&'w Origin> },
}

/// A record of a window.
#[derive(Copy, Clone, Debug)]
struct RecordPart<'w> {
    group: u8,
    identity: usize,
    origin: &'w Origin,
    series: &'w Arc<Series>,
    span: WindowSpan,
    view: View<'w>,
    /// What it has added, if that is known.
    added: Option<View<'w>>,
    number: RecordNumber,
    in_cut: bool,
    is_late: bool,
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
        let identity_of =
            |published: &Published| SeriesIdentity::from_origin(published.origin(), scope.level);
        let mut identities: Vec<_> = windows.iter().map(|(published, _)| identity_of(published)).collect();
        let unsorted = identities.clone();
        identities.sort_unstable();
        identities.dedup();
        let (mut parts, mut excluded) = (Vec::new(), 0);
        for ((published, in_cut), identity) in windows.iter().zip(&unsorted) {
            let identity = identities.binary_search(identity).unwrap_or_default();
            let chosen = scope.selection.for_origin(published.origin());
            let added = published.added_window().filter(|_| scope.reading == RecordReading::Added);
            let is_late = scope.rules.is_late(published.window().span);
            for (number, record) in published.numbered_records() {
                let in_cut = *in_cut && cut.contains(&number.seq);
                if !chosen.contains(record.series) {
                    excluded += u64::from(in_cut);
                    continue;
                }
                parts.push(RecordPart {
                    group: (scope.group)(record.series.metric_type),
                    identity,
                    origin: published.origin(),
                    series: record.series,
                    span: published.window().span,
                    view: record.view,
                    added: added.and_then(|added| {
                        let place = usize::try_from(number.seq - published.first_seq()).ok()?;
                        Some(added.record_at(place)?.view)
                    }),
                    number,
                    in_cut,
                    is_late,
                });
            }
        }
        parts.sort_unstable_by(RecordPart::compare);
        let span = WindowSpan { start, end, covered: Duration::ZERO };
        let (mut entries, mut late) = (Vec::new(), 0);
        for parts in parts.chunk_by(RecordPart::is_of_same_series) {
            match Entry::from_parts(parts, span, scope.reading) {
                SeriesParts::Entry(entry) => entries.push(entry),
                SeriesParts::Late(places) => late += places,
                SeriesParts::Nothing => {}
            }
        }
        (Self { start, end, level: scope.level, identities, entries }, excluded, late)
    }

    /// Adds what the interval adds to the totals of its series, and takes the totals for its records.
    pub(super) fn stage_totals(&mut self, totals: &mut RunningTotals) {
        let span = (self.start, self.end);
        for entry in &mut self.entries {
            let Some(identity) = self.identities.get(entry.identity) else { continue };
            let running = entry.content.view().and_then(|(view, ..)| {
                totals.stage_record((identity, entry.origin), entry.series, &view, span)
            });
            entry.running = running;
        }
    }

    /// The records of each group, as ranges in the order of the round.
    #[must_use]
    pub(super) fn group_ranges(&self, group: fn(MetricType) -> u8) -> Vec<Range<usize>> {
        let mut start = 0;
        let groups = self.entries.chunk_by(|a, b| group(a.series.metric_type) == group(b.series.metric_type));
        let ranges = groups.map(|entries| {
            let range = start..start + entries.len();
            start = range.end;
            range
        });
        ranges.collect()
    }

    /// How many places of the cut each record stands for.
    pub(super) fn record_places(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.places)
    }

    /// The records as a round.
    #[must_use]
    pub(super) fn as_round<'s>(&'s self, node: &'s str, epoch: u64, marks: &'s MarksOfAll) -> Round<'s> {
        let records = self.entries.iter().filter_map(|entry| {
            let (view, number, merged) = entry.content.view()?;
            Some(RoundRecord {
                origin: entry.origin,
                identity: self.identities.get(entry.identity)?,
                span: entry.span,
                series: entry.series,
                view,
                number,
                merged,
                running: entry.running.as_ref().map(SeriesRunning::as_total),
            })
        });
        let records = records.collect();
        Round { node, epoch, start: self.start, end: self.end, level: self.level, marks, records }
    }
}

impl Content<'_> {
    fn view(&self) -> Option<(View<'_>, Option<RecordNumber>, Option<Merged<'_>>)> {
        Some(match self {
            Self::Alone(view, number) => (*view, Some(*number), None),
            Self::Merged { state, packed, total, records, others } => {
                (state.as_view(*total, packed)?, None, Some(Merged { records: *records, others }))
            }
        })
    }
}

impl RecordPart<'_> {
    /// By series as a round is sorted, then by what the merged record must not depend on the order of: time, container, place.
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        let (a, b) = (self.series, other.series);
        let of = |part: &Self| (part.span.start, part.number.seq);
        (self.group, self.identity, &a.name, a.metric_type, &a.tags)
            .cmp(&(other.group, other.identity, &b.name, b.metric_type, &b.tags))
            .then_with(|| self.span.start.cmp(&other.span.start))
            .then_with(|| self.origin.container_id.cmp(&other.origin.container_id))
            .then_with(|| self.origin.generation.cmp(&other.origin.generation))
            .then_with(|| of(self).cmp(&of(other)))
    }

    fn is_of_same_series(&self, other: &Self) -> bool {
        self.identity == other.identity && SeriesKey(self.series) == SeriesKey(other.series)
    }

    fn is_of_same_window(&self, other: &Self) -> bool {
        self.span.start == other.span.start && self.is_of_same_container(other)
    }

    fn is_of_same_container(&self, other: &Self) -> bool {
        self.origin.container_id == other.origin.container_id
            && self.origin.generation == other.origin.generation
    }
}

/// The parts whose views add up to the record.
fn choose_parts<'w>(parts: &[RecordPart<'w>], reading: RecordReading) -> Vec<RecordPart<'w>> {
    let adds_up = parts.first().is_some_and(|part| is_cumulative(part.series.metric_type));
    if reading == RecordReading::Added && adds_up {
        return parts.iter().filter_map(|part| Some(RecordPart { view: part.added?, ..*part })).collect();
    }
    // Of each window, what the record has become last.
    let same_window = parts.chunk_by(RecordPart::is_of_same_window);
    let is_new =
        |same: &&[RecordPart<'_>]| same.first().is_some_and(|first| !first.is_late || first.number.rev == 0);
    same_window.filter(is_new).filter_map(|same| same.last()).copied().collect()
}

impl<'w> Entry<'w> {
    /// The record that all parts of one series make up.
    fn from_parts(parts: &[RecordPart<'w>], span: WindowSpan, reading: RecordReading) -> SeriesParts<'w> {
        let places = parts.iter().filter(|part| part.in_cut).count() as u64;
        if places == 0 {
            return SeriesParts::Nothing;
        }
        let chosen = choose_parts(parts, reading);
        match Self::from_chosen(&chosen, span, places) {
            Some(entry) => SeriesParts::Entry(entry),
            None if chosen.is_empty() && parts.iter().any(|part| part.is_late) => SeriesParts::Late(places),
            None => SeriesParts::Nothing,
        }
    }

    fn from_chosen(newest: &[RecordPart<'w>], span: WindowSpan, places: u64) -> Option<Self> {
        let first = newest.first()?;
        let RecordPart { identity, origin, series, .. } = *first;
        if let [only] = newest
            && only.span.start == span.start
            && only.span.end == span.end
        {
            let content = Content::Alone(only.view, only.number);
            return Some(Self { identity, origin, series, span: only.span, places, content, running: None });
        }
        let mut state: Option<SeriesState> = None;
        let mut records = 0;
        for part in newest {
            // Checks on decoding rule out that one cannot be read; the others are still sent.
            let Some(next) = part.view.to_state() else { continue };
            records += 1;
            match &mut state {
                Some(state) => state.merge(&next),
                None => state = Some(next),
            }
        }
        let state = state?;
        let packed = state.to_packed_bytes();
        let mut others: Vec<&'w Origin> = Vec::new();
        for part in newest.iter().filter(|part| !part.is_of_same_container(first)) {
            if !others.iter().any(|origin| {
                origin.container_id == part.origin.container_id && origin.generation == part.origin.generation
            }) {
                others.push(part.origin);
            }
        }
        let (total, covered) = sum_by_container(newest);
        let span = WindowSpan { covered: covered.min(span.nominal_length()), ..span };
        let content = Content::Merged { state, packed, total, records, others };
        Some(Self { identity, origin, series, span, places, content, running: None })
    }
}

/// The sum of the containers' newest totals, and the longest time that one of them was observed.
fn sum_by_container(parts: &[RecordPart<'_>]) -> (f64, Duration) {
    let mut of_container = BTreeMap::new();
    for part in parts {
        let total = match part.view {
            View::Counter { total, .. } => total,
            _ => 0.0,
        };
        let key = (part.origin.container_id.as_str(), part.origin.generation.0);
        let sum = of_container.entry(key).or_insert((total, Duration::ZERO));
        *sum = (total, sum.1 + part.span.covered);
    }
    let covered = of_container.values().map(|(_, covered)| *covered).max().unwrap_or_default();
    (of_container.values().map(|(total, _)| total).sum(), covered)
}

#[cfg(test)]
mod tests;
