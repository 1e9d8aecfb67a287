//! The thread of a publisher.
//!
//! Reading files, merging, encoding and saving take long where there is much to send, or where a disk is slow. On a thread of its
//! own, a publisher holds up neither the others nor the servers of the agent.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// A future that runs on its own thread until it ends or is cancelled. Dropping this cancels it at the next point where it waits.
#[derive(Debug)]
pub(super) struct PublisherThread {
    thread: JoinHandle<()>,
    /// Cancels when it is dropped.
    cancel: oneshot::Sender<()>,
    /// Closed at the end of the thread.
    ended: oneshot::Receiver<()>,
}

impl PublisherThread {
    /// Runs a publisher.
    ///
    /// # Errors
    /// When there are no resources for a thread.
    pub(super) fn start(publisher: &str, run: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (cancel, cancelled) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(format!("publish {publisher}")).spawn(move || {
            // Dropped at the end, also by a panic.
            let _end = end;
            runtime.block_on(async {
                tokio::select! {
                    () = run => {}
                    _ = cancelled => {}
                }
            });
            // A write to a file that hangs is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { thread, cancel, ended })
    }

    /// Whether it has ended.
    #[must_use]
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end until a time. Returns whether it has ended.
    pub(super) async fn wait_until(&mut self, deadline: Instant) -> bool {
        // An error says that the other side is gone, which is the end.
        tokio::time::timeout_at(deadline, &mut self.ended).await.is_ok()
    }

    /// Cancels it at the next point where it waits, and waits until a time for that.
    pub(super) async fn cancel_until(self, deadline: Instant) -> bool {
        let Self { cancel, ended, .. } = self;
        drop(cancel);
        tokio::time::timeout_at(deadline, ended).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_thread_that_is_busy_holds_up_nothing_and_its_end_is_seen() {
        let (go, told) = std::sync::mpsc::channel();
        // It blocks, as a disk does.
        let mut busy = PublisherThread::start("busy", async move { told.recv().unwrap() }).unwrap();
        let mut quick = PublisherThread::start("quick", async {}).unwrap();
        let soon = || Instant::now() + Duration::from_secs(10);
        assert!(quick.wait_until(soon()).await && !busy.is_finished());
        assert!(!busy.wait_until(Instant::now()).await);
        go.send(()).unwrap();
        assert!(busy.wait_until(soon()).await);
        let waiting = PublisherThread::start("waiting", std::future::pending()).unwrap();
        assert!(waiting.cancel_until(soon()).await);
        let mut failed = PublisherThread::start("failed", async { panic!("a bug") }).unwrap();
        assert!(failed.wait_until(soon()).await);
        while !failed.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}
