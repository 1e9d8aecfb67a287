use std::collections::BTreeSet;

use proptest::prelude::*;
use tallyport_core::model::MetricType;

use super::*;
use crate::publish::{InfluxFields, InfluxOptions, LeftOutReason, Merged, encode_influx};
use crate::record::value;

fn kadabra() -> InfluxOptions {
    InfluxOptions { fields: InfluxFields::Kadabra, metadata: BTreeSet::new() }
}

fn with_metadata(keys: &[&str]) -> InfluxOptions {
    InfluxOptions { metadata: keys.iter().map(|key| (*key).to_owned()).collect(), ..InfluxOptions::default() }
}

/// A parsed point.
#[derive(Debug)]
struct Point {
    measurement: String,
    tags: Vec<(String, String)>,
    fields: Vec<(String, Field)>,
    millis: i64,
}

#[derive(PartialEq, Debug)]
enum Field {
    Number(f64),
    Text(String),
}

impl Point {
    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn field(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.field(key)? {
            Field::Number(number) => Some(*number),
            Field::Text(_) => None,
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.field(key)? {
            Field::Text(text) => Some(text),
            Field::Number(_) => None,
        }
    }
}

/// Reads up to an unescaped character of `ends`, and removes the escapes of `escaped`.
fn read_key<'r>(rest: &mut &'r str, ends: &str, escaped: &str) -> String {
    let mut text = String::new();
    let whole: &'r str = rest;
    let mut chars = whole.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        if c == '\\' && chars.peek().is_some_and(|(_, next)| escaped.contains(*next)) {
            text.push(chars.next().unwrap().1);
        } else if ends.contains(c) {
            *rest = whole.split_at(index).1;
            assert!(!text.is_empty(), "an empty key or value before {rest:?}");
            assert!(!text.ends_with('\\'), "a backslash before {rest:?}");
            return text;
        } else {
            text.push(c);
        }
    }
    panic!("no end in {rest:?}");
}

fn expect(rest: &mut &str, wanted: char) {
    *rest = rest.strip_prefix(wanted).unwrap_or_else(|| panic!("no {wanted:?} at {rest:?}"));
}

fn read_field<'r>(rest: &mut &'r str) -> Field {
    let whole: &'r str = rest;
    let Some(inner) = whole.strip_prefix('"') else {
        let (number, after) = whole.split_at(whole.find([',', ' ']).unwrap());
        let number = number.parse().unwrap();
        assert!(f64::is_finite(number));
        *rest = after;
        return Field::Number(number);
    };
    let mut text = String::new();
    let mut chars = inner.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => text.push(chars.next().unwrap().1),
            '"' => {
                *rest = inner.split_at(index + 1).1;
                return Field::Text(text);
            }
            c => text.push(c),
        }
    }
    panic!("no closing quote in {inner:?}");
}

/// Parses a line as InfluxDB's documentation describes it.
fn parse_line(line: &str) -> Point {
    assert!(!line.starts_with('#'), "a comment");
    let mut rest = line;
    let measurement = read_key(&mut rest, ", ", ", ");
    let mut tags = Vec::new();
    while rest.starts_with(',') {
        expect(&mut rest, ',');
        let key = read_key(&mut rest, "=", ",= ");
        expect(&mut rest, '=');
        tags.push((key, read_key(&mut rest, ", ", ",= ")));
    }
    let mut fields = Vec::new();
    for before in std::iter::once(' ').chain(std::iter::repeat(',')) {
        expect(&mut rest, before);
        let key = read_key(&mut rest, "=", ",= ");
        expect(&mut rest, '=');
        fields.push((key, read_field(&mut rest)));
        if rest.starts_with(' ') {
            break;
        }
    }
    expect(&mut rest, ' ');
    Point { measurement, tags, fields, millis: rest.parse().unwrap() }
}

fn parse_points(text: &str) -> Vec<Point> {
    text.strip_suffix('\n').unwrap().split('\n').map(parse_line).collect()
}

fn points(fixture: &Fixture, options: &InfluxOptions) -> Vec<Point> {
    parse_points(only_text(&encode_influx(&fixture.round(), ALL, options, AMPLE)))
}

#[test]
fn a_timer_of_kadabra_is_the_point_that_its_documentation_shows() {
    let fib = (origin("fib", "c-1", &[]), "runTime:0.828|ms|#program:fibonacci");
    let fixture = Fixture::from_lines(Level::Orchestrator, &[fib]);
    let text =
        |options: &InfluxOptions| only_text(&encode_influx(&fixture.round(), ALL, options, AMPLE)).to_owned();
    assert_eq!(
        text(&kadabra()),
        "runTime,program=fibonacci,task=fib value=0.828,unit=\"milliseconds\" 1767225610000\n"
    );
    assert_eq!(
        text(&InfluxOptions::default()),
        "runTime,metric_type=timer,program=fibonacci,task=fib value=0.828,unit=\"milliseconds\",count=1,sum=0.828,\
         min=0.828,max=0.828,stddev=0,p50=0.828,p75=0.828,p90=0.828,p95=0.828,p99=0.828 1767225610000\n"
    );
}

#[test]
fn the_lines_of_a_round_are_as_golden() {
    let fixture = odd_and_ordinary();
    let encode = |options: &InfluxOptions| encode_influx(&fixture.round(), ALL, options, AMPLE);
    assert_golden("influx.txt", only_body(&encode(&InfluxOptions::default())));
    assert_golden("influx-kadabra.txt", only_body(&encode(&kadabra())));
    let metadata =
        with_metadata(&["image", "container_id", "generation", "node", "task_id", "time", "pod", ""]);
    assert_golden("influx-metadata.txt", only_body(&encode(&metadata)));
}

