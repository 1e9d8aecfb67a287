//! The log of closed windows: appended to file by file, the oldest of which goes when nothing in it is kept any more.
//!
//! Files go in the order they came, so what voids an earlier entry outlives it. A window that alone keeps an old file is
//! written again at the end, so that a container that seldom sends does not hold on to everybody's files.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use super::entry::{Birth, Entry, Key, Who};
use super::files::Files;
use super::segment::{FiledWindow, Sealed, Segment, WINDOWS};
use crate::aggregate::{EventRecord, Habits, LastCheck, Lasting};
use crate::model::{Allocation, Origin, Timestamp};
use crate::store::Published;

/// A file is ended when it has grown to a sixteenth of the whole log, or to this.
const LARGEST_FILE: u64 = 8 << 20;

/// What is known of containers by others.
pub(super) trait Containers {
    /// Who a container is that samples of `origin` came from; `None` when it is forgotten.
    fn who(&self, allocation: Allocation, origin: &Arc<Origin>) -> Option<Who>;
}

/// What became of a container.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Who it is now.
    Is(Allocation, Who),
    /// Events that came.
    Said(Allocation, Who, Vec<Arc<EventRecord>>),
    /// What has changed of what outlasts its windows.
    Lasting(Allocation, Who, Vec<Lasting>, Vec<LastCheck>, Habits),
    /// It is forgotten.
    Forgotten(Allocation),
}

/// The log of closed windows.
#[derive(Debug)]
pub(super) struct Log {
    files: Arc<dyn Files>,
    epoch: u64,
    /// Bytes of all files, at most.
    limit: u64,
    next: u64,
    current: Option<Segment>,
    /// Oldest first.
    old: VecDeque<Sealed>,
    /// Containers that came in an earlier life of the agent.
    keys: HashMap<Allocation, Key>,
    /// Windows that are kept and were given up on disk, because the log is as large as it may be.
    given_up: u64,
}

impl Log {
    /// A log that goes on behind `old`, in files from number `next` upward.
    pub(super) fn new(
        files: Arc<dyn Files>,
        epoch: u64,
        limit: u64,
        next: u64,
        old: VecDeque<Sealed>,
    ) -> Self {
        Self { files, epoch, limit, next, current: None, old, keys: HashMap::new(), given_up: 0 }
    }

    /// Notes that a container came in an earlier life.
    pub(super) fn know(&mut self, allocation: Allocation, key: Key) {
        self.keys.insert(allocation, key);
    }

    pub(super) fn key(&self, allocation: Allocation) -> Key {
        self.keys.get(&allocation).copied().unwrap_or(Key { epoch: self.epoch, allocation })
    }

    /// Forgets a container that is forgotten everywhere.
    pub(super) fn forget(&mut self, allocation: Allocation) {
        self.keys.remove(&allocation);
    }

    /// The number of the file that is written, or was last.
    pub(super) fn file(&self) -> u64 {
        self.next
    }

    /// Bytes of all files.
    pub(super) fn length(&self) -> u64 {
        let old: u64 = self.old.iter().map(|sealed| sealed.length).sum();
        old + self.current.as_ref().map_or(0, Segment::length)
    }

    /// How many files.
    pub(super) fn len(&self) -> usize {
        self.old.len() + usize::from(self.current.is_some())
    }

    /// Windows that are kept and are not on disk any more.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Writes windows, and has them reach the disk. Answers the bytes. After an error none of them is taken to be
    /// written, and the next call starts a new file.
    pub(super) fn append(&mut self, windows: &[Arc<Published>], of: &dyn Containers) -> io::Result<u64> {
        self.write(|log, segment| {
            for published in windows {
                let birth = Birth { epoch: log.epoch, first: published.first() };
                log.put(segment, birth, published, of);
            }
        })
    }

    /// The same for windows that an earlier life of the agent had, and did not come to write.
    pub(super) fn append_born(
        &mut self,
        windows: &[(Birth, Arc<Published>)],
        of: &dyn Containers,
    ) -> io::Result<u64> {
        self.write(|log, segment| {
            for (birth, published) in windows {
                log.put(segment, *birth, published, of);
            }
        })
    }

    /// Writes what became of containers. A power failure may undo that; the end of the process does not.
    pub(super) fn note(&mut self, changes: &[Change]) -> io::Result<u64> {
        self.write_only(|log, segment| {
            for change in changes {
                match change {
                    Change::Is(allocation, who) => {
                        let (key, who) = (log.key(*allocation), who.clone());
                        segment.rename(key, who);
                    }
                    Change::Said(allocation, who, events) => {
                        let key = log.key(*allocation);
                        segment.name(key, || who.clone());
                        segment.put(&Entry::Events { key, events: events.clone() });
                    }
                    Change::Lasting(allocation, who, lasting, checks, habits) => {
                        let key = log.key(*allocation);
                        segment.name(key, || who.clone());
                        let check = |check: &LastCheck| {
                            (Arc::clone(&check.series), check.at, Arc::clone(&check.outcome))
                        };
                        let (lasting, checks) = (lasting.clone(), checks.iter().map(check).collect());
                        segment.put(&Entry::Lasting { key, lasting, checks, habits: *habits });
                    }
                    Change::Forgotten(allocation) => {
                        segment.put(&Entry::Forgotten { key: log.key(*allocation) });
                    }
                }
            }
        })
    }

