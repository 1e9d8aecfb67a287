//! Writing a page, a piece at a time: what many containers report is more than should lie in memory as text.

use std::fmt::Write as _;
use std::sync::Arc;

use super::blocks::Block;
use super::identity::{escape, label};
use super::page::{Gathered, Item, Sums};
use super::shape::{Declared, Shape, Stat};
use super::{Level, Naming, Total};
use crate::aggregate::{Buckets, Distribution, PERCENTILES, Percentiles, State, View, Weight, Window};
use crate::model::Timestamp;
use crate::render::exposition::{Format, number};

/// About how many bytes a piece has.
const PIECE: usize = 64 << 10;

/// What [`PERCENTILES`] are as quantiles.
const QUANTILES: [&str; PERCENTILES.len()] = ["0.5", "0.75", "0.9", "0.95", "0.99"];

/// A page, being written.
#[derive(Debug)]
pub struct Page<W> {
    format: Format,
    naming: Naming,
    level: Level,
    gathered: Gathered<W>,
    /// The next block, whether its head is written, and the next of its items.
    block: usize,
    headed: bool,
    item: usize,
    stage: Stage,
    clashes: u64,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Stage {
    Infos,
    Blocks,
    Done,
}

/// Where a line goes: its name, and the labels of its series.
struct Line<'a> {
    name: &'a str,
    suffix: &'a str,
    labels: &'a str,
}

impl Line<'_> {
    fn write(&self, out: &mut String, more: Option<(&str, &str)>, value: f64) {
        out.push_str(self.name);
        out.push_str(self.suffix);
        out.push('{');
        out.push_str(self.labels);
        if let Some((name, value)) = more {
            let _infallible = write!(out, ",{name}=\"{value}\"");
        }
        let _infallible = writeln!(out, "}} {}", number(value));
    }
}

impl<W: AsRef<Window>> Page<W> {
    pub(super) fn new(format: Format, naming: Naming, level: Level, gathered: Gathered<W>) -> Self {
        Self {
            format,
            naming,
            level,
            gathered,
            block: 0,
            headed: false,
            item: 0,
            stage: Stage::Infos,
            clashes: 0,
        }
    }

    /// Series that were left out so far, because what they would be called is another's name. The conventions of
    /// OpenMetrics rule that out; other namings make one name of several.
    #[must_use]
    pub fn clashes(&self) -> u64 {
        self.clashes
    }

    /// The next piece of the text; `None` after the last.
    pub fn piece(&mut self) -> Option<String> {
        let mut out = String::with_capacity(PIECE + PIECE / 4);
        if self.stage == Stage::Infos {
            self.infos(&mut out);
            self.stage = Stage::Blocks;
        }
        while self.stage == Stage::Blocks && out.len() < PIECE {
            if self.block == self.gathered.blocks.len() {
                if self.format == Format::OpenMetrics {
                    out.push_str("# EOF\n");
                }
                self.stage = Stage::Done;
            } else {
                self.some_of_a_block(&mut out);
            }
        }
        (!out.is_empty()).then_some(out)
    }

    fn infos(&self, out: &mut String) {
        if self.gathered.infos.is_empty() {
            return;
        }
        let (name, declared) = match self.format {
            Format::OpenMetrics => ("tallyport_task", "info"),
            Format::Prometheus => ("tallyport_task_info", "gauge"),
        };
        let _infallible =
            writeln!(out, "# HELP {name} What is known of the container behind a task's series.");
        let _infallible = writeln!(out, "# TYPE {name} {declared}");
        for info in &self.gathered.infos {
            let _infallible = writeln!(out, "tallyport_task_info{{{info}}} 1");
        }
    }

