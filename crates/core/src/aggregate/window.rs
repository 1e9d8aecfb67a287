//! A closed window: the immutable, compact records of one container's series in one interval.
//!
//! Records are stored by type, in rows that refer to a [`Layout`] of series, which is shared by all windows that were
//! closed while no series was added or removed. Sketches and set members are packed in one byte buffer. Weighted counts
//! are stored only if a client sampled, ranges of gauges only if the level changed.
//!
//! [`Window::record_at`] returns a record as a [`View`], for rendering; [`View::to_state`] converts it to a
//! [`SeriesState`](super::SeriesState), for merging.

mod builder;
mod codec;
mod fold;
mod layout;
mod view;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use builder::WindowBuilder;
pub use codec::CodecError;
use codec::short;
pub use fold::WindowFold;
pub use layout::KnownLayout;
pub use view::{Record, View};

use super::distribution::{DistributionSummary, SummaryParts};
use super::gauge::Gauge;
use super::sketch::Packed;
use super::state::{CheckOutcome, Counter};
use super::weight::Weight;
use crate::model::{Series, Timestamp};

/// Series by their place. A place is vacant after its series was dropped for idleness.
pub type Layout = Arc<[Option<Arc<Series>>]>;

/// The interval of a window, and how much of it was observed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct WindowSpan {
    /// Its start (inclusive).
    pub start: Timestamp,
    /// Its end (exclusive).
    pub end: Timestamp,
    /// How long the container's socket was open within it; at most its length.
    pub covered: Duration,
}

impl WindowSpan {
    /// Its nominal length.
    #[must_use]
    pub fn nominal_length(&self) -> Duration {
        self.end.duration_since(self.start)
    }

    /// Whether less than its whole length was observed.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.covered < self.nominal_length()
    }
}

/// One container's records in one interval.
#[derive(Debug)]
pub struct Window {
    /// The interval.
    pub span: WindowSpan,
    layout: Layout,
    counters: Box<[CounterRow]>,
    gauges: Box<[GaugeRow]>,
    /// Sorted by place; gauges whose level moved within the window.
    ranges: Box<[RangeRow]>,
    carried: Box<[CarriedRow]>,
    distributions: Box<[DistributionRow]>,
    sets: Box<[SetRow]>,
    checks: Box<[CheckRow]>,
    /// Sorted by place; counters to which a negative value has been added since they were created.
    decremented: Box<[u32]>,
    /// Sorted by place; series whose weighted count is not their number of samples.
    counts: Box<[(u32, Weight)]>,
    bytes: Box<[u8]>,
}

// Rows are encoded directly: changing them changes bytes on disk and requires a new `codec::VERSION`.

#[derive(Debug, Serialize, Deserialize)]
struct CounterRow {
    place: u32,
    samples: u32,
    #[serde(with = "short")]
    sum: f64,
    #[serde(with = "short")]
    total: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct GaugeRow {
    place: u32,
    samples: u32,
    #[serde(with = "short")]
    last: f64,
    last_at: Offset,
}

#[derive(Debug, Serialize, Deserialize)]
struct RangeRow {
    place: u32,
    #[serde(with = "short")]
    min: f64,
    #[serde(with = "short")]
    max: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct CarriedRow {
    place: u32,
    #[serde(with = "short")]
    last: f64,
    last_at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct DistributionRow {
    place: u32,
    samples: u32,
    #[serde(with = "short")]
    sum: f64,
    #[serde(with = "short")]
    min: f64,
    #[serde(with = "short")]
    max: f64,
    #[serde(with = "short")]
    first: f64,
    #[serde(with = "short")]
    last: f64,
    #[serde(with = "short")]
    squares: f64,
    first_at: Offset,
    last_at: Offset,
    sketch: Slice,
}

#[derive(Debug, Serialize, Deserialize)]
struct SetRow {
    place: u32,
    samples: u32,
    members: Slice,
}

#[derive(Debug, Serialize, Deserialize)]
struct CheckRow {
    place: u32,
    samples: u32,
    last_at: Timestamp,
    outcome: Arc<CheckOutcome>,
}

/// A moment as microseconds after the window's start; this fits, because windows are at most an hour long.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
struct Offset(u32);

impl Offset {
    fn new(at: Timestamp, start: Timestamp) -> Self {
        Self(u32::try_from(at.duration_since(start).as_micros()).unwrap_or(u32::MAX))
    }

    fn to_timestamp(self, start: Timestamp) -> Timestamp {
        start.saturating_add(Duration::from_micros(u64::from(self.0)))
    }
}

/// A range in the byte buffer.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
struct Slice {
    start: u32,
    length: u32,
}

impl Window {
    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.row_starts().5 + self.checks.len()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index of the first record of each kind of row.
    fn row_starts(&self) -> (usize, usize, usize, usize, usize, usize) {
        let gauges = self.counters.len();
        let carried = gauges + self.gauges.len();
        let distributions = carried + self.carried.len();
        let sets = distributions + self.distributions.len();
        let checks = sets + self.sets.len();
        (0, gauges, carried, distributions, sets, checks)
    }

    /// The record at `index`, counted in the order of [`Window::records`].
    #[must_use]
    pub fn record_at(&self, index: usize) -> Option<Record<'_>> {
        let (_, gauges, carried, distributions, sets, checks) = self.row_starts();
        let (place, view) = if index < gauges {
            self.counter_view(self.counters.get(index)?)
        } else if index < carried {
            self.gauge_view(self.gauges.get(index - gauges)?)
        } else if index < distributions {
            carried_gauge(self.carried.get(index - carried)?)
        } else if index < sets {
            self.distribution_view(self.distributions.get(index - distributions)?)?
        } else if index < checks {
            self.set_view(self.sets.get(index - sets)?)?
        } else {
            check_view(self.checks.get(index - checks)?)
        };
        Some(Record { place, series: self.layout.get(place as usize)?.as_ref()?, view })
    }

    /// Every record: counters, gauges, carried gauges, distributions, sets, checks, each in the order of places.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).filter_map(|index| self.record_at(index))
    }

