//! Containers that come to a shard and go from it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::{UNIX, Worker};
use crate::aggregate::LimitMode;
use crate::model::Allocation;
use crate::shard::command::NewListener;
use crate::shard::listener::ContainerListener;

impl Worker {
    pub(super) fn open(&mut self, new: NewListener) -> nix::Result<()> {
        let now = self.observe_clock().wall;
        let allocation = new.allocation;
        let goes_on = new.before.is_some();
        let mut listener =
            ContainerListener::new(new, Arc::clone(&self.settings), now, self.store.live_bytes());
        // After the agent was killed, what was restored is in the store only.
        if !goes_on && let Some(history) = self.store.find_history(allocation) {
            listener.restore_from_history(&history);
        }
        let place = self.watch_sockets(&listener)?;
        listener.open(&self.store, now);
        listener.reserve_buffer(&self.shared.buffers);
        self.insert_listener(place, listener);
        Ok(())
    }

    /// Tells the store how many totals it may remember: of a workload as many as one of its containers may have series.
    pub(super) fn remember_totals(&self) {
        let limits = self.settings.limits;
        let of_one = match limits.mode {
            LimitMode::Enforce => limits.series,
            LimitMode::Observe => usize::MAX,
        };
        self.store.remember_at_most(of_one, self.shared.remembered.load(Ordering::Relaxed));
    }

    /// The place that events of a container's sockets will name.
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
            tracing::debug!(%error, "a socket was not watched");
        }
    }

    pub(super) fn insert_listener(&mut self, place: usize, mut listener: ContainerListener) {
        // The other containers are told when windows are closed. Without this, one that comes to a full node, with late samples for
        // all windows that are kept of it, could double what is held before its first window is closed.
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

    /// Lets a container go as it is, with every window published that is closed. Its datagrams wait in the kernel until it is
    /// adopted.
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
