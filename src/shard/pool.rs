//! All shards together: assigns containers to shards, and sends requests to all of them.

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
use super::shared::{PoolMeasurements, PoolShared};
use super::stats_queries::ContainerStats;
use super::worker::{Setup, ShardChannels, Worker};
use crate::aggregate::AggregatorSettings;
use crate::model::{Allocation, Timestamp};
use crate::net::clock::Clock;
use crate::net::listener::Buffers;
use crate::net::process_identity::ProcessIdentity;
use crate::store::Store;

/// How long moving a container waits for the write lock on the table of places.
const PLACES: Duration = Duration::from_millis(100);

/// The shard's thread has ended: the agent is ending, or the shard panicked too often.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the shard has ended")]
pub struct ShardGone;

/// Why a shard did not take a socket.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The shard has ended.
    #[error(transparent)]
    Gone(#[from] ShardGone),
    /// The kernel refused to watch the socket.
    #[error("cannot watch the socket")]
    Watch(#[source] std::io::Error),
}

/// Which shard a container is on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ShardId(pub(super) usize);

/// Parameters of the shards.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ShardPlan {
    /// The number of shards.
    pub shards: usize,
    /// Memory limit of all containers together, in bytes.
    pub memory_limit: usize,
    /// Maximum number of remembered totals of removed series at each level, and of names without a series.
    pub remembered: usize,
    /// How long datagrams may gather before they are read.
    pub gather: Duration,
    /// The end of the last window that the previous process closed, if there was one.
    pub not_before: Option<Timestamp>,
}

/// All shards.
#[derive(Debug)]
pub struct ShardPool {
    pub(super) shards: Vec<Shard>,
    pub(super) shared: Arc<PoolShared>,
    /// The shard of each container. Write-locked while one is moved, so that a request for containers finds all of
    /// them.
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
    /// When a thread, an epoll instance or an eventfd cannot be created.
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
                channels: ShardChannels { commands: received, questions: asked, wake: Arc::clone(&wake) },
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

    /// Assigns a container's socket to the shard with the fewest containers.
    ///
    /// # Errors
    /// When that shard has ended or cannot watch another socket.
    pub async fn open(&self, new: NewListener) -> Result<(), OpenError> {
        self.open_all(vec![new]).await
    }

    /// Like [`ShardPool::open`], for many containers. All requests are sent before the first reply is awaited.
    ///
    /// # Errors
    /// When a shard has ended or cannot watch another socket; the sockets that could be opened stay open.
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

    /// Empties a container's socket, closes its window, and releases it. Returns its final statistics.
    ///
    /// # Errors
    /// When its shard has ended.
    pub async fn drain_container(&self, allocation: Allocation) -> Result<Option<ContainerStats>, ShardGone> {
        let (shard, answer) = {
            let mut places = self.places.write().await;
            let Some(place) = places.remove(&allocation) else { return Ok(None) };
            let shard = self.find_shard(place)?;
            // The command is sent under the lock, before the container can be moved to another shard.
            (shard, shard.send_with_reply(|reply| ShardCommand::Drain(allocation, reply)))
        };
        let stats = match answer.await {
            // The shard panicked while draining and has recovered; the container is still there.
            Err(ShardGone) => {
                let again = {
                    // A hand-over holds this lock; if it succeeds, the new process drains the container.
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

    /// The changes in the open windows of a shard's containers, from one place on, since the last checkpoint in the
    /// file of this number; for a new file, everything. Each call covers only some containers, so that receiving
    /// continues.
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

    /// Snapshots of a shard's containers for the process that takes over, from one place on. Each call covers only some
    /// containers, so that receiving continues.
    ///
    /// # Errors
    /// When the shard has ended.
    pub fn snapshot_ahead(
        &self,
        shard: usize,
        from: usize,
    ) -> impl Future<Output = Result<SnapshotSlice, ShardGone>> + use<> {
        // The command is sent now, not when the reply is awaited, so that all shards work in parallel.
        let shard = self.find_shard(ShardId(shard));
        let asked =
            shard.map(|shard| shard.send_with_reply(move |reply| ShardCommand::SnapshotAhead(from, reply)));
        async move { asked?.await }
    }

    /// The time until the next window ends; zero while windows are being closed.
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

    /// Sets how to recognise a container's processes, and waits until its shard has applied it.
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

    /// Drains every container and ends the threads. Returns the containers' final statistics.
    pub async fn stop(&self) -> Vec<ContainerStats> {
        let answers: Vec<_> =
            self.shards.iter().map(|shard| (shard, shard.send_with_reply(ShardCommand::Stop))).collect();
        let mut stats_by_container = Vec::new();
        for (shard, answer) in answers {
            stats_by_container.extend(match answer.await {
                Ok(drained) => drained,
                // The shard panicked while draining a container, and has recovered.
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

    /// Subscribes to the number of panics that shards have recovered from.
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

    /// Reads the shards' measurements.
    #[must_use]
    pub fn read_measurements(&self) -> PoolMeasurements {
        self.shared.read_measurements()
    }
}

impl ShardPool {
    /// Moves one container if a shard is hot and another is not, and returns it. Call this about once a second.
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

    /// Moves a container with its socket. Returns whether it was moved: if the table of places stays locked, the next
    /// balancing tries again. Waiting longer would block the main loop for ever after a successful hand-over, which
    /// never releases the lock.
    pub(super) async fn move_to(&self, allocation: Allocation, to: ShardId) -> Result<bool, ShardGone> {
        // Lookups are locked out meanwhile: a container that is being moved is on neither shard.
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
            // If the shard panicked while adopting it, the container can only be there.
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

    /// Sends a reader's question.
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
