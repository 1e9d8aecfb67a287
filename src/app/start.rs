//! Starting an agent: with what the one before has or has left, or with what is on disk. Everything is bound before anything
//! runs.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::disk::{self, AgentWindowLog};
use super::entrance;
use super::error::StartError;
use super::parts::{AgentParts, Beginning};
use super::reload::ConfigSources;
use super::run::BoundAgent;
use crate::config::{AgentConfig, Guarding};
use crate::containers::{self, Guarded, JOURNAL};
use crate::net::clock;
use crate::net::guard::{Guard, GuardError};
use crate::restart::{
    AgentResources, AssembledState, Inherited, PauseTiming, Predecessor, ReceivedAgent, TakeOver,
    raise_descriptor_limit,
};
use crate::store::{EPOCH, Store, next_epoch};
use crate::telemetry::LogFilter;

/// Starts an agent: with what the one before has left in a store; else, where that is wanted, with what the agent has that runs;
/// else with what is on disk.
///
/// # Errors
/// When a resource is unavailable, or the agent that runs does not hand over. Then that agent goes on.
pub async fn start(
    config: AgentConfig,
    sources: ConfigSources,
    log: LogFilter,
    inherited: Inherited,
    how: TakeOver,
) -> Result<BoundAgent, StartError> {
    // Everything that is taken over comes with descriptors.
    raise_descriptor_limit();
    let Some(predecessor) = Predecessor::find(&config, inherited, how).map_err(take_over_error)? else {
        return bind(config, sources, log).await;
    };
    let prepared = prepare_start(&config)?;
    match predecessor.receive_state(&config, how).map_err(take_over_error)? {
        Some(received) => resume_agent(received, prepared, config, sources, log).await,
        None => bind(config, sources, log).await,
    }
}

/// What must be ready before anything is taken over from another process: the guard, and the HTTP listener's TLS and
/// tokens.
type Prepared = ((Option<Guard>, Guarded), entrance::EntranceSettings);

fn prepare_start(config: &AgentConfig) -> Result<Prepared, StartError> {
    Ok((create_guard(config)?, entrance::read(&config.http)?))
}

/// Takes everything the agent needs: its directories, its addresses, its threads.
///
/// # Errors
/// When a resource is unavailable. What was taken is given back.
pub async fn bind(
    config: AgentConfig,
    sources: ConfigSources,
    log: LogFilter,
) -> Result<BoundAgent, StartError> {
    raise_descriptor_limit();
    let guarded = create_guard(&config)?;
    let asked = entrance::read(&config.http)?;
    let held = AgentResources::acquire_all(&config).await?;
    let left = disk::read_windows(&config)?;
    let state_dir = config.state_dir.clone();
    let known = left.as_ref().map_or(0, |(_, recovered)| recovered.epoch);
    let epoch = next_epoch(&state_dir, known, clock::wall_time())
        .map_err(|source| StartError::StateFile { path: state_dir.join(EPOCH), source })?;
    let store = Arc::new(Store::new(epoch.number, config.aggregation.keep));
    let http_address = held.http_address;
    let mut parts =
        AgentParts::new(Beginning { config, guarded, store, not_before: None, http_address, asked })?;
    let health = parts.running.containers.journal_health().clone();
    let (journal, replayed) = containers::Journal::open(&state_dir, health)
        .map_err(|source| StartError::StateFile { path: state_dir.join(JOURNAL), source })?;
    disk::report_epoch(&epoch, &state_dir, &parts.running.stats.damage);
    let recovered = left.as_ref().map(|(_, recovered)| recovered);
    disk::report_journal(&replayed, recovered, &state_dir, &parts.running.stats.damage);
    parts.table = parts.table.recorded_in(journal);
    if let Some(left) = left {
        parts.keep_windows(left, &replayed.images)?;
    }
    let found = replayed.images.len();
    let containers::RestoredCounts { kept, lost, gone } =
        parts.table.restore_containers(replayed.images).await;
    if let Some(log) = &parts.window_log {
        log.heard_again(clock::wall_time());
    }
    if found > 0 {
        tracing::info!(kept, lost, gone, "read the journal of the last agent");
    }
    Ok(BoundAgent { parts, held, sources, log, nri: None })
}

/// Assembles an agent from what has come, and begins to receive.
async fn resume_agent(
    received: ReceivedAgent,
    (guarded, asked): Prepared,
    config: AgentConfig,
    sources: ConfigSources,
    log: LogFilter,
) -> Result<BoundAgent, StartError> {
    let http_address = received.http_address().map_err(take_over_error)?;
    let ReceivedAgent { state, listeners, source } = received;
    let AssembledState { came, received, arriving, not_before, shared, guard, nri, offer } = state;
    let store = received.into_store(config.aggregation.keep);
    let store = Arc::new(store.ok_or_else(|| take_over_error(io::ErrorKind::InvalidData.into()))?);
    let state_dir = config.state_dir.clone();
    let not_before = Some(not_before);
    let mut parts = AgentParts::new(Beginning { config, guarded, store, not_before, http_address, asked })?;
    let health = parts.running.containers.journal_health().clone();
    parts.table = parts.table.recorded_in(containers::Journal::new(&state_dir, health));
    source.wait_for_release().map_err(take_over_error)?;
    let timing = PauseTiming::of_assembled(came, &arriving);
    let receiving = parts
        .table
        .take_over_containers(arriving)
        .await
        .map_err(|error| take_over_error(io::Error::other(error)))?;
    source.confirm_serving().map_err(take_over_error)?;
    // Only now: after an earlier failure, dropping names and locks would take them from the other process.
    let config = parts.running.current_config();
    let held = listeners.into_resources(&config, &offer, shared).await.map_err(take_over_error)?;
    parts.routes.agent.http_address = held.http_address;
    drop(guard);
    let containers = parts.running.containers.directory().all_containers().len();
    timing.log_pause(receiving, source.name(), containers);
    let window_sources = parts.running.window_sources();
    let (ended, predecessor_ended) = oneshot::channel();
    let followers = (parts.running.publishers.clone(), parts.running.archive.clone());
    parts.window_log =
        AgentWindowLog::start_after(source.into_connection(), window_sources, followers, config, ended);
    parts.predecessor_ended = Some(predecessor_ended);
    parts.routes.agent.window_log = parts.window_log.as_ref().map(|log| Arc::clone(&log.status));
    Ok(BoundAgent { parts, held, sources, log, nri })
}

fn take_over_error(source: io::Error) -> StartError {
    StartError::TakeOver { source }
}

/// Creates the guard, if it is enabled, and returns the outcome.
fn create_guard(config: &AgentConfig) -> Result<(Option<Guard>, Guarded), GuardError> {
    if config.listeners.guard == Guarding::Off {
        return Ok((None, Guarded::Off));
    }
    match Guard::new(config.node_limits.containers) {
        Ok(guard) => Ok((Some(guard), Guarded::On)),
        Err(error) if config.listeners.guard == Guarding::Required => Err(error),
        Err(error) => {
            tracing::info!(%error, "containers on the host's network are not guarded");
            Ok((None, Guarded::Unavailable(error.to_string().into())))
        }
    }
}
