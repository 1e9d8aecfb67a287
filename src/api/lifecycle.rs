//! The lifecycle API of the admin socket: reserve, attach, release, list.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::pages::{Asker, BuildLane, Deadline, PageRequest, PageWork, PageWriter};
use super::{ApiResponse, LifecycleContext};
use crate::aggregate::{GaugeSign, TimerUnit};
use crate::containers::{
    AttachError, ContainerInfo, ContainerNetwork, Details, ProcessRef, ReleaseError, Reservation,
    ReserveError, Ttl, WantedAddress,
};
use crate::model::{ContainerId, TaskId};
use crate::query::{self, Budget as _, Filters, Query, parse_duration};
use crate::wire;

/// Maximum `ttl`. Reservations that should wait longer for their process can use `null`: no limit.
const LONGEST_TTL: Duration = Duration::from_hours(7 * 24);

/// Reads a JSON body.
pub(super) fn parse_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_body(&error.to_string()))
}

/// Reads the id in a path.
pub(super) fn container_id(id: &str) -> Result<ContainerId, ApiError> {
    ContainerId::new(id).map_err(|error| ApiError::bad_id("container_id", error))
}

/// The body of a reserve call, with option types of the core.
type ReserveBody = wire::ReservationDocument<'static, GaugeSign, TimerUnit>;

fn check(body: ReserveBody) -> Result<Reservation, ApiError> {
    let mut reservation = Reservation::new(container_id(&body.container_id)?);
    let task_id = body.task_id.as_deref().map(TaskId::new).transpose();
    reservation.task_id = task_id.map_err(|error| ApiError::bad_id("task_id", error))?;
    reservation.labels = body.labels.map(Cow::into_owned).unwrap_or_default();
    reservation.network = match body.network {
        None | Some(wire::Network::Host) => ContainerNetwork::Host,
        Some(wire::Network::Netns { path }) => ContainerNetwork::Path(path.into_owned()),
        Some(wire::Network::New) => ContainerNetwork::New,
    };
    reservation.pid = body.pid;
    reservation.ttl = ttl(body.ttl)?;
    let options = body.options.unwrap_or_default();
    reservation.gauge_sign = options.gauge_sign;
    reservation.timer_unit = options.timer_unit;
    reservation.wanted = options.port.map(|port| WantedAddress { host: None, port: Some(port.get()) });
    let text = |text: Option<Cow<'static, str>>| text.map(Cow::into_owned);
    reservation.details = Details {
        bundle: text(body.bundle),
        sandbox_id: text(body.sandbox_id),
        pod_uid: text(body.pod_uid),
        runtime_handler: text(body.runtime_handler),
        image: text(body.image),
        // Only the agent itself adopts.
        adopted: false,
    };
    Ok(reservation)
}

fn ttl(given: wire::TtlDocument) -> Result<Ttl, ApiError> {
    let bad = |text: &str, why: &str| ApiError::bad_parameter("ttl", text, why);
    let (text, ttl) = match given {
        wire::TtlDocument::Default => return Ok(Ttl::Default),
        wire::TtlDocument::Never => return Ok(Ttl::Never),
        wire::TtlDocument::Seconds(seconds) => {
            let text = seconds.to_string();
            let ttl = Duration::try_from_secs_f64(seconds);
            let ttl = ttl.map_err(|_| bad(&text, "is not a number of seconds"))?;
            (text, ttl)
        }
        wire::TtlDocument::Text(text) => {
            let ttl = parse_duration(&text).map_err(|why| bad(&text, &why))?;
            (text, ttl)
        }
    };
    match ttl <= LONGEST_TTL {
        true => Ok(Ttl::After(ttl)),
        false => Err(bad(&text, "is more than a week; null is for ever")),
    }
}

/// Reads the body of a reserve call.
///
/// # Errors
/// When the JSON does not match the schema, or an id or a time in it is invalid.
pub fn read_reservation(bytes: &[u8]) -> Result<Reservation, ApiError> {
    check(parse_body(bytes)?)
}

