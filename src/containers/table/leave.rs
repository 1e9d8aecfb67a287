//! Hands the containers over to another process, and takes over from the previous one.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{ContainerEntry, ContainerTable, TableEvent};
use crate::aggregate::Accounting;
use crate::containers::directory::ContainerInfo;
use crate::containers::leaving::{Arriving, Handed, Leaving, Manifest, ReadyContainer};
use crate::containers::state::{LifecycleState, SocketNamespace};
use crate::model::Allocation;
use crate::net::clock;
use crate::net::guard::Guard;
use crate::net::process::Watched;
use crate::shard::{NewListener, OpenError, SentAhead, SuspendedContainers};

/// How long to wait for draining containers before receiving stops. The other process drains those that take longer;
/// their datagrams wait in the kernel. It is short because the runtime's plugin is stopped, and the runtime disconnects
/// it otherwise.
const ENDING: Duration = Duration::from_millis(300);
/// How long the table waits for the final counts of containers that shards have just drained, before the hand-over
/// fails. Everything is paused meanwhile.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

impl ContainerTable {
    /// Stops receiving, hands over the containers, and waits for the outcome.
    pub(super) async fn hand_over(
        &mut self,
        sent: SentAhead,
        reply: oneshot::Sender<std::io::Result<Leaving>>,
    ) {
        self.hand_over_within(ENDING, sent, reply).await;
    }

    /// The same with another time limit for draining containers.
    pub(super) async fn hand_over_within(
        &mut self,
        ending: Duration,
        sent: SentAhead,
        reply: oneshot::Sender<std::io::Result<Leaving>>,
    ) {
        // Most are drained quickly, and then only their final state has to be handed over.
        if !ending.is_zero() {
            let _the_rest_goes_over = timeout(ending, self.drained_all_but(|_| false)).await;
        }
        self.record_changes();
        let stopped = clock::since_boot();
        let suspended = match self.pool.suspend_containers().await {
            Ok(suspended) => suspended,
            Err(gone) => {
                let _not_waited_for = reply.send(Err(std::io::Error::other(gone)));
                return;
            }
        };
        let leaving = suspended.allocations();
        // Wait for the final counts of containers that were drained just before: the other process gets them in no
        // other way.
        let drained = self.drained_all_but(|allocation| leaving.contains(&allocation));
        if timeout(ON_ITS_WAY, drained).await.is_err() {
            suspended.resume_containers().await;
            let busy = "the final counts of containers that have just ended are not known yet; try again";
            let _not_waited_for = reply.send(Err(std::io::Error::other(busy)));
            return;
        }
        self.record_changes();
        let (outcome, decided) = oneshot::channel();
        let guard = self.guard.as_ref().map_or(Ok(Vec::new()), Guard::share_links);
        let leaving = self.build_manifest(&suspended, &sent, stopped).and_then(|(manifest, descriptors)| {
            Ok(Leaving { manifest, descriptors, guard: guard?, outcome })
        });
        let taken = match reply.send(leaving) {
            Ok(()) => decided.await.unwrap_or(false),
            Err(_) => false,
        };
        if taken {
            // Later requests wait until this process ends: the state is no longer here.
            self.suspended = Some(suspended);
            (self.ending, self.journal) = (true, None);
        } else {
            suspended.resume_containers().await;
        }
    }

    /// Waits until every draining container is drained, except those for which `some` is true.
    async fn drained_all_but(&mut self, some: impl Fn(Allocation) -> bool) {
        let is_waited_for = |table: &Self, (allocation, entry): (&Allocation, &ContainerEntry)| {
            entry.info.state == LifecycleState::Draining
                && !some(*allocation)
                && table.had_listener(&entry.info)
        };
        while self.entries.iter().any(|entry| is_waited_for(self, entry)) {
            match self.tasks.join_next().await {
                Some(Ok(TableEvent::Ended(allocation))) => self.handle_process_end(allocation),
                Some(Ok(TableEvent::Drained(allocation, stats))) => self.finish_drain(allocation, stats),
                Some(Err(_)) => {}
                None => break,
            }
        }
    }

    /// Whether a container has been on a shard. If not, it has no final counts to wait for; shards reply about it only
    /// after all containers have resumed.
    fn had_listener(&self, info: &ContainerInfo) -> bool {
        let has_address = info.address.is_some() && info.place != SocketNamespace::Unborn;
        !self.lost.contains_key(&info.allocation) && (has_address || info.unix.is_some())
    }

