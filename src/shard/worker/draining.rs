//! Containers that end: their sockets are emptied over as many turns as it takes, and then let go. One that leaves its shard before
//! that takes its end along, and goes on ending where it is adopted.

use std::time::Duration;

use tokio::sync::oneshot;

use super::Worker;
use crate::model::Allocation;
use crate::shard::command::{ContainerStats, StatsDetail};
use crate::shard::listener::ListenerEnding;
use crate::shard::share::Share;

/// Draining keeps a shard from everything else for this long in one turn at most, and for one turn of a socket more.
const DRAINING: Duration = Duration::from_millis(5);

impl Worker {
    /// Begins to drain a container.
    pub(super) fn begin_drain(
        &mut self,
        allocation: Allocation,
        reply: oneshot::Sender<Option<ContainerStats>>,
    ) {
        let Some(listener) = self.find(allocation) else {
            let _not_waited_for = reply.send(None);
            return;
        };
        listener.ending = Some(ListenerEnding { left: listener.may_wait(), reply });
        self.draining.push_back(allocation);
    }

    /// Goes on with containers that end, as far as this turn's share goes; each in its turn.
    pub(super) fn drain_some(&mut self) {
        if self.draining.is_empty() {
            return;
        }
        let mut share = Share::new(self.clock.monotonic_time(), usize::MAX, DRAINING);
        while !self.draining.is_empty() && share.take_step(self.clock.monotonic_time()) {
            self.drain_step();
        }
    }

    /// Drains what is being drained, however long that takes; for a shard that ends.
    pub(super) fn drain_rest(&mut self) {
        while !self.draining.is_empty() {
            self.drain_step();
        }
    }

    /// Drains every container, for a shard that ends.
    pub(super) fn drain_all(&mut self) -> Vec<ContainerStats> {
        self.drain_rest();
        let all: Vec<_> = self.places.keys().copied().collect();
        let mut stats_by_container = Vec::with_capacity(all.len());
        for allocation in all {
            let mut left = self.find(allocation).map_or(0, |listener| listener.may_wait());
            while self.empty_some(allocation, &mut left) {}
            stats_by_container.extend(self.finish_container(allocation));
        }
        stats_by_container
    }

    pub(super) fn drain_step(&mut self) {
        let Some(allocation) = self.draining.pop_front() else { return };
        // Out of its place: if reading panics, the request for its end fails and is repeated.
        let Some(mut ending) = self.find(allocation).and_then(|listener| listener.ending.take()) else {
            return;
        };
        if self.empty_some(allocation, &mut ending.left) {
            if let Some(listener) = self.find(allocation) {
                listener.ending = Some(ending);
                self.draining.push_back(allocation);
            }
            return;
        }
        let stats = self.finish_container(allocation);
        let _not_waited_for = ending.reply.send(stats);
    }

    /// Reads a part of what is in a container's sockets; answers whether more may be there.
    fn empty_some(&mut self, allocation: Allocation, left: &mut usize) -> bool {
        let now = self.observe_clock();
        let Some(place) = self.places.get(&allocation).copied() else { return false };
        self.close_window_if_over(place, now.wall);
        self.at_hand = Some(place);
        let Some(Some(listener)) = self.listeners.get_mut(place) else { return false };
        listener.empty_some(&mut self.inbox, left, now)
    }

    /// Closes a container's window and lets its sockets go. Only at the very end: should any of it fail, the container is still
    /// here, and is drained when that is asked again.
    fn finish_container(&mut self, allocation: Allocation) -> Option<ContainerStats> {
        let now = self.observe_clock().wall;
        let place = self.places.get(&allocation).copied()?;
        self.publish_all(place);
        self.at_hand = Some(place);
        let listener = self.listeners.get_mut(place)?.as_mut()?;
        listener.count_kernel_drops();
        let closed = listener.aggregator.close_final_window(now);
        listener.publish_window(&self.store, closed);
        self.publish_all(place);
        let loss_log = &self.shared.loss_log;
        let listener = self.listeners.get_mut(place)?.as_mut()?;
        let stats = listener.collect_stats(StatsDetail::Counts, now);
        listener.log_losses(loss_log, now);
        listener.record_end(&self.store);
        let listener = self.release_listener(allocation)?;
        listener.give_back(&self.shared.buffers);
        Some(stats)
    }
}
