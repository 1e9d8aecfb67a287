//! Infers properties of a container's client from its lines, for cases in which clients mean different things by the
//! same line.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Aggregator, GaugeSign};
use crate::aggregate::distribution::DistributionSummary;
use crate::aggregate::gauge::clamp_to_finite;
use crate::model::{MetricType, Series};
use crate::statsd::{Number, Values};

/// Maximum number of decremented counters that are listed by name; the rest are visible by their types on a page.
pub const NAMED: usize = 8;

/// The unit in which a container sends timers.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub enum TimerUnit {
    /// Milliseconds, as `|ms` says.
    #[default]
    #[serde(rename = "ms")]
    Milliseconds,
    /// Seconds, as the `timed` decorator of Datadog's Python client sends them.
    #[serde(rename = "s")]
    Seconds,
}

impl TimerUnit {
    /// The name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
        }
    }
}

/// Observations of a container's client since the container was added.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Habits {
    /// Whether a metric's line had tags after `|#`, a timestamp or an identity, which only DogStatsD has.
    pub dogstatsd: bool,
    /// Whether a gauge was written with a plus sign, which DogStatsD clients never do: this client sends changes.
    pub plus: bool,
    /// Signed gauge values that were read as changes.
    pub gauge_changes: u64,
    /// Timer records whose values are all below 1 and not all 0.
    pub small_timers: u64,
    /// Timer records with a value that is negative, or 1 or more.
    pub large_timers: u64,
}

impl Habits {
    /// Whether signed gauge values are changes, if the container does not set this. DogStatsD clients write levels below
    /// zero with a minus sign.
    fn reads_changes(&mut self, values: &Values<'_>) -> bool {
        if !self.plus {
            self.plus = values.numbers().any(|number| number.signed && number.value.is_sign_positive());
        }
        self.plus || !self.dogstatsd
    }

    /// Whether all timers look like seconds: each value below 1, and not all of them 0.
    #[must_use]
    pub fn timers_look_like_seconds(&self) -> bool {
        self.small_timers > 0 && self.large_timers == 0
    }

    /// Counts a timer record as small or large.
    pub(super) fn count_timer(&mut self, values: &DistributionSummary) {
        let small = values.min >= 0.0 && values.max < 1.0;
        self.small_timers += u64::from(small && values.max > 0.0);
        self.large_timers += u64::from(!small);
    }

    /// Merges in what was observed earlier.
    pub(super) fn merge_earlier(&mut self, earlier: &Self) {
        self.dogstatsd |= earlier.dogstatsd;
        self.plus |= earlier.plus;
        self.gauge_changes = self.gauge_changes.max(earlier.gauge_changes);
        self.small_timers = self.small_timers.max(earlier.small_timers);
        self.large_timers = self.large_timers.max(earlier.large_timers);
    }

    /// Whether both lead to the same conclusions, whatever their counts.
    #[must_use]
    pub fn is_equivalent_to(&self, other: &Self) -> bool {
        let kinds = |habits: &Self| {
            let counts = [habits.gauge_changes, habits.small_timers, habits.large_timers];
            (habits.dogstatsd, habits.plus, counts.map(|count| count > 0))
        };
        kinds(self) == kinds(other)
    }

    /// Whether counts are below `many`, so that adding to them cannot overflow.
    pub(super) fn is_plausible(&self, many: u64) -> bool {
        [self.gauge_changes, self.small_timers, self.large_timers].into_iter().all(|count| count < many)
    }
}

impl Aggregator {
    /// What has been observed of the container's client.
    #[must_use]
    pub fn habits(&self) -> Habits {
        self.habits
    }

    /// The first [`NAMED`] series, by place, whose totals have ever been decremented, as of the last closed window.
    #[must_use]
    pub fn decremented_series(&self) -> &Arc<[Arc<Series>]> {
        &self.decremented
    }

    /// Whether values of this type are in seconds and have to become milliseconds.
    #[inline]
    pub(super) fn in_seconds(&self, metric_type: MetricType) -> bool {
        metric_type == MetricType::Timer && self.timer_unit == TimerUnit::Seconds
    }

    /// Whether any of these values has a sign and signed values of this type are changes. If so, counts them.
    #[inline]
    pub(super) fn reads_changes(&mut self, metric_type: MetricType, values: &Values<'_>) -> bool {
        metric_type == MetricType::Gauge && values.has_sign() && self.reads_signed_as_changes(values)
    }

    /// Not inlined: hardly any value has a sign, and the loop over a batch should stay small.
    #[inline(never)]
    fn reads_signed_as_changes(&mut self, values: &Values<'_>) -> bool {
        let changes = match self.gauge_sign {
            GaugeSign::Auto => self.habits.reads_changes(values),
            GaugeSign::Delta => true,
            GaugeSign::Absolute => false,
        };
        if changes {
            self.habits.gauge_changes += values.numbers().filter(|number| number.signed).count() as u64;
        }
        changes
    }
}

/// Converts a number of seconds to milliseconds.
pub(super) fn seconds_to_milliseconds(number: Number) -> Number {
    let factor = Duration::from_secs(1).as_millis() as f64;
    Number { value: clamp_to_finite(number.value * factor), ..number }
}
