//! Writes a page as messages: one for each family, each prefixed with its length.
//!
//! Names, labels and values are those of the text formats; families are named as in the classic one.

use prost::Message as _;
use tallyport_core::aggregate::{Native, Weight, ZERO_THRESHOLD};
use tallyport_core::model::Timestamp;

use super::family::Block;
use super::messages::{
    Bucket, BucketSpan, COUNTER, GAUGE, HISTOGRAM, LabelPair, Metric, MetricFamily, ProtoCounter,
    ProtoHistogram, ProtoNumber, Quantile, SUMMARY, Time, UNTYPED,
};
use super::shape::{Declared, Stat};
use super::stat::Reading;

/// Messages being written.
#[derive(Default, Debug)]
pub(super) struct Protobuf {
    /// Complete messages.
    done: Vec<u8>,
    /// The current family. It must be complete before its length prefix can be written.
    family: Vec<u8>,
    head: usize,
    /// The current series, as far as it is known.
    labels: Vec<LabelPair>,
    metric: Metric,
    created: Option<Time>,
}

impl Protobuf {
    pub(super) fn len(&self) -> usize {
        self.done.len()
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.done)
    }

    pub(super) fn write_infos(&mut self, name: &str, help: &str, infos: &[String]) {
        self.begin_family(&MetricFamily {
            name: name.to_owned(),
            help: help.to_owned(),
            kind: Some(GAUGE),
            ..MetricFamily::default()
        });
        for labels in infos {
            let gauge = Some(ProtoNumber { value: Some(1.0) });
            self.push(Metric { label: parse_label_pairs(labels), gauge, ..Metric::default() });
        }
        self.end_family();
    }

    pub(super) fn begin_block(&mut self, block: &Block) {
        let kind = match block.declared {
            Declared::Counter => COUNTER,
            Declared::Gauge => GAUGE,
            Declared::Summary => SUMMARY,
            Declared::Histogram | Declared::Native => HISTOGRAM,
            Declared::Unknown => UNTYPED,
        };
        self.begin_family(&MetricFamily {
            name: block.name.clone(),
            help: block.help.clone(),
            kind: Some(kind),
            unit: block.unit.to_owned(),
            metric: Vec::new(),
        });
    }

    fn begin_family(&mut self, head: &MetricFamily) {
        self.family.clear();
        append_message(head, &mut self.family);
        self.head = self.family.len();
    }

    /// Starts a series, to which the following readings belong.
    pub(super) fn begin_series(&mut self, labels: &str, created: Option<Timestamp>) {
        self.labels = parse_label_pairs(labels);
        self.metric = Metric::default();
        self.created = created.map(to_proto_time);
    }

    /// Adds one number of the series, or all of a native histogram.
    pub(super) fn add_reading(&mut self, declared: Declared, stat: Stat, reading: &Reading<'_>) {
        let (created, metric) = (self.created, &mut self.metric);
        match (declared, *reading) {
            (Declared::Counter, Reading::One(value)) => {
                metric.counter = Some(ProtoCounter { value: Some(value), created });
            }
            (Declared::Gauge, Reading::One(value)) => {
                metric.gauge = Some(ProtoNumber { value: Some(value) });
            }
            (Declared::Summary, reading) => {
                let summary = metric.summary.get_or_insert_default();
                match reading {
                    Reading::Labelled { number: quantile, value, .. } => {
                        let (quantile, value) = (Some(quantile), Some(value));
                        summary.quantile.push(Quantile { quantile, value });
                    }
                    Reading::One(value) if stat == Stat::Sum => summary.sum = Some(value),
                    Reading::One(value) => summary.count = Some(count_to_u64(value)),
                    Reading::Native { .. } => {}
                }
            }
            (Declared::Histogram | Declared::Native, reading) => {
                let histogram = metric.histogram.get_or_insert_default();
                histogram.created = created;
                match reading {
                    Reading::Labelled { number: bound, value, .. } => {
                        let (count, bound) = (Some(count_to_u64(value)), Some(bound));
                        histogram.bucket.push(Bucket { count, bound });
                    }
                    Reading::One(value) if stat == Stat::Sum => histogram.sum = Some(value),
                    Reading::One(value) => histogram.count = Some(count_to_u64(value)),
                    Reading::Native { buckets, sum } => {
                        *histogram = build_native_histogram(buckets, sum, created);
                    }
                }
            }
            (_, reading) => self.push_untyped(&reading),
        }
    }

    /// Adds a sample of an undeclared type, as a series of its own.
    fn push_untyped(&mut self, reading: &Reading<'_>) {
        let mut label = self.labels.clone();
        let value = match *reading {
            Reading::One(value) => value,
            Reading::Labelled { name, text, value, .. } => {
                label.push(LabelPair { name: name.to_owned(), value: text.to_owned() });
                value
            }
            Reading::Native { .. } => return,
        };
        self.push(Metric { label, untyped: Some(ProtoNumber { value: Some(value) }), ..Metric::default() });
    }

    /// Ends the series.
    pub(super) fn end_series(&mut self) {
        let metric = std::mem::take(&mut self.metric);
        if metric != Metric::default() {
            let label = std::mem::take(&mut self.labels);
            self.push(Metric { label, ..metric });
        }
    }

    fn push(&mut self, metric: Metric) {
        // Concatenated encodings merge into one message, so the series of a family need not be kept until its end.
        append_message(&MetricFamily { metric: vec![metric], ..MetricFamily::default() }, &mut self.family);
    }

    /// Ends the family. A family without series is not written.
    pub(super) fn end_family(&mut self) {
        if self.family.len() > self.head {
            let _infallible = prost::encode_length_delimiter(self.family.len(), &mut self.done);
            self.done.append(&mut self.family);
        }
        self.family.clear();
    }
}

