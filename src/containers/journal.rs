//! The container table on disk, so that a life of the agent that ends without warning leaves its addresses to the next.
//!
//! ```text
//! journal = boot record*
//! boot    = a record that says which boot of the machine the others are of, with a checksum that is not seeded
//! record  = "TPJ" version(u8) length(u32, little endian) payload(postcard) xxh3-64 of all before(u64, little endian)
//! ```
//!
//! Every change is a record, appended before whoever asked for it is answered. What is written outlives the process at once,
//! and need not outlive the machine: with it, all containers end. So the checksum is seeded with the boot, and records of
//! another boot mean nothing. When most of the file is out of date, a new one is written beside it, synced, and put in its
//! place. A record that is damaged is skipped, wherever it is, and reported: its container is not taken back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::image::{ContainerSnapshot, IMAGE_VERSION};
use crate::aggregate::encode;
use crate::files;
use crate::model::Allocation;

/// The name of the file.
pub const JOURNAL: &str = "containers.journal";
const MAGIC: &[u8; 3] = b"TPJ";
const HEAD: usize = MAGIC.len() + 1 + 4;
const CHECKSUM: usize = 8;
/// Longest payload. Labels are bounded by the requests they come with, at a megabyte.
const LONGEST: usize = 4 << 20;
/// A file that is smaller is not worth being written anew.
const SMALL: u64 = 256 << 10;
/// The seed of the record that says which boot the others are of.
const ANY_BOOT: u64 = 0;

#[derive(Serialize, Deserialize)]
enum JournalRecord {
    Put(Box<ContainerSnapshot>),
    Forget(Allocation),
    /// The records that follow are of this boot.
    Boot(u64),
}

/// What a journal had in it.
#[derive(Debug, Default)]
pub struct Replayed {
    /// The containers, in the order they came.
    pub images: Vec<ContainerSnapshot>,
    /// Places at which something could not be read.
    pub damaged: usize,
    /// Bytes of these.
    pub damaged_bytes: usize,
}

/// Whether the journal can be written, for whoever wants to know.
#[derive(Clone, Debug, Default)]
pub struct JournalHealth(Arc<Mutex<(Option<String>, u64)>>);

impl JournalHealth {
    /// Why it cannot be written, where it cannot.
    #[must_use]
    pub fn write_error(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// How often it could not be written.
    #[must_use]
    pub fn failure_count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn record_failure(&self, error: &io::Error) {
        let mut health = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if health.0.is_none() {
            tracing::error!(%error, "cannot write the journal; containers would be lost with this agent");
        }
        *health = (Some(error.to_string()), health.1 + 1);
    }

    fn record_recovery(&self) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).0.take().is_some() {
            tracing::info!("the journal is written again");
        }
    }
}

/// The journal of a container table.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    seed: u64,
    /// Nothing where it has to be written anew.
    file: Option<File>,
    written: u64,
    /// Bytes that were written when it was written anew last.
    live: u64,
    health: JournalHealth,
}

