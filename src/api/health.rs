//! Whether the agent is alive, whether it is ready, and what it runs with.

use std::borrow::Cow;
use std::path::Path;

use super::pages::PageCounts;
use super::{AgentContext, ApiResponse};
use crate::containers::Guarded;
use crate::net::http::{CloseReason, Connections};
use crate::render::prometheus::{Name, NameKind};
use crate::stats::{Damaged, FailureStreak, NriOutcome, NriStats};
use crate::store::{EvictedTotals, Meeting};
use crate::window_log::{LogStatusSnapshot, RecoveryReport};
use crate::wire;

/// `GET /health`
pub(super) fn get_health(agent: &AgentContext) -> ApiResponse {
    let (version, config) = (env!("CARGO_PKG_VERSION"), agent.reading.data.current_config());
    let instance = &config.process.instance;
    ApiResponse::with_json(
        200,
        &wire::HealthDocument {
            status: "alive".into(),
            version: version.into(),
            pid: std::process::id(),
            instance: instance.into(),
        },
    )
}

/// `GET /ready`
pub(super) fn get_readiness(agent: &AgentContext) -> ApiResponse {
    let pending = agent.readiness.pending_conditions();
    let ready = pending.is_empty();
    ApiResponse::with_json(
        if ready { 200 } else { 503 },
        &wire::ReadyDocument {
            ready,
            pending: pending.into_iter().map(Cow::Borrowed).collect(),
            degraded: degraded_parts(agent, DetailLevel::General),
        },
    )
}

/// How much detail is given about degraded parts.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum DetailLevel {
    /// Without the reason, for `/ready`, which needs no token.
    General,
    /// With the reason, which can name paths and pods.
    Reason,
}

/// Parts that do not work as configured.
pub(super) fn degraded_parts(agent: &AgentContext, detail: DetailLevel) -> Vec<wire::DegradedDocument> {
    let nri = &agent.reading.stats.nri;
    let log = agent.window_log.as_ref().and_then(|log| log.snapshot().failing);
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
            agent.containers.journal_health().write_error(),
        ),
        ("window_log", "closed windows cannot be written to disk", log.map(|(_, why)| why)),
    ];
    let found = checks.into_iter().filter_map(|(what, general, reason)| Some((what, general, reason?)));
    found
        .map(|(what, general, reason)| match detail {
            DetailLevel::General => wire::DegradedDocument { what: what.into(), why: general.to_owned() },
            DetailLevel::Reason => {
                wire::DegradedDocument { what: what.into(), why: format!("{general}: {reason}") }
            }
        })
        .collect()
}

/// Maximum number of marked names in the document.
const LISTED: usize = 20;

/// `GET /v1/node`
pub(super) fn get_node(agent: &AgentContext) -> ApiResponse {
    ApiResponse::with_json(200, &node_document(agent))
}

/// The state and settings of the agent.
pub(super) fn node_document(agent: &AgentContext) -> wire::NodeDocument {
    let config = agent.reading.data.current_config();
    let guard = match &agent.guarding {
        Guarded::On => "on",
        Guarded::Off => "off",
        Guarded::Unavailable(_) => "unavailable",
    };
    let live =
        agent.reading.data.directory.all_containers().iter().filter(|info| info.state.is_live()).count();
    let log = agent.window_log.as_ref().map(|status| status.snapshot());
    let EvictedTotals { series_limit, node } = agent.reading.data.store.remembered_totals().1;
    wire::NodeDocument {
        node: config.node.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        started: agent.started,
        epoch: agent.reading.data.store.epoch(),
        cursor: agent.reading.data.store.end_cursor().to_string(),
        ready: agent.readiness.pending_conditions().is_empty(),
        window_seconds: config.aggregation.window.as_secs_f64(),
        windows_kept: config.aggregation.keep,
        shards: agent.reading.data.pool.len(),
        shards_ended: agent.reading.data.pool.ended_shards().len(),
        containers: live,
        memory: agent.reading.data.pool.read_measurements().memory,
        memory_limit: config.node_limits.memory,
        receive_buffer: config.listeners.receive_buffer,
        receive_buffers: agent.reading.data.pool.receive_buffers().used_bytes(),
        receive_buffers_limit: agent.reading.data.pool.receive_buffers().byte_limit(),
        listeners_port: Some(config.listeners.port),
        guard: guard.into(),
        guard_missing: agent.guarding.unavailable_reason().map(str::to_owned),
        journal_trouble: agent.containers.journal_health().write_error(),
        state_damage: state_damage(agent),
        http_listen: agent.http_address.to_string(),
        admin_socket: config.admin.socket.display().to_string(),
        state_dir: config.state_dir.display().to_string(),
        config_file: config.file.as_ref().map(|file| file.display().to_string()),
        last_scrape: agent.reading.stats.last_scrape(),
        certificate_expires: agent.reading.stats.certificate_expires(),
        window_log: log.map(|log| window_log(log, config.window_log.size)),
        nri: Some(plugin(&agent.reading.stats.nri, &config.nri.socket)),
        totals_evicted: wire::TotalsEvicted { series_limit, node },
        names_marked: agent.reading.data.store.marked_names(),
        marked_names: agent.reading.data.store.name_meetings(LISTED).into_iter().map(marked_name).collect(),
        scrape_clashes: agent.reading.stats.clash_count(),
        pages: Some(pages(agent)),
    }
}

