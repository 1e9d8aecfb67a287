//! What others ask the store about names, and tell it.

use std::iter;

use super::{Changed, Meeting, NameChange, NameChanges};
use crate::model::Timestamp;
use crate::render::exposition::Escaping;
use crate::render::prometheus::{MarksOfAll, Name, NameSpelling, SeriesIdentity, Spelled};
use crate::store::{History, Inner, Store};

impl Store {
    /// What has become of names after a place; [`u64::MAX`] comes after nothing, so that everything is answered.
    #[must_use]
    pub fn names_after(&self, place: u64) -> NameChanges {
        // The lock is released before names are copied.
        let taken = self.read().names.changes_after(place);
        taken.into_changes()
    }

    /// Takes in names that an earlier life of the agent knew. They are remembered from `now` on.
    pub fn restore_names(&self, names: Vec<NameChange>, now: Timestamp) {
        self.write().names.restore_changes(names, now);
    }

    /// How many names carry a mark.
    #[must_use]
    pub fn marked_names(&self) -> usize {
        self.read().names.marked_count()
    }

    /// The first `most` names that carry a mark, in the order of workloads and names, and the names because of which they do.
    /// They are found and sorted without a lock; only the names that are answered are looked up under it.
    #[must_use]
    pub fn name_meetings(&self, most: usize) -> Vec<Meeting> {
        let marks = self.read().names.all_marks();
        let mut meetings = Meeting::list_from_marks(&marks, most);
        self.read().names.explain_meetings(&mut meetings);
        meetings
    }
}

impl Meeting {
    /// The first `most` of these marks, in the order of workloads and names; not yet why they are there.
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
    /// Notes the names of a container whose series came from elsewhere.
    pub(in crate::store) fn name_all(&mut self, history: &History) {
        let series = history.summary().into_iter().flat_map(|summary| summary.ledger.iter());
        let came = series.map(|(series, _)| series);
        self.names.update_series_unlimited(
            Changed::from_series(history.origin(), came, iter::empty()),
            history.newest_end(),
        );
    }
}
