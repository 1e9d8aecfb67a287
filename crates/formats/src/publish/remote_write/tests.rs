mod split;
mod v1_messages;
mod v2_messages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message as _;
use tallyport_core::model::MetricType;

use super::*;
use crate::prometheus::{Marks, Name, NameKind, SeriesIdentity};
use crate::publish::protobuf::described::assert_described;
use crate::publish::scraped::tests::{SentByAll, at, everything, format_sample, origin};
use crate::publish::{LeftOut, RoundRecord};

const AMPLE: RequestRoom = RequestRoom { bytes: 1 << 24, records: 1 << 20 };
const ALL: Range<usize> = 0..usize::MAX;
const BOTH: [RemoteWriteProtocol; 2] = [RemoteWriteProtocol::V1, RemoteWriteProtocol::V2];
const STALE: u64 = 0x7ff0_0000_0000_0002;

fn options(protocol: RemoteWriteProtocol) -> RemoteWriteOptions {
    RemoteWriteOptions {
        protocol,
        naming: Naming::Openmetrics,
        escaping: Escaping::Underscores,
        timers: Timers::Summary,
        labels: Vec::new(),
        metadata: true,
    }
}

fn native_options(protocol: RemoteWriteProtocol) -> RemoteWriteOptions {
    RemoteWriteOptions { timers: Timers::Native, ..options(protocol) }
}

/// A series of a request of either version.
#[derive(Clone, PartialEq, Debug)]
struct SentSeries {
    labels: Vec<(String, String)>,
    /// The value of a number, or the sum of a histogram.
    value: f64,
    at: i64,
    created: i64,
    histogram: Option<v2_messages::Histogram>,
    /// The type, help and unit of its family, in 2.0.
    family: (i32, String, String),
}

impl SentSeries {
    fn name(&self) -> &str {
        let name = self.labels.iter().find(|(name, _)| name == "__name__");
        name.map(|(_, value)| value.as_str()).unwrap()
    }

    /// The name and the labels that a page has.
    fn scraped_name(&self) -> String {
        let external = [("node", "n1"), ("job", "tallyport"), ("instance", "n1")];
        for (name, value) in external {
            assert!(self.labels.contains(&(name.to_owned(), value.to_owned())), "{self:?}");
        }
        let added = |name: &str| name == "__name__" || external.iter().any(|(external, _)| *external == name);
        format_sample(self.name(), self.labels.iter().filter(|(name, _)| !added(name)).cloned())
    }
}

fn unpacked(request: &EncodedRequest) -> Vec<u8> {
    assert_eq!(request.content_encoding, Some("snappy"));
    snap::raw::Decoder::new().decompress_vec(&request.body).unwrap()
}

/// The only value of a list.
fn only<T: Clone>(list: &[T]) -> T {
    assert_eq!(list.len(), 1);
    list[0].clone()
}

fn decode_v1(request: &EncodedRequest) -> (Vec<SentSeries>, Vec<v1_messages::MetricMetadata>) {
    assert_eq!(request.content_type, "application/x-protobuf");
    let message = v1_messages::WriteRequest::decode(&*unpacked(request)).unwrap();
    let series = message.timeseries.into_iter().map(|series| {
        // The fields of 1.0 are those of 2.0, but for the beginning.
        let histogram = series
            .histograms
            .first()
            .map(|histogram| v2_messages::Histogram::decode(&*histogram.encode_to_vec()).unwrap());
        assert_eq!(series.samples.len() + series.histograms.len(), 1, "one value of a series in a request");
        let (value, at) = match &histogram {
            Some(histogram) => (histogram.sum, histogram.timestamp),
            None => (series.samples[0].value, series.samples[0].timestamp),
        };
        let labels = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
        SentSeries { labels, value, at, created: 0, histogram, family: Default::default() }
    });
    (series.collect(), message.metadata)
}

