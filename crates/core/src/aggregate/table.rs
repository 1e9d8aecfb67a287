//! Finds the series of a sample by the raw bytes of its line.
//!
//! Name and tags are canonicalized once for each spelling; from then on a fingerprint of the raw bytes finds the place
//! (`docs/adr/0029-fingerprints.md`). A client that keeps changing the order of its tags takes the slow path: a series
//! remembers at most [`SPELLINGS`].

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::fingerprint::{Fingerprint, FingerprintSeeds};
use crate::model::{MetricType, Series, TagSet};
use crate::statsd::Plain;

/// Maximum number of spellings that a series remembers.
pub(super) const SPELLINGS: u8 = 4;

/// The place of a series in its aggregator.
pub(super) type Place = u32;

/// The raw name and tags, and the type.
#[derive(Copy, Clone, Debug)]
pub(super) struct Spelling<'a> {
    /// The type of the series.
    pub(super) metric_type: MetricType,
    pub(super) name: &'a [u8],
    pub(super) tags: &'a [u8],
}

impl<'a> From<Plain<'a>> for Spelling<'a> {
    #[inline]
    fn from(Plain { metric_type, name, tags, .. }: Plain<'a>) -> Self {
        Self { metric_type, name, tags }
    }
}

/// A spelling that was seen before.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct KnownSpelling {
    /// Its series.
    pub(super) place: Place,
    /// Whether it holds bytes that are not UTF-8.
    pub(super) replaced: bool,
}

/// Does not contain the text, so the cost of a lookup does not depend on the length of name and tags.
#[derive(Debug)]
struct SpellingEntry {
    first: u64,
    second: u64,
    place: Place,
    replaced: bool,
    metric_type: MetricType,
}

const _: () = assert!(size_of::<SpellingEntry>() == 24);

impl SpellingEntry {
    #[inline]
    fn matches_fingerprint(&self, fingerprint: Fingerprint) -> bool {
        let Self { first, second, metric_type, .. } = *self;
        Fingerprint { first, second, metric_type } == fingerprint
    }
}

/// Spellings and canonical names of a container's series. The hashers have random seeds, since the keys are untrusted.
/// Fields that known series need come first, in this order.
#[derive(Debug)]
#[repr(C)]
pub(super) struct SeriesTable {
    spellings: HashTable<SpellingEntry>,
    seeds: FingerprintSeeds,
    canonical: HashTable<Place>,
    hasher: RandomState,
}

impl Default for SeriesTable {
    fn default() -> Self {
        let hasher = RandomState::default();
        let seeds = FingerprintSeeds::derive_from(&hasher);
        Self { spellings: HashTable::new(), seeds, canonical: HashTable::new(), hasher }
    }
}

