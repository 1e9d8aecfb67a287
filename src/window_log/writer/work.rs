//! What the thread does: it follows what is closed and which containers have ended, and makes checkpoints.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::changes::ContainerWriter;
use crate::net::clock;
use crate::store::{Cursor, Published, WindowsToWrite};
use crate::window_log::WindowLogSettings;
use crate::window_log::entry::{Birth, ContainerKey};
use crate::window_log::log::ClosedWindowLog;
use crate::window_log::renewed::{CheckpointError, Checkpoints, NameLog, WriterSources};
use crate::window_log::status::LogStatus;

/// How long windows are collected before they are written: those of all containers close almost at once.
const GATHER: Duration = Duration::from_millis(10);
/// Number of windows written at once.
const BATCH: usize = 256;
/// Interval at which the log records that the agent is alive, if checkpoints are disabled, and failed writes are
/// retried.
const TICK: Duration = Duration::from_secs(1);

/// How the writer ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Last {
    /// With an entry that the agent shut down cleanly: every window is closed.
    InOrder,
    /// After the closed windows. Open ones are saved elsewhere; the last checkpoint is kept in case that copy is lost.
    Kept,
}

/// Everything the thread works with.
#[derive(Debug)]
pub(super) struct WriterWork {
    parts: WriterSources,
    settings: WindowLogSettings,
    status: Arc<LogStatus>,
    log: ClosedWindowLog,
    checkpoints: Checkpoints,
    names: NameLog,
    /// Windows that were open when the previous run ended.
    pub(super) unwritten: Vec<(Birth, Arc<Published>)>,
    /// Whether all kept windows must be written again, in a process that has taken over.
    pub(super) anew: bool,
    /// Keys to void once that is done.
    pub(super) void: Vec<ContainerKey>,
    /// The last written sequence number.
    pub(super) cursor: u64,
    containers: ContainerWriter,
    last_checkpoint: Option<Instant>,
}

