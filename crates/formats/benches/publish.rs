//! The cost of encoding a round for each receiver, per record.
//!
//! `make bench`. Compare only times of one run, because machines differ.

#![allow(clippy::unwrap_used, reason = "a panic is a sufficient error report for a benchmark")]
#![allow(missing_docs, reason = "criterion's macros generate functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tallyport_core::aggregate::{Aggregator, GaugeSign, Window};
use tallyport_core::model::{ContainerId, Generation, Moment, Origin, TaskId, Timestamp};
use tallyport_formats::prometheus::{Level, MarksOfAll, SeriesIdentity};
use tallyport_formats::publish::{
    DatadogRoute, Encoded, GraphiteOptions, InfluxFields, InfluxOptions, RequestRoom, Round, RoundRecord,
    encode_datadog, encode_graphite, encode_influx, encode_json,
};

const CONTAINERS: usize = 100;
/// Of each type, counters, gauges, timers and histograms; 20 values of each series with values.
const SERIES: usize = 25;
const ROOM: RequestRoom = RequestRoom { bytes: 1 << 20, records: 10_000 };

fn start() -> Timestamp {
    Timestamp::from_secs(1_767_225_600)
}

/// The identity, origin and window of a container.
fn container(number: usize) -> (SeriesIdentity, Origin, Window) {
    let origin = Origin {
        container_id: ContainerId::new(&format!("{number:064x}")).unwrap(),
        generation: Generation(1),
        task_id: TaskId::new(&format!("shop_web-{number:08x}_uid")).unwrap(),
        labels: [
            ("namespace", "shop".to_owned()),
            ("pod", format!("web-{number:08x}")),
            ("container", "main".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into(),
    };
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, start());
    let now =
        |second| Moment { wall: start().saturating_add(Duration::from_secs(second)), mono: Duration::ZERO };
    for series in 0..SERIES {
        let tags = format!("|#route:/pay/{series},status:200");
        let mut send = |line: String| aggregator.ingest_datagram(line.as_bytes(), now(4), None);
        send(format!("service.requests.total:{series}|c{tags}"));
        send(format!("service.queue.depth:{series}.25|g{tags}"));
        for value in 0..20 {
            send(format!("service.response.latency:{}.{value}|ms{tags}", value * series + 1));
            send(format!("service.response.size:{}|h{tags}", 1000 + value * series));
        }
    }
    let window = aggregator.roll_window(now(10).wall).unwrap().window;
    (SeriesIdentity::from_origin(&origin, Level::default()), origin, window)
}

fn encode_rounds(c: &mut Criterion) {
    let containers: Vec<_> = (0..CONTAINERS).map(container).collect();
    let marks = MarksOfAll::default();
    let mut round = Round {
        node: "node-1",
        epoch: 1,
        start: start(),
        end: start().saturating_add(Duration::from_secs(10)),
        level: Level::default(),
        marks: &marks,
        records: Vec::new(),
    };
    for (identity, origin, window) in &containers {
        round.records.extend(window.records().map(|record| RoundRecord {
            origin,
            identity,
            span: window.span,
            series: record.series,
            view: record.view,
            number: None,
            merged: None,
            running: None,
        }));
    }
    round.sort_records();
    let all = 0..round.records.len();
    let kadabra = InfluxOptions { fields: InfluxFields::Kadabra, ..InfluxOptions::default() };
    let graphite = GraphiteOptions::with_default_template(false);
    let mut group = c.benchmark_group("publish");
    group.throughput(Throughput::Elements(all.len() as u64));
    let mut bench = |name: &str, encode: &dyn Fn(&Round<'_>) -> Encoded| {
        group.bench_function(name, |b| b.iter(|| encode(black_box(&round))));
    };
    bench("json", &|round| encode_json(round, all.clone(), ROOM));
    bench("influx", &|round| encode_influx(round, all.clone(), &InfluxOptions::default(), ROOM));
    bench("influx_kadabra", &|round| encode_influx(round, all.clone(), &kadabra, ROOM));
    bench("graphite", &|round| encode_graphite(round, all.clone(), &graphite, ROOM));
    bench("datadog_series", &|round| encode_datadog(round, all.clone(), DatadogRoute::Series, ROOM));
    bench("datadog_sketches", &|round| encode_datadog(round, all.clone(), DatadogRoute::Sketches, ROOM));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(40);
    targets = encode_rounds
}
criterion_main!(benches);
