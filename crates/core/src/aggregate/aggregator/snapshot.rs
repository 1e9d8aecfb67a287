//! Encodes a whole aggregator: for moving to another shard, for the next process, for the journal.
//!
//! A snapshot is a [`DocumentFormat`] document with the mark `TPAG`.
//!
//! Decoding returns an aggregator or an error for any bytes. The client's spellings of series are not kept: they are
//! learnt again from the first line of each. Token buckets start full.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tallyport_wal::{DocumentFormat, FormatError};

use super::columns::SeriesRow;
use super::histograms::Histograms;
use super::{Aggregator, AggregatorSettings, GaugeSign, Habits, LateStates, LedgerRow, TimerUnit};
use crate::aggregate::accounting::Accounting;
use crate::aggregate::distribution::{Distribution, DistributionSummary, SummaryParts};
use crate::aggregate::gauge::Gauge;
use crate::aggregate::histogram::Histogram;
use crate::aggregate::record::RecentEvents;
use crate::aggregate::set::Set;
use crate::aggregate::sketch::{Packed, Sketch};
use crate::aggregate::state::{CheckOutcome, CheckState, Counter, SeriesState};
use crate::aggregate::table::Place;
use crate::aggregate::weight::Weight;
use crate::model::{MetricType, Series, Timestamp};

/// The version of a snapshot's payload that is written, and the only one that is read.
pub const SNAPSHOT_VERSION: u16 = 8;
const FORMAT: DocumentFormat = DocumentFormat { mark: *b"TPAG", version: SNAPSHOT_VERSION };
/// Places in a window are counted in microseconds, in 32 bits.
const LONGEST_WINDOW: Duration = Duration::from_hours(1);

/// Why bytes cannot be used as a snapshot.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// They do not start with the magic number.
    #[error("not a snapshot of an aggregator")]
    NotASnapshot,
    /// They have an unsupported version.
    #[error("snapshot version {found} is not supported, only {SNAPSHOT_VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// They are cut off or changed.
    #[error("the snapshot is damaged")]
    Damaged,
}

impl From<FormatError> for SnapshotError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::OtherMark => Self::NotASnapshot,
            FormatError::Version { found } => Self::Version { found },
            FormatError::Damaged | FormatError::TooLong { .. } => Self::Damaged,
        }
    }
}

/// Series are borrowed for encoding, so that none is copied while receiving is paused.
#[derive(Serialize, Deserialize)]
struct SnapshotV1<S = Series> {
    gauge_sign: GaugeSign,
    timer_unit: TimerUnit,
    habits: Habits,
    begun_again: bool,
    start: Timestamp,
    end: Timestamp,
    opened: Timestamp,
    slots: Vec<Option<SlotV1<S>>>,
    histograms: Vec<(Place, Histogram)>,
    overflow: Option<Place>,
    late: LateV1,
    events: RecentEvents,
    accounting: Accounting,
    history: Vec<usize>,
}

/// Late samples, by the start of their window and by place.
pub(super) type LateV1 = Vec<(Timestamp, Vec<(Place, StateV1)>)>;

#[derive(Serialize, Deserialize)]
pub(super) struct SlotV1<S = Series> {
    series: S,
    ledger: LedgerRow,
    state: StateV1,
}

#[derive(Serialize, Deserialize)]
pub(super) enum StateV1 {
    Counter { samples: u64, count: Weight, sum: f64, decremented: bool },
    Gauge { samples: u64, count: Weight, last: f64, last_at: Timestamp, min: f64, max: f64 },
    Distribution(DistributionV1),
    Set { samples: u64, count: Weight, members: Bytes },
    Check { samples: u64, last_at: Timestamp, outcome: Option<Arc<CheckOutcome>> },
}

#[derive(Serialize, Deserialize)]
pub(super) struct DistributionV1 {
    samples: u64,
    count: Weight,
    sum: f64,
    min: f64,
    max: f64,
    first: (f64, Timestamp),
    last: (f64, Timestamp),
    squares: f64,
    sketch: Bytes,
}

impl Aggregator {
    /// Encodes everything that is needed to continue elsewhere.
    #[must_use]
    pub fn encode_snapshot(&self) -> Vec<u8> {
        let snapshot = SnapshotV1 {
            gauge_sign: self.gauge_sign,
            timer_unit: self.timer_unit,
            habits: self.habits,
            begun_again: self.begun_again,
            start: self.start,
            end: self.end,
            opened: self.opened,
            slots: self.columns.iter_places().map(|place| place.map(SlotV1::from)).collect(),
            histograms: self.histograms.iter().map(|(place, histogram)| (place, histogram.clone())).collect(),
            overflow: self.overflow,
            late: self.late_to_bytes(),
            events: self.events.clone(),
            accounting: self.accounting.clone(),
            history: self.history.iter().copied().collect(),
        };
        FORMAT.encode_document(&snapshot)
    }

