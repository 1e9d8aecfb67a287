//! What a shard can be told and asked.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::inlet::Senders;
use super::listener::ContainerListener;
use super::looks::Reply;
use super::tail::{TailRoom, TakenRoom};
use crate::aggregate::{
    Accounting, Aggregator, AggregatorSettings, ContainerSummary, GaugeSign, Habits, RejectedLine, TimerUnit,
    Window,
};
use crate::model::{Allocation, Origin, Series, Timestamp};
use crate::net::process_identity::ProcessIdentity;
use crate::net::unixgram::Unixgram;
use crate::statsd::Rejected;

/// A container's sockets, for a shard to take over.
#[derive(Debug)]
pub struct NewListener {
    /// Whose it is.
    pub allocation: Allocation,
    /// Where its samples come from.
    pub origin: Arc<Origin>,
    /// The UDP socket; not blocking.
    pub socket: Option<UdpSocket>,
    /// The Unix socket.
    pub unix: Option<Unixgram>,
    /// What a signed gauge value means to this container.
    pub gauge_sign: GaugeSign,
    /// The unit of this container's timers.
    pub timer_unit: TimerUnit,
    /// What the process before had of it; nothing where it is new.
    pub before: Option<Box<Before>>,
}

/// How a container stood in the process before.
#[derive(Debug)]
pub struct Before {
    pub aggregator: Aggregator,
    /// What the kernel had dropped at its UDP socket when that was counted last.
    pub kernel_drops: u32,
    /// The senders of its Unix socket, if it has one.
    pub senders: Option<Senders>,
}

/// Which containers are asked about.
#[derive(Clone, Debug)]
pub enum ContainerSelection {
    /// Every one.
    All,
    /// These.
    These(Vec<Allocation>),
}

/// How a container stands at one moment.
#[derive(Debug)]
pub struct ContainerStats {
    /// The container.
    pub allocation: Allocation,
    /// What arrived and what became of it.
    pub accounting: Accounting,
    /// Values in the open window.
    pub open_values: u64,
    /// Live series.
    pub series: usize,
    /// Bytes of the socket's receive buffer.
    pub receive_buffer: usize,
    /// Bytes of memory.
    pub memory: usize,
    /// The last lines that could not be read, oldest first.
    pub rejected: Arc<[RejectedLine]>,
    /// What has been seen of the container's client.
    pub habits: Habits,
    /// Some of the series whose totals were counted down.
    pub decremented: Arc<[Arc<Series>]>,
    /// The open window, ledger, events and checks, where they were asked for.
    pub open: Option<(Arc<Window>, ContainerSummary)>,
}

impl ContainerStats {
    /// How a container stood when it ended in an earlier life of the agent: of that its counts are known, at best.
    #[must_use]
    pub fn of_ended(allocation: Allocation, accounting: Accounting) -> Self {
        Self {
            allocation,
            accounting,
            open_values: 0,
            series: 0,
            receive_buffer: 0,
            memory: 0,
            rejected: Arc::default(),
            habits: Habits::default(),
            decremented: Arc::default(),
            open: None,
        }
    }
}

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

/// One line, for whoever tails a container.
#[derive(Debug)]
pub struct TappedLine {
    /// When it came.
    pub at: Timestamp,
    pub line: Vec<u8>,
    /// Why it was rejected, if it was.
    pub rejected: Option<Rejected>,
    /// Lines before it that there was no room for.
    pub lost: u64,
    /// What it takes of the bounds of tails while it waits.
    pub(super) _room: TakenRoom,
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

/// How much is asked about a container.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum StatsDetail {
    /// Counts.
    Counts,
    /// Counts and the open window.
    OpenWindow,
}
