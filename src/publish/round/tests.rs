use proptest::prelude::*;

use super::*;
use crate::aggregate::{Aggregator, GaugeSign};
use crate::model::{Allocation, ContainerId, Generation, Moment, TaskId};
use crate::store::Store;

const START: i64 = 1_767_225_600;

fn rules(interval: u64) -> RoundRules {
    RoundRules { interval: Duration::from_secs(interval), settle: Duration::from_secs(1), records: 100 }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(START + secs)
}

fn placed(start: i64, records: usize) -> PlacedWindow {
    let span = WindowSpan { start: at(start), end: at(start + 10), covered: Duration::from_secs(10) };
    PlacedWindow { span, records }
}

#[test]
fn a_window_is_due_when_its_round_has_settled_and_not_before() {
    let windows = [placed(0, 1), placed(0, 2), placed(10, 1)];
    let due = |interval, now| rules(interval).count_due(windows, at(now));
    assert_eq!(due(10, 10), Err(Some(at(11))));
    assert_eq!(due(10, 11), Ok(2));
    assert_eq!(due(10, 21), Ok(3));
    assert_eq!(due(60, 60), Err(Some(at(61))));
    assert_eq!(due(60, 61), Ok(3));
    assert_eq!(rules(10).count_due([], at(0)), Err(None));
}

#[test]
fn a_container_that_ended_early_waits_for_its_round_and_one_from_a_wrong_clock_holds_nothing_up() {
    assert_eq!(rules(10).count_due([placed(0, 1), placed(10, 1), placed(0, 1)], at(12)), Ok(1));
    assert_eq!(rules(10).count_due([placed(5000, 1), placed(0, 1)], at(12)), Ok(2));
}

#[test]
fn a_cut_of_a_backlog_ends_with_an_interval() {
    let interval = |start| (0..3).map(move |_| placed(start, 40));
    let windows: Vec<_> = [0, 10, 20].into_iter().flat_map(interval).collect();
    assert_eq!(rules(10).count_due(windows.clone(), at(100)), Ok(3));
    let late = [placed(0, 60), placed(0, 60), placed(-10, 60), placed(10, 60)];
    assert_eq!(rules(10).count_due(late, at(100)), Ok(3), "a late window ends no cut");
    let endless = vec![placed(0, 60); 100];
    assert_eq!(rules(10).count_due(endless, at(100)), Ok(14), "an interval beyond all bounds is divided");
}

fn origin(container: &str) -> Arc<Origin> {
    Arc::new(Origin {
        container_id: ContainerId::new(container).unwrap(),
        generation: Generation(1),
        task_id: TaskId::new("web.1").unwrap(),
        labels: [].into(),
    })
}

/// A store with these containers, each of which has sent one of these datagrams in each window.
fn store(containers: &[&str], windows: &[&str]) -> Store {
    let store = Store::new(7, 100);
    for (n, container) in containers.iter().enumerate() {
        let allocation = Allocation(n as u64 + 1);
        store.open(allocation, origin(container), at(0));
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, at(0));
        for (window, datagram) in (0..).zip(windows) {
            let now = |secs: u64| Moment {
                wall: at(window * 10).saturating_add(Duration::from_secs(secs)),
                mono: Duration::from_secs(secs),
            };
            aggregator.ingest_datagram(datagram.as_bytes(), now(4), None);
            if let Some(closed) = aggregator.roll_window(now(10).wall) {
                store.push(allocation, closed);
            }
        }
    }
    store
}

fn scope(interval: u64, level: Level, selection: &SeriesSelection) -> RoundScope<'_> {
    RoundScope { rules: rules(interval), level, selection, epoch: 7 }
}

/// Start, name, sum or last value, and places of every record.
fn records(cut: &CutRecords<'_>) -> Vec<(i64, String, f64, u64)> {
    let marks = MarksOfAll::default();
    let mut all = Vec::new();
    for interval in &cut.intervals {
        let round = interval.as_round("n1", 7, &marks);
        let mut sorted = round.clone();
        sorted.sort_records();
        for ((record, places), same) in
            round.records.iter().zip(interval.record_places()).zip(&sorted.records)
        {
            assert_eq!(record.series, same.series, "the records of a round are sorted");
            let value = crate::render::record::value(&record.view).unwrap();
            all.push((interval.start.as_secs() - START, record.series.name.to_string(), value, places));
        }
    }
    all
}

