//! The other side of a hand-over: a process that takes everything the agent before has, or has left.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::fd_store::Inherited;
use super::handover::{self, Offer, PATIENCE, SHARED, State};
use super::held::Held;
use super::kept::{self, Place, Ready};
use super::windows::WindowLog;
use super::{Bound, Loader, Parts, StartError, bind, entrance, guard, raise_descriptor_limit};
use crate::config::Config;
use crate::containers::{self, Guarded};
use crate::net::clock;
use crate::net::guard::Guard;
use crate::net::passing::Channel;
use crate::net::unix::{BoundSocket, HeldDirectory};
use crate::store::Received;
use crate::telemetry::LogFilter;

/// Starts an agent: with what the one before has left, where somebody keeps that; else, where that is wanted, with what the one
/// has that runs; else with what is on disk.
///
/// # Errors
/// When something is not to be had, or the agent that runs says no. Then that goes on.
pub async fn start(
    config: Config,
    loader: Loader,
    log: LogFilter,
    inherited: Inherited,
    take_over: bool,
) -> Result<Bound, StartError> {
    // Everything there is comes with descriptors.
    raise_descriptor_limit();
    if let Some((place, kept)) = kept::find(&config, inherited) {
        let prepared = prepare(&config)?;
        return match kept.read(&config, &Arc::new(config.aggregation.clone())) {
            Ok(ready) => go_on(ready, From::Kept(place), prepared, config, loader, log).await,
            Err(why) => {
                tracing::warn!(%why, from = place.name(), "what the agent before has left cannot be used");
                place.let_go();
                bind(config, loader, log).await
            }
        };
    }
    if !take_over {
        return bind(config, loader, log).await;
    }
    let channel = match Channel::connect(&handover::path(&config.state_dir)) {
        Ok(channel) => channel,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            tracing::info!("there is no agent to take over from");
            return bind(config, loader, log).await;
        }
        Err(error) => return Err(failed(error)),
    };
    let prepared = prepare(&config)?;
    let ready = converse(&channel, &config).map_err(failed)?;
    go_on(ready, From::Agent(channel), prepared, config, loader, log).await
}

/// What must be had before anything is taken from anybody: the guard, and what the HTTP listener asks of its callers.
type Prepared = ((Option<Guard>, Guarded), entrance::Asked);

fn prepare(config: &Config) -> Result<Prepared, StartError> {
    Ok((guard(config)?, entrance::read(&config.http)?))
}

/// Where everything comes from.
enum From {
    /// An agent that runs.
    Agent(Channel),
    /// One that has ended.
    Kept(Place),
}

