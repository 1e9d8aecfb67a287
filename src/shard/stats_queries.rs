//! Requests of readers for statistics, answered in bounded slices.
//!
//! Waiting queries of one kind are answered by a single walk over the requested containers, so a hundred readers cost as
//! much as one. Queries about a few containers have walks of their own, so a small request does not wait for a large one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::aggregate::{Accounting, ContainerSummary, Habits, RejectedLine, Window};
use crate::model::{Allocation, Series, Timestamp};

/// Which containers are asked about.
#[derive(Clone, Debug)]
pub enum ContainerSelection {
    /// Every one.
    All,
    /// These.
    These(Vec<Allocation>),
}

/// A container's statistics at one moment.
#[derive(Debug)]
pub struct ContainerStats {
    /// The container.
    pub allocation: Allocation,
    /// What arrived and what became of it.
    pub accounting: Accounting,
    /// Values in the open window.
    pub open_values: u64,
    /// Live series.
    pub series: usize,
    /// Bytes of the socket's receive buffer.
    pub receive_buffer: usize,
    /// Bytes of memory.
    pub memory: usize,
    /// The most recently rejected lines, oldest first.
    pub rejected: Arc<[RejectedLine]>,
    /// When data was last dropped, folded or rejected, to within a window; of what this process has seen, or one from which it has
    /// taken over a container that was not ended.
    pub last_problem: Option<Timestamp>,
    /// What has been seen of the container's client.
    pub habits: Habits,
    /// Some of the series whose totals were decremented.
    pub decremented: Arc<[Arc<Series>]>,
    /// The open window, ledger, events and checks, if requested.
    pub open: Option<(Arc<Window>, ContainerSummary)>,
}

impl ContainerStats {
    /// Statistics of a container that ended in an earlier run of the agent: only its counts are known, at best.
    #[must_use]
    pub fn of_ended(allocation: Allocation, accounting: Accounting) -> Self {
        Self {
            allocation,
            accounting,
            open_values: 0,
            series: 0,
            receive_buffer: 0,
            memory: 0,
            rejected: Arc::default(),
            last_problem: None,
            habits: Habits::default(),
            decremented: Arc::default(),
            open: None,
        }
    }
}

/// The level of detail of a container's statistics.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum StatsDetail {
    /// Counts.
    Counts,
    /// Counts and the open window.
    OpenWindow,
}

/// The largest number of containers in a small query.
pub(super) const MAX_SMALL_QUERY: usize = 16;

/// Statistics by container. Shared by all queries that one walk answers.
pub type StatsByContainer = HashMap<Allocation, Arc<ContainerStats>>;

/// Where the answer to a query goes.
pub(super) type Reply = oneshot::Sender<Arc<StatsByContainer>>;

/// Queries that wait, and those that are being answered.
#[derive(Debug)]
pub(super) struct StatsQueries {
    lanes: [Lane; 4],
    /// The lane that has the next step.
    turn: usize,
}

/// Queries of one kind.
#[derive(Debug)]
struct Lane {
    few: bool,
    detail: StatsDetail,
    waiting: Vec<(ContainerSelection, Reply)>,
    walk: Option<Walk>,
}

/// One pass over containers, for every query that waited when it began.
#[derive(Debug)]
struct Walk {
    rest: std::vec::IntoIter<Allocation>,
    found: StatsByContainer,
    replies: Vec<Reply>,
}

impl Default for StatsQueries {
    fn default() -> Self {
        let lane = |few, detail| Lane { few, detail, waiting: Vec::new(), walk: None };
        let lanes = [
            lane(true, StatsDetail::Counts),
            lane(true, StatsDetail::OpenWindow),
            lane(false, StatsDetail::Counts),
            lane(false, StatsDetail::OpenWindow),
        ];
        Self { lanes, turn: 0 }
    }
}

impl StatsQueries {
    /// Queues a query in its lane.
    pub(super) fn add(&mut self, of: ContainerSelection, detail: StatsDetail, reply: Reply) {
        let few = matches!(&of, ContainerSelection::These(these) if these.len() <= MAX_SMALL_QUERY);
        if let Some(lane) = self.lanes.iter_mut().find(|lane| (lane.few, lane.detail) == (few, detail)) {
            lane.waiting.push((of, reply));
        }
    }

    /// Whether any query waits for its answer.
    pub(super) fn has_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| lane.walk.is_some() || !lane.waiting.is_empty())
    }

    /// The next container to look at, and in which detail; `None` once every query is answered. Lanes take turns. The
    /// caller passes the result to [`StatsQueries::record_stats`]; a container that is gone is omitted from the answers.
    pub(super) fn next(&mut self, all: impl Fn() -> Vec<Allocation>) -> Option<(Allocation, StatsDetail)> {
        for _ in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(self.turn) else { break };
            if let Some(next) = lane.next(&all) {
                return Some((next, lane.detail));
            }
            self.advance_turn();
        }
        None
    }

    /// Records the statistics of the container that [`StatsQueries::next`] returned, and moves on to the next lane.
    pub(super) fn record_stats(&mut self, stats: Option<ContainerStats>) {
        if let Some(walk) = self.lanes.get_mut(self.turn).and_then(|lane| lane.walk.as_mut())
            && let Some(stats) = stats
        {
            walk.found.insert(stats.allocation, Arc::new(stats));
        }
        self.advance_turn();
    }

    fn advance_turn(&mut self) {
        self.turn = (self.turn + 1) % self.lanes.len();
    }
}

