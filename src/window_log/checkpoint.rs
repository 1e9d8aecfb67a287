//! Checkpoints: what changed in open windows, in files of their own.
//!
//! What they hold is void as soon as the window is closed, so these files are small and short-lived: when one has grown
//! enough, the next begins with everything that is open, and then the old one goes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::files::Files;
use super::log::{Containers as _, Log, remove};
use super::segment::{OPEN, Segment};
use super::writer::Parts;
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
    current: Option<Segment>,
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
    pub(super) async fn make(&mut self, parts: &Parts, log: &Log) -> Result<u64, CheckpointError> {
        let made = self.round(parts, log).await;
        if made.is_err() {
            self.fail();
        }
        made
    }

    async fn round(&mut self, parts: &Parts, log: &Log) -> Result<u64, CheckpointError> {
        self.begin()?;
        let mut written = 0;
        for shard in 0..parts.pool.len() {
            let mut from = Some(0);
            while let Some(next) = from {
                let asked = tokio::time::timeout(PATIENCE, parts.pool.checkpoint(shard, next, self.next));
                let part = asked.await.map_err(|_| ShardGone)??;
                from = part.next;
                for (allocation, window) in &part.windows {
                    self.put(*allocation, window, parts, log);
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

    fn put(&mut self, allocation: Allocation, window: &Window, parts: &Parts, log: &Log) {
        let (Some(segment), Some(origin)) = (&mut self.current, parts.store.origin(allocation)) else {
            return;
        };
        let Some(who) = parts.who(allocation, &origin) else { return };
        let key = log.key(allocation);
        segment.name(key, || who);
        segment.open_window(key, window);
    }

    fn write(&mut self) -> io::Result<u64> {
        let Some(segment) = &mut self.current else { return Ok(0) };
        let waiting = segment.waiting() as u64;
        segment.write()?;
        Ok(waiting)
    }

    /// Begins another file where there is none, or the one there is has grown enough.
    fn begin(&mut self) -> io::Result<()> {
        let largest = self.whole.map_or(u64::MAX, |whole| (4 * whole).max(LARGEST_FILE));
        if self.current.as_ref().is_some_and(|segment| segment.length() > largest) {
            self.retire();
        }
        if self.current.is_none() {
            // Also after a failure: a name that may be half made is never used twice.
            self.next += 1;
            self.current = Some(Segment::create(&*self.files, OPEN, self.next, self.epoch)?);
        }
        Ok(())
    }

    fn retire(&mut self) {
        self.old.extend(self.current.take().map(|segment| segment.seal().name));
        self.whole = None;
    }

    /// The shards take for written what was not: the next file begins with everything. One that did not come to have
    /// everything goes at once, so that a disk that stays full does not fill up with such.
    fn fail(&mut self) {
        if self.whole.is_some() {
            return self.retire();
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
        self.retire();
        self.remove_old()
    }
}
