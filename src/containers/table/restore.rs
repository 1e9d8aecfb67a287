//! Restores containers of a previous run or of the previous process: validates them, and opens their addresses again.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{ContainerEntry, ContainerTable};
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::{ProcessError, ReserveError};
use crate::containers::image::ContainerSnapshot;
use crate::containers::process::Candidate;
use crate::containers::reservation::ContainerNetwork;
use crate::containers::state::{LifecycleState, SocketNamespace};
use crate::model::{Allocation, Timestamp};
use crate::net::clock;
use crate::net::listener;
use crate::net::netns::{Choice, Namespace};
use crate::net::process::Watched;

/// Interval at which the addresses of lost containers are retried.
const RETRY: Duration = Duration::from_secs(5);

/// How many containers of the journal were restored.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct RestoredCounts {
    /// Restored at their addresses, or waiting for their processes.
    pub kept: usize,
    /// Running, at an address that could not be opened.
    pub lost: usize,
    /// Ended meanwhile or before.
    pub gone: usize,
}

/// Why a container was not restored.
#[derive(Debug)]
enum Missing {
    /// It has ended.
    Ended,
    /// It is live but cannot be served.
    Lost(String),
}

impl From<ProcessError> for Missing {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::NoProcess { .. } | ProcessError::Recycled { .. } => Self::Ended,
            error => Self::Lost(error.to_string()),
        }
    }
}

