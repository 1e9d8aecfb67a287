//! The record, the document shared by all outputs: one series in one window.
//!
//! Keys have a fixed order and numbers a fixed form, so the same record gives the same bytes. Values that JSON cannot
//! express are omitted.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tallyport_core::aggregate::{PERCENTILES, Percentiles, Record, View, WindowSpan};
use tallyport_core::model::{Labels, Origin, Series, SeriesId, TagSet, Timestamp};

use super::number::{Whole, finite_value, to_seconds};

/// The part that all records of one window of a container have in common.
#[derive(Clone, Debug)]
pub struct RecordFrame<'a> {
    node: &'a str,
    epoch: u64,
    origin: OriginDocument<'a>,
    id_origin: &'a Origin,
    start: String,
    end: String,
    seconds: f64,
    covered: f64,
    partial: bool,
    open: bool,
    merged: Option<usize>,
}

/// The origin of records. Merged ones can have several containers of a task.
#[derive(Clone, Debug, Serialize)]
struct OriginDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    task_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a Labels>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<&'a str>,
}

/// A record's place in the node's sequence.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct RecordNumber {
    /// Its place.
    pub seq: u64,
    /// How often late samples have revised it.
    pub rev: u32,
}

impl<'a> RecordFrame<'a> {
    /// The frame of a window's records.
    #[must_use]
    pub fn new(node: &'a str, epoch: u64, origin: &'a Origin, span: WindowSpan) -> Self {
        Self {
            node,
            epoch,
            origin: OriginDocument {
                container_id: Some(origin.container_id.as_str()),
                generation: Some(origin.generation.0),
                task_id: origin.task_id.as_str(),
                labels: Some(&origin.labels),
                containers: Vec::new(),
            },
            id_origin: origin,
            start: span.start.to_string(),
            end: span.end.to_string(),
            seconds: to_seconds(span.nominal_length()),
            covered: to_seconds(span.covered),
            partial: span.is_partial(),
            open: false,
            merged: None,
        }
    }

    /// Marks the frame as belonging to an open window.
    #[must_use]
    pub fn into_open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Marks the records as merged from `records` each. `others` are the origins other than the first.
    #[must_use]
    pub fn into_merged(mut self, records: usize, others: &[&'a Origin]) -> Self {
        self.merged = Some(records);
        if others.iter().any(|other| other.generation != self.id_origin.generation) {
            self.origin.generation = None;
        }
        if others.iter().any(|other| other.container_id != self.id_origin.container_id) {
            let all = std::iter::once(self.id_origin).chain(others.iter().copied());
            self.origin.containers = all.map(|origin| origin.container_id.as_str()).collect();
            self.origin.containers.sort_unstable();
            self.origin.containers.dedup();
            (self.origin.container_id, self.origin.generation, self.origin.labels) = (None, None, None);
        }
        self
    }

    /// The document of one record. Open and merged records have no number.
    #[must_use]
    pub fn record_document<'f>(
        &'f self,
        number: Option<RecordNumber>,
        record: &Record<'f>,
    ) -> StreamedRecord<'f> {
        self.series_document(number, record.series, record.view)
    }

    /// The document of a series in the frame's window.
    #[must_use]
    pub fn series_document<'f>(
        &'f self,
        number: Option<RecordNumber>,
        series: &'f Series,
        view: View<'f>,
    ) -> StreamedRecord<'f> {
        StreamedRecord {
            frame: self,
            number,
            id: SeriesId::new(self.node, self.id_origin, series),
            series,
            view,
            percentiles: view.percentiles(),
            hdr: None,
        }
    }
}

/// One record as a document.
#[derive(Clone, Debug)]
pub struct StreamedRecord<'a> {
    frame: &'a RecordFrame<'a>,
    number: Option<RecordNumber>,
    id: SeriesId,
    series: &'a Series,
    view: View<'a>,
    percentiles: Option<Percentiles>,
    hdr: Option<String>,
}

impl StreamedRecord<'_> {
    /// Adds the record's distribution as [`crate::hdr::HdrEncoder`] encodes it.
    #[must_use]
    pub fn with_hdr(mut self, hdr: Option<String>) -> Self {
        self.hdr = hdr;
        self
    }
}

