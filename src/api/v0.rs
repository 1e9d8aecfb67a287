//! The DC/OS metrics API: its paths, its schema and its status codes.
//!
//! An unknown container and a silent one both get 204, as they did; ids match whole, names match whole or up to a dot.

mod resources;

use serde::Serialize;

pub(super) use self::resources::{container, node};
use super::error::ApiError;
use super::pages::{Asker, Lane, Request, Writer};
use super::{Answer, Reading};
use crate::aggregate::{PERCENTILES, Record, View};
use crate::containers::ContainerInfo;
use crate::model::{ContainerId, Labels, SeriesKey, Timestamp};
use crate::net::clock;
use crate::query::{Query, Sink as _};
use crate::render::number::{Whole, finite};
use crate::render::record::TagsDocument;
use crate::wire::{Word, v0 as wire};

/// `GET /v0/ping`
pub(super) fn ping() -> Answer {
    Answer::json(200, &wire::Ping { ok: true, timestamp: Timestamp::from_secs(clock::wall().as_secs()) })
}

/// `GET /v0/containers`
pub(super) async fn containers(reading: &Reading, asker: Asker, raw: &str) -> Result<Answer, ApiError> {
    Query::read(raw, &[])?;
    answer(reading, asker, "/v0/containers", String::new(), |reading| {
        let mut ids = reading.data.directory.container_ids(usize::MAX);
        ids.sort_unstable();
        Some(ids)
    })
    .await
}

type Message = wire::Message<Whole>;
type Datapoint = wire::Datapoint<Whole>;

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

/// `GET /v0/containers/{id}/app` and `GET /v0/containers/{id}/app/{metric}`
pub(super) async fn app(
    reading: &Reading,
    asker: Asker,
    id: &str,
    metric: Option<&str>,
    raw: &str,
) -> Result<Answer, ApiError> {
    Query::read(raw, &[])?;
    let info = ContainerId::new(id).ok().and_then(|id| reading.data.directory.container(&id));
    let Some(info) = info else { return Ok(Answer::empty(204)) };
    let metric = metric.map(str::to_owned);
    answer(reading, asker, "/v0/containers/{id}/app", format!("{id}\n{metric:?}"), move |reading| {
        let mut datapoints = datapoints(reading, &info);
        if let Some(metric) = &metric {
            let meant = |name: &str| {
                name == metric || name.strip_prefix(metric.as_str()).is_some_and(|rest| rest.starts_with('.'))
            };
            datapoints.retain(|datapoint| meant(&datapoint.name));
        }
        let of_container = || dimensions(&info, &reading.data.config().node);
        (!datapoints.is_empty()).then(|| Message { datapoints, dimensions: of_container() })
    })
    .await
}

/// Answers with a document, or with 204 where there is none.
async fn answer<T: Serialize>(
    reading: &Reading,
    asker: Asker,
    route: &'static str,
    detail: String,
    document: impl FnOnce(&Reading) -> Option<T> + Send + 'static,
) -> Result<Answer, ApiError> {
    let request = Request::new(asker, Lane::Short, route, detail);
    let of_node = reading.clone();
    let render = move |writer: &mut Writer| match document(&of_node) {
        Some(document) => writer.json(&document),
        None => {
            writer.set_status(204);
            Ok(())
        }
    };
    reading.pages.answer(request, move |_| async move { Ok(render) }).await
}

/// Each series' newest closed record, taken apart.
fn datapoints(reading: &Reading, info: &ContainerInfo) -> Vec<Datapoint> {
    let Some(history) = reading.data.store.history(info.allocation) else { return Vec::new() };
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
