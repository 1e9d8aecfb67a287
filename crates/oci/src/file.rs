//! Replacing a file whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use tallyport_linux::files;

use super::errors::Error;

/// Longest document that is read: far beyond what any runtime writes.
const LONGEST: u64 = 64 << 20;

/// Reads a text file.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let read = || {
        let file = files::open(path)?;
        match file.metadata()? {
            // The runtime reads it again, so even an empty device will not do.
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

/// A text that stands beside the file it is to be. It is not left lying about where something fails.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    /// The file it takes the place of: what a link points to is replaced, not the link.
    target: PathBuf,
    file: File,
}

impl StagedFile {
    /// Writes a text beside a file, which need not be there yet.
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

    /// Where it is until then.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes its place, with the mode and owner of a file that is there; where there is none, as a new file of the
    /// system's. What is durable is there after a crash of the machine, too.
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
        // After the owner: a change of owner takes special bits away.
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
        // After the rename there is nothing to remove.
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
