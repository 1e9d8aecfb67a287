//! What an earlier life of the agent knew beside windows.

use std::sync::Arc;

use super::{Aggregator, LedgerRow, Standing};
use crate::aggregate::state::{CheckState, State};
use crate::aggregate::weight::Weight;
use crate::model::Series;

impl Aggregator {
    /// Goes on with the events and the outcomes of checks that an earlier life of the agent had: of those that come rarely
    /// there would be nothing to see for hours. No window has them, and none of its counts do. For an aggregator that has
    /// taken nothing yet.
    pub fn recall(&mut self, standing: &Standing) {
        for event in standing.events.iter() {
            self.events.keep(Arc::clone(event));
        }
        for check in standing.checks.iter() {
            let (last_at, outcome) = (check.at, Some(Arc::clone(&check.outcome)));
            let state = State::Check(Box::new(CheckState { samples: 0, last_at, outcome }));
            let ledger = LedgerRow { total: 0.0, count: Weight::ZERO, last_seen: last_at };
            let place = self.columns.push(Some((Series::clone(&check.series), state, ledger)));
            let columns = &self.columns;
            self.table.add(place, |place| columns.series(place));
            self.series += 1;
        }
        self.layout = None;
        self.recount();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aggregate::{GaugeSign, Settings};
    use crate::model::{Moment, Timestamp};

    #[test]
    fn events_and_checks_are_there_again_and_in_no_window() {
        let at = |secs| Moment { wall: Timestamp::from_secs(secs), mono: Duration::ZERO };
        let new = |secs| Aggregator::new(Arc::new(Settings::default()), GaugeSign::Delta, at(secs).wall);
        let mut before = new(1_000);
        before.datagram(b"_e{5,4}:title|text\n_sc|disk|1|m:full\n_sc|net|0\na:1|c", at(1_001), None);
        let mut after = new(1_020);
        after.recall(&before.standing());
        let statuses = |aggregator: &Aggregator| {
            let checks = aggregator.standing().checks;
            checks
                .iter()
                .map(|check| (check.series.name.to_string(), check.outcome.status))
                .collect::<Vec<_>>()
        };
        assert_eq!((statuses(&after), after.standing().events.len()), (statuses(&before), 1));
        after.datagram(b"_sc|disk|2", at(1_021), None);
        assert_eq!((after.series(), after.open_values()), (2, 1));
        let closed = after.roll(at(1_030).wall).unwrap();
        assert_eq!(closed.window.len(), 1, "only what was sent");
        assert_eq!(closed.standing.checks.len(), 2);
        assert!(after.accounting().balanced(0));
        let again = Aggregator::restore(Arc::default(), &after.snapshot()).unwrap();
        assert_eq!((statuses(&again), again.standing().events.len()), (statuses(&after), 1));
    }
}
