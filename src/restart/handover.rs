//! Handing over everything the agent has to the next process, at the cost of a short pause.
//!
//! ```text
//! old                                  new
//!  offer: versions, what is fixed ───▶  can it be read and gone on with?
//!       ◀─────────────────── take; or a refusal; or end, and then the new one starts from disk; or stop
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
//! handed over the old process waits less long ([`SuccessorStep`]), so that the runtime does not disconnect the plugin.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ahead::Sender;
use super::conversation::{
    BYE, END, GO, Offer, PATIENCE, READY, SERVING, STOP, SuccessorStep, TAKE, accept_channel, expect_word,
    send_word,
};
use super::fd_store::FdStore;
use super::holding::{Holding, Moving};
use super::keeper::Keeper;
use super::saved_state::{SavedState, StateStore};
use crate::aggregate::encode;
use crate::net::passing::Channel;
use crate::shard::SentAhead;
use crate::shutdown::Drain;

/// The outcome of a hand-over, with the connection to the successor.
#[derive(Debug)]
pub enum Successor {
    /// It has taken over. It waits for the end of the connection, which comes when this process has released
    /// everything.
    HasTakenOver(Channel),
    /// It cannot continue with what this process has, and waits for the end of the connection to start from what is on disk.
    WaitsForTheEnd(Channel),
    /// It is no successor: it asks this process to end, and waits for the end of the connection.
    AsksToEnd(Channel),
}

/// Waits for processes that want to take over, and sends the one that does to `successors`.
pub async fn serve_successors(
    listener: UnixListener,
    holding: Arc<Holding>,
    mut drain: Drain,
    successors: mpsc::Sender<Successor>,
) {
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
        let (holding, handle) = (Arc::clone(&holding), Handle::current());
        let given = tokio::task::spawn_blocking(move || hand_over(channel, &holding, &handle));
        match given.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(successor) => {
                let _ending_anyway = successors.send(successor).await;
                return;
            }
            Err(error) => tracing::error!(%error, "hand-over failed; continuing"),
        }
    }
}

fn hand_over(channel: Channel, holding: &Holding, handle: &Handle) -> io::Result<Successor> {
    if holding.is_told_to_end() {
        return Err(io::Error::other("the agent is shutting down"));
    }
    let channel = holding.until_given_up(channel);
    channel.send(&encode(&Offer::from_config(&holding.current_config())), &[])?;
    let (wanted, _) = channel.receive(PATIENCE)?;
    match String::from_utf8_lossy(&wanted).as_ref() {
        TAKE => {}
        END => return Ok(Successor::WaitsForTheEnd(channel)),
        STOP => return Ok(Successor::AsksToEnd(channel)),
        refusal => return Err(io::Error::other(refusal)),
    }
    // From here on, a signal to end waits for the outcome.
    let claim = holding.claim_for_successor()?;
    tracing::info!("handing over to another process");
    let mut sent = Sender { channel: &channel, holding, handle }.send()?;
    let moving = claim.stop_agent(sent.open, handle)?;
    let part = holding.movable_parts().store.next_part(&mut sent.windows, usize::MAX).bytes;
    let state = moving.encode_final_state(part);
    let given =
        state.and_then(|state| send_final_state(&channel, &moving, &state, &moving.clone_descriptors()?));
    moving.conclude_move(given.is_ok());
    given.map(|()| Successor::HasTakenOver(channel))
}

/// Sends the final state, and waits until the other process receives datagrams.
fn send_final_state(
    channel: &Channel,
    moving: &Moving<'_>,
    state: &[u8],
    descriptors: &[OwnedFd],
) -> io::Result<()> {
    channel.send_all(state, descriptors)?;
    expect_word(channel, READY, moving.remaining_time(SuccessorStep::Ready))?;
    send_word(channel, GO)?;
    expect_word(channel, SERVING, moving.remaining_time(SuccessorStep::Serving))?;
    send_word(channel, BYE)
}

/// Finds a store that would take this agent's state: the keeper, or else the service manager.
pub async fn find_store(holding: &Arc<Holding>) -> Option<Box<dyn StateStore>> {
    let holding = Arc::clone(holding);
    let found = tokio::task::spawn_blocking(move || {
        let state_dir = &holding.current_config().state_dir;
        match Keeper::connect_to_store(state_dir, |channel| holding.until_given_up(channel)) {
            Ok(Some(keeper)) => return Some(Box::new(keeper) as Box<dyn StateStore>),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the keeper cannot be used"),
        }
        FdStore::find().map(|store| Box::new(store) as Box<_>)
    });
    found.await.unwrap_or_default()
}

/// Stores everything for the next agent. Meanwhile nothing is received. If this fails, the agent goes on, and `None` is returned.
pub async fn save_state(store: Box<dyn StateStore>, holding: Arc<Holding>) -> Option<Box<dyn StateStore>> {
    let (name, handle) = (store.name(), Handle::current());
    let saved = tokio::task::spawn_blocking(move || {
        let moving = holding.claim_move()?.stop_agent(SentAhead::new(), &handle)?;
        let saved = SavedState::from_moving(&holding, &moving).and_then(|state| store.store_state(&state));
        moving.conclude_move(saved.is_ok());
        saved.map(|()| store)
    });
    match saved.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(store) => {
            tracing::info!(to = name, "saved the state for the next agent");
            Some(store)
        }
        Err(error) => {
            tracing::error!(to = name, %error, "cannot save the state for the next agent; draining instead");
            None
        }
    }
}
