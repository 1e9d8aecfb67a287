//! The other side of a hand-over: a process that takes everything the running agent has.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};

use super::handover::{self, Histories, Offer, PATIENCE, SHARED, State};
use super::held::Held;
use super::windows::WindowLog;
use super::{Bound, Loader, Parts, StartError, bind, entrance, guard, raise_descriptor_limit};
use crate::config::Config;
use crate::containers;
use crate::model::Allocation;
use crate::net::clock;
use crate::net::passing::Channel;
use crate::net::unix::{BoundSocket, HeldDirectory};
use crate::store::{Cursor, History, Store};
use crate::telemetry::LogFilter;

/// Takes over from the agent that runs with the same state directory; starts as usual where there is none.
///
/// # Errors
/// When it says no, or something is not to be had. Then the other agent goes on.
pub async fn take_over(config: Config, loader: Loader, log: LogFilter) -> Result<Bound, StartError> {
    let channel = match Channel::connect(&handover::path(&config.state_dir)) {
        Ok(channel) => channel,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            tracing::info!("there is no agent to take over from");
            return bind(config, loader, log).await;
        }
        Err(error) => return Err(failed(error)),
    };
    raise_descriptor_limit();
    let guarded = guard(&config)?;
    let asked = entrance::read(&config.http)?;
    let (offer, _) = channel.receive(PATIENCE).map_err(failed)?;
    // What cannot even be read is of a version that is too far away.
    let refused = match handover::from_bytes::<Offer>(&offer) {
        Ok(offer) => offer.differs(&Offer::of(&config)),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = refused {
        // It will see that nobody takes over, whether or not it hears why.
        let _either_way = channel.send(format!("it refuses: {why}").as_bytes(), &[]);
        return Err(failed(io::Error::other(why)));
    }
    channel.send(b"take", &[]).map_err(failed)?;
    let (bytes, _) = channel.receive_all(PATIENCE).map_err(failed)?;
    let mut histories = HashMap::new();
    add(&mut histories, handover::from_bytes(&bytes).map_err(failed)?)?;
    channel.send(b"have", &[]).map_err(failed)?;
    let (bytes, mut descriptors) = channel.receive_all(PATIENCE).map_err(failed)?;
    let state: State = handover::from_bytes(&bytes).map_err(failed)?;
    add(&mut histories, state.histories)?;
    if descriptors.len() < SHARED {
        return Err(failed(io::ErrorKind::InvalidData.into()));
    }
    let of_containers = descriptors.split_off(SHARED);
    let not_before = state.manifest.not_before;
    let settings = Arc::new(config.aggregation.clone());
    let arriving = state.manifest.assemble(of_containers, &settings);
    let arriving = arriving.map_err(|error| failed(io::Error::other(error)))?;
    let end = Cursor { epoch: state.end.0, seq: state.end.1 };
    let store = Arc::new(Store::resumed(
        end,
        config.aggregation.keep,
        histories.into_iter().collect(),
        state.remembered,
    ));
    let shared: [OwnedFd; SHARED] =
        descriptors.try_into().map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    let state_dir = config.state_dir.clone();
    let address = address_of(&shared).map_err(failed)?;
    let mut parts = Parts::new(config, guarded, store, Some(not_before), (address, asked))?;
    let health = parts.api.containers.journal().clone();
    let (journal, _) = containers::Journal::open(&state_dir, health).map_err(failed)?;
    parts.table = parts.table.recorded_in(journal);
    channel.send(b"ready", &[]).map_err(failed)?;
    handover::hears(&channel, "go").map_err(failed)?;
    let (stopped, fullest) = (arriving.stopped(), arriving.fullest());
    let receiving = parts.table.arrive(arriving).await.map_err(|error| failed(io::Error::other(error)))?;
    channel.send(b"serving", &[]).map_err(failed)?;
    handover::hears(&channel, "bye").map_err(failed)?;
    // Only now: whoever gives names and locks back by failing would take them from the other.
    let held = held(&parts.api.config(), shared).map_err(failed)?;
    let pause_ms = (receiving.saturating_sub(stopped).as_micros() as f64) / 1e3;
    let whole_ms = (clock::since_boot().saturating_sub(stopped).as_micros() as f64) / 1e3;
    let fullest_percent = (fullest * 100.0).round();
    let live = parts.api.containers.directory().all().len();
    tracing::info!(pause_ms, whole_ms, fullest_percent, containers = live, "took over");
    parts.window_log = WindowLog::after(channel, &parts.api);
    parts.api.window_log = parts.window_log.as_ref().map(|log| Arc::clone(&log.status));
    Ok(Bound { parts, held, loader, log })
}

fn failed(source: io::Error) -> StartError {
    StartError::TakeOver { source }
}

fn add(known: &mut HashMap<Allocation, History>, more: Histories) -> Result<(), StartError> {
    for (allocation, bytes) in more {
        let history = History::from_image(&bytes).map_err(|error| failed(io::Error::other(error)))?;
        known.insert(allocation, history);
    }
    Ok(())
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
