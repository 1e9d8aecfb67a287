//! How an agent ends: in order, to another process, or because it has failed.

use std::sync::Arc;
use std::time::Duration;

use super::handover::Successor;
use super::kept::{self, Place};
use super::moving::Holding;
use super::windows::WindowLog;
use super::{Signals, TERM};
use crate::api::Api;
use crate::net::passing::Channel;
use crate::net::unix::{BoundSocket, HeldDirectory};
use crate::shutdown::DrainTrigger;

/// How long answers may take that were under way when another process took over.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
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
    Left(Place),
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
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// In order; no agent serves the node any more.
    InOrder,
    /// Another process serves the node.
    Succeeded,
    /// By a deadline or a second signal.
    CutShort,
    /// A part of the agent failed.
    Failed,
}

impl Outcome {
    pub(super) const fn is_clean(self) -> bool {
        matches!(self, Self::InOrder | Self::Succeeded)
    }
}

/// What has to end.
pub(super) struct Ending {
    pub(super) api: Api,
    pub(super) window_log: Option<WindowLog>,
    pub(super) drain: DrainTrigger,
    pub(super) holding: Arc<Holding>,
    pub(super) names: [BoundSocket; 3],
    pub(super) state: HeldDirectory,
}

impl Ending {
    /// Ends. A second signal cuts the drain short.
    pub(super) async fn run(mut self, mut why: Why, signals: &mut Signals) -> Outcome {
        if matches!(why, Why::Told(TERM)) {
            let left;
            (left, self.window_log) =
                kept::leave(&self.api, Arc::clone(&self.holding), self.window_log).await;
            why = left.map_or(why, Why::Left);
        }
        let deadline = self.api.config().process.drain_deadline;
        match why {
            Why::HandedOver(channel) => {
                self.leave(Heir::Process(channel)).await;
                Outcome::Succeeded
            }
            Why::Left(place) => {
                self.leave(Heir::Place(place)).await;
                Outcome::InOrder
            }
            Why::Replaced(channel) => {
                tracing::info!(?deadline, "draining for another process that starts from what is on disk");
                let drained = self.drain_within(deadline, signals).await;
                // The other process begins when it sees this.
                drop(channel);
                if drained { Outcome::Succeeded } else { Outcome::CutShort }
            }
            Why::Told(signal) => {
                tracing::info!(signal, ?deadline, "draining");
                if self.drain_within(deadline, signals).await { Outcome::InOrder } else { Outcome::CutShort }
            }
            Why::Failed => {
                tracing::error!(
                    "a shard has failed again and again, and ended; what its containers sent since their last window is lost"
                );
                self.drain_within(deadline, signals).await;
                Outcome::Failed
            }
        }
    }

    /// Closes everything that another process has as well. Names and locks are that one's now, and what is under way here has
    /// a moment to end.
    async fn leave(self, heir: Heir) {
        let Self { api, window_log, drain, holding, names, state } = self;
        names.into_iter().for_each(BoundSocket::leave);
        if let Some(log) = window_log {
            let last = async {
                match &heir {
                    Heir::Place(_) => log.leave().await,
                    Heir::Process(_) => log.end().await,
                }
            };
            let _late = tokio::time::timeout(LAST_WINDOWS, last).await;
        }
        drop((state, holding));
        // The other process goes on with the window log when it sees this.
        drop(heir);
        drop(api);
        let _late = drain.start(LAST_ANSWERS).await;
        tracing::info!("handed over");
    }

    /// Drains containers, writes what was closed, and lets answers that are under way finish; then gives up every name and
    /// lock. Answers whether all of it was done in time.
    async fn drain_within(self, deadline: Duration, signals: &mut Signals) -> bool {
        let Self { api, window_log, drain, holding, names, state } = self;
        let ending = async {
            let started = tokio::time::Instant::now();
            api.containers.drain_all().await;
            drop((api, holding));
            if let Some(log) = window_log {
                log.end().await;
            }
            drain.start(deadline.saturating_sub(started.elapsed())).await
        };
        let done = tokio::select! {
            done = tokio::time::timeout(deadline, ending) => done.unwrap_or(false),
            () = signals.told_to_end() => false,
        };
        drop((names, state));
        done
    }
}

/// What goes on with everything.
enum Heir {
    Process(#[expect(dead_code, reason = "its end is what counts")] Channel),
    Place(#[expect(dead_code, reason = "its end is what counts")] Place),
}
