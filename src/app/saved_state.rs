//! What an agent that ends leaves for the next one where that is not there yet: a state, and descriptors that go with it.
//!
//! ```text
//! TERM ─▶ everything written that is on disk ─▶ shards let go ─▶ state and descriptors to who keeps them ─▶ exit 0
//! start ─▶ is anything kept? ─▶ put together ─▶ it lets go of its copies ─▶ receives
//! ```
//!
//! The keeper and the service manager do not interpret what they hold. Should it be lost, what is on disk is what a
//! kill would have left.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ahead::Ahead;
use super::fd_store::{self, FdStore};
use super::handover::{self, Offer, to_bytes};
use super::keeper;
use super::moving::{Holding, Moving, SHARED};
use super::running::Running;
use super::windows::AgentWindowLog;
use crate::aggregate::AggregatorSettings;
use crate::config::AgentConfig;
use crate::containers::Arriving;
use crate::model::Timestamp;
use crate::net::passing::Channel;
use crate::nri::Carried;
use crate::shard::SentAhead;
use crate::store::{ReceivedStore, SentStore};

/// A state, and the descriptors that go with it.
#[derive(Debug)]
pub(super) struct SavedState {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// What the bytes are. The first is read before anything is made of the second.
#[derive(Serialize, Deserialize)]
struct SavedContents {
    offer: Bytes,
    state: Bytes,
    /// How many of the descriptors, the last of them, keep the guard of listeners up.
    guard: usize,
}

/// Why what is kept is to be let go of.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum LetGo {
    /// An agent goes on with it.
    Used,
    /// An agent cannot go on with it.
    Unused,
}

/// Where it is kept.
#[derive(Debug)]
pub(super) enum SavedStateStore {
    /// `tallyport keeper`.
    Keeper(Channel),
    /// The service manager.
    Store(FdStore),
}

/// Everything of the agent before, ready to be gone on with.
#[derive(Debug)]
pub(super) struct AssembledState {
    /// When it had come, since the machine was booted.
    pub(super) came: Duration,
    pub(super) received: ReceivedStore,
    pub(super) arriving: Arriving,
    pub(super) not_before: Timestamp,
    pub(super) shared: [OwnedFd; SHARED],
    /// What the agent before had of the NRI plugin.
    pub(super) nri: Option<Carried>,
    /// What the agent before ran with.
    pub(super) offer: Offer,
    /// Keeps the guard up until there is another.
    pub(super) guard: Vec<OwnedFd>,
}

impl SavedStateStore {
    /// The place that would keep this agent's state, if there is one.
    pub(super) fn find(config: &AgentConfig) -> Option<Self> {
        match keeper::connect(&config.state_dir) {
            Ok(Some(keeper)) => return Some(Self::Keeper(keeper)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the keeper cannot be used"),
        }
        FdStore::find().map(Self::Store)
    }

    /// Leaves everything there. While that goes on nothing is received; if it fails, this agent goes on.
    pub(super) fn save_state(
        &self,
        running: &Running,
        holding: &Holding,
        handle: &tokio::runtime::Handle,
    ) -> io::Result<()> {
        let moving = holding.claim_move()?.stop(running, SentAhead::new(), handle)?;
        let left = SavedState::from_moving(running, &moving).and_then(|kept| match self {
            Self::Keeper(channel) => keeper::store_state(channel, &kept),
            Self::Store(store) => store.store_state(&kept),
        });
        moving.conclude_move(left.is_ok());
        left
    }

    /// Has its copies let go of: from now on everything is this process's alone.
    ///
    /// # Errors
    /// When it still has them, and would give them to the next agent that starts.
    pub(super) fn let_go(&self, why: LetGo) -> io::Result<()> {
        match self {
            Self::Keeper(channel) => keeper::let_go(channel, why),
            Self::Store(store) => {
                store.let_go();
                Ok(())
            }
        }
    }

    /// What it is called in the log.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Keeper(_) => "keeper",
            Self::Store(_) => "service manager",
        }
    }
}

/// Leaves everything to who keeps it for the next agent, if anybody does. Answers who that is, and the window log.
pub(super) async fn save_for_next_agent(
    running: Running,
    holding: Arc<Holding>,
    mut window_log: Option<AgentWindowLog>,
) -> (Option<SavedStateStore>, Option<AgentWindowLog>) {
    let Some(place) = SavedStateStore::find(&running.current_config()) else { return (None, window_log) };
    let place = match place {
        SavedStateStore::Keeper(channel) => SavedStateStore::Keeper(holding.until_given_up(channel)),
        place @ SavedStateStore::Store(_) => place,
    };
    // Should what is kept be lost, this is what comes back.
    if let Some(log) = window_log.take() {
        window_log = Some(log.write_now().await);
    }
    let name = place.name();
    let handle = tokio::runtime::Handle::current();
    let left =
        tokio::task::spawn_blocking(move || place.save_state(&running, &holding, &handle).map(|()| place));
    match left.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(place) => {
            tracing::info!(to = name, "everything is left for the next agent");
            (Some(place), window_log)
        }
        Err(error) => {
            tracing::error!(to = name, %error, "nothing could be left for the next agent");
            (None, window_log)
        }
    }
}

/// What is kept for the agent of this state directory.
pub(super) fn find(
    config: &AgentConfig,
    inherited: fd_store::Inherited,
) -> Option<(SavedStateStore, SavedState)> {
    match keeper::fetch_state(&config.state_dir) {
        Ok(Some((keeper, kept))) => return Some((SavedStateStore::Keeper(keeper), kept)),
        Ok(None) => {}
        // If it has something it has the state directory, too, and that is said next.
        Err(error) => tracing::warn!(%error, "the keeper cannot be asked"),
    }
    inherited.into_saved_state().map(|(store, kept)| (SavedStateStore::Store(store), kept))
}

impl SavedState {
    fn from_moving(running: &Running, moving: &Moving<'_>) -> io::Result<Self> {
        let part = running.store.next_part(&mut SentStore::default(), usize::MAX).bytes;
        let guard = moving.guard_descriptors();
        let contents = SavedContents {
            offer: to_bytes(&Offer::from_config(&running.current_config())).into(),
            state: moving.encode_final_state(part)?.into(),
            guard: guard.len(),
        };
        let mut descriptors = moving.clone_descriptors()?;
        for descriptor in guard {
            descriptors.push(descriptor.try_clone()?);
        }
        Ok(Self { bytes: to_bytes(&contents), descriptors })
    }

    /// Puts everything together.
    ///
    /// # Errors
    /// When an agent of this version and configuration cannot go on with it.
    pub(super) fn read(
        mut self,
        config: &AgentConfig,
        settings: &Arc<AggregatorSettings>,
    ) -> io::Result<AssembledState> {
        let contents: SavedContents = handover::from_bytes(&self.bytes)?;
        let offer: Offer = handover::from_bytes(&contents.offer)?;
        if let Some(why) = offer.find_mismatch(&Offer::from_config(config)) {
            return Err(io::Error::other(why));
        }
        let count = self.descriptors.len().checked_sub(contents.guard);
        let count = count.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let guard = self.descriptors.split_off(count);
        let ready = AssembledState::from_messages(
            offer,
            Ahead::default(),
            (&contents.state, self.descriptors),
            settings,
        )?;
        Ok(AssembledState { guard, ..ready })
    }
}
