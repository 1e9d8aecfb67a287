use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::publish::{DatadogRoute, LeftOutReason, encode_datadog};
use crate::record::value;

fn json(round: &Round<'_>, route: DatadogRoute) -> Value {
    serde_json::from_slice(only_body(&encode_datadog(round, ALL, route, AMPLE))).unwrap()
}

/// One field of a protobuf message.
#[derive(Debug)]
enum Wire<'b> {
    Number(u64),
    Eight([u8; 8]),
    Bytes(&'b [u8]),
}

fn read_varint(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

/// The fields of a message, with their numbers.
fn read_message(mut rest: &[u8]) -> Vec<(u64, Wire<'_>)> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let head = read_varint(&mut rest);
        let value = match head & 7 {
            0 => Wire::Number(read_varint(&mut rest)),
            1 => {
                let (eight, after) = rest.split_first_chunk().unwrap();
                rest = after;
                Wire::Eight(*eight)
            }
            2 => {
                let length = usize::try_from(read_varint(&mut rest)).unwrap();
                let (bytes, after) = rest.split_at(length);
                rest = after;
                Wire::Bytes(bytes)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((head >> 3, value));
    }
    fields
}

/// A sketch as the intake reads it.
#[derive(Default, Debug)]
struct ReadSketch {
    metric: String,
    host: String,
    tags: Vec<String>,
    timestamp: u64,
    count: u64,
    /// Minimum, maximum, mean and sum.
    numbers: [f64; 4],
    bins: Vec<(i64, u64)>,
}

fn read_sketches(body: &[u8]) -> Vec<ReadSketch> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut sketches = Vec::new();
    for (number, field) in read_message(body) {
        let (1, Wire::Bytes(sketch)) = (number, field) else { panic!("field {number}") };
        let mut read = ReadSketch::default();
        for field in read_message(sketch) {
            match field {
                (1, Wire::Bytes(bytes)) => read.metric = text(bytes),
                (2, Wire::Bytes(bytes)) => read.host = text(bytes),
                (4, Wire::Bytes(bytes)) => read.tags.push(text(bytes)),
                (7, Wire::Bytes(bytes)) => read_dogsketch(bytes, &mut read),
                other => panic!("{other:?}"),
            }
        }
        sketches.push(read);
    }
    sketches
}

fn read_dogsketch(bytes: &[u8], read: &mut ReadSketch) {
    let packed = |mut bytes: &[u8]| {
        let mut numbers = Vec::new();
        while !bytes.is_empty() {
            numbers.push(read_varint(&mut bytes));
        }
        numbers
    };
    let (mut keys, mut counts) = (Vec::new(), Vec::new());
    for field in read_message(bytes) {
        match field {
            (1, Wire::Number(number)) => read.timestamp = number,
            (2, Wire::Number(number)) => read.count = number,
            (number @ 3..=6, Wire::Eight(eight)) => {
                read.numbers[usize::try_from(number - 3).unwrap()] = f64::from_le_bytes(eight);
            }
            (7, Wire::Bytes(bytes)) => keys = packed(bytes),
            (8, Wire::Bytes(bytes)) => counts = packed(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(keys.len(), counts.len());
    let zigzag = |key: u64| i64::try_from(key >> 1).unwrap() ^ -i64::try_from(key & 1).unwrap();
    read.bins = keys.into_iter().map(zigzag).zip(counts).collect();
}

impl ReadSketch {
    /// The value at a rank, from the keys alone.
    fn quantile(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.count as f64).ceil();
        let mut counted = 0;
        for (key, count) in &self.bins {
            counted += count;
            if counted as f64 >= rank {
                let size = (1.0 + 2.0 / 128.0_f64).powf((key.abs() - 1338) as f64);
                return if *key == 0 { 0.0 } else { size * key.signum() as f64 };
            }
        }
        panic!("no value at {quantile}");
    }
}

fn sketches(fixture: &Fixture) -> Vec<ReadSketch> {
    read_sketches(only_body(&encode_datadog(&fixture.round(), ALL, DatadogRoute::Sketches, AMPLE)))
}

fn timer(values: &[f64]) -> Fixture {
    let series =
        Series { name: "t".into(), tags: TagSet::default(), metric_type: MetricType::Timer, created: at(0) };
    let state = SeriesState::Distribution(Box::new(distribution(values)));
    Fixture::from_states(origin("t", "c", &[]), &[(series, state)])
}

#[test]
fn the_bodies_of_a_round_are_as_golden() {
    let fixture = odd_and_ordinary();
    let body = |route| only_body(&encode_datadog(&fixture.round(), ALL, route, AMPLE)).to_vec();
    assert_golden("datadog-series.json", &body(DatadogRoute::Series));
    assert_golden("datadog-checks.json", &body(DatadogRoute::Checks));
    let hex: Vec<_> =
        body(DatadogRoute::Sketches).chunks(40).map(|chunk| format!("{chunk:02x?}\n")).collect();
    let hex: String = hex.concat().chars().filter(|c| !matches!(c, ',' | ' ' | '[' | ']')).collect();
    assert_golden("datadog-sketches.hex", hex.as_bytes());
}

#[test]
fn the_same_round_gives_the_same_bytes() {
    for route in DatadogRoute::ALL {
        assert_deterministic(|round| encode_datadog(round, ALL, route, AMPLE));
    }
}

#[test]
fn every_record_is_sent_by_one_route() {
    let fixture = odd_and_ordinary();
    let round = fixture.round();
    let mut held = 0;
    for route in DatadogRoute::ALL {
        let encoded = encode_datadog(&round, ALL, route, AMPLE);
        held += encoded.requests[0].held;
        assert!(encoded.left_out.iter().all(|left| left.why == LeftOutReason::Unsupported), "{route:?}");
    }
    assert_eq!(held, round.records.len());
}

#[test]
fn a_counter_is_a_count_of_its_interval_and_everything_else_a_gauge() {
    let lines = "c:5|c|@0.5|#route:/pay,code:404,code:410,flag\ng:2.5|g\ns:x|s\ns:y|s";
    let fixture = Fixture::from_lines(Level::Orchestrator, &[(origin("web.1", "c", &[]), lines)]);
    assert_eq!(
        json(&fixture.round(), DatadogRoute::Series),
        serde_json::json!({"series": [
            {"metric": "c", "type": 1, "interval": 10, "points": [{"timestamp": 1_767_225_610, "value": 10}],
             "resources": [{"type": "host", "name": "n1"}],
             "tags": ["task:web.1", "code:404", "code:410", "flag", "route:/pay"]},
            {"metric": "g", "type": 3, "points": [{"timestamp": 1_767_225_610, "value": 2.5}],
             "resources": [{"type": "host", "name": "n1"}], "tags": ["task:web.1"]},
            {"metric": "s", "type": 3, "points": [{"timestamp": 1_767_225_610, "value": 2}],
             "resources": [{"type": "host", "name": "n1"}], "tags": ["task:web.1"]},
        ]})
    );
}

#[test]
fn names_become_valid_and_long_ones_stay_different() {
    let (long, longer) = ("x".repeat(200), "x".repeat(250));
    let lines = format!("404.err-or:1|c\nab c:1|c\n{long}:1|c\n{longer}1:1|c\n{longer}2:1|c");
    let fixture = Fixture::from_lines(Level::Orchestrator, &[(origin("t", "c", &[]), lines.as_str())]);
    let document = json(&fixture.round(), DatadogRoute::Series);
    let names: Vec<_> = document["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|series| series["metric"].as_str().unwrap())
        .collect();
    assert_eq!(names[..3], ["metric_404.err_or", "ab_c", long.as_str()]);
    assert!(
        names.len() == 5 && names[3] != names[4] && names.iter().all(|name| name.len() <= 200),
        "{names:?}"
    );
}

#[test]
fn a_message_is_cut_where_datadog_would_cut_it() {
    let lines = format!("_sc|up|1|m:{}", "é".repeat(600));
    let fixture = Fixture::from_lines(Level::Orchestrator, &[(origin("t", "c", &[]), lines.as_str())]);
    let document = json(&fixture.round(), DatadogRoute::Checks);
    assert_eq!(document[0]["message"], "é".repeat(500));
    assert_eq!((&document[0]["status"], &document[0]["host_name"]), (&1.into(), &"n1".into()));
}

#[test]
fn a_sketch_has_the_counts_and_the_numbers_of_its_record() {
    let lines = "latency:7:2:91:11|ms|@0.5|#route:/pay\nlatency:-1e-12|ms|#route:/pay";
    let fixture = Fixture::from_lines(Level::Orchestrator, &[(origin("web.1", "c", &[]), lines)]);
    let [sketch] = sketches(&fixture).try_into().unwrap();
    assert_eq!((sketch.metric.as_str(), sketch.host.as_str()), ("latency", "n1"));
    assert_eq!(sketch.tags, ["task:web.1", "route:/pay"]);
    assert_eq!((sketch.timestamp, sketch.count), (1_767_225_610, 9));
    assert_eq!(sketch.numbers[..2], [-1e-12, 91.0]);
    assert_eq!(sketch.bins.iter().map(|(_, count)| count).sum::<u64>(), 9);
    assert_eq!(sketch.bins[0], (0, 1));
    assert_eq!(sketch.bins.len(), 5);
}

#[test]
fn percentiles_of_a_sketch_are_within_two_percent_of_those_of_all_values() {
    // A long tail, as latencies have one, over five decades.
    let values: Vec<f64> = (0..20_000).map(|n| 0.05 * 1.000_7_f64.powi(n)).collect();
    let [sketch] = sketches(&timer(&values)).try_into().unwrap();
    for (quantile, index) in [(0.01, 199), (0.5, 9_999), (0.9, 17_999), (0.99, 19_799), (1.0, 19_999)] {
        let (found, wanted) = (sketch.quantile(quantile), values[index]);
        assert!((found / wanted - 1.0).abs() < 0.02, "p{quantile}: {found} is not {wanted}");
    }
}

proptest! {
    #[test]
    fn property_a_sketch_keeps_every_percentile_within_two_percent(
        mut values in prop::collection::vec(prop_oneof![1e-3..1e6_f64, -1e6..-1e-3_f64], 1..400),
        quantile in 0.01..1.0_f64,
    ) {
        let [sketch] = sketches(&timer(&values)).try_into().unwrap();
        values.sort_by(f64::total_cmp);
        prop_assert_eq!(sketch.count, values.len() as u64);
        prop_assert!(sketch.bins.is_sorted_by(|(a, _), (b, _)| a < b));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 400")]
        let rank = (quantile * values.len() as f64).ceil() as usize;
        let (found, wanted) = (sketch.quantile(quantile), values[rank - 1]);
        prop_assert!((found / wanted - 1.0).abs() < 0.02, "{} is not {}", found, wanted);
        let [min, max, mean, sum] = sketch.numbers;
        prop_assert_eq!([min, max], [values[0], values[values.len() - 1]]);
        prop_assert!((mean * values.len() as f64 - sum).abs() <= 1e-9 * values.len() as f64 * 1e6);
    }

    #[test]
    fn property_every_series_and_check_is_parsed_and_holds_the_value(
        states in prop::collection::vec(state(), 1..6),
    ) {
        let fixture = Fixture::from_states(origin("ta sk", "c", &[]), &states);
        let round = fixture.round();
        for (index, record) in round.records.iter().enumerate() {
            let route = DatadogRoute::for_type(record.series.metric_type);
            let encoded = encode_datadog(&round, index..index + 1, route, AMPLE);
            let body = only_body(&encoded);
            prop_assert_eq!(DatadogRoute::for_body(body), route);
            let (tags, held) = match route {
                DatadogRoute::Sketches => {
                    let [sketch] = read_sketches(body).try_into().unwrap();
                    (sketch.tags, Some(sketch.numbers[2]))
                }
                route => {
                    let document: Value = serde_json::from_slice(body).unwrap();
                    let document = if route == DatadogRoute::Series { &document["series"][0] } else { &document[0] };
                    let tags = serde_json::from_value(document["tags"].clone()).unwrap();
                    // The reader of JSON rounds the last digit of a number wrongly.
                    let key = if route == DatadogRoute::Series { "\"value\":" } else { "\"status\":" };
                    let (_, after) = std::str::from_utf8(body).unwrap().split_once(key).unwrap();
                    (tags, after.split([',', '}']).next().unwrap().parse().ok())
                }
            };
            prop_assert_eq!(held, value(&record.view));
            prop_assert_eq!(&tags[0], "task:ta sk");
            prop_assert!(tags.len() > record.series.tags.len());
        }
    }
}
