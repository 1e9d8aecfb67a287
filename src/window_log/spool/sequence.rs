//! Reading the node's sequence: from memory while it has everything that comes next, and from files where it has not.

use std::io;
use std::sync::Arc;

use super::reader::{SpoolEntry, SpoolFileReader, SpooledWindow};
use super::{FileAccess, Spool, SpoolState};
use crate::store::{Cursor, Published, Store};
use crate::wal::Files;
use crate::window_log::entry::Birth;
use crate::window_log::status::LogDamage;

/// How often reading a file is tried, one call after the other. Errors such as too many open files pass; a file that stays
/// unreadable must not keep everything after it.
const ATTEMPTS: u32 = 8;

/// Reads every window after a cursor, each once and in the order of births. What it reads is handed out to no publisher
/// ([`SpoolFollower`](super::SpoolFollower) does that), and files go while it reads unless they are held.
#[derive(Debug)]
pub struct SequenceReader {
    spool: Arc<Spool>,
    /// Everything up to here was returned.
    position: Cursor,
    open: Option<SpoolFileReader>,
    /// The file that was read to its end last, and the last window that it had then.
    done: Option<(u64, Cursor)>,
    failures: u32,
}

/// What comes next.
#[derive(Debug)]
pub struct SpoolBatch {
    /// The windows, by birth.
    pub windows: Vec<SpooledWindow>,
    /// The cursor after them.
    pub cursor: Cursor,
    /// Records before, between or after these windows that no longer exist: they left memory before they were on the disk, as the
    /// log says, or were in a damaged part of a file, as far as the sequence of one epoch tells. Dropped ones
    /// ([`PublisherHold::dropped`](super::PublisherHold::dropped)) are not among them.
    pub missed: u64,
    /// Whether there may be windows that cannot be read yet: the log is not open, or late.
    pub is_waiting: bool,
}

impl Spool {
    /// Reads the sequence from a cursor on. Cursors of earlier runs of the agent are good; one before everything that is kept
    /// starts with the oldest window.
    #[must_use]
    pub fn read_after(self: &Arc<Self>, cursor: Cursor) -> SequenceReader {
        SequenceReader { spool: Arc::clone(self), position: cursor, open: None, done: None, failures: 0 }
    }
}

impl SpoolBatch {
    fn waiting_at(cursor: Cursor) -> Self {
        Self { windows: Vec::new(), cursor, missed: 0, is_waiting: true }
    }
}

impl SequenceReader {
    /// Everything up to here was returned.
    #[must_use]
    pub fn read_position(&self) -> Cursor {
        self.position
    }

    /// The next windows, at most `most`; none if there is nothing new. Reads files, so that it may wait for a disk.
    ///
    /// # Errors
    /// When a file cannot be read. Later calls try again, and leave it out in the end.
    pub fn read_windows(&mut self, store: &Store, most: usize) -> io::Result<SpoolBatch> {
        loop {
            let (found, is_all) = match self.open.take() {
                Some(reader) => (self.read_file(reader, most), false),
                None => match self.read_memory(store, most) {
                    Ok(found) => (found, true),
                    Err(lost) => match self.open_next_file(lost)? {
                        AfterMemory::File => continue,
                        AfterMemory::Wait => return Ok(SpoolBatch::waiting_at(self.position)),
                        AfterMemory::Rest => match self.read_rest(store, lost, most) {
                            Some(found) => (found, false),
                            None => return Ok(SpoolBatch::waiting_at(self.position)),
                        },
                    },
                },
            };
            self.position = found.cursor;
            if is_all || !found.windows.is_empty() || found.missed > 0 {
                return Ok(found);
            }
        }
    }

