//! Series: a name, canonical tags and a type.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::id::Origin;
use super::time::Timestamp;

/// The types of series. `gauge_delta` is a way to write a gauge, and events are not series.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricType {
    /// `c`: the increase since the last window.
    Counter,
    /// `g`: a level that stays until it changes.
    Gauge,
    /// `ms`: durations in milliseconds.
    Timer,
    /// `h`: values without a unit.
    Histogram,
    /// `d`: values without a unit.
    Distribution,
    /// `s`: the number of distinct members.
    Set,
    /// `_sc`: the status of a check.
    ServiceCheck,
}

impl MetricType {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Counter,
        Self::Gauge,
        Self::Timer,
        Self::Histogram,
        Self::Distribution,
        Self::Set,
        Self::ServiceCheck,
    ];

    /// The name used in JSON, in the CLI and in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Timer => "timer",
            Self::Histogram => "histogram",
            Self::Distribution => "distribution",
            Self::Set => "set",
            Self::ServiceCheck => "service_check",
        }
    }

    /// The unit that the type itself implies: milliseconds for a timer, none otherwise.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Timer => "ms",
            _ => "",
        }
    }
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Tags in canonical form: sorted by key, each key once. Several values of one key are sorted, made unique and
/// joined by `,`, which no tag value can hold because it separates tags. A tag without a value has an empty one.
///
/// Stored as one text and the end positions of its parts, since a node has hundreds of thousands of these.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct TagSet {
    text: Box<str>,
    ends: Box<[u32]>,
}

impl TagSet {
    /// From keys and values in any order, including duplicates.
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<String>,
    {
        let mut sorted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in pairs {
            sorted.entry(key.into()).or_default().push(value.into());
        }
        let mut text = String::new();
        let mut ends = Vec::with_capacity(sorted.len() * 2);
        for (key, mut values) in sorted {
            values.sort_unstable();
            values.dedup();
            text.push_str(&key);
            ends.push(end_of(&text));
            text.push_str(&values.join(","));
            ends.push(end_of(&text));
        }
        Self { text: text.into(), ends: ends.into() }
    }

    /// Key and value of each tag, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.chunks_exact(2).map(move |pair| {
            let (middle, end) = match pair {
                [middle, end] => (*middle as usize, *end as usize),
                _ => (start, start),
            };
            let key = self.text.get(start..middle).unwrap_or_default();
            let value = self.text.get(middle..end).unwrap_or_default();
            start = end;
            (key, value)
        })
    }

    /// The value of a key. A key that was sent with several values has them joined by `,`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// How many keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<u32>()
    }
}

#[expect(clippy::expect_used, reason = "a wrong end would cut the tags of a series elsewhere")]
fn end_of(text: &str) -> u32 {
    u32::try_from(text.len()).expect("a line, and so its tags, has at most 64 KiB")
}

impl fmt::Debug for TagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// One series of one container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Series {
    /// The name as the application wrote it, made valid UTF-8.
    pub name: Box<str>,
    /// Its tags.
    pub tags: TagSet,
    /// Its type.
    pub metric_type: MetricType,
    /// When its ledger starts. A series that returns after it was dropped as idle starts a new one.
    pub created: Timestamp,
}

impl Series {
    /// Whether both measure the same thing, whenever they were created.
    #[must_use]
    pub fn same_identity(&self, other: &Self) -> bool {
        self.metric_type == other.metric_type && self.name == other.name && self.tags == other.tags
    }

    /// Whether both are the same series since the same creation, even if decoded from different processes.
    #[must_use]
    pub fn is_the_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.created == other.created && self.same_identity(other)
    }

    /// Bytes of memory, including this struct.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.len() + self.tags.heap_bytes()
    }
}

/// A series compared by identity, ignoring its creation time; for finding the same series in several windows.
#[derive(Copy, Clone, Debug)]
pub struct SeriesKey<'a>(pub &'a Series);

impl PartialEq for SeriesKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_identity(other.0)
    }
}

impl Eq for SeriesKey<'_> {}

