//! The window log: closed windows and checkpoints of open ones on disk, so that a restarted agent can restore them
//! after a crash.
//!
//! ```text
//! Store ─▶ writer ─▶ windows-N.log    closed windows, synced as soon as they are written
//!                      └▶ spool-N-…   the same file, renamed, while a publisher has not read it
//! shards ─▶ writer ─▶ open-N.log      what changed in open windows since the last checkpoint
//! Store ─▶ writer ─▶ names-N.log      which name is called what on a page, before the windows that have it
//! ```
//!
//! One thread writes. It follows the store's sequence and asks the shards by turns, and no other thread waits for it: if the
//! disk is slow, full or gone, it falls behind, reports that, and continues where it was when it can. A window can be read
//! as soon as it is closed, and is written some hundredths of a second later; between the two, a crash brings it back as of
//! the last checkpoint. The store holds windows back that it no longer keeps before they are written, up to a limit; of what
//! exceeds it, the log says where it was and how many records.
//!
//! How bytes lie in the files, and how damage in them is found, is the business of [`crate::wal`]; this module knows what the
//! entries mean.
//!
//! What a crash leaves is read at the next start ([`recover_windows`]). Damaged parts are found by their checksums, reported and
//! left out.
//!
//! Publishers read windows that are no longer in memory from the same files ([`Spool`]).

mod decoder;
mod entry;
mod found;
mod log;
mod read;
mod recover;
mod renewed;
mod segment;
mod spool;
mod status;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use entry::{VERSION, Who, was_open_at_kill};
pub use recover::{Recovered, RestoredContainer, Survey, recover_windows, survey_log};
pub use renewed::WriterSources;
pub use spool::{
    DropRecorder, PublisherHold, SequenceReader, Spool, SpoolBatch, SpoolDrop, SpoolFollower, SpoolHandout,
    SpoolStatus, SpooledWindow,
};
pub use status::{LogDamage, LogStatus, LogStatusSnapshot, RecoveryReport};
pub use writer::LogWriter;

pub use crate::wal::{Appendable, Files};
#[cfg(test)]
pub(crate) use tests::{Disk, MIB, Node, SMALL, moment};

/// The settings of the log.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct WindowLogSettings {
    /// Interval of checkpoints of open windows; zero disables them.
    pub checkpoint: Duration,
    /// Maximum bytes of open windows written per second; above it, checkpoints become less frequent.
    pub checkpoint_rate: u64,
    /// Maximum total size of the files of closed windows, in bytes.
    pub size: u64,
}

/// A real directory of files of the log.
#[derive(Debug)]
pub struct LogDirectory {
    path: PathBuf,
}

impl LogDirectory {
    /// The directory at a path, created if need be, for this user alone: metrics of applications may be confidential.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self { path }),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is in memory, so that it does not survive a reboot: then nor do windows that a publisher has not sent.
    ///
    /// # Errors
    /// When its file system cannot be found out.
    pub fn is_volatile(&self) -> io::Result<bool> {
        crate::files::is_volatile(&self.path)
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

    fn byte_length(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(name))?.len())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Appendable>> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create_new(true).mode(0o600).open(self.path.join(name))?;
        File::open(&self.path)?.sync_all()?;
        Ok(Box::new(LogFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }
}

/// A file of the log on a real disk.
#[derive(Debug)]
struct LogFile(File);

impl Appendable for LogFile {
    fn append_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync_to_disk(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate_to(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}
