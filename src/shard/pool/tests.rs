use std::net::UdpSocket;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::aggregate::{GaugeSign, TimerUnit};
use crate::model::{ContainerId, Generation, Labels, Origin, TaskId};
use crate::net::listener;
use crate::shard::stats_queries::ContainerSelection;
use crate::shard::tail::LineFilter;

impl ShardPlan {
    /// One shard without a memory limit, which reads datagrams at once.
    pub(crate) const fn for_tests() -> Self {
        Self {
            shards: 1,
            memory_limit: usize::MAX,
            remembered: 1000,
            gather: Duration::ZERO,
            not_before: None,
        }
    }
}

struct Node {
    store: Arc<Store>,
    pool: ShardPool,
}

fn node(shards: usize) -> Node {
    let store = Arc::new(Store::new(1, 30));
    let settings =
        Arc::new(AggregatorSettings { window: Duration::from_secs(1), ..AggregatorSettings::default() });
    let plan = ShardPlan { shards, gather: Duration::from_millis(10), ..ShardPlan::for_tests() };
    let pool = ShardPool::start(&plan, &store, &settings, Clock::default()).unwrap();
    Node { store, pool }
}

async fn open(node: &Node, allocation: u64) -> UdpSocket {
    let container_id = ContainerId::new(&format!("c{allocation}")).unwrap();
    let task_id = TaskId::from(&container_id);
    let origin = Arc::new(Origin { container_id, generation: Generation(1), task_id, labels: Labels::new() });
    let socket = listener::open("127.0.0.1:0".parse().unwrap(), 262_144).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(socket.local_addr().unwrap()).unwrap();
    let (allocation, gauge_sign) = (Allocation(allocation), GaugeSign::Delta);
    let new = NewListener {
        allocation,
        origin,
        socket: Some(socket),
        unix: None,
        gauge_sign,
        timer_unit: TimerUnit::default(),
        before: None,
    };
    node.pool.open(new).await.unwrap();
    sender
}

fn sums(node: &Node, allocation: u64) -> f64 {
    let history = node.store.find_history(Allocation(allocation)).unwrap();
    let records = history.kept_intervals().flat_map(crate::store::IntervalWindows::newest_records);
    let sum = |view: &crate::aggregate::View<'_>| match view {
        crate::aggregate::View::Counter { counter, .. } => counter.sum,
        _ => 0.0,
    };
    records.map(|(_, _, record)| sum(&record.view)).sum()
}

#[tokio::test]
async fn a_move_does_not_wait_for_a_hand_over_that_keeps_all_places() {
    let node = node(2);
    let _sender = open(&node, 1).await;
    let Some(from) = node.pool.places.read().await.get(&Allocation(1)).copied() else { unreachable!() };
    let to = ShardId(1 - from.0);
    let kept = Arc::clone(&node.pool.places).write_owned().await;
    assert!(!node.pool.move_to(Allocation(1), to).await.unwrap());
    drop(kept);
    assert!(node.pool.move_to(Allocation(1), to).await.unwrap());
    node.pool.stop().await;
}

#[tokio::test]
async fn every_shard_begins_its_snapshots_before_any_is_waited_for() {
    let node = node(2);
    let mut senders = Vec::new();
    for allocation in 0..2 {
        senders.push(open(&node, allocation).await);
    }
    let [first, second] = [0, 1].map(|shard| node.pool.snapshot_ahead(shard, 0));
    // Both are answered although the first was never polled.
    let seconds = second.await.unwrap().snapshots;
    let firsts = first.await.unwrap().snapshots;
    assert_eq!((firsts.len(), seconds.len()), (1, 1));
    node.pool.stop().await;
}

#[tokio::test]
async fn what_was_sent_is_there_after_a_drain() {
    let node = node(2);
    let mut senders = Vec::new();
    for allocation in 0..4 {
        senders.push(open(&node, allocation).await);
    }
    for (n, sender) in (1..).zip(&senders) {
        for _ in 0..100 {
            sender.send(format!("a:{n}|c").as_bytes()).unwrap();
        }
    }
    for allocation in 0..4 {
        let stats = node.pool.drain_container(Allocation(allocation)).await.unwrap().unwrap();
        assert_eq!((stats.accounting.received, stats.accounting.in_records), (100, 100));
        assert!(stats.accounting.is_balanced(0));
        assert_eq!(sums(&node, allocation), 100.0 * (allocation + 1) as f64);
    }
}

#[tokio::test]
async fn the_open_window_can_be_looked_at() {
    let node = node(1);
    let sender = open(&node, 1).await;
    sender.send(b"a:1|c\nbad").unwrap();
    let stats = loop {
        let stats = node.pool.open_windows(&ContainerSelection::All).await.unwrap().remove(0);
        if stats.accounting.received > 0 {
            break stats;
        }
    };
    assert_eq!((stats.series, stats.rejected.len()), (1, 1));
    assert!(
        stats.open.as_ref().is_some_and(|(window, _)| window.len() == 1) || stats.accounting.in_records == 1
    );
}

