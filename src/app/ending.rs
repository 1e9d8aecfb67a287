//! How an agent ends: in order, to another process, or because it has failed.

use std::sync::Arc;
use std::time::Duration;

use super::handover::Successor;
use super::moving::Holding;
use super::running::Running;
use super::saved_state::{self, SavedStateStore};
use super::windows::AgentWindowLog;
use super::{Signals, TERM};
use crate::net::passing::Channel;
use crate::net::unix::{BoundSocket, HeldDirectory};
use crate::shutdown::DrainTrigger;

/// How long answers may take that were under way when another process took over. A busy node needs more than a moment for a
/// large one, and only the window log of that process waits for it.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How long the window log may take for what it has yet to write, when another process has taken over.
const LAST_WINDOWS: Duration = Duration::from_secs(5);

/// Why the agent ends.
pub(super) enum Why {
    /// A signal said so.
    Told(&'static str),
    /// Another process has everything, and waits for the end of this connection.
    HandedOver(Channel),
    /// Another process waits for the end of this connection to start from what is on disk.
    Replaced(Channel),
    /// Everything is kept for the next agent, where the end of this connection is waited for.
    StateSaved(SavedStateStore),
    /// A shard has failed too often.
    Failed,
}

impl From<Successor> for Why {
    fn from(successor: Successor) -> Self {
        match successor {
            Successor::HasTakenOver(channel) => Self::HandedOver(channel),
            Successor::WaitsForTheEnd(channel) => Self::Replaced(channel),
        }
    }
}

/// How it went.
#[derive(Debug)]
pub(super) struct Conclusion {
    /// Whether in order, and not by a deadline, a second signal or a failure.
    pub(super) cleanly: bool,
    /// Whether another process serves the node, or is about to.
    pub(super) succeeded: bool,
    /// The connection whose end a successor waits for that needs every address free.
    pub(super) waiting: Option<Channel>,
}

impl Conclusion {
    fn new(cleanly: bool) -> Self {
        Self { cleanly, succeeded: false, waiting: None }
    }
}

/// What has to end.
pub(super) struct AgentShutdown {
    pub(super) running: Running,
    pub(super) window_log: Option<AgentWindowLog>,
    pub(super) drain: DrainTrigger,
    pub(super) holding: Arc<Holding>,
    pub(super) names: [BoundSocket; 3],
    pub(super) state: HeldDirectory,
    /// Whether the agent was told to end a second time already.
    pub(super) at_once: bool,
}

impl AgentShutdown {
    /// Ends. A second signal cuts the drain short.
    pub(super) async fn run(mut self, mut why: Why, signals: &mut Signals) -> Conclusion {
        if matches!(why, Why::Told(TERM)) && !self.at_once {
            let leaving = saved_state::save_for_next_agent(
                self.running.clone(),
                Arc::clone(&self.holding),
                self.window_log.take(),
            );
            let (left, at_once) = self.holding.unless_told_again(leaving, signals).await;
            (why, self.window_log) = (left.0.map_or(why, Why::StateSaved), left.1);
            self.at_once = at_once;
        }
        let deadline = match self.at_once {
            true => Duration::ZERO,
            false => self.running.current_config().process.drain_deadline,
        };
        match why {
            Why::HandedOver(channel) => {
                self.leave_to_heir(Heir::Process(channel)).await;
                Conclusion { succeeded: true, ..Conclusion::new(true) }
            }
            Why::StateSaved(place) => {
                self.leave_to_heir(Heir::Place(place)).await;
                Conclusion::new(true)
            }
            Why::Replaced(channel) => {
                tracing::info!(?deadline, "draining for another process that starts from what is on disk");
                let cleanly = self.drain_within(deadline, signals).await;
                Conclusion { cleanly, succeeded: true, waiting: Some(channel) }
            }
            Why::Told(signal) => {
                tracing::info!(signal, ?deadline, "draining");
                Conclusion::new(self.drain_within(deadline, signals).await)
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

    /// Closes everything that another process has as well. Names and locks are that one's now, and what is under way here has
    /// a moment to end.
    async fn leave_to_heir(self, heir: Heir) {
        let Self { running, window_log, drain, holding, names, state, .. } = self;
        names.into_iter().for_each(BoundSocket::leave_to_successor);
        drop((holding, running));
        let last_windows = async {
            if let Some(log) = window_log {
                match &heir {
                    Heir::Place(_) => log.finish_keeping_open().await,
                    Heir::Process(_) => log.finish_in_order().await,
                }
            }
        };
        // Side by side: the other process may wait for the port of the HTTP listener, and the runtime for that process.
        let _late =
            tokio::join!(tokio::time::timeout(LAST_WINDOWS, last_windows), drain.start(LAST_ANSWERS),);
        drop(state);
        // The other process goes on with the window log when it sees this.
        drop(heir);
        tracing::info!("handed over");
    }

    /// Drains containers, writes what was closed, and lets answers that are under way finish; then gives up every name and
    /// lock. Answers whether all of it was done in time.
    async fn drain_within(self, deadline: Duration, signals: &mut Signals) -> bool {
        let Self { running, window_log, drain, holding, names, state, .. } = self;
        // A process may have taken over while this one was told to end; then the names are its own. None begins from now on.
        let moved = super::close(&holding).await;
        let ending = async {
            let started = tokio::time::Instant::now();
            running.containers.drain_all().await;
            drop((running, holding));
            if let Some(log) = window_log {
                log.finish_in_order().await;
            }
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

/// What goes on with everything.
enum Heir {
    Process(#[expect(dead_code, reason = "its end is what counts")] Channel),
    Place(#[expect(dead_code, reason = "its end is what counts")] SavedStateStore),
}
