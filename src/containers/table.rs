//! The container table: a task that owns every container, its socket's address and its state, and writes down what becomes
//! of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::directory::{ContainerInfo, Directory, Follower};
use super::image::{ContainerSnapshot, ProcessFingerprint};
use super::journal::{Journal, JournalHealth};
use super::ports::Ports;
use super::unix::{Sockets, UnixSettings};
use super::{ContainerTableHandle, ReservedContainer, TableRequest};
use crate::aggregate::{GaugeSign, TimerUnit};
use crate::model::{Allocation, ContainerId, Labels};
use crate::net::address::Addresses;
use crate::net::guard::Guard;
use crate::net::listener::Buffers;
use crate::net::process::Watched;
use crate::net::{clock, process};
use crate::shard::{ContainerStats, ShardPool, SuspendedContainers};
use crate::store::Store;

mod attach;
mod end;
mod leave;
mod listen;
mod reserve;
mod restore;
mod unserved;

pub use end::{FinishedContainer, ReconcileReport};
pub use restore::RestoredCounts;

/// Maximum number of queued requests.
const QUEUE: usize = 1024;
/// Interval at which reservations, tombstones and resting addresses are checked.
const TICK: Duration = Duration::from_millis(500);
/// The receive buffer of a socket when `receive_buffers` is used up, in bytes.
const SMALLEST_BUFFER: usize = 4096;

/// The settings of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableSettings {
    /// Maximum number of live containers.
    pub containers: usize,
    /// Port of sockets in the agent's own namespace.
    pub port: u16,
    /// Receive buffer of one socket.
    pub receive_buffer: usize,
    /// Maximum total size of all receive buffers.
    pub receive_buffers: usize,
    /// Maximum size of one receive buffer, in bytes.
    pub receive_buffer_max: usize,
    /// How long an address rests.
    pub rest: Duration,
    /// How long a reservation waits for its process.
    pub reservation_ttl: Duration,
    /// How long a finished container stays readable.
    pub tombstone: Duration,
    /// Whether the pod of a container that was started without an address gets a socket at the default one.
    pub adopt_mute: bool,
    /// What a signed gauge value means if the container does not say.
    pub gauge_sign: GaugeSign,
    /// The unit of timers, for containers that do not set it.
    pub timer_unit: TimerUnit,
    /// The address that the DC/OS API returns.
    pub dcos_host: Option<IpAddr>,
    /// Labels that every container gets, over its own of these names: no container can claim to be elsewhere.
    pub node_labels: Labels,
    /// Containers' Unix sockets.
    pub unix: UnixSettings,
}

impl TableSettings {
    fn apply_to_buffers(&self, buffers: &Buffers) {
        buffers.set_limits(self.receive_buffers, self.receive_buffer_max);
    }
}

#[derive(Debug)]
pub struct ContainerTable {
    settings: TableSettings,
    pool: Arc<ShardPool>,
    store: Arc<Store>,
    directory: Arc<Directory>,
    /// Changes that are not in the journal yet.
    changes: Follower,
    requests: mpsc::Receiver<TableRequest>,
    entries: HashMap<Allocation, ContainerEntry>,
    live: HashMap<ContainerId, Allocation>,
    addresses: Addresses,
    ports: Ports,
    /// Makes the kernel reject datagrams from other processes to containers that share the agent's network.
    guard: Option<Guard>,
    unix: Sockets,
    /// Watches of processes, and drains of sockets.
    tasks: JoinSet<TableEvent>,
    next: u64,
    started: Instant,
    ending: bool,
    journal: Option<Journal>,
    /// The containers that were handed over to another process.
    suspended: Option<SuspendedContainers>,
    /// Running containers whose addresses could not be opened again.
    lost: HashMap<Allocation, ContainerSnapshot>,
    /// When opening them was last tried.
    retried: Instant,
}

