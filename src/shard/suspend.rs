//! Takes all containers with their state from the shards for a hand-over, and returns them if it fails.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedRwLockWriteGuard;

use super::command::ShardCommand;
use super::inlet::Senders;
use super::listener::ContainerListener;
use super::pool::{ShardGone, ShardId, ShardPool};
use crate::model::{Allocation, Timestamp};
use crate::parallel;

/// All containers, detached from their shards. Meanwhile their datagrams wait in the kernel, and requests for them
/// block.
#[derive(Debug)]
pub struct SuspendedContainers {
    pool: Arc<ShardPool>,
    places: OwnedRwLockWriteGuard<HashMap<Allocation, ShardId>>,
    listeners: Vec<(ShardId, Box<ContainerListener>)>,
    /// The time up to which the shards have closed windows.
    pub now: Timestamp,
}

/// One container's part of a hand-over.
#[derive(Debug)]
pub struct ContainerPart<'s> {
    /// The container's allocation.
    pub allocation: Allocation,
    /// The UDP socket.
    pub socket: Option<BorrowedFd<'s>>,
    /// The Unix socket, and the capacity of its queue in datagrams.
    pub unix: Option<(BorrowedFd<'s>, usize)>,
    pub senders: Option<Senders>,
    pub aggregator: OpenState,
    /// The kernel's drop count of its UDP socket when it was last read.
    pub kernel_drops: u32,
    /// When its last dropped, folded or rejected data was found.
    pub last_problem: Option<Timestamp>,
}

/// The open window and the ledger of a container, encoded for another process.
#[derive(Debug, Serialize, Deserialize)]
pub enum OpenState {
    /// A snapshot.
    Whole(Bytes),
    /// The changes since the snapshot that was sent ahead.
    Changes(Bytes),
}

/// Checksums of the snapshots that the other process already has.
pub type SentAhead = HashMap<Allocation, u64>;

impl ShardPool {
    /// Takes every container from its shard.
    ///
    /// # Errors
    /// When a shard has ended. All containers are then back on their shards.
    pub async fn suspend_containers(self: &Arc<Self>) -> Result<SuspendedContainers, ShardGone> {
        let places = Arc::clone(&self.places).write_owned().await;
        let pool = Arc::clone(self);
        let mut suspended = SuspendedContainers { pool, places, listeners: Vec::new(), now: Timestamp::MIN };
        let answers: Vec<_> =
            self.shards.iter().map(|shard| shard.send_with_reply(ShardCommand::Suspend)).collect();
        let mut failed = None;
        for (shard, answer) in (0..).map(ShardId).zip(answers) {
            match answer.await {
                Ok((listeners, now)) => {
                    suspended.listeners.extend(listeners.into_iter().map(|listener| (shard, listener)));
                    suspended.now = suspended.now.max(now);
                }
                Err(gone) => failed = Some(gone),
            }
        }
        match failed {
            None => Ok(suspended),
            Some(gone) => {
                suspended.resume_containers().await;
                Err(gone)
            }
        }
    }
}

impl SuspendedContainers {
    /// Which containers these are.
    #[must_use]
    pub fn allocations(&self) -> HashSet<Allocation> {
        self.listeners.iter().map(|(_, listener)| listener.allocation).collect()
    }

    /// Every container, including those that are being drained; only the changes for those whose snapshots were sent
    /// ahead. Nothing is received meanwhile, so the work is spread over all cores.
    #[must_use]
    pub fn container_parts(&self, sent: &SentAhead) -> Vec<ContainerPart<'_>> {
        let state = |listener: &ContainerListener| {
            let changes =
                sent.get(&listener.allocation).and_then(|of| listener.aggregator.changes_since(*of));
            changes.map_or_else(
                || OpenState::Whole(listener.aggregator.encode_snapshot().into()),
                |changes| OpenState::Changes(changes.into()),
            )
        };
        parallel::map_values(self.listeners.iter().collect(), |(_, listener)| ContainerPart {
            allocation: listener.allocation,
            socket: listener.socket.as_ref().map(|socket| socket.as_fd()),
            unix: listener.unix.as_ref().map(|unix| (unix.socket().as_fd(), unix.queue_capacity())),
            senders: listener.unix.as_ref().map(|unix| unix.senders().clone()),
            aggregator: state(listener),
            kernel_drops: listener.counted_drops(),
            last_problem: listener.last_problem(),
        })
    }

    /// Returns every container to its shard.
    pub async fn resume_containers(self) {
        // Requests for a container wait until all are back.
        let Self { pool, places: _places, listeners, .. } = self;
        for (shard, listener) in listeners {
            let name = listener.name();
            let adopted = match pool.find_shard(shard) {
                Ok(shard) => shard.send_with_reply(|reply| ShardCommand::Adopt(listener, reply)).await,
                Err(gone) => Err(gone),
            };
            if !matches!(adopted, Ok(Ok(()))) {
                tracing::error!(container = name, "a container could not be given back to its shard");
            }
        }
    }
}
