//! Gathering a page: which series there are, which family each is in, and what families are declared as.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::identity::everything;
use super::shape::{Declared, Shape, Stat};
use super::{Identity, Level, Naming, Page, Total};
use crate::aggregate::{Ledger, View, Weight, Window};
use crate::model::{MetricType, Origin, Series, Timestamp};
use crate::render::exposition::Format;

/// One container, with what it has published.
#[derive(Debug)]
pub struct Source<'a, W> {
    /// Whose it is.
    pub origin: &'a Origin,
    /// Every live series of it.
    pub ledger: &'a Ledger,
    /// Its last windows, newest first.
    pub windows: Vec<Held<W>>,
    /// Whether it lives, or ended so lately that scrapers may not have seen its end.
    pub shown: bool,
}

/// One of its windows.
#[derive(Debug)]
pub struct Held<W> {
    /// The window.
    pub window: Arc<W>,
    /// Which of its records; all of them, or those that were not revised since.
    pub records: Vec<usize>,
}

/// One series of one container, or what is left of one that is gone.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) family: usize,
    pub(super) identity: usize,
    pub(super) past: bool,
    pub(super) series: Arc<Series>,
    pub(super) created: Timestamp,
    pub(super) total: Total,
    pub(super) count: Weight,
    /// Among the page's records.
    pub(super) records: Range<usize>,
}

/// Every series whose metric has the same name and type.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) shape: Shape,
    help: String,
    /// Whether something that only grows would be below zero.
    negative: bool,
    items: Vec<usize>,
}

/// What is declared once: a family, or samples of one name from families that could not be told apart.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) name: String,
    pub(super) declared: Declared,
    pub(super) unit: &'static str,
    pub(super) help: String,
    /// Which families, and what of them.
    pub(super) parts: Vec<(usize, Stat, &'static str)>,
    /// Sorted by identity.
    pub(super) items: Vec<usize>,
}

/// Gathers a page.
#[derive(Debug)]
pub struct Builder<W> {
    format: Format,
    naming: Naming,
    level: Level,
    created: bool,
    /// When it is, and how long a gauge's level stands for it.
    now: Timestamp,
    carry: Duration,
    identities: Vec<Identity>,
    by_identity: HashMap<Identity, usize>,
    /// What is known of each identity's newest container.
    infos: BTreeMap<usize, String>,
    families: Vec<Family>,
    by_name: HashMap<(String, MetricType), usize>,
    /// The same by applications' names, which are many more times looked up than there are.
    by_series: HashMap<(Box<str>, MetricType), Option<usize>>,
    items: Vec<Item>,
    windows: Vec<Arc<W>>,
    records: Vec<(usize, usize)>,
}

impl<W: AsRef<Window>> Builder<W> {
    /// An empty page. A gauge is on it for `carry` after it was last set.
    #[must_use]
    pub fn new(format: Format, naming: Naming, level: Level, now: Timestamp, carry: Duration) -> Self {
        Self {
            format,
            naming,
            level,
            created: false,
            now,
            carry,
            identities: Vec::new(),
            by_identity: HashMap::new(),
            infos: BTreeMap::new(),
            families: Vec::new(),
            by_name: HashMap::new(),
            by_series: HashMap::new(),
            items: Vec::new(),
            windows: Vec::new(),
            records: Vec::new(),
        }
    }

    /// With the moment each counter was created; the classic format has no place for it.
    #[must_use]
    pub fn with_created(self, created: bool) -> Self {
        Self { created: created && self.format == Format::OpenMetrics, ..self }
    }

    /// Adds a container and those of its series that are wanted. Containers of one identity come oldest first.
    pub fn add(&mut self, source: &Source<'_, W>, wanted: impl Fn(&Series) -> bool) {
        let identity = self.identity(Identity::of(source.origin, self.level));
        if source.shown && self.level != Level::Low {
            self.infos.insert(identity, everything(source.origin, self.level));
        }
        let mut found: Vec<Vec<(usize, usize)>> = vec![Vec::new(); source.ledger.places()];
        for held in &source.windows {
            self.windows.push(Arc::clone(&held.window));
            self.find(&mut found, self.windows.len() - 1, held, source.ledger);
        }
        for (place, records) in found.into_iter().enumerate() {
            let Some((series, row)) = source.ledger.get(place) else { continue };
            if !wanted(series) || (records.is_empty() && !is_cumulative(series.metric_type)) {
                continue;
            }
            let Some(family) = self.family(series) else { continue };
            let start = self.records.len();
            self.records.extend(records);
            let item = Item {
                family,
                identity,
                past: !source.shown,
                series: Arc::clone(series),
                created: series.created,
                total: row.total.into(),
                count: row.count,
                records: start..self.records.len(),
            };
            self.push(item);
        }
    }

