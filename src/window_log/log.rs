//! The log of closed windows: appended to file by file, the oldest of which goes when nothing in it is kept any more: to the
//! spool while a publisher needs it, and away otherwise.
//!
//! Files go in the order they came, so what voids an earlier entry outlives it. A window that alone keeps an old file is
//! written again at the end, so that a container that seldom sends does not keep the files of all others.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use super::entry::{Birth, ContainerKey, FORMAT, LogEntry, Refusals, Who};
use super::segment::{FiledWindow, LogSegment, SealedSegment, WINDOWS};
use super::spool::{Spool, SpoolFileName};
use crate::aggregate::{EventRecord, Habits, LastCheck, PersistentValue};
use crate::model::{Allocation, Origin, Timestamp};
use crate::store::Published;
use crate::wal::{Files, FrameFormat};

/// A file is completed at a sixteenth of the size of the whole log, or at this size.
const LARGEST_FILE: u64 = 8 << 20;

/// Looks up containers.
pub(super) trait ContainerLookup {
    /// The description of the container with this origin; `None` if it was forgotten.
    fn find_who(&self, allocation: Allocation, origin: &Arc<Origin>) -> Option<Who>;
}

/// A change of a container.
#[derive(Clone, Debug)]
pub(super) enum ContainerChange {
    /// Its current description.
    Is(Allocation, Who),
    /// New events.
    Said(Allocation, Who, Vec<Arc<EventRecord>>),
    /// Changes of the state that outlasts its windows.
    Lasting(Allocation, Who, Vec<PersistentValue>, Vec<LastCheck>, Habits),
    Forgotten(Allocation),
}

/// The numbers of lives of the agent under which entries are written.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct LogEpochs {
    /// For keys of containers and the heads of files: one that no log had before.
    pub(super) keys: u64,
    /// For births of windows: the store's, which goes on in a process that takes over, so that a cursor of before compares with
    /// them.
    pub(super) births: u64,
}

/// What an earlier life has left.
#[derive(Default, Debug)]
pub(super) struct LeftFiles {
    /// The number of the next file.
    pub(super) next: u64,
    /// Files of the log, oldest first.
    pub(super) sealed: VecDeque<SealedSegment>,
    /// Files that were kept for publishers, oldest first.
    pub(super) spooled: Vec<SpoolFileName>,
}

#[derive(Debug)]
pub(super) struct ClosedWindowLog {
    files: Arc<dyn Files>,
    spool: Arc<Spool>,
    epochs: LogEpochs,
    /// Maximum size of all files, in bytes.
    limit: u64,
    next: u64,
    current: Option<LogSegment>,
    /// Oldest first.
    old: VecDeque<SealedSegment>,
    /// Keys of containers from previous runs.
    keys: HashMap<Allocation, ContainerKey>,
    /// Windows that are kept and are not on disk: the log is as large as it may be, or they are too long for it.
    given_up: u64,
    refusals: Refusals,
    pub(super) format: FrameFormat,
}

impl ClosedWindowLog {
    /// A log that continues after what is left. From now on the spool has its files.
    pub(super) fn new(
        files: Arc<dyn Files>,
        spool: Arc<Spool>,
        epochs: LogEpochs,
        limit: u64,
        left: LeftFiles,
    ) -> Self {
        spool.attach_files(Arc::clone(&files), left.spooled);
        for sealed in &left.sealed {
            spool.note_file(sealed.number, sealed.last);
        }
        Self {
            files,
            spool,
            epochs,
            limit,
            next: left.next,
            current: None,
            old: left.sealed,
            keys: HashMap::new(),
            given_up: 0,
            refusals: Refusals::default(),
            format: FORMAT,
        }
    }

    /// Who else reads its files.
    pub(super) fn shared_spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// Records the key of a container from a previous run.
    pub(super) fn insert_key(&mut self, allocation: Allocation, key: ContainerKey) {
        self.keys.insert(allocation, key);
    }

    pub(super) fn key(&self, allocation: Allocation) -> ContainerKey {
        self.keys.get(&allocation).copied().unwrap_or(ContainerKey { epoch: self.epochs.keys, allocation })
    }

    /// Removes a forgotten container.
    pub(super) fn forget_container(&mut self, allocation: Allocation) {
        self.keys.remove(&allocation);
    }

    /// The number of the current file, or of the last one.
    pub(super) fn file_number(&self) -> u64 {
        self.next
    }

    /// Bytes of all files.
    pub(super) fn total_bytes(&self) -> u64 {
        let old: u64 = self.old.iter().map(|sealed| sealed.length).sum();
        old + self.current.as_ref().map_or(0, LogSegment::byte_length)
    }

    /// The number of files.
    pub(super) fn len(&self) -> usize {
        self.old.len() + usize::from(self.current.is_some())
    }

