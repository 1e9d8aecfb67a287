//! `tallyport keeper`: a small process that holds the state and descriptors of an agent from its end to the start of
//! the next one.
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
//! It does not interpret what it holds, so its version may differ from that of the agents.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::conversation::{
    PATIENCE, accept_channel, connect_if_listening, expect_decision, expect_word, send_word,
};
use super::resources::{ListenError, raise_descriptor_limit};
use super::saved_state::{LetGo, SavedState, StateStore};
use crate::net::passing::Channel;
use crate::net::unix;

/// Requests to store a state and to fetch it. The number is the version of this protocol.
const KEEP: &str = "keep 1";
const GIVE: &str = "give 1";
/// Accepts what an agent is about to leave.
const YES: &str = "yes";
/// Says that everything is kept: to the agent that leaves it, and before it is sent to the one that looks for it.
const KEPT: &str = "kept";
/// Says that there is nothing to send.
const NOTHING: &str = "nothing";
/// Replies of the new agent: it uses the stored state, or it starts without it.
const TAKEN: &str = "taken";
const UNUSED: &str = "unused";
/// How long an agent may take to end after storing its state, and to restore the state after receiving it.
const ENDING: Duration = Duration::from_secs(20);

fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("keeper.sock")
}

/// The agent's end of a conversation with the keeper.
#[derive(Debug)]
pub(super) struct Keeper(Channel);

impl Keeper {
    /// Connects to the keeper of a state directory. `None` where none runs.
    ///
    /// # Errors
    /// When it belongs to another user.
    pub(super) fn connect(state_dir: &Path) -> io::Result<Option<Self>> {
        Ok(connect_if_listening(&socket_path(state_dir))?.map(Self))
    }

    /// Connects to the keeper and asks whether it would keep what the agent has. `bound` bounds every wait for an answer.
    ///
    /// # Errors
    /// When it belongs to another user, is of another version, or does not answer.
    pub(super) fn connect_to_store(
        state_dir: &Path,
        bound: impl FnOnce(Channel) -> Channel,
    ) -> io::Result<Option<Self>> {
        let Some(Self(channel)) = Self::connect(state_dir)? else { return Ok(None) };
        let channel = bound(channel);
        send_word(&channel, KEEP)?;
        expect_word(&channel, YES, PATIENCE)?;
        Ok(Some(Self(channel)))
    }
}

impl StateStore for Keeper {
    fn name(&self) -> &'static str {
        "keeper"
    }

    fn store_state(&self, state: &SavedState) -> io::Result<()> {
        self.0.send_all(&state.bytes, &state.descriptors)?;
        // The container runtime may disconnect the plugin meanwhile, which costs less than losing the state.
        expect_decision(&self.0, KEPT, PATIENCE)
    }

    fn fetch_state(&mut self) -> io::Result<Option<SavedState>> {
        send_word(&self.0, GIVE)?;
        // It may be waiting for the agent before to end.
        let (word, _) = self.0.receive(ENDING + PATIENCE)?;
        match String::from_utf8_lossy(&word).as_ref() {
            NOTHING => Ok(None),
            KEPT => {
                let (bytes, descriptors) = self.0.receive_all(PATIENCE)?;
                Ok(Some(SavedState { bytes, descriptors }))
            }
            other => Err(io::Error::other(format!("the keeper says {other}"))),
        }
    }

    fn let_go(&self, why: LetGo) -> io::Result<()> {
        let word = match why {
            LetGo::Used => TAKEN,
            LetGo::Unused => UNUSED,
        };
        send_word(&self.0, word).map_err(|error| {
            io::Error::new(error.kind(), "the keeper no longer waits for an answer; start again")
        })?;
        // It closes the connection once it has released everything; its end does the same.
        let _either_way = self.0.receive(PATIENCE);
        Ok(())
    }
}

/// Keeps what agents with this state directory leave, each for `hold` at most, until the process is told to end.
///
/// # Errors
/// When another keeper runs, or its socket cannot be opened.
pub async fn run_keeper(state_dir: PathBuf, hold: Duration) -> Result<(), ListenError> {
    let system = |what| move |source| ListenError::System { what, source };
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
        let channel = accepted.and_then(|(stream, _)| accept_channel(stream));
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
            tracing::error!(%error, "the keeper failed while serving a connection; lost the kept sockets and state, if there were any. Start an agent: it restores containers from disk");
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

/// Serves one connection; returns what is held afterwards.
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
                let _either_way = send_word(channel, NOTHING);
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
            let _either_way = send_word(channel, "no: this keeper understands version 1 only");
            before
        }
    }
}

fn receive_state(channel: &Channel) -> io::Result<SavedState> {
    send_word(channel, YES)?;
    let (bytes, descriptors) = channel.receive_all(ENDING)?;
    send_word(channel, KEPT)?;
    // Until it has ended it writes files of the state directory, and no other agent may.
    let _either_way = channel.receive(ENDING);
    Ok(SavedState { bytes, descriptors })
}

fn send_state(channel: &Channel, kept: &SavedState) -> io::Result<LetGo> {
    send_word(channel, KEPT)?;
    channel.send_all(&kept.bytes, &kept.descriptors)?;
    let word = channel.receive_decision(ENDING)?;
    match String::from_utf8_lossy(&word).as_ref() {
        TAKEN => Ok(LetGo::Used),
        UNUSED => Ok(LetGo::Unused),
        other => Err(io::Error::other(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn a_keeper_cannot_confirm_what_the_agent_has_given_up() {
        let (agent, keeper) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let (agent, keeper) =
            (Channel::from_accepted(agent.into()).unwrap(), Channel::from_accepted(keeper.into()).unwrap());
        let agent = Keeper(agent.until_given_up(Arc::new(AtomicBool::new(true))));
        let state = SavedState { bytes: b"state".to_vec(), descriptors: Vec::new() };
        let given_up = agent.store_state(&state).unwrap_err();
        assert_eq!(given_up.kind(), io::ErrorKind::ConnectionAborted);
        let (bytes, _) = keeper.receive_all(PATIENCE).unwrap();
        assert_eq!(bytes, b"state");
        send_word(&keeper, KEPT).unwrap_err();
    }
}
