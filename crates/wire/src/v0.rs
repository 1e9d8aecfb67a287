//! The DC/OS metrics API.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tallyport_time::Timestamp;

use super::{LabelMap, Word};

/// The answer of `GET /v0/ping`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ping {
    /// Always true.
    pub ok: bool,
    /// The time, in whole seconds.
    pub timestamp: Timestamp,
}

/// Datapoints of one moment, and what they belong to. `N` is a number.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Message<N = f64, D = Dimensions> {
    /// The datapoints.
    pub datapoints: Vec<Datapoint<N>>,
    /// The container, or the node.
    pub dimensions: D,
}

/// One number.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Datapoint<N = f64> {
    /// Its name.
    pub name: String,
    /// The number.
    pub value: N,
    /// `seconds`, `count`, `bytes`, `percent`, or nothing.
    #[serde(default)]
    pub unit: Word,
    /// The moment.
    #[serde(default)]
    pub timestamp: Timestamp,
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Value>,
}

/// What datapoints of a container belong to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are those of DC/OS")]
pub struct Dimensions {
    pub mesos_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
    pub container_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub executor_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub framework_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub framework_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub framework_role: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub framework_principal: String,
    pub task_name: String,
    pub task_id: String,
    pub hostname: String,
    #[serde(skip_serializing_if = "LabelMap::is_empty")]
    pub labels: LabelMap,
}

/// What datapoints of the node belong to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of DC/OS")]
pub struct NodeDimensions {
    pub mesos_id: Word,
    pub hostname: String,
}