    /// The number of kept windows that are no longer on disk.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Takes what was too long to be written since the last call.
    pub(super) fn take_refusals(&mut self) -> Refusals {
        std::mem::take(&mut self.refusals)
    }

    /// Writes the windows after a place, and which places up to another are in none of them, and syncs all that to disk. Returns
    /// the number of bytes. After an error, none of it counts as written, and the next call starts a new file.
    pub(super) fn append_windows(
        &mut self,
        (after, end): (u64, u64),
        windows: &[Arc<Published>],
        of: &dyn ContainerLookup,
    ) -> io::Result<u64> {
        self.write(|log, segment| {
            let epoch = log.epochs.births;
            let place = |first| Birth { epoch, first };
            let mut next = after.saturating_add(1);
            for published in windows {
                let first = published.first_seq();
                if first > next {
                    segment.put_late(place(next), first - next);
                }
                next = published.last_seq().saturating_add(1);
                if log.put_window(segment, published.birth_in(epoch).into(), published, of).is_none() {
                    segment.put_late(place(first), published.window().len() as u64);
                }
            }
            if end >= next {
                segment.put_late(place(next), end - next + 1);
            }
        })
    }

    /// Writes windows again that are in the log under other keys.
    pub(super) fn append_again(
        &mut self,
        windows: &[Arc<Published>],
        of: &dyn ContainerLookup,
    ) -> io::Result<u64> {
        self.write(|log, segment| {
            for published in windows {
                let birth = published.birth_in(log.epochs.births).into();
                // One of a forgotten container is of no use to the next start, and publishers have it in the other files.
                let _forgotten = log.put_window(segment, birth, published, of);
            }
        })
    }

    /// Writes windows of a previous run that were not written then.
    pub(super) fn append_born(
        &mut self,
        windows: &[(Birth, Arc<Published>)],
        of: &dyn ContainerLookup,
    ) -> io::Result<u64> {
        self.write(|log, segment| {
            for (birth, published) in windows {
                if log.put_window(segment, *birth, published, of).is_none() {
                    segment.put_late(*birth, published.window().len() as u64);
                }
            }
        })
    }

    /// Writes changes of containers without syncing: a power failure may lose them, the end of the process does not.
    pub(super) fn append_changes(&mut self, changes: &[ContainerChange]) -> io::Result<u64> {
        self.write_only(|log, segment| {
            for change in changes {
                match change {
                    ContainerChange::Is(allocation, who) => {
                        let (key, who) = (log.key(*allocation), who.clone());
                        segment.put_container(key, who);
                    }
                    ContainerChange::Said(allocation, who, events) => {
                        let key = log.key(*allocation);
                        segment.ensure_container(key, || who.clone());
                        segment.put_entry(&LogEntry::Events { key, events: events.clone() });
                    }
                    ContainerChange::Lasting(allocation, who, lasting, checks, habits) => {
                        let key = log.key(*allocation);
                        segment.ensure_container(key, || who.clone());
                        let check = |check: &LastCheck| {
                            (Arc::clone(&check.series), check.at, Arc::clone(&check.outcome))
                        };
                        let (lasting, checks) = (lasting.clone(), checks.iter().map(check).collect());
                        segment.put_entry(&LogEntry::Lasting { key, lasting, checks, habits: *habits });
                    }
                    ContainerChange::Forgotten(allocation) => {
                        segment.put_entry(&LogEntry::Forgotten { key: log.key(*allocation) });
                    }
                }
            }
        })
    }

    /// Writes that earlier entries with these keys are void.
    pub(super) fn append_void(&mut self, keys: &[ContainerKey]) -> io::Result<u64> {
        self.write(|_, segment| {
            for key in keys {
                segment.put_entry(&LogEntry::Forgotten { key: *key });
            }
        })
    }

    /// Writes that the agent is alive.
    pub(super) fn append_alive(&mut self, at: Timestamp) -> io::Result<u64> {
        self.write_only(|_, segment| {
            segment.put_entry(&LogEntry::Alive { at });
        })
    }

    /// Writes that the agent shuts down cleanly.
    pub(super) fn append_ended(&mut self, at: Timestamp) -> io::Result<u64> {
        self.write(|_, segment| {
            segment.put_entry(&LogEntry::Ended { at });
        })
    }

    /// Adds a window to the buffer. `None` if its container was forgotten, so that it cannot be described.
    fn put_window(
        &self,
        segment: &mut LogSegment,
        birth: Birth,
        published: &Arc<Published>,
        of: &dyn ContainerLookup,
    ) -> Option<()> {
        let who = of.find_who(published.allocation(), published.origin())?;
        let key = self.key(published.allocation());
        let from = segment.buffered_bytes();
        segment.ensure_container(key, || who);
        segment.put_window(key, birth, published, from);
        Some(())
    }

