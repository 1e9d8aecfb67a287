//! The lifecycle API in the dialect of the DC/OS metrics isolator: three keys, idempotent `POST`, unversioned paths.
//!
//! The isolator fails a task's launch on any answer to `POST` but 201 and 204, so a repeated call gets 201, too.

use std::sync::Arc;

use super::error::ApiError;
use super::lifecycle::{container_id, parse_body, release_by_id};
use super::pages::{Asker, BuildLane, PageRequest, PageWriter};
use super::{ApiResponse, LifecycleContext};
use crate::containers::{Dialect, Reservation, WantedAddress};
use crate::query::dcos_container;
use crate::wire;

/// `POST /container`
pub(super) async fn reserve_container(
    lifecycle: &LifecycleContext,
    bytes: &[u8],
) -> Result<ApiResponse, ApiError> {
    let wire::DcosReservation { container_id: id, statsd_host, statsd_port } = parse_body(bytes)?;
    let mut reservation = Reservation::new(container_id(&id)?);
    reservation.dialect = Dialect::Dcos;
    // Port 0 means any port, as in `bind`.
    let wanted = WantedAddress { host: statsd_host, port: statsd_port.filter(|port| *port > 0) };
    reservation.wanted = (wanted.host.is_some() || wanted.port.is_some()).then_some(wanted);
    let reserved = lifecycle.containers.reserve(reservation).await.map_err(|error| ApiError::from(&error))?;
    Ok(ApiResponse::with_json(201, &dcos_container(&reserved.info)))
}

/// `GET /containers`
pub(super) async fn list_containers(
    lifecycle: &LifecycleContext,
    asker: Asker,
) -> Result<ApiResponse, ApiError> {
    let request = PageRequest::new(asker, BuildLane::Admin, "/containers", String::new());
    let directory = Arc::clone(&lifecycle.reading.data.directory);
    let render = move |writer: &mut PageWriter| {
        let all = directory.all_containers();
        let live = all.iter().filter(|info| info.state.is_live());
        writer.write_array(live.map(|info| dcos_container(info)))
    };
    lifecycle.reading.pages.answer_request(request, move |_| async move { Ok(render) }).await
}

/// `GET /container/{id}`
pub(super) async fn show_container(
    lifecycle: &LifecycleContext,
    asker: Asker,
    id: &str,
) -> Result<ApiResponse, ApiError> {
    let found = lifecycle.reading.data.directory.find_container(&container_id(id)?);
    match found.filter(|info| info.state.is_live()) {
        Some(info) => Ok(ApiResponse::with_json(200, &dcos_container(&info))),
        None => Err(lifecycle.reading.unknown_container(asker, id).await),
    }
}

/// `DELETE /container/{id}`
pub(super) async fn release_container(
    lifecycle: &LifecycleContext,
    asker: Asker,
    id: &str,
) -> Result<ApiResponse, ApiError> {
    release_by_id(lifecycle, asker, id).await?;
    Ok(ApiResponse::without_body(202))
}
