use std::net::UdpSocket;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::*;
use crate::aggregate::{Accounting, Dropped, GaugeSign, REVISED_TOGETHER, TimerUnit};
use crate::model::{ContainerId, Generation, Labels, Origin, TaskId};
use crate::net::listener;
use crate::shard::listener::NewListener;
use crate::shard::stats_queries::{ContainerSelection, StatsDetail};

struct Bench {
    worker: Worker,
    commands: std::sync::mpsc::Sender<ShardCommand>,
    questions: std::sync::mpsc::Sender<Question>,
}

/// A shard without a thread; the test runs its turns.
fn bench() -> Bench {
    let (commands, received) = std::sync::mpsc::channel();
    let (questions, asked) = std::sync::mpsc::channel();
    let wake = Arc::new(EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_NONBLOCK).unwrap());
    let (store, settings) = (Arc::new(Store::new(1, 30)), Arc::new(AggregatorSettings::default()));
    let shared = Arc::new(PoolShared::new(1, usize::MAX, 1000, Arc::clone(&store)));
    let channels = ShardChannels { commands: received, questions: asked, wake };
    let (gather, not_before, clock) = (Duration::ZERO, None, Clock::default());
    let setup = Setup { index: 0, gather, not_before, channels, store, settings, shared, clock };
    let worker = Worker::new(setup).unwrap();
    Bench { worker, commands, questions }
}

impl Bench {
    /// Opens a container's socket; returns a socket that sends to it.
    fn open(&mut self, n: u64) -> UdpSocket {
        let container_id = ContainerId::new(&format!("c{n}")).unwrap();
        let task_id = TaskId::from(&container_id);
        let origin = Origin { container_id, generation: Generation(1), task_id, labels: Labels::new() };
        let socket = listener::open("127.0.0.1:0".parse().unwrap(), 262_144).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(socket.local_addr().unwrap()).unwrap();
        let new = NewListener {
            allocation: Allocation(n),
            origin: Arc::new(origin),
            socket: Some(socket),
            unix: None,
            gauge_sign: GaugeSign::Delta,
            timer_unit: TimerUnit::default(),
            before: None,
        };
        self.worker.open(new).unwrap();
        sender
    }

    /// Adds a datagram to a container's open window.
    fn take_in(&mut self, n: u64, datagram: &[u8]) {
        let now = self.worker.observe_clock();
        self.worker.find(Allocation(n)).unwrap().aggregator.ingest_datagram(datagram, now, None);
    }

    fn execute_commands(&mut self) -> LoopControl {
        let now = self.worker.clock.monotonic_time();
        self.worker.execute_commands(now)
    }

    fn close_windows_for(&mut self, time: Duration) {
        let now = self.worker.observe_clock();
        self.worker.close_windows_for(time, now);
    }

    /// The end of a container's open window.
    fn end(&mut self, n: u64) -> Timestamp {
        self.worker.find(Allocation(n)).unwrap().aggregator.window_end()
    }

    fn received(&mut self, n: u64) -> u64 {
        self.worker.find(Allocation(n)).unwrap().aggregator.accounting().received
    }

    /// The number of published windows and revisions of a container.
    fn published(&self, n: u64) -> usize {
        self.worker.store.find_history(Allocation(n)).unwrap().published_windows().count()
    }

    /// The node's count of held bytes, and a recount.
    fn memory(&mut self) -> (usize, usize) {
        let mut recounted = self.worker.store.recount_held_bytes();
        for listener in self.worker.listeners.iter_mut().flatten() {
            recounted += listener.aggregator.own_memory();
            recounted += listener.pending().map_or(0, |pending| pending.recount_bytes());
        }
        (self.worker.store.held_bytes(), recounted)
    }

    fn accounting(&mut self, n: u64) -> Accounting {
        self.worker.find(Allocation(n)).unwrap().aggregator.accounting().clone()
    }

