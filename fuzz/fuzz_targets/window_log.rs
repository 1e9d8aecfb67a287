//! The window log, read by the next run and by publishers, and the histories for the next process: for any bytes, reading
//! returns windows that can be rendered, or an error.
//!
//! The first byte selects the kind of the rest: `f` a file; `e` the entries of one, each after its length in 16 bits,
//! which get valid frames; `d` several files, each after its kind and its length, with entries of that form; `i` the image of a
//! history; otherwise the payload of one, which gets a head and a checksum.
//!
//! Memory is bounded, so a length that is forged takes none.

#![no_main]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tallyport::model::{Allocation, Timestamp};
use tallyport::store::{Cursor, HISTORY_VERSION, History, Store};
use tallyport::window_log::{Appendable, Files, Spool, SpooledWindow, recover_windows};
use tallyport_fuzz::allocation::{self, Counted};
use tallyport_fuzz::{START, Trust};
use xxhash_rust::xxh3::Xxh3;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Bytes that reading may hold at one time, for each byte of the input and at all. Vacant places of layouts take no bytes of a file:
/// a reader holds at most 134 MB of them, and 80 MB of a layout that it changes. A forged length could take gigabytes.
const HELD: usize = 2000;
const AT_ALL: usize = 256 << 20;

fuzz_target!(|input: &[u8]| match input {
    [b'f', file @ ..] => read_all_ways(&Directory::of_one(file)),
    [b'e', entries @ ..] => read_all_ways(&Directory::of_one(&framed(entries, 1))),
    [b'd', files @ ..] => read_all_ways(&Directory::of_several(files)),
    [b'i', image @ ..] => image_of(image),
    [_, payload @ ..] => image_of(&sealed(payload)),
    _ => {}
});

/// Files by name.
#[derive(Clone, Debug)]
struct Directory(Vec<(String, Vec<u8>)>);

impl Directory {
    /// A file of closed windows, and the same as one of open windows and as one that is kept for publishers.
    fn of_one(file: &[u8]) -> Self {
        let names = [WINDOWS, OPEN, SPOOL].map(|kind| name(kind, 1));
        Self(names.into_iter().map(|name| (name, file.to_vec())).collect())
    }

    /// Files one after the other, each with a number of its own: its kind, its length in 16 bits, and entries.
    fn of_several(mut files: &[u8]) -> Self {
        let mut all = Vec::new();
        while let Some(([kind, low, high], rest)) = files.split_first_chunk() {
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            let (entries, rest) = rest.split_at(length);
            files = rest;
            let number = all.len() as u64 + 1;
            all.push((name(*kind, number), framed(entries, number)));
        }
        Self(all)
    }

    fn byte_count(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

const WINDOWS: u8 = 0;
const OPEN: u8 = 1;
const SPOOL: u8 = 3;

fn name(kind: u8, number: u64) -> String {
    match kind % 4 {
        WINDOWS => format!("windows-{number:010}.log"),
        OPEN => format!("open-{number:010}.log"),
        SPOOL => format!("spool-{number:010}-{}-{}.log", u64::MAX, u64::MAX),
        _ => format!("names-{number:010}.log"),
    }
}

impl Files for Directory {
    fn list_names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.iter().map(|(name, _)| name.clone()).collect())
    }

    fn byte_length(&self, name: &str) -> io::Result<u64> {
        self.read(name).map(|bytes| bytes.len() as u64)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, bytes)| bytes.clone()).ok_or_else(|| io::ErrorKind::NotFound.into())
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

fn framed(mut entries: &[u8], number: u64) -> Vec<u8> {
    let mut file = Vec::new();
    while let Some((length, rest)) = entries.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        entries = rest;
        let length = u32::try_from(length).expect("16 bits").to_le_bytes();
        let mut hasher = Xxh3::with_seed(number);
        hasher.update(&length);
        hasher.update(payload);
        file.extend_from_slice(b"\xf1Tpw");
        file.extend_from_slice(&length);
        file.extend_from_slice(&hasher.digest().to_le_bytes());
        file.extend_from_slice(payload);
    }
    file
}