    /// Writes the next identities of a block until the piece is full, or the block is over.
    fn some_of_a_block(&mut self, out: &mut String) {
        let Some(block) = self.gathered.blocks.get(self.block) else { return };
        if !std::mem::replace(&mut self.headed, true) {
            self.head(out, block);
        }
        let identity = |index: &usize| self.gathered.items.get(*index).map(|item| item.identity);
        while out.len() < PIECE {
            let rest = block.items.get(self.item..).unwrap_or_default();
            let Some(first) = rest.first().and_then(identity) else {
                (self.block, self.headed, self.item) = (self.block + 1, false, 0);
                return;
            };
            let of_one = rest.iter().take_while(|index| identity(index) == Some(first)).count();
            self.clashes += self.identity(out, block, rest.get(..of_one).unwrap_or_default());
            self.item += of_one;
        }
    }

    fn head(&self, out: &mut String, block: &Block) {
        let declared = match (block.declared, self.format) {
            (Declared::Counter, _) => "counter",
            (Declared::Gauge, _) => "gauge",
            (Declared::Summary, _) => "summary",
            (Declared::Histogram, _) => "histogram",
            (Declared::Unknown, Format::OpenMetrics) => "unknown",
            (Declared::Unknown, Format::Prometheus) => "untyped",
        };
        let _infallible = write!(out, "# HELP {} ", block.name);
        escape(out, &block.help, self.format == Format::OpenMetrics);
        let _infallible = writeln!(out, "\n# TYPE {} {declared}", block.name);
        if self.format == Format::OpenMetrics && !block.unit.is_empty() {
            let _infallible = writeln!(out, "# UNIT {} {}", block.name, block.unit);
        }
    }

    /// Writes what one identity has in a block; answers how many series had to be left out.
    fn identity(&self, out: &mut String, block: &Block, indices: &[usize]) -> u64 {
        let mut rows: Vec<(String, &Item)> = indices
            .iter()
            .filter_map(|index| self.gathered.items.get(*index))
            .map(|item| (self.labels(item), item))
            .collect();
        rows.sort_by(|(a, first), (b, second)| (a, first.family).cmp(&(b, second.family)));
        let mut clashes = 0;
        for same in rows.chunk_by(|(a, _), (b, _)| a == b) {
            let (mut plain, mut labelled) = (false, false);
            for of_family in same.chunk_by(|(_, a), (_, b)| a.family == b.family) {
                let Some((labels, item)) = of_family.first() else { continue };
                // What is gone alone is shown where workloads are, and nowhere else.
                if self.level != Level::Low && of_family.iter().all(|(_, item)| item.past) {
                    continue;
                }
                let parts: Vec<_> =
                    block.parts.iter().filter(|(family, ..)| *family == item.family).collect();
                let (has_labelled, has_plain) = (
                    parts.iter().any(|(_, stat, _)| Shape::is_labelled(*stat)),
                    parts.iter().any(|(_, stat, _)| !Shape::is_labelled(*stat)),
                );
                if (has_plain && plain) || (has_labelled && labelled) {
                    clashes += 1;
                    continue;
                }
                plain |= has_plain;
                labelled |= has_labelled;
                let items: Vec<&Item> = of_family.iter().map(|(_, item)| *item).collect();
                for (_, stat, suffix) in parts {
                    let line = Line { name: &block.name, suffix, labels };
                    self.stat(out, &line, *stat, &items);
                }
            }
        }
        clashes
    }

    /// The labels of a series: where it comes from, and its tags.
    fn labels(&self, item: &Item) -> String {
        let identity = self.gathered.identities.get(item.identity);
        let mut text = identity.map_or_else(String::new, |identity| identity.as_str().to_owned());
        let mut tags: Vec<_> =
            item.series.tags.iter().map(|(key, value)| (self.naming.label(key), value)).collect();
        tags.sort_unstable();
        // Namings that make one label of two keys keep the first.
        tags.dedup_by(|(a, _), (b, _)| a == b);
        for (name, value) in tags {
            label(&mut text, &name, value);
        }
        text
    }

