//! Tasks, their events and checks, and the streams about them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tallyport_time::Timestamp;

use super::{ContainerDocument, CountsDocument, DegradedDocument, LabelMap, Word};

/// A task in short, beside its metrics, events or checks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskShort {
    /// Its id.
    pub task_id: String,
    /// `listening` if one of its containers is, otherwise the state of the one that is nearest to that.
    #[serde(default)]
    pub state: Word,
    /// Whether no more can come from it.
    pub finished: bool,
    /// The highest generation of its containers.
    #[serde(default)]
    pub generation: u32,
    /// Ids of its containers.
    #[serde(default)]
    pub containers: Vec<String>,
    /// The labels that all its containers have.
    #[serde(default)]
    pub labels: LabelMap,
}

/// A task in full.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub task_id: String,
    /// As in [`TaskShort`].
    pub state: Word,
    /// Whether no more can come from it.
    pub finished: bool,
    /// The highest generation of its containers.
    #[serde(default)]
    pub generation: u32,
    /// Its containers.
    pub containers: Vec<ContainerDocument>,
    /// The labels that all its containers have.
    pub labels: LabelMap,
    /// When its last datagram arrived.
    pub last_datagram: Option<Timestamp>,
    /// Series in its open windows.
    pub series: usize,
    /// The tags that make most of its series; only in answers about one task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub widest_tags: Option<Vec<WideTagDocument>>,
    /// The counts of all its containers.
    pub totals: CountsDocument,
    /// Lines that were rejected last, of each code at least one if there is room, the oldest first.
    pub recent_rejected: Vec<RejectedLineDocument>,
    /// When the node was scraped last.
    pub last_scrape: Option<Timestamp>,
}

/// A tag key, or the name of the series, that has many values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WideTagDocument {
    /// The key; `null` for the name.
    pub key: Option<String>,
    /// Different values.
    pub values: usize,
    /// Series that have it.
    pub series: usize,
}

/// The names of a task's metrics for Prometheus.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskNames {
    /// The id of the task.
    pub task_id: String,
    /// Its metrics, by name and type.
    pub names: Vec<ExposedNameDocument>,
}

/// A metric, and how a scraper of `/metrics/tasks` knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExposedNameDocument {
    /// The name that the application sends.
    pub name: String,
    /// The type, such as `timer`.
    #[serde(rename = "type")]
    pub metric_type: Word,
    /// The unit of the values that the application sends; empty if it is unknown.
    pub unit: Word,
    /// The name of the samples that `promql` reads.
    pub scraped: String,
    /// The names of all samples of the metric.
    pub samples: Vec<String>,
    /// A selector of the samples named `scraped`, with the labels of this task.
    pub selector: String,
    /// An expression for what was asked about: the whole metric, a series, or a sum.
    pub promql: String,
    /// What the expression reads: `rate`, `change`, `level`, `members`, or a statistic of values.
    #[serde(default)]
    pub reads: Word,
    /// Where the expression differs from what was asked about, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Word>,
}

/// A line that was rejected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RejectedLineDocument {
    /// When it arrived.
    pub at: Timestamp,
    /// The container that sent it.
    #[serde(default)]
    pub container_id: String,
    /// Why, for programs.
    pub code: Word,
    /// What to do about it.
    pub advice: Word,
    /// Its text, with bytes that are not UTF-8 as `\xff`; only on the admin socket, because a line can contain anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// The answer of `GET /v1/tasks/{task_id}/events`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Events<'a, Tags = LabelMap> {
    /// The task.
    pub task: TaskShort,
    /// Its events, the oldest first.
    pub events: Vec<EventDocument<'a, Tags>>,
}

/// A `DogStatsD` event.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EventDocument<'a, Tags = LabelMap> {
    /// The container that sent it.
    pub container_id: Cow<'a, str>,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Its title.
    pub title: Cow<'a, str>,
    /// Its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Cow<'a, str>>,
    /// When it happened, according to its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// `error`, `warning`, `info` or `success`.
    pub alert_type: Word,
    /// `normal` or `low`.
    pub priority: Word,
    /// The host, according to its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Cow<'a, str>>,
    /// A key that related events have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation_key: Option<Cow<'a, str>>,
    /// What it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_type: Option<Cow<'a, str>>,
    /// Its tags.
    pub tags: Tags,
}

/// The answer of `GET /v1/tasks/{task_id}/checks`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Checks<'a, Tags = LabelMap> {
    /// The task.
    pub task: TaskShort,
    /// The last outcome of each of its checks, by name, tags and container.
    pub checks: Vec<CheckDocument<'a, Tags>>,
}

/// The last outcome of a `DogStatsD` service check.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckDocument<'a, Tags = LabelMap> {
    /// The container that sent it.
    pub container_id: Cow<'a, str>,
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its tags.
    pub tags: Tags,
    /// `ok`, `warning`, `critical` or `unknown`.
    pub status: Word,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'a, str>>,
    /// The host, according to its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Cow<'a, str>>,
    /// When it was made, according to its sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
}

/// The data of a `gap` event: windows before this cursor are lost to the reader.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// The cursor that the stream continues from.
    pub oldest: String,
}

/// The data of a `finished` event: no more windows of the task follow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FinishedDocument<'a> {
    /// The task.
    pub task_id: Cow<'a, str>,
}

/// The data of a `tasks` event on `GET /v1/watch`: what has changed since the last one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskChanges<Row = TaskRow, Id = String> {
    /// When the agent looked.
    pub at: Timestamp,
    /// As in [`super::ReadyDocument`].
    pub ready: bool,
    /// As in [`super::ReadyDocument`], with reasons.
    pub degraded: Vec<DegradedDocument>,
    /// Bytes that all aggregators hold.
    pub memory: usize,
    /// When the node was scraped last.
    pub last_scrape: Option<Timestamp>,
    /// The end of the last window in `recent_values`; only where the stream was asked for them, in its first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_until: Option<Timestamp>,
    /// Tasks that are new or have changed.
    pub tasks: Vec<Row>,
    /// Tasks that are not known any more.
    pub gone: Vec<Id>,
}

/// A task in a few numbers, which count from the start of its containers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskRow<Id = String> {
    /// Its id.
    pub task_id: Id,
    /// As in [`TaskShort`].
    pub state: Word,
    /// Whether no more can come from it.
    pub finished: bool,
    /// The highest generation of its containers.
    pub generation: u32,
    /// How many containers it has.
    pub containers: usize,
    /// Series in its open windows.
    pub series: usize,
    /// When its newest container was reserved.
    #[serde(default)]
    pub reserved_at: Timestamp,
    /// When its last datagram arrived.
    pub last_datagram: Option<Timestamp>,
    /// Datagrams received.
    pub received: u64,
    /// Values accepted.
    pub values: u64,
    /// Datagrams dropped by the kernel.
    pub kernel_drops: u64,
    /// Datagrams and values dropped by limits.
    pub dropped: u64,
    /// Values of counters beyond the series limit, counted in one series for all of them.
    #[serde(default)]
    pub folded: u64,
    /// Lines rejected.
    pub rejected: u64,
    /// Events received.
    pub events: u64,
    /// When data was last dropped, folded or rejected, to within a window; only where this has happened since the agent
    /// started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_problem: Option<Timestamp>,
    /// Values in each kept window, the oldest first; only where the stream was asked for them, in its first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_values: Option<Vec<u64>>,
}
