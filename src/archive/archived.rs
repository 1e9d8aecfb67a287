//! What a reader of the archive finds.

use std::sync::Arc;

use crate::aggregate::Window;
use crate::model::Origin;
use crate::store::Cursor;

/// A container in the archive.
#[derive(Clone, Debug)]
pub struct ArchivedContainer {
    /// Where its samples come from.
    pub origin: Arc<Origin>,
    /// Its numbers in the archive: one for each list of its series.
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
