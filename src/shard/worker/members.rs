//! Containers that come to a shard, leave it, or end there.
//!
//! The sockets of a container that ends are emptied over as many turns as it takes, and then closed. If it leaves its shard
//! before that, it continues to end on the shard that adopts it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::epoll::{EpollEvent, EpollFlags};
use tokio::sync::oneshot;

use super::{UNIX, Worker};
use crate::aggregate::LimitMode;
use crate::model::Allocation;
use crate::shard::listener::{ContainerListener, ListenerEnding, NewListener};
use crate::shard::stats_queries::{ContainerStats, StatsDetail};
use crate::shard::turn::Share;

impl Worker {
    pub(super) fn open(&mut self, new: NewListener) -> nix::Result<()> {
        let now = self.observe_clock().wall;
        let allocation = new.allocation;
        let goes_on = new.before.is_some();
        let mut listener =
            ContainerListener::new(new, Arc::clone(&self.settings), now, self.store.live_bytes());
        // After the agent was killed, the restored state is only in the store.
        if !goes_on && let Some(history) = self.store.find_history(allocation) {
            listener.restore_from_history(&history);
        }
        let place = self.watch_sockets(&listener)?;
        listener.open(&self.store, now);
        listener.reserve_buffer(&self.shared.buffers);
        self.insert_listener(place, listener);
        Ok(())
    }

    /// Sets how many totals the store may remember: for a workload, as many as one container may have series.
    pub(super) fn remember_totals(&self) {
        let limits = self.settings.limits;
        let of_one = match limits.mode {
            LimitMode::Enforce => limits.series,
            LimitMode::Observe => usize::MAX,
        };
        self.store.remember_at_most(of_one, self.shared.remembered.load(Ordering::Relaxed));
    }

    /// Registers a container's sockets with epoll. Returns the place that their events will name.
    pub(super) fn watch_sockets(&self, listener: &ContainerListener) -> nix::Result<usize> {
        let taken = self.listeners.iter().skip(self.vacant_from).take_while(|place| place.is_some());
        let place = self.vacant_from + taken.count();
        let event = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
        if let Some(socket) = &listener.socket {
            self.epoll.add(socket, event(place as u64))?;
        }
        if let Some(unix) = &listener.unix
            && let Err(error) = self.epoll.add(unix.socket(), event(place as u64 | UNIX))
        {
            self.unwatch_sockets(listener);
            return Err(error);
        }
        Ok(place)
    }

    pub(super) fn unwatch_sockets(&self, listener: &ContainerListener) {
        let udp = listener.socket.as_ref().map(|socket| self.epoll.delete(socket));
        let unix = listener.unix.as_ref().map(|unix| self.epoll.delete(unix.socket()));
        for error in [udp, unix].into_iter().flatten().filter_map(Result::err) {
            tracing::debug!(%error, "cannot watch a socket");
        }
    }

    pub(super) fn insert_listener(&mut self, place: usize, mut listener: ContainerListener) {
        // Other containers learn this when windows are closed. Without it here, a container that joins a full node with
        // late samples for all of its kept windows could double its memory before its first window is closed.
        listener.aggregator.set_node_full(self.shared.is_full());
        self.next_end = self.next_end.min(listener.aggregator.window_end());
        self.places.insert(listener.allocation, place);
        if place == self.vacant_from {
            self.vacant_from += 1;
        }
        match self.listeners.get_mut(place) {
            Some(vacant) => *vacant = Some(listener),
            None => self.listeners.push(Some(listener)),
        }
    }

    /// Releases a container with its state, after publishing all its closed windows. Its datagrams wait in the kernel
    /// until it is adopted.
    pub(super) fn release_listener(&mut self, allocation: Allocation) -> Option<Box<ContainerListener>> {
        let place = self.places.get(&allocation).copied()?;
        self.publish_all(place);
        self.places.remove(&allocation);
        let listener = self.listeners.get_mut(place)?.take()?;
        self.vacant_from = self.vacant_from.min(place);
        self.unwatch_sockets(&listener);
        Some(Box::new(listener))
    }

    pub(super) fn adopt_listener(
        &mut self,
        mut listener: Box<ContainerListener>,
    ) -> Result<(), Box<ContainerListener>> {
        let Ok(place) = self.watch_sockets(&listener) else { return Err(listener) };
        listener.aggregator.apply_settings(&self.settings);
        if listener.ending.is_some() {
            self.draining.push_back(listener.allocation);
        }
        self.insert_listener(place, *listener);
        Ok(())
    }
}

/// Draining blocks a shard for at most this long in one turn, plus one turn of a socket.
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

    /// Continues draining, within this turn's share; containers take turns.
    pub(super) fn drain_some(&mut self) {
        if self.draining.is_empty() {
            return;
        }
        let mut share = Share::new(self.clock.monotonic_time(), usize::MAX, DRAINING);
        while !self.draining.is_empty() && share.take_step(|| self.clock.monotonic_time()) {
            self.drain_step();
        }
    }

    /// Completes all pending drains, however long that takes; for a shard that ends.
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
        // Taken out of the listener, so that a panic while reading drops the reply, and the caller repeats the request.
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

    /// Reads a part of the datagrams in a container's sockets; returns whether more may be waiting.
    fn empty_some(&mut self, allocation: Allocation, left: &mut usize) -> bool {
        let now = self.observe_clock();
        let Some(place) = self.places.get(&allocation).copied() else { return false };
        self.close_window_if_over(place, now.wall);
        self.current_place = Some(place);
        let Some(Some(listener)) = self.listeners.get_mut(place) else { return false };
        listener.empty_some(&mut self.inbox, left, now)
    }

    /// Closes a container's window and then releases its sockets, as the last step: if anything before it panics, the
    /// container is still here and is drained when the request is repeated.
    fn finish_container(&mut self, allocation: Allocation) -> Option<ContainerStats> {
        let now = self.observe_clock().wall;
        let place = self.places.get(&allocation).copied()?;
        self.publish_all(place);
        self.current_place = Some(place);
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
