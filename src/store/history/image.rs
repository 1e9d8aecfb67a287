//! A container's history as bytes for the next process: as a whole, or in parts that each contain what the previous
//! ones did not.
//!
//! An image is a [`DocumentFormat`] document with the mark `TPHI`. Layouts are
//! written as changes, each from the one before; windows name them by fingerprint.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{History, Published, StoredWindow};
use crate::aggregate::{CodecError, ContainerSummary, KnownLayout, Layout, Ledger, Window};
use crate::model::{Allocation, Origin, Timestamp};
use crate::store::Cursor;
use crate::wal::{DocumentFormat, FormatError};

/// The version of an image that is written, and the only one that is read.
pub const HISTORY_VERSION: u16 = 8;
const FORMAT: DocumentFormat = DocumentFormat { mark: *b"TPHI", version: HISTORY_VERSION };

/// Why bytes cannot be used as a history.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HistoryError {
    /// They do not start with the magic number.
    #[error("not a container's history")]
    NotAHistory,
    /// They have an unsupported version.
    #[error("version {found} of a history is not supported, only {HISTORY_VERSION}")]
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

impl From<FormatError> for HistoryError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::OtherMark => Self::NotAHistory,
            FormatError::Version { found } => Self::Version { found },
            FormatError::Damaged | FormatError::TooLong { .. } => Self::Damaged,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct HistoryV4 {
    origin: Arc<Origin>,
    opened: Timestamp,
    /// The last place of the previous part, and how many layouts are known after it.
    after: (u64, u32),
    /// New layouts, each as a change from the previous one.
    layouts: Vec<Bytes>,
    /// By the order of places.
    windows: Vec<PublishedV2>,
    /// Starts of the intervals that are dated to the future.
    ahead: Vec<Timestamp>,
    /// The last place whose record was dropped.
    gone: u64,
    /// `None` if it has not changed.
    summary: Option<(u32, Bytes)>,
}

#[derive(Serialize, Deserialize)]
struct PublishedV2 {
    first: u64,
    revs: Box<[u32]>,
    /// Which of the layouts.
    layout: u32,
    window: Bytes,
    /// What was added, in the same layout, where that is not the window.
    added: Option<Bytes>,
    born: Option<(u64, u64)>,
}

/// The header of each part of a history.
#[derive(Clone, Debug)]
pub(in crate::store) struct HistoryHead {
    opened: Timestamp,
    /// Starts of the intervals that are dated to the future.
    ahead: Vec<Timestamp>,
    /// The last place whose record was dropped.
    gone: u64,
}

/// What another process has of a history.
#[derive(Debug, Default)]
pub(in crate::store) struct SentHistory {
    /// The last place.
    last: u64,
    layouts: LayoutTable,
    ledger: Option<Arc<Ledger>>,
}

/// A history that is received in parts.
#[derive(Debug)]
pub(in crate::store) struct ReceivedHistory {
    pub(in crate::store) history: History,
    last: u64,
    known: Vec<KnownLayout>,
}

/// The layouts of a history, each once, in the order they are met.
#[derive(Debug, Default)]
struct LayoutTable {
    known: Vec<KnownLayout>,
    changes: Vec<Bytes>,
    /// By address, which is unique because `known` keeps each layout alive.
    places: HashMap<usize, u32>,
}

/// How many layouts are known; the place of the next one.
#[expect(clippy::expect_used, reason = "a wrong place would give windows the series of another layout")]
fn number_of(known: &[KnownLayout]) -> u32 {
    u32::try_from(known.len()).expect("4 billion layouts take more memory than any limit allows")
}

impl LayoutTable {
    fn intern_layout(&mut self, layout: &Layout) -> (u32, u64) {
        let address = Arc::as_ptr(layout).cast::<()>().addr();
        if let Some(place) = self.places.get(&address)
            && let Some(known) = self.known.get(*place as usize)
        {
            return (*place, known.fingerprint());
        }
        let known = KnownLayout::new(Arc::clone(layout));
        let change = match self.known.last() {
            Some(last) => known.encode_change_from(last),
            None => known.encode_change_from(&KnownLayout::default()),
        };
        let place = number_of(&self.known);
        let fingerprint = known.fingerprint();
        self.places.insert(address, place);
        self.known.push(known);
        self.changes.push(change.into());
        (place, fingerprint)
    }
}

impl History {
    /// Encodes the whole history for another process.
    #[must_use]
    pub fn to_image(&self) -> Vec<u8> {
        let mut published: Vec<_> = self.published_windows().cloned().collect();
        published.sort_unstable_by_key(|published| published.first);
        let summary = self.summary.as_ref();
        let (image, _) =
            SentHistory::default().write_part(&self.origin, &self.to_head(), &published, summary, usize::MAX);
        image
    }

    /// The header for a part of this history.
    pub(in crate::store) fn to_head(&self) -> HistoryHead {
        let ahead = self.ahead.iter().filter_map(|kept| Some(kept.span()?.start)).collect();
        HistoryHead { opened: self.opened, ahead, gone: self.gone }
    }

