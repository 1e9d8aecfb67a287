//! Timers, histograms and distributions: aggregates of many values.

use super::gauge::{clamp_to_finite, should_replace_earlier};
use super::sketch::Sketch;
use super::weight::Weight;
use crate::model::Timestamp;

/// The sums of many values, without their percentiles.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DistributionSummary {
    /// Raw values.
    pub samples: u64,
    /// Values weighted by 1/rate.
    pub count: Weight,
    /// Σ weight · value, saturating.
    pub sum: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The earliest value.
    pub first: f64,
    /// The time of the earliest value.
    pub first_at: Timestamp,
    /// The latest value.
    pub last: f64,
    /// The time of the latest value.
    pub last_at: Timestamp,
    /// The weighted mean, updated with each value. NaN once it has overflowed.
    running_mean: f64,
    /// Σ weight · (value − mean)². Not finite once it has overflowed.
    squares: f64,
}

impl DistributionSummary {
    /// Nothing.
    pub const EMPTY: Self = Self {
        samples: 0,
        count: Weight::ZERO,
        sum: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        first: 0.0,
        first_at: Timestamp::MAX,
        last: 0.0,
        last_at: Timestamp::MIN,
        running_mean: 0.0,
        squares: 0.0,
    };

    /// From its stored parts. The mean is computed from `sum` and `count`.
    pub(super) fn from_parts(parts: SummaryParts) -> Self {
        let SummaryParts { samples, count, sum, min, max, first, last, squares } = parts;
        let running_mean = if samples == 0 { 0.0 } else { sum / count.as_f64() };
        let (first, first_at) = first;
        let (last, last_at) = last;
        Self { samples, count, sum, min, max, first, first_at, last, last_at, running_mean, squares }
    }

    /// Second moment about the mean, for storing.
    pub(super) fn squared_deviations(&self) -> f64 {
        self.squares
    }

    #[inline]
    fn insert(&mut self, value: f64, weight: f64, exact: Weight, at: Timestamp) {
        self.samples += 1;
        self.count = self.count.saturating_add(exact);
        self.sum = clamp_to_finite(self.sum + value * weight);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if self.samples == 1 || !should_replace_earlier(at, self.first_at) {
            (self.first, self.first_at) = (value, at);
        }
        if should_replace_earlier(at, self.last_at) {
            (self.last, self.last_at) = (value, at.max(self.last_at));
        }
        // West, "Updating mean and variance estimates", 1979: no cancellation, whatever the values' size.
        let off = value - self.running_mean;
        self.running_mean += off * (weight / self.count.as_f64());
        self.squares += weight * off * (value - self.running_mean);
    }

    /// Adds another span of the same series.
    pub fn merge(&mut self, other: &Self) {
        if other.samples == 0 {
            return;
        }
        if self.samples == 0 {
            *self = *other;
            return;
        }
        // Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
        let (mine, others) = (self.count.as_f64(), other.count.as_f64());
        let both = self.count.saturating_add(other.count);
        let off = other.running_mean - self.running_mean;
        self.running_mean += off * (others / both.as_f64());
        self.squares += other.squares + off * off * mine * (others / both.as_f64());
        self.samples += other.samples;
        self.count = both;
        self.sum = clamp_to_finite(self.sum + other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.first_at < self.first_at {
            (self.first, self.first_at) = (other.first, other.first_at);
        }
        if other.last_at >= self.last_at {
            (self.last, self.last_at) = (other.last, other.last_at);
        }
    }

    /// Adds values of the same span that arrived later than the present ones.
    pub fn merge_revision(&mut self, later: &Self) {
        let newest = should_replace_earlier(later.last_at, self.last_at);
        let (last, last_at) = (later.last, later.last_at.max(self.last_at));
        self.merge(later);
        if later.samples > 0 && newest {
            (self.last, self.last_at) = (last, last_at);
        }
    }

    /// The weighted mean, clamped to `min` and `max` because of rounding: three times 0.1 is slightly more than 0.3.
    /// `None` if there are no values or it overflows.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        if self.samples == 0 {
            return None;
        }
        let saturated = self.sum.abs() >= f64::MAX;
        let mean = if saturated { self.running_mean } else { self.sum / self.count.as_f64() };
        mean.is_finite().then(|| mean.clamp(self.min, self.max))
    }

    /// The weighted population standard deviation; `None` if there are no values or it overflows.
    #[must_use]
    pub fn stddev(&self) -> Option<f64> {
        let variance = self.squares.max(0.0) / self.count.as_f64();
        (self.samples > 0 && self.squares.is_finite() && variance.is_finite()).then(|| variance.sqrt())
    }
}