    /// Adds what a series had counted in containers that are gone.
    pub fn add_past(
        &mut self,
        identity: &Identity,
        series: &Arc<Series>,
        (created, total, count): (Timestamp, Total, Weight),
    ) {
        let Some(family) = self.family(series) else { return };
        let identity = self.identity(identity.clone());
        self.push(Item {
            family,
            identity,
            past: true,
            series: Arc::clone(series),
            created,
            total,
            count,
            records: 0..0,
        });
    }

    /// The page, ready to be written.
    #[must_use]
    pub fn finish(mut self) -> Page<W> {
        for family in &mut self.families {
            family.items.sort_by_key(|index| self.items.get(*index).map(|item| item.identity));
        }
        let blocks = blocks(&self.families, &self.items, self.format, self.created);
        Page::new(
            self.format,
            self.naming,
            self.level,
            Gathered {
                infos: self.infos.into_values().collect(),
                blocks,
                identities: self.identities,
                families: self.families,
                items: self.items,
                windows: self.windows,
                records: self.records,
            },
        )
    }

    fn push(&mut self, item: Item) {
        if let Some(family) = self.families.get_mut(item.family) {
            family.negative |= item.total.as_f64() < 0.0;
            family.items.push(self.items.len());
            self.items.push(item);
        }
    }

    fn identity(&mut self, identity: Identity) -> usize {
        *self.by_identity.entry(identity).or_insert_with_key(|identity| {
            self.identities.push(identity.clone());
            self.identities.len() - 1
        })
    }

    /// Which records of a window belong to which place: of a gauge the newest alone, and not when it is too old.
    fn find(&self, found: &mut [Vec<(usize, usize)>], window: usize, held: &Held<W>, ledger: &Ledger) {
        let (now, carry) = (self.now, self.carry);
        let contents = held.window.as_ref().as_ref();
        let of = |index: &usize| Some((*index, contents.record(*index)?));
        for (index, record) in held.records.iter().filter_map(of) {
            let place = record.place as usize;
            let Some(slot) = found.get_mut(place) else { continue };
            // A place is given again after its series was dropped.
            let same = ledger.get(place).is_some_and(|(series, _)| Arc::ptr_eq(series, record.series));
            let counts = match record.view {
                View::Gauge(gauge) => slot.is_empty() && now.since(gauge.last_at) <= carry,
                View::Distribution { .. } | View::Set { .. } => true,
                View::Counter { .. } | View::Check { .. } => false,
            };
            if same && counts {
                slot.push((window, index));
            }
        }
    }

    fn family(&mut self, series: &Series) -> Option<usize> {
        let key = (series.name.clone(), series.metric_type);
        if let Some(known) = self.by_series.get(&key) {
            return *known;
        }
        let family = Shape::of(self.naming, series.metric_type).map(|shape| self.new_family(series, shape));
        self.by_series.insert(key, family);
        family
    }

    fn new_family(&mut self, series: &Series, shape: Shape) -> usize {
        let name = self.naming.metric(&series.name, series.metric_type);
        let name = format!("{}{name}{}", shape.prefix, shape.suffix);
        *self.by_name.entry((name, series.metric_type)).or_insert_with_key(|(name, metric_type)| {
            let help = format!("The {metric_type} {} of StatsD.", series.name);
            self.families.push(Family {
                name: name.clone(),
                shape,
                help,
                negative: false,
                items: Vec::new(),
            });
            self.families.len() - 1
        })
    }
}

/// Whether the ledger alone has something to show.
fn is_cumulative(metric_type: MetricType) -> bool {
    !matches!(metric_type, MetricType::Gauge | MetricType::Set | MetricType::ServiceCheck)
}