fn decode_v2(request: &EncodedRequest) -> Vec<SentSeries> {
    assert_eq!(request.content_type, "application/x-protobuf;proto=io.prometheus.write.v2.Request");
    let message = v2_messages::Request::decode(&*unpacked(request)).unwrap();
    let symbols = message.symbols;
    assert_eq!(symbols[0], "");
    assert!(symbols.is_sorted_by(|one, next| one < next), "{symbols:?}");
    let text = |place: u32| symbols[usize::try_from(place).unwrap()].clone();
    let series = message.timeseries.into_iter().map(|series| {
        assert_eq!(series.samples.len() + series.histograms.len(), 1, "one value of a series in a request");
        let histogram = series.histograms.first().cloned();
        let (value, at, created) = match &histogram {
            Some(histogram) => (histogram.sum, histogram.timestamp, histogram.start_timestamp),
            None => {
                let sample = &series.samples[0];
                (sample.value, sample.timestamp, sample.start_timestamp)
            }
        };
        let labels = series.labels_refs.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect();
        let family = series.metadata.unwrap_or_default();
        let family = (family.r#type, text(family.help_ref), text(family.unit_ref));
        SentSeries { labels, value, at, created, histogram, family }
    });
    series.collect()
}

fn decode(protocol: RemoteWriteProtocol, request: &EncodedRequest) -> Vec<SentSeries> {
    let series = match protocol {
        RemoteWriteProtocol::V1 => decode_v1(request).0,
        RemoteWriteProtocol::V2 => decode_v2(request),
    };
    for sent in &series {
        assert!(sent.labels.is_sorted_by(|one, next| one.0 < next.0), "{sent:?}");
        assert!(sent.labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{sent:?}");
    }
    let distinct: BTreeSet<_> = series.iter().map(|sent| &sent.labels).collect();
    assert_eq!(distinct.len(), series.len(), "no two series have the same labels");
    series
}

fn decode_all(options: &RemoteWriteOptions, requests: &[EncodedRequest]) -> Vec<SentSeries> {
    requests.iter().flat_map(|request| decode(options.protocol, request)).collect()
}

/// The end of every series of a round, collected in another order.
fn ended_round<'a>(round: &'a Round<'a>) -> EndedRound<'a> {
    let series = round.records.iter().rev().map(|record| EndedSeries {
        origin: record.origin,
        identity: record.identity,
        series: record.series,
    });
    let (level, marks) = (round.level, round.marks);
    let mut ended = EndedRound { node: "n1", at: at(11), level, marks, series: series.collect() };
    ended.sort_series();
    ended
}

fn millis(seconds: i64) -> i64 {
    at(0).as_secs() * 1000 + seconds * 1000
}

fn find<'s>(series: &'s [SentSeries], name: &str) -> &'s SentSeries {
    let found: Vec<_> = series.iter().filter(|sent| sent.name() == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    found[0]
}

/// Compares with a file in `testdata/publish/`, or writes it if the environment has `UPDATE_GOLDEN`.
fn assert_golden(name: &str, found: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/publish").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    assert!(
        std::fs::read(&path).unwrap() == found,
        "{name} is not what was found; UPDATE_GOLDEN=1 writes it"
    );
}

#[test]
fn messages_are_those_of_the_descriptions() {
    let proto = include_str!("../../../../../proto/remote_write.proto");
    assert_described(proto, &[include_str!("tests/v1_messages.rs")]);
    let proto = include_str!("../../../../../proto/remote_write_2.proto");
    assert_described(proto, &[include_str!("tests/v2_messages.rs")]);
}

#[test]
fn pushed_series_are_those_of_a_page_with_the_same_values() {
    for level in Level::ALL {
        let sent = everything(level);
        for (naming, escaping) in
            Naming::ALL.iter().flat_map(|naming| Escaping::ALL.map(|escaping| (*naming, escaping)))
        {
            let page = sent.page_samples(naming, escaping);
            for protocol in BOTH {
                let options = RemoteWriteOptions { naming, escaping, ..options(protocol) };
                let encoded = encode_remote_write(&sent.round(), ALL, &options, AMPLE);
                assert_eq!(encoded.left_out, []);
                let series = decode_all(&options, &encoded.requests);
                assert!(series.iter().all(|sent| sent.at == millis(10)));
                let mut pushed: BTreeMap<_, _> =
                    series.iter().map(|sent| (sent.scraped_name(), sent.value)).collect();
                // A page shows no checks.
                let checks = pushed.extract_if(.., |name, _| name.contains("_status{")).count();
                assert_eq!(checks, 1);
                assert_eq!(pushed, page, "{naming:?} {escaping:?}");
            }
        }
    }
}

