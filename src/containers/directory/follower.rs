//! Following who comes, changes and goes, at the cost of what has changed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use crate::model::Allocation;

/// Learns of every change once. Looking through everybody at each would make a start dearer the more containers there are.
#[derive(Debug)]
pub struct Follower {
    changed: Arc<Mutex<BTreeSet<Allocation>>>,
    told: watch::Receiver<()>,
}

impl Follower {
    /// Waits until something has changed; forever, where nobody can change anything any more.
    pub async fn wait_for_change(&mut self) {
        if self.told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The containers that came, changed or went since this was asked last; at first, all that were there.
    pub fn take_changed(&self) -> BTreeSet<Allocation> {
        std::mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Those who follow.
#[derive(Default, Debug)]
pub(super) struct Followers(Vec<Weak<Mutex<BTreeSet<Allocation>>>>);

impl Followers {
    pub(super) fn add(&mut self, there: BTreeSet<Allocation>, told: watch::Receiver<()>) -> Follower {
        let changed = Arc::new(Mutex::new(there));
        self.0.push(Arc::downgrade(&changed));
        Follower { changed, told }
    }

    pub(super) fn mark_changed(&mut self, allocation: Allocation) {
        self.0.retain(|follower| {
            let Some(changed) = follower.upgrade() else { return false };
            changed.lock().unwrap_or_else(PoisonError::into_inner).insert(allocation);
            true
        });
    }
}
