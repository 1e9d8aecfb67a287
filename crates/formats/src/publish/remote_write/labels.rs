//! The labels of samples.

use std::borrow::Cow;

use crate::publish::labels::LabelOf;

/// The label that is the name.
pub(super) const NAME: &str = "__name__";

/// A name and a value.
type NamedValue<'l> = (&'l str, &'l str);

/// The labels that series of one identity have without their tags.
#[derive(Debug)]
pub(super) struct IdentityLabels<'r> {
    identity: &'r [LabelOf<'r>],
    external: &'r [NamedValue<'r>],
    untagged: SeriesLabels<'r>,
}

/// The labels of a series, sorted by name, each name once.
#[derive(Clone, Debug)]
pub(super) struct SeriesLabels<'r> {
    labels: Vec<NamedValue<'r>>,
    /// The place of [`NAME`], whose value is that of each sample.
    name_at: usize,
}

/// The labels of one sample.
#[derive(Copy, Clone, Debug)]
pub(super) struct SampleLabels<'l> {
    pub(super) series: &'l SeriesLabels<'l>,
    pub(super) name: &'l str,
    /// The label that tells it from other samples of its name. It takes the place of a label of the series.
    pub(super) more: Option<NamedValue<'l>>,
}

impl<'r> IdentityLabels<'r> {
    /// `external` labels are added to those of the identity.
    pub(super) fn new(identity: &'r [LabelOf<'r>], external: &'r [NamedValue<'r>]) -> Self {
        Self { identity, external, untagged: SeriesLabels::new(identity, &[], external) }
    }

    /// The labels of a series with these tags. Most have none, and share theirs.
    pub(super) fn of_series<'s>(&'s self, tags: &'s [LabelOf<'s>]) -> Cow<'s, SeriesLabels<'s>>
    where
        'r: 's,
    {
        match tags {
            [] => Cow::Borrowed(&self.untagged),
            tags => Cow::Owned(SeriesLabels::new(self.identity, tags, self.external)),
        }
    }
}

impl<'r> SeriesLabels<'r> {
    fn new(identity: &'r [LabelOf<'r>], tags: &'r [LabelOf<'r>], external: &'r [NamedValue<'r>]) -> Self {
        let own = identity.iter().chain(tags).map(|(name, value)| (name.as_ref(), value.as_ref()));
        let mut labels = Vec::with_capacity(1 + identity.len() + tags.len() + external.len());
        labels.push((NAME, ""));
        labels.extend(own.chain(external.iter().copied()));
        // Of two with one name, the first is kept.
        labels.sort_by_key(|(name, _)| *name);
        labels.dedup_by_key(|(name, _)| *name);
        let name_at = labels.iter().position(|(name, _)| *name == NAME).unwrap_or_default();
        Self { labels, name_at }
    }
}

impl<'l> SampleLabels<'l> {
    /// The number of slots.
    pub(super) fn count_slots(&self) -> usize {
        self.series.labels.len() + 1
    }

    /// Passes names and values to `put`, sorted by name, each with its slot, which is the same for all samples of a series.
    pub(super) fn for_each(&self, mut put: impl FnMut(usize, &'l str, &'l str)) {
        let SeriesLabels { labels, name_at } = self.series;
        let Some((key, text)) = self.more else {
            for (slot, (name, value)) in labels.iter().enumerate() {
                put(slot, name, if slot == *name_at { self.name } else { value });
            }
            return;
        };
        let before = labels.partition_point(|(name, _)| *name < key);
        for (slot, (name, value)) in labels.iter().enumerate() {
            if slot == before {
                put(labels.len(), key, text);
            }
            if *name != key {
                put(slot, name, if slot == *name_at { self.name } else { value });
            }
        }
        if before == labels.len() {
            put(labels.len(), key, text);
        }
    }
}
