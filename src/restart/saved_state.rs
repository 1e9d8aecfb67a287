//! The state that an agent leaves for the next one where that is not there yet, and the stores where it waits.
//!
//! ```text
//! TERM ─▶ everything written that is on disk ─▶ shards let go ─▶ state and descriptors into a store ─▶ exit 0
//! start ─▶ does a store hold something? ─▶ put together ─▶ the store lets go of its copies ─▶ receives
//! ```
//!
//! The keeper and the service manager do not interpret what they hold. If it is lost, the files on disk are in the same
//! state as after a kill.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::conversation::{Offer, decode_message};
use super::holding::{Holding, Moving};
use super::received::{AssembledState, ReceivedAhead};
use crate::aggregate::{AggregatorSettings, encode};
use crate::config::AgentConfig;
use crate::store::SentStore;

/// A place where the state of an agent waits for the next one.
pub trait StateStore: std::fmt::Debug + Send {
    /// What the log calls it.
    fn name(&self) -> &'static str;

    /// Stores a state.
    ///
    /// # Errors
    /// When the store does not confirm that it holds everything.
    fn store_state(&self, state: &SavedState) -> io::Result<()>;

    /// Copies the state out of the store, which goes on holding it. `None` where there is none that can be used.
    ///
    /// # Errors
    /// When the store does not answer.
    fn fetch_state(&mut self) -> io::Result<Option<SavedState>>;

    /// Waits until the store has let go of the state that was fetched: from then on everything belongs to this process alone.
    ///
    /// # Errors
    /// When the store still holds the state, and would give it to the next agent that starts.
    fn let_go(&self, why: LetGo) -> io::Result<()>;
}

/// Why a store is to let go of a state.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum LetGo {
    /// An agent uses it.
    Used,
    /// An agent cannot use it.
    Unused,
}

/// A state, and the descriptors that go with it.
#[derive(Debug)]
pub struct SavedState {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// The format of the bytes. The offer is read before the state is decoded.
#[derive(Serialize, Deserialize)]
struct SavedContents {
    offer: Bytes,
    state: Bytes,
    /// How many of the descriptors, the last of them, keep the guard of listeners attached.
    guard: usize,
}

impl SavedState {
    /// The state of an agent that has stopped.
    ///
    /// # Errors
    /// When the containers are no longer suspended, or descriptors ran out.
    pub(super) fn from_moving(holding: &Holding, moving: &Moving<'_>) -> io::Result<Self> {
        let part = holding.movable_parts().store.next_part(&mut SentStore::default(), usize::MAX).bytes;
        let guard = moving.guard_descriptors();
        let contents = SavedContents {
            offer: encode(&Offer::from_config(&holding.current_config())).into(),
            state: moving.encode_final_state(part)?.into(),
            guard: guard.len(),
        };
        let mut descriptors = moving.clone_descriptors()?;
        for descriptor in guard {
            descriptors.push(descriptor.try_clone()?);
        }
        Ok(Self { bytes: encode(&contents), descriptors })
    }

    /// Decodes the state.
    ///
    /// # Errors
    /// When an agent of this version and configuration cannot use it.
    pub(super) fn assemble_state(
        mut self,
        config: &AgentConfig,
        settings: &Arc<AggregatorSettings>,
    ) -> io::Result<AssembledState> {
        let contents: SavedContents = decode_message(&self.bytes)?;
        let offer: Offer = decode_message(&contents.offer)?;
        if let Some(why) = offer.find_mismatch(&Offer::from_config(config)) {
            return Err(io::Error::other(why));
        }
        let count = self.descriptors.len().checked_sub(contents.guard);
        let count = count.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let guard = self.descriptors.split_off(count);
        let ready = AssembledState::from_messages(
            offer,
            ReceivedAhead::default(),
            (&contents.state, self.descriptors),
            settings,
        )?;
        Ok(AssembledState { guard, ..ready })
    }
}
