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

/// Every type, sampled and not, many values and few, late and now.
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

/// Windows of ten seconds in which these lines came, each two seconds after the one before.
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
