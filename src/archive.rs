//! The archive: every window of the node, folded into slots of a minute and of ten minutes, in one file that a restart keeps.
//!
//! ```text
//! Store, Spool ─▶ follow ─▶ writer (fold, one transaction with the cursor) ─▶ archive.db ─▶ reader ─▶ query::history
//!                                            sweep (retention, size) ─▶
//! ```
//!
//! One thread follows the sequence as a publisher does, and writes. A slot is a [`Window`](crate::aggregate::Window) of a longer
//! interval, so that its percentiles are those of all values. Readers have connections of their own, and hold up nothing.
//! Decision: `docs/adr/0084-archive.md`.

mod archived;
mod database;
mod follow;
mod places;
mod policy;
mod reader;
mod slot;
mod status;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

pub use archived::{ArchivedContainer, ArchivedSlots};
pub use database::ArchiveError;
pub use places::SeriesPlaces;
pub use policy::{FURTHEST_AHEAD, Granularity, POLICY};
pub use reader::ArchiveReader;
pub use status::{ArchiveStatus, FoldCounts};

use self::database::{FILE, read_cursor};
use self::follow::{ArchiveTask, open_or_replace};
use crate::config::{AgentConfig, ArchiveConfig};
use crate::store::{Cursor, Store};
use crate::window_log::Spool;

/// The name by which the spool knows the archive. No publisher can have it.
const FOLLOWER: &str = "(archive)";

/// How often what is new is folded at least and at most. Answers have newer windows from memory.
const ROUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How many windows of each container a round folds: a slot is written again for each round.
const WINDOWS_OF_ROUND: u32 = 6;

/// How long the thread may take to end.
const ENDING: Duration = Duration::from_secs(3);

/// The archive of the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Archive(Arc<ArchiveParts>);

#[derive(Debug)]
struct ArchiveParts {
    is_enabled: bool,
    size: AtomicU64,
    path: PathBuf,
    /// How often what is new is folded.
    round: Duration,
    store: Arc<Store>,
    spool: Arc<Spool>,
    /// Opened to read the cursor, until the thread takes it.
    opened: Mutex<Option<Connection>>,
    thread: Mutex<Option<RunningThread>>,
    status: Mutex<ArchiveStatus>,
    /// Whether a reader has found damage that the writer has not looked at.
    is_suspect: AtomicBool,
}

#[derive(Debug)]
struct RunningThread {
    stop: mpsc::Sender<()>,
    handle: JoinHandle<()>,
}

impl Archive {
    /// An archive in the state directory, which is not opened yet.
    #[must_use]
    pub fn new(config: &AgentConfig, store: Arc<Store>, spool: Arc<Spool>) -> Self {
        let (state_dir, window) = (&config.state_dir, config.aggregation.window);
        let config = config.archive;
        Self(Arc::new(ArchiveParts {
            round: window.saturating_mul(WINDOWS_OF_ROUND).clamp(ROUNDS.0, ROUNDS.1),
            is_enabled: config.enabled,
            size: AtomicU64::new(config.size),
            path: state_dir.join(FILE),
            store,
            spool,
            opened: Mutex::default(),
            thread: Mutex::default(),
            status: Mutex::default(),
            is_suspect: AtomicBool::new(false),
        }))
    }

