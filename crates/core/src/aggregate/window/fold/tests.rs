use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::aggregate::sketch::Sketch;
use crate::aggregate::{Aggregator, AggregatorSettings, ClosedWindow, GaugeSign, KnownLayout, Weight};
use crate::model::{ByIdentity, Moment, Series};

/// 2026-01-01T00:00:00Z, on every grid.
const START: i64 = 1_767_225_600;

fn moment(millis: u64) -> Moment {
    let mono = Duration::from_millis(millis);
    Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
}

fn aggregator() -> Aggregator {
    Aggregator::new(Arc::new(AggregatorSettings::default()), GaugeSign::Delta, moment(0).wall)
}

/// Places that stay the same, whatever the layouts of the windows.
#[derive(Default)]
struct Places(BTreeMap<String, (u32, Arc<Series>)>);

impl Places {
    fn find_or_add(&mut self, record: &Record<'_>) -> Option<u32> {
        let key = format!("{:?}", ByIdentity(Arc::clone(record.series)).0.name);
        let next = u32::try_from(self.0.len()).ok()?;
        Some(self.0.entry(key).or_insert_with(|| (next, Arc::clone(record.series))).0)
    }

    fn layout(&self) -> Layout {
        let mut all: Vec<_> = self.0.values().cloned().collect();
        all.sort_unstable_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, series)| Some(series)).collect()
    }
}

/// A window as bytes, and its newest interval.
type StoredSlot = (Vec<u8>, Option<(Timestamp, Duration)>);

/// Folds windows into slots of a length by their start, through bytes after each, as an archive does.
fn fold_all(closed: &[ClosedWindow], length: Duration) -> BTreeMap<Timestamp, Window> {
    let mut places = Places::default();
    let mut slots: BTreeMap<Timestamp, StoredSlot> = BTreeMap::new();
    for ClosedWindow { window, revisions, .. } in closed {
        for (part, is_late) in revisions.iter().map(|late| (late, true)).chain([(window, false)]) {
            let start = part.span.start.floor_to_window(length);
            let layout = KnownLayout::with_identity(places.layout(), 7);
            let mut fold = match slots.get(&start) {
                Some((bytes, newest)) => {
                    WindowFold::resume_window(&Window::decode(bytes, &layout).unwrap(), *newest).unwrap()
                }
                None => WindowFold::new(start, length),
            };
            let left_out = match is_late {
                true => fold.add_revision(part, part.span, |record| places.find_or_add(record)),
                false => fold.add_window(part, |record| places.find_or_add(record)),
            };
            assert_eq!(left_out, 0);
            let mut bytes = Vec::new();
            fold.build(places.layout()).encode(7, &mut bytes);
            slots.insert(start, (bytes, fold.newest_interval()));
        }
    }
    let layout = KnownLayout::with_identity(places.layout(), 7);
    slots.into_iter().map(|(start, (bytes, _))| (start, Window::decode(&bytes, &layout).unwrap())).collect()
}

fn view_of<'w>(window: &'w Window, name: &str) -> View<'w> {
    window.records().find(|record| &*record.series.name == name).unwrap().view
}

#[test]
fn a_day_of_ten_minutes_has_the_percentiles_of_one_sketch_fed_with_every_value() {
    let mut aggregator = aggregator();
    let mut closed = Vec::new();
    let mut fed: BTreeMap<Timestamp, (Sketch, u64, f64, f64, f64)> = BTreeMap::new();
    let mut state = 42_u64;
    // 26 hours, a value every 700 milliseconds; values have few binary digits, so that sums are exact.
    for n in 0..26 * 3_600 * 10 / 7 {
        let now = moment(n * 700 + 1);
        closed.extend(aggregator.roll_window(now.wall));
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = f64::from(u32::try_from(state >> 44).unwrap()) / 16.0;
        aggregator.ingest_datagram(format!("t:{value}|ms").as_bytes(), now, None);
        let slot = fed
            .entry(now.wall.floor_to_window(Duration::from_mins(10)))
            .or_insert_with(|| (Sketch::default(), 0, 0.0, f64::INFINITY, f64::NEG_INFINITY));
        slot.0.insert(value, Weight::ONE);
        (slot.1, slot.2, slot.3, slot.4) = (slot.1 + 1, slot.2 + value, slot.3.min(value), slot.4.max(value));
    }
    closed.push(aggregator.close_final_window(moment(26 * 3_600_000).wall));
    let slots = fold_all(&closed, Duration::from_mins(10));
    assert_eq!((slots.len(), fed.len()), (156, 156));
    for (start, (sketch, count, sum, min, max)) in &fed {
        let View::Distribution { summary, sketch: folded } = view_of(&slots[start], "t") else { panic!() };
        let mut packed = Vec::new();
        sketch.pack_into(&mut packed);
        assert_eq!(folded.0, packed, "{start}");
        let wanted = crate::aggregate::sketch::Packed(&packed).percentiles(*min, *max).unwrap();
        let found = folded.percentiles(summary.min, summary.max).unwrap();
        assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
        assert_eq!((summary.samples, summary.sum, summary.min, summary.max), (*count, *sum, *min, *max));
    }
    let (start, slot) = slots.first_key_value().unwrap();
    assert_eq!((slot.span.start, slot.span.nominal_length()), (*start, Duration::from_mins(10)));
    assert_eq!(slot.span.covered, Duration::from_mins(10));
}

