//! Snapshots: for any bytes, decoding returns a usable aggregator or an error.
//!
//! The first byte selects the kind of the rest: `r` the bytes of a snapshot; `p` its payload, which gets a head and a
//! checksum; otherwise datagrams to send, and changes to the payload of the resulting snapshot:
//!
//! ```text
//! input   = any-byte count count*change *( datagram NUL )
//! change  = place(u16, little endian) xor
//! ```

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tallyport::aggregate::{Aggregator, AggregatorSettings, Counting, GaugeSign, Limits};
use tallyport::model::{Moment, Timestamp};
use tallyport_fuzz::{START, Trust, in_buckets, payload, sealed};

/// The largest number of changes to one payload.
const CHANGES: u8 = 16;

fuzz_target!(|input: &[u8]| match input {
    [b'r', bytes @ ..] => restored_by_each(bytes),
    [b'p', payload @ ..] => restored_by_each(&sealed(payload)),
    [_, count, rest @ ..] => changed(*count % (CHANGES + 1), rest),
    _ => {}
});

fn settings(counting: &Counting) -> Arc<AggregatorSettings> {
    let limits = Limits { series: 20, memory: 256 << 10, ..Limits::default() };
    Arc::new(AggregatorSettings {
        keep: 3,
        series_idle: Duration::from_mins(1),
        limits,
        counting: counting.clone(),
        ..AggregatorSettings::default()
    })
}

/// A moment some seconds after the start.
fn moment(secs: u64) -> Moment {
    let mono = Duration::from_secs(secs);
    Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono }
}

/// Sends the datagrams in `rest`, and changes some bytes of the aggregator's snapshot.
fn changed(count: u8, rest: &[u8]) {
    let Some((changes, datagrams)) = rest.split_at_checked(usize::from(count) * 3) else { return };
    let counting = if count % 2 == 0 { in_buckets() } else { Counting::Native };
    let mut aggregator = Aggregator::new(settings(&counting), GaugeSign::Delta, moment(0).wall);
    for (n, datagram) in (0..).zip(datagrams.split(|byte| *byte == 0)) {
        aggregator.roll_window(moment(4 * n).wall);
        aggregator.ingest_datagram(datagram, moment(4 * n), None);
    }
    let snapshot = aggregator.encode_snapshot();
    let mut payload = payload(&snapshot).to_vec();
    for change in changes.chunks_exact(3) {
        let [low, high, xor] = change else { continue };
        let place = usize::from(u16::from_le_bytes([*low, *high])) % payload.len();
        payload[place] ^= xor;
    }
    assert!(count > 0 || sealed(&payload) == snapshot, "the head of a snapshot is another now");
    restored(&counting, &sealed(&payload));
}

fn restored_by_each(bytes: &[u8]) {
    [in_buckets(), Counting::Native].iter().for_each(|counting| restored(counting, bytes));
}

fn restored(counting: &Counting, bytes: &[u8]) {
    let mut aggregator = match Aggregator::from_snapshot(settings(counting), bytes) {
        Ok(aggregator) => aggregator,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let snapshot = aggregator.encode_snapshot();
    let again = Aggregator::from_snapshot(settings(counting), &snapshot).expect("it was just made");
    assert!(again.encode_snapshot() == snapshot, "a snapshot of what was restored is another");
    let end = aggregator.window_end();
    let now = Moment { wall: end, mono: Duration::ZERO };
    let later = now.saturating_add(Duration::from_hours(1));
    tallyport_fuzz::window(&aggregator.peek_open_window(moment(0).wall), true, Trust::Restored);
    tallyport_fuzz::summary(&aggregator.build_summary(), Trust::Restored);
    let _counts = (aggregator.open_values(), aggregator.memory_bytes(), aggregator.series_count());
    let _balanced = aggregator.accounting().is_balanced(aggregator.open_values());
    for now in [now, later] {
        if let Some(closed) = aggregator.roll_window(now.wall) {
            tallyport_fuzz::closed(&closed, Trust::Restored);
        }
        aggregator.ingest_datagram(
            b"a:1|c\nb:+1|g\nc:1:2|ms\nd:x|s\n_sc|e|1\n_e{1,1}:t|x\nf:1|c|T1767225601",
            now,
            None,
        );
    }
    tallyport_fuzz::closed(&aggregator.close_final_window(later.wall), Trust::Restored);
}
