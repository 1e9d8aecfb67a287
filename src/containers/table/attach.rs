//! Attaches the process of a container, and opens its socket if its network namespace did not exist before.

use std::sync::Arc;
use std::time::Duration;

use super::ContainerTable;
use crate::containers::ProcessRef;
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::{AttachError, ProcessError, ReserveError};
use crate::containers::process::{Candidate, Handle, PassedSocket};
use crate::containers::socket::Site;
use crate::containers::state::{Guarded, SocketNamespace};
use crate::model::{Allocation, ContainerId};
use crate::net::listener;
use crate::net::netns::{Choice, Namespace, NamespaceId};
use crate::net::process::{self, Watched};

impl ContainerTable {
    pub(super) async fn attach_process(
        &mut self,
        id: &ContainerId,
        process: ProcessRef,
    ) -> Result<Arc<ContainerInfo>, AttachError> {
        let info = self.find_attachable(id)?;
        if info.attached {
            let same = info.pid == Some(process.pid);
            return answer_repeated_attach(info, same);
        }
        let candidate = Candidate::find(process.pid)?.started_at(process.start_ticks)?;
        self.take_in(info, candidate, None).await
    }

    pub(super) async fn attach_handle(
        &mut self,
        id: &ContainerId,
        handle: Handle,
    ) -> Result<Arc<ContainerInfo>, AttachError> {
        let info = self.find_attachable(id)?;
        if info.attached {
            let known = self.entries.get(&info.allocation).and_then(|entry| entry.process.clone());
            let same = known.is_some_and(|known| process::are_one(known.process_handle(), &handle.process));
            return answer_repeated_attach(info, same);
        }
        let (candidate, socket) = Candidate::from_handle(handle).await?;
        self.take_in(info, candidate, socket).await
    }

    fn find_attachable(&self, id: &ContainerId) -> Result<Arc<ContainerInfo>, AttachError> {
        self.find_live_container(id).ok_or_else(|| match self.directory.find_container(id) {
            Some(_) => AttachError::Ended { id: id.clone() },
            None => AttachError::Unknown { id: id.clone() },
        })
    }

    async fn take_in(
        &mut self,
        info: Arc<ContainerInfo>,
        candidate: Candidate,
        socket: Option<PassedSocket>,
    ) -> Result<Arc<ContainerInfo>, AttachError> {
        let (pid, watched) = match info.place {
            // Without a socket, attaching the wrong process does no harm.
            _ if !info.state.can_attach() => candidate.into_parts(),
            SocketNamespace::Shared => {
                let own = Namespace::own_id().map_err(|source| AttachError::Enter { source })?;
                candidate.in_namespace(own)?.into_parts()
            }
            SocketNamespace::Own(namespace) => candidate.in_namespace(namespace)?.into_parts(),
            SocketNamespace::Unborn => {
                let candidate = candidate.born_after(self.reserved_at(info.allocation))?;
                let (pid, watched, namespace) = self.require_own_namespace(candidate)?;
                // A container that requested only a Unix socket has it already.
                if info.address.is_some() {
                    self.open_deferred_socket(&info, namespace, socket).await?;
                }
                (pid, watched)
            }
        };
        // What it sends comes after this, so nothing was let in before the guard is there.
        let mut attached =
            ContainerInfo::clone(&self.find_live_container(&info.origin.container_id).unwrap_or(info));
        attached.pid = Some(pid).filter(|pid| *pid > 0);
        attached.attached = true;
        self.guard_listener(&mut attached);
        let attached = self.replace_info(attached);
        if let Some(entry) = self.entries.get_mut(&attached.allocation) {
            entry.deadline = None;
        }
        Ok(self.watch_process(attached.allocation, watched).await.unwrap_or(attached))
    }

