//! The lifecycle in the dialect of the DC/OS metrics isolator: three keys, one error-free repeat, plain paths.
//!
//! The isolator fails a task's launch on any answer to `POST` but 201 and 204, so a repeat is a 201, too.

use std::sync::Arc;

use super::error::ApiError;
use super::lifecycle::{body, container_id, released};
use super::pages::{Asker, Lane, Request, Writer};
use super::{Answer, Lifecycle};
use crate::containers::{Dialect, Reservation, WantedAddress};
use crate::query::dcos_container;
use crate::wire;

/// `POST /container`
pub(super) async fn reserve(lifecycle: &Lifecycle, bytes: &[u8]) -> Result<Answer, ApiError> {
    let wire::DcosReservation { container_id: id, statsd_host, statsd_port } = body(bytes)?;
    let mut reservation = Reservation::new(container_id(&id)?);
    reservation.dialect = Dialect::Dcos;
    // Port 0 means any, as it does to the system.
    let wanted = WantedAddress { host: statsd_host, port: statsd_port.filter(|port| *port > 0) };
    reservation.wanted = (wanted.host.is_some() || wanted.port.is_some()).then_some(wanted);
    let reserved = lifecycle.containers.reserve(reservation).await.map_err(|error| ApiError::from(&error))?;
    Ok(Answer::json(201, &dcos_container(&reserved.info)))
}

/// `GET /containers`
pub(super) async fn list(lifecycle: &Lifecycle, asker: Asker) -> Result<Answer, ApiError> {
    let request = Request::new(asker, Lane::Admin, "/containers", String::new());
    let directory = Arc::clone(&lifecycle.reading.data.directory);
    let render = move |writer: &mut Writer| {
        let all = directory.all();
        let live = all.iter().filter(|info| info.state.is_live());
        writer.array(live.map(|info| dcos_container(info)))
    };
    lifecycle.reading.pages.answer(request, move |_| async move { Ok(render) }).await
}

/// `GET /container/{id}`
pub(super) async fn show(lifecycle: &Lifecycle, asker: Asker, id: &str) -> Result<Answer, ApiError> {
    let found = lifecycle.reading.data.directory.container(&container_id(id)?);
    match found.filter(|info| info.state.is_live()) {
        Some(info) => Ok(Answer::json(200, &dcos_container(&info))),
        None => Err(lifecycle.reading.unknown_container(asker, id).await),
    }
}

/// `DELETE /container/{id}`
pub(super) async fn release(lifecycle: &Lifecycle, asker: Asker, id: &str) -> Result<Answer, ApiError> {
    released(lifecycle, asker, id).await?;
    Ok(Answer::empty(202))
}
