//! A container's history as bytes, for the next process.
//!
//! ```text
//! image  = "TPHI" version(u16, little endian) payload(postcard) xxh3-64 of all before(u64, little endian)
//! ```
//!
//! Layouts are written as changes, each from the one before; windows name them by fingerprint.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::History;
use crate::aggregate::{CodecError, KnownLayout, Layout, Standing, Window};
use crate::model::{Origin, Timestamp};

const MAGIC: &[u8; 4] = b"TPHI";
/// The version of an image that is written, and the only one that is read.
pub const HISTORY_VERSION: u16 = 1;

/// Why bytes are no history that can be used.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HistoryError {
    /// They do not start as one.
    #[error("not a container's history")]
    NotAHistory,
    /// They were written by a version that this one does not know.
    #[error("version {found} of a history is not known here, only {HISTORY_VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// They are cut off or changed.
    #[error("the history is damaged")]
    Damaged,
    /// A part of them cannot be used.
    #[error(transparent)]
    Part(#[from] CodecError),
}

#[derive(Serialize, Deserialize)]
struct HistoryV1 {
    origin: Arc<Origin>,
    opened: Timestamp,
    /// Each a change of the one before; the first, of none.
    layouts: Vec<Vec<u8>>,
    /// By the order of places.
    windows: Vec<PublishedV1>,
    standing: Option<(u32, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct PublishedV1 {
    first: u64,
    revs: Box<[u32]>,
    /// Which of the layouts.
    layout: u32,
    window: Vec<u8>,
}

/// The layouts of a history, each once, in the order they are met.
#[derive(Default)]
struct Layouts {
    known: Vec<KnownLayout>,
    changes: Vec<Vec<u8>>,
    places: HashMap<*const (), u32>,
}

impl Layouts {
    fn place(&mut self, layout: &Layout) -> (u32, u64) {
        let address = Arc::as_ptr(layout).cast::<()>();
        if let Some(place) = self.places.get(&address)
            && let Some(known) = self.known.get(*place as usize)
        {
            return (*place, known.fingerprint());
        }
        let known = KnownLayout::new(Arc::clone(layout));
        let change = match self.known.last() {
            Some(last) => known.change_from(last),
            None => known.change_from(&KnownLayout::default()),
        };
        let place = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let fingerprint = known.fingerprint();
        self.places.insert(address, place);
        self.known.push(known);
        self.changes.push(change);
        (place, fingerprint)
    }
}

impl History {
    /// Writes everything that is needed to go on elsewhere.
    #[must_use]
    pub fn to_image(&self) -> Vec<u8> {
        let mut layouts = Layouts::default();
        let mut published: Vec<_> = self.published().collect();
        published.sort_unstable_by_key(|published| published.first);
        let windows = published.into_iter().map(|published| {
            let (layout, fingerprint) = layouts.place(published.window.layout());
            let mut window = Vec::new();
            published.window.encode(fingerprint, &mut window);
            PublishedV1 { first: published.first, revs: published.revs.clone(), layout, window }
        });
        let windows = windows.collect();
        let standing = self.standing.as_ref().map(|standing| {
            let (layout, fingerprint) = layouts.place(standing.ledger.layout());
            let mut bytes = Vec::new();
            standing.encode(fingerprint, &mut bytes);
            (layout, bytes)
        });
        let history = HistoryV1 {
            origin: Arc::clone(&self.origin),
            opened: self.opened,
            layouts: layouts.changes,
            windows,
            standing,
        };
        let head = [MAGIC.as_slice(), &HISTORY_VERSION.to_le_bytes()].concat();
        // Writing to memory fails only for types that postcard cannot express, and these it can.
        let mut bytes = postcard::to_extend(&history, head).unwrap_or_default();
        let checksum = xxhash_rust::xxh3::xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The history that [`History::to_image`] wrote, with the places it had.
    ///
    /// # Errors
    /// When the bytes are no history, come from an unknown version, or are damaged.
    pub fn from_image(bytes: &[u8]) -> Result<Self, HistoryError> {
        let image = checked(bytes)?;
        let mut known = Vec::new();
        let mut last = KnownLayout::default();
        for change in &image.layouts {
            last = last.changed(change)?;
            known.push(last.clone());
        }
        let layout = |at: u32| known.get(at as usize).ok_or(HistoryError::Damaged);
        let mut history = Self::new(image.origin, image.opened);
        let mut after = 0;
        for PublishedV1 { first, revs, layout: at, window } in image.windows {
            let window = Window::decode(&window, layout(at)?)?;
            let length = window.len() as u64;
            let ends = first.checked_add(length).ok_or(HistoryError::Damaged)?;
            if first <= after || length == 0 || !(revs.is_empty() || revs.len() == window.len()) {
                return Err(HistoryError::Damaged);
            }
            after = ends - 1;
            history.keep_elsewhere(first, window, revs);
        }
        if let Some((at, bytes)) = image.standing {
            history.set_standing(Standing::decode(&bytes, layout(at)?)?);
        }
        Ok(history)
    }
}

fn checked(bytes: &[u8]) -> Result<HistoryV1, HistoryError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(HistoryError::NotAHistory)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(HistoryError::Damaged)?;
    let found = u16::from_le_bytes(*version);
    if found != HISTORY_VERSION {
        return Err(HistoryError::Version { found });
    }
    let (payload, checksum) = rest.split_last_chunk::<8>().ok_or(HistoryError::Damaged)?;
    let covered = bytes.get(..bytes.len() - checksum.len()).ok_or(HistoryError::Damaged)?;
    if xxhash_rust::xxh3::xxh3_64(covered) != u64::from_le_bytes(*checksum) {
        return Err(HistoryError::Damaged);
    }
    match postcard::take_from_bytes(payload) {
        Ok((image, [])) => Ok(image),
        _ => Err(HistoryError::Damaged),
    }
}

#[cfg(test)]
mod tests;
