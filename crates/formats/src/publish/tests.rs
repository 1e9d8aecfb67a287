//! Rounds for tests, and what all dialects have in common.

mod datadog;
mod graphite;
mod influx;
mod json;
mod labels;
mod split;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tallyport_core::aggregate::{
    Aggregator, CheckOutcome, CheckState, Counter, Distribution, Gauge, GaugeSign, Ledger, SeriesState,
    Weight, Window, WindowBuilder, WindowSpan,
};
use tallyport_core::model::{
    ContainerId, Generation, MetricType, Moment, Origin, Series, TagSet, TaskId, Timestamp,
};
use tallyport_core::statsd::CheckStatus;

use super::{Encoded, RequestRoom, Round, RoundRecord};
use crate::prometheus::{Level, MarksOfAll, SeriesIdentity};
use crate::record::RecordNumber;

/// 2026-01-01T00:00:00Z, in seconds.
const START: i64 = 1_767_225_600;
/// As much as anything needs.
const AMPLE: RequestRoom = RequestRoom { bytes: 1 << 24, records: 1 << 20 };
const ALL: Range<usize> = 0..usize::MAX;

fn at(second: u64) -> Timestamp {
    Timestamp::from_secs(START).saturating_add(Duration::from_secs(second))
}

fn origin(task: &str, container: &str, labels: &[(&str, &str)]) -> Origin {
    Origin {
        container_id: ContainerId::new(container).unwrap(),
        generation: Generation(3),
        task_id: TaskId::new(task).unwrap(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

fn pod() -> Origin {
    let labels = [
        ("namespace", "shop"),
        ("pod", "web-5d4f7"),
        ("container", "main"),
        ("workload", "web"),
        ("image", "shop/web:1.2, stable"),
        ("time", "never"),
    ];
    origin("shop_web-5d4f7_u", "c-7", &labels)
}

#[derive(Debug)]
struct Held(Window);

impl AsRef<Window> for Held {
    fn as_ref(&self) -> &Window {
        &self.0
    }
}

/// One container's window.
#[derive(Debug)]
struct HeldContainer {
    origin: Origin,
    identity: SeriesIdentity,
    window: Arc<Held>,
    ledger: Option<Arc<Ledger>>,
}

/// What a round borrows.
#[derive(Debug)]
struct Fixture {
    level: Level,
    marks: MarksOfAll,
    containers: Vec<HeldContainer>,
}

impl Fixture {
    /// Aggregates what containers sent in one window.
    fn from_lines(level: Level, containers: &[(Origin, &str)]) -> Self {
        let moment = |second| Moment { wall: at(second), mono: Duration::from_secs(second) };
        let containers = containers.iter().map(|(origin, lines)| {
            let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, at(0));
            aggregator.ingest_datagram(lines.as_bytes(), moment(4), None);
            let closed = aggregator.roll_window(at(10)).unwrap();
            HeldContainer {
                identity: SeriesIdentity::from_origin(origin, level),
                origin: origin.clone(),
                window: Arc::new(Held(closed.window)),
                ledger: Some(closed.summary.ledger),
            }
        });
        Self { level, marks: MarksOfAll::default(), containers: containers.collect() }
    }

    /// A window of one container with the given series.
    fn from_states(origin: Origin, states: &[(Series, SeriesState)]) -> Self {
        let span = WindowSpan { start: at(0), end: at(10), covered: Duration::from_secs(10) };
        let mut builder = WindowBuilder::new(span);
        for ((_, state), place) in states.iter().zip(0..) {
            builder.push(place, state, 0.0);
        }
        let layout = states.iter().map(|(series, _)| Some(Arc::new(series.clone()))).collect();
        let window = Arc::new(Held(builder.build(layout)));
        let identity = SeriesIdentity::from_origin(&origin, Level::Orchestrator);
        let container = HeldContainer { origin, identity, window, ledger: None };
        Self { level: Level::Orchestrator, marks: MarksOfAll::default(), containers: vec![container] }
    }

    fn round(&self) -> Round<'_> {
        self.shuffled_round(|_| {})
    }

    /// The round, if its records are collected in another order.
    fn shuffled_round<'a>(&'a self, shuffle: impl FnOnce(&mut Vec<RoundRecord<'a>>)) -> Round<'a> {
        let mut records: Vec<_> = self.containers.iter().flat_map(HeldContainer::records).collect();
        for (record, seq) in records.iter_mut().zip(812..) {
            record.number = Some(RecordNumber { seq, rev: 0 });
        }
        shuffle(&mut records);
        let (level, marks) = (self.level, &self.marks);
        let mut round = Round { node: "n1", epoch: 3, start: at(0), end: at(10), level, marks, records };
        round.sort_records();
        round
    }
}

impl HeldContainer {
    fn records(&self) -> impl Iterator<Item = RoundRecord<'_>> {
        self.window.0.records().map(|record| RoundRecord {
            origin: &self.origin,
            identity: &self.identity,
            span: self.window.0.span,
            series: record.series,
            view: record.view,
            number: None,
            merged: None,
            running: None,
        })
    }
}

/// Every type of series, and every character that a dialect must not let through.
fn odd_and_ordinary() -> Fixture {
    const ODD: &str = "latency:7:2:91:11|ms|@0.5|#route:/pay\n\
        requests:7|c|#route:/pay,note:a b=c\n\
        requests:-2.5|c\n\
        room.temperature:21.5|g|#time:noon,value:x,flag\n\
        room.temperature:22|g|#time:noon,value:x,flag\n\
        payload:1024|h\n\
        load:0.25|d|#dir:C:\\\n\
        users:alice|s\n\
        users:bob|s\n\
        404.errors:1|c|#code:404,code:410\n\
        _sc|db up|2|m:\"down\" since 12:00 in C:\\";
    Fixture::from_lines(
        Level::Orchestrator,
        &[
            (origin("fib", "c-1", &[]), "runTime:0.828|ms|#program:fibonacci"),
            (origin("web.3f9a", "c-2", &[("image", "web:1")]), ODD),
            (pod(), "requests:1|c|#pod:forged\nwarm:1.7e308:1.7e308|h"),
        ],
    )
}

/// Compares with a file in `testdata/publish/`, or writes it if the environment has `UPDATE_GOLDEN`.
fn assert_golden(name: &str, found: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/publish").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read(&path).unwrap();
    let (found, wanted) = (String::from_utf8_lossy(found), String::from_utf8_lossy(&wanted));
    assert_eq!(found, wanted, "{name}; UPDATE_GOLDEN=1 writes it");
}

/// The only body of a round that fits one request.
fn only_body(encoded: &Encoded) -> &[u8] {
    assert_eq!(encoded.requests.len(), 1, "{encoded:?}");
    &encoded.requests[0].body
}

fn only_text(encoded: &Encoded) -> &str {
    std::str::from_utf8(only_body(encoded)).unwrap()
}

/// Asserts that a dialect gives the same bytes whatever the order in which records were collected.
fn assert_deterministic(encode: impl Fn(&Round<'_>) -> Encoded) {
    let fixture = odd_and_ordinary();
    let wanted = encode(&fixture.round());
    assert!(!wanted.requests.is_empty());
    assert_eq!(encode(&fixture.shuffled_round(|records| records.reverse())), wanted);
    assert_eq!(encode(&fixture.shuffled_round(|records| records.rotate_left(5))), wanted);
    let again = odd_and_ordinary();
    assert_eq!(encode(&again.round()), wanted);
}

/// Names and tags with every character that has a meaning somewhere.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}(\\.[a-z]{1,4}){0,2}", "[a-zA-Z0-9_.;:,= \"'\\\\~#!^{}%/\u{7f}\r\n\té日-]{1,12}",]
}

fn series(metric_type: MetricType) -> impl Strategy<Value = Series> {
    let tags = prop::collection::vec((text(), prop_oneof![Just(String::new()), text()]), 0..4);
    (text(), tags).prop_map(move |(name, tags)| Series {
        name: name.into(),
        tags: TagSet::from_pairs(tags),
        metric_type,
        created: at(0),
    })
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        -1e6..1e6_f64,
        (-1_000_000..1_000_000_i32).prop_map(f64::from),
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
    ]
}

