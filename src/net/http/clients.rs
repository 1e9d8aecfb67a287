//! Tracks open connections: in total, per client, and which of them are idle.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{ConnectionLimits, Peer};

/// How long a connection must be idle before it can be closed in favour of another: the request of a client that has
/// just connected may be on its way.
const MIN_IDLE: Duration = Duration::from_millis(100);

/// Why a connection was closed before a request on it was served.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RefusalReason {
    /// Its client has reached its limit of connections.
    Client,
    /// The TLS handshake did not complete.
    Handshake,
}

impl RefusalReason {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Client, Self::Handshake];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Handshake => "handshake",
        }
    }
}

/// Why a connection was closed after it had been served.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// Its client did not read a response within the time limit.
    Slow,
    /// It was idle, and another one needed its place.
    Idle,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Slow, Self::Idle];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Idle => "idle",
        }
    }
}

/// The open connections of a listener, and counts of those that it refused or closed.
#[derive(Clone, Default, Debug)]
pub struct Connections(Arc<ConnectionCounts>);

#[derive(Default, Debug)]
struct ConnectionCounts {
    open: Mutex<Registry>,
    refused: [AtomicU64; RefusalReason::ALL.len()],
    closed: [AtomicU64; CloseReason::ALL.len()],
}

#[derive(Default, Debug)]
struct Registry {
    next: u64,
    entries: HashMap<u64, ConnectionEntry>,
    clients: HashMap<ClientKey, usize>,
    /// Connections of users other than root, on the admin socket.
    unprivileged: usize,
}

#[derive(Debug)]
struct ConnectionEntry {
    client: ClientKey,
    /// When its last request ended; `None` while a request is in progress.
    idle: Option<Instant>,
    close: Arc<Notify>,
}

impl Registry {
    /// Closes the connection that has been idle longest, among those for which `may` holds. Returns whether there was
    /// one.
    fn close_idle(&mut self, now: Instant, may: impl Fn(&ConnectionEntry) -> bool) -> bool {
        let idle = |entry: &ConnectionEntry| {
            entry.idle.filter(|since| now.saturating_duration_since(*since) >= MIN_IDLE && may(entry))
        };
        let oldest = self.entries.iter().filter_map(|(number, entry)| Some((idle(entry)?, *number))).min();
        let Some((_, number)) = oldest else { return false };
        self.remove(number);
        true
    }

    /// Removes a connection and tells it to close. Its place is free at once, even if its task takes a moment to end.
    fn remove(&mut self, number: u64) {
        let Some(ConnectionEntry { client, close, .. }) = self.entries.remove(&number) else { return };
        close.notify_one();
        self.unprivileged -= usize::from(client.is_unprivileged());
        if let Some(has) = self.clients.get_mut(&client) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// Checks whether a client may have another connection. At its limit, one of its idle connections is closed first.
    fn check_client_limit(
        &mut self,
        client: ClientKey,
        limits: &ConnectionLimits,
        now: Instant,
    ) -> Result<bool, RefusalReason> {
        let has = self.clients.get(&client).copied().unwrap_or_default();
        match client {
            ClientKey::Network(_) if has >= limits.per_client => Err(RefusalReason::Client),
            ClientKey::Network(_) => Ok(false),
            // One process may have half of the places, and all users other than root together three quarters.
            ClientKey::Process { pid, .. } => {
                let (of_one, of_users) = (limits.connections.div_ceil(2), limits.connections * 3 / 4);
                if pid.is_some() && has >= of_one {
                    let own = self.close_idle(now, |entry| entry.client == client);
                    return if own { Ok(true) } else { Err(RefusalReason::Client) };
                }
                if client.is_unprivileged() && self.unprivileged >= of_users.max(1) {
                    let other = self.close_idle(now, |entry| entry.client.is_unprivileged());
                    return if other { Ok(true) } else { Err(RefusalReason::Client) };
                }
                Ok(false)
            }
        }
    }
}

impl Connections {
    fn lock_registry(&self) -> MutexGuard<'_, Registry> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of open connections.
    #[must_use]
    pub fn open(&self) -> usize {
        self.lock_registry().entries.len()
    }

