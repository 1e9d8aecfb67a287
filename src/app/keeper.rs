//! `tallyport keeper`: a small process that keeps what an agent had, from that one's end to the start of the next.
//!
//! ```text
//! agent that ends                keeper                       agent that starts
//!   keep 1 ────────────────────▶
//!        ◀──────────────── yes
//!   state, descriptors ────────▶
//!        ◀─────────────── kept
//!   ends, and with it the line   ◀─────────────────── give 1
//!                                  kept ─────────────────────▶   or: nothing
//!                                  state, descriptors ───────▶   puts everything together
//!                                  lets go ◀─────────── taken
//! ```
//!
//! It knows nothing of what it keeps, so it may be of another version than the agents.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::handover::{self, PATIENCE};
use super::saved_state::{LetGo, SavedState};
use super::{StartError, raise_descriptor_limit};
use crate::net::passing::Channel;
use crate::net::unix;

/// What an agent says that leaves something, and one that looks for it. The number is the version of this conversation.
const KEEP: &str = "keep 1";
const GIVE: &str = "give 1";
/// What an agent answers that goes on with what was kept, and one that starts without it.
const TAKEN: &[u8] = b"taken";
const UNUSED: &[u8] = b"unused";
/// How long an agent may take to end once everything is kept, and to put everything together once it has it.
const ENDING: Duration = Duration::from_secs(20);

fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("keeper.sock")
}

/// A keeper that would keep what an agent has; none where none runs.
///
/// # Errors
/// When it is another user's, of another version, or says nothing.
pub(super) fn connect(state_dir: &Path) -> io::Result<Option<Channel>> {
    let Some(channel) = connect_if_running(state_dir)? else { return Ok(None) };
    channel.send(KEEP.as_bytes(), &[])?;
    handover::expect_word(&channel, "yes", PATIENCE)?;
    Ok(Some(channel))
}

/// Gives it everything.
///
/// # Errors
/// When it does not confirm that it has everything.
pub(super) fn store_state(keeper: &Channel, kept: &SavedState) -> io::Result<()> {
    keeper.send_all(&kept.bytes, &kept.descriptors)?;
    // A runtime whose connection is kept may disconnect the plugin meanwhile, which costs less than everything that is kept.
    handover::expect_word(keeper, "kept", PATIENCE)
}

/// What a keeper has for the agent that starts; nothing where none runs or it has nothing.
///
/// # Errors
/// When it is another user's, of another version, or says nothing.
pub(super) fn fetch_state(state_dir: &Path) -> io::Result<Option<(Channel, SavedState)>> {
    let Some(channel) = connect_if_running(state_dir)? else { return Ok(None) };
    channel.send(GIVE.as_bytes(), &[])?;
    // It may be waiting for the one before to end.
    let (word, _) = channel.receive(ENDING + PATIENCE)?;
    match word.as_slice() {
        b"nothing" => Ok(None),
        b"kept" => {
            let (bytes, descriptors) = channel.receive_all(PATIENCE)?;
            Ok(Some((channel, SavedState { bytes, descriptors })))
        }
        other => Err(io::Error::other(format!("the keeper says {}", String::from_utf8_lossy(other)))),
    }
}

/// Has it let go of everything, and waits until it has.
///
/// # Errors
/// When it has lost its patience and still keeps everything: the next agent that starts would be given the same again.
pub(super) fn let_go(keeper: &Channel, why: LetGo) -> io::Result<()> {
    let word = match why {
        LetGo::Used => TAKEN,
        LetGo::Unused => UNUSED,
    };
    keeper.send(word, &[]).map_err(|error| {
        io::Error::new(error.kind(), "the keeper no longer waits for an answer; start again")
    })?;
    // It closes the connection once it has let go, and if it ends now, it has let go, too.
    let _either_way = keeper.receive(PATIENCE);
    Ok(())
}

