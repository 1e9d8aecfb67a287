//! How reading the log went, and how writing it goes, for the pages and commands that show it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::entry::Refusals;
use crate::model::Timestamp;
use crate::model::setting_name::setting_name;

/// What could not be used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LogDamage {
    /// Truncated or changed parts of files.
    pub parts: u64,
    /// Bytes of these parts.
    pub bytes: u64,
    /// Intact entries that are invalid, or that depend on lost ones.
    pub entries: u64,
    /// Files that could not be read, or are of another version.
    pub files: u64,
}

impl LogDamage {
    /// Whether everything could be used.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How the previous run ended, and what was restored from it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RecoveryReport {
    /// Number of restored containers.
    pub containers: usize,
    /// Number of restored closed windows, including revisions.
    pub windows: usize,
    /// Number of windows restored from checkpoints because they had not been closed.
    pub open: usize,
    /// Windows among these that start after the agent did: the clock was ahead when they were closed, or is behind now.
    pub ahead: usize,
    /// When the previous agent was last known to be alive; `None` if there was none.
    pub last: Option<Timestamp>,
    /// How long nothing was received.
    pub gap: Duration,
    /// Whether it had shut down cleanly.
    pub in_order: bool,
    /// What could not be used.
    pub damage: LogDamage,
}

/// How the log is doing. The writer's thread sets it, and other threads read it.
#[derive(Debug, Default)]
pub struct LogStatus {
    inner: Mutex<LogStatusSnapshot>,
}

/// A snapshot of the status.
#[derive(Clone, Default, Debug)]
pub struct LogStatusSnapshot {
    /// How the previous run ended, and what was restored.
    pub report: RecoveryReport,
    /// Closed windows written, revisions included.
    pub windows: u64,
    /// Bytes written for closed windows and their metadata.
    pub bytes: u64,
    /// Bytes written for open windows.
    pub checkpoint_bytes: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Time between the last two checkpoints.
    pub interval: Duration,
    /// Bytes of the files of closed windows.
    pub size: u64,
    /// The number of those files.
    pub files: usize,
    /// Records that were gone from memory before they could be written.
    pub missed: u64,
    /// Windows that are kept in memory and not on disk, because the log is as large as it may be, or they are too long for it.
    pub given_up: u64,
    /// Failed attempts to write.
    pub failures: u64,
    /// Since when writing fails, and why.
    pub failing: Option<(Timestamp, String)>,
    /// Whether its files are in memory.
    pub in_memory: bool,
}

impl LogStatus {
    /// A status with only a report.
    #[must_use]
    pub fn new(report: RecoveryReport) -> Self {
        Self { inner: Mutex::new(LogStatusSnapshot { report, ..LogStatusSnapshot::default() }) }
    }

    /// The current status.
    #[must_use]
    pub fn snapshot(&self) -> LogStatusSnapshot {
        self.lock().clone()
    }

    /// Notes whether the files are in memory.
    pub fn set_in_memory(&self, in_memory: bool) {
        self.lock().in_memory = in_memory;
    }

    /// Notes when containers were listened to again, which is after everything was read. Returns how the life before ended.
    #[must_use]
    pub fn heard_again(&self, now: Timestamp) -> RecoveryReport {
        let report = &mut self.lock().report;
        report.gap = report.last.map_or(Duration::ZERO, |last| now.duration_since(last));
        *report
    }

    pub(super) fn update_with(&self, change: impl FnOnce(&mut LogStatusSnapshot)) {
        change(&mut self.lock());
    }

    /// Records a failed write. Consecutive failures are logged once.
    pub fn record_failure(&self, error: &io::Error, now: Timestamp) {
        let mut inner = self.lock();
        inner.failures += 1;
        if inner.failing.is_none() {
            tracing::warn!(%error, "cannot write the window log; windows are served from memory, and lost if the agent is killed");
        }
        let since = inner.failing.as_ref().map_or(now, |(since, _)| *since);
        inner.failing = Some((since, error.to_string()));
    }

    /// Counts entries that are too long for the log as failed attempts, and logs each. Writing goes on, so nothing is failing.
    pub(super) fn record_refusals(&self, refusals: &Refusals) {
        for error in &refusals.entries {
            tracing::error!(
                %error,
                "an entry is too long for the window log, and is lost if the agent is killed; the windows of a container are bounded \
                 by a setting to lower: {}",
                setting_name!("limits.memory")
            );
        }
        self.lock().failures += refusals.entries.len() as u64;
    }

    /// Records that everything has been written.
    pub(super) fn record_success(&self, now: Timestamp) {
        let mut inner = self.lock();
        if let Some((since, _)) = inner.failing.take() {
            let (missed, failed_for) = (inner.missed, now.duration_since(since));
            tracing::info!(?failed_for, missed, "the window log is written again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, LogStatusSnapshot> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
