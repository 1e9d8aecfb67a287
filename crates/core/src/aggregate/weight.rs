//! Exact sums of sample weights: the number of values that a sampled one stands for.

use serde::{Deserialize, Serialize};

/// An exact sum of weights: fixed point with 52 binary places, the most that an f64 between 1 and
/// [`crate::statsd::MAX_WEIGHT`] can have. Sums of f64 would depend on their order once they contain a weight such as
/// 1/0.3, and merging two windows would no longer equal aggregating their samples together.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(from = "u128", into = "u128")]
pub struct Weight {
    // Two halves, high first so that the derived order is correct: a u128 would require 16-byte alignment.
    high: u64,
    low: u64,
}

impl From<u128> for Weight {
    #[inline]
    fn from(sum: u128) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
        Self { high: (sum >> u64::BITS) as u64, low: sum as u64 }
    }
}

impl From<Weight> for u128 {
    #[inline]
    fn from(weight: Weight) -> Self {
        Self::from(weight.high) << u64::BITS | Self::from(weight.low)
    }
}

/// Binary places of a [`Weight`].
const PLACES: u32 = 52;
/// Binary places of a bin's weight: precise enough for ranks, and a bin can still hold 1.7e13.
const BIN_PLACES: u32 = 20;

impl Weight {
    /// Nothing.
    pub const ZERO: Self = Self { high: 0, low: 0 };
    /// One unsampled value.
    pub const ONE: Self = Self { high: 0, low: 1 << PLACES };

    /// The weight of one value sampled at a rate. Exact for 1 to 2^75; less than 1 counts as 1.
    #[must_use]
    #[inline]
    pub fn from_f64(weight: f64) -> Self {
        if weight.is_nan() || weight <= 1.0 {
            return Self::ONE;
        }
        let bits = weight.to_bits();
        let mantissa = (bits & ((1 << PLACES) - 1)) | (1 << PLACES);
        let exponent = (bits >> PLACES) - 1023;
        (u128::from(mantissa) << exponent.min(75)).into()
    }

    /// `n` unsampled values.
    #[must_use]
    pub fn from_count(n: u64) -> Self {
        (u128::from(n) << PLACES).into()
    }

    /// The nearest f64.
    #[must_use]
    #[inline]
    pub fn as_f64(self) -> f64 {
        const FRACTION: u64 = (1 << PLACES) - 1;
        // Sums of unsampled values are whole numbers, which are much faster to convert.
        if self.low & FRACTION == 0 && self.high >> PLACES == 0 {
            return (self.high << (u64::BITS - PLACES) | self.low >> PLACES) as f64;
        }
        u128::from(self) as f64 / (1_u64 << PLACES) as f64
    }

    /// Whether it is a whole number.
    #[must_use]
    #[inline]
    pub fn is_whole(self) -> bool {
        self.low & ((1 << PLACES) - 1) == 0
    }

    /// The nearest whole number. Rounding the sum, not its terms, preserves monotonicity and order.
    #[must_use]
    pub fn to_rounded_f64(self) -> f64 {
        (u128::from(self).saturating_add(1 << (PLACES - 1)) >> PLACES) as f64
    }

    /// Both together.
    #[must_use]
    #[inline]
    pub fn saturating_add(self, other: Self) -> Self {
        u128::from(self).saturating_add(other.into()).into()
    }

    /// `n` times this.
    #[must_use]
    pub fn saturating_mul(self, n: u64) -> Self {
        u128::from(self).saturating_mul(u128::from(n)).into()
    }

    /// The weight of a bin, as [`Weight::for_bin`] gives it.
    #[must_use]
    pub(super) fn from_bin(weight: u64) -> Self {
        (u128::from(weight) << (PLACES - BIN_PLACES)).into()
    }

    /// As a bin's weight. Each sample is rounded here, so that sums of bins do not depend on the order either.
    #[must_use]
    #[inline]
    pub fn for_bin(self) -> u64 {
        const SHIFT: u32 = PLACES - BIN_PLACES;
        if self == Self::ONE {
            return BIN_ONE;
        }
        u64::try_from((u128::from(self) + (1 << (SHIFT - 1))) >> SHIFT).unwrap_or(u64::MAX)
    }
}

/// One unsampled value in a bin.
pub(super) const BIN_ONE: u64 = 1 << BIN_PLACES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_a_rate_can_give_is_exact() {
        for rate in [1.0, 0.5, 0.3, 0.1, 0.7, 1e-6, 0.999_999_999] {
            let weight: f64 = 1.0 / rate;
            assert_eq!(Weight::from_f64(weight).as_f64(), weight);
        }
        assert_eq!(Weight::from_f64(1.0), Weight::ONE);
        assert_eq!(Weight::from_count(7).as_f64(), 7.0);
        for count in [1 << 52, (1 << 53) + 1, u64::MAX >> 1, u64::MAX] {
            assert_eq!(Weight::from_count(count).as_f64(), count as f64);
        }
    }

    #[test]
    fn sums_do_not_depend_on_their_order() {
        let weights: Vec<_> = (1..1000).map(|n| Weight::from_f64(1.0 / (f64::from(n) / 1001.0))).collect();
        let forward = weights.iter().fold(Weight::ZERO, |sum, w| sum.saturating_add(*w));
        let backward = weights.iter().rev().fold(Weight::ZERO, |sum, w| sum.saturating_add(*w));
        assert_eq!(forward, backward);
    }

    #[test]
    fn what_is_no_weight_counts_as_one() {
        for weight in [f64::NAN, 0.0, -1.0, 0.5] {
            assert_eq!(Weight::from_f64(weight), Weight::ONE);
        }
        assert_eq!(Weight::ONE.for_bin(), BIN_ONE);
        assert_eq!(Weight::from_bin(7 * BIN_ONE), Weight::from_count(7));
    }
}
