//! What a page is written from.

use std::collections::HashMap;
use std::sync::Arc;

use super::blocks::Block;
use super::identity::push_label;
use super::page::{Family, PageItem};
use super::{Marks, NameSpelling, Naming, SeriesIdentity};
use crate::exposition::Escaping;

/// What a page is written from.
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

    /// The labels of a series as text: where it comes from, and its tags.
    pub(super) fn format_labels(&self, item: &PageItem) -> String {
        let identity = self.identities.get(item.identity);
        let mut text = identity.map_or_else(String::new, |identity| identity.as_str().to_owned());
        let marks = self.marks.get(item.identity).and_then(Option::as_ref);
        let named = |key| {
            let mark = marks.and_then(|marks| marks.label_mark(key, self.escaping));
            self.naming.label_name(key, NameSpelling { escaping: self.escaping, mark })
        };
        let mut tags: Vec<_> = item.series.tags.iter().map(|(key, value)| (named(key), value)).collect();
        tags.sort_unstable();
        // Namings without marks can make one label of two keys; they keep the first.
        tags.dedup_by(|(a, _), (b, _)| a == b);
        for (name, value) in tags {
            push_label(&mut text, &name, value);
        }
        text
    }
}