/// Appends a message. Encoding to a growable buffer cannot fail.
fn append_message(message: &MetricFamily, out: &mut Vec<u8>) {
    let _infallible = message.encode(out);
}

/// A native histogram, with integer counts if all weights are whole numbers, otherwise with float counts.
fn build_native_histogram(buckets: &Native, sum: f64, created: Option<Time>) -> ProtoHistogram {
    let (negative_span, negative) = collect_spans(&mut buckets.negative_buckets());
    let (positive_span, positive) = collect_spans(&mut buckets.positive_buckets());
    let histogram = ProtoHistogram {
        sum: Some(sum),
        schema: Some(buckets.schema().into()),
        zero_threshold: Some(ZERO_THRESHOLD),
        negative_span,
        positive_span,
        created,
        ..ProtoHistogram::default()
    };
    let (count, zero) = (buckets.count(), buckets.zero_count());
    if buckets.is_fractional() {
        let floats = |counts: &[Weight]| counts.iter().map(|count| count.as_f64()).collect();
        return ProtoHistogram {
            count_float: Some(count.as_f64()),
            zero_count_float: Some(zero.as_f64()),
            negative_count: floats(&negative),
            positive_count: floats(&positive),
            ..histogram
        };
    }
    ProtoHistogram {
        count: Some(count_to_u64(count.to_rounded_f64())),
        zero_count: Some(count_to_u64(zero.to_rounded_f64())),
        negative_delta: encode_deltas(&negative),
        positive_delta: encode_deltas(&positive),
        ..histogram
    }
}

/// Runs of adjacent buckets, and the weight in each bucket.
pub(crate) fn collect_spans(side: &mut dyn Iterator<Item = (i32, Weight)>) -> (Vec<BucketSpan>, Vec<Weight>) {
    let (mut spans, mut counts): (Vec<BucketSpan>, Vec<Weight>) = Default::default();
    let mut next = 0;
    for (index, count) in side {
        match spans.last_mut() {
            Some(BucketSpan { length: Some(length), .. }) if index == next => *length += 1,
            _ => spans.push(BucketSpan { offset: Some(index - next), length: Some(1) }),
        }
        next = index + 1;
        counts.push(count);
    }
    (spans, counts)
}

/// The differences between consecutive counts.
pub(crate) fn encode_deltas(counts: &[Weight]) -> Vec<i64> {
    let mut before = 0;
    let delta = |count: &Weight| {
        let count = i64::try_from(count_to_u64(count.to_rounded_f64())).unwrap_or(i64::MAX);
        count - std::mem::replace(&mut before, count)
    };
    counts.iter().map(delta).collect()
}

/// Converts a count, which is a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and no count is below 0"
)]
pub(crate) fn count_to_u64(count: f64) -> u64 {
    count as u64
}

fn to_proto_time(at: Timestamp) -> Time {
    let micros = at.as_micros();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default();
    Time { seconds: micros.div_euclid(1_000_000), nanos }
}

/// Parses labels from their text form, by which pages are sorted.
pub(crate) fn parse_label_pairs(text: &str) -> Vec<LabelPair> {
    let mut pairs = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(',');
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => parse_quoted(quoted),
            None => match rest.split_once('=') {
                Some((name, after)) => (name.to_owned(), after),
                None => break,
            },
        };
        let Some(quoted) = after.trim_start_matches('=').strip_prefix('"') else { break };
        let (value, after) = parse_quoted(quoted);
        pairs.push(LabelPair { name, value });
        rest = after;
    }
    pairs
}

/// Splits a text at its closing quote. Returns the unescaped text, and the rest after the quote.
fn parse_quoted(text: &str) -> (String, &str) {
    let mut read = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next().filter(|c| *c != '"') {
        match c {
            '\\' => read.extend(chars.next().map(|c| if c == 'n' { '\n' } else { c })),
            c => read.push(c),
        }
    }
    (read, chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::identity::push_label;

    #[test]
    fn labels_are_what_the_text_says_they_are() {
        let sent = [
            ("task", "a\"b\\c\n,d=\"e\""),
            ("route", "\\n"),
            ("http.method", "GET"),
            ("a=\"b\",", "c"),
            ("empty", ""),
            ("last", "="),
        ];
        let mut text = String::new();
        sent.iter().for_each(|(name, value)| push_label(&mut text, name, value));
        let read: Vec<_> = parse_label_pairs(&text).into_iter().map(|pair| (pair.name, pair.value)).collect();
        let wanted = sent.map(|(name, value)| (name, if value.is_empty() { "true" } else { value }));
        assert_eq!(read, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(parse_label_pairs(""), []);
    }

    #[test]
    fn runs_of_buckets_are_spans_with_the_gaps_between_them() {
        let side =
            [(-3, 2), (-2, 5), (0, 1), (7, 1), (8, 4)].map(|(index, n)| (index, Weight::from_count(n)));
        let (spans, counts) = collect_spans(&mut side.into_iter());
        let spans: Vec<_> = spans.iter().map(|span| (span.offset.unwrap(), span.length.unwrap())).collect();
        assert_eq!(spans, [(-3, 2), (1, 1), (6, 2)]);
        assert_eq!(encode_deltas(&counts), [2, 3, -4, 0, 3]);
    }

    #[test]
    fn times_before_the_epoch_have_nanoseconds_that_go_forward() {
        let of = |micros| to_proto_time(Timestamp::from_micros(micros));
        assert_eq!(of(1_500_000), Time { seconds: 1, nanos: 500_000_000 });
        assert_eq!(of(-500_000), Time { seconds: -1, nanos: 500_000_000 });
    }
}