#[test]
fn each_type_is_folded_by_its_own_rule() {
    let mut aggregator = aggregator();
    let mut closed = Vec::new();
    let windows: [&[&str]; 4] = [
        &["c:1|c", "g:5|g", "s:anna|s", "_sc|up|0|m:well", "d:-2|c", "quiet:3|g"],
        &["c:2|c|@0.5", "g:9|g", "s:bob|s", "_sc|up|2|m:ill"],
        &["g:2|g", "s:anna|s", "_sc|up|1"],
        &["c:4|c", "d:6|c"],
    ];
    for (n, lines) in (0..).zip(windows) {
        for line in lines {
            aggregator.ingest_datagram(line.as_bytes(), moment(n * 10_000 + 500), None);
        }
        closed.extend(aggregator.roll_window(moment((n + 1) * 10_000).wall));
    }
    let slots = fold_all(&closed, Duration::from_mins(1));
    let slot = slots.values().next().unwrap();
    assert_eq!(slot.span.covered, Duration::from_secs(40));
    let View::Counter { counter, total } = view_of(slot, "c") else { panic!() };
    assert_eq!((counter.samples, counter.count.as_f64(), counter.sum, total), (3, 4.0, 9.0, 9.0));
    let View::Counter { counter, total } = view_of(slot, "d") else { panic!() };
    assert_eq!((counter.sum, total, counter.decremented), (4.0, 4.0, true));
    let View::Gauge(gauge) = view_of(slot, "g") else { panic!() };
    assert_eq!((gauge.last, gauge.min, gauge.max, gauge.samples), (2.0, 2.0, 9.0, 3));
    assert_eq!(gauge.last_at, moment(20_500).wall, "the level was carried on after it was set");
    let View::Gauge(gauge) = view_of(slot, "quiet") else { panic!() };
    assert_eq!((gauge.last, gauge.samples), (3.0, 1));
    assert_eq!(view_of(slot, "s").cardinality(), Some(2.0));
    let View::Check { samples, outcome, .. } = view_of(slot, "up") else { panic!() };
    assert_eq!((samples, outcome.status as u8), (3, 1));
}

#[test]
fn late_samples_count_once_and_so_does_their_interval() {
    let mut aggregator = aggregator();
    let mut closed = Vec::new();
    aggregator.ingest_datagram(b"c:1|c\nt:5|ms", moment(500), None);
    closed.extend(aggregator.roll_window(moment(10_000).wall));
    let late = format!("c:2|c|T{START}\nt:7|ms|T{}", START + 9);
    aggregator.ingest_datagram(late.as_bytes(), moment(11_000), None);
    aggregator.ingest_datagram(b"c:4|c", moment(11_000), None);
    closed.extend(aggregator.roll_window(moment(20_000).wall));
    assert_eq!(closed.last().unwrap().revisions.len(), 1);
    let slots = fold_all(&closed, Duration::from_mins(1));
    let slot = slots.values().next().unwrap();
    let View::Counter { counter, .. } = view_of(slot, "c") else { panic!() };
    assert_eq!((counter.samples, counter.sum), (3, 7.0));
    let View::Distribution { summary, .. } = view_of(slot, "t") else { panic!() };
    assert_eq!((summary.samples, summary.last), (2, 7.0));
    assert_eq!(slot.span.covered, Duration::from_secs(20));
}

#[test]
fn a_window_that_ends_after_the_interval_extends_it() {
    let mut fold = WindowFold::new(moment(0).wall, Duration::from_mins(1));
    let builder = |start: u64| {
        let (start, end) = (moment(start * 1000).wall, moment((start + 45) * 1000).wall);
        WindowBuilder::new(WindowSpan { start, end, covered: Duration::from_secs(45) })
            .build(Layout::from([]))
    };
    fold.add_window(&builder(0), |_| None);
    fold.add_window(&builder(45), |_| None);
    let span = fold.build(Layout::from([])).span;
    assert_eq!((span.nominal_length(), span.covered), (Duration::from_secs(90), Duration::from_secs(90)));
}

proptest! {
    #[test]
    fn values_in_windows_and_slots_of_any_kind_give_the_sketch_of_all(
        values in prop::collection::vec((prop::sample::select(vec![1e-9, 0.5, 3.0, 7.25, 1e6, -4.0, 0.0]), 1_u64..30_000), 1..200),
    ) {
        let mut aggregator = aggregator();
        let (mut closed, mut all, mut at) = (Vec::new(), Sketch::default(), 0);
        for (value, after) in &values {
            at += after;
            closed.extend(aggregator.roll_window(moment(at).wall));
            aggregator.ingest_datagram(format!("h:{value}|h").as_bytes(), moment(at), None);
            all.insert(*value, Weight::ONE);
        }
        closed.push(aggregator.close_final_window(moment(at).wall));
        let slots = fold_all(&closed, Duration::from_mins(1));
        let mut merged = Sketch::default();
        for slot in slots.values() {
            for record in slot.records() {
                let View::Distribution { sketch, .. } = record.view else { panic!() };
                merged.merge_packed(sketch).unwrap();
            }
        }
        let (mut found, mut wanted) = (Vec::new(), Vec::new());
        merged.pack_into(&mut found);
        all.pack_into(&mut wanted);
        prop_assert_eq!(found, wanted);
    }
}