/// A series of any type, with its state.
fn state() -> impl Strategy<Value = (Series, SeriesState)> {
    let counter = (series(MetricType::Counter), number()).prop_map(|(series, sum)| {
        let counter = Counter { samples: 1, count: Weight::ONE, sum, decremented: sum < 0.0 };
        (series, SeriesState::Counter(counter))
    });
    let gauge = (series(MetricType::Gauge), number()).prop_map(|(series, last)| {
        let gauge = Gauge { samples: 1, count: Weight::ONE, last, last_at: at(4), min: last, max: last };
        (series, SeriesState::Gauge(gauge))
    });
    let values = prop::collection::vec(-1e9..1e9_f64, 1..40);
    let timer = (series(MetricType::Timer), values)
        .prop_map(|(series, values)| (series, SeriesState::Distribution(Box::new(distribution(&values)))));
    let check = (series(MetricType::ServiceCheck), text()).prop_map(|(series, message)| {
        let outcome = CheckOutcome {
            status: CheckStatus::Warning,
            message: Some(message),
            hostname: None,
            timestamp: None,
        };
        let state = CheckState { samples: 1, last_at: at(4), outcome: Some(Arc::new(outcome)) };
        (series, SeriesState::Check(Box::new(state)))
    });
    prop_oneof![counter, gauge, timer, check]
}

fn distribution(values: &[f64]) -> Distribution {
    let mut distribution = Distribution::default();
    for value in values {
        distribution.insert(*value, 1.0, Weight::ONE, at(4));
    }
    distribution
}
