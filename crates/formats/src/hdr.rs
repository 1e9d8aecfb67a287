//! A record's distribution in HdrHistogram's compressed V2 encoding, as base64.
//!
//! HdrHistogram counts whole numbers, so values are multiplied by [`SCALE`]: a timer's milliseconds become nanoseconds, anything
//! else millionths. The original tools divide by the same number unless told otherwise, and so show values as they were sent.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use tallyport_core::aggregate::View;

/// The factor that values are multiplied by.
pub const SCALE: f64 = 1e6;
/// The largest encodable value: multiplied by [`SCALE`], it fits a signed 64-bit integer.
pub const LARGEST: f64 = 9e12;
/// Decimal digits to which a reader can tell values apart.
const DIGITS: u8 = 3;

/// Encodes distributions, one after another.
pub struct HdrEncoder {
    serializer: V2DeflateSerializer,
    encoded: Vec<u8>,
}

impl HdrEncoder {
    /// An upper bound on the memory of an encoder, in bytes, including its work buffers and the resulting text.
    ///
    /// A histogram has 1024 counts for each power of two up to its largest value and 1024 more, so 54 × 1024 of 8 bytes at
    /// most. The serializer reserves 9 bytes for each of them. A sketch has at most 4096 bins, of up to 12 bytes before
    /// compression, and the compressor's own tables take less than 512 KiB.
    pub const MOST_BYTES: usize = 54 * 1024 * (8 + 9) + 16 * 4096 * 8 + (512 << 10);

    /// A distribution, base64. The same distribution gives the same text.
    ///
    /// The smallest and the largest value are encoded exactly, all others with the sketch's precision. `None` for other
    /// metric types, and if a value is negative or larger than [`LARGEST`].
    pub fn encode_view(&mut self, view: &View<'_>) -> Option<String> {
        let View::Distribution { summary, sketch } = view else { return None };
        let (min, max) = (summary.min, summary.max);
        if min < 0.0 || max > LARGEST {
            return None;
        }
        let mut counts = sketch.whole_counts(min, max)?;
        // No wider than its values, so that the text, and what a reader allocates, depend on this record alone.
        let mut histogram = Histogram::<u64>::new_with_bounds(1, scale_value(max).max(2), DIGITS).ok()?;
        let smallest = counts.first_mut().map_or(0, |(_, count)| take_one(count));
        let largest = counts.last_mut().map_or(0, |(_, count)| take_one(count));
        let ends = [(min, smallest), (max, largest)];
        for (value, count) in ends.into_iter().chain(counts).filter(|(_, count)| *count > 0) {
            histogram.record_n(scale_value(value), count).ok()?;
        }
        self.encoded.clear();
        self.serializer.serialize(&histogram, &mut self.encoded).ok()?;
        Some(STANDARD.encode(&self.encoded))
    }
}

