use std::time::Duration;

use super::*;
use crate::aggregate::{Aggregator, AggregatorSettings, Bounds, Counting, GaugeSign};
use crate::model::{Allocation, ContainerId, Generation, Labels, Moment, TaskId};
use crate::store::{Cursor, Store};

/// 2026-01-01T00:00:00Z, a window boundary.
const START: i64 = 1_767_225_600;

fn moment(secs: u64) -> Moment {
    let mono = Duration::from_secs(secs);
    Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
}

fn origin(container: &str) -> Arc<Origin> {
    Arc::new(Origin {
        container_id: ContainerId::new(container).unwrap(),
        generation: Generation(2),
        task_id: TaskId::new("web.1").unwrap(),
        labels: Labels::from([("zone".to_owned(), "a".to_owned())]),
    })
}

fn in_buckets() -> AggregatorSettings {
    let bounds = Bounds::new(&[0.01, 0.02], 3).unwrap();
    AggregatorSettings {
        counting: Counting::Classic { timers: bounds.clone(), values: bounds },
        ..AggregatorSettings::default()
    }
}

/// A store in which two containers have sent samples of every type for a minute, some of them late.
fn store() -> Store {
    let store = Store::new(7, 4);
    for n in 0..2 {
        store.open(Allocation(n), origin(&format!("c{n}")), moment(1).wall);
    }
    let mut aggregators: Vec<_> =
        (0..2).map(|_| Aggregator::new(Arc::new(in_buckets()), GaugeSign::Delta, moment(1).wall)).collect();
    for secs in (1..60).step_by(3) {
        for (n, aggregator) in (0..).zip(&mut aggregators) {
            if let Some(closed) = aggregator.roll_window(moment(secs).wall) {
                store.push(Allocation(n), closed);
            }
            let late = START + i64::try_from(secs).unwrap() - 12;
            let lines = format!(
                "a:1|c\nb{secs}:2|g\nt:{secs}:3.7|ms|@0.5\ns:{secs}|s\n_sc|up|1|m:no\n_e{{1,1}}:t|x\na:5|c|T{late}"
            );
            aggregator.ingest_datagram(lines.as_bytes(), moment(secs), None);
        }
    }
    store
}

/// Everything that a reader can see of a history.
fn seen(history: &History) -> String {
    let records: Vec<_> = history
        .published_windows()
        .map(|p| (p.first_seq(), p.window().span, p.numbered_records().collect::<Vec<_>>()))
        .map(|r| format!("{r:?}"))
        .collect();
    format!("{:?} {:?} {records:?} {:?}", history.origin, history.opened, history.summary)
}

#[test]
fn a_history_comes_back_as_it_was() {
    let history = store().find_history(Allocation(1)).unwrap();
    assert!(
        history.published_windows().any(|published| published.revision_counts().contains(&1)),
        "no revision in it"
    );
    let read = History::from_image(&history.to_image()).unwrap();
    assert_eq!(seen(&read), seen(&history));
}

#[test]
fn every_byte_changed_or_cut_off_is_found_out() {
    let bytes = store().find_history(Allocation(0)).unwrap().to_image();
    for length in 0..bytes.len() {
        assert!(History::from_image(&bytes[..length]).is_err(), "cut off at {length}");
    }
    for place in 0..bytes.len() {
        for xor in [1, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[place] ^= xor;
            assert!(History::from_image(&bytes).is_err(), "changed at {place}");
        }
    }
}

#[test]
fn a_forged_history_is_read_or_refused() {
    let image = store().find_history(Allocation(0)).unwrap().to_image();
    let sealed = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 8);
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    };
    assert_eq!(sealed(image.clone()), image);
    for place in 6..image.len() - 8 {
        let mut bytes = image.clone();
        bytes[place] ^= 0x55;
        if let Ok(history) = History::from_image(&sealed(bytes)) {
            assert!(history.published_windows().all(|p| p.window().records().count() == p.window().len()));
        }
    }
    let mut other = image;
    other[4] = 9;
    assert_eq!(History::from_image(&sealed(other)).unwrap_err(), HistoryError::Version { found: 9 });
    assert_eq!(History::from_image(b"TPAGxx").unwrap_err(), HistoryError::NotAHistory);
}

#[test]
fn adopted_windows_get_new_places_in_the_order_they_had() {
    let before = store();
    let histories = || {
        (0..2).map(|n| {
            (
                Allocation(n + 10),
                History::from_image(&before.find_history(Allocation(n)).unwrap().to_image()).unwrap(),
            )
        })
    };
    let after = Store::new(8, 4);
    after.adopt_histories(histories().collect(), moment(1000).wall);
    let since = after.read_since(Cursor { epoch: 8, seq: 0 }).unwrap();
    let order: Vec<_> = since.published.iter().map(|p| p.first_seq()).collect();
    assert!(order.is_sorted() && order[0] == 1, "{order:?}");
    assert_eq!(since.next.seq, since.published.iter().map(|p| p.window().len() as u64).sum::<u64>());
    let records = |store: &Store, n| {
        let history = store.find_history(Allocation(n)).unwrap();
        history
            .published_windows()
            .flat_map(|p| {
                p.numbered_records().map(|(n, record)| format!("{} {record:?}", n.rev)).collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(records(&after, 10), records(&before, 0));
}

#[test]
fn a_part_of_an_interval_that_was_adopted_becomes_one_with_the_rest() {
    let window = |opened, ends, n: u64| {
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(opened).wall);
        (0..n).for_each(|_| aggregator.ingest_datagram(b"a:1|c", moment(opened), None));
        aggregator.close_final_window(moment(ends).wall)
    };
    let store = Store::new(8, 4);
    let part = (1, window(0, 3, 4).window.into());
    store.adopt_histories(
        vec![(Allocation(1), History::from_windows(origin("c"), moment(0).wall, [part], None))],
        moment(5).wall,
    );
    store.open(Allocation(1), origin("c"), moment(5).wall);
    store.push(Allocation(1), window(5, 10, 7));
    let history = store.find_history(Allocation(1)).unwrap();
    let kept: Vec<_> = history.kept_intervals().collect();
    assert_eq!(kept.len(), 1, "one interval");
    let records: Vec<_> = kept[0].newest_records().collect();
    assert_eq!((records.len(), records[0].1.rev, records[0].2.view.sample_count()), (1, 1, 11));
    assert_eq!(records[0].0.window().span.covered, Duration::from_secs(8));
}

#[test]
fn the_bytes_of_an_image_are_those_that_earlier_builds_read_and_write() {
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
    aggregator.ingest_datagram(b"a:1|c", moment(1), None);
    let window = aggregator.close_final_window(moment(2).wall).window;
    let history = History::from_windows(origin("c"), moment(0).wall, [(1, window.into())], None);
    let digits = |byte: &u8| format!("{byte:02x}");
    let hex: String = history.to_image().iter().map(digits).collect();
    let golden = "545048490800016302057765622e3101047a6f6e650161808082e288d2a30600000123c2a9cec6d380a0832dae91c5\
        ffdddcddfaba0101000101610000008089fce288d2a306010100003003808082e288d2a30680dac6eb88d2a30680897aae91\
        c5ffdddcddfaba01010001bfe003bfe0030000000000000000000000000000a86f37e32d858732";
    assert_eq!(hex, golden);
}