/// What a page is written from.
#[derive(Debug)]
pub(super) struct Gathered<W> {
    pub(super) infos: Vec<String>,
    pub(super) blocks: Vec<Block>,
    pub(super) identities: Vec<Identity>,
    pub(super) families: Vec<Family>,
    pub(super) items: Vec<Item>,
    pub(super) windows: Vec<Arc<W>>,
    pub(super) records: Vec<(usize, usize)>,
}

/// What is declared, sorted by name. Families that claim a name of each other say nothing of their type; only so can
/// their samples keep the names they always have.
fn blocks(families: &[Family], items: &[Item], format: Format, created: bool) -> Vec<Block> {
    let whole: Vec<Vec<Block>> = families
        .iter()
        .enumerate()
        .map(|(index, family)| family.blocks(index, format, created, family.negative))
        .collect();
    let mut claims: HashMap<String, usize> = HashMap::new();
    for block in whole.iter().flatten() {
        for claim in block.claims(format) {
            *claims.entry(claim).or_default() += 1;
        }
    }
    let is_contested = |block: &Block| block.claims(format).iter().any(|claim| claims.get(claim) > Some(&1));
    let mut named: BTreeMap<String, Block> = BTreeMap::new();
    for (index, (family, whole)) in families.iter().zip(whole).enumerate() {
        let contested = whole.iter().any(is_contested);
        let blocks = if contested { family.blocks(index, format, created, true) } else { whole };
        for block in blocks {
            match named.get_mut(&block.name) {
                Some(known) => {
                    known.parts.extend(block.parts);
                    known.items.extend(block.items);
                    known.items.sort_by_key(|index| items.get(*index).map(|item| item.identity));
                }
                None => {
                    named.insert(block.name.clone(), block);
                }
            }
        }
    }
    named.into_values().collect()
}

impl Family {
    /// What this family is declared as: one block, or one of each part where nothing is said of it.
    fn blocks(&self, index: usize, format: Format, created: bool, apart: bool) -> Vec<Block> {
        let parts: Vec<_> =
            self.shape.parts.iter().filter(|(stat, _)| created || *stat != Stat::Created).collect();
        let counts = self.shape.declared == Declared::Counter;
        let suffixed = parts.iter().any(|(_, suffix)| *suffix == "_total");
        let unsaid = match format {
            // A counter of OpenMetrics ends with _total, or is none.
            Format::OpenMetrics => counts && !suffixed,
            Format::Prometheus => false,
        };
        let block = |name: String, declared, unit, parts: Vec<(usize, Stat, &'static str)>| Block {
            name,
            declared,
            unit,
            help: self.help.clone(),
            parts,
            items: self.items.clone(),
        };
        if apart || unsaid || self.shape.declared == Declared::Unknown {
            let one = |(stat, suffix): &&(Stat, &'static str)| {
                let name = format!("{}{suffix}", self.name);
                block(name, Declared::Unknown, "", vec![(index, *stat, "")])
            };
            return parts.iter().map(one).collect();
        }
        // The classic format names a counter as its sample; and what has but one sample is named as that.
        let alone = match parts.as_slice() {
            [(stat, suffix)] if format == Format::Prometheus || !counts => Some((*stat, *suffix)),
            _ => None,
        };
        vec![match alone {
            Some((stat, suffix)) => {
                block(format!("{}{suffix}", self.name), self.shape.declared, "", vec![(index, stat, "")])
            }
            None => {
                let parts = parts.iter().map(|(stat, suffix)| (index, *stat, *suffix)).collect();
                block(self.name.clone(), self.shape.declared, self.shape.unit, parts)
            }
        }]
    }
}

impl Block {
    /// Every name that a parser could take for one of this family's.
    fn claims(&self, format: Format) -> Vec<String> {
        let suffixes: &[&str] = match (self.declared, format) {
            (Declared::Counter, Format::OpenMetrics) => &["", "_total", "_created"],
            (Declared::Summary, Format::OpenMetrics) => &["", "_sum", "_count", "_created"],
            (Declared::Summary, Format::Prometheus) => &["", "_sum", "_count"],
            _ => &[""],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.name)).collect()
    }
}
