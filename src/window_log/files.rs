//! The log's files: all that it asks of a file system, so that tests can have one that fails at any call.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A directory of files that are made, appended to and removed, never changed.
pub trait Files: Send + Sync + fmt::Debug {
    /// The names of all files.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list_names(&self) -> io::Result<Vec<String>>;

    /// The whole of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// A new file, whose name is on the disk when this returns.
    ///
    /// # Errors
    /// When it is there already or cannot be made.
    fn create(&self, name: &str) -> io::Result<Box<dyn Appendable>>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A file that is being written.
pub trait Appendable: Send + fmt::Debug {
    /// Writes behind what is there.
    ///
    /// # Errors
    /// When not everything could be written; a part of it may have been.
    fn append_bytes(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Has everything that was written reach the disk.
    ///
    /// # Errors
    /// When it may not have.
    fn sync_to_disk(&mut self) -> io::Result<()>;

    /// Cuts the file off.
    ///
    /// # Errors
    /// When it could not be.
    fn truncate_to(&mut self, length: u64) -> io::Result<()>;
}

/// A real directory.
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
}

impl LogDirectory {
    /// The directory at a path, made if need be, for this user alone: what applications send may be nobody else's
    /// business.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self { path }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Files for LogDirectory {
    fn list_names(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        crate::files::read(&self.path.join(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appendable>> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create_new(true).mode(0o600).open(self.path.join(name))?;
        File::open(&self.path)?.sync_all()?;
        Ok(Box::new(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }
}

impl Appendable for File {
    fn append_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync_to_disk(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate_to(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
