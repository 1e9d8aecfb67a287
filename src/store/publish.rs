//! Publishing closed windows: the only way shards write to the store.
//!
//! Late samples of a closed window are merged part by part before it is published; meanwhile its bytes are counted for the shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Store;
use super::history::{Published, Revision};
use super::names::Changed;
use crate::aggregate::{ClosedWindow, Window};
use crate::model::Allocation;

/// New revisions of an interval's records, to be published.
#[derive(Debug)]
pub struct Revised(Revision);

/// The result of publishing a closed window.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Filed {
    /// Bytes that the store holds for the container now.
    pub held: usize,
    /// Values that were lost, because a record could not be decoded or the container is not in the store.
    pub lost: u64,
}

impl Revised {
    /// Bytes of the new records and their numbers.
    pub(super) fn bytes(&self) -> usize {
        self.0.stored.window.bytes() + self.0.stored.added_bytes() + size_of_val(&*self.0.stored.revs)
    }
}

impl Store {
    /// Publishes a window that a shard closed, and the revisions that go with it.
    ///
    /// Only one thread at a time may do this for a container.
    pub fn push(&self, allocation: Allocation, closed: ClosedWindow) -> Filed {
        let (mut merged, mut lost) = (Vec::with_capacity(closed.revisions.len()), 0);
        for delta in &closed.revisions {
            match self.merge_late_samples(allocation, delta) {
                Some(revised) => merged.push(revised),
                None => lost += delta.count_values(),
            }
        }
        let filed = self.publish_held(allocation, closed, merged, None);
        Filed { lost: filed.lost + lost, ..filed }
    }

    /// Merges late samples of one interval with its kept records, without publishing the result. Works on the current
    /// history without a lock, so that one container's late samples do not delay readers and other containers. `None`
    /// if the container is not in the store.
    #[must_use]
    pub fn merge_late_samples(&self, allocation: Allocation, delta: &Window) -> Option<Revised> {
        self.find_history(allocation).map(|history| Revised(history.merge_late_samples(delta)))
    }

    /// Like [`Store::push`], for a window whose late samples are already merged into `merged`; nothing of the container
    /// may have been published since. Bytes that were counted for the waiting window are released here.
    pub(super) fn publish_held(
        &self,
        allocation: Allocation,
        closed: ClosedWindow,
        merged: Vec<Revised>,
        mut waiting: Option<LiveBytes>,
    ) -> Filed {
        let end = closed.window.span.end;
        let mut merged: Vec<_> = merged.into_iter().map(|Revised(revision)| revision).collect();
        let Some(history) = self.find_history(allocation) else {
            return Filed { held: 0, lost: closed.values + values_of(&merged) };
        };
        let (origin, identities) = (Arc::clone(history.origin()), history.identities().clone());
        let ledger = history.summary().map(|summary| Arc::clone(&summary.ledger));
        if !closed.window.is_empty() {
            merged.push(history.merge_with_interval(closed.window, closed.values));
        }
        drop(history);
        let lost = merged.iter().map(|revision| revision.lost).sum();
        // Added and removed series are also determined before locking.
        let now = Arc::clone(&closed.summary.ledger);
        let came: Vec<_> = match &ledger {
            Some(before) => now.entries_missing_from(before).map(|(series, ..)| series).collect(),
            None => now.iter().map(|(series, _)| series).collect(),
        };
        let gone: Vec<_> = ledger.iter().flat_map(|before| before.entries_missing_from(&now)).collect();
        let went = gone.iter().map(|(series, ..)| *series);
        let names = Changed::from_series(&origin, came.into_iter(), went);
        // Dropped windows are freed after the lock is released.
        let (last, held, _gone) = {
            let mut guard = self.write();
            let inner = &mut *guard;
            let Some(history) = inner.containers.get_mut(&allocation) else {
                return Filed { held: 0, lost: values_of(&merged) };
            };
            let history = Arc::make_mut(history);
            inner.held.remove(history.held_bytes());
            // A container that closes windows has an aggregator.
            history.set_alone(None);
            for Revision { stored, .. } in merged {
                // Nothing is left of a revision whose records could not be decoded.
                if stored.window.is_empty() {
                    continue;
                }
                let published = Published::new(allocation, history.origin(), stored, inner.last + 1);
                let published = Arc::new(published);
                inner.last = published.last_seq();
                inner.records += published.window().len() as u64;
                inner.log.insert(published.first_seq(), Arc::clone(&published));
                history.keep_window(published);
            }
            let before = history.set_summary(closed.summary);
            inner.names.update_series(names, Some(end));
            if closed.begun_again {
                inner.past.add(&origin, gone.iter().copied());
            } else {
                inner.past.add_evicted(&origin, gone.iter().copied());
            }
            let (dropped, opened) = (history.drop_beyond(self.keep), history.opened_at());
            for published in &dropped {
                inner.log.remove(&published.first_seq());
                inner.unwritten.hold_back(published, opened);
            }
            inner.losses.record_loss(history.last_gone_seq());
            let held = history.held_bytes();
            inner.held.add(held);
            waiting.iter_mut().for_each(|waiting| waiting.set(0));
            (inner.last, held.total_bytes() + inner.shared_with(&identities), (before, dropped))
        };
        self.newest.send_if_modified(|newest| std::mem::replace(newest, last) != last);
        Filed { held, lost }
    }
}

