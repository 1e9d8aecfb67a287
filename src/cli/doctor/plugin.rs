//! What doctor says of the plugin of the container runtime, which gives pods their sockets.

use super::finding::{Finding, FindingStatus};
use crate::cli::documents::format_elapsed;
use crate::model::setting_name::setting_name;
use crate::net::clock;
use crate::wire::{FailingDocument, PluginDocument};

const CHECK: &str = "nri";

/// What state the plugin is in, and whether containers get their sockets through it.
pub(super) fn plugin_findings(plugin: &PluginDocument) -> Vec<Finding> {
    if plugin.state == "off" {
        return vec![Finding::new(
            CHECK,
            FindingStatus::Ok,
            "off (nri.enabled): pods get no sockets from a plugin",
        )];
    }
    let mut findings = vec![check_connection(plugin)];
    findings.extend(check_failing_containers(plugin));
    findings
}

fn check_connection(plugin: &PluginDocument) -> Finding {
    let since = plugin
        .since
        .map_or(String::new(), |since| format!(" for {}", format_elapsed(clock::wall_time(), since)));
    match &*plugin.state {
        "connected" => Finding::new(
            CHECK,
            FindingStatus::Ok,
            format!("registered with the container runtime{since}; {} containers got a socket", plugin.injected),
        ),
        "registering" => Finding::new(
            CHECK,
            FindingStatus::Warning,
            format!("{} has accepted the plugin and has not listed its containers{since}", plugin.socket),
        )
        .with_advice("the runtime finishes what it is doing first, such as stopping a container; pods that start meanwhile have no socket")
        .with_advice(concat!("if this persists, another program listens on that socket: check ", setting_name!("nri.socket"))),
        _ => {
            let why = plugin.why.as_deref().unwrap_or("the agent does not say why");
            let finding =
                Finding::new(CHECK, FindingStatus::Failed, format!("pods start without a socket{since}: {why}"));
            if !why.contains("No such file") {
                return finding.with_advice(format!(
                    "{} exists but cannot be used: is the container runtime running, and may the agent's user use it?",
                    plugin.socket
                ));
            }
            finding
                .with_advice(concat!("the runtime does not offer NRI there: check its configuration and ", setting_name!("nri.socket")))
                .with_advice("containerd 1.7 needs [plugins.\"io.containerd.nri.v1.nri\"] disable = false; 2.0 and later enable NRI by default")
                .with_advice("CRI-O 1.30 and later enable NRI by default; earlier versions need [crio.nri] enable_nri = true")
                .with_advice("in a pod, the directory of nri.socket has to be mounted from the node")
        }
    }
}

fn check_failing_containers(plugin: &PluginDocument) -> Option<Finding> {
    let FailingDocument { containers, at, why } = plugin.failing.as_ref()?;
    // After a hand-over the counters start at 0, so a single failure does not prove that all fail.
    let all = plugin.injected == 0 && *containers > 1;
    let (status, which) = match all {
        true => (FindingStatus::Failed, format!("none of {} containers got a socket", plugin.failed)),
        false => (FindingStatus::Warning, format!("the last {containers} containers got no socket")),
    };
    let found = format!("{which}, the last {} ago: {why}", format_elapsed(clock::wall_time(), *at));
    let finding = Finding::new("pods", status, found);
    Some(finding.with_advice("they run without a socket; fix the cause, then restart their pods"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(document: &serde_json::Value) -> Vec<(&'static str, FindingStatus, String)> {
        let mut whole = serde_json::json!({"socket": "/run/nri/nri.sock", "injected": 0, "failed": 0});
        whole.as_object_mut().unwrap().extend(document.as_object().unwrap().clone());
        let plugin: PluginDocument = serde_json::from_value(whole).unwrap();
        plugin_findings(&plugin).into_iter().map(|f| (f.check, f.status, f.found)).collect()
    }

    #[test]
    fn an_agent_that_is_no_plugin_says_so() {
        let off = findings(&serde_json::json!({"state": "off"}));
        assert_eq!((off.len(), off[0].0, off[0].1), (1, "nri", FindingStatus::Ok));
        assert!(off[0].2.contains("nri.enabled"), "{off:?}");
    }

    #[test]
    fn a_socket_that_is_missing_and_one_that_refuses_have_different_remedies() {
        let advice = |why: &str| {
            let document = serde_json::json!({"state": "absent", "why": why, "socket": "/run/nri/nri.sock", "injected": 0, "failed": 0});
            let plugin: PluginDocument = serde_json::from_value(document).unwrap();
            plugin_findings(&plugin).remove(0).advice.join("\n")
        };
        assert!(advice("/run/nri/nri.sock: No such file or directory").contains("containerd 1.7"));
        let refused = advice("/run/nri/nri.sock: Connection refused");
        assert!(
            refused.contains("exists but cannot be used") && !refused.contains("containerd"),
            "{refused}"
        );
    }

    #[test]
    fn a_runtime_that_is_absent_fails_and_one_that_registers_warns() {
        let absent = findings(&serde_json::json!({"state": "absent", "why": "no such file"}));
        assert_eq!((absent[0].0, absent[0].1), ("nri", FindingStatus::Failed));
        assert!(absent[0].2.contains("no such file"), "{absent:?}");
        let registering = findings(&serde_json::json!({"state": "registering"}));
        assert_eq!((registering[0].1, registering.len()), (FindingStatus::Warning, 1));
        let connected = findings(&serde_json::json!({"state": "connected", "injected": 7}));
        assert_eq!((connected[0].1, connected.len()), (FindingStatus::Ok, 1));
    }

    #[test]
    fn where_no_container_gets_a_socket_the_check_fails_with_the_reason() {
        let failing =
            serde_json::json!({"containers": 3, "at": "2026-01-01T00:00:00Z", "why": "no such network"});
        let all = findings(&serde_json::json!({"state": "connected", "failed": 3, "failing": failing}));
        assert_eq!((all[1].0, all[1].1), ("pods", FindingStatus::Failed));
        assert!(all[1].2.contains("none of 3") && all[1].2.contains("no such network"), "{all:?}");
        let some = findings(
            &serde_json::json!({"state": "connected", "injected": 9, "failed": 3, "failing": failing}),
        );
        assert_eq!(some[1].1, FindingStatus::Warning);
    }
}
