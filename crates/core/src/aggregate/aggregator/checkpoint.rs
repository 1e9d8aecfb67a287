//! What has changed in the open window since it was last written down.

use super::Aggregator;
use super::columns::SeriesRow;
use crate::aggregate::window::{Window, WindowBuilder};
use crate::model::Timestamp;

/// What was written down of an open window: each series' samples, by its place.
#[derive(Debug, Default)]
pub struct Noted {
    start: Option<Timestamp>,
    /// Values accepted by then, in this window or before.
    values: u64,
    samples: Vec<u64>,
}

impl Aggregator {
    /// The series of the open window that have samples which are not noted, whole, as they are now; and notes them.
    /// Nothing where there are none. Carried gauges and late samples are not among them.
    pub fn peek_changed(&self, now: Timestamp, noted: &mut Noted) -> Option<Window> {
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
            // As in a peek: what is late came before.
            let late = late.get(&place).into_iter().flatten().copied();
            late.chain([state]).for_each(|state| ledger.add(state));
            builder.push_with(place, state, &ledger);
        }
        let window = builder.build(self.current_layout());
        (!window.is_empty()).then_some(window)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::aggregate::{GaugeSign, Record, View};
    use crate::model::Moment;

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
        let mut noted = Noted::default();
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
            names(aggregator.peek_changed(moment(11).wall, &mut Noted::default()).as_ref()),
            named(&[("a", 1)])
        );
    }

    #[test]
    fn a_total_is_that_of_the_record_that_this_becomes() {
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
        aggregator.ingest_datagram(b"a:5|c", moment(0), None);
        aggregator.roll_window(moment(10).wall);
        aggregator.ingest_datagram(b"a:2|c", moment(11), None);
        let window = aggregator.peek_changed(moment(11).wall, &mut Noted::default()).unwrap();
        let total = window.records().map(|record| match record.view {
            View::Counter { total, .. } => total,
            _ => 0.0,
        });
        assert_eq!(total.collect::<Vec<_>>(), [7.0]);
    }
}
