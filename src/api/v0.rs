//! The DC/OS metrics API: its paths, its schema and its status codes.
//!
//! An unknown container and a silent one both get 204, as they did; ids match whole, names match whole or up to a dot.

mod resources;

use serde::Serialize;

pub(super) use self::resources::{get_container_resources, get_node_resources};
use super::error::ApiError;
use super::pages::{Asker, BuildLane, PageRequest, PageWriter};
use super::query::Query;
use super::{Api, ApiResponse};
use crate::aggregate::{PERCENTILES, Record, View};
use crate::containers::ContainerInfo;
use crate::model::{ContainerId, Labels, SeriesKey, Timestamp};
use crate::net::clock;
use crate::render::number::{Whole, finite_value};
use crate::render::record::TagsDocument;

#[derive(Serialize)]
struct Ping {
    ok: bool,
    timestamp: Timestamp,
}

/// `GET /v0/ping`
pub(super) fn ping() -> ApiResponse {
    ApiResponse::with_json(
        200,
        &Ping { ok: true, timestamp: Timestamp::from_secs(clock::wall_time().as_secs()) },
    )
}

/// `GET /v0/containers`
pub(super) async fn list_containers(api: &Api, asker: Asker, raw: &str) -> Result<ApiResponse, ApiError> {
    Query::read(raw, &[])?;
    answer_document(api, asker, "/v0/containers", String::new(), |api| {
        let mut ids = api.containers.directory().container_ids(usize::MAX);
        ids.sort_unstable();
        Some(ids)
    })
    .await
}

#[derive(Serialize)]
struct MetricsMessage {
    datapoints: Vec<Datapoint>,
    dimensions: Dimensions,
}

#[derive(Serialize)]
struct Datapoint {
    name: String,
    value: Whole,
    unit: &'static str,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<serde_json::Value>,
}

#[derive(Default, Serialize)]
struct Dimensions {
    mesos_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster_id: String,
    container_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    executor_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    framework_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    framework_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    framework_role: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    framework_principal: String,
    task_name: String,
    task_id: String,
    hostname: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    labels: Labels,
}

impl Dimensions {
    /// A label that has the name of a dimension is that dimension.
    fn new(info: &ContainerInfo, node: &str) -> Self {
        let mut labels = info.origin.labels.clone();
        let mut take = |key: &str| labels.remove(key).unwrap_or_default();
        let task_id = info.origin.task_id.to_string();
        let mut dimensions = Self {
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
}

/// `GET /v0/containers/{id}/app` and `GET /v0/containers/{id}/app/{metric}`
pub(super) async fn get_app_metrics(
    api: &Api,
    asker: Asker,
    id: &str,
    metric: Option<&str>,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    Query::read(raw, &[])?;
    let info = ContainerId::new(id).ok().and_then(|id| api.containers.directory().find_container(&id));
    let Some(info) = info else { return Ok(ApiResponse::without_body(204)) };
    let metric = metric.map(str::to_owned);
    answer_document(api, asker, "/v0/containers/{id}/app", format!("{id}\n{metric:?}"), move |api| {
        let mut datapoints = collect_datapoints(api, &info);
        if let Some(metric) = &metric {
            let meant = |name: &str| {
                name == metric || name.strip_prefix(metric.as_str()).is_some_and(|rest| rest.starts_with('.'))
            };
            datapoints.retain(|datapoint| meant(&datapoint.name));
        }
        let dimensions = || Dimensions::new(&info, &api.current_config().node);
        (!datapoints.is_empty()).then(|| MetricsMessage { datapoints, dimensions: dimensions() })
    })
    .await
}

/// Answers with a document, or with 204 where there is none.
async fn answer_document<T: Serialize>(
    api: &Api,
    asker: Asker,
    route: &'static str,
    detail: String,
    document: impl FnOnce(&Api) -> Option<T> + Send + 'static,
) -> Result<ApiResponse, ApiError> {
    let request = PageRequest::new(asker, BuildLane::Short, route, detail);
    let of_node = api.clone();
    let render = move |writer: &mut PageWriter| match document(&of_node) {
        Some(document) => writer.write_json(&document),
        None => {
            writer.set_status(204);
            Ok(())
        }
    };
    api.pages.answer_request(request, move |_| async move { Ok(render) }).await
}

/// Each series' newest closed record, taken apart.
fn collect_datapoints(api: &Api, info: &ContainerInfo) -> Vec<Datapoint> {
    let Some(history) = api.store.find_history(info.allocation) else { return Vec::new() };
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

/// One datapoint, or for many values one for each of their numbers, named as DC/OS named them.
fn of_record(end: Timestamp, record: &Record<'_>) -> Vec<Datapoint> {
    let values: Vec<(&'static str, Option<f64>)> = match &record.view {
        View::Counter { counter, .. } => vec![("", finite_value(counter.sum))],
        View::Gauge(gauge) => vec![("", finite_value(gauge.last))],
        View::Set { .. } => vec![("", record.view.cardinality())],
        // DC/OS knew no checks.
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
        Some(Datapoint {
            name: format!("{}{dot}{suffix}", record.series.name),
            value: Whole(value?),
            unit: "",
            timestamp: end,
            tags: tags.clone(),
        })
    };
    values.into_iter().filter_map(datapoint).collect()
}
