//! Containers of an earlier life of the agent, or of the process before: looked at before they are believed, and put back at
//! their addresses.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Entry, Table};
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::{ProcessError, ReserveError};
use crate::containers::image::Image;
use crate::containers::process::Candidate;
use crate::containers::reservation::Network;
use crate::containers::state::{Place, State};
use crate::model::{Allocation, Timestamp};
use crate::net::clock;
use crate::net::listener;
use crate::net::netns::{Choice, Namespace};
use crate::net::process::Watched;

/// How often it is tried to open the addresses of those that are lost.
const RETRY: Duration = Duration::from_secs(5);

/// What became of the containers that were written down.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// Back at their addresses, or waiting for their processes.
    pub kept: usize,
    /// Running, at an address that could not be opened.
    pub lost: usize,
    /// Ended meanwhile, or before.
    pub gone: usize,
}

/// Why a container is not back.
#[derive(Debug)]
enum Missing {
    /// It has ended.
    Ended,
    /// It lives, and is not served.
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

impl Table {
    /// Takes back the containers that an earlier life of the agent wrote down. Only what is still the same process, in the
    /// same cgroup and network namespace, gets its address again.
    pub async fn restore(&mut self, images: Vec<Image>) -> Restored {
        self.unix.clear();
        let mut restored = Restored::default();
        for image in images {
            self.next = self.next.max(image.allocation.0.saturating_add(1));
            match self.bring_back(image).await {
                State::Gone => restored.gone += 1,
                State::Lost => restored.lost += 1,
                _ => restored.kept += 1,
            }
        }
        restored
    }

    async fn bring_back(&mut self, image: Image) -> State {
        let now = clock::wall();
        if image.state.is_finished() {
            // The agent may have been killed while it was draining: then nobody has written down when it ended.
            let until = image.finished_at.unwrap_or(now).plus(self.settings.tombstone);
            return self.restore_finished(&image.gone(now, until));
        }
        let (container, task) = (image.origin.container_id.clone(), image.origin.task_id.clone());
        match self.reopen(&image).await {
            Ok((info, process)) => {
                let (allocation, state) = (info.allocation, info.state);
                self.put_back(info, &image);
                if let Some(watched) = process {
                    self.watch(allocation, watched).await;
                }
                state
            }
            Err(Missing::Ended) => {
                tracing::info!(%container, %task, "a container ended while the agent was away");
                self.restore_finished(&image.gone(now, now.plus(self.settings.tombstone)))
            }
            Err(Missing::Lost(why)) => {
                tracing::warn!(%container, %task, why, "a running container's address cannot be opened again");
                let mut info = image.info();
                info.state = State::Lost;
                info.reason = Some(lost(&why));
                self.put_back(info, &image);
                let process = image.pid.and_then(|pid| Self::same_process(&image, pid).ok());
                if let Some(candidate) = process {
                    let (_, watched) = candidate.taken();
                    self.watch(image.allocation, watched).await;
                }
                self.lost.insert(image.allocation, image);
                State::Lost
            }
        }
    }

    /// Tries again to open the addresses of those that are lost.
    pub(super) async fn retry_lost(&mut self) {
        if self.lost.is_empty() || self.retried.elapsed() < RETRY {
            return;
        }
        self.try_lost().await;
    }

    /// The same at once; answers who is back.
    pub(super) async fn try_lost(&mut self) -> Vec<Allocation> {
        let mut back = Vec::new();
        self.retried = Instant::now();
        let images: Vec<_> = self.lost.values().cloned().collect();
        for image in images {
            let allocation = image.allocation;
            match self.reopen(&image).await {
                Ok((info, process)) => {
                    self.lost.remove(&allocation);
                    let (container, task) = (&info.origin.container_id, &info.origin.task_id);
                    tracing::info!(%container, %task, "a container that was lost is back at its address");
                    self.replace(info);
                    back.push(allocation);
                    if let Some(watched) = process {
                        if let Some(watch) = self.entries.get_mut(&allocation).and_then(|e| e.watch.take()) {
                            watch.abort();
                        }
                        self.watch(allocation, watched).await;
                    }
                }
                Err(Missing::Ended) => drop(self.drain(allocation, "its process ended")),
                Err(Missing::Lost(why)) => {
                    let known = self.entries.get(&allocation);
                    if known.is_some_and(|entry| entry.info.reason != Some(lost(&why))) {
                        self.change(allocation, |info| info.reason = Some(lost(&why)));
                    }
                }
            }
        }
        back
    }

    /// The process that was the container, if it still is.
    fn same_process(image: &Image, pid: i32) -> Result<Candidate, Missing> {
        let Some(identity) = image.identity else {
            return Err(Missing::Lost(
                "nothing is known by which its process could be told from others".to_owned(),
            ));
        };
        let candidate = Candidate::find(pid)?.started_at(Some(identity.start_ticks))?;
        match (identity.cgroup, candidate.cgroup()) {
            (Some(was), Some(is)) if was != is => {
                Err(Missing::Lost("its process is in another cgroup than it was".to_owned()))
            }
            _ => Ok(candidate),
        }
    }

