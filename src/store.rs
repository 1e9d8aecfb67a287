//! The last windows of every container, in one sequence that the whole node shares.
//!
//! Shards write, all other parts read. A record gets its place in the sequence, `(epoch, seq)`, at the moment it
//! becomes visible, so a reader that has read up to a place has read everything before it. Windows are immutable: a late
//! sample makes a new revision of its record with a new place, and the old one stays what it was.

mod history;
mod names;
mod past;
mod publish;
mod sequence;
mod snapshot;
mod succession;
mod unwritten;

use std::collections::BTreeMap;
use std::iter;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use history::HeldBytes;
pub use history::{HISTORY_VERSION, History, HistoryError, IntervalWindows, Published, StoredWindow};
use names::{Changed, Names};
pub use names::{Meeting, NameChange, NameChanges, NameState};
use past::Past;
pub use past::{EvictedTotals, Gone, GoneByIdentity, REMEMBERED, SeriesTotals, Summed};
pub use publish::{Filed, LiveBytes, PendingWindow, Revised};
pub use sequence::{Cursor, CursorError, EPOCH, Epoch, next_epoch};
use snapshot::Losses;
pub use succession::{ReceivedStore, SentStore, StorePart};
use unwritten::UnwrittenWindows;
pub use unwritten::WindowsToWrite;

use crate::aggregate::{ContainerSummary, EventRecord};
use crate::model::{Allocation, Origin, SharedMap, Timestamp};
use crate::render::prometheus::{Level, MarksOfAll, SeriesIdentity};

/// Maximum number of windows that a reader copies from the log while it holds the lock.
const AT_ONCE: usize = 1024;

/// The last windows of every container.
#[derive(Debug)]
pub struct Store {
    epoch: u64,
    keep: usize,
    inner: RwLock<Inner>,
    newest: watch::Sender<u64>,
    /// The last place of windows that an earlier run published and this one restored before it published any. Publishers ask for it
    /// at every look, so it takes no lock.
    restored: AtomicU64,
    /// Bytes that shards hold for containers, outside the store.
    live: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The last assigned place.
    last: u64,
    /// Readers and merges clone the pointer to a history and release the lock; a writer copies a history that is
    /// shared.
    containers: SharedMap<Allocation, Arc<History>>,
    /// All kept windows, by place.
    log: BTreeMap<u64, Arc<Published>>,
    losses: Losses,
    /// Windows that are no longer kept and that the window log has not written.
    unwritten: UnwrittenWindows,
    records: u64,
    /// The sum over all containers, maintained so that readers need not compute it.
    held: HeldBytes,
    past: Past,
    names: Names,
}

/// A cursor that cannot be continued from: records after it were dropped, or never existed here.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Expired {
    /// The oldest valid cursor.
    pub oldest: Cursor,
}

/// The windows published after a cursor, and the cursor after them.
#[derive(Debug)]
pub struct Since {
    /// The windows, in order; some records of the first may be before the cursor.
    pub published: Vec<Arc<Published>>,
    /// The cursor to continue from.
    pub next: Cursor,
}

/// A container, its origin, and its last events, oldest first.
pub type ContainerEvents = (Allocation, Arc<Origin>, Arc<[Arc<EventRecord>]>);

/// A container, its origin, and its summary.
pub type OwnedSummary = (Allocation, Arc<Origin>, ContainerSummary);

/// How much is kept.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Size {
    /// Windows, revisions included.
    pub windows: usize,
    /// Records published since the start.
    pub records: u64,
    /// Bytes of the windows.
    pub bytes: usize,
}

impl Store {
    /// An empty store that keeps the last `keep` windows of each container.
    #[must_use]
    pub fn new(epoch: u64, keep: usize) -> Self {
        Self::with_inner(epoch, keep, Inner::default())
    }

    fn with_inner(epoch: u64, keep: usize, inner: Inner) -> Self {
        let newest = watch::Sender::new(inner.last);
        Self {
            epoch,
            keep,
            inner: RwLock::new(inner),
            newest,
            restored: AtomicU64::new(0),
            live: Arc::default(),
        }
    }

    /// The life of the agent that this sequence belongs to.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Adds a container that was registered at `opened`. A container with adopted windows keeps them.
    pub fn open(&self, allocation: Allocation, origin: Arc<Origin>, opened: Timestamp) {
        self.open_and(allocation, origin, opened, || ());
    }

    /// Like [`Store::open`], for a container whose aggregator holds this many bytes. Bytes that the aggregator shares
    /// with adopted windows count for the aggregator from the same moment on.
    pub fn open_live(
        &self,
        allocation: Allocation,
        origin: Arc<Origin>,
        opened: Timestamp,
        live: &mut LiveBytes,
        bytes: usize,
    ) {
        self.open_and(allocation, origin, opened, || live.set(bytes));
    }