    /// How many were closed at once, by reason.
    pub fn refused_counts(&self) -> impl Iterator<Item = (RefusalReason, u64)> {
        RefusalReason::ALL.into_iter().zip(self.0.refused.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// How many were closed after they had been served, by reason.
    pub fn closed_counts(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        CloseReason::ALL.into_iter().zip(self.0.closed.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Registers a connection as open until the result is dropped.
    ///
    /// # Errors
    /// When its client has reached its limit. This is not counted as refused: the connection may wait and be admitted
    /// later.
    pub(super) fn admit_peer(&self, peer: Peer, limits: &ConnectionLimits) -> Result<Open, RefusalReason> {
        let (client, now) = (peer.client_key(), Instant::now());
        let mut registry = self.lock_registry();
        if registry.check_client_limit(client, limits, now)? {
            self.count_closed(CloseReason::Idle);
        }
        let (number, close) = (registry.next, Arc::new(Notify::new()));
        registry.next += 1;
        *registry.clients.entry(client).or_default() += 1;
        registry.unprivileged += usize::from(client.is_unprivileged());
        registry
            .entries
            .insert(number, ConnectionEntry { client, idle: Some(now), close: Arc::clone(&close) });
        drop(registry);
        Ok(Open { place: Arc::new(ConnectionPlace { connections: self.clone(), number }), close })
    }

    /// Closes the oldest idle connection of the client with the most connections, in favour of a waiting one; returns
    /// whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let now = Instant::now();
        let mut registry = self.lock_registry();
        let mut idle: HashMap<ClientKey, usize> = HashMap::new();
        for entry in registry.entries.values().filter(|entry| entry.idle.is_some()) {
            *idle.entry(entry.client).or_default() += 1;
        }
        let Some((most, _)) = idle.into_iter().max_by_key(|(_, n)| *n) else { return false };
        let closed = registry.close_idle(now, |entry| entry.client == most);
        drop(registry);
        if closed {
            self.count_closed(CloseReason::Idle);
        }
        closed
    }

    pub(super) fn count_closed(&self, why: CloseReason) {
        if let Some(count) = self.0.closed.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_refused(&self, why: RefusalReason) {
        if let Some(count) = self.0.refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An open connection, while it is held.
#[derive(Debug)]
pub(super) struct Open {
    place: Arc<ConnectionPlace>,
    /// Notified when the connection must close.
    pub(super) close: Arc<Notify>,
}

impl Open {
    /// Those of its listener.
    pub(super) fn connections(&self) -> &Connections {
        &self.place.connections
    }

    /// Counts it as refused before any request.
    pub(super) fn count_refused(&self, why: RefusalReason) {
        self.connections().count_refused(why);
    }

    pub(super) fn clone_place(&self) -> Arc<ConnectionPlace> {
        Arc::clone(&self.place)
    }
}

/// A connection's entry in the registry.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    connections: Connections,
    number: u64,
}

impl ConnectionPlace {
    /// Marks a request as in progress until the result is dropped. `None` if the connection was told to close.
    pub(super) fn begin_request(self: &Arc<Self>) -> Option<UnderWay> {
        self.set_idle(None).then(|| UnderWay(Arc::clone(self)))
    }

    fn set_idle(&self, idle: Option<Instant>) -> bool {
        let mut registry = self.connections.lock_registry();
        let entry = registry.entries.get_mut(&self.number);
        entry.map(|entry| entry.idle = idle).is_some()
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.connections.lock_registry().remove(self.number);
    }
}

/// A request in progress, until its response is complete.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<ConnectionPlace>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set_idle(Some(Instant::now()));
    }
}

/// The key by which connections and requests are counted.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum ClientKey {
    /// An address; for IPv6 its /64 prefix, since a client with one address of a network can use all of them.
    Network(IpAddr),
    /// A process on this machine.
    Process {
        uid: u32,
        /// Its number when it connected.
        pid: Option<i32>,
    },
}

impl ClientKey {
    const fn is_unprivileged(self) -> bool {
        matches!(self, Self::Process { uid: 1.., .. })
    }
}

impl Peer {
    /// The client of this connection.
    #[must_use]
    pub fn client_key(self) -> ClientKey {
        let address = match self {
            // Processes of another pid namespace have no pid here.
            Self::Unix { uid, pid } => return ClientKey::Process { uid, pid: pid.filter(|pid| *pid != 0) },
            Self::Tcp(address) => address,
        };
        ClientKey::Network(match address.ip().to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
            }
            address => address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections: 8,
        per_client: 2,
        header_timeout: Duration::from_secs(5),
        write_timeout: Duration::from_secs(5),
        head: 16 << 10,
        headers: 100,
    };

    fn process(uid: u32, pid: i32) -> Peer {
        Peer::Unix { uid, pid: Some(pid) }
    }

    /// Makes all connections look as if they had been idle for a long time.
    fn age(connections: &Connections) {
        for entry in connections.lock_registry().entries.values_mut() {
            entry.idle = entry.idle.and_then(|since| since.checked_sub(MIN_IDLE));
        }
    }

    fn from(address: &str) -> Peer {
        Peer::Tcp(address.parse().unwrap())
    }

    #[test]
    fn each_client_has_so_many_and_gives_them_back() {
        let connections = Connections::default();
        let first = connections.admit_peer(from("10.0.0.1:1"), &LIMITS).unwrap();
        let second = connections.admit_peer(from("10.0.0.1:2"), &LIMITS).unwrap();
        assert_eq!(connections.admit_peer(from("10.0.0.1:3"), &LIMITS).err(), Some(RefusalReason::Client));
        let other = connections.admit_peer(from("10.0.0.2:1"), &LIMITS).unwrap();
        assert_eq!(connections.open(), 3);
        drop(first);
        let again = connections.admit_peer(from("10.0.0.1:4"), &LIMITS).unwrap();
        assert_eq!(
            connections.refused_counts().collect::<Vec<_>>(),
            [(RefusalReason::Client, 0), (RefusalReason::Handshake, 0)],
            "a connection that may still be admitted is not refused yet"
        );
        drop((second, other, again));
        assert_eq!(connections.open(), 0);
        assert!(connections.lock_registry().clients.is_empty(), "who is gone takes no memory");
    }

    #[test]
    fn one_process_leaves_half_of_the_places_and_users_leave_a_quarter_to_root() {
        let connections = Connections::default();
        let take = |uid, pid| connections.admit_peer(process(uid, pid), &LIMITS);
        let mut open: Vec<_> = (0..4).map(|_| take(1000, 7).unwrap()).collect();
        assert!(take(1000, 7).is_err(), "none of its connections has been idle for long");
        open.extend((0..2).map(|_| take(1000, 8).unwrap()));
        assert!(take(1001, 9).is_err(), "six of eight places are those of users");
        assert!(take(0, 1).is_ok());
        age(&connections);
        let busy = open.first().unwrap().clone_place().begin_request().unwrap();
        let newer = take(1000, 7).unwrap();
        assert_eq!(connections.closed_counts().last(), Some((CloseReason::Idle, 1)));
        assert!(
            open.first().unwrap().clone_place().begin_request().is_some(),
            "the one with a request under way stays"
        );
        assert!(
            open.get(1).unwrap().clone_place().begin_request().is_none(),
            "the oldest idle one is told to close"
        );
        drop((busy, newer, open));
        assert_eq!((connections.open(), connections.lock_registry().unprivileged), (0, 0));
    }

    #[test]
    fn room_is_made_by_the_client_that_has_most_idle_connections() {
        let connections = Connections::default();
        assert!(!connections.make_room());
        let one = connections.admit_peer(process(0, 1), &LIMITS).unwrap();
        let several: Vec<_> =
            (0..3).map(|_| connections.admit_peer(process(0, 2), &LIMITS).unwrap()).collect();
        assert!(!connections.make_room(), "their requests are on their way");
        age(&connections);
        assert!(connections.make_room() && connections.make_room());
        assert!(one.clone_place().begin_request().is_some());
        let left = several.iter().filter(|open| open.clone_place().begin_request().is_some()).count();
        assert_eq!((left, connections.open()), (1, 2));
    }

    #[test]
    fn the_addresses_of_one_network_are_one_client() {
        let of = |address: &str| match from(address).client_key() {
            ClientKey::Network(address) => address,
            ClientKey::Process { .. } => panic!("it came over the network"),
        };
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:9"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:1"));
        assert_eq!(of("[::1]:1").to_string(), "::1");
    }
}
