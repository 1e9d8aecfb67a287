//! A window as bytes, for the window log and for the next process.
//!
//! ```text
//! window = version(u8) payload(postcard)     ; rows by type, and the fingerprint of the layout they refer to
//! ```
//!
//! Whoever keeps the bytes adds a checksum: it is one for a whole frame or image, not one for each part. Reading answers
//! a window or why not, whatever the bytes, and a window whose every record can be read.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tallyport_wal::decode;

use super::{
    CarriedRow, CheckRow, CounterRow, DistributionRow, GaugeRow, KnownLayout, Layout, RangeRow, SetRow,
    Window, WindowSpan,
};
use crate::aggregate::encoding::encode_after;
use crate::aggregate::weight::Weight;
use crate::model::{MetricType, Timestamp};

/// The version of a window's bytes that is written. Version 3 is version 2 with sketches whose bins can be joined.
const VERSION: u8 = 3;
/// The oldest version that is read.
const OLDEST: u8 = 2;
/// Offsets into a window are microseconds in 32 bits.
const LONGEST: Duration = Duration::from_hours(1);

/// Why bytes are no window, layout or standing that can be used.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// They were written by a version that this one does not know.
    #[error("version {found} of a window is not known here, only {OLDEST} to {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// They are cut off or changed.
    #[error("a window is damaged")]
    Damaged,
    /// They belong to a layout that is not at hand.
    #[error("the series of a window are not known")]
    OtherLayout,
}

#[derive(Serialize)]
struct WindowRef<'w> {
    start: Timestamp,
    end: Timestamp,
    covered: u64,
    layout: u64,
    counters: &'w [CounterRow],
    gauges: &'w [GaugeRow],
    ranges: &'w [RangeRow],
    carried: &'w [CarriedRow],
    distributions: &'w [DistributionRow],
    sets: &'w [SetRow],
    checks: &'w [CheckRow],
    decremented: &'w [u32],
    counts: &'w [(u32, Weight)],
    bytes: &'w [u8],
}

#[derive(Deserialize)]
struct WindowV2 {
    start: Timestamp,
    end: Timestamp,
    covered: u64,
    layout: u64,
    counters: Box<[CounterRow]>,
    gauges: Box<[GaugeRow]>,
    ranges: Box<[RangeRow]>,
    carried: Box<[CarriedRow]>,
    distributions: Box<[DistributionRow]>,
    sets: Box<[SetRow]>,
    checks: Box<[CheckRow]>,
    decremented: Box<[u32]>,
    counts: Box<[(u32, Weight)]>,
    bytes: Box<[u8]>,
}

impl Window {
    /// Appends the window to bytes. `layout` is the fingerprint of its layout, which is written elsewhere.
    pub fn encode(&self, layout: u64, out: &mut Vec<u8>) {
        out.push(VERSION);
        let window = WindowRef {
            start: self.span.start,
            end: self.span.end,
            covered: u64::try_from(self.span.covered.as_micros()).unwrap_or(u64::MAX),
            layout,
            counters: &self.counters,
            gauges: &self.gauges,
            ranges: &self.ranges,
            carried: &self.carried,
            distributions: &self.distributions,
            sets: &self.sets,
            checks: &self.checks,
            decremented: &self.decremented,
            counts: &self.counts,
            bytes: &self.bytes,
        };
        *out = encode_after(std::mem::take(out), &window);
    }

    /// The window that [`Window::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no window of this layout whose every record can be read.
    pub fn decode(bytes: &[u8], layout: &KnownLayout) -> Result<Self, CodecError> {
        let (version, payload) = bytes.split_first().ok_or(CodecError::Damaged)?;
        if !(OLDEST..=VERSION).contains(version) {
            return Err(CodecError::Version { found: *version });
        }
        let window: WindowV2 = decode(payload).ok_or(CodecError::Damaged)?;
        if window.layout != layout.fingerprint() {
            return Err(CodecError::OtherLayout);
        }
        let span = WindowSpan {
            start: window.start,
            end: window.end,
            covered: Duration::from_micros(window.covered),
        };
        let window = Self {
            span,
            layout: layout.layout().clone(),
            counters: window.counters,
            gauges: window.gauges,
            ranges: window.ranges,
            carried: window.carried,
            distributions: window.distributions,
            sets: window.sets,
            checks: window.checks,
            decremented: window.decremented,
            counts: window.counts,
            bytes: window.bytes,
        };
        if window.is_plausible() { Ok(window) } else { Err(CodecError::Damaged) }
    }

    /// A checksum says that nothing was changed by accident; this, that every record can be read, rendered and merged.
    fn is_plausible(&self) -> bool {
        let WindowSpan { start, end, covered } = self.span;
        let layout = &self.layout;
        start < end
            && self.span.nominal_length() <= LONGEST
            && covered <= self.span.nominal_length()
            && has_valid_places(layout, self.counters.iter().map(|row| row.place), |t| {
                t == MetricType::Counter
            })
            && has_valid_places(layout, self.gauges.iter().map(|row| row.place), |t| t == MetricType::Gauge)
            && has_valid_places(layout, self.carried.iter().map(|row| row.place), |t| t == MetricType::Gauge)
            && has_valid_places(layout, self.distributions.iter().map(|row| row.place), is_distribution)
            && has_valid_places(layout, self.sets.iter().map(|row| row.place), |t| t == MetricType::Set)
            && has_valid_places(layout, self.checks.iter().map(|row| row.place), |t| {
                t == MetricType::ServiceCheck
            })
            && has_valid_places(layout, self.decremented.iter().copied(), |t| t == MetricType::Counter)
            && self.ranges.is_sorted_by(|a, b| a.place < b.place)
            && self.counts.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.counts.iter().all(|(_, count)| *count >= Weight::ONE)
            && self.counters.iter().all(CounterRow::is_plausible)
            && self.gauges.iter().all(|row| row.samples > 0 && row.last.is_finite())
            && self.ranges.iter().all(|row| row.min.is_finite() && row.max.is_finite() && row.min <= row.max)
            && self.carried.iter().all(|row| row.last.is_finite())
            && self.distributions.iter().all(DistributionRow::is_plausible)
            && self.sets.iter().all(|row| row.samples > 0)
            && self.checks.iter().all(|row| row.samples > 0)
            && self.records().count() == self.len()
            && self.records().all(|record| record.view.to_state().is_some())
    }
}

fn is_distribution(metric_type: MetricType) -> bool {
    matches!(metric_type, MetricType::Timer | MetricType::Histogram | MetricType::Distribution)
}

/// Whether places ascend and each is that of a series of the right type.
fn has_valid_places(
    layout: &Layout,
    mut places: impl Iterator<Item = u32>,
    fits: impl Fn(MetricType) -> bool,
) -> bool {
    let mut last = None;
    places.all(|place| {
        let ascends = last.replace(place).is_none_or(|last| last < place);
        let series = layout.get(place as usize).and_then(Option::as_ref);
        ascends && series.is_some_and(|series| fits(series.metric_type))
    })
}

impl CounterRow {
    fn is_plausible(&self) -> bool {
        self.samples > 0 && self.sum.is_finite() && self.total.is_finite()
    }
}

impl DistributionRow {
    /// As samples can have made it. Second moments may have overflowed, and are then left out of documents.
    fn is_plausible(&self) -> bool {
        let within = |value: f64| self.min <= value && value <= self.max;
        let finite = self.sum.is_finite() && self.min.is_finite() && self.max.is_finite();
        self.samples > 0 && finite && within(self.first) && within(self.last)
    }
}

#[cfg(test)]
mod tests;
