//! The agent itself: whether it is alive and ready, what it runs with, and where Prometheus finds it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tallyport_time::Timestamp;

use super::Word;

/// The answer of `GET /health`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealthDocument<'a> {
    /// Always `alive`.
    #[serde(default)]
    pub status: Word,
    /// The agent's version.
    pub version: Word,
    /// Its process.
    pub pid: u32,
    /// `agent.instance`. Absent in answers of versions without that setting.
    #[serde(default)]
    pub instance: Cow<'a, str>,
}

/// The answer of `GET /ready`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadyDocument {
    /// Whether everything that the agent needs works.
    pub ready: bool,
    /// Parts that do not work yet.
    pub pending: Vec<Word>,
    /// Parts that do not work as configured.
    #[serde(default)]
    pub degraded: Vec<DegradedDocument>,
}

/// A part that does not work as configured. It does not hold up readiness: the rest of the agent serves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DegradedDocument {
    /// The part.
    pub what: Word,
    /// What does not work, with the reason where the route may give it.
    pub why: String,
}

/// The answer of `GET /v1/node`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeDocument {
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub version: Word,
    /// Its process.
    pub pid: u32,
    /// When it started.
    #[serde(default)]
    pub started: Timestamp,
    /// Counts its lives.
    pub epoch: u64,
    /// The end of the node's sequence.
    #[serde(default)]
    pub cursor: String,
    /// As in [`ReadyDocument`].
    pub ready: bool,
    /// The length of windows.
    #[serde(default)]
    pub window_seconds: f64,
    /// How many closed windows are kept for each container.
    #[serde(default)]
    pub windows_kept: usize,
    /// Shard threads.
    pub shards: usize,
    /// Shard threads that have ended.
    pub shards_ended: usize,
    /// Live containers.
    pub containers: usize,
    /// Bytes that all aggregators hold.
    pub memory: usize,
    /// `limits.node_memory`.
    pub memory_limit: usize,
    /// `listeners.receive_buffer`.
    pub receive_buffer: usize,
    /// Bytes of all receive buffers.
    pub receive_buffers: usize,
    /// Their limit.
    pub receive_buffers_limit: usize,
    /// `listeners.port`. Absent in answers of earlier versions.
    #[serde(default)]
    pub listeners_port: Option<u16>,
    /// `on`, `off` or `unavailable`.
    pub guard: Word,
    /// Why the guard is unavailable.
    pub guard_missing: Option<String>,
    /// Why the journal of containers cannot be written.
    pub journal_trouble: Option<String>,
    /// State files that could not be read at the start. Absent in answers of earlier versions, as are the rest.
    #[serde(default)]
    pub state_damage: Vec<StateDamageDocument>,
    /// The address of the HTTP listener.
    #[serde(default)]
    pub http_listen: String,
    /// The path of the admin socket.
    #[serde(default)]
    pub admin_socket: String,
    /// The state directory.
    #[serde(default)]
    pub state_dir: String,
    /// The configuration file that was read; `null` if there was none.
    #[serde(default)]
    pub config_file: Option<String>,
    /// When the node was scraped last.
    #[serde(default)]
    pub last_scrape: Option<Timestamp>,
    /// When the certificate of the HTTP listener expires.
    #[serde(default)]
    pub certificate_expires: Option<Timestamp>,
    /// The window log; `null` where it is off.
    #[serde(default)]
    pub window_log: Option<WindowLogDocument>,
    /// The NRI plugin.
    #[serde(default)]
    pub nri: Option<PluginDocument>,
    /// Totals that were forgotten early.
    #[serde(default)]
    pub totals_evicted: TotalsEvicted,
    /// Names that carry a mark on `/metrics/tasks`.
    #[serde(default)]
    pub names_marked: usize,
    /// Some of them.
    #[serde(default)]
    pub marked_names: Vec<MarkedNameDocument>,
    /// Series that were left out of scrapes because `prometheus.naming` gives their names to others.
    #[serde(default)]
    pub scrape_clashes: u64,
    /// Responses that are being built or sent.
    #[serde(default)]
    pub pages: Option<PagesDocument>,
}