impl From<ReserveError> for Missing {
    fn from(error: ReserveError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<io::Error> for Missing {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

impl ContainerTable {
    /// Restores the containers of the journal. A container gets its address again only if it is still the same process,
    /// in the same cgroup and network namespace.
    pub async fn restore_containers(&mut self, images: Vec<ContainerSnapshot>) -> RestoredCounts {
        self.unix.clear();
        let mut restored = RestoredCounts::default();
        for image in images {
            self.next = self.next.max(image.allocation.0.saturating_add(1));
            match self.bring_back(image).await {
                LifecycleState::Gone => restored.gone += 1,
                LifecycleState::Lost => restored.lost += 1,
                _ => restored.kept += 1,
            }
        }
        restored
    }

    async fn bring_back(&mut self, image: ContainerSnapshot) -> LifecycleState {
        let now = clock::wall_time();
        if image.state.is_finished() {
            // The agent may have been killed while it was draining: then the time of its end was not written.
            let until = image.finished_at.unwrap_or(now).saturating_add(self.settings.tombstone);
            return self.restore_finished(&image.into_gone(now, until));
        }
        let (container, task) = (image.origin.container_id.clone(), image.origin.task_id.clone());
        match self.reopen_sockets(&image).await {
            Ok((info, process)) => {
                let (allocation, state) = (info.allocation, info.state);
                self.put_back(info, &image);
                if let Some(watched) = process {
                    self.watch_process(allocation, watched).await;
                }
                state
            }
            Err(Missing::Ended) => {
                tracing::info!(%container, %task, "a container ended while no agent was running");
                self.restore_finished(&image.into_gone(now, now.saturating_add(self.settings.tombstone)))
            }
            Err(Missing::Lost(why)) => {
                tracing::warn!(%container, %task, why, "a running container's address cannot be opened again");
                let mut info = image.to_info();
                info.state = LifecycleState::Lost;
                info.reason = Some(lost_reason(&why));
                self.put_back(info, &image);
                let process = image.pid.and_then(|pid| Self::same_process(&image, pid).ok());
                if let Some(candidate) = process {
                    let (_, watched) = candidate.into_parts();
                    self.watch_process(image.allocation, watched).await;
                }
                self.lost.insert(image.allocation, image);
                LifecycleState::Lost
            }
        }
    }

    /// Retries the addresses of lost containers.
    pub(super) async fn retry_lost(&mut self) {
        if self.lost.is_empty() || self.retried.elapsed() < RETRY {
            return;
        }
        self.try_lost().await;
    }

    /// The same at once; returns the restored containers.
    pub(super) async fn try_lost(&mut self) -> Vec<Allocation> {
        let mut back = Vec::new();
        self.retried = Instant::now();
        let images: Vec<_> = self.lost.values().cloned().collect();
        for image in images {
            let allocation = image.allocation;
            match self.reopen_sockets(&image).await {
                Ok((info, process)) => {
                    self.lost.remove(&allocation);
                    let (container, task) = (&info.origin.container_id, &info.origin.task_id);
                    tracing::info!(%container, %task, "a lost container has its address again");
                    self.replace_info(info);
                    back.push(allocation);
                    if let Some(watched) = process {
                        if let Some(watch) = self.entries.get_mut(&allocation).and_then(|e| e.watch.take()) {
                            watch.abort();
                        }
                        self.watch_process(allocation, watched).await;
                    }
                }
                Err(Missing::Ended) => drop(self.start_drain(allocation, "its process ended")),
                Err(Missing::Lost(why)) => {
                    let known = self.entries.get(&allocation);
                    if known.is_some_and(|entry| entry.info.reason != Some(lost_reason(&why))) {
                        self.update_info(allocation, |info| info.reason = Some(lost_reason(&why)));
                    }
                }
            }
        }
        back
    }

    /// The container's process, if it is still the same.
    fn same_process(image: &ContainerSnapshot, pid: i32) -> Result<Candidate, Missing> {
        let Some(identity) = image.identity else {
            return Err(Missing::Lost(
                "its process cannot be identified: the journal has no start time for it".to_owned(),
            ));
        };
        let candidate = Candidate::find(pid)?.started_at(Some(identity.start_ticks))?;
        match (identity.cgroup, candidate.cgroup_id()) {
            (Some(was), Some(is)) if was != is => {
                Err(Missing::Lost("its process is in another cgroup than before".to_owned()))
            }
            _ => Ok(candidate),
        }
    }

    /// Validates a container, and opens its sockets.
    async fn reopen_sockets(
        &mut self,
        image: &ContainerSnapshot,
    ) -> Result<(ContainerInfo, Option<Watched>), Missing> {
        let mut info = image.to_info();
        let candidate = match (image.attached, image.pid) {
            (false, _) => None,
            (true, Some(pid)) => Some(Self::same_process(image, pid)?),
            (true, None) => {
                return Err(Missing::Lost("its process has no id in this PID namespace".to_owned()));
            }
        };
        // These have no address that could be opened.
        if matches!(
            (image.state, image.address, &image.unix),
            (LifecycleState::Mute, ..) | (LifecycleState::Lost, None, None)
        ) {
            return Ok((info, candidate.map(|candidate| candidate.into_parts().1)));
        }
        info.reason = None;
        info.warnings.clear();
        let unix_only = image.unix.as_ref().is_some_and(|unix| unix.only);
        let process = match (image.place, image.address) {
            _ if unix_only => {
                self.start_listening(&mut info, None).await?;
                candidate.map(|candidate| candidate.into_parts().1)
            }
            (SocketNamespace::Unborn, _) | (_, None) => candidate.map(|candidate| candidate.into_parts().1),
            (SocketNamespace::Shared, Some(address)) => {
                let own = Namespace::own_id()?;
                let process = candidate.map(|candidate| candidate.in_namespace(own)).transpose()?;
                if !self.addresses.take_exact(address) {
                    return Err(ReserveError::AddressTaken { address }.into());
                }
                let opened = match listener::open(address, self.next_buffer()) {
                    Ok(socket) => self.start_listening(&mut info, Some((socket, address))).await,
                    Err(source) if source.kind() == ErrorKind::AddrInUse => {
                        Err(ReserveError::AddressTaken { address })
                    }
                    Err(source) => Err(ReserveError::Socket { address, source }),
                };
                if let Err(error) = opened {
                    self.addresses.give_back(address, Duration::ZERO);
                    return Err(error.into());
                }
                process.map(|candidate| candidate.into_parts().1)
            }
            (SocketNamespace::Own(expected), Some(address)) => {
                let (namespace, process) = match (candidate, &image.network) {
                    (Some(candidate), _) => {
                        let (_, watched, namespace) =
                            candidate.in_namespace(expected)?.with_own_namespace()?;
                        (namespace, Some(watched))
                    }
                    (None, ContainerNetwork::Path(path)) => {
                        let namespace = Namespace::open(path).map_err(ReserveError::from)?;
                        (namespace, None)
                    }
                    (None, _) => return Err(Missing::Lost("its network namespace has no path".to_owned())),
                };
                if namespace.id() != expected {
                    return Err(Missing::Lost("its path leads to another network namespace".to_owned()));
                }
                // Another container of the pod may have it, one that is not in the journal.
                if self.ports.is_port_taken(expected, address.port()) {
                    return Err(ReserveError::AddressTaken { address }.into());
                }
                let choice = Choice { host: Some(address.ip()), ports: vec![address.port()] };
                self.listen_within(&mut info, namespace, choice, image.name()).await?;
                process
            }
        };
        if info.attached {
            self.guard_listener(&mut info);
        }
        Ok((info, process))
    }

    pub(super) fn put_back(&mut self, info: ContainerInfo, image: &ContainerSnapshot) {
        let info = Arc::new(info);
        self.live.insert(info.origin.container_id.clone(), info.allocation);
        let deadline = image.deadline.map(from_now);
        let entry = ContainerEntry {
            info: Arc::clone(&info),
            deadline,
            since_boot: image.since_boot,
            process: None,
            watch: None,
        };
        self.entries.insert(info.allocation, entry);
        self.directory.upsert_container(&info);
    }

    /// Continues to drain a container that had ended before the hand-over.
    pub(super) fn end_here(&mut self, image: &ContainerSnapshot) {
        // Its counts are not known until it is drained.
        let info = Arc::new(ContainerInfo { last: None, ..image.to_info() });
        match (info.address, info.place) {
            (Some(address), SocketNamespace::Shared) => drop(self.addresses.take_exact(address)),
            (Some(address), SocketNamespace::Own(namespace)) => {
                self.ports.claim_port(namespace, image.name(), address.port());
            }
            _ => {}
        }
        let entry = ContainerEntry {
            info: Arc::clone(&info),
            deadline: None,
            since_boot: image.since_boot,
            process: None,
            watch: None,
        };
        self.entries.insert(info.allocation, entry);
        self.directory.upsert_container(&info);
        self.drain_sockets(info.allocation);
    }

    /// Shows an ended container until its tombstone time is over. Its address rests meanwhile.
    pub(super) fn restore_finished(&mut self, image: &ContainerSnapshot) -> LifecycleState {
        let info = Arc::new(image.to_info());
        let rested = image.finished_at.map_or(Duration::ZERO, |at| clock::wall_time().duration_since(at));
        let until = self.started.elapsed() + self.settings.rest.saturating_sub(rested);
        match (image.address, image.place) {
            (Some(address), SocketNamespace::Shared) if self.addresses.take_exact(address) => {
                self.addresses.give_back(address, until);
            }
            (Some(address), SocketNamespace::Own(namespace))
                if !self.ports.is_port_taken(namespace, address.port()) =>
            {
                self.ports.claim_port(namespace, image.name(), address.port());
                self.ports.give_back(namespace, address.port(), until);
            }
            _ => {}
        }
        self.store.open(info.allocation, Arc::clone(&info.origin), info.reserved_at);
        self.store.mark_ended(info.allocation);
        let deadline = image.deadline.map(from_now);
        let since_boot = image.since_boot;
        let entry =
            ContainerEntry { info: Arc::clone(&info), deadline, since_boot, process: None, watch: None };
        self.entries.insert(info.allocation, entry);
        self.directory.upsert_container(&info);
        LifecycleState::Gone
    }
}

fn lost_reason(why: &str) -> String {
    format!("its address could not be opened again: {why}")
}

fn from_now(deadline: Timestamp) -> Instant {
    Instant::now() + deadline.duration_since(clock::wall_time())
}
