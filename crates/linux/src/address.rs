//! Loopback addresses for containers that share the agent's network namespace.
//!
//! Each gets an address of its own in `127.0.0.0/8`, outside `127.0.0.0/16`, where everything else on the host is,
//! and one port that all of them share. An address rests after its container, so that datagrams of a sender that continues reach
//! no other container.
//!
//! A socket that is bound to the port on every address takes it from all containers; [`holder_of`] finds its process.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

/// The range of addresses: `127.1.0.1` to `127.255.255.254`.
const FIRST: u32 = 0x7f01_0001;
const LAST: u32 = 0x7fff_fffe;
/// The first port to try when an address has to be shared.
const FIRST_PORT: u16 = 18125;

/// The addresses that are in use or resting.
#[derive(Debug, Default)]
pub struct Addresses {
    used: HashSet<SocketAddr>,
    /// Until when (monotonic).
    resting: BTreeMap<SocketAddr, Duration>,
}

impl Addresses {
    /// Takes a loopback address for a container. The search for a given name always starts at the same address, so that
    /// a container that returns to a quiet node gets its previous address.
    pub fn take_loopback(&mut self, name: &str, port: u16, now: Duration) -> Option<SocketAddr> {
        self.release_rested(now);
        let count = u64::from(LAST - FIRST) + 1;
        let start = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) % count;
        let address = |offset: u64| {
            let host = u32::try_from((start + offset) % count).unwrap_or(0);
            SocketAddr::new(IpAddr::V4(Ipv4Addr::from(FIRST + host)), port)
        };
        let free = (0..count).map(address).find(|address| self.is_free(*address))?;
        self.used.insert(free);
        Some(free)
    }

    /// Takes a port of an address that several containers share.
    pub fn take_port(&mut self, host: IpAddr, now: Duration) -> Option<SocketAddr> {
        self.release_rested(now);
        let free =
            (FIRST_PORT..=u16::MAX).map(|port| SocketAddr::new(host, port)).find(|a| self.is_free(*a))?;
        self.used.insert(free);
        Some(free)
    }

    /// Takes this address if it is free.
    pub fn take_exact(&mut self, address: SocketAddr) -> bool {
        self.used.insert(address)
    }

    /// Gives an address back; it rests until `until`.
    pub fn give_back(&mut self, address: SocketAddr, until: Duration) {
        if self.used.remove(&address) {
            self.resting.insert(address, until);
        }
    }

    fn is_free(&self, address: SocketAddr) -> bool {
        !self.used.contains(&address) && !self.resting.contains_key(&address)
    }

    fn release_rested(&mut self, now: Duration) {
        self.resting.retain(|_, until| *until > now);
    }
}

/// The ports from which the kernel chooses when a process asks for any port (`ip_local_port_range`).
#[must_use]
pub fn ephemeral_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
}

/// How often the table is read: one reading may skip entries if sockets close meanwhile.
const READINGS: usize = 4;

/// A socket that has bound a port on the wildcard address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortHolder {
    /// The user that opened it.
    pub user: u32,
    /// Pid and name of a process that has it open, if this process may see it.
    pub process: Option<(i32, String)>,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "process {pid} ({name}) of user {}", self.user),
            None => write!(f, "a process of user {} that cannot be seen from here", self.user),
        }
    }
}

/// The socket that has bound this port on the wildcard address of this network namespace.
#[must_use]
pub fn holder_of(port: u16) -> Option<PortHolder> {
    let read = |table: &str| std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let find = || ["udp", "udp6"].iter().find_map(|table| find_wildcard_socket(&read(table), port));
    let (user, inode) = (0..READINGS).find_map(|_| find())?;
    Some(PortHolder { user, process: process_with(&format!("socket:[{inode}]")) })
}