    /// Guards the listener of a container that shares the agent's network, if there is a guard. A listener that cannot
    /// be guarded is served anyway, with the reason in its info.
    pub(super) fn guard_listener(&mut self, info: &mut ContainerInfo) {
        let (Some(guard), SocketNamespace::Shared, Some(address), Some(pid)) =
            (&mut self.guard, info.place, info.address, info.pid)
        else {
            return;
        };
        info.guarded = match guard.protect_listener(address, pid, info.origin.container_id.as_str()) {
            Ok(()) => Guarded::On,
            Err(why) => Guarded::Unavailable(why.to_string().into()),
        };
    }

    /// Determines the namespace of a container that is reserved with its process, and validates the process.
    pub(super) fn validate_candidate(
        &self,
        site: Site,
        candidate: Candidate,
    ) -> Result<(Site, i32, Watched), ProcessError> {
        match site {
            Site::Shared => {
                let own = Namespace::own_id();
                let own = own.map_err(|source| ProcessError::Hidden { pid: candidate.pid(), source })?;
                let (pid, watched) = candidate.in_namespace(own)?.into_parts();
                Ok((Site::Shared, pid, watched))
            }
            Site::Own(namespace) => {
                let (pid, watched) = candidate.in_namespace(namespace.id())?.into_parts();
                Ok((Site::Own(namespace), pid, watched))
            }
            Site::Unborn => {
                let (pid, watched, namespace) = self.require_own_namespace(candidate)?;
                Ok((Site::Own(namespace), pid, watched))
            }
        }
    }

    /// A process with a namespace that no other container has: a process that was just created does not share it yet.
    fn require_own_namespace(&self, candidate: Candidate) -> Result<(i32, Watched, Namespace), ProcessError> {
        let (pid, watched, namespace) = candidate.with_own_namespace()?;
        match self.ports.in_use(namespace.id()) {
            true => Err(ProcessError::Occupied { pid }),
            false => Ok((pid, watched, namespace)),
        }
    }

    /// Opens the socket of a container in its new namespace, at the promised address.
    async fn open_deferred_socket(
        &mut self,
        info: &Arc<ContainerInfo>,
        namespace: Namespace,
        socket: Option<PassedSocket>,
    ) -> Result<(), AttachError> {
        let mut born = ContainerInfo::clone(info);
        if let Some(bound) = socket {
            self.listen_by(&mut born, namespace.id(), bound).await?;
            self.update_info(info.allocation, |info| *info = born);
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
        self.update_info(info.allocation, |info| *info = born);
        Ok(())
    }

    /// Listens by a socket that a process opened which may enter the namespace; this program may not.
    async fn listen_by(
        &mut self,
        born: &mut ContainerInfo,
        namespace: NamespaceId,
        bound: PassedSocket,
    ) -> Result<(), AttachError> {
        if bound.is_astray(born.address) {
            return Err(AttachError::Astray { address: bound.address });
        }
        let PassedSocket { socket, address } = bound;
        let failed = |source| AttachError::Enter { source };
        socket.set_nonblocking(true).map_err(failed)?;
        listener::set_receive_buffer(&socket, self.next_buffer()).map_err(failed)?;
        self.start_listening(born, Some((socket, address))).await.map_err(|error| match error {
            ReserveError::Shard(error) => AttachError::Shard(error),
            error => failed(std::io::Error::other(error.to_string())),
        })?;
        born.place = SocketNamespace::Own(namespace);
        self.ports.claim_port(namespace, born.origin.container_id.as_str(), address.port());
        Ok(())
    }

    fn reserved_at(&self, allocation: Allocation) -> Duration {
        self.entries.get(&allocation).map_or(Duration::ZERO, |entry| entry.since_boot)
    }
}

/// A repeated call gets the answer of the first one.
fn answer_repeated_attach(info: Arc<ContainerInfo>, same: bool) -> Result<Arc<ContainerInfo>, AttachError> {
    match same {
        true => Ok(info),
        false => {
            Err(AttachError::Another { id: info.origin.container_id.clone(), pid: info.pid.unwrap_or(0) })
        }
    }
}
