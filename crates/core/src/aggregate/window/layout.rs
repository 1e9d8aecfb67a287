//! Layouts as bytes: each is written as the changes to a layout that is already known.
//!
//! A container creates a series now and then, and all its windows refer to series by their place. Written in full, a
//! layout of ten thousand series would take more bytes than the windows that use it. A change contains the fingerprints
//! of both layouts, so that it is detected if a change in between was lost.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallyport_wal::decode;
use xxhash_rust::xxh3::Xxh3;

use super::{CodecError, Layout};
use crate::model::Series;
use tallyport_wal::{encode, encode_after};

/// Places from this on are invalid: `limits.series` is at most this.
const PLACES: u32 = 10_000_000;

/// A layout, and the fingerprint that identifies it in encoded data.
#[derive(Clone, Debug)]
pub struct KnownLayout {
    layout: Layout,
    fingerprint: u64,
}

#[derive(Serialize, Deserialize)]
struct ChangeV1 {
    from: u64,
    to: u64,
    /// Ascending.
    places: Vec<(u32, Option<Arc<Series>>)>,
}

impl Default for KnownLayout {
    /// Without any series.
    fn default() -> Self {
        Self::new(Layout::from([]))
    }
}

impl KnownLayout {
    /// Computes the layout's fingerprint.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        let fingerprint = hash_layout(&layout);
        Self { layout, fingerprint }
    }

    /// A layout that is known by a number instead of its contents. It may have grown since a window was encoded with the number,
    /// if each series is still at its place.
    #[must_use]
    pub fn with_identity(layout: Layout, identity: u64) -> Self {
        Self { layout, fingerprint: identity }
    }

    /// The layout.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of places without a series.
    #[must_use]
    pub fn count_vacant(&self) -> usize {
        self.layout.iter().filter(|series| series.is_none()).count()
    }

    /// The fingerprint of its series and their places; vacant places at the end make no difference.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The changes that turn `from` into this layout, as bytes.
    #[must_use]
    pub fn encode_change_from(&self, from: &Self) -> Vec<u8> {
        let length = self.layout.len().max(from.layout.len());
        let at = |layout: &Layout, place: usize| layout.get(place).cloned().flatten();
        let changed = (0..length).filter_map(|place| {
            let (old, new) = (at(&from.layout, place), at(&self.layout, place));
            let same = match (&old, &new) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
                (None, None) => true,
                _ => false,
            };
            Some((u32::try_from(place).ok().filter(|_| !same)?, new))
        });
        let change = ChangeV1 { from: from.fingerprint, to: self.fingerprint, places: changed.collect() };
        encode(&change)
    }

    /// Applies a change that [`KnownLayout::encode_change_from`] returned to this layout.
    ///
    /// # Errors
    /// If the bytes are not a change, or a change of another layout.
    pub fn apply_change(&self, change: &[u8]) -> Result<Self, CodecError> {
        let change: ChangeV1 = decode(change).ok_or(CodecError::Damaged)?;
        if change.from != self.fingerprint {
            return Err(CodecError::OtherLayout);
        }
        let ascending = change.places.is_sorted_by(|(a, _), (b, _)| a < b);
        let last = change.places.last().map_or(0, |(place, _)| *place);
        // Vacant places behind the last series do not count for the fingerprint: a forged one would only take memory.
        let extends = last as usize >= self.layout.len();
        let ends_vacant = change.places.last().is_some_and(|(_, series)| series.is_none());
        if !ascending || last >= PLACES || (extends && ends_vacant) {
            return Err(CodecError::Damaged);
        }
        let length = if change.places.is_empty() { 0 } else { last as usize + 1 };
        let mut changes = change.places.into_iter().peekable();
        // Of a known length, so that the series are written where they stay.
        let series = (0..self.layout.len().max(length)).map(|place| {
            match changes.next_if(|(changed, _)| *changed as usize == place) {
                Some((_, new)) => new,
                None => self.layout.get(place).cloned().flatten(),
            }
        });
        let changed = Self::new(series.collect());
        // A version that computes fingerprints differently is not damage that a checksum would detect.
        if changed.fingerprint == change.to { Ok(changed) } else { Err(CodecError::OtherLayout) }
    }
}

fn hash_layout(layout: &Layout) -> u64 {
    let mut hasher = Xxh3::new();
    let mut bytes = Vec::new();
    for (place, series) in layout.iter().enumerate() {
        let Some(series) = series else { continue };
        bytes.clear();
        bytes.extend_from_slice(&(place as u64).to_le_bytes());
        bytes = encode_after(bytes, series);
        hasher.update(&bytes);
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MetricType, TagSet, Timestamp};

    fn series(name: &str) -> Arc<Series> {
        Arc::new(Series {
            name: name.into(),
            tags: TagSet::from_pairs([("route", "/pay")]),
            metric_type: MetricType::Counter,
            created: Timestamp::from_secs(1_767_225_600),
        })
    }

    fn layout<const N: usize>(series: [Option<Arc<Series>>; N]) -> KnownLayout {
        KnownLayout::new(Layout::from(series))
    }

    #[test]
    fn a_change_holds_only_what_changed_and_gives_the_layout_back() {
        let first = layout([Some(series("a")), Some(series("b")), Some(series("c"))]);
        let whole = first.encode_change_from(&KnownLayout::default());
        let read = KnownLayout::default().apply_change(&whole).unwrap();
        assert_eq!(read.layout(), first.layout());
        let second = layout([Some(series("a")), None, Some(series("c")), Some(series("d"))]);
        let change = second.encode_change_from(&read);
        assert!(change.len() < whole.len());
        assert_eq!(read.apply_change(&change).unwrap().layout(), second.layout());
    }

    #[test]
    fn a_change_of_another_layout_is_refused() {
        let (first, second) = (layout([Some(series("a"))]), layout([Some(series("b"))]));
        let change = second.encode_change_from(&first);
        assert_eq!(KnownLayout::default().apply_change(&change).unwrap_err(), CodecError::OtherLayout);
    }

    #[test]
    fn vacant_places_at_the_end_make_no_difference() {
        let (short, long) = (layout([Some(series("a"))]), layout([Some(series("a")), None, None]));
        assert_eq!(short.fingerprint(), long.fingerprint());
        assert_ne!(short.fingerprint(), layout([None, Some(series("a"))]).fingerprint());
    }

    #[test]
    fn a_change_that_only_adds_vacant_places_is_refused() {
        let known = layout([Some(series("a"))]);
        let of =
            |place| ChangeV1 { from: known.fingerprint, to: known.fingerprint, places: vec![(place, None)] };
        assert_eq!(known.apply_change(&encode(&of(PLACES - 1))).unwrap_err(), CodecError::Damaged);
        assert_eq!(known.apply_change(&encode(&of(1))).unwrap_err(), CodecError::Damaged);
        // One that was there may be gone.
        let longer = layout([Some(series("a")), Some(series("b"))]);
        let read = longer.apply_change(&known.encode_change_from(&longer)).unwrap();
        assert_eq!(read.fingerprint(), known.fingerprint());
    }

    #[test]
    fn a_place_beyond_all_memory_is_refused() {
        let empty = KnownLayout::default();
        let change = ChangeV1 { from: empty.fingerprint, to: 0, places: vec![(u32::MAX, None)] };
        let bytes = encode(&change);
        assert_eq!(empty.apply_change(&bytes).unwrap_err(), CodecError::Damaged);
    }
}
