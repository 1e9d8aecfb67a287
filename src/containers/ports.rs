//! Ports on the loopback address of containers' own network namespaces.
//!
//! Containers that share a namespace, as those of a pod do, get different ports. A port rests after its container for
//! the next container of the same name, so that a container that is restarted beside its siblings has the port it
//! had.

use std::collections::HashMap;
use std::time::Duration;

use crate::net::netns::NamespaceId;

/// The first port that is tried. Not 8125, because the application may be a StatsD server itself.
pub(super) const FIRST: u16 = 18_125;
/// Ports that are tried before giving up; each failure is a port that the application uses.
const TRIES: usize = 1024;

/// The ports that are in use or resting.
#[derive(Debug, Default)]
pub(super) struct Ports {
    namespaces: HashMap<NamespaceId, Vec<Port>>,
}

#[derive(Debug)]
struct Port {
    number: u16,
    name: String,
    /// Until when it rests (monotonic); `None` while it is in use.
    until: Option<Duration>,
}

impl Ports {
    /// The ports that a container may have, best first.
    pub(super) fn candidate_ports(&mut self, namespace: NamespaceId, name: &str, now: Duration) -> Vec<u16> {
        self.drop_rested(now);
        let known = self.namespaces.get(&namespace).map(Vec::as_slice).unwrap_or_default();
        let had = known.iter().find(|port| port.until.is_some() && port.name == name).map(|port| port.number);
        // The kernel soon gives the number of a namespace that is gone to another. One in which no container listens may be
        // such a namespace, and no port rests there.
        let shared = known.iter().any(|port| port.until.is_none());
        let blocks = |port: &&Port| port.until.is_none() || shared;
        let taken: Vec<u16> = known.iter().filter(blocks).map(|port| port.number).collect();
        let free = (FIRST..=u16::MAX).filter(|number| !taken.contains(number) && had != Some(*number));
        had.into_iter().chain(free).take(TRIES).collect()
    }

    /// Records a port that was opened.
    pub(super) fn claim_port(&mut self, namespace: NamespaceId, name: &str, number: u16) {
        let known = self.namespaces.entry(namespace).or_default();
        known.retain(|port| port.number != number);
        known.push(Port { number, name: name.to_owned(), until: None });
    }

    /// Releases a port, which rests until `until`.
    pub(super) fn give_back(&mut self, namespace: NamespaceId, number: u16, until: Duration) {
        let known = self.namespaces.entry(namespace).or_default();
        for port in known.iter_mut().filter(|port| port.number == number) {
            port.until = Some(until);
        }
    }

    /// Whether a container has this port.
    pub(super) fn is_port_taken(&self, namespace: NamespaceId, number: u16) -> bool {
        let known = self.namespaces.get(&namespace).map(Vec::as_slice).unwrap_or_default();
        known.iter().any(|port| port.number == number && port.until.is_none())
    }

    /// Whether a container has a socket in this namespace.
    pub(super) fn in_use(&self, namespace: NamespaceId) -> bool {
        self.namespaces.get(&namespace).is_some_and(|known| known.iter().any(|port| port.until.is_none()))
    }

    fn drop_rested(&mut self, now: Duration) {
        self.namespaces.retain(|_, known| {
            known.retain(|port| port.until.is_none_or(|until| until > now));
            !known.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::netns::Namespace;

    #[test]
    fn siblings_get_different_ports_and_a_container_that_comes_back_gets_its_own() {
        let mut ports = Ports::default();
        let pod = Namespace::own_id().unwrap();
        let at = Duration::from_secs;
        let take = |ports: &mut Ports, name: &str, now| {
            let port = ports.candidate_ports(pod, name, at(now))[0];
            ports.claim_port(pod, name, port);
            port
        };
        assert_eq!([take(&mut ports, "app", 0), take(&mut ports, "sidecar", 0)], [18_125, 18_126]);
        ports.give_back(pod, 18_125, at(600));
        assert_eq!(take(&mut ports, "other", 1), 18_127, "it rests for who had it");
        assert_eq!(take(&mut ports, "app", 2), 18_125);
        ports.give_back(pod, 18_125, at(600));
        assert_eq!(take(&mut ports, "third", 601), 18_125, "and not for ever");
    }

    #[test]
    fn a_namespace_without_listeners_may_be_a_new_one() {
        let mut ports = Ports::default();
        let pod = Namespace::own_id().unwrap();
        for (name, port) in [("app", FIRST), ("sidecar", FIRST + 1)] {
            ports.claim_port(pod, name, port);
            ports.give_back(pod, port, Duration::from_mins(10));
        }
        let first = |ports: &mut Ports, name: &str| ports.candidate_ports(pod, name, Duration::ZERO)[0];
        assert_eq!(first(&mut ports, "other"), FIRST);
        assert_eq!(
            first(&mut ports, "sidecar"),
            FIRST + 1,
            "if it is the same, who comes back has what it had"
        );
    }

    #[test]
    fn a_namespace_without_containers_is_forgotten() {
        let mut ports = Ports::default();
        let pod = Namespace::own_id().unwrap();
        ports.claim_port(pod, "app", FIRST);
        assert!(ports.in_use(pod));
        ports.give_back(pod, FIRST, Duration::from_secs(1));
        assert!(!ports.in_use(pod));
        assert_eq!(ports.candidate_ports(pod, "app", Duration::from_secs(2))[0], FIRST);
        assert!(ports.namespaces.is_empty());
    }
}
