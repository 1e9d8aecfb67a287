//! How an agent ends: by draining, by a hand-over to another process, or after a failure.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::disk::AgentWindowLog;
use super::parts::Running;
use crate::net::passing::Channel;
use crate::net::unix::{BoundSocket, HeldDirectory};
use crate::restart::{Holding, StateStore, Successor, find_store, save_state};
use crate::shutdown::DrainTrigger;

/// How long responses in progress may take after another process took over. A busy node needs time for a large one, and
/// only the window log of the other process waits for it.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How long the window log may take for its remaining writes after another process took over.
const LAST_WINDOWS: Duration = Duration::from_secs(5);

/// The signal that ends an agent and leaves its state for the next one.
pub(super) const TERM: &str = "TERM";

/// The signals that the agent handles.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) term: Signal,
    pub(super) interrupt: Signal,
    pub(super) hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for TERM or INT.
    pub(super) async fn told_to_end(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Why the agent ends.
pub(super) enum Why {
    /// A signal, with its name.
    Told(&'static str),
    /// Another process has taken over, and waits for the end of this connection.
    HandedOver(Channel),
    /// Another process waits for the end of this connection and then starts from disk.
    Replaced(Channel),
    /// A store holds everything for the next agent, and waits for the end of this connection.
    StateSaved(Box<dyn StateStore>),
    /// A shard has failed too often.
    Failed,
}

impl From<Successor> for Why {
    fn from(successor: Successor) -> Self {
        match successor {
            Successor::HasTakenOver(channel) => Self::HandedOver(channel),
            Successor::WaitsForTheEnd(channel) => Self::Replaced(channel),
            Successor::AsksToEnd(_) => Self::Told(TERM),
        }
    }
}

/// The outcome of an ending.
#[derive(Debug)]
pub(super) struct Conclusion {
    /// Whether it ended without a deadline, a second signal or a failure.
    pub(super) cleanly: bool,
    /// Whether another process serves the node or is about to.
    pub(super) succeeded: bool,
    /// The connection to a successor that waits for its end before it binds the addresses.
    pub(super) waiting: Option<Channel>,
}

impl Conclusion {
    fn new(cleanly: bool) -> Self {
        Self { cleanly, succeeded: false, waiting: None }
    }
}

/// Everything that has to end.
pub(super) struct AgentShutdown {
    pub(super) running: Running,
    pub(super) window_log: Option<AgentWindowLog>,
    pub(super) drain: DrainTrigger,
    pub(super) holding: Arc<Holding>,
    pub(super) names: [BoundSocket; 3],
    pub(super) state: HeldDirectory,
    /// Whether a second signal to end has arrived already.
    pub(super) at_once: bool,
}

impl AgentShutdown {
    /// Ends the agent. A second signal cuts the drain short.
    pub(super) async fn run(
        mut self,
        why: Why,
        signals: &mut Signals,
        successors: &mut mpsc::Receiver<Successor>,
    ) -> Conclusion {
        let mut why = self.wait_for_hand_over(why, signals, successors).await;
        if matches!(why, Why::Told(TERM)) && !self.at_once {
            let holding = Arc::clone(&self.holding);
            let (saved, at_once) =
                holding.unless_told_again(self.save_for_next_agent(), signals.told_to_end()).await;
            why = saved.map_or(why, Why::StateSaved);
            self.at_once = at_once;
        }
        let deadline = match self.at_once {
            true => Duration::ZERO,
            false => self.running.current_config().process.drain_deadline,
        };
        match why {
            Why::HandedOver(channel) => {
                self.leave_to_heir(channel, AgentWindowLog::finish_in_order).await;
                Conclusion { succeeded: true, ..Conclusion::new(true) }
            }
            Why::StateSaved(store) => {
                // The state may have been saved just before a second signal was heard.
                let cleanly = !self.at_once;
                self.leave_to_heir(store, AgentWindowLog::finish_keeping_open).await;
                Conclusion::new(cleanly)
            }
            Why::Replaced(channel) => {
                tracing::info!(?deadline, "draining for another process that starts from what is on disk");
                let cleanly = self.drain_within(deadline, signals).await;
                Conclusion { cleanly, succeeded: true, waiting: Some(channel) }
            }
            Why::Told(signal) => {
                tracing::info!(signal, ?deadline, "draining");
                // An idle agent may have drained before a deadline of zero is noticed.
                let told_once = !self.at_once;
                Conclusion::new(self.drain_within(deadline, signals).await && told_once)
            }
            Why::Failed => {
                tracing::error!(
                    "a shard failed too often and was stopped; what its containers sent since their last window is lost. \
                     Restart the agent and report the panic logged above"
                );
                self.drain_within(deadline, signals).await;
                Conclusion::new(false)
            }
        }
    }

    /// Where the agent was told to end while another process was taking over, that is finished first, and may have failed.
    async fn wait_for_hand_over(
        &mut self,
        why: Why,
        signals: &mut Signals,
        successors: &mut mpsc::Receiver<Successor>,
    ) -> Why {
        if !matches!(why, Why::Told(_)) {
            return why;
        }
        let closed = self.holding.close_to_successors();
        let moved;
        (moved, self.at_once) = self.holding.unless_told_again(closed, signals.told_to_end()).await;
        if moved { successors.recv().await.map_or(why, Why::from) } else { why }
    }

    /// Leaves everything in a store for the next agent. `None` where there is no store, or it does not take everything.
    async fn save_for_next_agent(&mut self) -> Option<Box<dyn StateStore>> {
        let store = find_store(&self.holding).await?;
        // If the saved state is lost, the next agent restores this.
        if let Some(log) = &mut self.window_log {
            tokio::select! {
                () = log.write_now() => {}
                () = self.holding.wait_until_given_up() => {}
            }
        }
        save_state(store, Arc::clone(&self.holding)).await
    }

    /// Closes everything that another process has as well. Names and locks belong to that process now; work in progress here
    /// gets a short time to finish. Dropping `heir`, the connection to that process, tells it to continue with the window
    /// log.
    async fn leave_to_heir<F: Future<Output = ()>>(
        self,
        heir: impl Sized,
        finish_log: impl FnOnce(AgentWindowLog) -> F,
    ) {
        let Self { running, window_log, drain, holding, names, state, .. } = self;
        names.into_iter().for_each(BoundSocket::leave_to_successor);
        // Before the other process goes on at their cursors.
        tokio::join!(running.publishers.stop_all(), running.archive.stop());
        drop((holding, running));
        let last_windows = async {
            if let Some(log) = window_log {
                finish_log(log).await;
            }
        };
        // Concurrently: the other process may wait for the port of the HTTP listener, and the container runtime for
        // that process.
        let _late =
            tokio::join!(tokio::time::timeout(LAST_WINDOWS, last_windows), drain.start(LAST_ANSWERS),);
        drop(state);
        drop(heir);
        tracing::info!("handed over");
    }

    /// Drains containers, writes closed windows, and lets responses in progress finish; then gives up every name and
    /// lock. Returns whether all of it finished in time.
    async fn drain_within(self, deadline: Duration, signals: &mut Signals) -> bool {
        let Self { running, window_log, drain, holding, names, state, .. } = self;
        // If a process has taken over since the signal, the names belong to it. No hand-over begins from now on.
        let moved = holding.close_to_successors().await;
        let ending = async {
            let started = tokio::time::Instant::now();
            running.containers.drain_all().await;
            // A backend that does not answer leaves time for everything else.
            let for_backends = deadline.saturating_sub(started.elapsed()) / 2;
            let (publishers, archive) = (running.publishers.clone(), running.archive.clone());
            drop((running, holding));
            let last_windows = async {
                if let Some(log) = window_log {
                    log.finish_in_order().await;
                }
            };
            tokio::join!(publishers.flush_all(for_backends), last_windows);
            // Now the log has written the last windows.
            archive.stop().await;
            drop((publishers, archive));
            drain.start(deadline.saturating_sub(started.elapsed())).await
        };
        let done = tokio::select! {
            done = tokio::time::timeout(deadline, ending) => done.unwrap_or(false),
            () = signals.told_to_end() => false,
        };
        if moved {
            names.into_iter().for_each(BoundSocket::leave_to_successor);
        }
        drop(state);
        done
    }
}
