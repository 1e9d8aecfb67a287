//! What a reader takes from under the store's lock: pointers. It follows them when the lock is free again, so that no window
//! is published later because of how much a reader wants to see.

use std::sync::Arc;

use super::losses::Losses;
use super::{AT_ONCE, History, Inner, Published};
use crate::model::{Allocation, Origin, SharedMap};

/// Everything that is kept at one moment.
#[derive(Debug)]
pub(super) struct StoreSnapshot {
    /// The last place that was given.
    pub(super) last: u64,
    pub(super) containers: SharedMap<Allocation, Arc<History>>,
    pub(super) losses: Losses,
    /// What was published after the place that was asked for; nothing where that is too much to be copied under the lock.
    log: Option<Vec<Arc<Published>>>,
}

impl Inner {
    /// Everything as it is now, and what the log has after a place.
    pub(super) fn snapshot_after(&self, seq: u64) -> StoreSnapshot {
        let log: Vec<_> = self.published_after(seq).take(AT_ONCE + 1).cloned().collect();
        let log = (log.len() <= AT_ONCE).then_some(log);
        let (containers, losses) = (self.containers.clone(), self.losses.clone());
        StoreSnapshot { last: self.last, containers, losses, log }
    }
}

impl StoreSnapshot {
    /// The last place that one of these containers has lost.
    pub(super) fn gone_of(&self, wanted: impl Fn(&Origin) -> bool) -> u64 {
        let here = self.containers.values().filter(|history| wanted(history.origin()));
        here.map(|history| history.last_gone_seq()).fold(self.losses.of_forgotten(&wanted), u64::max)
    }

    /// Everything that is kept of which `place`, the first or the last, is after `seq`; in order.
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