fn plugin(stats: &NriStats, socket: &Path) -> wire::PluginDocument {
    let (link, since) = stats.current_link();
    wire::PluginDocument {
        state: link.as_str().into(),
        socket: socket.display().to_string(),
        since,
        why: link.describe_trouble(),
        injected: stats.count_for(NriOutcome::Injected),
        failed: stats.count_for(NriOutcome::Failed),
        failing: stats.failure_streak().map(|FailureStreak { containers, at, why }| wire::FailingDocument {
            containers,
            at,
            why,
        }),
    }
}

fn pages(agent: &AgentContext) -> wire::PagesDocument {
    let PageCounts { held, limit, busy, late, cut, .. } = agent.reading.pages.load_counts();
    let closed = agent.connections.iter().take(1).flat_map(Connections::closed_counts);
    let slow = closed.filter(|(why, _)| *why == CloseReason::Slow).map(|(_, n)| n).sum();
    wire::PagesDocument { bytes: held as u64, limit: limit as u64, busy, late, cut, slow }
}

fn marked_name(meeting: Meeting) -> wire::MarkedNameDocument {
    let kind = |name: &Name| match name.kind {
        NameKind::Metric(metric_type) => metric_type.as_str(),
        NameKind::Label => "tag",
    };
    wire::MarkedNameDocument {
        workload: meeting.workload.as_str().to_owned(),
        kind: kind(&meeting.marked).into(),
        name: meeting.marked.text.to_string(),
        shown: meeting.shown,
        first_kind: meeting.first.as_ref().map(|first| kind(first).into()),
        first_name: meeting.first.map(|first| first.text.to_string()),
    }
}

/// State files that could not be read at startup.
fn state_damage(agent: &AgentContext) -> Vec<wire::StateDamageDocument> {
    let found = agent.reading.stats.damage.damage_by_file().into_iter();
    found
        .map(|(file, Damaged { places, found })| wire::StateDamageDocument {
            file: file.as_str().into(),
            places,
            found,
        })
        .collect()
}

fn window_log(log: LogStatusSnapshot, size_limit: usize) -> wire::WindowLogDocument {
    let RecoveryReport { last, gap, in_order, windows, open, ahead, damage, .. } = log.report;
    let (failing_since, failing) = log.failing.unzip();
    wire::WindowLogDocument {
        last_alive: last,
        gap_seconds: gap.as_secs_f64(),
        ended_in_order: in_order,
        restored_windows: windows,
        restored_open: open,
        restored_ahead: ahead,
        damaged: damage.parts + damage.entries + damage.files,
        damaged_bytes: damage.bytes,
        size: log.size,
        size_limit: size_limit as u64,
        missed: log.missed,
        given_up: log.given_up,
        checkpoint_seconds: log.interval.as_secs_f64(),
        failing_since,
        failing,
        in_memory: log.in_memory,
    }
}
