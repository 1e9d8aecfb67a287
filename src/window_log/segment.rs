//! One file of the log: while it is written it knows which containers and layouts it has named, since each file can be
//! read without the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::io;
use std::sync::{Arc, Weak};

use super::entry::{Birth, ContainerKey, LogEntry, VERSION, Who};
use super::files::{Appendable, Files};
use super::frame;
use crate::aggregate::{KnownLayout, Layout, Window};
use crate::store::Published;

/// A window in a file, for as long as somebody keeps it.
#[derive(Debug)]
pub(super) struct FiledWindow {
    pub(super) birth: Birth,
    pub(super) window: Weak<Published>,
    /// Bytes of its frame, and of the names that were said for it.
    pub(super) bytes: u64,
}

/// A file that is whole. It goes when nothing in it is kept any more.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) name: String,
    pub(super) length: u64,
    pub(super) held: Vec<FiledWindow>,
}

impl Sealed {
    /// Bytes of windows that are still kept.
    pub(super) fn live_bytes(&self) -> u64 {
        self.held.iter().filter(|held| held.window.strong_count() > 0).map(|held| held.bytes).sum()
    }
}

/// The file that is being written.
#[derive(Debug)]
pub(super) struct LogSegment {
    file: Box<dyn Appendable>,
    sealed: Sealed,
    number: u64,
    named: HashMap<ContainerKey, Named>,
    /// What is to be written next.
    buffer: Vec<u8>,
    holding: Vec<FiledWindow>,
}

/// What a file has said of a container.
#[derive(Debug)]
struct Named {
    layout: KnownLayout,
}

impl LogSegment {
    /// A new file.
    pub(super) fn create(files: &dyn Files, prefix: &str, number: u64, epoch: u64) -> io::Result<Self> {
        let name = name(prefix, number);
        let file = files.create(&name).inspect_err(|_| {
            // It may be there all the same, and a disk that stays full must not fill up with empty files.
            let _best_effort = files.remove(&name);
        })?;
        let sealed = Sealed { name, length: 0, held: Vec::new() };
        let mut segment =
            Self { file, sealed, number, named: HashMap::new(), buffer: Vec::new(), holding: Vec::new() };
        segment.put_entry(&LogEntry::File { version: VERSION, epoch });
        Ok(segment)
    }

    /// Bytes, those that wait included.
    pub(super) fn byte_length(&self) -> u64 {
        self.sealed.length + self.buffer.len() as u64
    }

    /// Bytes that wait to be written.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds an entry to what is to be written. Answers the bytes of its frame.
    pub(super) fn put_entry(&mut self, entry: &LogEntry<'_>) -> usize {
        frame::write(&mut self.buffer, self.number, |out| entry.encode(out))
    }

    /// Says who a container is, unless this file has said it.
    pub(super) fn name(&mut self, key: ContainerKey, who: impl FnOnce() -> Who) {
        if let Slot::Vacant(slot) = self.named.entry(key) {
            slot.insert(Named { layout: KnownLayout::default() });
            self.put_entry(&LogEntry::Container { key, who: who() });
        }
    }

    /// Says who a container is now, whatever this file has said.
    pub(super) fn put_container(&mut self, key: ContainerKey, who: Who) {
        self.named.entry(key).or_insert_with(|| Named { layout: KnownLayout::default() });
        self.put_entry(&LogEntry::Container { key, who });
    }

    /// Says which series a container has, as far as this file has not said it. Answers the layout's fingerprint.
    fn lay_out(&mut self, key: ContainerKey, layout: &Layout) -> u64 {
        let Some(named) = self.named.get_mut(&key) else { return 0 };
        if Arc::ptr_eq(named.layout.layout(), layout) {
            return named.layout.fingerprint();
        }
        let new = KnownLayout::new(Arc::clone(layout));
        let fingerprint = new.fingerprint();
        let change = (fingerprint != named.layout.fingerprint()).then(|| new.change_from(&named.layout));
        named.layout = new;
        if let Some(change) = change {
            self.put_entry(&LogEntry::Layout { key, change: change.into() });
        }
        fingerprint
    }

    /// Adds a closed window of a container that is named. What was put `from` there on is taken to be the window's: names
    /// that were said for it have to be said again where it is written again.
    pub(super) fn put_window(
        &mut self,
        key: ContainerKey,
        birth: Birth,
        published: &Arc<Published>,
        from: usize,
    ) {
        let fingerprint = self.lay_out(key, published.window().layout());
        let mut window = Vec::new();
        published.window().encode(fingerprint, &mut window);
        let revs = published.revision_counts().into();
        self.put_entry(&LogEntry::Window { key, birth, revs, window: window.into() });
        let bytes = self.buffered_bytes().saturating_sub(from) as u64;
        self.holding.push(FiledWindow { birth, window: Arc::downgrade(published), bytes });
    }

    /// Adds what has changed in an open window of a container that is named.
    pub(super) fn open_window(&mut self, key: ContainerKey, open: &Window) {
        let fingerprint = self.lay_out(key, open.layout());
        let mut window = Vec::new();
        open.encode(fingerprint, &mut window);
        self.put_entry(&LogEntry::Open { key, window: window.into() });
    }

    /// Writes what waits. After an error the file is not to be used any more.
    pub(super) fn write(&mut self) -> io::Result<()> {
        self.file.append_bytes(&self.buffer)?;
        self.sealed.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.sealed.held.append(&mut self.holding);
        Ok(())
    }

    /// Has what was written reach the disk.
    pub(super) fn sync_file(&mut self) -> io::Result<()> {
        self.file.sync_to_disk()
    }

    /// Ends the file, after an error perhaps.
    pub(super) fn seal(mut self) -> Sealed {
        if !self.buffer.is_empty() {
            // A torn frame is found out when the file is read; this only spares a complaint about it.
            let _best_effort = self.file.truncate_to(self.sealed.length);
        }
        self.sealed
    }
}

/// The name of a file of the log.
pub(super) fn name(prefix: &str, number: u64) -> String {
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
