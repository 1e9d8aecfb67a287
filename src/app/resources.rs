//! What no second agent can have: taken at the start, or from the process before.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::StartError;
use super::handover;
use super::moving::AgentDescriptors;
use crate::client::{Client, Target};
use crate::config::AgentConfig;
use crate::net::unix::{self, BoundSocket, HeldDirectory};

/// What no second agent can have: the listeners, and the locks of their names and of the state directory.
#[derive(Debug)]
pub(super) struct AgentResources {
    pub(super) http: TcpListener,
    pub(super) http_address: SocketAddr,
    pub(super) admin: UnixListener,
    pub(super) descriptors: UnixListener,
    pub(super) handover: UnixListener,
    /// Of the last three.
    pub(super) sockets: [BoundSocket; 3],
    pub(super) state: HeldDirectory,
}

impl AgentResources {
    /// Takes the state directory and the addresses.
    ///
    /// # Errors
    /// When something is another's; what was taken is given back.
    pub(super) async fn acquire_all(config: &AgentConfig) -> Result<Self, StartError> {
        let state = unix::hold_directory(&config.state_dir)?;
        let (http, http_address) = listen_http(config.http.listen).await?;
        let AdminSockets { admin, descriptors, names: [socket, beside] } = admin_sockets(config)?;
        let (handover, successor) =
            unix::listen_for_messages(&handover::socket_path(&config.state_dir), 0o600)?;
        Ok(Self {
            http,
            http_address,
            admin,
            descriptors,
            handover: into_tokio_listener(handover)?,
            sockets: [socket, beside, successor],
            state,
        })
    }

    /// All of it once more, for the process that takes over.
    pub(super) fn clone_descriptors(&self) -> io::Result<AgentDescriptors> {
        let [admin, descriptors, handover] = &self.sockets;
        Ok(AgentDescriptors([
            self.http.as_fd().try_clone_to_owned()?,
            self.admin.as_fd().try_clone_to_owned()?,
            self.descriptors.as_fd().try_clone_to_owned()?,
            self.handover.as_fd().try_clone_to_owned()?,
            self.state.share_lock()?,
            admin.share_lock()?,
            descriptors.share_lock()?,
            handover.share_lock()?,
        ]))
    }
}

/// The admin socket, and beside it the one for descriptors.
pub(super) struct AdminSockets {
    pub(super) admin: UnixListener,
    pub(super) descriptors: UnixListener,
    pub(super) names: [BoundSocket; 2],
}

/// Opens both.
///
/// # Errors
/// When another agent has them, or they cannot be made.
pub(super) fn admin_sockets(config: &AgentConfig) -> Result<AdminSockets, StartError> {
    let (admin, socket) = unix::listen_for_streams(&config.admin.socket, config.admin.mode)?;
    let beside = config.admin.socket.with_added_extension("fd");
    let (descriptors, beside) = unix::listen_for_messages(&beside, config.admin.mode)?;
    Ok(AdminSockets {
        admin: into_tokio_listener(admin)?,
        descriptors: into_tokio_listener(descriptors)?,
        names: [socket, beside],
    })
}

fn into_tokio_listener(listener: std::os::unix::net::UnixListener) -> Result<UnixListener, StartError> {
    UnixListener::from_std(listener).map_err(|source| StartError::System { what: "the admin socket", source })
}

async fn listen_http(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    match TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener))) {
        Ok((bound, listener)) => Ok((listener, bound)),
        Err(source) => {
            let taken = source.kind() == io::ErrorKind::AddrInUse;
            let holder = if taken { agent_at(address).await } else { None };
            Err(StartError::Listen { address, source, holder })
        }
    }
}

/// The process of the agent that answers at an address, if one does.
async fn agent_at(address: SocketAddr) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct AgentHealth {
        pid: u32,
    }
    let client = Client::new(Target::Http(address.to_string()));
    let answer = tokio::time::timeout(Duration::from_secs(1), client.get("/health")).await.ok()?.ok()?;
    serde_json::from_slice::<AgentHealth>(&answer.body).ok().map(|health| health.pid)
}
