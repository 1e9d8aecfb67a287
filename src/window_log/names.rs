//! Names on disk, so that the one that was there first is known after a restart: changes, in a file of their own.
//!
//! A file begins with every name. When changes have made it twice as long, the next is begun, and then the old one goes.

use std::io;
use std::sync::Arc;

use super::entry::LogEntry;
use super::files::Files;
use super::log::remove;
use super::segment::{LogSegment, NAMES};
use crate::store::{NameChange, Store};

/// A file of less than this is not worth another.
const SMALLEST_FILE: u64 = 256 << 10;
/// Names in an entry, so that a damaged one costs no more.
const BATCH: usize = 1024;

/// Writes names.
#[derive(Debug)]
pub(super) struct NameLog {
    files: Arc<dyn Files>,
    epoch: u64,
    next: u64,
    current: Option<LogSegment>,
    /// Bytes of every name when the file was begun.
    whole: u64,
    /// The place among the store's changes that is written.
    place: u64,
    /// Files that go when the one that is written is whole.
    old: Vec<String>,
}

impl NameLog {
    /// Goes on in files from number `next` upward; `old` ones are of an earlier life.
    pub(super) fn new(files: Arc<dyn Files>, epoch: u64, next: u64, old: Vec<String>) -> Self {
        Self { files, epoch, next, current: None, whole: 0, place: u64::MAX, old }
    }

    /// Writes what has changed. Answers the bytes. After an error the next call writes everything, to a new file.
    pub(super) fn write_changes(&mut self, store: &Store) -> io::Result<u64> {
        let largest = (2 * self.whole).max(SMALLEST_FILE);
        if self.current.as_ref().is_some_and(|segment| segment.byte_length() > largest) {
            self.retire_file();
        }
        let place = if self.current.is_some() { self.place } else { u64::MAX };
        let new = store.names_after(place);
        if new.changes.is_empty() && (!new.whole || self.old.is_empty()) {
            return Ok(0);
        }
        if new.whole {
            self.retire_file();
        }
        let written = self.write(&new.changes);
        if written.is_err() {
            self.retire_file();
            return written;
        }
        self.place = new.next;
        if new.whole {
            self.whole = self.current.as_ref().map_or(0, LogSegment::byte_length);
            while let Some(name) = self.old.last() {
                remove(&*self.files, name)?;
                self.old.pop();
            }
        }
        written
    }

    fn write(&mut self, changes: &[NameChange]) -> io::Result<u64> {
        let mut segment = match self.current.take() {
            Some(segment) => segment,
            None => {
                // Also after a failure: a name that may be half made is never used twice.
                self.next += 1;
                LogSegment::create(&*self.files, NAMES, self.next, self.epoch)?
            }
        };
        for changes in changes.chunks(BATCH) {
            segment.put_entry(&LogEntry::Names { changes: changes.to_vec() });
        }
        let waiting = segment.buffered_bytes() as u64;
        let written = segment.write().and_then(|()| segment.sync_file());
        self.current = Some(segment);
        written.map(|()| waiting)
    }

    fn retire_file(&mut self) {
        self.old.extend(self.current.take().map(|segment| segment.seal().name));
    }
}