#[test]
fn the_same_round_gives_the_same_lines() {
    assert_deterministic(|round| encode_influx(round, ALL, &with_metadata(&["image"]), AMPLE));
}

#[test]
fn tags_with_the_names_of_columns_are_renamed_and_stay_different() {
    let lines =
        "x:1|g|#time:a,client_time:b,value:c,client_client_time:d,client_x:e,metric_type:f,p99:g,_field:h";
    let fixture = Fixture::from_lines(Level::Orchestrator, &[(origin("t", "c", &[]), lines)]);
    let point = &points(&fixture, &InfluxOptions::default())[0];
    let wanted = [
        ("client_time", "a"),
        ("client_client_time", "b"),
        ("client_value", "c"),
        ("client_client_client_time", "d"),
        ("client_x", "e"),
        ("client_metric_type", "f"),
        ("client_p99", "g"),
        ("client__field", "h"),
        ("metric_type", "gauge"),
        ("task", "t"),
    ];
    for (key, value) in wanted {
        assert_eq!(point.tag(key), Some(value), "{key} in {point:?}");
    }
    assert_eq!(point.tags.len(), wanted.len());
    assert!(point.tags.is_sorted(), "{:?}", point.tags);
}

#[test]
fn metadata_is_what_all_containers_of_a_record_have_in_common_and_never_identity() {
    let (one, other) = (
        origin("web.1", "c-1", &[("image", "a"), ("count", "7"), ("empty", "")]),
        origin("web.1", "c-2", &[("image", "b"), ("count", "7"), ("empty", "")]),
    );
    let fixture = Fixture::from_lines(Level::Orchestrator, &[(one, "x:1|g")]);
    let options = with_metadata(&["image", "count", "container_id", "task_id", "task", "empty", "absent"]);
    let point = |merged| {
        let mut round = fixture.round();
        round.records[0].merged = merged;
        parse_points(only_text(&encode_influx(&round, ALL, &options, AMPLE))).remove(0)
    };
    let alone = point(None);
    let texts =
        ["image", "label_count", "container_id", "task_id"].map(|key| alone.text(key).map(str::to_owned));
    assert_eq!(texts, ["a", "7", "c-1", "web.1"].map(|text| Some(text.to_owned())));
    for absent in ["task", "empty", "absent"] {
        assert_eq!(alone.field(absent), None);
    }
    let merged = point(Some(Merged { records: 2, others: &[&other] }));
    assert_eq!([merged.text("label_count"), merged.text("task_id")], [Some("7"), Some("web.1")]);
    assert_eq!([merged.field("image"), merged.field("container_id")], [None, None]);
}

#[test]
fn a_record_without_a_finite_number_is_left_out_and_reported() {
    let name = |name: &str, metric_type| Series {
        name: name.into(),
        tags: TagSet::default(),
        metric_type,
        created: at(0),
    };
    let gauge = |last| {
        SeriesState::Gauge(Gauge {
            samples: 1,
            count: Weight::ONE,
            last,
            last_at: at(1),
            min: last,
            max: last,
        })
    };
    let states =
        [(name("a", MetricType::Gauge), gauge(f64::NAN)), (name("b", MetricType::Gauge), gauge(2.0))];
    let fixture = Fixture::from_states(origin("t", "c", &[]), &states);
    let encoded = encode_influx(&fixture.round(), ALL, &kadabra(), AMPLE);
    assert_eq!(only_text(&encoded), "b,task=t value=2 1767225610000\n");
    let left_out: Vec<_> = encoded.left_out.iter().map(|left| (left.record, left.why)).collect();
    assert_eq!(left_out, [(0, LeftOutReason::NoValue)]);
    assert_eq!((encoded.requests[0].records.clone(), encoded.requests[0].held), (0..2, 1));
}

proptest! {
    #[test]
    fn property_every_line_is_parsed_and_holds_the_value(
        states in prop::collection::vec(state(), 1..6),
        all in any::<bool>(),
    ) {
        let fixture = Fixture::from_states(origin("ta sk=1,", "c", &[("image", "a\\")]), &states);
        let fields = if all { InfluxFields::All } else { InfluxFields::Kadabra };
        let options = InfluxOptions { fields, ..with_metadata(&["image"]) };
        let round = fixture.round();
        let encoded = encode_influx(&round, ALL, &options, AMPLE);
        prop_assert!(encoded.left_out.is_empty());
        let points = parse_points(only_text(&encoded));
        prop_assert_eq!(points.len(), round.records.len());
        for (point, record) in points.iter().zip(&round.records) {
            prop_assert_eq!(point.number("value"), value(&record.view));
            prop_assert_eq!(point.millis, 1_767_225_610_000);
            prop_assert_eq!(point.text("image"), Some("a\\"));
            prop_assert_eq!(point.tag("task"), Some("ta sk=1,"));
            prop_assert_eq!(point.tags.len(), record.series.tags.len() + 1 + usize::from(all));
            prop_assert!(point.tags.is_sorted_by(|(a, _), (b, _)| a < b), "{:?}", point.tags);
            prop_assert!(!point.measurement.contains(char::is_control));
            let names: BTreeSet<_> = point.fields.iter().map(|(key, _)| key).collect();
            prop_assert_eq!(names.len(), point.fields.len());
            prop_assert!(point.tags.iter().all(|(key, _)| !names.contains(key)), "{:?}", point);
            let timer = record.series.metric_type == MetricType::Timer;
            prop_assert_eq!(point.text("unit"), timer.then_some("milliseconds"));
        }
    }
}
