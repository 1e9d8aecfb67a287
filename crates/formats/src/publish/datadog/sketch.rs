//! Timers, histograms and distributions as the sketches of Datadog's agent.
//!
//! A sketch counts values by keys: key k > 0 stands for the values around γ^(k - bias), γ = 1 + 2/128, and -k for their
//! negatives; everything smaller than 1e-9 has the key 0. Each value, or middle of a bin, gets the nearest key. Both have bins of 1/64
//! of their values, so a percentile is within 1.6 % of the true value.

use std::borrow::Cow;

use prost::Message as _;
use tallyport_core::aggregate::View;

use super::sanitize_name;
use crate::number::finite_value;
use crate::publish::{LeftOutReason, Round, RoundRecord};

/// A message with one or more sketches. Concatenated encodings are one message with all of them.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SketchPayload {
    #[prost(message, repeated, tag = "1")]
    pub(super) sketches: Vec<DatadogSketch>,
}

/// The values of a series.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DatadogSketch {
    #[prost(string, tag = "1")]
    pub(super) metric: String,
    #[prost(string, tag = "2")]
    pub(super) host: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) tags: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    pub(super) dogsketches: Vec<Dogsketch>,
}

/// The values of one timestamp. `keys` and `counts` have the same length.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Dogsketch {
    #[prost(int64, tag = "1")]
    pub(super) timestamp: i64,
    #[prost(int64, tag = "2")]
    pub(super) count: i64,
    #[prost(double, tag = "3")]
    pub(super) min: f64,
    #[prost(double, tag = "4")]
    pub(super) max: f64,
    #[prost(double, tag = "5")]
    pub(super) mean: f64,
    #[prost(double, tag = "6")]
    pub(super) sum: f64,
    #[prost(sint32, repeated, tag = "7")]
    pub(super) keys: Vec<i32>,
    #[prost(uint32, repeated, tag = "8")]
    pub(super) counts: Vec<u32>,
}

/// Writes a record as a message with one sketch.
pub(super) fn push_sketch(
    out: &mut Vec<u8>,
    round: &Round<'_>,
    record: &RoundRecord<'_>,
    tags: Vec<String>,
) -> Result<(), LeftOutReason> {
    let View::Distribution { summary, sketch } = record.view else {
        return Err(LeftOutReason::Unsupported);
    };
    let counts = sketch.whole_counts(summary.min, summary.max).ok_or(LeftOutReason::NoValue)?;
    let (mean, sum) = summary.mean().zip(finite_value(summary.sum)).ok_or(LeftOutReason::NoValue)?;
    let bins = to_datadog_bins(&counts).ok_or(LeftOutReason::TooLarge)?;
    let dogsketch = Dogsketch {
        timestamp: round.end.as_secs(),
        count: bins.iter().map(|(_, count)| i64::from(*count)).sum(),
        min: summary.min,
        max: summary.max,
        mean,
        sum,
        keys: bins.iter().map(|(key, _)| *key).collect(),
        counts: bins.iter().map(|(_, count)| *count).collect(),
    };
    let sketch = DatadogSketch {
        metric: Cow::into_owned(sanitize_name(&record.series.name)),
        host: round.node.to_owned(),
        tags,
        dogsketches: vec![dogsketch],
    };
    // Encoding to a growable buffer cannot fail.
    let _infallible = SketchPayload { sketches: vec![sketch] }.encode(out);
    Ok(())
}

/// Keys and counts of ascending values. Datadog's own sketches count to 65,535 in a bin and repeat a key that needs more.
/// `None` if one would have to be repeated so often that no request could hold the sketch.
fn to_datadog_bins(values: &[(f64, u64)]) -> Option<Vec<(i32, u32)>> {
    const FULL: u32 = u16::MAX as u32;
    const MOST_REPEATED: u64 = 1 << 16;
    let mut merged: Vec<(i32, u64)> = Vec::with_capacity(values.len());
    for (value, count) in values {
        let key = key_of(*value);
        match merged.last_mut() {
            Some((last, sum)) if *last == key => *sum = sum.saturating_add(*count),
            _ => merged.push((key, *count)),
        }
    }
    let mut bins = Vec::with_capacity(merged.len());
    for (key, count) in merged {
        let full = Some(count / u64::from(FULL)).filter(|full| *full <= MOST_REPEATED)?;
        bins.extend((0..full).map(|_| (key, FULL)));
        let rest = u32::try_from(count % u64::from(FULL)).ok()?;
        bins.extend((rest > 0).then_some((key, rest)));
    }
    Some(bins)
}

/// The natural logarithm of γ = 1 + 2/128, the ratio of neighbouring keys: Datadog's relative error of 1/128, twice.
const GAMMA_LN: f64 = 0.015_504_186_535_965_254;
/// Key 1 stands for γ^(1 - BIAS), which is just below 1e-9. What is smaller is zero.
const BIAS: i32 = 1338;
const SMALLEST: f64 = 9.941_854_089_121_45e-10;
/// The largest key, of values around 1e211. The next one stands for infinity.
const MOST_KEY: i32 = 32_766;

/// The key of a value.
fn key_of(value: f64) -> i32 {
    let size = value.abs();
    if size < SMALLEST {
        return 0;
    }
    // To even, so that the key of the value of a key is that key.
    #[expect(clippy::cast_possible_truncation, reason = "logarithms of finite numbers are below 50,000")]
    let exponent = (size.ln() / GAMMA_LN).round_ties_even() as i32;
    let key = (exponent + BIAS).clamp(1, MOST_KEY);
    if value < 0.0 { -key } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_datadogs_agent() {
        // γ^0 = 1 has the key of the bias, and each power of γ the next.
        let gamma = 1.0 + 2.0 / 128.0_f64;
        assert!((GAMMA_LN - gamma.ln()).abs() < 1e-15);
        assert!((SMALLEST / gamma.powi(1 - BIAS) - 1.0).abs() < 1e-10);
        assert_eq!(key_of(1.0), BIAS);
        for exponent in [-1336, -500, -1, 1, 2, 100, 5000] {
            assert_eq!(key_of(gamma.powi(exponent)), BIAS + exponent, "{exponent}");
            assert_eq!(key_of(-gamma.powi(exponent)), -(BIAS + exponent), "{exponent}");
        }
        assert_eq!([0.0, -0.0, 9.9e-10, -9.9e-10, 5e-324].map(key_of), [0; 5]);
        assert_eq!(key_of(1e-9), 1);
    }

    #[test]
    fn the_largest_number_has_a_finite_key() {
        assert_eq!([f64::MAX, -f64::MAX].map(key_of), [MOST_KEY, -MOST_KEY]);
    }

    #[test]
    fn a_count_beyond_16_bits_repeats_its_key() {
        let bins = to_datadog_bins(&[(1.0, 2 * 65_535 + 7), (1.001, 1), (2.0, 65_535)]).unwrap();
        let two = key_of(2.0);
        assert_eq!(bins, [(BIAS, 65_535), (BIAS, 65_535), (BIAS, 8), (two, 65_535)]);
        assert_eq!(to_datadog_bins(&[(1.0, 1 << 40)]), None);
    }
}
