//! One series of an interval: the record that its parts in several windows make up.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::RecordReading;
use crate::aggregate::{Record, SeriesState, View, Window, WindowSpan};
use crate::model::{MetricType, Origin, Series, SeriesKey};
use crate::publish::totals::{SeriesRunning, is_cumulative};
use crate::render::prometheus::SeriesIdentity;
use crate::render::publish::{Merged, RoundRecord};
use crate::render::record::RecordNumber;
use crate::store::Published;

/// One series of an interval.
///
/// A round has a hundred thousand of these and more, so what is in a window is read there again when it is needed.
#[derive(Debug)]
pub(super) struct Entry<'w> {
    pub(super) identity: u32,
    pub(super) metric_type: MetricType,
    /// How many places of the cut it stands for.
    pub(super) places: u64,
    content: Content<'w>,
    pub(super) running: Option<SeriesRunning>,
}

#[derive(Debug)]
enum Content<'w> {
    Alone(WindowRecord<'w>),
    Merged(Box<MergedRecord<'w>>),
}

/// A record as it is in a window.
#[derive(Copy, Clone, Debug)]
struct WindowRecord<'w> {
    published: &'w Published,
    index: u32,
    /// Whether it is what was added to an earlier record.
    is_added: bool,
}

/// What several records have become together.
#[derive(Debug)]
struct MergedRecord<'w> {
    origin: &'w Origin,
    series: &'w Arc<Series>,
    span: WindowSpan,
    state: SeriesState,
    packed: Vec<u8>,
    total: f64,
    records: usize,
    others: Vec<&'w Origin>,
}

/// A record of a window, of one identity.
#[derive(Copy, Clone, Debug)]
pub(super) struct RecordPart<'w> {
    pub(super) published: &'w Published,
    pub(super) series: &'w Arc<Series>,
    /// Its place in the window.
    pub(super) index: u32,
    pub(super) rev: u32,
    pub(super) in_cut: bool,
    pub(super) is_late: bool,
}

impl Entry<'_> {
    /// The record, for the identity that the entry has. `None` if it cannot be decoded, which the checks on decoding rule out.
    pub(super) fn to_record<'s>(&'s self, identity: &'s SeriesIdentity) -> Option<RoundRecord<'s>> {
        let running = self.running.as_ref().map(SeriesRunning::as_total);
        Some(match &self.content {
            Content::Alone(record) => {
                let Record { series, view, .. } = record.read_record()?;
                RoundRecord {
                    origin: record.published.origin(),
                    identity,
                    span: record.published.window().span,
                    series,
                    view,
                    number: Some(record.number()),
                    merged: None,
                    running,
                }
            }
            Content::Merged(merged) => RoundRecord {
                origin: merged.origin,
                identity,
                span: merged.span,
                series: merged.series,
                view: merged.view()?,
                number: None,
                merged: Some(Merged { records: merged.records, others: &merged.others }),
                running,
            },
        })
    }

    /// Its container, series and what it has become.
    pub(super) fn read_view(&self) -> Option<(&Origin, &Arc<Series>, View<'_>)> {
        Some(match &self.content {
            Content::Alone(record) => {
                let Record { series, view, .. } = record.read_record()?;
                (record.published.origin(), series, view)
            }
            Content::Merged(merged) => (merged.origin, merged.series, merged.view()?),
        })
    }
}

impl<'w> WindowRecord<'w> {
    fn read_record(&self) -> Option<Record<'w>> {
        let window = match self.is_added {
            true => self.published.added_window()?,
            false => self.published.window(),
        };
        window.record_at(self.index as usize)
    }

    fn number(&self) -> RecordNumber {
        let index = self.index as usize;
        let rev = self.published.revision_counts().get(index).copied().unwrap_or(0);
        RecordNumber { seq: self.published.first_seq() + index as u64, rev }
    }
}

impl MergedRecord<'_> {
    fn view(&self) -> Option<View<'_>> {
        self.state.as_view(self.total, &self.packed)
    }
}

impl<'w> RecordPart<'w> {
    /// By series as a round is sorted, then by what the merged record must not depend on the order of: time, container, place. Where a
    /// window was published first says what of it is newest also where an earlier run published it.
    pub(super) fn compare_parts(&self, other: &Self, epoch: u64) -> Ordering {
        let by_time = |a: &Self, b: &Self| {
            let (of_a, of_b) = (a.origin(), b.origin());
            let born = |part: &Self| {
                (part.published.birth_in(epoch), part.published.first_seq() + u64::from(part.index))
            };
            (a.span().start.cmp(&b.span().start))
                .then_with(|| of_a.container_id.cmp(&of_b.container_id))
                .then_with(|| of_a.generation.cmp(&of_b.generation))
                .then_with(|| born(a).cmp(&born(b)))
        };
        self.compare_series(other).then_with(|| by_time(self, other))
    }

    fn compare_series(&self, other: &Self) -> Ordering {
        let (a, b) = (self.series, other.series);
        if Arc::ptr_eq(a, b) {
            return Ordering::Equal;
        }
        (&a.name, a.metric_type, &a.tags).cmp(&(&b.name, b.metric_type, &b.tags))
    }

