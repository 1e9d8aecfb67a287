//! Errors of the container table.

use std::io;
use std::net::SocketAddr;

use crate::model::ContainerId;
use crate::model::setting_name::setting_name;
use crate::net::netns::NotANamespace;

/// Why a container was not given a socket.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// It opted out.
    #[error("{reason}")]
    OptedOut {
        /// What opts it out.
        reason: String,
    },
    /// A live container has this id and other properties.
    #[error("container {id} is already here with another {what}; release it first")]
    Conflict {
        id: ContainerId,
        /// What differs.
        what: &'static str,
    },
    /// The node has reached its limit of containers.
    #[error("this node has {limit} containers, as many as it may; raise {}", setting_name!("limits.containers"))]
    Full { limit: usize },
    /// The path is not a network namespace.
    #[error(transparent)]
    NotANamespace(#[from] NotANamespace),
    /// The container's network namespace cannot be entered, or has no port free.
    #[error("cannot open a socket in the container's network namespace: {source}{}", privilege_hint(source))]
    Enter {
        /// Why not.
        source: io::Error,
    },
    /// The address that was asked for belongs to another socket.
    #[error("the address {address} is taken")]
    AddressTaken { address: SocketAddr },
    /// No socket could be opened.
    #[error("cannot open a socket at {address}: {source}{}", port_hint(source))]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The agent reserves the last descriptors for itself.
    #[error(
        "no socket can be opened: this agent may have {limit} descriptors open, and keeps the last {kept} for answering, and for \
         its files; let it have more (LimitNOFILE= in its unit, ulimit -Hn before it is started) and restart it"
    )]
    NoDescriptors {
        /// The limit of descriptors.
        limit: u64,
        /// How many of them it reserves.
        kept: u64,
    },
    /// Its Unix socket, the only one requested, could not be opened.
    #[error("cannot open its Unix socket: {source}")]
    Unix {
        /// Why not.
        source: io::Error,
    },
    /// Every address is in use or resting.
    #[error("every address is in use or at rest")]
    NoAddress,
    /// The process cannot be the container.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The shard does not answer.
    #[error("cannot hand the socket over: {0}")]
    Shard(#[from] crate::shard::OpenError),
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Ending,
}

/// A process that listens on every address at our port has them all.
fn port_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            concat!("; another process has this port, set a free one as ", setting_name!("listeners.port"))
        }
        _ => "",
    }
}

/// The remedy for a missing privilege or a full port range.
fn privilege_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; the agent needs CAP_SYS_ADMIN for that, as root has it",
        io::ErrorKind::AddrInUse => "; every port from 18125 upward is taken there",
        _ => "",
    }
}

/// Why a process cannot be a container's.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no process with this id.
    #[error("there is no process {pid}")]
    NoProcess {
        /// The number.
        pid: i32,
    },
    /// It cannot be watched.
    #[error("cannot watch process {pid}: {source}")]
    Watch {
        /// The number.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// Its namespace cannot be read.
    #[error("cannot look at the network namespace of process {pid}: {source}")]
    Hidden {
        /// The number.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// It is in another network namespace than the container.
    #[error("process {pid} is in another network namespace ({is}) than the container ({expected})")]
    AnotherNamespace {
        /// The number.
        pid: i32,
        /// Inode of the namespace it is in.
        is: u64,
        /// Inode of the namespace it should be in.
        expected: u64,
    },
    /// It has no network namespace of its own, which the reservation requires.
    #[error(
        "process {pid} shares the agent's network namespace, but the container was reserved with one of its own"
    )]
    SharedNamespace {
        /// The number.
        pid: i32,
    },
    /// Its namespace belongs to another container.
    #[error("process {pid} is in the network namespace of another container")]
    Occupied {
        /// The number.
        pid: i32,
    },
    /// Another process has its id by now.
    #[error("process {pid} is not the one that was meant: it started at another time")]
    Recycled {
        /// The number.
        pid: i32,
    },
    /// It is older than the reservation.
    #[error("process {pid} is older than the container's reservation")]
    Older {
        /// The number.
        pid: i32,
    },
}

/// Why a process was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No such container.
    #[error("no container {id}")]
    Unknown { id: ContainerId },
    /// It has ended.
    #[error("container {id} has ended")]
    Ended { id: ContainerId },
    /// Another process is attached.
    #[error("container {id} is process {pid}")]
    Another {
        id: ContainerId,
        /// Its process.
        pid: i32,
    },
    /// The process cannot be the container.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its socket could not be opened.
    #[error("cannot open a socket in the container's network namespace: {source}{}", privilege_hint(source))]
    Enter {
        /// Why not.
        source: io::Error,
    },
    /// A passed socket is not at the container's address, or not in its network namespace.
    #[error(
        "the socket at {address} is not at the address that was promised, or not in the container's own network"
    )]
    Astray {
        /// Where it is.
        address: SocketAddr,
    },
    /// The shard does not answer.
    #[error("cannot hand the socket over: {0}")]
    Shard(#[from] crate::shard::OpenError),
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Ending,
}

/// Why a container was not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// No such container.
    #[error("no container {id}")]
    Unknown { id: ContainerId },
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Ending,
}
