//! Names as others read them: changes for another process or the disk, and names that would have collided.
//!
//! Under the store's lock only pointers are copied, which are dereferenced after the lock is released.

use std::iter;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Changed;
use super::workload::Claims;
use crate::model::Timestamp;
use crate::render::exposition::Escaping;
use crate::render::prometheus::{MarksOfAll, Name, NameSpelling, SeriesIdentity, Spelled};
use crate::store::{History, Inner, Store};

/// One change of the table, for another process or for the disk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NameChange {
    /// The workload that the name belongs to.
    pub workload: SeriesIdentity,
    pub name: Name,
    /// Its new state.
    pub now: NameState,
}

/// The state of a name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum NameState {
    /// It is known, with its spelling, and with the other name if it carries a mark because of one.
    Known(Spelled, Option<Name>),
    Forgotten,
}

/// Changes after a place, or the whole table if some of them are no longer kept.
#[derive(Debug, Default)]
pub struct NameChanges {
    /// Whether this is the whole table, which replaces everything known before.
    pub whole: bool,
    /// In order.
    pub changes: Vec<NameChange>,
    /// The place after them.
    pub next: u64,
}

/// A collision: two names that would otherwise be spelled the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meeting {
    /// The labels of the workload.
    pub workload: SeriesIdentity,
    /// The name that carries a mark.
    pub marked: Name,
    /// Its spelling on a page that is not in UTF-8, or on a UTF-8 page if the names collide only there.
    pub shown: String,
    /// The name that was there first.
    pub first: Option<Name>,
}

/// How names have changed since a position in the sequence of changes.
#[derive(Debug)]
pub(in crate::store) struct TakenNames {
    pub(super) what: TakenContents,
    /// The position after the last of them.
    pub(super) next: u64,
}

#[derive(Debug)]
pub(super) enum TakenContents {
    /// The changes, in order.
    Changes(Vec<Arc<NameChange>>),
    /// Every name, by workload.
    Whole(Vec<(SeriesIdentity, Claims)>),
}

impl TakenNames {
    /// The position after these changes.
    pub(in crate::store) fn next(&self) -> u64 {
        self.next
    }

    /// Copies what the pointers refer to.
    pub(in crate::store) fn into_changes(self) -> NameChanges {
        let (whole, changes) = match self.what {
            TakenContents::Changes(changes) => {
                (false, changes.iter().map(|change| NameChange::clone(change)).collect())
            }
            TakenContents::Whole(workloads) => (true, workloads.iter().flat_map(known_changes).collect()),
        };
        NameChanges { whole, changes, next: self.next }
    }
}

fn known_changes((workload, claims): &(SeriesIdentity, Claims)) -> impl Iterator<Item = NameChange> {
    claims.iter().map(|(name, claim)| {
        let now = NameState::Known(claim.spelled, claim.first.clone());
        NameChange { workload: workload.clone(), name: name.clone(), now }
    })
}

impl Store {
    /// The changes of names after a place. [`u64::MAX`] follows no known place and returns the whole table.
    #[must_use]
    pub fn names_after(&self, place: u64) -> NameChanges {
        // The lock is released before names are copied.
        let taken = self.read().names.changes_after(place);
        taken.into_changes()
    }

    /// Restores names of an earlier run of the agent. They are remembered from `now` on.
    pub fn restore_names(&self, names: Vec<NameChange>, now: Timestamp) {
        self.write().names.restore_changes(names, now);
    }

    /// How many names carry a mark.
    #[must_use]
    pub fn marked_names(&self) -> usize {
        self.read().names.marked_count()
    }

    /// The first `most` names that carry a mark, in the order of workloads and names, each with the older name that
    /// caused it. They are collected and sorted without a lock; only the returned names are looked up under it.
    #[must_use]
    pub fn name_meetings(&self, most: usize) -> Vec<Meeting> {
        let marks = self.read().names.all_marks();
        let mut meetings = Meeting::list_from_marks(&marks, most);
        self.read().names.explain_meetings(&mut meetings);
        meetings
    }
}

impl Meeting {
    /// The first `most` of these marks, in the order of workloads and names, without the older names yet.
    pub(super) fn list_from_marks(marks: &MarksOfAll, most: usize) -> Vec<Self> {
        let marks = marks.iter();
        let marked = marks.flat_map(|(workload, marks)| marks.iter().map(move |marked| (workload, marked)));
        let mut meetings: Vec<_> =
            marked.filter_map(|(workload, marked)| Self::from_mark(workload, marked)).collect();
        meetings.sort_unstable_by(|a, b| (&a.workload, &a.shown).cmp(&(&b.workload, &b.shown)));
        meetings.truncate(most);
        meetings
    }

    fn from_mark(workload: &SeriesIdentity, (marked, spelled): (Name, Spelled)) -> Option<Self> {
        let spellings = Escaping::ALL.into_iter().zip(spelled);
        let mut spellings = spellings.map(|(escaping, mark)| NameSpelling { escaping, mark });
        let shown = marked.exposed_name(spellings.find(|spelling| spelling.mark.is_some())?);
        Some(Self { workload: workload.clone(), shown, marked, first: None })
    }
}

impl Inner {
    /// Adds the names of an adopted container.
    pub(in crate::store) fn name_all(&mut self, history: &History) {
        let series = history.summary().into_iter().flat_map(|summary| summary.ledger.iter());
        let came = series.map(|(series, _)| series);
        self.names.update_series_unlimited(
            Changed::from_series(history.origin(), came, iter::empty()),
            history.newest_end(),
        );
    }
}
