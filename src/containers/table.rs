//! The container table: a task that owns every container, its socket's address and its state.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::directory::{ContainerInfo, Directory};
use super::errors::{ReleaseError, ReserveError};
use super::image::Image;
use super::journal::{Journal, JournalHealth};
use super::ports::Ports;
use super::process::Candidate;
use super::reservation::{Dialect, Network, Reservation, Ttl};
use super::socket::Site;
use super::state::{Guarded, Place, State};
use super::unix::{Sockets, UnixSettings};
use super::{Containers, Request, Reserved};
use crate::aggregate::GaugeSign;
use crate::model::{Allocation, ContainerId, Generation, Labels, Origin};
use crate::net::address::Addresses;
use crate::net::buffers::Buffers;
use crate::net::clock;
use crate::net::guard::Guard;
use crate::net::process::Watched;
use crate::shard::{Glimpse, ShardPool, Suspended};
use crate::store::Store;

mod adopt;
mod attach;
mod finished;
mod leave;
mod listen;
mod note;
mod reconcile;
mod record;
mod restore;
mod unix;

pub use finished::Finished;
pub use reconcile::Reconciled;
pub use restore::Restored;

/// Requests that may wait.
const QUEUE: usize = 1024;
/// How often reservations, tombstones and resting addresses are looked over.
const TICK: Duration = Duration::from_millis(500);
/// The smallest receive buffer that a socket is given when the node's are used up.
const SMALLEST_BUFFER: usize = 4096;

/// What the table is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Live containers at most.
    pub containers: usize,
    /// Port of sockets in the agent's own namespace.
    pub port: u16,
    /// Receive buffer of one socket.
    pub receive_buffer: usize,
    /// All receive buffers together.
    pub receive_buffers: usize,
    /// One receive buffer at most, in bytes.
    pub receive_buffer_max: usize,
    /// How long an address rests.
    pub rest: Duration,
    /// How long a reservation waits for its process.
    pub reservation_ttl: Duration,
    /// How long a finished container stays readable.
    pub tombstone: Duration,
    /// Whether the pod of a container that was never told an address gets a socket at the usual one.
    pub adopt_mute: bool,
    /// What a signed gauge value means where nobody says.
    pub gauge_sign: GaugeSign,
    /// The address that the DC/OS dialect gives out.
    pub dcos_host: Option<IpAddr>,
    /// Labels that every container gets, over its own of these names: nobody can say that it is elsewhere.
    pub node_labels: Labels,
    /// Containers' Unix sockets.
    pub unix: UnixSettings,
}

impl Settings {
    fn apply(&self, buffers: &Buffers) {
        buffers.set(self.receive_buffers, self.receive_buffer_max);
    }
}

/// The container table.
#[derive(Debug)]
pub struct Table {
    settings: Settings,
    pool: Arc<ShardPool>,
    store: Arc<Store>,
    directory: Arc<Directory>,
    requests: mpsc::Receiver<Request>,
    entries: HashMap<Allocation, Entry>,
    live: HashMap<ContainerId, Allocation>,
    addresses: Addresses,
    ports: Ports,
    /// Has the kernel refuse what others send to a container that shares our network.
    guard: Option<Guard>,
    unix: Sockets,
    /// Processes that are watched and sockets that are drained.
    tasks: JoinSet<Event>,
    next: u64,
    started: Instant,
    ending: bool,
    journal: Option<Journal>,
    /// What another process has now.
    suspended: Option<Suspended>,
    /// Those that run at an address that could not be opened again.
    lost: HashMap<Allocation, Image>,
    /// When that was tried last.
    retried: Instant,
}

#[derive(Debug)]
struct Entry {
    info: Arc<ContainerInfo>,
    /// When the reservation expires, or the tombstone goes.
    deadline: Option<Instant>,
    /// When it was reserved, as the kernel counts the start of processes.
    since_boot: Duration,
    process: Option<Arc<Watched>>,
    watch: Option<tokio::task::AbortHandle>,
}

/// What happens by itself.
#[derive(Debug)]
enum Event {
    Ended(Allocation),
    Drained(Allocation, Option<Box<Glimpse>>),
}

