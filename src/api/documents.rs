//! The documents that several routes share: containers, tasks, counts.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::aggregate::{Accounting, GaugeSign, TimerUnit, WideTag};
use crate::containers::{
    ContainerInfo, ContainerUnixSocket, Details, Guarded, LifecycleState, SocketNamespace, TaskContainers,
    udp_environment, unix_environment,
};
use crate::model::{Allocation, Labels, Timestamp};
use crate::shard::ContainerStats;

/// A container, as the lifecycle API shows it.
#[derive(Debug, Serialize)]
pub(super) struct ContainerDocument {
    container_id: String,
    task_id: String,
    generation: u32,
    statsd_host: Option<String>,
    statsd_port: Option<u16>,
    state: LifecycleState,
    attached: bool,
    env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix_socket: Option<UnixDocument>,
    #[serde(flatten)]
    more: Option<ContainerMore>,
}

/// A container's Unix socket, and how it gets there.
#[derive(Debug, Serialize)]
struct UnixDocument {
    path: String,
    mount: MountDocument,
    env: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct MountDocument {
    source: String,
    destination: String,
}

impl UnixDocument {
    fn new(unix: &ContainerUnixSocket, presets: &[String]) -> Self {
        let text = |path: &Path| path.display().to_string();
        Self {
            path: text(&unix.path),
            mount: MountDocument { source: text(&unix.source), destination: text(unix.mount_destination()) },
            env: unix_environment(&unix.path, presets),
        }
    }
}

/// What only reading shows.
#[derive(Debug, Serialize)]
struct ContainerMore {
    labels: Labels,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    last_datagram: Option<Timestamp>,
    received: u64,
    kernel_drops: u64,
    dropped: u64,
    rejected: u64,
    series: usize,
    memory: usize,
    origin_guard: &'static str,
    origin_guard_missing: Option<String>,
    gauge_sign: GaugeSign,
    timer_unit: TimerUnit,
    client: ClientDocument,
    receive_buffer: usize,
    reserved_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
    #[serde(flatten)]
    details: Details,
}

/// What a container's lines tell of the client that writes them.
#[derive(Debug, Default, Serialize)]
struct ClientDocument {
    /// Whether its metrics have anything that only DogStatsD has.
    dogstatsd: bool,
    /// Signed gauge values that were read as changes.
    gauge_changes: u64,
    /// Whether all timers are below 1 and not all of them 0, as those of a client are that sends seconds.
    timers_look_like_seconds: bool,
    /// Names of some of the series whose totals were counted down.
    decremented: Vec<String>,
}

impl ClientDocument {
    fn new(info: &ContainerInfo, stats: &ContainerStats) -> Self {
        let habits = stats.habits;
        let mut decremented: Vec<_> =
            stats.decremented.iter().map(|series| series.name.to_string()).collect();
        decremented.sort_unstable();
        decremented.dedup();
        Self {
            dogstatsd: habits.dogstatsd,
            gauge_changes: habits.gauge_changes,
            timers_look_like_seconds: info.timer_unit == TimerUnit::Milliseconds
                && habits.timers_look_like_seconds(),
            decremented,
        }
    }
}

impl ContainerDocument {
    /// What a reserve call answers.
    pub(super) fn from_info(info: &ContainerInfo, presets: &[String]) -> Self {
        Self {
            container_id: info.origin.container_id.to_string(),
            task_id: info.origin.task_id.to_string(),
            generation: info.origin.generation.0,
            statsd_host: info.address.map(|address| address.ip().to_string()),
            statsd_port: info.address.map(|address| address.port()),
            state: info.state,
            attached: info.attached,
            env: info.address.map(|address| udp_environment(address, presets)).unwrap_or_default(),
            reason: info.reason.clone(),
            warnings: info.warnings.clone(),
            unix_socket: info.unix.as_ref().map(|unix| UnixDocument::new(unix, presets)),
            more: None,
        }
    }

