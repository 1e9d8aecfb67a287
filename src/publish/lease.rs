//! Which requests are under way, so that a worker that hangs or has failed does not hold its round for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The requests under way, by their publisher and its worker.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Leases {
    /// When each was begun, in the time since some moment.
    begun: BTreeMap<String, BTreeMap<usize, Duration>>,
}

impl Leases {
    /// Notes that a worker sends a request. One that it had before has ended.
    pub(super) fn begin_request(&mut self, publisher: &str, worker: usize, now: Duration) {
        match self.begun.get_mut(publisher) {
            Some(begun) => drop(begun.insert(worker, now)),
            None => drop(self.begun.insert(publisher.to_owned(), BTreeMap::from([(worker, now)]))),
        }
    }

    /// Notes that a worker has its answer.
    pub(super) fn end_request(&mut self, publisher: &str, worker: usize) {
        if let Some(begun) = self.begun.get_mut(publisher) {
            begun.remove(&worker);
        }
    }

    /// Notes that no worker of a publisher sends a request.
    pub(super) fn end_requests(&mut self, publisher: &str) {
        self.begun.remove(publisher);
    }

    /// Takes back leases that are older than `lease`, the oldest first, at most `most`. Returns their publishers, which are started
    /// again and then have none.
    pub(super) fn reap_overdue(&mut self, now: Duration, lease: Duration, most: usize) -> BTreeSet<String> {
        let all = self.begun.iter().flat_map(|(name, begun)| begun.values().map(move |begun| (*begun, name)));
        let mut overdue: Vec<_> = all.filter(|(begun, _)| now.saturating_sub(*begun) > lease).collect();
        overdue.sort_unstable();
        overdue.truncate(most);
        let names: BTreeSet<_> = overdue.into_iter().map(|(_, name)| name.clone()).collect();
        names.iter().for_each(|name| self.end_requests(name));
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
            leases.begin_request(name, 0, at(begun));
        }
        leases.begin_request("c", 0, at(75));
        leases.begin_request("answered", 0, at(0));
        leases.end_request("answered", 0);
        let names = |leases: &mut Leases, now, most| {
            leases.reap_overdue(at(now), at(60), most).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(names(&mut leases.clone(), 80, 5), ["b"]);
        assert_eq!(names(&mut leases.clone(), 100, 5), ["a", "b"]);
        assert_eq!(names(&mut leases, 100, 1), ["b"]);
        assert_eq!(names(&mut leases, 100, 1), ["a"]);
        assert!(names(&mut leases, 100, 1).is_empty());
    }

    #[test]
    fn one_worker_that_hangs_is_found_beside_others_that_are_answered() {
        let (mut leases, at) = (Leases::default(), Duration::from_secs);
        leases.begin_request("a", 0, at(0));
        leases.begin_request("a", 1, at(0));
        leases.end_request("a", 1);
        leases.begin_request("a", 1, at(60));
        assert_eq!(leases.reap_overdue(at(61), at(60), 5).len(), 1);
        assert_eq!(leases, Leases::default(), "its thread is another one afterwards");
    }
}