impl Table {
    /// A table without containers, and the way to ask it. [`Table::run`] must be run.
    #[must_use]
    pub fn new(settings: Settings, pool: Arc<ShardPool>, store: Arc<Store>) -> (Self, Containers) {
        let (requests, received) = mpsc::channel(QUEUE);
        settings.apply(pool.buffers());
        let directory = Arc::new(Directory::default());
        let unix = Sockets::new(&settings.unix.directory, settings.unix.queue);
        let table = Self {
            settings,
            pool,
            store,
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
        (table, Containers { requests, directory, journal: JournalHealth::default() })
    }

    /// Guards the listeners of containers that share our network.
    #[must_use]
    pub fn guarded_by(mut self, guard: Option<Guard>) -> Self {
        self.guard = guard;
        self
    }

    /// Runs until nobody can ask any more.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        self.renew_journal();
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.record();
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.answer(request).await,
                    None => return,
                },
                Some(event) = self.tasks.join_next() => match event {
                    Ok(Event::Ended(allocation)) => self.ended(allocation),
                    Ok(Event::Drained(allocation, glimpse)) => self.drained(allocation, glimpse),
                    // A watch that was aborted belongs to a container that is gone.
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

    /// An answer that nobody waits for any more is no mistake: the caller gave up.
    async fn answer(&mut self, request: Request) {
        match request {
            Request::Reserve(reservation, reply) => {
                let reserved = self.reserve(*reservation).await;
                self.record();
                let _nobody_waits = reply.send(reserved);
            }
            Request::Attach(id, process, reply) => {
                let attached = self.attach(&id, process).await;
                self.record();
                let _nobody_waits = reply.send(attached);
            }
            Request::AttachHandle(id, handle, reply) => {
                let attached = self.attach_handle(&id, *handle).await;
                self.record();
                let _nobody_waits = reply.send(attached);
            }
            Request::Note(reservation, why, reply) => {
                let _nobody_waits = reply.send(self.note(&reservation, why).await);
            }
            Request::Release(id, reply) => {
                let released = self.release(&id);
                self.record();
                let _nobody_waits = reply.send(released);
            }
            Request::Reconcile(reply) => {
                let found = self.reconcile().await;
                self.record();
                let _nobody_waits = reply.send(found);
            }
            Request::Configure(settings) => {
                self.settings = *settings;
                self.settings.apply(self.pool.buffers());
            }
            Request::HandOver(reply) if self.ending => {
                let _nobody_waits = reply.send(Err(std::io::Error::other("the agent is shutting down")));
            }
            Request::HandOver(reply) => self.hand_over(reply).await,
            Request::DrainAll(reply) => self.drain_all(reply).await,
        }
    }

    async fn reserve(&mut self, reservation: Reservation) -> Result<Reserved, ReserveError> {
        if let Some(reason) = reservation.opted_out() {
            return Err(ReserveError::OptedOut { reason });
        }
        self.bury(&reservation.container_id);
        if let Some(info) = self.living(&reservation.container_id) {
            return same(&info, &reservation).map(|()| Reserved { info, new: false });
        }
        if self.ending {
            return Err(ReserveError::Ending);
        }
        if self.live.len() >= self.settings.containers {
            return Err(ReserveError::Full { limit: self.settings.containers });
        }
        let mut site = Site::of(&reservation.network)?;
        let mut process = None;
        if let Some(pid) = reservation.pid {
            let (settled, pid, watched) = self.settle(site, Candidate::find(pid)?)?;
            (site, process) = (settled, Some((pid, watched)));
        }
        let mut info = self.new_info(&reservation, &site);
        if let Err(error) = self.place(&mut info, &reservation, site).await {
            info.unix.iter().for_each(|unix| self.give_back_unix(unix));
            return Err(error);
        }
        let allocation = info.allocation;
        let deadline = match &process {
            Some((pid, _)) => {
                (info.pid, info.attached) = (Some(*pid), true);
                self.protect(&mut info);
                None
            }
            None => self.expiry(&reservation),
        };
        let info = Arc::new(info);
        self.live.insert(reservation.container_id.clone(), allocation);
        let since_boot = clock::since_boot();
        let entry = Entry { info: Arc::clone(&info), deadline, since_boot, process: None, watch: None };
        self.entries.insert(allocation, entry);
        self.directory.put(&info);
        let info = match process {
            Some((_, watched)) => self.watch(allocation, watched).await.unwrap_or(info),
            None => info,
        };
        let (container, task) = (&info.origin.container_id, &info.origin.task_id);
        tracing::info!(%container, %task, generation = info.origin.generation.0, address = info.address.map(|address| address.to_string()), "reserved");
        Ok(Reserved { info, new: true })
    }

    /// What is known of a container before it has a socket.
    fn new_info(&mut self, reservation: &Reservation, site: &Site) -> ContainerInfo {
        let mut labels = reservation.labels.clone();
        labels.extend(self.settings.node_labels.clone());
        let origin = Arc::new(Origin {
            container_id: reservation.container_id.clone(),
            generation: self.next_generation(&reservation.container_id),
            task_id: reservation.task(),
            labels,
        });
        let allocation = Allocation(self.next);
        self.next += 1;
        ContainerInfo {
            allocation,
            origin,
            alias: reservation.alias.clone(),
            state: State::Reserved,
            attached: false,
            pid: None,
            address: None,
            unix: None,
            network: reservation.network.clone(),
            place: site.place(),
            guarded: Guarded::Off,
            gauge_sign: reservation.signs(self.settings.gauge_sign),
            details: reservation.details.clone(),
            warnings: Vec::new(),
            receive_buffer: 0,
            reserved_at: clock::wall(),
            finished_at: None,
            last: None,
        }
    }

    fn release(&mut self, id: &ContainerId) -> Result<Arc<ContainerInfo>, ReleaseError> {
        // One that is draining or gone was released already; saying it twice changes nothing.
        let info = self.living(id).or_else(|| self.directory.container(id));
        let info = info.ok_or_else(|| ReleaseError::Unknown { id: id.clone() })?;
        Ok(self.drain(info.allocation, "released").unwrap_or(info))
    }

    fn ended(&mut self, allocation: Allocation) {
        self.drain(allocation, "its process ended");
    }

    /// Starts to drain a container that lives.
    fn drain(&mut self, allocation: Allocation, why: &str) -> Option<Arc<ContainerInfo>> {
        let info = Arc::clone(&self.entries.get(&allocation)?.info);
        if !info.state.is_live() {
            return Some(info);
        }
        tracing::info!(container = %info.origin.container_id, task = %info.origin.task_id, why, "draining");
        self.live.remove(&info.origin.container_id);
        let info = self.change(allocation, |info| info.state = State::Draining)?;
        if let Some(entry) = self.entries.get_mut(&allocation) {
            entry.process = None;
            if let Some(watch) = entry.watch.take() {
                watch.abort();
            }
        }
        let pool = Arc::clone(&self.pool);
        self.tasks.spawn(async move {
            let drained = pool.drain(allocation).await.ok().flatten();
            Event::Drained(allocation, drained.map(Box::new))
        });
        Some(info)
    }

    fn drained(&mut self, allocation: Allocation, glimpse: Option<Box<Glimpse>>) {
        let last = glimpse.map(|glimpse| Arc::new(*glimpse));
        let Some(info) = self.change(allocation, |info| {
            info.state = State::Gone;
            info.finished_at = Some(clock::wall());
            info.last = last;
        }) else {
            return;
        };
        if info.guarded == Guarded::On
            && let (Some(guard), Some(address)) = (&mut self.guard, info.address)
        {
            guard.expose(address);
        }
        let until = self.started.elapsed() + self.settings.rest;
        match (info.address, info.place) {
            // It had the address no more than we.
            _ if self.lost.remove(&allocation).is_some() => {}
            (Some(address), Place::Shared) => self.addresses.give_back(address, until),
            (Some(address), Place::Own(namespace)) => self.ports.give_back(namespace, address.port(), until),
            (_, Place::Unborn) | (None, _) => {}
        }
        if let Some(unix) = &info.unix {
            self.give_back_unix(unix);
        }
        if let Some(entry) = self.entries.get_mut(&allocation) {
            entry.deadline = Some(Instant::now() + self.settings.tombstone);
        }
    }

    /// Expires reservations and forgets those whose time is over.
    fn look_over(&mut self) {
        let now = Instant::now();
        self.sweep_unix();
        let due = |entry: &&Entry| entry.deadline.is_some_and(|deadline| deadline <= now);
        let due: Vec<_> = self.entries.values().filter(due).map(|entry| Arc::clone(&entry.info)).collect();
        for info in due {
            if info.state.is_live() {
                self.drain(info.allocation, "no process came");
            } else if info.state == State::Gone {
                self.entries.remove(&info.allocation);
                self.directory.forget(info.allocation);
                self.store.forget(info.allocation);
            }
        }
    }

    async fn drain_all(&mut self, reply: oneshot::Sender<()>) {
        self.ending = true;
        // Their containers go on without us, and the next life of the agent takes them back.
        self.record();
        self.journal = None;
        let glimpses = self.pool.stop().await;
        let mut glimpses: HashMap<_, _> =
            glimpses.into_iter().map(|glimpse| (glimpse.allocation, glimpse)).collect();
        let live: Vec<_> = self.live.drain().map(|(_, allocation)| allocation).collect();
        for allocation in live {
            self.drained(allocation, glimpses.remove(&allocation).map(Box::new));
        }
        let _nobody_waits = reply.send(());
    }

    /// The living container with this id.
    fn living(&self, id: &ContainerId) -> Option<Arc<ContainerInfo>> {
        let allocation = self.live.get(id)?;
        self.entries.get(allocation).map(|entry| Arc::clone(&entry.info))
    }

    fn next_generation(&self, id: &ContainerId) -> Generation {
        self.directory
            .container(id)
            .map_or(Generation(1), |last| Generation(last.origin.generation.0.saturating_add(1)))
    }

    fn expiry(&self, reservation: &Reservation) -> Option<Instant> {
        match (reservation.ttl, reservation.dialect) {
            (Ttl::Never, _) | (Ttl::Default, Dialect::Dcos) => None,
            (Ttl::After(ttl), _) => Some(Instant::now() + ttl),
            (Ttl::Default, Dialect::V1) => Some(Instant::now() + self.settings.reservation_ttl),
        }
    }

    /// Drains a container whose process has ended unnoticed so far, so that its id is free for the next.
    fn bury(&mut self, id: &ContainerId) {
        let Some(allocation) = self.live.get(id).copied() else { return };
        let process = self.entries.get(&allocation).and_then(|entry| entry.process.as_ref());
        if process.is_some_and(|process| process.has_ended()) {
            self.ended(allocation);
        }
    }

    /// Watches a container's process, and tells its shard whose datagrams are the container's.
    async fn watch(&mut self, allocation: Allocation, process: Watched) -> Option<Arc<ContainerInfo>> {
        let cgroup = process.cgroup();
        let process = Arc::new(process);
        let watched = Arc::clone(&process);
        let watch = self.tasks.spawn(async move {
            watched.ended().await;
            Event::Ended(allocation)
        });
        if let Some(entry) = self.entries.get_mut(&allocation) {
            entry.watch = Some(watch);
            entry.process = Some(process);
        }
        self.acquaint(allocation, cgroup).await
    }

    /// Makes a changed copy of a container's info, and shows it.
    fn change(
        &mut self,
        allocation: Allocation,
        change: impl FnOnce(&mut ContainerInfo),
    ) -> Option<Arc<ContainerInfo>> {
        let mut info = ContainerInfo::clone(&self.entries.get(&allocation)?.info);
        change(&mut info);
        Some(self.replace(info))
    }

    /// Shows a container's info in place of what it was.
    fn replace(&mut self, info: ContainerInfo) -> Arc<ContainerInfo> {
        let info = Arc::new(info);
        if let Some(entry) = self.entries.get_mut(&info.allocation) {
            entry.info = Arc::clone(&info);
            self.directory.put(&info);
        }
        info
    }
}

/// Whether a repeated reservation is for the container that is here.
fn same(info: &ContainerInfo, reservation: &Reservation) -> Result<(), ReserveError> {
    // The isolator repeats itself after its own restarts, with nothing but the id.
    if reservation.dialect == Dialect::Dcos {
        return Ok(());
    }
    // It is the namespace that counts, by whatever path it was named.
    let place = Site::of(&reservation.network)?.place();
    let unborn = place == Place::Unborn && info.network == Network::New;
    let differs = [
        ("task", info.origin.task_id != reservation.task()),
        ("network", place != info.place && !unborn),
        // The NRI plugin is told of no bundle; what it reserved is the wrapper's container all the same.
        ("bundle", another(info.details.bundle.as_ref(), reservation.details.bundle.as_ref())),
    ];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((what, _)) => Err(ReserveError::Conflict { id: reservation.container_id.clone(), what }),
        None => Ok(()),
    }
}

/// Whether both say what it is, and not the same.
fn another<T: PartialEq>(is: Option<&T>, said: Option<&T>) -> bool {
    is.zip(said).is_some_and(|(is, said)| is != said)
}

#[cfg(test)]
mod tests;
