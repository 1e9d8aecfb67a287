//! What comes from the agent before, and putting it together so that nothing can fail any more.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::conversation::{AgentDescriptors, AheadMessage, FinalState, Offer, SHARED, decode_message};
use crate::aggregate::AggregatorSettings;
use crate::containers::{self, Arriving};
use crate::model::Timestamp;
use crate::net::clock;
use crate::nri::Carried;
use crate::store::ReceivedStore;

/// What has come before the pause.
#[derive(Debug, Default)]
pub(super) struct ReceivedAhead {
    windows: ReceivedStore,
    open: containers::Arrived,
}

impl ReceivedAhead {
    /// Reads a message.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn add(&mut self, message: &[u8], settings: &Arc<AggregatorSettings>) -> io::Result<()> {
        match decode_message(message)? {
            AheadMessage::Windows(part) => self.windows.add(&part).map_err(io::Error::other),
            AheadMessage::Open(snapshots) => self.open.add(snapshots, settings).map_err(io::Error::other),
        }
    }
}

/// Everything of the agent before, ready to continue with.
#[derive(Debug)]
pub struct AssembledState {
    /// When everything had come, since the machine was booted.
    pub came: Duration,
    pub received: ReceivedStore,
    pub arriving: Arriving,
    /// Up to where the agent before had closed windows.
    pub not_before: Timestamp,
    /// The descriptors of the agent itself.
    pub shared: AgentDescriptors,
    /// What the agent before had of the NRI plugin.
    pub nri: Option<Carried>,
    /// The offer of the previous agent.
    pub offer: Offer,
    /// Keeps the guard attached until this process has attached its own.
    pub guard: Vec<OwnedFd>,
}

impl AssembledState {
    /// Combines the last message with what came before the pause.
    ///
    /// # Errors
    /// When they do not fit.
    pub(super) fn from_messages(
        offer: Offer,
        ahead: ReceivedAhead,
        (state, mut descriptors): (&[u8], Vec<OwnedFd>),
        settings: &Arc<AggregatorSettings>,
    ) -> io::Result<Self> {
        let came = clock::since_boot();
        let state: FinalState = decode_message(state)?;
        let mut received = ahead.windows;
        received.add(&state.part).map_err(io::Error::other)?;
        let has_connection = state.nri.as_ref().is_some_and(|(_, connected)| *connected);
        let own = SHARED + usize::from(has_connection);
        if descriptors.len() < own {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let of_containers = descriptors.split_off(own);
        let connection = descriptors.split_off(SHARED).pop();
        let nri = state.nri.map(|(state, _)| Carried { state, socket: connection });
        let not_before = state.manifest.not_before;
        let arriving =
            state.manifest.into_arriving(ahead.open, of_containers, settings).map_err(io::Error::other)?;
        let shared = descriptors.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let shared = AgentDescriptors(shared);
        Ok(Self { came, received, arriving, not_before, shared, guard: Vec::new(), nri, offer })
    }
}

/// For fuzz targets: the messages of a hand-over as the process that takes over reads them, without the other process.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::*;
    use crate::aggregate::encode;
    use crate::containers::Arrived;

    /// Reads an offer. Returns it encoded again, or `None` if it is invalid.
    #[must_use]
    pub fn roundtrip_offer(bytes: &[u8]) -> Option<Vec<u8>> {
        decode_message::<Offer>(bytes).ok().map(|offer| encode(&offer))
    }

    /// Reads a message that comes before the pause: a part of the windows, or snapshots of aggregators.
    ///
    /// # Errors
    /// What was wrong with it, as a sentence.
    pub fn message_ahead(bytes: &[u8], settings: &Arc<AggregatorSettings>) -> Result<(), String> {
        ReceivedAhead::default().add(bytes, settings).map_err(|error| error.to_string())
    }

    /// Reads the last message, without descriptors, on top of the windows received before.
    ///
    /// # Errors
    /// What was wrong with it, as a sentence.
    pub fn last_message(
        received: &mut ReceivedStore,
        bytes: &[u8],
        settings: &Arc<AggregatorSettings>,
    ) -> Result<Arriving, String> {
        let state = decode_message::<FinalState>(bytes).map_err(|error| error.to_string())?;
        received.add(&state.part).map_err(|error| error.to_string())?;
        let arriving = state.manifest.into_arriving(Arrived::default(), Vec::new(), settings);
        arriving.map_err(|error| error.to_string())
    }
}
