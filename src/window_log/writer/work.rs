//! What the thread does: it follows what is closed, looks who has ended, and makes checkpoints.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::written::Written;
use super::{Last, Parts};
use crate::aggregate::EventRecord;
use crate::containers::Follower;
use crate::model::Allocation;
use crate::net::clock;
use crate::store::{Cursor, Published};
use crate::window_log::Settings;
use crate::window_log::checkpoint::{CheckpointError, Checkpoints};
use crate::window_log::entry::{Birth, Key};
use crate::window_log::log::{Change, Containers as _, Log};
use crate::window_log::names::Names;
use crate::window_log::status::Status;

/// How long windows gather before they are written: those of all containers close together.
const GATHER: Duration = Duration::from_millis(10);
/// Windows that are written at one go.
const BATCH: usize = 256;
/// How often the agent says that it lives, where there are no checkpoints, and tries again what failed.
const TICK: Duration = Duration::from_secs(1);

/// Everything the thread works with.
#[derive(Debug)]
pub(super) struct Work {
    parts: Parts,
    settings: Settings,
    status: Arc<Status>,
    log: Log,
    checkpoints: Checkpoints,
    names: Names,
    /// Windows that were open when an earlier life ended.
    pub(super) unwritten: Vec<(Birth, Arc<Published>)>,
    /// Whether everything that is kept is to be written again, in a process that has taken over.
    pub(super) anew: bool,
    /// What is void, once that is done.
    pub(super) void: Vec<Key>,
    /// The last place that is written.
    pub(super) cursor: u64,
    /// Containers that are written to have ended.
    ended: HashSet<Allocation>,
    lives: Follower,
    /// Containers that have come, changed or gone, which is not written yet.
    changed: BTreeSet<Allocation>,
    /// The last event of each container that is written, in the file of this number.
    said: HashMap<Allocation, Arc<EventRecord>>,
    said_in: u64,
    /// What outlasts windows of each container, as far as it is written in the file of this number.
    lasting: HashMap<Allocation, Written>,
    lasting_in: u64,
    last_checkpoint: Option<Instant>,
}