/// User and inode of the socket that has bound a port on the wildcard address.
fn find_wildcard_socket(table: &str, port: u16) -> Option<(u32, u64)> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, number) = fields.get(1)?.split_once(':')?;
        let is_it = address.bytes().all(|digit| digit == b'0') && u16::from_str_radix(number, 16) == Ok(port);
        if is_it { Some((fields.get(7)?.parse().ok()?, fields.get(9)?.parse().ok()?)) } else { None }
    })
}

/// A process that has a descriptor of this name.
fn process_with(descriptor: &str) -> Option<(i32, String)> {
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).find_map(
        |(pid, path): (i32, _)| {
            let mut descriptors = std::fs::read_dir(path.join("fd")).ok()?.filter_map(Result::ok);
            let has = descriptors.any(|one| {
                std::fs::read_link(one.path()).is_ok_and(|target| target == Path::new(descriptor))
            });
            let name = || std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            has.then(|| (pid, name().trim_end().to_owned()))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 18125;

    #[test]
    fn an_address_is_loopback_but_not_where_the_host_is() {
        let mut addresses = Addresses::default();
        for n in 0..1000 {
            let address = addresses.take_loopback(&format!("c{n}"), PORT, Duration::ZERO).unwrap();
            let IpAddr::V4(host) = address.ip() else { panic!("{address}") };
            let [a, b, c, d] = host.octets();
            assert!(a == 127 && b >= 1, "{address}");
            assert_ne!([b, c, d], [255, 255, 255]);
        }
    }

    #[test]
    fn a_name_starts_at_its_own_place_and_two_never_share() {
        let take =
            |addresses: &mut Addresses, name| addresses.take_loopback(name, PORT, Duration::ZERO).unwrap();
        let (mut one, mut other) = (Addresses::default(), Addresses::default());
        let first = take(&mut one, "web");
        assert_eq!(take(&mut other, "web"), first);
        assert_ne!(take(&mut one, "web"), first);
    }

    #[test]
    fn an_address_rests_before_it_is_given_again() {
        let mut addresses = Addresses::default();
        let at = Duration::from_secs;
        let first = addresses.take_loopback("web", PORT, at(0)).unwrap();
        addresses.give_back(first, at(600));
        let second = addresses.take_loopback("web", PORT, at(599)).unwrap();
        assert_ne!(second, first);
        addresses.give_back(second, at(1199));
        assert_eq!(addresses.take_loopback("web", PORT, at(600)), Some(first));
    }

    #[test]
    fn ports_of_a_shared_address_go_upward() {
        let mut addresses = Addresses::default();
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let take = |addresses: &mut Addresses| addresses.take_port(host, Duration::ZERO).unwrap().port();
        assert_eq!([take(&mut addresses), take(&mut addresses)], [18125, 18126]);
        assert!(!addresses.take_exact(SocketAddr::new(host, 18126)));
    }

    #[test]
    fn the_kernels_port_range_is_two_numbers() {
        assert_eq!(ephemeral_ports("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(ephemeral_ports("nonsense"), None);
    }

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        1: 0100007F:46CD 00000000:0000 07 00000000:00000000 00:00000000 00000000  7 0 11 2 0 0\n\
        2: 00000000:46CE 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000 0 12 2 0 0\n";

    #[test]
    fn only_a_socket_on_every_address_holds_a_port() {
        assert_eq!(find_wildcard_socket(TABLE, 0x46CE), Some((1000, 12)));
        assert_eq!(
            [
                find_wildcard_socket(TABLE, 0x46CD),
                find_wildcard_socket(TABLE, 1),
                find_wildcard_socket("", 1)
            ],
            [None; 3]
        );
    }

    #[test]
    fn the_process_that_holds_a_port_is_named() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let holder = holder_of(socket.local_addr().unwrap().port()).unwrap();
        let (pid, name) = holder.process.clone().unwrap();
        assert_eq!(pid, i32::try_from(std::process::id()).unwrap());
        assert!(
            !name.is_empty() && holder.to_string().starts_with(&format!("process {pid} ({name}) of user "))
        );
    }
}
