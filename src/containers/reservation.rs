//! The contents of a reserve call, validated.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::unix::UnixWish;
use crate::aggregate::{GaugeSign, TimerUnit};
use crate::identity::annotation::{self, ENABLED, GAUGE_SIGN, TASK_ID, TIMER_UNIT, UNIX_SOCKET};
use crate::identity::pod::Pod;
use crate::identity::read_switch;
use crate::model::{ContainerId, Labels, TaskId};

/// Label that names a container among those of its pod.
pub(super) const NAME_LABEL: &str = "container";

/// Label that names a container's image.
pub(super) const IMAGE_LABEL: &str = "image";

/// A container that is about to start.
#[derive(Clone, PartialEq, Debug)]
pub struct Reservation {
    pub container_id: ContainerId,
    /// Its task; if there is none, the container is its own task.
    pub task_id: Option<TaskId>,
    /// Another name by which its task can be read.
    pub alias: Option<TaskId>,
    /// Its labels, from its runtime.
    pub labels: Labels,
    /// The network namespace for its socket.
    pub network: ContainerNetwork,
    /// Its process, if it already has one.
    pub pid: Option<i32>,
    /// The process that holds its pod's network namespace, if known.
    pub holder: Option<i32>,
    /// How long the reservation waits for its process.
    pub ttl: Ttl,
    /// How its signed gauge values are interpreted.
    pub gauge_sign: Option<GaugeSign>,
    /// The unit of its timers.
    pub timer_unit: Option<TimerUnit>,
    /// Whether it wants a Unix socket; if not given, a label decides.
    pub unix: Option<UnixWish>,
    /// The path of the Unix socket that an earlier process of the agent gave it, whatever is requested now.
    pub mounted: Option<PathBuf>,
    /// The address it must have, if the caller requires one.
    pub wanted: Option<WantedAddress>,
    /// The API through which the call came.
    pub dialect: Dialect,
    /// Information that is kept only for display.
    pub details: Details,
}

/// The network namespace a container runs in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum ContainerNetwork {
    /// The agent's own.
    #[default]
    Host,
    Path(PathBuf),
    /// One of its own that does not exist yet.
    New,
}

/// How long a reservation waits for its process.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Ttl {
    /// As long as the configuration says.
    #[default]
    Default,
    /// For this long.
    After(Duration),
    /// Until it is released.
    Never,
}

/// An address that the caller requires; the agent chooses a part that is not given.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct WantedAddress {
    pub host: Option<IpAddr>,
    pub port: Option<u16>,
}

/// The API through which a reserve call came.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Dialect {
    /// `/v1/containers`.
    #[default]
    V1,
    /// The API for the DC/OS metrics isolator: calls may be repeated, and reservations do not expire.
    Dcos,
}

/// Information from a runtime about a container beyond its labels.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Details {
    /// The OCI bundle. The same id with another bundle is another container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// The pod sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// The pod's uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The runtime's handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_handler: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Whether this is a pod's socket, opened because a container of the pod has none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

impl Reservation {
    /// A container that is about to start, with nothing known but its id.
    #[must_use]
    pub fn new(container_id: ContainerId) -> Self {
        Self {
            container_id,
            task_id: None,
            alias: None,
            labels: Labels::new(),
            network: ContainerNetwork::Host,
            pid: None,
            holder: None,
            ttl: Ttl::Default,
            gauge_sign: None,
            timer_unit: None,
            unix: None,
            mounted: None,
            wanted: None,
            dialect: Dialect::V1,
            details: Details::default(),
        }
    }

    /// The task it belongs to: from the call, else from a label, else the container itself.
    #[must_use]
    pub fn effective_task_id(&self) -> TaskId {
        let labelled = || self.labels.get(TASK_ID).and_then(|id| TaskId::new(id).ok());
        self.task_id.clone().or_else(labelled).unwrap_or_else(|| TaskId::from(&self.container_id))
    }

