//! Files whose newest one starts with everything: checkpoints of open windows, and names.
//!
//! What checkpoints hold is void as soon as the window is closed, so these files are small and short-lived. Names are kept
//! so that the metric that had a name first is known after a restart.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{ContainerKey, FORMAT, LogEntry, Refusals, Who};
use super::log::{ClosedWindowLog, ContainerLookup};
use super::segment::{LogSegment, NAMES, OPEN};
use super::spool::Spool;
use crate::aggregate::Window;
use crate::containers;
use crate::model::{Allocation, Origin, Timestamp};
use crate::shard::{ShardGone, ShardPool};
use crate::store::{NameChange, Published, Store};
use crate::wal::{Files, RenewedLog};

/// A file of checkpoints is ended once it has this size and is four times as large as everything that is open.
const LARGEST_CHECKPOINTS: u64 = 4 << 20;
/// How long a shard may take to reply. It replies between reading two sockets.
const SHARD_TIMEOUT: Duration = Duration::from_secs(10);
/// A file of names is not ended below this size.
const SMALLEST_NAMES: u64 = 256 << 10;
/// Names in an entry, which limits the loss from a damaged one.
const BATCH: usize = 1024;

/// The sources of the writer.
#[derive(Clone, Debug)]
pub struct WriterSources {
    /// Closed windows.
    pub store: Arc<Store>,
    /// Open windows.
    pub pool: Arc<ShardPool>,
    /// Descriptions of containers.
    pub directory: Arc<containers::Directory>,
    /// What publishers still need of the log. Those that are configured hold their files before the writer starts.
    pub spool: Arc<Spool>,
}

impl ContainerLookup for WriterSources {
    fn find_who(&self, allocation: Allocation, origin: &Arc<Origin>) -> Option<Who> {
        let opened = self.store.opened_at(allocation)?;
        let info = self.directory.get(allocation);
        let alias = info.as_ref().and_then(|info| info.alias.clone());
        let finished = info.and_then(|info| info.finished_at);
        Some(Who { origin: Arc::clone(origin), alias, opened, finished })
    }
}

/// Why a checkpoint was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    /// It could not be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The agent is ending.
    #[error(transparent)]
    Ending(#[from] ShardGone),
}

/// Writes checkpoints.
#[derive(Debug)]
pub(super) struct Checkpoints {
    log: RenewedLog<LogSegment>,
    epoch: u64,
    /// The start of the newest window in a checkpoint of each container, unless that was closed.
    open: HashMap<Allocation, (ContainerKey, Timestamp)>,
}

impl Checkpoints {
    /// Goes on in files with numbers above `last`; `old` ones are of an earlier life. `epoch` is that of the births of windows:
    /// it tells whether a window that was open has been closed since.
    pub(super) fn new(files: Arc<dyn Files>, epoch: u64, last: u64, old: Vec<String>) -> Self {
        Self { log: RenewedLog::new(files, last, old), epoch, open: HashMap::new() }
    }

    /// Writes which of the windows in checkpoints were closed. The files with the closed ones may be removed before the
    /// checkpoints are: after a kill, the windows would come back from these as open ones, and be counted twice. Returns the
    /// bytes.
    pub(super) fn write_closed(&mut self, closed: &[Arc<Published>]) -> io::Result<u64> {
        for published in closed {
            let (allocation, start) = (published.allocation(), published.window().span.start);
            if self.open.get(&allocation).is_some_and(|(_, open)| *open <= start) {
                self.put_closed(allocation);
            }
        }
        let written = self.log.write_buffer();
        if written.is_err() {
            self.log.handle_failure();
        }
        written
    }

    fn put_closed(&mut self, allocation: Allocation) {
        let Some((key, start)) = self.open.remove(&allocation) else { return };
        if let Some(segment) = self.log.current_mut() {
            segment.put_entry(&LogEntry::Closed { key, start });
        }
    }

    /// Writes what has changed since the last checkpoint. Returns the bytes, and what was too long to be written.
    pub(super) async fn write_checkpoint(
        &mut self,
        parts: &WriterSources,
        log: &ClosedWindowLog,
    ) -> Result<(u64, Refusals), CheckpointError> {
        let made = self.try_checkpoint(parts, log).await;
        if made.is_err() {
            // The shards assume that everything was written, so the next file begins with everything.
            self.log.handle_failure();
        }
        made
    }