/// The number of values in revisions, including lost ones.
fn values_of(revisions: &[Revision]) -> u64 {
    revisions.iter().map(|revision| revision.values).sum()
}

/// A closed window whose late samples are being merged. Its bytes are counted as held from here until it is published.
#[derive(Debug)]
pub struct PendingWindow {
    allocation: Allocation,
    closed: ClosedWindow,
    /// Late samples that are not merged yet, in parts.
    rest: std::vec::IntoIter<Window>,
    merged: Vec<Revised>,
    /// Values of the window and of all late samples that came with it.
    values: u64,
    /// Values of parts that could not be merged.
    lost: u64,
    /// Bytes of the layout, where no window in the store has it.
    layout: usize,
    held: LiveBytes,
}

impl PendingWindow {
    /// Starts with a window that has just been closed.
    #[must_use]
    pub fn new(store: &Store, allocation: Allocation, mut closed: ClosedWindow) -> Self {
        let rest = std::mem::take(&mut closed.revisions);
        let values = closed.values + rest.iter().map(Window::count_values).sum::<u64>();
        let layout = closed.window.layout();
        let known = store.find_history(allocation).is_some_and(|history| history.has_layout(layout));
        let layout = if known { 0 } else { size_of_val(&**layout) };
        let (rest, held) = (rest.into_iter(), store.live_bytes());
        let mut new = Self { allocation, closed, rest, merged: Vec::new(), values, lost: 0, layout, held };
        new.held.set(new.recount_bytes());
        new
    }

    /// Merges one part with the records of its interval in the store. Returns whether another part is left.
    pub fn merge_one(&mut self, store: &Store) -> bool {
        let allocation = self.allocation;
        self.merge_one_with(|part| store.merge_late_samples(allocation, part))
    }

    /// Like [`PendingWindow::merge_one`], with the given merge function.
    pub(crate) fn merge_one_with(&mut self, merge: impl FnOnce(&Window) -> Option<Revised>) -> bool {
        if let Some(part) = self.rest.next() {
            // It counts as lost until it is merged, in case merging panics.
            let values = part.count_values();
            self.lost += values;
            let mut bytes = self.held.get().saturating_sub(part.bytes());
            if let Some(revised) = merge(&part) {
                self.lost -= values;
                bytes += revised.bytes();
                self.merged.push(revised);
            }
            self.held.set(bytes);
        }
        self.rest.len() > 0
    }

    /// Discards the parts that are not merged yet, which [`PendingWindow::publish_to`] then reports as lost.
    pub fn give_up_rest(&mut self) {
        self.lost += self.rest.by_ref().map(|part| part.count_values()).sum::<u64>();
        self.held.set(self.recount_bytes());
    }

    /// Publishes the revisions and then the window. Parts that were not merged are lost.
    pub fn publish_to(mut self, store: &Store) -> Filed {
        self.give_up_rest();
        let Self { allocation, closed, merged, lost, held, .. } = self;
        let filed = store.publish_held(allocation, closed, merged, Some(held));
        Filed { lost: filed.lost + lost, ..filed }
    }

    /// Values of the window and of all late samples that came with it.
    #[must_use]
    pub fn value_count(&self) -> u64 {
        self.values
    }

    /// Bytes that are held for the container until this is published. Series, events and outcomes of checks are shared with the
    /// aggregator and counted there.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.held.get()
    }

    /// Recounts the bytes.
    #[must_use]
    pub fn recount_bytes(&self) -> usize {
        let rest = self.rest.as_slice().iter().map(Window::bytes).sum::<usize>();
        let merged = self.merged.iter().map(Revised::bytes).sum::<usize>();
        self.closed.window.bytes() + self.closed.summary.bytes() + self.layout + rest + merged
    }
}

/// Bytes that a shard holds for one container: its aggregator, or a closed window that is not published yet. They count as
/// held by the store for as long as this value exists, so a shard that fails cannot leave them counted.
///
/// When such bytes become windows of the store, both counts change under the store's lock: a reader never sees them
/// twice or not at all.
#[derive(Debug)]
pub struct LiveBytes {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl LiveBytes {
    /// Sets how many bytes there are now.
    pub fn set(&mut self, bytes: usize) {
        // Adding the difference modulo 2^64 also subtracts.
        self.all.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// How many bytes there are.
    #[must_use]
    pub fn get(&self) -> usize {
        self.bytes
    }
}

impl Drop for LiveBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Store {
    /// A count of bytes held outside the store, which starts at zero.
    #[must_use]
    pub fn live_bytes(&self) -> LiveBytes {
        LiveBytes { all: Arc::clone(&self.live), bytes: 0 }
    }
}
