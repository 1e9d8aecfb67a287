//! The aggregate of one series of any type in one span of time: it takes samples, and merges with other spans.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::distribution::Distribution;
use super::gauge::{Gauge, clamp_to_finite};
use super::set::Set;
use super::weight::Weight;
use crate::model::{MetricType, Timestamp};
use crate::statsd::{CheckStatus, Values};

/// The aggregate of one series in one span.
#[derive(Clone, Debug)]
pub enum SeriesState {
    /// `c`
    Counter(Counter),
    /// `g`
    Gauge(Gauge),
    /// `ms`, `h`, `d`
    Distribution(Box<Distribution>),
    /// `s`
    Set(Box<Set>),
    /// `_sc`
    Check(Box<CheckState>),
}

/// A counter in one span.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Counter {
    /// Raw samples.
    pub samples: u64,
    /// Samples weighted by 1/rate.
    pub count: Weight,
    /// Σ weight · value, saturating.
    pub sum: f64,
    /// Whether a value was negative; in a record, whether one ever was since the series was created.
    pub decremented: bool,
}

/// A service check in one span, with its last outcome.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckState {
    /// Raw samples.
    pub samples: u64,
    /// When the last one arrived.
    pub last_at: Timestamp,
    /// The last outcome; `None` if there was none.
    pub outcome: Option<Arc<CheckOutcome>>,
}

/// The outcome of a service check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// The status.
    pub status: CheckStatus,
    /// The message.
    pub message: Option<String>,
    /// The host the client says it ran on.
    pub hostname: Option<String>,
    /// When the client says it ran.
    pub timestamp: Option<Timestamp>,
}

impl CheckOutcome {
    /// Bytes of memory, including its texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let words = [&self.message, &self.hostname];
        size_of::<Self>() + words.iter().map(|text| text.as_ref().map_or(0, String::len)).sum::<usize>()
    }
}

impl Counter {
    /// Adds one sample's value.
    #[inline]
    fn insert(&mut self, value: f64, weight: f64, exact: Weight) {
        self.samples += 1;
        self.count = self.count.saturating_add(exact);
        self.sum = clamp_to_finite(self.sum + value * weight);
        self.decremented |= value < 0.0;
    }

    /// Adds another span of the same series.
    pub fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.count = self.count.saturating_add(other.count);
        self.sum = clamp_to_finite(self.sum + other.sum);
        self.decremented |= other.decremented;
    }
}

impl SeriesState {
    /// An empty aggregate.
    #[must_use]
    pub fn new(metric_type: MetricType) -> Self {
        match metric_type {
            MetricType::Counter => Self::Counter(Counter::default()),
            MetricType::Gauge => Self::Gauge(Gauge::UNSET),
            MetricType::Timer | MetricType::Histogram | MetricType::Distribution => {
                Self::Distribution(Box::default())
            }
            MetricType::Set => Self::Set(Box::default()),
            MetricType::ServiceCheck => {
                Self::Check(Box::new(CheckState { samples: 0, last_at: Timestamp::MIN, outcome: None }))
            }
        }
    }

    /// Adds a sample's values, each standing for `weight`, all at one moment. Returns the bytes by which this grew. A
    /// sample of another type adds nothing; the series table prevents that.
    #[inline]
    pub fn insert(&mut self, values: &Values<'_>, weight: f64, at: Timestamp, deltas: bool) -> usize {
        let exact = Weight::from_f64(weight);
        match (self, values) {
            (Self::Counter(counter), Values::One(number)) => {
                counter.insert(number.value, weight, exact);
            }
            (Self::Counter(counter), values) => {
                values.numbers().for_each(|number| counter.insert(number.value, weight, exact));
            }
            (Self::Gauge(gauge), Values::One(number)) => gauge.insert(*number, exact, at, deltas),
            (Self::Gauge(gauge), values) => {
                values.numbers().for_each(|number| gauge.insert(number, exact, at, deltas));
            }
            (Self::Distribution(into), Values::One(number)) => {
                return into.insert(number.value, weight, exact, at);
            }
            (Self::Distribution(into), values) => {
                return values.numbers().map(|number| into.insert(number.value, weight, exact, at)).sum();
            }
            (Self::Set(set), Values::Member(member)) => return set.insert(member, exact),
            (Self::Set(_) | Self::Check(_), _) => {}
        }
        0
    }

