//! One container on its shard: its sockets, its aggregator, and the readers that tail it.

mod filing;
mod reading;

use std::hint::black_box;
use std::net::UdpSocket;
use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::inlet::{Inlet, Senders};
use super::shared::{LineDecision, LossLog};
use super::stats_queries::{ContainerStats, StatsDetail};
use super::tail::{LineFilter, TailRoom, TappedLine};
use crate::aggregate::{
    Accounting, Aggregator, AggregatorSettings, CheckpointContents, GaugeSign, RejectedLine, TimerUnit,
    Window,
};
use crate::model::{Allocation, Origin, Timestamp};
use crate::net::listener::{self, Buffers};
use crate::net::sys;
use crate::net::unixgram::Unixgram;
use crate::statsd::Rejected;
use crate::store::{History, LiveBytes, PendingWindow};

/// The smallest receive buffer that the kernel grants, in bytes.
const SMALLEST: usize = 1152;
/// A socket that was found hot this many times gets a larger buffer.
const HOT: u8 = 8;

/// A container's sockets, for a shard to take over.
#[derive(Debug)]
pub struct NewListener {
    /// The container's allocation.
    pub allocation: Allocation,
    /// The origin of its samples.
    pub origin: Arc<Origin>,
    /// The UDP socket, in non-blocking mode.
    pub socket: Option<UdpSocket>,
    /// The Unix socket.
    pub unix: Option<Unixgram>,
    /// How signed gauge values of this container are interpreted.
    pub gauge_sign: GaugeSign,
    /// The unit of this container's timers.
    pub timer_unit: TimerUnit,
    /// The container's state in the previous process; `None` for a new container.
    pub before: Option<Box<Before>>,
}

/// A container's state in the previous process.
#[derive(Debug)]
pub struct Before {
    pub aggregator: Aggregator,
    /// What the kernel had dropped at its UDP socket when that was counted last.
    pub kernel_drops: u32,
    /// When its last dropped, folded or rejected data was found.
    pub last_problem: Option<Timestamp>,
    /// The senders of its Unix socket, if it has one.
    pub senders: Option<Senders>,
}

/// Fields that every read of a socket needs come first, in the order of use, as in [`Aggregator`].
#[derive(Debug)]
#[repr(C)]
pub(super) struct ContainerListener {
    pub(super) socket: Option<UdpSocket>,
    /// The kernel's 32-bit drop count when it was read last.
    kernel_drops: u32,
    /// The requested size of the receive buffer, in bytes; the kernel lets twice as much wait.
    receive_buffer: usize,
    /// Whether the socket was empty after one datagram when it was read last.
    lone: bool,
    /// How often lately the socket filled too fast to gather for the longest permitted time.
    heat: u8,
    /// Bytes of the aggregator and its contents when they were last counted for the node.
    counted_memory: usize,
    taps: Vec<TailSink>,
    pub(super) aggregator: Aggregator,
    pub(super) unix: Option<Inlet>,
    pub(super) allocation: Allocation,
    origin: Arc<Origin>,
    /// The counts at the last log line about losses.
    logged: Accounting,
    /// The number of the checkpoint file, and the state at the last checkpoint in it.
    noted: (u64, CheckpointContents),
    /// Dropped, folded and rejected data when that was last looked at, and when it was last found to have grown.
    problems: (u64, Option<Timestamp>),
    /// The number of rejected lines when they were last shown, and the lines shown.
    rejected: (u64, Arc<[RejectedLine]>),
    /// Set once the container has begun to end.
    pub(super) ending: Option<ListenerEnding>,
    /// The most recently closed window, until its late samples are merged.
    pending: Option<PendingWindow>,
    /// Values of windows that are being published. They stay counted here if that panics.
    unfiled: u64,
    /// Bytes that the store holds for the container, as of the last window that was published.
    kept: usize,
    /// Bytes of the aggregator when they were last measured.
    live: LiveBytes,
}

/// The end of a container, while its sockets are being emptied.
#[derive(Debug)]
pub(super) struct ListenerEnding {
    /// Datagrams still to be read of those that may have waited when it ended; later ones are ignored.
    pub(super) left: usize,
    /// Receives the final statistics.
    pub(super) reply: oneshot::Sender<Option<ContainerStats>>,
}

#[derive(Debug)]
struct TailSink {
    to: mpsc::Sender<TappedLine>,
    room: TailRoom,
    wanted: LineFilter,
    lost: u64,
}

