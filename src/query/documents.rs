//! Documents that several routes share, from what the container table and the shards know.

use std::path::Path;
use std::sync::Arc;

use super::data::StatsByContainer;
use crate::aggregate::{Accounting, TimerUnit};
use crate::containers::{
    ContainerInfo, Guarded, Listed, Place, State, UnixSocket, environment, unix_environment,
};
use crate::model::{Labels, Timestamp};
use crate::shard::ContainerStats;
use crate::wire::{self, Tally, Word};

/// What reserve calls answer. `presets` are the sets of variables that the container gets.
#[must_use]
pub fn reserved(info: &ContainerInfo, presets: &[String]) -> wire::Reserved {
    wire::Reserved {
        container_id: info.origin.container_id.to_string(),
        task_id: info.origin.task_id.to_string(),
        generation: info.origin.generation.0,
        statsd_host: info.address.map(|address| address.ip().to_string()),
        statsd_port: info.address.map(|address| address.port()),
        state: Word::Borrowed(info.state.as_str()),
        attached: info.attached,
        env: info.address.map(|address| environment(address, presets)).unwrap_or_default(),
        reason: info.reason.clone(),
        warnings: info.warnings.clone(),
        unix_socket: info.unix.as_ref().map(|unix| unix_socket(unix, presets)),
    }
}

fn unix_socket(unix: &UnixSocket, presets: &[String]) -> wire::UnixSocket {
    let text = |path: &Path| path.display().to_string();
    wire::UnixSocket {
        path: text(&unix.path),
        mount: wire::Mount { source: text(&unix.source), destination: text(unix.destination()) },
        env: unix_environment(&unix.path, presets),
    }
}

