//! Attaching: which process a container is, and the socket of one whose network namespace was not born before.

use std::sync::Arc;
use std::time::Duration;

use super::Table;
use crate::containers::Process;
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::{AttachError, ProcessError, ReserveError};
use crate::containers::handle::{Bound, Handle};
use crate::containers::process::Candidate;
use crate::containers::socket::Site;
use crate::containers::state::{Guarded, Place};
use crate::model::{Allocation, ContainerId};
use crate::net::listener;
use crate::net::netns::{Choice, Namespace, NamespaceId};
use crate::net::process::{self, Watched};

impl Table {
    pub(super) async fn attach(
        &mut self,
        id: &ContainerId,
        process: Process,
    ) -> Result<Arc<ContainerInfo>, AttachError> {
        let info = self.attachable(id)?;
        if info.attached {
            let same = info.pid == Some(process.pid);
            return again(info, same);
        }
        let candidate = Candidate::find(process.pid)?.started_at(process.start_ticks)?;
        self.take_in(info, candidate, None).await
    }

    pub(super) async fn attach_handle(
        &mut self,
        id: &ContainerId,
        handle: Handle,
    ) -> Result<Arc<ContainerInfo>, AttachError> {
        let info = self.attachable(id)?;
        if info.attached {
            let known = self.entries.get(&info.allocation).and_then(|entry| entry.process.clone());
            let same = known.is_some_and(|known| process::are_one(known.handle(), &handle.process));
            return again(info, same);
        }
        let (candidate, socket) = Candidate::of(handle).await?;
        self.take_in(info, candidate, socket).await
    }

    fn attachable(&self, id: &ContainerId) -> Result<Arc<ContainerInfo>, AttachError> {
        self.living(id).ok_or_else(|| match self.directory.container(id) {
            Some(_) => AttachError::Ended { id: id.clone() },
            None => AttachError::Unknown { id: id.clone() },
        })
    }

    async fn take_in(
        &mut self,
        info: Arc<ContainerInfo>,
        candidate: Candidate,
        socket: Option<Bound>,
    ) -> Result<Arc<ContainerInfo>, AttachError> {
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
                    self.open_deferred_socket(&info, namespace, socket).await?;
                }
                (pid, watched)
            }
        };
        // What it sends comes after this, so nobody has been let in before the guard is there.
        let mut attached = ContainerInfo::clone(&self.living(&info.origin.container_id).unwrap_or(info));
        attached.pid = Some(pid).filter(|pid| *pid > 0);
        attached.attached = true;
        self.protect(&mut attached);
        let attached = self.replace(attached);
        if let Some(entry) = self.entries.get_mut(&attached.allocation) {
            entry.deadline = None;
        }
        Ok(self.watch(attached.allocation, watched).await.unwrap_or(attached))
    }

    /// Has the kernel guard the listener of a container that shares our network, where there is a guard. One that cannot
    /// be guarded is served all the same, and says why.
    pub(super) fn protect(&mut self, info: &mut ContainerInfo) {
        let (Some(guard), Place::Shared, Some(address), Some(pid)) =
            (&mut self.guard, info.place, info.address, info.pid)
        else {
            return;
        };
        info.guarded = match guard.protect(address, pid, info.origin.container_id.as_str()) {
            Ok(()) => Guarded::On,
            Err(why) => Guarded::Unavailable(why.to_string().into()),
        };
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
    async fn open_deferred_socket(
        &mut self,
        info: &Arc<ContainerInfo>,
        namespace: Namespace,
        socket: Option<Bound>,
    ) -> Result<(), AttachError> {
        let mut born = ContainerInfo::clone(info);
        if let Some(bound) = socket {
            self.listen_by(&mut born, namespace.id(), bound).await?;
            self.change(info.allocation, |info| *info = born);
            return Ok(());
        }
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

    /// Listens by a socket that somebody opened who may enter the namespace, which this program may not.
    async fn listen_by(
        &mut self,
        born: &mut ContainerInfo,
        namespace: NamespaceId,
        bound: Bound,
    ) -> Result<(), AttachError> {
        if bound.is_astray(born.address) {
            return Err(AttachError::Astray { address: bound.address });
        }
        let Bound { socket, address } = bound;
        let failed = |source| AttachError::Enter { source };
        socket.set_nonblocking(true).map_err(failed)?;
        listener::set_receive_buffer(&socket, self.next_buffer()).map_err(failed)?;
        self.listen(born, Some((socket, address))).await.map_err(|error| match error {
            ReserveError::Shard(error) => AttachError::Shard(error),
            error => failed(std::io::Error::other(error.to_string())),
        })?;
        born.place = Place::Own(namespace);
        self.ports.take(namespace, born.origin.container_id.as_str(), address.port());
        Ok(())
    }

    fn reserved_at(&self, allocation: Allocation) -> Duration {
        self.entries.get(&allocation).map_or(Duration::ZERO, |entry| entry.since_boot)
    }
}

/// Whoever says twice what it has said hears what it has heard.
fn again(info: Arc<ContainerInfo>, same: bool) -> Result<Arc<ContainerInfo>, AttachError> {
    match same {
        true => Ok(info),
        false => {
            Err(AttachError::Another { id: info.origin.container_id.clone(), pid: info.pid.unwrap_or(0) })
        }
    }
}
