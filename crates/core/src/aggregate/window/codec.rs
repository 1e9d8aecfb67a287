//! Encodes a window, for the window log and for the next process.
//!
//! ```text
//! window = version(u8) payload(postcard)     ; rows by type, and the fingerprint of the layout they refer to
//! ```
//!
//! Callers that keep the bytes add a checksum: it is one for a whole frame or image, not one for each part. Reading answers
//! a window or why not, whatever the bytes, and a window whose every record can be read.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tallyport_wal::decode;

use super::{
    CarriedRow, CheckRow, CounterRow, DistributionRow, GaugeRow, KnownLayout, Layout, RangeRow, SetRow,
    Window, WindowSpan,
};
use crate::aggregate::weight::Weight;
use crate::model::{MetricType, Timestamp};
use tallyport_wal::encode_after;

/// The version of a window's bytes that is written. Version 3 is version 2 with sketches whose bins can be joined.
const VERSION: u8 = 3;
/// The oldest version that is read.
const OLDEST: u8 = 2;
/// Offsets into a window are microseconds in 32 bits.
const LONGEST: Duration = Duration::from_hours(1);

/// Why bytes cannot be used as a window, layout or summary.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodecError {
    /// They have an unsupported version.
    #[error("version {found} of a window is not supported, only {OLDEST} to {VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// They are cut off or changed.
    #[error("a window is damaged")]
    Damaged,
    /// They belong to another layout.
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
    /// Appends the encoded window. `layout` is the fingerprint of its layout, which is stored separately.
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
    /// When the bytes are not a window with this layout, or a record is not readable.
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

    /// Whether every record can be read, rendered and merged. A checksum detects only accidental changes.
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

/// Whether places ascend, and each has a series of the right type.
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
    /// Whether samples can have produced it. Second moments may have overflowed, and are then omitted from documents.
    fn is_plausible(&self) -> bool {
        let within = |value: f64| self.min <= value && value <= self.max;
        let finite = self.sum.is_finite() && self.min.is_finite() && self.max.is_finite();
        self.samples > 0 && finite && within(self.first) && within(self.last)
    }
}

/// Numbers of few digits in few bytes: an f64 with its bytes turned around, so that a mantissa that ends in zeros becomes a small
/// integer, which a varint keeps short. 5.0 takes three bytes, 0.1 ten.
pub(super) mod short {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a field by reference")]
    pub(in crate::aggregate::window) fn serialize<S: Serializer>(
        value: &f64,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.to_bits().swap_bytes().serialize(serializer)
    }

    pub(in crate::aggregate::window) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(|bits| f64::from_bits(bits.swap_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::aggregate::{Aggregator, AggregatorSettings, ClosedWindow, GaugeSign};
    use crate::model::Moment;

    /// 2026-01-01T00:00:00Z, on the grid.
    const START: i64 = 1_767_225_600;

    fn moment(millis: u64) -> Moment {
        let mono = Duration::from_millis(millis);
        Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
    }

    /// Every type, sampled and unsampled, with many and few values, late and current.
    const LINES: &[&str] = &[
        "c:1|c",
        "c:2.5|c|@0.3",
        "c:1e300|c",
        "g:5|g",
        "g:+1|g",
        "g:-0.1:7|g",
        "t:14.41|ms|#route:/pay",
        "t:1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19:20:21:22:23:24:25:26:27:28:29:30:31:32:33|ms",
        "h:-3|h|@0.1",
        "d:1e12|d|T1767225601",
        "s:anna|s",
        "s:bob|s|@0.5",
        "_sc|up|0|m:well",
        "_sc|up|2|h:host",
        "n{}:1|c",
    ];

    /// Ten-second windows of these lines, which arrive two seconds apart.
    fn windows(lines: &[usize]) -> Vec<ClosedWindow> {
        let mut aggregator =
            Aggregator::new(Arc::new(AggregatorSettings::default()), GaugeSign::Delta, moment(300).wall);
        let mut closed = Vec::new();
        for (n, line) in (0..).zip(lines) {
            let now = moment(300 + n * 2000);
            closed.extend(aggregator.roll_window(now.wall));
            let line = LINES[line % LINES.len()].replace("{}", &n.to_string());
            aggregator.ingest_datagram(line.as_bytes(), now, None);
        }
        closed.push(aggregator.close_final_window(moment(300 + lines.len() as u64 * 2000).wall));
        closed
    }

    fn encoded(window: &Window) -> (Vec<u8>, KnownLayout) {
        let layout = KnownLayout::new(Arc::clone(window.layout()));
        let mut bytes = Vec::new();
        window.encode(layout.fingerprint(), &mut bytes);
        (bytes, layout)
    }

    proptest! {
        #[test]
        fn a_window_comes_back_as_it_was(lines in prop::collection::vec(0..LINES.len(), 0..60)) {
            for closed in windows(&lines) {
                for window in closed.revisions.iter().chain([&closed.window]) {
                    let (bytes, layout) = encoded(window);
                    let read = Window::decode(&bytes, &layout).unwrap();
                    prop_assert_eq!(format!("{:?}", read), format!("{:?}", window));
                }
            }
        }

        #[test]
        fn whatever_the_bytes_a_window_can_be_read_or_is_refused(
            lines in prop::collection::vec(0..LINES.len(), 1..30),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..8),
            length in any::<prop::sample::Index>(),
        ) {
            for closed in windows(&lines) {
                let (mut bytes, layout) = encoded(&closed.window);
                let _either_way = Window::decode(&bytes[..length.index(bytes.len())], &layout);
                for (place, xor) in &changes {
                    let place = place.index(bytes.len());
                    bytes[place] ^= xor;
                }
                if let Ok(window) = Window::decode(&bytes, &layout) {
                    prop_assert_eq!(window.records().count(), window.len());
                    prop_assert!(window.records().all(|record| record.view.to_state().is_some()));
                }
            }
        }
    }

    #[test]
    fn a_window_of_another_layout_or_version_is_refused() {
        let closed = windows(&[0, 3, 6]);
        let (mut bytes, layout) = encoded(&closed[0].window);
        assert_eq!(Window::decode(&bytes, &KnownLayout::default()).unwrap_err(), CodecError::OtherLayout);
        bytes[0] = 9;
        assert_eq!(Window::decode(&bytes, &layout).unwrap_err(), CodecError::Version { found: 9 });
        assert_eq!(Window::decode(&[], &layout).unwrap_err(), CodecError::Damaged);
    }

    #[test]
    fn numbers_of_few_digits_take_few_bytes() {
        let closed = windows(&[0, 0, 0, 0]);
        let (bytes, _) = encoded(&closed[0].window);
        // Span, fingerprint and nine lengths take 40 bytes of it.
        assert!(bytes.len() < 56, "{} bytes for one counter", bytes.len());
    }
}