#[test]
fn listed_samples_are_those_that_are_sent() {
    for options in [options(RemoteWriteProtocol::V2), native_options(RemoteWriteProtocol::V2)] {
        let sent = everything(Level::Orchestrator);
        let encoded = encode_remote_write(&sent.round(), ALL, &options, AMPLE);
        let sent_samples = decode_all(&options, &encoded.requests);
        let listed = list_samples(&sent.round(), ALL, &options);
        assert_eq!(listed.len(), sent_samples.len());
        for (listed, sent) in listed.iter().zip(&sent_samples) {
            assert_eq!(listed.labels, sent.labels);
            assert_eq!(listed.cumulative, sent.created != 0, "{sent:?}");
            match listed.value {
                ScrapedValue::Number(number) => {
                    assert_eq!((number, None), (sent.value, sent.histogram.clone()));
                }
                ScrapedValue::Histogram { count, sum } => {
                    assert_eq!(sum, sent.value);
                    assert!(count > 0.0 && sent.histogram.is_some());
                }
            }
        }
    }
}

#[test]
fn names_that_have_marks_on_a_page_have_them_when_pushed() {
    let mut sent = everything(Level::Orchestrator);
    let mut marks = Marks::default();
    let counter = NameKind::Metric(MetricType::Counter);
    marks.set_spelling(&Name { kind: counter, text: "requests".into() }, [Some(1), None]);
    marks.set_spelling(&Name { kind: NameKind::Label, text: "note".into() }, [Some(0), Some(0)]);
    let workload = SeriesIdentity::from_origin(&origin("web.3f9a", &[]), Level::Low);
    sent.marks.insert(workload, marks.into());
    let page = sent.page_samples(Naming::Openmetrics, Escaping::Underscores);
    assert!(page.keys().any(|name| name.starts_with("requests__") && name.contains("note__")));
    let encoded = encode_remote_write(&sent.round(), ALL, &options(RemoteWriteProtocol::V2), AMPLE);
    let series = decode_all(&options(RemoteWriteProtocol::V2), &encoded.requests);
    let pushed: BTreeSet<_> = series.iter().map(SentSeries::scraped_name).collect();
    assert!(page.keys().all(|name| pushed.contains(name)), "{pushed:?}");
}

#[test]
fn requests_are_these_bytes() {
    let sent = everything(Level::Orchestrator);
    let round = sent.round();
    let ended = ended_round(&round);
    for (protocol, version) in BOTH.into_iter().zip(1..) {
        for (options, timers) in [(options(protocol), "summary"), (native_options(protocol), "native")] {
            let of_round = encode_remote_write(&round, ALL, &options, AMPLE).requests;
            let zeros = encode_zero_samples(&round, ALL, &options, AMPLE);
            let stale = encode_stale_markers(&ended, ALL, &options, AMPLE);
            for (requests, what) in [(of_round, "round"), (zeros, "zeros"), (stale, "stale")] {
                let name = format!("remote_write_{version}_{timers}_{what}.bin");
                assert_golden(&name, &unpacked(&only(&requests)));
            }
        }
    }
}

#[test]
fn the_same_round_gives_the_same_bytes_whatever_the_order_of_its_records() {
    for options in BOTH.map(native_options) {
        let sent = everything(Level::Orchestrator);
        let wanted = encode_remote_write(&sent.round(), ALL, &options, AMPLE);
        let again = everything(Level::Orchestrator);
        let mut round = again.round();
        round.records.reverse();
        round.sort_records();
        assert_eq!(encode_remote_write(&round, ALL, &options, AMPLE), wanted);
    }
}

