//! From one process to the next: everything the agent has, and nobody notices but for a pause.
//!
//! ```text
//! old                                  new
//!  offer: versions, what is fixed ───▶  can I read that, am I to run with the same?
//!       ◀─────────────────── take, or refuse and why
//!  closed windows ───────────────────▶
//!       ◀─────────────────────────── have   again with those that are new, until that takes no time
//!  shards let go: the pause begins
//!  descriptors, containers, the rest ▶  puts everything together, so that nothing can fail any more
//!       ◀────────────────────────── ready
//!  go ───────────────────────────────▶  receives: the pause is over
//!       ◀──────────────────────── serving
//!  bye, ends ────────────────────────▶  goes on for good
//! ```
//!
//! Whatever fails before the end, and whoever says nothing for too long: the old one goes on where it stopped, and the new
//! one ends.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::aggregate::SNAPSHOT_VERSION;
use crate::api::Api;
use crate::config::Config;
use crate::containers::{IMAGE_VERSION, Manifest};
use crate::net::clock;
use crate::net::passing::Channel;
use crate::shutdown::Pauser;
use crate::store::{HISTORY_VERSION, Sent};

/// The version of this conversation.
const PROTOCOL: u16 = 2;
/// Closed windows are sent again and again, each time those that are new, until that takes no longer than this: so long can
/// what was closed since have been in the making.
const SHORT: Duration = Duration::from_millis(20);
/// How often at most, where windows are closed as fast as they are sent.
const ROUNDS: usize = 8;
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

/// What goes over at last, beside descriptors.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    pub(super) manifest: Manifest,
    /// Windows that were closed since the last were sent, where the sequence is, and what is gone.
    pub(super) part: Vec<u8>,
}

/// How many descriptors come before those of containers.
pub(super) const SHARED: usize = 8;

/// The descriptors of the agent itself: HTTP, admin socket, the socket for descriptors, that for handing over, and the locks
/// of the state directory and of the three sockets.
#[derive(Debug)]
pub(super) struct Shared(pub(super) [OwnedFd; SHARED]);

impl Offer {
    pub(super) fn of(config: &Config) -> Self {
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
    pub(super) fn differs(&self, other: &Self) -> Option<String> {
        let needs_restart = |what: &str| format!("{what} differs; restart the agent instead");
        if (self.protocol, self.versions) != (other.protocol, other.versions) {
            return Some(format!(
                "version {} cannot read what version {} has; restart the agent instead",
                other.program, self.program
            ));
        }
        let fixed = [
            ("windows.length", self.window != other.window),
            ("http.listen", self.http_listen != other.http_listen),
            ("admin.socket", self.admin_socket != other.admin_socket),
        ];
        fixed.into_iter().find(|(_, differs)| *differs).map(|(what, _)| needs_restart(what))
    }
}

/// Where an agent listens for the process that takes over.
pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("hand-over.sock")
}

pub(super) fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    // Writing to memory fails only for types that postcard cannot express, and these it can.
    postcard::to_allocvec(value).unwrap_or_default()
}

/// # Errors
/// When the bytes are something else.
pub(super) fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Waits for one word.
pub(super) fn hears(channel: &Channel, word: &str) -> io::Result<()> {
    let (heard, _) = channel.receive(PATIENCE)?;
    match heard == word.as_bytes() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&heard).into_owned())),
    }
}

/// The other end of a connection that was accepted.
pub(super) fn accepted(stream: UnixStream) -> io::Result<Channel> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Channel::accepted(stream.into())
}

/// Waits for processes that want to take over. Tells when one has, and gives the connection, at whose end that one sees ours.
pub(super) async fn serve(
    listener: UnixListener,
    api: Api,
    shared: Arc<Shared>,
    pauser: Pauser,
    gone: mpsc::Sender<Channel>,
) {
    let mut drain = api.drain.clone();
    let parts = Arc::new((api, shared, pauser));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.started() => return,
        };
        let channel = match accepted.and_then(|(stream, _)| self::accepted(stream)) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(%error, "somebody who cannot take over");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let parts = Arc::clone(&parts);
        let handle = tokio::runtime::Handle::current();
        let given = tokio::task::spawn_blocking(move || {
            let (api, shared, pauser) = &*parts;
            converse(&channel, api, shared, pauser, &handle).map(|()| channel)
        });
        match given.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(channel) => {
                let _nobody_waits = gone.send(channel).await;
                return;
            }
            Err(error) => tracing::error!(%error, "nobody has taken over, and this process goes on"),
        }
    }
}

fn converse(
    channel: &Channel,
    api: &Api,
    shared: &Shared,
    pauser: &Pauser,
    handle: &tokio::runtime::Handle,
) -> io::Result<()> {
    channel.send(&to_bytes(&Offer::of(&api.config())), &[])?;
    hears(channel, "take")?;
    tracing::info!("another process takes over");
    let mut sent = Sent::default();
    for _ in 0..ROUNDS {
        let began = clock::since_boot();
        channel.send_all(&api.store.part(&mut sent), &[])?;
        hears(channel, "have")?;
        if clock::since_boot().saturating_sub(began) < SHORT {
            break;
        }
    }
    pauser.pause(true);
    let leaving = match handle.block_on(api.containers.hand_over()) {
        Ok(leaving) => leaving,
        Err(error) => {
            pauser.pause(false);
            return Err(error);
        }
    };
    let part = api.store.part(&mut sent);
    let given = give(channel, shared, &to_bytes(&(&leaving.manifest, part)), &leaving.descriptors);
    leaving.decide(given.is_ok());
    if given.is_err() {
        pauser.pause(false);
    }
    given
}

/// Everything that has to be there while nothing moves.
fn give(channel: &Channel, shared: &Shared, state: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let mut all = Vec::with_capacity(SHARED + descriptors.len());
    for descriptor in shared.0.iter().chain(descriptors) {
        all.push(descriptor.try_clone()?);
    }
    channel.send_all(state, &all)?;
    hears(channel, "ready")?;
    channel.send(b"go", &[])?;
    hears(channel, "serving")?;
    channel.send(b"bye", &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessEnvironment;

    #[test]
    fn what_cannot_be_gone_on_with_is_refused_by_name() {
        let offer = |text: &str| Offer::of(&Config::from_toml(text, &ProcessEnvironment).unwrap());
        let old = offer("");
        assert_eq!(old.differs(&offer("windows.keep = 5\nagent.shards = 3\nlimits.series = 7")), None);
        for (text, named) in [
            ("windows.length = \"20s\"", "windows.length"),
            ("http.listen = \"127.0.0.1:1\"", "http.listen"),
            ("admin.socket = \"/x\"", "admin.socket"),
        ] {
            assert!(old.differs(&offer(text)).unwrap().starts_with(named));
        }
        let newer = Offer { versions: [9, 9, 9], program: "9.9.9".to_owned(), ..old.clone() };
        assert!(old.differs(&newer).unwrap().contains("version 9.9.9 cannot read"));
        assert_eq!(from_bytes::<Offer>(&to_bytes(&old)).unwrap(), old);
        assert!(from_bytes::<Offer>(b"take").is_err());
    }
}
