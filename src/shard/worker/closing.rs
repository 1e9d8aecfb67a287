//! Closes windows that have ended, and publishes them, in bounded slices.

use std::time::Duration;

use super::Worker;
use crate::model::{Moment, Timestamp};
use crate::shard::turn::Share;

/// Closing windows keeps a shard from receiving for at most this long in one turn, plus the time of one container.
const STALL: Duration = Duration::from_millis(5);
/// The same for merging late samples, plus the time of one part of a revision.
const MERGING: Duration = Duration::from_millis(2);

/// A round of closing windows that is under way.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// The next listener's place.
    next: usize,
}

impl Worker {
    /// Closes windows that have ended, for at most [`STALL`]; the rest follow after the next datagrams. If a container
    /// sends before that, its window is closed before its datagrams are read.
    pub(super) fn close_windows(&mut self, now: Moment) {
        self.close_windows_for(STALL, now);
    }

    /// Like [`Worker::close_windows`], with another time limit.
    pub(super) fn close_windows_for(&mut self, time: Duration, now: Moment) {
        if self.closing.is_none() && now.wall < self.next_end {
            return;
        }
        let started = self.clock.monotonic_time();
        let mut share = Share::new(started, usize::MAX, time);
        let mut closing = self.closing.take().unwrap_or_default();
        while closing.next < self.listeners.len() && share.take_step(|| self.clock.monotonic_time()) {
            let place = closing.next;
            closing.next += 1;
            self.close_window_if_over(place, now.wall);
            let Some(Some(listener)) = self.listeners.get_mut(place) else { continue };
            listener.count_kernel_drops();
            listener.log_losses(&self.shared.loss_log, now.wall);
            listener.count_memory();
        }
        self.shared.held_up(self.clock.monotonic_time().saturating_sub(started));
        if closing.next < self.listeners.len() {
            self.closing = Some(closing);
        } else {
            self.closed_windows();
        }
    }

    /// Ends a round in which every window that had ended was closed.
    fn closed_windows(&mut self) {
        let listeners = || self.listeners.iter().flatten();
        let ends = listeners().map(|listener| listener.aggregator.window_end());
        self.next_end = ends.min().unwrap_or(Timestamp::MAX);
        let full = self.shared.is_full();
        for listener in self.listeners.iter_mut().flatten() {
            listener.aggregator.set_node_full(full);
        }
    }

    /// Closes the window of the container at a place if it has ended. It is published at once, or by
    /// [`Worker::merge_late`] once its late samples are merged.
    pub(super) fn close_window_if_over(&mut self, place: usize, now: Timestamp) {
        let over = self.listeners.get(place).and_then(Option::as_ref);
        if over.is_none_or(|listener| listener.aggregator.window_end() > now) {
            return;
        }
        // Earlier windows must be published first.
        self.publish_all(place);
        self.current_place = Some(place);
        let Some(Some(listener)) = self.listeners.get_mut(place) else { return };
        let Some(closed) = listener.aggregator.roll_across(now, self.unread) else { return };
        if listener.publish_window(&self.store, closed) {
            self.merging.push_back(place);
        }
    }

    /// Merges late samples of closed windows, for at most [`MERGING`]; containers take turns.
    pub(super) fn merge_late(&mut self) {
        if self.merging.is_empty() {
            return;
        }
        let mut share = Share::new(self.clock.monotonic_time(), usize::MAX, MERGING);
        while let Some(place) = self.merging.front().copied() {
            if !share.take_step(|| self.clock.monotonic_time()) {
                return;
            }
            self.merging.pop_front();
            if self.merge_one(place) {
                self.merging.push_back(place);
            }
        }
    }

    /// Publishes the pending window of the container at a place, however long that takes: the container is leaving this
    /// shard, or its next window has ended.
    pub(super) fn publish_all(&mut self, place: usize) {
        while self.merge_one(place) {}
    }

    /// Merges one part of a revision; returns whether more must be merged before the window is published.
    pub(super) fn merge_one(&mut self, place: usize) -> bool {
        self.current_place = Some(place);
        let Some(Some(listener)) = self.listeners.get_mut(place) else { return false };
        listener.merge_one(&self.store)
    }
}
