//! A closed window: what one container's series did in one interval, immutable and small.
//!
//! Records are kept by type, in rows that refer to a [`Layout`] of series shared by all windows that were closed
//! while no series came or went. Percentiles and set members are packed in one byte buffer. Weighted counts are
//! stored only where a client sampled, ranges of gauges only where the level moved.
//!
//! [`Window::record`] gives a record as a [`View`], which renders; [`View::to_state`] gives it back as a [`State`],
//! which merges.

use std::sync::Arc;
use std::time::Duration;

use super::distribution::{Distribution, Parts, Summary};
use super::gauge::Gauge;
use super::set::Set;
use super::sketch::{Packed, Percentiles, Sketch};
use super::state::{CheckState, Counter, Outcome, State};
use super::weight::Weight;
use crate::model::{Series, Timestamp};

/// Series by their place. A place is vacant after its series was dropped for idleness.
pub type Layout = Arc<[Option<Arc<Series>>]>;

/// The interval of a window and how much of it was observed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first moment in it.
    pub start: Timestamp,
    /// The first moment after it.
    pub end: Timestamp,
    /// How long the container's socket was open in it; at most its length.
    pub covered: Duration,
}

impl Span {
    /// Its nominal length.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.end.since(self.start)
    }

    /// Whether less was observed than its length.
    #[must_use]
    pub fn partial(&self) -> bool {
        self.covered < self.length()
    }
}

/// One container's records in one interval.
#[derive(Debug)]
pub struct Window {
    /// The interval.
    pub span: Span,
    layout: Layout,
    counters: Box<[CounterRow]>,
    gauges: Box<[GaugeRow]>,
    /// Sorted by place; gauges whose level moved within the window.
    ranges: Box<[RangeRow]>,
    carried: Box<[CarriedRow]>,
    distributions: Box<[DistributionRow]>,
    sets: Box<[SetRow]>,
    checks: Box<[CheckRow]>,
    /// Sorted by place; series whose weighted count is not their number of samples.
    counts: Box<[(u32, Weight)]>,
    bytes: Box<[u8]>,
}

#[derive(Debug)]
struct CounterRow {
    place: u32,
    samples: u32,
    sum: f64,
    total: f64,
}

#[derive(Debug)]
struct GaugeRow {
    place: u32,
    samples: u32,
    last: f64,
    last_at: Offset,
}

#[derive(Debug)]
struct RangeRow {
    place: u32,
    min: f64,
    max: f64,
}

#[derive(Debug)]
struct CarriedRow {
    place: u32,
    last: f64,
    last_at: Timestamp,
}

#[derive(Debug)]
struct DistributionRow {
    place: u32,
    samples: u32,
    sum: f64,
    min: f64,
    max: f64,
    first: f64,
    last: f64,
    squares: f64,
    first_at: Offset,
    last_at: Offset,
    sketch: Slice,
}

#[derive(Debug)]
struct SetRow {
    place: u32,
    samples: u32,
    members: Slice,
}

#[derive(Debug)]
struct CheckRow {
    place: u32,
    samples: u32,
    last_at: Timestamp,
    outcome: Arc<Outcome>,
}

/// A moment as microseconds after the window's start; windows are at most an hour long, so this fits.
#[derive(Copy, Clone, Debug)]
struct Offset(u32);

impl Offset {
    fn new(at: Timestamp, start: Timestamp) -> Self {
        Self(u32::try_from(at.since(start).as_micros()).unwrap_or(u32::MAX))
    }

    fn after(self, start: Timestamp) -> Timestamp {
        start.plus(Duration::from_micros(u64::from(self.0)))
    }
}

/// Where something is in the byte buffer.
#[derive(Copy, Clone, Debug)]
struct Slice {
    start: u32,
    length: u32,
}

/// One record, borrowed from its window.
#[derive(Copy, Clone, Debug)]
pub struct Record<'w> {
    /// The series' place in the window's layout.
    pub place: u32,
    /// The series.
    pub series: &'w Arc<Series>,
    /// What it did.
    pub view: View<'w>,
}

