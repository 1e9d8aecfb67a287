//! One file of the log. While it is written, it remembers which containers and layouts it already describes, because each
//! file can be read without the others.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};

use super::entry::{Birth, ContainerKey, LogEntry, Refusals, RefusedEntry, VERSION, Who};
use crate::aggregate::{KnownLayout, Layout, Window};
use crate::model::{Origin, Timestamp};
use crate::store::Published;
use crate::wal::{Files, FrameFormat, SegmentWriter};

/// Files of closed windows.
pub(super) const WINDOWS: &str = "windows-";
/// Files of open windows.
pub(super) const OPEN: &str = "open-";
/// Files of names.
pub(super) const NAMES: &str = "names-";

/// A window in a file. The weak reference tells whether it is still kept in memory.
#[derive(Debug)]
pub(super) struct FiledWindow {
    pub(super) birth: Birth,
    pub(super) window: Weak<Published>,
    /// Bytes of its frame and of the descriptions that were written for it.
    pub(super) bytes: u64,
}

/// A complete file. It is deleted when none of its windows is kept any more.
#[derive(Debug)]
pub(super) struct SealedSegment {
    pub(super) name: String,
    pub(super) number: u64,
    pub(super) length: u64,
    pub(super) held: Vec<FiledWindow>,
    /// The last window in it by birth. Also where nothing is held any more, because a publisher may not have read it.
    pub(super) last: Option<Birth>,
}

impl SealedSegment {
    /// Bytes of windows that are still kept.
    pub(super) fn live_bytes(&self) -> u64 {
        self.held.iter().filter(|held| held.window.strong_count() > 0).map(|held| held.bytes).sum()
    }
}

/// The file that is being written.
#[derive(Debug)]
pub(super) struct LogSegment {
    writer: SegmentWriter,
    number: u64,
    described: HashMap<ContainerKey, Described>,
    /// Windows in the file.
    held: Vec<FiledWindow>,
    /// Windows in the buffer.
    holding: Vec<FiledWindow>,
    /// The last window in the file by birth, be it one that is said to be lost; and the same with what is in the buffer.
    last: Option<Birth>,
    next_last: Option<Birth>,
    refusals: Refusals,
}

/// How a file describes a container so far.
#[derive(Debug)]
struct Described {
    origin: Arc<Origin>,
    layout: KnownLayout,
    /// The start of an open window of which something is missing in the file.
    incomplete: Option<Timestamp>,
}

impl LogSegment {
    /// Creates a file and buffers its first entry.
    pub(super) fn create(
        files: &dyn Files,
        prefix: &str,
        number: u64,
        epoch: u64,
        format: FrameFormat,
    ) -> io::Result<Self> {
        let writer = SegmentWriter::create(files, prefix, number, format)?;
        let (described, refusals) = (HashMap::new(), Refusals::default());
        let (held, holding) = (Vec::new(), Vec::new());
        let (last, next_last) = (None, None);
        let mut segment = Self { writer, number, described, held, holding, last, next_last, refusals };
        segment.put_entry(&LogEntry::File { version: VERSION, epoch });
        Ok(segment)
    }

    /// Its number, and the last window in it by birth.
    pub(super) fn last_window(&self) -> (u64, Option<Birth>) {
        (self.number, self.last)
    }

    /// Length in bytes, including what is not written yet.
    pub(super) fn byte_length(&self) -> u64 {
        self.writer.byte_length()
    }

