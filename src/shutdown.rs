//! Graceful shutdown and readiness, both represented by values that tasks hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Creates a drain: one side starts it and waits, the other is notified and delays its end while it has work.
#[must_use]
pub fn drain_channel() -> (DrainTrigger, Drain) {
    let (start, started) = watch::channel(false);
    let (hold, held) = mpsc::channel(1);
    let (pause, paused) = watch::channel(false);
    (DrainTrigger { start, pause, held }, Drain { started, paused, _hold: hold })
}

/// Pauses new work.
#[derive(Clone, Debug)]
pub struct Pauser(watch::Sender<bool>);

impl Pauser {
    /// Pauses or resumes new work.
    pub fn set_paused(&self, paused: bool) {
        self.0.send_replace(paused);
    }
}

/// Starts the drain.
#[derive(Debug)]
pub struct DrainTrigger {
    start: watch::Sender<bool>,
    pause: watch::Sender<bool>,
    held: mpsc::Receiver<std::convert::Infallible>,
}

/// Is notified of the drain, and delays its end until dropped.
#[derive(Clone, Debug)]
pub struct Drain {
    started: watch::Receiver<bool>,
    paused: watch::Receiver<bool>,
    _hold: mpsc::Sender<std::convert::Infallible>,
}

impl DrainTrigger {
    /// A handle for pausing new work.
    #[must_use]
    pub fn pauser(&self) -> Pauser {
        Pauser(self.pause.clone())
    }

    /// Starts the drain and waits until all [`Drain`]s are dropped, at most for `deadline`. Returns whether they were
    /// dropped in time.
    pub async fn start(mut self, deadline: Duration) -> bool {
        self.start.send_replace(true);
        tokio::time::timeout(deadline, self.held.recv()).await.is_ok()
    }
}

impl Drain {
    /// Waits until new work is paused or resumed.
    pub async fn wait_for_paused(&mut self, paused: bool) {
        if self.paused.wait_for(|now| *now == paused).await.is_err() {
            // The sender is gone, so the state cannot change any more.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the drain starts, or can no longer start.
    pub async fn wait_for_start(&mut self) {
        let _either_way = self.started.wait_for(|started| *started).await;
    }
}

/// The conditions that must hold before the agent is ready.
#[derive(Clone, Default, Debug)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

/// One condition of readiness. Dropping it does not fulfil it: a task that fails is not ready.
#[derive(Debug)]
pub struct Latch {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Adds a condition, not yet fulfilled.
    #[must_use]
    pub fn add_latch(&self, name: &'static str) -> Latch {
        self.set_condition(name, false);
        Latch { name, readiness: self.clone() }
    }

    /// The conditions that are not fulfilled.
    #[must_use]
    pub fn pending_conditions(&self) -> Vec<&'static str> {
        let latches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latches.iter().filter(|(_, open)| !**open).map(|(name, _)| *name).collect()
    }

    fn set_condition(&self, name: &'static str, open: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, open);
    }
}

impl Latch {
    /// Fulfils the condition.
    pub fn open(&self) {
        self.readiness.set_condition(self.name, true);
    }

    /// The condition no longer holds.
    pub fn close(&self) {
        self.readiness.set_condition(self.name, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_all_its_holders() {
        let (trigger, drain) = drain_channel();
        let mut worker = drain.clone();
        let work = tokio::spawn(async move {
            worker.wait_for_start().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        });
        drop(drain);
        let before = tokio::time::Instant::now();
        assert!(trigger.start(Duration::from_secs(10)).await);
        assert_eq!(before.elapsed(), Duration::from_secs(3));
        work.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_the_wait() {
        let (trigger, _held) = drain_channel();
        assert!(!trigger.start(Duration::from_secs(10)).await);
    }

    #[test]
    fn a_latch_that_is_dropped_stays_pending() {
        let readiness = Readiness::default();
        let (one, two) = (readiness.add_latch("one"), readiness.add_latch("two"));
        one.open();
        drop(two);
        assert_eq!(readiness.pending_conditions(), ["two"]);
        one.close();
        assert_eq!(readiness.pending_conditions(), ["one", "two"]);
    }
}
