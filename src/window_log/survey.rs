//! What a process that takes over has to know of the log that is there: it has the windows already.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::ContainerKey;
use super::files::Files;
use super::log::ClosedWindowLog;
use super::read::{Depth, Findings, LogDamage, read_or_report};
use super::segment::SealedSegment;

/// Which files there are, and which containers they speak of.
#[derive(Debug)]
pub struct Survey {
    findings: Findings,
}

/// Looks through a log without keeping any of its windows.
#[must_use]
pub fn survey_log(files: &dyn Files) -> Survey {
    Survey { findings: read_or_report(files, Depth::Containers) }
}

impl Survey {
    /// The number of the last life that wrote something; 0 where nothing was found.
    #[must_use]
    pub fn last_epoch(&self) -> u64 {
        self.findings.epoch
    }

    /// What of the files is damaged. Entries are not looked into.
    #[must_use]
    pub fn damage(&self) -> LogDamage {
        self.findings.damage
    }

    /// The number of the next file, and the files of open windows and of names.
    pub(super) fn other_files(&self) -> (u64, Vec<String>, Vec<String>) {
        let Findings { next, open_files, name_files, .. } = &self.findings;
        ((*next).max(1), open_files.clone(), name_files.clone())
    }

    /// A log that takes the place of the one that is there. What is said under these keys is void once everything is written
    /// again, under keys of `epoch`, which no other log may have.
    pub(super) fn into_replacing_log(
        self,
        files: &Arc<dyn Files>,
        epoch: u64,
        limit: u64,
    ) -> (ClosedWindowLog, Vec<ContainerKey>) {
        let next = self.findings.next.max(1);
        let old = self.findings.files.into_iter();
        let old = old.map(|file| SealedSegment { name: file.name, length: file.length, held: Vec::new() });
        let log = ClosedWindowLog::new(Arc::clone(files), epoch, limit, next, old.collect::<VecDeque<_>>());
        (log, self.findings.containers.into_keys().collect())
    }
}
