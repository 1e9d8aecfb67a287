//! The cost of the core: parsing a line, inserting a sample into a known series, closing a window.
//!
//! `make bench`. Compare only times of one run, because machines differ.

#![allow(clippy::unwrap_used, reason = "a panic is a sufficient error report for a benchmark")]
#![allow(missing_docs, reason = "criterion's macros generate functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tallyport::aggregate::{Aggregator, AggregatorSettings, Bounds, Counting, GaugeSign};
use tallyport::model::{Moment, Timestamp};
use tallyport::statsd::{ParsedLine, Sample, TagStyles, parse, split_lines};

const PLAIN: [&str; 4] = [
    "service.requests.total:1|c",
    "service.queue.depth:42|g",
    "service.response.latency:12.75|ms",
    "service.response.size:1536|h",
];
const TAGS: &str = "|#env:production,region:eu-west-1,handler:checkout";

fn moment() -> Moment {
    Moment { wall: Timestamp::from_secs(1_767_225_600), mono: Duration::ZERO }
}

fn datagram(lines: usize, tags: &str) -> Vec<u8> {
    let lines: Vec<_> = PLAIN.iter().cycle().take(lines).map(|line| format!("{line}{tags}")).collect();
    lines.join("\n").into_bytes()
}

fn read(datagram: &[u8], styles: TagStyles) -> f64 {
    split_lines(datagram)
        .filter_map(|line| parse(black_box(line), styles).ok())
        .map(|item| match item {
            ParsedLine::Sample(sample) => sample.weight + sample.name.len() as f64,
            _ => 0.0,
        })
        .sum()
}

fn parse_lines(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (name, tags) in [("plain", ""), ("sampled", "|@0.1"), ("three_tags", TAGS)] {
        let datagram = datagram(64, tags);
        group.throughput(Throughput::Elements(64));
        group.bench_function(name, |b| b.iter(|| read(black_box(&datagram), TagStyles::NONE)));
    }
    group.finish();
}

/// `n` names of each of four types.
fn names(n: usize, tags: &str) -> Vec<String> {
    let line = |index: usize| {
        let (name, rest) = PLAIN.get(index % 4).and_then(|line| line.split_once(':')).unwrap();
        format!("{name}.{}:{rest}{tags}", index / 4)
    };
    (0..n * 4).map(line).collect()
}

fn insert(c: &mut Criterion) {
    let mut group = c.benchmark_group("insert_known");
    for (name, series, tags) in
        [("250_series", 250, ""), ("2500_series", 2500, ""), ("250_series_three_tags", 250, TAGS)]
    {
        let texts = names(series / 4, tags);
        let samples: Vec<Sample<'_>> = texts
            .iter()
            .filter_map(|line| match parse(line.as_bytes(), TagStyles::NONE) {
                Ok(ParsedLine::Sample(sample)) => Some(sample),
                _ => None,
            })
            .collect();
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment().wall);
        samples.iter().for_each(|sample| aggregator.ingest_sample(sample, moment().wall));
        group.throughput(Throughput::Elements(samples.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                samples.iter().for_each(|sample| aggregator.ingest_sample(black_box(sample), moment().wall));
            });
        });
    }
    for (name, line) in
        [("counter", "c:1|c"), ("gauge", "g:1|g"), ("timer", "t:12.5|ms"), ("set", "s:member|s")]
    {
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment().wall);
        let Ok(ParsedLine::Sample(sample)) = parse(line.as_bytes(), TagStyles::NONE) else { continue };
        group.throughput(Throughput::Elements(1));
        group
            .bench_function(name, |b| b.iter(|| aggregator.ingest_sample(black_box(&sample), moment().wall)));
    }
    group.finish();
}

fn whole_datagram(c: &mut Criterion) {
    let mut group = c.benchmark_group("datagram");
    for (name, lines) in [("1_line", 1), ("8_lines", 8), ("30_lines", 30)] {
        let datagram = datagram(lines, "");
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment().wall);
        group.throughput(Throughput::Elements(lines as u64));
        group.bench_function(name, |b| {
            b.iter(|| aggregator.ingest_datagram(black_box(&datagram), moment(), None));
        });
    }
    group.finish();
}

