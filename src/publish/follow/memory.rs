//! What a publisher needs of the windows and names that memory has now, besides the sequence.

use std::collections::HashSet;
use std::sync::Arc;

use super::WindowFollower;
use crate::render::prometheus::{Level, MarksOfAll, SeriesIdentity};
use crate::store::{Cursor, Published};

impl WindowFollower {
    /// The windows in memory that were handed out.
    #[must_use]
    pub(in crate::publish) fn read_kept(&self, through: Cursor) -> Vec<Arc<Published>> {
        let (store, mut windows) = (&self.source.store, self.source.store.kept_after(0));
        windows.retain(|published| published.birth_in(store.epoch()) <= through);
        windows
    }

    /// All windows in memory.
    #[must_use]
    pub(in crate::publish) fn read_all_kept(&self) -> Vec<Arc<Published>> {
        self.source.store.kept_after(0)
    }

    /// The identities of containers that are served, and of those of which windows are left. `None` if it takes more than memory to
    /// tell.
    #[must_use]
    pub(in crate::publish) fn read_live_identities(&self, level: Level) -> Option<HashSet<SeriesIdentity>> {
        let store = &self.source.store;
        // In this order: a container that ends meanwhile has published its last window before.
        let served = store.served_origins();
        let left = store.read_since(self.handout.handed_cursor()).ok()?.published;
        let origins = served.iter().chain(left.iter().map(|published| published.origin()));
        Some(origins.map(|origin| SeriesIdentity::from_origin(origin, level)).collect())
    }

    /// The names that carry a mark.
    #[must_use]
    pub(in crate::publish) fn read_marks(&self, level: Level) -> MarksOfAll {
        self.source.store.snapshot_at_level(level).2
    }

    /// Subscribes to the newest place in the sequence.
    #[must_use]
    pub(in crate::publish) fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        self.source.store.subscribe()
    }

    /// The number of this run of the agent.
    #[must_use]
    pub(in crate::publish) fn epoch(&self) -> u64 {
        self.source.store.epoch()
    }
}
