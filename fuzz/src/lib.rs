//! Shared by the targets: the properties that every record, window and error must have for any input.

pub mod allocation;

use std::collections::{HashMap, HashSet};

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tallyport::aggregate::{
    Bounds, ClosedWindow, Counting, Percentiles, Record, SNAPSHOT_VERSION, SeriesState, View, Window,
    WindowSpan,
};
use tallyport::api::ApiError;
use tallyport::model::{
    ContainerId, Generation, Labels, MetricType, Origin, Series, SeriesKey, TagSet, TaskId, Timestamp,
};
use tallyport::render::record::{RecordFrame, RecordNumber, value};

/// 2026-01-01T00:00:00Z, on the grid of every window length. Seeds and dictionary have timestamps around it.
pub const START: i64 = 1_767_225_600;

/// The origin of the state of a record.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Made from samples: every number must be plausible.
    Sampled,
    /// Made from a snapshot, which can contain any numbers: the document must still be valid.
    Restored,
}

/// The origin of all records.
///
/// # Panics
/// Never: the ids are good ones.
#[must_use]
pub fn origin() -> Origin {
    let container_id = ContainerId::new("c-42").expect("a good id");
    Origin {
        task_id: TaskId::from(&container_id),
        container_id,
        generation: Generation(1),
        labels: Labels::from([("zone".to_owned(), "a".to_owned())]),
    }
}

/// Writes a document, reads it back and checks for invalid values: NaN and infinity are not JSON, or become null, which
/// no document here contains. Returns the text.
///
/// # Panics
/// If the document contains one.
pub fn sound(document: &impl Serialize) -> Vec<u8> {
    let bytes = serde_json::to_vec(document).expect("it can be written");
    if let Err(error) = serde_json::from_slice::<WithoutNull>(&bytes) {
        panic!("{error}: {}", String::from_utf8_lossy(&bytes));
    }
    bytes
}

/// Accepts and discards any JSON except null.
struct WithoutNull;