#[derive(Debug)]
struct ContainerEntry {
    info: Arc<ContainerInfo>,
    /// When the reservation expires, or the tombstone goes.
    deadline: Option<Instant>,
    /// When it was reserved, as time since boot, comparable with the start of processes.
    since_boot: Duration,
    process: Option<Arc<Watched>>,
    watch: Option<tokio::task::AbortHandle>,
}

/// An event that no request causes.
#[derive(Debug)]
enum TableEvent {
    Ended(Allocation),
    Drained(Allocation, Option<Box<ContainerStats>>),
}

impl ContainerTable {
    /// Creates an empty table and a handle for requests. [`ContainerTable::run`] must be run.
    #[must_use]
    pub fn new(
        settings: TableSettings,
        pool: Arc<ShardPool>,
        store: Arc<Store>,
    ) -> (Self, ContainerTableHandle) {
        let (requests, received) = mpsc::channel(QUEUE);
        settings.apply_to_buffers(pool.receive_buffers());
        let directory = Arc::new(Directory::default());
        let unix = Sockets::new(&settings.unix.directory, settings.unix.queue);
        let table = Self {
            settings,
            pool,
            store,
            changes: directory.follow_changes(),
            directory: Arc::clone(&directory),
            requests: received,
            entries: HashMap::new(),
            live: HashMap::new(),
            addresses: Addresses::default(),
            ports: Ports::default(),
            guard: None,
            unix,
            tasks: JoinSet::new(),
            next: 1,
            started: Instant::now(),
            ending: false,
            journal: None,
            suspended: None,
            lost: HashMap::new(),
            retried: Instant::now(),
        };
        (
            table,
            ContainerTableHandle {
                requests,
                directory,
                journal: JournalHealth::default(),
                in_use: Arc::default(),
            },
        )
    }

    /// Guards the listeners of containers that share the agent's network.
    #[must_use]
    pub fn guarded_by(mut self, guard: Option<Guard>) -> Self {
        self.guard = guard;
        self
    }