/// `POST /v1/containers`
pub(super) async fn reserve_container(
    lifecycle: &LifecycleContext,
    bytes: &[u8],
) -> Result<ApiResponse, ApiError> {
    let reservation = read_reservation(bytes)?;
    match lifecycle.containers.reserve(reservation).await {
        Ok(reserved) => {
            let status = if reserved.new { 201 } else { 200 };
            Ok(ApiResponse::with_json(
                status,
                &query::reserved_document(&reserved.info, &lifecycle.reading.data.current_config().presets),
            ))
        }
        // A 204 has no body, so the reason goes into a header.
        Err(ReserveError::OptedOut { reason }) => {
            Ok(ApiResponse::without_body(204).with_header("tallyport-reason", reason))
        }
        Err(error) => Err((&error).into()),
    }
}

/// `POST /v1/containers/{id}/attach`
pub(super) async fn attach_container(
    lifecycle: &LifecycleContext,
    asker: Asker,
    id: &str,
    bytes: &[u8],
) -> Result<ApiResponse, ApiError> {
    let wire::Attach { pid, start_ticks } = parse_body(bytes)?;
    match lifecycle.containers.attach_process(container_id(id)?, ProcessRef { pid, start_ticks }).await {
        Ok(info) => Ok(ApiResponse::with_json(
            200,
            &query::reserved_document(&info, &lifecycle.reading.data.current_config().presets),
        )),
        Err(AttachError::Unknown { .. }) => Err(lifecycle.reading.unknown_container(asker, id).await),
        Err(error) => Err(ApiError::from(&error)),
    }
}

/// `DELETE /v1/containers/{id}`
pub(super) async fn release_container(
    lifecycle: &LifecycleContext,
    asker: Asker,
    id: &str,
) -> Result<ApiResponse, ApiError> {
    let info = release_by_id(lifecycle, asker, id).await?;
    Ok(ApiResponse::with_json(
        202,
        &query::reserved_document(&info, &lifecycle.reading.data.current_config().presets),
    ))
}

/// Releases a container, in either dialect. Releasing it again gets the same answer.
///
/// # Errors
/// With 400 for an invalid id, with 404 for an unknown container, and with 503 while the agent ends.
pub(super) async fn release_by_id(
    lifecycle: &LifecycleContext,
    asker: Asker,
    id: &str,
) -> Result<Arc<ContainerInfo>, ApiError> {
    match lifecycle.containers.release(container_id(id)?).await {
        Ok(info) => Ok(info),
        Err(ReleaseError::Unknown { .. }) => Err(lifecycle.reading.unknown_container(asker, id).await),
        Err(ReleaseError::Ending) => Err(ApiError::shutting_down()),
    }
}

/// The filters of a list of containers.
const LISTED: [&str; 3] = ["task", "container", "label"];

/// `GET /v1/containers`
pub(super) async fn list_containers(
    lifecycle: &LifecycleContext,
    asker: Asker,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let filters = Filters::read(&Query::read(raw, &LISTED)?)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Admin };
    let request = PageRequest::new(asker, lane, "/v1/containers", raw.to_owned());
    let of_node = lifecycle.reading.data.clone();
    let gather = move |work: PageWork| async move {
        let all = of_node.directory.all_containers();
        let choose = move |deadline: &Deadline| {
            Ok(deadline.choose_items(all, |info| filters.matches_origin(&info.origin))?)
        };
        let containers = work.run(choose).await?;
        let counts = of_node.collect_container_stats(&containers).await?;
        Ok(move |writer: &mut PageWriter| {
            let presets = &of_node.current_config().presets;
            let count = |info: &Arc<ContainerInfo>| counts.get(&info.allocation).map(AsRef::as_ref);
            writer.write_array(
                containers.iter().map(|info| query::get_container_resources(info, presets, count(info))),
            )
        })
    };
    lifecycle.reading.pages.answer_request(request, gather).await
}

