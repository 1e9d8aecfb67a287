//! Writing: folds windows of the sequence into slots, in one transaction with the cursor after them.
//!
//! Nothing is kept in memory between transactions. Each is whole or absent, whatever is killed when, so each window is in its
//! slots exactly once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::database::{ArchiveError, read_cursor, write_cursor};
use super::places::SeriesPlaces;
use super::policy::{FURTHEST_AHEAD, Granularity, POLICY};
use super::slot::{decode_slot, encode_slot, read_places, store_new_series};
use super::status::FoldCounts;
use crate::aggregate::WindowFold;
use crate::model::{ContainerId, Generation, Origin, Timestamp};
use crate::store::{Cursor, Published};
use crate::wal::encode;

/// Series that a container may have in the archive beyond four times those of its newest window, before it gets a new list of
/// them. A list is read whole, and a container that makes new series all the time would have a longer one every day.
const SPARE_SERIES: usize = 4096;

/// Folds windows, in the order of the sequence, and moves the cursor after them from where it was when they were read.
///
/// # Errors
/// When they cannot be written, or the cursor was moved meanwhile: a process that hands over may take longer than this one waits
/// for it, and its windows would count twice. Nothing of them is written, then.
pub(super) fn fold_windows(
    connection: &mut Connection,
    windows: &[Arc<Published>],
    (before, cursor): (Option<Cursor>, Cursor),
    now: Timestamp,
) -> Result<FoldCounts, ArchiveError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if read_cursor(&transaction)? != before {
        return Err(ArchiveError::CursorMoved);
    }
    let mut counts = FoldCounts::default();
    let mut by_container: HashMap<(&ContainerId, Generation), Vec<&Published>> = HashMap::new();
    let furthest = now.saturating_add(FURTHEST_AHEAD);
    for published in windows {
        let span = published.window().span;
        let records = published.window().len() as u64;
        if span.start > furthest {
            counts.ahead += records;
        } else if !POLICY.iter().any(|slots| slots.takes_windows(span.nominal_length())) {
            counts.long += records;
        } else {
            let origin = published.origin();
            by_container.entry((&origin.container_id, origin.generation)).or_default().push(published);
        }
    }
    for published in by_container.values() {
        fold_container(&transaction, published, now, &mut counts)?;
    }
    write_cursor(&transaction, cursor)?;
    transaction.commit()?;
    Ok(counts)
}

fn fold_container(
    transaction: &Transaction<'_>,
    windows: &[&Published],
    now: Timestamp,
    counts: &mut FoldCounts,
) -> Result<(), ArchiveError> {
    let Some(newest) = windows.last() else { return Ok(()) };
    let mut places = find_places(transaction, newest)?;
    let mut taken = vec![false; windows.len()];
    for granularity in POLICY {
        // A slot is changed once for all its windows.
        let mut slots: BTreeMap<Timestamp, Vec<usize>> = BTreeMap::new();
        let oldest = granularity.oldest_start(now);
        for (index, published) in windows.iter().enumerate() {
            let span = published.window().span;
            let start = granularity.slot_start(span.start);
            if granularity.takes_windows(span.nominal_length()) && start >= oldest {
                slots.entry(start).or_default().push(index);
            }
        }
        for (start, indices) in slots {
            let mut slot = OpenSlot::read(transaction, &places, granularity, start, counts)?;
            for index in indices {
                let (Some(published), Some(taken)) = (windows.get(index), taken.get_mut(index)) else {
                    continue;
                };
                let left_out = slot.add_window(published, &mut places);
                // Each record counts once, not for each granularity.
                if !std::mem::replace(taken, true) {
                    let records = published.added_window().map_or(left_out, |added| added.len() as u64);
                    counts.folded += records.saturating_sub(left_out);
                    counts.unreadable += left_out;
                }
            }
            slot.write(transaction, &places)?;
        }
    }
    let late = windows.iter().zip(&taken).filter(|(_, taken)| !**taken);
    counts.late += late.map(|(published, _)| published.window().len() as u64).sum::<u64>();
    store_new_series(transaction, &mut places)
}

