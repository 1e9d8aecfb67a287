//! What an earlier life of the agent knew beside windows.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Aggregator, ContainerSummary, LastCheck, Lasting, LedgerRow};
use crate::aggregate::gauge::Gauge;
use crate::aggregate::limits::LimitMode;
use crate::aggregate::state::{CheckState, SeriesState};
use crate::aggregate::weight::Weight;
use crate::model::{MetricType, Series};

impl Aggregator {
    /// Goes on with what an earlier life of the agent had: events, outcomes of checks, levels, and the totals of counters that
    /// were counted down. `lasting` is all that is known of levels and totals, from windows, too. No window has them again,
    /// and none of its counts do. For an aggregator that has taken nothing yet.
    pub fn restore_from_summary(&mut self, summary: &ContainerSummary, lasting: &[Lasting]) {
        self.sent_ahead = None;
        for event in summary.events.iter() {
            self.events.push_shared(Arc::clone(event));
        }
        self.habits.merge_earlier(&summary.habits);
        let mut known: Vec<_> = summary.checks.iter().map(recalled_check).collect();
        known.extend(lasting.iter().map(|last| self.row_from_lasting(last)));
        let most = match self.settings.limits.mode {
            LimitMode::Enforce => self.settings.limits.series,
            LimitMode::Observe => usize::MAX,
        };
        if known.len() > most {
            known.sort_by_key(|(.., ledger)| Reverse(ledger.last_seen));
            self.accounting.evicted += (known.len() - most) as u64;
            known.truncate(most);
        }
        for row in known {
            let place = self.columns.push(Some(row));
            let columns = &self.columns;
            self.table.add(place, |place| columns.series_at(place));
            self.series += 1;
        }
        self.lasting = lasting.into();
        self.layout = None;
        self.recount_memory();
    }

    fn row_from_lasting(&self, last: &Lasting) -> (Series, SeriesState, LedgerRow) {
        let series = Series::clone(&last.series);
        let row = LedgerRow { total: 0.0, count: Weight::ZERO, last_seen: last.at, decremented: true };
        match series.metric_type {
            MetricType::Gauge => {
                let state = SeriesState::Gauge(Gauge::with_carried_level(last.value, last.at));
                (series, state, LedgerRow { decremented: false, ..row })
            }
            MetricType::Counter => {
                (series, SeriesState::new(MetricType::Counter), LedgerRow { total: last.value, ..row })
            }
            // Its sums begin at zero, and so does the series.
            metric_type => {
                let row = LedgerRow { last_seen: self.opened, ..row };
                (Series { created: self.opened, ..series }, SeriesState::new(metric_type), row)
            }
        }
    }
}

fn recalled_check(check: &LastCheck) -> (Series, SeriesState, LedgerRow) {
    let (last_at, outcome) = (check.at, Some(Arc::clone(&check.outcome)));
    let state = SeriesState::Check(Box::new(CheckState { samples: 0, last_at, outcome }));
    let row = LedgerRow { total: 0.0, count: Weight::ZERO, last_seen: last_at, decremented: false };
    (Series::clone(&check.series), state, row)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::aggregate::{AggregatorSettings, GaugeSign};
    use crate::model::{Moment, Timestamp};

    #[test]
    fn events_and_checks_are_there_again_and_in_no_window() {
        let at = |secs| Moment { wall: Timestamp::from_secs(secs), mono: Duration::ZERO };
        let new =
            |secs| Aggregator::new(Arc::new(AggregatorSettings::default()), GaugeSign::Delta, at(secs).wall);
        let mut before = new(1_000);
        before.ingest_datagram(b"_e{5,4}:title|text\n_sc|disk|1|m:full\n_sc|net|0\na:1|c", at(1_001), None);
        let mut after = new(1_020);
        after.restore_from_summary(&before.build_summary(), &[]);
        let statuses = |aggregator: &Aggregator| {
            let checks = aggregator.build_summary().checks;
            checks
                .iter()
                .map(|check| (check.series.name.to_string(), check.outcome.status))
                .collect::<Vec<_>>()
        };
        assert_eq!((statuses(&after), after.build_summary().events.len()), (statuses(&before), 1));
        after.ingest_datagram(b"_sc|disk|2", at(1_021), None);
        assert_eq!((after.series_count(), after.open_values()), (2, 1));
        let closed = after.roll_window(at(1_030).wall).unwrap();
        assert_eq!(closed.window.len(), 1, "only what was sent");
        assert_eq!(closed.summary.checks.len(), 2);
        assert!(after.accounting().is_balanced(0));
        let again = Aggregator::from_snapshot(Arc::default(), &after.encode_snapshot()).unwrap();
        assert_eq!((statuses(&again), again.build_summary().events.len()), (statuses(&after), 1));
    }
}
