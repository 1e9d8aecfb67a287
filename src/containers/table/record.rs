//! Writing down what becomes of containers.

use super::Table;
use crate::containers::image::{Identity, Image};
use crate::containers::journal::Journal;
use crate::model::Allocation;
use crate::net::{clock, process};

impl Table {
    /// Writes every change into a journal from now on.
    #[must_use]
    pub fn recorded_in(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Writes down what has changed, before anybody is told.
    pub(super) fn record(&mut self) {
        let changed = self.changes.take();
        let Some(mut journal) = self.journal.take() else { return };
        for allocation in changed {
            journal.append(allocation, self.image(allocation));
        }
        self.journal = Some(journal);
    }

    /// Writes the journal anew where it is time to.
    pub(super) fn renew_journal(&mut self) {
        let Some(mut journal) = self.journal.take() else { return };
        if journal.is_stale() {
            let all: Vec<_> = self.entries.keys().copied().collect();
            journal.rewrite(all.into_iter().filter_map(|allocation| self.image(allocation)));
        }
        self.journal = Some(journal);
    }

    /// A container as it is now.
    pub(super) fn image(&self, allocation: Allocation) -> Option<Image> {
        let entry = self.entries.get(&allocation)?;
        let now = tokio::time::Instant::now();
        let deadline = entry.deadline.map(|at| clock::wall().plus(at.saturating_duration_since(now)));
        let identity = entry.info.pid.zip(entry.process.as_ref()).and_then(|(pid, watched)| {
            let (start_ticks, cgroup) = (process::start_ticks(pid).ok()?, watched.cgroup());
            // While it has not ended, its number means it and no other process.
            (!watched.has_ended()).then_some(Identity { start_ticks, cgroup })
        });
        Some(Image::of(&entry.info, identity, entry.since_boot, deadline))
    }
}