impl<'de> Deserialize<'de> for WithoutNull {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for WithoutNull {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything but null")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self, E> {
        number.is_finite().then_some(self).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self, A::Error> {
        while values.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// Checks the properties of tags in canonical form.
///
/// # Panics
/// If one does not hold.
pub fn tags(tags: &TagSet) {
    let keys: Vec<&str> = tags.iter().map(|(key, _)| key).collect();
    assert!(keys.is_sorted_by(|a, b| a < b), "{tags:?} is not sorted, each key once");
    assert_eq!((tags.len(), tags.is_empty()), (keys.len(), keys.is_empty()));
    for (key, value) in tags.iter() {
        assert!(!tallyport::model::id::ORIGIN_KEYS.contains(&key), "{key} would forge the origin");
        assert_eq!(tags.get(key), Some(value));
    }
}

/// Renders every record of a window, and checks its properties. Returns the number of raw samples and the documents.
///
/// # Panics
/// If a property does not hold.
pub fn window(window: &Window, open: bool, trust: Trust) -> (u64, Vec<Vec<u8>>) {
    let origin = origin();
    let frame = RecordFrame::new("n1", 3, &origin, window.span);
    let frame = if open { frame.into_open() } else { frame };
    assert!(!window.is_empty() || window.records().next().is_none());
    assert_eq!(window.records().count(), window.len(), "a record that cannot be read");
    assert!(window.record_at(window.len()).is_none());
    let mut seen = HashSet::new();
    let mut samples = 0_u64;
    let mut documents = Vec::new();
    for (seq, record) in (1..).zip(window.records()) {
        let number = (!open).then_some(RecordNumber { seq, rev: 0 });
        documents.push(document(&frame, number, &record, trust));
        samples = samples.wrapping_add(record.view.sample_count());
        if trust == Trust::Sampled {
            assert!(seen.insert(SeriesKey(record.series)), "two records of {:?} in a window", record.series);
            self::record(record.series, &record.view);
        }
    }
    if trust == Trust::Sampled {
        assert!(window.span.start < window.span.end && window.span.covered <= window.span.nominal_length());
    }
    (samples, documents)
}

fn document(
    frame: &RecordFrame<'_>,
    number: Option<RecordNumber>,
    record: &Record<'_>,
    trust: Trust,
) -> Vec<u8> {
    let text = sound(&frame.record_document(number, record));
    let many = matches!(record.view, View::Distribution { .. });
    let there = value(&record.view).is_some();
    assert!(there || many || trust == Trust::Restored, "no value: {}", String::from_utf8_lossy(&text));
    text
}

/// Checks the record of one series.
fn record(series: &Series, view: &View<'_>) {
    tags(&series.tags);
    let samples = view.sample_count();
    match view {
        View::Counter { counter, total } => {
            assert!(counter.sum.is_finite() && total.is_finite(), "{view:?}");
            assert!(counter.count.as_f64() >= samples as f64, "{samples} samples count {:?}", counter.count);
        }
        View::Gauge(gauge) => {
            assert!(gauge.min <= gauge.last && gauge.last <= gauge.max, "{gauge:?}");
            assert!([gauge.last, gauge.min, gauge.max].iter().all(|level| level.is_finite()), "{gauge:?}");
            assert!(samples > 0 || gauge.min.total_cmp(&gauge.max).is_eq(), "a carried gauge with a range");
        }
        View::Distribution { summary, .. } => {
            let within = |value: f64| summary.min <= value && value <= summary.max;
            assert!(within(summary.first) && within(summary.last), "{summary:?}");
            assert!(summary.first_at <= summary.last_at, "{summary:?}");
            assert!(summary.sum.is_finite() && summary.count.as_f64() >= samples as f64, "{summary:?}");
            many(summary, view.percentiles());
        }
        View::Set { count, .. } => {
            let members = view.cardinality().expect("members that can be read");
            assert!(count.as_f64() >= samples as f64);
            // Above a thousand it is an estimate.
            assert!(members >= 1.0 && members <= samples as f64 * 1.2, "{members} of {samples}");
            assert!(members.fract().abs() < f64::EPSILON, "{members}");
        }
        View::Check { .. } => {}
    }
    assert!(samples > 0 || matches!(view, View::Gauge(_)), "a record of nothing: {series:?}");
    let state = view.to_state().expect("a record can be merged");
    let packed = state.to_packed_bytes();
    let again = state.as_view(0.0, &packed).expect("and be a record again");
    assert_eq!((again.sample_count(), again.cardinality()), (samples, view.cardinality()));
    assert_eq!(again.percentiles(), view.percentiles());
}

/// Checks a distribution of values.
fn many(summary: &tallyport::aggregate::DistributionSummary, percentiles: Option<Percentiles>) {
    let within = |value: f64| summary.min <= value && value <= summary.max;
    let percentiles = percentiles.expect("percentiles of something");
    assert!(percentiles.is_sorted(), "{percentiles:?} do not ascend");
    assert!(percentiles.into_iter().all(within), "{percentiles:?} leave {summary:?}");
    assert!(summary.mean().is_none_or(within), "{:?} leaves {summary:?}", summary.mean());
    assert!(summary.stddev().is_none_or(|stddev| stddev.is_finite() && stddev >= 0.0), "{summary:?}");
}

/// A series without its creation time: the key by which records of several windows are merged.
type Key = (String, TagSet, MetricType);

/// All records of each series merged into one, as `merge=true` does.
#[derive(Debug, Default)]
pub struct Merged(HashMap<Key, (SeriesState, u64)>);

impl Merged {
    /// Adds every record of a window.
    ///
    /// # Panics
    /// When a record cannot be merged.
    pub fn add(&mut self, window: &Window) {
        for record in window.records() {
            let state = record.view.to_state().expect("a record can be merged");
            let series = record.series;
            let key = (series.name.to_string(), series.tags.clone(), series.metric_type);
            match self.0.get_mut(&key) {
                Some((merged, samples)) => {
                    merged.merge(&state);
                    *samples += record.view.sample_count();
                }
                None => drop(self.0.insert(key, (state, record.view.sample_count()))),
            }
        }
    }

    /// Renders all, and checks their properties.
    ///
    /// # Panics
    /// If a property does not hold.
    pub fn check(self) {
        let origin = origin();
        let at = Timestamp::from_secs(START);
        let span = WindowSpan { start: at, end: at, covered: std::time::Duration::ZERO };
        let frame = RecordFrame::new("n1", 3, &origin, span).into_merged(2, &[&origin]);
        for ((name, tags, metric_type), (state, samples)) in self.0 {
            assert_eq!(state.sample_count(), samples);
            let packed = state.to_packed_bytes();
            let Some(view) = state.as_view(0.0, &packed) else { panic!("{name}: merged, and no record") };
            if let View::Distribution { summary, .. } = &view {
                many(summary, view.percentiles());
            }
            let series = std::sync::Arc::new(Series { name: name.into(), tags, metric_type, created: at });
            document(&frame, None, &Record { place: 0, series: &series, view }, Trust::Sampled);
        }
    }
}

/// Checks the result of closing a window. Returns the number of samples in its records.
///
/// # Panics
/// If a property does not hold.
pub fn closed(closed: &ClosedWindow, trust: Trust) -> u64 {
    let (mut samples, _) = window(&closed.window, false, trust);
    let mut last = Timestamp::MIN;
    for revision in &closed.revisions {
        let span = revision.span;
        assert!(span.covered.is_zero());
        if trust == Trust::Sampled {
            assert!(last < span.start && span.start < closed.window.span.start, "{span:?} out of order");
            assert!(!revision.is_empty(), "a revision of nothing");
        }
        last = span.start;
        samples = samples.wrapping_add(window(revision, false, trust).0);
    }
    summary(&closed.summary, trust);
    samples
}

/// Buckets for everything.
///
/// # Panics
/// Never: these bounds rise.
#[must_use]
pub fn in_buckets() -> Counting {
    let bounds = |places| Bounds::new(&[-1.0, 0.0, 0.01, 5.0], places).unwrap();
    Counting::Classic { timers: bounds(3), values: bounds(0) }
}

/// Checks the status of a container.
///
/// # Panics
/// If a property does not hold.
pub fn summary(summary: &tallyport::aggregate::ContainerSummary, trust: Trust) {
    let mut seen = HashSet::new();
    for (series, row, histogram) in summary.ledger.iter_entries() {
        if trust == Trust::Sampled {
            assert!(seen.insert(SeriesKey(series)), "{series:?} is in the ledger twice");
            assert!(row.total.is_finite() && row.last_seen >= series.created, "{series:?} {row:?}");
            if let Some(histogram) = histogram {
                assert!(
                    histogram.is_plausible() && histogram.created >= series.created,
                    "{series:?} {histogram:?}"
                );
                // Less if bounds were changed since the series was created.
                assert!(histogram.buckets.count() <= row.count, "{series:?} {row:?} {histogram:?}");
            }
        }
    }
    assert!(summary.checks.iter().all(|check| check.series.metric_type == MetricType::ServiceCheck));
    if trust == Trust::Sampled {
        assert!(summary.events.len() <= tallyport::aggregate::EVENTS);
    }
}

/// Checks an error: it must have a code for programs and a message for people.
///
/// # Panics
/// If a property does not hold.
pub fn api_error(error: &ApiError) {
    assert!((400..600).contains(&error.status), "{error:?}");
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    assert!(!error.code.is_empty() && error.code.bytes().all(plain), "{error:?}");
    assert!(!error.message.trim().is_empty(), "{error:?}");
    sound(&tallyport::wire::Refusal::from(error.clone()));
}

/// Adds the head and the checksum that a payload needs to be read as a snapshot.
#[must_use]
pub fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = [b"TPAG".as_slice(), &SNAPSHOT_VERSION.to_le_bytes(), payload].concat();
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The payload of a snapshot.
#[must_use]
pub fn payload(snapshot: &[u8]) -> &[u8] {
    snapshot.get(6..snapshot.len().saturating_sub(8)).unwrap_or_default()
}
