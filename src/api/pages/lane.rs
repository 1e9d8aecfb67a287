//! Which requests share builders, and how many builders there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::net::http::{ClientKey, Peer};

/// The group of builders that serves a request. Cheap requests do not wait behind expensive ones, and the admin socket
/// does not wait behind the HTTP listener.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(in crate::api) enum BuildLane {
    /// Documents about one task, and lists without series.
    Short,
    /// All series of the node.
    Node,
    /// Requests with patterns, and those for every kept window of a task.
    Search,
    /// Everything on the admin socket.
    Admin,
}

impl BuildLane {
    pub(super) const ALL: [Self; 4] = [Self::Short, Self::Node, Self::Search, Self::Admin];

    /// Concurrent builds, and how many of them for one client. One builder is left for other clients: a build whose
    /// readers do not read waits for memory and keeps its builder.
    const fn builder_limits(self) -> (usize, usize) {
        match self {
            Self::Short | Self::Node => (3, 2),
            Self::Admin => (2, 2),
            Self::Search => (1, 1),
        }
    }

    /// The priority of the threads that work on its pages. Pages for scrapers keep the usual one: if other processes
    /// share a control group with the agent, a lower priority would delay them past the scrape timeout.
    pub(super) const fn thread_priority(self) -> ThreadPriority {
        match self {
            Self::Search => ThreadPriority::Low,
            Self::Short | Self::Node | Self::Admin => ThreadPriority::Usual,
        }
    }

    /// Pages that may wait for a builder, and how many of them for one client.
    pub(super) const fn queue_limits(self) -> (usize, usize) {
        match self {
            Self::Short | Self::Admin => (256, 128),
            Self::Node | Self::Search => (64, 32),
        }
    }
}

/// The priority of a thread.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum ThreadPriority {
    /// The priority of the process.
    Usual,
    /// Lower: other threads get the processors first.
    Low,
}

/// The builders of all lanes.
#[derive(Debug)]
pub(super) struct Builders {
    lanes: [Arc<Semaphore>; BuildLane::ALL.len()],
    /// The share of each client that waits for a builder or has one.
    clients: Mutex<HashMap<(u8, ClientKey), Weak<Semaphore>>>,
}

/// A builder, free again when this is dropped.
#[derive(Debug)]
pub(super) struct BuilderPermit {
    _builder: OwnedSemaphorePermit,
    _of_client: Option<OwnedSemaphorePermit>,
}

impl Builders {
    pub(super) fn new() -> Self {
        let lanes = BuildLane::ALL.map(|lane| Arc::new(Semaphore::new(lane.builder_limits().0)));
        Self { lanes, clients: Mutex::default() }
    }

    /// Waits until a builder is free and the client has fewer than its share.
    ///
    /// # Errors
    /// Never while the builders exist.
    pub(super) async fn acquire_builder(
        &self,
        lane: BuildLane,
        client: Option<ClientKey>,
    ) -> Result<BuilderPermit, AcquireError> {
        // The share comes first, so that a client that has used it up does not hold up others in the queue of the lane.
        let of_client = match client.map(|client| self.client_share(lane, client)) {
            Some(share) => Some(share.acquire_owned().await?),
            None => None,
        };
        let [short, node, search, admin] = &self.lanes;
        let builders = match lane {
            BuildLane::Short => short,
            BuildLane::Node => node,
            BuildLane::Search => search,
            BuildLane::Admin => admin,
        };
        Ok(BuilderPermit { _builder: Arc::clone(builders).acquire_owned().await?, _of_client: of_client })
    }

    fn client_share(&self, lane: BuildLane, client: ClientKey) -> Arc<Semaphore> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = clients.get(&(lane as u8, client)).and_then(Weak::upgrade) {
            return share;
        }
        clients.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(lane.builder_limits().1));
        clients.insert((lane as u8, client), Arc::downgrade(&share));
        share
    }

    /// How many builders of a lane are free.
    #[cfg(test)]
    pub(super) fn free_builders(&self, lane: BuildLane) -> usize {
        self.lanes.get(lane as usize).map_or(0, |builders| builders.available_permits())
    }
}

/// Who sent a request.
#[derive(Copy, Clone, Debug)]
pub(in crate::api) struct Asker(Option<Peer>);

impl Asker {
    pub(in crate::api) const fn new(peer: Option<Peer>) -> Self {
        Self(peer)
    }

    pub(super) fn client(self) -> Option<ClientKey> {
        self.0.map(Peer::client_key)
    }

    /// Whether the request came from the admin socket.
    pub(super) const fn is_admin(self) -> bool {
        matches!(self.0, Some(Peer::Unix { .. }))
    }

    pub(super) const fn effective_lane(self, lane: BuildLane) -> BuildLane {
        if self.is_admin() { BuildLane::Admin } else { lane }
    }
}
