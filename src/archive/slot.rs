//! Slots and lists of series as they are stored. A slot is a coarse window, with a checksum.

use std::sync::Arc;

use rusqlite::Connection;
use xxhash_rust::xxh3::xxh3_64;

use super::database::ArchiveError;
use super::places::SeriesPlaces;
use crate::aggregate::{KnownLayout, Window};
use crate::model::Series;
use crate::wal::{decode, encode};

/// Reads the series of a container. One that cannot be decoded leaves its place vacant.
///
/// # Errors
/// When they cannot be read.
pub(super) fn read_places(connection: &Connection, container: i64) -> Result<SeriesPlaces, ArchiveError> {
    let mut series: Vec<Option<Arc<Series>>> = Vec::new();
    let mut statement =
        connection.prepare("SELECT place, data FROM series WHERE container = ?1 ORDER BY place")?;
    let mut rows = statement.query([container])?;
    while let Some(row) = rows.next()? {
        let place: u32 = row.get(0)?;
        series.resize(place as usize, None);
        series.push(decode(row.get_ref(1)?.as_blob().unwrap_or_default()));
    }
    Ok(SeriesPlaces::new(container, series))
}

/// Stores the series of a container that are new.
///
/// # Errors
/// When they cannot be written.
pub(super) fn store_new_series(
    connection: &Connection,
    places: &mut SeriesPlaces,
) -> Result<(), ArchiveError> {
    let container = places.container_number();
    let mut statement =
        connection.prepare("INSERT INTO series (container, place, data) VALUES (?1, ?2, ?3)")?;
    for (place, series) in places.take_new() {
        statement.execute((container, i64::try_from(place).unwrap_or(i64::MAX), encode(series)))?;
    }
    Ok(())
}

/// A slot as bytes.
#[must_use]
pub(super) fn encode_slot(window: &Window, layout: &KnownLayout) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    window.encode(layout.fingerprint(), &mut bytes);
    if let Some((checksum, contents)) = bytes.split_first_chunk_mut::<8>() {
        *checksum = xxh3_64(contents).to_le_bytes();
    }
    bytes
}

/// The slot that [`encode_slot`] wrote. `None` if the bytes were changed since.
#[must_use]
pub(super) fn decode_slot(bytes: &[u8], layout: &KnownLayout) -> Option<Window> {
    let (checksum, contents) = bytes.split_first_chunk::<8>()?;
    if xxh3_64(contents) != u64::from_le_bytes(*checksum) {
        return None;
    }
    Window::decode(contents, layout).ok()
}
