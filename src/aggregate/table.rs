//! Which series a sample belongs to, found by the raw bytes of its line.
//!
//! Name and tags are brought into canonical form once for each spelling; then the bytes as they came find the place
//! by one hash. A client that sends its tags in ever new orders costs itself the slow way: a series remembers at
//! most [`SPELLINGS`].

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::model::{MetricType, Series, TagSet};
use crate::statsd::Plain;

/// Spellings that a series remembers.
pub(super) const SPELLINGS: u8 = 4;

/// Where a series is in its aggregator.
pub(super) type Place = u32;

/// A name and tags as they came, and the type.
#[derive(Copy, Clone, Debug)]
pub(super) struct Spelling<'a> {
    /// The type of the series.
    pub(super) metric_type: MetricType,
    /// The name.
    pub(super) name: &'a [u8],
    /// The tags.
    pub(super) tags: &'a [u8],
}

impl<'a> From<Plain<'a>> for Spelling<'a> {
    #[inline]
    fn from(Plain { metric_type, name, tags, .. }: Plain<'a>) -> Self {
        Self { metric_type, name, tags }
    }
}

/// A spelling's place among all of them, as one table sees it.
#[derive(Copy, Clone, Debug)]
pub(super) struct Hash(u64);

/// A spelling that was seen before.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Known {
    /// Its series.
    pub(super) place: Place,
    /// Whether it holds bytes that are not UTF-8.
    pub(super) replaced: bool,
}

/// One line of a cache: finding a series whose name and tags are short is one access to memory.
#[derive(Debug)]
#[repr(align(64))]
struct Entry {
    text: Text,
    name_length: u32,
    metric_type: MetricType,
    known: Known,
}

/// Longest text that is kept in its entry.
const INLINE: usize = 46;
const _: () = assert!(size_of::<Entry>() == 64);

/// Name and tags, one after the other.
#[derive(Debug)]
enum Text {
    Inline(u8, [u8; INLINE]),
    Boxed(Box<[u8]>),
}

impl Text {
    fn new(name: &[u8], tags: &[u8]) -> Self {
        let whole = [name, tags].concat();
        let mut inline = [0; INLINE];
        match (inline.get_mut(..whole.len()), u8::try_from(whole.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(&whole);
                Self::Inline(length, inline)
            }
            _ => Self::Boxed(whole.into()),
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline(length, text) => text.get(..usize::from(*length)).unwrap_or_default(),
            Self::Boxed(text) => text,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline(..) => 0,
            Self::Boxed(text) => text.len(),
        }
    }
}

impl Entry {
    #[inline]
    fn parts(&self) -> (&[u8], &[u8]) {
        self.text.bytes().split_at_checked(self.name_length as usize).unwrap_or_default()
    }

    #[inline]
    fn is(&self, spelling: &Spelling<'_>) -> bool {
        let (name, tags) = self.parts();
        // An empty slice may point nowhere. A C library that compares no bytes of it by a masked load still has the
        // processor find out that the load would fault, which takes longer than all the rest.
        let same_tags = tags.len() == spelling.tags.len() && (tags.is_empty() || tags == spelling.tags);
        self.metric_type == spelling.metric_type && name == spelling.name && same_tags
    }
}

/// Spellings and canonical names of a container's series. The hasher has a random seed, since the keys are chosen
/// by strangers.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    spellings: HashTable<Entry>,
    canonical: HashTable<Place>,
    hasher: RandomState,
    bytes: usize,
}

impl SeriesTable {
    /// What [`SeriesTable::known`] wants to know of a spelling.
    #[inline]
    #[must_use]
    pub(super) fn hash(&self, spelling: &Spelling<'_>) -> Hash {
        Hash(hash_parts(&self.hasher, spelling.name, spelling.tags))
    }

    /// The series of a spelling that was seen before.
    #[inline]
    #[must_use]
    pub(super) fn known(&self, hash: Hash, spelling: &Spelling<'_>) -> Option<Known> {
        self.spellings.find(hash.0, |entry| entry.is(spelling)).map(|entry| entry.known)
    }

    /// The place of the series with this name, these tags and this type. `series` gives the series at a place.
    pub(super) fn find<'s>(
        &self,
        (name, tags, metric_type): (&str, &TagSet, MetricType),
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

    /// Remembers how a series was spelled.
    pub(super) fn add_spelling(&mut self, spelling: &Spelling<'_>, known: Known) {
        let entry = Entry {
            text: Text::new(spelling.name, spelling.tags),
            name_length: u32::try_from(spelling.name.len()).unwrap_or(u32::MAX),
            metric_type: spelling.metric_type,
            known,
        };
        self.bytes += entry.text.heap_bytes();
        let Hash(hash) = self.hash(spelling);
        let hasher = &self.hasher;
        self.spellings.insert_unique(hash, entry, |entry| {
            let (name, tags) = entry.parts();
            hash_parts(hasher, name, tags)
        });
    }

    /// Forgets the series for which `gone` holds, and their spellings.
    pub(super) fn remove(&mut self, gone: impl Fn(Place) -> bool) {
        self.canonical.retain(|place| !gone(*place));
        self.spellings.retain(|entry| !gone(entry.known.place));
        self.bytes = self.spellings.iter().map(|entry| entry.text.heap_bytes()).sum();
    }

    /// Forgets every spelling; series are found again by their canonical names.
    pub(super) fn forget_spellings(&mut self) {
        self.spellings.clear();
        self.bytes = 0;
    }

    /// Bytes on the heap.
    #[must_use]
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes
            + self.spellings.capacity() * (size_of::<Entry>() + 1)
            + self.canonical.capacity() * (size_of::<Place>() + 1)
    }
}

fn hash_canonical(hasher: &RandomState, name: &str, tags: &TagSet, metric_type: MetricType) -> u64 {
    hasher.hash_one((name, tags, metric_type))
}

#[inline]
fn hash_parts(hasher: &RandomState, name: &[u8], tags: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    // Few series differ in their type alone. The hasher itself tells "a" and "bc" from "ab" and "c".
    hasher.write(name);
    if !tags.is_empty() {
        hasher.write(tags);
    }
    hasher.finish()
}
