//! The windows that can be compared: those in memory, and those of this run that only the files of the window log still have.
//!
//! Files are there as long as the log or any publisher needs them, so this reads what happens to be left and holds none back.

use std::collections::HashSet;
use std::sync::Arc;

use crate::aggregate::WindowSpan;
use crate::store::{Cursor, Published, Store};
use crate::window_log::{Spool, SpooledWindow};

/// Windows that are read from files at once.
const BATCH: usize = 512;

/// A window's place in the sequence.
#[derive(Copy, Clone, Debug)]
pub(super) struct WindowPlace {
    pub(super) span: WindowSpan,
    /// The place of its first record, and that of its last one; 0 where an earlier run has published it. What is lost of the rounds
    /// of earlier runs is not known.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) records: usize,
}

impl WindowPlace {
    fn of_published(published: &Published, epoch: u64) -> Self {
        let is_of_this_run = published.birth_in(epoch).epoch == epoch;
        let (first, last) =
            if is_of_this_run { (published.first_seq(), published.last_seq()) } else { (0, 0) };
        Self { span: published.window().span, first, last, records: published.window().len() }
    }
}

/// The windows in memory.
#[derive(Debug)]
pub(super) struct MemoryWindows {
    pub(super) windows: Vec<Arc<Published>>,
    pub(super) places: Vec<WindowPlace>,
    /// Memory has everything after this place, and only some windows before it.
    pub(super) lost: u64,
    /// The places of all windows in the sequence of this run, those included that it has restored.
    occupied: Vec<(u64, u64)>,
    epoch: u64,
}

/// The windows of this run that memory has no longer.
#[derive(Default, Debug)]
pub(super) struct FileWindows {
    /// Those that are wanted.
    pub(super) windows: Vec<Arc<Published>>,
    /// The places of all.
    pub(super) places: Vec<WindowPlace>,
}

impl MemoryWindows {
    pub(super) fn read(store: &Store) -> Self {
        let epoch = store.end_cursor().epoch;
        let (lost, windows) = match store.read_since(Cursor { epoch, seq: 0 }) {
            Ok(since) => (0, since.published),
            Err(expired) => (expired.oldest.seq, store.kept_after(0)),
        };
        let places = windows.iter().map(|published| WindowPlace::of_published(published, epoch)).collect();
        let occupied =
            windows.iter().map(|published| (published.first_seq(), published.last_seq())).collect();
        Self { windows, places, lost, occupied, epoch }
    }

    /// Reads the windows that memory has no longer. `None` if that takes too long.
    pub(super) fn read_files(
        &self,
        spool: &Arc<Spool>,
        store: &Store,
        is_late: impl Fn() -> bool,
        is_wanted: impl Fn(&Published) -> bool,
    ) -> Option<FileWindows> {
        let known: HashSet<u64> = self.occupied.iter().map(|(first, _)| *first).collect();
        let mut found = FileWindows::default();
        let end = Cursor { epoch: self.epoch, seq: self.lost };
        let mut reader = spool.read_after(Cursor { epoch: self.epoch, seq: 0 });
        while reader.read_position() < end {
            if is_late() {
                return None;
            }
            let batch = match reader.read_windows(store, BATCH) {
                Ok(batch) => batch,
                // The reader tries again, and leaves out in the end what cannot be read.
                Err(error) => {
                    tracing::debug!(%error, "a file of the window log cannot be read");
                    continue;
                }
            };
            if batch.windows.is_empty() && batch.missed == 0 {
                break;
            }
            for SpooledWindow { published, birth, .. } in batch.windows {
                if birth.epoch != self.epoch || birth > end || known.contains(&birth.seq) {
                    continue;
                }
                found.places.push(WindowPlace::of_published(&published, self.epoch));
                if is_wanted(&published) {
                    found.windows.push(published);
                }
            }
        }
        Some(found)
    }

    /// Everything after the place that is returned is known, from memory and these files.
    pub(super) fn find_known(&self, files: &FileWindows) -> u64 {
        let in_files = files.places.iter().map(|place| (place.first, place.last));
        let mut occupied: Vec<_> = self.occupied.iter().copied().chain(in_files).collect();
        occupied.sort_unstable();
        find_last_gap(&occupied, self.lost)
    }
}

/// The end of the last gap in places that are in order. After `lost` there is none.
fn find_last_gap(occupied: &[(u64, u64)], lost: u64) -> u64 {
    let (mut known, mut next) = (0, 1);
    for (first, last) in occupied.iter().take_while(|(first, _)| *first <= lost) {
        if *first > next {
            known = first - 1;
        }
        next = next.max(last.saturating_add(1));
    }
    if next <= lost { lost } else { known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_begins_after_the_last_gap() {
        assert_eq!(
            find_last_gap(&[(1, 10), (11, 20), (21, 30)], 20),
            0,
            "the files have all that memory lost"
        );
        assert_eq!(find_last_gap(&[(1, 10), (21, 30)], 20), 20, "nothing is known of 11 to 20");
        assert_eq!(find_last_gap(&[(5, 10), (11, 20), (21, 30)], 20), 4, "older files are gone");
        assert_eq!(find_last_gap(&[(1, 10), (13, 20), (21, 30)], 20), 12, "a damaged part");
        assert_eq!(find_last_gap(&[(1, 10), (11, 20)], 0), 0, "memory has lost nothing");
        assert_eq!(find_last_gap(&[], 7), 7);
    }
}
