//! Values counted in buckets, exactly, since a series was created: for readers that cannot merge sketches.
//!
//! Bins of a sketch do not fall on configured bounds, so buckets are counted as values come, and only where the
//! settings ask for it. Why so, and what a change of bounds means: `docs/adr/0043-histograms.md`; for those that need no
//! bounds, `docs/adr/0045-native-histograms.md`.

mod native;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use native::{COARSEST_SCHEMA, FINEST_SCHEMA, MOST_BUCKETS, Native, ZERO_THRESHOLD};

use super::gauge::clamp_to_finite;
use super::weight::Weight;
use crate::model::{MetricType, Timestamp};
use crate::statsd::Values;

/// Whether values are counted in buckets, and in which.
#[derive(Clone, PartialEq, Default, Debug)]
pub enum Counting {
    /// No histograms, only percentiles.
    #[default]
    Off,
    /// Buckets with configured bounds.
    Classic {
        /// The bounds for timers.
        timers: Bounds,
        /// The bounds for histograms and distributions.
        values: Bounds,
    },
    /// Buckets by powers of two: of seconds for timers, otherwise of the unit in which values are sent.
    Native,
}

/// The buckets of a series.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Scale<'a> {
    /// By bounds.
    Bounds(&'a Bounds),
    /// By powers of two, in a unit of 10^places times the unit in which values are sent.
    Powers {
        /// 3 for timers, which are sent in milliseconds.
        places: i8,
    },
}

impl Counting {
    /// The scale for a type; `None` if its values are not counted.
    #[must_use]
    pub fn scale_for(&self, metric_type: MetricType) -> Option<Scale<'_>> {
        match (self, metric_type) {
            (Self::Classic { timers, .. }, MetricType::Timer) => Some(Scale::Bounds(timers)),
            (Self::Classic { values, .. }, MetricType::Histogram | MetricType::Distribution) => {
                Some(Scale::Bounds(values))
            }
            (Self::Native, MetricType::Timer) => Some(Scale::Powers { places: 3 }),
            (Self::Native, MetricType::Histogram | MetricType::Distribution) => {
                Some(Scale::Powers { places: 0 })
            }
            _ => None,
        }
    }
}

/// The number of values in each bucket.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Buckets {
    /// By bounds.
    Classic(Classic),
    /// By powers of two.
    Native(Native),
}

impl Buckets {
    fn new(scale: Scale<'_>) -> Self {
        match scale {
            Scale::Bounds(bounds) => Self::Classic(Classic::new(bounds)),
            Scale::Powers { places } => Self::Native(Native::new(places)),
        }
    }

    #[inline]
    fn insert(&mut self, value: f64, weight: Weight) {
        match self {
            Self::Classic(classic) => classic.insert(value, weight),
            Self::Native(native) => native.insert(value, weight),
        }
    }

    /// Adds counts of the same scale. Returns false, without adding them, if the scales differ.
    pub fn merge(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Classic(mine), Self::Classic(other)) => mine.merge(other),
            (Self::Native(mine), Self::Native(other)) => mine.merge(other),
            _ => false,
        }
    }

    /// The scale of these buckets.
    #[must_use]
    pub fn scale(&self) -> Scale<'_> {
        match self {
            Self::Classic(classic) => Scale::Bounds(classic.bounds()),
            Self::Native(native) => Scale::Powers { places: native.decimal_places() },
        }
    }

    /// All values, weighted by 1/rate.
    #[must_use]
    pub fn count(&self) -> Weight {
        match self {
            Self::Classic(classic) => {
                classic.bucket_counts().iter().fold(Weight::ZERO, |sum, count| sum.saturating_add(*count))
            }
            Self::Native(native) => native.count(),
        }
    }

    /// The number of values within each bound; the last one is the total. Empty if there are no bounds.
    pub fn cumulative_counts(&self) -> impl Iterator<Item = Weight> {
        let counts = match self {
            Self::Classic(classic) => classic.bucket_counts(),
            Self::Native(_) => &[],
        };
        counts.iter().scan(Weight::ZERO, |sum, count| {
            *sum = sum.saturating_add(*count);
            Some(*sum)
        })
    }

    /// Bytes, without the bounds, which series share.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let heap = match self {
            Self::Classic(classic) => classic.heap_bytes(),
            Self::Native(native) => native.heap_bytes(),
        };
        size_of::<Self>() + heap
    }

    fn is_plausible(&self) -> bool {
        match self {
            Self::Classic(classic) => classic.is_plausible(),
            Self::Native(native) => native.is_plausible(),
        }
    }
}