    /// The history that [`History::to_image`] wrote, with the places it had.
    ///
    /// # Errors
    /// When the bytes are not a history, have an unknown version, or are damaged.
    pub fn from_image(bytes: &[u8]) -> Result<Self, HistoryError> {
        Ok(ReceivedHistory::add(None, Allocation(0), bytes)?.history)
    }
}

impl SentHistory {
    /// Whether a part would contain nothing new.
    pub(in crate::store) fn is_current(
        &self,
        published: &[Arc<Published>],
        summary: Option<&ContainerSummary>,
    ) -> bool {
        let same = match (&self.ledger, summary) {
            // Each closed window comes with a new ledger.
            (Some(sent), Some(now)) => Arc::ptr_eq(sent, &now.ledger),
            (None, None) => true,
            _ => false,
        };
        same && published.iter().all(|published| published.last_seq() <= self.last)
    }

    /// Encodes the windows after those already sent, up to about `most` bytes, and the summary. Returns the bytes, and
    /// whether nothing is left.
    pub(in crate::store) fn write_part(
        &mut self,
        origin: &Arc<Origin>,
        head: &HistoryHead,
        published: &[Arc<Published>],
        summary: Option<&ContainerSummary>,
        most: usize,
    ) -> (Vec<u8>, bool) {
        let after = (self.last, number_of(&self.layouts.known));
        let (mut windows, mut size, mut last) = (Vec::new(), 0, self.last);
        let mut unwritten = published.iter().filter(|published| published.first > after.0).peekable();
        while let Some(published) = unwritten.next_if(|_| size < most) {
            let stored = &published.kept;
            let (layout, fingerprint) = self.layouts.intern_layout(stored.window.layout());
            let encode = |window: &Window| {
                let mut bytes = Vec::new();
                window.encode(fingerprint, &mut bytes);
                Bytes::from(bytes)
            };
            let (window, added) = (encode(&stored.window), stored.added.as_deref().map(encode));
            size += window.len() + added.as_ref().map_or(0, Bytes::len);
            last = published.last_seq();
            let (first, revs) = (published.first, stored.revs.clone());
            let born = stored.born.map(|born| (born.epoch, born.seq));
            windows.push(PublishedV2 { first, revs, layout, window, added, born });
        }
        let whole = unwritten.peek().is_none();
        // The summary belongs to the last window.
        let summary = summary.filter(|_| whole);
        let changed = summary.filter(|_| !self.is_current(&[], summary));
        if whole {
            self.ledger = summary.map(|summary| Arc::clone(&summary.ledger));
        }
        let summary = changed.map(|summary| {
            let (layout, fingerprint) = self.layouts.intern_layout(summary.ledger.layout());
            let mut bytes = Vec::new();
            summary.encode(fingerprint, &mut bytes);
            (layout, Bytes::from(bytes))
        });
        self.last = last;
        let layouts = std::mem::take(&mut self.layouts.changes);
        let HistoryHead { opened, ahead, gone } = head.clone();
        let origin = Arc::clone(origin);
        let part = HistoryV4 { origin, opened, after, layouts, windows, ahead, gone, summary };
        (FORMAT.encode_document(&part), whole)
    }
}

impl ReceivedHistory {
    /// Adds a part to those received before.
    ///
    /// # Errors
    /// When the bytes are not a part, have an unknown version, are damaged, or do not follow the previous part.
    pub(in crate::store) fn add(
        before: Option<Self>,
        allocation: Allocation,
        bytes: &[u8],
    ) -> Result<Self, HistoryError> {
        let part: HistoryV4 = FORMAT.decode_document(bytes)?;
        let new = || Self { history: History::new(part.origin, part.opened), last: 0, known: Vec::new() };
        let mut all = before.unwrap_or_else(new);
        all.history.set_gone(part.gone);
        if part.after != (all.last, number_of(&all.known)) {
            return Err(HistoryError::Damaged);
        }
        for change in &part.layouts {
            let next = all.known.last().unwrap_or(&KnownLayout::default()).apply_change(change)?;
            all.known.push(next);
        }
        for PublishedV2 { first, revs, layout, window, added, born } in part.windows {
            let layout = all.known.get(layout as usize).ok_or(HistoryError::Damaged)?;
            let window = Window::decode(&window, layout)?;
            let added = added.map(|added| Window::decode(&added, layout)).transpose()?.map(Box::new);
            let length = window.len() as u64;
            let ends = first.checked_add(length).ok_or(HistoryError::Damaged)?;
            if first <= all.last || length == 0 || !(revs.is_empty() || revs.len() == window.len()) {
                return Err(HistoryError::Damaged);
            }
            all.last = ends - 1;
            let born = born.map(|(epoch, seq)| Cursor { epoch, seq });
            let stored = StoredWindow { window, revs, added, born };
            let published = Arc::new(Published::new(allocation, all.history.origin(), stored, first));
            if part.ahead.contains(&published.window().span.start) {
                all.history.keep_ahead(published);
            } else {
                all.history.keep_window(published);
            }
        }
        if let Some((layout, bytes)) = part.summary {
            let layout = all.known.get(layout as usize).ok_or(HistoryError::Damaged)?;
            all.history.set_summary(ContainerSummary::decode(&bytes, layout)?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
