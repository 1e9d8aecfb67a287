//! Atomic replacement of files.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use tallyport_linux::files;

use super::errors::Error;

/// Longest accepted document, in bytes: far more than any runtime writes.
const LONGEST: u64 = 64 << 20;

/// Reads a text file.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let read = || {
        let file = files::open(path)?;
        match file.metadata()? {
            // The runtime reads it again, so not even `/dev/null` is accepted.
            metadata if !metadata.is_file() => Err(io::Error::other("it is not a regular file")),
            metadata if metadata.len() > LONGEST => Err(io::ErrorKind::FileTooLarge.into()),
            _ => io::read_to_string(file),
        }
    };
    read().map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Replaces a file, keeping its mode and its owner. Readers see the old text or the new one.
pub(super) fn replace_file(path: &Path, text: &str) -> Result<(), Error> {
    // A container's configuration need not survive a crash of the machine, so nothing waits until it is on disk.
    let write = || StagedFile::create_beside(path, text)?.replace_target(path, false);
    write().map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// A temporary file next to the file that it will replace. It is removed if anything fails.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    /// The file that it replaces: a link's target is replaced, not the link.
    target: PathBuf,
    file: File,
}

impl StagedFile {
    /// Writes a text next to a file, which need not exist yet.
    ///
    /// # Errors
    /// If the file beside it cannot be created or written.
    pub fn create_beside(path: &Path, text: &str) -> io::Result<Self> {
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".tallyport-{}", std::process::id()));
        let path = target.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut staged = Self { path, target, file };
        staged.file.write_all(text.as_bytes())?;
        Ok(staged)
    }

    /// The path of the temporary file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the target, with mode and owner of `like`, or as a new file with the system's defaults if `like` does
    /// not exist. With `durable`, the file survives a crash of the machine.
    ///
    /// # Errors
    /// If mode or owner cannot be set, or the file cannot be renamed or synchronised.
    pub fn replace_target(self, like: &Path, durable: bool) -> io::Result<()> {
        let mode = match std::fs::metadata(like) {
            Ok(old) => {
                fchown(&self.file, Some(old.uid()), Some(old.gid()))?;
                old.mode() & 0o7777
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0o644,
            Err(error) => return Err(error),
        };
        // After the owner: a change of owner clears special bits.
        self.file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        if durable {
            self.file.sync_all()?;
        }
        std::fs::rename(&self.path, &self.target)?;
        match self.target.parent().filter(|_| durable) {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        let _either_way = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_and_owner_stay_and_nothing_is_left_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let root = nix::unistd::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
        }
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("config.json", &link).unwrap();
        replace_file(&link, "new").unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((read(&path).unwrap(), metadata.mode() & 0o7777), ("new".to_owned(), 0o640));
        assert!(!root || (metadata.uid(), metadata.gid()) == (1234, 4321));
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_read_twice_is_not_read_once() {
        assert!(read(Path::new("/dev/null")).unwrap_err().to_string().contains("not a regular file"));
    }
}
