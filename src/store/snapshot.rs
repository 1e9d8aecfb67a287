//! What a reader takes from under the store's lock, and which records are gone.
//!
//! A reader takes pointers and follows them when the lock is free again, so that no window is published later because of how
//! much a reader wants to see. It has missed something only where one of its containers has lost records.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AT_ONCE, History, Inner, Published};
use crate::model::{Allocation, Origin, SharedMap};

/// Everything that is kept at one moment.
#[derive(Debug)]
pub(super) struct StoreSnapshot {
    /// The last assigned place.
    pub(super) last: u64,
    pub(super) containers: SharedMap<Allocation, Arc<History>>,
    pub(super) losses: Losses,
    /// The windows published after the requested place; `None` if they are too many to be copied under the lock.
    log: Option<Vec<Arc<Published>>>,
}

impl Inner {
    /// The current state, and the part of the log after a place.
    pub(super) fn snapshot_after(&self, seq: u64) -> StoreSnapshot {
        let log: Vec<_> = self.published_after(seq).take(AT_ONCE + 1).cloned().collect();
        let log = (log.len() <= AT_ONCE).then_some(log);
        let (containers, losses) = (self.containers.clone(), self.losses.clone());
        StoreSnapshot { last: self.last, containers, losses, log }
    }
}

impl StoreSnapshot {
    /// The last place at which one of the wanted containers has dropped a record.
    pub(super) fn gone_of(&self, wanted: impl Fn(&Origin) -> bool) -> u64 {
        let here = self.containers.values().filter(|history| wanted(history.origin()));
        here.map(|history| history.last_gone_seq()).fold(self.losses.of_forgotten(&wanted), u64::max)
    }

    /// All kept windows whose `place` (the first or the last) is after `seq`, in order.
    pub(super) fn published_after(&self, seq: u64, place: fn(&Published) -> u64) -> Vec<Arc<Published>> {
        let after = |published: &&Arc<Published>| place(published) > seq;
        if let Some(log) = &self.log {
            return log.iter().filter(after).cloned().collect();
        }
        let kept = self.containers.values().flat_map(|history| history.published_windows());
        let mut kept: Vec<_> = kept.filter(after).cloned().collect();
        kept.sort_unstable_by_key(|published| published.first_seq());
        kept
    }
}

/// Maximum number of removed containers that are tracked individually. Losses of older ones concern every reader.
const MAX_TRACKED: usize = 4096;

/// A removed container: the last place of its records, and its origin.
type Forgotten = (u64, Arc<Origin>);

/// The last places of dropped records, in addition to those that each container's history tracks itself. Cheap to
/// clone.
#[derive(Clone, Default, Debug)]
pub(super) struct Losses {
    /// Of any container.
    last: u64,
    /// Of removed containers that are no longer tracked individually.
    untold: u64,
    /// Of removed containers, in the order of removal.
    forgotten: Arc<VecDeque<Forgotten>>,
    /// How many containers were ever added to `forgotten`.
    added: u64,
}

/// Changes in losses, for another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LossChanges {
    last: u64,
    untold: u64,
    /// Containers that were removed since, as far as they are tracked individually.
    forgotten: Vec<Forgotten>,
}

impl Losses {
    /// Records that a container in the store has dropped records up to a place; its history tracks this, too.
    pub(super) fn record_loss(&mut self, place: u64) {
        self.last = self.last.max(place);
    }

    /// Records that a container was removed, and with it its records up to a place.
    pub(super) fn forget_container(&mut self, origin: &Arc<Origin>, place: u64) {
        if place == 0 {
            return;
        }
        self.record_loss(place);
        self.add((place, Arc::clone(origin)));
    }

    fn add(&mut self, new: Forgotten) {
        self.added += 1;
        let forgotten = Arc::make_mut(&mut self.forgotten);
        forgotten.push_back(new);
        if forgotten.len() > MAX_TRACKED
            && let Some((place, _)) = forgotten.pop_front()
        {
            self.untold = self.untold.max(place);
        }
    }

    /// The changes since another process was told the first `told` of all containers that were ever added; updates
    /// `told`.
    pub(super) fn changes_since(&self, told: &mut u64) -> LossChanges {
        let new = usize::try_from(self.added.saturating_sub(*told)).unwrap_or(usize::MAX);
        let known = self.forgotten.len().saturating_sub(new);
        *told = self.added;
        let forgotten = self.forgotten.range(known..).cloned().collect();
        LossChanges { last: self.last, untold: self.untold, forgotten }
    }

    /// Applies the changes from another process.
    pub(super) fn apply_changes(&mut self, changes: LossChanges) {
        changes.forgotten.into_iter().for_each(|forgotten| self.add(forgotten));
        (self.last, self.untold) = (changes.last, changes.untold);
    }

    /// The last place at which any container has dropped a record.
    pub(super) fn last_lost_seq(&self) -> u64 {
        self.last
    }

    /// The last place of a dropped record of the wanted containers that are no longer in the store.
    pub(super) fn of_forgotten(&self, wanted: impl Fn(&Origin) -> bool) -> u64 {
        let wanted = self.forgotten.iter().filter(|(_, origin)| wanted(origin));
        wanted.map(|(place, _)| *place).fold(self.untold, u64::max)
    }
}
