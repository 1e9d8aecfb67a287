//! Reading what one file has after a place: windows, and how many records are lost between them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Timestamp;
use crate::store::{Cursor, Published};
use crate::wal::NextFrame;
use crate::window_log::decoder::WindowDecoder;
use crate::window_log::entry::{ContainerKey, FORMAT, LogEntry, VERSION, Who};
use crate::window_log::status::LogDamage;

/// A window for a publisher.
#[derive(Clone, Debug)]
pub struct SpooledWindow {
    /// The window with its origin and what it added. Its places are those of the run that published it first.
    pub published: Arc<Published>,
    /// Where it was published first. Greater than that of every window before it.
    pub birth: Cursor,
    /// The cursor after it.
    pub cursor: Cursor,
    /// When its container had ended, if the file says so. Of windows in memory, the container table knows.
    pub ended: Option<Timestamp>,
}

impl SpooledWindow {
    pub(super) fn new(published: Arc<Published>, birth: Cursor, ended: Option<Timestamp>) -> Self {
        let cursor = end_of(birth, published.window().len() as u64);
        Self { published, birth, cursor, ended }
    }
}

/// What comes next in a file.
#[derive(Clone, Debug)]
pub(super) enum SpoolEntry {
    Window(SpooledWindow),
    Lost(LostPlaces),
}

/// Records that are in no file, as the writer of the log said.
#[derive(Copy, Clone, Debug)]
pub(super) struct LostPlaces {
    /// Where the first of them was published.
    pub(super) birth: Cursor,
    /// How many there are.
    pub(super) records: u64,
}

impl LostPlaces {
    /// The cursor after them.
    pub(super) fn end_cursor(&self) -> Cursor {
        end_of(self.birth, self.records)
    }
}

/// The cursor after so many records.
fn end_of(birth: Cursor, records: u64) -> Cursor {
    Cursor { seq: birth.seq.saturating_add(records.saturating_sub(1)), ..birth }
}

/// A file in memory, and how far it is read.
#[derive(Debug)]
pub(super) struct SpoolFileReader {
    bytes: Vec<u8>,
    number: u64,
    /// Where the next entry begins.
    at: usize,
    contents: FileContents,
}

/// What the entries so far have said.
#[derive(Debug)]
struct FileContents {
    decoder: WindowDecoder,
    containers: HashMap<ContainerKey, Who>,
    /// Windows up to here are left out. Copies of windows are: a window that keeps an old file alive is written again at the end of
    /// the log.
    after: Cursor,
    /// The last window that was written for certain. Later ones are in the next file as well.
    last: Cursor,
    damage: LogDamage,
    /// Whether the last window was found; an unfinished write after it is no damage.
    is_complete: bool,
}

impl SpoolFileReader {
    /// The windows of a file after one cursor and up to another.
    pub(super) fn new(bytes: Vec<u8>, number: u64, after: Cursor, last: Cursor) -> Self {
        let contents = FileContents {
            decoder: WindowDecoder::default(),
            containers: HashMap::new(),
            after,
            last,
            damage: LogDamage::default(),
            is_complete: false,
        };
        Self { bytes, number, at: 0, contents }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The last window that is wanted of it.
    pub(super) fn last_birth(&self) -> Cursor {
        self.contents.last
    }

    /// What could not be read so far.
    pub(super) fn damage(&self) -> LogDamage {
        self.contents.damage
    }

    /// What comes next; `None` at the end.
    pub(super) fn next_entry(&mut self) -> Option<SpoolEntry> {
        loop {
            let contents = &mut self.contents;
            let mut frames = FORMAT.resume_frames(&self.bytes, self.number, self.at);
            let Some(next) = frames.next() else {
                contents.note_end();
                return None;
            };
            self.at = frames.byte_offset();
            match next {
                NextFrame::Damaged(range) => {
                    contents.note_damage(LogDamage {
                        parts: 1,
                        bytes: range.len() as u64,
                        ..LogDamage::default()
                    });
                }
                NextFrame::Payload(payload) => match LogEntry::decode(payload) {
                    Some(LogEntry::File { version, .. }) if version != VERSION => {
                        contents.note_damage(LogDamage { files: 1, ..LogDamage::default() });
                        self.at = self.bytes.len();
                    }
                    entry => match entry.map(|entry| contents.apply_entry(entry)) {
                        Some(Ok(Some(wanted))) => return Some(wanted),
                        Some(Ok(None)) => {}
                        Some(Err(Unusable)) | None => {
                            contents.note_damage(LogDamage { entries: 1, ..LogDamage::default() });
                        }
                    },
                },
            }
        }
    }
}

/// An intact entry that is invalid, or depends on a lost one.
struct Unusable;

impl FileContents {
    /// Applies an entry; returns what is wanted of it.
    fn apply_entry(&mut self, entry: LogEntry<'_>) -> Result<Option<SpoolEntry>, Unusable> {
        match entry {
            LogEntry::Container { key, who } => {
                let ended = self.containers.get(&key).and_then(|known| known.finished);
                let finished = who.finished.or(ended);
                self.containers.insert(key, Who { finished, ..who });
            }
            LogEntry::Layout { key, change } => self.decoder.apply_layout(key, &change).ok_or(Unusable)?,
            LogEntry::Added { key, birth, window } if self.is_wanted(birth.into()) => {
                self.decoder.note_added(key, birth, &window).ok_or(Unusable)?;
            }
            LogEntry::Window { key, birth, revs, window } => {
                let born = Cursor::from(birth);
                let is_wanted = self.is_wanted(born);
                self.is_complete |= born >= self.last;
                if !is_wanted {
                    return Ok(None);
                }
                let who = self.containers.get(&key).ok_or(Unusable)?;
                let stored = self.decoder.read_window(key, birth, &revs, &window).ok_or(Unusable)?;
                let published = Published::new(key.allocation, &who.origin, stored, birth.first);
                let window = SpooledWindow::new(Arc::new(published), born, who.finished);
                self.after = window.cursor;
                return Ok(Some(SpoolEntry::Window(window)));
            }
            LogEntry::Lost { records: 0, .. } => return Err(Unusable),
            LogEntry::Lost { birth, records } => {
                let lost = LostPlaces { birth: birth.into(), records };
                let is_wanted = self.is_wanted(lost.birth);
                self.is_complete |= lost.birth >= self.last;
                if is_wanted {
                    self.after = lost.end_cursor();
                    return Ok(Some(SpoolEntry::Lost(lost)));
                }
            }
            // That a container was forgotten is of no concern to what it sent.
            LogEntry::Forgotten { .. }
            | LogEntry::Added { .. }
            | LogEntry::File { .. }
            | LogEntry::Open { .. }
            | LogEntry::Closed { .. }
            | LogEntry::Events { .. }
            | LogEntry::Lasting { .. }
            | LogEntry::Names { .. }
            | LogEntry::Alive { .. }
            | LogEntry::Ended { .. } => {}
        }
        Ok(None)
    }

    fn is_wanted(&self, birth: Cursor) -> bool {
        birth > self.after && birth <= self.last
    }

    /// Notes the end of the file, which may be cut off between two entries.
    fn note_end(&mut self) {
        if self.damage.is_none() {
            self.note_damage(LogDamage { parts: 1, ..LogDamage::default() });
        }
    }

    fn note_damage(&mut self, damage: LogDamage) {
        if !self.is_complete {
            self.damage.parts += damage.parts;
            self.damage.bytes += damage.bytes;
            self.damage.entries += damage.entries;
            self.damage.files += damage.files;
        }
    }
}
