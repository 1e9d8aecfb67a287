//! The thread of the archive: it follows the sequence as a publisher does, and folds what it reads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use rusqlite::Connection;

use super::database::{ArchiveError, open_for_writing, read_cursor, read_size, set_aside};
use super::sweep::sweep_slots;
use super::writer::fold_windows;
use super::{ArchiveParts, FOLLOWER};
use crate::model::Timestamp;
use crate::net::clock;
use crate::store::{Cursor, Published};
use crate::window_log::{SpoolFollower, SpoolHandout, SpooledWindow};

/// The waits after a failure.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What one transaction folds at most: it must not take long, and its windows are in memory meanwhile.
const BATCH_RECORDS: usize = 100_000;
const BATCH_BYTES: usize = 16 << 20;
/// Windows that are read at once.
const READ: usize = 256;

/// A file that makes room for deleting on a full disk.
const RESERVE: &str = "archive.reserve";
const RESERVE_BYTES: usize = 1 << 20;

/// What writes the archive.
pub(super) struct ArchiveTask {
    parts: Arc<ArchiveParts>,
    pub(super) connection: Option<Connection>,
    follower: Option<SpoolFollower>,
    /// The cursor in the archive, as it was last read or written.
    stored: Option<Cursor>,
    wait: Duration,
}

/// Why a round ended before everything was folded.
enum RoundFailure {
    /// A file of the window log. It is read again, and left out in the end, by the same reader.
    Reading(std::io::Error),
    Archive(ArchiveError),
}

impl From<ArchiveError> for RoundFailure {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

/// What comes next.
struct NextWindows {
    windows: Vec<Arc<Published>>,
    to: Cursor,
    missed: u64,
    /// Whether there is nothing more that can be folded now.
    is_end: bool,
}

impl ArchiveTask {
    pub(super) fn new(parts: Arc<ArchiveParts>, connection: Option<Connection>) -> Self {
        Self { parts, connection, follower: None, stored: None, wait: SHORTEST_WAIT }
    }

    /// Folds until it is told to stop, and once more then.
    pub(super) fn run(mut self, stop: &Receiver<()>) {
        loop {
            let wait = self.run_guarded_round_at(stop, clock::wall_time());
            match stop.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.run_guarded_round_at(stop, clock::wall_time());
    }

    /// Runs a round, and returns the time until the next one.
    pub(super) fn run_guarded_round_at(&mut self, stop: &Receiver<()>, now: Timestamp) -> Duration {
        // A mistake in one round must not end the archive.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run_round(stop, now)));
        match outcome {
            Ok(Ok(())) => {
                self.wait = SHORTEST_WAIT;
                let obstacle = self.parts.describe_obstacle();
                self.parts.update_status(|status| status.failing = obstacle);
                return self.parts.round;
            }
            Ok(Err(RoundFailure::Reading(error))) => {
                tracing::warn!(%error, "cannot read a file of the window log for the archive; it is tried again");
            }
            Ok(Err(RoundFailure::Archive(error))) => self.handle_failure(&error, now),
            Err(_panic) => {
                tracing::error!(
                    "archiving failed in a way that it should not, and is started again; report the panic logged above"
                );
                (self.connection, self.follower) = (None, None);
            }
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        wait
    }

    fn run_round(&mut self, stop: &Receiver<()>, now: Timestamp) -> Result<(), RoundFailure> {
        // Another process may be waiting for this one to end, so only windows are folded then.
        if !is_told_to_stop(stop) {
            self.check_for_damage()?;
        }
        let mut stopped = false;
        while !stopped {
            let parts = Arc::clone(&self.parts);
            let (connection, follower, stored) = self.open()?;
            match follower.check_handout(&parts.store) {
                SpoolHandout::Open => {}
                SpoolHandout::DroppedThrough(_) => continue,
                SpoolHandout::Closed => break,
            }
            let NextWindows { windows, to, missed, is_end } = read_next(&parts, follower)?;
            if to > follower.handed_cursor() && follower.hand_out_through(to) {
                let counts = fold_windows(connection, &windows, (*stored, to), now)?;
                *stored = Some(to);
                parts.spool.hold_after(FOLLOWER, to);
                parts.update_status(|status| {
                    status.counts.add_counts(counts);
                    status.missed += missed;
                });
            }
            // Beyond what can be folded now, there may be windows that were read.
            follower.let_go();
            // A backlog can be long. What is left is folded by the next run.
            stopped = is_end || is_told_to_stop(stop);
        }
        if !is_told_to_stop(stop) {
            self.sweep(now)?;
            self.refill_reserve();
        }
        Ok(())
    }

    /// Removes what is no longer to be kept.
    fn sweep(&mut self, now: Timestamp) -> Result<(), ArchiveError> {
        let parts = Arc::clone(&self.parts);
        let (connection, ..) = self.open()?;
        let swept = sweep_slots(connection, now, parts.size_limit())?;
        let bytes = read_size(connection)?.0;
        parts.update_status(|status| {
            status.expired += swept.expired;
            status.for_size += swept.for_size;
            status.bytes = bytes;
        });
        Ok(())
    }

    /// The open archive, what follows the sequence from its cursor on, and that cursor.
    fn open(&mut self) -> Result<(&mut Connection, &mut SpoolFollower, &mut Option<Cursor>), ArchiveError> {
        let parts = &self.parts;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            closed => closed.insert(parts.open_or_replace()?),
        };
        let follower = match &mut self.follower {
            Some(follower) => follower,
            none => {
                self.stored = read_cursor(connection)?;
                let cursor = self.stored.unwrap_or(Cursor { epoch: 0, seq: 0 });
                none.insert(parts.spool.follow_after(FOLLOWER, cursor))
            }
        };
        Ok((connection, follower, &mut self.stored))
    }

    /// Checks the whole file where a reader has found damage.
    fn check_for_damage(&mut self) -> Result<(), ArchiveError> {
        if !self.parts.take_suspicion() {
            return Ok(());
        }
        let (connection, ..) = self.open()?;
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            tracing::error!(found, "the archive is damaged");
            self.replace_damaged()?;
        }
        Ok(())
    }

