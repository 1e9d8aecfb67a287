//! A container, as the lifecycle API answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallyport_time::Timestamp;

use super::{LabelMap, Word};

/// The answer to reserve, attach and release calls.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ReservedDocument {
    /// The container's id.
    #[serde(default)]
    pub container_id: String,
    /// Its task.
    #[serde(default)]
    pub task_id: String,
    /// Counts the containers that have had this id, from 1.
    #[serde(default)]
    pub generation: u32,
    /// The host part of its address. Absent until it has one.
    #[serde(default)]
    pub statsd_host: Option<String>,
    /// The port of its address.
    #[serde(default)]
    pub statsd_port: Option<u16>,
    /// `reserved`, `listening`, `draining`, `gone`, `lost` or `mute`.
    #[serde(default)]
    pub state: Word,
    /// Whether its process is known.
    #[serde(default)]
    pub attached: bool,
    /// The variables that tell its clients the address.
    pub env: BTreeMap<String, String>,
    /// Why it has no socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Problems that did not prevent the call.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Its Unix socket, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix_socket: Option<UnixSocketDocument>,
}

/// A container's Unix socket, and the mount that brings it into the container.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct UnixSocketDocument {
    /// The socket's path inside the container.
    #[serde(default)]
    pub path: String,
    /// The directory of the socket.
    pub mount: MountDocument,
    /// The variables that tell its clients the path.
    pub env: BTreeMap<String, String>,
}

/// A directory to mount.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct MountDocument {
    /// The directory on the host.
    pub source: String,
    /// Where it belongs in the container.
    pub destination: String,
}

impl ReservedDocument {
    /// The address as `host:port`, or `-` without one.
    #[must_use]
    pub fn statsd_address(&self) -> String {
        match (&self.statsd_host, self.statsd_port) {
            (Some(host), Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => "-".to_owned(),
        }
    }
}

/// A container in full, as reading calls answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ContainerDocument {
    /// What reserve calls answer as well.
    #[serde(flatten)]
    pub reserved: ReservedDocument,
    /// The labels of its reserve call.
    #[serde(default)]
    pub labels: LabelMap,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// When its last datagram arrived.
    #[serde(default)]
    pub last_datagram: Option<Timestamp>,
    /// Datagrams received.
    #[serde(default)]
    pub received: u64,
    /// Datagrams that the kernel dropped because the receive buffer was full.
    #[serde(default)]
    pub kernel_drops: u64,
    /// Datagrams and values dropped by limits.
    #[serde(default)]
    pub dropped: u64,
    /// Values of counters beyond the series limit, counted in one series for all of them.
    #[serde(default)]
    pub folded: u64,
    /// Lines that could not be parsed.
    #[serde(default)]
    pub rejected: u64,
    /// Series in the open window.
    #[serde(default)]
    pub series: usize,
    /// Bytes that its aggregator holds.
    #[serde(default)]
    pub memory: usize,
    /// What keeps datagrams of other processes out: `unix`, `cgroup`, `netns` or `none`.
    #[serde(default)]
    pub origin_guard: Word,
    /// Why the guard could not be installed.
    #[serde(default)]
    pub origin_guard_missing: Option<String>,
    /// The meaning of its gauge values with a sign.
    #[serde(default)]
    pub gauge_sign: Word,
    /// The unit of its timers.
    #[serde(default)]
    pub timer_unit: Word,
    /// What its lines show about its client. Absent in answers of earlier versions.
    #[serde(default)]
    pub client: Option<ClientDocument>,
    /// Bytes of its socket's receive buffer.
    #[serde(default)]
    pub receive_buffer: usize,
    /// When it was reserved.
    #[serde(default)]
    pub reserved_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Its OCI bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// Its pod sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// Its pod's uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Its runtime handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_handler: Option<String>,
    /// Its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Whether this is the socket of a pod whose container was found mute.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

/// What a container's lines show about the client that writes them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClientDocument {
    /// Whether its metrics have anything that only DogStatsD has.
    pub dogstatsd: bool,
    /// Gauge values with a sign that were read as changes.
    pub gauge_changes: u64,
    /// Whether all timers are below 1 and at least one is not 0, as those of a client that sends seconds.
    pub timers_look_like_seconds: bool,
    /// Names of series whose totals were decremented: some of them, sorted.
    pub decremented: Vec<String>,
}
