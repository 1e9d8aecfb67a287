//! Where a container's socket is to be, opening it where it shares the agent's namespace, and the variables that tell the
//! container.

use std::collections::BTreeMap;
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

/// Addresses that are tried before giving up; each failure is an address that another process uses.
const TRIES: usize = 64;

/// The namespace for a container's socket.
#[derive(Debug)]
pub(super) enum Site {
    /// The agent's.
    Shared,
    /// One of its own.
    Own(Namespace),
    /// One of its own that does not exist yet.
    Unborn,
}

impl Site {
    /// The namespace of a container. Runtimes also give a path for the agent's own namespace, so compare namespaces
    /// instead of testing for a path.
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

/// Opens the network namespace at a path, or that of the process that holds it. The path is one of the node: an agent
/// in a container has it only if the directory is mounted, but can always see the node's processes.
fn open_namespace(path: &Path, holder: Option<i32>) -> Result<Namespace, NotANamespace> {
    let missing = match Namespace::open(path) {
        Err(missing) if missing.why.kind() == io::ErrorKind::NotFound => missing,
        opened => return opened,
    };
    holder.and_then(|pid| Namespace::of_process(pid).ok()).ok_or(missing)
}

/// Opens a socket for a container that shares the agent's namespace.
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

/// Opens a separate port at an address that containers share.
fn open_shared(
    host: IpAddr,
    addresses: &mut Addresses,
    buffer: usize,
    now: Duration,
) -> Result<(UdpSocket, SocketAddr), ReserveError> {
    first_open(addresses, buffer, |addresses| addresses.take_port(host, now))
}

/// Opens a separate loopback address; without IPv4, a separate port at `::1`.
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

/// Tries addresses until one can be opened; those that cannot are released at once.
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

/// `STATSD_UDP_HOST` and `STATSD_UDP_PORT`, and the aliases of the presets.
///
/// `DD_AGENT_HOST` has its own preset, because tracers read it, too, and would look for an agent there. Clients that do
/// not support `DD_DOGSTATSD_URL` send to port 8125 of it unless `DD_DOGSTATSD_PORT` is set.
#[must_use]
pub fn udp_environment(address: SocketAddr, presets: &[String]) -> BTreeMap<String, String> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let in_url = match address.ip() {
        IpAddr::V4(_) => host.clone(),
        IpAddr::V6(_) => format!("[{host}]"),
    };
    let mut variables = vec![("STATSD_UDP_HOST", host.clone()), ("STATSD_UDP_PORT", port.clone())];
    for preset in presets {
        match preset.as_str() {
            "statsd" => variables.extend([("STATSD_HOST", host.clone()), ("STATSD_PORT", port.clone())]),
            "datadog" => variables.push(("DD_DOGSTATSD_URL", format!("udp://{in_url}:{port}"))),
            "DD_AGENT_HOST" => {
                variables.extend([("DD_AGENT_HOST", host.clone()), ("DD_DOGSTATSD_PORT", port.clone())]);
            }
            _ => {}
        }
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The variables of a container with a Unix socket mounted at this path; they take precedence over those of its
/// address.
#[must_use]
pub fn unix_environment(path: &Path, presets: &[String]) -> BTreeMap<String, String> {
    let datadog = presets.iter().any(|preset| preset == "datadog");
    let url = datadog.then(|| ("DD_DOGSTATSD_URL".to_owned(), format!("unix://{}", path.display())));
    url.into_iter().collect()
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

    fn names(presets: &[&str], address: &str) -> Vec<String> {
        let presets: Vec<_> = presets.iter().map(|preset| (*preset).to_owned()).collect();
        udp_environment(address.parse().unwrap(), &presets)
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn the_two_variables_are_always_there() {
        assert_eq!(names(&[], "127.1.2.3:18125"), ["STATSD_UDP_HOST=127.1.2.3", "STATSD_UDP_PORT=18125"]);
    }

    #[test]
    fn a_unix_socket_is_named_by_the_preset_of_those_who_can_use_it() {
        let named = |presets: &[&str]| {
            let presets: Vec<_> = presets.iter().map(|preset| (*preset).to_owned()).collect();
            unix_environment(Path::new("/var/run/datadog/dsd.socket"), &presets)
        };
        let url = ("DD_DOGSTATSD_URL".to_owned(), "unix:///var/run/datadog/dsd.socket".to_owned());
        assert_eq!(named(&["statsd", "datadog"]).into_iter().collect::<Vec<_>>(), [url]);
        assert!(named(&["statsd"]).is_empty());
    }

    #[test]
    fn presets_add_aliases() {
        let all = names(&["statsd", "datadog", "DD_AGENT_HOST"], "127.1.2.3:18125");
        assert_eq!(
            all,
            [
                "DD_AGENT_HOST=127.1.2.3",
                "DD_DOGSTATSD_PORT=18125",
                "DD_DOGSTATSD_URL=udp://127.1.2.3:18125",
                "STATSD_HOST=127.1.2.3",
                "STATSD_PORT=18125",
                "STATSD_UDP_HOST=127.1.2.3",
                "STATSD_UDP_PORT=18125"
            ]
        );
        assert!(
            names(&["datadog"], "[::1]:18126").contains(&"DD_DOGSTATSD_URL=udp://[::1]:18126".to_owned())
        );
    }
}