/// A state file that could not be read at the start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StateDamageDocument {
    /// The file.
    pub file: Word,
    /// Damaged places in it.
    #[serde(default)]
    pub places: usize,
    /// What was found.
    pub found: String,
}

/// What became of the window log at the start, and how it is written now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WindowLogDocument {
    /// When the previous agent was last known to be alive.
    pub last_alive: Option<Timestamp>,
    /// Seconds from then to the start of this one.
    pub gap_seconds: f64,
    /// Whether the previous agent ended in order.
    pub ended_in_order: bool,
    /// Closed windows that were restored.
    pub restored_windows: usize,
    /// Open windows that were restored.
    pub restored_open: usize,
    /// Windows that were restored with ends in the future. Absent in answers of earlier versions.
    #[serde(default)]
    pub restored_ahead: usize,
    /// Damaged parts that were left out.
    pub damaged: u64,
    /// Their bytes.
    pub damaged_bytes: u64,
    /// Bytes of all its files.
    pub size: u64,
    /// `windows.log_size`.
    pub size_limit: u64,
    /// Windows that were not written in time.
    pub missed: u64,
    /// Windows that were given up for `size_limit`, or are too long for an entry of the log.
    pub given_up: u64,
    /// Seconds between checkpoints of open windows.
    pub checkpoint_seconds: f64,
    /// Since when it cannot be written.
    pub failing_since: Option<Timestamp>,
    /// Why.
    pub failing: Option<String>,
    /// Whether its files are in memory, so that they do not survive a reboot.
    #[serde(default)]
    pub in_memory: bool,
}

/// The connection of the NRI plugin to the container runtime.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PluginDocument {
    /// `off`, `absent`, `registering` or `connected`.
    pub state: Word,
    /// The runtime's socket.
    pub socket: String,
    /// Since when it is in that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Containers that got a socket.
    pub injected: u64,
    /// Containers that got none.
    pub failed: u64,
    /// The last containers, if none of them got a socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<FailingDocument>,
}

/// Consecutive containers that got no socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailingDocument {
    /// How many.
    pub containers: u64,
    /// When the last of them was created.
    pub at: Timestamp,
    /// Why it got none.
    pub why: String,
}

/// Totals of series that are gone which were forgotten early, by reason.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TotalsEvicted {
    /// Their workload had `limits.series` of them.
    pub series_limit: u64,
    /// The node had too many.
    pub node: u64,
}

/// A name that carries a mark, and the one that had the plain name first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MarkedNameDocument {
    /// The identity labels of its workload.
    pub workload: String,
    /// A metric type, or `tag`.
    pub kind: Word,
    /// The name.
    pub name: String,
    /// The name with the mark.
    pub shown: String,
    /// The kind of the other.
    pub first_kind: Option<Word>,
    /// The name of the other.
    pub first_name: Option<String>,
}

/// Responses that are being built or sent, and those that have failed since the agent started.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PagesDocument {
    /// Bytes that they hold.
    pub bytes: u64,
    /// `http.page_memory`.
    pub limit: u64,
    /// Requests answered with 429.
    pub busy: u64,
    /// Responses that were not finished in time.
    pub late: u64,
    /// Responses cut short because memory was short and their readers were slow.
    pub cut: u64,
    /// Connections closed because their clients did not read.
    pub slow: u64,
}

/// One target of `GET /v1/sd`, Prometheus' HTTP service discovery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TargetDocument<'a> {
    /// The address.
    pub targets: [Cow<'a, str>; 1],
    /// Its labels.
    pub labels: TargetLabels<'a>,
}

/// The labels of a target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TargetLabels<'a> {
    /// `http` or `https`.
    #[serde(rename = "__scheme__")]
    pub scheme: Word,
    /// The path that is scraped.
    #[serde(rename = "__metrics_path__")]
    pub path: Word,
    /// The path again: the two targets have one address, and without this label one `up` series.
    pub metrics_path: Word,
    /// The node's name.
    pub node: Cow<'a, str>,
}