/// Takes one out of a count, unless none is left.
fn take_one(count: &mut u64) -> u64 {
    let taken = (*count).min(1);
    *count -= taken;
    taken
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to LARGEST, which fits")]
fn scale_value(value: f64) -> u64 {
    (value * SCALE).round() as u64
}

impl Default for HdrEncoder {
    fn default() -> Self {
        Self { serializer: V2DeflateSerializer::new(), encoded: Vec::new() }
    }
}

impl fmt::Debug for HdrEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HdrEncoder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use hdrhistogram::serialization::Deserializer;
    use tallyport_core::aggregate::{Aggregator, GaugeSign, Window};
    use tallyport_core::model::{Moment, Timestamp};

    use super::*;

    fn window(lines: &[String]) -> Window {
        let now = |secs| Moment { wall: Timestamp::from_secs(secs), mono: Duration::ZERO };
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, now(0).wall);
        for line in lines {
            aggregator.ingest_datagram(line.as_bytes(), now(1), None);
        }
        aggregator.roll_window(now(10).wall).unwrap().window
    }

    fn timer(values: impl IntoIterator<Item = f64>, rate: &str) -> Window {
        window(&values.into_iter().map(|value| format!("t:{value}|ms{rate}")).collect::<Vec<_>>())
    }

    fn encode(window: &Window) -> Option<String> {
        HdrEncoder::default().encode_view(&window.record_at(0).unwrap().view)
    }

    fn decode(text: &str) -> Histogram<u64> {
        Deserializer::new().deserialize(&mut &*STANDARD.decode(text).unwrap()).unwrap()
    }

    fn assert_near(found: u64, wanted: f64, share: f64, what: &str) {
        let found = found as f64 / SCALE;
        assert!((found - wanted).abs() <= wanted * share + 1.0 / SCALE, "{what}: {found} is not {wanted}");
    }

    /// Compares what a reader decodes with the record.
    fn assert_agrees(window: &Window) {
        let view = window.record_at(0).unwrap().view;
        let View::Distribution { summary, .. } = view else { panic!("{view:?}") };
        let read = decode(&encode(window).unwrap());
        assert!(
            (read.len() as f64 - summary.count.as_f64()).abs() <= 0.5,
            "{} {:?}",
            read.len(),
            summary.count
        );
        assert_near(read.min(), summary.min, 0.001, "min");
        assert_near(read.max(), summary.max, 0.001, "max");
        let [p50, p75, p90, p95, p99] = view.percentiles().unwrap();
        // The sketch's own error, if the nearest rank is that of the smallest or largest value.
        let sketch = view.percentile_error().unwrap_or(0.008);
        for (percent, wanted) in [(50.0, p50), (75.0, p75), (90.0, p90), (95.0, p95), (99.0, p99)] {
            assert_near(read.value_at_percentile(percent), wanted, 0.001 + sketch, &format!("p{percent}"));
        }
    }

    #[test]
    fn a_reader_finds_the_count_the_extremes_and_the_percentiles_of_the_record() {
        assert_agrees(&timer([7.25], ""));
        assert_agrees(&timer([7.0, 2.0, 91.0, 11.0], "|@0.5"));
        assert_agrees(&timer((1..=1000).map(f64::from), ""));
        assert_agrees(&timer((1..=1000).map(|n| f64::from(n) * 0.037), "|@0.1"));
        assert_agrees(&timer((0..2000).map(|n| 1.01_f64.powi(n)), ""));
        assert_agrees(&timer([0.0, 0.0, 5.0], ""));
        assert_agrees(&timer([0.0; 3], ""));
    }

    #[test]
    fn values_between_the_extremes_are_encoded_to_a_thousandth_of_what_the_record_says() {
        let window = timer((1..=5000).map(f64::from), "");
        let read = decode(&encode(&window).unwrap());
        for ((percent, _), wanted) in tallyport_core::aggregate::PERCENTILES
            .iter()
            .zip(window.record_at(0).unwrap().view.percentiles().unwrap())
        {
            assert_near(read.value_at_percentile(f64::from(*percent)), wanted, 0.001, &format!("p{percent}"));
        }
    }

    #[test]
    fn a_timer_is_in_nanoseconds_and_the_largest_value_is_exact() {
        let read = decode(&encode(&timer([0.001_5, 0.001_2], "")).unwrap());
        assert_eq!((read.min(), read.max(), read.len()), (1200, 1500, 2));
        assert_eq!((read.low(), read.sigfig()), (1, 3));
    }

    #[test]
    fn zero_and_what_rounds_to_it_are_counted_as_zero() {
        let read = decode(&encode(&timer([0.0, -0.0, 4e-7, 1.0], "")).unwrap());
        assert_eq!((read.count_at(0), read.len()), (3, 4));
    }

    #[test]
    fn a_sample_rate_gives_whole_counts() {
        let read = decode(&encode(&timer([1.0, 2.0, 3.0], "|@0.3")).unwrap());
        assert_eq!(read.len(), 10);
        assert!((1..=3).all(|ms| (3..=4).contains(&read.count_between(ms * 999_000, ms * 1_001_000))));
    }

    #[test]
    fn negative_values_too_large_ones_and_other_types_are_not_encoded() {
        for line in ["t:-1|ms", "t:9.1e12|h", "c:1|c", "g:1|g", "s:x|s"] {
            assert_eq!(encode(&window(&[line.to_owned()])), None, "{line}");
        }
        assert_eq!(encode(&timer([3.0, -0.5, 3.0], "")), None);
        let most = decode(&encode(&window(&["t:9e12|d".to_owned()])).unwrap());
        assert!(i64::try_from(most.high()).is_ok());
    }

    #[test]
    fn a_text_depends_on_its_record_alone() {
        let (wide, narrow) = (timer([0.0, 1e9], ""), timer((1..100).map(f64::from), ""));
        let mut used = HdrEncoder::default();
        let mut encode_next = |window: &Window| used.encode_view(&window.record_at(0).unwrap().view);
        assert_eq!([encode_next(&wide), encode_next(&narrow)], [encode(&wide), encode(&narrow)]);
    }
}
