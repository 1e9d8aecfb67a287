//! Which requests are under way, so that a worker that hangs or has failed does not hold its round for ever.

use std::collections::BTreeMap;
use std::time::Duration;

/// The requests under way, by the name of their publisher.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Leases {
    /// When each was begun, in the time since some moment.
    begun: BTreeMap<String, Duration>,
}

impl Leases {
    /// Notes that a publisher sends a request. One that it had before has ended.
    pub(super) fn begin_request(&mut self, publisher: &str, now: Duration) {
        match self.begun.get_mut(publisher) {
            Some(begun) => *begun = now,
            None => drop(self.begun.insert(publisher.to_owned(), now)),
        }
    }

    /// Notes that a publisher has its answer, or waits.
    pub(super) fn end_request(&mut self, publisher: &str) {
        self.begun.remove(publisher);
    }

    /// Takes back the leases that are older than `lease`, the oldest first, at most `most`.
    pub(super) fn reap_overdue(&mut self, now: Duration, lease: Duration, most: usize) -> Vec<String> {
        let overdue = self.begun.iter().filter(|(_, begun)| now.saturating_sub(**begun) > lease);
        let mut overdue: Vec<_> = overdue.map(|(name, begun)| (*begun, name.clone())).collect();
        overdue.sort_unstable();
        overdue.truncate(most);
        let names: Vec<_> = overdue.into_iter().map(|(_, name)| name).collect();
        names.iter().for_each(|name| self.end_request(name));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_are_under_way_for_too_long_are_taken_back() {
        let (mut leases, at) = (Leases::default(), Duration::from_secs);
        for (name, begun) in [("a", 30), ("b", 10), ("c", 20), ("d", 71)] {
            leases.begin_request(name, at(begun));
        }
        leases.begin_request("c", at(75));
        leases.begin_request("answered", at(0));
        leases.end_request("answered");
        assert_eq!(leases.clone().reap_overdue(at(80), at(60), 5), ["b"]);
        assert_eq!(leases.clone().reap_overdue(at(100), at(60), 5), ["b", "a"]);
        assert_eq!(leases.reap_overdue(at(100), at(60), 1), ["b"]);
        assert_eq!(leases.reap_overdue(at(100), at(60), 1), ["a"]);
        assert!(leases.reap_overdue(at(100), at(60), 1).is_empty());
    }
}
