//! A store on its way to the process that takes over: part after part, each with what the one before had not.
//!
//! Parts are small, so that neither process holds much beside the windows themselves; and each is put in place as it comes,
//! while windows go on being closed, so that little is left to do while receiving is paused.
//!
//! What the last part has cannot be read meanwhile: it is as small as what was closed since the one before.

use std::collections::{HashMap, HashSet};
use std::iter;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::history::{self, HistoryError, Published};
use super::losses::{LossChanges, Losses};
use super::names::{Changed, NameChange, Names};
use super::past::{self, Past, PastChanges};
use super::snapshot::StoreSnapshot;
use super::{Cursor, Inner, Store};
use crate::aggregate::{ContainerSummary, Layout, encode};
use crate::model::{Allocation, Origin, Timestamp};

/// What the other process has been sent.
#[derive(Debug, Default)]
pub struct SentStore {
    seq: u64,
    containers: HashMap<Allocation, history::SentHistory>,
    past: past::KnownTotals,
    /// The place among changes of names.
    names: Option<u64>,
    /// How many forgotten containers it knows.
    forgotten: u64,
}

/// What has come of a store.
#[derive(Debug, Default)]
pub struct ReceivedStore {
    end: Option<Cursor>,
    containers: HashMap<Allocation, history::ReceivedHistory>,
    losses: Losses,
    past: past::KnownTotals,
    names: Names,
    /// The series of each container whose names are claimed.
    named: HashMap<Allocation, (Arc<Origin>, Layout)>,
}

/// A part as it goes over.
#[derive(Debug)]
pub struct StorePart {
    /// What the other process reads.
    pub bytes: Vec<u8>,
    /// Whether it completes what there was at that moment.
    pub whole: bool,
}

#[derive(Serialize, Deserialize)]
struct PartV4 {
    /// The epoch, and the last place that was given.
    end: (u64, u64),
    /// Every container there is.
    here: Vec<Allocation>,
    /// What is new of those that have changed.
    histories: Vec<(Allocation, Bytes)>,
    past: PastChanges,
    losses: LossChanges,
    /// What became of names and as of when, and whether those that came before are void; nothing where nothing did.
    names: Option<(bool, Vec<NameChange>, Timestamp)>,
}

/// What is new of a container.
type New = (Allocation, Arc<Origin>, history::HistoryHead, Vec<Arc<Published>>, Option<ContainerSummary>);

impl Store {
    /// What has changed since the other process was sent something last; at first, everything. Of windows a part has about as
    /// many bytes as `most`.
    #[must_use]
    pub fn next_part(&self, sent: &mut SentStore, most: usize) -> StorePart {
        // What is copied under the lock are pointers; the walks come after.
        let inner = self.read();
        let (snapshot, past) = (inner.snapshot_after(sent.seq), inner.past.all_totals());
        let names = inner.names.changes_after(sent.names.unwrap_or(u64::MAX));
        let names_at = inner.names.newest_end();
        drop(inner);
        sent.names = Some(names.next());
        let names = names.into_changes();
        let is_news = names.whole || !names.changes.is_empty();
        let names = is_news.then_some((names.whole, names.changes, names_at));
        let (seq, new) = (snapshot.last, snapshot.by_container(sent.seq));
        let here: Vec<_> = snapshot.containers.keys().copied().collect();
        let past = sent.past.learn_changes(&past);
        let known: HashSet<_> = here.iter().copied().collect();
        sent.containers.retain(|allocation, _| known.contains(allocation));
        let (mut histories, mut room, mut whole) = (Vec::new(), most, true);
        for (allocation, origin, head, published, summary) in new {
            let first = !sent.containers.contains_key(&allocation);
            if room == 0 {
                whole = false;
                break;
            }
            let of_it = sent.containers.entry(allocation).or_default();
            if first || !of_it.is_current(&published, summary.as_ref()) {
                let (part, all) = of_it.write_part(&origin, &head, &published, summary.as_ref(), room);
                room = room.saturating_sub(part.len());
                whole &= all;
                histories.push((allocation, part.into()));
            }
        }
        if whole {
            sent.seq = seq;
        }
        let losses = snapshot.losses.changes_since(&mut sent.forgotten);
        let part = PartV4 { end: (self.epoch, seq), here, histories, past, losses, names };
        StorePart { bytes: encode(&part), whole }
    }
}

