//! A cumulative sum that never goes back because it was added up in another order.

use serde::{Deserialize, Serialize};

/// Binary places that are kept: finer than anything an application can mean, and room for 7.7e25.
const PLACES: i32 = 40;

/// What a series has counted, over any number of containers and lives.
///
/// A reader of cumulative counters takes the smallest step down for a restart from nothing. Sums of f64 depend on their
/// order, and a container that ends moves from one end of the sum to the other; sums of whole numbers do not.
#[derive(Copy, Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Total {
    /// In units of 2^-40.
    units: i128,
    /// What is too large for that.
    huge: f64,
}

impl Total {
    /// Both together.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        let huge = (self.huge + other.huge).clamp(f64::MIN, f64::MAX);
        Self { units: self.units.saturating_add(other.units), huge }
    }

    /// Rounded once.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        let units = self.units as f64 / 2_f64.powi(PLACES);
        (units + self.huge).clamp(f64::MIN, f64::MAX)
    }
}

impl From<f64> for Total {
    fn from(value: f64) -> Self {
        if value.abs() >= 2_f64.powi(86) {
            return Self { units: 0, huge: value };
        }
        // Towards zero, so that a sum that grows never becomes less.
        #[expect(clippy::cast_possible_truncation, reason = "what is finer than a unit is meant to go")]
        Self { units: (value * 2_f64.powi(PLACES)) as i128, huge: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_sum_does_not_matter() {
        let parts: Vec<f64> = (1..50).map(|n| 10.0 / f64::from(n)).collect();
        let sum = |parts: &mut dyn Iterator<Item = &f64>| {
            parts.fold(Total::default(), |sum, part| sum.saturating_add((*part).into())).as_f64()
        };
        assert_eq!(sum(&mut parts.iter()), sum(&mut parts.iter().rev()));
        assert!((sum(&mut parts.iter()) - parts.iter().sum::<f64>()).abs() < 1e-9);
    }

    #[test]
    fn whole_numbers_and_halves_are_exact() {
        for value in [0.0, 1.0, -7.0, 0.5, 1e15, -1e15, 9_007_199_254_740_991.0] {
            assert_eq!(Total::from(value).as_f64(), value);
        }
    }

    #[test]
    fn what_is_too_large_for_units_is_kept_and_never_becomes_infinite() {
        assert_eq!(Total::from(1e300).as_f64(), 1e300);
        let most = Total::from(f64::MAX).saturating_add(f64::MAX.into());
        assert_eq!(most.as_f64(), f64::MAX);
        assert_eq!(Total::from(1e300).saturating_add(1.0.into()).as_f64(), 1e300);
    }
}
