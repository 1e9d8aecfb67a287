//! Publishing closed windows: the one way by which shards write to the store.

use std::sync::Arc;

use super::Store;
use super::history::{Published, Revision};
use super::live::LiveBytes;
use super::names::Changed;
use crate::aggregate::{ClosedWindow, Window};
use crate::model::Allocation;

/// New revisions of an interval's records, to be published.
#[derive(Debug)]
pub struct Revised(Revision);

/// What became of a closed window.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Filed {
    /// Bytes that the store holds for the container now.
    pub held: usize,
    /// Values that are in no record, because what they belong to could not be read or the container is not here.
    pub lost: u64,
}

impl Revised {
    /// Bytes of the new records and their numbers.
    pub(super) fn bytes(&self) -> usize {
        self.0.window.bytes() + size_of_val(&*self.0.revs)
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

    /// What late samples of one interval become together with the records that are kept of it. They are merged with the history as
    /// it is, without a lock, so that one container's late samples do not hold up readers and other containers. Nothing where the
    /// container is not here.
    #[must_use]
    pub fn merge_late_samples(&self, allocation: Allocation, delta: &Window) -> Option<Revised> {
        self.find_history(allocation).map(|history| Revised(history.merge_late_samples(delta)))
    }

    /// The same as [`Store::push`] for a window whose revisions are merged: `merged` has those of its late samples, each once,
    /// and nothing was published of the container since. What was counted for the window while it waited ends here.
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
        // Which series came and went is looked up before the lock, too.
        let now = Arc::clone(&closed.summary.ledger);
        let came: Vec<_> = match &ledger {
            Some(before) => now.entries_missing_from(before).map(|(series, ..)| series).collect(),
            None => now.iter().map(|(series, _)| series).collect(),
        };
        let gone: Vec<_> = ledger.iter().flat_map(|before| before.entries_missing_from(&now)).collect();
        let went = gone.iter().map(|(series, ..)| *series);
        let names = Changed::from_series(&origin, came.into_iter(), went);
        // What is dropped is freed after the lock is released.
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
            for Revision { window, revs, .. } in merged {
                // Of one whose records could not be read nothing is left.
                if window.is_empty() {
                    continue;
                }
                let published = Published::new(allocation, history.origin(), (window, revs), inner.last + 1);
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
            let dropped = history.drop_beyond(self.keep);
            for published in &dropped {
                inner.log.remove(&published.first_seq());
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

/// Values that revisions were to add, those included that they have lost.
fn values_of(revisions: &[Revision]) -> u64 {
    revisions.iter().map(|revision| revision.added).sum()
}