impl TailSink {
    /// Answers whether the reader still listens.
    fn send(&mut self, at: Timestamp, line: &[u8], rejected: Option<Rejected>) -> bool {
        if !self.wanted.matches_line(line, rejected.is_some()) {
            return !self.to.is_closed();
        }
        // The reader is slower than the container: drop the line, so that the container need not wait.
        let Some(taken) = self.room.reserve_line(line.len()) else {
            self.lost += 1;
            return !self.to.is_closed();
        };
        let line = TappedLine { at, line: line.to_vec(), rejected, lost: self.lost, _room: taken };
        match self.to.try_send(line) {
            Ok(()) => self.lost = 0,
            Err(TrySendError::Full(_)) => self.lost += 1,
            Err(TrySendError::Closed(_)) => return false,
        }
        true
    }
}

impl ContainerListener {
    pub(super) fn new(
        new: NewListener,
        settings: Arc<AggregatorSettings>,
        now: Timestamp,
        live: LiveBytes,
    ) -> Self {
        let granted = |socket| listener::receive_buffer_size(socket).unwrap_or(0).max(SMALLEST);
        let receive_buffer = new.socket.as_ref().map_or(0, granted);
        let (aggregator, kernel_drops, last_problem, senders) = match new.before {
            Some(before) => (before.aggregator, before.kernel_drops, before.last_problem, before.senders),
            None => {
                let aggregator = Aggregator::new(settings, new.gauge_sign, now);
                (aggregator.with_timer_unit(new.timer_unit), 0, None, None)
            }
        };
        let logged = aggregator.accounting().clone();
        let problems = (logged.problem_count(), last_problem);
        Self {
            allocation: new.allocation,
            receive_buffer,
            lone: false,
            heat: 0,
            counted_memory: 0,
            socket: new.socket,
            unix: new.unix.map(|unix| Inlet::new(unix, senders.unwrap_or_default())),
            aggregator,
            origin: new.origin,
            kernel_drops,
            taps: Vec::new(),
            logged,
            noted: Default::default(),
            problems,
            rejected: Default::default(),
            ending: None,
            pending: None,
            unfiled: 0,
            kept: 0,
            live,
        }
    }

    /// Restores a new aggregator from the container's history in the store.
    pub(super) fn restore_from_history(&mut self, history: &History) {
        if let Some(summary) = history.summary() {
            self.aggregator.restore_from_summary(summary, &history.lasting_values());
        }
    }

    /// What the kernel had dropped at its UDP socket when that was counted last.
    pub(super) fn counted_drops(&self) -> u32 {
        self.kernel_drops
    }

    /// When its last dropped, folded or rejected data was found.
    pub(super) fn last_problem(&self) -> Option<Timestamp> {
        self.problems.1
    }

    /// The container's ID.
    pub(super) fn name(&self) -> String {
        self.origin.container_id.to_string()
    }

    /// The total work this container has caused, in lines: a datagram counts as eight, which matches its cost.
    pub(super) fn total_work(&self) -> u64 {
        let counts = self.aggregator.accounting();
        counts.received.saturating_mul(8).saturating_add(counts.lines)
    }

    pub(super) fn add_tap(&mut self, to: mpsc::Sender<TappedLine>, room: TailRoom, wanted: LineFilter) {
        // Closed taps are otherwise removed with the next line, which may never arrive.
        self.taps.retain(|tap| !tap.to.is_closed());
        self.taps.push(TailSink { to, room, wanted, lost: 0 });
    }

    /// Prefetches the fields that a read of the socket needs into the CPU cache.
    #[inline]
    pub(super) fn prefetch(&self) {
        black_box((self.lone, self.taps.is_empty()));
        self.aggregator.prefetch_hot_fields();
    }

    /// Requests a larger buffer if this socket was repeatedly found hot. Datagrams can then gather for longer, and a
    /// burst has more room.
    pub(super) fn adjust_receive_buffer(&mut self, hot: bool, buffers: &Buffers) {
        self.heat = if hot { self.heat.saturating_add(1) } else { self.heat.saturating_sub(1) };
        if self.heat < HOT {
            return;
        }
        self.heat = 0;
        let Some(socket) = &self.socket else { return };
        if let Some(granted) = buffers.grow_receive_buffer(socket, self.receive_buffer) {
            let from = std::mem::replace(&mut self.receive_buffer, granted);
            let container = &self.origin.container_id;
            tracing::debug!(%container, from, to = granted, "a larger receive buffer");
        }
    }