/// Has everything sent by the agent that runs.
fn converse(channel: &Channel, config: &Config) -> io::Result<Ready> {
    let (offer, _) = channel.receive(PATIENCE)?;
    // What cannot even be read is of a version that is too far away.
    let refused = match handover::from_bytes::<Offer>(&offer) {
        Ok(offer) => offer.differs(&Offer::of(config)),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = refused {
        // It will see that nobody takes over, whether or not it hears why.
        let _either_way = channel.send(format!("it refuses: {why}").as_bytes(), &[]);
        return Err(io::Error::other(why));
    }
    channel.send(b"take", &[])?;
    let mut received = Received::default();
    let (bytes, descriptors) = loop {
        let (bytes, descriptors) = channel.receive_all(PATIENCE)?;
        // What comes with descriptors comes last.
        if !descriptors.is_empty() {
            break (bytes, descriptors);
        }
        received.add(&bytes).map_err(io::Error::other)?;
        channel.send(b"have", &[])?;
    };
    Ready::of(received, &bytes, descriptors, &Arc::new(config.aggregation.clone()))
}

/// Puts an agent together from what is there, and begins to receive.
async fn go_on(
    ready: Ready,
    from: From,
    (guarded, asked): Prepared,
    config: Config,
    loader: Loader,
    log: LogFilter,
) -> Result<Bound, StartError> {
    let Ready { came, received, arriving, not_before, shared, guard } = ready;
    let store = received.into_store(config.aggregation.keep);
    let store = Arc::new(store.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?);
    let state_dir = config.state_dir.clone();
    let address = address_of(&shared).map_err(failed)?;
    let mut parts = Parts::new(config, guarded, store, Some(not_before), (address, asked))?;
    let health = parts.api.containers.journal().clone();
    let (journal, _) = containers::Journal::open(&state_dir, health).map_err(failed)?;
    parts.table = parts.table.recorded_in(journal);
    match &from {
        From::Agent(channel) => {
            channel.send(b"ready", &[]).map_err(failed)?;
            handover::hears(channel, "go").map_err(failed)?;
        }
        // What is read from a socket from now on nobody else has.
        From::Kept(place) => place.let_go(),
    }
    let margin =
        Margin { stopped: arriving.stopped(), came, ready: clock::since_boot(), fullest: arriving.fullest() };
    let receiving = parts.table.arrive(arriving).await.map_err(|error| failed(io::Error::other(error)))?;
    if let From::Agent(channel) = &from {
        channel.send(b"serving", &[]).map_err(failed)?;
        handover::hears(channel, "bye").map_err(failed)?;
    }
    // Only now: whoever gives names and locks back by failing would take them from the other.
    let held = held(&parts.api.config(), shared).map_err(failed)?;
    drop(guard);
    let (name, before) = match from {
        From::Agent(channel) => ("agent", Some(channel)),
        From::Kept(place) => (place.name(), None),
    };
    margin.log(receiving, name, &parts);
    parts.window_log = WindowLog::after(before, &parts.api);
    parts.api.window_log = parts.window_log.as_ref().map(|log| Arc::clone(&log.status));
    Ok(Bound { parts, held, loader, log })
}

/// How long nobody received, what took so long, and how much longer that could have been.
struct Margin {
    /// When receiving stopped, since the machine was booted.
    stopped: Duration,
    /// When everything had come, and when it was put together.
    came: Duration,
    ready: Duration,
    fullest: f64,
}

impl Margin {
    fn log(&self, receiving: Duration, from: &str, parts: &Parts) {
        let until = |moment: Duration| (moment.saturating_sub(self.stopped).as_micros() as f64) / 1e3;
        let (pause_ms, whole_ms) = (until(receiving), until(clock::since_boot()));
        let (came_ms, ready_ms) = (until(self.came), until(self.ready));
        let fullest_percent = (self.fullest * 100.0).round();
        let containers = parts.api.containers.directory().all().len();
        tracing::info!(pause_ms, came_ms, ready_ms, whole_ms, fullest_percent, containers, from, "took over");
    }
}

fn failed(source: io::Error) -> StartError {
    StartError::TakeOver { source }
}

impl Ready {
    /// Puts together what came at last with what came before.
    ///
    /// # Errors
    /// When it does not fit.
    pub(super) fn of(
        mut received: Received,
        state: &[u8],
        mut descriptors: Vec<OwnedFd>,
        settings: &Arc<crate::aggregate::Settings>,
    ) -> io::Result<Self> {
        let came = clock::since_boot();
        let state: State = handover::from_bytes(state)?;
        received.add(&state.part).map_err(io::Error::other)?;
        if descriptors.len() < SHARED {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let of_containers = descriptors.split_off(SHARED);
        let not_before = state.manifest.not_before;
        let arriving = state.manifest.assemble(of_containers, settings).map_err(io::Error::other)?;
        let shared = descriptors.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { came, received, arriving, not_before, shared, guard: Vec::new() })
    }
}

/// Where the HTTP listener is.
fn address_of([http, ..]: &[OwnedFd; SHARED]) -> io::Result<SocketAddr> {
    std::net::TcpListener::from(http.try_clone()?).local_addr()
}

/// What the agent itself holds.
fn held(config: &Config, shared: [OwnedFd; SHARED]) -> io::Result<Held> {
    let http_address = address_of(&shared)?;
    let [http, admin, descriptors, handover, state, admin_lock, descriptors_lock, handover_lock] = shared;
    let unix = |socket: OwnedFd| UnixListener::from_std(socket.into());
    let socket = &config.admin.socket;
    Ok(Held {
        http: TcpListener::from_std(http.into())?,
        http_address,
        admin: unix(admin)?,
        descriptors: unix(descriptors)?,
        handover: unix(handover)?,
        sockets: [
            BoundSocket::taken(socket, admin_lock)?,
            BoundSocket::taken(&socket.with_added_extension("fd"), descriptors_lock)?,
            BoundSocket::taken(&handover::path(&config.state_dir), handover_lock)?,
        ],
        state: HeldDirectory::taken(state)?,
    })
}