    fn open_and(&self, allocation: Allocation, origin: Arc<Origin>, opened: Timestamp, and: impl FnOnce()) {
        let mut guard = self.write();
        let inner = &mut *guard;
        match inner.containers.get_mut(&allocation) {
            Some(history) => inner.held.update_history(history, |history| history.set_alone(None)),
            None => {
                inner.past.add_container(&origin);
                inner.containers.insert(allocation, Arc::new(History::new(origin, opened)));
            }
        }
        and();
    }

    /// Records that a container has ended: bytes that it shared with its aggregator count for its windows from now on.
    pub fn mark_ended(&self, allocation: Allocation) {
        self.end_and(allocation, || ());
    }

    /// Like [`Store::mark_ended`]; from the same moment on its aggregator's bytes no longer count.
    pub fn ended_live(&self, allocation: Allocation, live: &mut LiveBytes) {
        self.end_and(allocation, || live.set(0));
    }

    fn end_and(&self, allocation: Allocation, and: impl FnOnce()) {
        let shared = self.find_history(allocation).map(|history| history.shared_bytes());
        let mut guard = self.write();
        let inner = &mut *guard;
        if let (Some(history), Some(_)) = (inner.containers.get_mut(&allocation), shared) {
            inner.held.update_history(history, |history| history.set_alone(shared));
        }
        and();
    }

    /// When a container was registered, if the store has it, or windows of it that the window log has to write.
    #[must_use]
    pub fn opened_at(&self, allocation: Allocation) -> Option<Timestamp> {
        let inner = self.read();
        let here = inner.containers.get(&allocation).map(|history| history.opened_at());
        here.or_else(|| inner.unwritten.opened_at(allocation))
    }

    /// The origin of a container's samples.
    #[must_use]
    pub fn origin_of(&self, allocation: Allocation) -> Option<Arc<Origin>> {
        self.read().containers.get(&allocation).map(|history| Arc::clone(history.origin()))
    }

    /// The origins of the containers that are served.
    #[must_use]
    pub fn served_origins(&self) -> Vec<Arc<Origin>> {
        let containers = self.read().containers.clone();
        let served = containers.values().filter(|history| !history.is_alone());
        served.map(|history| Arc::clone(history.origin())).collect()
    }

    pub fn forget_container(&self, allocation: Allocation) {
        let Some(history) = self.find_history(allocation) else { return };
        let summary = history.summary();
        let left: Vec<_> = summary.into_iter().flat_map(|summary| summary.ledger.iter_entries()).collect();
        let mut names =
            Changed::from_series(history.origin(), iter::empty(), left.iter().map(|(series, ..)| *series));
        // Add up the totals without the lock; retry if they changed meanwhile; the last attempt holds the lock.
        for last in [false, false, true] {
            let added = self.read().past.current_totals(history.identities());
            let added = added.with_entries(&left);
            let mut guard = self.write();
            let inner = &mut *guard;
            if !inner.containers.contains_key(&allocation) {
                return;
            }
            let freed = match added.map(|added| inner.past.try_replace(history.identities(), added)) {
                Some(Ok(freed)) => Some(freed),
                Some(Err(_)) if !last => continue,
                Some(Err(_)) | None => {
                    inner.past.add(history.origin(), left.iter().copied());
                    None
                }
            };
            let removed = inner.remove(allocation, std::mem::take(&mut names));
            // Its windows are freed after the lock is released.
            drop(guard);
            drop((freed, removed));
            return;
        }
    }

    /// Bytes held for a container: windows, revisions, its summary, and its share of remembered totals and names.
    #[must_use]
    pub fn kept_bytes(&self, allocation: Allocation) -> usize {
        let inner = self.read();
        let history = inner.containers.get(&allocation);
        history
            .map_or(0, |history| history.held_bytes().total_bytes() + inner.shared_with(history.identities()))
    }

