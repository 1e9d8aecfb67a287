//! Closed windows with their places in the sequence, and the intervals that they make up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::aggregate::{Record, Window, WindowSpan};
use crate::model::{Allocation, Origin, SeriesKey};
use crate::render::record::RecordNumber;
use crate::store::Cursor;

/// A window with its place in the sequence.
#[derive(Debug)]
pub struct Published {
    allocation: Allocation,
    origin: Arc<Origin>,
    pub(super) first: u64,
    pub(super) kept: StoredWindow,
}

/// A window and what is known of it beside its records.
#[derive(Debug)]
pub struct StoredWindow {
    /// The records as they are.
    pub window: Window,
    /// How often each record was revised; empty where none was.
    pub revs: Box<[u32]>,
    /// What was added to earlier records of the interval, where `window` has the sums. It has the series of `window` at the
    /// same places.
    pub added: Option<Box<Window>>,
    /// Where it was published first, if that was in another epoch.
    pub born: Option<Cursor>,
}

impl From<Window> for StoredWindow {
    fn from(window: Window) -> Self {
        Self { window, revs: Box::default(), added: None, born: None }
    }
}

/// Everything published of one interval: the window as it was closed, and revisions, oldest first.
#[derive(Clone, Debug)]
pub struct IntervalWindows(pub(super) Vec<Arc<Published>>);

impl Published {
    pub(crate) fn new(allocation: Allocation, origin: &Arc<Origin>, kept: StoredWindow, first: u64) -> Self {
        Self { allocation, origin: Arc::clone(origin), first, kept }
    }

    /// The same window at another place in the sequence, under another allocation.
    pub(in crate::store) fn with_place(self, allocation: Allocation, first: u64) -> Self {
        Self { allocation, first, ..self }
    }

    /// The container, by its allocation.
    #[must_use]
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// Where its samples come from.
    #[must_use]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    #[must_use]
    pub fn window(&self) -> &Window {
        &self.kept.window
    }

    /// What was added to earlier records of the interval: the window itself, unless it revises some. For readers that add up.
    /// `None` where that is not known, because its entry in the window log was damaged or had no room.
    #[must_use]
    pub fn added_window(&self) -> Option<&Window> {
        match &self.kept.added {
            Some(added) => Some(added),
            None => self.kept.revs.iter().all(|rev| *rev == 0).then_some(&self.kept.window),
        }
    }

    /// What was added, where that is another window.
    pub(crate) fn added_apart(&self) -> Option<&Window> {
        self.kept.added.as_deref()
    }

    /// The place at which it was published first, for the store of this epoch. Other than [`Published::first_seq`], it stays
    /// the same when a later run of the agent restores the window.
    #[must_use]
    pub fn birth_in(&self, epoch: u64) -> Cursor {
        self.kept.born.unwrap_or(Cursor { epoch, seq: self.first })
    }

    /// The place of its first record.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.first
    }

    /// The place of its last record.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.first + (self.kept.window.len() as u64).saturating_sub(1)
    }

    /// How often each record was revised, in the order of records; empty where none was.
    #[must_use]
    pub fn revision_counts(&self) -> &[u32] {
        &self.kept.revs
    }

    /// Its records and their numbers.
    #[must_use]
    pub fn numbered_records(&self) -> impl DoubleEndedIterator<Item = (RecordNumber, Record<'_>)> {
        (0..self.kept.window.len()).filter_map(|index| {
            let number = RecordNumber {
                seq: self.first + index as u64,
                rev: self.kept.revs.get(index).copied().unwrap_or(0),
            };
            Some((number, self.kept.window.record_at(index)?))
        })
    }
}

impl AsRef<Window> for Published {
    fn as_ref(&self) -> &Window {
        &self.kept.window
    }
}

impl IntervalWindows {
    /// The interval, as it was observed.
    #[must_use]
    pub fn span(&self) -> Option<WindowSpan> {
        self.0.first().map(|published| published.kept.window.span)
    }

    /// Number of values in its newest records. Walks over all of them.
    #[must_use]
    pub fn count_values(&self) -> u64 {
        self.newest_records().map(|(_, _, record)| record.view.sample_count()).sum()
    }

    /// Everything published of it, oldest first.
    pub fn published_windows(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.0.iter()
    }

    /// The newest revision of each record whose series is also in `window`, found in one pass that ends as soon as it has all.
    pub(super) fn newest_of<'k>(&'k self, window: &'k Window) -> HashMap<SeriesKey<'k>, (u32, Record<'k>)> {
        let mut missing: HashSet<_> = window.records().map(|record| SeriesKey(record.series)).collect();
        let mut newest = HashMap::with_capacity(missing.len());
        for (number, record) in self.0.iter().rev().flat_map(|published| published.numbered_records()) {
            if missing.is_empty() {
                break;
            }
            let key = SeriesKey(record.series);
            if missing.remove(&key) {
                newest.insert(key, (number.rev, record));
            }
        }
        newest
    }

    /// The newest revision of each record, and the window it is in.
    pub fn newest_records(&self) -> impl Iterator<Item = (&Arc<Published>, RecordNumber, Record<'_>)> {
        // Most intervals have no revisions, and then each record is the newest of its series.
        let revised = self.0.len() > 1;
        let mut seen = HashSet::new();
        self.0
            .iter()
            .rev()
            .flat_map(|published| published.numbered_records().map(move |(n, record)| (published, n, record)))
            .filter(move |(_, _, record)| !revised || seen.insert(SeriesKey(record.series)))
    }
}
