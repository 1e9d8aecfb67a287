//! Computes the readings of a series' parts, from its totals and its last windows.

use std::sync::Arc;

use tallyport_core::aggregate::{
    Buckets, Distribution, Native, PERCENTILES, Percentiles, SeriesState, View, Weight, Window,
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
pub(super) enum Reading<'a> {
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

impl<W: AsRef<Window>> Gathered<W> {
    /// Passes the readings of one part to `put`.
    pub(super) fn emit_readings(&self, stat: Stat, items: &[&PageItem], put: &mut dyn FnMut(Reading<'_>)) {
        let family = items.first().and_then(|item| self.families.get(item.family));
        let divisor = family.map_or(1.0, |family| family.shape.divisor());
        let lately = || self.merged_state(items);
        let value = match stat {
            Stat::Total => Some(combine_sums(items).total.as_f64()),
            Stat::Created => Some(combine_sums(items).created.as_micros() as f64 / 1e6),
            Stat::Sum => Some(combine_sums(items).total.as_f64() / divisor),
            Stat::Count => Some(combine_sums(items).count.to_rounded_f64()),
            Stat::Level => self.level_of(items),
            Stat::Cardinality => match lately() {
                Some(SeriesState::Set(set)) => Some(set.cardinality()),
                _ => None,
            },
            Stat::Quantiles => {
                let percentiles = self.compute_percentiles(items);
                for ((text, number), value) in QUANTILES.into_iter().zip(percentiles.into_iter().flatten()) {
                    put(Reading::Labelled { name: "quantile", text, number, value: value / divisor });
                }
                None
            }
            Stat::Buckets => {
                let bounds = family.map_or(&[][..], |family| &family.bounds);
                let buckets = in_buckets(items);
                let counts = buckets.iter().flat_map(|buckets| buckets.cumulative_counts());
                for ((text, number), count) in bounds.iter().zip(counts) {
                    let (number, value) = (*number, count.to_rounded_f64());
                    put(Reading::Labelled { name: "le", text, number, value });
                }
                None
            }
            Stat::Native => {
                if let Some(Buckets::Native(buckets)) = in_buckets(items).as_deref() {
                    put(Reading::Native { buckets, sum: combine_sums(items).total.as_f64() / divisor });
                }
                None
            }
            Stat::Percentile(place) => self
                .compute_percentiles(items)
                .and_then(|values| values.get(place).copied())
                .map(|value| value / divisor),
            Stat::Min | Stat::Max | Stat::Mean | Stat::Stddev => match lately() {
                Some(SeriesState::Distribution(values)) => {
                    of_values(&values, stat).map(|value| value / divisor)
                }
                _ => None,
            },
        };
        if let Some(value) = value.filter(|value| value.is_finite()) {
            put(Reading::One(value));
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

fn of_values(values: &Distribution, stat: Stat) -> Option<f64> {
    match stat {
        Stat::Min => Some(values.summary.min),
        Stat::Max => Some(values.summary.max),
        Stat::Mean => values.summary.mean(),
        Stat::Stddev => values.summary.stddev(),
        _ => None,
    }
}
