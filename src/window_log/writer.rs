//! The thread that writes: how it begins, and what it can be told.

mod changes;
mod work;

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::WindowLogSettings;
use super::recover::{Recovered, Resumed, Survey};
use super::renewed::{Checkpoints, NameLog, WriterSources};
use super::status::LogStatus;
use crate::wal::Files;
use work::{Last, WriterWork};

/// The thread that writes, while it runs.
#[derive(Debug)]
pub struct LogWriter {
    stop: oneshot::Sender<Last>,
    now: mpsc::Sender<oneshot::Sender<()>>,
    /// Closed when the thread ends.
    ended: oneshot::Receiver<()>,
}

impl LogWriter {
    /// Gives what was recovered to the store, and starts to write what comes after. Nothing may have been published
    /// before.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        files: &Arc<dyn Files>,
        recovered: Recovered,
        parts: WriterSources,
        settings: WindowLogSettings,
        status: &Arc<LogStatus>,
    ) -> io::Result<Self> {
        let epoch = parts.store.epoch();
        let (next, open_files) = (recovered.next, recovered.open_files.clone());
        let (void, name_files) = (recovered.void.clone(), recovered.name_files.clone());
        let Resumed { log, unwritten } = recovered.resume_log(files, &parts.store, settings.size);
        let checkpoints = Checkpoints::new(Arc::clone(files), epoch, next, open_files);
        let cursor = parts.store.end_cursor().seq;
        let names = NameLog::new(Arc::clone(files), epoch, next, name_files);
        let mut work = WriterWork::new(log, checkpoints, names, parts, settings, status);
        (work.unwritten, work.cursor, work.void) = (unwritten, cursor, void);
        Self::run(work)
    }

    /// Starts to write in a process that has taken over: the store has everything already that is in the log. Under the
    /// number of `epoch`, which no log may have had, everything that is kept is written again, because this process does
    /// not know the places of windows in the log; then the files that were there are removed.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start_anew(
        files: &Arc<dyn Files>,
        survey: Survey,
        epoch: u64,
        parts: WriterSources,
        settings: WindowLogSettings,
        status: &Arc<LogStatus>,
    ) -> io::Result<Self> {
        let (next, open_files, name_files) = survey.other_files();
        let (log, void) = survey.into_replacing_log(files, epoch, settings.size);
        let checkpoints = Checkpoints::new(Arc::clone(files), epoch, next, open_files);
        let names = NameLog::new(Arc::clone(files), epoch, next, name_files);
        let mut work = WriterWork::new(log, checkpoints, names, parts, settings, status);
        (work.void, work.anew) = (void, true);
        Self::run(work)
    }

    fn run(work: WriterWork) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let (now, asked) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("window-log".to_owned()).spawn(move || {
            runtime.block_on(work.run(stopped, asked));
            drop::<oneshot::Sender<()>>(end);
        })?;
        Ok(Self { stop, now, ended })
    }

    /// Has everything written that is closed, and ends the thread. One that waits for a disk is not waited for by the
    /// process's end.
    pub async fn finish_in_order(self) {
        self.stop(Last::InOrder).await;
    }

    /// Has everything written that is closed, and ends the thread; of what is open the last checkpoint stays.
    pub async fn finish_keeping_open(self) {
        self.stop(Last::Kept).await;
    }

    async fn stop(self, last: Last) {
        // It listens for as long as it runs, and says no more than that it has ended.
        let _either_way = self.stop.send(last);
        let _either_way = self.ended.await;
    }

    /// Has everything written now: what is closed, and a checkpoint where there are any.
    pub async fn write_now(&self) {
        let (reply, written) = oneshot::channel();
        if self.now.send(reply).await.is_ok() {
            let _either_way = written.await;
        }
    }
}
