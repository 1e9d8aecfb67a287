mod unwritten;

use std::time::Duration;

use super::*;
use crate::aggregate::{Aggregator, GaugeSign, View, Window};
use crate::model::{ContainerId, Generation, Labels, Moment, TaskId};

const START: i64 = 1_767_225_600;

fn moment(secs: u64) -> Moment {
    let mono = Duration::from_secs(secs);
    Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
}

fn origin(container: &str) -> Arc<Origin> {
    Arc::new(Origin {
        container_id: ContainerId::new(container).unwrap(),
        generation: Generation(1),
        task_id: TaskId::new(container).unwrap(),
        labels: Labels::new(),
    })
}

/// A store and the containers that write to it.
struct Node {
    store: Store,
    aggregators: Vec<Aggregator>,
}

impl Node {
    fn new(containers: usize, keep: usize) -> Self {
        let store = Store::new(7, keep);
        let aggregators = (0..containers)
            .map(|n| {
                store.open(Allocation(n as u64), origin(&format!("c{n}")), moment(0).wall);
                Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall)
            })
            .collect();
        Self { store, aggregators }
    }

    fn send(&mut self, container: usize, secs: u64, datagram: &str) -> &mut Self {
        self.roll(secs);
        self.aggregators[container].ingest_datagram(datagram.as_bytes(), moment(secs), None);
        self
    }

    fn roll(&mut self, secs: u64) -> &mut Self {
        for (n, aggregator) in (0..).zip(&mut self.aggregators) {
            while aggregator.window_end() <= moment(secs).wall {
                let closed = aggregator.roll_window(aggregator.window_end()).unwrap();
                self.store.push(Allocation(n), closed);
            }
        }
        self
    }

    /// Place, container, name, revision, and value of a counter's records after a cursor.
    fn since(&self, seq: u64) -> Vec<(u64, String, String, u32, f64)> {
        let since = self.store.read_since(Cursor { epoch: 7, seq }).unwrap();
        let records = since.published.iter().flat_map(|published| {
            published.numbered_records().map(|(number, record)| {
                let container = published.origin().container_id.to_string();
                (number.seq, container, record.series.name.to_string(), number.rev, sum(&record.view))
            })
        });
        records.filter(|(place, ..)| *place > seq).collect()
    }

    fn kept(&self, container: u64) -> Vec<(u64, f64, u32)> {
        let history = self.store.find_history(Allocation(container)).unwrap();
        let kept: Vec<_> = history.kept_intervals().collect();
        let start =
            |kept: &IntervalWindows| kept.span().unwrap().start.duration_since(moment(0).wall).as_secs();
        kept.iter()
            .flat_map(|kept| {
                kept.newest_records().map(|(_, n, record)| (start(kept), sum(&record.view), n.rev))
            })
            .collect()
    }
}

fn sum(view: &View<'_>) -> f64 {
    match view {
        View::Counter { counter, .. } => counter.sum,
        _ => 0.0,
    }
}

#[test]
fn every_record_has_one_place_in_one_sequence() {
    let mut node = Node::new(2, 30);
    node.send(0, 1, "a:1|c\nb:2|c").send(1, 2, "a:3|c").send(0, 12, "a:4|c").roll(20);
    let places: Vec<_> = node
        .since(0)
        .iter()
        .map(|(place, container, name, ..)| format!("{place} {container} {name}"))
        .collect();
    assert_eq!(places, ["1 c0 a", "2 c0 b", "3 c1 a", "4 c0 a"]);
    assert_eq!(node.store.end_cursor(), Cursor { epoch: 7, seq: 4 });
}