    /// What comes next in an open file.
    fn read_file(&mut self, mut reader: SpoolFileReader, most: usize) -> SpoolBatch {
        let (mut windows, mut missed, mut cursor) = (Vec::new(), 0, self.position);
        while windows.len() < most.max(1) {
            let Some(entry) = reader.next_entry() else {
                let (number, damage) = (reader.number(), reader.damage());
                if !damage.is_none() {
                    self.spool.lock().note_damage(number, damage);
                }
                self.done = Some((number, reader.last_birth()));
                return SpoolBatch { windows, cursor, missed, is_waiting: false };
            };
            match entry {
                SpoolEntry::Window(window) => {
                    missed += gap_between(cursor, window.birth);
                    cursor = window.cursor;
                    windows.push(window);
                }
                SpoolEntry::Lost(lost) => {
                    missed = lost.records.saturating_add(missed + gap_between(cursor, lost.birth));
                    cursor = lost.end_cursor();
                }
            }
        }
        self.open = Some(reader);
        SpoolBatch { windows, cursor, missed, is_waiting: false }
    }

    /// What comes next in memory, if it has lost nothing in between; else the last place that it has lost. For a position in an
    /// earlier run, that is the beginning of this one.
    fn read_memory(&mut self, store: &Store, most: usize) -> Result<SpoolBatch, Cursor> {
        let epoch = store.epoch();
        if self.position.epoch < epoch {
            return Err(Cursor { epoch, seq: 0 });
        }
        let mut cursor = self.position.max(begin_of_run(store));
        if cursor > store.end_cursor() {
            return Ok(SpoolBatch { windows: Vec::new(), cursor, missed: 0, is_waiting: false });
        }
        loop {
            let since = store.some_since_of(cursor, most.max(1), |_| true).map_err(|lost| lost.oldest)?;
            let (is_more, published) = (since.published.len() >= most.max(1), since.published);
            let windows = published.into_iter().filter(|new| new.first_seq() > cursor.seq);
            let windows: Vec<_> = windows.filter_map(|new| published_here(new, epoch)).collect();
            cursor = since.next;
            if !windows.is_empty() || !is_more {
                return Ok(SpoolBatch { windows, cursor, missed: 0, is_waiting: false });
            }
        }
    }

    /// Opens the next file with windows that were not read. If there is none, says what to do about what memory has lost.
    fn open_next_file(&mut self, lost: Cursor) -> io::Result<AfterMemory> {
        let state = self.spool.lock();
        let Some((number, last, name, files)) = state.next_file(self.position, self.done) else {
            // Asked under the same lock: a file may have come since.
            let is_final = state.has_nothing_before(lost);
            return Ok(if is_final { AfterMemory::Rest } else { AfterMemory::Wait });
        };
        drop(state);
        match files.read(&name) {
            Ok(bytes) => {
                self.failures = 0;
                self.open = Some(SpoolFileReader::new(bytes, number, self.position, last));
            }
            // The writer renames or removes it, and says so in a moment.
            Err(_) if !self.spool.lock().has_name(number, &name) => return Ok(AfterMemory::Wait),
            Err(error) => {
                self.failures += 1;
                if self.failures < ATTEMPTS {
                    return Err(error);
                }
                tracing::warn!(file = name, %error, "cannot read a file of the window log for a publisher; it is left out");
                self.spool.lock().note_damage(number, LogDamage { files: 1, ..LogDamage::default() });
                (self.failures, self.done) = (0, Some((number, last)));
            }
        }
        Ok(AfterMemory::File)
    }

    /// What memory still has after a loss that no file makes good; `None` if a file may make it good after all.
    fn read_rest(&self, store: &Store, lost: Cursor, most: usize) -> Option<SpoolBatch> {
        let (found, missing_to) = self.read_kept(store, lost, most);
        // The files are looked at again, after memory: what has left memory since the first look is in one of them by now, or
        // about to be.
        let state = self.spool.lock();
        let is_final = state.next_file(self.position, self.done).is_none();
        (is_final && state.has_nothing_before(missing_to)).then_some(found)
    }

