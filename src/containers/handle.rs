//! A process and its network, passed as descriptors and looked at before they are believed.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use socket2::{Protocol, SockRef, Type};

use crate::net::netns::{self, Namespace};
use crate::net::process;

/// Why descriptors were refused.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// There are none, or more than three.
    #[error(
        "{count} descriptors were passed, not a process's handle, its network namespace and a socket at most"
    )]
    Count {
        /// How many there are.
        count: usize,
    },
    /// The first is not a process's.
    #[error("the first descriptor is not a handle of a process that lives: {source}")]
    Process {
        /// Why not.
        source: io::Error,
    },
    /// The second is not a network namespace.
    #[error("the second descriptor is not a network namespace: {source}")]
    Namespace {
        /// Why not.
        source: io::Error,
    },
    /// The third is not what a container's socket has to be.
    #[error("the third descriptor is not a UDP socket that only listens: {why}")]
    Socket {
        /// Why not.
        why: String,
    },
}

/// A container's process, as somebody passed it.
#[derive(Debug)]
pub struct Handle {
    pub(super) process: OwnedFd,
    /// Its number here; 0 where it has none.
    pub(super) pid: i32,
    /// Its network, from whoever may look at that.
    pub(super) namespace: Option<Namespace>,
    /// A socket in it.
    pub(super) socket: Option<PassedSocket>,
}

/// A socket that somebody else has opened.
#[derive(Debug)]
pub(super) struct PassedSocket {
    pub(super) socket: UdpSocket,
    pub(super) address: SocketAddr,
}

impl Handle {
    /// Takes descriptors for what they are.
    ///
    /// # Errors
    /// When they are something else. All of them are closed then.
    pub fn from_descriptors(passed: Vec<OwnedFd>) -> Result<Self, HandleError> {
        let count = passed.len();
        let mut passed = passed.into_iter();
        let (Some(process), namespace, socket, None) =
            (passed.next(), passed.next(), passed.next(), passed.next())
        else {
            return Err(HandleError::Count { count });
        };
        let pid = process::number_of(&process).map_err(|source| HandleError::Process { source })?;
        let namespace = namespace.map(Namespace::from_descriptor).transpose();
        let namespace = namespace.map_err(|source| HandleError::Namespace { source })?;
        let socket = socket.map(PassedSocket::from_descriptor).transpose()?;
        Ok(Self { process, pid, namespace, socket })
    }
}

impl PassedSocket {
    fn from_descriptor(socket: OwnedFd) -> Result<Self, HandleError> {
        let no = |why: String| HandleError::Socket { why };
        let failed = |error: io::Error| no(error.to_string());
        let looked_at = SockRef::from(&socket);
        let kind = (looked_at.r#type().map_err(failed)?, looked_at.protocol().map_err(failed)?);
        if kind != (Type::DGRAM, Some(Protocol::UDP)) {
            return Err(no("it is a socket of another kind".to_owned()));
        }
        // Whoever shares its port would get some of the datagrams.
        if looked_at.reuse_port().map_err(failed)? {
            return Err(no("others may share its port".to_owned()));
        }
        let socket = UdpSocket::from(socket);
        let address = socket.local_addr().map_err(|error| no(error.to_string()))?;
        if socket.peer_addr().is_ok() {
            return Err(no("it hears one peer only".to_owned()));
        }
        Ok(Self { socket, address })
    }

    /// Whether it is where others than the container could send to it: at another address than the one that was promised,
    /// or in the agent's own namespace.
    pub(super) fn is_astray(&self, promised: Option<SocketAddr>) -> bool {
        promised != Some(self.address) || netns::is_here(&self.socket).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::net::sys;

    fn process() -> OwnedFd {
        sys::pidfd_open(std::process::id().try_into().unwrap()).unwrap()
    }

    fn namespace() -> OwnedFd {
        File::open("/proc/self/ns/net").unwrap().into()
    }

    fn socket() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    }

    fn refused(passed: Vec<OwnedFd>) -> String {
        Handle::from_descriptors(passed).unwrap_err().to_string()
    }

    #[test]
    fn what_fits_is_taken() {
        assert!(Handle::from_descriptors(vec![process()]).unwrap().namespace.is_none());
        let handle = Handle::from_descriptors(vec![process(), namespace()]).unwrap();
        assert_eq!(handle.pid, i32::try_from(std::process::id()).unwrap());
        let with_socket = Handle::from_descriptors(vec![process(), namespace(), socket().into()]).unwrap();
        let bound = with_socket.socket.unwrap();
        assert!(bound.is_astray(Some(bound.address)), "it is in our own namespace");
    }

    #[test]
    fn everything_else_is_refused() {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        assert!(refused(vec![]).contains("0 descriptors"));
        assert!(refused(vec![process(), namespace(), socket().into(), null()]).contains("4 descriptors"));
        assert!(refused(vec![namespace(), process()]).contains("not a handle of a process"));
        assert!(refused(vec![process(), null()]).contains("ordinary file"));
        let mounts = File::open("/proc/self/ns/mnt").unwrap();
        assert!(refused(vec![process(), mounts.into()]).contains("another kind"));
        let third = |socket: OwnedFd| refused(vec![process(), namespace(), socket]);
        assert!(third(null()).contains("on non-socket"), "{}", third(null()));
        let stream = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(third(stream.into()).contains("another kind"));
        let connected = socket();
        connected.connect(socket().local_addr().unwrap()).unwrap();
        assert!(third(connected.into()).contains("one peer"));
        let shared = socket();
        SockRef::from(&shared).set_reuse_port(true).unwrap();
        assert!(third(shared.into()).contains("share its port"));
    }
}