impl Journal {
    /// Reads the journal in a directory. It is written with the first `Journal::rewrite_images`.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn open(directory: &Path, health: JournalHealth) -> io::Result<(Self, Replayed)> {
        let path = directory.join(JOURNAL);
        let bytes = match files::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let journal = Self::new(directory, health);
        let replayed = replay_records(&bytes, journal.seed);
        Ok((journal, replayed))
    }

    /// The journal in a directory, whatever it has: its containers are known. It is written with the first `Journal::rewrite_images`.
    #[must_use]
    pub fn new(directory: &Path, health: JournalHealth) -> Self {
        Self { path: directory.join(JOURNAL), seed: boot_seed(), file: None, written: 0, live: 0, health }
    }

    /// Whether it is time to write it anew: most of it is out of date, or something could not be written.
    pub(super) fn is_stale(&self) -> bool {
        self.file.is_none() || self.written > SMALL.max(4 * self.live)
    }

    /// Appends what became of a container: its image, or nothing where it is forgotten.
    pub(super) fn append_change(&mut self, allocation: Allocation, image: Option<ContainerSnapshot>) {
        let Some(file) = &mut self.file else { return };
        let record =
            image.map_or(JournalRecord::Forget(allocation), |image| JournalRecord::Put(Box::new(image)));
        let bytes = record.to_bytes(self.seed);
        match file.write_all(&bytes) {
            Ok(()) => self.written += bytes.len() as u64,
            Err(error) => {
                self.health.record_failure(&error);
                self.file = None;
            }
        }
    }

    /// Writes it anew: either all of it takes the place of what was there, or nothing.
    pub(super) fn rewrite_images(&mut self, images: impl Iterator<Item = ContainerSnapshot>) {
        let mut bytes = JournalRecord::Boot(self.seed).to_bytes(ANY_BOOT);
        for image in images {
            bytes.extend(JournalRecord::Put(Box::new(image)).to_bytes(self.seed));
        }
        match self.replace_file(&bytes) {
            Ok(file) => {
                self.file = Some(file);
                (self.written, self.live) = (bytes.len() as u64, bytes.len() as u64);
                self.health.record_recovery();
            }
            Err(error) => self.health.record_failure(&error),
        }
    }

    fn replace_file(&self, bytes: &[u8]) -> io::Result<File> {
        let new = self.path.with_added_extension("new");
        let mut file = files::create_private_file(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
        Ok(file)
    }
}

/// What tells this boot of the machine from others.
fn boot_seed() -> u64 {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    xxh3_64(&boot)
}

impl JournalRecord {
    #[expect(
        clippy::expect_used,
        reason = "a record with another length would end the journal at the next start"
    )]
    fn to_bytes(&self, seed: u64) -> Vec<u8> {
        let payload = encode(self);
        let length = u32::try_from(payload.len()).expect("a record of one container is shorter than 4 GiB");
        let mut bytes = [MAGIC.as_slice(), &[IMAGE_VERSION], &length.to_le_bytes(), &payload].concat();
        let checksum = xxh3_64_with_seed(&bytes, seed);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The record at the start of these bytes, and what is behind it.
    fn decode_first(bytes: &[u8], seed: u64) -> Option<(Self, &[u8])> {
        let head = bytes.get(..HEAD)?;
        let rest = head.strip_prefix(MAGIC)?;
        let (version, length) = rest.split_first()?;
        let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
        if *version != IMAGE_VERSION || length > LONGEST {
            return None;
        }
        let (covered, rest) = bytes.split_at_checked(HEAD + length)?;
        let (checksum, rest) = rest.split_at_checked(CHECKSUM)?;
        if xxh3_64_with_seed(covered, seed).to_le_bytes() != checksum {
            return None;
        }
        match postcard::take_from_bytes(covered.get(HEAD..)?) {
            Ok((record, [])) => Some((record, rest)),
            _ => None,
        }
    }
}

fn replay_records(bytes: &[u8], seed: u64) -> Replayed {
    let (mut images, mut rest, mut whole) = (BTreeMap::new(), bytes, true);
    let mut replayed = Replayed::default();
    if let Some((JournalRecord::Boot(boot), after)) = JournalRecord::decode_first(rest, ANY_BOOT) {
        if boot != seed {
            return replayed;
        }
        rest = after;
    }
    while !rest.is_empty() {
        if let Some((record, after)) = JournalRecord::decode_first(rest, seed) {
            match record {
                JournalRecord::Put(image) => drop(images.insert(image.allocation, *image)),
                JournalRecord::Forget(allocation) => drop(images.remove(&allocation)),
                JournalRecord::Boot(_) => {}
            }
            (rest, whole) = (after, true);
            continue;
        }
        // The next record begins with the next magic, wherever that is.
        replayed.damaged += usize::from(std::mem::replace(&mut whole, false));
        let next = rest.get(1..).and_then(|rest| memchr::memmem::find(rest, MAGIC)).map(|at| at + 1);
        let next = next.unwrap_or(rest.len());
        replayed.damaged_bytes += next;
        rest = rest.get(next..).unwrap_or_default();
    }
    Replayed { images: images.into_values().collect(), ..replayed }
}

#[cfg(test)]
mod tests;
