//! Counts, with the sums that have to agree side by side.

use serde::{Deserialize, Serialize};

use super::{TallyMap, Word};

/// Everything that is counted of one container, of a task, or of the node.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct CountsDocument {
    /// Datagrams.
    pub datagrams: DatagramsDocument,
    /// Lines in them.
    pub lines: LinesDocument,
    /// Values on those lines.
    pub values: ValuesDocument,
    /// DogStatsD events.
    pub events: u64,
    /// Values whose series was over a limit, by the limit.
    pub over_limit: TallyMap,
    /// Series that were evicted to make room.
    #[serde(default)]
    pub evicted_series: u64,
    /// Lines with bytes that are not UTF-8.
    #[serde(default)]
    pub invalid_utf8: u64,
    /// Tags that were renamed because their key is reserved.
    #[serde(default)]
    pub renamed_tags: u64,
    /// Whether every datagram, line and value is counted exactly once.
    pub balanced: bool,
}

/// Datagrams.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct DatagramsDocument {
    /// Received or dropped by the kernel.
    #[serde(default)]
    pub arrived: u64,
    /// Received.
    pub received: u64,
    /// Bytes received.
    #[serde(default)]
    pub bytes: u64,
    /// Dropped by the kernel.
    pub kernel_drops: u64,
    /// Dropped after they were received.
    pub dropped: TallyMap,
}

/// Lines.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct LinesDocument {
    /// Received.
    pub received: u64,
    /// Accepted.
    pub accepted: u64,
    /// Rejected.
    pub rejected: TallyMap,
}

/// Values.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct ValuesDocument {
    /// Accepted.
    pub accepted: u64,
    /// In records of closed windows.
    pub in_records: u64,
    /// In the open window.
    pub open: u64,
    /// Of counters beyond the series limit, counted in one series for all of them.
    pub folded: u64,
    /// Dropped.
    pub dropped: TallyMap,
}

/// The answer of `GET /v1/accounting`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AccountingDocument {
    /// The node's name.
    #[serde(default)]
    pub node: String,
    /// Each container.
    pub containers: Vec<Counted>,
    /// All of them, and without filters also those that were forgotten.
    #[serde(default)]
    pub total: Option<CountsDocument>,
}

/// The counts of one container.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// The container's id.
    pub container_id: String,
    /// Its generation.
    #[serde(default)]
    pub generation: u32,
    /// Its task.
    #[serde(default)]
    pub task_id: String,
    /// Its state.
    #[serde(default)]
    pub state: Word,
    /// What was counted.
    #[serde(flatten)]
    pub counts: CountsDocument,
}
