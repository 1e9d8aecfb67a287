//! What a reader takes from under the store's lock: pointers. It follows them when the lock is free again, so that no window
//! is published later because of how much a reader wants to see.

use std::sync::Arc;

use super::{History, Inner, Published};
use crate::model::{Allocation, SharedMap};

/// Everything that is kept at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The last place that was given.
    pub(super) last: u64,
    pub(super) containers: SharedMap<Allocation, Arc<History>>,
    /// What the log has after the place that was asked for; nothing where it is no longer whole from there on.
    log: Option<Vec<Arc<Published>>>,
}

impl Inner {
    /// Everything as it is now, and what the log has after a place.
    pub(super) fn snapshot(&self, seq: u64) -> Snapshot {
        let log = (self.gone <= seq).then(|| {
            let first = self.log.partition_point(|published| published.last() <= seq);
            self.log.range(first..).cloned().collect()
        });
        Snapshot { last: self.last, containers: self.containers.clone(), log }
    }
}

impl Snapshot {
    /// Everything that is kept of which `place`, the first or the last, is after `seq`; in order.
    pub(super) fn published_after(&self, seq: u64, place: fn(&Published) -> u64) -> Vec<Arc<Published>> {
        let after = |published: &&Arc<Published>| place(published) > seq;
        if let Some(log) = &self.log {
            return log.iter().filter(after).cloned().collect();
        }
        let kept = self.containers.values().flat_map(|history| history.published());
        let mut kept: Vec<_> = kept.filter(after).cloned().collect();
        kept.sort_unstable_by_key(|published| published.first());
        kept
    }
}