#[test]
fn a_cursor_gives_what_came_after_it_and_nothing_twice() {
    let mut node = Node::new(1, 30);
    node.send(0, 1, "a:1|c\nb:1|c\nc:1|c").roll(10);
    assert_eq!(node.since(1).iter().map(|record| record.0).collect::<Vec<_>>(), [2, 3]);
    assert!(node.since(3).is_empty());
    node.send(0, 11, "a:1|c").roll(20);
    assert_eq!(node.since(3).iter().map(|record| record.0).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_cursor_into_what_is_gone_is_refused_with_the_oldest_that_is_not() {
    let mut node = Node::new(2, 2);
    for window in 0..4 {
        node.send(0, window * 10 + 1, "a:1|c");
    }
    node.roll(40);
    let oldest = Cursor { epoch: 7, seq: 2 };
    assert_eq!(node.store.read_since(Cursor { epoch: 7, seq: 1 }).unwrap_err(), Expired { oldest });
    assert_eq!(node.since(2).len(), 2);
}

#[test]
fn a_cursor_of_another_life_or_of_the_future_is_refused() {
    let mut node = Node::new(1, 30);
    node.send(0, 1, "a:1|c").roll(10);
    for cursor in [Cursor { epoch: 6, seq: 0 }, Cursor { epoch: 8, seq: 0 }, Cursor { epoch: 7, seq: 2 }] {
        assert!(node.store.read_since(cursor).is_err(), "{cursor}");
    }
}

#[test]
fn a_forgotten_container_leaves_a_gap_that_is_said() {
    let mut node = Node::new(2, 30);
    node.send(0, 1, "a:1|c").send(1, 1, "a:1|c").roll(10);
    node.store.forget_container(Allocation(0));
    assert!(node.store.read_since(Cursor { epoch: 7, seq: 0 }).is_err());
    assert_eq!(node.since(1).len(), 1);
    assert!(node.store.find_history(Allocation(0)).is_none());
}

/// A history of windows with one counter each, which start this many seconds after the start of a test, in the order of
/// closing.
fn closed_at(starts: &[u64]) -> History {
    let windows = (1..).zip(starts).map(|(first, start)| {
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(*start).wall);
        aggregator.ingest_datagram(format!("a:{start}|c\nlevel:{start}|g").as_bytes(), moment(*start), None);
        (first * 2, aggregator.close_final_window(moment(*start + 10).wall).window.into())
    });
    History::from_windows(origin("c0"), moment(0).wall, windows.collect::<Vec<_>>(), None)
}

#[test]
fn windows_of_a_clock_that_was_ahead_never_take_the_place_of_newer_ones() {
    let mut node = Node::new(0, 3);
    // The clock was an hour ahead for three windows, and is correct again.
    let histories = vec![(Allocation(0), closed_at(&[3600, 3610, 3620]))];
    node.store.adopt_histories(histories, moment(60).wall);
    assert_eq!(node.kept(0).len(), 6, "they can be read");
    node.aggregators.push(Aggregator::new(Arc::default(), GaugeSign::Delta, moment(60).wall));
    for window in 0..3 {
        let end = node.store.end_cursor();
        node.send(0, 61 + window * 10, "b:1|c").roll(70 + window * 10);
        let starts: Vec<_> = node.kept(0).iter().map(|(start, ..)| *start).collect();
        assert_eq!(starts.last(), Some(&(60 + window * 10)), "the newest is the one that was closed last");
        let newest = node.store.newest_intervals().0;
        assert_eq!(newest[0].span().unwrap().start, moment(60 + window * 10).wall);
        assert_eq!(node.since(end.seq).len(), 1, "a follower that has read everything goes on");
    }
    let starts: Vec<_> = node.kept(0).iter().map(|(start, ..)| *start).collect();
    assert_eq!(starts, [60, 70, 80], "the others were closed before, and are gone");
}

#[test]
fn what_an_earlier_life_kept_beyond_the_bound_expires_no_cursor_of_this_one() {
    let mut node = Node::new(0, 2);
    // There are more windows on disk than are kept, at places far beyond those that they get here.
    node.store.adopt_histories(vec![(Allocation(0), closed_at(&[10, 20, 30, 40, 50]))], moment(60).wall);
    node.aggregators.push(Aggregator::new(Arc::default(), GaugeSign::Delta, moment(60).wall));
    let end = node.store.end_cursor();
    node.send(0, 61, "b:1|c").roll(70);
    assert_eq!(node.since(end.seq).len(), 1);
    assert!(
        node.store.read_since(node.store.end_cursor()).is_ok(),
        "and one that has read everything goes on"
    );
}

#[test]
fn an_interval_that_late_samples_make_outlasts_none_that_is_newer() {
    let mut node = Node::new(1, 3);
    node.send(0, 1, "a:1|c").send(0, 11, "a:1|c").send(0, 31, "a:1|c");
    // The interval in between has only late samples. The oldest interval is dropped first, then this one.
    node.send(0, 32, &format!("late:1|c|T{}", START + 21)).roll(40);
    let starts = |node: &Node| node.kept(0).iter().map(|(start, ..)| *start).collect::<Vec<_>>();
    assert_eq!(starts(&node), [10, 20, 30]);
    node.send(0, 41, "a:1|c").roll(50);
    assert_eq!(starts(&node), [20, 30, 40]);
    node.send(0, 51, "a:1|c").roll(60);
    assert_eq!(starts(&node), [30, 40, 50]);
}

#[test]
fn a_window_that_was_dated_to_the_future_is_like_others_once_its_time_has_come() {
    let mut node = Node::new(0, 30);
    node.store.adopt_histories(vec![(Allocation(0), closed_at(&[80, 90, 100]))], moment(60).wall);
    let ahead = |node: &Node| node.store.find_history(Allocation(0)).unwrap().future_interval_count();
    assert_eq!(ahead(&node), 3);
    node.aggregators.push(Aggregator::new(Arc::default(), GaugeSign::Delta, moment(60).wall));
    node.send(0, 75, "b:1|c").roll(80);
    assert_eq!(ahead(&node), 3);
    node.send(0, 91, "a:1|c").roll(100);
    assert_eq!(ahead(&node), 1);
    let kept: Vec<_> = node.kept(0).into_iter().filter(|(start, ..)| *start == 90).collect();
    assert_eq!(kept, [(90, 91.0, 1), (90, 0.0, 0)], "one record of a series in an interval");
}

#[test]
fn a_level_of_the_future_does_not_outlast_a_newer_one() {
    let node = Node::new(0, 30);
    node.store.adopt_histories(vec![(Allocation(0), closed_at(&[3600, 60, 70]))], moment(80).wall);
    let levels = |node: &Node| {
        let lasting = node.store.find_history(Allocation(0)).unwrap().lasting_values();
        lasting.iter().map(|lasting| lasting.value).collect::<Vec<_>>()
    };
    assert_eq!(levels(&node), [70.0]);
    let node = Node::new(0, 30);
    node.store.adopt_histories(vec![(Allocation(0), closed_at(&[3600, 3610]))], moment(80).wall);
    assert_eq!(levels(&node), [3610.0], "it is what is known");
}

#[test]
fn a_loss_of_one_container_does_not_concern_followers_of_another() {
    let mut node = Node::new(3, 2);
    node.send(0, 1, "a:1|c").send(1, 1, "a:1|c").send(2, 1, "a:1|c").roll(10);
    let of = |node: &Node, name: &str, seq| {
        let since =
            node.store.since_of(Cursor { epoch: 7, seq }, |origin| origin.container_id.as_str() == name);
        since.map(|since| {
            let of_it = |p: &&Arc<Published>| p.origin().container_id.as_str() == name;
            since.published.iter().filter(of_it).count()
        })
    };
    for window in 1..5 {
        node.send(0, window * 10 + 1, "a:1|c");
    }
    node.roll(50).store.forget_container(Allocation(2));
    assert_eq!(of(&node, "c1", 0), Ok(1), "c0 has lost windows, and c2 is forgotten");
    assert_eq!(of(&node, "c0", 0), Err(Expired { oldest: Cursor { epoch: 7, seq: 5 } }));
    assert_eq!(of(&node, "c0", 5), Ok(2));
    assert_eq!(of(&node, "c2", 1), Err(Expired { oldest: Cursor { epoch: 7, seq: 3 } }));
    assert!(
        node.store.read_since(Cursor { epoch: 7, seq: 4 }).is_err(),
        "a follower of all has missed something"
    );
}

#[test]
fn some_windows_at_a_time_are_all_windows_in_order_and_a_loss_in_between_is_said() {
    let mut node = Node::new(2, 4);
    for window in 0..4 {
        node.send(0, window * 10 + 1, "a:1|c\nb:1|c").send(1, window * 10 + 2, "a:1|c");
    }
    node.roll(40);
    let start = Cursor { epoch: 7, seq: 0 };
    let all = node.store.read_since(start).unwrap();
    let places = |published: &[Arc<Published>]| published.iter().map(|p| p.first_seq()).collect::<Vec<_>>();
    let some = |cursor, most| node.store.some_since_of(cursor, most, |_| true);
    for most in 1..10 {
        let (mut cursor, mut read) = (start, Vec::new());
        while cursor != node.store.end_cursor() {
            let since = some(cursor, most).unwrap();
            assert!(since.published.len() <= most && since.next > cursor, "{since:?}");
            read.extend(places(&since.published));
            cursor = since.next;
        }
        assert_eq!((read, cursor), (places(&all.published), all.next), "{most} at a time");
    }
    let first = some(start, 1).unwrap().next;
    for window in 4..7 {
        node.send(0, window * 10 + 1, "a:1|c");
    }
    node.roll(70);
    let expired = node.store.some_since_of(first, 1, |_| true).unwrap_err();
    let rest = node.store.some_since_of(expired.oldest, 100, |_| true).unwrap();
    assert!(rest.published.iter().all(|published| published.first_seq() > expired.oldest.seq));
    assert_eq!(
        node.store
            .some_since_of(first, 1, |origin| origin.container_id.as_str() == "c1")
            .unwrap()
            .published
            .len(),
        1
    );
}

#[test]
fn the_last_windows_with_records_are_kept() {
    let mut node = Node::new(1, 3);
    for window in [0, 1, 5, 9, 20] {
        node.send(0, window * 10 + 1, "a:1|c");
    }
    node.roll(300);
    assert_eq!(node.kept(0).iter().map(|(start, ..)| *start).collect::<Vec<_>>(), [50, 90, 200]);
}

#[test]
fn a_late_sample_makes_a_new_revision_with_a_new_place() {
    let mut node = Node::new(1, 30);
    node.send(0, 1, "a:1|c\nb:1|c").send(0, 12, "b:9|c");
    node.send(0, 15, &format!("a:5|c|T{}", START + 2)).send(0, 25, &format!("a:7|c|T{}", START + 3)).roll(30);
    assert_eq!(node.kept(0), [(0, 13.0, 2), (0, 1.0, 0), (10, 9.0, 0)]);
    let revisions: Vec<_> =
        node.since(2).into_iter().map(|(place, _, name, rev, sum)| (place, name, rev, sum)).collect();
    let a = || "a".to_owned();
    assert_eq!(revisions, [(3, a(), 1, 6.0), (4, "b".to_owned(), 0, 9.0), (5, a(), 2, 13.0)]);
}

#[test]
fn a_late_sample_of_a_silent_window_is_its_first_record() {
    let mut node = Node::new(1, 30);
    node.send(0, 25, &format!("a:5|c|T{}", START + 2)).roll(30);
    assert_eq!(node.kept(0), [(0, 5.0, 0)]);
    let history = node.store.find_history(Allocation(0)).unwrap();
    let span = history.kept_intervals().next().unwrap().span().unwrap();
    assert!(!span.is_partial(), "the socket was open all the time");
}

#[test]
fn a_merged_timer_revision_has_the_percentiles_of_all_its_samples() {
    let mut node = Node::new(1, 30);
    node.send(0, 1, "t:1:2:3|ms").send(0, 15, &format!("t:100:200|ms|T{}", START + 2)).roll(20);
    let history = node.store.find_history(Allocation(0)).unwrap();
    let kept = history.kept_intervals().next().unwrap();
    let (_, number, record) = kept.newest_records().next().unwrap();
    assert_eq!((number.rev, record.view.sample_count()), (1, 5));
    assert_eq!(record.view.percentiles().unwrap(), [3.0, 100.0, 200.0, 200.0, 200.0]);
}

#[test]
fn the_newest_window_of_every_container_is_known() {
    let mut node = Node::new(3, 30);
    node.send(0, 1, "a:1|c").send(1, 1, "a:1|c").send(0, 11, "a:2|c").roll(30);
    let (newest, next) = node.store.newest_intervals();
    let of =
        |kept: &IntervalWindows| kept.published_windows().next().unwrap().origin().container_id.to_string();
    assert_eq!(newest.iter().map(of).collect::<Vec<_>>(), ["c1", "c0"]);
    assert_eq!(next, node.store.end_cursor());
}

/// Recounts the size.
fn counted(store: &Store) -> (usize, usize) {
    let (histories, ..) = store.snapshot_at_level(Level::High);
    let published = histories.iter().flat_map(|(_, history)| history.published_windows());
    let added = |published: &Published| published.added_apart().map_or(0, Window::bytes);
    let bytes: Vec<_> = published.map(|published| published.window().bytes() + added(published)).collect();
    (bytes.len(), bytes.iter().sum())
}

#[test]
fn the_size_is_that_of_the_windows_after_every_kind_of_change() {
    let mut node = Node::new(2, 3);
    let check = |node: &Node| {
        let size = node.store.size();
        assert_eq!((size.windows, size.bytes), counted(&node.store));
        size
    };
    assert_eq!(check(&node).windows, 0);
    for window in 0..6 {
        let late = START + window * 10 - 9;
        node.send(0, window.unsigned_abs() * 10 + 1, &format!("a:1|c\na:1:2|ms\na:3|c|T{late}"));
        node.send(1, window.unsigned_abs() * 10 + 1, "a:1|s");
        check(&node);
    }
    node.roll(60);
    assert!(check(&node).windows > 6, "revisions count, too");
    let before: Vec<_> = (0..2).map(|n| node.store.find_history(Allocation(n)).unwrap()).collect();
    node.store.forget_container(Allocation(0));
    assert_eq!(check(&node).windows, 3);
    let images = before.iter().map(|history| History::from_image(&history.to_image()).unwrap());
    node.store.adopt_histories((5..).map(Allocation).zip(images).collect(), moment(60).wall);
    assert!(check(&node).windows > 6);
}

#[test]
fn what_is_kept_of_a_container_is_known_after_each_window() {
    let mut node = Node::new(1, 3);
    for window in 0..6 {
        let late = START + window * 10 - 9;
        node.send(0, window.unsigned_abs() * 10 + 1, &format!("a:1|c\na:{window}|s|T{late}"));
    }
    let at = node.aggregators[0].window_end();
    let closed = node.aggregators[0].roll_window(at).unwrap();
    let Filed { held: kept, .. } = node.store.push(Allocation(0), closed);
    assert_eq!((kept, node.store.held_bytes()), (node.store.kept_bytes(Allocation(0)), kept));
    assert!(kept > counted(&node.store).1, "more than the windows alone");
}

#[test]
fn names_count_against_their_containers_in_equal_shares() {
    let held = |long: usize| {
        let mut node = Node::new(2, 3);
        let name = "x".repeat(long);
        let lines: Vec<_> = (0..100).map(|n| format!("{name}{n}:1|c")).collect();
        node.send(0, 1, &lines.join("\n")).send(1, 1, "short:1|c").roll(10);
        let alone = [0, 1].map(|n| node.store.kept_bytes(Allocation(n)));
        // Another container of the same workload has half of it.
        node.store.open(Allocation(7), origin("c0"), moment(10).wall);
        assert_eq!(node.store.held_bytes(), node.store.recount_held_bytes());
        (alone, node.store.kept_bytes(Allocation(7)), node)
    };
    let ([short, other], of_newcomer, _) = held(1);
    let ([long, same], of_newcomer_long, mut node) = held(900);
    assert!(long - short >= 100 * 890, "{long} {short}");
    assert_eq!(other, same, "names of its own workload alone");
    assert!(of_newcomer_long - of_newcomer >= 50 * 890, "{of_newcomer_long} {of_newcomer}");
    node.store.forget_container(Allocation(7));
    assert_eq!(node.store.kept_bytes(Allocation(0)), long);
    node.roll(20);
}

#[test]
fn a_reader_keeps_the_history_that_it_took() {
    let mut node = Node::new(1, 2);
    node.send(0, 1, "a:1|c").roll(10);
    let taken = node.store.find_history(Allocation(0)).unwrap();
    node.send(0, 15, &format!("a:2|c|T{}", START + 2)).roll(20);
    assert_eq!(taken.published_windows().count(), 1);
    assert_eq!(node.store.find_history(Allocation(0)).unwrap().published_windows().count(), 2);
}

#[test]
fn windows_after_a_place_are_the_same_whether_or_not_the_log_reaches_it() {
    let mut node = Node::new(2, 2);
    for window in 0..5 {
        node.send(0, window * 10 + 1, "a:1|c").send(1, window * 10 + 1, "a:1|c");
    }
    node.roll(50);
    let end = node.store.end_cursor().seq;
    let all = node.store.kept_after(0);
    for seq in 0..=end {
        let wanted: Vec<_> =
            all.iter().map(|published| published.first_seq()).filter(|first| *first > seq).collect();
        let found: Vec<_> =
            node.store.kept_after(seq).iter().map(|published| published.first_seq()).collect();
        assert_eq!(found, wanted, "after {seq}");
    }
}

#[test]
fn a_subscriber_hears_of_new_records_only() {
    let mut node = Node::new(1, 30);
    let mut newest = node.store.subscribe();
    newest.mark_unchanged();
    node.roll(20);
    assert!(!newest.has_changed().unwrap(), "an empty window is no news");
    node.send(0, 21, "a:1|c").roll(30);
    assert_eq!((newest.has_changed().unwrap(), *newest.borrow_and_update()), (true, 1));
}

#[test]
fn cursors_read_back() {
    let cursor = Cursor { epoch: 3, seq: 812 };
    assert_eq!(cursor.to_string().parse(), Ok(cursor));
    for text in ["", "3", "3-", "-1-2", "a-b", "3-812-1"] {
        assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
    }
}

#[test]
fn a_reader_keeps_what_it_was_given_while_windows_come_and_go() {
    let mut node = Node::new(2, 1);
    node.send(0, 1, "a:1|c").send(1, 1, "a:1|c").roll(10);
    let seen = |node: &Node| node.store.snapshot_at_level(Level::Low).0;
    let sums = |histories: &[(Allocation, Arc<History>)]| {
        let records = histories
            .iter()
            .flat_map(|(_, history)| history.kept_intervals())
            .flat_map(IntervalWindows::newest_records);
        records.map(|(_, _, record)| sum(&record.view)).collect::<Vec<_>>()
    };
    let before = seen(&node);
    node.send(0, 11, "a:2|c").roll(20);
    node.store.forget_container(Allocation(1));
    assert_eq!((sums(&before), sums(&seen(&node))), (vec![1.0, 1.0], vec![2.0]));
}

#[test]
fn a_reader_that_has_much_to_catch_up_with_misses_nothing() {
    let mut node = Node::new(1, 2 * AT_ONCE);
    let windows = AT_ONCE + 10;
    for n in 0..windows as u64 {
        node.send(0, 10 * n, "a:1|c");
    }
    node.roll(10 * windows as u64);
    let places: Vec<_> = node.since(3).iter().map(|(place, ..)| *place).collect();
    assert_eq!(places, (4..=windows as u64).collect::<Vec<_>>());
}

/// A deterministic generator, so that failures are reproducible.
fn random(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

#[test]
fn what_is_counted_as_held_is_what_a_recount_finds_after_anything() {
    for mut seed in 0..20 {
        let seed = &mut seed;
        let mut node = Node::new(3, 4);
        node.store.remember_at_most(5, 50);
        let (mut now, mut next) = (1_u64, 100);
        // Windows whose late samples are being merged, and aggregators of a few bytes.
        let mut pending: Vec<Option<PendingWindow>> = vec![None, None, None];
        let mut live = node.store.live_bytes();
        for step in 0..120 {
            let (container, name) = (random(seed, 3), random(seed, 12));
            let n = usize::try_from(container).unwrap();
            let what = random(seed, 14);
            // Pending windows can be merged further as long as nothing is published for their container.
            let publishes = !matches!(what, 0..=4 | 12);
            for (of, waiting) in pending.iter_mut().enumerate() {
                let more = waiting.as_mut().is_some_and(|waiting| waiting.merge_one(&node.store));
                if let Some(waiting) = waiting.take_if(|_| !more || of == n || publishes) {
                    waiting.publish_to(&node.store);
                }
            }
            match what {
                12 => live.set(usize::try_from(random(seed, 1000)).unwrap()),
                13 => {
                    let late = START + now.cast_signed() - 15;
                    node.send(n, now, &format!("n{name}:1|c|T{late}\nn{name}:1|ms|T{}", late - 10));
                    let end = node.aggregators[n].window_end();
                    now = end.duration_since(moment(0).wall).as_secs();
                    let closed = node.aggregators[n].roll_window(end).unwrap();
                    pending[n] = Some(PendingWindow::new(&node.store, Allocation(container), closed));
                }
                0 => now += 10 * random(seed, 3),
                1 => node.store.mark_ended(Allocation(container)),
                2 => {
                    let history = node.store.find_history(Allocation(container));
                    let image = history.map(|history| History::from_image(&history.to_image()).unwrap());
                    node.store.forget_container(Allocation(container));
                    // It returns as an adopted container, or as a new one.
                    if let (Some(image), 0) = (image, random(seed, 2)) {
                        node.store
                            .adopt_histories(vec![(Allocation(container), image)], moment(now / 2).wall);
                    }
                    let name = format!("c{container}");
                    node.store.open(Allocation(container), origin(&name), moment(now).wall);
                }
                3 => {
                    let history = node.store.find_history(Allocation(container)).unwrap();
                    let image = History::from_image(&history.to_image()).unwrap();
                    // At a time for which some of its windows are in the future.
                    node.store.adopt_histories(vec![(Allocation(next), image)], moment(now / 2).wall);
                    next += 1;
                }
                4 => node.store.forget_container(Allocation(100 + random(seed, next - 99))),
                5 | 6 => {
                    let late = START + now.cast_signed() - 15;
                    node.send(n, now, &format!("n{name}:1|ms|T{late}\nn{name}:{step}|s|T{late}"));
                }
                7 => drop(node.send(n, now, "_sc|check|1|m:words\n_e{1,1}:a|b")),
                _ => drop(node.send(n, now, &format!("n{name}:1|c\nn{name}:2|g\nn{name}:3|h"))),
            }
            let waiting: usize = pending.iter().flatten().map(PendingWindow::recount_bytes).sum();
            let recounted = node.store.recount_held_bytes() + live.get() + waiting;
            assert_eq!(node.store.held_bytes(), recounted, "step {step}");
        }
        assert!(node.store.held_bytes() > 0);
    }
}

#[test]
fn a_container_that_has_ended_holds_what_it_shared_with_its_aggregator() {
    let mut node = Node::new(1, 4);
    let long = "x".repeat(500);
    node.send(0, 1, &format!("a:1|c|#tag:{long}")).roll(10);
    let before = node.store.held_bytes();
    node.store.mark_ended(Allocation(0));
    assert!(node.store.held_bytes() > before + 500);
    node.store.open(Allocation(0), origin("c0"), moment(20).wall);
    assert_eq!(node.store.held_bytes(), before, "and no more once it has one again");
    node.store.forget_container(Allocation(0));
    let totals = node.store.held_bytes();
    assert!(totals > 500 && totals < before + 500, "its total is remembered: {totals}");
}