    /// Takes the buffer from the budget.
    pub(super) fn reserve_buffer(&self, buffers: &Buffers) {
        buffers.count_granted(self.receive_buffer);
    }

    /// Gives the buffer back to the budget.
    pub(super) fn give_back(&self, buffers: &Buffers) {
        buffers.give_back(self.receive_buffer);
    }

    pub(super) fn count_kernel_drops(&mut self) {
        // A full Unix socket blocks its sender or fails the send; the kernel drops nothing.
        let Some(socket) = &self.socket else { return };
        match sys::kernel_drops(socket) {
            Ok(drops) => {
                let new = u64::from(drops.wrapping_sub(self.kernel_drops));
                self.kernel_drops = drops;
                self.aggregator.set_kernel_drops(self.aggregator.accounting().kernel_drops + new);
            }
            Err(error) => tracing::debug!(%error, "cannot read the kernel's drop count"),
        }
    }

    /// The changes in the open window since the last checkpoint in the same file; the whole window for another file.
    pub(super) fn checkpoint_window(&mut self, file: u64, now: Timestamp) -> Option<Window> {
        if self.noted.0 != file {
            self.noted = (file, CheckpointContents::default());
        }
        self.aggregator.peek_changed(now, &mut self.noted.1)
    }

    /// The container's statistics. The cost of counts does not depend on the number of series.
    pub(super) fn collect_stats(&mut self, detail: StatsDetail, now: Timestamp) -> ContainerStats {
        let open = (detail == StatsDetail::OpenWindow)
            .then(|| (Arc::new(self.aggregator.peek_open_window(now)), self.aggregator.build_summary()));
        self.note_problems(now);
        let rejected = self.aggregator.accounting().rejected.total_count();
        if self.rejected.0 != rejected {
            self.rejected = (rejected, self.aggregator.rejected_lines().iter().cloned().collect());
        }
        ContainerStats {
            allocation: self.allocation,
            accounting: self.aggregator.accounting().clone(),
            open_values: self.aggregator.open_values(),
            series: self.aggregator.series_count(),
            receive_buffer: self.receive_buffer,
            memory: self.aggregator.memory_bytes(),
            rejected: Arc::clone(&self.rejected.1),
            last_problem: self.problems.1,
            habits: self.aggregator.habits(),
            decremented: Arc::clone(self.aggregator.decremented_series()),
            open,
        }
    }

    fn note_problems(&mut self, now: Timestamp) {
        let count = self.aggregator.accounting().problem_count();
        if count > self.problems.0 {
            self.problems.1 = Some(now);
        }
        self.problems.0 = count;
    }

