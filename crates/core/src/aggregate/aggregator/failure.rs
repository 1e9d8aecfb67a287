//! Beginning again, after a panic while a container was at hand.

use std::sync::Arc;

use super::Aggregator;
use crate::model::Timestamp;

impl Aggregator {
    /// Begins again at `now` with the settings and the counts it had, because a panic may have left the rest in any state. The open
    /// window and the ledger are lost, so counters begin at zero, with a new time of creation. Answers how many values were lost.
    pub fn begin_again(&mut self, now: Timestamp) -> u64 {
        let fresh = Self::new(Arc::clone(&self.settings), self.gauge_sign, now);
        let mut fresh = fresh.with_timer_unit(self.timer_unit);
        fresh.habits = self.habits;
        fresh.begun_again = true;
        fresh.accounting = self.accounting.clone();
        fresh.history = std::mem::take(&mut self.history);
        fresh.revisions = self.revisions;
        fresh.node_full = self.node_full;
        let lost = fresh.accounting.give_up_open();
        fresh.recount_memory();
        *self = fresh;
        lost
    }

    /// Counts values of closed windows as lost that could not be published.
    pub fn lose_closed(&mut self, values: u64) {
        self.accounting.give_up_closed(values);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aggregate::{AggregatorSettings, Dropped, GaugeSign};
    use crate::model::Moment;

    #[test]
    fn what_is_lost_is_counted_and_what_comes_then_is_not() {
        let at = |secs| Moment { wall: Timestamp::from_secs(secs), mono: Duration::ZERO };
        let mut aggregator = Aggregator::new(
            Arc::new(AggregatorSettings::default()),
            GaugeSign::Delta,
            Timestamp::from_secs(1_000),
        );
        aggregator.ingest_datagram(b"a:1|c\nb:1:2|ms\nbad", at(1_001), None);
        let _closed = aggregator.roll_window(Timestamp::from_secs(1_010));
        aggregator.ingest_datagram(b"a:1|c\nb:1:2:3|ms", at(1_011), None);
        // A line that was counted when it failed, and not judged.
        aggregator.accounting.lines += 1;
        assert_eq!(aggregator.begin_again(Timestamp::from_secs(1_012)), 4);
        let counts = aggregator.accounting();
        assert_eq!((counts.received, counts.in_records), (2, 3));
        assert_eq!(counts.dropped.count_for(Dropped::ShardFailed), 4);
        assert!(counts.is_balanced(0), "{counts:?}");
        aggregator.ingest_datagram(b"a:5|c", at(1_013), None);
        let closed = aggregator.roll_window(Timestamp::from_secs(1_020)).unwrap();
        assert_eq!((closed.window.len(), closed.window.span.covered.as_secs()), (1, 8));
        assert!(aggregator.accounting().is_balanced(0));
    }
}