    async fn try_checkpoint(
        &mut self,
        parts: &WriterSources,
        log: &ClosedWindowLog,
    ) -> Result<(u64, Refusals), CheckpointError> {
        self.log.retire_grown_file(4, LARGEST_CHECKPOINTS);
        let epoch = self.epoch;
        self.log.current_or_create(|files, number| LogSegment::create(files, OPEN, number, epoch, FORMAT))?;
        // Their windows may have been forgotten before they were written.
        let gone: Vec<_> = self
            .open
            .keys()
            .copied()
            .filter(|allocation| parts.store.opened_at(*allocation).is_none())
            .collect();
        gone.into_iter().for_each(|allocation| self.put_closed(allocation));
        let mut written = 0;
        for shard in 0..parts.pool.len() {
            let mut from = Some(0);
            while let Some(next) = from {
                let asked = parts.pool.checkpoint_shard(shard, next, self.log.file_number());
                let part = tokio::time::timeout(SHARD_TIMEOUT, asked).await.map_err(|_| ShardGone)??;
                from = part.next;
                for (allocation, window) in &part.windows {
                    self.add_window(*allocation, window, parts, log);
                }
                written += self.log.write_buffer()?;
            }
        }
        if !self.log.is_whole() {
            self.log.complete_file()?;
        }
        Ok((written, self.log.current_mut().map(LogSegment::take_refusals).unwrap_or_default()))
    }

    fn add_window(
        &mut self,
        allocation: Allocation,
        window: &Window,
        parts: &WriterSources,
        log: &ClosedWindowLog,
    ) {
        let (Some(segment), Some(origin)) = (self.log.current_mut(), parts.store.origin_of(allocation))
        else {
            return;
        };
        let Some(who) = parts.find_who(allocation, &origin) else { return };
        let key = log.key(allocation);
        segment.ensure_container(key, || who);
        segment.put_open_window(key, window);
        self.open.insert(allocation, (key, window.span.start));
    }

    /// Removes every file: all windows are closed.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.log.clear()
    }
}

/// Writes names.
#[derive(Debug)]
pub(super) struct NameLog {
    log: RenewedLog<LogSegment>,
    epoch: u64,
    /// The position in the store's changes up to which they are written.
    place: u64,
}

impl NameLog {
    /// Goes on in files with numbers above `last`; `old` ones are of an earlier life.
    pub(super) fn new(files: Arc<dyn Files>, epoch: u64, last: u64, old: Vec<String>) -> Self {
        Self { log: RenewedLog::new(files, last, old), epoch, place: u64::MAX }
    }

    /// Writes what has changed. Returns the bytes, and what was too long to be written. After an error the next call writes
    /// everything, to a new file.
    pub(super) fn write_changes(&mut self, store: &Store) -> io::Result<(u64, Refusals)> {
        self.log.retire_grown_file(2, SMALLEST_NAMES);
        let place = if self.log.is_whole() { self.place } else { u64::MAX };
        let new = store.names_after(place);
        if new.changes.is_empty() && (!new.whole || !self.log.has_old_files()) {
            return Ok((0, Refusals::default()));
        }
        if new.whole {
            self.log.retire_file();
        }
        let written = self.write(&new.changes);
        if written.is_err() {
            self.log.retire_file();
            return written;
        }
        self.place = new.next;
        if new.whole {
            self.log.complete_file()?;
        }
        written
    }

    fn write(&mut self, changes: &[NameChange]) -> io::Result<(u64, Refusals)> {
        let epoch = self.epoch;
        let create = |files: &dyn Files, number| LogSegment::create(files, NAMES, number, epoch, FORMAT);
        let segment = self.log.current_or_create(create)?;
        for changes in changes.chunks(BATCH) {
            segment.put_entry(&LogEntry::Names { changes: changes.to_vec() });
        }
        let refusals = segment.take_refusals();
        let written = self.log.write_buffer()?;
        self.log.sync_file()?;
        Ok((written, refusals))
    }
}
