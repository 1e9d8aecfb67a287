//! Attaching: which process a container is, and the socket of one whose network namespace was not born before.

use std::sync::Arc;
use std::time::Duration;

use super::Table;
use crate::containers::Process;
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::{AttachError, ProcessError, ReserveError};
use crate::containers::process::Candidate;
use crate::containers::socket::Site;
use crate::containers::state::Place;
use crate::model::{Allocation, ContainerId};
use crate::net::netns::{Choice, Namespace};
use crate::net::process::Watched;

impl Table {
    pub(super) async fn attach(
        &mut self,
        id: &ContainerId,
        process: Process,
    ) -> Result<Arc<ContainerInfo>, AttachError> {
        let Some(info) = self.living(id) else {
            return Err(match self.directory.container(id) {
                Some(_) => AttachError::Ended { id: id.clone() },
                None => AttachError::Unknown { id: id.clone() },
            });
        };
        match info.pid {
            Some(attached) if attached == process.pid => return Ok(info),
            Some(attached) => return Err(AttachError::Another { id: id.clone(), pid: attached }),
            None => {}
        }
        let candidate = Candidate::find(process.pid)?.started_at(process.start_ticks)?;
        let (pid, watched) = match info.place {
            // Without a socket there is nothing that the wrong process could get.
            _ if !info.state.can_attach() => candidate.taken(),
            Place::Shared => {
                let own = Namespace::own().map_err(|source| AttachError::Enter { source })?;
                candidate.in_namespace(own)?.taken()
            }
            Place::Own(namespace) => candidate.in_namespace(namespace)?.taken(),
            Place::Unborn => {
                let candidate = candidate.born_after(self.reserved_at(info.allocation))?;
                let (pid, watched, namespace) = self.newborn(candidate)?;
                // One that wants nothing but a Unix socket has it already.
                if info.address.is_some() {
                    self.give_birth(&info, namespace).await?;
                }
                (pid, watched)
            }
        };
        let attached = self.change(info.allocation, |info| info.pid = Some(pid)).unwrap_or(info);
        if let Some(entry) = self.entries.get_mut(&attached.allocation) {
            entry.deadline = None;
        }
        Ok(self.watch(attached.allocation, watched).await.unwrap_or(attached))
    }

    /// Where a container is that comes with its process, and whether that can be its process.
    pub(super) fn settle(
        &self,
        site: Site,
        candidate: Candidate,
    ) -> Result<(Site, i32, Watched), ProcessError> {
        match site {
            Site::Shared => {
                let own = Namespace::own();
                let own = own.map_err(|source| ProcessError::Hidden { pid: candidate.pid(), source })?;
                let (pid, watched) = candidate.in_namespace(own)?.taken();
                Ok((Site::Shared, pid, watched))
            }
            Site::Own(namespace) => {
                let (pid, watched) = candidate.in_namespace(namespace.id())?.taken();
                Ok((Site::Own(namespace), pid, watched))
            }
            Site::Unborn => {
                let (pid, watched, namespace) = self.newborn(candidate)?;
                Ok((Site::Own(namespace), pid, watched))
            }
        }
    }

    /// A process with a namespace that no other container has: who has just been born shares it with nobody yet.
    fn newborn(&self, candidate: Candidate) -> Result<(i32, Watched, Namespace), ProcessError> {
        let (pid, watched, namespace) = candidate.with_own_namespace()?;
        match self.ports.in_use(namespace.id()) {
            true => Err(ProcessError::Occupied { pid }),
            false => Ok((pid, watched, namespace)),
        }
    }

    /// Opens the socket of a container whose namespace has been born, at the address that it was promised.
    async fn give_birth(
        &mut self,
        info: &Arc<ContainerInfo>,
        namespace: Namespace,
    ) -> Result<(), AttachError> {
        let mut born = ContainerInfo::clone(info);
        let promised = Choice {
            host: info.address.map(|address| address.ip()),
            ports: info.address.map(|address| address.port()).into_iter().collect(),
        };
        let name = info.origin.container_id.to_string();
        self.listen_within(&mut born, namespace, promised, &name).await.map_err(|error| match error {
            ReserveError::Shard(error) => AttachError::Shard(error),
            ReserveError::Enter { source } => AttachError::Enter { source },
            error => AttachError::Enter { source: std::io::Error::other(error.to_string()) },
        })?;
        self.change(info.allocation, |info| *info = born);
        Ok(())
    }

    fn reserved_at(&self, allocation: Allocation) -> Duration {
        self.entries.get(&allocation).map_or(Duration::ZERO, |entry| entry.since_boot)
    }
}
