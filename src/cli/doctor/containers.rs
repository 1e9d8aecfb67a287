//! What doctor says of containers: what their clients send that is not read as they mean it, and whether pods get their sockets.

use super::finding::{Finding, FindingStatus};
use crate::cli::documents::format_elapsed;
use crate::net::clock;
use crate::wire::{ClientDocument, ContainerDocument, FailingDocument, PluginDocument};

/// Findings about the client of a container.
pub(super) fn check_client(container: &ContainerDocument) -> Vec<Finding> {
    let Some(client) = &container.client else { return Vec::new() };
    let named = format!("{} of task {}", container.reserved.container_id, container.reserved.task_id);
    [
        check_decremented_counters(client, &named),
        check_gauge_signs(client, &named),
        check_timer_unit(client, &named),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check_decremented_counters(client: &ClientDocument, named: &str) -> Option<Finding> {
    if client.decremented.is_empty() {
        return None;
    }
    let found = format!(
        "{named} has sent negative values of {}; their totals are served without a type",
        client.decremented.join(", ")
    );
    let advice = "rate() and increase() treat each decrease as a restart: use delta(), or send a counter as a gauge \
                  (name:-1|g) and no negative durations";
    Some(Finding::new("counters", FindingStatus::Warning, found).with_advice(advice))
}

fn check_gauge_signs(client: &ClientDocument, named: &str) -> Option<Finding> {
    if !client.dogstatsd || client.gauge_changes == 0 {
        return None;
    }
    let found = format!(
        "{} signed gauge values of {named} were read as changes, and its client also sends DogStatsD",
        client.gauge_changes
    );
    let advice = "clients of DogStatsD send levels with their sign: set the annotation or label tallyport.gauge-sign to \
                  absolute, or to delta if changes are meant";
    Some(Finding::new("gauges", FindingStatus::Warning, found).with_advice(advice))
}

fn check_timer_unit(client: &ClientDocument, named: &str) -> Option<Finding> {
    if !client.timers_look_like_seconds {
        return None;
    }
    let found = format!("every timer of {named} is below 1 ms; its client may send seconds");
    let advice = "the timed decorator of Datadog's Python client does unless use_ms is set: set use_ms, or the annotation or \
                  label tallyport.timer-unit to s";
    Some(Finding::new("timers", FindingStatus::Warning, found).with_advice(advice))
}

/// No findings if the plugin is disabled.
pub(super) fn plugin_findings(plugin: &PluginDocument) -> Vec<Finding> {
    if plugin.state == "off" {
        return Vec::new();
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
            "nri",
            FindingStatus::Ok,
            format!("registered with the container runtime{since}; {} containers got a socket", plugin.injected),
        ),
        "registering" => Finding::new(
            "nri",
            FindingStatus::Warning,
            format!("{} has accepted the plugin and has not listed its containers{since}", plugin.socket),
        )
        .with_advice("the runtime finishes what it is doing first, such as stopping a container; pods that start meanwhile have no socket")
        .with_advice("if this persists, another program listens on that socket: check nri.socket"),
        _ => {
            let why = plugin.why.as_deref().unwrap_or("the agent does not say why");
            Finding::new("nri", FindingStatus::Failed, format!("pods start without a socket{since}: {why}"))
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
    fn an_agent_that_is_no_plugin_has_nothing_to_find() {
        assert!(findings(&serde_json::json!({"state": "off"})).is_empty());
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
