//! What a shard can be told and asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::listener::{ContainerListener, NewListener};
use super::looks::{ContainerSelection, ContainerStats, Reply, StatsDetail};
use super::tail::{TailRoom, TappedLine};
use crate::aggregate::{AggregatorSettings, Window};
use crate::model::{Allocation, Timestamp};
use crate::net::process_identity::ProcessIdentity;

/// What has changed in the open windows of some containers since the last checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// Each container's series that have changed, as they are now.
    pub windows: Vec<(Allocation, Window)>,
    /// Where to go on, unless that was all.
    pub next: Option<usize>,
}

/// Snapshots of some containers' aggregators, sent to the process that takes over while datagrams are still read.
#[derive(Debug)]
pub struct SnapshotSlice {
    /// Each container's snapshot.
    pub snapshots: Vec<(Allocation, Vec<u8>)>,
    /// Where to go on, unless that was all.
    pub next: Option<usize>,
}

/// What a shard is told: by the container table, by those who balance shards and write checkpoints. Readers do not come by
/// this way, however many they are.
#[derive(Debug)]
pub(super) enum ShardCommand {
    /// Takes over a socket.
    Open(NewListener, oneshot::Sender<nix::Result<()>>),
    /// Empties a socket, closes its window and lets it go.
    Drain(Allocation, oneshot::Sender<Option<ContainerStats>>),
    /// Says how much each container has made it do, in all.
    Work(oneshot::Sender<Vec<(Allocation, u64)>>),
    /// Lets a container go as it is, for another shard to adopt.
    Leave(Allocation, oneshot::Sender<Option<Box<ContainerListener>>>),
    /// Takes over a container as it is; gives it back where that is not possible.
    Adopt(Box<ContainerListener>, oneshot::Sender<Result<(), Box<ContainerListener>>>),
    /// Says what has changed in open windows, from this place on, since that was written to the file of this number.
    Checkpoint(usize, u64, oneshot::Sender<Checkpoint>),
    /// Takes snapshots of containers from this place on, on which changes can follow.
    SnapshotAhead(usize, oneshot::Sender<SnapshotSlice>),
    /// Says how long it is until the next window is over; no time while windows are being closed.
    Quiet(oneshot::Sender<Duration>),
    /// Says which processes a container's are.
    SetContainerProcesses(Allocation, ProcessIdentity, oneshot::Sender<()>),
    /// Applies new settings.
    Configure(Arc<AggregatorSettings>),
    /// Lets every container go as it is, and says what time it is here.
    Suspend(
        #[expect(clippy::vec_box, reason = "each leaves, and comes back, in a box")]
        oneshot::Sender<(Vec<Box<ContainerListener>>, Timestamp)>,
    ),
    /// Drains everything and ends the thread.
    Stop(oneshot::Sender<Vec<ContainerStats>>),
}

/// What readers ask of a shard.
#[derive(Debug)]
pub(super) enum Question {
    /// How containers stand.
    Look(ContainerSelection, StatsDetail, Reply),
    /// Copies of a container's lines, as they come.
    Tap(Allocation, mpsc::Sender<TappedLine>, TailRoom),
}
