//! The connection to the runtime: made, kept, made again, and carried over to the process that takes over.
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

/// Where the runtime is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its NRI socket.
    pub socket: PathBuf,
    /// Our place among its plugins, 0 to 99; lower ones are asked first.
    pub index: u8,
}

/// Why a connection ended, or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum NriError {
    /// The runtime is not running, has NRI turned off, or has its socket elsewhere.
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
    /// What came is no frame of the multiplexer.
    #[error(transparent)]
    Mux(#[from] MuxError),
    /// What came is no message of ttrpc.
    #[error(transparent)]
    Ttrpc(#[from] TtrpcError),
    /// The runtime does not want us.
    #[error("the container runtime refused the plugin: {message} (code {code})")]
    Refused {
        code: i32,
        /// Its reason.
        message: String,
    },
}

/// The first pause before another try, and the longest. A container that starts meanwhile has no socket, and a try
/// costs next to nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Asks the plugin to stop answering, so that another process can go on where it stopped. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Suspender(mpsc::Sender<Suspension>);

type Suspension = oneshot::Sender<SuspendedPlugin>;

/// Receives what [`Suspender`] asks.
#[derive(Debug)]
pub struct Suspensions(mpsc::Receiver<Suspension>);

/// A plugin that has stopped between two calls, and waits to be told whether another process goes on. The runtime's
/// calls wait in the socket meanwhile.
#[derive(Debug)]
pub struct SuspendedPlugin {
    /// What the other process needs.
    pub carried: Carried,
    outcome: oneshot::Sender<bool>,
}

/// Both ends of a way to suspend the plugin.
#[must_use]
pub fn suspension_channel() -> (Suspender, Suspensions) {
    // One hand-over at a time.
    let (ask, asked) = mpsc::channel(1);
    (Suspender(ask), Suspensions(asked))
}

impl Suspender {
    /// Stops the plugin. Nothing where none runs.
    pub async fn suspend_plugin(&self) -> Option<SuspendedPlugin> {
        let (reply, suspended) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        suspended.await.ok()
    }
}

impl SuspendedPlugin {
    /// Says whether another process has what was carried. If not, the plugin goes on.
    pub fn report_outcome(self, taken: bool) {
        // The plugin waits for it, or has ended with the agent.
        let _either_way = self.outcome.send(taken);
    }
}

/// How one connection ended.
enum End {
    /// It broke, or did not come about.
    Broken(NriError),
    /// Another process goes on with it.
    Taken,
}

impl<E: Into<NriError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// Keeps the plugin connected until the agent ends, or another process goes on with the connection. Starts with the
/// connection that the process before had, where one was carried over.
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
        // Said once: a node without a runtime would fill the log.
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

/// Stops until it is decided whether another process goes on; answers whether one does.
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
    // Without a decision the hand-over has failed.
    decided.await.unwrap_or(false)
}

#[cfg(test)]
mod tests;

/// A plugin on its way to another process.
#[derive(Debug)]
pub struct Carried {
    /// What is known, for the hand-over's messages.
    pub state: Vec<u8>,
    /// The connection, where the runtime has registered the plugin. One that is not registered yet is made again by the
    /// other process.
    pub socket: Option<OwnedFd>,
}

#[derive(Serialize, Deserialize)]
struct CarriedState {
    /// Where the connection leads.
    endpoint: Endpoint,
    plugin: PluginState,
    /// What has been read of messages that are not whole.
    demux: Demux,
    calls: FrameAssembler,
    answers: FrameAssembler,
}

impl Carried {
    /// What another process needs to go on.
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

    /// Goes on with what came. Answers the connection, where there is one that can be used: it leads to where the
    /// configuration of this process wants it to.
    fn resume_session(self, endpoint: &Endpoint, plugin: &mut Plugin) -> Option<Session> {
        let state: CarriedState = match postcard::from_bytes(&self.state) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, "what the NRI plugin of the agent before knew cannot be read; connecting again");
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
                tracing::warn!(%error, "the NRI connection of the agent before cannot be used; connecting again");
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
