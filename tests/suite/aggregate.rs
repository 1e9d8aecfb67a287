//! Compares the aggregator with one that keeps every sample, and tests the laws of merging.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tallyport::aggregate::{
    Aggregator, AggregatorSettings, GaugeSign, PERCENTILES, SeriesState, View, Window,
};
use tallyport::model::{MetricType, Moment, Series, Timestamp};

const START: i64 = 1_767_225_600;

fn moment(millis: u64) -> Moment {
    let mono = Duration::from_millis(millis);
    Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
}

/// One line, as sent and as kept by the naive aggregator.
#[derive(Clone, Debug)]
struct Line {
    millis: u64,
    name: u8,
    tag: Option<u8>,
    values: Vec<Value>,
    rate: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum Value {
    Count(f64),
    Level(f64),
    Change(f64),
    Time(f64),
    Size(f64),
    Member(u16),
}

impl Line {
    fn metric_type(&self) -> MetricType {
        match self.values[0] {
            Value::Count(_) => MetricType::Counter,
            Value::Level(_) | Value::Change(_) => MetricType::Gauge,
            Value::Time(_) => MetricType::Timer,
            Value::Size(_) => MetricType::Distribution,
            Value::Member(_) => MetricType::Set,
        }
    }

    fn weight(&self) -> f64 {
        self.rate.map_or(1.0, |rate| 1.0 / rate.parse::<f64>().unwrap())
    }

    fn text(&self) -> String {
        let letter = match self.metric_type() {
            MetricType::Counter => "c",
            MetricType::Gauge => "g",
            MetricType::Timer => "ms",
            MetricType::Set => "s",
            _ => "d",
        };
        let value = |value: &Value| match value {
            Value::Change(by) => format!("{by:+}"),
            Value::Member(member) => format!("m{member}"),
            Value::Count(n) | Value::Level(n) | Value::Time(n) | Value::Size(n) => n.to_string(),
        };
        let values: Vec<_> = self.values.iter().map(value).collect();
        let rate = self.rate.map_or(String::new(), |rate| format!("|@{rate}"));
        let tag = self.tag.map_or(String::new(), |tag| format!("|#shard:{tag}"));
        format!("n{}:{}|{letter}{rate}{tag}", self.name, values.join(":"))
    }