impl SeriesTable {
    /// Whether no spelling is known.
    #[inline]
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.spellings.is_empty()
    }

    /// The fingerprint of a spelling, for [`SeriesTable::find_spelling`].
    #[inline]
    #[must_use]
    pub(super) fn compute_fingerprint(&self, spelling: &Spelling<'_>) -> Fingerprint {
        let Spelling { metric_type, name, tags } = *spelling;
        self.seeds.compute_fingerprint(name, tags, metric_type)
    }

    /// The series of a spelling that was seen before.
    #[inline]
    #[must_use]
    pub(super) fn find_spelling(&self, fingerprint: Fingerprint) -> Option<KnownSpelling> {
        let entry = self.spellings.find(fingerprint.first, |entry| entry.matches_fingerprint(fingerprint))?;
        Some(KnownSpelling { place: entry.place, replaced: entry.replaced })
    }

    /// The place of the series with this name, these tags and this type. `series` gives the series at a place.
    pub(super) fn find<'s>(
        &self,
        name: &str,
        tags: &TagSet,
        metric_type: MetricType,
        series: impl Fn(Place) -> Option<&'s Series>,
    ) -> Option<Place> {
        let is = |place: &Place| {
            series(*place).is_some_and(|known| {
                known.metric_type == metric_type && *known.name == *name && known.tags == *tags
            })
        };
        self.canonical.find(hash_canonical(&self.hasher, name, tags, metric_type), is).copied()
    }

    /// Remembers a series. `series` gives the series at a place, the new one included.
    pub(super) fn add<'s>(&mut self, place: Place, series: impl Fn(Place) -> Option<&'s Series>) {
        let hasher = &self.hasher;
        let hash_at = |place: Place| {
            series(place)
                .map_or(0, |known| hash_canonical(hasher, &known.name, &known.tags, known.metric_type))
        };
        self.canonical.insert_unique(hash_at(place), place, |place| hash_at(*place));
    }

    /// Remembers a spelling of a series.
    pub(super) fn add_spelling(
        &mut self,
        fingerprint: Fingerprint,
        KnownSpelling { place, replaced }: KnownSpelling,
    ) {
        let Fingerprint { first, second, metric_type } = fingerprint;
        let entry = SpellingEntry { first, second, place, replaced, metric_type };
        self.spellings.insert_unique(first, entry, |entry| entry.first);
    }

    /// Removes the series for which `gone` holds, and their spellings.
    pub(super) fn remove(&mut self, gone: impl Fn(Place) -> bool) {
        self.canonical.retain(|place| !gone(*place));
        self.spellings.retain(|entry| !gone(entry.place));
    }

    /// Removes all spellings; series can still be found by their canonical names.
    pub(super) fn forget_spellings(&mut self) {
        self.spellings.clear();
    }

    #[must_use]
    pub(super) fn heap_bytes(&self) -> usize {
        self.spellings.capacity() * (size_of::<SpellingEntry>() + 1)
            + self.canonical.capacity() * (size_of::<Place>() + 1)
    }
}

fn hash_canonical(hasher: &RandomState, name: &str, tags: &TagSet, metric_type: MetricType) -> u64 {
    hasher.hash_one((name, tags, metric_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelling<'a>(name: &'a str, tags: &'a str, metric_type: MetricType) -> Spelling<'a> {
        Spelling { metric_type, name: name.as_bytes(), tags: tags.as_bytes() }
    }

    #[test]
    fn spellings_differ_by_name_tags_type_and_where_the_tags_begin() {
        let mut table = SeriesTable::default();
        let (long, shorter) = ("x".repeat(300), "x".repeat(299));
        let all = [
            spelling("ab", "c", MetricType::Counter),
            spelling("a", "bc", MetricType::Counter),
            spelling("abc", "", MetricType::Counter),
            spelling("abc", "", MetricType::Gauge),
            spelling(&long, "", MetricType::Gauge),
            spelling(&long, &long, MetricType::Gauge),
            spelling(&shorter, &long, MetricType::Gauge),
        ];
        for (place, spelling) in (0..).zip(&all) {
            assert_eq!(table.find_spelling(table.compute_fingerprint(spelling)), None, "{spelling:?}");
            table.add_spelling(
                table.compute_fingerprint(spelling),
                KnownSpelling { place, replaced: place % 2 == 0 },
            );
        }
        for (place, spelling) in (0..).zip(&all) {
            let known = table.find_spelling(table.compute_fingerprint(spelling));
            assert_eq!(known, Some(KnownSpelling { place, replaced: place % 2 == 0 }));
        }
        table.remove(|place| place < 3);
        let left =
            all.iter().filter(|spelling| table.find_spelling(table.compute_fingerprint(spelling)).is_some());
        assert_eq!(left.count(), all.len() - 3);
    }

    #[test]
    fn each_table_and_each_half_of_a_fingerprint_has_secrets_of_its_own() {
        let spelling = spelling("requests", "env:prod", MetricType::Counter);
        let tables: [SeriesTable; 8] = Default::default();
        let mut halves: Vec<u64> = tables
            .iter()
            .map(|t| t.compute_fingerprint(&spelling))
            .flat_map(|f| [f.first, f.second])
            .collect();
        halves.sort_unstable();
        halves.dedup();
        assert_eq!(halves.len(), 2 * tables.len());
    }
}
