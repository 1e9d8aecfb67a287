//! What doctor says of containers and their tasks: whether they have sockets, what they lost, and what their clients send
//! that is not read as they mean it.

use super::finding::{Finding, FindingStatus, RepeatedFinding};
use crate::aggregate::{Dropped, KERNEL_DROPS_FIX};
use crate::cli::documents::{format_elapsed, name, sorted_counts};
use crate::cli::explain::find_recently_rejected;
use crate::config::{Effect, Setting};
use crate::net::clock;
use crate::statsd::Rejected;
use crate::wire::{AccountingDocument, ClientDocument, ContainerDocument, Counted, CountsDocument, Task};

const BUFFER: Effect = Setting::effect_of("listeners.receive_buffer");

/// A container and its task.
pub(super) fn full_name(container: &ContainerDocument) -> String {
    format!("{} of task {}", name(container), container.reserved.task_id)
}

/// Findings about a container and its client. `counts` are its own, with the reasons of losses.
pub(super) fn check_container(
    container: &ContainerDocument,
    counts: Option<&CountsDocument>,
) -> Vec<RepeatedFinding> {
    let named = full_name(container);
    let client = container.client.as_ref();
    let mut findings: Vec<_> = check_socket(container, counts, &named).into_iter().collect();
    findings.extend(client.and_then(|client| check_decremented_counters(client, &named)));
    findings.extend(client.and_then(|client| check_gauge_signs(client, &named)));
    findings.extend(client.and_then(|client| check_timer_unit(client, &named)));
    findings
}

/// The counts of a container.
pub(super) fn find_counts<'a>(
    accounting: &'a AccountingDocument,
    container: &ContainerDocument,
) -> Option<&'a CountsDocument> {
    let ContainerDocument { reserved, .. } = container;
    let is_it = |counted: &&Counted| {
        (&counted.container_id, counted.generation) == (&reserved.container_id, reserved.generation)
    };
    accounting.containers.iter().find(is_it).map(|counted| &counted.counts)
}

fn check_socket(
    container: &ContainerDocument,
    counts: Option<&CountsDocument>,
    named: &str,
) -> Option<RepeatedFinding> {
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
    let losses = list_losses(container, counts);
    if !losses.is_empty() {
        let lost: Vec<String> = losses.iter().map(|(lost, _)| lost.clone()).collect();
        let lost = lost.join(", ");
        let mut alone = Finding::new(CHECK, FindingStatus::Warning, format!("{named} lost {lost}"));
        for (_, remedy) in losses {
            alone = alone.with_advice(remedy);
        }
        let example = format!("{named}: {lost}");
        return Some(RepeatedFinding { alone, several: "containers lost data", example });
    }
    let warning = reserved.warnings.first()?;
    let example = format!("{named}: {warning}");
    let alone = Finding::new(CHECK, FindingStatus::Warning, example.clone());
    Some(RepeatedFinding { alone, several: "containers have warnings", example })
}

/// What a container lost, each with its remedy. What the series limit keeps out is a finding of its own.
fn list_losses(container: &ContainerDocument, counts: Option<&CountsDocument>) -> Vec<(String, String)> {
    let mut losses = Vec::new();
    if container.kernel_drops > 0 {
        losses.push((
            format!("{} datagrams in the kernel, as its receive buffer was full", container.kernel_drops),
            format!("{KERNEL_DROPS_FIX} and {}", BUFFER.remedy_text()),
        ));
    }
    let Some(counts) = counts else {
        let remedy = format!("`tallyport explain {}` says why", container.reserved.task_id);
        let lost = format!("{} values or datagrams by its limits", container.dropped);
        losses.extend((container.dropped > 0).then_some((lost, remedy)));
        return losses;
    };
    let kinds = [("datagrams", &counts.datagrams.dropped), ("values", &counts.values.dropped)];
    for (kind, dropped) in kinds {
        let others = sorted_counts(dropped);
        let others = others.iter().filter(|(reason, _)| reason != Dropped::SeriesLimit.as_str());
        losses.extend(others.map(|(reason, n)| {
            let known = Dropped::ALL.iter().find(|known| known.as_str() == reason);
            let fix = known.map_or("`tallyport explain` says why", |known| known.suggested_fix());
            (format!("{n} {kind} ({reason})"), format!("{reason}: {fix}"))
        }));
    }
    losses
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
    for (line, _) in find_recently_rejected(task, None) {
        let advice = Rejected::ALL
            .iter()
            .find(|known| known.as_str() == line.code)
            .map_or(&*line.advice, |c| c.suggested_fix());
        let shown = line.line.as_ref().map_or(String::new(), |line| format!("\"{line}\": "));
        alone = alone.with_advice(format!(
            "{} ago {shown}{}: {advice}",
            format_elapsed(clock::wall_time(), line.at),
            line.code
        ));
    }
    Some(RepeatedFinding { alone, several: "tasks have sent lines that were rejected", example })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::snapshots::sample_task;

    /// A container that has lost this, and its counts.
    fn container_with(kernel: u64, values: &serde_json::Value) -> (ContainerDocument, CountsDocument) {
        let task = sample_task("jobs.1", "listening", 8);
        let (mut container, mut counts) = (task.containers[0].clone(), task.totals.clone());
        (container.kernel_drops, container.dropped) = (kernel, 27);
        counts.datagrams.dropped.clear();
        counts.values.dropped = serde_json::from_value(values.clone()).unwrap();
        (container, counts)
    }

    #[test]
    fn a_loss_is_named_with_its_kind_its_limit_and_its_remedy() {
        let (container, mut counts) = container_with(5, &json!({"late": 3}));
        counts.datagrams.dropped = serde_json::from_value(json!({"datagram_rate": 4072})).unwrap();
        let found = check_socket(&container, Some(&counts), "c of task t").unwrap().alone;
        assert_eq!(
            found.found,
            "c of task t lost 5 datagrams in the kernel, as its receive buffer was full, 4072 datagrams \
             (datagram_rate), 3 values (late)"
        );
        assert_eq!(found.advice.len(), 3);
        assert!(found.advice[1].contains("raise limits.datagrams_per_second"), "{found:?}");
    }

    #[test]
    fn values_that_the_series_limit_kept_out_are_not_a_second_finding() {
        let (container, counts) = container_with(0, &json!({"series_limit": 27}));
        assert!(check_socket(&container, Some(&counts), "c").is_none());
        let unknown = check_socket(&container, None, "c").unwrap().alone;
        assert_eq!(unknown.found, "c lost 27 values or datagrams by its limits");
    }
}
