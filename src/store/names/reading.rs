//! What others ask the store about names, and tell it.

use std::iter;

use super::{Meeting, NameChange, NameChanges};
use crate::model::Timestamp;
use crate::store::{History, Inner, Kept, Store};

impl Store {
    /// What has become of names after a place; [`u64::MAX`] comes after nothing, so that everything is answered.
    #[must_use]
    pub fn names_after(&self, place: u64) -> NameChanges {
        self.read().names.after(place)
    }

    /// Takes in names that an earlier life of the agent knew. They are remembered from `now` on.
    pub fn restore_names(&self, names: Vec<NameChange>, now: Timestamp) {
        self.write().names.restore(names, now);
    }

    /// How many names carry a mark.
    #[must_use]
    pub fn marked_names(&self) -> usize {
        self.read().names.marked()
    }

    /// The first `most` names that carry a mark, and the names because of which they do.
    #[must_use]
    pub fn meetings(&self, most: usize) -> Vec<Meeting> {
        self.read().names.meetings(most)
    }
}

impl Inner {
    /// Notes the names of a container whose series came from elsewhere.
    pub(in crate::store) fn name_all(&mut self, history: &History) {
        let series = history.standing().into_iter().flat_map(|standing| standing.ledger.iter());
        let last = history.kept().next_back().and_then(Kept::span).map(|span| span.end);
        self.names.changed(history.origin(), series.map(|(series, _)| series), iter::empty(), last);
    }
}