impl WriterWork {
    pub(super) fn new(
        log: ClosedWindowLog,
        checkpoints: Checkpoints,
        names: NameLog,
        parts: WriterSources,
        settings: WindowLogSettings,
        status: &Arc<LogStatus>,
    ) -> Self {
        Self {
            containers: ContainerWriter::new(&parts.directory),
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
                    next = self.run_tick().await;
                    let _not_waited_for = reply.send(());
                }
                Ok(()) = newest.changed() => {
                    tokio::time::sleep(GATHER).await;
                    self.at_once(Self::write_closed_windows);
                }
                () = self.containers.wait_for_change() => {
                    tokio::time::sleep(GATHER).await;
                    self.at_once(Self::write_containers);
                }
                () = tokio::time::sleep_until(next) => next = self.run_tick().await,
            }
        };
        let mut done = self.catch_up();
        if last == Last::InOrder {
            let ended = done.and_then(|()| self.log.append_ended(clock::wall_time()));
            done = ended.and_then(|_| self.checkpoints.clear());
        }
        self.report_result(done);
        self.parts.store.note_written(u64::MAX);
    }

    /// Runs a write at once, unless the last write failed: then it waits for the next tick.
    fn at_once(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.status.snapshot().failing.is_none() {
            let done = write(self);
            if done.is_err() {
                self.report_result(done);
            }
        }
    }

    /// Writes everything, and returns when to do that next.
    async fn run_tick(&mut self) -> Instant {
        let started = Instant::now();
        let written = self.catch_up().and_then(|()| self.write_alive());
        let mut interval = TICK;
        let mut done = written;
        if !self.settings.checkpoint.is_zero() {
            interval = self.settings.checkpoint;
            match self.write_checkpoint(started).await {
                Ok(least) => interval = interval.max(least),
                Err(CheckpointError::Io(error)) => done = done.and(Err(error)),
                // The agent is ending, and closes its windows.
                Err(CheckpointError::Ending(_)) => {}
            }
        }
        let failed = done.is_err();
        self.report_result(done);
        started + if failed { interval.max(TICK) } else { interval }
    }

    fn report_result(&self, done: io::Result<()>) {
        self.log.shared_spool().set_failing(done.is_err());
        match done {
            Ok(()) => self.status.record_success(clock::wall_time()),
            Err(error) => self.status.record_failure(&error, clock::wall_time()),
        }
    }

    fn catch_up(&mut self) -> io::Result<()> {
        self.write_closed_windows()?;
        self.write_container_changes()?;
        self.write_events()?;
        self.write_lasting()
    }

    /// Writes closed windows.
    fn write_closed_windows(&mut self) -> io::Result<()> {
        let (bytes, refusals) = self.names.write_changes(&self.parts.store)?;
        self.status.record_refusals(&refusals);
        self.count_written(0, bytes);
        self.write_anew()?;
        if !self.unwritten.is_empty() {
            let bytes = self.log.append_born(&self.unwritten, &self.parts)?;
            self.count_written(self.unwritten.len(), bytes);
            self.unwritten.clear();
        }
        loop {
            let WindowsToWrite { windows, end } = self.read_closed_windows();
            if self.cursor >= end {
                break;
            }
            for batch in windows.chunks(BATCH) {
                let through = batch.last().map_or(self.cursor, |published| published.last_seq());
                self.write_windows(through, batch)?;
            }
            if windows.is_empty() {
                // All of it is lost.
                self.write_windows(end, &[])?;
            }
        }
        self.log.shared_spool().set_written(Cursor { epoch: self.parts.store.epoch(), seq: self.cursor });
        // Before pruning: a level may only be in windows that are removed now.
        self.write_lasting()?;
        let bytes = self.log.prune_files(&self.parts)?;
        self.count_written(0, bytes);
        Ok(())
    }

    /// Writes the windows after the last written one, up to a place, and what is missing between them.
    fn write_windows(&mut self, through: u64, windows: &[Arc<Published>]) -> io::Result<()> {
        let written = self.log.append_windows((self.cursor, through), windows, &self.parts);
        if let Err(error) = &written {
            // The log itself may have filled the disk.
            self.log.make_room(error)?;
        }
        let bytes = written?;
        self.count_written(windows.len(), bytes);
        self.cursor = through;
        self.parts.store.note_written(through);
        let bytes = self.checkpoints.write_closed(windows)?;
        self.status.update_with(|status| status.checkpoint_bytes += bytes);
        Ok(())
    }

    /// Writes all windows again that the previous process had, and voids the old entries.
    fn write_anew(&mut self) -> io::Result<()> {
        if self.anew {
            let mut kept = self.parts.store.kept_after(0);
            // What this process has closed itself is written like any other window.
            kept.retain(|published| published.last_seq() <= self.cursor);
            for batch in kept.chunks(BATCH) {
                let bytes = self.log.append_again(batch, &self.parts)?;
                self.count_written(batch.len(), bytes);
            }
        }
        if !self.void.is_empty() {
            self.write_events()?;
            self.write_lasting()?;
            // Only now: until here, a restart would restore the old entries.
            self.log.append_void(&self.void)?;
            self.void.clear();
        }
        self.anew = false;
        Ok(())
    }

    /// The windows after the last written one.
    fn read_closed_windows(&self) -> WindowsToWrite {
        let store = &self.parts.store;
        match store.read_since(Cursor { epoch: store.epoch(), seq: self.cursor }) {
            Ok(since) => WindowsToWrite { windows: since.published, end: since.next.seq },
            // Some windows after the cursor are no longer kept: a container was forgotten, or the writer is late.
            Err(_) => store.windows_to_write(self.cursor),
        }
    }

    /// Writes what has changed of containers, and their windows before: nothing of a forgotten container can follow the entry that
    /// it was forgotten.
    fn write_containers(&mut self) -> io::Result<()> {
        if !self.unwritten.is_empty() || self.parts.store.end_cursor().seq > self.cursor {
            self.write_closed_windows()?;
        }
        self.write_container_changes()
    }

    /// Writes which containers have ended and which are forgotten.
    fn write_container_changes(&mut self) -> io::Result<()> {
        let bytes = self.containers.write_container_changes(&mut self.log, &self.parts)?;
        self.count_written(0, bytes);
        Ok(())
    }

    /// Writes new events.
    fn write_events(&mut self) -> io::Result<()> {
        let bytes = self.containers.write_events(&mut self.log, &self.parts)?;
        self.count_written(0, bytes);
        Ok(())
    }

    /// Writes changes of levels, checks and clients' habits, which may be in no kept window.
    fn write_lasting(&mut self) -> io::Result<()> {
        let bytes = self.containers.write_lasting(&mut self.log, &self.parts)?;
        self.count_written(0, bytes);
        Ok(())
    }

    fn write_alive(&mut self) -> io::Result<()> {
        let bytes = self.log.append_alive(clock::wall_time())?;
        self.count_written(0, bytes);
        Ok(())
    }

    /// Makes a checkpoint; returns the minimum time until the next one, according to the rate limit.
    async fn write_checkpoint(&mut self, started: Instant) -> Result<Duration, CheckpointError> {
        let (bytes, refusals) = self.checkpoints.write_checkpoint(&self.parts, &self.log).await?;
        self.status.record_refusals(&refusals);
        let interval = self.last_checkpoint.replace(started).map(|last| started - last);
        self.status.update_with(|status| {
            status.checkpoints += 1;
            status.checkpoint_bytes += bytes;
            status.interval = interval.unwrap_or(self.settings.checkpoint);
        });
        let rate = self.settings.checkpoint_rate.max(1);
        Ok(Duration::from_secs_f64(bytes as f64 / rate as f64))
    }

    /// Counts closed windows that were given to the log and the bytes that it wrote. Windows that it refused are not counted as
    /// written.
    fn count_written(&mut self, windows: usize, bytes: u64) {
        let refusals = self.log.take_refusals();
        self.status.record_refusals(&refusals);
        let (size, files, given_up) = (self.log.total_bytes(), self.log.len(), self.log.given_up());
        self.status.update_with(|status| {
            status.windows += (windows as u64).saturating_sub(refusals.windows);
            status.missed += refusals.late;
            status.bytes += bytes;
            (status.size, status.files, status.given_up) = (size, files, given_up);
        });
    }
}
