//! Samples with a timestamp.
//!
//! Samples that belong to a closed window that is still kept are aggregated separately until the open window closes,
//! and then become a revision, which the store merges into the record. Closed windows themselves never change.

use std::collections::HashMap;
use std::time::Duration;

use super::Aggregator;
use crate::aggregate::accounting::Dropped;
use crate::aggregate::state::SeriesState;
use crate::aggregate::table::Place;
use crate::aggregate::weight::Weight;
use crate::model::{MetricType, Timestamp};
use crate::statsd::{Sample, Values};

/// How far ahead a timestamp may be. Such samples count as measured now.
pub(super) const FUTURE: Duration = Duration::from_mins(10);

/// Late samples of one window, by series.
pub(super) type LateStates = HashMap<Place, SeriesState>;

/// The window that a sample belongs to.
pub(super) enum When {
    /// In the open window, at this moment.
    Open(Timestamp),
    /// In the closed window that starts at `window`.
    Late { window: Timestamp, at: Timestamp },
}

impl Aggregator {
    pub(super) fn classify_timestamp(&self, seconds: i64, now: Timestamp) -> Result<When, Dropped> {
        let at = Timestamp::from_secs(seconds);
        if at > now.saturating_add(FUTURE) {
            return Err(Dropped::Future);
        }
        if at >= self.start {
            return Ok(When::Open(at.min(now)));
        }
        let keep = u32::try_from(self.settings.keep).unwrap_or(u32::MAX);
        let window = at.floor_to_window(self.settings.window);
        if window < self.start.saturating_sub(self.settings.window.saturating_mul(keep)) {
            return Err(Dropped::Late);
        }
        Ok(When::Late { window, at })
    }

    pub(super) fn insert_late(
        &mut self,
        place: Place,
        sample: &Sample<'_>,
        window: Timestamp,
        at: Timestamp,
        now: Timestamp,
    ) {
        let deltas = self.reads_changes(sample.metric_type, &sample.values);
        let Some((state, ledger)) = self.columns.get_mut(place) else { return };
        ledger.last_seen = now;
        if !matches!(state, SeriesState::Gauge(_)) {
            if !self.may_revise(place, window, u64::from(sample.values.count())) {
                return;
            }
            return self.add_late((place, sample.metric_type), &sample.values, sample.weight, window, at);
        }
        for number in sample.values.numbers() {
            let value = Values::One(number);
            let changes = deltas && number.signed;
            if !changes && !self.may_revise(place, window, 1) {
                continue;
            }
            let Some(SeriesState::Gauge(gauge)) = self.columns.state_at_mut(place) else { return };
            if changes {
                // A late change affects every level since then; it counts as a change now.
                gauge.insert(number, Weight::from_f64(sample.weight), now, deltas);
                self.open += 1;
            } else {
                gauge.set_earlier(number.value, at);
                self.add_late((place, sample.metric_type), &value, sample.weight, window, at);
            }
        }
    }

    /// Whether late values may revise this record: it is already to be revised, or the node's memory and the quota have
    /// room for one more. Otherwise the values are counted as dropped. Each revised record costs a search and a merge
    /// when the open window closes, whatever its number of samples, so the limit is on records.
    fn may_revise(&mut self, place: Place, window: Timestamp, values: u64) -> bool {
        if self.late.get(&window).is_some_and(|states| states.contains_key(&place)) {
            return true;
        }
        if self.node_full && self.is_over(Dropped::NodeMemory, values) {
            return false;
        }
        self.late_records < self.settings.limits.late_records || !self.is_over(Dropped::LateQuota, values)
    }

    /// The pending late samples of each series, in the order of windows, collected in one pass.
    pub(super) fn late_by_place(&self) -> HashMap<Place, Vec<&SeriesState>> {
        let mut by_place: HashMap<Place, Vec<&SeriesState>> = HashMap::new();
        for (place, state) in self.late.values().flatten() {
            by_place.entry(*place).or_default().push(state);
        }
        by_place
    }

    /// Bytes of the late samples that are pending until the open window closes.
    pub(super) fn late_bytes(&self) -> usize {
        let states = self.late.values().flat_map(LateStates::values);
        states.map(|state| size_of::<(Place, SeriesState)>() + state.heap_bytes()).sum()
    }

    fn add_late(
        &mut self,
        (place, metric_type): (Place, MetricType),
        values: &Values<'_>,
        weight: f64,
        window: Timestamp,
        at: Timestamp,
    ) {
        let states = self.late.entry(window).or_default();
        let state = states.entry(place).or_insert_with(|| {
            self.memory += size_of::<(Place, SeriesState)>();
            self.late_records += 1;
            SeriesState::new(metric_type)
        });
        self.memory += state.insert(values, weight, at, false);
        self.open += u64::from(values.count());
    }
}
