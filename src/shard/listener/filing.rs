//! Closed windows on their way to the store, and what a container holds meanwhile.

use std::sync::Arc;

use super::ContainerListener;
use crate::aggregate::{ClosedWindow, Dropped};
use crate::model::Timestamp;
use crate::store::{Filed, PendingWindow, Store};

/// What a container's open window may hold beyond what the node counts, in bytes.
const GROWTH: usize = 64 << 10;

impl ContainerListener {
    /// Opens the container in the store, where its memory counts from now on.
    pub(in crate::shard) fn open(&mut self, store: &Store, now: Timestamp) {
        let bytes = self.aggregator.own_memory();
        store.open_live(self.allocation, Arc::clone(&self.origin), now, &mut self.live, bytes);
        self.kept = store.kept_bytes(self.allocation);
        self.aggregator.set_kept_bytes(self.kept);
    }

    /// Notes in the store that the container has ended, where its memory does not count any more.
    pub(in crate::shard) fn record_end(&mut self, store: &Store) {
        store.ended_live(self.allocation, &mut self.live);
    }

    /// Publishes a window that was closed, at once if it has no late samples. Answers whether they are left to be merged before, with
    /// [`ContainerListener::merge_one`].
    pub(in crate::shard) fn publish_window(&mut self, store: &Store, closed: ClosedWindow) -> bool {
        if closed.revisions.is_empty() {
            let (allocation, values) = (self.allocation, closed.values);
            self.publish_with(values, || store.push(allocation, closed));
            return false;
        }
        self.pending = Some(PendingWindow::new(store, self.allocation, closed));
        self.count_memory();
        true
    }

    /// Merges one part of the late samples that the last closed window came with, and publishes it after the last part. Answers
    /// whether more is left.
    pub(in crate::shard) fn merge_one(&mut self, store: &Store) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        if pending.merge_one(store) {
            self.count_memory();
            return true;
        }
        // Should publishing fail, it is not tried again.
        if let Some(pending) = self.pending.take() {
            self.publish_with(pending.value_count(), || pending.publish_to(store));
        }
        false
    }

    /// Publishes a window and notes what it takes. Values that are lost on the way are counted as such, now or, if publishing panics,
    /// by [`ContainerListener::recover_from_panic`].
    pub(in crate::shard) fn publish_with(&mut self, values: u64, publish: impl FnOnce() -> Filed) {
        // What a panic has left here, if counting it failed, too.
        let unfiled = std::mem::replace(&mut self.unfiled, values);
        self.aggregator.lose_closed(unfiled);
        let Filed { held, lost } = publish();
        self.unfiled = 0;
        self.kept = held;
        if lost > 0 {
            let container = &self.origin.container_id;
            tracing::error!(
                %container,
                lost,
                "values of closed windows could not be merged or published and are lost; this is a defect, please report it with the agent's log"
            );
            self.aggregator.lose_closed(lost);
        }
        self.count_memory();
    }

    /// Begins again after a panic with what the store has. A window that waits is published without the late samples that are not
    /// merged yet: one of them may be why the shard failed. Answers how many values are lost.
    pub(in crate::shard) fn recover_from_panic(&mut self, store: &Store, now: Timestamp) -> u64 {
        let open = self.aggregator.begin_again(now);
        let before = self.aggregator.accounting().dropped.count_for(Dropped::ShardFailed);
        let unfiled = std::mem::take(&mut self.unfiled);
        self.aggregator.lose_closed(unfiled);
        if let Some(mut pending) = self.pending.take() {
            pending.give_up_rest();
            self.publish_with(pending.value_count(), || pending.publish_to(store));
        }
        // What it goes on with is read from there.
        if let Some(history) = store.find_history(self.allocation) {
            self.restore_from_history(&history);
        }
        self.count_memory();
        open + self.aggregator.accounting().dropped.count_for(Dropped::ShardFailed) - before
    }

    /// A closed window whose late samples are being merged.
    #[cfg(test)]
    pub(in crate::shard) fn pending(&mut self) -> Option<&mut PendingWindow> {
        self.pending.as_mut()
    }

    /// Whether the open window holds so much more than was counted last that it has to be counted before it is closed: containers with
    /// many new series or members of sets could otherwise go far beyond the node's limit within one window.
    pub(in crate::shard) fn has_grown(&self) -> bool {
        self.aggregator.memory_bytes() >= self.counted_memory + GROWTH
    }

    /// Counts the container's memory anew, for its own limit and the node's.
    pub(in crate::shard) fn count_memory(&mut self) {
        let waiting = self.pending.as_ref().map_or(0, PendingWindow::bytes);
        self.aggregator.set_kept_bytes(self.kept + waiting);
        self.live.set(self.aggregator.own_memory());
        self.counted_memory = self.aggregator.memory_bytes();
    }
}
