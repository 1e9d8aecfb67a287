//! Computes the readings of a series' parts, from its totals and its last windows.

use std::sync::Arc;

use tallyport_core::aggregate::{
    Buckets, DistributionSummary, Native, PERCENTILES, Percentiles, SeriesState, View, Weight, Window,
};
use tallyport_core::model::Timestamp;

use super::Total;
use super::family::{PageItem, Sums};
use super::gathered::Gathered;
use super::shape::Stat;

/// [`PERCENTILES`] as quantiles.
pub(crate) const QUANTILES: [(&str, f64); PERCENTILES.len()] =
    [("0.5", 0.5), ("0.75", 0.75), ("0.9", 0.9), ("0.95", 0.95), ("0.99", 0.99)];

/// One of the numbers of a series, or all of a native histogram.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Reading<'a> {
    One(f64),
    /// One of several, with the label that distinguishes it, as text and as a number.
    Labelled {
        name: &'static str,
        text: &'a str,
        number: f64,
        value: f64,
    },
    Native {
        buckets: &'a Native,
        sum: f64,
    },
}

/// What the numbers of a series are computed from: on a page the ledgers and last windows of several containers, in a round
/// one record.
pub(crate) trait SeriesNumbers {
    /// The cumulative sums.
    fn cumulative(&self) -> Option<CumulativeSums>;
    /// The level of a gauge.
    fn level(&self) -> Option<f64>;
    /// The number of distinct members of a set.
    fn cardinality(&self) -> Option<f64>;
    /// The percentiles of the last values.
    fn percentiles(&self) -> Option<Percentiles>;
    /// Everything else about the last values.
    fn last_values(&self) -> Option<DistributionSummary>;
}

/// The sums of a series since it began.
#[derive(Copy, Clone, Debug)]
pub(crate) struct CumulativeSums {
    pub(crate) created: Timestamp,
    pub(crate) total: f64,
    /// A whole number, although weights need not be.
    pub(crate) count: f64,
}

/// Passes the readings of one part to `put`. Buckets are not numbers, and their parts have none here.
pub(crate) fn emit_numbers(
    stat: Stat,
    divisor: f64,
    numbers: &impl SeriesNumbers,
    put: &mut dyn FnMut(Reading<'_>),
) {
    let value = match stat {
        Stat::Total => numbers.cumulative().map(|sums| sums.total),
        Stat::Created => numbers.cumulative().map(|sums| sums.created.as_micros() as f64 / 1e6),
        Stat::Sum => numbers.cumulative().map(|sums| sums.total / divisor),
        Stat::Count => numbers.cumulative().map(|sums| sums.count),
        Stat::Level => numbers.level(),
        Stat::Cardinality => numbers.cardinality(),
        Stat::Quantiles => {
            let percentiles = numbers.percentiles();
            for ((text, number), value) in QUANTILES.into_iter().zip(percentiles.into_iter().flatten()) {
                put(Reading::Labelled { name: "quantile", text, number, value: value / divisor });
            }
            None
        }
        Stat::Percentile(place) => {
            numbers.percentiles().and_then(|values| values.get(place).copied()).map(|value| value / divisor)
        }
        Stat::Min | Stat::Max | Stat::Mean | Stat::Stddev => {
            let values = numbers.last_values();
            values.and_then(|values| of_values(&values, stat)).map(|value| value / divisor)
        }
        Stat::Buckets | Stat::Native => None,
    };
    if let Some(value) = value.filter(|value| value.is_finite()) {
        put(Reading::One(value));
    }
}

impl<W: AsRef<Window>> Gathered<W> {
    /// Passes the readings of one part to `put`.
    pub(super) fn emit_readings(&self, stat: Stat, items: &[&PageItem], put: &mut dyn FnMut(Reading<'_>)) {
        let family = items.first().and_then(|item| self.families.get(item.family));
        let divisor = family.map_or(1.0, |family| family.shape.divisor());
        match stat {
            Stat::Buckets => {
                let bounds = family.map_or(&[][..], |family| &family.bounds);
                let buckets = in_buckets(items);
                let counts = buckets.iter().flat_map(|buckets| buckets.cumulative_counts());
                for ((text, number), count) in bounds.iter().zip(counts) {
                    let (number, value) = (*number, count.to_rounded_f64());
                    put(Reading::Labelled { name: "le", text, number, value });
                }
            }
            Stat::Native => {
                if let Some(Buckets::Native(buckets)) = in_buckets(items).as_deref() {
                    put(Reading::Native { buckets, sum: combine_sums(items).total.as_f64() / divisor });
                }
            }
            _ => emit_numbers(stat, divisor, &ItemNumbers { gathered: self, items }, put),
        }
    }

    fn record_views<'i>(&'i self, items: &'i [&PageItem]) -> impl Iterator<Item = View<'i>> {
        let records = items.iter().filter_map(|item| self.records.get(item.records.clone()));
        records.flatten().filter_map(|(window, record)| {
            Some(self.windows.get(*window)?.as_ref().as_ref().record_at(*record)?.view)
        })
    }

    /// The level of a gauge across several containers: the one set last, as a single server for all of them would have
    /// it.
    fn level_of(&self, items: &[&PageItem]) -> Option<f64> {
        let gauges = self.record_views(items).filter_map(|view| match view {
            View::Gauge(gauge) => Some(gauge),
            _ => None,
        });
        gauges.max_by_key(|gauge| gauge.last_at).map(|gauge| gauge.last)
    }

    fn merged_state(&self, items: &[&PageItem]) -> Option<SeriesState> {
        let mut states = self.record_views(items).filter_map(|view| view.to_state());
        let mut merged = states.next()?;
        states.for_each(|state| merged.merge(&state));
        Some(merged)
    }

    fn compute_percentiles(&self, items: &[&PageItem]) -> Option<Percentiles> {
        let mut views = self.record_views(items);
        let (first, second) = (views.next()?, views.next());
        if second.is_none() {
            return first.percentiles();
        }
        let merged = self.merged_state(items)?;
        merged.as_view(0.0, &merged.to_packed_bytes())?.percentiles()
    }
}

/// The numbers of one series on a page, which several containers can have.
struct ItemNumbers<'p, W> {
    gathered: &'p Gathered<W>,
    items: &'p [&'p PageItem],
}

