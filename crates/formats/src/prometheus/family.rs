//! Families of a page: the series in each, their sums, and what families are declared as where several claim a name.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallyport_core::aggregate::{Buckets, Weight};
use tallyport_core::model::{Series, Timestamp};

use super::shape::{Declared, Shape, Stat};
use crate::exposition::Format;

/// The cumulative sums of a series since it began.
#[derive(Copy, Clone, Debug)]
pub struct Sums {
    /// When it began.
    pub created: Timestamp,
    /// The sum of a counter, or of values.
    pub total: Total,
    /// Samples weighted by 1/rate.
    pub count: Weight,
    /// Whether a negative value was ever added, in which case the total is not a counter.
    pub decremented: bool,
}

/// One series of one container, or the remembered totals of a removed one.
#[derive(Debug)]
pub(super) struct PageItem {
    pub(super) family: usize,
    pub(super) identity: usize,
    pub(super) past: bool,
    pub(super) series: Arc<Series>,
    pub(super) sums: Sums,
    /// Its values in buckets, if its family is a histogram.
    pub(super) buckets: Option<Arc<Buckets>>,
    /// Its range among the page's records.
    pub(super) records: Range<usize>,
}

/// Every series whose metric has the same name and type.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) shape: Shape,
    /// The bounds of a classic histogram, as label values and as numbers.
    pub(super) bounds: Vec<(String, f64)>,
    pub(super) help: String,
    /// Whether something that should only grow has decreased or can decrease; its type is then not declared.
    pub(super) negative: bool,
    pub(super) items: Vec<usize>,
}

/// A family's index, one of its parts, and the suffix that the part adds to the name.
pub(super) type BlockPart = (usize, Stat, &'static str);

/// A unit with one declaration: a family, or the samples of one name from families that could not be distinguished.
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

/// The blocks, sorted by name. The type of families that claim each other's names is not declared; only that way can
/// their samples keep their names.
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
    // Native histograms claim only their own name, and other families of that name differ in their type.
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
    /// The blocks of this family: one, or one for each part if its type is not declared.
    fn to_blocks(&self, index: usize, format: Format, created: bool, apart: bool) -> Vec<Block> {
        let parts: Vec<_> =
            self.shape.parts.iter().filter(|(stat, _)| created || *stat != Stat::Created).collect();
        let counts = self.shape.declared == Declared::Counter;
        let suffixed = parts.iter().any(|(_, suffix)| *suffix == "_total");
        let unsaid = match format {
            // In OpenMetrics the name of a counter must end with _total.
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
        // In the older formats a counter's family has the name of its sample, as does any family with a single sample.
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

/// Number of binary places: finer than any meaningful value, with a range up to 7.7e25.
const PLACES: i32 = 40;

/// The total of a series, over any number of containers and runs of the agent.
///
/// Readers of cumulative counters interpret the smallest decrease as a restart from zero. Sums of f64 depend on the
/// order of addition, which changes when a container ends; sums of integers do not.
#[derive(Copy, Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Total {
    /// In units of 2^-40.
    units: Units,
    /// The sum of values that are too large for that.
    huge: f64,
}

/// An [`i128`] in two halves: a whole one would require 16-byte alignment, and publishers keep a total for each series.
#[derive(Copy, Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "i128", into = "i128")]
struct Units {
    high: i64,
    low: u64,
}

impl From<i128> for Units {
    fn from(units: i128) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "each half is what is wanted"
        )]
        Self { high: (units >> u64::BITS) as i64, low: units as u64 }
    }
}

impl From<Units> for i128 {
    fn from(units: Units) -> Self {
        Self::from(units.high) << u64::BITS | Self::from(units.low)
    }
}

impl Total {
    /// Both together.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        let huge = (self.huge + other.huge).clamp(f64::MIN, f64::MAX);
        let units = i128::from(self.units).saturating_add(other.units.into());
        Self { units: units.into(), huge }
    }

    /// Rounded once.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        let units = i128::from(self.units) as f64 / 2_f64.powi(PLACES);
        (units + self.huge).clamp(f64::MIN, f64::MAX)
    }
}

impl From<f64> for Total {
    fn from(value: f64) -> Self {
        if value.abs() >= 2_f64.powi(86) {
            return Self { units: Units::default(), huge: value };
        }
        // Rounded towards zero, so that a growing sum never decreases.
        #[expect(clippy::cast_possible_truncation, reason = "what is finer than a unit is meant to go")]
        let units = (value * 2_f64.powi(PLACES)) as i128;
        Self { units: units.into(), huge: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_sum_does_not_matter() {
        let parts: Vec<f64> = (1..50).map(|n| 10.0 / f64::from(n)).collect();
        let sum = |parts: &mut dyn Iterator<Item = &f64>| {
            parts.fold(Total::default(), |sum, part| sum.saturating_add((*part).into())).as_f64()
        };
        assert_eq!(sum(&mut parts.iter()), sum(&mut parts.iter().rev()));
        assert!((sum(&mut parts.iter()) - parts.iter().sum::<f64>()).abs() < 1e-9);
    }

    #[test]
    fn whole_numbers_and_halves_are_exact() {
        for value in [0.0, 1.0, -7.0, 0.5, 1e15, -1e15, 9_007_199_254_740_991.0] {
            assert_eq!(Total::from(value).as_f64(), value);
        }
    }

    #[test]
    fn what_is_too_large_for_units_is_kept_and_never_becomes_infinite() {
        assert_eq!(Total::from(1e300).as_f64(), 1e300);
        let most = Total::from(f64::MAX).saturating_add(f64::MAX.into());
        assert_eq!(most.as_f64(), f64::MAX);
        assert_eq!(Total::from(1e300).saturating_add(1.0.into()).as_f64(), 1e300);
    }
}
