//! Running totals: the cumulative value of each series, from what windows have added. For receivers that compute increases
//! themselves, such as those of Prometheus remote write.
//!
//! The ledger of a container has its newest total alone. A publisher reads windows that are minutes old, or hours, and
//! needs the totals as of those. They are sums that do not depend on the order in which containers close.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::aggregate::{Record, View, Weight};
use crate::model::{ByIdentity, Timestamp};
use crate::render::prometheus::{SeriesIdentity, Total};
use crate::render::publish::RunningTotal;

/// The totals of a publisher's series.
#[derive(Clone, Debug)]
pub struct RunningTotals {
    of_series: HashMap<(SeriesIdentity, ByIdentity), SeriesTotal>,
    /// The most series that are remembered.
    most: usize,
}

#[derive(Copy, Clone, Debug)]
struct SeriesTotal {
    created: Timestamp,
    total: Total,
    count: Weight,
    last_seen: Timestamp,
    sent: bool,
}

impl RunningTotals {
    /// No totals yet; of more than `most` series, those that were seen least recently are forgotten.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { of_series: HashMap::new(), most }
    }

    /// Adds what a window, or a part of one that came later, has added to a series. Gauges, sets and checks have no
    /// totals.
    pub fn add_record(
        &mut self,
        identity: &SeriesIdentity,
        record: &Record<'_>,
        (start, end): (Timestamp, Timestamp),
    ) {
        let (sum, count) = match &record.view {
            View::Counter { counter, .. } => (counter.sum, counter.count),
            View::Distribution { summary, .. } => (summary.sum, summary.count),
            View::Gauge(_) | View::Set { .. } | View::Check { .. } => return,
        };
        let key = (identity.clone(), ByIdentity(Arc::clone(record.series)));
        let first = SeriesTotal {
            created: start,
            total: Total::from(0.0),
            count: Weight::ZERO,
            last_seen: end,
            sent: false,
        };
        let of = self.of_series.entry(key).or_insert(first);
        of.created = if of.sent { of.created } else { of.created.min(start) };
        of.total = of.total.saturating_add(Total::from(sum));
        of.count = of.count.saturating_add(count);
        of.last_seen = of.last_seen.max(end);
    }

    /// The total of a series, which is sent now.
    pub fn take_total(
        &mut self,
        identity: &SeriesIdentity,
        series: &ByIdentity,
    ) -> Option<RunningTotal<'static>> {
        let of = self.of_series.get_mut(&(identity.clone(), series.clone()))?;
        let first = !std::mem::replace(&mut of.sent, true);
        Some(RunningTotal {
            created: of.created,
            total: of.total.as_f64(),
            count: of.count.to_rounded_f64(),
            first,
            buckets: None,
        })
    }

    /// Forgets series that were not seen for `idle`, and the least recently seen ones beyond the limit. Returns how many of
    /// the latter: if they come back, they begin at 0.
    pub fn forget_idle(&mut self, now: Timestamp, idle: Duration) -> usize {
        self.of_series.retain(|_, of| of.last_seen.saturating_add(idle) > now);
        let beyond = self.of_series.len().saturating_sub(self.most);
        if beyond > 0 {
            let mut seen: Vec<_> = self.of_series.values().map(|of| of.last_seen).collect();
            seen.sort_unstable();
            let oldest_kept = seen.get(beyond).copied().unwrap_or(Timestamp::MAX);
            self.of_series.retain(|_, of| of.last_seen >= oldest_kept);
        }
        beyond
    }

    /// The number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.of_series.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of_series.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::aggregate::{Aggregator, GaugeSign, Window};
    use crate::model::Moment;
    use crate::model::{ContainerId, Generation, Origin, TaskId};
    use crate::render::prometheus::Level;

    fn at(secs: u64) -> Moment {
        Moment {
            wall: Timestamp::from_secs(1_767_225_600).saturating_add(Duration::from_secs(secs)),
            mono: Duration::from_secs(secs),
        }
    }

    fn window(datagram: &str) -> Window {
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, at(0).wall);
        aggregator.ingest_datagram(datagram.as_bytes(), at(4), None);
        aggregator.roll_window(at(10).wall).unwrap().window
    }

    fn identity() -> SeriesIdentity {
        let origin = Origin {
            container_id: ContainerId::new("c-1").unwrap(),
            generation: Generation(1),
            task_id: TaskId::new("web.1").unwrap(),
            labels: [].into(),
        };
        SeriesIdentity::from_origin(&origin, Level::Orchestrator)
    }

    fn add(totals: &mut RunningTotals, window: &Window) {
        for record in window.records() {
            totals.add_record(&identity(), &record, (window.span.start, window.span.end));
        }
    }

    #[test]
    fn only_what_adds_up_has_a_total_and_the_first_is_marked() {
        let (mut totals, window) = (RunningTotals::new(10), window("a:2|c|@0.5\nt:3:4|ms\ng:7|g\ns:x|s"));
        add(&mut totals, &window);
        add(&mut totals, &window);
        assert_eq!(totals.len(), 2);
        let series = |name: &str| {
            let record = window.records().find(|record| &*record.series.name == name).unwrap();
            ByIdentity(Arc::clone(record.series))
        };
        let a = totals.take_total(&identity(), &series("a")).unwrap();
        assert_eq!((a.total, a.count, a.first), (8.0, 4.0, true));
        assert!(!totals.take_total(&identity(), &series("a")).unwrap().first);
        let t = totals.take_total(&identity(), &series("t")).unwrap();
        assert_eq!((t.total, t.count, t.created), (14.0, 4.0, at(0).wall));
        assert_eq!(totals.take_total(&identity(), &series("g")), None);
    }

    #[test]
    fn idle_series_and_those_beyond_the_limit_are_forgotten() {
        let (mut totals, window) = (RunningTotals::new(2), window("a:1|c\nb:1|c\nc:1|c"));
        for (n, record) in (0..).zip(window.records()) {
            let end = at(10 + n).wall;
            totals.add_record(&identity(), &record, (at(0).wall, end));
        }
        assert_eq!(totals.forget_idle(at(13).wall, Duration::from_hours(1)), 1);
        assert_eq!(totals.len(), 2);
        assert_eq!(totals.forget_idle(at(72).wall, Duration::from_mins(1)), 0);
        assert!(totals.is_empty());
    }

    proptest! {
        #[test]
        fn totals_do_not_depend_on_the_order_in_which_containers_close(
            values in proptest::collection::vec((-1e6_f64..1e6, 1_u32..9), 1..20),
            order in any::<u64>(),
        ) {
            let windows: Vec<_> = values
                .iter()
                .map(|(value, rate)| window(&format!("a:{value}|c|@0.{rate}\nt:{value}|ms|@0.{rate}")))
                .collect();
            let mut shuffled: Vec<_> = windows.iter().collect();
            shuffled.sort_by_key(|window| {
                let sum = window.records().next().map_or(0, |record| format!("{:?}", record.view).len() as u64);
                sum.wrapping_mul(order | 1) % 17
            });
            let of = |windows: &[&Window]| {
                let mut totals = RunningTotals::new(10);
                windows.iter().for_each(|window| add(&mut totals, window));
                let series: Vec<_> = windows[0].records().map(|record| ByIdentity(Arc::clone(record.series))).collect();
                series.iter().map(|series| totals.take_total(&identity(), series)).collect::<Vec<_>>()
            };
            let plain: Vec<_> = windows.iter().collect();
            let (mut one, other) = (of(&plain), of(&shuffled));
            // The records of a window have one order.
            one.truncate(other.len());
            prop_assert_eq!(one, other);
        }
    }
}
