//! Whether the agent is alive, whether it is ready, and what it runs with.

use std::path::Path;

use serde::Serialize;

use super::pages::PageCounts;
use super::{Api, ApiResponse};
use crate::containers::Guarded;
use crate::model::Timestamp;
use crate::net::http::{CloseReason, Connections};
use crate::render::prometheus::{Name, NameKind};
use crate::stats::{Damaged, FailureStreak, NriOutcome, NriStats};
use crate::store::{EvictedTotals, Meeting};
use crate::window_log::{LogStatusSnapshot, RecoveryReport};

#[derive(Serialize)]
struct HealthDocument<'c> {
    status: &'static str,
    version: &'static str,
    pid: u32,
    instance: &'c str,
}

/// `GET /health`
pub(super) fn get_health(api: &Api) -> ApiResponse {
    let (version, config) = (env!("CARGO_PKG_VERSION"), api.current_config());
    let instance = &config.process.instance;
    ApiResponse::with_json(
        200,
        &HealthDocument { status: "alive", version, pid: std::process::id(), instance },
    )
}

/// Totals of series that are gone which were forgotten early, by reason.
#[derive(Debug, Serialize)]
struct TotalsEvicted {
    series_limit: u64,
    node: u64,
}

impl TotalsEvicted {
    fn new(EvictedTotals { series_limit, node }: EvictedTotals) -> Self {
        Self { series_limit, node }
    }
}

#[derive(Serialize)]
struct ReadinessDocument {
    ready: bool,
    pending: Vec<&'static str>,
    degraded: Vec<DegradedPart>,
}

/// A part that does not work as it is set to. It does not hold up readiness: the rest of the agent serves.
#[derive(Debug, Serialize)]
pub(super) struct DegradedPart {
    what: &'static str,
    why: String,
}

/// `GET /ready`
pub(super) fn get_readiness(api: &Api) -> ApiResponse {
    let pending = api.readiness.pending_conditions();
    let ready = pending.is_empty();
    ApiResponse::with_json(
        if ready { 200 } else { 503 },
        &ReadinessDocument { ready, pending, degraded: degraded_parts(api, DetailLevel::General) },
    )
}

/// How much is said of what is degraded.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum DetailLevel {
    /// What anyone may know: `/ready` asks for no token.
    General,
    /// The reason, which can name paths and pods.
    Reason,
}

/// What does not work as it is set to.
pub(super) fn degraded_parts(api: &Api, detail: DetailLevel) -> Vec<DegradedPart> {
    let nri = &api.stats.nri;
    let log = api.window_log.as_ref().and_then(|log| log.snapshot().failing);
    let failing = nri.failure_streak().map(|failing| {
        let (n, why) = (failing.containers, failing.why);
        format!("{n} in a row: {why}")
    });
    let checks = [
        (
            "nri",
            "the container runtime is not connected; pods start without a socket",
            nri.current_link().0.describe_trouble(),
        ),
        ("pods", "the containers created last got no socket", failing),
        (
            "journal",
            "the journal of containers cannot be written",
            api.containers.journal_health().write_error(),
        ),
        ("window_log", "closed windows cannot be written to disk", log.map(|(_, why)| why)),
    ];
    let found = checks.into_iter().filter_map(|(what, general, reason)| Some((what, general, reason?)));
    found
        .map(|(what, general, reason)| match detail {
            DetailLevel::General => DegradedPart { what, why: general.to_owned() },
            DetailLevel::Reason => DegradedPart { what, why: format!("{general}: {reason}") },
        })
        .collect()
}

/// The state of the NRI plugin's connection to the container runtime.
#[derive(Debug, Serialize)]
struct PluginDocument {
    state: &'static str,
    socket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    injected: u64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failing: Option<FailingDocument>,
}

/// Containers in a row that got no socket.
#[derive(Debug, Serialize)]
struct FailingDocument {
    containers: u64,
    at: Timestamp,
    why: String,
}

impl PluginDocument {
    fn from_stats(stats: &NriStats, socket: &Path) -> Self {
        let (link, since) = stats.current_link();
        Self {
            state: link.as_str(),
            socket: socket.display().to_string(),
            since,
            why: link.describe_trouble(),
            injected: stats.count_for(NriOutcome::Injected),
            failed: stats.count_for(NriOutcome::Failed),
            failing: stats.failure_streak().map(|FailureStreak { containers, at, why }| FailingDocument {
                containers,
                at,
                why,
            }),
        }
    }
}

/// What the agent runs with.
#[derive(Debug, Serialize)]
pub(super) struct NodeDocument {
    node: String,
    version: &'static str,
    pid: u32,
    started: Timestamp,
    epoch: u64,
    cursor: String,
    ready: bool,
    window_seconds: f64,
    windows_kept: usize,
    shards: usize,
    shards_ended: usize,
    containers: usize,
    memory: usize,
    memory_limit: usize,
    receive_buffer: usize,
    receive_buffers: usize,
    receive_buffers_limit: usize,
    listeners_port: u16,
    guard: &'static str,
    guard_missing: Option<String>,
    journal_trouble: Option<String>,
    state_damage: Vec<StateDamageDocument>,
    http_listen: String,
    admin_socket: String,
    state_dir: String,
    last_scrape: Option<Timestamp>,
    certificate_expires: Option<Timestamp>,
    window_log: Option<WindowLogDocument>,
    nri: PluginDocument,
    totals_evicted: TotalsEvicted,
    names_marked: usize,
    marked_names: Vec<MarkedName>,
    pages: PagesDocument,
}

