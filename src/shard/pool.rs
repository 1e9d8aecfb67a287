//! The shards together: who goes where, and how to ask all of them.

mod readers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::{RwLock, oneshot, watch};

use super::balance::{Balance, choose_container, find_imbalance};
use super::command::{Checkpoint, Question, ShardCommand, SnapshotSlice};
use super::listener::NewListener;
use super::looks::ContainerStats;
use super::shared::{Gauges, PoolShared};
use super::worker::{Orders, Setup, Worker};
use crate::aggregate::AggregatorSettings;
use crate::model::{Allocation, Timestamp};
use crate::net::clock::Clock;
use crate::net::listener::Buffers;
use crate::net::process_identity::ProcessIdentity;
use crate::store::Store;

/// How long moving a container waits until no one looks for containers.
const PLACES: Duration = Duration::from_millis(100);

/// The shard's thread has ended: the agent is ending, or the shard panicked too often.
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
pub struct ShardId(pub(super) usize);

/// How shards are to work.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ShardPlan {
    /// How many there are.
    pub shards: usize,
    /// Bytes that all containers may use together.
    pub memory_limit: usize,
    /// Totals of series that are gone, of each level, and names without a series.
    pub remembered: usize,
    /// How long datagrams may gather before they are read.
    pub gather: Duration,
    /// Up to where the process before had closed windows, where there was one.
    pub not_before: Option<Timestamp>,
}

/// All shards.
#[derive(Debug)]
pub struct ShardPool {
    pub(super) shards: Vec<Shard>,
    pub(super) shared: Arc<PoolShared>,
    /// Where each container is. Locked for writing while one is moved, so that a request for containers finds every one.
    pub(super) places: Arc<RwLock<HashMap<Allocation, ShardId>>>,
    pub(super) balance: Mutex<Balance>,
}

#[derive(Debug)]
pub(super) struct Shard {
    commands: Mutex<Sender<ShardCommand>>,
    questions: Mutex<Sender<Question>>,
    wake: Arc<EventFd>,
    containers: AtomicUsize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ShardPool {
    /// Starts the shards' threads.
    ///
    /// # Errors
    /// When a thread, an epoll or an eventfd cannot be made.
    pub fn start(
        plan: &ShardPlan,
        store: &Arc<Store>,
        settings: &Arc<AggregatorSettings>,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let shared =
            Arc::new(PoolShared::new(plan.shards, plan.memory_limit, plan.remembered, Arc::clone(store)));
        let shards = (0..plan.shards).map(|index| {
            let (commands, received) = std::sync::mpsc::channel();
            let (questions, asked) = std::sync::mpsc::channel();
            let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
            let mut worker = Worker::new(Setup {
                index,
                gather: plan.gather,
                not_before: plan.not_before,
                orders: Orders { commands: received, questions: asked, wake: Arc::clone(&wake) },
                store: Arc::clone(store),
                settings: Arc::clone(settings),
                shared: Arc::clone(&shared),
                clock,
            })?;
            let name = format!("shard-{index}");
            let thread = std::thread::Builder::new().name(name).spawn(move || worker.run())?;
            Ok(Shard {
                commands: Mutex::new(commands),
                questions: Mutex::new(questions),
                wake,
                containers: AtomicUsize::new(0),
                thread: Mutex::new(Some(thread)),
            })
        });
        let (places, balance) = (Arc::default(), Mutex::new(Balance::new(plan.shards)));
        Ok(Self { shards: shards.collect::<std::io::Result<_>>()?, shared, places, balance })
    }

    /// Gives a container's socket to the shard that has the fewest.
    ///
    /// # Errors
    /// When that shard has ended or cannot watch another socket.
    pub async fn open(&self, new: NewListener) -> Result<(), OpenError> {
        self.open_all(vec![new]).await
    }

    /// The same for many. No shard waits for another, nor for us between two of them.
    ///
    /// # Errors
    /// When a shard has ended or cannot watch another socket; those that could be opened are open.
    pub async fn open_all(&self, all: Vec<NewListener>) -> Result<(), OpenError> {
        let mut asked = Vec::with_capacity(all.len());
        for new in all {
            let shards = self.shards.iter().enumerate();
            let fewest = shards.min_by_key(|(_, shard)| shard.containers.load(Ordering::Relaxed));
            let (index, shard) = fewest.ok_or(ShardGone)?;
            shard.increment_containers();
            asked.push((
                new.allocation,
                index,
                shard,
                shard.send_with_reply(|reply| ShardCommand::Open(new, reply)),
            ));
        }
        let (mut opened, mut failed) = (Vec::with_capacity(asked.len()), Ok(()));
        for (allocation, index, shard, answer) in asked {
            let error = match answer.await {
                Ok(Ok(())) => {
                    opened.push((allocation, ShardId(index)));
                    continue;
                }
                Ok(Err(error)) => OpenError::Watch(error.into()),
                Err(gone) => gone.into(),
            };
            shard.decrement_containers();
            failed = Err(error);
        }
        self.places.write().await.extend(opened);
        failed
    }

    pub(super) fn find_shard(&self, ShardId(index): ShardId) -> Result<&Shard, ShardGone> {
        self.shards.get(index).ok_or(ShardGone)
    }

    /// Empties a container's socket, closes its window, and lets it go. Answers how it stood at the end.
    ///
    /// # Errors
    /// When its shard has ended.
    pub async fn drain_container(&self, allocation: Allocation) -> Result<Option<ContainerStats>, ShardGone> {
        let (shard, answer) = {
            let mut places = self.places.write().await;
            let Some(place) = places.remove(&allocation) else { return Ok(None) };
            let shard = self.find_shard(place)?;
            // It is told before anybody else can take the container from it.
            (shard, shard.send_with_reply(|reply| ShardCommand::Drain(allocation, reply)))
        };
        let stats = match answer.await {
            // It failed at that and goes on, with what is left of the container.
            Err(ShardGone) => {
                let again = {
                    // While all containers are on their way to another process, that process drains this one.
                    let _places = self.places.write().await;
                    shard.send_with_reply(|reply| ShardCommand::Drain(allocation, reply))
                };
                again.await?
            }
            Ok(stats) => stats,
        };
        shard.decrement_containers();
        Ok(stats)
    }

    /// What has changed in the open windows of a shard's containers, from one place on, since it was asked for the file of
    /// this number; for another file, everything. It answers some containers at a time, so that receiving goes on.
    ///
    /// # Errors
    /// When the shard has ended.
    pub async fn checkpoint_shard(
        &self,
        shard: usize,
        from: usize,
        file: u64,
    ) -> Result<Checkpoint, ShardGone> {
        self.find_shard(ShardId(shard))?
            .send_with_reply(|reply| ShardCommand::Checkpoint(from, file, reply))
            .await
    }

    /// Snapshots of a shard's containers for the process that takes over, from one place on. It answers some containers at a time, so that
    /// receiving goes on.
    ///
    /// # Errors
    /// When the shard has ended.
    pub fn snapshot_ahead(
        &self,
        shard: usize,
        from: usize,
    ) -> impl Future<Output = Result<SnapshotSlice, ShardGone>> + use<> {
        // The shard is told now and not when the answer is waited for, so that all shards work at the same time.
        let shard = self.find_shard(ShardId(shard));
        let asked =
            shard.map(|shard| shard.send_with_reply(move |reply| ShardCommand::SnapshotAhead(from, reply)));
        async move { asked?.await }
    }

    /// How long it is until the next window is over; no time while windows are being closed.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn quiet_for(&self) -> Result<Duration, ShardGone> {
        let answers: Vec<_> =
            self.shards.iter().map(|shard| shard.send_with_reply(ShardCommand::Quiet)).collect();
        let mut least = Duration::MAX;
        for answer in answers {
            least = least.min(answer.await?);
        }
        Ok(least)
    }