fn read_all_ways(files: &Directory) {
    let (windows, missed) = bounded(files.byte_count(), || follow(files, START_OF_ALL));
    for window in &windows {
        let published = &window.published;
        tallyport_fuzz::window(published.window(), false, Trust::Restored);
        if let Some(added) = published.added_window() {
            tallyport_fuzz::window(added, false, Trust::Restored);
        }
    }
    check_continuation(files, &windows, missed);
    read(files);
}

/// Runs something that holds an amount of memory that is in proportion to its input.
fn bounded<T>(bytes: usize, run: impl FnOnce() -> T) -> T {
    allocation::forget_peak();
    let before = allocation::held();
    let result = run();
    let (held, most) = (allocation::peak().saturating_sub(before), HELD * bytes + AT_ALL);
    assert!(held <= most, "{held} bytes held, {most} allowed for {bytes} bytes");
    result
}

const START_OF_ALL: Cursor = Cursor { epoch: 0, seq: 0 };

/// Reads the files as a publisher does that was at a place: births grow, and reading ends. Returns the records that are missed, too.
fn follow(files: &Directory, after: Cursor) -> (Vec<SpooledWindow>, u64) {
    let spool = Spool::open_backlog(Arc::new(files.clone()), u64::MAX).expect("it can be listed");
    let store = Store::new(u64::MAX, 30);
    let (mut position, mut windows, mut missed) = (after, Vec::new(), 0_u64);
    let mut reader = Arc::new(spool).read_after(after);
    for _ in 0..=files.byte_count() {
        let batch = reader.read_windows(&store, 3).expect("it can be read");
        assert!(batch.windows.len() <= 3 && !batch.is_waiting && batch.cursor >= position);
        if batch.windows.is_empty() && batch.missed == 0 {
            return (windows, missed);
        }
        for window in &batch.windows {
            assert!(
                window.birth > position && window.cursor >= window.birth && window.cursor <= batch.cursor
            );
            position = window.cursor;
        }
        position = batch.cursor;
        missed = missed.saturating_add(batch.missed);
        windows.extend(batch.windows);
    }
    panic!("it does not end");
}

/// A publisher that goes on after any window gets what comes after it, and all that is missed is missed once.
fn check_continuation(files: &Directory, windows: &[SpooledWindow], missed: u64) {
    let births = |windows: &[SpooledWindow]| windows.iter().map(|window| window.birth).collect::<Vec<_>>();
    // A place of the present run is in memory, and not looked for in files.
    let middle = windows.get(windows.len() / 2).filter(|middle| middle.cursor.epoch < u64::MAX);
    let Some(middle) = middle else { return };
    let (rest, missed_after) = follow(files, middle.cursor);
    assert_eq!(births(&rest), births(windows.get(windows.len() / 2 + 1..).unwrap_or_default()));
    assert!(missed_after <= missed, "{missed_after} of {missed}");
}

fn read(files: &Directory) {
    let now = Timestamp::from_secs(START).saturating_add(Duration::from_mins(1));
    let store = bounded(files.byte_count(), || {
        let recovered = recover_windows(files, now, Duration::from_mins(10));
        assert_eq!(recovered.containers.len(), recovered.report.containers);
        let store = Store::new(u64::MAX, 30);
        recovered.adopt_into(&store);
        store
    });
    let since = store.read_since(Cursor { epoch: u64::MAX, seq: 0 }).expect("nothing is gone");
    let mut place = 0;
    for published in &since.published {
        assert!(published.first_seq() > place, "a place is given twice");
        place = published.last_seq();
        tallyport_fuzz::window(published.window(), false, Trust::Restored);
    }
    assert!(place <= since.next.seq && since.next == store.end_cursor());
    assert_eq!(store.held_bytes(), store.recount_held_bytes());
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