impl Serialize for StreamedRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let frame = self.frame;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &format_args!("{}", self.id))?;
        map.serialize_entry("epoch", &frame.epoch)?;
        if let Some(number) = self.number {
            map.serialize_entry("seq", &number.seq)?;
            map.serialize_entry("rev", &number.rev)?;
        }
        map.serialize_entry("node", frame.node)?;
        map.serialize_entry("start", &frame.start)?;
        map.serialize_entry("end", &frame.end)?;
        map.serialize_entry("seconds", &Whole(frame.seconds))?;
        map.serialize_entry("covered", &Whole(frame.covered))?;
        map.serialize_entry("partial", &frame.partial)?;
        if frame.open {
            map.serialize_entry("open", &true)?;
        }
        if let Some(records) = frame.merged {
            map.serialize_entry("merged", &records)?;
        }
        map.serialize_entry("origin", &frame.origin)?;
        map.serialize_entry("name", &*self.series.name)?;
        map.serialize_entry("type", self.series.metric_type.as_str())?;
        map.serialize_entry("unit", self.series.metric_type.unit())?;
        map.serialize_entry("tags", &TagsDocument(&self.series.tags))?;
        if let Some(value) = value(&self.view) {
            map.serialize_entry("value", &value)?;
        }
        map.serialize_entry("agg", &AggDocument(self))?;
        serialize_optional(&mut map, "hdr", self.hdr.as_ref())?;
        map.end()
    }
}

/// Tags as an object.
#[derive(Copy, Clone, Debug)]
pub struct TagsDocument<'a>(pub &'a TagSet);

impl Serialize for TagsDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// The single most useful number: a counter's sum, a gauge's level, the mean of values, a set's cardinality, a check's
/// status.
#[must_use]
pub fn value(view: &View<'_>) -> Option<f64> {
    match view {
        View::Counter { counter, .. } => finite_value(counter.sum),
        View::Gauge(gauge) => finite_value(gauge.last),
        View::Distribution { summary, .. } => summary.mean(),
        View::Set { .. } => view.cardinality(),
        View::Check { outcome, .. } => Some(f64::from(outcome.status as u8)),
    }
}

/// All numbers of the record's type.
struct AggDocument<'a>(&'a StreamedRecord<'a>);

impl Serialize for AggDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("samples", &document.view.sample_count())?;
        match &document.view {
            View::Counter { counter, total } => {
                map.serialize_entry("count", &Whole(counter.count.as_f64()))?;
                serialize_number(&mut map, "sum", finite_value(counter.sum))?;
                let covered = document.frame.covered;
                serialize_number(
                    &mut map,
                    "rate",
                    finite_value(counter.sum / covered).filter(|_| covered > 0.0),
                )?;
                serialize_number(&mut map, "total", finite_value(*total))?;
                if counter.decremented {
                    map.serialize_entry("monotonic", &false)?;
                }
            }
            View::Gauge(gauge) => {
                map.serialize_entry("count", &Whole(gauge.count.as_f64()))?;
                if gauge.samples == 0 {
                    map.serialize_entry("carried", &true)?;
                }
                serialize_number(&mut map, "last", finite_value(gauge.last))?;
                serialize_number(&mut map, "min", finite_value(gauge.min))?;
                serialize_number(&mut map, "max", finite_value(gauge.max))?;
                serialize_timestamp(&mut map, "last_at", gauge.last_at)?;
            }
            View::Distribution { summary, .. } => {
                map.serialize_entry("count", &Whole(summary.count.as_f64()))?;
                serialize_number(&mut map, "sum", finite_value(summary.sum))?;
                serialize_number(&mut map, "min", finite_value(summary.min))?;
                serialize_number(&mut map, "max", finite_value(summary.max))?;
                serialize_number(&mut map, "mean", summary.mean())?;
                serialize_number(&mut map, "stddev", summary.stddev())?;
                serialize_number(&mut map, "first", finite_value(summary.first))?;
                serialize_number(&mut map, "last", finite_value(summary.last))?;
                for ((_, name), value) in PERCENTILES.iter().zip(document.percentiles.iter().flatten()) {
                    serialize_number(&mut map, name, finite_value(*value))?;
                }
                serialize_number(&mut map, "percentile_error", document.view.percentile_error())?;
            }
            View::Set { count, .. } => {
                map.serialize_entry("count", &Whole(count.as_f64()))?;
                serialize_optional(&mut map, "cardinality", document.view.cardinality().map(Whole).as_ref())?;
            }
            View::Check { samples, last_at, outcome } => {
                map.serialize_entry("count", samples)?;
                map.serialize_entry("status", outcome.status.as_str())?;
                serialize_optional(&mut map, "message", outcome.message.as_ref())?;
                serialize_optional(&mut map, "hostname", outcome.hostname.as_ref())?;
                serialize_optional(&mut map, "timestamp", outcome.timestamp.as_ref())?;
                serialize_timestamp(&mut map, "last_at", *last_at)?;
            }
        }
        map.end()
    }
}