impl<W: AsRef<Window>> SeriesNumbers for ItemNumbers<'_, W> {
    fn cumulative(&self) -> Option<CumulativeSums> {
        let Sums { created, total, count, .. } = combine_sums(self.items);
        Some(CumulativeSums { created, total: total.as_f64(), count: count.to_rounded_f64() })
    }

    fn level(&self) -> Option<f64> {
        self.gathered.level_of(self.items)
    }

    fn cardinality(&self) -> Option<f64> {
        match self.gathered.merged_state(self.items) {
            Some(SeriesState::Set(set)) => Some(set.cardinality()),
            _ => None,
        }
    }

    fn percentiles(&self) -> Option<Percentiles> {
        self.gathered.compute_percentiles(self.items)
    }

    fn last_values(&self) -> Option<DistributionSummary> {
        match self.gathered.merged_state(self.items) {
            Some(SeriesState::Distribution(values)) => Some(values.summary),
            _ => None,
        }
    }
}

/// The combined sums of several containers, with the earliest creation time.
pub(super) fn combine_sums(items: &[&PageItem]) -> Sums {
    let nothing =
        Sums { total: Total::default(), count: Weight::ZERO, created: Timestamp::MAX, decremented: false };
    items.iter().fold(nothing, |sum, PageItem { sums, .. }| Sums {
        total: sum.total.saturating_add(sums.total),
        count: sum.count.saturating_add(sums.count),
        created: sum.created.min(sums.created),
        decremented: sum.decremented || sums.decremented,
    })
}

/// The combined buckets of items of one family, which all use the same scale.
fn in_buckets(items: &[&PageItem]) -> Option<Arc<Buckets>> {
    let mut buckets = items.iter().filter_map(|item| item.buckets.as_ref());
    let mut all = Arc::clone(buckets.next()?);
    for more in buckets {
        Arc::make_mut(&mut all).merge(more);
    }
    Some(all)
}

fn of_values(values: &DistributionSummary, stat: Stat) -> Option<f64> {
    match stat {
        Stat::Min => Some(values.min),
        Stat::Max => Some(values.max),
        Stat::Mean => values.mean(),
        Stat::Stddev => values.stddev(),
        _ => None,
    }
}
