//! What publishers read of the window log: windows that memory may no longer have.
//!
//! Nothing is copied. A file that the log no longer needs, and that a publisher has not read to its end, is renamed from
//! `windows-N.log` to `spool-N-EPOCH-SEQ.log`, after the last window in it. Recovery reads `windows-*` alone, so a backlog costs a
//! start nothing. The writer's thread renames and removes files (`retire`); other threads read them ([`SpoolFollower`],
//! [`SequenceReader`]) and say how far they are ([`Spool::hold_after`]). Where there are no publishers, files are removed as if there
//! were no spool.

mod file_name;
mod follower;
mod progress;
mod reader;
mod retire;
mod sequence;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub(super) use file_name::{SpoolFileName, list_spool_files};
pub use follower::{SpoolFollower, SpoolHandout};
use progress::Progress;
pub use reader::SpooledWindow;
pub use sequence::{SequenceReader, SpoolBatch};

use super::entry::Birth;
use super::segment::WINDOWS;
use super::status::LogDamage;
use crate::store::Cursor;
use crate::wal::{Files, format_file_name};

/// The files that publishers read, and how far each publisher is.
#[derive(Debug)]
pub struct Spool {
    state: Mutex<SpoolState>,
    recorder: OnceLock<Arc<dyn DropRecorder>>,
}

/// Keeps what publishers lose, so that it is not forgotten if the agent is killed after a file has gone.
pub trait DropRecorder: std::fmt::Debug + Send + Sync {
    /// Records what a publisher loses, before the file with it is removed. Called on the thread that writes the log.
    fn record_drop(&self, publisher: &str, dropped: SpoolDrop);
}

/// What a publisher loses with a file.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SpoolDrop {
    /// The end of the file. The publisher gets nothing up to here but what it has in hand.
    pub through: Cursor,
    /// Records that it was not handed out, also those of which the file says that they are in none.
    pub untaken: u64,
    /// Records that it was handed out and is not done with. It can still deliver those that it has in hand.
    pub in_hand: u64,
    /// The end of what it was handed out. A publisher that is done with everything up to here has lost nothing that was in hand.
    pub handed: Cursor,
}

#[derive(Debug)]
struct SpoolState {
    /// Bytes that spool files may have together.
    limit: u64,
    access: FileAccess,
    /// By number, so that older files come first.
    files: BTreeMap<u64, SpoolFile>,
    publishers: BTreeMap<String, Progress>,
    /// How far the log's writer has got.
    written: Cursor,
    /// Whether the last attempt to write failed.
    failing: bool,
    damage: LogDamage,
    set_aside: u64,
}

/// How the files can be had.
#[derive(Clone, Debug)]
enum FileAccess {
    /// The log will be opened: it may have windows that memory has not.
    Later,
    Open(Arc<dyn Files>),
    /// There is no log. Memory has everything that there is.
    Never,
}

/// A file of closed windows.
#[derive(Copy, Clone, Debug)]
struct SpoolFile {
    /// The birth of the last window in it.
    last: Cursor,
    /// Its bytes, where it is kept for publishers alone; `None` where it belongs to the log.
    spooled: Option<u64>,
    is_damaged: bool,
    /// Whether it is being renamed or removed, so that it may not be there under its name.
    is_moving: bool,
}

impl SpoolFile {
    const fn new(last: Cursor, spooled: Option<u64>) -> Self {
        Self { last, spooled, is_damaged: false, is_moving: false }
    }
}

/// The state of the spool.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SpoolStatus {
    /// Bytes of the files that are kept for publishers alone.
    pub bytes: u64,
    /// The number of those files.
    pub files: usize,
    /// What could not be read for publishers, each part once.
    pub damage: LogDamage,
    /// Damaged files that were set aside once their intact windows had been read.
    pub set_aside: u64,
    /// How far each publisher is, by name.
    pub publishers: Vec<PublisherHold>,
}

/// What a publisher keeps of the spool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublisherHold {
    /// Its name.
    pub name: String,
    /// Files with windows after this place are kept for it.
    pub cursor: Cursor,
    /// Everything up to here was handed out to it or dropped.
    pub taken: Cursor,
    /// Records that were dropped before it had read them, because the spool was as large as it may be or the disk was full.
    pub dropped: u64,
}

