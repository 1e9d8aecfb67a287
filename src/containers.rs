//! The lifecycle of containers: `reserve → attach → release`, in one table with one owner.
//!
//! ```text
//!             reserve                     pid exit, release, expiry
//!   (nothing) ───────▶ listening ───────────────────────▶ draining ──▶ gone ──▶ (forgotten)
//!                 └──▶ reserved ─── attach ──▶ listening                  after the tombstone time
//! ```
//!
//! A `reserved` container has no socket, because its network namespace does not exist yet. A `lost` one could not get
//! its address back after a restart, and a `mute` one was found running without an address; both are shown to users.
//! Calls are idempotent: the second changes nothing and gets the same reply.
//!
//! [`ContainerTableHandle`] sends requests to the table, which is a separate task; readers use the [`Directory`].

mod directory;
mod errors;
mod image;
mod journal;
mod leaving;
mod ports;
mod process;
mod reservation;
mod socket;
mod state;
mod table;
mod unix;

use tokio::sync::{mpsc, oneshot};

pub use crate::net::unixgram::would_hide;
pub use crate::net::variables::other_of_pair;
pub use directory::{ContainerInfo, Directory, Follower, TaskContainers, suggest_names};
pub use errors::{AttachError, ProcessError, ReleaseError, ReserveError};
pub use image::{ContainerSnapshot, IMAGE_VERSION, ProcessFingerprint};
pub use journal::{JOURNAL, Journal, JournalHealth, Replayed};
pub use leaving::{Arrived, Arriving, Leaving, Manifest, ManifestError};
pub use process::{Handle, HandleError};
pub use reservation::{
    ContainerNetwork, Details, Dialect, Reservation, Ttl, WantedAddress, parse_gauge_sign, parse_timer_unit,
};
pub use socket::{udp_environment, unix_environment};
pub use state::{Guarded, LifecycleState, SocketNamespace};
pub use table::{ContainerTable, FinishedContainer, ReconcileReport, RestoredCounts, TableSettings};
pub use unix::{ContainerUnixSocket, UnixSettings, UnixSocketMode, UnixWish};

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::ContainerId;
use crate::shard::SentAhead;

/// Sends requests to the container table. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ContainerTableHandle {
    requests: mpsc::Sender<TableRequest>,
    directory: Arc<Directory>,
    journal: JournalHealth,
    /// How often a reservation failed because another process has bound the port on every address.
    in_use: Arc<AtomicU64>,
}

/// A request to the table.
#[derive(Debug)]
enum TableRequest {
    Reserve(Box<Reservation>, oneshot::Sender<Result<ReservedContainer, ReserveError>>),
    Attach(ContainerId, ProcessRef, oneshot::Sender<Result<Arc<ContainerInfo>, AttachError>>),
    AttachHandle(ContainerId, Box<Handle>, oneshot::Sender<Result<Arc<ContainerInfo>, AttachError>>),
    Note(Box<Reservation>, Unserved, String, oneshot::Sender<Result<ReservedContainer, ReserveError>>),
    Release(ContainerId, oneshot::Sender<Result<Arc<ContainerInfo>, ReleaseError>>),
    Reconcile(oneshot::Sender<ReconcileReport>),
    Configure(Box<TableSettings>),
    HandOver(SentAhead, oneshot::Sender<io::Result<Leaving>>),
    DrainAll(oneshot::Sender<()>),
}

/// A process, as identified by a caller.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ProcessRef {
    /// Its process id.
    pub pid: i32,
    /// When it started, in the kernel's ticks since boot, if the caller knows.
    pub start_ticks: Option<u64>,
}

impl From<i32> for ProcessRef {
    fn from(pid: i32) -> Self {
        Self { pid, start_ticks: None }
    }
}

/// Why a running container has no socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Unserved {
    /// It was started without an address.
    Mute,
    /// It has an address that could not be opened again.
    Lost,
}

impl Unserved {
    /// The corresponding state.
    #[must_use]
    pub const fn to_state(self) -> LifecycleState {
        match self {
            Self::Mute => LifecycleState::Mute,
            Self::Lost => LifecycleState::Lost,
        }
    }
}

/// A reservation, new or existing.
#[derive(Clone, Debug)]
pub struct ReservedContainer {
    pub info: Arc<ContainerInfo>,
    /// Whether it is new.
    pub new: bool,
}

impl ContainerTableHandle {
    /// Reserves a socket for a container. A new reservation whose caller does not wait for it is released.
    ///
    /// # Errors
    /// When the container may not have a socket, or none can be opened.
    pub async fn reserve(&self, reservation: Reservation) -> Result<ReservedContainer, ReserveError> {
        let reserved = self.send_request(|reply| TableRequest::Reserve(Box::new(reservation), reply)).await;
        let reserved = reserved.unwrap_or(Err(ReserveError::Ending));
        self.count_in_use(&reserved);
        reserved
    }

