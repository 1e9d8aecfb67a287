//! The file of the archive: how it is opened, what its tables are, and what becomes of it when it is damaged.

use std::ffi::OsString;
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::store::Cursor;

/// The name of the file in the state directory.
pub(super) const FILE: &str = "archive.db";
/// The name of a damaged one that was set aside.
pub(super) const SET_ASIDE: &str = "archive.damaged.db";
/// What `SQLite` appends to the name of a database for its other files.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// The mode of the file.
const PRIVATE: u32 = 0o600;

/// The version of the tables.
const VERSION: i64 = 1;

/// How long a statement waits for another connection's lock. Readers take none that a writer waits for.
const BUSY: Duration = Duration::from_secs(5);

/// Bytes of the write-ahead log that stay allocated. While they do, the archive can be written on a full disk.
const LOG_KEPT: i64 = 4 << 20;

const TABLES: &str = "
CREATE TABLE cursor (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE container (
    id INTEGER PRIMARY KEY AUTOINCREMENT, container TEXT NOT NULL, generation INTEGER NOT NULL, part INTEGER NOT NULL,
    task TEXT NOT NULL, origin BLOB NOT NULL,
    UNIQUE (container, generation, part)
);
CREATE INDEX container_task ON container (task);
CREATE TABLE series (
    container INTEGER NOT NULL, place INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (container, place)
) WITHOUT ROWID;
CREATE TABLE slot (
    id INTEGER PRIMARY KEY, container INTEGER NOT NULL, seconds INTEGER NOT NULL, start INTEGER NOT NULL,
    newest_start INTEGER NOT NULL, newest_covered INTEGER NOT NULL, data BLOB NOT NULL,
    UNIQUE (container, seconds, start)
);
CREATE INDEX slot_age ON slot (seconds, start);
";

/// Why the archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// `SQLite` refused or failed.
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
    /// Its file cannot be made or moved.
    #[error("{0}")]
    File(#[from] io::Error),
    /// Another process has written it since its cursor was read.
    #[error("another process has written it meanwhile; reading goes on where that one stopped")]
    CursorMoved,
    /// Another version of tallyport has written it.
    #[error(
        "its tables have version {found}, and this program reads {VERSION}; use the program that wrote it, or move the file away"
    )]
    Version {
        /// The version found.
        found: i64,
    },
}

impl ArchiveError {
    /// Whether the file is damaged, so that trying again would not help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        let Self::Database(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
    }

    /// Whether there is no room for what was to be written.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Database(error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            Self::File(error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Version { .. } | Self::CursorMoved => false,
        }
    }

    /// Whether the file could not be read or written: quotas and a shared index that cannot grow are not reported as a full disk.
    #[must_use]
    pub(super) fn is_io_failure(&self) -> bool {
        matches!(self, Self::Database(error) if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure))
    }
}

/// Opens the archive for writing. One that does not exist is made.
///
/// # Errors
/// When it cannot be opened. See [`ArchiveError::is_damage`].
pub(super) fn open_for_writing(path: &Path) -> Result<Connection, ArchiveError> {
    ensure_private_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == 0 {
        // Before anything else is written: pages that become free can be given back one by one.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection
        .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -4096")?;
    connection.query_row(&format!("PRAGMA journal_size_limit = {LOG_KEPT}"), [], |_| Ok(()))?;
    match found {
        0 => {
            let tables = format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT");
            connection.execute_batch(&tables)?;
        }
        VERSION => {}
        found => return Err(ArchiveError::Version { found }),
    }
    Ok(connection)
}

/// Makes the file if there is none. It has names and labels of every container, so that only this user may read it. An existing
/// file is never removed: another thread or process may have just made it.
fn ensure_private_file(path: &Path) -> io::Result<()> {
    if !path.try_exists()? {
        // Of a file that is gone. SQLite would read them into the new one.
        for companion in COMPANIONS {
            remove_if_present(&append_name(path, companion))?;
        }
    }
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mode = std::fs::metadata(path)?.permissions().mode();
            if mode & 0o777 == PRIVATE {
                return Ok(());
            }
            std::fs::set_permissions(path, Permissions::from_mode(PRIVATE))
        }
        made => made.map(drop),
    }
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens the archive for reading. `None` if there is none.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn open_for_reading(path: &Path) -> Result<Option<Connection>, ArchiveError> {
    if !path.try_exists()? {
        return Ok(None);
    }
    // Opened for writing, because a reader of a write-ahead log writes to the index that it shares with the writer.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -1024")?;
    Ok(Some(connection))
}

