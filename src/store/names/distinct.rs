//! The names that series have.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{MetricType, Series};
use crate::render::prometheus::{Name, NameKind};

/// The names of series in the order they are met first, each with how many of them have it: the series of an application
/// share few names, and looking these up is all that a reader of the store ever waits for.
pub(super) fn distinct_names<'s>(series: impl Iterator<Item = &'s Arc<Series>>) -> Vec<(Name, u32)> {
    let mut places: HashMap<(NameKind, &str), usize> = HashMap::new();
    let mut all: Vec<(Name, u32)> = Vec::new();
    for (kind, text) in series.flat_map(|series| series_names(series)) {
        let place = *places.entry((kind, text)).or_insert(all.len());
        match all.get_mut(place) {
            Some((_, series)) => *series += 1,
            None => all.push((Name { kind, text: text.into() }, 1)),
        }
    }
    all
}

/// The names that a series has.
fn series_names(series: &Series) -> impl Iterator<Item = (NameKind, &str)> {
    let shown = series.metric_type != MetricType::ServiceCheck;
    let metric = (NameKind::Metric(series.metric_type), &*series.name);
    let labels = series.tags.iter().map(|(key, _)| (NameKind::Label, key));
    std::iter::once(metric).chain(labels).filter(move |_| shown)
}