/// What a reader gets of a container.
#[must_use]
pub fn container(
    info: &ContainerInfo,
    presets: &[String],
    stats: Option<&ContainerStats>,
) -> wire::Container {
    let counts = stats.map(|stats| &stats.accounting);
    let details = info.details.clone();
    wire::Container {
        reserved: reserved(info, presets),
        labels: info.origin.labels.clone(),
        pid: info.pid,
        last_datagram: counts.and_then(|counts| counts.last_datagram),
        received: counts.map_or(0, |counts| counts.received),
        kernel_drops: counts.map_or(0, |counts| counts.kernel_drops),
        dropped: counts.map_or(0, |counts| counts.dropped.total()),
        rejected: counts.map_or(0, |counts| counts.rejected.total()),
        series: stats.map_or(0, |stats| stats.series),
        memory: stats.map_or(0, |stats| stats.memory),
        origin_guard: Word::Borrowed(origin_guard(info)),
        origin_guard_missing: info.guarded.missing().map(str::to_owned),
        gauge_sign: Word::Borrowed(info.gauge_sign.as_str()),
        timer_unit: Word::Borrowed(info.timer_unit.as_str()),
        client: Some(stats.map(|stats| client(info, stats)).unwrap_or_default()),
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

/// What keeps datagrams of other processes out.
fn origin_guard(info: &ContainerInfo) -> &'static str {
    match info.place {
        // The socket accepts datagrams of the container's own processes only.
        _ if info.unix.as_ref().is_some_and(|unix| unix.only && unix.checked) => "unix",
        // Without a socket there is nothing to guard.
        _ if info.address.is_none() => "none",
        Place::Shared if info.guarded == Guarded::On => "cgroup",
        // Every process of the host network reaches a loopback address.
        Place::Shared => "none",
        Place::Own(_) | Place::Unborn => "netns",
    }
}

fn client(info: &ContainerInfo, stats: &ContainerStats) -> wire::Client {
    let habits = stats.habits;
    let mut decremented: Vec<_> = stats.decremented.iter().map(|series| series.name.to_string()).collect();
    decremented.sort_unstable();
    decremented.dedup();
    wire::Client {
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

/// A task in short.
#[must_use]
pub fn task_short(listed: &Listed) -> wire::TaskShort {
    let state = state_of(listed);
    wire::TaskShort {
        task_id: listed.task_id.to_string(),
        state: Word::Borrowed(state.as_str()),
        finished: state.is_finished(),
        generation: generation(listed),
        containers: listed.containers.iter().map(|info| info.origin.container_id.to_string()).collect(),
        labels: common_labels(listed),
    }
}

/// The state of a task: listening if one of its containers is.
pub(super) fn state_of(listed: &Listed) -> State {
    let states: Vec<State> = listed.containers.iter().map(|info| info.state).collect();
    let order = [State::Listening, State::Reserved, State::Lost, State::Mute, State::Draining];
    order.into_iter().find(|state| states.contains(state)).unwrap_or(State::Gone)
}

/// The highest generation of a task's containers.
pub(super) fn generation(listed: &Listed) -> u32 {
    listed.containers.iter().map(|info| info.origin.generation.0).max().unwrap_or(0)
}

/// The labels that all containers of a task have.
fn common_labels(listed: &Listed) -> Labels {
    let mut containers = listed.containers.iter().map(|info| &info.origin.labels);
    let mut common = containers.next().cloned().unwrap_or_default();
    for labels in containers {
        common.retain(|key, value| labels.get(key) == Some(value));
    }
    common
}

/// Counts, with `open` values in open windows.
#[must_use]
pub fn counts(counts: &Accounting, open: u64) -> wire::Counts {
    let dropped = |datagrams: bool| {
        let these = counts.dropped.iter().filter(|(reason, _)| reason.counts_datagrams() == datagrams);
        tally(these.map(|(reason, n)| (reason.reason(), n)))
    };
    wire::Counts {
        datagrams: wire::Datagrams {
            arrived: counts.arrived(),
            received: counts.received,
            bytes: counts.bytes,
            kernel_drops: counts.kernel_drops,
            dropped: dropped(true),
        },
        lines: wire::Lines {
            received: counts.lines,
            accepted: counts.accepted,
            rejected: tally(counts.rejected.iter().map(|(code, n)| (code.code(), n))),
        },
        values: wire::Values {
            accepted: counts.values,
            in_records: counts.in_records,
            open,
            folded: counts.folded,
            dropped: dropped(false),
        },
        events: counts.events,
        over_limit: tally(counts.over_limit.iter().map(|(reason, n)| (reason.reason(), n))),
        evicted_series: counts.evicted,
        invalid_utf8: counts.invalid_utf8,
        renamed_tags: counts.renamed_tags,
        balanced: counts.balanced(open),
    }
}

fn tally(counts: impl Iterator<Item = (&'static str, u64)>) -> Tally {
    counts.map(|(reason, n)| (Word::Borrowed(reason), n)).collect()
}

/// A task in full. `raw` is whether rejected lines are shown as they came.
#[must_use]
pub fn task(
    listed: &Listed,
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
        recent_rejected.extend(stats.rejected.iter().map(|line| wire::RejectedLine {
            at: line.at,
            container_id: info.origin.container_id.to_string(),
            code: Word::Borrowed(line.code.code()),
            advice: Word::Borrowed(line.code.advice()),
            line: raw.then(|| String::from_utf8_lossy(&line.line).into_owned()),
        }));
    }
    recent_rejected.sort_by_key(|line| line.at);
    let containers = listed.containers.iter();
    let containers = containers.map(|info| container(info, presets, of(info).map(Arc::as_ref)));
    let state = state_of(listed);
    wire::Task {
        task_id: listed.task_id.to_string(),
        state: Word::Borrowed(state.as_str()),
        finished: state.is_finished(),
        generation: generation(listed),
        containers: containers.collect(),
        labels: common_labels(listed),
        last_datagram: total.last_datagram,
        series,
        widest_tags: None,
        totals: counts(&total, open),
        recent_rejected,
        last_scrape,
    }
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
        State::ALL.iter().for_each(|state| same(state, state.as_str()));
    }
}
