//! Reading: which containers the archive has of a task, and their slots in an interval.
//!
//! Each call is a transaction of its own and ends at once, so that the write-ahead log can be emptied meanwhile. The cursor that
//! comes with slots says which windows are in them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::archived::{ArchivedContainer, ArchivedSlots};
use super::database::{ArchiveError, open_for_reading, read_cursor};
use super::policy::Granularity;
use super::slot::{decode_slot, read_places};
use crate::aggregate::KnownLayout;
use crate::model::{Origin, Series, Timestamp};
use crate::store::Cursor;
use crate::wal::decode;

/// A reader of the archive.
#[derive(Debug)]
pub struct ArchiveReader {
    connection: Connection,
    /// The layouts of containers that were read, with the number of their series then.
    layouts: HashMap<i64, KnownLayout>,
}

impl ArchiveReader {
    /// Opens the archive. `None` if there is none yet.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, ArchiveError> {
        let connection = open_for_reading(path)?;
        Ok(connection.map(|connection| Self { connection, layouts: HashMap::new() }))
    }

    /// The containers of a task, each generation for itself.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn find_containers(&self, task: &str) -> Result<Vec<ArchivedContainer>, ArchiveError> {
        let mut statement = self.connection.prepare(
            "SELECT id, origin FROM container WHERE task = ?1 ORDER BY container, generation, part",
        )?;
        let mut rows = statement.query([task])?;
        let mut found: Vec<ArchivedContainer> = Vec::new();
        while let Some(row) = rows.next()? {
            let number = row.get(0)?;
            let Some(origin) = decode::<Origin>(row.get_ref(1)?.as_blob().unwrap_or_default()) else {
                continue;
            };
            let same = |other: &&mut ArchivedContainer| {
                other.origin.container_id == origin.container_id
                    && other.origin.generation == origin.generation
            };
            match found.last_mut().filter(same) {
                Some(last) => {
                    last.numbers.push(number);
                    last.origin = Arc::new(origin);
                }
                None => found.push(ArchivedContainer { origin: Arc::new(origin), numbers: vec![number] }),
            }
        }
        Ok(found)
    }

    /// The number of slots of these containers in an interval, and the start of the first. Reads indexes alone.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub fn count_slots(
        &self,
        numbers: &[i64],
        granularity: Granularity,
        (from, until): (Timestamp, Timestamp),
    ) -> Result<(u64, Option<Timestamp>), ArchiveError> {
        let mut statement = self.connection.prepare(
            "SELECT count(*), min(start) FROM slot WHERE container = ?1 AND seconds = ?2 AND start >= ?3 AND start < ?4",
        )?;
        let (mut all, mut first) = (0, None);
        for number in numbers {
            let key = (*number, granularity.slot_seconds(), from.as_secs(), until.as_secs());
            let (count, start): (i64, Option<i64>) =
                statement.query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))?;
            all += count.cast_unsigned();
            first = first.into_iter().chain(start).min();
        }
        Ok((all, first.map(Timestamp::from_secs)))
    }

    /// The bytes of the slots of these containers in an interval.
    ///
    /// # Errors
    /// When they cannot be counted.
    pub fn count_bytes(
        &self,
        numbers: &[i64],
        granularity: Granularity,
        (from, until): (Timestamp, Timestamp),
    ) -> Result<u64, ArchiveError> {
        let mut statement = self.connection.prepare(
            "SELECT coalesce(sum(length(data)), 0) FROM slot WHERE container = ?1 AND seconds = ?2 AND start >= ?3 AND start < ?4",
        )?;
        let mut all = 0;
        for number in numbers {
            let key = (*number, granularity.slot_seconds(), from.as_secs(), until.as_secs());
            let bytes: i64 = statement.query_row(key, |row| row.get(0))?;
            all += bytes.cast_unsigned();
        }
        Ok(all)
    }

    /// The series that a container has had, under any of its numbers.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_series(&self, number: i64) -> Result<Vec<Arc<Series>>, ArchiveError> {
        Ok(read_places(&self.connection, number)?.iter_series().cloned().collect())
    }

    /// The slots of a container that start in an interval.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_slots(
        &mut self,
        container: &ArchivedContainer,
        granularity: Granularity,
        (from, until): (Timestamp, Timestamp),
    ) -> Result<ArchivedSlots, ArchiveError> {
        let transaction = self.connection.unchecked_transaction()?;
        let cursor = read_cursor(&transaction)?.unwrap_or(Cursor { epoch: 0, seq: 0 });
        let (mut slots, mut damaged) = (Vec::new(), 0);
        for number in &container.numbers {
            let mut statement = transaction.prepare(
                "SELECT data FROM slot WHERE container = ?1 AND seconds = ?2 AND start >= ?3 AND start < ?4 ORDER BY start",
            )?;
            let mut rows =
                statement.query((*number, granularity.slot_seconds(), from.as_secs(), until.as_secs()))?;
            while let Some(row) = rows.next()? {
                let bytes = row.get_ref(0)?.as_blob().unwrap_or_default();
                let known = self.layouts.get(number).and_then(|layout| decode_slot(bytes, layout));
                let window = match known {
                    Some(window) => Some(window),
                    // The list may have grown since it was read.
                    None => {
                        let layout = read_places(&transaction, *number)?.to_layout();
                        let window = decode_slot(bytes, &layout);
                        self.layouts.insert(*number, layout);
                        window
                    }
                };
                damaged += u64::from(window.is_none());
                slots.extend(window);
            }
        }
        slots.sort_by_key(|slot| slot.span.start);
        Ok(ArchivedSlots { cursor, slots, damaged })
    }
}
