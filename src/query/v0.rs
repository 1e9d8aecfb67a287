//! Datapoints of the DC/OS metrics API: metrics of containers, and resource usage of containers and the node.

mod resources;

pub use self::resources::{of_node, read_resources};
use super::data::Data;
use crate::aggregate::{PERCENTILES, Record, View};
use crate::containers::ContainerInfo;
use crate::model::{Labels, SeriesKey, Timestamp};
use crate::render::number::{Whole, finite_value};
use crate::render::record::TagsDocument;
use crate::wire::{Word, v0 as wire};

type WholeMessage = wire::Message<Whole>;
type WholeDatapoint = wire::Datapoint<Whole>;

/// The metrics of a container: each series' newest closed record, optionally only metrics named `metric` or with that
/// prefix and a dot. `None` if there are none.
#[must_use]
pub fn reported_metrics(data: &Data, info: &ContainerInfo, metric: Option<&str>) -> Option<WholeMessage> {
    let mut datapoints = collect_datapoints(data, info);
    if let Some(metric) = metric {
        let meant = |name: &str| {
            name == metric || name.strip_prefix(metric).is_some_and(|rest| rest.starts_with('.'))
        };
        datapoints.retain(|datapoint| meant(&datapoint.name));
    }
    metrics_message(data, info, datapoints)
}

/// The datapoints of a container as a message; `None` if there are none.
fn metrics_message(
    data: &Data,
    info: &ContainerInfo,
    datapoints: Vec<WholeDatapoint>,
) -> Option<WholeMessage> {
    let dimensions = || message_dimensions(info, &data.current_config().node);
    (!datapoints.is_empty()).then(|| WholeMessage { datapoints, dimensions: dimensions() })
}

/// The dimensions of a container. Labels with the name of a dimension set that dimension.
fn message_dimensions(info: &ContainerInfo, node: &str) -> wire::Dimensions {
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
        // In Mesos, the name of a task is its id without the unique suffix.
        let name = dimensions.task_id.split('.').next().unwrap_or_default();
        dimensions.task_name = name.to_owned();
    }
    dimensions.labels = labels;
    dimensions
}

/// The datapoints of each series' newest closed record.
fn collect_datapoints(data: &Data, info: &ContainerInfo) -> Vec<WholeDatapoint> {
    let Some(history) = data.store.find_history(info.allocation) else { return Vec::new() };
    let mut seen = std::collections::HashSet::new();
    let mut records = Vec::new();
    for kept in history.kept_intervals().rev() {
        for (published, _, record) in kept.newest_records() {
            if seen.insert(SeriesKey(record.series)) {
                records.push((published.window().span.end, record));
            }
        }
    }
    records.sort_by(|(_, a), (_, b)| SeriesKey(a.series).cmp(&SeriesKey(b.series)));
    records.iter().flat_map(|(end, record)| of_record(*end, record)).collect()
}

/// One datapoint, or one for each statistic of a distribution, with the names of DC/OS.
fn of_record(end: Timestamp, record: &Record<'_>) -> Vec<WholeDatapoint> {
    let values: Vec<(&'static str, Option<f64>)> = match &record.view {
        View::Counter { counter, .. } => vec![("", finite_value(counter.sum))],
        View::Gauge(gauge) => vec![("", finite_value(gauge.last))],
        View::Set { .. } => vec![("", record.view.cardinality())],
        // DC/OS has no checks.
        View::Check { .. } => vec![],
        View::Distribution { summary, .. } => {
            let percentiles = record.view.percentiles();
            let percentiles = PERCENTILES.iter().zip(percentiles.into_iter().flatten());
            let sums = [
                (".count", Some(summary.count.as_f64())),
                (".lower", finite_value(summary.min)),
                (".mean", summary.mean()),
                (".stddev", summary.stddev()),
                (".sum", finite_value(summary.sum)),
                (".upper", finite_value(summary.max)),
            ];
            sums.into_iter()
                .chain(percentiles.map(|((_, name), value)| (*name, finite_value(value))))
                .collect()
        }
    };
    let tags = (!record.series.tags.is_empty())
        .then(|| serde_json::to_value(TagsDocument(&record.series.tags)).ok());
    let tags = tags.flatten();
    let datapoint = |(suffix, value): (&'static str, Option<f64>)| {
        let dot = if suffix.is_empty() || suffix.starts_with('.') { "" } else { "." };
        Some(WholeDatapoint {
            name: format!("{}{dot}{suffix}", record.series.name),
            value: Whole(value?),
            unit: Word::default(),
            timestamp: end,
            tags: tags.clone(),
        })
    };
    values.into_iter().filter_map(datapoint).collect()
}
