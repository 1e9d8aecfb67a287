//! The shards together: who goes where, and how to ask all of them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{mpsc, oneshot};

use super::command::{Command, Detail, Glimpse, NewListener, Of, TappedLine};
use super::worker::Worker;
use crate::aggregate::Settings;
use crate::model::Allocation;
use crate::net::buffers::Buffers;
use crate::net::clock::{Clock, Step};
use crate::store::Store;

/// A shard has ended, by a panic or because the agent is ending.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the shard has ended")]
pub struct ShardGone;

/// Why a shard did not take a socket.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It has ended.
    #[error(transparent)]
    Gone(#[from] ShardGone),
    /// The kernel would not watch the socket.
    #[error("cannot watch the socket")]
    Watch(#[source] std::io::Error),
}

/// Which shard a container is on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ShardId(usize);

/// How shards are to work.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// How many there are.
    pub shards: usize,
    /// Bytes that all containers may use together.
    pub memory_limit: usize,
    /// How long datagrams may gather before they are read.
    pub gather: Duration,
}

/// All shards.
#[derive(Debug)]
pub struct ShardPool {
    shards: Vec<Shard>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shard {
    commands: Mutex<Sender<Command>>,
    wake: Arc<EventFd>,
    containers: AtomicUsize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What shards tell about themselves.
#[derive(Debug)]
pub(super) struct Shared {
    memory: Vec<AtomicUsize>,
    memory_limit: AtomicUsize,
    steps_forward: AtomicU64,
    steps_back: AtomicU64,
    pub(super) buffers: Arc<Buffers>,
    /// How long closing windows kept a shard from receiving at one go, in microseconds.
    close: Mutex<Histogram<u64>>,
}

/// What shards tell about themselves, for the agent's own metrics.
#[derive(Debug)]
pub struct Gauges {
    /// Bytes of all aggregators.
    pub memory: usize,
    /// How often the clock was set forward.
    pub steps_forward: u64,
    /// How often the clock was set back.
    pub steps_back: u64,
    /// How long closing windows kept a shard from receiving at one go, in microseconds.
    pub close: Histogram<u64>,
}

impl Shared {
    fn new(shards: usize, memory_limit: usize) -> Self {
        Self {
            memory: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            memory_limit: AtomicUsize::new(memory_limit),
            steps_forward: AtomicU64::new(0),
            steps_back: AtomicU64::new(0),
            // Nothing grows before the container table has said how far.
            buffers: Arc::new(Buffers::new(0, 0)),
            close: Mutex::new(histogram()),
        }
    }

    /// All shards see a step; the first counts it.
    pub(super) fn count_step(&self, shard: usize, step: Step) {
        if shard == 0 {
            match step {
                Step::Forward(_) => &self.steps_forward,
                Step::Back(_) => &self.steps_back,
            }
            .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes how long closing windows kept a shard from receiving.
    pub(super) fn held_up(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.close.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    /// Notes a shard's memory; answers whether the node's is used up.
    pub(super) fn is_full_with(&self, shard: usize, memory: usize) -> bool {
        if let Some(mine) = self.memory.get(shard) {
            mine.store(memory, Ordering::Relaxed);
        }
        self.total_memory() >= self.memory_limit.load(Ordering::Relaxed)
    }

    fn total_memory(&self) -> usize {
        self.memory.iter().map(|memory| memory.load(Ordering::Relaxed)).sum()
    }
}

/// Microseconds up to an hour, two significant digits: some kilobytes.
fn histogram() -> Histogram<u64> {
    let bounds = Histogram::new_with_bounds(1, 3_600_000_000, 2);
    #[expect(clippy::expect_used, reason = "the bounds are constants, and a test makes one")]
    bounds.expect("the bounds are sound")
}

impl ShardPool {
    /// Starts the shards' threads.
    ///
    /// # Errors
    /// When a thread, an epoll or an eventfd cannot be made.
    pub fn start(
        plan: &Plan,
        store: &Arc<Store>,
        settings: &Arc<Settings>,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(plan.shards, plan.memory_limit));
        let shards = (0..plan.shards).map(|index| {
            let (commands, received) = std::sync::mpsc::channel();
            let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
            let parts = (Arc::clone(store), Arc::clone(settings), Arc::clone(&shared), clock);
            let mut worker = Worker::new(index, plan.gather, (received, Arc::clone(&wake)), parts)?;
            let name = format!("shard-{index}");
            let thread = std::thread::Builder::new().name(name).spawn(move || worker.run())?;
            Ok(Shard {
                commands: Mutex::new(commands),
                wake,
                containers: AtomicUsize::new(0),
                thread: Mutex::new(Some(thread)),
            })
        });
        Ok(Self { shards: shards.collect::<std::io::Result<_>>()?, shared })
    }

    /// Gives a container's socket to the shard that has the fewest.
    ///
    /// # Errors
    /// When that shard has ended or cannot watch another socket.
    pub async fn open(&self, new: NewListener) -> Result<ShardId, OpenError> {
        let fewest =
            self.shards.iter().enumerate().min_by_key(|(_, shard)| shard.containers.load(Ordering::Relaxed));
        let (index, shard) = fewest.ok_or(ShardGone)?;
        shard.containers.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = shard.ask(|reply| Command::Open(new, reply)).await? {
            shard.containers.fetch_sub(1, Ordering::Relaxed);
            return Err(OpenError::Watch(error.into()));
        }
        Ok(ShardId(index))
    }

    /// Empties a container's socket, closes its window, and lets it go. Answers how it stood at the end.
    ///
    /// # Errors
    /// When its shard has ended.
    pub async fn drain(
        &self,
        ShardId(index): ShardId,
        allocation: Allocation,
    ) -> Result<Option<Glimpse>, ShardGone> {
        let shard = self.shards.get(index).ok_or(ShardGone)?;
        let glimpse = shard.ask(|reply| Command::Drain(allocation, reply)).await?;
        shard.containers.fetch_sub(1, Ordering::Relaxed);
        Ok(glimpse)
    }

    /// How containers stand, without their open windows.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn counts(&self, of: &Of) -> Result<Vec<Glimpse>, ShardGone> {
        self.look(of, Detail::Counts).await
    }

    /// How containers stand, with their open windows.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn open_windows(&self, of: &Of) -> Result<Vec<Glimpse>, ShardGone> {
        self.look(of, Detail::OpenWindow).await
    }

    async fn look(&self, of: &Of, detail: Detail) -> Result<Vec<Glimpse>, ShardGone> {
        // All are asked before the first answer is waited for.
        let answers: Vec<_> = self
            .shards
            .iter()
            .map(|shard| shard.ask(|reply| Command::Look(of.clone(), detail, reply)))
            .collect();
        let mut glimpses = Vec::new();
        for answer in answers {
            glimpses.extend(answer.await?);
        }
        Ok(glimpses)
    }

    /// Copies of a container's lines as they arrive, at most `room` waiting.
    ///
    /// # Errors
    /// When its shard has ended.
    pub fn tap(
        &self,
        ShardId(index): ShardId,
        allocation: Allocation,
        room: usize,
    ) -> Result<mpsc::Receiver<TappedLine>, ShardGone> {
        let (to, lines) = mpsc::channel(room);
        self.shards.get(index).ok_or(ShardGone)?.tell(Command::Tap(allocation, to))?;
        Ok(lines)
    }

    /// Applies new settings to every container.
    ///
    /// # Errors
    /// When a shard has ended.
    pub fn configure(&self, settings: &Arc<Settings>, memory_limit: usize) -> Result<(), ShardGone> {
        self.shared.memory_limit.store(memory_limit, Ordering::Relaxed);
        self.shards.iter().try_for_each(|shard| shard.tell(Command::Configure(Arc::clone(settings))))
    }

    /// Drains every container and ends the threads. Answers how the containers stood at the end.
    pub async fn stop(&self) -> Vec<Glimpse> {
        let answers: Vec<_> = self.shards.iter().map(|shard| shard.ask(Command::Stop)).collect();
        let mut glimpses = Vec::new();
        for answer in answers {
            glimpses.extend(answer.await.unwrap_or_default());
        }
        glimpses
    }

    /// The shards whose threads have ended.
    #[must_use]
    pub fn ended(&self) -> Vec<usize> {
        let ended = |shard: &Shard| {
            let thread = shard.thread.lock().unwrap_or_else(PoisonError::into_inner);
            thread.as_ref().is_none_or(JoinHandle::is_finished)
        };
        self.shards.iter().enumerate().filter(|(_, shard)| ended(shard)).map(|(index, _)| index).collect()
    }

    /// The budget of all receive buffers.
    #[must_use]
    pub fn buffers(&self) -> &Arc<Buffers> {
        &self.shared.buffers
    }

    /// How many shards there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether there are none; there is always one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// What the shards tell about themselves.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            memory: self.shared.total_memory(),
            steps_forward: self.shared.steps_forward.load(Ordering::Relaxed),
            steps_back: self.shared.steps_back.load(Ordering::Relaxed),
            close: self.shared.close.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Shard {
    fn tell(&self, command: Command) -> Result<(), ShardGone> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).send(command).map_err(|_| ShardGone)?;
        // A full counter means that the shard has been woken already.
        let _either_way = self.wake.write(1);
        Ok(())
    }

    /// Sends at once; the future only waits for the answer.
    fn ask<T, F>(&self, command: F) -> impl Future<Output = Result<T, ShardGone>> + use<T, F>
    where
        F: FnOnce(oneshot::Sender<T>) -> Command,
    {
        let (reply, answer) = oneshot::channel();
        let told = self.tell(command(reply));
        async move {
            told?;
            answer.await.map_err(|_| ShardGone)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::aggregate::GaugeSign;
    use crate::model::{ContainerId, Generation, Labels, Origin, TaskId};
    use crate::net::listener;

    struct Node {
        store: Arc<Store>,
        pool: ShardPool,
    }

    fn node(shards: usize) -> Node {
        let store = Arc::new(Store::new(1, 30));
        let settings = Arc::new(Settings { window: Duration::from_secs(1), ..Settings::default() });
        let plan = Plan { shards, memory_limit: usize::MAX, gather: Duration::from_millis(10) };
        let pool = ShardPool::start(&plan, &store, &settings, Clock::default()).unwrap();
        Node { store, pool }
    }

    async fn open(node: &Node, allocation: u64) -> (ShardId, UdpSocket) {
        let container_id = ContainerId::new(&format!("c{allocation}")).unwrap();
        let task_id = TaskId::from(&container_id);
        let origin =
            Arc::new(Origin { container_id, generation: Generation(1), task_id, labels: Labels::new() });
        let socket = listener::open("127.0.0.1:0".parse().unwrap(), 262_144).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(socket.local_addr().unwrap()).unwrap();
        let new =
            NewListener { allocation: Allocation(allocation), origin, socket, gauge_sign: GaugeSign::Delta };
        (node.pool.open(new).await.unwrap(), sender)
    }

    fn sums(node: &Node, allocation: u64) -> f64 {
        let history = node.store.history(Allocation(allocation)).unwrap();
        let records = history.kept().flat_map(crate::store::Kept::records);
        let sum = |view: &crate::aggregate::View<'_>| match view {
            crate::aggregate::View::Counter { counter, .. } => counter.sum,
            _ => 0.0,
        };
        records.map(|(_, _, record)| sum(&record.view)).sum()
    }

    #[tokio::test]
    async fn what_was_sent_is_there_after_a_drain() {
        let node = node(2);
        let mut senders = Vec::new();
        for allocation in 0..4 {
            senders.push(open(&node, allocation).await);
        }
        for (n, (_, sender)) in (1..).zip(&senders) {
            for _ in 0..100 {
                sender.send(format!("a:{n}|c").as_bytes()).unwrap();
            }
        }
        for (allocation, (shard, _)) in (0..).zip(&senders) {
            let glimpse = node.pool.drain(*shard, Allocation(allocation)).await.unwrap().unwrap();
            assert_eq!((glimpse.accounting.received, glimpse.accounting.in_records), (100, 100));
            assert!(glimpse.accounting.balanced(0));
            assert_eq!(sums(&node, allocation), 100.0 * (allocation + 1) as f64);
        }
    }

    #[tokio::test]
    async fn the_open_window_can_be_looked_at() {
        let node = node(1);
        let (_, sender) = open(&node, 1).await;
        sender.send(b"a:1|c\nbad").unwrap();
        let glimpse = loop {
            let glimpse = node.pool.open_windows(&Of::All).await.unwrap().remove(0);
            if glimpse.accounting.received > 0 {
                break glimpse;
            }
        };
        assert_eq!((glimpse.series, glimpse.rejected.len()), (1, 1));
        assert!(
            glimpse.open.is_some_and(|(window, _)| window.len() == 1) || glimpse.accounting.in_records == 1
        );
    }

    #[tokio::test]
    async fn windows_close_without_traffic() {
        let node = node(1);
        let (_, sender) = open(&node, 1).await;
        sender.send(b"a:1|c").unwrap();
        let mut newest = node.store.subscribe();
        tokio::time::timeout(Duration::from_secs(5), newest.wait_for(|seq| *seq > 0)).await.unwrap().unwrap();
        assert_eq!(sums(&node, 1), 1.0);
        // It is noted a moment after the window can be read.
        while node.pool.gauges().close.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn lines_can_be_tailed_and_a_slow_reader_is_told_what_it_missed() {
        let node = node(1);
        let (shard, sender) = open(&node, 1).await;
        let mut lines = node.pool.tap(shard, Allocation(1), 2).unwrap();
        node.pool.counts(&Of::All).await.unwrap();
        sender.send(b"a:1|c\nbad\nb:1|c\nc:1|c").unwrap();
        let received = async || node.pool.counts(&Of::All).await.unwrap()[0].accounting.received;
        while received().await < 1 {}
        let (first, second) = (lines.recv().await.unwrap(), lines.recv().await.unwrap());
        assert_eq!((first.line.as_slice(), first.rejected), (b"a:1|c".as_slice(), None));
        assert_eq!(second.rejected.map(crate::statsd::Rejected::code), Some("missing_type"));
        sender.send(b"d:1|c").unwrap();
        assert_eq!(lines.recv().await.unwrap().lost, 2);
    }

    #[tokio::test]
    async fn stopping_drains_everything_and_then_nothing_answers() {
        let node = node(2);
        let (shard, sender) = open(&node, 1).await;
        sender.send(b"a:1|c").unwrap();
        let glimpses = node.pool.stop().await;
        assert_eq!(glimpses.iter().map(|glimpse| glimpse.accounting.in_records).sum::<u64>(), 1);
        assert!(node.pool.drain(shard, Allocation(1)).await.is_err());
        while node.pool.ended().len() < 2 {
            tokio::task::yield_now().await;
        }
    }
}
