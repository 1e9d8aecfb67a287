//! The other side of a hand-over: a process that takes everything the agent before has, or has left.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::ahead::{self, Ahead};
use super::fd_store::Inherited;
use super::handover::{self, END, Offer, PATIENCE, TAKE};
use super::listeners::SuccessorListeners;
use super::moving::{FinalState, SHARED};
use super::saved_state::{self, AssembledState, LetGo, SavedStateStore};
use super::windows::AgentWindowLog;
use super::{
    AgentParts, Beginning, BoundAgent, Loader, StartError, bind, create_guard, entrance,
    raise_descriptor_limit,
};
use crate::config::AgentConfig;
use crate::containers::{self, Guarded};
use crate::net::clock;
use crate::net::guard::Guard;
use crate::net::passing::Channel;
use crate::nri::Carried;
use crate::telemetry::LogFilter;

/// Longest that an agent which was asked to end may take: the longest `agent.drain_deadline` that can be set, and some more.
const ENDING: Duration = Duration::from_mins(61);

/// What a process that starts does about an agent that runs with the same state directory.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TakeOver {
    /// It does not start.
    No,
    /// It takes over, or does not start.
    Strict,
    /// It takes over; where it cannot go on with what the other has, it has the other end and starts from what is on disk.
    Replace,
}

/// Starts an agent: with what the one before has left, where somebody keeps that; else, where that is wanted, with what the one
/// has that runs; else with what is on disk.
///
/// # Errors
/// When something is not to be had, or the agent that runs says no. Then that goes on.
pub async fn start(
    config: AgentConfig,
    loader: Loader,
    log: LogFilter,
    inherited: Inherited,
    how: TakeOver,
) -> Result<BoundAgent, StartError> {
    // Everything there is comes with descriptors.
    raise_descriptor_limit();
    if let Some((place, kept)) = saved_state::find(&config, inherited) {
        let prepared = prepare_start(&config)?;
        let settings = Arc::new(config.aggregation.clone());
        return match kept.read(&config, &settings) {
            Ok(ready) => {
                // A mistake in the configuration costs nothing of what is kept: it stays until an agent starts without.
                let listeners =
                    SuccessorListeners::open_changed(&config, &ready.offer).map_err(take_over_error)?;
                let received = ReceivedAgent { ready, listeners };
                resume_agent(received, TakeOverSource::SavedState(place), prepared, config, loader, log).await
            }
            Err(why) => {
                tracing::warn!(%why, from = place.name(), "cannot use what the previous agent left; starting from disk");
                place.let_go(LetGo::Unused).map_err(take_over_error)?;
                bind(config, loader, log).await
            }
        };
    }
    if how == TakeOver::No {
        return bind(config, loader, log).await;
    }
    let channel = match Channel::connect(&handover::socket_path(&config.state_dir)) {
        Ok(channel) => channel,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            tracing::info!("there is no agent to take over from");
            return bind(config, loader, log).await;
        }
        Err(error) => return Err(take_over_error(error)),
    };
    let prepared = prepare_start(&config)?;
    match receive_from_agent(&channel, &config, how).map_err(take_over_error)? {
        Some(received) => {
            resume_agent(received, TakeOverSource::Agent(channel), prepared, config, loader, log).await
        }
        None => {
            wait_for_the_end(&channel).map_err(take_over_error)?;
            bind(config, loader, log).await
        }
    }
}

/// What must be ready before anything is taken from another process: the guard, and the HTTP listener's TLS and tokens.
type Prepared = ((Option<Guard>, Guarded), entrance::Asked);

fn prepare_start(config: &AgentConfig) -> Result<Prepared, StartError> {
    Ok((create_guard(config)?, entrance::read(&config.http)?))
}

/// Where everything comes from.
enum TakeOverSource {
    /// An agent that runs.
    Agent(Channel),
    /// One that has ended.
    SavedState(SavedStateStore),
}

/// Everything an agent had, and the listeners to go on with.
struct ReceivedAgent {
    ready: AssembledState,
    listeners: SuccessorListeners,
}

/// Has everything sent by the agent that runs. Nothing where this process cannot go on with it and has asked that agent to
/// end instead.
fn receive_from_agent(
    channel: &Channel,
    config: &AgentConfig,
    how: TakeOver,
) -> io::Result<Option<ReceivedAgent>> {
    let (offer, _) = channel.receive(PATIENCE)?;
    // What cannot even be read is of a version that is too far away.
    let read = handover::from_bytes::<Offer>(&offer).map_err(|error| error.to_string());
    let usable = read.and_then(|offer| match offer.find_mismatch(&Offer::from_config(config)) {
        Some(why) => Err(why),
        None => Ok(offer),
    });
    let offer = match usable {
        Ok(offer) => offer,
        Err(why) if how == TakeOver::Replace => {
            tracing::warn!(%why, "cannot take over; asking the agent that runs to end, and starting from what is on disk");
            channel.send(END, &[])?;
            return Ok(None);
        }
        Err(why) => return Err(refuse_offer(channel, io::Error::other(why))),
    };
    let listeners =
        SuccessorListeners::open_changed(config, &offer).map_err(|error| refuse_offer(channel, error))?;
    channel.send(TAKE, &[])?;
    let settings = Arc::new(config.aggregation.clone());
    let mut came = Ahead::default();
    let (bytes, descriptors) = loop {
        let (bytes, descriptors) = channel.receive_all(ahead::NEXT)?;
        // What comes with descriptors comes last.
        if !descriptors.is_empty() {
            break (bytes, descriptors);
        }
        came.add(&bytes, &settings)?;
        channel.send(b"have", &[])?;
    };
    AssembledState::from_messages(offer, came, (&bytes, descriptors), &settings)
        .map(|ready| Some(ReceivedAgent { ready, listeners }))
}

