use std::time::Duration;

use super::*;
use crate::aggregate::{Aggregator, AggregatorSettings, Bounds, Counting, GaugeSign};
use crate::model::{ContainerId, Generation, Labels, Moment, TaskId};

const KEEP: usize = 4;

fn moment(secs: u64) -> Moment {
    let mono = Duration::from_secs(secs);
    Moment { wall: Timestamp::from_secs(1_767_225_600).saturating_add(mono), mono }
}

fn origin(n: u64) -> Arc<Origin> {
    Arc::new(Origin {
        container_id: ContainerId::new(&format!("c{n}")).unwrap(),
        generation: Generation(1),
        task_id: TaskId::new("web.1").unwrap(),
        labels: Labels::new(),
    })
}

/// A store into which containers send.
struct Node {
    store: Store,
    containers: Vec<(Allocation, Aggregator)>,
    now: u64,
}

impl Node {
    fn new(containers: u64) -> Self {
        let mut node = Self { store: Store::new(7, KEEP), containers: Vec::new(), now: 1 };
        (0..containers).for_each(|n| node.open(n));
        node
    }

    fn open(&mut self, n: u64) {
        let bounds = Bounds::new(&[10.0], 0).unwrap();
        let counting = Counting::Classic { timers: bounds.clone(), values: bounds };
        let settings = Arc::new(AggregatorSettings { counting, ..AggregatorSettings::default() });
        let aggregator = Aggregator::new(settings, GaugeSign::Delta, moment(self.now).wall);
        self.store.open(Allocation(n), origin(n), moment(self.now).wall);
        self.containers.push((Allocation(n), aggregator));
    }

    /// Closes so many windows of ten seconds, each with a sample for the one before.
    fn run(&mut self, windows: u64) {
        for _ in 0..windows {
            let late = 1_767_225_600 + i64::try_from(self.now).unwrap() - 10;
            for (allocation, aggregator) in &mut self.containers {
                let lines = format!(
                    "a:1|c\nn.x:1|c|#t.u:1,t_u:1\nn_x:1|c\nb{}:2|g\nt:7:70|ms\na:5|c|T{late}",
                    self.now % 3
                );
                aggregator.ingest_datagram(lines.as_bytes(), moment(self.now), None);
                let closed = aggregator.roll_window(moment(self.now + 10).wall).unwrap();
                self.store.push(*allocation, closed);
            }
            self.now += 10;
        }
    }

    fn forget(&mut self, n: u64) {
        self.containers.retain(|(allocation, _)| *allocation != Allocation(n));
        self.store.forget_container(Allocation(n));
    }
}

/// All that a reader can see.
fn seen(store: &Store) -> String {
    let (histories, past, marks) = store.snapshot_at_level(crate::render::prometheus::Level::Low);
    let histories: Vec<_> = histories
        .iter()
        .map(|(allocation, history)| {
            let records: Vec<_> = history
                .published_windows()
                .map(|p| {
                    format!(
                        "{} {:?} {:?}",
                        p.first_seq(),
                        p.allocation(),
                        p.numbered_records().collect::<Vec<_>>()
                    )
                })
                .collect();
            format!("{allocation} {:?} {records:?} {:?}", history.opened_at(), history.summary())
        })
        .collect();
    let mut past: Vec<_> =
        past.values().flat_map(|gone| gone.iter()).map(|counted| format!("{counted:?}")).collect();
    past.sort_unstable();
    let since: Vec<_> = (0..=store.end_cursor().seq)
        .map(|seq| store.read_since(Cursor { epoch: 7, seq }).map(|since| since.published.len()))
        .collect();
    let mut marks: Vec<_> = marks.keys().map(|workload| format!("{workload:?}")).collect();
    marks.sort_unstable();
    let marks = (marks, store.name_meetings(usize::MAX));
    format!("{histories:#?} {past:#?} {:?} {since:?} {marks:?}", store.end_cursor())
}