    /// Looks whether a container is what it was, and opens its sockets.
    async fn reopen(&mut self, image: &Image) -> Result<(ContainerInfo, Option<Watched>), Missing> {
        let mut info = image.info();
        let candidate = match (image.attached, image.pid) {
            (false, _) => None,
            (true, Some(pid)) => Some(Self::same_process(image, pid)?),
            (true, None) => return Err(Missing::Lost("its process has no number here".to_owned())),
        };
        // Neither has an address that could be opened.
        if matches!((image.state, image.address, &image.unix), (State::Mute, ..) | (State::Lost, None, None))
        {
            return Ok((info, candidate.map(|candidate| candidate.taken().1)));
        }
        info.reason = None;
        info.warnings.clear();
        let unix_only = image.unix.as_ref().is_some_and(|unix| unix.only);
        let process = match (image.place, image.address) {
            _ if unix_only => {
                self.listen(&mut info, None).await?;
                candidate.map(|candidate| candidate.taken().1)
            }
            (Place::Unborn, _) | (_, None) => candidate.map(|candidate| candidate.taken().1),
            (Place::Shared, Some(address)) => {
                let own = Namespace::own()?;
                let process = candidate.map(|candidate| candidate.in_namespace(own)).transpose()?;
                if !self.addresses.take(address) {
                    return Err(ReserveError::AddressTaken { address }.into());
                }
                let opened = match listener::open(address, self.next_buffer()) {
                    Ok(socket) => self.listen(&mut info, Some((socket, address))).await,
                    Err(source) if source.kind() == ErrorKind::AddrInUse => {
                        Err(ReserveError::AddressTaken { address })
                    }
                    Err(source) => Err(ReserveError::Socket { address, source }),
                };
                if let Err(error) = opened {
                    self.addresses.give_back(address, Duration::ZERO);
                    return Err(error.into());
                }
                process.map(|candidate| candidate.taken().1)
            }
            (Place::Own(expected), Some(address)) => {
                let (namespace, process) = match (candidate, &image.network) {
                    (Some(candidate), _) => {
                        let (_, watched, namespace) =
                            candidate.in_namespace(expected)?.with_own_namespace()?;
                        (namespace, Some(watched))
                    }
                    (None, Network::Path(path)) => {
                        let namespace = Namespace::open(path).map_err(ReserveError::from)?;
                        (namespace, None)
                    }
                    (None, _) => return Err(Missing::Lost("its network namespace has no name".to_owned())),
                };
                if namespace.id() != expected {
                    return Err(Missing::Lost(
                        "another network namespace is in the place of its own".to_owned(),
                    ));
                }
                // A sibling may have it, of whom nothing was written down.
                if self.ports.has(expected, address.port()) {
                    return Err(ReserveError::AddressTaken { address }.into());
                }
                let choice = Choice { host: Some(address.ip()), ports: vec![address.port()] };
                self.listen_within(&mut info, namespace, choice, image.name()).await?;
                process
            }
        };
        if info.attached {
            self.protect(&mut info);
        }
        Ok((info, process))
    }

    pub(super) fn put_back(&mut self, info: ContainerInfo, image: &Image) {
        let info = Arc::new(info);
        self.live.insert(info.origin.container_id.clone(), info.allocation);
        let deadline = image.deadline.map(from_now);
        let entry = Entry {
            info: Arc::clone(&info),
            deadline,
            since_boot: image.since_boot,
            process: None,
            watch: None,
        };
        self.entries.insert(info.allocation, entry);
        self.directory.put(&info);
    }

    /// Goes on draining a container that had ended when the process before handed it over.
    pub(super) fn end_here(&mut self, image: &Image) {
        // Its counts are not known until it is drained.
        let info = Arc::new(ContainerInfo { last: None, ..image.info() });
        match (info.address, info.place) {
            (Some(address), Place::Shared) => drop(self.addresses.take(address)),
            (Some(address), Place::Own(namespace)) => {
                self.ports.take(namespace, image.name(), address.port());
            }
            _ => {}
        }
        let entry = Entry {
            info: Arc::clone(&info),
            deadline: None,
            since_boot: image.since_boot,
            process: None,
            watch: None,
        };
        self.entries.insert(info.allocation, entry);
        self.directory.put(&info);
        self.empty(info.allocation);
    }

    /// Shows a container that has ended, until its tombstone goes. Its address rests meanwhile.
    pub(super) fn restore_finished(&mut self, image: &Image) -> State {
        let info = Arc::new(image.info());
        let rested = image.finished_at.map_or(Duration::ZERO, |at| clock::wall().since(at));
        let until = self.started.elapsed() + self.settings.rest.saturating_sub(rested);
        match (image.address, image.place) {
            (Some(address), Place::Shared) if self.addresses.take(address) => {
                self.addresses.give_back(address, until);
            }
            (Some(address), Place::Own(namespace)) if !self.ports.has(namespace, address.port()) => {
                self.ports.take(namespace, image.name(), address.port());
                self.ports.give_back(namespace, address.port(), until);
            }
            _ => {}
        }
        self.store.open(info.allocation, Arc::clone(&info.origin), info.reserved_at);
        self.store.ended(info.allocation);
        let deadline = image.deadline.map(from_now);
        let since_boot = image.since_boot;
        let entry = Entry { info: Arc::clone(&info), deadline, since_boot, process: None, watch: None };
        self.entries.insert(info.allocation, entry);
        self.directory.put(&info);
        State::Gone
    }
}

fn lost(why: &str) -> String {
    format!("its address could not be opened again: {why}")
}

fn from_now(deadline: Timestamp) -> Instant {
    Instant::now() + deadline.since(clock::wall())
}