/// The stored form of a [`DistributionSummary`].
#[derive(Clone, Copy, Debug)]
pub(super) struct SummaryParts {
    pub(super) samples: u64,
    pub(super) count: Weight,
    pub(super) sum: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) first: (f64, Timestamp),
    pub(super) last: (f64, Timestamp),
    pub(super) squares: f64,
}

/// A timer, histogram or distribution series in one window.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// Sums, extremes, first and last.
    pub summary: DistributionSummary,
    /// Percentiles.
    pub sketch: Sketch,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { summary: DistributionSummary::EMPTY, sketch: Sketch::default() }
    }
}

impl Distribution {
    /// Adds one value that stands for `weight` values. Returns the bytes by which this grew.
    #[inline]
    pub fn insert(&mut self, value: f64, weight: f64, exact: Weight, at: Timestamp) -> usize {
        self.summary.insert(value, weight, exact, at);
        self.sketch.insert(value, exact)
    }

    /// Touches the memory that the next value will need, to prefetch it.
    #[inline]
    pub(super) fn prefetch_value(&self, value: f64) -> u64 {
        // One field from each cache line.
        let sums = self.summary.samples.wrapping_add(self.summary.squares.to_bits());
        sums.wrapping_add(self.sketch.prefetch_bin(value))
    }

    /// Adds another span of the same series.
    pub fn merge(&mut self, other: &Self) {
        self.summary.merge(&other.summary);
        self.sketch.merge(&other.sketch);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.summary = DistributionSummary::EMPTY;
        self.sketch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn summary(values: &[(f64, f64)]) -> DistributionSummary {
        let mut summary = DistributionSummary::EMPTY;
        for (n, (value, weight)) in (0..).zip(values) {
            summary.insert(*value, *weight, Weight::from_f64(*weight), at(n));
        }
        summary
    }

    fn close(found: Option<f64>, wanted: f64) -> bool {
        found.is_some_and(|found| (found - wanted).abs() <= wanted.abs() * 1e-9)
    }

    #[test]
    fn weights_count_in_sum_mean_and_stddev() {
        let summary = summary(&[(10.0, 1.0), (20.0, 3.0)]);
        assert_eq!((summary.samples, summary.count.as_f64(), summary.sum), (2, 4.0, 70.0));
        assert!(close(summary.mean(), 17.5));
        // Population: ((10−17.5)² + 3·(20−17.5)²) / 4
        assert!(close(summary.stddev(), 18.75_f64.sqrt()));
    }

    #[test]
    fn a_small_spread_around_a_large_value_is_not_lost() {
        let summary = summary(&[(1e9, 1.0), (1e9 + 1.0, 1.0), (1e9 + 2.0, 1.0)]);
        assert!(close(summary.stddev(), (2.0_f64 / 3.0).sqrt()));
    }

    #[test]
    fn a_mean_never_leaves_its_values() {
        let summary = summary(&[(0.1, 1.0); 3]);
        assert!(summary.sum > 0.3);
        assert_eq!(summary.mean(), Some(0.1));
    }

    #[test]
    fn what_cannot_be_expressed_is_absent() {
        let huge = summary(&[(f64::MAX, 1e6), (f64::MIN, 1.0), (f64::MAX, 1.0)]);
        assert_eq!(huge.sum, f64::MAX);
        assert_eq!(huge.stddev(), None);
        assert!(huge.mean().is_none_or(f64::is_finite));
        assert_eq!((DistributionSummary::EMPTY.mean(), DistributionSummary::EMPTY.stddev()), (None, None));
    }

    #[test]
    fn first_and_last_go_by_time_and_then_by_order() {
        let mut late = DistributionSummary::EMPTY;
        for (value, secs) in [(1.0, 5), (2.0, 3), (3.0, 5), (4.0, 3)] {
            late.insert(value, 1.0, Weight::ONE, at(secs));
        }
        assert_eq!((late.first, late.last), (2.0, 3.0));
    }

    #[test]
    fn merging_equals_inserting_together() {
        let values: Vec<_> = (0..40).map(|n| (f64::from(n * n % 17) - 4.0, f64::from(n % 3 + 1))).collect();
        let (left, right) = values.split_at(13);
        let mut merged = summary(left);
        let mut tail = DistributionSummary::EMPTY;
        for (n, (value, weight)) in (13..).zip(right) {
            tail.insert(*value, *weight, Weight::from_f64(*weight), at(n));
        }
        merged.merge(&tail);
        let together = summary(&values);
        assert_eq!(
            (merged.samples, merged.count, merged.min, merged.max),
            (together.samples, together.count, together.min, together.max)
        );
        assert_eq!((merged.first, merged.last), (together.first, together.last));
        assert!(close(merged.stddev(), together.stddev().unwrap()) && close(Some(merged.sum), together.sum));
    }
}
