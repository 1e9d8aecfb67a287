//! Datapoints of the DC/OS metrics API: what containers report, and what containers and the node use.

mod resources;

pub use self::resources::{of_node, used};
use super::data::Data;
use crate::aggregate::{PERCENTILES, Record, View};
use crate::containers::ContainerInfo;
use crate::model::{Labels, SeriesKey, Timestamp};
use crate::render::number::{Whole, finite};
use crate::render::record::TagsDocument;
use crate::wire::{Word, v0 as wire};

type Message = wire::Message<Whole>;
type Datapoint = wire::Datapoint<Whole>;

/// What a container reports: each series' newest closed record, of the metrics whose name is `metric` or begins with it and a dot.
/// None where there is nothing.
#[must_use]
pub fn reported(data: &Data, info: &ContainerInfo, metric: Option<&str>) -> Option<Message> {
    let mut datapoints = datapoints(data, info);
    if let Some(metric) = metric {
        let meant = |name: &str| {
            name == metric || name.strip_prefix(metric).is_some_and(|rest| rest.starts_with('.'))
        };
        datapoints.retain(|datapoint| meant(&datapoint.name));
    }
    message(data, info, datapoints)
}

/// Datapoints of a container as an answer; none where there are none.
fn message(data: &Data, info: &ContainerInfo, datapoints: Vec<Datapoint>) -> Option<Message> {
    let dimensions = || dimensions(info, &data.config().node);
    (!datapoints.is_empty()).then(|| Message { datapoints, dimensions: dimensions() })
}

/// The dimensions of a container. A label that has the name of a dimension is that dimension.
fn dimensions(info: &ContainerInfo, node: &str) -> wire::Dimensions {
    let mut labels = info.origin.labels.clone();
    let mut take = |key: &str| labels.remove(key).unwrap_or_default();
    let task_id = info.origin.task_id.to_string();
    let mut dimensions = wire::Dimensions {
        mesos_id: take("mesos_id"),
        cluster_id: take("cluster_id"),
        container_id: info.origin.container_id.to_string(),
        executor_id: take("executor_id"),
        framework_name: take("framework_name"),
        framework_id: take("framework_id"),
        framework_role: take("framework_role"),
        framework_principal: take("framework_principal"),
        task_name: take("task_name"),
        task_id,
        hostname: node.to_owned(),
        labels: Labels::new(),
    };
    if dimensions.task_name.is_empty() {
        // What Mesos calls a task's name is its id without what makes it unique.
        let name = dimensions.task_id.split('.').next().unwrap_or_default();
        dimensions.task_name = name.to_owned();
    }
    dimensions.labels = labels;
    dimensions
}

/// Each series' newest closed record, taken apart.
fn datapoints(data: &Data, info: &ContainerInfo) -> Vec<Datapoint> {
    let Some(history) = data.store.history(info.allocation) else { return Vec::new() };
    let mut seen = std::collections::HashSet::new();
    let mut records = Vec::new();
    for kept in history.kept().rev() {
        for (published, _, record) in kept.records() {
            if seen.insert(SeriesKey(record.series)) {
                records.push((published.window().span.end, record));
            }
        }
    }
    records.sort_by(|(_, a), (_, b)| SeriesKey(a.series).cmp(&SeriesKey(b.series)));
    records.iter().flat_map(|(end, record)| of_record(*end, record)).collect()
}

/// One datapoint, or for many values one for each of their numbers, named as DC/OS named them.
fn of_record(end: Timestamp, record: &Record<'_>) -> Vec<Datapoint> {
    let values: Vec<(&'static str, Option<f64>)> = match &record.view {
        View::Counter { counter, .. } => vec![("", finite(counter.sum))],
        View::Gauge(gauge) => vec![("", finite(gauge.last))],
        View::Set { .. } => vec![("", record.view.cardinality())],
        // DC/OS knew no checks.
        View::Check { .. } => vec![],
        View::Distribution { summary, .. } => {
            let percentiles = record.view.percentiles();
            let percentiles = PERCENTILES.iter().zip(percentiles.into_iter().flatten());
            let sums = [
                (".count", Some(summary.count.as_f64())),
                (".lower", finite(summary.min)),
                (".mean", summary.mean()),
                (".stddev", summary.stddev()),
                (".sum", finite(summary.sum)),
                (".upper", finite(summary.max)),
            ];
            sums.into_iter().chain(percentiles.map(|((_, name), value)| (*name, finite(value)))).collect()
        }
    };
    let tags = (!record.series.tags.is_empty())
        .then(|| serde_json::to_value(TagsDocument(&record.series.tags)).ok());
    let tags = tags.flatten();
    let datapoint = |(suffix, value): (&'static str, Option<f64>)| {
        let dot = if suffix.is_empty() || suffix.starts_with('.') { "" } else { "." };
        Some(Datapoint {
            name: format!("{}{dot}{suffix}", record.series.name),
            value: Whole(value?),
            unit: Word::default(),
            timestamp: end,
            tags: tags.clone(),
        })
    };
    values.into_iter().filter_map(datapoint).collect()
}