impl Spool {
    /// A spool of at most `limit` bytes, whose files the writer of the log will bring. With 0, no file is kept beyond what the
    /// log keeps.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self::with_access(limit, FileAccess::Later)
    }

    /// A spool for an agent without a window log: what memory drops is lost.
    #[must_use]
    pub fn without_files() -> Self {
        Self::with_access(0, FileAccess::Never)
    }

    /// The backlog in a directory that no log writes to.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn open_backlog(files: Arc<dyn Files>, limit: u64) -> io::Result<Self> {
        let found = list_spool_files(&files.list_names()?);
        let spool = Self::new(limit);
        spool.attach_files(files, found);
        spool.set_failing(true);
        Ok(spool)
    }

    fn with_access(limit: u64, access: FileAccess) -> Self {
        let state = SpoolState {
            limit,
            access,
            files: BTreeMap::new(),
            publishers: BTreeMap::new(),
            written: Cursor { epoch: 0, seq: 0 },
            failing: false,
            damage: LogDamage::default(),
            set_aside: 0,
        };
        Self { state: Mutex::new(state), recorder: OnceLock::new() }
    }

    /// Has what publishers lose recorded. The first recorder stays.
    pub fn record_drops_with(&self, recorder: Arc<dyn DropRecorder>) {
        let _the_first_stays = self.recorder.set(recorder);
    }

    /// Changes the bytes that spool files may have together. If they have more, the oldest go after the next window is written.
    pub fn set_limit(&self, limit: u64) {
        self.lock().limit = limit;
    }

    /// Keeps files with windows after a cursor for a publisher, which is done with everything up to it. Publishers that are
    /// configured say so before the log is written: what is held by none then is removed.
    pub fn hold_after(&self, publisher: &str, cursor: Cursor) {
        self.hold_earlier(publisher, cursor, cursor);
    }

    /// The same for a publisher that is done with everything up to `done`, and may have to read again what is after `earlier`.
    pub fn hold_earlier(&self, publisher: &str, earlier: Cursor, done: Cursor) {
        let mut state = self.lock();
        let progress =
            state.publishers.entry(publisher.to_owned()).or_insert_with(|| Progress::begin_at(done));
        progress.finish_through(earlier.min(done), done);
    }

    /// Keeps nothing for a publisher any more.
    pub fn release_publisher(&self, publisher: &str) {
        self.lock().publishers.remove(publisher);
    }

    /// How far the log's writer has got: a kill loses no window up to here. Without a log, nothing is written.
    #[must_use]
    pub fn written_cursor(&self) -> Cursor {
        self.lock().written
    }

    /// Whether a window that is not on the disk yet will be there soon. If not, it can be lost with the agent now: there is no
    /// log, or it cannot be written.
    #[must_use]
    pub fn will_be_written(&self) -> bool {
        let state = self.lock();
        !state.failing && !matches!(state.access, FileAccess::Never)
    }

    /// Whether there is a log, or will be one. Without it, nothing comes back after a kill.
    #[must_use]
    pub fn has_files(&self) -> bool {
        !matches!(self.lock().access, FileAccess::Never)
    }

    /// Sizes, damage, and how far publishers are.
    #[must_use]
    pub fn snapshot(&self) -> SpoolStatus {
        let state = self.lock();
        let spooled = || state.files.values().filter_map(|file| file.spooled);
        let publishers = state.publishers.iter().map(|(name, progress)| progress.describe_hold(name));
        SpoolStatus {
            bytes: spooled().sum(),
            files: spooled().count(),
            damage: state.damage,
            set_aside: state.set_aside,
            publishers: publishers.collect(),
        }
    }

    /// Gives up on the log, which could not be opened: only memory has windows.
    pub fn give_up_files(&self) {
        self.lock().access = FileAccess::Never;
    }

    /// Brings the directory, and the files in it that were kept for publishers before.
    pub(super) fn attach_files(&self, files: Arc<dyn Files>, spooled: Vec<SpoolFileName>) {
        let found: Vec<_> = spooled
            .into_iter()
            .map(|file| {
                let bytes = files.byte_length(&file.format_name()).unwrap_or(0);
                (file.number, SpoolFile::new(file.last, Some(bytes)))
            })
            .collect();
        let mut state = self.lock();
        state.access = FileAccess::Open(files);
        state.files.extend(found);
    }

    /// Notes which window is the last in a file of the log.
    pub(super) fn note_file(&self, number: u64, last: Option<Birth>) {
        let Some(last) = last else { return };
        let new = SpoolFile::new(last.into(), None);
        self.lock().files.entry(number).or_insert(new).last = last.into();
    }

    /// Notes that windows up to a place are on the disk.
    pub(super) fn set_written(&self, written: Cursor) {
        self.lock().written = written;
    }

    /// Notes whether the log can be written.
    pub(super) fn set_failing(&self, failing: bool) {
        self.lock().failing = failing;
    }

    fn files(&self) -> io::Result<Arc<dyn Files>> {
        match &self.lock().access {
            FileAccess::Open(files) => Ok(Arc::clone(files)),
            FileAccess::Later | FileAccess::Never => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    // Poisoning is ignored: each change under the lock is whole at any moment.
    fn lock(&self) -> MutexGuard<'_, SpoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpoolState {
    /// Counts what could not be read of a file, once.
    fn note_damage(&mut self, number: u64, damage: LogDamage) {
        let Some(file) = self.files.get_mut(&number).filter(|file| !file.is_damaged) else { return };
        file.is_damaged = true;
        self.damage.parts += damage.parts;
        self.damage.bytes += damage.bytes;
        self.damage.entries += damage.entries;
        self.damage.files += damage.files;
        tracing::warn!(
            file = number,
            ?damage,
            "parts of a file that is kept for publishers are damaged and left out"
        );
    }

    /// The name of a file.
    fn format_name(&self, number: u64) -> Option<String> {
        let file = self.files.get(&number)?;
        Some(match file.spooled {
            Some(_) => SpoolFileName { number, last: file.last }.format_name(),
            None => format_file_name(WINDOWS, number),
        })
    }
}