    /// Logs losses since the last call, one line for rejected lines and one for dropped data. Lines of all containers
    /// are rate-limited together, so that applications cannot fill a disk. Losses that are not logged stay in the
    /// counts.
    pub(super) fn log_losses(&mut self, log: &LossLog, at: Timestamp) {
        self.note_problems(at);
        let may_write = || match log.admit_line(at.as_secs()) {
            LineDecision::LeaveOut => false,
            LineDecision::Write(left_out) => {
                if left_out > 0 {
                    tracing::warn!(
                        left_out,
                        "log lines about lost data were left out; `tallyport doctor` lists all of it"
                    );
                }
                true
            }
        };
        let now = self.aggregator.accounting();
        let (rejected, before) = (now.rejected.total_count(), self.logged.rejected.total_count());
        if rejected > before && may_write() {
            let last = self.aggregator.rejected_lines().iter().last().map_or("", |line| line.code.as_str());
            let (container, lines) = (&self.origin.container_id, rejected - before);
            tracing::info!(%container, task = %self.origin.task_id, lines, last, "rejected lines");
        }
        let dropped = now.dropped.total_count() - self.logged.dropped.total_count();
        let kernel = now.kernel_drops - self.logged.kernel_drops;
        if (dropped > 0 || kernel > 0) && may_write() {
            let container = &self.origin.container_id;
            let reasons: Vec<_> = now.dropped.iter().map(|(reason, _)| reason.as_str()).collect();
            tracing::warn!(%container, task = %self.origin.task_id, dropped, kernel, ?reasons, "dropped data");
        }
        self.logged = now.clone();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{ContainerId, Generation, Labels, Moment, TaskId};
    use crate::net::listener::{Inbox, ReadOutcome};
    use crate::store::Store;

    fn pair() -> (ContainerListener, UdpSocket) {
        let container_id = ContainerId::new("c").unwrap();
        let task_id = TaskId::from(&container_id);
        let origin =
            Arc::new(Origin { container_id, generation: Generation(1), task_id, labels: Labels::new() });
        let socket = listener::open("127.0.0.1:0".parse().unwrap(), 262_144).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(socket.local_addr().unwrap()).unwrap();
        let allocation = Allocation(1);
        let new = NewListener {
            allocation,
            origin,
            socket: Some(socket),
            unix: None,
            gauge_sign: GaugeSign::Delta,
            timer_unit: TimerUnit::default(),
            before: None,
        };
        let live = Store::new(1, 30).live_bytes();
        (ContainerListener::new(new, Arc::default(), Timestamp::from_secs(0), live), sender)
    }

    #[test]
    fn a_socket_that_had_one_datagram_is_asked_for_more_every_other_time() {
        let (mut listener, sender) = pair();
        let mut inbox = Inbox::default();
        let now = Moment { wall: Timestamp::from_secs(1), mono: Duration::ZERO };
        let mut take = |sent: usize| {
            for _ in 0..sent {
                sender.send(b"a:1|c").unwrap();
            }
            let (drained, emptied) = listener.receive_udp(&mut inbox, now, || now.mono);
            (drained.datagrams, emptied == ReadOutcome::Fully, drained.more)
        };
        assert_eq!(take(1), (1, true, false), "it is asked until nothing is left");
        assert_eq!(take(2), (1, false, false), "one is taken as it was before, and no more promised");
        assert_eq!(take(1), (2, true, false), "what was left comes with the next");
        assert_eq!(take(1), (1, true, false), "two were not one");
        assert_eq!(take(1), (1, false, false));
        assert_eq!(take(0), (0, true, false), "nothing was left");
    }

    #[test]
    fn the_last_problem_is_when_a_count_of_problems_was_found_to_have_grown() {
        let (mut listener, sender) = pair();
        let mut inbox = Inbox::default();
        let mut last_problem = |line: &[u8], second: i64| {
            let now = Moment { wall: Timestamp::from_secs(second), mono: Duration::ZERO };
            sender.send(line).unwrap();
            listener.receive_udp(&mut inbox, now, || now.mono);
            listener.collect_stats(StatsDetail::Counts, now.wall).last_problem
        };
        assert_eq!(last_problem(b"a:1|c", 1), None);
        assert_eq!(last_problem(b"broken", 2), Some(Timestamp::from_secs(2)));
        assert_eq!(last_problem(b"a:1|c", 3), Some(Timestamp::from_secs(2)));
        assert_eq!(last_problem(b"broken", 4), Some(Timestamp::from_secs(4)));
    }

    #[test]
    fn tails_whose_readers_have_gone_do_not_add_up_at_a_silent_container() {
        let (mut listener, _sender) = pair();
        let room = TailRoom::with_shared_bound(&Arc::default());
        let (to, reads) = mpsc::channel(1);
        listener.add_tap(to, room.clone(), LineFilter::default());
        for _ in 0..10 {
            let (to, leaves) = mpsc::channel(1);
            listener.add_tap(to, room.clone(), LineFilter::default());
            drop(leaves);
        }
        assert_eq!(
            listener.taps.len(),
            2,
            "that of the reader, and the last, whose end is seen with the next"
        );
        drop(reads);
    }

    #[test]
    fn a_turn_ends_by_time_with_the_datagrams_that_were_taken_together() {
        let (mut listener, sender) = pair();
        for _ in 0..100 {
            sender.send(b"a:1|c").unwrap();
        }
        let now = Moment { wall: Timestamp::from_secs(1), mono: Duration::ZERO };
        let (drained, _) = listener.receive_udp(&mut Inbox::default(), now, || reading::LONGEST_TURN);
        assert!(drained.more && drained.datagrams < 100, "{drained:?}");
        let (drained, _) = listener.receive_udp(&mut Inbox::default(), now, || Duration::ZERO);
        assert!(!drained.more);
        assert_eq!(listener.aggregator.accounting().received, 100);
    }
}