    pub(super) fn is_of_same_series(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.series, other.series) || SeriesKey(self.series) == SeriesKey(other.series)
    }

    fn origin(&self) -> &'w Arc<Origin> {
        self.published.origin()
    }

    fn span(&self) -> WindowSpan {
        self.published.window().span
    }

    fn as_record(&self, is_added: bool) -> WindowRecord<'w> {
        // The window itself is what was added, unless there is another one.
        let is_added = is_added && self.published.added_apart().is_some();
        WindowRecord { published: self.published, index: self.index, is_added }
    }

    /// The part as a record of its own. `None` if it adds nothing, or nothing new.
    fn choose_alone(&self, reading: RecordReading) -> Option<WindowRecord<'w>> {
        if is_added_up(self.series, reading) {
            let added = self.published.added_window()?;
            return self.is_in(added).then(|| self.as_record(true));
        }
        (!self.is_late || self.rev == 0).then(|| self.as_record(false))
    }

    fn is_in(&self, window: &Window) -> bool {
        window.record_at(self.index as usize).is_some()
    }

    fn is_of_same_window(&self, other: &Self) -> bool {
        self.span().start == other.span().start && is_same_container(self.origin(), other.origin())
    }
}

fn is_same_container(a: &Origin, b: &Origin) -> bool {
    a.container_id == b.container_id && a.generation == b.generation
}

/// Whether what windows have added to a series is sent, and not what it has become.
fn is_added_up(series: &Series, reading: RecordReading) -> bool {
    reading == RecordReading::Added && is_cumulative(series.metric_type)
}

/// The records whose views add up to the record.
fn choose_records<'w>(parts: &[RecordPart<'w>], reading: RecordReading) -> Vec<WindowRecord<'w>> {
    if parts.first().is_some_and(|part| is_added_up(part.series, reading)) {
        return parts.iter().filter_map(|part| part.choose_alone(reading)).collect();
    }
    // Of each window, what the record has become last.
    let same_window = parts.chunk_by(RecordPart::is_of_same_window);
    let is_new =
        |same: &&[RecordPart<'_>]| same.first().is_some_and(|first| !first.is_late || first.rev == 0);
    same_window.filter(is_new).filter_map(|same| same.last()).map(|part| part.as_record(false)).collect()
}

impl<'w> Entry<'w> {
    /// The record that all parts of one series make up, for this identity. `None` if nothing is new, or nothing can be decoded.
    ///
    /// # Errors
    /// With how many places of the cut there are, if all are corrections of values that were sent and cannot be sent again.
    pub(super) fn from_parts(
        parts: &[RecordPart<'w>],
        identity: u32,
        span: WindowSpan,
        reading: RecordReading,
    ) -> Result<Option<Self>, u64> {
        let places = parts.iter().filter(|part| part.in_cut).count() as u64;
        let (true, Some(first)) = (places > 0, parts.first()) else { return Ok(None) };
        let (alone, several);
        let chosen = match parts {
            // Nearly all are alone.
            [only] => {
                alone = only.choose_alone(reading);
                alone.as_slice()
            }
            parts => {
                several = choose_records(parts, reading);
                several.as_slice()
            }
        };
        if chosen.is_empty() && parts.iter().any(|part| part.is_late) {
            return Err(places);
        }
        let metric_type = first.series.metric_type;
        let content = Content::from_records(chosen, span);
        Ok(content.map(|content| Self { identity, metric_type, places, content, running: None }))
    }
}

impl<'w> Content<'w> {
    fn from_records(records: &[WindowRecord<'w>], span: WindowSpan) -> Option<Self> {
        if let [only] = records {
            let own = only.published.window().span;
            if own.start == span.start && own.end == span.end {
                return Some(Self::Alone(*only));
            }
        }
        let merged = MergedRecord::from_records(records, span)?;
        merged.view().is_some().then(|| Self::Merged(Box::new(merged)))
    }
}

impl<'w> MergedRecord<'w> {
    fn from_records(newest: &[WindowRecord<'w>], span: WindowSpan) -> Option<Self> {
        let first = newest.first()?;
        let (origin, series) = (&**first.published.origin(), first.read_record()?.series);
        let mut state: Option<SeriesState> = None;
        let mut records = 0;
        for record in newest {
            // Checks on decoding rule out that one cannot be read; the others are still sent.
            let Some(next) = record.read_record().and_then(|record| record.view.to_state()) else { continue };
            records += 1;
            match &mut state {
                Some(state) => state.merge(&next),
                None => state = Some(next),
            }
        }
        let state = state?;
        let packed = state.to_packed_bytes();
        let mut others: Vec<&'w Origin> = Vec::new();
        for other in newest.iter().map(|record| &**record.published.origin()) {
            let is_known = |known: &&Origin| is_same_container(known, other);
            if !is_same_container(origin, other) && !others.iter().any(is_known) {
                others.push(other);
            }
        }
        let (total, covered) = sum_by_container(newest);
        let span = WindowSpan { covered: covered.min(span.nominal_length()), ..span };
        Some(Self { origin, series, span, state, packed, total, records, others })
    }
}

/// The sum of the containers' newest totals, and the longest time that one of them was observed.
fn sum_by_container(records: &[WindowRecord<'_>]) -> (f64, Duration) {
    let mut of_container = BTreeMap::new();
    for record in records {
        let total = match record.read_record() {
            Some(Record { view: View::Counter { total, .. }, .. }) => total,
            _ => 0.0,
        };
        let origin = record.published.origin();
        let key = (origin.container_id.as_str(), origin.generation.0);
        let sum = of_container.entry(key).or_insert((total, Duration::ZERO));
        *sum = (total, sum.1 + record.published.window().span.covered);
    }
    let covered = of_container.values().map(|(_, covered)| *covered).max().unwrap_or_default();
    (of_container.values().map(|(total, _)| total).sum(), covered)
}
