//! Checkpoints: what changed in open windows, in files of their own.
//!
//! What they hold is void as soon as the window is closed, so these files are small and short-lived: when one has grown
//! enough, the next begins with everything that is open, and then the old one goes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::files::Files;
use super::log::{ClosedWindowLog, ContainerLookup as _, remove};
use super::segment::{LogSegment, OPEN};
use super::writer::WriterSources;
use crate::aggregate::Window;
use crate::model::Allocation;
use crate::shard::ShardGone;

/// A file is ended once it has this size and is four times as large as everything that is open.
const LARGEST_FILE: u64 = 4 << 20;
/// How long a shard may take to answer. It answers between reading two sockets.
const PATIENCE: Duration = Duration::from_secs(10);

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
    files: Arc<dyn Files>,
    epoch: u64,
    next: u64,
    current: Option<LogSegment>,
    /// Bytes of everything that was open when the file was begun; nothing while that is being written.
    whole: Option<u64>,
    /// Files that go when the one that is written is whole.
    old: Vec<String>,
}

impl Checkpoints {
    /// Goes on in files from number `next` upward; `old` ones are of an earlier life.
    pub(super) fn new(files: Arc<dyn Files>, epoch: u64, next: u64, old: Vec<String>) -> Self {
        Self { files, epoch, next, current: None, whole: None, old }
    }

    /// Writes what has changed since the last checkpoint. Answers the bytes.
    pub(super) async fn write_checkpoint(
        &mut self,
        parts: &WriterSources,
        log: &ClosedWindowLog,
    ) -> Result<u64, CheckpointError> {
        let made = self.try_checkpoint(parts, log).await;
        if made.is_err() {
            self.handle_failure();
        }
        made
    }

    async fn try_checkpoint(
        &mut self,
        parts: &WriterSources,
        log: &ClosedWindowLog,
    ) -> Result<u64, CheckpointError> {
        self.begin_file()?;
        let mut written = 0;
        for shard in 0..parts.pool.len() {
            let mut from = Some(0);
            while let Some(next) = from {
                let asked =
                    tokio::time::timeout(PATIENCE, parts.pool.checkpoint_shard(shard, next, self.next));
                let part = asked.await.map_err(|_| ShardGone)??;
                from = part.next;
                for (allocation, window) in &part.windows {
                    self.add_window(*allocation, window, parts, log);
                }
                written += self.write()?;
            }
        }
        if self.whole.is_none() {
            self.whole = Some(written);
            self.remove_old()?;
        }
        Ok(written)
    }

    fn add_window(
        &mut self,
        allocation: Allocation,
        window: &Window,
        parts: &WriterSources,
        log: &ClosedWindowLog,
    ) {
        let (Some(segment), Some(origin)) = (&mut self.current, parts.store.origin_of(allocation)) else {
            return;
        };
        let Some(who) = parts.find_who(allocation, &origin) else { return };
        let key = log.key(allocation);
        segment.ensure_container(key, || who);
        segment.put_open_window(key, window);
    }

    fn write(&mut self) -> io::Result<u64> {
        let Some(segment) = &mut self.current else { return Ok(0) };
        let waiting = segment.buffered_bytes() as u64;
        segment.write()?;
        Ok(waiting)
    }

    /// Begins another file where there is none, or the one there is has grown enough.
    fn begin_file(&mut self) -> io::Result<()> {
        let largest = self.whole.map_or(u64::MAX, |whole| (4 * whole).max(LARGEST_FILE));
        if self.current.as_ref().is_some_and(|segment| segment.byte_length() > largest) {
            self.retire_file();
        }
        if self.current.is_none() {
            // Also after a failure: a name that may be half made is never used twice.
            self.next += 1;
            self.current = Some(LogSegment::create(&*self.files, OPEN, self.next, self.epoch)?);
        }
        Ok(())
    }

    fn retire_file(&mut self) {
        self.old.extend(self.current.take().map(|segment| segment.seal().name));
        self.whole = None;
    }

    /// The shards take for written what was not: the next file begins with everything. One that did not come to have
    /// everything goes at once, so that a disk that stays full does not fill up with such.
    fn handle_failure(&mut self) {
        if self.whole.is_some() {
            return self.retire_file();
        }
        if let Some(segment) = self.current.take() {
            let _best_effort = self.files.remove(&segment.seal().name);
        }
    }

    fn remove_old(&mut self) -> io::Result<()> {
        while let Some(name) = self.old.last() {
            remove(&*self.files, name)?;
            self.old.pop();
        }
        Ok(())
    }

    /// Removes every file: all windows are closed.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.retire_file();
        self.remove_old()
    }
}
