//! Everything that a page is written from.
//!
//! As text, every sample of a histogram or a summary has a suffix or a label more than its series. A native histogram is
//! one sample with the name of its family, and a container that sends a gauge of the same name and tags would then have
//! one series twice. Only in that case, the histogram is served as the summary that it would be in text.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::family::{Block, Family, PageItem};
use super::identity::push_label;
use super::scraped::SeriesNames;
use super::shape::{Declared, Shape};
use super::{Marks, Naming, SeriesIdentity};
use crate::exposition::Escaping;

/// The collected contents of a page, ready to be written.
#[derive(Debug)]
pub(super) struct Gathered<W> {
    pub(super) naming: Naming,
    pub(super) escaping: Escaping,
    pub(super) infos: Vec<String>,
    /// Indexes of families, by the names with which native histograms could collide.
    pub(super) bare: HashMap<String, Vec<usize>>,
    pub(super) blocks: Vec<Block>,
    pub(super) identities: Vec<SeriesIdentity>,
    /// The marks of each identity that has any.
    pub(super) marks: Vec<Option<Arc<Marks>>>,
    pub(super) families: Vec<Family>,
    pub(super) items: Vec<PageItem>,
    pub(super) windows: Vec<Arc<W>>,
    pub(super) records: Vec<(usize, usize)>,
}

impl<W> Gathered<W> {
    /// About how much memory this takes, apart from windows and series, which are shared with others.
    pub(super) fn held_bytes(&self) -> usize {
        let infos: usize = self.infos.iter().map(String::len).sum();
        let names: usize = self.families.iter().map(|family| family.name.len() + family.help.len()).sum();
        infos
            + names
            + self.items.capacity() * size_of::<PageItem>()
            + self.records.capacity() * size_of::<(usize, usize)>()
            + self.families.capacity() * size_of::<Family>()
            + self.blocks.capacity() * size_of::<Block>()
            + self.items.len() * size_of::<usize>()
    }

    /// The labels of a series as text: its identity and its tags.
    pub(super) fn format_labels(&self, item: &PageItem) -> String {
        let identity = self.identities.get(item.identity);
        let mut text = identity.map_or_else(String::new, |identity| identity.as_str().to_owned());
        for (name, value) in self.tag_labels(item) {
            push_label(&mut text, &name, value);
        }
        text
    }

    /// The labels that the tags of a series become.
    pub(super) fn tag_labels<'i>(&self, item: &'i PageItem) -> Vec<(Cow<'i, str>, &'i str)> {
        self.series_names(item.identity).tag_labels(&item.series.tags)
    }

    /// The label that a tag of a series of this identity becomes.
    pub(super) fn label_name<'k>(&self, identity: usize, key: &'k str) -> Cow<'k, str> {
        self.series_names(identity).label_name(key)
    }

    fn series_names(&self, identity: usize) -> SeriesNames<'_> {
        let marks = self.marks.get(identity).and_then(Option::as_deref);
        SeriesNames { naming: self.naming, escaping: self.escaping, marks }
    }
}

impl<W> Gathered<W> {
    /// Turns native histograms whose series collide with another type into summaries. A summary claims more names, so
    /// this can cause further collisions.
    pub(super) fn resolve_native_conflicts(&mut self) {
        let mut changed = !self.bare.is_empty();
        while std::mem::take(&mut changed) {
            for native in 0..self.families.len() {
                let taken = self.taken_from(native);
                changed |= !taken.is_empty() && self.set_apart(native, &taken);
            }
        }
    }

    /// All series of other types with the same name as a native family's.
    fn taken_from(&self, native: usize) -> HashSet<(usize, String)> {
        let is_native = |family: &&Family| family.shape.declared == Declared::Native;
        let Some(name) = self.families.get(native).filter(is_native).map(|family| &family.name) else {
            return HashSet::new();
        };
        let others = self.bare.get(name).map_or(&[][..], Vec::as_slice);
        let items =
            others.iter().filter_map(|other| self.families.get(*other)).flat_map(|other| &other.items);
        let items = items.filter_map(|index| self.items.get(*index));
        items.map(|item| (item.identity, self.format_labels(item))).collect()
    }

    /// Turns the taken series of a native family into a summary. Returns whether there were any.
    fn set_apart(&mut self, native: usize, taken: &HashSet<(usize, String)>) -> bool {
        let Some(family) = self.families.get(native) else { return false };
        let is_taken = |index: &usize| {
            self.items
                .get(*index)
                .is_some_and(|item| taken.contains(&(item.identity, self.format_labels(item))))
        };
        let (gone, left): (Vec<usize>, Vec<usize>) = family.items.iter().partition(|index| is_taken(index));
        let first = gone.first().and_then(|index| self.items.get(*index));
        let shape = first.and_then(|item| Shape::for_metric_type(self.naming, item.series.metric_type));
        let Some(shape) = shape else { return false };
        let apart = Family {
            name: family.name.clone(),
            shape,
            bounds: Vec::new(),
            help: family.help.clone(),
            negative: family.negative,
            items: gone,
        };
        for index in &apart.items {
            if let Some(item) = self.items.get_mut(*index) {
                item.family = self.families.len();
            }
        }
        for name in apart.bare_names() {
            self.bare.entry(name).or_default().push(self.families.len());
        }
        self.families.push(apart);
        if let Some(family) = self.families.get_mut(native) {
            family.items = left;
        }
        true
    }
}

impl Family {
    /// The names of its samples that have no label of their own.
    fn bare_names(&self) -> impl Iterator<Item = String> {
        let bare = self.shape.parts.iter().filter(|(stat, _)| !Shape::is_labelled(*stat));
        bare.map(|(_, suffix)| format!("{}{suffix}", self.name))
    }
}

/// Families by the names of their samples that have no label of their own. Empty if no family is native.
pub(super) fn bare_names(families: &[Family]) -> HashMap<String, Vec<usize>> {
    let mut bare: HashMap<String, Vec<usize>> = HashMap::new();
    if families.iter().all(|family| family.shape.declared != Declared::Native) {
        return bare;
    }
    for (index, family) in families.iter().enumerate() {
        if family.shape.declared != Declared::Native {
            family.bare_names().for_each(|name| bare.entry(name).or_default().push(index));
        }
    }
    bare
}
