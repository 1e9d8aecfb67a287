//! What an aggregator keeps across failures: changes of the open window for a checkpoint, what an earlier life of the agent knew
//! beside windows, and the counts that survive a panic.

use std::cmp::Reverse;
use std::sync::Arc;

use super::columns::SeriesRow;
use super::{Aggregator, ContainerSummary, LastCheck, LedgerRow, PersistentValue};
use crate::aggregate::gauge::Gauge;
use crate::aggregate::limits::LimitMode;
use crate::aggregate::state::{CheckState, SeriesState};
use crate::aggregate::weight::Weight;
use crate::aggregate::window::{Window, WindowBuilder};
use crate::model::{MetricType, Series, Timestamp};

/// The contents of the last checkpoint of an open window: each series' number of samples, by place.
#[derive(Debug, Default)]
pub struct CheckpointContents {
    start: Option<Timestamp>,
    /// Values accepted by then, including earlier windows.
    values: u64,
    samples: Vec<u64>,
}

impl Aggregator {
    /// The complete current state of those series of the open window that have new samples since `noted`, which is
    /// updated. `None` if there are none. Carried gauges and late samples are not included.
    pub fn peek_changed(&self, now: Timestamp, noted: &mut CheckpointContents) -> Option<Window> {
        if self.accounting.values == noted.values {
            return None;
        }
        noted.values = self.accounting.values;
        if noted.start.replace(self.start) != Some(self.start) {
            noted.samples.clear();
        }
        let mut builder = WindowBuilder::new(self.open_window_span(now));
        let late = self.late_by_place();
        for SeriesRow { place, state, ledger, .. } in self.columns.iter() {
            let (at, samples) = (place as usize, state.sample_count());
            if noted.samples.len() <= at {
                noted.samples.resize(at + 1, 0);
            }
            let Some(known) = noted.samples.get_mut(at) else { continue };
            if std::mem::replace(known, samples) == samples {
                continue;
            }
            let mut ledger = *ledger;
            // As in `peek_open_window`: late samples come first.
            let late = late.get(&place).into_iter().flatten().copied();
            late.chain([state]).for_each(|state| ledger.add(state));
            builder.push_with(place, state, &ledger);
        }
        let window = builder.build(self.current_layout());
        (!window.is_empty()).then_some(window)
    }
}

impl Aggregator {
    /// Restores the state of an earlier run of the agent: events, outcomes of checks, levels, and totals of decremented
    /// counters. `lasting` contains all known levels and totals, including those from windows. Restored values do not
    /// appear in new windows or counts. Only valid for an aggregator that has received nothing yet.
    pub fn restore_from_summary(&mut self, summary: &ContainerSummary, lasting: &[PersistentValue]) {
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

    fn row_from_lasting(&self, last: &PersistentValue) -> (Series, SeriesState, LedgerRow) {
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
            // Its sums restart at zero, and so does the series.
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

impl Aggregator {
    /// Restarts at `now` with the same settings and counts, because a panic may have left the rest in any state. The
    /// open window and the ledger are lost, so counters restart at zero with a new creation time. Returns the number of
    /// lost values.
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

    /// Counts values of closed windows that could not be published as lost.
    pub fn lose_closed(&mut self, values: u64) {
        self.accounting.give_up_closed(values);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::aggregate::{AggregatorSettings, Dropped, GaugeSign, Record, View};
    use crate::model::{Moment, Timestamp};

    fn moment(secs: u64) -> Moment {
        let mono = Duration::from_secs(secs);
        Moment { wall: Timestamp::from_secs(1_767_225_600).saturating_add(mono), mono }
    }

    fn names(window: Option<&Window>) -> Vec<(String, u64)> {
        let shown = |record: Record<'_>| (record.series.name.to_string(), record.view.sample_count());
        window.into_iter().flat_map(Window::records).map(shown).collect()
    }

    #[test]
    fn only_series_that_have_changed_are_there_and_they_whole() {
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
        let mut noted = CheckpointContents::default();
        let mut changed = |aggregator: &Aggregator, secs| {
            names(aggregator.peek_changed(moment(secs).wall, &mut noted).as_ref())
        };
        aggregator.ingest_datagram(b"a:1|c\nb:1|g\nt:1:2|ms", moment(0), None);
        let named =
            |names: &[(&str, u64)]| names.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect::<Vec<_>>();
        assert_eq!(changed(&aggregator, 1), named(&[("a", 1), ("b", 1), ("t", 2)]));
        assert_eq!(changed(&aggregator, 1), []);
        aggregator.ingest_datagram(b"t:3|ms\nnew:1|s", moment(2), None);
        assert_eq!(changed(&aggregator, 2), named(&[("t", 3), ("new", 1)]));
        aggregator.roll_window(moment(10).wall);
        assert_eq!(changed(&aggregator, 10), [], "a gauge that is carried has no samples");
        aggregator.ingest_datagram(b"a:1|c", moment(11), None);
        assert_eq!(
            changed(&aggregator, 11),
            named(&[("a", 1)]),
            "as many as in the window before, and still new"
        );
        assert_eq!(
            names(aggregator.peek_changed(moment(11).wall, &mut CheckpointContents::default()).as_ref()),
            named(&[("a", 1)])
        );
    }

    #[test]
    fn a_total_is_that_of_the_record_that_this_becomes() {
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
        aggregator.ingest_datagram(b"a:5|c", moment(0), None);
        aggregator.roll_window(moment(10).wall);
        aggregator.ingest_datagram(b"a:2|c", moment(11), None);
        let window = aggregator.peek_changed(moment(11).wall, &mut CheckpointContents::default()).unwrap();
        let total = window.records().map(|record| match record.view {
            View::Counter { total, .. } => total,
            _ => 0.0,
        });
        assert_eq!(total.collect::<Vec<_>>(), [7.0]);
    }

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
        // A line that was counted, but neither accepted nor rejected, when the panic occurred.
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