impl Lane {
    fn next(&mut self, all: &impl Fn() -> Vec<Allocation>) -> Option<Allocation> {
        loop {
            if self.walk.is_none() {
                // Drop the queries of disconnected readers.
                self.waiting.retain(|(_, reply)| !reply.is_closed());
                if self.waiting.is_empty() {
                    return None;
                }
                self.walk = Some(Walk::from_waiting(std::mem::take(&mut self.waiting), all));
            }
            match self.walk.as_mut().and_then(|walk| walk.rest.next()) {
                Some(next) => return Some(next),
                None => self.walk.take().into_iter().for_each(Walk::send_replies),
            }
        }
    }
}

impl Walk {
    fn from_waiting(waiting: Vec<(ContainerSelection, Reply)>, all: &impl Fn() -> Vec<Allocation>) -> Self {
        let (of, replies): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let mut these = HashSet::new();
        let named = of.into_iter().try_for_each(|of| match of {
            ContainerSelection::All => None,
            ContainerSelection::These(of) => {
                these.extend(of);
                Some(())
            }
        });
        let rest = if named.is_some() { these.into_iter().collect() } else { all() };
        Self { rest: rest.into_iter(), found: StatsByContainer::new(), replies }
    }

    fn send_replies(self) {
        let found = Arc::new(self.found);
        for reply in self.replies {
            // A reader that was disconnected meanwhile needs no answer.
            let _disconnected = reply.send(Arc::clone(&found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Arc<StatsByContainer>>;

    fn ask(queries: &mut StatsQueries, of: ContainerSelection, detail: StatsDetail) -> Answer {
        let (reply, answer) = oneshot::channel();
        queries.add(of, detail, reply);
        answer
    }

    fn all(n: u64) -> Vec<Allocation> {
        (0..n).map(Allocation).collect()
    }

    /// Does one step on a shard of 1,000 containers; returns whether there was one.
    fn step(queries: &mut StatsQueries) -> bool {
        let next = queries.next(|| all(1000));
        let seen = next.map(|(allocation, _)| ContainerStats::of_ended(allocation, Accounting::default()));
        let stepped = seen.is_some();
        if stepped {
            queries.record_stats(seen);
        }
        stepped
    }

    /// Does steps until nothing is left to do or the reply has arrived; returns the number of steps.
    fn steps_until(queries: &mut StatsQueries, mut done: impl FnMut() -> bool) -> usize {
        let mut steps = 0;
        while !done() && step(queries) {
            steps += 1;
        }
        steps
    }

    fn found(answer: &mut Answer) -> Option<usize> {
        answer.try_recv().ok().map(|stats_by_container| stats_by_container.len())
    }

    #[test]
    fn a_hundred_readers_that_wait_together_cost_one_walk() {
        let mut queries = StatsQueries::default();
        let mut answers: Vec<_> =
            (0..100).map(|_| ask(&mut queries, ContainerSelection::All, StatsDetail::Counts)).collect();
        let steps = steps_until(&mut queries, || false);
        assert_eq!(steps, 1000);
        assert!(answers.iter_mut().all(|answer| found(answer) == Some(1000)));
        assert!(!queries.has_waiting());
    }

    #[test]
    fn what_is_asked_during_a_walk_is_answered_by_the_next() {
        let mut queries = StatsQueries::default();
        let mut first = ask(&mut queries, ContainerSelection::All, StatsDetail::Counts);
        assert!(step(&mut queries));
        let mut second = ask(&mut queries, ContainerSelection::All, StatsDetail::Counts);
        let steps = steps_until(&mut queries, || found(&mut first).is_some());
        assert_eq!((steps, found(&mut second)), (1000, None), "an answer is not older than its question");
        while step(&mut queries) {}
        assert_eq!(found(&mut second), Some(1000));
    }

    #[test]
    fn a_look_at_one_container_does_not_wait_for_a_walk_over_all() {
        let mut queries = StatsQueries::default();
        let _large = ask(&mut queries, ContainerSelection::All, StatsDetail::Counts);
        for _ in 0..10 {
            assert!(step(&mut queries));
        }
        let mut small =
            ask(&mut queries, ContainerSelection::These(vec![Allocation(7)]), StatsDetail::OpenWindow);
        let steps = steps_until(&mut queries, || found(&mut small).is_some());
        assert!(steps <= 4, "{steps}");
    }

    #[test]
    fn a_reader_that_has_gone_away_costs_nothing() {
        let mut queries = StatsQueries::default();
        drop(ask(&mut queries, ContainerSelection::All, StatsDetail::OpenWindow));
        assert!(!step(&mut queries) && !queries.has_waiting());
    }

    #[test]
    fn looks_at_named_containers_are_merged_and_doubles_looked_at_once() {
        let mut queries = StatsQueries::default();
        let these = |of: [u64; 2]| ContainerSelection::These(of.map(Allocation).to_vec());
        let mut one = ask(&mut queries, these([1, 2]), StatsDetail::Counts);
        let mut other = ask(&mut queries, these([2, 3]), StatsDetail::Counts);
        let steps = steps_until(&mut queries, || false);
        assert_eq!((steps, found(&mut one), found(&mut other)), (3, Some(3), Some(3)));
    }
}
