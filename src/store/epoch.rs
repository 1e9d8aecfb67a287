//! The number of the agent's life, greater each time.

use std::io::{self, Write as _};
use std::path::Path;

use crate::files;
use crate::model::Timestamp;

/// The next epoch, written down before it is used.
///
/// At least the seconds since 1970, so that it grows even where the state directory does not outlive a reboot: a
/// cursor of an earlier life must never look like one of this life.
///
/// # Errors
/// When it cannot be written.
pub fn next_epoch(directory: &Path, now: Timestamp) -> io::Result<u64> {
    let path = directory.join("epoch");
    let last: u64 = match files::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let epoch = last.saturating_add(1).max(u64::try_from(now.as_secs()).unwrap_or(0));
    let new = directory.join("epoch.new");
    let mut file = files::create(&new)?;
    file.write_all(epoch.to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_has_a_greater_epoch() {
        let directory = tempfile::tempdir().unwrap();
        let at = |secs| next_epoch(directory.path(), Timestamp::from_secs(secs)).unwrap();
        assert_eq!([at(1000), at(1000), at(500), at(2000)], [1000, 1001, 1002, 2000]);
    }

    #[test]
    fn a_broken_file_is_no_obstacle_but_an_unwritable_directory_is() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("epoch"), "nonsense").unwrap();
        assert_eq!(next_epoch(directory.path(), Timestamp::from_secs(7)).unwrap(), 7);
        assert!(next_epoch(&directory.path().join("missing"), Timestamp::from_secs(7)).is_err());
    }
}
