//! What no second agent can have: the listeners, and the locks of their names and of the state directory. Taken at the start, or
//! from the agent before, whose listeners are kept where the configuration has not changed since. What can be opened before
//! anything is taken is opened before, so that a mistake costs nothing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

use super::conversation::{AgentDescriptors, Offer, handover_socket};
use crate::client::{Client, Target};
use crate::config::AgentConfig;
use crate::net::sys;
use crate::net::unix::{self, BoundSocket, HeldDirectory, PathError};

/// Why a process cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A path cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The HTTP address cannot be used.
    #[error("cannot listen on {address}: {source}{}", holder.map_or(String::new(), |pid| format!("; another tallyport agent, pid {pid}, answers there")))]
    Http {
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
        /// The process of the agent that uses the address, if an agent does.
        holder: Option<u32>,
    },
    /// The system refused descriptors or signals.
    #[error("cannot start {what}: {source}")]
    System {
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// Raises the limit of open files: a container costs descriptors, and the soft limit is usually a thousand.
pub fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    /// Eight bytes each in the kernel.
    const ROOM: u32 = 16_384;
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let room = u32::try_from(limit).map_or(ROOM, |limit| limit.min(ROOM));
    if let Err(error) = sys::reserve_descriptors(room) {
        tracing::debug!(%error, "cannot make room for descriptors");
    }
}

/// The exclusive resources of an agent: its listeners, and the locks of their names and of the state directory.
#[derive(Debug)]
pub struct AgentResources {
    pub http: TcpListener,
    pub http_address: SocketAddr,
    pub admin: UnixListener,
    pub descriptors: UnixListener,
    pub handover: UnixListener,
    /// Of the last three.
    pub sockets: [BoundSocket; 3],
    pub state: HeldDirectory,
}

impl AgentResources {
    /// Acquires the state directory and the addresses.
    ///
    /// # Errors
    /// When another process has one of them; those already acquired are released.
    pub async fn acquire_all(config: &AgentConfig) -> Result<Self, ListenError> {
        let state = unix::hold_directory(&config.state_dir)?;
        let (http, http_address) = listen_http(config.http.listen).await?;
        let AdminSockets { admin, descriptors, names: [socket, beside] } = admin_sockets(config)?;
        let (handover, successor) = unix::listen_for_messages(&handover_socket(&config.state_dir), 0o600)?;
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

    /// Duplicates all of them, for the process that takes over.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub fn clone_descriptors(&self) -> io::Result<AgentDescriptors> {
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

/// The admin socket and the descriptor socket next to it.
#[derive(Debug)]
struct AdminSockets {
    admin: UnixListener,
    descriptors: UnixListener,
    names: [BoundSocket; 2],
}

/// Opens both sockets.
///
/// # Errors
/// When another agent has them, or they cannot be created.
fn admin_sockets(config: &AgentConfig) -> Result<AdminSockets, ListenError> {
    let (admin, socket) = unix::listen_for_streams(&config.admin.socket, config.admin.mode)?;
    let beside = config.admin.socket.with_added_extension("fd");
    let (descriptors, beside) = unix::listen_for_messages(&beside, config.admin.mode)?;
    Ok(AdminSockets {
        admin: into_tokio_listener(admin)?,
        descriptors: into_tokio_listener(descriptors)?,
        names: [socket, beside],
    })
}

fn into_tokio_listener(listener: std::os::unix::net::UnixListener) -> Result<UnixListener, ListenError> {
    UnixListener::from_std(listener)
        .map_err(|source| ListenError::System { what: "the admin socket", source })
}

async fn listen_http(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    match TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener))) {
        Ok((bound, listener)) => Ok((listener, bound)),
        Err(source) => {
            let taken = source.kind() == io::ErrorKind::AddrInUse;
            let holder = if taken { agent_at(address).await } else { None };
            Err(ListenError::Http { address, source, holder })
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

/// How long the other process may take to close its HTTP listener after this one has taken over.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
const BIND_RETRY_DELAY: Duration = Duration::from_millis(20);

/// The listeners of an agent that continues where another stopped.
#[derive(Debug)]
pub struct SuccessorListeners {
    http: HttpListenerPlan,
    /// Opened where `admin.socket` has changed.
    admin: Option<AdminSockets>,
}

#[derive(Debug)]
enum HttpListenerPlan {
    Same,
    /// At another address.
    Opened(TcpListener),
    /// At another address with the same port, which the other process has to give up first.
    AfterTheOther,
}

impl SuccessorListeners {
    /// Opens the listeners whose addresses have changed.
    ///
    /// # Errors
    /// When an address is used by a third process, or the admin socket cannot be created.
    pub(super) fn open_changed(config: &AgentConfig, before: &Offer) -> io::Result<Self> {
        let same_admin = before.admin_socket() == config.admin.socket;
        let admin = (!same_admin).then(|| admin_sockets(config)).transpose();
        Ok(Self {
            http: HttpListenerPlan::open_if_changed(config, before)?,
            admin: admin.map_err(io::Error::other)?,
        })
    }

    /// Uses the received listeners, and closes those whose addresses have changed.
    ///
    /// # Errors
    /// When a received lock does not match its path, or the HTTP address does not become free.
    pub async fn into_resources(
        self,
        config: &AgentConfig,
        before: &Offer,
        AgentDescriptors(shared): AgentDescriptors,
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
            // Dropping the received ones removes their names.
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
        let successor = BoundSocket::from_shared_lock(&handover_socket(&config.state_dir), successors_lock)?;
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
    let deadline = Instant::now() + CLOSING_TIMEOUT;
    loop {
        match open(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(BIND_RETRY_DELAY).await;
            }
            opened => return opened,
        }
    }
}