    /// Closes a container's window with late samples of this many series, and returns the container's place.
    fn late(&mut self, n: u64, series: usize) -> usize {
        let end = self.end(n);
        let at = end.saturating_sub(Duration::from_secs(15)).as_secs();
        self.take_in(n, b"now:1|c");
        for name in 0..series {
            self.take_in(n, format!("s{name}:1|c|T{at}").as_bytes());
        }
        let place = self.worker.places[&Allocation(n)];
        self.worker.close_window_if_over(place, end);
        place
    }
}

/// The number of requests that have been answered so far, in the order of the requests.
fn answered<T>(answers: &mut [oneshot::Receiver<T>]) -> usize {
    answers.iter_mut().map(|answer| answer.try_recv().is_ok()).take_while(|answered| *answered).count()
}

#[test]
fn commands_beyond_a_turns_share_are_obeyed_in_the_next_turns() {
    let mut bench = bench();
    let mut answers = Vec::new();
    for _ in 0..1000 {
        let (reply, answer) = oneshot::channel();
        bench.commands.send(ShardCommand::Work(reply)).unwrap();
        answers.push(answer);
    }
    let mut turns = 0;
    while !answers.is_empty() {
        assert!(matches!(bench.execute_commands(), LoopControl::Go));
        let done = answered(&mut answers);
        assert!((1..=256).contains(&done), "{done} in one turn");
        answers.drain(..done);
        turns += 1;
    }
    assert!(turns >= 4);
    assert!(matches!(bench.execute_commands(), LoopControl::Go));
    assert!(!bench.worker.commands_left);
}

#[test]
fn a_command_does_not_wait_for_readers_however_many_they_are() {
    let mut bench = bench();
    let mut queries = Vec::new();
    for _ in 0..10_000 {
        let (reply, answer) = oneshot::channel();
        bench.questions.send(Question::Stats(ContainerSelection::All, StatsDetail::Counts, reply)).unwrap();
        queries.push(answer);
    }
    let (reply, answer) = oneshot::channel();
    bench.commands.send(ShardCommand::Work(reply)).unwrap();
    assert!(matches!(bench.execute_commands(), LoopControl::Go));
    assert_eq!((answered(&mut [answer]), answered(&mut queries)), (1, 0));
    bench.worker.take_in_questions();
    bench.worker.answer_readers();
    assert!(answered(&mut queries) <= 1024, "questions are taken in by slices, too");
}

#[test]
fn sockets_that_are_left_over_keep_their_turn() {
    let mut bench = bench();
    let senders: Vec<_> = (0..3).map(|n| bench.open(n)).collect();
    for sender in &senders {
        sender.send(b"a:1|c").unwrap();
    }
    bench.worker.ready.extend([0, 1, 2]);
    bench.worker.drain_ready_for(Duration::ZERO);
    assert_eq!((bench.received(0), bench.received(1)), (1, 0), "one socket is read, however short the time");
    assert_eq!(bench.worker.ready, [1, 2]);
    assert!(bench.worker.has_work(), "the next turn does not wait");
    bench.worker.drain_ready_for(Duration::from_mins(1));
    assert_eq!([0, 1, 2].map(|n| bench.received(n)), [1, 1, 1]);
}

#[test]
fn sockets_that_are_read_in_several_turns_are_learned_from_together() {
    let mut bench = bench();
    let senders: Vec<_> = (0..2).map(|n| bench.open(n)).collect();
    for sender in &senders {
        sender.send(b"a:1|c").unwrap();
    }
    bench.worker.ready.extend([0, 1]);
    bench.worker.drain_ready_for(Duration::ZERO);
    assert_eq!(bench.worker.drained_at, Duration::ZERO, "the pass goes on");
    let between = bench.worker.observe_clock().mono;
    bench.worker.drain_ready_for(Duration::ZERO);
    assert!(bench.worker.drain_began <= between, "the pass began with its first turn");
    assert!(bench.worker.drained_at >= between && bench.worker.pass.is_none());
}

