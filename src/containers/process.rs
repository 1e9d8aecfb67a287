//! A process that is said to be a container, looked at before it is believed.

use std::io;
use std::time::Duration;

use super::errors::ProcessError;
use super::handle::{Handle, PassedSocket};
use crate::net::netns::{Namespace, NamespaceId};
use crate::net::process::{self, Watched};

/// How much older than its reservation a process may seem: the kernel counts its start in ticks.
const TICKS: Duration = Duration::from_millis(20);

/// What is known of a process. All of it was read while its handle was open and the process alive, so none of it can
/// be that of another process with the same number.
#[derive(Debug)]
pub(super) struct Candidate {
    pid: i32,
    watched: Watched,
    namespace: io::Result<Namespace>,
    /// Nothing where it has no number here by which its start could be read.
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

    /// A process that was passed as a handle. Its namespace is looked up by the handle and has to be the one that came with
    /// it; where this program may not look, that one is believed. Answers the socket that came along, where this program
    /// could not open it itself.
    pub(super) async fn from_handle(handle: Handle) -> Result<(Self, Option<PassedSocket>), ProcessError> {
        let Handle { process, pid, namespace: said, socket } = handle;
        let hidden = |source| ProcessError::Hidden { pid, source };
        let seen = match Namespace::of_handle(&process).await {
            // Before Linux 5.8 a handle leads nowhere.
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

    /// Holds it to the start that the caller saw.
    pub(super) fn started_at(self, ticks: Option<u64>) -> Result<Self, ProcessError> {
        match ticks {
            Some(_) if ticks != self.start_ticks => Err(ProcessError::Recycled { pid: self.pid }),
            _ => Ok(self),
        }
    }

    /// A container that was not born when it was reserved cannot be an older process.
    pub(super) fn born_after(self, reserved: Duration) -> Result<Self, ProcessError> {
        let started = self.start_ticks.map(process::since_boot);
        match started.is_some_and(|started| started + TICKS < reserved) {
            true => Err(ProcessError::Older { pid: self.pid }),
            false => Ok(self),
        }
    }

    /// Holds it to the namespace that its container has. Without the privilege to look, nobody can be held to anything
    /// in the agent's own.
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

    /// Takes it for what it is, and answers the namespace it brings with it, which is not the agent's own.
    pub(super) fn with_own_namespace(self) -> Result<(i32, Watched, Namespace), ProcessError> {
        let (pid, hidden) = (self.pid, |source| ProcessError::Hidden { pid: self.pid, source });
        let namespace = self.namespace.map_err(hidden)?;
        if Namespace::own_id().map_err(hidden)? == namespace.id() {
            return Err(ProcessError::SharedNamespace { pid });
        }
        Ok((pid, self.watched, namespace))
    }

    /// Its cgroup of version 2, where the kernel says.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

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
    async fn our_own_namespace_is_nobody_elses() {
        assert!(me().in_namespace(Namespace::own_id().unwrap()).is_ok());
        assert!(matches!(me().with_own_namespace(), Err(ProcessError::SharedNamespace { .. })));
    }

    #[test]
    fn numbers_that_no_process_has_are_not_found() {
        for pid in [0, -1, i32::MAX] {
            assert!(matches!(Candidate::find(pid), Err(ProcessError::NoProcess { .. })), "{pid}");
        }
    }
}
