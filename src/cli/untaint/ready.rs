//! What `GET /ready` says of the plugin.

use crate::wire::ReadyDocument;

/// Whether an answer to `GET /ready` says that the agent serves and that the runtime has registered it.
///
/// # Errors
/// With what is missing, for people.
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
