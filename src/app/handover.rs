//! Handing over everything the agent has to the next process, at the cost of a short pause.
//!
//! ```text
//! old                                  new
//!  offer: versions, what is fixed ───▶  can it be read and gone on with?
//!       ◀─────────────────── take; or a refusal; or end, and then the new one starts from disk
//!  closed windows, aggregators ──────▶
//!       ◀─────────────────────────── have   part by part, and again what is new, until no window is about to be closed
//!  shards let go: the pause begins
//!  descriptors, containers, the rest ▶  puts everything together, so that nothing can fail any more
//!       ◀────────────────────────── ready
//!  go ───────────────────────────────▶  receives: the pause is over
//!       ◀──────────────────────── serving
//!  bye, ends ────────────────────────▶  goes on for good
//! ```
//!
//! If anything fails before the end, or either side is silent for too long, the old one goes on where it stopped and the new
//! one ends. A signal to end gives the hand-over up while windows are still being sent for the first time. Later it waits for the
//! outcome: the old process ends as handed over, or, if that has failed, saves its state as it does at any other end. A second
//! signal gives the hand-over up at any time, and ends the old process at once.
//!
//! The container runtime's connection to the NRI plugin is one of the descriptors, so the runtime sees nothing of it. While it is
//! handed over the old process waits less long (`moving`), so that the runtime does not disconnect the plugin.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::ahead::Sender;
use super::moving::{Holding, Moving, SuccessorStep};
use super::running::Running;
use crate::aggregate::{SNAPSHOT_VERSION, encode};
use crate::config::AgentConfig;
use crate::containers::IMAGE_VERSION;
use crate::net::passing::Channel;
use crate::store::HISTORY_VERSION;

/// The version of this conversation.
const PROTOCOL: u16 = 5;
/// What a process answers to an offer that it can go on with, and to one that it cannot where it is to start anyway. Anything
/// else is a refusal in words.
pub(super) const TAKE: &[u8] = b"take";
pub(super) const END: &[u8] = b"end";
/// How long the other process may take for one step. While receiving is paused the kernel's buffers have to last.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What the old process says before anything stops.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    protocol: u16,
    /// Of containers, aggregators and histories.
    versions: [u16; 3],
    /// The length of windows, in microseconds.
    window: u64,
    /// What the HTTP listener was told.
    http_listen: String,
    admin_socket: PathBuf,
    /// For people.
    program: String,
    pid: u32,
}

impl Offer {
    pub(super) fn from_config(config: &AgentConfig) -> Self {
        Self {
            protocol: PROTOCOL,
            versions: [u16::from(IMAGE_VERSION), SNAPSHOT_VERSION, HISTORY_VERSION],
            window: u64::try_from(config.aggregation.window.as_micros()).unwrap_or(u64::MAX),
            http_listen: config.http.listen.to_string(),
            admin_socket: config.admin.socket.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        }
    }

    /// Why a process that would make the other offer cannot take over from one that makes this.
    pub(super) fn find_mismatch(&self, other: &Self) -> Option<String> {
        if (self.protocol, self.versions) != (other.protocol, other.versions) {
            return Some(format!(
                "version {} cannot read what version {} has; restart the agent instead",
                other.program, self.program
            ));
        }
        // Open windows are part of what goes over.
        (self.window != other.window).then(|| "windows.length differs; restart the agent instead".to_owned())
    }

    /// Whether the HTTP listener of this process is the one that the other wants.
    pub(super) fn has_listener_of(&self, other: &Self) -> bool {
        self.http_listen == other.http_listen
    }

    /// Whether the HTTP listener of this process has this port.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.http_listen.parse().is_ok_and(|listen: SocketAddr| listen.port() == port)
    }

    /// Where the sockets of this process are, which those of the other may not be.
    pub(super) fn admin_socket(&self) -> &Path {
        &self.admin_socket
    }
}

/// Where an agent listens for the process that takes over.
pub(super) fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("hand-over.sock")
}

pub(super) fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    encode(value)
}

/// # Errors
/// When the bytes are something else.
pub(super) fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Waits for one word.
///
/// # Errors
/// When another word comes, which then is the reason, or none in time.
pub(super) fn expect_word(channel: &Channel, word: &str, patience: Duration) -> io::Result<()> {
    let (heard, _) = channel.receive(patience).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => {
            let waited = format!("the other process did not say {word:?} in time ({patience:?})");
            io::Error::new(error.kind(), waited)
        }
        _ => error,
    })?;
    match heard == word.as_bytes() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&heard).into_owned())),
    }
}