#[test]
fn labels_of_the_target_can_be_replaced_and_removed_and_replace_no_others() {
    let sent = everything(Level::Orchestrator);
    let labels = [
        ("job", ""),
        ("node", "rack-7"),
        ("cluster", "eu"),
        ("task", "x"),
        ("route", "x"),
        ("__name__", "x"),
    ];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = RemoteWriteOptions { labels, ..options(RemoteWriteProtocol::V1) };
    let encoded = encode_remote_write(&sent.round(), ALL, &options, AMPLE);
    let series = decode_all(&options, &encoded.requests);
    let label = |sent: &SentSeries, name: &str| {
        sent.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    for sent in &series {
        let found = ["job", "node", "cluster", "instance"].map(|name| label(sent, name));
        let found = found.each_ref().map(Option::as_deref);
        assert_eq!(found, [None, Some("rack-7"), Some("eu"), Some("n1")]);
        assert_ne!(sent.name(), "x");
    }
    let latency = find(&series, "latency_seconds_count");
    assert_eq!(label(latency, "task").as_deref(), Some("web.3f9a"));
    assert_eq!(label(latency, "route").as_deref(), Some("/pay"));
    assert_eq!(label(find(&series, "runTime_seconds_sum"), "route").as_deref(), Some("x"));
}

#[test]
fn families_are_described_once_in_a_request_of_1_0_and_with_each_series_of_2_0() {
    let sent = everything(Level::Orchestrator);
    let v1 = encode_remote_write(&sent.round(), ALL, &options(RemoteWriteProtocol::V1), AMPLE);
    let (_, metadata) = decode_v1(&only(&v1.requests));
    let described: BTreeMap<_, _> = metadata
        .iter()
        .map(|family| (family.metric_family_name.as_str(), (family.r#type, family.unit.as_str())))
        .collect();
    assert_eq!(described.len(), metadata.len());
    assert_eq!(described["latency_seconds"], (5, "seconds"));
    assert_eq!(described["_404_errors_total"], (1, ""));
    assert_eq!(described["room_temperature"], (2, ""));
    assert_eq!(described["payload"], (0, ""), "a sum of values below zero can fall");
    assert!(metadata.iter().any(|family| family.help == "The timer latency of StatsD."));

    let v2 = decode_all(
        &options(RemoteWriteProtocol::V2),
        &encode_remote_write(&sent.round(), ALL, &options(RemoteWriteProtocol::V2), AMPLE).requests,
    );
    let help = "The timer latency of StatsD.".to_owned();
    assert_eq!(find(&v2, "latency_seconds_sum").family, (5, help, "seconds".to_owned()));
    let mut requests: Vec<_> =
        v2.iter().filter(|sent| sent.name() == "requests_total").map(|sent| sent.family.0).collect();
    requests.sort_unstable();
    assert_eq!(requests, [0, 1, 1], "only the one to which something negative was added can fall");

    let plain = RemoteWriteOptions { metadata: false, ..options(RemoteWriteProtocol::V1) };
    let encoded = encode_remote_write(&sent.round(), ALL, &plain, AMPLE);
    assert_eq!(decode_v1(&only(&encoded.requests)).1, []);
}

#[test]
fn cumulative_values_of_2_0_say_when_they_began() {
    let sent = everything(Level::Orchestrator);
    let mut round = sent.round();
    for running in round.records.iter_mut().filter_map(|record| record.running.as_mut()) {
        running.created = at(3);
    }
    let options = native_options(RemoteWriteProtocol::V2);
    let series = decode_all(&options, &encode_remote_write(&round, ALL, &options, AMPLE).requests);
    for name in ["_404_errors_total", "latency_seconds"] {
        assert_eq!(find(&series, name).created, millis(3));
    }
    assert_eq!(find(&series, "room_temperature").created, 0);
    for running in round.records.iter_mut().filter_map(|record| record.running.as_mut()) {
        running.created = at(10);
    }
    let series = decode_all(&options, &encode_remote_write(&round, ALL, &options, AMPLE).requests);
    assert_eq!(find(&series, "_404_errors_total").created, 0, "nothing begins at its end");
}

#[test]
fn a_new_series_gets_a_zero_in_a_request_before_the_rounds() {
    let sent = everything(Level::Orchestrator);
    for options in BOTH.map(native_options) {
        let round = sent.round();
        let zeros = encode_zero_samples(&round, ALL, &options, AMPLE);
        let series = decode_all(&options, &zeros);
        assert!(series.iter().all(|sent| sent.at == millis(0) + 2 && sent.value == 0.0 && sent.created == 0));
        let names: BTreeSet<_> = series.iter().map(SentSeries::name).collect();
        let expected = ["_404_errors_total", "idle_total", "latency_seconds", "load_distribution", "payload"];
        let expected = expected.into_iter().chain(["requests_total", "runTime_seconds"]);
        assert_eq!(names, expected.collect());
        let histogram = find(&series, "latency_seconds").histogram.clone().unwrap();
        assert_eq!((histogram.count_int, histogram.schema), (Some(0), 3));
        assert_eq!(histogram.positive_spans, []);
        // They are the series of the round.
        let all = decode_all(&options, &encode_remote_write(&round, ALL, &options, AMPLE).requests);
        assert!(series.iter().all(|zero| all.iter().any(|sent| sent.labels == zero.labels)));
    }
    let summaries = options(RemoteWriteProtocol::V1);
    let series = decode_all(&summaries, &encode_zero_samples(&sent.round(), ALL, &summaries, AMPLE));
    let latency: Vec<_> =
        series.iter().map(SentSeries::name).filter(|name| name.starts_with("latency")).collect();
    assert_eq!(latency, ["latency_seconds_sum", "latency_seconds_count"], "percentiles do not begin at 0");
}

#[test]
fn only_new_series_get_zeros() {
    let sent = everything(Level::Orchestrator);
    let mut round = sent.round();
    let is_idle = |record: &RoundRecord<'_>| &*record.series.name == "idle";
    for record in &mut round.records {
        let first = is_idle(record);
        record.running.as_mut().unwrap().first = first;
    }
    let options = options(RemoteWriteProtocol::V2);
    let zeros = encode_zero_samples(&round, ALL, &options, AMPLE);
    let place = round.records.iter().position(is_idle).unwrap();
    assert_eq!(only(&decode_all(&options, &zeros)).name(), "idle_total");
    assert_eq!((zeros[0].records.clone(), zeros[0].held), (0..round.records.len(), 1));
    assert_eq!(encode_zero_samples(&round, 0..place, &options, AMPLE), []);
    assert_eq!(encode_zero_samples(&round, place..place + 1, &options, AMPLE)[0].body, zeros[0].body);
}

#[test]
fn every_sample_of_an_ended_series_gets_a_stale_marker() {
    let sent = everything(Level::Orchestrator);
    let round = sent.round();
    let ended = ended_round(&round);
    for options in BOTH.into_iter().flat_map(|protocol| [options(protocol), native_options(protocol)]) {
        let markers = encode_stale_markers(&ended, ALL, &options, AMPLE);
        let found = decode_all(&options, &markers);
        assert!(found.iter().all(|marker| marker.value.to_bits() == STALE && marker.at == millis(11)));
        let sent = decode_all(&options, &encode_remote_write(&round, ALL, &options, AMPLE).requests);
        let labels = |series: &[SentSeries]| -> BTreeSet<_> {
            series.iter().map(|sent| (sent.labels.clone(), sent.histogram.is_some())).collect()
        };
        assert_eq!(labels(&found), labels(&sent));
        let halves = [0..7, 7..ended.series.len()]
            .map(|half| decode_all(&options, &encode_stale_markers(&ended, half, &options, AMPLE)));
        assert_eq!(halves.concat().len(), found.len());
    }
}

/// The buckets of positive values, by their numbers.
fn positive_buckets(histogram: &v2_messages::Histogram) -> Vec<(i32, i64)> {
    let mut buckets = Vec::new();
    let (mut index, mut count, mut deltas) = (0, 0, histogram.positive_deltas.iter());
    for span in &histogram.positive_spans {
        index += span.offset;
        for _ in 0..span.length {
            count += deltas.next().unwrap();
            buckets.push((index, count));
            index += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    buckets
}

#[test]
fn native_histograms_have_every_value_and_percentiles_within_a_bucket() {
    let values: Vec<f64> = (1..=1000).map(|n| f64::from(n) * 0.75).collect();
    let lines: Vec<_> = values.iter().map(|value| format!("t:{value}|ms")).collect();
    let sent = SentByAll::new(Level::Orchestrator, &[(origin("web", &[]), &lines.join("\n"))]);
    for options in BOTH.map(native_options) {
        let encoded = encode_remote_write(&sent.round(), ALL, &options, AMPLE);
        let series = only(&decode_all(&options, &encoded.requests));
        let histogram = series.histogram.as_ref().unwrap();
        assert_eq!((series.name(), histogram.count_int), ("t_seconds", Some(1000)));
        assert!((series.value - values.iter().sum::<f64>() / 1000.0).abs() < 1e-9);
        let buckets = positive_buckets(histogram);
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<i64>(), 1000);
        let mut below = 0;
        let p99 = buckets.iter().find(|(_, count)| {
            below += count;
            below >= 990
        });
        let exact = 0.75 * 990.0 / 1000.0;
        let exact = (f64::log2(exact) * 8.0).ceil();
        assert!((f64::from(p99.unwrap().0) - exact).abs() <= 1.0, "{p99:?} {exact}");
    }
}

#[test]
fn native_histograms_of_sampled_values_have_floats() {
    let lines = "t:1000:-2000|ms|@0.3\nt:0|ms";
    let sent = SentByAll::new(Level::Orchestrator, &[(origin("web", &[]), lines)]);
    for options in BOTH.map(native_options) {
        let encoded = encode_remote_write(&sent.round(), ALL, &options, AMPLE);
        let histogram = only(&decode_all(&options, &encoded.requests)).histogram.unwrap();
        assert_eq!((histogram.count_int, histogram.zero_count_int), (None, None));
        assert!((histogram.count_float.unwrap() - (1.0 + 2.0 / 0.3)).abs() < 1e-5);
        assert_eq!(histogram.zero_count_float, Some(1.0));
        assert_eq!((histogram.positive_deltas, histogram.negative_deltas), (vec![], vec![]));
        assert!((only(&histogram.negative_counts) - 1.0 / 0.3).abs() < 1e-5);
        assert_eq!(only(&histogram.negative_spans), v2_messages::BucketSpan { offset: 8, length: 1 });
    }
}

#[test]
fn a_record_without_what_it_needs_is_left_out_and_said() {
    let sent = everything(Level::Orchestrator);
    let mut round = sent.round();
    round.records.iter_mut().for_each(|record| record.running = None);
    let options = native_options(RemoteWriteProtocol::V1);
    let encoded = encode_remote_write(&round, ALL, &options, AMPLE);
    let names: BTreeSet<_> =
        decode_all(&options, &encoded.requests).iter().map(|sent| sent.name().to_owned()).collect();
    assert!(names.iter().any(|name| name.starts_with("up__")), "{names:?}");
    assert!(encoded.left_out.iter().all(|left_out| left_out.why == LeftOutReason::NoValue));
    let held: usize = encoded.requests.iter().map(|request| request.held).sum();
    assert_eq!(held + encoded.left_out.len(), round.records.len());
    assert_eq!(names.len(), held);
}

#[test]
fn a_name_that_another_record_has_is_left_out_of_every_range() {
    let sent = SentByAll::new(
        Level::Orchestrator,
        &[(origin("a", &[]), "x:1|g"), (origin("b", &[]), "a.b:1|c\na_b:2|c\nb:1|c")],
    );
    let options = RemoteWriteOptions { naming: Naming::StatsdExporter, ..options(RemoteWriteProtocol::V2) };
    let round = sent.round();
    let clash = LeftOut { record: 2, why: LeftOutReason::Clash };
    let encoded = encode_remote_write(&round, ALL, &options, AMPLE);
    assert_eq!(encoded.left_out, [clash]);
    assert_eq!((encoded.requests[0].records.clone(), encoded.requests[0].held), (0..4, 3));
    let half = encode_remote_write(&round, 2..4, &options, AMPLE);
    assert_eq!(half.left_out, [clash]);
    assert_eq!(only(&decode_all(&options, &half.requests)).name(), "b");
    assert_eq!(encode_zero_samples(&round, 2..3, &options, AMPLE), []);
}