#[test]
fn windows_say_what_a_hand_over_that_failed_left_unread() {
    for (paused, told) in [(Duration::from_secs(1), false), (Duration::from_secs(3), true)] {
        let mut bench = bench();
        let _sender = bench.open(1);
        let (reply, mut leaving) = oneshot::channel();
        bench.commands.send(ShardCommand::Suspend(reply)).unwrap();
        assert!(matches!(bench.execute_commands(), LoopControl::Go));
        let since = bench.worker.suspended.unwrap();
        let back = Moment { wall: since.wall.saturating_add(paused), mono: since.mono + paused };
        bench.worker.note_suspension(back);
        let unread = bench.worker.unread.map(|unread| (unread.from, unread.until));
        assert_eq!(unread, told.then_some((since.wall, back.wall)), "{paused:?}");
        let (reply, _adopted) = oneshot::channel();
        let (mut listeners, _) = leaving.try_recv().unwrap();
        bench.commands.send(ShardCommand::Adopt(listeners.remove(0), reply)).unwrap();
        bench.worker.suspended = Some(since);
        assert!(matches!(bench.execute_commands(), LoopControl::Go));
        assert!(bench.worker.suspended.is_none(), "it is noted as the first comes back");
    }
}

#[test]
fn a_round_of_closing_goes_on_where_it_stopped() {
    let mut bench = bench();
    for n in 0..3 {
        let _sender = bench.open(n);
        bench.take_in(n, b"a:1|c");
    }
    // As if all windows had ended.
    bench.worker.next_end = Timestamp::MIN;
    for turns in 1..=3 {
        bench.close_windows_for(Duration::ZERO);
        assert_eq!(bench.worker.closing.is_some(), turns < 3, "turn {turns}");
    }
    assert!(bench.worker.next_end > Timestamp::MIN);
}

#[test]
fn late_samples_are_merged_part_by_part_and_published_together() {
    let mut bench = bench();
    let _sender = bench.open(1);
    let place = bench.late(1, 3 * REVISED_TOGETHER + 1);
    assert_eq!((bench.worker.merging.len(), bench.published(1)), (1, 0));
    let mut parts = 1;
    while bench.worker.merge_one(place) {
        assert_eq!(bench.published(1), 0, "readers see all of it or nothing");
        parts += 1;
    }
    assert_eq!((parts, bench.published(1)), (4, 5), "four parts of a revision, and the window");
}

#[test]
fn a_container_that_leaves_its_shard_has_its_late_samples_published_before() {
    let mut bench = bench();
    let _sender = bench.open(1);
    bench.late(1, 3 * REVISED_TOGETHER);
    let listener = bench.worker.release_listener(Allocation(1)).unwrap();
    assert_eq!((bench.published(1), listener.aggregator.accounting().in_records), (4, 3 * 1024 + 1));
    bench.worker.merge_late();
    assert!(!bench.worker.has_work());
}

#[test]
fn a_window_is_published_after_the_one_before_it() {
    let mut bench = bench();
    let _sender = bench.open(1);
    let place = bench.late(1, 2 * REVISED_TOGETHER);
    bench.take_in(1, b"now:1|c");
    let end = bench.end(1);
    bench.worker.close_window_if_over(place, end);
    let history = bench.worker.store.find_history(Allocation(1)).unwrap();
    let places: Vec<_> = history.published_windows().map(|published| published.first_seq()).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(places.len(), 4);
}

#[test]
fn late_samples_that_a_failed_shard_leaves_out_are_counted_as_lost() {
    let mut bench = bench();
    let _sender = bench.open(1);
    let place = bench.late(1, 3 * REVISED_TOGETHER + 1);
    assert!(bench.worker.merge_one(place));
    bench.worker.resume_after_panic(&"while it merged");
    let counts = bench.accounting(1);
    let merged = REVISED_TOGETHER as u64;
    assert_eq!((bench.published(1), counts.in_records), (2, merged + 1), "a revision, and the window");
    assert_eq!(counts.dropped.count_for(Dropped::ShardFailed), 2 * merged + 1);
    assert!(counts.is_balanced(0), "{counts:?}");
}