    /// Bytes held for all containers: windows in the store, including those of ended containers; remembered totals and
    /// names of forgotten ones; and what shards hold, as counted with [`Store::live_bytes`].
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let inner = self.read();
        let here =
            inner.held.total_bytes() + inner.past.bytes() + inner.names.bytes() + inner.unwritten.bytes();
        // Read under the lock, so that bytes that move from a shard to the store are not counted twice.
        here + self.live.load(Ordering::Relaxed)
    }

    /// Recounts [`Store::held_bytes`], without what shards hold, in a walk over the whole store; for tests to compare.
    #[must_use]
    pub fn recount_held_bytes(&self) -> usize {
        let inner = self.read();
        let histories = inner.containers.values().map(|history| history.recount_held_bytes().total_bytes());
        let others =
            inner.past.recount_bytes() + inner.names.recount_bytes() + inner.unwritten.recount_bytes();
        histories.sum::<usize>() + others
    }

    /// The current history of a container.
    #[must_use]
    pub fn find_history(&self, allocation: Allocation) -> Option<Arc<History>> {
        self.read().containers.get(&allocation).cloned()
    }

    /// The current histories of all containers, in the order of their registration; the totals of removed series at a
    /// level; and the names that carry a mark.
    #[must_use]
    pub fn snapshot_at_level(
        &self,
        level: Level,
    ) -> (Vec<(Allocation, Arc<History>)>, GoneByIdentity, MarksOfAll) {
        let inner = self.read();
        let containers = inner.containers.clone();
        let (past, marks) = (inner.past.totals_at_level(level), inner.names.all_marks());
        drop(inner);
        let histories = containers.iter().map(|(allocation, history)| (*allocation, Arc::clone(history)));
        let mut histories: Vec<_> = histories.collect();
        histories.sort_unstable_by_key(|(allocation, _)| *allocation);
        (histories, past, marks)
    }

    /// The newest interval of every container that has one, in the order of publication, and the cursor after them.
    #[must_use]
    pub fn newest_intervals(&self) -> (Vec<IntervalWindows>, Cursor) {
        let inner = self.read();
        let (containers, last) = (inner.containers.clone(), inner.last);
        drop(inner);
        let mut newest: Vec<_> =
            containers.values().filter_map(|history| history.kept_intervals().next_back()).cloned().collect();
        newest.sort_unstable_by_key(|kept| {
            kept.published_windows().next().map(|published| published.first_seq())
        });
        (newest, self.cursor_at(last))
    }

    /// Everything that was published after a cursor.
    ///
    /// # Errors
    /// When records after the cursor were dropped, or the cursor belongs to another epoch.
    pub fn read_since(&self, cursor: Cursor) -> Result<Since, Expired> {
        self.published_since(cursor, None)
    }

    /// Everything that was published after a cursor, for a reader of the wanted containers only: dropped records of
    /// other containers do not expire its cursor. The result does include windows of other containers.
    ///
    /// # Errors
    /// When records of the wanted containers after the cursor were dropped, or the cursor belongs to another epoch.
    pub fn since_of(&self, cursor: Cursor, wanted: impl Fn(&Origin) -> bool) -> Result<Since, Expired> {
        self.published_since(cursor, Some(&wanted))
    }

    /// Like [`Store::since_of`], but at most `most` windows and the cursor after them: for a reader that processes them
    /// in steps and holds none in between.
    ///
    /// # Errors
    /// As [`Store::since_of`].
    pub fn some_since_of(
        &self,
        cursor: Cursor,
        most: usize,
        wanted: impl Fn(&Origin) -> bool,
    ) -> Result<Since, Expired> {
        self.some_since(cursor, most, Some(&wanted))
    }

    fn published_since(
        &self,
        cursor: Cursor,
        wanted: Option<&dyn Fn(&Origin) -> bool>,
    ) -> Result<Since, Expired> {
        let mut since = self.some_since(cursor, AT_ONCE, wanted)?;
        let mut more = since.published.len() == AT_ONCE;
        while more {
            let Since { published, next } = self.some_since(since.next, AT_ONCE, wanted)?;
            more = published.len() == AT_ONCE;
            since.published.extend(published);
            since.next = next;
        }
        Ok(since)
    }

    fn some_since(
        &self,
        cursor: Cursor,
        most: usize,
        wanted: Option<&dyn Fn(&Origin) -> bool>,
    ) -> Result<Since, Expired> {
        let seq = cursor.seq;
        let inner = self.read();
        let (last, lost) = (inner.last, inner.losses.last_lost_seq());
        let snapshot = wanted.filter(|_| seq < lost).map(|wanted| (wanted, inner.snapshot_after(last)));
        let published: Vec<_> = inner.published_after(seq).take(most).cloned().collect();
        drop(inner);
        // The losses of the wanted containers are looked up after the lock is released.
        let gone = snapshot.map_or(lost, |(wanted, snapshot)| snapshot.gone_of(wanted));
        if cursor.epoch != self.epoch || seq < gone || seq > last {
            return Err(Expired { oldest: self.cursor_at(gone) });
        }
        let next = match published.last() {
            Some(at_end) if published.len() == most => at_end.last_seq(),
            _ => last,
        };
        Ok(Since { published, next: self.cursor_at(next) })
    }

    /// Every kept window after a place, in order: for readers whose cursor has expired and that must not miss the
    /// windows that are still kept.
    #[must_use]
    pub fn kept_after(&self, seq: u64) -> Vec<Arc<Published>> {
        let snapshot = self.read().snapshot_after(seq);
        snapshot.published_after(seq, Published::first_seq)
    }

    /// The last events of every container that has sent any.
    #[must_use]
    pub fn last_events(&self) -> Vec<ContainerEvents> {
        let containers = self.read().containers.clone();
        let events = |(allocation, history): (&Allocation, &Arc<History>)| {
            let events = &history.summary()?.events;
            (!events.is_empty()).then(|| (*allocation, Arc::clone(history.origin()), Arc::clone(events)))
        };
        containers.iter().filter_map(events).collect()
    }

    /// The summaries of all containers that have closed a window.
    #[must_use]
    pub fn container_summaries(&self) -> Vec<OwnedSummary> {
        let containers = self.read().containers.clone();
        let summary = |(allocation, history): (&Allocation, &Arc<History>)| {
            Some((*allocation, Arc::clone(history.origin()), history.summary()?.clone()))
        };
        containers.iter().filter_map(summary).collect()
    }

    /// The start of a container's newest interval that has records.
    #[must_use]
    pub fn newest_start(&self, allocation: Allocation) -> Option<Timestamp> {
        self.read().containers.get(&allocation)?.kept_intervals().next_back()?.span().map(|span| span.start)
    }

    /// The cursor after the last record.
    #[must_use]
    pub fn end_cursor(&self) -> Cursor {
        self.cursor_at(self.read().last)
    }

    /// The last place of windows that were restored at the beginning of this run, also in a process that has taken over.
    #[must_use]
    pub fn restored_place(&self) -> u64 {
        self.restored.load(Ordering::Acquire)
    }

    /// Subscribes to the newest place in the sequence.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Sets how many totals of removed series are remembered for each workload and task, and how many totals and names
    /// for all together.
    pub fn remember_at_most(&self, of_one: usize, of_all: usize) {
        let mut inner = self.write();
        inner.past.set_limits(of_one, of_all);
        inner.names.set_limit(of_all);
    }

    /// The number of remembered totals of removed series, and how many were evicted early.
    #[must_use]
    pub fn remembered_totals(&self) -> (usize, EvictedTotals) {
        let inner = self.read();
        (inner.past.len(), inner.past.evicted_totals())
    }

    /// How much is kept.
    #[must_use]
    pub fn size(&self) -> Size {
        let inner = self.read();
        Size { windows: inner.held.windows, records: inner.records, bytes: inner.held.bytes }
    }

    fn cursor_at(&self, seq: u64) -> Cursor {
        Cursor { epoch: self.epoch, seq }
    }

    // Poisoning is ignored: windows are only ever added or dropped, so a panic cannot leave one half-written.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldBytes {
    /// Changes a history, and updates the total of held bytes.
    fn update_history(&mut self, history: &mut Arc<History>, change: impl FnOnce(&mut History)) {
        let history = Arc::make_mut(history);
        self.remove(history.held_bytes());
        change(history);
        self.add(history.held_bytes());
    }
}