/// What one series did in one window.
#[derive(Copy, Clone, Debug)]
pub enum View<'w> {
    /// A counter, and its total since the series was created.
    Counter {
        /// The window's part.
        counter: Counter,
        /// The ledger's total when the record was made.
        total: f64,
    },
    /// A gauge; carried where it has no samples.
    Gauge(Gauge),
    /// A timer, histogram or distribution.
    Distribution {
        /// Everything but percentiles.
        summary: Summary,
        /// The percentiles' source.
        sketch: Packed<'w>,
    },
    /// A set.
    Set {
        /// Raw samples.
        samples: u64,
        /// Samples weighted by 1/rate.
        count: Weight,
        /// Packed members.
        members: &'w [u8],
    },
    /// A service check.
    Check {
        /// Raw samples.
        samples: u64,
        /// When the last one came.
        last_at: Timestamp,
        /// What it said.
        outcome: &'w Arc<Outcome>,
    },
}

impl View<'_> {
    /// Raw samples in the window.
    #[must_use]
    pub fn samples(&self) -> u64 {
        match self {
            Self::Counter { counter, .. } => counter.samples,
            Self::Gauge(gauge) => gauge.samples,
            Self::Distribution { summary, .. } => summary.samples,
            Self::Set { samples, .. } | Self::Check { samples, .. } => *samples,
        }
    }

    /// The five percentiles; only of a timer, histogram or distribution.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        match self {
            Self::Distribution { summary, sketch } => sketch.percentiles(summary.min, summary.max),
            _ => None,
        }
    }

    /// How many different members a set has.
    #[must_use]
    pub fn cardinality(&self) -> Option<f64> {
        match *self {
            Self::Set { samples, count, members } => {
                Set::unpack(samples, count, members).map(|set| set.cardinality())
            }
            _ => None,
        }
    }

    /// The record as an aggregate again, to merge. `None` where its packed bytes are broken, which only a decoded
    /// snapshot could bring about and its checks rule out.
    #[must_use]
    pub fn to_state(&self) -> Option<State> {
        Some(match *self {
            Self::Counter { counter, .. } => State::Counter(counter),
            Self::Gauge(gauge) => State::Gauge(gauge),
            Self::Distribution { summary, sketch: packed } => {
                let mut sketch = Sketch::default();
                sketch.merge_packed(packed)?;
                State::Distribution(Box::new(Distribution { summary, sketch }))
            }
            Self::Set { samples, count, members } => {
                State::Set(Box::new(Set::unpack(samples, count, members)?))
            }
            Self::Check { samples, last_at, outcome } => {
                State::Check(Box::new(CheckState { samples, last_at, outcome: Some(Arc::clone(outcome)) }))
            }
        })
    }
}

impl State {
    /// Packs what a [`View`] of this state borrows: a sketch, or members.
    #[must_use]
    pub fn packed(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Distribution(values) => values.sketch.pack(&mut bytes),
            Self::Set(set) => set.pack(&mut bytes),
            Self::Counter(_) | Self::Gauge(_) | Self::Check(_) => {}
        }
        bytes
    }

    /// The state as a record's view; `packed` is what [`State::packed`] gave. `None` for a check without an outcome.
    #[must_use]
    pub fn view<'s>(&'s self, total: f64, packed: &'s [u8]) -> Option<View<'s>> {
        Some(match self {
            Self::Counter(counter) => View::Counter { counter: *counter, total },
            Self::Gauge(gauge) => View::Gauge(*gauge),
            Self::Distribution(values) => {
                View::Distribution { summary: values.summary, sketch: Packed(packed) }
            }
            Self::Set(set) => View::Set { samples: set.samples, count: set.count, members: packed },
            Self::Check(check) => View::Check {
                samples: check.samples,
                last_at: check.last_at,
                outcome: check.outcome.as_ref()?,
            },
        })
    }
}

