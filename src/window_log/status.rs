//! How the log is doing, for whoever asks.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::recover::RecoveryReport;
use crate::model::Timestamp;

/// How the log is doing. The writer's thread sets it, everybody else reads.
#[derive(Debug, Default)]
pub struct LogStatus {
    inner: Mutex<LogStatusSnapshot>,
}

/// How the log is doing at one moment.
#[derive(Clone, Default, Debug)]
pub struct LogStatusSnapshot {
    /// How the life before ended.
    pub report: RecoveryReport,
    /// Closed windows written, revisions included.
    pub windows: u64,
    /// Bytes written of closed windows and what goes with them.
    pub bytes: u64,
    /// Bytes written of open windows.
    pub checkpoint_bytes: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Time between the last two checkpoints.
    pub interval: Duration,
    /// Bytes of the files of closed windows.
    pub size: u64,
    /// Those files.
    pub files: usize,
    /// Windows that went from memory before they could be written.
    pub missed: u64,
    /// Windows that are kept in memory and no more on disk, because the log is as large as it may be.
    pub given_up: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Since when nothing can be written, and why.
    pub failing: Option<(Timestamp, String)>,
}

impl LogStatus {
    /// Where a report is all there is so far.
    #[must_use]
    pub fn new(report: RecoveryReport) -> Self {
        Self { inner: Mutex::new(LogStatusSnapshot { report, ..LogStatusSnapshot::default() }) }
    }

    /// As it is now.
    #[must_use]
    pub fn snapshot(&self) -> LogStatusSnapshot {
        self.lock().clone()
    }

    /// Notes when somebody listened again, which is after everything was read; answers how the life before ended.
    #[must_use]
    pub fn heard_again(&self, now: Timestamp) -> RecoveryReport {
        let report = &mut self.lock().report;
        report.gap = report.last.map_or(Duration::ZERO, |last| now.duration_since(last));
        *report
    }

    pub(super) fn update_with(&self, change: impl FnOnce(&mut LogStatusSnapshot)) {
        change(&mut self.lock());
    }

    /// Notes that something could not be written. It is logged once, however often it fails until it works again.
    pub fn record_failure(&self, error: &io::Error, now: Timestamp) {
        let mut inner = self.lock();
        inner.failures += 1;
        if inner.failing.is_none() {
            tracing::warn!(%error, "cannot write the window log; windows are served from memory, and lost if the agent is killed");
        }
        let since = inner.failing.as_ref().map_or(now, |(since, _)| *since);
        inner.failing = Some((since, error.to_string()));
    }

    /// Notes that everything is written.
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
