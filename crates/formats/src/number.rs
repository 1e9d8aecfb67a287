//! Serialization of numbers: counts without a decimal point if they are whole; never NaN or infinity.

use serde::{Serialize, Serializer};

/// A count or a duration, written without a decimal point if it is whole.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Whole(pub f64);

impl Serialize for Whole {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if self.0.fract() == 0.0 && self.0.abs() <= EXACT {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole and within what an f64 counts exactly"
            )]
            let whole = self.0 as i64;
            serializer.serialize_i64(whole)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

/// The number, if it is finite.
#[must_use]
pub fn finite_value(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// A duration in seconds, rounded down to milliseconds: finer is noise.
#[must_use]
pub fn to_seconds(span: std::time::Duration) -> f64 {
    span.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_whole_unless_sampling_makes_it_a_fraction() {
        let text = |value| serde_json::to_string(&Whole(value)).unwrap();
        assert_eq!([text(128.0), text(0.0), text(3.5), text(-2.0)], ["128", "0", "3.5", "-2"]);
        assert_eq!(text(1e300), "1e+300");
    }
}
