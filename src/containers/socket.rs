//! Where a container's socket is to be, and opening it there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::errors::ReserveError;
use super::reservation::{Dialect, Network, Reservation};
use super::table::Settings;
use crate::net::address::Addresses;
use crate::net::listener;

/// The agent's own network namespace.
const OWN: &str = "/proc/self/ns/net";
/// `NSFS_MAGIC` of `linux/magic.h`: the file system that namespaces live in.
const NSFS: i64 = 0x6e73_6673;
/// Addresses that are tried before giving up; each failure is a stranger who listens there.
const TRIES: usize = 64;

/// Whether the container runs in the agent's network namespace. Runtimes give a path for that too, so what counts is
/// which namespace it is, not whether there is a path.
pub(super) fn shares_our_namespace(network: &Network) -> Result<bool, ReserveError> {
    match network {
        Network::Host => Ok(true),
        Network::New => Ok(false),
        Network::Path(path) => {
            let named = identity(path)?;
            Ok(identity(Path::new(OWN)).is_ok_and(|own| own == named))
        }
    }
}

fn identity(path: &Path) -> Result<(u64, u64), ReserveError> {
    let no = |why: String| ReserveError::NotANamespace { path: path.to_owned(), why };
    let options = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, options, nix::sys::stat::Mode::empty())
        .map_err(|error| no(io::Error::from(error).to_string()))?;
    let file = std::fs::File::from(fd);
    let system = nix::sys::statfs::fstatfs(&file).map_err(|error| no(io::Error::from(error).to_string()))?;
    if system.filesystem_type().0 != NSFS {
        return Err(no("it is an ordinary file".to_owned()));
    }
    let metadata = file.metadata().map_err(|error| no(error.to_string()))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Opens a socket for a container that shares our namespace.
pub(super) fn open(
    reservation: &Reservation,
    settings: &Settings,
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
    if !addresses.take(address) {
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
    fn our_own_namespace_is_known_by_what_it_is_not_by_how_it_is_named() {
        let path = |path: &str| Network::Path(path.into());
        assert!(shares_our_namespace(&Network::Host).unwrap());
        assert!(shares_our_namespace(&path("/proc/self/ns/net")).unwrap());
        assert!(shares_our_namespace(&path(&format!("/proc/{}/ns/net", std::process::id()))).unwrap());
        assert!(!shares_our_namespace(&Network::New).unwrap());
    }

    #[test]
    fn a_path_that_is_no_namespace_is_refused() {
        for (path, why) in [("/etc/hostname", "ordinary file"), ("/no/such/path", "No such file")] {
            let error = shares_our_namespace(&Network::Path(path.into())).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
