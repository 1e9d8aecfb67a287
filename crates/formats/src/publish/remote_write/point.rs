//! One sample of one series, in the fields that both versions of the protocol share.

use tallyport_core::aggregate::{FINEST_SCHEMA, Native, Weight, ZERO_THRESHOLD};
use tallyport_core::model::Timestamp;

use super::labels::SampleLabels;
use crate::prometheus::messages::BucketSpan;
use crate::prometheus::protobuf::{collect_spans, count_to_u64, encode_deltas};
use crate::publish::protobuf::ProtoWriter;

/// The number that marks a series as ended: one of the many that are not a number.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// A sample.
#[derive(Copy, Clone, Debug)]
pub(super) struct SamplePoint<'a> {
    pub(super) value: PointValue<'a>,
    pub(super) at: Timestamp,
    /// When a cumulative value began; only 2.0 has a field for it.
    pub(super) created: Option<Timestamp>,
}

/// Its value.
#[derive(Copy, Clone, Debug)]
pub(super) enum PointValue<'a> {
    Number(f64),
    Native {
        buckets: &'a Native,
        sum: f64,
    },
    /// A native histogram before its first value.
    NoValues,
    /// The end of a series of numbers.
    Stale,
    /// The end of a series of native histograms.
    StaleNative,
}

/// What a receiver shows of a family.
#[derive(Copy, Clone, Debug)]
pub(super) struct FamilyText<'a> {
    /// In two parts.
    pub(super) name: (&'a str, &'static str),
    pub(super) kind: FamilyType,
    pub(super) help: &'a str,
    pub(super) unit: &'static str,
}

/// The type of a family, by its number in both versions.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum FamilyType {
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    Summary = 5,
}

/// A request that takes series.
pub(super) trait SeriesBody {
    /// Adds a series with one sample.
    fn push_series(
        &mut self,
        labels: SampleLabels<'_>,
        point: &SamplePoint<'_>,
        family: Option<FamilyText<'_>>,
    );
}

impl SamplePoint<'_> {
    /// Writes the field of a series that holds the sample. `created` is the tag of the field for its beginning, if there is
    /// one: of numbers, and of histograms.
    pub(super) fn write_fields(&self, out: &mut ProtoWriter, tags: PointTags) {
        let at = to_millis(self.at);
        let created = self.created.map(to_millis).filter(|created| *created < at);
        let write_created = |out: &mut ProtoWriter, tag: Option<u32>| {
            if let (Some(tag), Some(created)) = (tag, created) {
                out.write_int(tag, created);
            }
        };
        match self.value {
            PointValue::Number(_) | PointValue::Stale => out.write_message(tags.samples, |out| {
                let bits = if let PointValue::Number(number) = self.value { number.to_bits() } else { STALE };
                out.write_fixed64(1, bits);
                out.write_int(2, at);
                write_created(out, tags.sample_created);
            }),
            PointValue::Native { .. } | PointValue::NoValues | PointValue::StaleNative => {
                out.write_message(tags.histograms, |out| {
                    match self.value {
                        PointValue::Native { buckets, sum } => write_native(out, buckets, sum),
                        PointValue::StaleNative => write_empty_native(out, STALE),
                        _ => write_empty_native(out, 0),
                    }
                    out.write_int(15, at);
                    write_created(out, tags.histogram_created);
                });
            }
        }
    }
}

/// The fields of a series in which the versions differ.
#[derive(Copy, Clone, Debug)]
pub(super) struct PointTags {
    pub(super) samples: u32,
    pub(super) histograms: u32,
    pub(super) sample_created: Option<u32>,
    pub(super) histogram_created: Option<u32>,
}

/// Writes a histogram without its timestamp: with integers if all weights are whole numbers, otherwise with floats.
fn write_native(out: &mut ProtoWriter, buckets: &Native, sum: f64) {
    let (negative_spans, negative) = collect_spans(&mut buckets.negative_buckets());
    let (positive_spans, positive) = collect_spans(&mut buckets.positive_buckets());
    let (count, zero) = (buckets.count(), buckets.zero_count());
    let floats = |counts: &[Weight]| counts.iter().map(|count| count.as_f64()).collect::<Vec<_>>();
    let fractional = buckets.is_fractional();
    if fractional {
        out.write_present_double(2, count.as_f64());
    } else {
        out.write_present_uint(1, count_to_u64(count.to_rounded_f64()));
    }
    out.write_double(3, sum);
    out.write_sint(4, buckets.schema().into());
    out.write_double(5, ZERO_THRESHOLD);
    if fractional {
        out.write_present_double(7, zero.as_f64());
    } else {
        out.write_present_uint(6, count_to_u64(zero.to_rounded_f64()));
    }
    write_spans(out, 8, &negative_spans);
    if fractional {
        out.write_packed_doubles(10, floats(&negative));
    } else {
        out.write_packed_sints(9, encode_deltas(&negative));
    }
    write_spans(out, 11, &positive_spans);
    if fractional {
        out.write_packed_doubles(13, floats(&positive));
    } else {
        out.write_packed_sints(12, encode_deltas(&positive));
    }
}

fn write_spans(out: &mut ProtoWriter, tag: u32, spans: &[BucketSpan]) {
    for span in spans {
        out.write_message(tag, |out| {
            out.write_sint(1, span.offset.unwrap_or_default().into());
            out.write_uint(2, span.length.unwrap_or_default().into());
        });
    }
}

/// A histogram of nothing. Its sum is given as bits, since not every copy of a number that is none preserves them.
fn write_empty_native(out: &mut ProtoWriter, sum: u64) {
    out.write_present_uint(1, 0);
    out.write_fixed64(3, sum);
    out.write_sint(4, FINEST_SCHEMA.into());
    out.write_double(5, ZERO_THRESHOLD);
    out.write_present_uint(6, 0);
}

/// Milliseconds since 1970, rounded down.
fn to_millis(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(1000)
}