/// The histogram of a series, since its first value after the buckets were configured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Histogram {
    /// When that value arrived.
    pub created: Timestamp,
    /// Σ weight · value, saturating.
    pub sum: f64,
    /// Shared with ledgers that have the same counts.
    pub buckets: Arc<Buckets>,
}

impl Histogram {
    /// An empty histogram with this scale.
    #[must_use]
    pub fn new(scale: Scale<'_>, created: Timestamp) -> Self {
        Self { created, sum: 0.0, buckets: Arc::new(Buckets::new(scale)) }
    }

    /// Adds a sample's values, each standing for `weight`. Returns the bytes by which memory grew: buckets that a
    /// ledger shares are copied first.
    pub fn insert(&mut self, values: &Values<'_>, weight: f64) -> usize {
        let mine = Arc::get_mut(&mut self.buckets).map_or(0, |buckets| buckets.bytes());
        let (exact, buckets) = (Weight::from_f64(weight), Arc::make_mut(&mut self.buckets));
        for number in values.numbers() {
            self.sum = clamp_to_finite(self.sum + number.value * weight);
            buckets.insert(number.value, exact);
        }
        buckets.bytes().saturating_sub(mine)
    }

    /// Whether values can have produced it.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.sum.is_finite() && self.buckets.is_plausible()
    }
}

/// Maximum number of bounds of a histogram.
pub const MOST_BOUNDS: usize = 100;

/// Upper bounds of buckets, ascending and inclusive, in the unit in which values are sent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Bounds(Arc<[f64]>);

/// Why numbers cannot be bounds.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BoundsError {
    /// None, or more than [`MOST_BOUNDS`].
    #[error("is not 1 to {MOST_BOUNDS} bounds")]
    Number,
    /// Not all of them numbers, or each larger than the one before.
    #[error("is not finite numbers, each larger than the one before")]
    Order,
}

impl Bounds {
    /// Bounds given in a unit of 10^`places` times the unit in which values are sent.
    ///
    /// # Errors
    /// When they are too many or too few, not ascending, or not finite.
    pub fn new(bounds: &[f64], places: i8) -> Result<Self, BoundsError> {
        if bounds.is_empty() || bounds.len() > MOST_BOUNDS {
            return Err(BoundsError::Number);
        }
        let bounds: Arc<[f64]> = bounds.iter().map(|bound| shift_decimal_point(*bound, places)).collect();
        let sound = Self(bounds);
        if sound.is_plausible() { Ok(sound) } else { Err(BoundsError::Order) }
    }

    /// Each bound, in a unit of 10^`places` times the unit in which values are sent.
    pub fn iter_scaled(&self, places: i8) -> impl Iterator<Item = f64> {
        self.0.iter().map(move |bound| shift_decimal_point(*bound, -places))
    }

    /// The first of them.
    #[must_use]
    pub fn lowest_bound(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    fn is_plausible(&self) -> bool {
        let rises = self.0.is_sorted_by(|one, next| one < next);
        rises && !self.0.is_empty() && self.0.iter().all(|bound| bound.is_finite())
    }
}

/// Shifts the decimal point of a number in its decimal notation: 0.1 s becomes exactly 100 ms, whatever 0.1 · 1000 is.
fn shift_decimal_point(number: f64, places: i8) -> f64 {
    match places {
        0 => number,
        places => format!("{number}e{places}").parse().unwrap_or(f64::NAN),
    }
}

/// The number of values in each bucket, not cumulative.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Classic {
    bounds: Bounds,
    /// One more than the bounds: the last counts values beyond all of them.
    counts: Box<[Weight]>,
}

impl Classic {
    fn new(bounds: &Bounds) -> Self {
        Self { bounds: bounds.clone(), counts: vec![Weight::ZERO; bounds.0.len() + 1].into() }
    }

