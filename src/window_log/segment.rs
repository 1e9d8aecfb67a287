//! One file of the log. While it is written, it remembers which containers and layouts it already describes, because each
//! file can be read without the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::io;
use std::sync::{Arc, Weak};

use super::entry::{Birth, ContainerKey, LogEntry, VERSION, Who};
use super::files::{Appendable, Files};
use super::frame;
use crate::aggregate::{KnownLayout, Layout, Window};
use crate::store::Published;

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
    pub(super) length: u64,
    pub(super) held: Vec<FiledWindow>,
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
    file: Box<dyn Appendable>,
    sealed: SealedSegment,
    number: u64,
    named: HashMap<ContainerKey, Named>,
    /// Entries that are not written yet.
    buffer: Vec<u8>,
    holding: Vec<FiledWindow>,
}

/// How a file describes a container so far.
#[derive(Debug)]
struct Named {
    layout: KnownLayout,
}

impl LogSegment {
    /// Creates a file and buffers its first entry.
    pub(super) fn create(files: &dyn Files, prefix: &str, number: u64, epoch: u64) -> io::Result<Self> {
        let name = format_file_name(prefix, number);
        let file = files.create(&name).inspect_err(|_| {
            // The file may exist in spite of the error, and empty files must not pile up while the disk is full.
            let _best_effort = files.remove(&name);
        })?;
        let sealed = SealedSegment { name, length: 0, held: Vec::new() };
        let mut segment =
            Self { file, sealed, number, named: HashMap::new(), buffer: Vec::new(), holding: Vec::new() };
        segment.put_entry(&LogEntry::File { version: VERSION, epoch });
        Ok(segment)
    }

    /// Length in bytes, including what is not written yet.
    pub(super) fn byte_length(&self) -> u64 {
        self.sealed.length + self.buffer.len() as u64
    }

    /// Bytes that wait to be written.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds an entry to the buffer. Returns the length of its frame in bytes.
    pub(super) fn put_entry(&mut self, entry: &LogEntry<'_>) -> usize {
        frame::write(&mut self.buffer, self.number, |out| entry.encode(out))
    }

    /// Describes a container, unless this file already does.
    pub(super) fn ensure_container(&mut self, key: ContainerKey, who: impl FnOnce() -> Who) {
        if let Slot::Vacant(slot) = self.named.entry(key) {
            slot.insert(Named { layout: KnownLayout::default() });
            self.put_entry(&LogEntry::Container { key, who: who() });
        }
    }

    /// Describes a container as it is now, even if this file already does.
    pub(super) fn put_container(&mut self, key: ContainerKey, who: Who) {
        self.named.entry(key).or_insert_with(|| Named { layout: KnownLayout::default() });
        self.put_entry(&LogEntry::Container { key, who });
    }

    /// Writes how a container's series differ from what this file says of them so far. Returns the layout's fingerprint.
    fn put_layout(&mut self, key: ContainerKey, layout: &Layout) -> u64 {
        let Some(named) = self.named.get_mut(&key) else { return 0 };
        if Arc::ptr_eq(named.layout.layout(), layout) {
            return named.layout.fingerprint();
        }
        let new = KnownLayout::new(Arc::clone(layout));
        let fingerprint = new.fingerprint();
        let change =
            (fingerprint != named.layout.fingerprint()).then(|| new.encode_change_from(&named.layout));
        named.layout = new;
        if let Some(change) = change {
            self.put_entry(&LogEntry::Layout { key, change: change.into() });
        }
        fingerprint
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
        let fingerprint = self.put_layout(key, published.window().layout());
        let mut window = Vec::new();
        published.window().encode(fingerprint, &mut window);
        let revs = published.revision_counts().into();
        self.put_entry(&LogEntry::Window { key, birth, revs, window: window.into() });
        let bytes = self.buffered_bytes().saturating_sub(from) as u64;
        self.holding.push(FiledWindow { birth, window: Arc::downgrade(published), bytes });
    }

    /// Adds what has changed in an open window of a container that this file describes.
    pub(super) fn put_open_window(&mut self, key: ContainerKey, open: &Window) {
        let fingerprint = self.put_layout(key, open.layout());
        let mut window = Vec::new();
        open.encode(fingerprint, &mut window);
        self.put_entry(&LogEntry::Open { key, window: window.into() });
    }

    /// Writes the buffer to the file. After an error, the file must not be used any more.
    pub(super) fn write(&mut self) -> io::Result<()> {
        self.file.append_bytes(&self.buffer)?;
        self.sealed.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.sealed.held.append(&mut self.holding);
        Ok(())
    }

    /// Flushes what was written to the disk.
    pub(super) fn sync_file(&mut self) -> io::Result<()> {
        self.file.sync_to_disk()
    }

    /// Completes the file, possibly after an error.
    pub(super) fn seal(mut self) -> SealedSegment {
        if !self.buffer.is_empty() {
            // A torn frame is detected when the file is read; this only avoids a warning about it.
            let _best_effort = self.file.truncate_to(self.sealed.length);
        }
        self.sealed
    }
}

/// The name of a file of the log.
pub(super) fn format_file_name(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:010}{SUFFIX}")
}

/// The number in a file's name.
pub(super) fn parse_number(prefix: &str, name: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Files of closed windows.
pub(super) const WINDOWS: &str = "windows-";
/// Files of open windows.
pub(super) const OPEN: &str = "open-";
/// Files of names.
pub(super) const NAMES: &str = "names-";
const SUFFIX: &str = ".log";
