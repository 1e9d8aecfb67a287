//! What two processes of this program say to each other: the words, the messages with their encoding, and how long each side
//! waits for the other.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::aggregate::SNAPSHOT_VERSION;
use crate::config::AgentConfig;
use crate::containers::{IMAGE_VERSION, Manifest};
use crate::model::Allocation;
use crate::net::passing::Channel;
use crate::store::HISTORY_VERSION;

/// The version of a hand-over.
const PROTOCOL: u16 = 7;
/// How long the other process may take for one step. While receiving is paused, the kernel's buffers must not overflow.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a process that takes over waits for the next message before the pause. Datagrams are still read then, so it can be
/// patient with an agent that gets little of the processors. It sees at once when that agent has ended.
pub(super) const BEFORE_PAUSE: Duration = Duration::from_secs(15);

/// How long the plugin may be stopped until the other process has restored everything, and until it receives. The
/// runtime disconnects a plugin that does not answer within two seconds, and a call that waits in the connection may
/// take half a second after the plugin resumes here. The second step takes milliseconds, and datagrams received in it
/// are lost if the hand-over still fails.
const READY_WITHIN: Duration = Duration::from_millis(1200);
const SERVING_WITHIN: Duration = Duration::from_millis(1600);

/// A step of the other process that this one waits for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum SuccessorStep {
    /// It restores what it received.
    Ready,
    /// It begins to receive datagrams.
    Serving,
}

impl SuccessorStep {
    /// How long it may still take if the runtime's connection has been held for `held`; `None` if there is no
    /// connection.
    pub(super) fn remaining_time(self, held: Option<Duration>) -> Duration {
        let within = match self {
            Self::Ready => READY_WITHIN,
            Self::Serving => SERVING_WITHIN,
        };
        held.map_or(PATIENCE, |held| within.saturating_sub(held))
    }
}

/// Accepts an offer.
pub(super) const TAKE: &str = "take";
/// Declines an offer, and asks the agent to end so that the other process can start from disk. Any other answer to an offer is a
/// refusal, with its reason.
pub(super) const END: &str = "end";
/// Declines an offer, and asks the agent to end as TERM does. No other process follows.
pub(super) const STOP: &str = "stop";
/// Confirms one message before the pause.
pub(super) const HAVE: &str = "have";
/// Says that everything is assembled.
pub(super) const READY: &str = "ready";
/// Allows the other process to receive.
pub(super) const GO: &str = "go";
/// Says that datagrams are received again.
pub(super) const SERVING: &str = "serving";
/// Leaves the node to the other process.
pub(super) const BYE: &str = "bye";

/// Sends one word.
///
/// # Errors
/// When the other process has closed the connection.
pub(super) fn send_word(channel: &Channel, word: &str) -> io::Result<()> {
    channel.send(word.as_bytes(), &[])
}

/// Waits for the given word.
///
/// # Errors
/// When another word arrives, which then is the error text, or none in time.
pub(super) fn expect_word(channel: &Channel, word: &str, patience: Duration) -> io::Result<()> {
    check_word(channel.receive(patience).map(|(heard, _)| heard), word, patience)
}

/// Waits for the word with which the other process decides who goes on. If it does not come in time, the other process can no
/// longer say it, and learns so.
///
/// # Errors
/// As [`expect_word`].
pub(super) fn expect_decision(channel: &Channel, word: &str, patience: Duration) -> io::Result<()> {
    check_word(channel.receive_decision(patience), word, patience)
}