#[test]
fn a_part_whose_merging_panics_is_counted_as_lost() {
    let mut bench = bench();
    let _sender = bench.open(1);
    let place = bench.late(1, 2 * REVISED_TOGETHER);
    assert!(bench.worker.merge_one(place));
    let pending = bench.worker.find(Allocation(1)).unwrap().pending().unwrap();
    let panics = || pending.merge_one_with(|_| panic!("as a defect would"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    bench.worker.resume_after_panic(&"while it merged");
    let counts = bench.accounting(1);
    let merged = REVISED_TOGETHER as u64;
    assert_eq!((counts.in_records, counts.dropped.count_for(Dropped::ShardFailed)), (merged + 1, merged));
    assert!(counts.is_balanced(0), "{counts:?}");
}

#[test]
fn a_window_whose_publishing_panics_is_counted_as_lost() {
    let mut bench = bench();
    let _sender = bench.open(1);
    bench.take_in(1, b"a:1|c\nb:1:2:3|ms");
    let end = bench.end(1);
    let listener = bench.worker.find(Allocation(1)).unwrap();
    let closed = listener.aggregator.roll_window(end).unwrap();
    let panics = || listener.publish_with(closed.values, || panic!("as a defect would"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    bench.worker.resume_after_panic(&"while it published");
    let counts = bench.accounting(1);
    assert_eq!((counts.in_records, counts.dropped.count_for(Dropped::ShardFailed)), (0, 4));
    assert!(counts.is_balanced(0), "{counts:?}");
}

#[test]
fn a_window_that_waits_for_its_late_samples_counts_as_memory_of_its_container_and_the_node() {
    let mut bench = bench();
    let _sender = bench.open(1);
    let place = bench.late(1, 3 * REVISED_TOGETHER + 1);
    let mut steps = 0;
    loop {
        let (held, recounted) = bench.memory();
        assert_eq!(held, recounted, "after {steps} parts");
        let kept = bench.worker.store.kept_bytes(Allocation(1));
        let listener = bench.worker.find(Allocation(1)).unwrap();
        let waiting = listener.pending().map_or(0, |pending| pending.recount_bytes());
        assert_eq!(waiting == 0, steps == 4);
        let own = listener.aggregator.own_memory();
        assert_eq!(listener.aggregator.memory_bytes(), own + kept + waiting, "after {steps} parts");
        if steps == 4 {
            break;
        }
        bench.worker.merge_one(place);
        steps += 1;
    }
}

#[test]
fn a_container_that_has_ended_is_counted_once_at_once() {
    let mut bench = bench();
    let _sender = bench.open(1);
    let _other = bench.open(2);
    bench.take_in(1, format!("a:1|c|#tag:{}", "x".repeat(5000)).as_bytes());
    bench.worker.next_end = Timestamp::MIN;
    bench.close_windows_for(Duration::from_mins(1));
    let (held, recounted) = bench.memory();
    assert_eq!(held, recounted);
    let (reply, _answer) = oneshot::channel();
    bench.worker.begin_drain(Allocation(1), reply);
    bench.worker.drain_rest();
    let (held, recounted) = bench.memory();
    assert_eq!(held, recounted, "without another round of closing windows");
}

#[test]
fn a_container_that_ends_is_drained_over_several_turns() {
    let mut bench = bench();
    let sender = bench.open(1);
    for _ in 0..500 {
        sender.send(b"a:1|c").unwrap();
    }
    let (reply, mut answer) = oneshot::channel();
    bench.worker.begin_drain(Allocation(1), reply);
    bench.worker.drain_step();
    assert!(bench.worker.has_work() && answered(std::slice::from_mut(&mut answer)) == 0);
    bench.worker.drain_rest();
    let stats = answer.try_recv().unwrap().unwrap();
    assert_eq!((stats.accounting.received, stats.accounting.in_records), (500, 500));
}

#[test]
fn a_shard_that_lets_its_containers_go_does_not_drain_those_that_end_before() {
    let mut bench = bench();
    let sender = bench.open(1);
    for _ in 0..500 {
        sender.send(b"a:1|c").unwrap();
    }
    let (reply, mut ended) = oneshot::channel();
    bench.worker.begin_drain(Allocation(1), reply);
    bench.worker.drain_step();
    let (reply, mut suspended) = oneshot::channel();
    bench.commands.send(ShardCommand::Suspend(reply)).unwrap();
    assert!(matches!(bench.execute_commands(), LoopControl::Go));
    let (listeners, _) = suspended.try_recv().unwrap();
    assert_eq!((listeners.len(), answered(std::slice::from_mut(&mut ended))), (1, 0));
    assert_eq!(listeners[0].aggregator.accounting().received, 256);
    // It comes back, and its drain continues.
    for listener in listeners {
        bench.worker.adopt_listener(listener).unwrap();
    }
    bench.worker.drain_rest();
    assert_eq!(ended.try_recv().unwrap().unwrap().accounting.received, 500);
    assert!(bench.worker.places.is_empty());
}

#[test]
fn a_container_that_is_sent_to_without_end_ends_all_the_same() {
    let mut bench = bench();
    let sender = bench.open(1);
    let (reply, mut answer) = oneshot::channel();
    bench.worker.begin_drain(Allocation(1), reply);
    let mut steps = 0;
    while answered(std::slice::from_mut(&mut answer)) == 0 {
        for _ in 0..300 {
            sender.send(b"a:1|c").unwrap();
        }
        bench.worker.drain_step();
        steps += 1;
        assert!(steps < 100, "it goes on for ever");
    }
}

#[test]
fn a_container_that_comes_to_a_full_node_gets_no_new_series() {
    let mut bench = bench();
    let _sender = bench.open(1);
    bench.take_in(1, b"a:1|c");
    bench.worker.shared.memory_limit.store(0, Ordering::Relaxed);
    let _other = bench.open(2);
    bench.take_in(2, b"a:1|g");
    assert_eq!(bench.accounting(2).dropped.count_for(Dropped::NodeMemory), 1);
    bench.take_in(1, b"b:1|g");
    assert_eq!(
        bench.accounting(1).dropped.count_for(Dropped::NodeMemory),
        0,
        "it is told when its window is closed"
    );
    let moved = bench.worker.release_listener(Allocation(1)).unwrap();
    bench.worker.adopt_listener(moved).unwrap();
    bench.take_in(1, b"c:1|g");
    assert_eq!(bench.accounting(1).dropped.count_for(Dropped::NodeMemory), 1);
}

#[test]
fn a_container_that_fills_the_node_within_a_window_is_stopped_within_it() {
    let mut bench = bench();
    let sender = bench.open(1);
    let limit = bench.worker.store.held_bytes() + (1 << 20);
    bench.worker.shared.memory_limit.store(limit, Ordering::Relaxed);
    let place = bench.worker.places[&Allocation(1)];
    for n in 0..2000 {
        let lines = (0..10).map(|m| format!("a.name.of.its.own.{n}.{m}:1|g")).collect::<Vec<_>>();
        sender.send(lines.join("\n").as_bytes()).unwrap();
        let now = bench.worker.observe_clock();
        bench.worker.read_socket(place as u64, Duration::ZERO, now);
    }
    let (_, recounted) = bench.memory();
    // The last table that grew may have doubled.
    assert!((limit..2 * limit).contains(&recounted), "{recounted} of {limit}");
    assert!(bench.accounting(1).dropped.count_for(Dropped::NodeMemory) > 0);
}
