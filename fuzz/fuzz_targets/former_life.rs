//! State of a previous agent: its journal of containers, and the messages of a hand-over. For any bytes, readable parts
//! are used, and the rest is an error.
//!
//! The first byte selects the kind of the rest: `j` a journal; `r` records of one, each after its length in 16 bits,
//! which get valid frames with noise between them; `o` an offer; `l` the last message of a hand-over; `a` an earlier
//! message; `p` a part of the windows in such a message.

#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tallyport::aggregate::AggregatorSettings;
use tallyport::containers::{IMAGE_VERSION, Journal, JournalHealth, Replayed};
use tallyport::restart::fuzzing;
use tallyport::store::ReceivedStore;
use tallyport_fuzz::Trust;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Noise between records: without a magic, with half of one, with a whole one but no record.
const NOISE: [&[u8]; 4] = [b"", b"\0\0", b"TP", b"TPJ\xff"];

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let directory = parent.join(format!("tallyport-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the journal");
    directory
});

fuzz_target!(|input: &[u8]| match input {
    [b'j', journal @ ..] => drop(replayed(journal)),
    [b'r', records @ ..] => between_noise(records),
    [b'o', offer @ ..] => {
        if let Some(again) = fuzzing::roundtrip_offer(offer) {
            assert_eq!(
                fuzzing::roundtrip_offer(&again),
                Some(again.clone()),
                "an offer that is sent again is another"
            );
        }
    }
    [b'l', message @ ..] => {
        let read = fuzzing::last_message(
            &mut ReceivedStore::default(),
            message,
            &Arc::<AggregatorSettings>::default(),
        );
        match read {
            // No descriptors were passed, so there is no socket.
            Ok(arriving) => assert_eq!(arriving.max_socket_fill().to_bits(), 0.0_f64.to_bits()),
            Err(error) => assert!(!error.is_empty()),
        }
    }
    [b'a', message @ ..] => {
        if let Err(error) = fuzzing::message_ahead(message, &Arc::<AggregatorSettings>::default()) {
            assert!(!error.is_empty());
        }
    }
    [b'p', part @ ..] => windows(part),
    _ => {}
});

/// Reads these bytes as the next agent does.
fn replayed(bytes: &[u8]) -> Replayed {
    std::fs::write(DIRECTORY.join("containers.journal"), bytes).expect("the journal can be written");
    let (_, replayed) = Journal::open(&DIRECTORY, JournalHealth::default()).expect("it can be read");
    assert!(replayed.damaged <= bytes.len());
    let allocations: Vec<_> =
        replayed.images.iter().map(tallyport::containers::ContainerSnapshot::allocation).collect();
    assert!(allocations.is_sorted_by(|a, b| a < b), "a container is there twice: {allocations:?}");
    replayed
}

/// A record is found even if data beside it is damaged.
fn between_noise(mut records: &[u8]) {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let (mut whole, mut noisy) = (Vec::new(), Vec::new());
    while let Some((length, rest)) = records.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length));
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        records = rest;
        let covered =
            [b"TPJ".as_slice(), &[IMAGE_VERSION], &u32::to_le_bytes(payload.len() as u32), payload].concat();
        let checksum = xxh3_64_with_seed(&covered, xxh3_64(&boot)).to_le_bytes();
        noisy.extend_from_slice(NOISE[length % NOISE.len()]);
        for bytes in [&mut whole, &mut noisy] {
            bytes.extend_from_slice(&covered);
            bytes.extend_from_slice(&checksum);
        }
    }
    let ids = |bytes: &[u8]| {
        let images = replayed(bytes).images;
        images.iter().map(|image| (image.allocation(), image.origin().clone())).collect::<Vec<_>>()
    };
    assert_eq!(ids(&noisy), ids(&whole), "damage between records costs a record");
}

fn windows(part: &[u8]) {
    let mut received = ReceivedStore::default();
    if let Err(error) = received.add(part) {
        assert!(!error.to_string().is_empty());
        return;
    }
    let Some(store) = received.into_store(3) else { return };
    for published in store.kept_after(0) {
        tallyport_fuzz::window(published.window(), false, Trust::Restored);
    }
}