#[test]
fn containers_of_one_identity_are_merged_and_others_are_not() {
    let (store, selection) = (store(&["c-1", "c-2"], &["a:1|c\nb:2|c", "a:3|c"]), SeriesSelection::default());
    let windows = store.kept_after(0);
    let cut = |level| CutRecords::collect_records(&windows, &[], 1..=100, scope(10, level, &selection));
    let merged = cut(Level::Orchestrator);
    let a = "a".to_owned();
    assert_eq!(
        records(&merged),
        [(0, a.clone(), 2.0, 2), (0, "b".to_owned(), 4.0, 2), (10, a.clone(), 6.0, 2)]
    );
    assert_eq!(records(&cut(Level::High)).len(), 6);
    let marks = MarksOfAll::default();
    let round = merged.intervals[0].as_round("n1", 7, &marks);
    let from = round.records[0].merged.unwrap();
    assert_eq!((from.records, from.others.len(), round.records[0].number), (2, 1, None));
    // A longer round has the sum of its windows, with its own end.
    let longer = CutRecords::collect_records(&windows, &[], 1..=100, scope(20, Level::High, &selection));
    assert_eq!(longer.intervals.len(), 1);
    assert_eq!((longer.intervals[0].start, longer.intervals[0].end), (at(0), at(20)));
    assert_eq!(
        records(&longer).iter().map(|(.., value, _)| *value).collect::<Vec<_>>(),
        [4.0, 2.0, 4.0, 2.0]
    );
}

#[test]
fn a_late_part_is_sent_as_the_whole_that_it_belongs_to_and_counts_only_itself() {
    let (store, selection) = (store(&["c-1", "c-2"], &["a:1|c"]), SeriesSelection::default());
    let windows = store.kept_after(0);
    let (first, late) = windows.split_at(1);
    let scope = scope(10, Level::Orchestrator, &selection);
    let places = late[0].first_seq()..=late[0].last_seq();
    let cut = CutRecords::collect_records(late, first, places, scope);
    assert_eq!(records(&cut), [(0, "a".to_owned(), 2.0, 1)]);
    // What nothing is new of is not sent again.
    let nothing = CutRecords::collect_records(&[], first, 5..=9, scope);
    assert!(nothing.intervals.is_empty() && nothing.excluded == 0);
}

#[test]
fn a_revision_replaces_its_record() {
    let (store, selection) =
        (store(&["c-1"], &["a:1|c", "a:5|c|T1767225603\na:7|c"]), SeriesSelection::default());
    let windows = store.kept_after(0);
    let cut = CutRecords::collect_records(&windows, &[], 1..=100, scope(10, Level::High, &selection));
    let a = "a".to_owned();
    assert_eq!(records(&cut), [(0, a.clone(), 6.0, 2), (10, a, 7.0, 1)]);
}

proptest! {
    #[test]
    fn a_round_does_not_depend_on_the_order_in_which_containers_close(order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let selection = SeriesSelection::default();
        let store = store(&["c-1", "c-2", "c-3"], &["a:0.1|c\nt:3|ms\ng:1|g", "a:0.7|c|@0.3\nt:9:1|ms"]);
        let windows = store.kept_after(0);
        let shuffled: Vec<_> = order.iter().map(|n| Arc::clone(&windows[*n])).collect();
        let encode = |windows: &[Arc<Published>]| {
            let cut = CutRecords::collect_records(windows, &[], 1..=100, scope(20, Level::Orchestrator, &selection));
            let marks = MarksOfAll::default();
            let round = cut.intervals[0].as_round("n1", 7, &marks);
            let room = crate::render::publish::RequestRoom { bytes: usize::MAX, records: 1000 };
            crate::render::publish::encode_json(&round, 0..round.records.len(), room)
        };
        prop_assert_eq!(encode(&windows), encode(&shuffled));
    }
}
