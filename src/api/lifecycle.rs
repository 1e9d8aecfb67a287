//! The lifecycle API of the admin socket: reserve, attach, release, list.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::documents::ContainerDocument;
use super::error::ApiError;
use super::pages::{Asker, BuildLane, Deadline, PageRequest, PageWork, PageWriter};
use super::query::{Filters, Query, parse_duration};
use super::{Api, ApiResponse};
use crate::aggregate::{GaugeSign, TimerUnit};
use crate::containers::{
    AttachError, ContainerInfo, ContainerNetwork, Details, ProcessRef, ReleaseError, Reservation,
    ReserveError, Ttl, WantedAddress,
};
use crate::model::{ContainerId, Labels, TaskId};

/// The body of a reserve call. Fields that are not known here are ignored: a newer launcher may send them.
#[derive(Debug, Deserialize)]
struct ReserveBody {
    container_id: String,
    #[serde(default)]
    task_id: Option<String>,
    #[serde(default)]
    labels: Option<Labels>,
    #[serde(default)]
    network: Option<NetworkBody>,
    #[serde(default)]
    pid: Option<i32>,
    #[serde(default)]
    ttl: TtlBody,
    #[serde(default)]
    options: Option<OptionsBody>,
    #[serde(flatten)]
    details: Details,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
enum NetworkBody {
    Host,
    Netns { path: std::path::PathBuf },
    New,
}

/// What waits longer for its process is meant to wait for ever, and can say so.
const LONGEST_TTL: Duration = Duration::from_hours(7 * 24);

/// Seconds, a time with a unit, or `null` for ever.
#[derive(Debug, Default)]
enum TtlBody {
    #[default]
    Unsaid,
    Never,
    Seconds(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for TtlBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            Seconds(f64),
            Text(String),
        }
        Ok(match Option::deserialize(deserializer)? {
            None => Self::Never,
            Some(Said::Seconds(seconds)) => Self::Seconds(seconds),
            Some(Said::Text(text)) => Self::Text(text),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
struct OptionsBody {
    #[serde(default)]
    gauge_sign: Option<GaugeSign>,
    timer_unit: Option<TimerUnit>,
    #[serde(default)]
    port: Option<NonZeroU16>,
}

#[derive(Debug, Deserialize)]
struct AttachBody {
    pid: i32,
    #[serde(default)]
    start_ticks: Option<u64>,
}

/// Reads a JSON body.
pub(super) fn parse_body<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_body(&error.to_string()))
}

/// Reads the id in a path.
pub(super) fn container_id(id: &str) -> Result<ContainerId, ApiError> {
    ContainerId::new(id).map_err(|error| ApiError::bad_id("container_id", error))
}

impl ReserveBody {
    fn into_reservation(self) -> Result<Reservation, ApiError> {
        let mut reservation = Reservation::new(container_id(&self.container_id)?);
        let task_id = self.task_id.as_deref().map(TaskId::new).transpose();
        reservation.task_id = task_id.map_err(|error| ApiError::bad_id("task_id", error))?;
        reservation.labels = self.labels.unwrap_or_default();
        reservation.network = match self.network {
            None | Some(NetworkBody::Host) => ContainerNetwork::Host,
            Some(NetworkBody::Netns { path }) => ContainerNetwork::Path(path),
            Some(NetworkBody::New) => ContainerNetwork::New,
        };
        reservation.pid = self.pid;
        reservation.ttl = self.ttl.read()?;
        let options = self.options.unwrap_or_default();
        reservation.gauge_sign = options.gauge_sign;
        reservation.timer_unit = options.timer_unit;
        reservation.wanted = options.port.map(|port| WantedAddress { host: None, port: Some(port.get()) });
        // Only the agent itself adopts.
        reservation.details = Details { adopted: false, ..self.details };
        Ok(reservation)
    }
}

impl TtlBody {
    fn read(self) -> Result<Ttl, ApiError> {
        let bad = |text: &str, why: &str| ApiError::bad_parameter("ttl", text, why);
        let (text, ttl) = match self {
            Self::Unsaid => return Ok(Ttl::Default),
            Self::Never => return Ok(Ttl::Never),
            Self::Seconds(seconds) => {
                let text = seconds.to_string();
                let ttl = Duration::try_from_secs_f64(seconds);
                let ttl = ttl.map_err(|_| bad(&text, "is not a number of seconds"))?;
                (text, ttl)
            }
            Self::Text(text) => {
                let ttl = parse_duration(&text).map_err(|why| bad(&text, &why))?;
                (text, ttl)
            }
        };
        match ttl <= LONGEST_TTL {
            true => Ok(Ttl::After(ttl)),
            false => Err(bad(&text, "is more than a week; null is for ever")),
        }
    }
}

/// Reads the body of a reserve call.
///
/// # Errors
/// When it is not such a body, or an id or a time in it is none.
pub fn read_reservation(bytes: &[u8]) -> Result<Reservation, ApiError> {
    parse_body::<ReserveBody>(bytes)?.into_reservation()
}

/// `POST /v1/containers`
pub(super) async fn reserve_container(api: &Api, bytes: &[u8]) -> Result<ApiResponse, ApiError> {
    let reservation = read_reservation(bytes)?;
    match api.containers.reserve(reservation).await {
        Ok(reserved) => {
            let status = if reserved.new { 201 } else { 200 };
            Ok(ApiResponse::with_json(
                status,
                &ContainerDocument::from_info(&reserved.info, &api.current_config().presets),
            ))
        }
        // An answer without content has no body to say why in.
        Err(ReserveError::OptedOut { reason }) => {
            Ok(ApiResponse::without_body(204).with_header("tallyport-reason", reason))
        }
        Err(error) => Err((&error).into()),
    }
}

/// `POST /v1/containers/{id}/attach`
pub(super) async fn attach_container(
    api: &Api,
    asker: Asker,
    id: &str,
    bytes: &[u8],
) -> Result<ApiResponse, ApiError> {
    let AttachBody { pid, start_ticks } = parse_body(bytes)?;
    match api.containers.attach_process(container_id(id)?, ProcessRef { pid, start_ticks }).await {
        Ok(info) => Ok(ApiResponse::with_json(
            200,
            &ContainerDocument::from_info(&info, &api.current_config().presets),
        )),
        Err(AttachError::Unknown { .. }) => Err(api.unknown_container(asker, id).await),
        Err(error) => Err(ApiError::from(&error)),
    }
}

/// `DELETE /v1/containers/{id}`
pub(super) async fn release_container(api: &Api, asker: Asker, id: &str) -> Result<ApiResponse, ApiError> {
    let info = release_by_id(api, asker, id).await?;
    Ok(ApiResponse::with_json(202, &ContainerDocument::from_info(&info, &api.current_config().presets)))
}

/// Releases a container, in either dialect. Releasing it again gets the same answer.
///
/// # Errors
/// With 400 for an invalid id, with 404 for an unknown container, and with 503 while the agent ends.
pub(super) async fn release_by_id(api: &Api, asker: Asker, id: &str) -> Result<Arc<ContainerInfo>, ApiError> {
    match api.containers.release(container_id(id)?).await {
        Ok(info) => Ok(info),
        Err(ReleaseError::Unknown { .. }) => Err(api.unknown_container(asker, id).await),
        Err(ReleaseError::Ending) => Err(ApiError::shutting_down()),
    }
}

/// The filters of a list of containers.
const LISTED: [&str; 3] = ["task", "container", "label"];

/// `GET /v1/containers`
pub(super) async fn list_containers(api: &Api, asker: Asker, raw: &str) -> Result<ApiResponse, ApiError> {
    let filters = Filters::read(&Query::read(raw, &LISTED)?)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Admin };
    let request = PageRequest::new(asker, lane, "/v1/containers", raw.to_owned());
    let of_node = api.clone();
    let gather = move |work: PageWork| async move {
        let all = of_node.containers.directory().all_containers();
        let choose = move |deadline: &Deadline| {
            deadline.choose_items(all, |info| filters.matches_origin(&info.origin))
        };
        let containers = work.run(choose).await?;
        let counts = of_node.collect_container_stats(&containers).await?;
        Ok(move |writer: &mut PageWriter| {
            let presets = &of_node.current_config().presets;
            let count = |info: &Arc<ContainerInfo>| counts.get(&info.allocation).map(AsRef::as_ref);
            writer.write_array(
                containers.iter().map(|info| ContainerDocument::with_stats(info, presets, count(info))),
            )
        })
    };
    api.pages.answer_request(request, gather).await
}

/// `GET /v1/containers/{id}`
pub(super) async fn show_container(api: &Api, asker: Asker, id: &str) -> Result<ApiResponse, ApiError> {
    let Some(info) = api.containers.directory().find_container(&container_id(id)?) else {
        return Err(api.unknown_container(asker, id).await);
    };
    let counts = api.collect_container_stats(std::slice::from_ref(&info)).await?;
    let stats = counts.get(&info.allocation).map(AsRef::as_ref);
    Ok(ApiResponse::with_json(
        200,
        &ContainerDocument::with_stats(&info, &api.current_config().presets, stats),
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