/// The other end of a connection that was accepted.
pub(super) fn accept_channel(stream: UnixStream) -> io::Result<Channel> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Channel::from_accepted(stream.into())
}

/// What another process wants of this one.
#[derive(Debug)]
pub(super) enum Successor {
    /// It has everything. It sees the end of the connection when this process has ended, or has nothing left.
    HasTakenOver(Channel),
    /// It cannot go on with what this process has, and waits for the end of the connection to start from what is on disk.
    WaitsForTheEnd(Channel),
}

/// Waits for processes that want to take over, and tells when there is one.
pub(super) async fn serve_successors(
    listener: UnixListener,
    running: Running,
    holding: Arc<Holding>,
    successors: mpsc::Sender<Successor>,
) {
    let mut drain = running.drain.clone();
    let parts = Arc::new((running, holding));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.wait_for_start() => return,
        };
        let channel = match accepted.and_then(|(stream, _)| accept_channel(stream)) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(%error, "refused a process that asked to take over");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let parts = Arc::clone(&parts);
        let handle = tokio::runtime::Handle::current();
        let given = tokio::task::spawn_blocking(move || {
            let (running, holding) = &*parts;
            hand_over(channel, running, holding, &handle)
        });
        match given.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(successor) => {
                let _ending_anyway = successors.send(successor).await;
                return;
            }
            Err(error) => tracing::error!(%error, "hand-over failed; continuing"),
        }
    }
}

fn hand_over(
    channel: Channel,
    running: &Running,
    holding: &Holding,
    handle: &tokio::runtime::Handle,
) -> io::Result<Successor> {
    if holding.is_told_to_end() {
        return Err(io::Error::other("the agent is shutting down"));
    }
    let channel = holding.until_given_up(channel);
    channel.send(&to_bytes(&Offer::from_config(&running.current_config())), &[])?;
    let (wanted, _) = channel.receive(PATIENCE)?;
    match wanted.as_slice() {
        TAKE => {}
        END => return Ok(Successor::WaitsForTheEnd(channel)),
        refusal => return Err(io::Error::other(String::from_utf8_lossy(refusal).into_owned())),
    }
    // A signal to end waits for the outcome from here on.
    let claim = holding.claim_for_successor()?;
    tracing::info!("handing over to another process");
    let mut sent = Sender { channel: &channel, running, holding, handle }.send()?;
    let moving = claim.stop(running, sent.open, handle)?;
    let part = running.store.next_part(&mut sent.windows, usize::MAX).bytes;
    let state = moving.encode_final_state(part);
    let given =
        state.and_then(|state| send_final_state(&channel, &moving, &state, &moving.clone_descriptors()?));
    moving.conclude_move(given.is_ok());
    given.map(|()| Successor::HasTakenOver(channel))
}

/// Hands over what changes as long as anything moves, and waits until the other process receives.
fn send_final_state(
    channel: &Channel,
    moving: &Moving<'_>,
    state: &[u8],
    descriptors: &[OwnedFd],
) -> io::Result<()> {
    channel.send_all(state, descriptors)?;
    expect_word(channel, "ready", moving.remaining_time(SuccessorStep::Ready))?;
    channel.send(b"go", &[])?;
    expect_word(channel, "serving", moving.remaining_time(SuccessorStep::Serving))?;
    channel.send(b"bye", &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessEnvironment;

    #[test]
    fn what_cannot_be_gone_on_with_is_refused_by_name() {
        let offer =
            |text: &str| Offer::from_config(&AgentConfig::from_toml(text, &ProcessEnvironment).unwrap());
        let old = offer("");
        assert_eq!(old.find_mismatch(&offer("windows.keep = 5\nagent.shards = 3\nlimits.series = 7")), None);
        assert!(old.find_mismatch(&offer("windows.length = \"20s\"")).unwrap().starts_with("windows.length"));
        let elsewhere = offer("http.listen = \"127.0.0.1:1\"\nadmin.socket = \"/x\"");
        assert_eq!(old.find_mismatch(&elsewhere), None, "its listeners can be opened anew");
        assert!(!old.has_listener_of(&elsewhere) && old.has_listener_of(&offer("windows.keep = 5")));
        let newer = Offer { versions: [9, 9, 9], program: "9.9.9".to_owned(), ..old.clone() };
        assert!(old.find_mismatch(&newer).unwrap().contains("version 9.9.9 cannot read"));
        assert_eq!(from_bytes::<Offer>(&to_bytes(&old)).unwrap(), old);
        assert!(from_bytes::<Offer>(b"take").is_err());
    }
}