fn check_word(heard: io::Result<Vec<u8>>, word: &str, patience: Duration) -> io::Result<()> {
    let heard = heard.map_err(|error| match error.kind() {
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

/// Decodes a message. The encoding is [`crate::aggregate::encode`].
///
/// # Errors
/// `InvalidData` where the bytes are something else.
pub(super) fn decode_message<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// This process's end of a connection that was accepted.
///
/// # Errors
/// When the other process belongs to another user.
pub(super) fn accept_channel(stream: UnixStream) -> io::Result<Channel> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Channel::from_accepted(stream.into())
}

/// Connects to the process that listens at a path. `None` where no process does.
///
/// # Errors
/// When that process belongs to another user, or the socket cannot be used.
pub(super) fn connect_if_listening(path: &Path) -> io::Result<Option<Channel>> {
    match Channel::connect(path) {
        Ok(channel) => Ok(Some(channel)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The path of the socket on which an agent listens for a successor.
pub(super) fn handover_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("hand-over.sock")
}

/// The first message of the old process, before anything stops.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offer {
    protocol: u16,
    /// The versions of the encodings of containers, aggregators and histories.
    versions: [u16; 3],
    /// The length of windows, in microseconds.
    window: u64,
    /// `http.listen` as configured.
    http_listen: String,
    admin_socket: PathBuf,
    /// The program's version, for messages.
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

    /// Why the process with the `other` offer cannot take over from the process with this one.
    pub(super) fn find_mismatch(&self, other: &Self) -> Option<String> {
        if (self.protocol, self.versions) != (other.protocol, other.versions) {
            return Some(format!(
                "version {} cannot read what version {} has; restart the agent instead",
                other.program, self.program
            ));
        }
        // Open windows are handed over, too.
        (self.window != other.window).then(|| "windows.length differs; restart the agent instead".to_owned())
    }

    /// Whether both processes have the same configured HTTP address.
    pub(super) fn has_listener_of(&self, other: &Self) -> bool {
        self.http_listen == other.http_listen
    }

    /// Whether the HTTP listener of this process has this port.
    pub(super) fn has_port(&self, port: u16) -> bool {
        self.http_listen.parse().is_ok_and(|listen: SocketAddr| listen.port() == port)
    }

    /// The number of this process, as it sees it itself.
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// The path of this process's admin socket, which may differ from the other's.
    pub(super) fn admin_socket(&self) -> &Path {
        &self.admin_socket
    }
}

/// One message before the pause.
#[derive(Serialize, Deserialize)]
pub(super) enum AheadMessage {
    /// A part of the store.
    Windows(Bytes),
    /// Snapshots of aggregators.
    Open(Vec<(Allocation, Bytes)>),
}

/// The last message of a hand-over, without its descriptors.
#[derive(Serialize, Deserialize)]
pub(super) struct FinalState {
    pub(super) manifest: Manifest,
    /// Windows closed since the last part, the position of the sequence, and which windows are gone.
    pub(super) part: Bytes,
    /// The state of the NRI plugin, and whether the first descriptor after those of the agent itself is its connection.
    pub(super) nri: Option<(Vec<u8>, bool)>,
}

/// The number of descriptors before those of containers.
pub(super) const SHARED: usize = 8;

/// The descriptors of the agent itself: the HTTP listener, the admin socket, the descriptor socket, the hand-over socket, and the
/// locks of the state directory and of the three sockets' names.
#[derive(Debug)]
pub struct AgentDescriptors(pub(super) [OwnedFd; SHARED]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::encode;
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
        assert_eq!(decode_message::<Offer>(&encode(&old)).unwrap(), old);
        assert!(decode_message::<Offer>(b"take").is_err());
    }

    #[test]
    fn a_step_is_waited_for_until_the_runtime_would_lose_its_patience() {
        let held = |millis| Some(Duration::from_millis(millis));
        assert_eq!(
            (SuccessorStep::Ready.remaining_time(None), SuccessorStep::Serving.remaining_time(None)),
            (PATIENCE, PATIENCE)
        );
        assert_eq!(SuccessorStep::Ready.remaining_time(held(200)), Duration::from_secs(1));
        assert_eq!(
            SuccessorStep::Serving.remaining_time(held(1200)),
            Duration::from_millis(400),
            "there is time for the second step"
        );
        assert_eq!(SuccessorStep::Serving.remaining_time(held(9000)), Duration::ZERO);
    }
}