/// Moves a damaged archive out of the way. They must not pile up, so of this one and one that was moved before, the larger is kept:
/// it has more history. Returns where it is.
///
/// # Errors
/// When it cannot be moved.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_file_name(SET_ASIDE);
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let is_kept = length(&aside) <= length(path);
    // The file itself last: a new one must not begin beside the log of this one.
    for companion in COMPANIONS.into_iter().chain([""]) {
        let (from, to) = (append_name(path, companion), append_name(&aside, companion));
        if !is_kept {
            remove_if_present(&from)?;
            continue;
        }
        remove_if_present(&to)?;
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

fn append_name(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Everything up to this cursor is in the archive. `None` in a new one.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read_cursor(connection: &Connection) -> Result<Option<Cursor>, ArchiveError> {
    let mut statement = connection.prepare("SELECT epoch, seq FROM cursor")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (epoch, seq): (i64, i64) = (row.get(0)?, row.get(1)?);
    // Places of windows that were open at a kill have the highest bit.
    Ok(Some(Cursor { epoch: epoch.cast_unsigned(), seq: seq.cast_unsigned() }))
}

/// Sets the cursor, in the transaction that adds what is before it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_cursor(connection: &Connection, cursor: Cursor) -> Result<(), ArchiveError> {
    let place = (cursor.epoch.cast_signed(), cursor.seq.cast_signed());
    connection.execute("INSERT OR REPLACE INTO cursor (one, epoch, seq) VALUES (1, ?1, ?2)", place)?;
    Ok(())
}

/// Bytes of the file, and how many of them are free pages.
///
/// # Errors
/// When they cannot be read.
pub(super) fn read_size(connection: &Connection) -> Result<(u64, u64), ArchiveError> {
    let number = |pragma: &str| -> Result<u64, rusqlite::Error> {
        connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
    };
    let page = number("PRAGMA page_size")?;
    Ok((number("PRAGMA page_count")? * page, number("PRAGMA freelist_count")? * page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_kept_whatever_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let connection = open_for_writing(&path).unwrap();
        assert_eq!(read_cursor(&connection).unwrap(), None);
        for seq in [0, 7, (1 << 63) | 5, u64::MAX] {
            write_cursor(&connection, Cursor { epoch: 9, seq }).unwrap();
            assert_eq!(read_cursor(&connection).unwrap(), Some(Cursor { epoch: 9, seq }));
        }
        drop(connection);
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        // As a copy of it may have.
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let connection = open_for_writing(&path).unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(read_cursor(&connection).unwrap(), Some(Cursor { epoch: 9, seq: u64::MAX }));
    }

    #[test]
    fn a_file_that_another_thread_has_just_made_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let first = open_for_writing(&path).unwrap();
        ensure_private_file(&path).unwrap();
        write_cursor(&first, Cursor { epoch: 9, seq: 1 }).unwrap();
        let second = open_for_writing(&path).unwrap();
        assert_eq!(read_cursor(&second).unwrap(), Some(Cursor { epoch: 9, seq: 1 }));
    }

    #[test]
    fn the_larger_of_two_damaged_archives_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join(FILE), directory.path().join(SET_ASIDE));
        for (length, kept) in [(500, 500), (20, 500), (900, 900)] {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            std::fs::write(append_name(&path, "-wal"), b"of the same").unwrap();
            assert_eq!(set_aside(&path).unwrap(), aside);
            assert_eq!(std::fs::metadata(&aside).unwrap().len(), kept);
            assert!(!path.exists() && !append_name(&path, "-wal").exists());
        }
    }

    #[test]
    fn a_damaged_file_is_known_as_such_and_moved_with_its_companions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        std::fs::write(&path, b"this is no database, and long enough to be looked at for a header of one hundred bytes, which it has not")
            .unwrap();
        std::fs::write(append_name(&path, "-wal"), b"nor is this").unwrap();
        let error = open_for_writing(&path).unwrap_err();
        assert!(error.is_damage() && !error.is_full(), "{error}");
        for _twice in 0..2 {
            let aside = set_aside(&path).unwrap();
            assert_eq!(aside, directory.path().join(SET_ASIDE));
            drop(open_for_writing(&path).unwrap());
        }
        let future = open_for_writing(&path).unwrap();
        future.execute_batch("PRAGMA user_version = 7").unwrap();
        drop(future);
        let error = open_for_writing(&path).unwrap_err();
        assert!(matches!(error, ArchiveError::Version { found: 7 }) && !error.is_damage(), "{error}");
    }
}