/// Answers that are being built or sent, and those that were not given since the agent started.
#[derive(Debug, Serialize)]
struct PagesDocument {
    bytes: usize,
    limit: usize,
    busy: u64,
    late: u64,
    cut: u64,
    slow: u64,
}

impl PagesDocument {
    fn from_api(api: &Api) -> Self {
        let PageCounts { held, limit, busy, late, cut, .. } = api.pages.load_counts();
        let closed = api.connections.iter().take(1).flat_map(Connections::closed_counts);
        let slow = closed.filter(|(why, _)| *why == CloseReason::Slow).map(|(_, n)| n).sum();
        Self { bytes: held, limit, busy, late, cut, slow }
    }
}

/// Marked names that are listed, at most.
const LISTED: usize = 20;

/// A name that carries a mark, and the one that had the plain name first.
#[derive(Debug, Serialize)]
struct MarkedName {
    workload: String,
    kind: &'static str,
    name: String,
    shown: String,
    first_kind: Option<&'static str>,
    first_name: Option<String>,
}

impl MarkedName {
    fn new(meeting: Meeting) -> Self {
        let kind = |name: &Name| match name.kind {
            NameKind::Metric(metric_type) => metric_type.as_str(),
            NameKind::Label => "tag",
        };
        Self {
            workload: meeting.workload.as_str().to_owned(),
            kind: kind(&meeting.marked),
            name: meeting.marked.text.to_string(),
            shown: meeting.shown,
            first_kind: meeting.first.as_ref().map(kind),
            first_name: meeting.first.map(|first| first.text.to_string()),
        }
    }
}

/// A file that could not be read at the start.
#[derive(Debug, Serialize)]
struct StateDamageDocument {
    file: &'static str,
    places: usize,
    found: String,
}

impl StateDamageDocument {
    fn list_damaged_files(api: &Api) -> Vec<Self> {
        let found = api.stats.damage.damage_by_file().into_iter();
        found.map(|(file, Damaged { places, found })| Self { file: file.as_str(), places, found }).collect()
    }
}

#[derive(Debug, Serialize)]
struct WindowLogDocument {
    last_alive: Option<Timestamp>,
    gap_seconds: f64,
    ended_in_order: bool,
    restored_windows: usize,
    restored_open: usize,
    restored_ahead: usize,
    damaged: u64,
    damaged_bytes: u64,
    size: u64,
    size_limit: usize,
    missed: u64,
    given_up: u64,
    checkpoint_seconds: f64,
    failing_since: Option<Timestamp>,
    failing: Option<String>,
}

impl WindowLogDocument {
    fn new(log: LogStatusSnapshot, size_limit: usize) -> Self {
        let RecoveryReport { last, gap, in_order, windows, open, ahead, damage, .. } = log.report;
        let (failing_since, failing) = log.failing.unzip();
        Self {
            last_alive: last,
            gap_seconds: gap.as_secs_f64(),
            ended_in_order: in_order,
            restored_windows: windows,
            restored_open: open,
            restored_ahead: ahead,
            damaged: damage.parts + damage.entries + damage.files,
            damaged_bytes: damage.bytes,
            size: log.size,
            size_limit,
            missed: log.missed,
            given_up: log.given_up,
            checkpoint_seconds: log.interval.as_secs_f64(),
            failing_since,
            failing,
        }
    }
}

/// `GET /v1/node`
pub(super) fn get_node(api: &Api) -> ApiResponse {
    ApiResponse::with_json(200, &NodeDocument::from_api(api))
}

impl NodeDocument {
    pub(super) fn from_api(api: &Api) -> Self {
        let config = api.current_config();
        let guard = match &api.guarding {
            Guarded::On => "on",
            Guarded::Off => "off",
            Guarded::Unavailable(_) => "unavailable",
        };
        let live =
            api.containers.directory().all_containers().iter().filter(|info| info.state.is_live()).count();
        Self {
            node: config.node.clone(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: api.started,
            epoch: api.store.epoch(),
            cursor: api.store.end_cursor().to_string(),
            ready: api.readiness.pending_conditions().is_empty(),
            window_seconds: config.aggregation.window.as_secs_f64(),
            windows_kept: config.aggregation.keep,
            shards: api.pool.len(),
            shards_ended: api.pool.ended_shards().len(),
            containers: live,
            memory: api.pool.read_gauges().memory,
            memory_limit: config.node_limits.memory,
            receive_buffer: config.listeners.receive_buffer,
            receive_buffers: api.pool.receive_buffers().used_bytes(),
            guard,
            journal_trouble: api.containers.journal_health().write_error(),
            state_damage: StateDamageDocument::list_damaged_files(api),
            guard_missing: api.guarding.unavailable_reason().map(str::to_owned),
            receive_buffers_limit: api.pool.receive_buffers().byte_limit(),
            listeners_port: config.listeners.port,
            http_listen: api.http_address.to_string(),
            admin_socket: config.admin.socket.display().to_string(),
            state_dir: config.state_dir.display().to_string(),
            last_scrape: api.stats.last_scrape(),
            certificate_expires: api.stats.certificate_expires(),
            nri: PluginDocument::from_stats(&api.stats.nri, &config.nri.socket),
            window_log: api
                .window_log
                .as_ref()
                .map(|status| WindowLogDocument::new(status.snapshot(), config.window_log.size)),
            totals_evicted: TotalsEvicted::new(api.store.remembered_totals().1),
            names_marked: api.store.marked_names(),
            marked_names: api.store.name_meetings(LISTED).into_iter().map(MarkedName::new).collect(),
            pages: PagesDocument::from_api(api),
        }
    }
}