    /// Writes that what was said of containers under these keys is void.
    pub(super) fn void(&mut self, keys: &[Key]) -> io::Result<u64> {
        self.write(|_, segment| {
            for key in keys {
                segment.put(&Entry::Forgotten { key: *key });
            }
        })
    }

    /// Writes that the agent lives.
    pub(super) fn alive(&mut self, at: Timestamp) -> io::Result<u64> {
        self.write_only(|_, segment| {
            segment.put(&Entry::Alive { at });
        })
    }

    /// Writes that the agent ends in order.
    pub(super) fn ended(&mut self, at: Timestamp) -> io::Result<u64> {
        self.write(|_, segment| {
            segment.put(&Entry::Ended { at });
        })
    }

    fn put(&self, segment: &mut Segment, birth: Birth, published: &Arc<Published>, of: &dyn Containers) {
        // Whose container is forgotten is gone from the store, too.
        let Some(who) = of.who(published.allocation(), published.origin()) else { return };
        let key = self.key(published.allocation());
        let from = segment.waiting();
        segment.name(key, || who);
        segment.window(key, birth, published, from);
    }

    fn write(&mut self, put: impl FnOnce(&Self, &mut Segment)) -> io::Result<u64> {
        let written = self.write_only(put)?;
        let Some(mut segment) = self.current.take() else { return Ok(written) };
        match segment.sync() {
            Ok(()) => {
                self.current = Some(segment);
                Ok(written)
            }
            Err(error) => {
                // What the kernel could not write it has forgotten: only a new file can be trusted.
                self.old.push_back(segment.seal());
                Err(error)
            }
        }
    }

    fn write_only(&mut self, put: impl FnOnce(&Self, &mut Segment)) -> io::Result<u64> {
        let mut segment = self.segment()?;
        put(self, &mut segment);
        let waiting = segment.waiting() as u64;
        match segment.write() {
            Ok(()) => {
                self.current = Some(segment);
                Ok(waiting)
            }
            Err(error) => {
                let sealed = segment.seal();
                if sealed.length > 0 {
                    self.old.push_back(sealed);
                } else {
                    // A disk that stays full must not fill up with empty files.
                    let _best_effort = self.files.remove(&sealed.name);
                }
                Err(error)
            }
        }
    }

    /// Removes old files in which nothing is kept, which takes no room.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        while let Some(oldest) = self.old.front().filter(|oldest| oldest.live() == 0) {
            remove(&*self.files, &oldest.name)?;
            self.old.pop_front();
        }
        Ok(())
    }

    /// The file to write to.
    fn segment(&mut self) -> io::Result<Segment> {
        let largest = (self.limit / 16).min(LARGEST_FILE);
        match self.current.take() {
            Some(segment) if segment.length() < largest => return Ok(segment),
            Some(full) => self.old.push_back(full.seal()),
            None => {}
        }
        let number = self.next;
        // Also after a failure: a name that may be half made is never used twice.
        self.next += 1;
        Segment::create(&*self.files, WINDOWS, number, self.epoch)
    }

    /// Removes old files in which nothing is kept, writes again what alone keeps one, and keeps to the limit. Answers the
    /// bytes that were written again.
    pub(super) fn prune(&mut self, of: &dyn Containers) -> io::Result<u64> {
        let mut rewritten = 0;
        while let Some(oldest) = self.old.front() {
            let (live, length) = (oldest.live(), oldest.length);
            if live > 0 && live * 4 < length {
                rewritten += self.write_again(of)?;
            } else if live > 0 {
                if self.length() <= self.limit {
                    break;
                }
                let kept = |held: &&FiledWindow| held.window.strong_count() > 0;
                self.given_up += oldest.held.iter().filter(kept).count() as u64;
            }
            let Some(oldest) = self.old.front() else { break };
            remove(&*self.files, &oldest.name)?;
            self.old.pop_front();
        }
        Ok(rewritten)
    }

    /// Writes the kept windows of the oldest file again, at the end.
    fn write_again(&mut self, of: &dyn Containers) -> io::Result<u64> {
        let held = self.old.front().map(|oldest| oldest.held.iter());
        let kept: Vec<_> = held
            .into_iter()
            .flatten()
            .filter_map(|held| Some((held.birth, held.window.upgrade()?)))
            .collect();
        self.write(|log, segment| {
            for (birth, published) in &kept {
                log.put(segment, *birth, published, of);
            }
        })
    }
}

/// Removes a file, which may be gone already.
pub(super) fn remove(files: &dyn Files, name: &str) -> io::Result<()> {
    match files.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
