mod messages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use messages::{
    ExponentialHistogramDataPoint, ExportMetricsServiceRequest, KeyValue, Metric, NumberDataPoint,
};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::prometheus::Level;
use crate::publish::EncodedRequest;
use crate::publish::protobuf::described::assert_described;
use crate::publish::scraped::tests::{SentByAll, at, everything, format_sample, origin};

const AMPLE: RequestRoom = RequestRoom { bytes: 1 << 24, records: 1 << 20 };
const ALL: Range<usize> = 0..usize::MAX;
const BOTH: [OtlpTemporality; 2] = [OtlpTemporality::Cumulative, OtlpTemporality::Delta];

/// A data point of a request, with the resource and the metric that it is in.
#[derive(Clone, PartialEq, Debug)]
struct SentPoint {
    resource: BTreeMap<String, String>,
    name: String,
    unit: String,
    kind: &'static str,
    attributes: Vec<(String, String)>,
    value: PointOf,
}

#[derive(Clone, PartialEq, Debug)]
enum PointOf {
    Number(NumberDataPoint),
    Histogram(ExponentialHistogramDataPoint),
}

fn pairs(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |pair: &KeyValue| pair.value.clone().unwrap().string_value.unwrap();
    attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

/// The points of a metric, each with its attributes and with what the metric is.
fn points(metric: &Metric, temporality: i32) -> Vec<(&'static str, Vec<KeyValue>, PointOf)> {
    let numbers = |kind, points: &[NumberDataPoint]| {
        points.iter().map(|point| (kind, point.attributes.clone(), PointOf::Number(point.clone()))).collect()
    };
    match (&metric.gauge, &metric.sum, &metric.exponential_histogram) {
        (Some(gauge), None, None) => numbers("gauge", &gauge.data_points),
        (None, Some(sum), None) => {
            assert_eq!(sum.aggregation_temporality, temporality);
            numbers(if sum.is_monotonic { "counter" } else { "sum" }, &sum.data_points)
        }
        (None, None, Some(histogram)) => {
            assert_eq!(histogram.aggregation_temporality, temporality);
            let points = histogram.data_points.iter();
            points
                .map(|point| ("histogram", point.attributes.clone(), PointOf::Histogram(point.clone())))
                .collect()
        }
        _ => panic!("{metric:?}"),
    }
}

fn decode(temporality: OtlpTemporality, requests: &[EncodedRequest]) -> Vec<SentPoint> {
    let number = if temporality == OtlpTemporality::Delta { 1 } else { 2 };
    let mut found = Vec::new();
    for request in requests {
        assert_eq!((request.content_type, request.content_encoding), ("application/x-protobuf", None));
        let message = ExportMetricsServiceRequest::decode(&*request.body).unwrap();
        let mut resources = BTreeSet::new();
        for of_resource in message.resource_metrics {
            let resource: BTreeMap<_, _> =
                pairs(&of_resource.resource.unwrap().attributes).into_iter().collect();
            assert!(resources.insert(resource.clone()), "a resource is in a request once");
            let [scope] = &of_resource.scope_metrics[..] else { panic!("one scope") };
            assert_eq!(scope.scope.as_ref().unwrap().name, "tallyport");
            for metric in &scope.metrics {
                for (kind, attributes, value) in points(metric, number) {
                    let (resource, attributes) = (resource.clone(), pairs(&attributes));
                    let (name, unit) = (metric.name.clone(), metric.unit.clone());
                    found.push(SentPoint { resource, name, unit, kind, attributes, value });
                }
            }
        }
    }
    let identities: BTreeSet<_> =
        found.iter().map(|point| (&point.resource, &point.name, &point.attributes)).collect();
    assert_eq!(identities.len(), found.len(), "no two points are of one series");
    found
}

fn encoded(sent: &SentByAll, temporality: OtlpTemporality) -> Vec<SentPoint> {
    let encoded = encode_otlp(&sent.round(), ALL, temporality, AMPLE);
    assert_eq!(encoded.left_out, []);
    decode(temporality, &encoded.requests)
}

fn find<'p>(points: &'p [SentPoint], name: &str) -> &'p SentPoint {
    let found: Vec<_> = points.iter().filter(|point| point.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0]
}

fn number(point: &SentPoint) -> &NumberDataPoint {
    let PointOf::Number(number) = &point.value else { panic!("{point:?}") };
    number
}

fn histogram(point: &SentPoint) -> &ExponentialHistogramDataPoint {
    let PointOf::Histogram(histogram) = &point.value else { panic!("{point:?}") };
    histogram
}

fn nanos(seconds: u64) -> u64 {
    u64::try_from(at(seconds).as_micros()).unwrap() * 1000
}

#[test]
fn messages_are_those_of_the_description() {
    let proto = include_str!("../../../../../proto/otlp.proto");
    assert_described(proto, &[include_str!("tests/messages.rs"), include_str!("answer.rs")]);
}

#[test]
fn names_tags_and_values_are_those_of_a_page_in_utf_8() {
    let sent = everything(Level::Orchestrator);
    let page = sent.page_samples(Naming::Openmetrics, Escaping::Utf8);
    // On a page of text, histograms are summaries.
    let origins = ["task", "namespace", "pod", "container"];
    let mut expected = BTreeSet::new();
    for name in page.keys() {
        let (name, labels) = name.split_once('{').unwrap();
        if labels.contains("\"quantile\"") || name.ends_with("_sum") {
            continue;
        }
        let name = name.strip_suffix("_count").unwrap_or(name);
        let labels = labels
            .trim_end_matches('}')
            .split(", ")
            .filter(|label| !origins.iter().any(|origin| label.starts_with(&format!("\"{origin}\":"))));
        expected.insert(format!("{name}{{{}}}", labels.collect::<Vec<_>>().join(", ")));
    }
    for temporality in BOTH {
        let points = encoded(&sent, temporality);
        let mut found: BTreeSet<_> =
            points.iter().map(|point| format_sample(&point.name, point.attributes.clone())).collect();
        found.retain(|name| !name.contains("_status{"));
        assert_eq!(found, expected);
        let value = |name| number(find(&points, name)).as_double;
        assert_eq!(value("room.temperature"), Some(21.5));
        assert_eq!(value("users_unique"), Some(2.0));
        assert_eq!(value("db up_status"), Some(2.0));
        assert_eq!(find(&points, "latency_seconds").unit, "s");
    }
}

