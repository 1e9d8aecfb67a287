//! Writing down what becomes of containers.

use super::ContainerTable;
use crate::containers::image::{ContainerSnapshot, ProcessFingerprint};
use crate::containers::journal::Journal;
use crate::model::Allocation;
use crate::net::{clock, process};

impl ContainerTable {
    /// Writes every change into a journal from now on.
    #[must_use]
    pub fn recorded_in(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Writes down what has changed, before anybody is told.
    pub(super) fn record_changes(&mut self) {
        let changed = self.changes.take_changed();
        let Some(mut journal) = self.journal.take() else { return };
        for allocation in changed {
            journal.append_change(allocation, self.snapshot_container(allocation));
        }
        self.journal = Some(journal);
    }

    /// Writes the journal anew where it is time to.
    pub(super) fn renew_journal(&mut self) {
        let Some(mut journal) = self.journal.take() else { return };
        if journal.is_stale() {
            let all: Vec<_> = self.entries.keys().copied().collect();
            journal
                .rewrite_images(all.into_iter().filter_map(|allocation| self.snapshot_container(allocation)));
        }
        self.journal = Some(journal);
    }

    /// A container as it is now.
    pub(super) fn snapshot_container(&self, allocation: Allocation) -> Option<ContainerSnapshot> {
        let entry = self.entries.get(&allocation)?;
        let now = tokio::time::Instant::now();
        let deadline =
            entry.deadline.map(|at| clock::wall_time().saturating_add(at.saturating_duration_since(now)));
        let identity = entry.info.pid.zip(entry.process.as_ref()).and_then(|(pid, watched)| {
            let (start_ticks, cgroup) = (process::start_ticks(pid).ok()?, watched.cgroup_id());
            // While it has not ended, its number means it and no other process.
            (!watched.has_ended()).then_some(ProcessFingerprint { start_ticks, cgroup })
        });
        Some(ContainerSnapshot::from_info(&entry.info, identity, entry.since_boot, deadline))
    }
}
