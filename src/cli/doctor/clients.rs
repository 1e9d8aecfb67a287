//! What clients send that is not read as they mean it, as far as that can be seen.

use super::{Finding, FindingStatus};
use crate::wire::{ClientDocument, ContainerDocument};

/// What is suspicious about the client of a container.
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
    let advice = "rate() and increase() take each decrease for a restart: use delta(), or send a counter as a gauge \
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
