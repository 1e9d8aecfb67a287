//! What leaves the archive: slots whose time is over by the clock, and the oldest of the finest granularity where the file is too
//! large.
//!
//! Every step is a transaction of its own that frees few pages, because each needs some room itself, and readers and the writer
//! wait for none of them.

use rusqlite::Connection;

use super::database::{ArchiveError, read_size};
use super::policy::POLICY;
use crate::model::Timestamp;

/// Slots that one step removes.
const STEP: i64 = 128;
/// Steps of one sweep. What is left is for the next one.
const MOST_STEPS: usize = 256;
/// Pages that one step gives back to the file system.
const PAGES: usize = 512;
/// Steps of one sweep that give pages back, 128 MiB: they must not take long where the agent is about to end.
const MOST_GIVEN_BACK: usize = 64;
/// Free pages are given back beyond this part of the file; below, they are used again.
const SPARE_PART: u64 = 8;

/// What a sweep removed.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Swept {
    /// Slots whose time was over.
    pub(super) expired: u64,
    /// Slots for which there was no room.
    pub(super) for_size: u64,
}

/// Removes what is no longer to be kept, and makes the file smaller.
///
/// # Errors
/// When something cannot be removed. What was removed before stays removed.
pub(super) fn sweep_slots(connection: &Connection, now: Timestamp, size: u64) -> Result<Swept, ArchiveError> {
    let mut swept = Swept::default();
    let mut steps = 0..MOST_STEPS;
    for granularity in POLICY {
        let oldest = granularity.oldest_start(now).as_secs();
        while steps.next().is_some() {
            let removed = connection.execute(
                "DELETE FROM slot WHERE id IN (SELECT id FROM slot WHERE seconds = ?1 AND start < ?2 ORDER BY start LIMIT ?3)",
                (granularity.slot_seconds(), oldest, STEP),
            )?;
            swept.expired += removed as u64;
            if removed == 0 {
                break;
            }
        }
    }
    for granularity in POLICY {
        while is_too_large(connection, size)? && steps.next().is_some() {
            let removed = connection.execute(
                "DELETE FROM slot WHERE id IN (SELECT id FROM slot WHERE seconds = ?1 ORDER BY start LIMIT ?2)",
                (granularity.slot_seconds(), STEP),
            )?;
            swept.for_size += removed as u64;
            if removed == 0 {
                break;
            }
        }
    }
    if swept != Swept::default() {
        remove_containers(connection)?;
    }
    give_back_pages(connection, size)?;
    Ok(swept)
}

fn is_too_large(connection: &Connection, size: u64) -> Result<bool, ArchiveError> {
    let (bytes, free) = read_size(connection)?;
    Ok(bytes - free > size)
}

/// Removes containers without slots, with the lists of their series.
fn remove_containers(connection: &Connection) -> Result<(), ArchiveError> {
    let mut statement = connection.prepare(
        "SELECT id FROM container WHERE NOT EXISTS (SELECT 1 FROM slot WHERE slot.container = container.id)",
    )?;
    let ids: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for id in ids {
        // In this order: a list without a container would never be removed.
        connection.execute("DELETE FROM series WHERE container = ?1", [id])?;
        connection.execute("DELETE FROM container WHERE id = ?1", [id])?;
    }
    Ok(())
}

fn give_back_pages(connection: &Connection, size: u64) -> Result<(), ArchiveError> {
    for _step in 0..MOST_GIVEN_BACK {
        let (bytes, free) = read_size(connection)?;
        if free == 0 || bytes <= size && free < bytes / SPARE_PART {
            break;
        }
        let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}
