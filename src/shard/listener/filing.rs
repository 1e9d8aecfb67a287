//! Publishing closed windows to the store, and accounting for the memory they hold until then.

use std::sync::Arc;

use super::ContainerListener;
use crate::aggregate::{ClosedWindow, Dropped};
use crate::model::Timestamp;
use crate::store::{Filed, PendingWindow, Store};

/// How much a container's open window may grow, in bytes, before its memory is counted again.
const GROWTH: usize = 64 << 10;

impl ContainerListener {
    /// Opens the container in the store, which counts its memory from now on.
    pub(in crate::shard) fn open(&mut self, store: &Store, now: Timestamp) {
        let bytes = self.aggregator.own_memory();
        store.open_live(self.allocation, Arc::clone(&self.origin), now, &mut self.live, bytes);
        self.kept = store.kept_bytes(self.allocation);
        self.aggregator.set_kept_bytes(self.kept);
    }

    /// Records in the store that the container has ended; its aggregator's memory no longer counts.
    pub(in crate::shard) fn record_end(&mut self, store: &Store) {
        store.ended_live(self.allocation, &mut self.live);
    }

    /// Publishes a closed window at once if it has no late samples. Otherwise returns true: they must be merged first
    /// with [`ContainerListener::merge_one`], which then publishes the window.
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

    /// Merges one part of the last closed window's late samples, and publishes the window after the last part. Returns
    /// whether more parts are left.
    pub(in crate::shard) fn merge_one(&mut self, store: &Store) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        if pending.merge_one(store) {
            self.count_memory();
            return true;
        }
        // A window whose publication panics is not retried.
        if let Some(pending) = self.pending.take() {
            self.publish_with(pending.value_count(), || pending.publish_to(store));
        }
        false
    }

    /// Publishes a window and counts its memory. Lost values are counted here or, if publishing panics, by
    /// [`ContainerListener::recover_from_panic`].
    pub(in crate::shard) fn publish_with(&mut self, values: u64, publish: impl FnOnce() -> Filed) {
        // Values left by an earlier panic whose recovery panicked as well.
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

    /// Restarts the aggregator from the store after a panic. A pending window is published without the late samples
    /// that are not merged yet, one of which may have caused the panic. Returns the number of lost values.
    pub(in crate::shard) fn recover_from_panic(&mut self, store: &Store, now: Timestamp) -> u64 {
        let open = self.aggregator.begin_again(now);
        let before = self.aggregator.accounting().dropped.count_for(Dropped::ShardFailed);
        let unfiled = std::mem::take(&mut self.unfiled);
        self.aggregator.lose_closed(unfiled);
        if let Some(mut pending) = self.pending.take() {
            pending.give_up_rest();
            self.publish_with(pending.value_count(), || pending.publish_to(store));
        }
        // The aggregator continues from its history.
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

    /// Whether the open window has grown so much since its memory was last counted that it must be counted before it is
    /// closed. Containers with many new series or set members could otherwise far exceed the node's limit in one
    /// window.
    pub(in crate::shard) fn has_grown(&self) -> bool {
        self.aggregator.memory_bytes() >= self.counted_memory + GROWTH
    }

    /// Recounts the container's memory, for its own limit and the node's.
    pub(in crate::shard) fn count_memory(&mut self) {
        let waiting = self.pending.as_ref().map_or(0, PendingWindow::bytes);
        self.aggregator.set_kept_bytes(self.kept + waiting);
        self.live.set(self.aggregator.own_memory());
        self.counted_memory = self.aggregator.memory_bytes();
    }
}