    fn key(&self) -> Key {
        let tag = self.tag.map(|tag| tag.to_string());
        (format!("n{}", self.name), tag, self.metric_type())
    }
}

type Key = (String, Option<String>, MetricType);

fn key_of(series: &Series) -> Key {
    (series.name.to_string(), series.tags.get("shard").map(str::to_owned), series.metric_type)
}

fn line() -> impl Strategy<Value = Line> {
    let number = prop_oneof![-1e6..1e6_f64, (0..50_u16).prop_map(f64::from), Just(0.0), 1e-9..1e12_f64];
    // Packed values are all of one kind; a level is never negative on the wire.
    let values = prop_oneof![
        number.clone().prop_map(|n| vec![Value::Count(n)]),
        (0.0..1e6_f64).prop_map(|n| vec![Value::Level(n)]),
        (-1e3..1e3_f64).prop_map(|n| vec![Value::Change(n)]),
        prop::collection::vec(number.clone().prop_map(Value::Time), 1..6),
        prop::collection::vec(number.prop_map(Value::Size), 1..6),
        (0..1500_u16).prop_map(|member| vec![Value::Member(member)]),
    ];
    let rate = prop::option::of(prop::sample::select(vec!["1", "0.5", "0.1", "0.3", "0.001"]));
    (0..40_000_u64, 0..2_u8, prop::option::of(0..2_u8), values, rate)
        .prop_map(|(millis, name, tag, values, rate)| Line { millis, name, tag, values, rate })
}

fn traffic(most: usize) -> impl Strategy<Value = Vec<Line>> {
    prop::collection::vec(line(), 1..most).prop_map(|mut lines| {
        lines.sort_by_key(|line| line.millis);
        lines
    })
}

/// The windows that an aggregator makes of lines, those of one moment sent in one datagram, up to `until_millis`.
fn windows(lines: &[Line], window_secs: u64, until_millis: u64) -> Vec<Window> {
    let settings =
        AggregatorSettings { window: Duration::from_secs(window_secs), ..AggregatorSettings::default() };
    let mut aggregator = Aggregator::new(Arc::new(settings), GaugeSign::Delta, moment(0).wall);
    let mut windows = Vec::new();
    let mut roll = |aggregator: &mut Aggregator, millis: u64| {
        while aggregator.window_end() <= moment(millis).wall {
            windows.extend(aggregator.roll_window(aggregator.window_end()).map(|closed| closed.window));
        }
    };
    for batch in lines.chunk_by(|a, b| a.millis == b.millis) {
        roll(&mut aggregator, batch[0].millis);
        let texts: Vec<_> = batch.iter().map(Line::text).collect();
        aggregator.ingest_datagram(texts.join("\n").as_bytes(), moment(batch[0].millis), None);
        assert!(aggregator.accounting().is_balanced(aggregator.open_values()));
        assert_eq!(aggregator.accounting().rejected.total_count(), 0, "{texts:?}");
    }
    roll(&mut aggregator, until_millis);
    windows
}

fn is_close(found: f64, wanted: f64, scale: f64) -> bool {
    (found - wanted).abs() <= 1e-9 * scale.max(f64::MIN_POSITIVE)
}

/// Every sample of one series in one window.
#[derive(Default, Debug)]
struct Kept {
    /// Values, each with its weight.
    weighted: Vec<(f64, f64)>,
    members: BTreeSet<u16>,
    samples: u64,
}

/// Keeps every sample, and computes all results at the end.
fn naive(lines: &[Line], window_millis: u64) -> BTreeMap<u64, BTreeMap<Key, Kept>> {
    let mut levels: BTreeMap<Key, f64> = BTreeMap::new();
    let mut windows: BTreeMap<u64, BTreeMap<Key, Kept>> = BTreeMap::new();
    for line in lines {
        let kept = windows.entry(line.millis / window_millis).or_default().entry(line.key()).or_default();
        for value in &line.values {
            kept.samples += 1;
            let number = match value {
                Value::Count(n) | Value::Time(n) | Value::Size(n) => *n,
                Value::Level(n) => *levels.entry(line.key()).insert_entry(*n).get(),
                Value::Change(by) => {
                    let level = levels.entry(line.key()).or_default();
                    *level += by;
                    *level
                }
                Value::Member(member) => {
                    kept.members.insert(*member);
                    0.0
                }
            };
            kept.weighted.push((number, line.weight()));
        }
    }
    windows
}

fn check(view: &View<'_>, kept: &Kept) -> Result<(), TestCaseError> {
    let values: Vec<f64> = kept.weighted.iter().map(|(value, _)| *value).collect();
    let weight: f64 = kept.weighted.iter().map(|(_, weight)| weight).sum();
    let sum: f64 = kept.weighted.iter().map(|(value, weight)| value * weight).sum();
    let scale: f64 = kept.weighted.iter().map(|(value, weight)| (value * weight).abs()).sum();
    let (min, max) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| (min.min(*value), max.max(*value)));
    prop_assert_eq!(view.sample_count(), kept.samples);
    match view {
        View::Counter { counter, .. } => {
            prop_assert!(is_close(counter.sum, sum, scale), "sum {} is not {sum}", counter.sum);
            prop_assert!(is_close(counter.count.as_f64(), weight, weight));
        }
        View::Gauge(gauge) => {
            prop_assert_eq!((gauge.last, gauge.min, gauge.max), (values[values.len() - 1], min, max));
        }
        View::Distribution { summary, .. } => {
            prop_assert_eq!((summary.min, summary.max), (min, max));
            prop_assert_eq!((summary.first, summary.last), (values[0], values[values.len() - 1]));
            prop_assert!(
                is_close(summary.sum, sum, scale) && is_close(summary.count.as_f64(), weight, weight)
            );
            let mean = sum / weight;
            let squares: f64 =
                kept.weighted.iter().map(|(value, weight)| weight * (value - mean).powi(2)).sum();
            let (stddev, wanted) = (summary.stddev().unwrap(), (squares / weight).sqrt());
            let size = min.abs().max(max.abs());
            prop_assert!(is_close(stddev, wanted, size), "stddev {stddev} is not {wanted}");
            check_percentiles(view, kept)?;
        }
        View::Set { .. } => {
            let (found, wanted) = (view.cardinality().unwrap(), kept.members.len() as f64);
            prop_assert!(found == wanted || wanted > 1000.0 && (found - wanted).abs() < wanted * 0.08);
        }
        View::Check { .. } => prop_assert!(false, "no checks were sent"),
    }
    Ok(())
}

fn check_percentiles(view: &View<'_>, kept: &Kept) -> Result<(), TestCaseError> {
    let mut sorted = kept.weighted.clone();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let whole: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    for ((percent, name), found) in PERCENTILES.iter().zip(view.percentiles().unwrap()) {
        // If a rank is on the boundary between two values, rounding may select either.
        let at = |rank: f64| {
            let mut cumulative = 0.0;
            let reached = sorted.iter().find(|(_, weight)| {
                cumulative += weight;
                cumulative >= rank
            });
            reached.or(sorted.last()).unwrap().0
        };
        let rank = f64::from(*percent) / 100.0 * whole;
        let candidates = [at(rank * (1.0 - 1e-6)), at(rank), at(rank * (1.0 + 1e-6))];
        prop_assert!(
            candidates.iter().any(|wanted| (found - wanted).abs() <= wanted.abs() * 0.01),
            "{name} {found} is none of {candidates:?}"
        );
    }
    Ok(())
}

/// The states of every series over all windows together.
fn merged(windows: &[Window]) -> BTreeMap<Key, SeriesState> {
    let mut states: BTreeMap<Key, SeriesState> = BTreeMap::new();
    for record in windows.iter().flat_map(Window::records) {
        let state = record.view.to_state().expect("a window holds sound bytes");
        match states.entry(key_of(record.series)) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(state);
            }
            std::collections::btree_map::Entry::Occupied(mut mine) => mine.get_mut().merge(&state),
        }
    }
    states
}