impl Window {
    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts().5 + self.checks.len()
    }

    /// Whether nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where each kind of row starts in the order of records, the first at 0.
    fn starts(&self) -> (usize, usize, usize, usize, usize, usize) {
        let gauges = self.counters.len();
        let carried = gauges + self.gauges.len();
        let distributions = carried + self.carried.len();
        let sets = distributions + self.distributions.len();
        let checks = sets + self.sets.len();
        (0, gauges, carried, distributions, sets, checks)
    }

    /// The record at `index`, counted in the order of [`Window::records`].
    #[must_use]
    pub fn record(&self, index: usize) -> Option<Record<'_>> {
        let (_, gauges, carried, distributions, sets, checks) = self.starts();
        let (place, view) = if index < gauges {
            self.counter(self.counters.get(index)?)
        } else if index < carried {
            self.gauge(self.gauges.get(index - gauges)?)
        } else if index < distributions {
            carried_gauge(self.carried.get(index - carried)?)
        } else if index < sets {
            self.distribution(self.distributions.get(index - distributions)?)?
        } else if index < checks {
            self.set(self.sets.get(index - sets)?)?
        } else {
            check(self.checks.get(index - checks)?)
        };
        Some(Record { place, series: self.layout.get(place as usize)?.as_ref()?, view })
    }

    /// Every record: counters, gauges, carried gauges, distributions, sets, checks, each in the order of places.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).filter_map(|index| self.record(index))
    }

    /// The series its records refer to, shared with its neighbours.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes this window costs, itself included, the shared layout not.
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
            + size_of_val(&*self.counts)
            + self.bytes.len()
    }

    fn count(&self, place: u32, samples: u32) -> Weight {
        match self.counts.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(at) => self.counts.get(at).map_or(Weight::ZERO, |(_, count)| *count),
            Err(_) => Weight::from_count(u64::from(samples)),
        }
    }

    fn slice(&self, slice: Slice) -> Option<&[u8]> {
        let start = slice.start as usize;
        self.bytes.get(start..start + slice.length as usize)
    }

    fn counter(&self, row: &CounterRow) -> (u32, View<'_>) {
        let count = self.count(row.place, row.samples);
        let counter = Counter { samples: u64::from(row.samples), count, sum: row.sum };
        (row.place, View::Counter { counter, total: row.total })
    }

    fn gauge(&self, row: &GaugeRow) -> (u32, View<'_>) {
        let range = self.ranges.binary_search_by_key(&row.place, |range| range.place);
        let (min, max) = match range.ok().and_then(|at| self.ranges.get(at)) {
            Some(range) => (range.min, range.max),
            None => (row.last, row.last),
        };
        let count = self.count(row.place, row.samples);
        let last_at = row.last_at.after(self.span.start);
        (
            row.place,
            View::Gauge(Gauge { samples: u64::from(row.samples), count, last: row.last, last_at, min, max }),
        )
    }

    fn distribution(&self, row: &DistributionRow) -> Option<(u32, View<'_>)> {
        let summary = Summary::from_parts(Parts {
            samples: u64::from(row.samples),
            count: self.count(row.place, row.samples),
            sum: row.sum,
            min: row.min,
            max: row.max,
            first: (row.first, row.first_at.after(self.span.start)),
            last: (row.last, row.last_at.after(self.span.start)),
            squares: row.squares,
        });
        Some((row.place, View::Distribution { summary, sketch: Packed(self.slice(row.sketch)?) }))
    }

    fn set(&self, row: &SetRow) -> Option<(u32, View<'_>)> {
        let count = self.count(row.place, row.samples);
        let members = self.slice(row.members)?;
        Some((row.place, View::Set { samples: u64::from(row.samples), count, members }))
    }
}

fn carried_gauge(row: &CarriedRow) -> (u32, View<'_>) {
    (row.place, View::Gauge(Gauge::carried(row.last, row.last_at)))
}

fn check(row: &CheckRow) -> (u32, View<'_>) {
    let samples = u64::from(row.samples);
    (row.place, View::Check { samples, last_at: row.last_at, outcome: &row.outcome })
}

