//! What a reserve call says, checked.

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
    /// Its task; the container itself where there is none.
    pub task_id: Option<TaskId>,
    /// Another name by which its task can be read.
    pub alias: Option<TaskId>,
    /// What its runtime says about it.
    pub labels: Labels,
    /// Where its socket is to be.
    pub network: ContainerNetwork,
    /// Its process, where it has one already.
    pub pid: Option<i32>,
    /// The process that holds its pod's network, where that is known.
    pub holder: Option<i32>,
    /// How long the reservation waits for its process.
    pub ttl: Ttl,
    /// What a signed gauge value means to it.
    pub gauge_sign: Option<GaugeSign>,
    /// The unit of its timers.
    pub timer_unit: Option<TimerUnit>,
    /// Whether it wants a Unix socket; where nobody says, a label does.
    pub unix: Option<UnixWish>,
    /// Where it finds the Unix socket that an earlier life of the agent gave it, whatever is wanted now.
    pub mounted: Option<PathBuf>,
    /// The address it must have, where the caller insists.
    pub wanted: Option<WantedAddress>,
    /// Who speaks.
    pub dialect: Dialect,
    /// What is kept to be shown.
    pub details: Details,
}

/// The network namespace a container runs in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum ContainerNetwork {
    /// The agent's own.
    #[default]
    Host,
    Path(PathBuf),
    /// One of its own that is not born yet.
    New,
}

/// How long a reservation waits for its process.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Ttl {
    /// As long as the configuration says.
    #[default]
    Default,
    /// So long.
    After(Duration),
    /// Until it is released.
    Never,
}

/// An address that the caller insists on; a part that is not given is chosen.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct WantedAddress {
    pub host: Option<IpAddr>,
    pub port: Option<u16>,
}

/// Which API the call came by.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Dialect {
    /// `/v1/containers`.
    #[default]
    V1,
    /// The DC/OS metrics isolator's: every repeat is welcome, and nothing expires.
    Dcos,
}

/// What a runtime says about a container beyond its labels.
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

    /// The task it belongs to: as the call says, as a label says, or the container alone.
    #[must_use]
    pub fn effective_task_id(&self) -> TaskId {
        let labelled = || self.labels.get(TASK_ID).and_then(|id| TaskId::new(id).ok());
        self.task_id.clone().or_else(labelled).unwrap_or_else(|| TaskId::from(&self.container_id))
    }

    /// The pod that it belongs to, as the wrapper and the NRI plugin describe it: no other engine has both labels and a sandbox. Labels
    /// that are derived from the pod's own are among those of the reservation already, where they are known.
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

    /// Another name by which its task can be read: as the call says, or as an annotation of its pod says.
    #[must_use]
    pub fn task_alias(&self) -> Option<TaskId> {
        let annotated = || self.pod()?.task_alias(self.labels.get(TASK_ID)?);
        self.alias.clone().or_else(|| TaskId::new(&annotated()?).ok())
    }

    /// The labels of its records. Those of a pod's container are the same whether the wrapper or the NRI plugin reserves it: without
    /// annotations that are meant for tallyport, and with the image.
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

    /// What it is called beside its siblings: a container that is restarted has the same name and another id.
    #[must_use]
    pub fn name(&self) -> &str {
        self.labels.get(NAME_LABEL).map_or(self.container_id.as_str(), String::as_str)
    }

    /// Why it does not want a socket, if so.
    #[must_use]
    pub fn opted_out(&self) -> Option<String> {
        let value = self.labels.get(ENABLED)?;
        (read_switch(value) == Some(false)).then(|| format!("the label {ENABLED} is {value}"))
    }

    /// Whether it wants a Unix socket: as the call says, or as a label says.
    #[must_use]
    pub fn unix_wish(&self) -> Option<UnixWish> {
        self.unix.or_else(|| self.labels.get(UNIX_SOCKET).and_then(|said| UnixWish::read(said)))
    }

    /// What a signed gauge value means: as the call says, as a label says, or as is usual here.
    #[must_use]
    pub fn gauge_sign_or(&self, usual: GaugeSign) -> GaugeSign {
        let labelled = || self.labels.get(GAUGE_SIGN).and_then(|said| gauge_sign(said));
        self.gauge_sign.or_else(labelled).unwrap_or(usual)
    }

    /// The unit of its timers: as the call says, as a label says, or as is usual here.
    #[must_use]
    pub fn timer_unit_or(&self, usual: TimerUnit) -> TimerUnit {
        let labelled = || self.labels.get(TIMER_UNIT).and_then(|said| timer_unit(said));
        self.timer_unit.or_else(labelled).unwrap_or(usual)
    }
}

/// What a label or an annotation says of signed gauge values; nothing where it makes no sense.
#[must_use]
pub fn gauge_sign(said: &str) -> Option<GaugeSign> {
    match said.trim() {
        "auto" => Some(GaugeSign::Auto),
        "absolute" => Some(GaugeSign::Absolute),
        "delta" => Some(GaugeSign::Delta),
        _ => None,
    }
}

/// What a label or an annotation says of the unit of timers; nothing where it makes no sense.
#[must_use]
pub fn timer_unit(said: &str) -> Option<TimerUnit> {
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
        assert!(labelled(ENABLED, "False").opted_out().is_some());
        assert_eq!(labelled(ENABLED, "true").opted_out(), None);
        assert_eq!(labelled("other", "false").opted_out(), None);
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