/// Tells the agent that runs why it goes on.
fn refuse_offer(channel: &Channel, why: io::Error) -> io::Error {
    // It goes on whether or not it hears the reason.
    let _either_way = channel.send(format!("the other process refuses: {why}").as_bytes(), &[]);
    why
}

/// Waits until the agent that was asked to end has let go of everything.
fn wait_for_the_end(channel: &Channel) -> io::Result<()> {
    match channel.receive(ENDING) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Puts an agent together from what is there, and begins to receive.
async fn resume_agent(
    ReceivedAgent { ready, listeners }: ReceivedAgent,
    from: TakeOverSource,
    (guarded, asked): Prepared,
    config: AgentConfig,
    loader: Loader,
    log: LogFilter,
) -> Result<BoundAgent, StartError> {
    let AssembledState { came, received, arriving, not_before, shared, guard, nri, offer } = ready;
    let store = received.into_store(config.aggregation.keep);
    let store = Arc::new(store.ok_or_else(|| take_over_error(io::ErrorKind::InvalidData.into()))?);
    let state_dir = config.state_dir.clone();
    let address = address_of(&shared).map_err(take_over_error)?;
    let (not_before, http_address) = (Some(not_before), address);
    let mut parts = AgentParts::new(Beginning { config, guarded, store, not_before, http_address, asked })?;
    let health = parts.running.containers.journal_health().clone();
    parts.table = parts.table.recorded_in(containers::Journal::new(&state_dir, health));
    match &from {
        TakeOverSource::Agent(channel) => {
            channel.send(b"ready", &[]).map_err(take_over_error)?;
            handover::expect_word(channel, "go", PATIENCE).map_err(take_over_error)?;
        }
        // Datagrams read from now on exist only in this process, so the kept copies must be gone first.
        TakeOverSource::SavedState(place) => place.let_go(LetGo::Used).map_err(take_over_error)?,
    }
    let margin = Margin {
        stopped: arriving.stopped_at(),
        came,
        ready: clock::since_boot(),
        fullest: arriving.max_socket_fill(),
    };
    let receiving = parts
        .table
        .take_over_containers(arriving)
        .await
        .map_err(|error| take_over_error(io::Error::other(error)))?;
    if let TakeOverSource::Agent(channel) = &from {
        channel.send(b"serving", &[]).map_err(take_over_error)?;
        handover::expect_word(channel, "bye", PATIENCE).map_err(take_over_error)?;
    }
    // Only now: giving names and locks back by failing would take them from the other process.
    let held = listeners
        .into_resources(&parts.running.current_config(), &offer, shared)
        .await
        .map_err(take_over_error)?;
    parts.routes.agent.http_address = held.http_address;
    drop(guard);
    let (name, before) = match from {
        TakeOverSource::Agent(channel) => ("agent", Some(channel)),
        TakeOverSource::SavedState(place) => (place.name(), None),
    };
    margin.log_timing(receiving, name, &parts);
    parts.window_log = AgentWindowLog::start_after(before, &parts.running);
    parts.routes.agent.window_log = parts.window_log.as_ref().map(|log| Arc::clone(&log.status));
    Ok(BoundAgent { parts, held, loader, log, nri })
}

/// How long receiving was paused, how long each step took, and how full the receive buffers became.
struct Margin {
    /// When receiving stopped, since the machine was booted.
    stopped: Duration,
    /// When everything had come, and when it was put together.
    came: Duration,
    ready: Duration,
    fullest: f64,
}

impl Margin {
    fn log_timing(&self, receiving: Duration, from: &str, parts: &AgentParts) {
        let until = |moment: Duration| (moment.saturating_sub(self.stopped).as_micros() as f64) / 1e3;
        let (pause_ms, whole_ms) = (until(receiving), until(clock::since_boot()));
        let (came_ms, ready_ms) = (until(self.came), until(self.ready));
        let fullest_percent = (self.fullest * 100.0).round();
        let containers = parts.running.containers.directory().all_containers().len();
        tracing::info!(pause_ms, came_ms, ready_ms, whole_ms, fullest_percent, containers, from, "took over");
    }
}

fn take_over_error(source: io::Error) -> StartError {
    StartError::TakeOver { source }
}

impl AssembledState {
    /// Puts together what came at last with what came before.
    ///
    /// # Errors
    /// When it does not fit.
    pub(super) fn from_messages(
        offer: Offer,
        ahead: Ahead,
        (state, mut descriptors): (&[u8], Vec<OwnedFd>),
        settings: &Arc<crate::aggregate::AggregatorSettings>,
    ) -> io::Result<Self> {
        let came = clock::since_boot();
        let state: FinalState = handover::from_bytes(state)?;
        let mut received = ahead.windows;
        received.add(&state.part).map_err(io::Error::other)?;
        let has_connection = state.nri.as_ref().is_some_and(|(_, connected)| *connected);
        let own = SHARED + usize::from(has_connection);
        if descriptors.len() < own {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let of_containers = descriptors.split_off(own);
        let connection = descriptors.split_off(SHARED).pop();
        let nri = state.nri.map(|(state, _)| Carried { state, socket: connection });
        let not_before = state.manifest.not_before;
        let arriving =
            state.manifest.into_arriving(ahead.open, of_containers, settings).map_err(io::Error::other)?;
        let shared = descriptors.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { came, received, arriving, not_before, shared, guard: Vec::new(), nri, offer })
    }
}

/// Where the HTTP listener is.
fn address_of([http, ..]: &[OwnedFd; SHARED]) -> io::Result<SocketAddr> {
    std::net::TcpListener::from(http.try_clone()?).local_addr()
}