#[tokio::test]
async fn windows_close_without_traffic() {
    let node = node(1);
    let sender = open(&node, 1).await;
    sender.send(b"a:1|c").unwrap();
    let mut newest = node.store.subscribe();
    tokio::time::timeout(Duration::from_secs(5), newest.wait_for(|seq| *seq > 0)).await.unwrap().unwrap();
    assert_eq!(sums(&node, 1), 1.0);
    // It is recorded shortly after the window becomes readable.
    while node.pool.read_measurements().closing_times.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn lines_can_be_tailed_and_a_slow_reader_is_told_what_it_missed() {
    let node = node(1);
    let sender = open(&node, 1).await;
    let mut lines =
        node.pool.tap_lines(Allocation(1), 2, &node.pool.tail_room(), &LineFilter::default()).await.unwrap();
    node.pool.container_counts(&ContainerSelection::All).await.unwrap();
    sender.send(b"a:1|c\nbad\nb:1|c\nc:1|c").unwrap();
    let received =
        async || node.pool.container_counts(&ContainerSelection::All).await.unwrap()[0].accounting.received;
    while received().await < 1 {}
    let (first, second) = (lines.recv().await.unwrap(), lines.recv().await.unwrap());
    assert_eq!((first.line.as_slice(), first.rejected), (b"a:1|c".as_slice(), None));
    assert_eq!(second.rejected.map(crate::statsd::Rejected::as_str), Some("missing_type"));
    sender.send(b"d:1|c").unwrap();
    assert_eq!(lines.recv().await.unwrap().lost, 2);
}

#[tokio::test]
async fn lines_that_wait_for_an_unread_tail_are_bounded_in_bytes_and_the_rest_is_counted() {
    let node = node(1);
    let sender = open(&node, 1).await;
    let room = node.pool.tail_room();
    let mut lines = node.pool.tap_lines(Allocation(1), 1024, &room, &LineFilter::default()).await.unwrap();
    let received =
        async || node.pool.container_counts(&ContainerSelection::All).await.unwrap()[0].accounting.received;
    let long = [b"a:1|c|#".as_slice(), &vec![b'x'; 60_000]].concat();
    for n in 1..=30 {
        sender.send(&long).unwrap();
        while received().await < n {}
    }
    let mut waiting = 0;
    while lines.try_recv().is_ok() {
        waiting += 1;
    }
    assert_eq!(waiting, 17, "of 60 kB in 1 MiB");
    sender.send(b"d:1|c").unwrap();
    assert_eq!(lines.recv().await.unwrap().lost, 30 - waiting);
}

#[tokio::test]
async fn a_container_that_moves_to_and_fro_loses_nothing_and_keeps_its_order() {
    let node = node(2);
    let sender = open(&node, 1).await;
    let arrived = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&arrived);
    let sending = std::thread::spawn(move || {
        for n in 0..20_000 {
            // A gauge shows the last level sent, so a reordered datagram would be visible.
            sender.send(format!("sent:1|c\nlevel:{n}|g").as_bytes()).unwrap();
            // Even on a busy machine, unread datagrams must fit the socket's buffer.
            while n % 50 == 0 && n > told.load(Ordering::Relaxed) + 100 {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
    });
    let mut moves = 0;
    while !sending.is_finished() {
        node.pool.move_to(Allocation(1), ShardId(moves % 2)).await.unwrap();
        let counts = node.pool.container_counts(&ContainerSelection::All).await.unwrap();
        assert_eq!(counts.len(), 1);
        arrived.store(counts[0].accounting.received, Ordering::Relaxed);
        moves += 1;
    }
    let stats = node.pool.drain_container(Allocation(1)).await.unwrap().unwrap();
    assert!(moves > 20, "{moves}");
    assert_eq!(stats.accounting.received + stats.accounting.kernel_drops, 20_000);
    assert_eq!((stats.accounting.kernel_drops, sums(&node, 1)), (0, 20_000.0));
    let history = node.store.find_history(Allocation(1)).unwrap();
    let records = history.kept_intervals().flat_map(crate::store::IntervalWindows::newest_records);
    let levels = records.filter_map(|(_, _, record)| match record.view {
        crate::aggregate::View::Gauge(gauge) => Some(gauge.last),
        _ => None,
    });
    assert_eq!(levels.last(), Some(19_999.0));
}

#[tokio::test]
async fn stopping_drains_everything_and_then_nothing_answers() {
    let node = node(2);
    let sender = open(&node, 1).await;
    sender.send(b"a:1|c").unwrap();
    let stats_by_container = node.pool.stop().await;
    assert_eq!(stats_by_container.iter().map(|stats| stats.accounting.in_records).sum::<u64>(), 1);
    assert!(node.pool.drain_container(Allocation(1)).await.is_err());
    while node.pool.ended_shards().len() < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_drain_that_is_repeated_waits_until_a_hand_over_is_decided() {
    // This test acts as a shard.
    let (commands, told) = std::sync::mpsc::channel();
    let (questions, _asked) = std::sync::mpsc::channel();
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
    let (commands, questions) = (Mutex::new(commands), Mutex::new(questions));
    let shard =
        Shard { commands, questions, wake, containers: AtomicUsize::new(1), thread: Mutex::new(None) };
    let shared = Arc::new(PoolShared::new(1, usize::MAX, 1000, Arc::new(Store::new(1, 30))));
    let places = Arc::new(RwLock::new(HashMap::from([(Allocation(1), ShardId(0))])));
    let balance = Mutex::new(Balance::new(1));
    let pool = Arc::new(ShardPool { shards: vec![shard], shared, places, balance });
    let draining = Arc::clone(&pool);
    let draining = tokio::spawn(async move { draining.drain_container(Allocation(1)).await.unwrap() });
    let drain = || match told.try_recv() {
        Ok(ShardCommand::Drain(Allocation(1), reply)) => Some(reply),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    };
    let failing = loop {
        match drain() {
            Some(reply) => break reply,
            None => tokio::task::yield_now().await,
        }
    };
    let handing_over = Arc::clone(&pool.places).write_owned().await;
    // The shard panics while working on it.
    drop(failing);
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(drain().is_none(), "the container may be that of another process by now");
    }
    drop(handing_over);
    let again = loop {
        match drain() {
            Some(reply) => break reply,
            None => tokio::task::yield_now().await,
        }
    };
    again.send(None).unwrap();
    assert!(draining.await.unwrap().is_none());
}
