//! The handle of the writer thread: start, stop and requests.

mod changes;
mod work;

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::WindowLogSettings;
use super::log::LogEpochs;
use super::recover::{Recovered, Resumed, Survey};
use super::renewed::{Checkpoints, NameLog, WriterSources};
use super::status::LogStatus;
use crate::wal::Files;
use work::{Last, WriterWork};

/// The handle of the running writer thread.
#[derive(Debug)]
pub struct LogWriter {
    stop: oneshot::Sender<Last>,
    now: mpsc::Sender<oneshot::Sender<()>>,
    /// Closed when the thread ends.
    ended: oneshot::Receiver<()>,
}

impl LogWriter {
    /// Adds the recovered windows to the store, and starts the writer. No window may have been published before.
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
        let Resumed { log, unwritten } =
            recovered.resume_log(files, &parts.store, &parts.spool, settings.size);
        let checkpoints = Checkpoints::new(Arc::clone(files), epoch, next, open_files);
        let cursor = parts.store.end_cursor().seq;
        // Before the thread runs: from now on windows are closed.
        parts.store.note_written(cursor);
        let names = NameLog::new(Arc::clone(files), epoch, next, name_files);
        let mut work = WriterWork::new(log, checkpoints, names, parts, settings, status);
        (work.unwritten, work.cursor, work.void) = (unwritten, cursor, void);
        Self::run(work)
    }

    /// Starts to write in a process that has taken over: the store has everything already that is in the log. Under the
    /// number of `epoch`, which no log may have had, everything that is kept is written again, because this process does
    /// not know the places of windows in the log; then the files that were there are retired. Windows keep their births. Where
    /// the store of the previous process ended, [`Store::note_written`](crate::store::Store::note_written) was told.
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
        let epochs = LogEpochs { keys: epoch, births: parts.store.epoch() };
        let (log, void) = survey.into_replacing_log(files, &parts.spool, epochs, settings.size);
        let checkpoints = Checkpoints::new(Arc::clone(files), epochs.births, next, open_files);
        let names = NameLog::new(Arc::clone(files), epoch, next, name_files);
        let handed_over = parts.store.written_place().unwrap_or(0);
        let mut work = WriterWork::new(log, checkpoints, names, parts, settings, status);
        (work.void, work.anew, work.cursor) = (void, true, handed_over);
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

    /// Writes all closed windows, and ends the thread. The end of the process does not wait for a blocked disk.
    pub async fn finish_in_order(self) {
        self.stop(Last::InOrder).await;
    }

    /// Writes all closed windows, and ends the thread; the last checkpoint of open windows is kept.
    pub async fn finish_keeping_open(self) {
        self.stop(Last::Kept).await;
    }

    async fn stop(self, last: Last) {
        // If the thread has ended already, both calls return at once.
        let _either_way = self.stop.send(last);
        let _either_way = self.ended.await;
    }

    /// Writes everything now: closed windows, and a checkpoint if they are enabled.
    pub async fn write_now(&self) {
        let (reply, written) = oneshot::channel();
        if self.now.send(reply).await.is_ok() {
            let _either_way = written.await;
        }
    }
}
