//! The connection to the runtime: establishes it, reconnects, and passes it to the process that takes over.
//!
//! The runtime does not notice that the connection changes hands; what the plugin knows goes with it.

mod session;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use session::Session;

use super::messages::Listing;
use super::mux::{Demux, MuxError};
use super::plugin::{Plugin, PluginState};
use super::ttrpc::{FrameAssembler, TtrpcError};
use crate::aggregate::encode;
use crate::net::clock;
use crate::shutdown::Drain;
use crate::stats::Link;

/// The address of the runtime.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its NRI socket.
    pub socket: PathBuf,
    /// Position among its plugins, 0 to 99; lower ones are called first.
    pub index: u8,
}

/// Why a connection ended or could not be established.
#[derive(Debug, thiserror::Error)]
pub enum NriError {
    /// The runtime is not running, has NRI disabled, or uses another socket.
    #[error("cannot connect to {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The socket broke.
    #[error("the socket broke: {0}")]
    Io(#[from] io::Error),
    /// The runtime closed it.
    #[error("the container runtime closed the connection")]
    Closed,
    /// The received data is not a frame of the multiplexer.
    #[error(transparent)]
    Mux(#[from] MuxError),
    /// The received data is not a ttrpc message.
    #[error(transparent)]
    Ttrpc(#[from] TtrpcError),
    /// The runtime rejected the plugin.
    #[error("the container runtime refused the plugin: {message} (code {code})")]
    Refused {
        code: i32,
        /// Its reason.
        message: String,
    },
}

/// The first and the longest pause before another attempt. They are short: containers that start meanwhile have no
/// socket, and an attempt costs next to nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Suspends the plugin, so that another process can continue where it stopped. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Suspender(mpsc::Sender<Suspension>);

type Suspension = oneshot::Sender<SuspendedPlugin>;

/// Receives the requests of [`Suspender`].
#[derive(Debug)]
pub struct Suspensions(mpsc::Receiver<Suspension>);

/// A plugin that has stopped between two calls, and waits for the outcome of the hand-over. The runtime's calls wait in
/// the socket meanwhile.
#[derive(Debug)]
pub struct SuspendedPlugin {
    /// The state for the other process.
    pub carried: Carried,
    outcome: oneshot::Sender<bool>,
}

/// A channel for suspending the plugin.
#[must_use]
pub fn suspension_channel() -> (Suspender, Suspensions) {
    // One hand-over at a time.
    let (ask, asked) = mpsc::channel(1);
    (Suspender(ask), Suspensions(asked))
}

impl Suspender {
    /// Suspends the plugin. `None` if none runs.
    pub async fn suspend_plugin(&self) -> Option<SuspendedPlugin> {
        let (reply, suspended) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        suspended.await.ok()
    }
}

impl SuspendedPlugin {
    /// Reports whether another process has taken over. If not, the plugin resumes.
    pub fn report_outcome(self, taken: bool) {
        // If the plugin has ended with the agent, there is nothing to report.
        let _either_way = self.outcome.send(taken);
    }
}

/// How one connection ended.
enum End {
    /// It broke, or could not be established.
    Broken(NriError),
    /// Another process has taken it over.
    Taken,
}

impl<E: Into<NriError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// Keeps the plugin connected until the agent ends or another process takes over the connection. Starts with the
/// connection of the previous process, if there is one.
pub async fn run(
    endpoint: Endpoint,
    mut plugin: Plugin,
    mut drain: Drain,
    mut suspensions: Suspensions,
    carried: Option<Carried>,
) {
    let mut resumed = carried.and_then(|carried| carried.resume_session(&endpoint, &mut plugin));
    let mut pause = FIRST_PAUSE;
    let mut said = false;
    loop {
        let mut registered = false;
        let serving = async {
            let mut session = match resumed.take() {
                Some(session) => session,
                None => Session::connect(&endpoint, &plugin).await?,
            };
            let end = session.serve_calls(&endpoint, &mut plugin, &mut suspensions).await;
            registered = session.is_registered();
            end
        };
        let error = tokio::select! {
            ended = serving => match ended {
                Err(End::Taken) => return,
                Err(End::Broken(error)) => error,
                Ok(never) => match never {},
            },
            () = drain.wait_for_start() => return,
        };
        plugin.listing = Listing::default();
        plugin.stats().set_link(Link::Absent { why: error.to_string() }, clock::wall_time());
        if registered {
            (pause, said) = (FIRST_PAUSE, false);
        }
        // Warn only once, so that a node without a runtime does not fill the log.
        if said {
            tracing::debug!(%error, "the container runtime is not connected");
        } else {
            tracing::warn!(%error, "the container runtime is not connected; pods start without a socket until it is");
        }
        said = true;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = drain.wait_for_start() => return,
            Some(suspension) = suspensions.0.recv() => {
                if suspend_until_decided(suspension, &endpoint, None, &plugin).await {
                    return;
                }
            }
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// Waits for the outcome of a hand-over; returns whether another process has taken over.
async fn suspend_until_decided(
    suspension: Suspension,
    endpoint: &Endpoint,
    session: Option<&Session>,
    plugin: &Plugin,
) -> bool {
    let (outcome, decided) = oneshot::channel();
    let carried = Carried::from_session(endpoint, session, plugin);
    if suspension.send(SuspendedPlugin { carried, outcome }).is_err() {
        return false;
    }
    // If the sender was dropped, the hand-over has failed.
    decided.await.unwrap_or(false)
}

#[cfg(test)]
mod tests;

/// The state of a plugin in a hand-over.
#[derive(Debug)]
pub struct Carried {
    /// Its encoded data.
    pub state: Vec<u8>,
    /// The connection, if the runtime has registered the plugin. Otherwise, the other process connects anew.
    pub socket: Option<OwnedFd>,
}

#[derive(Serialize, Deserialize)]
struct CarriedState {
    /// The endpoint of the connection.
    endpoint: Endpoint,
    plugin: PluginState,
    /// Incomplete messages that have been read.
    demux: Demux,
    calls: FrameAssembler,
    answers: FrameAssembler,
}

impl Carried {
    /// Collects the state for another process.
    fn from_session(endpoint: &Endpoint, session: Option<&Session>, plugin: &Plugin) -> Self {
        let registered = session.filter(|session| session.is_registered());
        let shared = |session: &Session| {
            let shared = session.stream.as_fd().try_clone_to_owned();
            shared
                .inspect_err(|error| tracing::warn!(%error, "cannot pass the NRI connection on; the other process connects anew"))
                .ok()
        };
        let parts =
            |session: &Session| (session.demux.clone(), session.calls.clone(), session.answers.clone());
        let (demux, calls, answers) = registered.map(parts).unwrap_or_default();
        let state =
            CarriedState { endpoint: endpoint.clone(), plugin: plugin.to_state(), demux, calls, answers };
        Self { state: encode(&state), socket: registered.and_then(shared) }
    }

    /// Restores the state. Returns the connection if it is usable and leads to the configured endpoint.
    fn resume_session(self, endpoint: &Endpoint, plugin: &mut Plugin) -> Option<Session> {
        let state: CarriedState = match postcard::from_bytes(&self.state) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, "cannot read the previous agent's NRI state; connecting again");
                return None;
            }
        };
        plugin.restore_state(state.plugin);
        if state.endpoint != *endpoint {
            tracing::info!(socket = %endpoint.socket.display(), index = endpoint.index, "nri.socket or nri.index has changed; connecting anew");
            return None;
        }
        match stream_from_socket(self.socket?) {
            Ok(stream) => {
                plugin.stats().set_link(Link::Connected, clock::wall_time());
                let (demux, calls, answers) = (state.demux, state.calls, state.answers);
                Some(Session { stream, demux, calls, answers, registered: true })
            }
            Err(error) => {
                tracing::warn!(%error, "cannot use the previous agent's NRI connection; connecting again");
                None
            }
        }
    }
}

fn stream_from_socket(socket: OwnedFd) -> io::Result<UnixStream> {
    let stream = StdStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