    /// Bytes that wait to be written.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.writer.buffered_bytes()
    }

    /// Adds an entry to the buffer. Returns whether it is there: one that is too long is noted as refused, and the file goes on
    /// without it.
    pub(super) fn put_entry(&mut self, entry: &LogEntry<'_>) -> bool {
        let Err(why) = self.writer.put_frame(|out| entry.encode(out)) else { return true };
        let origin = entry.key().and_then(|key| self.described.get(&key)).map(|described| &described.origin);
        let what = match origin {
            Some(origin) => format!("{} of container {}", entry.describe_content(), origin.container_id),
            None => entry.describe_content().to_owned(),
        };
        self.refusals.entries.push(RefusedEntry { what, why });
        false
    }

    /// Describes a container, unless this file already does.
    pub(super) fn ensure_container(&mut self, key: ContainerKey, who: impl FnOnce() -> Who) {
        if !self.described.contains_key(&key) {
            self.put_container(key, who());
        }
    }

    /// Describes a container as it is now, even if this file already does.
    pub(super) fn put_container(&mut self, key: ContainerKey, who: Who) {
        let (known, origin) = (self.described.contains_key(&key), Arc::clone(&who.origin));
        let new = || Described { origin, layout: KnownLayout::default(), incomplete: None };
        self.described.entry(key).or_insert_with(new);
        if !self.put_entry(&LogEntry::Container { key, who }) && !known {
            // What refers to it could not be read.
            self.described.remove(&key);
        }
    }

    /// Writes how a container's series differ from what this file says of them so far. Returns the layout's fingerprint;
    /// `None` if they are not in the file, so that nothing can refer to them.
    fn put_layout(&mut self, key: ContainerKey, layout: &Layout) -> Option<u64> {
        let known = &self.described.get(&key)?.layout;
        if Arc::ptr_eq(known.layout(), layout) {
            return Some(known.fingerprint());
        }
        let new = KnownLayout::new(Arc::clone(layout));
        let fingerprint = new.fingerprint();
        if fingerprint != known.fingerprint() {
            let change = new.encode_change_from(known).into();
            if !self.put_entry(&LogEntry::Layout { key, change }) {
                return None;
            }
        }
        self.described.get_mut(&key)?.layout = new;
        Some(fingerprint)
    }

    /// Adds a closed window of a container that this file describes. Everything in the buffer after `from` counts as part of
    /// the window, because descriptions written for it must be repeated when the window is copied to another file.
    pub(super) fn put_window(
        &mut self,
        key: ContainerKey,
        birth: Birth,
        published: &Arc<Published>,
        from: usize,
    ) {
        if self.put_window_entries(key, birth, published).is_none() {
            self.refusals.windows += 1;
            self.put_lost(birth, published.window().len() as u64);
            return;
        }
        self.next_last = self.next_last.max(Some(birth));
        let bytes = self.buffered_bytes().saturating_sub(from) as u64;
        self.holding.push(FiledWindow { birth, window: Arc::downgrade(published), bytes });
    }

    /// Says that records are in no file.
    pub(super) fn put_lost(&mut self, birth: Birth, records: u64) {
        if self.put_entry(&LogEntry::Lost { birth, records }) {
            self.next_last = self.next_last.max(Some(birth));
        }
    }

    /// Says the same of records that were gone before they could be written.
    pub(super) fn put_late(&mut self, birth: Birth, records: u64) {
        self.refusals.late += records;
        self.put_lost(birth, records);
    }

    fn put_window_entries(
        &mut self,
        key: ContainerKey,
        birth: Birth,
        published: &Arc<Published>,
    ) -> Option<()> {
        let fingerprint = self.put_layout(key, published.window().layout())?;
        let encode = |window: &Window| {
            let mut bytes = Vec::new();
            window.encode(fingerprint, &mut bytes);
            bytes.into()
        };
        if let Some(added) = published.added_apart() {
            // Before the window, so that a window is whole when it is read. One without it has revisions and is told by them.
            self.put_entry(&LogEntry::Added { key, birth, window: encode(added) });
        }
        let (revs, window) = (published.revision_counts().into(), encode(published.window()));
        self.put_entry(&LogEntry::Window { key, birth, revs, window }).then_some(())
    }

    /// Adds what has changed in an open window of a container that this file describes. If a change is too long, later ones
    /// of the same window are left out as well: the window comes back as of the checkpoint before it, unless the file was
    /// renewed since, and not as a mixture of two.
    pub(super) fn put_open_window(&mut self, key: ContainerKey, open: &Window) {
        let start = Some(open.span.start);
        if self.described.get(&key).is_none_or(|described| described.incomplete == start) {
            return;
        }
        let written = self.put_layout(key, open.layout()).is_some_and(|fingerprint| {
            let mut window = Vec::new();
            open.encode(fingerprint, &mut window);
            self.put_entry(&LogEntry::Open { key, window: window.into() })
        });
        if let Some(described) = self.described.get_mut(&key).filter(|_| !written) {
            described.incomplete = start;
        }
    }

    /// Writes the buffer to the file. After an error, the file must not be used any more.
    pub(super) fn write_buffer(&mut self) -> io::Result<()> {
        self.writer.write_buffer()?;
        self.last = self.next_last;
        self.held.append(&mut self.holding);
        Ok(())
    }

    /// Flushes what was written to the disk.
    pub(super) fn sync_file(&mut self) -> io::Result<()> {
        self.writer.sync_file()
    }

    /// Takes what was refused since the last call.
    pub(super) fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.refusals)
    }

    /// Completes the file, possibly after an error.
    pub(super) fn seal(self) -> SealedSegment {
        let (name, length) = self.writer.seal();
        SealedSegment { name, number: self.number, length, held: self.held, last: self.last }
    }
}

impl AsRef<SegmentWriter> for LogSegment {
    fn as_ref(&self) -> &SegmentWriter {
        &self.writer
    }
}

impl AsMut<SegmentWriter> for LogSegment {
    fn as_mut(&mut self) -> &mut SegmentWriter {
        &mut self.writer
    }
}

impl From<LogSegment> for SegmentWriter {
    fn from(segment: LogSegment) -> Self {
        segment.writer
    }
}
