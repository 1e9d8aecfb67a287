//! Receiving and counting samples of known series allocates nothing.
//!
//! A separate test binary, because it counts the allocations of the whole program.

#![allow(clippy::unwrap_used, reason = "a test that panics says so")]

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use tallyport::aggregate::{Aggregator, GaugeSign};
use tallyport::model::{Allocation, ContainerId, Generation, Labels, Moment, Origin, TaskId, Timestamp};
use tallyport::net::listener::{self, Inbox};
use tallyport::store::Store;

const TAGS: &str = "|#env:production,region:eu-west-1";

fn moment(millis: u64) -> Moment {
    let since = Duration::from_millis(millis);
    Moment { wall: Timestamp::from_secs(1_767_225_600).saturating_add(since), mono: since }
}

/// Every type, sampled and not, with tags and without, with several values and with a timestamp of now.
fn lines(n: u64) -> Vec<String> {
    let latency = 5 + n % 40;
    [
        format!("requests:{n}|c"),
        format!("requests.sampled:{n}|c|@0.1"),
        format!("depth:{n}|g"),
        "depth.delta:+1|g".to_owned(),
        format!("latency:{latency}.25|ms{TAGS}"),
        format!("latency.sampled:{latency}|ms|@0.5"),
        format!("size:{latency}:12:{latency}|h"),
        format!("size.packed:{latency}|d{TAGS}"),
        format!("users:{}|s", n % 10),
        format!("of.now:{latency}|ms|T1767225600"),
    ]
    .to_vec()
}

fn datagrams() -> Vec<Vec<u8>> {
    (0..400).map(|n| lines(n).join("\n").into_bytes()).collect()
}

#[test]
fn a_sample_of_a_known_series_allocates_nothing() {
    let datagrams = datagrams();
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
    let mut feed = |millis| {
        let each = datagrams.iter().map(Vec::as_slice);
        measure(|| aggregator.ingest_datagrams(each, moment(millis), None)).count_total
    };
    assert!(feed(0) > 0, "new series do, or nothing is counted here");
    assert_eq!(feed(1), 0);
    // The first window determines the capacity for the next.
    let closed = aggregator.roll_window(moment(10_000).wall).unwrap();
    assert_eq!(closed.window.len(), 10);
}

#[test]
fn taking_datagrams_from_a_socket_allocates_nothing() {
    let receiver = listener::open("127.0.0.1:0".parse().unwrap(), 262_144).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    let mut inbox = Inbox::default();
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
    let datagrams = datagrams();
    aggregator.ingest_datagrams(datagrams.iter().map(Vec::as_slice), moment(0), None);
    datagrams.iter().take(50).for_each(|datagram| drop(sender.send(datagram)));
    let counted = measure(|| {
        while inbox.take_from_socket(&receiver, 256) == listener::ReadOutcome::Partly {
            aggregator.ingest_datagrams(inbox.datagrams(), moment(1), None);
        }
        aggregator.ingest_datagrams(inbox.datagrams(), moment(1), None);
    });
    assert_eq!((aggregator.accounting().received, counted.count_total), (450, 0));
}

/// Bytes allocated while one timer gets values of this many octaves, one of each, the largest first.
fn bytes_to_open_octaves(octaves: i32) -> u64 {
    let values: Vec<_> = (0..octaves).map(|n| format!(":{:e}", 2_f64.powi(1000 - n))).collect();
    let datagrams: Vec<_> =
        values.chunks(50).map(|some| format!("t{}|ms", some.concat()).into_bytes()).collect();
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
    aggregator.ingest_datagram(b"t:0|ms", moment(0), None);
    let each = datagrams.iter().map(Vec::as_slice);
    let counted = measure(|| aggregator.ingest_datagrams(each, moment(1), None));
    assert_eq!(aggregator.open_values(), values.len() as u64 + 1);
    counted.bytes_total
}

/// Bytes allocated while late samples of this many counters, already revised once, become revisions.
fn bytes_to_revise(counters: u32) -> u64 {
    let store = Store::new(1, 30);
    let origin = Origin {
        container_id: ContainerId::new("c").unwrap(),
        generation: Generation(1),
        task_id: TaskId::new("t").unwrap(),
        labels: Labels::new(),
    };
    store.open(Allocation(0), Arc::new(origin), moment(0).wall);
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
    let mut last = 0;
    for window in 0..3 {
        for n in 0..counters {
            let line = format!("counter.{n}:1|c|T1767225601");
            aggregator.ingest_datagram(line.as_bytes(), moment(window * 10_000 + 1), None);
        }
        let closed = aggregator.roll_window(moment(window * 10_000 + 10_000).wall).unwrap();
        let push = || {
            store.push(Allocation(0), closed);
        };
        last = measure(push).bytes_total;
    }
    let history = store.find_history(Allocation(0)).unwrap();
    let revised =
        history.kept_intervals().flat_map(|kept| kept.newest_records().map(|(_, number, _)| number.rev));
    assert_eq!(revised.collect::<Vec<_>>(), vec![2; counters as usize]);
    last
}

#[test]
fn late_samples_are_merged_at_a_cost_in_proportion_to_their_number() {
    let (few, many) = (bytes_to_revise(100), bytes_to_revise(800));
    assert!(few > 0, "or nothing is counted here");
    assert!(many <= few * 10, "{few} bytes for 100 counters, {many} for 800");
}

#[test]
fn values_that_each_open_another_octave_allocate_in_proportion_to_their_number() {
    let (some, many) = (bytes_to_open_octaves(250), bytes_to_open_octaves(2000));
    assert!(some > 0, "or nothing is counted here");
    assert!(many <= some * 8, "{some} bytes for 250 octaves, {many} for 2000");
}

#[test]
fn encoding_a_distribution_takes_no_more_memory_than_pages_count_for_it() {
    use tallyport::render::hdr::HdrEncoder;

    // A value in every bin that can be encoded, with counts that compress badly.
    let mut weight = 1_u64;
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
    for octave in -20..44 {
        for step in 0..64 {
            let value = 2_f64.powi(octave) * (1.0 + f64::from(step) / 64.0);
            if value <= tallyport::render::hdr::LARGEST {
                weight = weight * 48_271 % 2_147_483_647;
                let rate = 1.0 / (weight % 100_000 + 1) as f64;
                aggregator.ingest_datagram(format!("wide:{value}|h|@{rate}").as_bytes(), moment(0), None);
            }
        }
    }
    let closed = aggregator.roll_window(moment(10_000).wall).unwrap();
    let view = closed.window.record_at(0).unwrap().view;
    let used = measure(|| {
        let mut encoder = HdrEncoder::default();
        for _ in 0..2 {
            assert!(encoder.encode_view(&view).unwrap().len() > 4096);
        }
    });
    let most = HdrEncoder::MOST_BYTES as u64;
    assert!(used.bytes_max > most / 4 && used.bytes_max <= most, "{} of {most}", used.bytes_max);
}
