//! Where a publisher is, in a file of the state directory: written new, synced and renamed, so that a crash leaves the old
//! one or the new one.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::model::Timestamp;
use crate::store::Cursor;

/// Where a publisher is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Position {
    /// Everything up to here is sent or given up.
    pub cursor: Cursor,
    /// The end of the last round that is. After a restart, places are new ones, and this says which windows are left.
    pub through: Option<Timestamp>,
    /// The end of the round that is being sent, if it cannot be sent again by a process that does not know its totals: the
    /// receiver may have it.
    pub sending: Option<Timestamp>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PositionDocument {
    cursor: (u64, u64),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    through: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sending: Option<Timestamp>,
}

/// The file of a publisher's position.
#[derive(Clone, Debug)]
pub(super) struct CursorFile {
    path: PathBuf,
}

impl CursorFile {
    /// The file of a publisher in the directory of publishers.
    #[must_use]
    pub(super) fn new(directory: &Path, name: &str) -> Self {
        Self { path: directory.join(format!("{name}.json")) }
    }

    /// Reads it. `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub(super) fn read(&self) -> io::Result<Option<Position>> {
        let bytes = match files::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let PositionDocument { cursor: (epoch, seq), through, sending } = serde_json::from_slice(&bytes)?;
        Ok(Some(Position { cursor: Cursor { epoch, seq }, through, sending }))
    }

    /// Replaces it.
    ///
    /// # Errors
    /// When it cannot be written; then the old one is still there.
    pub(super) fn write(&self, position: Position) -> io::Result<()> {
        let Position { cursor, through, sending } = position;
        let document = PositionDocument { cursor: (cursor.epoch, cursor.seq), through, sending };
        let new = self.path.with_extension("new");
        let mut file = files::create_private_file(&new)?;
        file.write_all(&serde_json::to_vec(&document)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)
    }

    /// Removes it, if it is there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = CursorFile::new(directory.path(), "influx");
        assert_eq!(file.read().unwrap(), None);
        let moment = Some(Timestamp::from_secs(1_767_225_600));
        for (through, sending) in [(None, None), (moment, None), (None, moment)] {
            let position = Position { cursor: Cursor { epoch: 3, seq: 812 }, through, sending };
            file.write(position).unwrap();
            assert_eq!(file.read().unwrap(), Some(position));
        }
        let names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["influx.json"]);
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_a_directory_that_is_gone_too() {
        let directory = tempfile::tempdir().unwrap();
        let file = CursorFile::new(directory.path(), "influx");
        for bytes in ["", "{", "{\"cursor\":[1]}", "{\"cursor\":[1,-2]}", "\u{0}"] {
            std::fs::write(directory.path().join("influx.json"), bytes).unwrap();
            assert!(file.read().is_err(), "{bytes:?}");
        }
        let gone = CursorFile::new(&directory.path().join("gone"), "influx");
        let position = Position { cursor: Cursor { epoch: 1, seq: 1 }, through: None, sending: None };
        assert!(gone.write(position).is_err());
    }
}
