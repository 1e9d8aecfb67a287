//! The archive of a program without it: there is none, and steps are folded from what memory has.

// Without the archive itself, some of what it shares with queries is not used.
mod archived;
mod places;
mod policy;
mod status;

use std::sync::Arc;

pub use archived::{ArchivedContainer, ArchivedSlots};
pub use places::SeriesPlaces;
pub use policy::{FURTHEST_AHEAD, Granularity, POLICY};
pub use status::{ArchiveStatus, FoldCounts};

use crate::config::{AgentConfig, ArchiveConfig};
use crate::model::{Series, Timestamp};
use crate::store::Store;
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
