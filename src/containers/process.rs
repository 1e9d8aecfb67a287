//! A process that is said to be a container, named by its number or passed as descriptors with its network, and checked
//! before it is believed.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Protocol, SockRef, Type};

use super::errors::ProcessError;
use crate::net::netns::{self, Namespace, NamespaceId};
use crate::net::process::{self, Watched};

/// How much older than its reservation a process may appear, because the kernel records its start in ticks.
const TICKS: Duration = Duration::from_millis(20);

/// Properties of a process. All were read while its handle was open and the process was alive, so none can belong to
/// another process with the same id.
#[derive(Debug)]
pub(super) struct Candidate {
    pid: i32,
    watched: Watched,
    namespace: io::Result<Namespace>,
    /// `None` if it has no id in this PID namespace.
    start_ticks: Option<u64>,
}

impl Candidate {
    pub(super) fn find(pid: i32) -> Result<Self, ProcessError> {
        let no = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => ProcessError::NoProcess { pid },
            _ => ProcessError::Watch { pid, source },
        };
        let watched = Watched::new(pid).map_err(no)?;
        let start_ticks = process::start_ticks(pid).map_err(no)?;
        let namespace = Namespace::of_process(pid);
        if watched.has_ended() {
            return Err(ProcessError::NoProcess { pid });
        }
        Ok(Self { pid, watched, namespace, start_ticks: Some(start_ticks) })
    }

    /// A process that was passed as a handle. Its network namespace is read from the handle and must match the passed
    /// one; without the privilege to read it, the passed one is trusted. Returns the passed socket if this program
    /// cannot open one itself.
    pub(super) async fn from_handle(handle: Handle) -> Result<(Self, Option<PassedSocket>), ProcessError> {
        let Handle { process, pid, namespace: said, socket } = handle;
        let hidden = |source| ProcessError::Hidden { pid, source };
        let seen = match Namespace::of_handle(&process).await {
            // Before Linux 5.8, a handle does not give access to namespaces.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && pid > 0 => {
                Namespace::of_process(pid)
            }
            seen => seen,
        };
        let (namespace, socket) = match seen {
            Ok(seen) => match said {
                Some(said) if said.id() != seen.id() => {
                    let (is, expected) = (seen.id().inode(), said.id().inode());
                    return Err(ProcessError::AnotherNamespace { pid, is, expected });
                }
                _ => (seen, None),
            },
            Err(error) => match said {
                Some(said) if error.kind() == io::ErrorKind::PermissionDenied => (said, socket),
                _ => return Err(hidden(error)),
            },
        };
        let start_ticks = if pid > 0 { process::start_ticks(pid).ok() } else { None };
        let watched = Watched::from_handle(process).map_err(|source| ProcessError::Watch { pid, source })?;
        if watched.has_ended() {
            return Err(ProcessError::NoProcess { pid });
        }
        Ok((Self { pid, watched, namespace: Ok(namespace), start_ticks }, socket))
    }

    /// Checks its start time against the one that the caller saw.
    pub(super) fn started_at(self, ticks: Option<u64>) -> Result<Self, ProcessError> {
        match ticks {
            Some(_) if ticks != self.start_ticks => Err(ProcessError::Recycled { pid: self.pid }),
            _ => Ok(self),
        }
    }

    /// Checks that it is not older than a reservation that was made before its namespace existed.
    pub(super) fn born_after(self, reserved: Duration) -> Result<Self, ProcessError> {
        let started = self.start_ticks.map(process::since_boot);
        match started.is_some_and(|started| started + TICKS < reserved) {
            true => Err(ProcessError::Older { pid: self.pid }),
            false => Ok(self),
        }
    }

    /// Holds it to the namespace that its container has. Without the privilege to look, nothing can be verified
    /// in the agent's own namespace.
    pub(super) fn in_namespace(self, expected: NamespaceId) -> Result<Self, ProcessError> {
        match &self.namespace {
            Ok(namespace) if namespace.id() == expected => Ok(self),
            Ok(namespace) => Err(ProcessError::AnotherNamespace {
                pid: self.pid,
                is: namespace.id().inode(),
                expected: expected.inode(),
            }),
            Err(error)
                if error.kind() == io::ErrorKind::PermissionDenied
                    && Namespace::own_id().is_ok_and(|own| own == expected) =>
            {
                Ok(self)
            }
            Err(error) => Err(ProcessError::Hidden { pid: self.pid, source: error.kind().into() }),
        }
    }

    /// Accepts it, and returns its namespace, which must not be the agent's own.
    pub(super) fn with_own_namespace(self) -> Result<(i32, Watched, Namespace), ProcessError> {
        let (pid, hidden) = (self.pid, |source| ProcessError::Hidden { pid: self.pid, source });
        let namespace = self.namespace.map_err(hidden)?;
        if Namespace::own_id().map_err(hidden)? == namespace.id() {
            return Err(ProcessError::SharedNamespace { pid });
        }
        Ok((pid, self.watched, namespace))
    }

    /// The id of its cgroup v2, if available.
    pub(super) fn cgroup_id(&self) -> Option<u64> {
        self.watched.cgroup_id()
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Takes it for what it is.
    pub(super) fn into_parts(self) -> (i32, Watched) {
        (self.pid, self.watched)
    }
}

