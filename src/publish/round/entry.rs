//! One series of an interval: the record that its parts in several windows make up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::RecordReading;
use crate::aggregate::{SeriesState, View, WindowSpan};
use crate::model::{Origin, Series, SeriesKey};
use crate::publish::totals::{SeriesRunning, is_cumulative};
use crate::render::publish::Merged;
use crate::render::record::RecordNumber;
use crate::store::Cursor;

/// One series of an interval.
#[derive(Debug)]
pub(super) struct Entry<'w> {
    pub(super) identity: usize,
    pub(super) origin: &'w Origin,
    pub(super) series: &'w Arc<Series>,
    pub(super) span: WindowSpan,
    /// How many places of the cut it stands for.
    pub(super) places: u64,
    pub(super) content: Content<'w>,
    pub(super) running: Option<SeriesRunning>,
}

#[derive(Debug)]
pub(super) enum Content<'w> {
    Alone(View<'w>, RecordNumber),
    Merged { state: SeriesState, packed: Vec<u8>, total: f64, records: usize, others: Vec<&'w Origin> },
}

/// A record of a window.
#[derive(Copy, Clone, Debug)]
pub(super) struct RecordPart<'w> {
    pub(super) identity: usize,
    pub(super) origin: &'w Origin,
    pub(super) series: &'w Arc<Series>,
    pub(super) span: WindowSpan,
    pub(super) view: View<'w>,
    /// What it has added, if that is known.
    pub(super) added: Option<View<'w>>,
    pub(super) number: RecordNumber,
    /// Where its window was published first, which says what of a window is newest also where an earlier run published it.
    pub(super) born: Cursor,
    pub(super) in_cut: bool,
    pub(super) is_late: bool,
}

impl Content<'_> {
    pub(super) fn record_view(&self) -> Option<(View<'_>, Option<RecordNumber>, Option<Merged<'_>>)> {
        Some(match self {
            Self::Alone(view, number) => (*view, Some(*number), None),
            Self::Merged { state, packed, total, records, others } => {
                (state.as_view(*total, packed)?, None, Some(Merged { records: *records, others }))
            }
        })
    }
}

impl RecordPart<'_> {
    /// Of one identity: by series as a round is sorted, then by what the merged record must not depend on the order of: time,
    /// container, place.
    pub(super) fn compare_parts(&self, other: &Self) -> std::cmp::Ordering {
        let (a, b) = (self.series, other.series);
        let of = |part: &Self| (part.span.start, part.born, part.number.seq);
        (&a.name, a.metric_type, &a.tags)
            .cmp(&(&b.name, b.metric_type, &b.tags))
            .then_with(|| self.span.start.cmp(&other.span.start))
            .then_with(|| self.origin.container_id.cmp(&other.origin.container_id))
            .then_with(|| self.origin.generation.cmp(&other.origin.generation))
            .then_with(|| of(self).cmp(&of(other)))
    }

    /// Of one identity.
    pub(super) fn is_of_same_series(&self, other: &Self) -> bool {
        SeriesKey(self.series) == SeriesKey(other.series)
    }

    /// The part as a record of its own. `None` if it adds nothing, or nothing new.
    fn choose_alone(&self, reading: RecordReading) -> Option<Self> {
        if is_added_up(self.series, reading) {
            return self.added.map(|view| Self { view, ..*self });
        }
        (!self.is_late || self.number.rev == 0).then_some(*self)
    }

    fn is_of_same_window(&self, other: &Self) -> bool {
        self.span.start == other.span.start && self.is_of_same_container(other)
    }

    fn is_of_same_container(&self, other: &Self) -> bool {
        self.origin.container_id == other.origin.container_id
            && self.origin.generation == other.origin.generation
    }
}

/// Whether what windows have added to a series is sent, and not what it has become.
fn is_added_up(series: &Series, reading: RecordReading) -> bool {
    reading == RecordReading::Added && is_cumulative(series.metric_type)
}

/// The parts whose views add up to the record.
fn choose_parts<'w>(parts: &[RecordPart<'w>], reading: RecordReading) -> Vec<RecordPart<'w>> {
    if parts.first().is_some_and(|part| is_added_up(part.series, reading)) {
        return parts.iter().filter_map(|part| part.choose_alone(reading)).collect();
    }
    // Of each window, what the record has become last.
    let same_window = parts.chunk_by(RecordPart::is_of_same_window);
    let is_new =
        |same: &&[RecordPart<'_>]| same.first().is_some_and(|first| !first.is_late || first.number.rev == 0);
    same_window.filter(is_new).filter_map(|same| same.last()).copied().collect()
}

impl<'w> Entry<'w> {
    /// The record that all parts of one series make up. `None` if nothing is new, or nothing can be decoded.
    ///
    /// # Errors
    /// With how many places of the cut there are, if all are corrections of values that were sent and cannot be sent again.
    pub(super) fn from_parts(
        parts: &[RecordPart<'w>],
        span: WindowSpan,
        reading: RecordReading,
    ) -> Result<Option<Self>, u64> {
        let places = parts.iter().filter(|part| part.in_cut).count() as u64;
        if places == 0 {
            return Ok(None);
        }
        let (alone, several);
        let chosen = match parts {
            // Nearly all are alone.
            [only] => {
                alone = only.choose_alone(reading);
                alone.as_slice()
            }
            parts => {
                several = choose_parts(parts, reading);
                several.as_slice()
            }
        };
        if chosen.is_empty() && parts.iter().any(|part| part.is_late) {
            return Err(places);
        }
        Ok(Self::from_chosen(chosen, span, places))
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
