//! Histograms of a container's series, if enabled. They are separate from the data that samples touch otherwise, so
//! that they cost nothing if disabled.

use super::Aggregator;
use crate::aggregate::accounting::Dropped;
use crate::aggregate::histogram::Histogram;
use crate::aggregate::table::Place;
use crate::model::{MetricType, Timestamp};
use crate::statsd::Values;

/// Histograms by place.
#[derive(Default, Debug)]
pub(super) struct Histograms(Vec<Option<Histogram>>);

impl Histograms {
    /// Inserts a histogram at a series' place. Returns the bytes by which this grew.
    pub(super) fn insert_at(&mut self, place: Place, histogram: Histogram) -> usize {
        let (at, before) = (place as usize, self.0.capacity());
        let bytes = histogram.buckets.bytes();
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        if let Some(slot) = self.0.get_mut(at) {
            *slot = Some(histogram);
        }
        bytes + (self.0.capacity() - before) * size_of::<Option<Histogram>>()
    }

    /// Removes the histogram at a place.
    pub(super) fn remove(&mut self, place: Place) {
        if let Some(slot) = self.0.get_mut(place as usize) {
            *slot = None;
        }
    }

    fn get_mut(&mut self, place: Place) -> Option<&mut Histogram> {
        self.0.get_mut(place as usize)?.as_mut()
    }

    /// Each of them, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &Histogram)> {
        (0..).zip(&self.0).filter_map(|(place, histogram)| Some((place, histogram.as_ref()?)))
    }

    /// The histograms for a ledger; empty if there are none.
    pub(super) fn to_boxed_slice(&self) -> Box<[Option<Histogram>]> {
        self.0.as_slice().into()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let buckets: usize = self.iter().map(|(_, histogram)| histogram.buckets.bytes()).sum();
        buckets + self.0.capacity() * size_of::<Option<Histogram>>()
    }
}