    /// Says which processes a container's are, and waits until its shard knows.
    ///
    /// # Errors
    /// When its shard has ended.
    pub async fn set_container_processes(
        &self,
        allocation: Allocation,
        process_identity: ProcessIdentity,
    ) -> Result<(), ShardGone> {
        let places = self.places.read().await;
        let Some(place) = places.get(&allocation) else { return Ok(()) };
        self.find_shard(*place)?
            .send_with_reply(|reply| ShardCommand::SetContainerProcesses(allocation, process_identity, reply))
            .await
    }

    /// Applies new settings to every container.
    ///
    /// # Errors
    /// When a shard has ended.
    pub fn apply_settings(
        &self,
        settings: &Arc<AggregatorSettings>,
        memory_limit: usize,
        remembered: usize,
    ) -> Result<(), ShardGone> {
        self.shared.memory_limit.store(memory_limit, Ordering::Relaxed);
        self.shared.remembered.store(remembered, Ordering::Relaxed);
        self.shards
            .iter()
            .try_for_each(|shard| shard.send_command(ShardCommand::Configure(Arc::clone(settings))))
    }

    /// Drains every container and ends the threads. Answers how the containers stood at the end.
    pub async fn stop(&self) -> Vec<ContainerStats> {
        let answers: Vec<_> =
            self.shards.iter().map(|shard| (shard, shard.send_with_reply(ShardCommand::Stop))).collect();
        let mut stats_by_container = Vec::new();
        for (shard, answer) in answers {
            stats_by_container.extend(match answer.await {
                Ok(drained) => drained,
                // It failed at one of them, and goes on.
                Err(ShardGone) => shard.send_with_reply(ShardCommand::Stop).await.unwrap_or_default(),
            });
        }
        stats_by_container
    }