    /// Touches the memory that these values will change, to prefetch it.
    #[inline]
    pub(super) fn prefetch_values(&self, values: &Values<'_>) -> u64 {
        match (self, values) {
            (Self::Distribution(into), Values::One(number)) => into.prefetch_value(number.value),
            _ => 0,
        }
    }

    /// Sets a check's outcome; other types ignore it. Returns the bytes by which this grew.
    pub fn insert_outcome(&mut self, outcome: Arc<CheckOutcome>, at: Timestamp) -> usize {
        let Self::Check(check) = self else { return 0 };
        check.samples += 1;
        if at < check.last_at {
            return 0;
        }
        let before = check.outcome.as_deref().map_or(0, CheckOutcome::bytes);
        let grown = outcome.bytes().saturating_sub(before);
        (check.outcome, check.last_at) = (Some(outcome), at);
        grown
    }

    /// Adds another span of the same series. Another type adds nothing.
    pub fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Counter(mine), Self::Counter(other)) => mine.merge(other),
            (Self::Gauge(mine), Self::Gauge(other)) => mine.merge(other),
            (Self::Distribution(mine), Self::Distribution(other)) => mine.merge(other),
            (Self::Set(mine), Self::Set(other)) => mine.merge(other),
            (Self::Check(mine), Self::Check(other)) => {
                mine.samples += other.samples;
                if other.last_at >= mine.last_at {
                    (mine.outcome, mine.last_at) = (other.outcome.clone(), other.last_at);
                }
            }
            _ => {}
        }
    }

    /// Adds samples of the same series and span that arrived later than the present ones. Another type adds nothing.
    pub fn merge_revision(&mut self, later: &Self) {
        match (&mut *self, later) {
            (Self::Gauge(mine), Self::Gauge(later)) => mine.merge_revision(later),
            (Self::Distribution(mine), Self::Distribution(later)) => {
                mine.summary.merge_revision(&later.summary);
                mine.sketch.merge(&later.sketch);
            }
            _ => self.merge(later),
        }
    }

    /// Raw samples in the span.
    #[must_use]
    pub fn sample_count(&self) -> u64 {
        match self {
            Self::Counter(counter) => counter.samples,
            Self::Gauge(gauge) => gauge.samples,
            Self::Distribution(values) => values.summary.samples,
            Self::Set(set) => set.samples,
            Self::Check(check) => check.samples,
        }
    }

    /// Samples weighted by 1/rate.
    #[must_use]
    pub fn count(&self) -> Weight {
        match self {
            Self::Counter(counter) => counter.count,
            Self::Gauge(gauge) => gauge.count,
            Self::Distribution(values) => values.summary.count,
            Self::Set(set) => set.count,
            Self::Check(check) => Weight::from_count(check.samples),
        }
    }

    /// Starts the next window: a gauge keeps its level, everything else is reset.
    pub fn next_window(&mut self) {
        match self {
            Self::Counter(counter) => *counter = Counter::default(),
            Self::Gauge(gauge) => gauge.carry_level(),
            Self::Distribution(values) => values.clear(),
            Self::Set(set) => set.clear(),
            Self::Check(check) => check.samples = 0,
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Counter(_) | Self::Gauge(_) => 0,
            Self::Distribution(values) => size_of::<Distribution>() + values.sketch.heap_bytes(),
            Self::Set(set) => size_of::<Set>() + set.heap_bytes(),
            Self::Check(check) => {
                size_of::<CheckState>() + check.outcome.as_deref().map_or(0, CheckOutcome::bytes)
            }
        }
    }
}