fn same(merged: &SeriesState, together: &SeriesState) -> Result<(), TestCaseError> {
    prop_assert_eq!(merged.sample_count(), together.sample_count());
    prop_assert_eq!(merged.count(), together.count(), "counts merge exactly");
    match (merged, together) {
        (SeriesState::Counter(a), SeriesState::Counter(b)) => {
            prop_assert!(is_close(a.sum, b.sum, b.sum.abs().max(1.0)));
        }
        (SeriesState::Gauge(a), SeriesState::Gauge(b)) => prop_assert_eq!(a, b),
        (SeriesState::Distribution(a), SeriesState::Distribution(b)) => {
            let (sum, other) = (&a.summary, &b.summary);
            prop_assert_eq!(
                (sum.min, sum.max, sum.first, sum.last),
                (other.min, other.max, other.first, other.last)
            );
            prop_assert_eq!((sum.first_at, sum.last_at), (other.first_at, other.last_at));
            let size = other.min.abs().max(other.max.abs());
            prop_assert!(is_close(sum.sum, other.sum, size * other.count.as_f64()));
            prop_assert!(is_close(sum.stddev().unwrap(), other.stddev().unwrap(), size));
            let packed = |values: &tallyport::aggregate::Distribution| {
                let mut bytes = Vec::new();
                values.sketch.pack_into(&mut bytes);
                bytes
            };
            prop_assert_eq!(packed(a), packed(b), "bins merge exactly");
        }
        (SeriesState::Set(a), SeriesState::Set(b)) => {
            let packed = |set: &tallyport::aggregate::set::Set| {
                let mut bytes = Vec::new();
                set.pack_members(&mut bytes);
                bytes
            };
            prop_assert_eq!(packed(a), packed(b), "members merge exactly");
        }
        _ => prop_assert!(false, "types differ"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn property_every_window_is_what_keeping_every_sample_gives(lines in traffic(400)) {
        let windows = windows(&lines, 10, 40_000);
        let naive = naive(&lines, 10_000);
        prop_assert_eq!(windows.len(), 4);
        for (index, window) in (0..).zip(&windows) {
            let mut wanted = naive.get(&index).map(|kept| kept.keys().cloned().collect::<BTreeSet<_>>()).unwrap_or_default();
            for record in window.records().filter(|record| record.view.sample_count() > 0) {
                let key = key_of(record.series);
                prop_assert!(wanted.remove(&key), "{key:?} was not sent");
                check(&record.view, &naive[&index][&key])?;
            }
            prop_assert!(wanted.is_empty(), "{wanted:?} is missing");
        }
    }

    #[test]
    fn property_merging_windows_equals_aggregating_their_samples_together(lines in traffic(600)) {
        let fine = merged(&windows(&lines, 10, 40_000));
        let coarse = merged(&windows(&lines, 40, 40_000));
        prop_assert_eq!(fine.keys().collect::<Vec<_>>(), coarse.keys().collect::<Vec<_>>());
        for (key, state) in &fine {
            same(state, &coarse[key])?;
        }
    }

    #[test]
    fn property_how_lines_are_cut_into_datagrams_does_not_matter(lines in traffic(60)) {
        let at_once: Vec<_> = lines.iter().map(|line| Line { millis: 5_000, ..line.clone() }).collect();
        let spread: Vec<_> = (0..).zip(&lines).map(|(n, line)| Line { millis: 5_000 + n, ..line.clone() }).collect();
        let (one, many) = (merged(&windows(&at_once, 10, 10_000)), merged(&windows(&spread, 10, 10_000)));
        for (key, state) in &one {
            let other = &many[key];
            prop_assert_eq!((state.sample_count(), state.count()), (other.sample_count(), other.count()));
            if let (SeriesState::Distribution(a), SeriesState::Distribution(b)) = (state, other) {
                prop_assert_eq!((a.summary.first, a.summary.last), (b.summary.first, b.summary.last));
            }
        }
        prop_assert_eq!(one.len(), many.len());
    }

    #[test]
    fn property_no_datagram_makes_the_aggregator_panic_or_lose_count(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..40),
        shaped in prop::collection::vec("[a-c]{0,2}:?[-+0-9.eE:naif]{0,6}\\|?(c|g|ms|h|d|s|q)?(\\|[@#Tc:e0-9.,a]{0,8}){0,3}\n?", 0..40),
    ) {
        let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, moment(0).wall);
        let shaped = shaped.into_iter().map(String::into_bytes);
        for (n, datagram) in (0..).zip(datagrams.into_iter().chain(shaped)) {
            let now = moment(n * 700);
            aggregator.roll_window(now.wall);
            aggregator.ingest_datagram(&datagram, now, None);
            prop_assert!(aggregator.accounting().is_balanced(aggregator.open_values()));
            prop_assert_eq!(aggregator.open_values(), aggregator.recount_open_values());
        }
    }
}