#[test]
fn what_comes_in_parts_is_what_was_there_at_the_last() {
    let mut node = Node::new(3);
    let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
    let mut send = |node: &Node| received.add(&node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
    send(&node);
    node.run(3);
    send(&node);
    node.run(2);
    node.forget(1);
    node.open(9);
    send(&node);
    send(&node);
    node.run(2 + KEEP as u64);
    node.forget(0);
    send(&node);
    assert_eq!(seen(&received.into_store(KEEP).unwrap()), seen(&node.store));
}

#[test]
fn windows_that_fill_many_parts_are_put_together_in_order() {
    let mut node = Node::new(3);
    let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
    node.run(KEEP as u64);
    let most = 300;
    let whole = node.store.next_part(&mut SentStore::default(), usize::MAX).bytes.len();
    let mut parts = 0;
    loop {
        let part = node.store.next_part(&mut sent, most);
        received.add(&part.bytes).unwrap();
        parts += 1;
        if part.whole {
            break;
        }
        if parts == 3 {
            // Others come and go meanwhile.
            node.run(1);
            node.forget(1);
            node.open(9);
        }
    }
    assert!(parts >= 5, "{parts} parts of {whole} bytes");
    received.add(&node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
    assert_eq!(seen(&received.into_store(KEEP).unwrap()), seen(&node.store));
}

#[test]
fn a_part_has_no_more_windows_than_fit() {
    let mut node = Node::new(3);
    node.run(KEEP as u64);
    let of = |most| node.store.next_part(&mut SentStore::default(), most).bytes.len();
    // Names and totals come whole.
    let (least, one) = (of(0), of(1));
    let window = one - least;
    assert!(least > 0 && window > 0);
    let largest = of(3 * window);
    assert!(largest <= least + 5 * window, "{largest} bytes where a window is {window} and the rest {least}");
    assert!(of(usize::MAX) > least + 6 * window);
}

#[test]
fn forgotten_containers_are_sent_once_and_known_by_the_next_process() {
    let mut node = Node::new(500);
    node.run(1);
    let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
    received.add(&node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
    (0..400).for_each(|n| node.forget(n));
    let with = node.store.next_part(&mut sent, usize::MAX).bytes;
    let without = node.store.next_part(&mut sent, usize::MAX).bytes;
    (400..499).for_each(|n| node.forget(n));
    for part in [&with, &without, &node.store.next_part(&mut sent, usize::MAX).bytes] {
        received.add(part).unwrap();
    }
    assert!(without.len() < 1_000, "{} bytes in which nothing is new", without.len());
    let next = received.into_store(KEEP).unwrap();
    for n in [0, 399, 400, 498, 499] {
        let of_it = |origin: &Origin| origin.container_id.as_str() == format!("c{n}");
        let [there, here] = [&next, &node.store].map(|store| {
            let begin = Cursor { epoch: 7, seq: 0 };
            store.since_of(begin, of_it).map(|since| since.published.len())
        });
        assert_eq!((there, here.is_err()), (here, n != 499), "c{n}");
    }
}

#[test]
fn windows_of_a_clock_that_was_ahead_stay_set_aside_in_the_process_that_takes_over() {
    let mut node = Node::new(1);
    node.run(3);
    let image = node.store.find_history(Allocation(0)).unwrap().to_image();
    let mut later = Node { store: Store::new(7, KEEP), containers: Vec::new(), now: 1 };
    // As of the first of the three windows, the others are still to come.
    let history = super::super::History::from_image(&image).unwrap();
    later.store.adopt_histories(vec![(Allocation(0), history)], moment(9).wall);
    later.open(0);
    let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
    received.add(&later.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
    let store = received.into_store(KEEP).unwrap();
    assert_eq!(store.find_history(Allocation(0)).unwrap().future_interval_count(), 2);
    assert_eq!(seen(&store), seen(&later.store));
}

#[test]
fn who_follows_one_container_is_told_of_its_losses_only_in_the_next_process_too() {
    let mut node = Node::new(2);
    node.run(1);
    node.forget(1);
    let mut received = ReceivedStore::default();
    received.add(&node.store.next_part(&mut SentStore::default(), usize::MAX).bytes).unwrap();
    let store = received.into_store(KEEP).unwrap();
    let of = |n: u64| {
        let id = format!("c{n}");
        store.since_of(Cursor { epoch: 7, seq: 0 }, |origin| origin.container_id.as_str() == id).is_ok()
    };
    assert_eq!([of(0), of(1)], [true, false]);
}

#[test]
fn a_part_has_only_what_the_one_before_had_not() {
    let mut node = Node::new(2);
    let mut sent = SentStore::default();
    node.run(KEEP as u64);
    let everything = node.store.next_part(&mut sent, usize::MAX).bytes.len();
    let nothing = node.store.next_part(&mut sent, usize::MAX).bytes.len();
    assert!(nothing < 16, "{nothing} bytes");
    node.run(1);
    let one = node.store.next_part(&mut sent, usize::MAX).bytes.len();
    assert!(one < everything / 2, "{one} of {everything} bytes");
    node.run(1);
    let another = node.store.next_part(&mut sent, usize::MAX).bytes.len();
    assert!(another < one + one / 4, "{another} of {everything} bytes, where {one} were one window of each");
}

#[test]
fn a_part_that_follows_another_is_refused() {
    let mut node = Node::new(1);
    let (mut sent, mut received) = (SentStore::default(), ReceivedStore::default());
    node.run(2);
    received.add(&node.store.next_part(&mut sent, usize::MAX).bytes).unwrap();
    node.run(1);
    let skipped = node.store.next_part(&mut sent, usize::MAX).bytes;
    node.run(1);
    assert_eq!(received.add(&node.store.next_part(&mut sent, usize::MAX).bytes), Err(HistoryError::Damaged));
    assert_eq!(ReceivedStore::default().add(&skipped), Err(HistoryError::Damaged));
    assert_eq!(ReceivedStore::default().add(b"x"), Err(HistoryError::Damaged));
    assert!(ReceivedStore::default().into_store(KEEP).is_none(), "nothing has come");
}

#[test]
fn fewer_windows_are_kept_where_fewer_are_wanted() {
    let mut node = Node::new(1);
    node.run(KEEP as u64);
    let mut received = ReceivedStore::default();
    received.add(&node.store.next_part(&mut SentStore::default(), usize::MAX).bytes).unwrap();
    let store = received.into_store(2).unwrap();
    assert_eq!(store.find_history(Allocation(0)).unwrap().kept_intervals().count(), 2);
    let end = store.end_cursor();
    assert!(store.read_since(Cursor { seq: 0, ..end }).is_err() && store.read_since(end).is_ok());
}
