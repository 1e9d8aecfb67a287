//! Series of a round with the names, labels and shapes that they have on a scraped page.
//!
//! A page can add up series that its naming scheme gives one name and the same labels. A receiver would take them for two
//! values of one series, so of these only one is sent. Which one does not depend on the range that is encoded, or a
//! bisection would send both.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use tallyport_core::aggregate::{Counting, DistributionSummary, Native, Percentiles, View};
use tallyport_core::model::{MetricType, Origin, Series};
use xxhash_rust::xxh3::xxh3_64;

use super::RoundRecord;
use super::labels::{LabelOf, find_marks, identity_values, tag_values};
use crate::exposition::Escaping;
use crate::prometheus::scraped::SeriesNames;
use crate::prometheus::shape::{Declared, Shape, Stat};
use crate::prometheus::stat::{CumulativeSums, SeriesNumbers};
use crate::prometheus::{Level, Marks, MarksOfAll, NameSpelling, Naming, SeriesIdentity, Timers};

/// How series are spelled, and what timers, histograms and distributions are.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct ScrapeSpelling {
    pub(super) naming: Naming,
    pub(super) escaping: Escaping,
    /// Native histograms, or summaries for any other choice: the bounds of classic histograms are not in a window.
    pub(super) timers: Timers,
}

/// What has a name: a record of a round, or a series that ended.
pub(super) trait NamedItem {
    fn origin(&self) -> &Origin;
    fn identity(&self) -> &SeriesIdentity;
    fn series(&self) -> &Series;
}

impl NamedItem for RoundRecord<'_> {
    fn origin(&self) -> &Origin {
        self.origin
    }

    fn identity(&self) -> &SeriesIdentity {
        self.identity
    }

    fn series(&self) -> &Series {
        self.series
    }
}

/// All series of one identity, some of which are to be encoded.
#[derive(Debug)]
pub(super) struct IdentityRun<'a> {
    /// Labels that identify the origin.
    pub(super) identity: Vec<LabelOf<'a>>,
    /// The series in the encoded range, in order.
    pub(super) series: Vec<ScrapedSeries<'a>>,
}

/// One series.
#[derive(Debug)]
pub(super) struct ScrapedSeries<'a> {
    /// Its index in the round.
    pub(super) index: usize,
    /// The name, to which parts add their suffixes.
    pub(super) family: String,
    pub(super) shape: Shape,
    /// Its tags as labels, sorted by name.
    pub(super) tags: Vec<LabelOf<'a>>,
    /// Another record has its name and labels.
    pub(super) clashes: bool,
}

/// A service check, which a page does not show: its status as a gauge.
const CHECK: Shape = Shape {
    declared: Declared::Gauge,
    prefix: "",
    suffix: "_status",
    unit: "",
    places: 0,
    parts: &[(Stat::Level, "")],
};

/// Names the items of a range, which are sorted by identity, one identity after the other.
pub(super) struct IdentityRuns<'a, T> {
    items: &'a [T],
    spelling: ScrapeSpelling,
    level: Level,
    marks: &'a MarksOfAll,
    /// What is left of the range.
    wanted: Range<usize>,
}

impl<'a, T: NamedItem> IdentityRuns<'a, T> {
    /// The identities of `items`, of which `wanted` are to be encoded.
    pub(super) fn new(
        items: &'a [T],
        wanted: Range<usize>,
        (level, marks): (Level, &'a MarksOfAll),
        spelling: ScrapeSpelling,
    ) -> Self {
        let end = wanted.end.min(items.len());
        Self { items, spelling, level, marks, wanted: wanted.start.min(end)..end }
    }

    /// The range of items that have the identity of the item at `index`.
    fn find_run(&self, index: usize) -> Range<usize> {
        let identity = self.items.get(index).map(NamedItem::identity);
        let is_same = |item: &T| Some(item.identity()) == identity;
        let (before, after) = (self.items.get(..index), self.items.get(index..));
        let before = before.unwrap_or_default().iter().rev().take_while(|item| is_same(item)).count();
        let after = after.unwrap_or_default().iter().take_while(|item| is_same(item)).count();
        index - before..index + after
    }
}

impl<'a, T: NamedItem> Iterator for IdentityRuns<'a, T> {
    type Item = IdentityRun<'a>;

    fn next(&mut self) -> Option<IdentityRun<'a>> {
        let first = self.items.get(self.wanted.clone())?.first()?;
        let run = self.find_run(self.wanted.start);
        let namer = Namer { spelling: self.spelling, marks: find_marks(self.marks, first.origin()) };
        let items = self.items.get(run.clone()).unwrap_or_default();
        let mut series: Vec<_> = run
            .clone()
            .zip(items)
            .filter_map(|(index, item)| namer.name_series(index, item.series()))
            .collect();
        mark_clashes(&mut series);
        series.retain(|series| self.wanted.contains(&series.index));
        self.wanted.start = run.end.min(self.wanted.end);
        let identity = identity_values(first.origin(), self.level);
        let identity = identity.map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(value)));
        Some(IdentityRun { identity: identity.collect(), series })
    }
}

