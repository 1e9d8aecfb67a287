//! The listeners of an agent that goes on where another stopped: those of the other one, or new ones where the configuration
//! has changed since. What can be opened before anything is taken is opened before, so that a mistake costs nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

use super::handover::{self, Offer};
use super::moving::SHARED;
use super::resources::{self, AdminSockets, AgentResources};
use crate::config::AgentConfig;
use crate::net::unix::{BoundSocket, HeldDirectory};

/// How long the other process may take to close its HTTP listener, once this one has everything.
const CLOSING: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(20);

/// What an agent listens on that goes on where another stopped.
pub(super) struct SuccessorListeners {
    http: HttpListenerPlan,
    /// Opened where `admin.socket` has changed.
    admin: Option<AdminSockets>,
}

enum HttpListenerPlan {
    Same,
    /// At another address.
    Opened(TcpListener),
    /// At another address with the same port, which the other process has to give up first.
    AfterTheOther,
}

impl SuccessorListeners {
    /// Opens what has to be opened anew.
    ///
    /// # Errors
    /// When an address is taken by a third process, or the admin socket cannot be made.
    pub(super) fn open_changed(config: &AgentConfig, before: &Offer) -> io::Result<Self> {
        let same_admin = before.admin_socket() == config.admin.socket;
        let admin = (!same_admin).then(|| resources::admin_sockets(config)).transpose();
        Ok(Self {
            http: HttpListenerPlan::open_if_changed(config, before)?,
            admin: admin.map_err(io::Error::other)?,
        })
    }

    /// Takes the listeners that came, and gives up those that are not wanted any more.
    ///
    /// # Errors
    /// When a name or a lock is not what it was said to be, or the HTTP address does not become free.
    pub(super) async fn into_resources(
        self,
        config: &AgentConfig,
        before: &Offer,
        shared: [OwnedFd; SHARED],
    ) -> io::Result<AgentResources> {
        let [http, admin, descriptors, successors, state, admin_lock, descriptors_lock, successors_lock] =
            shared;
        let unix = |socket: OwnedFd| UnixListener::from_std(socket.into());
        let names = |path: &Path| -> io::Result<[BoundSocket; 2]> {
            let beside = path.with_added_extension("fd");
            Ok([
                BoundSocket::from_shared_lock(path, admin_lock)?,
                BoundSocket::from_shared_lock(&beside, descriptors_lock)?,
            ])
        };
        let theirs = names(before.admin_socket())?;
        let AdminSockets { admin, descriptors, names: [socket, beside] } = match self.admin {
            // Their names go with them.
            Some(opened) => opened,
            None => AdminSockets { admin: unix(admin)?, descriptors: unix(descriptors)?, names: theirs },
        };
        let http = match self.http {
            HttpListenerPlan::Same => TcpListener::from_std(http.into())?,
            HttpListenerPlan::Opened(listener) => listener,
            HttpListenerPlan::AfterTheOther => {
                drop(http);
                listen_once_free(config.http.listen).await?
            }
        };
        let successor =
            BoundSocket::from_shared_lock(&handover::socket_path(&config.state_dir), successors_lock)?;
        Ok(AgentResources {
            http_address: http.local_addr()?,
            http,
            admin,
            descriptors,
            handover: unix(successors)?,
            sockets: [socket, beside, successor],
            state: HeldDirectory::from_shared_lock(state)?,
        })
    }
}

impl HttpListenerPlan {
    fn open_if_changed(config: &AgentConfig, before: &Offer) -> io::Result<Self> {
        if before.has_listener_of(&Offer::from_config(config)) {
            return Ok(Self::Same);
        }
        let wanted = config.http.listen;
        match open(wanted) {
            Ok(listener) => Ok(Self::Opened(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && before.has_port(wanted.port()) => {
                Ok(Self::AfterTheOther)
            }
            Err(error) => Err(io::Error::new(error.kind(), format!("cannot listen on {wanted}: {error}"))),
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn listen_once_free(address: SocketAddr) -> io::Result<TcpListener> {
    let deadline = Instant::now() + CLOSING;
    loop {
        match open(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(AGAIN).await;
            }
            opened => return opened,
        }
    }
}
