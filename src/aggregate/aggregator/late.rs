//! Samples that say when they were measured.
//!
//! What belongs to a window that is closed but still kept waits, as an aggregate of its own, until the open window
//! closes; then it leaves as a revision, which the store merges into the record. Nothing reaches back into a window.

use std::collections::HashMap;
use std::time::Duration;

use super::Aggregator;
use crate::aggregate::accounting::Dropped;
use crate::aggregate::state::State;
use crate::aggregate::table::Place;
use crate::model::Timestamp;
use crate::statsd::Sample;

/// How far ahead a timestamp may be. It is then counted as if it were now.
pub(super) const FUTURE: Duration = Duration::from_mins(10);

/// Late samples of one window, by series.
pub(super) type LateStates = HashMap<Place, State>;

/// Where a sample belongs.
pub(super) enum When {
    /// In the open window, at this moment.
    Open(Timestamp),
    /// In the closed window that starts at `window`.
    Late { window: Timestamp, at: Timestamp },
}

impl Aggregator {
    pub(super) fn when(&self, seconds: i64, now: Timestamp) -> Result<When, Dropped> {
        let at = Timestamp::from_secs(seconds);
        if at > now.plus(FUTURE) {
            return Err(Dropped::Future);
        }
        if at >= self.start {
            return Ok(When::Open(at.min(now)));
        }
        let keep = u32::try_from(self.settings.keep).unwrap_or(u32::MAX);
        let window = at.floor(self.settings.window);
        if window < self.start.minus(self.settings.window.saturating_mul(keep)) {
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
        let deltas = self.deltas();
        let Some((state, ledger)) = self.columns.get_mut(place) else { return };
        ledger.last_seen = now;
        if let State::Gauge(gauge) = state {
            if deltas && sample.values.signed() {
                // What a level was changed by in the past has changed every level since; it counts as a change now.
                state.insert(&sample.values, sample.weight, now, deltas);
                return;
            }
            if let Some(number) = sample.values.numbers().last() {
                gauge.set_earlier(number.value, at);
            }
        }
        let states = self.late.entry(window).or_default();
        let state = states.entry(place).or_insert_with(|| {
            self.memory += size_of::<(Place, State)>();
            State::empty(sample.metric_type)
        });
        self.memory += state.insert(&sample.values, sample.weight, at, deltas);
    }
}