    /// Whether windows are archived.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.is_enabled
    }

    /// Applies settings that can change while it runs.
    pub fn apply_settings(&self, config: &ArchiveConfig) {
        self.0.size.store(config.size, Ordering::Relaxed);
    }

    /// Holds the files of the window log that are not archived yet. Called before [`Archive::start`] and before the log is written,
    /// because files without a holder are deleted then, and after another process that wrote the archive has ended.
    pub fn hold_files(&self) {
        let parts = &self.0;
        if !parts.is_enabled {
            return;
        }
        let begin = Cursor { epoch: 0, seq: 0 };
        let opened = parts.open_or_replace().and_then(|connection| {
            let cursor = read_cursor(&connection)?.unwrap_or(begin);
            Ok((connection, cursor))
        });
        match opened {
            Ok((connection, cursor)) => {
                parts.spool.hold_after(FOLLOWER, cursor);
                *lock(&parts.opened) = Some(connection);
            }
            Err(error) => {
                tracing::error!(%error, path = %parts.path.display(), "the archive cannot be opened; it is tried again. Check the disk of state_dir");
                // Its cursor is not known, so everything may be needed.
                parts.spool.hold_after(FOLLOWER, begin);
            }
        }
    }

    /// Starts archiving, if it is enabled and not running.
    pub fn start(self) {
        let mut running = lock(&self.0.thread);
        if !self.0.is_enabled || running.is_some() {
            return;
        }
        let (stop, stopped) = mpsc::channel();
        let task = ArchiveTask::new(Arc::clone(&self.0), lock(&self.0.opened).take());
        let thread = std::thread::Builder::new().name("archive".to_owned());
        match thread.spawn(move || task.run(&stopped)) {
            Ok(handle) => *running = Some(RunningThread { stop, handle }),
            Err(error) => {
                tracing::error!(%error, "the archive has no thread; windows are not archived. Restart the agent");
            }
        }
    }

    /// Archives what can be, and ends. Another process goes on at the cursor.
    pub async fn stop(&self) {
        let Some(RunningThread { stop, handle }) = lock(&self.0.thread).take() else { return };
        drop(stop);
        let joined = tokio::task::spawn_blocking(move || handle.join().is_ok());
        if tokio::time::timeout(ENDING, joined).await.is_err() {
            tracing::warn!("the archive did not end in time; it goes on at its cursor after the next start");
        }
        lock(&self.0.opened).take();
    }

    /// A reader. `None` where there is no archive.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open_reader(&self) -> Result<Option<ArchiveReader>, ArchiveError> {
        if !self.0.is_enabled {
            return Ok(None);
        }
        ArchiveReader::open(&self.0.path)
    }

    /// Has the writer look at damage that a reader has found.
    pub fn note_read_failure(&self, error: &ArchiveError) {
        if error.is_damage() {
            self.0.is_suspect.store(true, Ordering::Relaxed);
        }
    }

    /// The counts and the state now, with the records whose files the spool dropped.
    #[must_use]
    pub fn load_status(&self) -> ArchiveStatus {
        let mut status = lock(&self.0.status).clone();
        let holds = self.0.spool.snapshot().publishers;
        let dropped = holds.iter().find(|hold| hold.name == FOLLOWER).map_or(0, |hold| hold.dropped);
        status.missed += dropped;
        status
    }
}

impl ArchiveParts {
    fn size_limit(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn take_suspicion(&self) -> bool {
        self.is_suspect.swap(false, Ordering::Relaxed)
    }

    fn update_status<T>(&self, update: impl FnOnce(&mut ArchiveStatus) -> T) -> T {
        update(&mut lock(&self.status))
    }

    fn open_or_replace(&self) -> Result<Connection, ArchiveError> {
        let (connection, aside) = open_or_replace(&self.path)?;
        if let Some(aside) = aside {
            self.note_set_aside(&aside);
        }
        Ok(connection)
    }

    /// Why windows of this run are not archived although nothing fails here.
    fn describe_obstacle(&self) -> Option<String> {
        // Windows are folded only after the log has written them: a kill could restore an unwritten one with other contents.
        (self.spool.has_files() && !self.spool.will_be_written())
            .then(|| "the window log cannot be written; check the disk of state_dir".to_owned())
    }

    fn set_damaged_aside(&self) -> Result<(), ArchiveError> {
        let aside = database::set_aside(&self.path)?;
        self.note_set_aside(&aside);
        Ok(())
    }

    fn note_set_aside(&self, aside: &Path) {
        self.update_status(|status| status.set_aside += 1);
        tracing::error!(
            moved_to = %aside.display(),
            "the archive was damaged: it was set aside, and a new one begins with the windows that are left. Check the disk of state_dir"
        );
    }
}

// Poisoning is ignored: each change under a lock is whole at any moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