    fn replace_damaged(&mut self) -> Result<(), ArchiveError> {
        (self.connection, self.follower) = (None, None);
        self.parts.set_damaged_aside()
    }

    fn handle_failure(&mut self, error: &ArchiveError, now: Timestamp) {
        // What was handed out is read again from the cursor, which was not moved.
        self.follower = None;
        if error.is_damage() {
            tracing::error!(%error, "the archive is damaged");
            if let Err(error) = self.replace_damaged() {
                tracing::error!(%error, "the damaged archive cannot be moved out of the way; remove archive.db");
            }
        } else {
            if error.is_full() || error.is_io_failure() {
                self.make_room(now);
            }
            if !error.is_full() {
                self.connection = None;
            }
        }
        let text = error.to_string();
        let is_news =
            self.parts.update_status(|status| status.failing.replace(text) != Some(error.to_string()));
        if is_news {
            tracing::error!(%error, "windows are not archived; it is tried again, and goes on where it stopped. Check the disk of state_dir");
        }
    }

    /// Lets go of the reserve, so that what is over can be deleted: that needs room itself.
    fn make_room(&mut self, now: Timestamp) {
        let _there_may_be_none = std::fs::remove_file(self.reserve_path());
        if let Err(error) = self.sweep(now) {
            tracing::debug!(%error, "nothing can be deleted from the archive");
        }
    }

    fn refill_reserve(&self) {
        let path = self.reserve_path();
        if path.exists() {
            return;
        }
        let written = crate::files::create_private_file(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &vec![0; RESERVE_BYTES]));
        if written.is_err() {
            // A partial reserve would take up space without giving enough back.
            let _either_way = std::fs::remove_file(&path);
        }
    }

    fn reserve_path(&self) -> PathBuf {
        self.parts.path.with_file_name(RESERVE)
    }
}

/// Whether the archive is to end.
fn is_told_to_stop(stop: &Receiver<()>) -> bool {
    stop.try_recv() != Err(TryRecvError::Empty)
}

/// Reads what comes next, up to the first window that a kill could still change: the log must have written it, or else it would
/// come back after a restart as another window.
fn read_next(parts: &ArchiveParts, follower: &mut SpoolFollower) -> Result<NextWindows, RoundFailure> {
    let mut next =
        NextWindows { windows: Vec::new(), to: follower.handed_cursor(), missed: 0, is_end: false };
    let (mut records, mut bytes) = (0, 0);
    while records < BATCH_RECORDS && bytes < BATCH_BYTES {
        let batch = follower.read_ahead(&parts.store, READ).map_err(RoundFailure::Reading)?;
        if batch.windows.is_empty() && batch.missed == 0 {
            next.is_end = true;
            if !batch.is_waiting {
                next.to = next.to.max(batch.cursor);
            }
            break;
        }
        // Missed records can lie before any of these windows, so the cursor can pass all of them or none.
        if batch.missed > 0 && !batch.windows.iter().all(|window| is_settled(parts, window)) {
            next.is_end = true;
            break;
        }
        for window in batch.windows {
            if !is_settled(parts, &window) {
                next.is_end = true;
                return Ok(next);
            }
            records += window.published.window().len();
            bytes += window.published.window().bytes();
            next.to = window.cursor;
            next.windows.push(window.published);
        }
        next.missed += batch.missed;
        next.to = next.to.max(batch.cursor);
    }
    Ok(next)
}

/// Whether a window comes back as it is after a kill, or not at all.
fn is_settled(parts: &ArchiveParts, window: &SpooledWindow) -> bool {
    let is_of_earlier_run = window.birth.epoch < parts.store.epoch();
    is_of_earlier_run || !parts.spool.has_files() || window.cursor <= parts.spool.written_cursor()
}

/// Opens the archive; one that is damaged is set aside, and a new one begun.
pub(super) fn open_or_replace(path: &Path) -> Result<(Connection, Option<PathBuf>), ArchiveError> {
    match open_for_writing(path) {
        Ok(connection) => Ok((connection, None)),
        Err(error) if error.is_damage() => {
            let aside = set_aside(path)?;
            Ok((open_for_writing(path)?, Some(aside)))
        }
        Err(error) => Err(error),
    }
}