impl Work {
    pub(super) fn new(
        log: Log,
        checkpoints: Checkpoints,
        names: Names,
        parts: Parts,
        settings: Settings,
        status: &Arc<Status>,
    ) -> Self {
        Self {
            lives: parts.directory.follow(),
            parts,
            settings,
            status: Arc::clone(status),
            log,
            checkpoints,
            names,
            unwritten: Vec::new(),
            anew: false,
            void: Vec::new(),
            cursor: 0,
            ended: HashSet::new(),
            changed: BTreeSet::new(),
            said: HashMap::new(),
            said_in: 0,
            lasting: HashMap::new(),
            lasting_in: 0,
            last_checkpoint: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut stop: oneshot::Receiver<Last>,
        mut asked: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        let mut newest = self.parts.store.subscribe();
        let mut next = Instant::now();
        let last = loop {
            tokio::select! {
                last = &mut stop => break last.unwrap_or(Last::InOrder),
                Some(reply) = asked.recv() => {
                    next = self.tick().await;
                    let _not_waited_for = reply.send(());
                }
                Ok(()) = newest.changed() => {
                    tokio::time::sleep(GATHER).await;
                    self.at_once(Self::follow);
                }
                () = self.lives.changed() => {
                    tokio::time::sleep(GATHER).await;
                    self.at_once(Self::look);
                }
                () = tokio::time::sleep_until(next) => next = self.tick().await,
            }
        };
        let mut done = self.catch_up();
        if last == Last::InOrder {
            let ended = done.and_then(|()| self.log.ended(clock::wall()));
            done = ended.and_then(|_| self.checkpoints.clear());
        }
        self.noted(done);
    }

    /// Does something when it is due, unless the last attempt to write failed: then it waits for the next tick.
    fn at_once(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.status.snapshot().failing.is_none() {
            let done = write(self);
            if done.is_err() {
                self.noted(done);
            }
        }
    }

    /// Writes everything there is to write, and says when to do that next.
    async fn tick(&mut self) -> Instant {
        let started = Instant::now();
        let written = self.catch_up().and_then(|()| self.alive());
        let mut interval = TICK;
        let mut done = written;
        if !self.settings.checkpoint.is_zero() {
            interval = self.settings.checkpoint;
            match self.checkpoint(started).await {
                Ok(least) => interval = interval.max(least),
                Err(CheckpointError::Io(error)) => done = done.and(Err(error)),
                // The agent ends, and closes its windows.
                Err(CheckpointError::Ending(_)) => {}
            }
        }
        let failed = done.is_err();
        self.noted(done);
        started + if failed { interval.max(TICK) } else { interval }
    }

    fn noted(&self, done: io::Result<()>) {
        match done {
            Ok(()) => self.status.works(clock::wall()),
            Err(error) => self.status.failed(&error, clock::wall()),
        }
    }

    fn catch_up(&mut self) -> io::Result<()> {
        self.follow()?;
        self.look()?;
        self.say()?;
        self.remember()
    }

    /// Writes windows that were closed.
    fn follow(&mut self) -> io::Result<()> {
        let bytes = self.names.follow(&self.parts.store)?;
        self.wrote(0, bytes);
        self.write_anew()?;
        if !self.unwritten.is_empty() {
            let bytes = self.log.append_born(&self.unwritten, &self.parts)?;
            self.wrote(self.unwritten.len(), bytes);
            self.unwritten.clear();
        }
        loop {
            let (end, windows) = self.closed();
            if windows.is_empty() {
                self.cursor = self.cursor.max(end);
                break;
            }
            for batch in windows.chunks(BATCH) {
                let written = self.log.append(batch, &self.parts);
                if written.is_err() {
                    // Perhaps it is we who fill the disk.
                    self.log.make_room()?;
                }
                let bytes = written?;
                self.wrote(batch.len(), bytes);
                self.cursor = batch.last().map_or(self.cursor, |published| published.last());
            }
        }
        // A level may be in no other window than those that go now.
        self.remember()?;
        let bytes = self.log.prune(&self.parts)?;
        self.wrote(0, bytes);
        Ok(())
    }

    /// Writes everything that is kept, where another process has written it before, and that what was there is void.
    fn write_anew(&mut self) -> io::Result<()> {
        if self.anew {
            let kept = self.parts.store.kept_after(0);
            for batch in kept.chunks(BATCH) {
                let bytes = self.log.append(batch, &self.parts)?;
                self.wrote(batch.len(), bytes);
            }
            self.cursor = kept.last().map_or(self.cursor, |published| published.last());
        }
        if !self.void.is_empty() {
            self.say()?;
            self.remember()?;
            // Now, and not before: until then what was there is what comes back.
            self.log.void(&self.void)?;
            self.void.clear();
        }
        self.anew = false;
        Ok(())
    }

    /// The windows that come after what is written, and the place after which there may be more.
    fn closed(&self) -> (u64, Vec<Arc<Published>>) {
        let store = &self.parts.store;
        if let Ok(since) = store.since(Cursor { epoch: store.epoch(), seq: self.cursor }) {
            return (since.next.seq, since.published);
        }
        // Something after the cursor is gone: a container that was forgotten, or we are late. What is there is written.
        let end = store.end().seq;
        let kept = store.kept_after(self.cursor);
        let there: u64 = kept.iter().filter(|p| p.last() <= end).map(|p| p.window().len() as u64).sum();
        let missed = end.saturating_sub(self.cursor).saturating_sub(there);
        self.status.set(|status| status.missed += missed);
        (end, kept)
    }

    /// Writes who has ended and who is forgotten.
    fn look(&mut self) -> io::Result<()> {
        self.changed.append(&mut self.lives.take());
        let (mut ended, mut gone) = (Vec::new(), Vec::new());
        for allocation in self.changed.iter().copied() {
            match self.parts.directory.get(allocation) {
                Some(info) if info.finished_at.is_some() && !self.ended.contains(&allocation) => {
                    ended.extend(self.parts.who(allocation, &info.origin).map(|who| (allocation, who)));
                }
                Some(_) => {}
                None => gone.push(allocation),
            }
        }
        let changes = ended.iter().map(|(allocation, who)| Change::Is(*allocation, who.clone()));
        let changes: Vec<_> = changes.chain(gone.iter().copied().map(Change::Forgotten)).collect();
        if !changes.is_empty() {
            let bytes = self.log.note(&changes)?;
            self.wrote(0, bytes);
        }
        self.ended.extend(ended.iter().map(|(allocation, _)| *allocation));
        for allocation in &gone {
            self.ended.remove(allocation);
            self.said.remove(allocation);
            self.lasting.remove(allocation);
            self.log.forget(*allocation);
        }
        self.changed.clear();
        Ok(())
    }

    /// Writes events that came.
    fn say(&mut self) -> io::Result<()> {
        if self.said_in != self.log.file() {
            // The file they are in may go before they do.
            self.said.clear();
        }
        let mut changes = Vec::new();
        let mut said = Vec::new();
        for (allocation, origin, events) in self.parts.store.events() {
            let (Some(last), Some(who)) = (events.last(), self.parts.who(allocation, &origin)) else {
                continue;
            };
            let before = self.said.get(&allocation);
            let known =
                events.iter().position(|event| before.is_some_and(|before| Arc::ptr_eq(before, event)));
            let new = events.iter().skip(known.map_or(0, |at| at + 1)).cloned().collect::<Vec<_>>();
            if !new.is_empty() {
                said.push((allocation, Arc::clone(last)));
                changes.push(Change::Said(allocation, who, new));
            }
        }
        if !changes.is_empty() {
            let bytes = self.log.note(&changes)?;
            self.wrote(0, bytes);
        }
        self.said.extend(said);
        self.said_in = self.log.file();
        Ok(())
    }

    /// Writes what has changed of levels, checks and clients' habits that no kept window may have.
    fn remember(&mut self) -> io::Result<()> {
        if self.lasting_in != self.log.file() {
            // The file they are in may go before they do.
            self.lasting.clear();
        }
        let (mut changes, mut written) = (Vec::new(), Vec::new());
        for (allocation, origin, summary) in self.parts.store.summaries() {
            let newest = self.parts.store.newest_start(allocation);
            let now = Written::of(&summary, newest);
            let before = self.lasting.get(&allocation);
            if before.map_or_else(|| now.is_nothing(), |before| before.is_same(&now)) {
                continue;
            }
            let Some(who) = self.parts.who(allocation, &origin) else { continue };
            let (lasting, checks) = now.beyond(before);
            changes.push(Change::Lasting(allocation, who, lasting, checks, now.habits));
            written.push((allocation, now));
        }
        if !changes.is_empty() {
            let bytes = self.log.note(&changes)?;
            self.wrote(0, bytes);
        }
        self.lasting.extend(written);
        self.lasting_in = self.log.file();
        Ok(())
    }

    fn alive(&mut self) -> io::Result<()> {
        let bytes = self.log.alive(clock::wall())?;
        self.wrote(0, bytes);
        Ok(())
    }

    /// Makes a checkpoint; answers how long to wait at least until the next, to keep to the budget.
    async fn checkpoint(&mut self, started: Instant) -> Result<Duration, CheckpointError> {
        let bytes = self.checkpoints.make(&self.parts, &self.log).await?;
        let interval = self.last_checkpoint.replace(started).map(|last| started - last);
        self.status.set(|status| {
            status.checkpoints += 1;
            status.checkpoint_bytes += bytes;
            status.interval = interval.unwrap_or(self.settings.checkpoint);
        });
        let rate = self.settings.checkpoint_rate.max(1);
        Ok(Duration::from_secs_f64(bytes as f64 / rate as f64))
    }

    fn wrote(&self, windows: usize, bytes: u64) {
        let (size, files, given_up) = (self.log.length(), self.log.len(), self.log.given_up());
        self.status.set(|status| {
            status.windows += windows as u64;
            status.bytes += bytes;
            (status.size, status.files, status.given_up) = (size, files, given_up);
        });
    }
}
