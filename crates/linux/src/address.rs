//! Loopback addresses for containers that share the agent's network namespace.
//!
//! Each gets an address of its own in `127.0.0.0/8`, outside `127.0.0.0/16`, where everything else on the host is,
//! and one port that all of them share. An address rests after its container, so that a sender that has not noticed
//! reaches nobody rather than somebody else.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How many addresses there are: `127.1.0.1` to `127.255.255.254`.
const FIRST: u32 = 0x7f01_0001;
const LAST: u32 = 0x7fff_fffe;
/// Where ports are looked for when an address has to be shared.
const FIRST_PORT: u16 = 18125;

/// Which addresses are in use or at rest.
#[derive(Debug, Default)]
pub struct Addresses {
    used: HashSet<SocketAddr>,
    /// Until when (monotonic).
    resting: BTreeMap<SocketAddr, Duration>,
}

impl Addresses {
    /// Takes a loopback address for a container. The same name starts its search at the same place, so that a
    /// container that comes back to a quiet node has the address it had.
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

    /// Takes this address if nobody has it.
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

/// The ports that the kernel gives to whoever asks for any, as `ip_local_port_range` says.
#[must_use]
pub fn ephemeral_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
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
}
