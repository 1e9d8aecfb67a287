//! One record of a window, as a borrowed view for rendering, or as a state for merging.

use std::sync::Arc;

use crate::aggregate::distribution::{Distribution, DistributionSummary};
use crate::aggregate::gauge::Gauge;
use crate::aggregate::histogram::{Counting, Native, Scale};
use crate::aggregate::set::Set;
use crate::aggregate::sketch::{Packed, Percentiles, Sketch};
use crate::aggregate::state::{CheckOutcome, CheckState, Counter, SeriesState};
use crate::aggregate::weight::Weight;
use crate::model::{MetricType, Series, Timestamp};

/// One record, borrowed from its window.
#[derive(Copy, Clone, Debug)]
pub struct Record<'w> {
    /// The series' place in the window's layout.
    pub place: u32,
    /// The series.
    pub series: &'w Arc<Series>,
    /// Its data.
    pub view: View<'w>,
}

/// The data of one series in one window.
#[derive(Copy, Clone, Debug)]
pub enum View<'w> {
    /// A counter, and its total since the series was created.
    Counter {
        /// The window's part.
        counter: Counter,
        /// The ledger's total when the record was made.
        total: f64,
    },
    /// A gauge; carried if it has no samples.
    Gauge(Gauge),
    /// A timer, histogram or distribution.
    Distribution {
        /// Everything but percentiles.
        summary: DistributionSummary,
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
        /// When the last one arrived.
        last_at: Timestamp,
        /// The last outcome.
        outcome: &'w Arc<CheckOutcome>,
    },
}

impl View<'_> {
    /// Raw samples in the window.
    #[must_use]
    pub fn sample_count(&self) -> u64 {
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

    /// The maximum relative error of the percentiles, if it exceeds one percent because the values' range is very wide.
    #[must_use]
    pub fn percentile_error(&self) -> Option<f64> {
        match self {
            Self::Distribution { sketch, .. } => sketch.relative_error(),
            _ => None,
        }
    }

    /// The values in buckets by powers of two, as [`Counting::Native`] counts them, but from the sketch: see
    /// [`Native::from_packed`]. `None` unless the record is that of a timer, histogram or distribution.
    #[must_use]
    pub fn to_native(&self, metric_type: MetricType) -> Option<Native> {
        match (self, Counting::Native.scale_for(metric_type)) {
            (Self::Distribution { summary, sketch }, Some(Scale::Powers { places })) => {
                Native::from_packed(*sketch, summary.min, summary.max, places)
            }
            _ => None,
        }
    }

    /// The number of distinct members of a set.
    #[must_use]
    pub fn cardinality(&self) -> Option<f64> {
        match *self {
            Self::Set { samples, count, members } => {
                Set::from_packed(samples, count, members).map(|set| set.cardinality())
            }
            _ => None,
        }
    }

    /// Converts the record to an aggregate, for merging. `None` if its packed bytes are damaged, which the checks on
    /// decoding rule out.
    #[must_use]
    pub fn to_state(&self) -> Option<SeriesState> {
        Some(match *self {
            Self::Counter { counter, .. } => SeriesState::Counter(counter),
            Self::Gauge(gauge) => SeriesState::Gauge(gauge),
            Self::Distribution { summary, sketch: packed } => {
                let mut sketch = Sketch::default();
                sketch.merge_packed(packed)?;
                SeriesState::Distribution(Box::new(Distribution { summary, sketch }))
            }
            Self::Set { samples, count, members } => {
                SeriesState::Set(Box::new(Set::from_packed(samples, count, members)?))
            }
            Self::Check { samples, last_at, outcome } => SeriesState::Check(Box::new(CheckState {
                samples,
                last_at,
                outcome: Some(Arc::clone(outcome)),
            })),
        })
    }
}

impl SeriesState {
    /// Packs the part that a [`View`] of this state borrows: a sketch, or members.
    #[must_use]
    pub fn to_packed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Distribution(values) => values.sketch.pack_into(&mut bytes),
            Self::Set(set) => set.pack_members(&mut bytes),
            Self::Counter(_) | Self::Gauge(_) | Self::Check(_) => {}
        }
        bytes
    }

    /// The state as a record's view; `packed` is the result of [`SeriesState::to_packed_bytes`]. `None` for a check
    /// without an outcome.
    #[must_use]
    pub fn as_view<'s>(&'s self, total: f64, packed: &'s [u8]) -> Option<View<'s>> {
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
