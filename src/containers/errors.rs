//! Why the table says no.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::model::ContainerId;

/// Why a container was not given a socket.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// It does not want one.
    #[error("{reason}")]
    OptedOut {
        /// What says so.
        reason: String,
    },
    /// The id is alive with other properties.
    #[error("container {id} is already here with another {what}; release it first")]
    Conflict {
        /// The container.
        id: ContainerId,
        /// What differs.
        what: &'static str,
    },
    /// The node has as many containers as it may have.
    #[error("this node has {limit} containers, as many as limits.containers allows")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// The container has a network namespace of its own.
    #[error(
        "the container has a network namespace of its own, in which this version cannot open a socket; \
         use the network mode \"host\""
    )]
    OwnNamespace,
    /// The path is not a network namespace.
    #[error("{} is not a network namespace: {why}", path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// The address that was asked for is somebody else's.
    #[error("the address {address} is taken")]
    AddressTaken {
        /// The address.
        address: SocketAddr,
    },
    /// No socket could be opened.
    #[error("cannot open a socket at {address}: {source}{}", port_hint(source))]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Every address is taken or at rest.
    #[error("every address is in use or at rest")]
    NoAddress,
    /// There is no process with this number.
    #[error("there is no process {pid}")]
    NoProcess {
        /// The number.
        pid: i32,
    },
    /// The process cannot be watched.
    #[error("cannot watch process {pid}: {source}")]
    Process {
        /// The number.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// The shard does not answer.
    #[error("cannot hand the socket over: {0}")]
    Shard(#[from] crate::shard::OpenError),
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Ending,
}

/// Somebody who listens on every address at our port has them all.
fn port_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; another process has this port, set listeners.port to a free one",
        _ => "",
    }
}

/// Why a process was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No such container.
    #[error("no container {id}")]
    Unknown {
        /// The container.
        id: ContainerId,
    },
    /// It has ended.
    #[error("container {id} has ended")]
    Ended {
        /// The container.
        id: ContainerId,
    },
    /// It is another process.
    #[error("container {id} is process {pid}")]
    Another {
        /// The container.
        id: ContainerId,
        /// Its process.
        pid: i32,
    },
    /// There is no such process.
    #[error("there is no process {pid}")]
    NoProcess {
        /// The number.
        pid: i32,
    },
    /// It cannot be watched.
    #[error("cannot watch process {pid}: {source}")]
    Process {
        /// The number.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Ending,
}

/// Why a container was not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// No such container.
    #[error("no container {id}")]
    Unknown {
        /// The container.
        id: ContainerId,
    },
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Ending,
}
