//! The window log, read by the next run and by publishers, and the histories for the next process: for any bytes, reading
//! returns windows that can be rendered, or an error.
//!
//! The first byte selects the kind of the rest: `f` a file; `e` the entries of one, each after its length in 16 bits,
//! which get valid frames; `i` the image of a history; otherwise the payload of one, which gets a head and a checksum.

#![no_main]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tallyport::model::{Allocation, Timestamp};
use tallyport::store::{Cursor, HISTORY_VERSION, History, Store};
use tallyport::window_log::{Appendable, Files, Spool, recover_windows};
use tallyport_fuzz::{START, Trust};
use xxhash_rust::xxh3::Xxh3;

fuzz_target!(|input: &[u8]| match input {
    [b'f', file @ ..] => read_all_ways(file.to_vec()),
    [b'e', entries @ ..] => read_all_ways(framed(entries)),
    [b'i', image @ ..] => image_of(image),
    [_, payload @ ..] => image_of(&sealed(payload)),
    _ => {}
});

/// A directory with one file of closed windows, and the same as one of open windows and as one that is kept for publishers.
#[derive(Debug)]
struct Three(Vec<u8>);

impl Files for Three {
    fn list_names(&self) -> io::Result<Vec<String>> {
        let spooled = format!("spool-0000000001-{}-{}.log", u64::MAX, u64::MAX);
        Ok(vec!["windows-0000000001.log".to_owned(), "open-0000000001.log".to_owned(), spooled])
    }

    fn byte_length(&self, _: &str) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.clone())
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn Appendable>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
}

fn framed(mut entries: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    while let Some((length, rest)) = entries.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        entries = rest;
        let length = u32::try_from(length).expect("16 bits").to_le_bytes();
        let mut hasher = Xxh3::with_seed(1);
        hasher.update(&length);
        hasher.update(payload);
        file.extend_from_slice(b"\xf1Tpw");
        file.extend_from_slice(&length);
        file.extend_from_slice(&hasher.digest().to_le_bytes());
        file.extend_from_slice(payload);
    }
    file
}

fn read_all_ways(file: Vec<u8>) {
    follow(file.clone());
    read(file);
}

/// Reads a file as a publisher does: births grow, and everything can be rendered.
fn follow(file: Vec<u8>) {
    let spool = Spool::open_backlog(Arc::new(Three(file)), u64::MAX).expect("it can be listed");
    let store = Store::new(u64::MAX, 30);
    let mut position = Cursor { epoch: 0, seq: 0 };
    let mut reader = Arc::new(spool).read_after(position);
    loop {
        let batch = reader.read_windows(&store, 3).expect("it can be read");
        if batch.windows.is_empty() && batch.missed == 0 {
            return;
        }
        for window in batch.windows {
            assert!(window.birth > position && window.cursor >= window.birth);
            position = window.cursor;
            let published = &window.published;
            tallyport_fuzz::window(published.window(), false, Trust::Restored);
            if let Some(added) = published.added_window() {
                tallyport_fuzz::window(added, false, Trust::Restored);
            }
        }
    }
}

fn read(file: Vec<u8>) {
    let now = Timestamp::from_secs(START).saturating_add(Duration::from_mins(1));
    let recovered = recover_windows(&Three(file), now, Duration::from_mins(10));
    assert_eq!(recovered.containers.len(), recovered.report.containers);
    let store = Store::new(u64::MAX, 30);
    recovered.adopt_into(&store);
    let since = store.read_since(Cursor { epoch: u64::MAX, seq: 0 }).expect("nothing is gone");
    for published in &since.published {
        tallyport_fuzz::window(published.window(), false, Trust::Restored);
    }
}

fn sealed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = [b"TPHI".as_slice(), &HISTORY_VERSION.to_le_bytes(), payload].concat();
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

fn image_of(bytes: &[u8]) {
    let history = match History::from_image(bytes) {
        Ok(history) => history,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let image = history.to_image();
    let again = History::from_image(&image).expect("it was just made");
    assert!(again.to_image() == image, "the image of what was read is another");
    for published in history.published_windows() {
        tallyport_fuzz::window(published.window(), false, Trust::Restored);
    }
    let store = Store::new(8, 3);
    store.adopt_histories(vec![(Allocation(1), history)], Timestamp::from_secs(START));
}
