//! The commands and questions that a shard accepts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::listener::{ContainerListener, NewListener};
use super::stats_queries::{ContainerSelection, ContainerStats, Reply, StatsDetail};
use super::tail::{LineFilter, TailRoom, TappedLine};
use crate::aggregate::{AggregatorSettings, Window};
use crate::model::{Allocation, Timestamp};
use crate::net::process_identity::ProcessIdentity;

/// Changes in the open windows of some containers since the last checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// The current state of each container's changed series.
    pub windows: Vec<(Allocation, Window)>,
    /// The place to continue from; `None` after the last container.
    pub next: Option<usize>,
}

/// Snapshots of some containers' aggregators, sent to the process that takes over while datagrams are still read.
#[derive(Debug)]
pub struct SnapshotSlice {
    /// Each container's snapshot.
    pub snapshots: Vec<(Allocation, Vec<u8>)>,
    /// The place to continue from; `None` after the last container.
    pub next: Option<usize>,
}

/// Commands to a shard: from the container table, the balancer and the checkpoint writer. Readers have a channel of
/// their own ([`Question`]), so they cannot delay commands, however many there are.
#[derive(Debug)]
pub(super) enum ShardCommand {
    /// Takes over a socket.
    Open(NewListener, oneshot::Sender<nix::Result<()>>),
    /// Empties a container's sockets, closes its window and releases it.
    Drain(Allocation, oneshot::Sender<Option<ContainerStats>>),
    /// Returns the total work caused by each container.
    Work(oneshot::Sender<Vec<(Allocation, u64)>>),
    /// Releases a container with its state, for another shard to adopt.
    Leave(Allocation, oneshot::Sender<Option<Box<ContainerListener>>>),
    /// Takes over a container with its state; returns it if that fails.
    Adopt(Box<ContainerListener>, oneshot::Sender<Result<(), Box<ContainerListener>>>),
    /// Returns what has changed in open windows, from this place on, since the last checkpoint in the file of this
    /// number.
    Checkpoint(usize, u64, oneshot::Sender<Checkpoint>),
    /// Takes snapshots of containers from this place on; later changes can be sent relative to them.
    SnapshotAhead(usize, oneshot::Sender<SnapshotSlice>),
    /// Returns the time until the next window ends; zero while windows are being closed.
    Quiet(oneshot::Sender<Duration>),
    /// Sets how to recognise a container's processes.
    SetContainerProcesses(Allocation, ProcessIdentity, oneshot::Sender<()>),
    /// Applies new settings.
    Configure(Arc<AggregatorSettings>),
    /// Releases every container with its state, and returns the shard's current time.
    Suspend(
        #[expect(clippy::vec_box, reason = "each leaves, and comes back, in a box")]
        oneshot::Sender<(Vec<Box<ContainerListener>>, Timestamp)>,
    ),
    /// Drains everything and ends the thread.
    Stop(oneshot::Sender<Vec<ContainerStats>>),
}

/// Requests of readers to a shard.
#[derive(Debug)]
pub(super) enum Question {
    /// Statistics of containers.
    Stats(ContainerSelection, StatsDetail, Reply),
    /// Copies of a container's lines as they arrive.
    Tap(Allocation, mpsc::Sender<TappedLine>, TailRoom, LineFilter),
}