/// Names the series of one identity.
struct Namer<'m> {
    spelling: ScrapeSpelling,
    marks: Option<&'m Marks>,
}

impl Namer<'_> {
    fn name_series<'a>(&self, index: usize, series: &'a Series) -> Option<ScrapedSeries<'a>> {
        let ScrapeSpelling { naming, escaping, timers } = self.spelling;
        let names = SeriesNames { naming, escaping, marks: self.marks };
        let (family, shape) = match series.metric_type {
            MetricType::ServiceCheck => {
                let mark = names.metric_mark(&series.name, series.metric_type);
                let spelling = NameSpelling { escaping, mark };
                let name = naming.metric_name(&series.name, series.metric_type, spelling);
                (format!("{name}{}", CHECK.suffix), CHECK)
            }
            _ => names.family_name(series)?,
        };
        let native = (timers == Timers::Native).then(|| Counting::Native.scale_for(series.metric_type));
        let shape = native.flatten().and_then(|scale| shape.in_buckets(scale)).unwrap_or(shape);
        let tags = tag_values(&names, &series.tags).collect();
        Some(ScrapedSeries { index, family, shape, tags, clashes: false })
    }
}

/// Marks each series of which another one has a name and the labels. A page also shows what is no native histogram and no
/// check, so these come first.
fn mark_clashes(series: &mut [ScrapedSeries<'_>]) {
    let (mut claims, mut text) = (Vec::with_capacity(2 * series.len()), Vec::new());
    series.iter().for_each(|series| series.push_claims(&mut claims, &mut text));
    claims.sort_unstable();
    if claims.is_sorted_by(|a, b| a < b) {
        // Nearly always.
        return;
    }
    let mut claimed: HashSet<u64> = HashSet::new();
    for rank in 0..3 {
        for series in series.iter_mut().filter(|series| rank_of(&series.shape) == rank) {
            claims.clear();
            series.push_claims(&mut claims, &mut text);
            series.clashes = claims.iter().any(|claim| claimed.contains(claim));
            if !series.clashes {
                claimed.extend(&claims);
            }
        }
    }
}

fn rank_of(shape: &Shape) -> u8 {
    match shape.declared {
        Declared::Native => 1,
        _ if shape.suffix == CHECK.suffix => 2,
        _ => 0,
    }
}

impl ScrapedSeries<'_> {
    /// Its parts that are sent: when it was created is told in another way.
    pub(super) fn sent_parts(&self) -> impl Iterator<Item = (Stat, &'static str)> + use<> {
        self.shape.parts.iter().copied().filter(|(stat, _)| *stat != Stat::Created)
    }

    /// Adds hashes of the names of its samples with its labels, which are written into `text` for this.
    fn push_claims(&self, claims: &mut Vec<u64>, text: &mut Vec<u8>) {
        text.clear();
        for (name, value) in &self.tags {
            for part in [name, value] {
                text.extend_from_slice(part.as_bytes());
                text.push(0xff);
            }
        }
        text.extend_from_slice(self.family.as_bytes());
        let of_all = text.len();
        for (stat, suffix) in self.sent_parts() {
            text.truncate(of_all);
            text.extend_from_slice(suffix.as_bytes());
            text.push(u8::from(Shape::is_labelled(stat)));
            claims.push(xxh3_64(text));
        }
    }
}

/// The numbers of one record of a round.
impl SeriesNumbers for RoundRecord<'_> {
    fn cumulative(&self) -> Option<CumulativeSums> {
        let running = self.running?;
        Some(CumulativeSums { created: running.created, total: running.total, count: running.count.round() })
    }

    fn level(&self) -> Option<f64> {
        match self.view {
            View::Gauge(gauge) => Some(gauge.last),
            View::Check { outcome, .. } => Some(f64::from(outcome.status as u8)),
            _ => None,
        }
    }

    fn cardinality(&self) -> Option<f64> {
        self.view.cardinality()
    }

    fn percentiles(&self) -> Option<Percentiles> {
        self.view.percentiles()
    }

    fn last_values(&self) -> Option<DistributionSummary> {
        match self.view {
            View::Distribution { summary, .. } => Some(summary),
            _ => None,
        }
    }
}

impl RoundRecord<'_> {
    /// Whether the sum that it is part of can fall: a counter to which something negative was added, or negative values.
    pub(super) fn can_decrease(&self) -> bool {
        match self.view {
            View::Counter { counter, .. } => counter.decremented,
            View::Distribution { summary, .. } => {
                let below_zero = |buckets: &Native| buckets.negative_buckets().next().is_some();
                summary.min < 0.0 || self.running.and_then(|running| running.buckets).is_some_and(below_zero)
            }
            View::Gauge(_) | View::Set { .. } | View::Check { .. } => false,
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
