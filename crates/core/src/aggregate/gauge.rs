//! Gauges: a level that stays until it changes.

use super::weight::Weight;
use crate::model::Timestamp;
use crate::statsd::Number;

/// A gauge series in one window. Without samples it is carried: the level is that of an earlier window.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Gauge {
    /// Raw samples in the window; 0 for a carried gauge.
    pub samples: u64,
    /// Samples weighted by 1/rate. The level itself is never scaled.
    pub count: Weight,
    /// The level at the end.
    pub last: f64,
    /// When it was last set.
    pub last_at: Timestamp,
    /// The lowest level that was set in the window; `last` for a carried gauge.
    pub min: f64,
    /// The highest level that was set in the window; `last` for a carried gauge.
    pub max: f64,
}

impl Gauge {
    /// A gauge that was never set: 0, which is also what a first delta adds to.
    pub const UNSET: Self =
        Self { samples: 0, count: Weight::ZERO, last: 0.0, last_at: Timestamp::MIN, min: 0.0, max: 0.0 };

    /// A gauge without samples, at the level of an earlier window.
    #[must_use]
    pub fn with_carried_level(last: f64, last_at: Timestamp) -> Self {
        Self { last, last_at, min: last, max: last, ..Self::UNSET }
    }

    /// Whether it ever had a level.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.last_at > Timestamp::MIN
    }

    /// Adds one number: a new level, or a change if it is signed and `deltas` is on. A change always applies; a level
    /// only if no later one is known.
    pub fn insert(&mut self, number: Number, weight: Weight, at: Timestamp, deltas: bool) {
        if number.signed && deltas {
            self.set_level(clamp_to_finite(self.last + number.value), weight, at.max(self.last_at));
        } else {
            self.set_level(number.value, weight, at);
        }
    }

    fn set_level(&mut self, level: f64, weight: Weight, at: Timestamp) {
        let first = self.samples == 0;
        self.min = if first { level } else { self.min.min(level) };
        self.max = if first { level } else { self.max.max(level) };
        if first {
            (self.last, self.last_at) = (level, at);
        } else if should_replace_earlier(at, self.last_at) {
            (self.last, self.last_at) = (level, at.max(self.last_at));
        }
        self.samples += 1;
        self.count = self.count.saturating_add(weight);
    }

    /// Adds another span of the same series: the later level wins, and `other`'s if both have the same time. A carried
    /// gauge has no samples, so it adds nothing to the range.
    pub fn merge(&mut self, other: &Self) {
        match (self.samples, other.samples) {
            (_, 0) => {}
            (0, _) => (self.min, self.max) = (other.min, other.max),
            _ => (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max)),
        }
        if other.last_at >= self.last_at {
            (self.last, self.last_at) = (other.last, other.last_at);
        }
        self.samples += other.samples;
        self.count = self.count.saturating_add(other.count);
        if self.samples == 0 {
            (self.min, self.max) = (self.last, self.last);
        }
    }

    /// Adds samples of the same span that arrived later than the present ones.
    pub fn merge_revision(&mut self, later: &Self) {
        let newest = should_replace_earlier(later.last_at, self.last_at);
        let (last, last_at) = (later.last, later.last_at.max(self.last_at));
        self.merge(later);
        if later.samples > 0 && newest {
            (self.last, self.last_at) = (last, last_at);
        }
    }

    /// The start of the next window: the level stays, the samples go.
    pub fn carry_level(&mut self) {
        *self = Self::with_carried_level(self.last, self.last_at);
    }

    /// Takes a level that was set in an earlier window, unless a later one is known.
    pub fn set_earlier(&mut self, level: f64, at: Timestamp) {
        if should_replace_earlier(at, self.last_at) {
            (self.last, self.last_at) = (level, at.max(self.last_at));
            if self.samples == 0 {
                (self.min, self.max) = (level, level);
            }
        }
    }
}

/// Whether a value measured at `at` replaces an earlier arrival measured at `last_at`. A timestamp on a line is in whole
/// seconds and stands for any moment of its second, so within one second the later arrival wins.
#[inline]
pub(super) fn should_replace_earlier(at: Timestamp, last_at: Timestamp) -> bool {
    at >= last_at || at.as_secs() == last_at.as_secs()
}

/// The nearest finite number.
pub(super) fn clamp_to_finite(value: f64) -> f64 {
    value.clamp(f64::MIN, f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn gauge(levels: &[(&str, i64)]) -> Gauge {
        let mut gauge = Gauge::UNSET;
        for (text, secs) in levels {
            let number = Number { value: text.parse().unwrap(), signed: text.starts_with(['+', '-']) };
            gauge.insert(number, Weight::ONE, at(*secs), true);
        }
        gauge
    }

    #[test]
    fn a_signed_number_changes_the_level_and_a_plain_one_sets_it() {
        let gauge = gauge(&[("10", 1), ("+5", 2), ("-12", 3), ("7", 4)]);
        assert_eq!((gauge.last, gauge.min, gauge.max, gauge.samples), (7.0, 3.0, 15.0, 4));
    }

    #[test]
    fn a_first_change_starts_from_zero_and_the_base_outlives_the_window() {
        let mut level = gauge(&[("+5", 1)]);
        level.carry_level();
        assert_eq!((level.samples, level.last, level.min, level.max), (0, 5.0, 5.0, 5.0));
        level.insert(Number { value: -2.0, signed: true }, Weight::ONE, at(11), true);
        assert_eq!((level.samples, level.last, level.min), (1, 3.0, 3.0));
    }

    #[test]
    fn without_deltas_a_signed_number_is_a_level() {
        let mut level = gauge(&[("10", 1)]);
        level.insert(Number { value: -5.0, signed: true }, Weight::ONE, at(2), false);
        assert_eq!(level.last, -5.0);
    }

    #[test]
    fn a_carried_window_adds_nothing_to_a_merge() {
        let sampled = gauge(&[("10", 1), ("2", 2)]);
        let mut carried = sampled;
        carried.carry_level();
        let mut merged = sampled;
        merged.merge(&carried);
        assert_eq!(merged, sampled);
        let mut merged = carried;
        merged.merge(&gauge(&[("3", 5)]));
        assert_eq!((merged.samples, merged.last, merged.min, merged.max), (1, 3.0, 3.0, 3.0));
        let mut merged = carried;
        merged.merge(&carried);
        assert_eq!(merged, carried);
    }

    #[test]
    fn the_level_saturates() {
        let gauge = gauge(&[("1.7e308", 1), ("+1.7e308", 2)]);
        assert_eq!(gauge.last, f64::MAX);
    }
}