    /// Runs until no request can come any more.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        self.renew_journal();
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.record_changes();
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request).await,
                    None => return,
                },
                Some(event) = self.tasks.join_next() => match event {
                    Ok(TableEvent::Ended(allocation)) => self.handle_process_end(allocation),
                    Ok(TableEvent::Drained(allocation, stats)) => self.finish_drain(allocation, stats),
                    // The aborted watch of a container that has ended.
                    Err(_) => {}
                },
                _ = tick.tick() => {
                    self.look_over();
                    self.retry_lost().await;
                    self.renew_journal();
                }
            }
        }
    }

    /// A reply that cannot be sent is not an error: the caller has given up.
    async fn handle_request(&mut self, request: TableRequest) {
        match request {
            TableRequest::Reserve(reservation, reply) => {
                let reserved = self.reserve_container(*reservation).await;
                self.record_changes();
                if let Err(Ok(ReservedContainer { info, new: true })) = reply.send(reserved) {
                    // The caller starts the container without this address, or retries. Release it here, before the
                    // next request is handled, so that a retry does not find a reservation whose address the container
                    // never got.
                    self.start_drain(info.allocation, "its caller gave up waiting for it");
                }
            }
            TableRequest::Attach(id, process, reply) => {
                let attached = self.attach_process(&id, process).await;
                self.record_changes();
                let _not_waited_for = reply.send(attached);
            }
            TableRequest::AttachHandle(id, handle, reply) => {
                let attached = self.attach_handle(&id, *handle).await;
                self.record_changes();
                let _not_waited_for = reply.send(attached);
            }
            TableRequest::Note(reservation, why, reason, reply) => {
                let _not_waited_for = reply.send(self.register_unserved(&reservation, why, reason).await);
            }
            TableRequest::Release(id, reply) => {
                let released = self.release_container(&id);
                self.record_changes();
                let _not_waited_for = reply.send(released);
            }
            TableRequest::Reconcile(reply) => {
                let found = self.reconcile_containers().await;
                self.record_changes();
                let _not_waited_for = reply.send(found);
            }
            TableRequest::Configure(settings) => {
                self.settings = *settings;
                self.settings.apply_to_buffers(self.pool.receive_buffers());
            }
            TableRequest::HandOver(_, reply) if self.ending => {
                let _not_waited_for = reply.send(Err(std::io::Error::other("the agent is shutting down")));
            }
            TableRequest::HandOver(sent, reply) => self.hand_over(sent, reply).await,
            TableRequest::DrainAll(reply) => self.drain_all(reply).await,
        }
    }

    fn find_live_container(&self, id: &ContainerId) -> Option<Arc<ContainerInfo>> {
        let allocation = self.live.get(id)?;
        self.entries.get(allocation).map(|entry| Arc::clone(&entry.info))
    }

    /// Watches a container's process, and tells its shard which processes may send as the container.
    async fn watch_process(
        &mut self,
        allocation: Allocation,
        process: Watched,
    ) -> Option<Arc<ContainerInfo>> {
        let process = Arc::new(process);
        let watched = Arc::clone(&process);
        let watch = self.tasks.spawn(async move {
            watched.wait_for_end().await;
            TableEvent::Ended(allocation)
        });
        if let Some(entry) = self.entries.get_mut(&allocation) {
            entry.watch = Some(watch);
            entry.process = Some(Arc::clone(&process));
        }
        self.set_container_processes(allocation, &process).await
    }

    /// Changes a copy of a container's info, and publishes it.
    fn update_info(
        &mut self,
        allocation: Allocation,
        change: impl FnOnce(&mut ContainerInfo),
    ) -> Option<Arc<ContainerInfo>> {
        let mut info = ContainerInfo::clone(&self.entries.get(&allocation)?.info);
        change(&mut info);
        Some(self.replace_info(info))
    }

    /// Publishes a container's new info.
    fn replace_info(&mut self, info: ContainerInfo) -> Arc<ContainerInfo> {
        let info = Arc::new(info);
        if let Some(entry) = self.entries.get_mut(&info.allocation) {
            entry.info = Arc::clone(&info);
            self.directory.upsert_container(&info);
        }
        info
    }
}

#[cfg(test)]
mod tests;

impl ContainerTable {
    /// Records every change in this journal from now on.
    #[must_use]
    pub fn recorded_in(mut self, journal: Journal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Records all changes; called before a reply is sent.
    fn record_changes(&mut self) {
        let changed = self.changes.take_changed();
        let Some(mut journal) = self.journal.take() else { return };
        for allocation in changed {
            journal.append_change(allocation, self.snapshot_container(allocation));
        }
        self.journal = Some(journal);
    }

    /// Rewrites the journal if it is stale.
    fn renew_journal(&mut self) {
        let Some(mut journal) = self.journal.take() else { return };
        if journal.is_stale() {
            let all: Vec<_> = self.entries.keys().copied().collect();
            journal
                .rewrite_images(all.into_iter().filter_map(|allocation| self.snapshot_container(allocation)));
        }
        self.journal = Some(journal);
    }

    /// A container as it is now.
    fn snapshot_container(&self, allocation: Allocation) -> Option<ContainerSnapshot> {
        let entry = self.entries.get(&allocation)?;
        let now = Instant::now();
        let deadline =
            entry.deadline.map(|at| clock::wall_time().saturating_add(at.saturating_duration_since(now)));
        let identity = entry.info.pid.zip(entry.process.as_ref()).and_then(|(pid, watched)| {
            let (start_ticks, cgroup) = (process::start_ticks(pid).ok()?, watched.cgroup_id());
            // Until it has ended, its id cannot belong to another process.
            (!watched.has_ended()).then_some(ProcessFingerprint { start_ticks, cgroup })
        });
        Some(ContainerSnapshot::from_info(&entry.info, identity, entry.since_boot, deadline))
    }
}
