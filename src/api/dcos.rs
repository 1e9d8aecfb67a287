//! The lifecycle in the dialect of the DC/OS metrics isolator: three keys, one error-free repeat, plain paths.
//!
//! The isolator fails a task's launch on any answer to `POST` but 201 and 204, so a repeat is a 201, too.

use std::net::IpAddr;

use serde::Deserialize;

use super::documents::DcosContainer;
use super::error::ApiError;
use super::lifecycle::{self, container_id, parse_body};
use super::pages::{Asker, BuildLane, PageRequest, PageWriter};
use super::{Api, ApiResponse};
use crate::containers::{Dialect, Reservation, WantedAddress};

#[derive(Debug, Deserialize)]
struct DcosReserveBody {
    container_id: String,
    #[serde(default)]
    statsd_host: Option<IpAddr>,
    #[serde(default)]
    statsd_port: Option<u16>,
}

/// `POST /container`
pub(super) async fn reserve_container(api: &Api, bytes: &[u8]) -> Result<ApiResponse, ApiError> {
    let DcosReserveBody { container_id: id, statsd_host, statsd_port } = parse_body(bytes)?;
    let mut reservation = Reservation::new(container_id(&id)?);
    reservation.dialect = Dialect::Dcos;
    // Port 0 means any, as it does to the system.
    let wanted = WantedAddress { host: statsd_host, port: statsd_port.filter(|port| *port > 0) };
    reservation.wanted = (wanted.host.is_some() || wanted.port.is_some()).then_some(wanted);
    let reserved = api.containers.reserve(reservation).await.map_err(|error| ApiError::from(&error))?;
    Ok(ApiResponse::with_json(201, &DcosContainer::from(reserved.info.as_ref())))
}

/// `GET /containers`
pub(super) async fn list_containers(api: &Api, asker: Asker) -> Result<ApiResponse, ApiError> {
    let request = PageRequest::new(asker, BuildLane::Admin, "/containers", String::new());
    let of_node = api.clone();
    let render = move |writer: &mut PageWriter| {
        let all = of_node.containers.directory().all_containers();
        let live = all.iter().filter(|info| info.state.is_live());
        writer.write_array(live.map(|info| DcosContainer::from(info.as_ref())))
    };
    api.pages.answer_request(request, move |_| async move { Ok(render) }).await
}

/// `GET /container/{id}`
pub(super) async fn show_container(api: &Api, asker: Asker, id: &str) -> Result<ApiResponse, ApiError> {
    let found = api.containers.directory().find_container(&container_id(id)?);
    match found.filter(|info| info.state.is_live()) {
        Some(info) => Ok(ApiResponse::with_json(200, &DcosContainer::from(info.as_ref()))),
        None => Err(api.unknown_container(asker, id).await),
    }
}

/// `DELETE /container/{id}`
pub(super) async fn release_container(api: &Api, asker: Asker, id: &str) -> Result<ApiResponse, ApiError> {
    lifecycle::release_by_id(api, asker, id).await?;
    Ok(ApiResponse::without_body(202))
}
