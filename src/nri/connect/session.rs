//! One connection to the runtime, from its registration to its end.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::{End, Endpoint, NriError, Suspensions, suspend_until_decided};
use crate::files::other_name;
use crate::net::clock;
use crate::nri::messages::{
    PLUGIN_SERVICE, RUNTIME_SERVICE, RegisterPlugin, TtrpcRequest, TtrpcResponse, TtrpcStatus,
};
use crate::nri::mux::{self, Connection, Demux};
use crate::nri::plugin::Plugin;
use crate::nri::ttrpc::{self, FrameAssembler, MessageKind, TtrpcFrame};
use crate::stats::Link;

/// The plugin's name.
const NAME: &str = "tallyport";
/// Interval at which containers that were created but never started are looked for.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Size of the read buffer, in bytes.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) stream: UnixStream,
    pub(super) demux: Demux,
    /// Calls from the runtime.
    pub(super) calls: FrameAssembler,
    /// Responses to our call.
    pub(super) answers: FrameAssembler,
    /// Whether the runtime has listed its containers.
    pub(super) registered: bool,
}

impl Session {
    /// A new connection, from which nothing has been read.
    pub(super) fn new(stream: UnixStream) -> Self {
        let (calls, answers) = (FrameAssembler::default(), FrameAssembler::default());
        Self { stream, demux: Demux::default(), calls, answers, registered: false }
    }

    /// Connects, and requests registration.
    ///
    /// There is no timeout for the registration: the runtime first finishes its current operation, and stopping a
    /// container takes up to the pod's grace period. Reconnecting would not make it faster.
    pub(super) async fn connect(endpoint: &Endpoint, plugin: &Plugin) -> Result<Self, NriError> {
        let mut stream = connect(&endpoint.socket)
            .await
            .map_err(|source| NriError::Connect { path: endpoint.socket.clone(), source })?;
        let register = RegisterPlugin { name: NAME.to_owned(), index: format!("{:02}", endpoint.index) };
        let call = ttrpc::encode_call(1, RUNTIME_SERVICE, "RegisterPlugin", &register);
        stream.write_all(&mux::split_into_frames(Connection::Runtime, &call)).await?;
        plugin.stats().set_link(Link::Registering, clock::wall_time());
        Ok(Self::new(stream))
    }

    /// Whether the runtime has listed its containers.
    pub(super) fn is_registered(&self) -> bool {
        self.registered
    }

    /// Serves the runtime's calls until the connection ends.
    pub(super) async fn serve_calls(
        &mut self,
        endpoint: &Endpoint,
        plugin: &mut Plugin,
        suspensions: &mut Suspensions,
    ) -> Result<Infallible, End> {
        let mut look = tokio::time::interval(CHECK_INTERVAL);
        let mut room = BytesMut::with_capacity(READ_BUFFER_BYTES);
        loop {
            let suspension = tokio::select! {
                read = self.stream.read_buf(&mut room) => match read? {
                    0 => return Err(NriError::Closed.into()),
                    _ => None,
                },
                _ = look.tick() => {
                    plugin.look_over(Instant::now()).await;
                    None
                }
                Some(suspension) = suspensions.0.recv() => Some(suspension),
            };
            if let Some(suspension) = suspension
                && suspend_until_decided(suspension, endpoint, Some(self), plugin).await
            {
                return Err(End::Taken);
            }
            let answers = self.handle_received(&room, plugin).await?;
            room.clear();
            if !answers.is_empty() {
                self.stream.write_all(&answers).await?;
            }
        }
    }

    /// Processes received bytes, and returns the responses to all complete calls.
    async fn handle_received(&mut self, bytes: &[u8], plugin: &mut Plugin) -> Result<BytesMut, NriError> {
        let (calls, answers) = (&mut self.calls, &mut self.answers);
        self.demux.push(bytes, |connection, piece| match connection {
            Connection::Plugin => calls.push(piece),
            Connection::Runtime => answers.push(piece),
        })?;
        while let Some(frame) = self.answers.next_frame()? {
            check_registration(&frame)?;
        }
        let mut out = BytesMut::new();
        while let Some(frame) = self.calls.next_frame()? {
            if frame.kind == MessageKind::Request {
                let answer = self.answer_call(&frame, plugin).await;
                out.extend_from_slice(&mux::split_into_frames(
                    Connection::Plugin,
                    &ttrpc::encode_answer(frame.stream, answer),
                ));
            }
        }
        Ok(out)
    }

    async fn answer_call(&mut self, frame: &TtrpcFrame, plugin: &mut Plugin) -> Result<Vec<u8>, TtrpcStatus> {
        let request = TtrpcRequest::decode(frame.data.clone())
            .map_err(|error| TtrpcStatus { code: ttrpc::INVALID, message: error.to_string() })?;
        let answer = plugin.call(&request).await;
        if let Err(status) = &answer {
            let (method, error) = (&request.method, &status.message);
            tracing::debug!(?method, ?error, "a call of the container runtime was not answered");
        }
        // The list of containers can come in parts; the runtime calls the plugin about new containers after the last
        // part.
        let lists = request.service == PLUGIN_SERVICE && request.method == "Synchronize";
        if lists && answer.is_ok() && plugin.listing.is_complete() {
            self.registered = true;
            plugin.stats().set_link(Link::Connected, clock::wall_time());
        }
        answer
    }
}

/// Connects to the socket, or to the alternative form of its path.
async fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let refused = match UnixStream::connect(socket).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => error,
        connected => return connected,
    };
    match other_name(socket) {
        Some(other) => UnixStream::connect(other).await.map_err(|_| refused),
        None => Err(refused),
    }
}

/// Checks the response to our only call. It may arrive after the runtime's first calls.
fn check_registration(frame: &TtrpcFrame) -> Result<(), NriError> {
    let refused = |code, message| Err(NriError::Refused { code, message });
    match TtrpcResponse::decode(frame.data.clone()) {
        Ok(TtrpcResponse { status: Some(TtrpcStatus { code, message }), .. }) if code != 0 => {
            refused(code, message)
        }
        Ok(_) => Ok(()),
        Err(error) => refused(ttrpc::INVALID, error.to_string()),
    }
}
