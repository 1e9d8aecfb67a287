//! The archive of a program without it: there is none, and steps are folded from what memory has.

// Without the archive itself, some of what it shares with queries is not used.
mod places;
mod policy;

use std::sync::Arc;

pub use places::SeriesPlaces;
pub use policy::{FURTHEST_AHEAD, Granularity, POLICY};

use crate::aggregate::Window;
use crate::config::{AgentConfig, ArchiveConfig};
use crate::model::{Origin, Series, Timestamp};
use crate::store::{Cursor, Store};
use crate::window_log::Spool;

/// No archive.
#[derive(Clone, Debug)]
pub struct Archive(());

/// Never happens.
#[derive(Debug, thiserror::Error)]
#[error("this program was built without the archive")]
pub struct ArchiveError(());

/// There is none.
#[derive(Debug)]
pub enum ArchiveReader {}

/// A container in the archive.
#[derive(Clone, Debug)]
pub struct ArchivedContainer {
    /// Where its samples come from.
    pub origin: Arc<Origin>,
    /// Its numbers in the archive.
    pub numbers: Vec<i64>,
}

/// Slots of one container.
#[derive(Debug)]
pub struct ArchivedSlots {
    /// Windows up to here are in these slots.
    pub cursor: Cursor,
    /// The slots, by start.
    pub slots: Vec<Window>,
    /// How many more there are that are damaged.
    pub damaged: u64,
}

/// What became of the records of a batch.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct FoldCounts {
    /// Records that were folded.
    pub folded: u64,
    /// Records that start too far ahead of the clock.
    pub ahead: u64,
    /// Records that are older than everything that is kept.
    pub late: u64,
    /// Records of windows that are longer than every slot.
    pub long: u64,
    /// Records that could not be read.
    pub unreadable: u64,
    /// Slots that were damaged and begun anew.
    pub damaged_slots: u64,
}

/// The state of the archive.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ArchiveStatus {
    /// What became of records.
    pub counts: FoldCounts,
    /// Records that were gone before they were read.
    pub missed: u64,
    /// Slots that were removed because their time was over.
    pub expired: u64,
    /// Slots that were removed because the file was too large.
    pub for_size: u64,
    /// Damaged archives that were set aside.
    pub set_aside: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Why nothing is archived at present.
    pub failing: Option<String>,
}

#[expect(
    clippy::unused_async,
    clippy::missing_errors_doc,
    reason = "the same functions as those of the archive"
)]
impl Archive {
    #[must_use]
    pub fn new(_config: &AgentConfig, _store: Arc<Store>, _spool: Arc<Spool>) -> Self {
        Self(())
    }

    #[must_use]
    pub fn is_enabled(&self) -> bool {
        false
    }

    pub fn apply_settings(&self, _config: &ArchiveConfig) {}

    pub fn hold_files(&self) {}

    pub fn start(self) {}

    pub async fn stop(&self) {}

    pub fn open_reader(&self) -> Result<Option<ArchiveReader>, ArchiveError> {
        Ok(None)
    }

    pub fn note_read_failure(&self, _error: &ArchiveError) {}

    #[must_use]
    pub fn load_status(&self) -> ArchiveStatus {
        ArchiveStatus::default()
    }
}

#[expect(clippy::missing_errors_doc, reason = "there is no archive that could fail")]
impl ArchiveReader {
    pub fn find_containers(&self, _task: &str) -> Result<Vec<ArchivedContainer>, ArchiveError> {
        match *self {}
    }

    pub fn count_slots(
        &self,
        _numbers: &[i64],
        _granularity: Granularity,
        _between: (Timestamp, Timestamp),
    ) -> Result<(u64, Option<Timestamp>), ArchiveError> {
        match *self {}
    }

    pub fn count_bytes(
        &self,
        _numbers: &[i64],
        _granularity: Granularity,
        _between: (Timestamp, Timestamp),
    ) -> Result<u64, ArchiveError> {
        match *self {}
    }

    pub fn read_series(&self, _number: i64) -> Result<Vec<Arc<Series>>, ArchiveError> {
        match *self {}
    }

    pub fn read_slots(
        &mut self,
        _container: &ArchivedContainer,
        _granularity: Granularity,
        _between: (Timestamp, Timestamp),
    ) -> Result<ArchivedSlots, ArchiveError> {
        match *self {}
    }
}