    /// Late samples in encodable form.
    pub(super) fn late_to_bytes(&self) -> LateV1 {
        let late = |states: &LateStates| {
            let mut states: Vec<_> =
                states.iter().map(|(place, state)| (*place, StateV1::from(state))).collect();
            states.sort_unstable_by_key(|(place, _)| *place);
            states
        };
        self.late.iter().map(|(start, states)| (*start, late(states))).collect()
    }

    /// An aggregator that continues from a snapshot.
    ///
    /// # Errors
    /// When the bytes are not a snapshot, come from an unknown version, or are damaged.
    pub fn from_snapshot(settings: Arc<AggregatorSettings>, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let snapshot: SnapshotV1 = FORMAT.decode_document(bytes)?;
        if !snapshot.is_plausible() {
            return Err(SnapshotError::Damaged);
        }
        let mut aggregator = Self::new(settings, snapshot.gauge_sign, snapshot.opened);
        (aggregator.timer_unit, aggregator.habits) = (snapshot.timer_unit, snapshot.habits);
        aggregator.begun_again = snapshot.begun_again;
        (aggregator.start, aggregator.end) = (snapshot.start, snapshot.end);
        aggregator.overflow = snapshot.overflow;
        aggregator.events = snapshot.events;
        aggregator.accounting = snapshot.accounting;
        aggregator.history = snapshot.history.into();
        for slot in snapshot.slots {
            aggregator.restore_slot(slot)?;
        }
        aggregator.restore_histograms(snapshot.histograms)?;
        aggregator.restore_late(snapshot.late)?;
        aggregator.check_overflow()?;
        aggregator.count_restored();
        Ok(aggregator)
    }

    /// Checks that the overflow series, if any, exists.
    pub(super) fn check_overflow(&self) -> Result<(), SnapshotError> {
        match self.overflow.is_some_and(|place| self.columns.series_at(place).is_none()) {
            true => Err(SnapshotError::Damaged),
            false => Ok(()),
        }
    }

    /// Computes the counts of a restored aggregator.
    pub(super) fn count_restored(&mut self) {
        self.series = self.columns.iter().count().saturating_sub(usize::from(self.overflow.is_some()));
        self.open = self.recount_open_values();
        self.recount_memory();
    }

    /// Replaces all late samples.
    pub(super) fn restore_late(&mut self, late: LateV1) -> Result<(), SnapshotError> {
        (self.late, self.late_records) = (BTreeMap::new(), 0);
        for (start, states) in late {
            let states = states.into_iter().map(|(place, state)| self.restored_late(place, state));
            let states = states.collect::<Option<LateStates>>().ok_or(SnapshotError::Damaged)?;
            self.late_records += states.len();
            self.late.insert(start, states);
        }
        Ok(())
    }

    /// Replaces all histograms.
    pub(super) fn restore_histograms(
        &mut self,
        histograms: Vec<(Place, Histogram)>,
    ) -> Result<(), SnapshotError> {
        self.histograms = Histograms::default();
        histograms.into_iter().try_for_each(|(place, histogram)| self.restore_histogram(place, histogram))
    }

    /// Restores a histogram, which must belong to an existing series. If its bounds differ from the settings, it is
    /// dropped.
    fn restore_histogram(&mut self, place: Place, histogram: Histogram) -> Result<(), SnapshotError> {
        let series = self.columns.series_at(place).filter(|_| histogram.is_plausible());
        let metric_type = series.ok_or(SnapshotError::Damaged)?.metric_type;
        if self.settings.counting.scale_for(metric_type) == Some(histogram.buckets.scale()) {
            let _grown = self.histograms.insert_at(place, histogram);
        }
        Ok(())
    }

    /// Late samples of an existing series.
    fn restored_late(&self, place: Place, state: StateV1) -> Option<(Place, SeriesState)> {
        let state = state.into_state()?;
        state.matches_type(self.columns.series_at(place)?.metric_type).then_some((place, state))
    }

    /// Replaces the state of an existing series.
    pub(super) fn restore_state(
        &mut self,
        place: Place,
        ledger: LedgerRow,
        state: StateV1,
    ) -> Result<(), SnapshotError> {
        let state = state.into_state().filter(|_| ledger.total.is_finite()).ok_or(SnapshotError::Damaged)?;
        let metric_type = self.columns.series_at(place).ok_or(SnapshotError::Damaged)?.metric_type;
        let row = self.columns.get_mut(place).filter(|_| state.matches_type(metric_type));
        let (known, row) = row.ok_or(SnapshotError::Damaged)?;
        (*known, *row) = (state, ledger);
        Ok(())
    }

    pub(super) fn restore_slot(&mut self, slot: Option<SlotV1>) -> Result<(), SnapshotError> {
        let Some(SlotV1 { series, ledger, state }) = slot else {
            self.columns.push(None);
            return Ok(());
        };
        let state = state
            .into_state()
            .filter(|state| state.matches_type(series.metric_type) && ledger.total.is_finite())
            .ok_or(SnapshotError::Damaged)?;
        let place = self.columns.push(Some((series, state, ledger)));
        let columns = &self.columns;
        self.table.add(place, |place| columns.series_at(place));
        Ok(())
    }
}

