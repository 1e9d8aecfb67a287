//! Where a container's socket is to be, and opening it where it shares the agent's namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use super::errors::ReserveError;
use super::reservation::{ContainerNetwork, Dialect, Reservation};
use super::state::SocketNamespace;
use super::table::TableSettings;
use crate::net::address::Addresses;
use crate::net::listener;
use crate::net::netns::{Namespace, NotANamespace};

/// Addresses that are tried before giving up; each failure is a stranger who listens there.
const TRIES: usize = 64;

/// The namespace that a container's socket is to be in.
#[derive(Debug)]
pub(super) enum Site {
    /// The agent's.
    Shared,
    /// One of its own.
    Own(Namespace),
    /// One of its own that is not born yet.
    Unborn,
}

impl Site {
    /// Where a container is to be. Runtimes give a path for the agent's own namespace too, so what counts is which
    /// namespace it is, not whether there is a path.
    pub(super) fn from_reservation(reservation: &Reservation) -> Result<Self, NotANamespace> {
        Ok(match &reservation.network {
            ContainerNetwork::Host => Self::Shared,
            ContainerNetwork::New => Self::Unborn,
            ContainerNetwork::Path(path) => {
                let named = open_namespace(path, reservation.holder)?;
                match Namespace::own_id() {
                    Ok(own) if own == named.id() => Self::Shared,
                    _ => Self::Own(named),
                }
            }
        })
    }

    pub(super) fn socket_namespace(&self) -> SocketNamespace {
        match self {
            Self::Shared => SocketNamespace::Shared,
            Self::Own(namespace) => SocketNamespace::Own(namespace.id()),
            Self::Unborn => SocketNamespace::Unborn,
        }
    }
}

/// The network namespace at a path, or that of the process that holds it: the path is the node's, and an agent in a
/// container sees it only where the directory is mounted, while it sees the node's processes wherever it is.
fn open_namespace(path: &Path, holder: Option<i32>) -> Result<Namespace, NotANamespace> {
    let missing = match Namespace::open(path) {
        Err(missing) if missing.why.kind() == io::ErrorKind::NotFound => missing,
        opened => return opened,
    };
    holder.and_then(|pid| Namespace::of_process(pid).ok()).ok_or(missing)
}

/// Opens a socket for a container that shares our namespace.
pub(super) fn open(
    reservation: &Reservation,
    settings: &TableSettings,
    addresses: &mut Addresses,
    buffer: usize,
    now: Duration,
) -> Result<(UdpSocket, SocketAddr), ReserveError> {
    if let Some(wanted) = reservation.wanted {
        let host = wanted.host.or(settings.dcos_host).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        return match wanted.port {
            Some(port) => open_wanted(SocketAddr::new(host, port), addresses, buffer),
            None => open_shared(host, addresses, buffer, now),
        };
    }
    match settings.dcos_host {
        Some(host) if reservation.dialect == Dialect::Dcos => open_shared(host, addresses, buffer, now),
        _ => open_loopback(reservation.container_id.as_str(), settings.port, addresses, buffer, now),
    }
}

fn open_wanted(
    address: SocketAddr,
    addresses: &mut Addresses,
    buffer: usize,
) -> Result<(UdpSocket, SocketAddr), ReserveError> {
    if !addresses.take_exact(address) {
        return Err(ReserveError::AddressTaken { address });
    }
    listener::open(address, buffer).map(|socket| (socket, address)).map_err(|source| {
        addresses.give_back(address, Duration::ZERO);
        match source.kind() {
            io::ErrorKind::AddrInUse => ReserveError::AddressTaken { address },
            _ => ReserveError::Socket { address, source },
        }
    })
}

/// A port of its own at an address that containers share.
fn open_shared(
    host: IpAddr,
    addresses: &mut Addresses,
    buffer: usize,
    now: Duration,
) -> Result<(UdpSocket, SocketAddr), ReserveError> {
    first_open(addresses, buffer, |addresses| addresses.take_port(host, now))
}

/// A loopback address of its own; where there is no IPv4, a port of its own at `::1`.
fn open_loopback(
    name: &str,
    port: u16,
    addresses: &mut Addresses,
    buffer: usize,
    now: Duration,
) -> Result<(UdpSocket, SocketAddr), ReserveError> {
    match first_open(addresses, buffer, |addresses| addresses.take_loopback(name, port, now)) {
        Err(ReserveError::Socket { source, .. }) if no_ipv4(&source) => {
            open_shared(IpAddr::V6(Ipv6Addr::LOCALHOST), addresses, buffer, now)
        }
        answer => answer,
    }
}

fn no_ipv4(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Tries addresses until one can be opened; those that cannot are given back at once.
fn first_open(
    addresses: &mut Addresses,
    buffer: usize,
    take: impl Fn(&mut Addresses) -> Option<SocketAddr>,
) -> Result<(UdpSocket, SocketAddr), ReserveError> {
    let mut failed = Vec::new();
    let mut answer = Err(ReserveError::NoAddress);
    while failed.len() < TRIES {
        let Some(address) = take(addresses) else { break };
        match listener::open(address, buffer) {
            Ok(socket) => {
                answer = Ok((socket, address));
                break;
            }
            Err(source) => {
                failed.push(address);
                let retry = source.kind() == io::ErrorKind::AddrInUse;
                answer = Err(ReserveError::Socket { address, source });
                if !retry {
                    break;
                }
            }
        }
    }
    for address in failed {
        addresses.give_back(address, Duration::ZERO);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_is_shared_however_it_is_named() {
        let place = |network: ContainerNetwork| {
            Site::from_reservation(&named(network, None)).unwrap().socket_namespace()
        };
        let path = |path: &str| ContainerNetwork::Path(path.into());
        assert_eq!(place(ContainerNetwork::Host), SocketNamespace::Shared);
        assert_eq!(place(path("/proc/self/ns/net")), SocketNamespace::Shared);
        assert_eq!(place(path(&format!("/proc/{}/ns/net", std::process::id()))), SocketNamespace::Shared);
        assert_eq!(place(ContainerNetwork::New), SocketNamespace::Unborn);
        assert!(Site::from_reservation(&named(path("/etc/hostname"), None)).is_err());
    }

    #[test]
    fn a_network_whose_path_is_not_mounted_here_is_found_by_the_process_that_holds_it() {
        let missing = || ContainerNetwork::Path("/var/run/netns/cni-not-mounted".into());
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(
            Site::from_reservation(&named(missing(), Some(me))).unwrap().socket_namespace(),
            SocketNamespace::Shared
        );
        let refused = Site::from_reservation(&named(missing(), None)).unwrap_err();
        assert!(refused.to_string().contains("/var/run/netns/cni-not-mounted"), "{refused}");
        let ended = i32::MAX;
        assert!(Site::from_reservation(&named(missing(), Some(ended))).is_err());
        let wrong = ContainerNetwork::Path("/etc/hostname".into());
        assert!(Site::from_reservation(&named(wrong, Some(me))).is_err(), "what is there counts");
    }

    fn named(network: ContainerNetwork, holder: Option<i32>) -> Reservation {
        let id = crate::model::ContainerId::new("c1").unwrap();
        Reservation { network, holder, ..Reservation::new(id) }
    }
}
