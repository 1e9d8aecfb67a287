//! The OpenTelemetry protocol (OTLP 1.x), as protobuf for HTTP.
//!
//! Names and tags are those of a scrape by a reader of UTF-8. What identifies a series' origin is its resource, because
//! receivers group by that: one for each identity. Counters are sums, timers, histograms and distributions are exponential
//! histograms, everything else is a gauge; a data point tells when its sum began.

mod answer;
mod buckets;
mod request;
mod resource;

use std::ops::Range;
use std::sync::Arc;

use tallyport_core::aggregate::View;
use tallyport_core::model::Timestamp;

use super::labels::LabelOf;
use super::protobuf::ProtoWriter;
use super::scraped::{IdentityRun, IdentityRuns, ScrapeSpelling, ScrapedSeries};
use super::split::RequestSplitter;
use super::{Encoded, LeftOutReason, RequestRoom, Round, RoundRecord};
use crate::exposition::Escaping;
use crate::prometheus::scraped::format_help;
use crate::prometheus::shape::{Declared, Stat};
use crate::prometheus::stat::{Reading, SeriesNumbers as _, emit_numbers};
use crate::prometheus::{Naming, Timers};
pub use answer::{OtlpAnswer, decode_answer};
use buckets::{ExponentialBuckets, Rounding};
use request::{MetricHead, MetricKind, OtlpRequest};
use resource::encode_resource;

/// What the values of sums and histograms count.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum OtlpTemporality {
    /// Everything since the series began, from [`RunningTotal`](super::RunningTotal), whose buckets histograms need.
    #[default]
    Cumulative,
    /// The interval, from the records themselves.
    Delta,
}

const SPELLING: ScrapeSpelling =
    ScrapeSpelling { naming: Naming::Openmetrics, escaping: Escaping::Utf8, timers: Timers::Native };

/// Encodes a range of a round: one data point of each series, at the round's end. Bodies are not compressed.
#[must_use]
pub fn encode_otlp(
    round: &Round<'_>,
    records: Range<usize>,
    temporality: OtlpTemporality,
    room: RequestRoom,
) -> Encoded {
    let end = records.end.min(round.records.len());
    let range = records.start.min(end)..end;
    let body = OtlpRequest::new(temporality);
    let mut requests = RequestSplitter::new(body, room, range.clone());
    for run in IdentityRuns::new(&round.records, range, (round.level, round.marks), SPELLING) {
        let resource = resource_of(round, &run);
        for series in &run.series {
            let Some(record) = round.records.get(series.index) else { continue };
            if series.clashes {
                requests.leave_out(series.index, LeftOutReason::Clash);
                continue;
            }
            let point = DataPoint { record, series, end: round.end, temporality };
            requests.add_record(series.index, |body| point.write_to(body, &resource));
        }
    }
    requests.finish()
}

/// The resource of a run, encoded.
fn resource_of(round: &Round<'_>, run: &IdentityRun<'_>) -> Arc<[u8]> {
    let first = run.series.first().and_then(|series| round.records.get(series.index));
    first.map_or_else(Arc::default, |record| encode_resource(round.node, record.origin, &run.identity))
}

/// One series at the end of a round.
struct DataPoint<'r> {
    record: &'r RoundRecord<'r>,
    series: &'r ScrapedSeries<'r>,
    end: Timestamp,
    temporality: OtlpTemporality,
}

