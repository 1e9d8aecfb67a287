use proptest::prelude::*;

use super::*;
use crate::aggregate::{Aggregator, GaugeSign};
use crate::model::{Allocation, ContainerId, Generation, Moment, Origin, TaskId};
use crate::store::Store;

const START: i64 = 1_767_225_600;

fn rules(interval: u64) -> RoundRules {
    let (interval, settle) = (Duration::from_secs(interval), Duration::from_secs(1));
    RoundRules { interval, batch: Duration::ZERO, settle, records: 100, floor: None }
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
fn a_batch_is_due_when_its_last_round_has_settled() {
    let of_a_minute = RoundRules { batch: Duration::from_mins(1), ..rules(10) };
    let windows = [placed(0, 1), placed(50, 1), placed(10, 1), placed(60, 1)];
    let due = |now| of_a_minute.count_due(windows, at(now));
    assert_eq!(due(60), Err(Some(at(61))));
    assert_eq!(due(61), Ok(3));
    assert_eq!(due(121), Ok(4));
    assert_eq!(of_a_minute.count_due([placed(60, 1), placed(0, 1)], at(61)), Err(Some(at(121))), "in order");
    let starts = [0, 50, 60].map(|start| of_a_minute.batch_start(at(start)));
    assert_eq!(starts, [at(0), at(0), at(60)]);
    assert_eq!(rules(10).batch_start(at(50)), at(50), "each round by itself");
}

#[test]
fn a_batch_beyond_the_bound_of_a_cut_is_divided_between_its_rounds() {
    let of_a_minute = RoundRules { batch: Duration::from_mins(1), ..rules(10) };
    let windows: Vec<_> = (0..6).map(|n| placed(n * 10, 60)).collect();
    assert_eq!(of_a_minute.count_due(windows, at(61)), Ok(2));
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
    let reading = RecordReading::Became;
    RoundScope { rules: rules(interval), level, selection, epoch: 7, reading, group: |_| 0 }
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

#[test]
fn what_comes_late_is_due_with_the_next_round_for_a_receiver_that_accepts_only_what_is_newer() {
    let in_order = RoundRules { floor: Some(at(10)), ..rules(10) };
    let due = |windows: &[PlacedWindow], now| in_order.count_due(windows.iter().copied(), at(now));
    let late = [placed(0, 1), placed(10, 1)];
    assert_eq!(due(&late, 20), Err(Some(at(21))));
    assert_eq!(due(&late, 21), Ok(2));
    assert_eq!(due(&late[..1], 21), Ok(1), "also where nothing else comes");
    // A window of the future is waited for: nothing would be accepted after it until then.
    assert_eq!(due(&[placed(5000, 1)], 21), Err(Some(at(5011))));
}

/// What is added, in rounds that start at `floor` or later.
fn added(selection: &SeriesSelection, floor: i64) -> RoundScope<'_> {
    let plain = scope(10, Level::Orchestrator, selection);
    let rules = RoundRules { floor: Some(at(floor)), ..plain.rules };
    RoundScope { rules, reading: RecordReading::Added, ..plain }
}

#[test]
fn of_late_samples_only_what_they_add_is_part_of_the_next_round() {
    let sent = [
        "a:1|c\nt:4|ms\ng:1|g",
        "a:5|c|T1767225603\nt:2|ms|T1767225603\ng:9|g|T1767225603\na:7|c\nt:3|ms\ng:2|g",
    ];
    let (store, selection) = (store(&["c-1"], &sent), SeriesSelection::default());
    let windows = store.kept_after(0);
    let (first, rest) = windows.split_at(1);
    let one = CutRecords::collect_records(first, &[], 1..=3, added(&selection, 0));
    let [a, g, t] = ["a", "g", "t"].map(str::to_owned);
    assert_eq!(records(&one), [(0, a.clone(), 1.0, 1), (0, g.clone(), 1.0, 1), (0, t.clone(), 4.0, 1)]);
    let other = CutRecords::collect_records(rest, &[], 4..=100, added(&selection, 10));
    // The mean of the new values; the gauge's correction cannot be sent, but counts with its new value.
    assert_eq!(records(&other), [(10, a, 12.0, 2), (10, g, 2.0, 2), (10, t, 2.5, 2)]);
    assert_eq!(other.late, 0);
    let alone = CutRecords::collect_records(&rest[..1], &[], 4..=6, added(&selection, 10));
    assert_eq!(
        (records(&alone).len(), alone.late),
        (2, 1),
        "a correction of a gauge that has no newer value"
    );
}

#[test]
fn a_container_that_closes_late_is_part_of_the_next_round_with_its_gauges() {
    let (store, selection) = (store(&["c-1", "c-2"], &["a:1|c\ng:1|g"]), SeriesSelection::default());
    let windows = store.kept_after(0);
    let late = CutRecords::collect_records(&windows[1..], &[], 3..=4, added(&selection, 10));
    assert_eq!(records(&late), [(10, "a".to_owned(), 1.0, 1), (10, "g".to_owned(), 1.0, 1)]);
    assert_eq!((late.intervals[0].start, late.intervals[0].end), (at(10), at(20)));
}

#[test]
fn records_have_the_totals_as_of_their_round_also_if_it_is_read_again() {
    let (store, selection) = (store(&["c-1", "c-2"], &["a:1|c\ng:7|g", "a:2|c"]), SeriesSelection::default());
    let windows = store.kept_after(0);
    let mut totals = RunningTotals::new(100, false);
    let marks = MarksOfAll::default();
    let read = |windows: &[Arc<Published>], totals: &mut RunningTotals| {
        let mut cut = CutRecords::collect_records(windows, &[], 1..=100, added(&selection, 0));
        let of_round = |interval: &mut IntervalRecords<'_>| {
            interval.stage_totals(totals);
            let round = interval.as_round("n1", 7, &marks);
            round
                .records
                .iter()
                .map(|record| record.running.map(|it| (it.total, it.first)))
                .collect::<Vec<_>>()
        };
        cut.intervals.iter_mut().map(of_round).collect::<Vec<_>>()
    };
    let (first, second): (Vec<_>, Vec<_>) =
        windows.iter().cloned().partition(|published| published.window().span.start == at(0));
    assert_eq!(read(&first, &mut totals), [[Some((2.0, true)), None]]);
    assert_eq!(read(&first[..1], &mut totals), [[Some((2.0, true)), None]], "one of the windows is gone");
    totals.commit_round(true);
    let second = read(&second, &mut totals);
    assert_eq!(second[0][0], Some((6.0, false)));
}

#[test]
fn types_that_are_sent_apart_are_apart_in_a_round() {
    let (store, selection) = (store(&["c-1"], &["a:1|c\nb:1|ms\nc:1|c"]), SeriesSelection::default());
    let windows = store.kept_after(0);
    let group = |metric_type| u8::from(metric_type != MetricType::Counter);
    let scope = RoundScope { group, ..scope(10, Level::High, &selection) };
    let cut = CutRecords::collect_records(&windows, &[], 1..=100, scope);
    let marks = MarksOfAll::default();
    let round = cut.intervals[0].as_round("n1", 7, &marks);
    let names: Vec<_> = round.records.iter().map(|record| &*record.series.name).collect();
    assert_eq!(names, ["a", "c", "b"]);
    assert_eq!(cut.intervals[0].group_ranges(group), [0..2, 2..3]);
    assert_eq!(cut.intervals[0].group_ranges(|_| 0).pop(), Some(0..3));
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