    fn build_manifest(
        &self,
        suspended: &SuspendedContainers,
        sent: &SentAhead,
        stopped: Duration,
    ) -> std::io::Result<(Manifest, Vec<OwnedFd>)> {
        let mut parts: HashMap<Allocation, _> =
            suspended.container_parts(sent).into_iter().map(|part| (part.allocation, part)).collect();
        let (mut containers, mut descriptors) = (Vec::new(), Vec::new());
        let mut all: Vec<_> = self.entries.keys().copied().collect();
        all.sort_unstable();
        for allocation in all {
            let Some(image) = self.snapshot_container(allocation) else { continue };
            let part = parts.remove(&allocation);
            let socket = part.as_ref().and_then(|part| part.socket);
            let unix = part.as_ref().and_then(|part| part.unix);
            let process = self.entries.get(&allocation).and_then(|entry| entry.process.as_ref());
            let given = [
                socket.map(|socket| socket.try_clone_to_owned()),
                unix.map(|(unix, _)| unix.try_clone_to_owned()),
                process.map(|process| process.process_handle().try_clone()),
            ];
            for descriptor in given.into_iter().flatten() {
                descriptors.push(descriptor?);
            }
            containers.push(Handed {
                image,
                senders: part.as_ref().and_then(|part| part.senders.clone()),
                kernel_drops: part.as_ref().map_or(0, |part| part.kernel_drops),
                last_problem: part.as_ref().and_then(|part| part.last_problem),
                udp: socket.is_some(),
                unix_queue: unix.map(|(_, queue)| queue),
                process: process.is_some(),
                aggregator: part.map(|part| part.aggregator),
            });
        }
        let forgotten: Accounting = self.directory.forgotten_accounting();
        let manifest =
            Manifest { containers, forgotten, next: self.next, not_before: suspended.now, stopped };
        Ok((manifest, descriptors))
    }

    /// Takes over the containers of the previous process. Returns when receiving resumed for all, as time since boot.
    ///
    /// # Errors
    /// When a shard does not take a socket.
    pub async fn take_over_containers(&mut self, arriving: Arriving) -> Result<Duration, OpenError> {
        self.next = arriving.next;
        self.directory.merge_forgotten_accounting(&arriving.forgotten);
        let (mut rest, mut opened) = (Vec::with_capacity(arriving.containers.len()), Vec::new());
        // Resume reading datagrams first.
        for ReadyContainer { image, before, udp, unix, process } in arriving.containers {
            if let Some(before) = before {
                let (allocation, origin) = (image.allocation, Arc::clone(&image.origin));
                let (gauge_sign, timer_unit) = (image.gauge_sign, image.timer_unit);
                let (socket, before) = (udp, Some(Box::new(before)));
                opened.push(NewListener { allocation, origin, socket, unix, gauge_sign, timer_unit, before });
            }
            rest.push((image, process));
        }
        self.pool.open_all(opened).await?;
        let receiving = clock::since_boot();
        for (image, process) in rest {
            if image.state == LifecycleState::Draining {
                self.end_here(&image);
                continue;
            }
            if image.state.is_finished() {
                self.restore_finished(&image);
                continue;
            }
            let mut info = image.to_info();
            if info.state == LifecycleState::Lost {
                self.lost.insert(image.allocation, image.clone());
            } else if info.state == LifecycleState::Listening {
                match (info.address, info.place) {
                    (Some(address), SocketNamespace::Shared) => drop(self.addresses.take_exact(address)),
                    (Some(address), SocketNamespace::Own(namespace)) => {
                        self.ports.claim_port(namespace, image.name(), address.port());
                    }
                    _ => {}
                }
                if info.attached {
                    self.guard_listener(&mut info);
                }
            }
            let allocation = info.allocation;
            self.put_back(info, &image);
            match process.map(Watched::from_handle) {
                Some(Ok(watched)) => drop(self.watch_process(allocation, watched).await),
                Some(Err(error)) => {
                    tracing::error!(container = %image.origin.container_id, %error, "cannot watch a process");
                }
                None => {}
            }
        }
        Ok(receiving)
    }
}