/// Why descriptors were refused.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// There is none, or more than three.
    #[error(
        "{count} descriptors were passed, not a process's handle, its network namespace and a socket at most"
    )]
    Count {
        /// How many there are.
        count: usize,
    },
    /// The first is not a handle of a live process.
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
    /// The third is not a suitable socket.
    #[error("the third descriptor is not a UDP socket that only listens: {why}")]
    Socket {
        /// Why not.
        why: String,
    },
}

/// A container's process, passed as descriptors.
#[derive(Debug)]
pub struct Handle {
    pub(super) process: OwnedFd,
    /// Its process id; 0 if it has none in this PID namespace.
    pub(super) pid: i32,
    /// Its network, from a caller that may open it.
    pub(super) namespace: Option<Namespace>,
    /// A socket in that namespace.
    pub(super) socket: Option<PassedSocket>,
}

/// A socket that another process has opened.
#[derive(Debug)]
pub(super) struct PassedSocket {
    pub(super) socket: UdpSocket,
    pub(super) address: SocketAddr,
}

impl Handle {
    /// Validates descriptors.
    ///
    /// # Errors
    /// When they are of the wrong number or kind. All of them are closed then.
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
        // A socket that shares its port would get some of the datagrams.
        if looked_at.reuse_port().map_err(failed)? {
            return Err(no("others may share its port".to_owned()));
        }
        let socket = UdpSocket::from(socket);
        let address = socket.local_addr().map_err(|error| no(error.to_string()))?;
        if socket.peer_addr().is_ok() {
            return Err(no("it is connected to one peer".to_owned()));
        }
        Ok(Self { socket, address })
    }

    /// Whether processes outside the container could send to it: it is at another address than the promised one, or in
    /// the agent's own namespace.
    pub(super) fn is_astray(&self, promised: Option<SocketAddr>) -> bool {
        promised != Some(self.address) || netns::is_here(&self.socket).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::Ipv4Addr;

    use super::*;
    use crate::net::{clock, sys};

    fn me() -> Candidate {
        Candidate::find(std::process::id().try_into().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_process_is_held_to_its_start() {
        let ticks = me().start_ticks;
        assert!(me().started_at(ticks).is_ok() && me().started_at(None).is_ok());
        assert!(matches!(me().started_at(ticks.map(|ticks| ticks + 1)), Err(ProcessError::Recycled { .. })));
    }

    #[tokio::test]
    async fn a_process_that_was_there_before_is_not_the_one_to_come() {
        assert!(me().born_after(Duration::ZERO).is_ok());
        let later = clock::since_boot() + Duration::from_secs(1);
        assert!(matches!(me().born_after(later), Err(ProcessError::Older { .. })));
    }

    #[tokio::test]
    async fn our_own_namespace_is_no_containers() {
        assert!(me().in_namespace(Namespace::own_id().unwrap()).is_ok());
        assert!(matches!(me().with_own_namespace(), Err(ProcessError::SharedNamespace { .. })));
    }

    #[test]
    fn numbers_that_no_process_has_are_not_found() {
        for pid in [0, -1, i32::MAX] {
            assert!(matches!(Candidate::find(pid), Err(ProcessError::NoProcess { .. })), "{pid}");
        }
    }

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
