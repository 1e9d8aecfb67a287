//! Documents that several routes share, from what the container table and the shards know, and the identities of counts.

use std::path::Path;
use std::sync::Arc;

use crate::aggregate::{Accounting, TimerUnit};
use crate::containers::{
    ContainerInfo, ContainerUnixSocket, Guarded, LifecycleState, SocketNamespace, TaskContainers,
    udp_environment, unix_environment,
};
use crate::model::{Labels, Timestamp};
use crate::shard::{ContainerStats, StatsByContainer};
use crate::statsd::show_line;
use crate::wire::{self, TallyMap, Word};

/// The response to reserve calls. `presets` are the configured sets of variables.
#[must_use]
pub fn reserved_document(info: &ContainerInfo, presets: &[String]) -> wire::ReservedDocument {
    wire::ReservedDocument {
        container_id: info.origin.container_id.to_string(),
        task_id: info.origin.task_id.to_string(),
        generation: info.origin.generation.0,
        statsd_host: info.address.map(|address| address.ip().to_string()),
        statsd_port: info.address.map(|address| address.port()),
        state: Word::Borrowed(info.state.as_str()),
        attached: info.attached,
        env: info.address.map(|address| udp_environment(address, presets)).unwrap_or_default(),
        reason: info.reason.clone(),
        warnings: info.warnings.clone(),
        unix_socket: info.unix.as_ref().map(|unix| unix_socket(unix, presets)),
    }
}

fn unix_socket(unix: &ContainerUnixSocket, presets: &[String]) -> wire::UnixSocketDocument {
    let text = |path: &Path| path.display().to_string();
    wire::UnixSocketDocument {
        path: text(&unix.path),
        mount: wire::MountDocument {
            source: text(&unix.source),
            destination: text(unix.mount_destination()),
        },
        env: unix_environment(&unix.path, presets),
    }
}

/// The document of a container.
#[must_use]
pub fn get_container_resources(
    info: &ContainerInfo,
    presets: &[String],
    stats: Option<&ContainerStats>,
) -> wire::ContainerDocument {
    let counts = stats.map(|stats| &stats.accounting);
    let details = info.details.clone();
    wire::ContainerDocument {
        reserved: reserved_document(info, presets),
        labels: info.origin.labels.clone(),
        pid: info.pid,
        last_datagram: counts.and_then(|counts| counts.last_datagram),
        received: counts.map_or(0, |counts| counts.received),
        kernel_drops: counts.map_or(0, |counts| counts.kernel_drops),
        dropped: counts.map_or(0, |counts| counts.dropped.total_count()),
        folded: counts.map_or(0, |counts| counts.folded),
        rejected: counts.map_or(0, |counts| counts.rejected.total_count()),
        series: stats.map_or(0, |stats| stats.series),
        memory: stats.map_or(0, |stats| stats.memory),
        origin_guard: Word::Borrowed(origin_guard(info)),
        origin_guard_missing: info.guarded.unavailable_reason().map(str::to_owned),
        gauge_sign: Word::Borrowed(info.gauge_sign.as_str()),
        timer_unit: Word::Borrowed(info.timer_unit.as_str()),
        client: Some(stats.map(|stats| client_document(info, stats)).unwrap_or_default()),
        receive_buffer: stats.map_or(info.receive_buffer, |stats| stats.receive_buffer),
        reserved_at: info.reserved_at,
        finished_at: info.finished_at,
        bundle: details.bundle,
        sandbox_id: details.sandbox_id,
        pod_uid: details.pod_uid,
        runtime_handler: details.runtime_handler,
        image: details.image,
        adopted: details.adopted,
    }
}

/// What prevents other processes from sending to the container.
fn origin_guard(info: &ContainerInfo) -> &'static str {
    match info.place {
        // The socket accepts only datagrams from the container's own processes.
        _ if info.unix.as_ref().is_some_and(|unix| unix.only && unix.checked) => "unix",
        // Without a socket there is nothing to guard.
        _ if info.address.is_none() => "none",
        SocketNamespace::Shared if info.guarded == Guarded::On => "cgroup",
        // Every process of the host network reaches a loopback address.
        SocketNamespace::Shared => "none",
        SocketNamespace::Own(_) | SocketNamespace::Unborn => "netns",
    }
}