impl<'a> From<SeriesRow<'a>> for SlotV1<&'a Series> {
    fn from(row: SeriesRow<'a>) -> Self {
        Self { series: row.series, ledger: *row.ledger, state: StateV1::from(row.state) }
    }
}

/// Bytes that were changed, with the checksum that they should have now.
#[cfg(test)]
pub(super) fn sealed_again(bytes: &[u8]) -> Vec<u8> {
    let covered = bytes.get(..bytes.len().saturating_sub(8)).unwrap_or_default();
    [covered, &xxhash_rust::xxh3::xxh3_64(covered).to_le_bytes()].concat()
}

/// More than any count can reach: a million values a second for two thousand years.
pub(super) const MANY: u64 = 1 << 56;

impl SnapshotV1 {
    /// Whether it can be continued from. A checksum detects only accidental changes.
    fn is_plausible(&self) -> bool {
        self.start < self.end
            && self.end.duration_since(self.start) <= LONGEST_WINDOW
            && self.opened <= self.end
            && self.accounting.is_plausible(MANY)
            && self.habits.is_plausible(MANY)
            && self.history.iter().all(|bytes| *bytes < 1 << 32)
    }
}

impl StateV1 {
    /// Whether samples can have produced it: every number is finite, and all values are between the extremes.
    fn is_plausible(&self) -> bool {
        match self {
            Self::Counter { samples, sum, .. } => *samples < MANY && sum.is_finite(),
            Self::Gauge { samples, last, min, max, .. } => {
                *samples < MANY && is_plausible_range(*min, *max, &[*last])
            }
            Self::Distribution(DistributionV1 { samples: 0, .. }) => true,
            Self::Distribution(values) => {
                values.samples < MANY
                    && values.sum.is_finite()
                    && is_plausible_range(values.min, values.max, &[values.first.0, values.last.0])
                    && values.count >= Weight::from_count(values.samples)
            }
            Self::Set { samples, .. } | Self::Check { samples, .. } => *samples < MANY,
        }
    }
}

/// Whether both extremes are finite, and all values within.
fn is_plausible_range(min: f64, max: f64, values: &[f64]) -> bool {
    min.is_finite() && max.is_finite() && values.iter().all(|value| min <= *value && *value <= max)
}

impl SeriesState {
    fn matches_type(&self, metric_type: MetricType) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(&Self::new(metric_type))
    }
}

impl From<&SeriesState> for StateV1 {
    fn from(state: &SeriesState) -> Self {
        let packed = |pack: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            pack(&mut bytes);
            Bytes::from(bytes)
        };
        match state {
            SeriesState::Counter(Counter { samples, count, sum, decremented }) => {
                Self::Counter { samples: *samples, count: *count, sum: *sum, decremented: *decremented }
            }
            SeriesState::Gauge(Gauge { samples, count, last, last_at, min, max }) => Self::Gauge {
                samples: *samples,
                count: *count,
                last: *last,
                last_at: *last_at,
                min: *min,
                max: *max,
            },
            SeriesState::Distribution(values) => Self::Distribution(DistributionV1 {
                samples: values.summary.samples,
                count: values.summary.count,
                sum: values.summary.sum,
                min: values.summary.min,
                max: values.summary.max,
                first: (values.summary.first, values.summary.first_at),
                last: (values.summary.last, values.summary.last_at),
                squares: values.summary.squared_deviations(),
                sketch: packed(&|out| values.sketch.pack_into(out)),
            }),
            SeriesState::Set(set) => Self::Set {
                samples: set.samples,
                count: set.count,
                members: packed(&|out| set.pack_members(out)),
            },
            SeriesState::Check(check) => {
                Self::Check { samples: check.samples, last_at: check.last_at, outcome: check.outcome.clone() }
            }
        }
    }
}

impl StateV1 {
    fn into_state(self) -> Option<SeriesState> {
        if !self.is_plausible() {
            return None;
        }
        Some(match self {
            Self::Counter { samples, count, sum, decremented } => {
                SeriesState::Counter(Counter { samples, count, sum, decremented })
            }
            Self::Gauge { samples, count, last, last_at, min, max } => {
                SeriesState::Gauge(Gauge { samples, count, last, last_at, min, max })
            }
            Self::Distribution(values) => {
                let DistributionV1 { samples, count, sum, min, max, first, last, squares, sketch: packed } =
                    values;
                let mut sketch = Sketch::default();
                sketch.merge_packed(Packed(&packed))?;
                if sketch.is_empty() != (samples == 0) {
                    return None;
                }
                if samples == 0 {
                    return Some(SeriesState::Distribution(Box::default()));
                }
                let summary = DistributionSummary::from_parts(SummaryParts {
                    samples,
                    count,
                    sum,
                    min,
                    max,
                    first,
                    last,
                    squares,
                });
                SeriesState::Distribution(Box::new(Distribution { summary, sketch }))
            }
            Self::Set { samples, count, members } => {
                SeriesState::Set(Box::new(Set::from_packed(samples, count, &members)?))
            }
            Self::Check { samples, last_at, outcome } => {
                SeriesState::Check(Box::new(CheckState { samples, last_at, outcome }))
            }
        })
    }
}