    /// Writes entries and syncs them.
    fn write(&mut self, put: impl FnOnce(&Self, &mut LogSegment)) -> io::Result<u64> {
        let (written, refusals) = self.write_entries(put)?;
        if let Some(mut segment) = self.current.take() {
            let (number, last) = segment.last_window();
            self.spool.note_file(number, last);
            if let Err(error) = segment.sync_file() {
                // After a failed sync, the kernel may have dropped the data, so continue in a new file.
                self.old.push_back(segment.seal());
                return Err(error);
            }
            self.current = Some(segment);
        }
        self.note_refusals(refusals);
        Ok(written)
    }

    /// Writes entries, which a power failure may undo.
    fn write_only(&mut self, put: impl FnOnce(&Self, &mut LogSegment)) -> io::Result<u64> {
        let (written, refusals) = self.write_entries(put)?;
        self.note_refusals(refusals);
        Ok(written)
    }

    /// Counts what was refused. Not after an error: then the entries are written again, and refused again.
    fn note_refusals(&mut self, refusals: Refusals) {
        self.given_up += refusals.windows;
        self.refusals.append_refusals(refusals);
    }

    fn write_entries(&mut self, put: impl FnOnce(&Self, &mut LogSegment)) -> io::Result<(u64, Refusals)> {
        let mut segment = self.take_segment()?;
        put(self, &mut segment);
        let (waiting, refusals) = (segment.buffered_bytes() as u64, segment.take_refusals());
        match segment.write_buffer() {
            Ok(()) => {
                self.current = Some(segment);
                Ok((waiting, refusals))
            }
            Err(error) => {
                let sealed = segment.seal();
                if sealed.length > 0 {
                    self.old.push_back(sealed);
                } else {
                    // Empty files must not accumulate while the disk is full.
                    let _best_effort = self.files.remove(&sealed.name);
                }
                Err(error)
            }
        }
    }

    /// Gives up old files after a write has failed, which needs no disk space: those without kept windows, and where the disk
    /// is full, the oldest file that is kept for publishers, because new windows are worth more than old ones.
    pub(super) fn make_room(&mut self, failure: &io::Error) -> io::Result<()> {
        while self.old.front().is_some_and(|oldest| oldest.live_bytes() == 0) {
            self.retire_oldest()?;
        }
        match failure.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.spool.drop_oldest(),
            _ => Ok(()),
        }
    }

    /// Takes the oldest file out of the log.
    fn retire_oldest(&mut self) -> io::Result<()> {
        if let Some(oldest) = self.old.front() {
            self.spool.retire_file(oldest)?;
            self.old.pop_front();
        }
        Ok(())
    }

    /// The file to write to.
    fn take_segment(&mut self) -> io::Result<LogSegment> {
        let largest = (self.limit / 16).min(LARGEST_FILE);
        match self.current.take() {
            Some(segment) if segment.byte_length() < largest => return Ok(segment),
            Some(full) => self.old.push_back(full.seal()),
            None => {}
        }
        let number = self.next;
        // Also after a failure: the file may exist, so its name is not reused.
        self.next += 1;
        LogSegment::create(&*self.files, WINDOWS, number, self.epochs.keys, self.format)
    }

    /// Retires old files without kept windows, rewrites the windows of sparse ones, and enforces the size limits.
    /// Returns the number of rewritten bytes.
    pub(super) fn prune_files(&mut self, of: &dyn ContainerLookup) -> io::Result<u64> {
        let mut rewritten = 0;
        while let Some(oldest) = self.old.front() {
            let (live, length) = (oldest.live_bytes(), oldest.length);
            if live > 0 && live * 4 < length {
                rewritten += self.write_again(of)?;
            } else if live > 0 {
                if self.total_bytes() <= self.limit {
                    break;
                }
                let kept = |held: &&FiledWindow| held.window.strong_count() > 0;
                self.given_up += oldest.held.iter().filter(kept).count() as u64;
            }
            self.retire_oldest()?;
        }
        self.spool.prune_files()?;
        Ok(rewritten)
    }

    /// Writes the kept windows of the oldest file again at the end.
    fn write_again(&mut self, of: &dyn ContainerLookup) -> io::Result<u64> {
        let held = self.old.front().map(|oldest| oldest.held.iter());
        let kept: Vec<_> = held
            .into_iter()
            .flatten()
            .filter_map(|held| Some((held.birth, held.window.upgrade()?)))
            .collect();
        self.write(|log, segment| {
            for (birth, published) in &kept {
                // If its container was forgotten meanwhile, nothing is lost: publishers have it in the oldest file.
                let _forgotten = log.put_window(segment, *birth, published, of);
            }
        })
    }
}
