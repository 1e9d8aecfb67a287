//! Which requests share builders, and how many builders there are.

use super::work::Priority;
use crate::net::http::{Client, Peer};

/// Which builders a request is served by. Cheap requests do not wait behind expensive ones, and the admin socket does not
/// wait behind the HTTP listener.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(in crate::api) enum Lane {
    /// Documents about one task, and lists without series.
    Short,
    /// All series of the node.
    Node,
    /// Requests with patterns, and those for every kept window of a task.
    Search,
    /// Everything on the admin socket.
    Admin,
}

impl Lane {
    pub(super) const ALL: [Self; 4] = [Self::Short, Self::Node, Self::Search, Self::Admin];

    /// Builds at a time.
    pub(super) const fn builders(self) -> usize {
        match self {
            Self::Short | Self::Node | Self::Admin => 2,
            Self::Search => 1,
        }
    }

    /// The priority of the threads that work on its pages. Pages for scrapers keep the usual one: where the rest of the node
    /// shares a control group with the agent, they would come too late.
    pub(super) const fn priority(self) -> Priority {
        match self {
            Self::Search => Priority::Low,
            Self::Short | Self::Node | Self::Admin => Priority::Usual,
        }
    }

    /// Pages that may wait for a builder, and how many of them for requests of one client.
    pub(super) const fn queue(self) -> (usize, usize) {
        match self {
            Self::Short | Self::Admin => (256, 128),
            Self::Node | Self::Search => (64, 32),
        }
    }
}

/// Who sent a request.
#[derive(Copy, Clone, Debug)]
pub(in crate::api) struct Asker(Option<Peer>);

impl Asker {
    pub(in crate::api) const fn new(peer: Option<Peer>) -> Self {
        Self(peer)
    }

    pub(super) fn client(self) -> Option<Client> {
        self.0.map(Peer::client)
    }

    /// Whether the request came by the admin socket.
    pub(super) const fn is_admin(self) -> bool {
        matches!(self.0, Some(Peer::Unix { .. }))
    }

    pub(super) const fn lane(self, lane: Lane) -> Lane {
        if self.is_admin() { Lane::Admin } else { lane }
    }
}