    #[inline]
    fn insert(&mut self, value: f64, weight: Weight) {
        let at = self.bounds.0.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count = count.saturating_add(weight);
        }
    }

    /// Adds counts with the same bounds. Returns false, without adding them, if the bounds differ.
    fn merge(&mut self, other: &Self) -> bool {
        let same = self.bounds == other.bounds;
        if same {
            for (mine, other) in self.counts.iter_mut().zip(&other.counts) {
                *mine = mine.saturating_add(*other);
            }
        }
        same
    }

    fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    fn bucket_counts(&self) -> &[Weight] {
        &self.counts
    }

    fn heap_bytes(&self) -> usize {
        size_of_val(&*self.counts)
    }

    fn is_plausible(&self) -> bool {
        self.bounds.is_plausible() && self.counts.len() == self.bounds.0.len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statsd::{ParsedLine, TagStyles, parse};

    fn sent(histogram: &mut Histogram, line: &str) {
        let Ok(ParsedLine::Sample(sample)) = parse(line.as_bytes(), TagStyles::NONE) else {
            panic!("{line}")
        };
        histogram.insert(&sample.values, sample.weight);
    }

    fn counts(histogram: &Histogram) -> Vec<f64> {
        histogram.buckets.cumulative_counts().map(Weight::as_f64).collect()
    }

    #[test]
    fn a_value_that_equals_a_bound_is_within_it() {
        // As they are written in a file, in seconds; 0.0001 · 1000 is not 0.1.
        let bounds = Bounds::new(&[0.0001, 0.005, 0.3, 10.0], 3).unwrap();
        let mut histogram = Histogram::new(Scale::Bounds(&bounds), Timestamp::MIN);
        for line in ["t:0.1|ms", "t:5|ms", "t:300|ms", "t:10000|ms"] {
            sent(&mut histogram, line);
        }
        assert_eq!(counts(&histogram), [1.0, 2.0, 3.0, 4.0, 4.0]);
        sent(&mut histogram, "t:0.10000000000000002:300.1:-7:10000.1|ms");
        assert_eq!(counts(&histogram), [2.0, 4.0, 5.0, 7.0, 8.0]);
        assert_eq!(bounds.iter_scaled(3).collect::<Vec<_>>(), [0.0001, 0.005, 0.3, 10.0]);
    }

    #[test]
    fn sampled_values_count_by_their_rate_and_sums_merge_exactly() {
        let bounds = Bounds::new(&[10.0], 0).unwrap();
        let (mut one, mut other) = (
            Histogram::new(Scale::Bounds(&bounds), Timestamp::MIN),
            Histogram::new(Scale::Bounds(&bounds), Timestamp::MIN),
        );
        sent(&mut one, "h:1:20|h|@0.1");
        sent(&mut other, "h:2|h|@0.3");
        assert_eq!((counts(&one), one.sum), (vec![10.0, 20.0], 210.0));
        let mut both = Arc::clone(&one.buckets);
        assert!(Arc::make_mut(&mut both).merge(&other.buckets));
        assert_eq!(both.count(), one.buckets.count().saturating_add(Weight::from_f64(1.0 / 0.3)));
        let other_bounds = Bounds::new(&[11.0], 0).unwrap();
        for other in [Scale::Bounds(&other_bounds), Scale::Powers { places: 0 }] {
            assert!(!Arc::make_mut(&mut both).merge(&Buckets::new(other)), "{other:?}");
        }
        assert_eq!(both.count(), one.buckets.count().saturating_add(Weight::from_f64(1.0 / 0.3)));
    }

    #[test]
    fn what_a_ledger_says_does_not_change_and_its_copy_is_counted() {
        let bounds = Bounds::new(&[10.0], 0).unwrap();
        let mut histogram = Histogram::new(Scale::Bounds(&bounds), Timestamp::MIN);
        let Ok(ParsedLine::Sample(sample)) = parse(b"h:1|h", TagStyles::NONE) else { panic!() };
        assert_eq!(histogram.insert(&sample.values, 1.0), 0);
        let said = histogram.clone();
        assert_eq!(histogram.insert(&sample.values, 1.0), said.buckets.bytes());
        assert_eq!((counts(&said), counts(&histogram)), (vec![1.0, 1.0], vec![2.0, 2.0]));
    }

    #[test]
    fn bounds_rise_and_are_not_too_many() {
        assert_eq!(Bounds::new(&[], 0), Err(BoundsError::Number));
        assert_eq!(Bounds::new(&vec![1.0; MOST_BOUNDS + 1], 0), Err(BoundsError::Number));
        for wrong in [[1.0, 1.0], [2.0, 1.0], [1.0, f64::INFINITY], [f64::NAN, 1.0]] {
            assert_eq!(Bounds::new(&wrong, 0), Err(BoundsError::Order), "{wrong:?}");
        }
        assert_eq!(Bounds::new(&[1.0, 1e306], 3), Err(BoundsError::Order), "no number in milliseconds");
    }
}
