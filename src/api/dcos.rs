//! The lifecycle in the dialect of the DC/OS metrics isolator: three keys, one error-free repeat, plain paths.
//!
//! The isolator fails a task's launch on any answer to `POST` but 201 and 204, so a repeat is a 201, too.

use std::net::IpAddr;

use serde::Deserialize;

use super::documents::DcosContainer;
use super::error::ApiError;
use super::lifecycle::{self, body, container_id};
use super::{Answer, Api};
use crate::containers::{Dialect, Reservation, WantedAddress};

#[derive(Debug, Deserialize)]
struct Body {
    container_id: String,
    #[serde(default)]
    statsd_host: Option<IpAddr>,
    #[serde(default)]
    statsd_port: Option<u16>,
}

/// `POST /container`
pub(super) async fn reserve(api: &Api, bytes: &[u8]) -> Result<Answer, ApiError> {
    let Body { container_id: id, statsd_host, statsd_port } = body(bytes)?;
    let mut reservation = Reservation::new(container_id(&id)?);
    reservation.dialect = Dialect::Dcos;
    // Port 0 means any, as it does to the system.
    let wanted = WantedAddress { host: statsd_host, port: statsd_port.filter(|port| *port > 0) };
    reservation.wanted = (wanted.host.is_some() || wanted.port.is_some()).then_some(wanted);
    let reserved = api.containers.reserve(reservation).await.map_err(|error| ApiError::from(&error))?;
    Ok(Answer::json(201, &DcosContainer::from(reserved.info.as_ref())))
}

/// `GET /containers`
pub(super) fn list(api: &Api) -> Answer {
    let all = api.containers.directory().all();
    let live: Vec<DcosContainer> =
        all.iter().filter(|info| info.state.is_live()).map(|info| info.as_ref().into()).collect();
    Answer::json(200, &live)
}

/// `GET /container/{id}`
pub(super) fn show(api: &Api, id: &str) -> Result<Answer, ApiError> {
    let directory = api.containers.directory();
    match directory.container(&container_id(id)?).filter(|info| info.state.is_live()) {
        Some(info) => Ok(Answer::json(200, &DcosContainer::from(info.as_ref()))),
        None => Err(ApiError::unknown_container(id, directory.nearest_containers(id))),
    }
}

/// `DELETE /container/{id}`
pub(super) async fn release(api: &Api, id: &str) -> Result<Answer, ApiError> {
    lifecycle::released(api, id).await?;
    Ok(Answer::empty(202))
}