impl StoreSnapshot {
    /// What was published after a place, by container, in order, and how each stands.
    fn by_container(&self, seq: u64) -> Vec<New> {
        let mut published: HashMap<Allocation, Vec<_>> = HashMap::new();
        for new in self.published_after(seq, Published::last_seq) {
            published.entry(new.allocation()).or_default().push(new);
        }
        let new = self.containers.iter().map(|(allocation, history)| {
            let published = published.remove(allocation).unwrap_or_default();
            let (origin, summary) = (Arc::clone(history.origin()), history.summary().cloned());
            (*allocation, origin, history.to_head(), published, summary)
        });
        new.collect()
    }
}

impl ReceivedStore {
    /// Takes in a part.
    ///
    /// # Errors
    /// When it is none, of another version, damaged, or does not follow the part before.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), HistoryError> {
        let part: PartV4 = crate::wal::decode(bytes).ok_or(HistoryError::Damaged)?;
        let here: HashSet<_> = part.here.iter().copied().collect();
        self.containers.retain(|allocation, _| here.contains(allocation));
        if let Some((whole, changes, at)) = part.names {
            if whole {
                (self.names, self.named) = (Names::default(), HashMap::new());
            }
            self.names.restore_changes(changes, at);
        }
        for (allocation, bytes) in part.histories {
            let known = self.containers.remove(&allocation);
            let history = history::ReceivedHistory::add(known, allocation, &bytes)?;
            self.containers.insert(allocation, history);
        }
        self.losses.apply_changes(part.losses);
        self.past.apply_changes(part.past);
        self.claim_names();
        self.end = Some(Cursor { epoch: part.end.0, seq: part.end.1 });
        Ok(())
    }

    /// Claims the names of series that have come, and releases those of series that have gone.
    fn claim_names(&mut self) {
        let gone = self.named.keys().filter(|allocation| !self.containers.contains_key(*allocation));
        for allocation in gone.copied().collect::<Vec<_>>() {
            let Some((origin, before)) = self.named.remove(&allocation) else { continue };
            self.names.update_series_unlimited(
                Changed::from_series(&origin, iter::empty(), before.iter().flatten()),
                None,
            );
        }
        for (allocation, history::ReceivedHistory { history, .. }) in &self.containers {
            let Some(layout) = history.summary().map(|summary| summary.ledger.layout()) else { continue };
            let named = self.named.get(allocation);
            if named.is_some_and(|(_, before)| Arc::ptr_eq(before, layout)) {
                continue;
            }
            let before = named.into_iter().flat_map(|(_, before)| before.iter().flatten());
            let changed = Changed::from_series(history.origin(), layout.iter().flatten(), before);
            self.names.update_series_unlimited(changed, history.newest_end());
            self.named.insert(*allocation, (Arc::clone(history.origin()), Arc::clone(layout)));
        }
    }

    /// The store, which goes on with the sequence of the process before, whose cursors stay good. Nothing where no part has
    /// come.
    #[must_use]
    pub fn into_store(self, keep: usize) -> Option<Store> {
        let end = self.end?;
        let mut inner = Inner { last: end.seq, past: Past::from_known(self.past), ..Inner::default() };
        inner.names = self.names;
        inner.losses = self.losses;
        for (allocation, history::ReceivedHistory { mut history, .. }) in self.containers {
            let _dropped = history.drop_beyond(keep);
            inner.losses.record_loss(history.last_gone_seq());
            inner.past.add_container(history.origin());
            // Those that have ended are counted as alone when the table takes them in: datagrams do not wait for that.
            inner.held.add(history.held_bytes());
            inner.log.extend(
                history.published_windows().map(|published| (published.first_seq(), Arc::clone(published))),
            );
            inner.containers.insert(allocation, Arc::new(history));
        }
        Some(Store::with_inner(end.epoch, keep, inner))
    }
}

#[cfg(test)]
mod tests;
