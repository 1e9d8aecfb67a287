//! What fuzz targets feed: the messages of a hand-over as the process that takes over reads them, without the other process.

use std::sync::Arc;

use super::ahead::Ahead;
use super::handover::{Offer, from_bytes, to_bytes};
use super::moving::FinalState;
use crate::aggregate::AggregatorSettings;
use crate::containers::{Arrived, Arriving};
use crate::store::ReceivedStore;

/// Reads an offer. Answers its bytes as it would be sent again, or nothing where it is none.
#[must_use]
pub fn roundtrip_offer(bytes: &[u8]) -> Option<Vec<u8>> {
    from_bytes::<Offer>(bytes).ok().map(|offer| to_bytes(&offer))
}

/// Reads a message that comes before the pause: a part of the windows, or snapshots of aggregators.
///
/// # Errors
/// What was wrong with it, as a sentence.
pub fn message_ahead(bytes: &[u8], settings: &Arc<AggregatorSettings>) -> Result<(), String> {
    Ahead::default().add(bytes, settings).map_err(|error| error.to_string())
}

/// Reads the last message, which came without descriptors, on top of the windows that came before.
///
/// # Errors
/// What was wrong with it, as a sentence.
pub fn last_message(
    received: &mut ReceivedStore,
    bytes: &[u8],
    settings: &Arc<AggregatorSettings>,
) -> Result<Arriving, String> {
    let state = from_bytes::<FinalState>(bytes).map_err(|error| error.to_string())?;
    received.add(&state.part).map_err(|error| error.to_string())?;
    state.manifest.into_arriving(Arrived::default(), Vec::new(), settings).map_err(|error| error.to_string())
}