impl Aggregator {
    /// Whether there is memory for a sample of a known series. If so, adds its values to the histogram, if enabled.
    #[inline(never)]
    pub(super) fn take_a_closer_look(
        &mut self,
        (place, metric_type): (Place, MetricType),
        values: &Values<'_>,
        weight: f64,
        now: Timestamp,
    ) -> bool {
        if self.is_full() && self.is_over(Dropped::MemoryLimit, u64::from(values.count())) {
            return false;
        }
        let Some(scale) = self.settings.counting.scale_for(metric_type) else { return true };
        if let Some(histogram) = self.histograms.get_mut(place) {
            self.memory += histogram.insert(values, weight);
            return true;
        }
        let mut histogram = Histogram::new(scale, now);
        histogram.insert(values, weight);
        self.memory += self.histograms.insert_at(place, histogram);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::aggregate::histogram::{Bounds, Buckets};
    use crate::aggregate::{AggregatorSettings, ClosedWindow, Counting, Dropped, GaugeSign, Limits, Weight};
    use crate::model::Moment;

    const START: i64 = 1_767_225_600;

    fn at(secs: u64) -> Moment {
        let mono = Duration::from_secs(secs);
        Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
    }

    fn settings(timers: &[f64]) -> AggregatorSettings {
        let (timers, values) = (Bounds::new(timers, 3).unwrap(), Bounds::new(&[1.0, 10.0], 0).unwrap());
        let counting = Counting::Classic { timers, values };
        AggregatorSettings { series_idle: Duration::from_mins(1), counting, ..AggregatorSettings::default() }
    }

    fn aggregator(settings: AggregatorSettings) -> Aggregator {
        Aggregator::new(Arc::new(settings), GaugeSign::Delta, at(0).wall)
    }

    /// A series' histogram in a ledger: its buckets, their sum, and when they began, in seconds after the start.
    fn said(closed: &ClosedWindow, name: &str) -> Option<(Vec<f64>, f64, i64)> {
        let (.., histogram) =
            closed.summary.ledger.iter_entries().find(|(series, ..)| &*series.name == name)?;
        let Histogram { created, sum, buckets } = histogram?;
        let counts = buckets.cumulative_counts().map(Weight::as_f64).collect();
        Some((counts, *sum, created.as_micros() / 1_000_000 - START))
    }

    fn rows(closed: &ClosedWindow) -> Vec<(f64, f64)> {
        closed.summary.ledger.iter().map(|(_, row)| (row.total, row.count.as_f64())).collect()
    }

    #[test]
    fn a_window_goes_with_what_was_counted_by_its_end_however_it_came() {
        let mut aggregator = aggregator(settings(&[0.01, 0.1]));
        aggregator.ingest_datagram(
            b"t:10:11|ms\nt:100.5|ms\nc:1|c\ng:1|g\nh:10|h\nd:11|d|@0.5\ns:a|s",
            at(1),
            None,
        );
        let first = aggregator.roll_window(at(10).wall).unwrap();
        assert_eq!(said(&first, "t"), Some((vec![1.0, 2.0, 3.0], 121.5, 1)));
        assert_eq!(said(&first, "h"), Some((vec![0.0, 1.0, 1.0], 10.0, 1)));
        assert_eq!(said(&first, "d"), Some((vec![0.0, 0.0, 2.0], 22.0, 1)));
        assert_eq!(["c", "g", "s"].map(|name| said(&first, name)), [None, None, None]);
        aggregator.ingest_datagram(
            format!("t:1|ms|T{}\nt:1|ms|T{}", START + 2, START + 11).as_bytes(),
            at(12),
            None,
        );
        let second = aggregator.roll_window(at(20).wall).unwrap();
        assert_eq!(said(&second, "t"), Some((vec![3.0, 4.0, 5.0], 123.5, 1)), "late ones, too");
        assert_eq!(said(&first, "t").unwrap().1, 121.5, "what was published stays what it was");
        for (_, row, histogram) in second.summary.ledger.iter_entries() {
            let Some(histogram) = histogram else { continue };
            assert_eq!((histogram.sum, histogram.buckets.count()), (row.total, row.count));
        }
        let idle = aggregator.close_final_window(at(25).wall);
        assert_eq!(said(&idle, "t"), said(&second, "t"));
    }

    #[test]
    fn nothing_is_counted_and_nothing_taken_where_it_is_off() {
        let mut off = aggregator(AggregatorSettings::default());
        let mut on = aggregator(settings(&[0.01]));
        for aggregator in [&mut off, &mut on] {
            aggregator.ingest_datagram(b"t:10|ms\nh:1|h", at(1), None);
        }
        assert_eq!(off.histograms.heap_bytes(), 0);
        let (off, on) = (off.roll_window(at(10).wall).unwrap(), on.roll_window(at(10).wall).unwrap());
        assert_eq!((said(&off, "t"), said(&on, "t")), (None, Some((vec![1.0, 1.0], 10.0, 1))));
        assert_eq!(rows(&off), rows(&on));
    }

    #[test]
    fn buckets_are_memory_and_what_has_no_room_is_in_neither() {
        let limits = |memory| Limits { memory, ..Limits::default() };
        let bounds: Vec<_> = (1..=100).map(f64::from).collect();
        let mut full = aggregator(AggregatorSettings { limits: limits(40 << 10), ..settings(&bounds) });
        let mut plain =
            aggregator(AggregatorSettings { limits: limits(40 << 10), ..AggregatorSettings::default() });
        for n in 0..40 {
            for aggregator in [&mut full, &mut plain] {
                aggregator.ingest_datagram(format!("t{n}:1|ms").as_bytes(), at(1), None);
            }
        }
        assert_eq!(plain.accounting().dropped.count_for(Dropped::MemoryLimit), 0);
        let dropped = full.accounting().dropped.count_for(Dropped::MemoryLimit);
        assert!((10..40).contains(&dropped), "{dropped}");
        let estimate = full.memory_bytes();
        let closed = full.roll_window(at(10).wall).unwrap();
        // The aggregator itself is counted with the first close.
        let most = estimate + closed.window.bytes() + size_of::<Aggregator>();
        assert!(full.memory_bytes() <= most, "{} is more than {most}", full.memory_bytes());
        let counted = closed.summary.ledger.iter_entries().filter_map(|(.., histogram)| histogram).count();
        assert_eq!(counted as u64, 40 - dropped);
        assert!(full.accounting().is_balanced(0));
    }

    #[test]
    fn other_bounds_begin_series_anew_and_the_same_ones_do_not() {
        let mut aggregator = aggregator(settings(&[0.01]));
        aggregator.ingest_datagram(b"t:5|ms", at(1), None);
        aggregator.apply_settings(&AggregatorSettings { gauge_carry: Duration::ZERO, ..settings(&[0.01]) });
        aggregator.ingest_datagram(b"t:6|ms", at(2), None);
        assert_eq!(said(&aggregator.roll_window(at(10).wall).unwrap(), "t"), Some((vec![2.0, 2.0], 11.0, 1)));
        aggregator.apply_settings(&settings(&[0.002]));
        assert_eq!(said(&aggregator.roll_window(at(20).wall).unwrap(), "t"), None, "none came since");
        aggregator.ingest_datagram(b"t:7|ms", at(21), None);
        let closed = aggregator.roll_window(at(30).wall).unwrap();
        assert_eq!(said(&closed, "t"), Some((vec![0.0, 1.0], 7.0, 21)));
        assert_eq!(rows(&closed), [(18.0, 3.0)], "everything else goes on");
        aggregator.apply_settings(&AggregatorSettings::default());
        aggregator.ingest_datagram(b"t:7|ms", at(31), None);
        assert_eq!(said(&aggregator.roll_window(at(40).wall).unwrap(), "t"), None);
    }

    #[test]
    fn a_series_that_returns_begins_anew_and_so_does_one_in_its_place() {
        let limits = Limits { series: 1, ..Limits::default() };
        let mut aggregator = aggregator(AggregatorSettings { limits, ..settings(&[0.01]) });
        aggregator.ingest_datagram(b"old:5|ms", at(1), None);
        for secs in (10..=80).step_by(10) {
            let closed = aggregator.roll_window(at(secs).wall).unwrap();
            assert_eq!(said(&closed, "old"), Some((vec![1.0, 1.0], 5.0, 1)), "it stays while there is room");
        }
        aggregator.ingest_datagram(b"new:50|ms", at(81), None);
        let closed = aggregator.roll_window(at(90).wall).unwrap();
        assert_eq!((said(&closed, "old"), said(&closed, "new")), (None, Some((vec![0.0, 1.0], 50.0, 81))));
    }

    #[test]
    fn a_snapshot_has_buckets_and_they_go_on_by_the_same_bounds_alone() {
        let mut before = aggregator(settings(&[0.01]));
        before.ingest_datagram(b"t:5|ms", at(1), None);
        before.roll_window(at(10).wall);
        before.ingest_datagram(b"t:50|ms|@0.1\nh:1|h", at(11), None);
        let bytes = before.encode_snapshot();
        let went_on = |settings| {
            let mut after = Aggregator::from_snapshot(Arc::new(settings), &bytes).unwrap();
            after.ingest_datagram(b"t:1|ms", at(12), None);
            let closed = after.roll_window(at(20).wall).unwrap();
            (said(&closed, "t"), said(&closed, "h"))
        };
        assert_eq!(
            went_on(settings(&[0.01])),
            (Some((vec![2.0, 12.0], 506.0, 1)), Some((vec![1.0, 1.0, 1.0], 1.0, 11)))
        );
        assert_eq!(went_on(settings(&[0.02])).0, Some((vec![1.0, 1.0], 1.0, 12)));
        assert_eq!(went_on(AggregatorSettings::default()), (None, None));
        let same = Aggregator::from_snapshot(Arc::new(settings(&[0.01])), &bytes).unwrap();
        assert_eq!(same.encode_snapshot(), bytes);
    }

    fn native() -> AggregatorSettings {
        AggregatorSettings { counting: Counting::Native, ..settings(&[1.0]) }
    }

    /// Buckets with their counts.
    type Counts = Vec<(i32, f64)>;

    /// A series' native histogram in a ledger: its schema, the buckets above and below 0, and the zero count.
    fn spread(closed: &ClosedWindow, name: &str) -> (i8, Counts, Counts, f64) {
        let (.., histogram) =
            closed.summary.ledger.iter_entries().find(|(series, ..)| &*series.name == name).unwrap();
        let Some(Buckets::Native(native)) = histogram.map(|histogram| &*histogram.buckets) else {
            panic!("{name}: {histogram:?}")
        };
        let counts = |side: &mut dyn Iterator<Item = (i32, Weight)>| {
            side.map(|(index, count)| (index, count.as_f64())).collect()
        };
        let (positive, negative) =
            (counts(&mut native.positive_buckets()), counts(&mut native.negative_buckets()));
        (native.schema(), positive, negative, native.zero_count().as_f64())
    }

    #[test]
    fn native_histograms_count_timers_in_seconds_and_everything_else_as_it_is_sent() {
        let mut aggregator = aggregator(native());
        aggregator.ingest_datagram(b"t:250:1000:0|ms\nh:4:-4:5|h\nd:1|d|@0.1\nc:1|c", at(1), None);
        let first = aggregator.roll_window(at(10).wall).unwrap();
        assert_eq!(spread(&first, "t"), (3, vec![(-16, 1.0), (0, 1.0)], vec![], 1.0));
        assert_eq!(spread(&first, "h"), (3, vec![(16, 1.0), (19, 1.0)], vec![(16, 1.0)], 0.0));
        assert_eq!(spread(&first, "d"), (3, vec![(0, 10.0)], vec![], 0.0));
        aggregator.ingest_datagram(b"t:250|ms|@0.5", at(11), None);
        let second = aggregator.roll_window(at(20).wall).unwrap();
        assert_eq!(spread(&second, "t").1, [(-16, 3.0), (0, 1.0)]);
        assert_eq!(spread(&first, "t").1, [(-16, 1.0), (0, 1.0)], "what was published stays what it was");
        for (_, row, histogram) in second.summary.ledger.iter_entries() {
            let Some(histogram) = histogram else { continue };
            assert_eq!((histogram.sum, histogram.buckets.count()), (row.total, row.count));
        }
    }

    #[test]
    fn native_buckets_are_memory_as_they_come_to_be() {
        let limits = Limits { memory: 24 << 10, ..Limits::default() };
        let mut full = aggregator(AggregatorSettings { limits, ..native() });
        let mut plain = aggregator(AggregatorSettings { limits, ..AggregatorSettings::default() });
        for n in 0..2000 {
            // Each in a bucket of its own, but all in one octave of the sketch.
            let line = format!("t{}:{}|h", n % 20, 1.08_f64.powi(n / 20));
            for aggregator in [&mut full, &mut plain] {
                aggregator.ingest_datagram(line.as_bytes(), at(1), None);
            }
        }
        let dropped =
            [&full, &plain].map(|aggregator| aggregator.accounting().dropped.count_for(Dropped::MemoryLimit));
        assert!(dropped[0] > dropped[1], "{dropped:?}");
        let estimate = full.memory_bytes();
        let closed = full.roll_window(at(10).wall).unwrap();
        let most = estimate + closed.window.bytes() + size_of::<Aggregator>();
        assert!(full.memory_bytes() <= most, "{} is more than {most}", full.memory_bytes());
        assert!(full.histograms.heap_bytes() > 8 << 10, "{}", full.histograms.heap_bytes());
        assert!(full.accounting().is_balanced(0));
    }

    #[test]
    fn a_snapshot_has_native_histograms_and_another_way_of_counting_begins_anew() {
        let mut before = aggregator(native());
        before.ingest_datagram(b"t:250|ms\nt:0|ms|@0.3\nh:-1|h", at(1), None);
        let bytes = before.encode_snapshot();
        let mut after = Aggregator::from_snapshot(Arc::new(native()), &bytes).unwrap();
        assert_eq!(after.encode_snapshot(), bytes);
        after.ingest_datagram(b"t:250|ms", at(2), None);
        let closed = after.roll_window(at(10).wall).unwrap();
        assert_eq!(spread(&closed, "t"), (3, vec![(-16, 2.0)], vec![], 1.0 / 0.3));
        assert_eq!(spread(&closed, "h").2, [(0, 1.0)]);
        let mut classic = Aggregator::from_snapshot(Arc::new(settings(&[0.3])), &bytes).unwrap();
        classic.ingest_datagram(b"t:250|ms", at(2), None);
        assert_eq!(said(&classic.roll_window(at(10).wall).unwrap(), "t"), Some((vec![1.0, 1.0], 250.0, 2)));
        after.apply_settings(&settings(&[0.3]));
        after.ingest_datagram(b"t:250|ms", at(11), None);
        assert_eq!(said(&after.roll_window(at(20).wall).unwrap(), "t"), Some((vec![1.0, 1.0], 250.0, 11)));
    }
}