/// The series of a window's container. A container that is new, or has far more series than it uses, gets a new list.
fn find_places(transaction: &Transaction<'_>, newest: &Published) -> Result<SeriesPlaces, ArchiveError> {
    let origin: &Origin = newest.origin();
    let key = (origin.container_id.as_str(), origin.generation.0);
    let found: Option<(i64, i64, Vec<u8>)> = transaction
        .query_row(
            "SELECT id, part, origin FROM container WHERE container = ?1 AND generation = ?2 ORDER BY part DESC LIMIT 1",
            key,
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let described = encode(origin);
    let mut next_part = 0;
    if let Some((id, part, before)) = found {
        let places = read_places(transaction, id)?;
        let used = newest.window().layout().iter().flatten().count();
        if places.count_places() <= used.saturating_mul(4).saturating_add(SPARE_SERIES) {
            if before != described {
                let task = origin.task_id.as_str();
                transaction.execute(
                    "UPDATE container SET task = ?2, origin = ?3 WHERE id = ?1",
                    (id, task, described),
                )?;
            }
            return Ok(places);
        }
        next_part = part + 1;
    }
    transaction.execute(
        "INSERT INTO container (container, generation, part, task, origin) VALUES (?1, ?2, ?3, ?4, ?5)",
        (key.0, key.1, next_part, origin.task_id.as_str(), described),
    )?;
    read_places(transaction, transaction.last_insert_rowid())
}

/// A slot that is being changed.
struct OpenSlot {
    granularity: Granularity,
    start: Timestamp,
    fold: WindowFold,
}

impl OpenSlot {
    /// Goes on with a slot, or begins one.
    fn read(
        transaction: &Transaction<'_>,
        places: &SeriesPlaces,
        granularity: Granularity,
        start: Timestamp,
        counts: &mut FoldCounts,
    ) -> Result<Self, ArchiveError> {
        let key = (places.container_number(), granularity.slot_seconds(), start.as_secs());
        let mut statement = transaction.prepare(
            "SELECT newest_start, newest_covered, data FROM slot WHERE container = ?1 AND seconds = ?2 AND start = ?3",
        )?;
        let mut rows = statement.query(key)?;
        let new = WindowFold::new(start, granularity.length);
        let fold = match rows.next()? {
            Some(row) => {
                let (newest, covered): (i64, i64) = (row.get(0)?, row.get(1)?);
                let covered = Duration::from_micros(covered.cast_unsigned());
                let newest = Some((Timestamp::from_micros(newest), covered));
                let bytes = row.get_ref(2)?.as_blob().unwrap_or_default();
                let window = decode_slot(bytes, &places.to_layout());
                window.and_then(|window| WindowFold::resume_window(&window, newest)).unwrap_or_else(|| {
                    counts.damaged_slots += 1;
                    new
                })
            }
            None => new,
        };
        Ok(Self { granularity, start, fold })
    }

    /// Adds what a window added. Returns the records of which that is not known.
    fn add_window(&mut self, published: &Published, places: &mut SeriesPlaces) -> u64 {
        places.fold_published(&mut self.fold, published, |_| true)
    }

    fn write(self, transaction: &Transaction<'_>, places: &SeriesPlaces) -> Result<(), ArchiveError> {
        let Self { granularity, start, fold } = self;
        if fold.is_empty() {
            return Ok(());
        }
        let layout = places.to_layout();
        let bytes = encode_slot(&fold.build(Arc::clone(layout.layout())), &layout);
        let (newest, covered) = fold.newest_interval().unwrap_or((start, Duration::ZERO));
        let covered = i64::try_from(covered.as_micros()).unwrap_or(i64::MAX);
        transaction.execute(
            "INSERT INTO slot (container, seconds, start, newest_start, newest_covered, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (container, seconds, start)
             DO UPDATE SET newest_start = excluded.newest_start, newest_covered = excluded.newest_covered, data = excluded.data",
            (places.container_number(), granularity.slot_seconds(), start.as_secs(), newest.as_micros(), covered, bytes),
        )?;
        Ok(())
    }
}