#[test]
fn sums_are_cumulative_since_they_began_or_of_the_interval() {
    let sent = everything(Level::Orchestrator);
    let mut round = sent.round();
    for running in round.records.iter_mut().filter_map(|record| record.running.as_mut()) {
        (running.created, running.total) = (at(2), 100.0);
    }
    let of = |temporality| decode(temporality, &encode_otlp(&round, ALL, temporality, AMPLE).requests);
    let cumulative = of(OtlpTemporality::Cumulative);
    let errors = find(&cumulative, "404.errors_total");
    let point = number(errors);
    assert_eq!((errors.kind, point.as_double), ("counter", Some(100.0)));
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (nanos(2), nanos(10)));
    assert_eq!(number(find(&cumulative, "room.temperature")).start_time_unix_nano, 0);
    let latency = histogram(find(&cumulative, "latency_seconds"));
    assert_eq!((latency.sum, latency.min, latency.max), (Some(0.1), None, None));
    let mut kinds: Vec<_> =
        cumulative.iter().filter(|point| point.name == "requests_total").map(|point| point.kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["counter", "counter", "sum"], "one fell");

    let delta = of(OtlpTemporality::Delta);
    let point = number(find(&delta, "404.errors_total"));
    assert_eq!((point.as_double, point.start_time_unix_nano), (Some(1.0), nanos(0)));
    let latency = histogram(find(&delta, "latency_seconds"));
    assert_eq!((latency.count, latency.start_time_unix_nano), (8, nanos(0)));
    assert_eq!((latency.sum, latency.min, latency.max), (Some(0.222), Some(0.002), Some(0.091)));
    assert_eq!(histogram(find(&delta, "payload")).sum, None, "a sum of values below zero can fall");
}

#[test]
fn histograms_have_every_value_in_the_bucket_that_it_is_in() {
    let lines = "h:1:1.5:2:-4:0|h";
    let sent = SentByAll::new(Level::Orchestrator, &[(origin("web", &[]), lines)]);
    for temporality in BOTH {
        let points = encoded(&sent, temporality);
        let point = histogram(find(&points, "h"));
        assert_eq!((point.count, point.zero_count, point.scale), (5, 1, 3));
        let positive = point.positive.as_ref().unwrap();
        assert_eq!(positive.offset, -1);
        assert_eq!(positive.bucket_counts, [1, 0, 0, 0, 0, 1, 0, 0, 1]);
        assert_eq!(point.negative.as_ref().unwrap().bucket_counts, [1]);
    }
}

#[test]
fn cumulative_histograms_need_running_buckets() {
    let sent = SentByAll::new(Level::Orchestrator, &[(origin("web", &[]), "a:1|ms\nb:1|g")]);
    let mut round = sent.round();
    round.records.iter_mut().for_each(|record| record.running = None);
    let encoded = encode_otlp(&round, ALL, OtlpTemporality::Cumulative, AMPLE);
    assert_eq!(encoded.left_out.len(), 1);
    assert_eq!((encoded.left_out[0].record, encoded.left_out[0].why), (0, LeftOutReason::NoValue));
    assert_eq!(encoded.requests[0].held, 1);
    assert_eq!(encode_otlp(&round, ALL, OtlpTemporality::Delta, AMPLE).left_out, []);
}

#[test]
fn requests_are_these_bytes_and_the_same_for_the_same_round() {
    for (temporality, name) in
        [(OtlpTemporality::Cumulative, "cumulative"), (OtlpTemporality::Delta, "delta")]
    {
        let sent = everything(Level::High);
        let encoded = encode_otlp(&sent.round(), ALL, temporality, AMPLE);
        let path = format!("../../testdata/publish/otlp_{name}.bin");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &encoded.requests[0].body).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        assert!(
            golden == encoded.requests[0].body,
            "{} is another; UPDATE_GOLDEN=1 writes it",
            path.display()
        );
        let again = everything(Level::High);
        let mut round = again.round();
        round.records.reverse();
        round.sort_records();
        assert_eq!(encode_otlp(&round, ALL, temporality, AMPLE), encoded);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn property_requests_within_any_room_have_what_one_has(
        (bytes, records) in (700..6000_usize, 0..12_usize),
        temporality in prop::sample::select(BOTH.to_vec()),
    ) {
        let sent = everything(Level::Orchestrator);
        let round = sent.round();
        let room = RequestRoom { bytes, records };
        let encoded = encode_otlp(&round, ALL, temporality, room);
        prop_assert_eq!(&encoded.left_out, &[]);
        let mut next = 0;
        for request in &encoded.requests {
            prop_assert_eq!(request.records.start, next);
            next = request.records.end;
            prop_assert!(request.body.len() <= bytes && request.held <= records.max(1));
            let again = encode_otlp(&round, request.records.clone(), temporality, room);
            prop_assert_eq!(&again.requests, std::slice::from_ref(request));
        }
        prop_assert_eq!(next, round.records.len());
        let whole = encode_otlp(&round, ALL, temporality, AMPLE);
        prop_assert_eq!(decode(temporality, &encoded.requests), decode(temporality, &whole.requests));
    }
}