impl std::hash::Hash for SeriesKey<'_> {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        (&self.0.name, &self.0.tags, self.0.metric_type).hash(hasher);
    }
}

impl PartialOrd for SeriesKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// By name, then tags, then type: the order of display.
impl Ord for SeriesKey<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.0.name, &self.0.tags, self.0.metric_type).cmp(&(
            &other.0.name,
            &other.0.tags,
            other.0.metric_type,
        ))
    }
}

/// An owned key that compares series by identity, ignoring their creation time.
#[derive(Clone, Debug)]
pub struct ByIdentity(pub Arc<Series>);

impl PartialEq for ByIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_identity(&other.0)
    }
}

impl Eq for ByIdentity {}

impl std::hash::Hash for ByIdentity {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        SeriesKey(&self.0).hash(hasher);
    }
}

/// Names a series of a container's generation on a node, the same on every run: `(id, start, rev)` is one record
/// for ever, so that programs that store records can refuse a second copy.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(u128);

impl SeriesId {
    /// XXH3-128 over the parts, each ended by a byte that UTF-8 never holds.
    #[must_use]
    pub fn new(node: &str, origin: &Origin, series: &Series) -> Self {
        const END: &[u8] = &[0xff];
        let mut hash = Xxh3::new();
        let generation = origin.generation.0.to_le_bytes();
        for part in [
            node.as_bytes(),
            origin.container_id.as_str().as_bytes(),
            generation.as_slice(),
            series.metric_type.as_str().as_bytes(),
            series.name.as_bytes(),
        ] {
            hash.update(part);
            hash.update(END);
        }
        for (key, value) in series.tags.iter() {
            hash.update(key.as_bytes());
            hash.update(END);
            hash.update(value.as_bytes());
            hash.update(END);
        }
        Self(hash.digest128())
    }
}

impl FromStr for SeriesId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or("is not the id of a series, which has 32 hexadecimal digits")
    }
}

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::{ContainerId, Generation, Labels};
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> TagSet {
        TagSet::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn tags_are_sorted_and_doubles_are_kept_once() {
        let set = tags(&[("b", "2"), ("a", "1"), ("b", "2")]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(set, tags(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn a_key_with_several_values_keeps_them_all() {
        assert_eq!(tags(&[("a", "2"), ("a", "1")]).get("a"), Some("1,2"));
    }

    #[test]
    fn where_one_part_ends_matters() {
        assert_ne!(tags(&[("ab", "c")]), tags(&[("a", "bc")]));
        assert_eq!(tags(&[("", "v")]).get(""), Some("v"));
    }

    #[test]
    fn the_id_is_fixed_and_tells_containers_generations_and_types_apart() {
        let origin = |container: &str, generation| Origin {
            container_id: ContainerId::new(container).unwrap(),
            generation: Generation(generation),
            task_id: (&ContainerId::new(container).unwrap()).into(),
            labels: Labels::new(),
        };
        let series = |metric_type| Series {
            name: "x".into(),
            tags: tags(&[("a", "1")]),
            metric_type,
            created: Timestamp::default(),
        };
        let id = |o: &Origin, s: &Series| SeriesId::new("n1", o, s);
        let base = id(&origin("c", 1), &series(MetricType::Timer));
        assert_eq!(base, id(&origin("c", 1), &series(MetricType::Timer)));
        assert_ne!(base, id(&origin("c", 2), &series(MetricType::Timer)));
        assert_ne!(base, id(&origin("d", 1), &series(MetricType::Timer)));
        assert_ne!(base, id(&origin("c", 1), &series(MetricType::Histogram)));
        // Other programs store this ID, so it must never change.
        assert_eq!(base.to_string(), "3f7d6663640bdea3bc9b6a87b5bb2d5b");
        assert_eq!("3f7d6663640bdea3bc9b6a87b5bb2d5b".parse(), Ok(base));
        for wrong in ["", "3f7d", "+f7d6663640bdea3bc9b6a87b5bb2d5b", "3f7d6663640bdea3bc9b6a87b5bb2d5bb"] {
            assert!(wrong.parse::<SeriesId>().is_err(), "{wrong}");
        }
    }
}
