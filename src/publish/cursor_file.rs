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
    /// Windows after this place, which is not after `cursor`, may be parts of rounds that get another part yet.
    pub earlier: Cursor,
    /// The end of the last round that was sent, or of the last that is not.
    pub through: Option<Timestamp>,
    /// The round that is being sent, if a process that does not know its totals cannot send it again: the receiver may have it.
    pub sending: Option<SendingRound>,
}

/// A round that a receiver may have.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct SendingRound {
    /// Its end.
    pub end: Timestamp,
    /// The end of its cut: no window after it is part of the round.
    pub to: Cursor,
}

/// What a publisher has lost after its position.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct LostRecords {
    /// Everything up to here is lost or done with.
    pub through: Cursor,
    /// The number of records.
    pub records: u64,
}

/// What the file says.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct SavedPosition {
    pub position: Position,
    /// Not counted in any cursor yet.
    pub lost: Option<LostRecords>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PositionDocument {
    cursor: (u64, u64),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    earlier: Option<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    through: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sending: Option<SendingDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<LostDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SendingDocument {
    end: Timestamp,
    to: (u64, u64),
}

#[derive(Debug, Serialize, Deserialize)]
struct LostDocument {
    through: (u64, u64),
    records: u64,
}

impl From<SavedPosition> for PositionDocument {
    fn from(SavedPosition { position, lost }: SavedPosition) -> Self {
        let pair = |cursor: Cursor| (cursor.epoch, cursor.seq);
        let Position { cursor, earlier, through, sending } = position;
        let sending = sending.map(|SendingRound { end, to }| SendingDocument { end, to: pair(to) });
        let lost = lost.map(|lost| LostDocument { through: pair(lost.through), records: lost.records });
        let earlier = (earlier < cursor).then(|| pair(earlier));
        Self { cursor: pair(cursor), earlier, through, sending, lost }
    }
}

impl From<PositionDocument> for SavedPosition {
    fn from(PositionDocument { cursor, earlier, through, sending, lost }: PositionDocument) -> Self {
        let place = |(epoch, seq): (u64, u64)| Cursor { epoch, seq };
        let cursor = place(cursor);
        let earlier = earlier.map_or(cursor, place).min(cursor);
        let sending = sending.map(|SendingDocument { end, to }| SendingRound { end, to: place(to) });
        let lost = lost.map(|lost| LostRecords { through: place(lost.through), records: lost.records });
        Self { position: Position { cursor, earlier, through, sending }, lost }
    }
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
    pub(super) fn read(&self) -> io::Result<Option<SavedPosition>> {
        let bytes = match files::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let document: PositionDocument = serde_json::from_slice(&bytes)?;
        Ok(Some(document.into()))
    }

    /// Replaces it.
    ///
    /// # Errors
    /// When it cannot be written; then the old one is still there.
    pub(super) fn write(&self, saved: SavedPosition) -> io::Result<()> {
        let document = PositionDocument::from(saved);
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
        let place = |seq| Cursor { epoch: 3, seq };
        let lost = LostRecords { through: place(900), records: 77 };
        let moment = Timestamp::from_secs(1_767_225_600);
        let sending = SendingRound { end: moment, to: place(950) };
        for (earlier, through, sending, lost) in [
            (812, None, None, None),
            (700, Some(moment), Some(sending), Some(lost)),
            (1, None, Some(sending), None),
        ] {
            let position = Position { cursor: place(812), earlier: place(earlier), through, sending };
            let saved = SavedPosition { position, lost };
            file.write(saved).unwrap();
            assert_eq!(file.read().unwrap(), Some(saved));
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
        let cursor = Cursor { epoch: 1, seq: 1 };
        let position = Position { cursor, earlier: cursor, through: None, sending: None };
        assert!(gone.write(SavedPosition { position, lost: None }).is_err());
    }
}
