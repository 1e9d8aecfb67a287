//! The end of containers: their sockets are read until empty, their addresses rest, and they stay readable for a while. Ends
//! are noticed as they happen, and found by comparing the table with living processes; of some containers of an earlier life
//! only windows came back.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{ContainerEntry, ContainerTable, TableEvent};
use crate::aggregate::{Accounting, GaugeSign, TimerUnit};
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::ReleaseError;
use crate::containers::reservation::{ContainerNetwork, Details};
use crate::containers::state::{Guarded, LifecycleState, SocketNamespace};
use crate::model::setting_name::setting_name;
use crate::model::{Allocation, ContainerId, Origin, TaskId, Timestamp};
use crate::net::clock;
use crate::shard::ContainerStats;

impl ContainerTable {
    pub(super) fn release_container(&mut self, id: &ContainerId) -> Result<Arc<ContainerInfo>, ReleaseError> {
        // A container that is draining or gone was released already; a repeated call changes nothing.
        let info = self.find_live_container(id).or_else(|| self.directory.find_container(id));
        let info = info.ok_or_else(|| ReleaseError::Unknown { id: id.clone() })?;
        Ok(self.start_drain(info.allocation, "released").unwrap_or(info))
    }

    pub(super) fn handle_process_end(&mut self, allocation: Allocation) {
        self.start_drain(allocation, "its process ended");
    }

    /// Starts to drain a live container.
    pub(super) fn start_drain(&mut self, allocation: Allocation, why: &str) -> Option<Arc<ContainerInfo>> {
        let info = Arc::clone(&self.entries.get(&allocation)?.info);
        if !info.state.is_live() {
            return Some(info);
        }
        tracing::info!(container = %info.origin.container_id, task = %info.origin.task_id, why, "draining");
        self.live.remove(&info.origin.container_id);
        let info = self.update_info(allocation, |info| info.state = LifecycleState::Draining)?;
        if let Some(entry) = self.entries.get_mut(&allocation) {
            entry.process = None;
            if let Some(watch) = entry.watch.take() {
                watch.abort();
            }
        }
        self.drain_sockets(allocation);
        Some(info)
    }

    /// Reads what is left in the sockets of an ended container.
    pub(super) fn drain_sockets(&mut self, allocation: Allocation) {
        let pool = Arc::clone(&self.pool);
        self.tasks.spawn(async move {
            let drained = pool.drain_container(allocation).await.ok().flatten();
            TableEvent::Drained(allocation, drained.map(Box::new))
        });
    }

    pub(super) fn finish_drain(&mut self, allocation: Allocation, stats: Option<Box<ContainerStats>>) {
        if stats.is_none() {
            // No shard had it, so none has marked its end in the store.
            self.store.mark_ended(allocation);
        }
        let last = stats.map(|stats| Arc::new(*stats));
        let Some(info) = self.update_info(allocation, |info| {
            info.state = LifecycleState::Gone;
            info.finished_at = Some(clock::wall_time());
            info.last = last;
        }) else {
            return;
        };
        if info.guarded == Guarded::On
            && let (Some(guard), Some(address)) = (&mut self.guard, info.address)
        {
            guard.unprotect_listener(address);
        }
        let until = self.started.elapsed() + self.settings.rest;
        match (info.address, info.place) {
            // A lost container did not hold its address.
            _ if self.lost.remove(&allocation).is_some() => {}
            (Some(address), SocketNamespace::Shared) => self.addresses.give_back(address, until),
            (Some(address), SocketNamespace::Own(namespace)) => {
                self.ports.give_back(namespace, address.port(), until);
            }
            (_, SocketNamespace::Unborn) | (None, _) => {}
        }
        if let Some(unix) = &info.unix {
            self.give_back_unix(unix);
        }
        if let Some(entry) = self.entries.get_mut(&allocation) {
            entry.deadline = Some(Instant::now() + self.settings.tombstone);
        }
    }

    /// Expires reservations, and forgets containers whose tombstone time is over.
    pub(super) fn look_over(&mut self) {
        let now = Instant::now();
        self.sweep_unix();
        let due = |entry: &&ContainerEntry| entry.deadline.is_some_and(|deadline| deadline <= now);
        let due: Vec<_> = self.entries.values().filter(due).map(|entry| Arc::clone(&entry.info)).collect();
        for info in due {
            if info.state.is_live() {
                self.start_drain(info.allocation, "no process was attached in time");
            } else if info.state == LifecycleState::Gone {
                self.forget_container(&info);
            }
        }
        self.make_room();
    }

    /// Forgets containers that have ended, oldest end first, while the node's memory is used up, so that running containers
    /// do not lose samples to them.
    fn make_room(&mut self) {
        if !self.pool.is_full() {
            return;
        }
        let ended =
            self.entries.values().map(|entry| &entry.info).filter(|info| info.state == LifecycleState::Gone);
        let mut ended: Vec<_> = ended.cloned().collect();
        ended.sort_by_key(|info| info.finished_at);
        let mut forgotten = 0_usize;
        for info in ended {
            if !self.pool.is_full() {
                break;
            }
            self.forget_container(&info);
            forgotten += 1;
        }
        if forgotten > 0 {
            tracing::warn!(
                forgotten,
                "the node's memory limit is reached, so some containers that have ended can no longer be read; raise {}",
                setting_name!("limits.node_memory")
            );
        }
    }