fn client_document(info: &ContainerInfo, stats: &ContainerStats) -> wire::ClientDocument {
    let habits = stats.habits;
    let mut decremented: Vec<_> = stats.decremented.iter().map(|series| series.name.to_string()).collect();
    decremented.sort_unstable();
    decremented.dedup();
    wire::ClientDocument {
        dogstatsd: habits.dogstatsd,
        gauge_changes: habits.gauge_changes,
        timers_look_like_seconds: info.timer_unit == TimerUnit::Milliseconds
            && habits.timers_look_like_seconds(),
        decremented,
    }
}

/// A container in the DC/OS dialect.
#[must_use]
pub fn dcos_container(info: &ContainerInfo) -> wire::DcosContainer {
    wire::DcosContainer {
        container_id: info.origin.container_id.to_string(),
        statsd_host: info.address.map(|address| address.ip().to_string()),
        statsd_port: info.address.map(|address| address.port()),
    }
}

/// The short form of a task.
#[must_use]
pub fn task_short(listed: &TaskContainers) -> wire::TaskShort {
    let state = state_of(listed);
    wire::TaskShort {
        task_id: listed.task_id.to_string(),
        state: Word::Borrowed(state.as_str()),
        finished: state.is_finished(),
        generation: generation_document(listed),
        containers: listed.containers.iter().map(|info| info.origin.container_id.to_string()).collect(),
        labels: common_labels(listed),
    }
}

/// The state of a task: listening if one of its containers is.
pub(super) fn state_of(listed: &TaskContainers) -> LifecycleState {
    let states: Vec<LifecycleState> = listed.containers.iter().map(|info| info.state).collect();
    let order = [
        LifecycleState::Listening,
        LifecycleState::Reserved,
        LifecycleState::Lost,
        LifecycleState::Mute,
        LifecycleState::Draining,
    ];
    order.into_iter().find(|state| states.contains(state)).unwrap_or(LifecycleState::Gone)
}

/// The highest generation of a task's containers.
pub(super) fn generation_document(listed: &TaskContainers) -> u32 {
    listed.containers.iter().map(|info| info.origin.generation.0).max().unwrap_or(0)
}

/// The labels that all containers of a task have in common.
fn common_labels(listed: &TaskContainers) -> Labels {
    let mut containers = listed.containers.iter().map(|info| &info.origin.labels);
    let mut common = containers.next().cloned().unwrap_or_default();
    for labels in containers {
        common.retain(|key, value| labels.get(key) == Some(value));
    }
    common
}

/// Counts, with `open` values in open windows.
#[must_use]
pub fn counts_document(counts: &Accounting, open: u64) -> wire::CountsDocument {
    let dropped = |datagrams: bool| {
        let these = counts.dropped.iter().filter(|(reason, _)| reason.counts_datagrams() == datagrams);
        tally_document(these.map(|(reason, n)| (reason.as_str(), n)))
    };
    wire::CountsDocument {
        datagrams: wire::DatagramsDocument {
            arrived: counts.arrived_datagrams(),
            received: counts.received,
            bytes: counts.bytes,
            kernel_drops: counts.kernel_drops,
            dropped: dropped(true),
        },
        lines: wire::LinesDocument {
            received: counts.lines,
            accepted: counts.accepted,
            rejected: tally_document(counts.rejected.iter().map(|(code, n)| (code.as_str(), n))),
        },
        values: wire::ValuesDocument {
            accepted: counts.values,
            in_records: counts.in_records,
            open,
            folded: counts.folded,
            dropped: dropped(false),
        },
        events: counts.events,
        over_limit: tally_document(counts.over_limit.iter().map(|(reason, n)| (reason.as_str(), n))),
        evicted_series: counts.evicted,
        invalid_utf8: counts.invalid_utf8,
        renamed_tags: counts.renamed_tags,
        balanced: counts.is_balanced(open),
    }
}

