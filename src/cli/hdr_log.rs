//! `tallyport metrics details -o hdr`: records as a log that HdrHistogram's tools read.
//!
//! The format is version 1.3 of the Java implementation's `HistogramLogWriter`.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::model::Timestamp;
use crate::wire::RecordDocument;

/// Characters that a tag cannot contain, and the separators of its parts.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b';').add(b'%');
/// The same for the key of a tag of the series.
const ESCAPED_IN_KEY: &AsciiSet = &ESCAPED.add(b'=');

/// Records with a distribution, ordered by time as the tools require.
pub(super) struct HdrLog<'a> {
    lines: Vec<(&'a RecordDocument, &'a str)>,
    /// Timers, histograms and distributions that could not be encoded.
    pub(super) omitted: usize,
}

impl<'a> HdrLog<'a> {
    pub(super) fn new(records: &'a [RecordDocument]) -> Self {
        let mut lines: Vec<_> =
            records.iter().filter_map(|record| Some((record, record.hdr.as_deref()?))).collect();
        lines.sort_by_key(|(record, _)| record.start);
        let distribution =
            |record: &&RecordDocument| matches!(&*record.metric_type, "timer" | "histogram" | "distribution");
        let omitted = records.iter().filter(distribution).count() - lines.len();
        Self { lines, omitted }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The whole log. `Interval_Max` is in the unit of the values: the tools' own writers also divide by 1e6.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::from(
            "#[Values: multiplied by 1000000; those of timers are nanoseconds]\n\
             #[MaxValueDivisor: 1000000.000]\n\
             #[Histogram log format version 1.3]\n",
        );
        if let Some((first, _)) = self.lines.first() {
            let (seconds, start) = (to_epoch_seconds(first.start), first.start);
            let _infallible = writeln!(text, "#[StartTime: {seconds:.3} (seconds since epoch), {start}]");
        }
        text.push_str(
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        );
        for (record, hdr) in &self.lines {
            let start = to_epoch_seconds(record.start);
            let length = record.end.duration_since(record.start).as_secs_f64();
            let max = record.agg_value("max").unwrap_or_default();
            let tag = format_tag(record);
            let _infallible = writeln!(text, "Tag={tag},{start:.3},{length:.3},{max:.3},{hdr}");
        }
        text
    }
}

/// Names the series, the same in every log: `name;key=value;type=timer;container=c-42`. The container is absent where several were
/// merged.
fn format_tag(record: &RecordDocument) -> String {
    let mut tag = utf8_percent_encode(&record.name, ESCAPED).to_string();
    let tags = record.tags.iter().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
    let kind = ("type", record.metric_type.as_str());
    let container = record.origin.container_id.as_deref().map(|id| ("container", id));
    for (key, value) in tags.chain([kind]).chain(container) {
        let (key, value) = (utf8_percent_encode(key, ESCAPED_IN_KEY), utf8_percent_encode(value, ESCAPED));
        let _infallible = write!(tag, ";{key}={value}");
    }
    tag
}

fn to_epoch_seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use serde_json::{Value, json};

    use super::*;

    fn record(changes: &Value) -> RecordDocument {
        let mut document = json!({
            "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:10Z", "covered": 10, "name": "latency",
            "origin": {"container_id": "c-42"}, "type": "timer", "unit": "ms", "tags": {}, "agg": {"max": 91.5}, "hdr": "HISTF"
        });
        document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_log_has_the_header_and_the_columns_of_the_format() {
        let text = HdrLog::new(&[record(&json!({"tags": {"route": "/pay", "live": ""}}))]).to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "#[Values: multiplied by 1000000; those of timers are nanoseconds]",
                "#[MaxValueDivisor: 1000000.000]",
                "#[Histogram log format version 1.3]",
                "#[StartTime: 1767225600.000 (seconds since epoch), 2026-01-01T00:00:00Z]",
                "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"",
                "Tag=latency;route=/pay;live=;type=timer;container=c-42,1767225600.000,10.000,91.500,HISTF",
            ]
        );
    }

    #[test]
    fn lines_are_in_the_order_of_time_and_other_types_are_not_among_them() {
        let log = [
            record(&json!({"name": "b", "start": "2026-01-01T00:00:05Z"})),
            record(&json!({"name": "a"})),
            record(&json!({"name": "n", "type": "counter", "hdr": null})),
            record(&json!({"name": "negative", "hdr": null})),
        ];
        let log = HdrLog::new(&log);
        assert_eq!(log.omitted, 1, "the timer without an encoding");
        let names: Vec<&str> = log.lines.iter().map(|(record, _)| &*record.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(log.to_text().contains("#[StartTime: 1767225600.000 "));
    }

    #[test]
    fn whatever_a_series_is_called_a_reader_gets_one_tag() {
        let odd = record(&json!({"name": "a b,c;d%e\n", "tags": {"k=1": "v=2, w;x"}, "origin": {}}));
        let text = HdrLog::new(std::slice::from_ref(&odd)).to_text();
        let entries: Vec<_> = IntervalLogIterator::new(text.as_bytes()).map(Result::unwrap).collect();
        let [LogEntry::StartTime(_), LogEntry::Interval(interval)] = entries.as_slice() else {
            panic!("{entries:?}")
        };
        let tag = interval.tag().unwrap();
        assert_eq!(tag.as_str(), "a%20b%2Cc%3Bd%25e%0A;k%3D1=v=2%2C%20w%3Bx;type=timer");
        assert_eq!((interval.max(), interval.encoded_histogram()), (91.5, "HISTF"));
    }
}