    /// Number of values in its records. Walks over all of them.
    #[must_use]
    pub fn count_values(&self) -> u64 {
        self.records().map(|record| record.view.sample_count()).sum()
    }

    /// The series that its records refer to, shared with adjacent windows.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes of memory, including this struct, without the shared layout.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.counters)
            + size_of_val(&*self.gauges)
            + size_of_val(&*self.ranges)
            + size_of_val(&*self.carried)
            + size_of_val(&*self.distributions)
            + size_of_val(&*self.sets)
            + size_of_val(&*self.checks)
            + self.checks.iter().map(|row| row.outcome.bytes()).sum::<usize>()
            + size_of_val(&*self.decremented)
            + size_of_val(&*self.counts)
            + self.bytes.len()
    }

    fn count(&self, place: u32, samples: u32) -> Weight {
        match self.counts.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(at) => self.counts.get(at).map_or(Weight::ZERO, |(_, count)| *count),
            Err(_) => Weight::from_count(u64::from(samples)),
        }
    }

    fn packed_bytes(&self, slice: Slice) -> Option<&[u8]> {
        let start = slice.start as usize;
        self.bytes.get(start..start + slice.length as usize)
    }

    fn counter_view(&self, row: &CounterRow) -> (u32, View<'_>) {
        let count = self.count(row.place, row.samples);
        let decremented = self.decremented.binary_search(&row.place).is_ok();
        let counter = Counter { samples: u64::from(row.samples), count, sum: row.sum, decremented };
        (row.place, View::Counter { counter, total: row.total })
    }

    fn gauge_view(&self, row: &GaugeRow) -> (u32, View<'_>) {
        let range = self.ranges.binary_search_by_key(&row.place, |range| range.place);
        let (min, max) = match range.ok().and_then(|at| self.ranges.get(at)) {
            Some(range) => (range.min, range.max),
            None => (row.last, row.last),
        };
        let count = self.count(row.place, row.samples);
        let last_at = row.last_at.to_timestamp(self.span.start);
        (
            row.place,
            View::Gauge(Gauge { samples: u64::from(row.samples), count, last: row.last, last_at, min, max }),
        )
    }

    fn distribution_view(&self, row: &DistributionRow) -> Option<(u32, View<'_>)> {
        let summary = DistributionSummary::from_parts(SummaryParts {
            samples: u64::from(row.samples),
            count: self.count(row.place, row.samples),
            sum: row.sum,
            min: row.min,
            max: row.max,
            first: (row.first, row.first_at.to_timestamp(self.span.start)),
            last: (row.last, row.last_at.to_timestamp(self.span.start)),
            squares: row.squares,
        });
        Some((row.place, View::Distribution { summary, sketch: Packed(self.packed_bytes(row.sketch)?) }))
    }

    fn set_view(&self, row: &SetRow) -> Option<(u32, View<'_>)> {
        let count = self.count(row.place, row.samples);
        let members = self.packed_bytes(row.members)?;
        Some((row.place, View::Set { samples: u64::from(row.samples), count, members }))
    }
}

fn carried_gauge(row: &CarriedRow) -> (u32, View<'_>) {
    (row.place, View::Gauge(Gauge::with_carried_level(row.last, row.last_at)))
}

fn check_view(row: &CheckRow) -> (u32, View<'_>) {
    let samples = u64::from(row.samples);
    (row.place, View::Check { samples, last_at: row.last_at, outcome: &row.outcome })
}
