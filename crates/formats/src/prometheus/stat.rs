//! What a series shows: the numbers of a part, from what was counted and from its last windows.

use std::sync::Arc;

use tallyport_core::aggregate::{
    Buckets, Distribution, PERCENTILES, Percentiles, State, View, Weight, Window,
};
use tallyport_core::model::Timestamp;

use super::Total;
use super::page::{Item, Sums};
use super::shape::Stat;
use super::write::{Reading, Series};

/// What [`PERCENTILES`] are as quantiles.
const QUANTILES: [(&str, f64); PERCENTILES.len()] =
    [("0.5", 0.5), ("0.75", 0.75), ("0.9", 0.9), ("0.95", 0.95), ("0.99", 0.99)];

impl<W: AsRef<Window>> Series<'_, W> {
    /// Tells the numbers of one part.
    pub(super) fn stat(&self, stat: Stat, items: &[&Item], put: &mut dyn FnMut(Reading<'_>)) {
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
                for ((text, number), value) in QUANTILES.into_iter().zip(percentiles.into_iter().flatten()) {
                    put(Reading::Labelled { name: "quantile", text, number, value: value / divisor });
                }
                None
            }
            Stat::Buckets => {
                let bounds = family.map_or(&[][..], |family| &family.bounds);
                let buckets = in_buckets(items);
                let counts = buckets.iter().flat_map(|buckets| buckets.cumulative());
                for ((text, number), count) in bounds.iter().zip(counts) {
                    let (number, value) = (*number, count.rounded());
                    put(Reading::Labelled { name: "le", text, number, value });
                }
                None
            }
            Stat::Native => {
                if let Some(Buckets::Native(buckets)) = in_buckets(items).as_deref() {
                    put(Reading::Native { buckets, sum: counted(items).total.as_f64() / divisor });
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
            put(Reading::One(value));
        }
    }

    fn views<'i>(&'i self, items: &'i [&Item]) -> impl Iterator<Item = View<'i>> {
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

/// What several containers counted, and since when.
pub(super) fn counted(items: &[&Item]) -> Sums {
    let nothing =
        Sums { total: Total::default(), count: Weight::ZERO, created: Timestamp::MAX, decremented: false };
    items.iter().fold(nothing, |sum, Item { sums, .. }| Sums {
        total: sum.total.plus(sums.total),
        count: sum.count.plus(sums.count),
        created: sum.created.min(sums.created),
        decremented: sum.decremented || sums.decremented,
    })
}

/// All of one family are counted by the same scale.
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