fn serialize_number<M: SerializeMap>(map: &mut M, key: &str, value: Option<f64>) -> Result<(), M::Error> {
    serialize_optional(map, key, value.as_ref())
}

fn serialize_timestamp<M: SerializeMap>(map: &mut M, key: &str, at: Timestamp) -> Result<(), M::Error> {
    map.serialize_entry(key, &at)
}

fn serialize_optional<M: SerializeMap, T: Serialize>(
    map: &mut M,
    key: &str,
    value: Option<&T>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(key, value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tallyport_core::aggregate::{Aggregator, GaugeSign, Window};
    use tallyport_core::model::{ContainerId, Generation, Moment, TaskId};

    use super::*;

    fn origin(container: &str) -> Origin {
        Origin {
            container_id: ContainerId::new(container).unwrap(),
            generation: Generation(1),
            task_id: TaskId::new("web.1").unwrap(),
            labels: [("framework_name".to_owned(), "marathon".to_owned())].into(),
        }
    }

    fn window(datagram: &str) -> Window {
        let start = Timestamp::from_secs(1_767_225_600);
        let now = |secs| Moment {
            wall: start.saturating_add(Duration::from_secs(secs)),
            mono: Duration::from_secs(secs),
        };
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, start);
        aggregator.ingest_datagram(datagram.as_bytes(), now(4), None);
        aggregator.roll_window(now(10).wall).unwrap().window
    }

    fn rendered(window: &Window) -> Vec<String> {
        let origin = origin("c-42");
        let frame = RecordFrame::new("n1", 3, &origin, window.span);
        let number = |seq| Some(RecordNumber { seq, rev: 0 });
        let records = (812..).zip(window.records());
        records
            .map(|(seq, record)| serde_json::to_string(&frame.record_document(number(seq), &record)).unwrap())
            .collect()
    }

    /// The keys of an object and of the origin in it.
    fn keys(document: &serde_json::Value) -> Vec<String> {
        let of = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let (mut all, origin) = (of(document), of(&document["origin"]));
        all.extend(origin);
        all
    }

    #[test]
    fn the_document_that_readers_use_has_every_key_of_a_record() {
        let (one, other, window) =
            (origin("c-1"), origin("c-2"), window("a:1|c|#k:v\nb:2|g\nc:3|ms\nd:x|s\n_sc|e|1"));
        let frame = || RecordFrame::new("n1", 3, &one, window.span);
        let frames = [
            frame(),
            frame().into_open(),
            frame().into_merged(2, &[&one]),
            frame().into_merged(2, &[&one, &other]),
        ];
        for (frame, record) in
            frames.iter().flat_map(|frame| window.records().map(move |record| (frame, record)))
        {
            let number = frame.merged.is_none().then_some(RecordNumber { seq: 7, rev: 1 });
            let hdr = matches!(record.view, View::Distribution { .. }).then(|| "HISTF".to_owned());
            let document = frame.record_document(number, &record).with_hdr(hdr);
            let text = serde_json::to_string(&document).unwrap();
            let read: tallyport_wire::RecordDocument = serde_json::from_str(&text).unwrap();
            let (written, read) = (serde_json::from_str(&text).unwrap(), serde_json::to_value(read).unwrap());
            assert_eq!(keys(&read), keys(&written), "{text}");
        }
    }

    #[test]
    fn a_timer_is_rendered_byte_for_byte() {
        let window = window("request.latency:7:2:91:11|ms|@0.5|#route:/pay");
        assert_eq!(
            rendered(&window),
            [concat!(
                r#"{"id":"e327cf608b71167ebffd8a0531697611","epoch":3,"seq":812,"rev":0,"node":"n1","#,
                r#""start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:00:10Z","seconds":10,"covered":10,"partial":false,"#,
                r#""origin":{"container_id":"c-42","generation":1,"task_id":"web.1","labels":{"framework_name":"marathon"}},"#,
                r#""name":"request.latency","type":"timer","unit":"ms","tags":{"route":"/pay"},"value":27.75,"#,
                r#""agg":{"samples":4,"count":8,"sum":222.0,"min":2.0,"max":91.0,"mean":27.75,"stddev":36.656343243700675,"#,
                r#""first":7.0,"last":11.0,"p50":7.0,"p75":11.0,"p90":91.0,"p95":91.0,"p99":91.0}}"#
            )]
        );
    }

    #[test]
    fn each_type_has_its_own_numbers() {
        let window = window("c:3|c|@0.1\ng:5|g\ng:7|g\nu:a|s\nu:b|s\nu:b|s\n_sc|db|2|m:down|d:1767225600");
        let aggs: Vec<serde_json::Value> = rendered(&window)
            .iter()
            .map(|text| {
                let document: serde_json::Value = serde_json::from_str(text).unwrap();
                serde_json::json!([document["type"], document["value"], document["agg"]])
            })
            .collect();
        assert_eq!(
            serde_json::to_string(&aggs).unwrap(),
            concat!(
                r#"[["counter",30.0,{"samples":1,"count":10,"sum":30.0,"rate":3.0,"total":30.0}],"#,
                r#"["gauge",7.0,{"samples":2,"count":2,"last":7.0,"min":5.0,"max":7.0,"last_at":"2026-01-01T00:00:04Z"}],"#,
                r#"["set",2.0,{"samples":3,"count":3,"cardinality":2}],"#,
                r#"["service_check",2.0,{"samples":1,"count":1,"status":"critical","message":"down","#,
                r#""timestamp":"2026-01-01T00:00:00Z","last_at":"2026-01-01T00:00:04Z"}]]"#
            )
        );
    }

    #[test]
    fn what_cannot_be_expressed_is_left_out() {
        let window = window("t:1.7e308:-1.7e308:1.7e308|ms\nc:1.7e308|c|@0.001");
        let texts = rendered(&window);
        assert!(
            texts.iter().all(|text| !text.contains("null") && !text.contains("NaN") && !text.contains("inf"))
        );
        assert!(texts[0].contains(r#""sum":1.7976931348623157e+308"#), "{}", texts[0]);
        assert!(!texts[1].contains("stddev"), "{}", texts[1]);
    }

    #[test]
    fn a_carried_gauge_says_so() {
        let start = Timestamp::from_secs(1_767_225_600);
        let now = |secs| Moment {
            wall: start.saturating_add(Duration::from_secs(secs)),
            mono: Duration::from_secs(secs),
        };
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, start);
        aggregator.ingest_datagram(b"g:5|g", now(4), None);
        aggregator.roll_window(now(10).wall);
        let text = &rendered(&aggregator.roll_window(now(20).wall).unwrap().window)[0];
        let agg = r#""agg":{"samples":0,"count":0,"carried":true,"last":5.0,"min":5.0,"max":5.0,"last_at":"2026-01-01T00:00:04Z"}"#;
        assert!(text.contains(agg), "{text}");
    }

    #[test]
    fn merged_and_open_records_have_no_number_and_say_what_they_are() {
        let window = window("c:1|c");
        let (one, other) = (origin("c-42"), origin("c-7"));
        let record = window.record_at(0).unwrap();
        let text =
            |frame: &RecordFrame<'_>| serde_json::to_string(&frame.record_document(None, &record)).unwrap();
        let merged = text(&RecordFrame::new("n1", 3, &one, window.span).into_merged(5, &[&other]));
        assert!(
            merged.contains(r#""merged":5,"origin":{"task_id":"web.1","containers":["c-42","c-7"]}"#),
            "{merged}"
        );
        assert!(!merged.contains("seq"), "{merged}");
        let open = text(&RecordFrame::new("n1", 3, &one, window.span).into_open());
        assert!(open.contains(r#""partial":false,"open":true,"origin":{"container_id":"c-42""#), "{open}");
    }

    #[test]
    fn rendering_twice_gives_the_same_bytes() {
        let text = "b:1|c|#z:1,a:2\na:1|c|#a:2,z:1\nt:1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18|h\nu:x|s";
        assert_eq!(rendered(&window(text)), rendered(&window(text)));
    }
}
