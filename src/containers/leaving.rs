//! The container table in a hand-over.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::image::ContainerSnapshot;
use crate::aggregate::{Accounting, Aggregator, AggregatorSettings, SnapshotError, checksum_of};
use crate::model::{Allocation, Timestamp};
use crate::net::unixgram::Unixgram;
use crate::parallel;
use crate::shard::{Before, OpenState, Senders};

/// The encoded state of all containers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Every container, finished ones included.
    pub(super) containers: Vec<Handed>,
    /// Counts of forgotten containers.
    pub(super) forgotten: Accounting,
    /// The next allocation.
    pub(super) next: u64,
    /// The time up to which windows are closed.
    pub not_before: Timestamp,
    /// When receiving stopped, since the machine was booted.
    pub stopped: Duration,
}

/// One container, and which descriptors it has, in this order: UDP socket, Unix socket, handle of its process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handed {
    pub(super) image: ContainerSnapshot,
    pub(super) aggregator: Option<OpenState>,
    pub(super) kernel_drops: u32,
    pub(super) last_problem: Option<Timestamp>,
    pub(super) udp: bool,
    pub(super) unix_queue: Option<usize>,
    pub(super) senders: Option<Senders>,
    pub(super) process: bool,
}

/// Aggregators that were received ahead, with the checksums of their snapshots.
#[derive(Debug, Default)]
pub struct Arrived(HashMap<Allocation, (u64, Aggregator)>);

impl Arrived {
    /// Restores snapshots. Later changes apply to the last snapshot of a container.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn add(
        &mut self,
        snapshots: Vec<(Allocation, Bytes)>,
        settings: &Arc<AggregatorSettings>,
    ) -> Result<(), ManifestError> {
        // Drop earlier ones first to free memory: with large sets, one container's aggregator takes tens of megabytes.
        for (allocation, _) in &snapshots {
            self.0.remove(allocation);
        }
        let restored = parallel::map_values(snapshots, |(allocation, bytes)| {
            let aggregator = Aggregator::from_snapshot(Arc::clone(settings), &bytes)
                .map_err(|source| ManifestError::Aggregator { allocation, source })?;
            let damaged = || ManifestError::Aggregator { allocation, source: SnapshotError::Damaged };
            Ok((allocation, (checksum_of(&bytes).ok_or_else(damaged)?, aggregator)))
        });
        self.0.extend(restored.into_iter().collect::<Result<Vec<_>, ManifestError>>()?);
        Ok(())
    }

    /// Completes the aggregator of a container with its state from the pause.
    fn complete_aggregator(
        ahead: Option<(u64, Aggregator)>,
        carried: &OpenState,
        settings: &Arc<AggregatorSettings>,
    ) -> Result<Aggregator, SnapshotError> {
        match carried {
            OpenState::Whole(bytes) => {
                drop(ahead);
                Aggregator::from_snapshot(Arc::clone(settings), bytes)
            }
            OpenState::Changes(bytes) => {
                let (of, mut aggregator) = ahead.ok_or(SnapshotError::Damaged)?;
                aggregator.apply_changes(of, bytes)?;
                Ok(aggregator)
            }
        }
    }
}

/// The table during a hand-over. No datagrams are received until the outcome is known.
#[derive(Debug)]
pub struct Leaving {
    /// The state of the containers.
    pub manifest: Manifest,
    /// Their descriptors, in order.
    pub descriptors: Vec<OwnedFd>,
    /// What keeps the guard of listeners up until the next process has one.
    pub guard: Vec<OwnedFd>,
    /// Receives the outcome: after a success this table ends, otherwise it resumes.
    pub(super) outcome: oneshot::Sender<bool>,
}

impl Leaving {
    /// Says whether the next process has the containers now.
    pub fn send_outcome(self, taken: bool) {
        // If the table is gone, nothing is left to decide.
        let _either_way = self.outcome.send(taken);
    }
}

/// A restored container, ready to receive.
#[derive(Debug)]
pub(super) struct ReadyContainer {
    pub(super) image: ContainerSnapshot,
    pub(super) before: Option<Before>,
    pub(super) udp: Option<UdpSocket>,
    pub(super) unix: Option<Unixgram>,
    pub(super) process: Option<OwnedFd>,
}

/// All restored containers.
#[derive(Debug)]
pub struct Arriving {
    pub(super) containers: Vec<ReadyContainer>,
    pub(super) forgotten: Accounting,
    pub(super) next: u64,
    stopped: Duration,
}

/// Why a received state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The number of descriptors is wrong.
    #[error("the descriptors that came are not those that were announced")]
    Descriptors,
    /// A container's aggregator cannot be read.
    #[error("container {allocation}: {source}")]
    Aggregator {
        /// The container.
        allocation: Allocation,
        /// Why not.
        source: SnapshotError,
    },
}

impl Manifest {
    /// Restores everything, using what was received ahead, so that nothing can fail afterwards.
    ///
    /// # Errors
    /// When the state or its descriptors are invalid.
    pub fn into_arriving(
        self,
        mut arrived: Arrived,
        descriptors: Vec<OwnedFd>,
        settings: &Arc<AggregatorSettings>,
    ) -> Result<Arriving, ManifestError> {
        let mut descriptors = descriptors.into_iter();
        let mut next = |wanted: bool| match wanted {
            true => descriptors.next().map(Some).ok_or(ManifestError::Descriptors),
            false => Ok(None),
        };
        // No datagrams are received meanwhile, so use every core for this.
        let ahead = |handed: Handed| (arrived.0.remove(&handed.image.allocation), handed);
        let containers = self.containers.into_iter().map(ahead).collect();
        let restored = parallel::map_values(containers, |(ahead, mut handed)| {
            let carried = handed.aggregator.take();
            let restored =
                carried.map(|carried| Arrived::complete_aggregator(ahead, &carried, settings)).transpose();
            (handed, restored)
        });
        let mut containers = Vec::with_capacity(restored.len());
        for (handed, restored) in restored {
            let Handed { image, kernel_drops, last_problem, udp, unix_queue, senders, process, .. } = handed;
            let allocation = image.allocation;
            let restored = restored.map_err(|source| ManifestError::Aggregator { allocation, source })?;
            let before =
                restored.map(|aggregator| Before { aggregator, kernel_drops, last_problem, senders });
            let udp = next(udp)?.map(UdpSocket::from);
            let unix = next(unix_queue.is_some())?.zip(unix_queue);
            let unix = unix.map(|(socket, queue)| Unixgram { socket: socket.into(), queue });
            containers.push(ReadyContainer { image, before, udp, unix, process: next(process)? });
        }
        match descriptors.next() {
            Some(_) => Err(ManifestError::Descriptors),
            None => {
                Ok(Arriving { containers, forgotten: self.forgotten, next: self.next, stopped: self.stopped })
            }
        }
    }
}

impl Arriving {
    /// When receiving stopped, since the machine was booted.
    #[must_use]
    pub fn stopped_at(&self) -> Duration {
        self.stopped
    }

    /// The fill level of the fullest UDP socket, as a fraction of its buffer.
    #[must_use]
    pub fn max_socket_fill(&self) -> f64 {
        let sockets = self.containers.iter().filter_map(|ready| ready.udp.as_ref());
        let parts = sockets.filter_map(|socket| crate::net::sys::receive_buffer_fill(socket).ok());
        parts.fold(0.0, f64::max)
    }
}
