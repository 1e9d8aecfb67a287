//! What publishers read of the window log: windows that memory may no longer have.
//!
//! Nothing is copied. A file that the log no longer needs, and that a publisher has not read to its end, is renamed from
//! `windows-N.log` to `spool-N-EPOCH-SEQ.log`, after the last window in it. Recovery reads `windows-*` alone, so a backlog costs a
//! start nothing. The writer's thread renames and removes files; other threads read them ([`SpoolFollower`]) and say how far they
//! are ([`Spool::hold_after`]). Where there are no publishers, files are removed as if there were no spool.

mod file_name;
mod follower;
mod reader;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) use file_name::{SpoolFileName, list_spool_files};
pub use follower::{SpoolBatch, SpoolFollower};
pub use reader::SpooledWindow;

use super::entry::Birth;
use super::segment::{SealedSegment, WINDOWS};
use super::status::LogDamage;
use crate::store::Cursor;
use crate::wal::{Files, format_file_name, remove_file};
use reader::SpoolFileReader;

/// Bytes that files kept for publishers may have together, unless configured otherwise.
pub const DEFAULT_SPOOL_SIZE: u64 = 1 << 30;

/// The files that publishers read, and how far each publisher is.
#[derive(Debug)]
pub struct Spool {
    /// Bytes that spool files may have together.
    limit: u64,
    state: Mutex<SpoolState>,
}

#[derive(Debug)]
struct SpoolState {
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
}

