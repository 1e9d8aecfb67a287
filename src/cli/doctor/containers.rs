//! What doctor says of containers and their tasks: whether they have sockets, what they lost, and what their clients send
//! that is not read as they mean it.

use super::finding::{Finding, FindingStatus, RepeatedFinding};
use crate::cli::documents::{format_elapsed, name, sorted_counts};
use crate::net::clock;
use crate::statsd::Rejected;
use crate::wire::{ClientDocument, ContainerDocument, Task};

/// A container and its task.
pub(super) fn full_name(container: &ContainerDocument) -> String {
    format!("{} of task {}", name(container), container.reserved.task_id)
}

/// Findings about a container and its client.
pub(super) fn check_container(container: &ContainerDocument) -> Vec<RepeatedFinding> {
    let named = full_name(container);
    let client = container.client.as_ref();
    let mut findings: Vec<_> = check_socket(container, &named).into_iter().collect();
    findings.extend(client.and_then(|client| check_decremented_counters(client, &named)));
    findings.extend(client.and_then(|client| check_gauge_signs(client, &named)));
    findings.extend(client.and_then(|client| check_timer_unit(client, &named)));
    findings
}

fn check_socket(container: &ContainerDocument, named: &str) -> Option<RepeatedFinding> {
    const CHECK: &str = "container";
    let reserved = &container.reserved;
    if matches!(&*reserved.state, "lost" | "mute") {
        let said = reserved.reason.iter().chain(reserved.warnings.first());
        let why = said.fold(String::new(), |why, said| why + "; " + said);
        let (several, advice) = match &*reserved.state {
            "lost" => (
                "containers are lost",
                "its metrics are lost until its address can be opened; the agent tries again by itself",
            ),
            _ => ("containers are mute", "its metrics are not served under its name; restart it"),
        };
        let found = format!("{named} is {}{why}", reserved.state);
        let alone = Finding::new(CHECK, FindingStatus::Failed, found).with_advice(advice);
        return Some(RepeatedFinding { alone, several, example: format!("{named}{why}") });
    }
    if container.kernel_drops + container.dropped > 0 {
        let lost = format!(
            "{} datagrams in the kernel and {} by its limits",
            container.kernel_drops, container.dropped
        );
        let alone = Finding::new(CHECK, FindingStatus::Warning, format!("{named} lost {lost}"))
            .with_advice(format!("`tallyport explain {}` says why", reserved.task_id));
        let example = format!("{named}: {lost}");
        return Some(RepeatedFinding { alone, several: "containers lost data", example });
    }
    let warning = reserved.warnings.first()?;
    let example = format!("{named}: {warning}");
    let alone = Finding::new(CHECK, FindingStatus::Warning, example.clone());
    Some(RepeatedFinding { alone, several: "containers have warnings", example })
}

fn check_decremented_counters(client: &ClientDocument, named: &str) -> Option<RepeatedFinding> {
    if client.decremented.is_empty() {
        return None;
    }
    let counters = client.decremented.join(", ");
    let found =
        format!("{named} has sent negative values of {counters}; their totals are served without a type");
    let advice = "rate() and increase() treat each decrease as a restart: use delta(), or send a counter as a gauge \
                  (name:-1|g) and no negative durations";
    Some(RepeatedFinding {
        alone: Finding::new("counters", FindingStatus::Warning, found).with_advice(advice),
        several: "containers have sent negative values of counters, whose totals are served without a type",
        example: format!("{named}: {counters}"),
    })
}

fn check_gauge_signs(client: &ClientDocument, named: &str) -> Option<RepeatedFinding> {
    if !client.dogstatsd || client.gauge_changes == 0 {
        return None;
    }
    let found = format!(
        "{} signed gauge values of {named} were read as changes, and its client also sends DogStatsD",
        client.gauge_changes
    );
    let advice = "clients of DogStatsD send levels with their sign: set the annotation or label tallyport.gauge-sign to \
                  absolute, or to delta if changes are meant";
    Some(RepeatedFinding {
        alone: Finding::new("gauges", FindingStatus::Warning, found).with_advice(advice),
        several: "containers have clients of DogStatsD whose signed gauge values were read as changes",
        example: format!("{named}: {} values", client.gauge_changes),
    })
}

fn check_timer_unit(client: &ClientDocument, named: &str) -> Option<RepeatedFinding> {
    if !client.timers_look_like_seconds {
        return None;
    }
    let found = format!("every timer of {named} is below 1 ms; its client may send seconds");
    let advice = "the timed decorator of Datadog's Python client does unless use_ms is set: set use_ms, or the annotation or \
                  label tallyport.timer-unit to s";
    Some(RepeatedFinding {
        alone: Finding::new("timers", FindingStatus::Warning, found).with_advice(advice),
        several: "containers have only timers below 1 ms; their clients may send seconds",
        example: named.to_owned(),
    })
}

/// The rejected lines of a task.
pub(super) fn check_rejected_lines(task: &Task) -> Option<RepeatedFinding> {
    let codes = sorted_counts(&task.totals.lines.rejected);
    if codes.is_empty() {
        return None;
    }
    let text: Vec<String> = codes.iter().map(|(code, n)| format!("{n} {code}")).collect();
    let example = format!("task {}: {}", task.task_id, text.join(", "));
    let mut alone = Finding::new("rejected lines", FindingStatus::Warning, example.clone());
    for line in task.recent_rejected.iter().rev().take(3) {
        let advice = Rejected::ALL
            .iter()
            .find(|known| known.as_str() == line.code)
            .map_or(&*line.advice, |c| c.suggested_fix());
        let shown = line.line.as_ref().map_or(String::new(), |line| format!("{line:?}: "));
        alone = alone.with_advice(format!(
            "{} ago {shown}{}: {advice}",
            format_elapsed(clock::wall_time(), line.at),
            line.code
        ));
    }
    Some(RepeatedFinding { alone, several: "tasks have sent lines that were rejected", example })
}
