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
    /// In none: there are only percentiles.
    #[default]
    Off,
    /// By bounds.
    Classic {
        /// Those of timers.
        timers: Bounds,
        /// Those of histograms and distributions.
        values: Bounds,
    },
    /// By powers of two: of seconds for timers, else of the unit in which values are sent.
    Native,
}

/// By what the values of a series are counted.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Scale<'a> {
    /// By bounds.
    Bounds(&'a Bounds),
    /// By powers of two, of a unit that is 10^places of those in which values are sent.
    Powers {
        /// 3 for timers, which are sent in milliseconds.
        places: i8,
    },
}

impl Counting {
    /// How values of a type are counted, where they are.
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

/// How many values were in each bucket.
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

    /// Adds what others counted by the same scale. Answers whether it is the same.
    pub fn merge(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Classic(mine), Self::Classic(other)) => mine.merge(other),
            (Self::Native(mine), Self::Native(other)) => mine.merge(other),
            _ => false,
        }
    }

    /// By what it is counted.
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

    /// How many are within each bound; the last has all of them. None where there are no bounds.
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

    /// Bytes of it, bounds aside, which series share.
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

/// A series in buckets, since its first value after they were chosen.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Histogram {
    /// When that came.
    pub created: Timestamp,
    /// Σ weight · value, saturating.
    pub sum: f64,
    /// Shared with every ledger that says the same.
    pub buckets: Arc<Buckets>,
}

impl Histogram {
    /// Nothing, to be counted by this from now on.
    #[must_use]
    pub fn new(scale: Scale<'_>, created: Timestamp) -> Self {
        Self { created, sum: 0.0, buckets: Arc::new(Buckets::new(scale)) }
    }

    /// Adds a sample's values, each standing for `weight`. Answers the bytes by which memory grew: buckets that a ledger
    /// still says are left to it.
    pub fn insert(&mut self, values: &Values<'_>, weight: f64) -> usize {
        let mine = Arc::get_mut(&mut self.buckets).map_or(0, |buckets| buckets.bytes());
        let (exact, buckets) = (Weight::from_f64(weight), Arc::make_mut(&mut self.buckets));
        for number in values.numbers() {
            self.sum = clamp_to_finite(self.sum + number.value * weight);
            buckets.insert(number.value, exact);
        }
        buckets.bytes().saturating_sub(mine)
    }

    /// Whether values can have made it.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.sum.is_finite() && self.buckets.is_plausible()
    }
}

/// Most bounds that a histogram can have.
pub const MOST_BOUNDS: usize = 100;

/// Upper bounds of buckets, rising, in the unit in which values are sent. A value that equals one is within it.
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
    /// Bounds of values that are sent in a unit of which 10^`places` are the bounds' own.
    ///
    /// # Errors
    /// When they are too many or too few, do not rise, or are not finite.
    pub fn new(bounds: &[f64], places: i8) -> Result<Self, BoundsError> {
        if bounds.is_empty() || bounds.len() > MOST_BOUNDS {
            return Err(BoundsError::Number);
        }
        let bounds: Arc<[f64]> = bounds.iter().map(|bound| shift_decimal_point(*bound, places)).collect();
        let sound = Self(bounds);
        if sound.is_plausible() { Ok(sound) } else { Err(BoundsError::Order) }
    }

    /// Each of them, in a unit of which one is 10^`places` of those in which values are sent.
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

/// A number as it is written, with its point moved: 0.1 s are what `100` ms is read as, whatever 0.1 · 1000 gives.
fn shift_decimal_point(number: f64, places: i8) -> f64 {
    match places {
        0 => number,
        places => format!("{number}e{places}").parse().unwrap_or(f64::NAN),
    }
}

/// How many values were within each bound, and not within the one before.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Classic {
    bounds: Bounds,
    /// One more than bounds: the last is of what is beyond all of them.
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

    /// Adds what others counted by the same bounds. Answers whether they are the same.
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