fn connect_if_running(state_dir: &Path) -> io::Result<Option<Channel>> {
    match Channel::connect(&socket_path(state_dir)) {
        Ok(channel) => Ok(Some(channel)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Keeps what agents with this state directory leave, each for `hold` at most, until the process is told to end.
///
/// # Errors
/// When another keeper is there, or its socket cannot be had.
pub async fn run(state_dir: PathBuf, hold: Duration) -> Result<(), StartError> {
    let system = |what| move |source| StartError::System { what, source };
    raise_descriptor_limit();
    let (listener, _name) = unix::listen_for_messages(&socket_path(&state_dir), 0o600)?;
    let listener = UnixListener::from_std(listener).map_err(system("the keeper's socket"))?;
    let mut term = signal(SignalKind::terminate()).map_err(system("listening to signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listening to signals"))?;
    tracing::info!(state = %state_dir.display(), ?hold, version = env!("CARGO_PKG_VERSION"), "keeping");
    let mut kept: Option<(SavedState, Instant)> = None;
    loop {
        let expiry = kept.as_ref().map_or_else(Instant::now, |(_, until)| *until);
        let accepted = tokio::select! {
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep_until(expiry), if kept.is_some() => {
                kept = None;
                tracing::error!(?hold, "no agent started in time; discarded the kept sockets and state. Start an agent: it restores containers from disk");
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let channel = accepted.and_then(|(stream, _)| handover::accept_channel(stream));
        let channel = match channel {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(%error, "refused a connection to the keeper");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let answered = tokio::task::spawn_blocking(move || handle_connection(&channel, kept, hold)).await;
        kept = answered.unwrap_or_else(|error| {
            tracing::error!(%error, "the keeper failed in a conversation; lost the kept sockets and state, if there were any. Start an agent: it restores containers from disk");
            None
        });
    }
    if kept.is_some() {
        tracing::error!(
            "the keeper ends while it holds sockets and state, which are lost. Start an agent: it restores containers from disk"
        );
    }
    Ok(())
}

/// Has one conversation; answers what is kept after it.
fn handle_connection(
    channel: &Channel,
    before: Option<(SavedState, Instant)>,
    hold: Duration,
) -> Option<(SavedState, Instant)> {
    let word = match channel.receive(PATIENCE) {
        Ok((word, _)) => word,
        Err(error) => {
            tracing::warn!(%error, "a process connected to the keeper and sent no request");
            return before;
        }
    };
    match std::str::from_utf8(&word) {
        Ok(KEEP) => match receive_state(channel) {
            Ok(kept) => {
                let (bytes, descriptors) = (kept.bytes.len(), kept.descriptors.len());
                tracing::info!(bytes, descriptors, ?hold, "keeping what an agent has left");
                Some((kept, Instant::now() + hold))
            }
            Err(error) => {
                tracing::warn!(%error, "an agent has left nothing after all");
                before
            }
        },
        Ok(GIVE) => match before {
            None => {
                let _either_way = channel.send(b"nothing", &[]);
                None
            }
            Some((kept, until)) => match send_state(channel, &kept) {
                Ok(LetGo::Used) => {
                    tracing::info!("an agent goes on with what was kept");
                    None
                }
                Ok(LetGo::Unused) => {
                    tracing::warn!(
                        "an agent could not use the kept state and started from disk; discarded it. The agent's log has the reason"
                    );
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "an agent did not take what is kept; still keeping it");
                    Some((kept, until))
                }
            },
        },
        _ => {
            let _either_way = channel.send(b"no: this keeper understands version 1 only", &[]);
            before
        }
    }
}

fn receive_state(channel: &Channel) -> io::Result<SavedState> {
    channel.send(b"yes", &[])?;
    let (bytes, descriptors) = channel.receive_all(ENDING)?;
    channel.send(b"kept", &[])?;
    // Until it has ended it writes what is on disk, and nobody else may.
    let _either_way = channel.receive(ENDING);
    Ok(SavedState { bytes, descriptors })
}

fn send_state(channel: &Channel, kept: &SavedState) -> io::Result<LetGo> {
    channel.send(b"kept", &[])?;
    channel.send_all(&kept.bytes, &kept.descriptors)?;
    let (word, _) = channel.receive(ENDING)?;
    match word.as_slice() {
        TAKEN => Ok(LetGo::Used),
        UNUSED => Ok(LetGo::Unused),
        other => Err(io::Error::other(String::from_utf8_lossy(other).into_owned())),
    }
}