impl DataPoint<'_> {
    /// Adds the point. Returns whether it has a value.
    fn write_to(&self, body: &mut OtlpRequest, resource: &Arc<[u8]>) -> bool {
        let Some((stat, suffix)) = self.series.sent_parts().next() else { return false };
        let kind = match self.series.shape.declared {
            Declared::Counter => MetricKind::Sum { monotonic: !self.record.can_decrease() },
            Declared::Native => MetricKind::ExponentialHistogram,
            _ => MetricKind::Gauge,
        };
        let name = format!("{}{suffix}", self.series.family);
        let unit = match self.series.shape.unit {
            "seconds" => "s",
            unit => unit,
        };
        let head = MetricHead { name: &name, help: &format_help(self.record.series), unit, kind };
        match kind {
            MetricKind::ExponentialHistogram => {
                let Some(histogram) = self.collect_buckets() else { return false };
                body.push_point(resource, head, |out| self.write_histogram(out, &histogram));
            }
            MetricKind::Sum { .. } | MetricKind::Gauge => {
                let Some(value) = self.compute_number(stat) else { return false };
                body.push_point(resource, head, |out| {
                    write_attributes(out, 7, &self.series.tags);
                    if let MetricKind::Sum { .. } = kind {
                        out.write_fixed64(2, self.start_nanos());
                    }
                    out.write_fixed64(3, to_nanos(self.end));
                    out.write_present_double(4, value);
                });
            }
        }
        true
    }

    fn compute_number(&self, stat: Stat) -> Option<f64> {
        if let (OtlpTemporality::Delta, View::Counter { counter, .. }) = (self.temporality, self.record.view)
        {
            return Some(counter.sum).filter(|sum| sum.is_finite());
        }
        let mut found = None;
        emit_numbers(stat, self.series.shape.divisor(), self.record, &mut |reading| {
            if let Reading::One(value) = reading {
                found = Some(value);
            }
        });
        found
    }

    fn collect_buckets(&self) -> Option<ExponentialBuckets> {
        match self.temporality {
            OtlpTemporality::Cumulative => {
                let buckets = self.record.running?.buckets?;
                Some(ExponentialBuckets::from_native(buckets, Rounding::Each))
            }
            OtlpTemporality::Delta => {
                let buckets = self.record.view.to_native(self.record.series.metric_type)?;
                Some(ExponentialBuckets::from_native(&buckets, Rounding::Together))
            }
        }
    }

    fn write_histogram(&self, out: &mut ProtoWriter, histogram: &ExponentialBuckets) {
        let divisor = self.series.shape.divisor();
        let last = self.record.last_values();
        write_attributes(out, 1, &self.series.tags);
        out.write_fixed64(2, self.start_nanos());
        out.write_fixed64(3, to_nanos(self.end));
        out.write_fixed64(4, histogram.count);
        let sum = match self.temporality {
            OtlpTemporality::Cumulative => self.record.running.map(|running| running.total),
            OtlpTemporality::Delta => last.map(|values| values.sum),
        };
        // Readers take a sum for one that only grows, so of negative values there must be none.
        if let Some(sum) = sum.filter(|sum| sum.is_finite() && !self.record.can_decrease()) {
            out.write_present_double(5, sum / divisor);
        }
        histogram.write_fields(out);
        if let (OtlpTemporality::Delta, Some(values)) = (self.temporality, last) {
            out.write_present_double(12, values.min / divisor);
            out.write_present_double(13, values.max / divisor);
        }
    }

    /// When the sum began; 0, which means unknown, if that is not before its end.
    fn start_nanos(&self) -> u64 {
        let start = match self.temporality {
            OtlpTemporality::Cumulative => self.record.running.map(|running| running.created),
            OtlpTemporality::Delta => Some(self.record.span.start),
        };
        start.filter(|start| *start < self.end).map_or(0, to_nanos)
    }
}

fn write_attributes(out: &mut ProtoWriter, tag: u32, attributes: &[LabelOf<'_>]) {
    for (key, value) in attributes {
        out.write_message(tag, |out| write_key_value(out, key, value));
    }
}

/// A `KeyValue` with a text.
fn write_key_value(out: &mut ProtoWriter, key: &str, value: &str) {
    out.write_string(1, key);
    out.write_message(2, |out| out.write_element(1, value));
}

/// Nanoseconds since 1970; 0 before it.
fn to_nanos(at: Timestamp) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or_default().saturating_mul(1000)
}

#[cfg(test)]
mod tests;
