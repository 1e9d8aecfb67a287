//! Who has connections open: so many in all, and so many of one client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Peer;

/// Why a connection was closed before anything was asked by it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Its client has as many as it may.
    Client,
    /// It did not come to speak TLS.
    Handshake,
}

impl Refused {
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
pub enum Closed {
    /// Its client took nothing of an answer for as long as it may.
    Slow,
}

impl Closed {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Slow];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow",
        }
    }
}

/// Open connections of a listener, and those that it closed at once, for whoever wants to know.
#[derive(Clone, Default, Debug)]
pub struct Connections(Arc<Counts>);

#[derive(Default, Debug)]
struct Counts {
    open: AtomicUsize,
    clients: Mutex<HashMap<Client, usize>>,
    refused: [AtomicU64; Refused::ALL.len()],
    closed: [AtomicU64; Closed::ALL.len()],
}

impl Connections {
    /// How many are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// How many were closed at once, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (Refused, u64)> {
        Refused::ALL.into_iter().zip(self.0.refused.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// How many were closed after they had been served, by reason.
    pub fn closed(&self) -> impl Iterator<Item = (Closed, u64)> {
        Closed::ALL.into_iter().zip(self.0.closed.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Counts one more as open, until what this answers is dropped; or as refused, where its client has `most` already.
    pub(super) fn take(&self, peer: Peer, most: usize) -> Option<Open> {
        let client = matches!(peer, Peer::Tcp(_)).then(|| peer.client());
        if let Some(client) = client {
            let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
            let has = clients.entry(client).or_default();
            if *has >= most {
                drop(clients);
                self.count(Refused::Client);
                return None;
            }
            *has += 1;
        }
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Some(Open { connections: self.clone(), client })
    }

    pub(super) fn count_closed(&self, why: Closed) {
        if let Some(count) = self.0.closed.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self, why: Refused) {
        if let Some(count) = self.0.refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An open connection, while it is held.
#[derive(Debug)]
pub(super) struct Open {
    connections: Connections,
    client: Option<Client>,
}

impl Open {
    /// Those of its listener.
    pub(super) const fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Counts it as one by which nothing could be asked.
    pub(super) fn refused(&self, why: Refused) {
        self.connections.count(why);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let counts = &self.connections.0;
        counts.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut clients = counts.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(has) = clients.get_mut(&client) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                clients.remove(&client);
            }
        }
    }
}

/// What connections and requests are counted by.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum Client {
    /// An address; of IPv6 the half that a network gives out, since a client that has one address of it has all of them.
    Network(IpAddr),
    /// A process on this machine.
    Process {
        /// Its user.
        uid: u32,
        /// Its number when it connected.
        pid: Option<i32>,
    },
}

impl Peer {
    /// The client that this is a connection of.
    #[must_use]
    pub fn client(self) -> Client {
        let address = match self {
            Self::Unix { uid, pid } => return Client::Process { uid, pid },
            Self::Tcp(address) => address,
        };
        Client::Network(match address.ip().to_canonical() {
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

    fn from(address: &str) -> Peer {
        Peer::Tcp(address.parse().unwrap())
    }

    #[test]
    fn each_client_has_so_many_and_gives_them_back() {
        let connections = Connections::default();
        let first = connections.take(from("10.0.0.1:1"), 2).unwrap();
        let second = connections.take(from("10.0.0.1:2"), 2).unwrap();
        assert!(connections.take(from("10.0.0.1:3"), 2).is_none());
        let other = connections.take(from("10.0.0.2:1"), 2).unwrap();
        assert_eq!(connections.open(), 3);
        drop(first);
        let again = connections.take(from("10.0.0.1:4"), 2).unwrap();
        assert_eq!(
            connections.refused().collect::<Vec<_>>(),
            [(Refused::Client, 1), (Refused::Handshake, 0)]
        );
        drop((second, other, again));
        assert_eq!(connections.open(), 0);
        assert!(connections.0.clients.lock().unwrap().is_empty(), "who is gone takes no memory");
    }

    #[test]
    fn the_addresses_of_one_network_are_one_client() {
        let of = |address: &str| match from(address).client() {
            Client::Network(address) => address,
            Client::Process { .. } => panic!("it came over the network"),
        };
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:9"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:1"));
        assert_eq!(of("[::1]:1").to_string(), "::1");
    }
}