    /// The shards whose threads have ended.
    #[must_use]
    pub fn ended_shards(&self) -> Vec<usize> {
        let ended = |shard: &Shard| {
            let thread = shard.thread.lock().unwrap_or_else(PoisonError::into_inner);
            thread.as_ref().is_none_or(JoinHandle::is_finished)
        };
        self.shards.iter().enumerate().filter(|(_, shard)| ended(shard)).map(|(index, _)| index).collect()
    }

    /// Tells of shards that have failed and go on: how often that has happened.
    #[must_use]
    pub fn subscribe_failures(&self) -> watch::Receiver<u64> {
        self.shared.failures.subscribe()
    }

    /// The budget of all receive buffers.
    #[must_use]
    pub fn receive_buffers(&self) -> &Arc<Buffers> {
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

    /// Whether the node's memory for containers is used up.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.is_full()
    }

    /// What the shards tell about themselves.
    #[must_use]
    pub fn read_gauges(&self) -> Gauges {
        self.shared.read_gauges()
    }
}

impl ShardPool {
    /// Moves one container where a shard is hot and another is not; to be called about every second. Answers which.
    ///
    /// # Errors
    /// When a shard has ended.
    pub async fn balance_load(&self) -> Result<Option<Allocation>, ShardGone> {
        let busy: Vec<u64> = self.shared.busy.iter().map(|busy| busy.load(Ordering::Relaxed)).collect();
        let parts =
            self.balance.lock().unwrap_or_else(PoisonError::into_inner).busy_since(Instant::now(), busy);
        let Some((hot, cold, gap)) = find_imbalance(&parts) else { return Ok(None) };
        let work = self.find_shard(ShardId(hot))?.send_with_reply(ShardCommand::Work).await?;
        let work =
            self.balance.lock().unwrap_or_else(PoisonError::into_inner).work_since(Instant::now(), &work);
        let Some(allocation) = choose_container(&work, gap) else { return Ok(None) };
        if !self.move_to(allocation, ShardId(cold)).await? {
            return Ok(None);
        }
        tracing::info!(%allocation, from = hot, to = cold, "moved a container to another shard");
        Ok(Some(allocation))
    }

    /// Moves a container with its socket. Answers whether it did: if places stay in use, the next balancing tries again. A hand-over that
    /// succeeds never releases them, and the main loop, which waits for this, would never learn that it has succeeded.
    pub(super) async fn move_to(&self, allocation: Allocation, to: ShardId) -> Result<bool, ShardGone> {
        // No container is looked up meanwhile: one under way is nowhere.
        let Ok(mut places) = tokio::time::timeout(PLACES, self.places.write()).await else {
            return Ok(false);
        };
        let Some(from) = places.get(&allocation).copied() else { return Ok(false) };
        let Some(listener) =
            self.find_shard(from)?.send_with_reply(|reply| ShardCommand::Leave(allocation, reply)).await?
        else {
            return Ok(false);
        };
        match self.find_shard(to)?.send_with_reply(|reply| ShardCommand::Adopt(listener, reply)).await {
            // Should it fail at that, it has the container if anybody has.
            Ok(Ok(())) | Err(ShardGone) => {
                places.insert(allocation, to);
                self.find_shard(from)?.decrement_containers();
                self.find_shard(to)?.increment_containers();
            }
            // The kernel would not watch one more socket there; it has just watched it here.
            Ok(Err(listener)) => {
                let back = self
                    .find_shard(from)?
                    .send_with_reply(|reply| ShardCommand::Adopt(listener, reply))
                    .await?;
                back.map_err(|_| ShardGone)?;
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Shard {
    /// It has one container more.
    pub(super) fn increment_containers(&self) {
        self.containers.fetch_add(1, Ordering::Relaxed);
    }

    /// It has one container fewer.
    pub(super) fn decrement_containers(&self) {
        self.containers.fetch_sub(1, Ordering::Relaxed);
    }

    fn send_command(&self, command: ShardCommand) -> Result<(), ShardGone> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).send(command).map_err(|_| ShardGone)?;
        self.wake_up();
        Ok(())
    }

    /// Asks on behalf of a reader.
    fn send_question(&self, question: Question) -> Result<(), ShardGone> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send(question)
            .map_err(|_| ShardGone)?;
        self.wake_up();
        Ok(())
    }

    fn wake_up(&self) {
        // A full counter means that the shard has been woken already.
        let _either_way = self.wake.write(1);
    }

    /// Sends at once; the future only waits for the answer.
    pub(super) fn send_with_reply<T, F>(
        &self,
        command: F,
    ) -> impl Future<Output = Result<T, ShardGone>> + use<T, F>
    where
        F: FnOnce(oneshot::Sender<T>) -> ShardCommand,
    {
        let (reply, answer) = oneshot::channel();
        let told = self.send_command(command(reply));
        async move {
            told?;
            answer.await.map_err(|_| ShardGone)
        }
    }
}

#[cfg(test)]
mod tests;