/// Makes a window, record by record, in ascending order of places.
#[derive(Debug)]
pub struct WindowBuilder {
    span: Span,
    counters: Vec<CounterRow>,
    gauges: Vec<GaugeRow>,
    ranges: Vec<RangeRow>,
    carried: Vec<CarriedRow>,
    distributions: Vec<DistributionRow>,
    sets: Vec<SetRow>,
    checks: Vec<CheckRow>,
    counts: Vec<(u32, Weight)>,
    bytes: Vec<u8>,
}

impl WindowBuilder {
    /// A window without records.
    #[must_use]
    pub fn new(span: Span) -> Self {
        Self {
            span,
            counters: Vec::new(),
            gauges: Vec::new(),
            ranges: Vec::new(),
            carried: Vec::new(),
            distributions: Vec::new(),
            sets: Vec::new(),
            checks: Vec::new(),
            counts: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Adds the record of the series at `place`. `total` is its ledger's total, used for a counter. A state without
    /// samples adds nothing, but for a gauge, which is carried.
    pub fn push(&mut self, place: u32, state: &State, total: f64) {
        let samples = u32::try_from(state.samples()).unwrap_or(u32::MAX);
        let count = state.count();
        if samples > 0 && count != Weight::from_count(u64::from(samples)) {
            self.counts.push((place, count));
        }
        match state {
            State::Gauge(gauge) if samples == 0 => {
                self.carried.push(CarriedRow { place, last: gauge.last, last_at: gauge.last_at });
            }
            _ if samples == 0 => {}
            State::Counter(counter) => {
                self.counters.push(CounterRow { place, samples, sum: counter.sum, total });
            }
            State::Gauge(gauge) => self.push_gauge(place, samples, gauge),
            State::Distribution(values) => self.push_distribution(place, samples, values),
            State::Set(set) => {
                let members = self.packed(|out| set.pack(out));
                self.sets.push(SetRow { place, samples, members });
            }
            State::Check(check) => {
                if let Some(outcome) = &check.outcome {
                    let outcome = Arc::clone(outcome);
                    self.checks.push(CheckRow { place, samples, last_at: check.last_at, outcome });
                }
            }
        }
    }

    fn push_gauge(&mut self, place: u32, samples: u32, gauge: &Gauge) {
        let last_at = Offset::new(gauge.last_at, self.span.start);
        self.gauges.push(GaugeRow { place, samples, last: gauge.last, last_at });
        if gauge.min < gauge.max || gauge.min.to_bits() != gauge.last.to_bits() {
            self.ranges.push(RangeRow { place, min: gauge.min, max: gauge.max });
        }
    }

    fn push_distribution(&mut self, place: u32, samples: u32, values: &Distribution) {
        let sketch = self.packed(|out| values.sketch.pack(out));
        let summary = &values.summary;
        self.distributions.push(DistributionRow {
            place,
            samples,
            sum: summary.sum,
            min: summary.min,
            max: summary.max,
            first: summary.first,
            last: summary.last,
            squares: summary.squares(),
            first_at: Offset::new(summary.first_at, self.span.start),
            last_at: Offset::new(summary.last_at, self.span.start),
            sketch,
        });
    }

    fn packed(&mut self, pack: impl FnOnce(&mut Vec<u8>)) -> Slice {
        let start = self.bytes.len();
        pack(&mut self.bytes);
        // 4 GiB of packed bytes in one window are beyond every memory limit.
        let at = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Slice { start: at(start), length: at(self.bytes.len() - start) }
    }

    /// The finished window.
    #[must_use]
    pub fn build(self, layout: Layout) -> Window {
        Window {
            span: self.span,
            layout,
            counters: self.counters.into(),
            gauges: self.gauges.into(),
            ranges: self.ranges.into(),
            carried: self.carried.into(),
            distributions: self.distributions.into(),
            sets: self.sets.into(),
            checks: self.checks.into(),
            counts: self.counts.into(),
            bytes: self.bytes.into(),
        }
    }
}