    /// Reserves as [`Self::reserve`] does, but waits no longer than `patience`. `None` if that was too short; then a
    /// new reservation is released before the table handles any later request.
    ///
    /// # Errors
    /// As [`Self::reserve`].
    pub async fn reserve_within(
        &self,
        patience: Duration,
        reservation: Reservation,
    ) -> Option<Result<ReservedContainer, ReserveError>> {
        let (reply, mut answer) = oneshot::channel();
        let asked = async {
            self.requests.send(TableRequest::Reserve(Box::new(reservation), reply)).await.ok()?;
            (&mut answer).await.ok()
        };
        let answered = tokio::time::timeout(patience, asked).await;
        let reserved = match answered {
            Ok(reserved) => Some(reserved.unwrap_or(Err(ReserveError::Ending))),
            // From here on the table cannot reply any more; it may have replied just before.
            Err(_) => {
                answer.close();
                answer.try_recv().ok()
            }
        };
        reserved.inspect(|reserved| self.count_in_use(reserved))
    }

    fn count_in_use(&self, reserved: &Result<ReservedContainer, ReserveError>) {
        if let Err(ReserveError::Socket { source, .. }) = reserved
            && source.kind() == io::ErrorKind::AddrInUse
        {
            self.in_use.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Attaches the process of a container. A container that was reserved before its network namespace existed gets its
    /// socket now.
    ///
    /// # Errors
    /// When there is no such container or process, or another process is attached already.
    pub async fn attach_process(
        &self,
        id: ContainerId,
        process: impl Into<ProcessRef>,
    ) -> Result<Arc<ContainerInfo>, AttachError> {
        let process = process.into();
        self.send_request(|reply| TableRequest::Attach(id, process, reply))
            .await
            .unwrap_or(Err(AttachError::Ending))
    }

    /// The same with a handle of the process, which need not have an id in this PID namespace.
    ///
    /// # Errors
    /// As [`Self::attach_process`], and when the descriptors do not match each other or the reservation.
    pub async fn attach_handle(
        &self,
        id: ContainerId,
        handle: Handle,
    ) -> Result<Arc<ContainerInfo>, AttachError> {
        self.send_request(|reply| TableRequest::AttachHandle(id, Box::new(handle), reply))
            .await
            .unwrap_or(Err(AttachError::Ending))
    }

    /// Registers a running container without a socket, so that it is shown and counted until it ends, with the reason.
    /// A container that is known already stays unchanged.
    ///
    /// # Errors
    /// When the node has reached its limit of containers, or the agent is ending.
    pub async fn register_unserved(
        &self,
        reservation: Reservation,
        why: Unserved,
        reason: String,
    ) -> Result<ReservedContainer, ReserveError> {
        self.send_request(|reply| TableRequest::Note(Box::new(reservation), why, reason, reply))
            .await
            .unwrap_or(Err(ReserveError::Ending))
    }

    /// Releases a container: reads what it has sent, closes its window and its socket.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn release(&self, id: ContainerId) -> Result<Arc<ContainerInfo>, ReleaseError> {
        self.send_request(|reply| TableRequest::Release(id, reply)).await.unwrap_or(Err(ReleaseError::Ending))
    }

    /// Compares the table with running processes. `None` if the agent is ending.
    pub async fn reconcile(&self) -> Option<ReconcileReport> {
        self.send_request(TableRequest::Reconcile).await
    }

    /// Applies new settings from now on.
    pub async fn apply_settings(&self, settings: TableSettings) {
        // If the table has ended, there is nothing to configure.
        let _either_way = self.requests.send(TableRequest::Configure(Box::new(settings))).await;
    }

    /// Accepts no more containers, and drains the existing ones.
    pub async fn drain_all(&self) {
        let _either_way = self.send_request(TableRequest::DrainAll).await;
    }

    /// Prepares to hand everything over to another process; no datagrams are received until the outcome is known.
    /// Containers that were sent ahead are sent as changes.
    ///
    /// # Errors
    /// When a shard has ended, or descriptors ran out. The table then resumes.
    pub async fn hand_over(&self, sent: SentAhead) -> io::Result<Leaving> {
        let ending = || Err(io::Error::other("the agent is shutting down"));
        self.send_request(|reply| TableRequest::HandOver(sent, reply)).await.unwrap_or_else(ending)
    }

    /// The containers, for readers.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// How often a reservation failed because another process has bound the port of containers' sockets on every
    /// address.
    #[must_use]
    pub fn addresses_in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Whether the journal can be written.
    #[must_use]
    pub fn journal_health(&self) -> &JournalHealth {
        &self.journal
    }

    async fn send_request<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> TableRequest) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}