impl Inner {
    /// Removes a container whose totals have been added.
    fn remove(&mut self, allocation: Allocation, names: Changed) -> Option<Arc<History>> {
        // Use the current entry: another window may have been published meanwhile.
        let removed = self.containers.remove(&allocation)?;
        self.held.remove(removed.held_bytes());
        self.names.update_series(names, None);
        self.past.remove_container(removed.origin());
        let mut gone = removed.last_gone_seq();
        for published in removed.published_windows() {
            self.log.remove(&published.first_seq());
            gone = gone.max(published.last_seq());
            self.unwritten.hold_back(published, removed.opened_at());
        }
        self.losses.forget_container(removed.origin(), gone);
        Some(removed)
    }

    /// Bytes of a task's and a workload's totals and names that count for each of their containers.
    fn shared_with(&self, identities: &(SeriesIdentity, SeriesIdentity)) -> usize {
        let names = self.names.bytes_per_container(&identities.1, self.past.here_of(&identities.1));
        self.past.part_of(identities) + names
    }

    /// The kept windows with records after a place, in order.
    fn published_after(&self, seq: u64) -> impl Iterator<Item = &Arc<Published>> {
        // A window that begins at or before the place may have records after it.
        let reaching = self.log.range(..=seq).next_back().filter(|(_, published)| published.last_seq() > seq);
        let after = self.log.range(seq.saturating_add(1)..);
        reaching.into_iter().chain(after).map(|(_, published)| published)
    }
}

#[cfg(test)]
mod tests;
