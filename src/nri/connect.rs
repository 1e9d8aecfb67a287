//! The connection to the runtime: made, kept, and made again.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::messages::{PLUGIN_SERVICE, RUNTIME_SERVICE, RegisterPlugin, Request, Response, Status};
use super::mux::{self, Connection, Demux, MuxError};
use super::plugin::Plugin;
use super::reconcile::Listing;
use super::ttrpc::{self, Assembler, Frame, Kind, TtrpcError};
use crate::shutdown::Drain;

/// Where the runtime is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its NRI socket.
    pub socket: PathBuf,
    /// Our place among its plugins, 0 to 99; lower ones are asked first.
    pub index: u8,
}

/// Why a connection ended, or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum NriError {
    /// Nobody is there, or not for us.
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
        /// Its code.
        code: i32,
        /// Its reason.
        message: String,
    },
    /// The runtime took the connection and said nothing.
    #[error("the container runtime did not answer within {REGISTRATION:?}")]
    Silent,
}

/// Our name among the runtime's plugins.
const NAME: &str = "tallyport";
/// How long the runtime may take to say what is there. It gives us five seconds.
const REGISTRATION: Duration = Duration::from_secs(10);
/// The first pause before another try, and the longest. A container that starts meanwhile has no socket, and a try
/// costs next to nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often containers that were created and never started are looked for.
const LOOK: Duration = Duration::from_secs(30);
/// Room for what is read at once.
const ROOM: usize = 64 << 10;

/// Keeps the plugin connected until the agent ends.
pub async fn run(endpoint: Endpoint, mut plugin: Plugin, mut drain: Drain) {
    let mut pause = FIRST_PAUSE;
    let mut said = false;
    loop {
        let mut session = Session::default();
        let ended = tokio::select! {
            ended = session.run(&endpoint, &mut plugin) => ended,
            () = drain.started() => return,
        };
        plugin.stats().connected(false);
        plugin.listing = Listing::default();
        if session.registered {
            (pause, said) = (FIRST_PAUSE, false);
        }
        if let Err(error) = ended {
            // Said once: a node without a runtime would fill the log.
            if said {
                tracing::debug!(%error, "no container runtime");
            } else {
                tracing::warn!(%error, "no container runtime; containers start without a socket until it is back");
            }
            said = true;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = drain.started() => return,
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// One connection.
#[derive(Debug, Default)]
struct Session {
    demux: Demux,
    /// Calls of the runtime, and its answers to ours.
    calls: Assembler,
    answers: Assembler,
    /// Whether the runtime has told us what is there.
    registered: bool,
}

impl Session {
    async fn run(&mut self, endpoint: &Endpoint, plugin: &mut Plugin) -> Result<(), NriError> {
        let connect = |source| NriError::Connect { path: endpoint.socket.clone(), source };
        let mut stream = UnixStream::connect(&endpoint.socket).await.map_err(connect)?;
        let register = RegisterPlugin { name: NAME.to_owned(), index: format!("{:02}", endpoint.index) };
        let call = ttrpc::call(1, RUNTIME_SERVICE, "RegisterPlugin", &register);
        stream.write_all(&mux::frames(Connection::Runtime, &call)).await?;
        let deadline = Instant::now() + REGISTRATION;
        let mut look = tokio::time::interval(LOOK);
        let mut room = BytesMut::with_capacity(ROOM);
        loop {
            tokio::select! {
                read = stream.read_buf(&mut room) => if read? == 0 { return Err(NriError::Closed) },
                _ = look.tick() => plugin.look_over(Instant::now()).await,
                () = tokio::time::sleep_until(deadline), if !self.registered => return Err(NriError::Silent),
            }
            let answers = self.received(&room, plugin).await?;
            room.clear();
            if !answers.is_empty() {
                stream.write_all(&answers).await?;
            }
        }
    }

    /// Takes what came, and makes the answers to all calls that are whole.
    async fn received(&mut self, bytes: &[u8], plugin: &mut Plugin) -> Result<BytesMut, NriError> {
        let (calls, answers) = (&mut self.calls, &mut self.answers);
        self.demux.push(bytes, |connection, piece| match connection {
            Connection::Plugin => calls.push(piece),
            Connection::Runtime => answers.push(piece),
        })?;
        while let Some(frame) = self.answers.next_frame()? {
            registration(&frame)?;
        }
        let mut out = BytesMut::new();
        while let Some(frame) = self.calls.next_frame()? {
            if frame.kind == Kind::Request {
                let answer = self.answer(&frame, plugin).await;
                out.extend_from_slice(&mux::frames(Connection::Plugin, &ttrpc::answer(frame.stream, answer)));
            }
        }
        Ok(out)
    }

    async fn answer(&mut self, frame: &Frame, plugin: &mut Plugin) -> Result<Vec<u8>, Status> {
        let request = Request::decode(frame.data.clone())
            .map_err(|error| Status { code: ttrpc::INVALID, message: error.to_string() })?;
        let answer = plugin.call(&request).await;
        if let Err(status) = &answer {
            let (method, error) = (&request.method, &status.message);
            tracing::debug!(?method, ?error, "a call of the container runtime was not answered");
        }
        // It says what is there once it has taken us; only then do its containers come.
        if request.service == PLUGIN_SERVICE && request.method == "Synchronize" && answer.is_ok() {
            self.registered = true;
            plugin.stats().connected(true);
        }
        answer
    }
}

/// The answer to our only call. It may come after the runtime's first calls.
fn registration(frame: &Frame) -> Result<(), NriError> {
    let refused = |code, message| Err(NriError::Refused { code, message });
    match Response::decode(frame.data.clone()) {
        Ok(Response { status: Some(Status { code, message }), .. }) if code != 0 => refused(code, message),
        Ok(_) => Ok(()),
        Err(error) => refused(ttrpc::INVALID, error.to_string()),
    }
}

#[cfg(test)]
mod tests;