/// `GET /v1/containers/{id}`
pub(super) async fn show_container(
    lifecycle: &LifecycleContext,
    asker: Asker,
    id: &str,
) -> Result<ApiResponse, ApiError> {
    let Some(info) = lifecycle.reading.data.directory.find_container(&container_id(id)?) else {
        return Err(lifecycle.reading.unknown_container(asker, id).await);
    };
    let counts = lifecycle.reading.data.collect_container_stats(std::slice::from_ref(&info)).await?;
    let stats = counts.get(&info.allocation).map(AsRef::as_ref);
    Ok(ApiResponse::with_json(
        200,
        &query::get_container_resources(&info, &lifecycle.reading.data.current_config().presets, stats),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Reservation, ApiError> {
        read_reservation(text.as_bytes())
    }

    #[test]
    fn everything_but_the_id_is_optional_and_unknown_fields_are_ignored() {
        let reservation = read(r#"{"container_id":"c1","colour":"blue"}"#).unwrap();
        assert_eq!(reservation, Reservation::new(ContainerId::new("c1").unwrap()));
    }

    #[test]
    fn everything_that_can_be_said_is_read() {
        let text = r#"{"container_id":"c1","task_id":"web.1","labels":{"a":"b"},"network":{"mode":"netns","path":"/n"},
            "pid":7,"ttl":"5m","options":{"gauge_sign":"absolute","timer_unit":"s"},"bundle":"/b","sandbox_id":"s","pod_uid":"u",
            "runtime_handler":"runc","image":"i"}"#;
        let reservation = read(text).unwrap();
        assert_eq!(reservation.effective_task_id().as_str(), "web.1");
        assert_eq!(reservation.network, ContainerNetwork::Path("/n".into()));
        assert_eq!((reservation.pid, reservation.ttl), (Some(7), Ttl::After(Duration::from_mins(5))));
        assert_eq!(reservation.gauge_sign, Some(GaugeSign::Absolute));
        assert_eq!(reservation.timer_unit, Some(TimerUnit::Seconds));
        assert_eq!(reservation.details.bundle.as_deref(), Some("/b"));
        assert_eq!(reservation.details.image.as_deref(), Some("i"));
    }

    #[test]
    fn a_ttl_of_null_is_for_ever_and_a_missing_one_is_the_default() {
        let ttl = |text: &str| read(&format!(r#"{{"container_id":"c1"{text}}}"#)).unwrap().ttl;
        assert_eq!(ttl(""), Ttl::Default);
        assert_eq!(ttl(r#","ttl":null"#), Ttl::Never);
        assert_eq!(ttl(r#","ttl":2.5"#), Ttl::After(Duration::from_millis(2500)));
    }

    #[test]
    fn what_is_wrong_with_a_body_is_said() {
        for (text, code) in [
            ("", "bad_body"),
            ("[]", "bad_body"),
            ("{}", "bad_body"),
            (r#"{"container_id":7}"#, "bad_body"),
            (r#"{"container_id":""}"#, "bad_id"),
            (r#"{"container_id":"../../etc/shadow"}"#, "bad_id"),
            (r#"{"container_id":"c1","task_id":""}"#, "bad_id"),
            (r#"{"container_id":"c1","network":{"mode":"bridge"}}"#, "bad_body"),
            (r#"{"container_id":"c1","network":{"mode":"netns"}}"#, "bad_body"),
            (r#"{"container_id":"c1","ttl":-1}"#, "bad_parameter"),
            (r#"{"container_id":"c1","ttl":"soon"}"#, "bad_parameter"),
            (r#"{"container_id":"c1","ttl":1e18}"#, "bad_parameter"),
            (r#"{"container_id":"c1","ttl":"8d"}"#, "bad_parameter"),
            (r#"{"container_id":"c1","labels":{"a":1}}"#, "bad_body"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((error.status, error.code), (400, code), "{text}: {}", error.message);
        }
    }
}