    /// What a reader gets.
    pub(super) fn with_stats(
        info: &ContainerInfo,
        presets: &[String],
        stats: Option<&ContainerStats>,
    ) -> Self {
        let counts = stats.map(|stats| &stats.accounting);
        let more = ContainerMore {
            labels: info.origin.labels.clone(),
            pid: info.pid,
            last_datagram: counts.and_then(|counts| counts.last_datagram),
            received: counts.map_or(0, |counts| counts.received),
            kernel_drops: counts.map_or(0, |counts| counts.kernel_drops),
            dropped: counts.map_or(0, |counts| counts.dropped.total_count()),
            rejected: counts.map_or(0, |counts| counts.rejected.total_count()),
            series: stats.map_or(0, |stats| stats.series),
            memory: stats.map_or(0, |stats| stats.memory),
            origin_guard: match info.place {
                // A process that is no container's is heard by nobody there.
                _ if info.unix.as_ref().is_some_and(|unix| unix.only && unix.checked) => "unix",
                // Nothing is kept from a socket that is not there.
                _ if info.address.is_none() => "none",
                SocketNamespace::Shared if info.guarded == Guarded::On => "cgroup",
                // Every process of the host network reaches a loopback address.
                SocketNamespace::Shared => "none",
                SocketNamespace::Own(_) | SocketNamespace::Unborn => "netns",
            },
            origin_guard_missing: info.guarded.unavailable_reason().map(str::to_owned),
            gauge_sign: info.gauge_sign,
            timer_unit: info.timer_unit,
            client: stats.map(|stats| ClientDocument::new(info, stats)).unwrap_or_default(),
            receive_buffer: stats.map_or(info.receive_buffer, |stats| stats.receive_buffer),
            reserved_at: info.reserved_at,
            finished_at: info.finished_at,
            details: info.details.clone(),
        };
        Self { more: Some(more), ..Self::from_info(info, presets) }
    }
}

/// What the DC/OS dialect knows of a container.
#[derive(Debug, Serialize)]
pub(super) struct DcosContainer {
    container_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    statsd_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statsd_port: Option<u16>,
}

impl From<&ContainerInfo> for DcosContainer {
    fn from(info: &ContainerInfo) -> Self {
        let address: Option<SocketAddr> = info.address;
        Self {
            container_id: info.origin.container_id.to_string(),
            statsd_host: address.map(|address| address.ip().to_string()),
            statsd_port: address.map(|address| address.port()),
        }
    }
}

/// A task in short, beside its metrics, events or checks.
#[derive(Debug, Serialize)]
pub(super) struct TaskShort {
    task_id: String,
    state: LifecycleState,
    finished: bool,
    generation: u32,
    containers: Vec<String>,
    labels: Labels,
}

impl From<&TaskContainers> for TaskShort {
    fn from(listed: &TaskContainers) -> Self {
        let state = state_of(listed);
        Self {
            task_id: listed.task_id.to_string(),
            state,
            finished: state.is_finished(),
            generation: listed.containers.iter().map(|info| info.origin.generation.0).max().unwrap_or(0),
            containers: listed.containers.iter().map(|info| info.origin.container_id.to_string()).collect(),
            labels: common_labels(listed),
        }
    }
}

/// A task is where its containers are: listening if one of them is.
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

/// The labels on which all containers of a task agree.
fn common_labels(listed: &TaskContainers) -> Labels {
    let mut containers = listed.containers.iter().map(|info| &info.origin.labels);
    let mut common = containers.next().cloned().unwrap_or_default();
    for labels in containers {
        common.retain(|key, value| labels.get(key) == Some(value));
    }
    common
}

/// Counts as they are shown, with the sums that have to agree side by side.
#[derive(Debug, Serialize)]
pub(super) struct CountsDocument {
    datagrams: DatagramsDocument,
    lines: LinesDocument,
    values: ValuesDocument,
    events: u64,
    over_limit: BTreeMap<&'static str, u64>,
    evicted_series: u64,
    invalid_utf8: u64,
    renamed_tags: u64,
    balanced: bool,
}

#[derive(Debug, Serialize)]
struct DatagramsDocument {
    arrived: u64,
    received: u64,
    bytes: u64,
    kernel_drops: u64,
    dropped: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct LinesDocument {
    received: u64,
    accepted: u64,
    rejected: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct ValuesDocument {
    accepted: u64,
    in_records: u64,
    open: u64,
    folded: u64,
    dropped: BTreeMap<&'static str, u64>,
}

impl CountsDocument {
    pub(super) fn new(counts: &Accounting, open: u64) -> Self {
        let dropped = |datagrams: bool| {
            let these = counts.dropped.iter().filter(|(reason, _)| reason.counts_datagrams() == datagrams);
            these.map(|(reason, n)| (reason.as_str(), n)).collect()
        };
        Self {
            datagrams: DatagramsDocument {
                arrived: counts.arrived_datagrams(),
                received: counts.received,
                bytes: counts.bytes,
                kernel_drops: counts.kernel_drops,
                dropped: dropped(true),
            },
            lines: LinesDocument {
                received: counts.lines,
                accepted: counts.accepted,
                rejected: counts.rejected.iter().map(|(code, n)| (code.as_str(), n)).collect(),
            },
            values: ValuesDocument {
                accepted: counts.values,
                in_records: counts.in_records,
                open,
                folded: counts.folded,
                dropped: dropped(false),
            },
            events: counts.events,
            over_limit: counts.over_limit.iter().map(|(reason, n)| (reason.as_str(), n)).collect(),
            evicted_series: counts.evicted,
            invalid_utf8: counts.invalid_utf8,
            renamed_tags: counts.renamed_tags,
            balanced: counts.is_balanced(open),
        }
    }
}

/// A task in full.
#[derive(Debug, Serialize)]
pub(super) struct TaskDocument {
    #[serde(flatten)]
    short: TaskInFull,
    last_datagram: Option<Timestamp>,
    series: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    widest_tags: Option<Vec<WideTag>>,
    totals: CountsDocument,
    recent_rejected: Vec<RejectedDocument>,
    last_scrape: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct TaskInFull {
    task_id: String,
    state: LifecycleState,
    finished: bool,
    generation: u32,
    containers: Vec<ContainerDocument>,
    labels: Labels,
}

impl TaskDocument {
    /// With the tags that make most of its series.
    pub(super) fn with_widest_tags(self, widest: Vec<WideTag>) -> Self {
        Self { widest_tags: Some(widest), ..self }
    }
}

/// A line that could not be read.
#[derive(Debug, Serialize)]
struct RejectedDocument {
    at: Timestamp,
    container_id: String,
    code: &'static str,
    advice: &'static str,
    /// Only on the admin socket: a line can hold anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<String>,
}

impl TaskDocument {
    pub(super) fn new(
        listed: &TaskContainers,
        presets: &[String],
        stats_by_container: &HashMap<Allocation, Arc<ContainerStats>>,
        last_scrape: Option<Timestamp>,
        raw: bool,
    ) -> Self {
        let of = |info: &ContainerInfo| stats_by_container.get(&info.allocation);
        let mut counts = Accounting::default();
        let (mut open, mut series) = (0, 0);
        let mut recent_rejected = Vec::new();
        for info in &listed.containers {
            let Some(stats) = of(info) else { continue };
            counts.merge(&stats.accounting);
            open += stats.open_values;
            series += stats.series;
            recent_rejected.extend(stats.rejected.iter().map(|line| RejectedDocument {
                at: line.at,
                container_id: info.origin.container_id.to_string(),
                code: line.code.as_str(),
                advice: line.code.suggested_fix(),
                line: raw.then(|| String::from_utf8_lossy(&line.line).into_owned()),
            }));
        }
        recent_rejected.sort_by_key(|line| line.at);
        let TaskShort { task_id, state, finished, generation, labels, .. } = listed.into();
        let containers = listed.containers.iter();
        let containers =
            containers.map(|info| ContainerDocument::with_stats(info, presets, of(info).map(Arc::as_ref)));
        Self {
            short: TaskInFull {
                task_id,
                state,
                finished,
                generation,
                containers: containers.collect(),
                labels,
            },
            last_datagram: counts.last_datagram,
            series,
            widest_tags: None,
            totals: CountsDocument::new(&counts, open),
            recent_rejected,
            last_scrape,
        }
    }
}
