//! What goes over to the process that takes over: the connection itself, which the runtime does not see change hands,
//! and what the plugin knows.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::Endpoint;
use super::session::Session;
use crate::aggregate::encode;
use crate::net::clock;
use crate::nri::mux::Demux;
use crate::nri::plugin::{Plugin, PluginState};
use crate::nri::ttrpc::FrameAssembler;
use crate::stats::Link;

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
    pub(super) fn from_session(endpoint: &Endpoint, session: Option<&Session>, plugin: &Plugin) -> Self {
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
    pub(super) fn resume_session(self, endpoint: &Endpoint, plugin: &mut Plugin) -> Option<Session> {
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

fn stream_from_socket(socket: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = StdStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
