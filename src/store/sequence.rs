//! Places in the node's sequence: the epoch, a number that is greater each time the agent starts, and cursors as text.

use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

use crate::files;
use crate::model::Timestamp;

/// The name of the file.
pub const EPOCH: &str = "epoch";

/// The epoch of a new run of the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Epoch {
    pub number: u64,
    /// What is wrong with the file that holds the previous epoch, if it is damaged.
    pub damage: Option<String>,
}

/// Chooses the next epoch, and writes it to the file before it is used.
///
/// It is greater than the one in the file and than `known`, the last epoch known from other sources, and at least the
/// seconds since 1970, so that it grows even if the state directory does not survive a reboot or the file is damaged: a
/// cursor of an earlier epoch must never be valid in this one.
///
/// # Errors
/// When the file is there and cannot be read, or cannot be written.
pub fn next_epoch(directory: &Path, known: u64, now: Timestamp) -> io::Result<Epoch> {
    let path = directory.join(EPOCH);
    let (last, damage) = match files::read(&path).map(|bytes| parse_epoch(&bytes)) {
        Ok(Ok(last)) => (last, None),
        Ok(Err(damage)) => (0, Some(damage)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (0, None),
        Err(error) => return Err(error),
    };
    let number = last.max(known).saturating_add(1).max(u64::try_from(now.as_secs()).unwrap_or(0));
    let new = directory.join("epoch.new");
    let mut file = files::create_private_file(&new)?;
    file.write_all(number.to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    Ok(Epoch { number, damage })
}

fn parse_epoch(bytes: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(bytes).ok().map(str::trim);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("its {} bytes are no number; a new one was chosen", bytes.len()))
}

/// Everything up to this place has been read.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cursor {
    /// The life of the agent.
    pub epoch: u64,
    /// The place in it; 0 is before everything.
    pub seq: u64,
}

/// A text that is no cursor.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is not a cursor; use the one that an earlier answer gave, EPOCH-SEQ")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, seq) = text.split_once('-').ok_or(CursorError)?;
        let number = |text: &str| text.parse().map_err(|_| CursorError);
        Ok(Self { epoch: number(epoch)?, seq: number(seq)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_has_a_greater_epoch() {
        let directory = tempfile::tempdir().unwrap();
        let at = |secs, known| {
            let epoch = next_epoch(directory.path(), known, Timestamp::from_secs(secs)).unwrap();
            assert_eq!(epoch.damage, None);
            epoch.number
        };
        assert_eq!([at(1000, 0), at(1000, 0), at(500, 0), at(2000, 0)], [1000, 1001, 1002, 2000]);
        assert_eq!([at(2000, 5000), at(2000, 3)], [5001, 5002], "greater than what is known from elsewhere");
    }

    #[test]
    fn a_damaged_file_is_reported_and_no_obstacle_but_an_unwritable_directory_is() {
        let directory = tempfile::tempdir().unwrap();
        for bytes in [b"nonsense".as_slice(), b"\xff\xfe\x00", b"", b"-7", b"99999999999999999999999"] {
            std::fs::write(directory.path().join(EPOCH), bytes).unwrap();
            let epoch = next_epoch(directory.path(), 70, Timestamp::from_secs(7)).unwrap();
            assert_eq!(epoch.number, 71, "{bytes:?}");
            assert!(epoch.damage.unwrap().starts_with(&format!("its {} bytes", bytes.len())));
            assert_eq!(next_epoch(directory.path(), 0, Timestamp::from_secs(7)).unwrap().damage, None);
        }
        assert!(next_epoch(&directory.path().join("missing"), 0, Timestamp::from_secs(7)).is_err());
    }
}