    /// What memory has now, and the last place that is missing in it.
    fn read_kept(&self, store: &Store, lost: Cursor, most: usize) -> (SpoolBatch, Cursor) {
        let epoch = store.epoch();
        if self.position.epoch < epoch {
            return (self.read_kept_of_earlier_runs(store, most), lost);
        }
        let (mut windows, mut missed, mut cursor) = (Vec::new(), 0, self.position.max(begin_of_run(store)));
        let mut missing_to = lost;
        let kept = store.windows_to_write(cursor.seq).windows.into_iter();
        for window in kept.filter_map(|published| published_here(published, epoch)).take(most.max(1)) {
            let gap = gap_between(cursor, window.birth);
            if gap > 0 {
                let before = Cursor { seq: window.birth.seq.saturating_sub(1), ..window.birth };
                missing_to = missing_to.max(before);
            }
            missed += gap;
            cursor = window.cursor;
            windows.push(window);
        }
        if windows.is_empty() && cursor < lost {
            missed += lost.seq.saturating_sub(cursor.seq);
            cursor = lost;
        }
        (SpoolBatch { windows, cursor, missed, is_waiting: false }, missing_to)
    }

    /// What memory has of windows that an earlier run published and this one restored: none that were read from files before,
    /// unless they could not be written yet. Then this run's own follow.
    fn read_kept_of_earlier_runs(&self, store: &Store, most: usize) -> SpoolBatch {
        let epoch = store.epoch();
        let kept = store.kept_after(0).into_iter().map(|kept| (kept.birth_in(epoch), kept));
        let mut kept: Vec<_> =
            kept.filter(|(birth, _)| birth.epoch < epoch && *birth > self.position).collect();
        kept.sort_unstable_by_key(|(birth, _)| *birth);
        kept.truncate(most.max(1));
        let windows = kept.into_iter().map(|(birth, kept)| SpooledWindow::new(kept, birth, None));
        let windows: Vec<_> = windows.collect();
        let cursor = windows.last().map_or(begin_of_run(store), |last| last.cursor);
        SpoolBatch { windows, cursor, missed: 0, is_waiting: false }
    }
}

/// What to do when memory has lost what comes next.
enum AfterMemory {
    /// Look into a file, or look for one again.
    File,
    /// Go on with what memory has.
    Rest,
    /// Ask later: the writer may still bring what is lost.
    Wait,
}

/// A window that this run has published first. Others have their births in earlier epochs, and come before all of them.
fn published_here(published: Arc<Published>, epoch: u64) -> Option<SpooledWindow> {
    let birth = published.birth_in(epoch);
    (birth.epoch == epoch).then(|| SpooledWindow::new(published, birth, None))
}

/// The place after which this run has published. Windows before it were restored; they have the births of an earlier run, under which
/// files have them, and what memory has lost of them since is not missing.
fn begin_of_run(store: &Store) -> Cursor {
    Cursor { epoch: store.epoch(), seq: store.restored_place() }
}

/// The records between a cursor and a birth. Of another epoch, and of the beginning of one, it cannot be told.
fn gap_between(cursor: Cursor, birth: Cursor) -> u64 {
    let is_told = birth.epoch == cursor.epoch && cursor.seq > 0 && Birth::from(birth).open_number().is_none();
    if is_told { birth.seq.saturating_sub(cursor.seq.saturating_add(1)) } else { 0 }
}

/// The number, the last window and the name of a file, and where it is.
type NextFile = (u64, Cursor, String, Arc<dyn Files>);

impl SpoolState {
    /// The first file with windows after a cursor, of those after the ones that are `done`.
    fn next_file(&self, after: Cursor, done: Option<(u64, Cursor)>) -> Option<NextFile> {
        let FileAccess::Open(files) = &self.access else { return None };
        let is_next = |number: u64, last: Cursor| last > after && Some((number, last)) > done;
        let next = self.files.iter().find(|(number, file)| is_next(**number, file.last));
        next.and_then(|(number, file)| {
            Some((*number, file.last, self.format_name(*number)?, Arc::clone(files)))
        })
    }

    /// Whether a file is there under this name.
    fn has_name(&self, number: u64, name: &str) -> bool {
        let stays = self.files.get(&number).is_some_and(|file| !file.is_moving);
        stays && self.format_name(number).is_some_and(|now| now == name)
    }

    /// Whether files will bring no more windows up to a place than they have now.
    fn has_nothing_before(&self, place: Cursor) -> bool {
        match self.access {
            FileAccess::Never => true,
            FileAccess::Later => false,
            FileAccess::Open(_) => self.failing || self.written >= place,
        }
    }
}

#[cfg(test)]
mod tests;