fn tally_document(counts: impl Iterator<Item = (&'static str, u64)>) -> TallyMap {
    counts.map(|(reason, n)| (Word::Borrowed(reason), n)).collect()
}

/// The full form of a task. `raw` selects whether rejected lines are included.
#[must_use]
pub fn task_document(
    listed: &TaskContainers,
    presets: &[String],
    stats_by_container: &StatsByContainer,
    last_scrape: Option<Timestamp>,
    raw: bool,
) -> wire::Task {
    let of = |info: &ContainerInfo| stats_by_container.get(&info.allocation);
    let mut total = Accounting::default();
    let (mut open, mut series) = (0, 0);
    let mut recent_rejected = Vec::new();
    for info in &listed.containers {
        let Some(stats) = of(info) else { continue };
        total.merge(&stats.accounting);
        open += stats.open_values;
        series += stats.series;
        recent_rejected.extend(stats.rejected.iter().map(|line| wire::RejectedLineDocument {
            at: line.at,
            container_id: info.origin.container_id.to_string(),
            code: Word::Borrowed(line.code.as_str()),
            advice: Word::Borrowed(line.code.suggested_fix()),
            line: raw.then(|| show_line(&line.line).into_owned()),
        }));
    }
    recent_rejected.sort_by_key(|line| line.at);
    let containers = listed.containers.iter();
    let containers = containers.map(|info| get_container_resources(info, presets, of(info).map(Arc::as_ref)));
    let state = state_of(listed);
    wire::Task {
        task_id: listed.task_id.to_string(),
        state: Word::Borrowed(state.as_str()),
        finished: state.is_finished(),
        generation: generation_document(listed),
        containers: containers.collect(),
        labels: common_labels(listed),
        last_datagram: total.last_datagram,
        series,
        widest_tags: None,
        totals: counts_document(&total, open),
        recent_rejected,
        last_scrape,
    }
}

/// The counts of these containers. `total` is the initial value of the sum.
#[must_use]
pub fn accounting_document(
    node: String,
    wanted: &[Arc<ContainerInfo>],
    stats_by_container: &StatsByContainer,
    mut total: Accounting,
) -> wire::AccountingDocument {
    let mut open = 0;
    let mut containers = Vec::with_capacity(wanted.len());
    for info in wanted {
        let Some(stats) = stats_by_container.get(&info.allocation) else { continue };
        total.merge(&stats.accounting);
        open += stats.open_values;
        containers.push(wire::Counted {
            container_id: info.origin.container_id.to_string(),
            generation: info.origin.generation.0,
            task_id: info.origin.task_id.to_string(),
            state: info.state.as_str().into(),
            counts: counts_document(&stats.accounting, stats.open_values),
        });
    }
    wire::AccountingDocument { node, containers, total: Some(counts_document(&total, open)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::GaugeSign;
    use crate::statsd::{AlertType, Priority};

    #[test]
    fn documents_use_the_words_that_requests_and_records_are_read_with() {
        fn same(value: impl serde::Serialize, word: &str) {
            assert_eq!(serde_json::to_value(value).unwrap(), word);
        }
        let signs = [GaugeSign::Auto, GaugeSign::Delta, GaugeSign::Absolute];
        signs.iter().for_each(|sign| same(sign, sign.as_str()));
        let units = [TimerUnit::Milliseconds, TimerUnit::Seconds];
        units.iter().for_each(|unit| same(unit, unit.as_str()));
        let kinds = [AlertType::Error, AlertType::Warning, AlertType::Info, AlertType::Success];
        kinds.iter().for_each(|kind| same(kind, kind.as_str()));
        [Priority::Normal, Priority::Low].iter().for_each(|priority| same(priority, priority.as_str()));
        LifecycleState::ALL.iter().for_each(|state| same(state, state.as_str()));
    }
}
