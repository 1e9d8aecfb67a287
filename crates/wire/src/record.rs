//! Records: one series in one window.
//!
//! The agent writes a record without building this document (`tallyport-formats`): it writes hundreds of thousands of them
//! for one page. A test there compares the two.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tallyport_time::Timestamp;

use super::{LabelMap, TaskShort};

/// One series in one window, or in several that were merged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecordDocument {
    /// A hash that identifies the series on this node.
    #[serde(default)]
    pub id: String,
    /// The life of the agent that `seq` belongs to.
    #[serde(default)]
    pub epoch: u64,
    /// Its place in the sequence of the node. Open and merged records have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// How often late samples have revised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u32>,
    /// The node.
    #[serde(default)]
    pub node: String,
    /// When its window began.
    pub start: Timestamp,
    /// When its window ended or will end.
    pub end: Timestamp,
    /// The length of its window.
    #[serde(default)]
    pub seconds: f64,
    /// Seconds of its window in which its container was listening.
    pub covered: f64,
    /// Whether its window was closed before its end.
    #[serde(default)]
    pub partial: bool,
    /// Whether its window is still open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// How many records were merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<usize>,
    /// Where it comes from.
    pub origin: RecordOrigin,
    /// The name of its series.
    pub name: String,
    /// The type of its series.
    #[serde(rename = "type")]
    pub metric_type: String,
    /// The unit of its value.
    pub unit: String,
    /// The tags of its series.
    pub tags: Map<String, Value>,
    /// The number that people want first: a sum, a level, a mean, a cardinality or a status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The numbers of its type.
    pub agg: Map<String, Value>,
    /// The distribution in HdrHistogram's compressed V2 encoding, base64, in millionths of the unit; only on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hdr: Option<String>,
}

/// Where a record comes from. A merged one can come from several containers of a task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecordOrigin {
    /// The container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Its generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Its task.
    #[serde(default)]
    pub task_id: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelMap>,
    /// The containers of a merged record, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
}

impl RecordDocument {
    /// A number of `agg`.
    #[must_use]
    pub fn agg_value(&self, key: &str) -> Option<f64> {
        self.agg.get(key).and_then(Value::as_f64)
    }

    /// Tags as they are written on a line: `key:value,key`.
    #[must_use]
    pub fn format_tags(&self) -> String {
        let tags = self.tags.iter().map(|(key, value)| match value.as_str() {
            Some("") | None => key.clone(),
            Some(value) => format!("{key}:{value}"),
        });
        tags.collect::<Vec<_>>().join(",")
    }

    /// Name, tags and type: what makes a series.
    #[must_use]
    pub fn series_key(&self) -> (String, String, String) {
        (self.name.clone(), self.format_tags(), self.metric_type.clone())
    }
}

/// The answer of `GET /v1/tasks/{task_id}/metrics`. The agent writes it while it reads the store.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskMetrics<R = RecordDocument> {
    /// The task.
    pub task: TaskShort,
    /// The length of a step in seconds, where records are those of steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Its records.
    pub metrics: Vec<R>,
}

/// The data of a `window` event on `GET /v1/tasks/{task_id}/watch`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WindowEvent<R = RecordDocument> {
    /// The container.
    #[serde(default)]
    pub container_id: String,
    /// When the window began.
    #[serde(default)]
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Its records.
    pub metrics: Vec<R>,
}
