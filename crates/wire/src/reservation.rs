//! Bodies of the calls that reserve and attach, in both dialects.

use std::borrow::Cow;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::LabelMap;

/// The body of `POST /v1/containers`. The agent reads the two options as values of its own types.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReservationDocument<'a, Sign = Cow<'a, str>, Unit = Cow<'a, str>> {
    /// The container's id.
    pub container_id: Cow<'a, str>,
    /// Its task. Without one, a label or the container's id names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Cow<'a, str>>,
    /// What its runtime says about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Cow<'a, LabelMap>>,
    /// Its network namespace; the host's without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network<'a>>,
    /// Its process, where that runs already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// How long the reservation waits for its process.
    #[serde(default, skip_serializing_if = "TtlDocument::is_default")]
    pub ttl: TtlDocument,
    /// Its OCI bundle. The same id with another bundle is another container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Cow<'a, str>>,
    /// Its pod sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<Cow<'a, str>>,
    /// Its pod's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<Cow<'a, str>>,
    /// Its runtime handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_handler: Option<Cow<'a, str>>,
    /// Its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Cow<'a, str>>,
    /// How its lines are read, and where its socket is to be.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub options: Option<OptionsDocument<Sign, Unit>>,
}

impl<'a, Sign, Unit> ReservationDocument<'a, Sign, Unit> {
    /// A reservation with nothing but an id.
    #[must_use]
    pub fn new(container_id: impl Into<Cow<'a, str>>) -> Self {
        Self {
            container_id: container_id.into(),
            task_id: None,
            labels: None,
            network: None,
            pid: None,
            ttl: TtlDocument::Default,
            bundle: None,
            sandbox_id: None,
            pod_uid: None,
            runtime_handler: None,
            image: None,
            options: None,
        }
    }
}

/// The network namespace of a container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Network<'a> {
    /// The host's.
    Host,
    /// The one at this path.
    Netns {
        /// The path.
        path: Cow<'a, Path>,
    },
    /// One of its own that does not exist yet.
    New,
}

/// How long a reservation waits for its process: a number of seconds, text such as `5m`, or `null`.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum TtlDocument {
    /// The key is absent: as long as `containers.reservation_ttl` says.
    #[default]
    Default,
    /// `null`: until it is released.
    Never,
    /// Seconds.
    Seconds(f64),
    /// A duration with a unit.
    Text(String),
}

impl TtlDocument {
    /// Whether the key is left out.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        matches!(self, Self::Default)
    }
}

impl Serialize for TtlDocument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default | Self::Never => serializer.serialize_none(),
            Self::Seconds(seconds) => serializer.serialize_f64(*seconds),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for TtlDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Seconds(f64),
            Text(String),
        }
        Ok(match Option::deserialize(deserializer)? {
            None => Self::Never,
            Some(Given::Seconds(seconds)) => Self::Seconds(seconds),
            Some(Given::Text(text)) => Self::Text(text),
        })
    }
}

/// Options of one container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OptionsDocument<Sign, Unit> {
    /// The meaning of gauge values with a sign.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub gauge_sign: Option<Sign>,
    /// The unit of its timers.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub timer_unit: Option<Unit>,
    /// The port that its socket must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
}

impl<Sign, Unit> Default for OptionsDocument<Sign, Unit> {
    fn default() -> Self {
        Self { gauge_sign: None, timer_unit: None, port: None }
    }
}

/// The body of `POST /v1/containers/{id}/attach`.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attach {
    /// The process.
    pub pid: i32,
    /// The clock ticks at which it started, which tell it from another process with the same pid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
}

/// The body of `POST /container`, the dialect of the DC/OS metrics isolator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DcosReservation {
    /// The container's id.
    pub container_id: String,
    /// The address that its socket must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statsd_host: Option<IpAddr>,
    /// The port that its socket must have; 0 for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statsd_port: Option<u16>,
}

/// A container in that dialect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DcosContainer {
    /// The container's id.
    pub container_id: String,
    /// The host part of its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statsd_host: Option<String>,
    /// The port of its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statsd_port: Option<u16>,
}
