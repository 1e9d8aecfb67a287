//! A Node of Kubernetes, as far as its taints go, and whether its agent is registered with the container runtime.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::wire::ReadyDocument;

/// The fields of a Node that are read.
#[derive(Debug, Deserialize)]
pub(super) struct KubernetesNode {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
struct Spec {
    /// Kept as JSON, so that unknown fields are not lost.
    #[serde(default)]
    taints: Vec<Value>,
}

impl KubernetesNode {
    /// The merge patch that removes the taints with this key, whatever their value and effect; `None` if the node has none.
    ///
    /// A merge patch replaces the whole list, so it carries the version that the list was read from: the API server refuses it
    /// if another client has changed the node since, and that client's taints are not lost.
    #[must_use]
    pub(super) fn without_taint(&self, key: &str) -> Option<Value> {
        let taints = &self.spec.taints;
        let left: Vec<&Value> = taints.iter().filter(|taint| taint["key"] != key).collect();
        let patch = json!({
            "metadata": {"resourceVersion": self.metadata.resource_version},
            "spec": {"taints": left},
        });
        (left.len() < taints.len()).then_some(patch)
    }
}

/// Checks in a response to `GET /ready` that the agent is ready and that the runtime has registered it.
///
/// # Errors
/// With what is missing, as text for people.
pub(super) fn ensure_registered(status: u16, body: &[u8]) -> Result<(), String> {
    let ready: ReadyDocument = serde_json::from_slice(body)
        .map_err(|error| format!("/ready answers {status}, and not as expected: {error}"))?;
    if status != 200 || !ready.ready {
        return Err(format!("pending: {}", ready.pending.join(", ")));
    }
    match ready.degraded.into_iter().find(|degraded| degraded.what == "nri") {
        Some(nri) => Err(nri.why),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "tallyport/agent-not-ready";

    fn node(spec: &Value) -> KubernetesNode {
        serde_json::from_value(json!({"kind": "Node", "metadata": {"resourceVersion": "7"}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn a_patch_keeps_the_other_taints_as_they_are_and_carries_the_version() {
        let other = json!({"key": "node.kubernetes.io/x", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z", "new": 1});
        let node = node(&json!({"taints": [
            {"key": KEY, "effect": "NoSchedule"}, other, {"key": KEY, "value": "v", "effect": "NoExecute"}
        ]}));
        let patch = json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": [other]}});
        assert_eq!(node.without_taint(KEY), Some(patch));
    }

    #[test]
    fn the_last_taint_leaves_an_empty_list() {
        let node = node(&json!({"taints": [{"key": KEY, "effect": "NoSchedule"}]}));
        assert_eq!(node.without_taint(KEY).unwrap()["spec"]["taints"], json!([]));
    }

    #[test]
    fn a_node_without_the_taint_is_left_alone() {
        let almost = json!({"taints": [{"key": "tallyport/agent-not-ready-2", "effect": "NoSchedule"}]});
        for spec in [json!({}), json!({"taints": []}), almost] {
            assert_eq!(node(&spec).without_taint(KEY), None);
        }
        let bare: KubernetesNode =
            serde_json::from_value(json!({"metadata": {"resourceVersion": "1"}})).unwrap();
        assert_eq!(bare.without_taint(KEY), None);
    }

    #[test]
    fn an_agent_is_registered_when_it_is_ready_and_its_plugin_is_not_degraded() {
        let said = |status, body: &str| ensure_registered(status, body.as_bytes());
        assert_eq!(said(200, r#"{"ready":true,"pending":[],"degraded":[]}"#), Ok(()));
        let guard = r#"{"ready":true,"pending":[],"degraded":[{"what":"guard","why":"no BPF"}]}"#;
        assert_eq!(said(200, guard), Ok(()), "what else is degraded keeps no pod away");
        let nri = r#"{"ready":true,"pending":[],"degraded":[{"what":"guard","why":"-"},{"what":"nri","why":"no socket"}]}"#;
        assert_eq!(said(200, nri), Err("no socket".to_owned()));
        let pending = r#"{"ready":false,"pending":["shards","http"],"degraded":[]}"#;
        assert_eq!(said(503, pending), Err("pending: shards, http".to_owned()));
        assert!(said(503, r#"{"ready":true,"pending":[]}"#).is_err(), "the status counts, too");
        assert!(said(404, "not found").unwrap_err().contains("404"));
    }
}
