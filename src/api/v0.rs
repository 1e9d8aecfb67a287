//! The DC/OS metrics API: its paths, its schema and its status codes.
//!
//! As in DC/OS, an unknown container and a silent one both get 204; ids match whole, names match whole or up to a dot.

use std::sync::Arc;

use serde::Serialize;

use super::error::ApiError;
use super::pages::{Asker, BuildLane, PageRequest, PageWriter};
use super::{ApiResponse, ReaderContext};
use crate::containers::ContainerInfo;
use crate::host::CpuMeter;
use crate::model::{ContainerId, Timestamp};
use crate::net::clock;
use crate::query::{Data, Query, Sink as _, v0};
use crate::wire::v0::Ping;

/// The wall time, in whole seconds.
fn now() -> Timestamp {
    Timestamp::from_secs(clock::wall_time().as_secs())
}

/// `GET /v0/ping`
pub(super) fn ping() -> ApiResponse {
    ApiResponse::with_json(200, &Ping { ok: true, timestamp: now() })
}

/// `GET /v0/containers`
pub(super) async fn list_containers(
    reading: &ReaderContext,
    asker: Asker,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    Query::read(raw, &[])?;
    answer_document(reading, asker, "/v0/containers", String::new(), |data| {
        let mut ids = data.directory.container_ids(usize::MAX);
        ids.sort_unstable();
        Some(ids)
    })
    .await
}

fn known(reading: &ReaderContext, id: &str) -> Option<Arc<ContainerInfo>> {
    ContainerId::new(id).ok().and_then(|id| reading.data.directory.find_container(&id))
}

/// `GET /v0/containers/{id}/app` and `GET /v0/containers/{id}/app/{metric}`
pub(super) async fn get_app_metrics(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    metric: Option<&str>,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    Query::read(raw, &[])?;
    let Some(info) = known(reading, id) else { return Ok(ApiResponse::without_body(204)) };
    let metric = metric.map(str::to_owned);
    answer_document(reading, asker, "/v0/containers/{id}/app", format!("{id}\n{metric:?}"), move |data| {
        v0::reported_metrics(data, &info, metric.as_deref())
    })
    .await
}

/// `GET /v0/containers/{id}`
pub(super) async fn get_container_resources(
    reading: &ReaderContext,
    asker: Asker,
    id: &str,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    Query::read(raw, &[])?;
    let Some(info) = known(reading, id) else { return Ok(ApiResponse::without_body(204)) };
    answer_document(reading, asker, "/v0/containers/{id}", id.to_owned(), move |data| {
        v0::read_resources(data, &info, now())
    })
    .await
}

/// `GET /v0/node`
pub(super) async fn get_node_resources(
    reading: &ReaderContext,
    cpu: Arc<CpuMeter>,
    asker: Asker,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    Query::read(raw, &[])?;
    answer_document(reading, asker, "/v0/node", String::new(), move |data| {
        Some(v0::of_node(data, cpu.measure_shares(), now()))
    })
    .await
}

/// Responds with a document, or with 204 if there is none.
async fn answer_document<T: Serialize>(
    reading: &ReaderContext,
    asker: Asker,
    route: &'static str,
    detail: String,
    document: impl FnOnce(&Data) -> Option<T> + Send + 'static,
) -> Result<ApiResponse, ApiError> {
    let request = PageRequest::new(asker, BuildLane::Short, route, detail);
    let data = reading.data.clone();
    let render = move |writer: &mut PageWriter| match document(&data) {
        Some(document) => writer.write_json(&document),
        None => {
            writer.set_status(204);
            Ok(())
        }
    };
    reading.pages.answer_request(request, move |_| async move { Ok(render) }).await
}
