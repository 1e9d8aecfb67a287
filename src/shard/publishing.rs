//! A closed window on its way to the store, while its late samples are merged part by part.

use crate::aggregate::{Closed, Window};
use crate::model::Allocation;
use crate::store::{Revised, Store};

/// A closed window whose revisions are being merged.
#[derive(Debug)]
pub(super) struct Publishing {
    closed: Closed,
    /// Parts that are yet to be merged.
    rest: std::vec::IntoIter<Window>,
    merged: Vec<Revised>,
}

impl Publishing {
    /// Begins with a window that has just been closed.
    pub(super) fn new(mut closed: Closed) -> Self {
        let rest = std::mem::take(&mut closed.revisions).into_iter();
        Self { closed, merged: Vec::with_capacity(rest.len()), rest }
    }

    /// Merges one part with what the store has of its interval; answers whether another is left.
    pub(super) fn merge_one(&mut self, allocation: Allocation, store: &Store) -> bool {
        if let Some(part) = self.rest.next() {
            self.merged.extend(store.revised(allocation, &part));
        }
        self.rest.len() > 0
    }

    /// Leaves out what is not merged yet.
    pub(super) fn give_up_rest(&mut self) {
        self.rest = Vec::new().into_iter();
    }

    /// Publishes the revisions and then the window. Answers how many bytes of windows and revisions are kept of the
    /// container.
    pub(super) fn publish(self, allocation: Allocation, store: &Store) -> usize {
        store.publish(allocation, self.closed, self.merged)
    }
}