    /// The pod that it belongs to, as described by the wrapper and the NRI plugin: no other engine sets both labels and
    /// a sandbox. Labels that are derived from the pod's own are already in the reservation, if they are known.
    fn pod(&self) -> Option<Pod<'_>> {
        let label = |key| self.labels.get(key).map(String::as_str);
        Some(Pod {
            namespace: label("namespace")?,
            name: label("pod")?,
            uid: label("uid").unwrap_or(""),
            sandbox_id: self.details.sandbox_id.as_deref()?,
            labels: None,
        })
    }

    /// Another name by which its task can be read: from the call, else from an annotation of its pod.
    #[must_use]
    pub fn task_alias(&self) -> Option<TaskId> {
        let annotated = || self.pod()?.task_alias(self.labels.get(TASK_ID)?);
        self.alias.clone().or_else(|| TaskId::new(&annotated()?).ok())
    }

    /// The labels of its records. Those of a pod's container are the same whether the wrapper or the NRI plugin reserves it:
    /// without annotations that are meant for tallyport, and with the image.
    #[must_use]
    pub fn origin_labels(&self) -> Labels {
        let mut labels = self.labels.clone();
        let Some(pod) = self.pod() else { return labels };
        labels.retain(|key, _| !key.starts_with(annotation::PREFIX));
        let container = self.labels.get(NAME_LABEL).map_or("", String::as_str);
        for (key, value) in pod.container_labels(container, self.details.image.as_deref().unwrap_or("")) {
            labels.entry(key).or_insert(value);
        }
        labels
    }

    /// Its name among the containers of its pod: a restarted container has the same name and another id.
    #[must_use]
    pub fn name(&self) -> &str {
        self.labels.get(NAME_LABEL).map_or(self.container_id.as_str(), String::as_str)
    }

    /// Why it does not want a socket, if it opted out.
    #[must_use]
    pub fn opt_out_reason(&self) -> Option<String> {
        let value = self.labels.get(ENABLED)?;
        (read_switch(value) == Some(false)).then(|| format!("the label {ENABLED} is {value}"))
    }

    /// Whether it wants a Unix socket: from the call, else from a label.
    #[must_use]
    pub fn unix_wish(&self) -> Option<UnixWish> {
        self.unix.or_else(|| self.labels.get(UNIX_SOCKET).and_then(|said| UnixWish::read(said)))
    }

    /// How signed gauge values are interpreted: from the call, else from a label, else as usual here.
    #[must_use]
    pub fn gauge_sign_or(&self, usual: GaugeSign) -> GaugeSign {
        let labelled = || self.labels.get(GAUGE_SIGN).and_then(|said| parse_gauge_sign(said));
        self.gauge_sign.or_else(labelled).unwrap_or(usual)
    }

    /// The unit of its timers: from the call, else from a label, else as usual here.
    #[must_use]
    pub fn timer_unit_or(&self, usual: TimerUnit) -> TimerUnit {
        let labelled = || self.labels.get(TIMER_UNIT).and_then(|said| parse_timer_unit(said));
        self.timer_unit.or_else(labelled).unwrap_or(usual)
    }
}

/// Parses the value of a label or an annotation on signed gauge values; `None` if it is not valid.
#[must_use]
pub fn parse_gauge_sign(said: &str) -> Option<GaugeSign> {
    match said.trim() {
        "auto" => Some(GaugeSign::Auto),
        "absolute" => Some(GaugeSign::Absolute),
        "delta" => Some(GaugeSign::Delta),
        _ => None,
    }
}

/// Parses the value of a label or an annotation on the unit of timers; `None` if it is not valid.
#[must_use]
pub fn parse_timer_unit(said: &str) -> Option<TimerUnit> {
    match said.trim() {
        "ms" => Some(TimerUnit::Milliseconds),
        "s" => Some(TimerUnit::Seconds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(key: &str, value: &str) -> Reservation {
        let mut reservation = Reservation::new(ContainerId::new("c1").unwrap());
        reservation.labels.insert(key.to_owned(), value.to_owned());
        reservation
    }

    #[test]
    fn a_container_without_a_task_is_its_own() {
        assert_eq!(labelled("a", "b").effective_task_id().as_str(), "c1");
        let mut reservation = labelled(TASK_ID, "web.1");
        assert_eq!(reservation.effective_task_id().as_str(), "web.1");
        reservation.task_id = Some(TaskId::new("said").unwrap());
        assert_eq!(reservation.effective_task_id().as_str(), "said");
    }

    #[test]
    fn a_container_of_a_pod_has_a_name_that_outlives_it() {
        assert_eq!(labelled(NAME_LABEL, "app").name(), "app");
        assert_eq!(labelled("a", "b").name(), "c1");
    }

    #[test]
    fn a_label_opts_out() {
        assert!(labelled(ENABLED, "False").opt_out_reason().is_some());
        assert_eq!(labelled(ENABLED, "true").opt_out_reason(), None);
        assert_eq!(labelled("other", "false").opt_out_reason(), None);
    }

    #[test]
    fn a_label_says_what_a_sign_means() {
        assert_eq!(labelled(GAUGE_SIGN, "absolute").gauge_sign_or(GaugeSign::Delta), GaugeSign::Absolute);
        assert_eq!(labelled(GAUGE_SIGN, "nonsense").gauge_sign_or(GaugeSign::Delta), GaugeSign::Delta);
        let mut reservation = labelled(GAUGE_SIGN, "absolute");
        reservation.gauge_sign = Some(GaugeSign::Delta);
        assert_eq!(reservation.gauge_sign_or(GaugeSign::Absolute), GaugeSign::Delta);
    }

    #[test]
    fn a_label_says_the_unit_of_timers() {
        let ms = TimerUnit::Milliseconds;
        assert_eq!(labelled(TIMER_UNIT, "s").timer_unit_or(ms), TimerUnit::Seconds);
        assert_eq!(labelled(TIMER_UNIT, "minutes").timer_unit_or(ms), ms);
        let mut reservation = labelled(TIMER_UNIT, "s");
        reservation.timer_unit = Some(ms);
        assert_eq!(reservation.timer_unit_or(TimerUnit::Seconds), ms);
    }
}