    fn stat(&self, out: &mut String, line: &Line<'_>, stat: Stat, items: &[&Item]) {
        let family = items.first().and_then(|item| self.gathered.families.get(item.family));
        let divisor = family.map_or(1.0, |family| family.shape.divisor());
        let lately = || self.merged(items);
        let value = match stat {
            Stat::Total => Some(counted(items).total.as_f64()),
            Stat::Created => Some(counted(items).created.as_micros() as f64 / 1e6),
            Stat::Sum => Some(counted(items).total.as_f64() / divisor),
            Stat::Count => Some(counted(items).count.rounded()),
            Stat::Level => self.level_of(items),
            Stat::Cardinality => match lately() {
                Some(State::Set(set)) => Some(set.cardinality()),
                _ => None,
            },
            Stat::Quantiles => {
                let percentiles = self.percentiles(items);
                for (quantile, value) in QUANTILES.iter().zip(percentiles.into_iter().flatten()) {
                    line.write(out, Some(("quantile", quantile)), value / divisor);
                }
                None
            }
            Stat::Buckets => {
                let bounds = family.map_or(&[][..], |family| &family.bounds);
                let buckets = in_buckets(items);
                let counts = buckets.iter().flat_map(|buckets| buckets.cumulative());
                for (bound, count) in bounds.iter().zip(counts) {
                    line.write(out, Some(("le", bound)), count.rounded());
                }
                None
            }
            Stat::Percentile(place) => self
                .percentiles(items)
                .and_then(|values| values.get(place).copied())
                .map(|value| value / divisor),
            Stat::Min | Stat::Max | Stat::Mean | Stat::Stddev => match lately() {
                Some(State::Distribution(values)) => of_values(&values, stat).map(|value| value / divisor),
                _ => None,
            },
        };
        if let Some(value) = value.filter(|value| value.is_finite()) {
            line.write(out, None, value);
        }
    }

    fn views<'p>(&'p self, items: &'p [&Item]) -> impl Iterator<Item = View<'p>> {
        let records = items.iter().filter_map(|item| self.gathered.records.get(item.records.clone()));
        records.flatten().filter_map(|(window, record)| {
            Some(self.gathered.windows.get(*window)?.as_ref().as_ref().record(*record)?.view)
        })
    }

    /// The level that was set last, as one server for all of them would have it.
    fn level_of(&self, items: &[&Item]) -> Option<f64> {
        let gauges = self.views(items).filter_map(|view| match view {
            View::Gauge(gauge) => Some(gauge),
            _ => None,
        });
        gauges.max_by_key(|gauge| gauge.last_at).map(|gauge| gauge.last)
    }

    fn merged(&self, items: &[&Item]) -> Option<State> {
        let mut states = self.views(items).filter_map(|view| view.to_state());
        let mut merged = states.next()?;
        states.for_each(|state| merged.merge(&state));
        Some(merged)
    }

    fn percentiles(&self, items: &[&Item]) -> Option<Percentiles> {
        let mut views = self.views(items);
        let (first, second) = (views.next()?, views.next());
        if second.is_none() {
            return first.percentiles();
        }
        let merged = self.merged(items)?;
        merged.view(0.0, &merged.packed())?.percentiles()
    }
}

fn counted(items: &[&Item]) -> Sums {
    let nothing = Sums { total: Total::default(), count: Weight::ZERO, created: Timestamp::MAX };
    items.iter().fold(nothing, |sum, Item { sums, .. }| Sums {
        total: sum.total.plus(sums.total),
        count: sum.count.plus(sums.count),
        created: sum.created.min(sums.created),
    })
}

/// All of one family are counted by the same bounds.
fn in_buckets(items: &[&Item]) -> Option<Arc<Buckets>> {
    let mut buckets = items.iter().filter_map(|item| item.buckets.as_ref());
    let mut all = Arc::clone(buckets.next()?);
    for more in buckets {
        Arc::make_mut(&mut all).merge(more);
    }
    Some(all)
}

fn of_values(values: &Distribution, stat: Stat) -> Option<f64> {
    match stat {
        Stat::Min => Some(values.summary.min),
        Stat::Max => Some(values.summary.max),
        Stat::Mean => values.summary.mean(),
        Stat::Stddev => values.summary.stddev(),
        _ => None,
    }
}