    fn forget_container(&mut self, info: &ContainerInfo) {
        self.entries.remove(&info.allocation);
        self.directory.forget_container(info.allocation);
        self.store.forget_container(info.allocation);
    }

    pub(super) async fn drain_all(&mut self, reply: oneshot::Sender<()>) {
        self.ending = true;
        // The containers keep running, and the next agent restores them from the journal.
        self.record_changes();
        self.journal = None;
        let stats_by_container = self.pool.stop().await;
        let mut stats_by_container: HashMap<_, _> =
            stats_by_container.into_iter().map(|stats| (stats.allocation, stats)).collect();
        let live: Vec<_> = self.live.drain().map(|(_, allocation)| allocation).collect();
        for allocation in live {
            self.finish_drain(allocation, stats_by_container.remove(&allocation).map(Box::new));
        }
        let _not_waited_for = reply.send(());
    }

    /// Drains a container whose process has ended without the table having handled it yet, so that its id is free.
    pub(super) fn drain_if_ended(&mut self, id: &ContainerId) {
        let Some(allocation) = self.live.get(id).copied() else { return };
        let process = self.entries.get(&allocation).and_then(|entry| entry.process.as_ref());
        if process.is_some_and(|process| process.has_ended()) {
            self.handle_process_end(allocation);
        }
    }
}

/// The result of a comparison.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReconcileReport {
    /// Number of containers that were live in the table.
    pub checked: usize,
    /// Those whose processes have ended unnoticed.
    pub ended: Vec<ContainerId>,
    /// Those that were lost and have their addresses again.
    pub back: Vec<ContainerId>,
    /// Those that are still lost. Their warnings contain the reason.
    pub lost: Vec<ContainerId>,
}

impl ContainerTable {
    /// Checks the process of each live container, and retries the addresses of lost ones at once.
    pub(super) async fn reconcile_containers(&mut self) -> ReconcileReport {
        let mut found = ReconcileReport { checked: self.live.len(), ..ReconcileReport::default() };
        let has_ended = |allocation| {
            let process = self.entries.get(allocation).and_then(|entry| entry.process.as_ref());
            process.is_some_and(|process| process.has_ended())
        };
        let ended: Vec<_> =
            self.live.iter().filter(|(_, allocation)| has_ended(allocation)).map(|(_, one)| *one).collect();
        found.ended.extend(ended.iter().filter_map(|allocation| self.id_of(*allocation)));
        for allocation in ended {
            self.handle_process_end(allocation);
        }
        let back = self.try_lost().await;
        found.back.extend(back.into_iter().filter_map(|allocation| self.id_of(allocation)));
        found.lost.extend(self.lost.keys().filter_map(|allocation| self.id_of(*allocation)));
        self.look_over();
        for ids in [&mut found.ended, &mut found.back, &mut found.lost] {
            ids.sort_unstable();
        }
        found
    }

    fn id_of(&self, allocation: Allocation) -> Option<ContainerId> {
        self.entries.get(&allocation).map(|entry| entry.info.origin.container_id.clone())
    }
}

/// A container that has ended, and of which only the windows were restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FinishedContainer {
    /// Its unique number.
    pub allocation: Allocation,
    /// Where its samples came from.
    pub origin: Arc<Origin>,
    /// Another name by which its task can be read.
    pub alias: Option<TaskId>,
    /// When it was reserved.
    pub opened: Timestamp,
    /// When it had ended and had been drained.
    pub finished_at: Timestamp,
}

impl ContainerTable {
    /// Shows ended containers until their tombstone time is over.
    pub fn show_finished(&mut self, finished: Vec<FinishedContainer>) {
        let now = clock::wall_time();
        for container in finished {
            self.next = self.next.max(container.allocation.0.saturating_add(1));
            let left = self.settings.tombstone.saturating_sub(now.duration_since(container.finished_at));
            let info = Arc::new(container.into_info());
            self.directory.upsert_container(&info);
            let entry = ContainerEntry {
                info: Arc::clone(&info),
                deadline: Some(Instant::now() + left),
                since_boot: clock::since_boot(),
                process: None,
                watch: None,
            };
            self.entries.insert(info.allocation, entry);
        }
    }
}

impl FinishedContainer {
    /// The container as readers see it. Its counts were lost with the previous agent.
    fn into_info(self) -> ContainerInfo {
        let last = ContainerStats::of_ended(self.allocation, Accounting::default());
        ContainerInfo {
            allocation: self.allocation,
            origin: self.origin,
            alias: self.alias,
            state: LifecycleState::Gone,
            attached: false,
            pid: None,
            address: None,
            unix: None,
            network: ContainerNetwork::Host,
            place: SocketNamespace::Shared,
            guarded: Guarded::Off,
            gauge_sign: GaugeSign::default(),
            timer_unit: TimerUnit::default(),
            details: Details::default(),
            reason: None,
            warnings: Vec::new(),
            receive_buffer: 0,
            reserved_at: self.opened,
            finished_at: Some(self.finished_at),
            last: Some(Arc::new(last)),
        }
    }
}
