//! Windows that are no longer kept before the window log has written them: of a container that keeps few windows or was
//! forgotten, while the disk is slow. They are held back for the writer of the log, so that publishers find them in its files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Published, Store};
use crate::model::{Allocation, Timestamp};

/// The most bytes that are held back; beyond them, the oldest windows are lost. A disk that hangs must not take all memory.
const MOST_BYTES: usize = 16 << 20;

/// Windows that are held back, by place.
#[derive(Debug)]
pub(super) struct UnwrittenWindows {
    /// The last place that is written, or lost for the log.
    written: u64,
    windows: BTreeMap<u64, Arc<Published>>,
    /// When the container of each was registered. Asked for every window that is written, so it is not searched for.
    containers: HashMap<Allocation, HeldContainer>,
    bytes: usize,
    limit: usize,
}

/// A container of which windows are held back.
#[derive(Debug)]
struct HeldContainer {
    opened: Timestamp,
    /// How many of its windows are held back.
    windows: usize,
}

impl Default for UnwrittenWindows {
    /// Without a log, nothing is waited for.
    fn default() -> Self {
        Self {
            written: u64::MAX,
            windows: BTreeMap::new(),
            containers: HashMap::new(),
            bytes: 0,
            limit: MOST_BYTES,
        }
    }
}

/// What the window log has to write.
#[derive(Debug)]
pub struct WindowsToWrite {
    /// The windows after a place, in order. Places between them are of windows that are lost.
    pub windows: Vec<Arc<Published>>,
    /// The last place that was assigned.
    pub end: u64,
}

impl UnwrittenWindows {
    /// Holds back a window that leaves the store, unless it is written.
    pub(super) fn hold_back(&mut self, published: &Arc<Published>, opened: Timestamp) {
        if published.last_seq() <= self.written {
            return;
        }
        self.bytes += byte_length(published);
        self.windows.insert(published.first_seq(), Arc::clone(published));
        let new = HeldContainer { opened, windows: 0 };
        self.containers.entry(published.allocation()).or_insert(new).windows += 1;
        while self.bytes > self.limit
            && let Some((_, oldest)) = self.windows.pop_first()
        {
            self.count_out(&oldest);
        }
    }

    /// Lets go of windows up to a place. They are returned, to be freed without the lock.
    fn note_written(&mut self, written: u64) -> Vec<Arc<Published>> {
        self.written = written;
        let mut released = Vec::new();
        while let Some(first) = self.windows.first_entry()
            && first.get().last_seq() <= written
        {
            let published = first.remove();
            self.count_out(&published);
            released.push(published);
        }
        released
    }

    /// Notes that a window is no longer held back.
    fn count_out(&mut self, published: &Published) {
        self.bytes -= byte_length(published);
        let allocation = published.allocation();
        if let Some(container) = self.containers.get_mut(&allocation) {
            container.windows = container.windows.saturating_sub(1);
            if container.windows == 0 {
                self.containers.remove(&allocation);
            }
        }
    }

    /// When the container of a window that is held back was registered.
    pub(super) fn opened_at(&self, allocation: Allocation) -> Option<Timestamp> {
        self.containers.get(&allocation).map(|container| container.opened)
    }

    /// Bytes of the windows that are held back. Their layouts are not counted, which most of them share.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn recount_bytes(&self) -> usize {
        self.windows.values().map(|published| byte_length(published)).sum()
    }
}

fn byte_length(published: &Published) -> usize {
    published.held_bytes().total_bytes()
}

impl Store {
    /// Notes that the window log has written everything up to a place. From the first call on, windows after that place are held
    /// back when they would leave the store, until they are written as well; `u64::MAX` says that no more will be.
    pub fn note_written(&self, written: u64) {
        let released = self.write().unwritten.note_written(written);
        drop(released);
    }

    /// The place up to which everything is written; `None` while no log writes.
    #[must_use]
    pub fn written_place(&self) -> Option<u64> {
        let written = self.read().unwritten.written;
        (written < u64::MAX).then_some(written)
    }

    /// What the window log has to write after a place: what is kept, and what is held back.
    #[must_use]
    pub fn windows_to_write(&self, after: u64) -> WindowsToWrite {
        // Under one lock: a window that leaves the store in between is either kept or held back.
        let inner = self.read();
        let held_back: Vec<_> = inner
            .unwritten
            .windows
            .range(after.saturating_add(1)..)
            .map(|(_, held)| Arc::clone(held))
            .collect();
        let snapshot = inner.snapshot_after(after);
        drop(inner);
        let mut windows = snapshot.published_after(after, Published::first_seq);
        if !held_back.is_empty() {
            windows.extend(held_back);
            windows.sort_unstable_by_key(|published| published.first_seq());
        }
        WindowsToWrite { windows, end: snapshot.last }
    }

    /// Changes how many bytes are held back at most.
    #[cfg(test)]
    pub(crate) fn hold_back_at_most(&self, bytes: usize) {
        self.write().unwritten.limit = bytes;
    }
}