/// How far a publisher is.
#[derive(Copy, Clone, Debug)]
struct Progress {
    /// Everything up to here is done with, and is never read again.
    cursor: Cursor,
    /// Everything up to here was handed out or dropped; at least `cursor`.
    taken: Cursor,
    /// Records that were dropped before they were handed out.
    dropped: u64,
    /// Whether records are being counted as dropped, so that `taken` is not known yet.
    is_counting: bool,
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
            access,
            files: BTreeMap::new(),
            publishers: BTreeMap::new(),
            written: Cursor { epoch: 0, seq: 0 },
            failing: false,
            damage: LogDamage::default(),
            set_aside: 0,
        };
        Self { limit, state: Mutex::new(state) }
    }

    /// Keeps files with windows after a cursor for a publisher, which is done with everything up to it. Publishers that are
    /// configured say so before the log is written: what is held by none then is removed.
    pub fn hold_after(&self, publisher: &str, cursor: Cursor) {
        let mut state = self.lock();
        match state.publishers.get_mut(publisher) {
            Some(progress) => {
                progress.cursor = cursor;
                progress.taken = progress.taken.max(cursor);
            }
            None => {
                let progress = Progress { cursor, taken: cursor, dropped: 0, is_counting: false };
                state.publishers.insert(publisher.to_owned(), progress);
            }
        }
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

    /// Whether windows can be lost with the agent now, because they cannot be written.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.lock().failing
    }

    /// Sizes, damage, and how far publishers are.
    #[must_use]
    pub fn snapshot(&self) -> SpoolStatus {
        let state = self.lock();
        let spooled = || state.files.values().filter_map(|file| file.spooled);
        let publishers = state.publishers.iter().map(|(name, Progress { cursor, taken, dropped, .. })| {
            PublisherHold { name: name.clone(), cursor: *cursor, taken: *taken, dropped: *dropped }
        });
        SpoolStatus {
            bytes: spooled().sum(),
            files: spooled().count(),
            damage: state.damage,
            set_aside: state.set_aside,
            publishers: publishers.collect(),
        }
    }

    /// Brings the directory, and the files in it that were kept for publishers before.
    pub(super) fn attach_files(&self, files: Arc<dyn Files>, spooled: Vec<SpoolFileName>) {
        let found: Vec<_> = spooled
            .into_iter()
            .map(|file| {
                let bytes = files.byte_length(&file.format_name()).unwrap_or(0);
                (file.number, SpoolFile { last: file.last, spooled: Some(bytes), is_damaged: false })
            })
            .collect();
        let mut state = self.lock();
        state.access = FileAccess::Open(files);
        state.files.extend(found);
    }

    /// Notes which window is the last in a file of the log.
    pub(super) fn note_file(&self, number: u64, last: Option<Birth>) {
        let Some(last) = last else { return };
        let new = SpoolFile { last: last.into(), spooled: None, is_damaged: false };
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

    /// Takes a file that the log no longer needs: it is kept if a publisher has not read all of it.
    ///
    /// # Errors
    /// When it could be neither renamed nor removed; it is then still there under its name.
    pub(super) fn retire_file(&self, sealed: &SealedSegment) -> io::Result<()> {
        let (files, last, number) = (self.files()?, sealed.last.map(Cursor::from), sealed.number);
        if let Some(last) = last.filter(|last| self.limit > 0 && self.lock().is_needed(*last)) {
            match files.rename(&sealed.name, &SpoolFileName { number, last }.format_name()) {
                Ok(()) => {
                    let file = SpoolFile { last, spooled: Some(sealed.length), is_damaged: false };
                    self.lock().files.insert(number, file);
                    return Ok(());
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Err(_) => {}
            }
        }
        remove_file(&*files, &sealed.name)?;
        self.lock().files.remove(&number);
        Ok(())
    }

    /// Removes spool files that every publisher has read, and the oldest ones while they are too many bytes.
    ///
    /// # Errors
    /// When one could not be removed; the next call tries again.
    pub(super) fn prune_files(&self) -> io::Result<()> {
        loop {
            let (oldest, is_needed, is_over) = {
                let state = self.lock();
                let Some((number, file)) = state.oldest_spooled() else { return Ok(()) };
                let bytes: u64 = state.files.values().filter_map(|file| file.spooled).sum();
                (number, state.is_needed(file.last), bytes > self.limit)
            };
            match (is_needed, is_over) {
                (true, false) => return Ok(()),
                (true, true) => self.drop_oldest()?,
                (false, _) => self.remove_spooled(oldest)?,
            }
        }
    }

    /// Drops the oldest spool file, which publishers may need. What each of them had not read is counted.
    ///
    /// # Errors
    /// When it could not be removed. Its records are then dropped all the same.
    pub(super) fn drop_oldest(&self) -> io::Result<()> {
        let (number, file, behind) = {
            let mut state = self.lock();
            let Some((number, file)) = state.oldest_spooled() else { return Ok(()) };
            // From here on, no publisher is handed anything of the file.
            let behind = state.begin_dropping(file.last);
            (number, file, behind)
        };
        let counted = self.count_records(number, file, &behind);
        self.lock().end_dropping(counted);
        self.remove_spooled(number)
    }

    /// For each publisher, the records in a file that it has not read, and the cursor after the last of them.
    fn count_records(
        &self,
        number: u64,
        file: SpoolFile,
        behind: &[(String, Cursor)],
    ) -> Vec<(String, u64, Cursor)> {
        let Some(first) = behind.iter().map(|(_, taken)| *taken).min() else { return Vec::new() };
        let mut counted: Vec<_> =
            behind.iter().map(|(publisher, taken)| (publisher.clone(), 0, (*taken).max(file.last))).collect();
        let name = SpoolFileName { number, last: file.last }.format_name();
        let bytes = match self.files().and_then(|files| files.read(&name)) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(file = name, %error, "cannot count the records of a file that is dropped from the spool");
                self.lock().note_damage(number, LogDamage { files: 1, ..LogDamage::default() });
                // The sequence tells as much as the file would, if it is of one run.
                for ((_, taken), (_, records, _)) in behind.iter().zip(&mut counted) {
                    *records = if taken.epoch == file.last.epoch {
                        file.last.seq.saturating_sub(taken.seq)
                    } else {
                        0
                    };
                }
                return counted;
            }
        };
        let mut reader = SpoolFileReader::new(bytes, number, first, file.last);
        while let Some(SpooledWindow { published, birth, cursor, .. }) = reader.next_window() {
            for ((_, taken), (_, records, end)) in behind.iter().zip(&mut counted) {
                if birth > *taken {
                    *records += published.window().len() as u64;
                    *end = (*end).max(cursor);
                }
            }
        }
        counted
    }

    /// Removes a file that is kept for publishers; one that is damaged is set aside.
    fn remove_spooled(&self, number: u64) -> io::Result<()> {
        let files = self.files()?;
        let Some(file) = self.lock().files.get(&number).copied() else { return Ok(()) };
        let name = SpoolFileName { number, last: file.last };
        if file.is_damaged {
            // The newest one is enough to look at, and they do not pile up.
            for older in file_name::list_set_aside(&files.list_names()?) {
                remove_file(&*files, &older)?;
            }
            files.rename(&name.format_name(), &name.format_set_aside())?;
        } else {
            remove_file(&*files, &name.format_name())?;
        }
        let mut state = self.lock();
        state.set_aside += u64::from(file.is_damaged);
        state.files.remove(&number);
        Ok(())
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
    /// Whether a publisher has not read a file whose last window has this birth.
    fn is_needed(&self, last: Cursor) -> bool {
        self.publishers.values().any(|progress| progress.cursor < last)
    }

    fn oldest_spooled(&self) -> Option<(u64, SpoolFile)> {
        let mut spooled = self.files.iter().filter(|(_, file)| file.spooled.is_some());
        spooled.next().map(|(number, file)| (*number, *file))
    }

    /// Ends reading up to a place. Returns the publishers that were before it, with how far each was.
    fn begin_dropping(&mut self, last: Cursor) -> Vec<(String, Cursor)> {
        let behind = self.publishers.iter_mut().filter(|(_, progress)| progress.taken < last);
        let behind = behind.map(|(name, progress)| {
            progress.is_counting = true;
            (name.clone(), progress.taken)
        });
        behind.collect()
    }

    /// Notes what was dropped.
    fn end_dropping(&mut self, counted: Vec<(String, u64, Cursor)>) {
        for (publisher, records, end) in counted {
            if let Some(progress) = self.publishers.get_mut(&publisher) {
                progress.is_counting = false;
                progress.dropped += records;
                progress.taken = progress.taken.max(end);
                if records > 0 {
                    tracing::warn!(
                        publisher,
                        records,
                        "the oldest windows that were kept for a publisher are dropped: it is too far behind for the size of the spool"
                    );
                }
            }
        }
    }

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
