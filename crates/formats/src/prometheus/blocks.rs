//! What families are declared as, where several claim a name.

use std::collections::{BTreeMap, HashMap};

use super::page::{Family, PageItem};
use super::shape::{Declared, Stat};
use crate::exposition::Format;

/// Which family, what of it, and what that adds to the name.
pub(super) type BlockPart = (usize, Stat, &'static str);

/// What is declared once: a family, or samples of one name from families that could not be told apart.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) name: String,
    pub(super) declared: Declared,
    pub(super) unit: &'static str,
    pub(super) help: String,
    pub(super) parts: Vec<BlockPart>,
    /// Sorted by identity.
    pub(super) items: Vec<usize>,
}

/// What is declared, sorted by name. Families that claim a name of each other say nothing of their type; only so can
/// their samples keep the names they always have.
pub(super) fn build_blocks(
    families: &[Family],
    items: &[PageItem],
    format: Format,
    created: bool,
) -> Vec<Block> {
    let whole: Vec<Vec<Block>> = families
        .iter()
        .enumerate()
        .map(|(index, family)| family.to_blocks(index, format, created, family.negative))
        .collect();
    let mut claims: HashMap<String, usize> = HashMap::new();
    for block in whole.iter().flatten().filter(|block| !block.is_native()) {
        for claim in block.claimed_names(format) {
            *claims.entry(claim).or_default() += 1;
        }
    }
    // Nothing but their name is a native histogram's, and who else has it is told apart by the type.
    let is_contested = |block: &Block| {
        !block.is_native() && block.claimed_names(format).iter().any(|claim| claims.get(claim) > Some(&1))
    };
    let mut named: BTreeMap<(String, bool), Block> = BTreeMap::new();
    for (index, (family, whole)) in families.iter().zip(whole).enumerate() {
        let contested = whole.iter().any(is_contested);
        let blocks = if contested { family.to_blocks(index, format, created, true) } else { whole };
        for block in blocks {
            let key = (block.name.clone(), block.is_native());
            match named.get_mut(&key) {
                Some(known) => {
                    known.parts.extend(block.parts);
                    known.items.extend(block.items);
                    known.items.sort_by_key(|index| items.get(*index).map(|item| item.identity));
                }
                None => {
                    named.insert(key, block);
                }
            }
        }
    }
    named.into_values().collect()
}

impl Family {
    /// What this family is declared as: one block, or one of each part where nothing is said of it.
    fn to_blocks(&self, index: usize, format: Format, created: bool, apart: bool) -> Vec<Block> {
        let parts: Vec<_> =
            self.shape.parts.iter().filter(|(stat, _)| created || *stat != Stat::Created).collect();
        let counts = self.shape.declared == Declared::Counter;
        let suffixed = parts.iter().any(|(_, suffix)| *suffix == "_total");
        let unsaid = match format {
            // A counter of OpenMetrics ends with _total, or is none.
            Format::OpenMetrics => counts && !suffixed,
            Format::Prometheus | Format::Protobuf => false,
        };
        let block = |name: String, declared, unit, parts: Vec<BlockPart>| Block {
            name,
            declared,
            unit,
            help: self.help.clone(),
            parts,
            items: self.items.clone(),
        };
        let native = self.shape.declared == Declared::Native;
        if (apart && !native) || unsaid || self.shape.declared == Declared::Unknown {
            let one = |(stat, suffix): &&(Stat, &'static str)| {
                let name = format!("{}{suffix}", self.name);
                block(name, Declared::Unknown, "", vec![(index, *stat, "")])
            };
            return parts.iter().map(one).collect();
        }
        // The older formats name a counter as its sample; and what has but one sample is named as that.
        let alone = match parts.as_slice() {
            [(stat, suffix)] if format != Format::OpenMetrics || !counts => Some((*stat, *suffix)),
            _ => None,
        };
        vec![match alone {
            Some((stat, suffix)) => {
                let unit = if suffix.is_empty() { self.shape.unit } else { "" };
                block(format!("{}{suffix}", self.name), self.shape.declared, unit, vec![(index, stat, "")])
            }
            None => {
                let parts = parts.iter().map(|(stat, suffix)| (index, *stat, *suffix)).collect();
                block(self.name.clone(), self.shape.declared, self.shape.unit, parts)
            }
        }]
    }
}

impl Block {
    fn is_native(&self) -> bool {
        self.declared == Declared::Native
    }

    /// Every name that a parser could take for one of this family's.
    fn claimed_names(&self, format: Format) -> Vec<String> {
        let suffixes: &[&str] = match (self.declared, format) {
            (Declared::Counter, Format::OpenMetrics) => &["", "_total", "_created"],
            (Declared::Summary, Format::OpenMetrics) => &["", "_sum", "_count", "_created"],
            (Declared::Summary, _) => &["", "_sum", "_count"],
            (Declared::Histogram, Format::OpenMetrics) => &["", "_bucket", "_sum", "_count", "_created"],
            (Declared::Histogram, _) => &["", "_bucket", "_sum", "_count"],
            _ => &[""],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.name)).collect()
    }
}