/// The cost of cache misses: all containers of a node in turn, forty series each, as `bench-node` sends.
fn containers_by_turns(c: &mut Criterion) {
    let mut group = c.benchmark_group("by_turns");
    let lines: Vec<String> = (0..320_usize)
        .map(|n| match n % 4 {
            0 => format!("service.requests.{}:1|c", n % 40),
            1 => format!("service.latency.{}:{}.{}|ms", n % 40, 3 + n * 7 % 40, n % 10),
            2 => format!("service.depth.{}:{}|g", n % 40, n * 13 % 500),
            _ => format!("service.size.{}:{}|h", n % 40, 100 + n * 31 % 4000),
        })
        .collect();
    for (name, containers, each) in [
        ("64_containers_8_lines", 64, 8),
        ("1000_containers_8_lines", 1000, 8),
        ("1000_containers_1_line", 1000, 1),
    ] {
        let datagrams: Vec<_> = lines.chunks(each).map(|lines| lines.join("\n").into_bytes()).collect();
        let new = |_| Aggregator::new(Arc::default(), GaugeSign::Delta, moment().wall);
        let mut aggregators: Vec<_> = (0..containers).map(new).collect();
        let mut turns = datagrams.iter().cycle();
        let mut round = || {
            let datagram = turns.next().unwrap();
            aggregators.iter_mut().for_each(|each| each.ingest_datagram(black_box(datagram), moment(), None));
        };
        // As many values as a window holds.
        (0..3000 / each).for_each(|_| round());
        group.throughput(Throughput::Elements((containers * each) as u64));
        group.bench_function(name, |b| b.iter(&mut round));
    }
    group.finish();
}

/// The cost of buckets for timers: forty series with values over three decades, without buckets, with eleven bounds and
/// with powers of two.
fn in_buckets(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers_counted");
    let bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let classic = Counting::Classic {
        timers: Bounds::new(&bounds, 3).unwrap(),
        values: Bounds::new(&bounds, 0).unwrap(),
    };
    let line =
        |n: usize| format!("service.latency.{}:{:.3}|ms", n % 40, 10_f64.powf((n * 37 % 300) as f64 / 100.0));
    let lines: Vec<_> = (0..1200).map(line).collect();
    let datagrams: Vec<_> = lines.chunks(8).map(|lines| lines.join("\n").into_bytes()).collect();
    for (name, counting) in [("off", Counting::Off), ("classic", classic), ("native", Counting::Native)] {
        let settings = AggregatorSettings { counting, ..AggregatorSettings::default() };
        let mut aggregator = Aggregator::new(Arc::new(settings), GaugeSign::Delta, moment().wall);
        let mut round = || {
            datagrams
                .iter()
                .for_each(|datagram| aggregator.ingest_datagram(black_box(datagram), moment(), None));
        };
        round();
        group.throughput(Throughput::Elements(lines.len() as u64));
        group.bench_function(name, |b| b.iter(&mut round));
    }
    group.finish();
}

fn close(c: &mut Criterion) {
    let mut group = c.benchmark_group("close");
    for series in [100, 10_000] {
        let texts = names(series / 4, "");
        let filled = || {
            let settings = AggregatorSettings {
                limits: tallyport::aggregate::Limits {
                    series: usize::MAX,
                    memory: usize::MAX,
                    ..Default::default()
                },
                ..Default::default()
            };
            let mut aggregator = Aggregator::new(Arc::new(settings), GaugeSign::Delta, moment().wall);
            texts.iter().for_each(|line| aggregator.ingest_datagram(line.as_bytes(), moment(), None));
            aggregator
        };
        group.throughput(Throughput::Elements(series as u64));
        group.bench_function(format!("{series}_series"), |b| {
            b.iter_batched_ref(
                filled,
                |aggregator| aggregator.roll_window(moment().wall.saturating_add(Duration::from_secs(10))),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(40);
    targets = parse_lines, insert, whole_datagram, containers_by_turns, in_buckets, close
}
criterion_main!(benches);
