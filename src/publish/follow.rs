//! Where publishers read closed windows from.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::round::RoundRules;
use crate::model::Timestamp;
use crate::render::prometheus::{Level, MarksOfAll, SeriesIdentity};
use crate::store::{Cursor, Published, Store};

/// A reader of the node's sequence.
///
/// It holds no windows itself, and what it returns is to be dropped before anything is waited for: the windows that a slow
/// backend has not taken are the store's to keep or to give up.
#[derive(Clone, Debug)]
pub(super) struct WindowFollower {
    store: Arc<Store>,
}

/// The windows after a cursor that can be had, and the cursor after them.
#[derive(Debug)]
pub(super) struct FollowedWindows {
    /// In the order of the sequence. Places between them that no window has are lost.
    pub windows: Vec<Arc<Published>>,
    /// The end of the sequence when they were read.
    pub end: Cursor,
}

impl WindowFollower {
    /// A reader of the windows in memory.
    #[must_use]
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// The end of the sequence.
    #[must_use]
    pub(super) fn end_cursor(&self) -> Cursor {
        self.store.end_cursor()
    }

    /// The windows after a cursor, which has the epoch of the sequence.
    #[must_use]
    pub(super) fn read_after(&self, cursor: Cursor) -> FollowedWindows {
        if let Ok(since) = self.store.read_since(cursor) {
            return FollowedWindows { windows: since.published, end: since.next };
        }
        // Some are gone: containers were forgotten, or the backend was away for longer than windows are kept.
        let end = self.store.end_cursor();
        let mut windows = self.store.kept_after(cursor.seq);
        windows.retain(|published| published.last_seq() <= end.seq);
        FollowedWindows { windows, end }
    }

    /// All windows that are kept whose rounds start at one of these moments.
    #[must_use]
    pub(super) fn read_rounds(&self, rules: &RoundRules, starts: &[Timestamp]) -> Vec<Arc<Published>> {
        let mut windows = self.store.kept_after(0);
        windows.retain(|published| starts.contains(&rules.round_start(published.window().span)));
        windows
    }

    /// The identities of containers that are served, and of those of which windows are left after a cursor.
    #[must_use]
    pub(super) fn read_live_identities(&self, cursor: Cursor, level: Level) -> HashSet<SeriesIdentity> {
        // In this order: a container that ends meanwhile has published its last window before.
        let served = self.store.served_origins();
        let left = self.read_after(cursor).windows;
        let origins = served.iter().chain(left.iter().map(|published| published.origin()));
        origins.map(|origin| SeriesIdentity::from_origin(origin, level)).collect()
    }

    /// The names that carry a mark.
    #[must_use]
    pub(super) fn read_marks(&self, level: Level) -> MarksOfAll {
        self.store.snapshot_at_level(level).2
    }

    /// Subscribes to the newest place in the sequence.
    #[must_use]
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.store.subscribe()
    }
}
