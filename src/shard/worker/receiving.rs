//! Reads ready sockets, in bounded slices.

use std::time::Duration;

use super::{UNIX, Worker, place_of};
use crate::model::Moment;
use crate::net::listener::ReadOutcome;
use crate::shard::listener::ContainerListener;
use crate::shard::turn::Drained;

/// No further socket is read in a turn after this time.
const RECEIVING: Duration = Duration::from_millis(10);

/// One pass over all sockets that were ready, which may take several turns.
#[derive(Copy, Clone, Debug)]
pub(super) struct Pass {
    /// When the first turn began.
    began: Duration,
    /// What was read so far.
    drained: Drained,
}

impl Worker {
    /// Reads ready sockets for at most [`RECEIVING`], plus one socket. The rest are read before any that become ready
    /// later, so a socket that is always ready cannot starve another.
    pub(super) fn drain_ready(&mut self) {
        self.drain_ready_for(RECEIVING);
    }

    /// Like [`Worker::drain_ready`], with another time limit. The fill rate is measured once per pass, over all of its
    /// sockets: those read in a later turn have been filling since the pass began, and would seem to fill in no time.
    pub(super) fn drain_ready_for(&mut self, time: Duration) {
        if self.ready.is_empty() {
            return;
        }
        let turn = self.observe_clock();
        let mut pass = self.pass.take().unwrap_or(Pass { began: turn.mono, drained: Drained::default() });
        let mut now = turn;
        while let Some(event) = self.ready.pop_front() {
            pass.drained.add(self.read_socket(event, pass.began, now));
            if self.ready.is_empty() || now.mono.saturating_sub(turn.mono) >= time {
                break;
            }
            now = self.observe_clock();
        }
        if !self.ready.is_empty() {
            self.pass = Some(pass);
            return;
        }
        if pass.drained.datagrams > 0 {
            let now = self.clock.monotonic_time();
            self.drain_began = pass.began;
            self.gather.record_drain(pass.drained, now.saturating_sub(self.drained_at));
            self.drained_at = now;
        }
    }

    /// Reads a turn of the socket that an event names, in the pass that `began` then.
    pub(super) fn read_socket(&mut self, event: u64, began: Duration, now: Moment) -> Drained {
        let (place, unix) = (place_of(event & !UNIX), event & UNIX != 0);
        self.listeners.get(place).iter().copied().flatten().for_each(ContainerListener::prefetch);
        self.close_window_if_over(place, now.wall);
        self.current_place = Some(place);
        let clock = self.clock;
        let Some(Some(listener)) = self.listeners.get_mut(place) else {
            return Drained::default();
        };
        let (drained, emptied) = if unix {
            listener.receive_unix(&mut self.inbox, now, || clock.monotonic_time())
        } else {
            let read = listener.receive_udp(&mut self.inbox, now, || clock.monotonic_time());
            // A Unix socket has no buffer that could grow.
            let since = began.saturating_sub(self.drain_began);
            listener.adjust_receive_buffer(self.gather.is_hot(read.0.fullest, since), &self.shared.buffers);
            read
        };
        if listener.has_grown() {
            listener.count_memory();
            listener.aggregator.set_node_full(self.shared.is_full());
        }
        if let ReadOutcome::Broken(error) = emptied {
            let container = listener.allocation;
            tracing::warn!(%error, %container, unix, "cannot receive");
        }
        drained
    }
}
