//! The container table on disk, so that the next agent can restore addresses after a crash.
//!
//! ```text
//! journal = boot record*
//! boot    = a record with the boot id of the records that follow; its checksum is not seeded
//! record  = a frame of `wal`, with the mark "TPJ" and a version
//! ```
//!
//! Every change is a record, appended before the request for it is answered. What is written outlives the process at once,
//! and need not outlive the machine: with it, all containers end. So the checksum is seeded with the boot, and records of
//! another boot mean nothing. When most of the file is out of date, a new one is written beside it, synced, and put in its
//! place. A record that is damaged is skipped, wherever it is, and reported: its container is not taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::image::{ContainerSnapshot, IMAGE_VERSION};
use crate::files;
use crate::model::{Allocation, ContainerId};
use crate::wal::{ChecksumPlace, FormatError, FrameFormat, NextFrame, decode, encode_after};

/// The name of the file.
pub const JOURNAL: &str = "containers.journal";
/// How records lie in the file. Labels are bounded by the requests they come with, at a megabyte, so records are far shorter than
/// the limit.
const FORMAT: FrameFormat = FrameFormat {
    mark: &[b'T', b'P', b'J', IMAGE_VERSION],
    checksum: ChecksumPlace::AfterPayload,
    longest: 4 << 20,
};
/// A smaller file is not written anew.
const MIN_REWRITTEN_BYTES: u64 = 256 << 10;
/// The seed of the record with the boot id.
const ANY_BOOT: u64 = 0;

#[derive(Serialize, Deserialize)]
enum JournalRecord {
    Put(Box<ContainerSnapshot>),
    Forget(Allocation),
    /// The records that follow are of this boot.
    Boot(u64),
}

/// The contents of a journal.
#[derive(Debug, Default)]
pub struct Replayed {
    /// The containers, in order of allocation.
    pub images: Vec<ContainerSnapshot>,
    /// Number of damaged places.
    pub damaged: usize,
    /// Bytes in damaged places.
    pub damaged_bytes: usize,
}

/// Whether the journal can be written, for the pages and commands that show it.
#[derive(Clone, Debug, Default)]
pub struct JournalHealth(Arc<Mutex<JournalFaults>>);

#[derive(Debug, Default)]
struct JournalFaults {
    /// Why the file could not be written; `None` once it could.
    write_error: Option<String>,
    /// Why a record was refused; `None` once none is.
    refusal: Option<String>,
    failures: u64,
}

impl JournalHealth {
    /// Why it cannot be written; `None` if it can.
    #[must_use]
    pub fn write_error(&self) -> Option<String> {
        let faults = self.lock_faults();
        faults.write_error.as_ref().or(faults.refusal.as_ref()).cloned()
    }

    /// How often writing failed.
    #[must_use]
    pub fn failure_count(&self) -> u64 {
        self.lock_faults().failures
    }

    fn lock_faults(&self) -> MutexGuard<'_, JournalFaults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs the first failure since a success, not each: every change of a container is written.
    fn record_failure(&self, error: &io::Error) {
        let mut faults = self.lock_faults();
        faults.failures += 1;
        if faults.write_error.replace(error.to_string()).is_none() {
            tracing::error!(%error, "cannot write the journal; containers would be lost with this agent");
        }
    }

    /// `known` says that the container's record was refused before, which is logged once.
    fn record_refusal(&self, refused: &RefusedRecord, known: bool) {
        let mut faults = self.lock_faults();
        faults.failures += 1;
        faults.refusal = Some(refused.to_string());
        if !known {
            tracing::error!(error = %refused, "a record is too long for the journal; the container would be lost with this agent. Give it fewer or shorter labels");
        }
    }

    /// The file was written. `complete` says that no record was refused.
    fn record_success(&self, complete: bool) {
        let mut faults = self.lock_faults();
        let written = faults.write_error.take().is_some();
        let accepted = complete && faults.refusal.take().is_some();
        if (written || accepted) && faults.refusal.is_none() {
            tracing::info!("the journal can be written again");
        }
    }
}

/// A record that is not written, because it could not be read back.
#[derive(Debug, thiserror::Error)]
#[error("the record of container {container}: {why}")]
struct RefusedRecord {
    container: ContainerId,
    why: FormatError,
}

/// The journal of a container table.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    seed: u64,
    /// `None` if it must be rewritten.
    file: Option<File>,
    written: u64,
    /// Its size after the last rewrite, in bytes.
    live: u64,
    /// Containers of which the file does not say how they are now, because that is too long.
    refused: BTreeSet<Allocation>,
    format: FrameFormat,
    health: JournalHealth,
}

impl Journal {
    /// Reads the journal in a directory. It is written with the first `Journal::rewrite_images`.
    ///
    /// # Errors
    /// When it exists and cannot be read.
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

    /// The journal in a directory, without reading it: the containers are known. It is written with the first
    /// `Journal::rewrite_images`.
    #[must_use]
    pub fn new(directory: &Path, health: JournalHealth) -> Self {
        Self {
            path: directory.join(JOURNAL),
            seed: boot_seed(),
            file: None,
            written: 0,
            live: 0,
            refused: BTreeSet::new(),
            format: FORMAT,
            health,
        }
    }

    /// Whether it must be rewritten: most of it is out of date, or a write failed.
    pub(super) fn is_stale(&self) -> bool {
        self.file.is_none() || self.written > MIN_REWRITTEN_BYTES.max(4 * self.live)
    }

    /// Appends a change of a container: its snapshot, or `None` if it was forgotten.
    pub(super) fn append_change(&mut self, allocation: Allocation, image: Option<ContainerSnapshot>) {
        if self.file.is_none() {
            return;
        }
        let mut bytes = Vec::new();
        let known = self.refused.contains(&allocation);
        match image {
            Some(image) => self.put_image(image, known, &mut bytes),
            None => self.put_forgotten(allocation, &mut bytes),
        }
        let Some(file) = &mut self.file else { return };
        match file.write_all(&bytes) {
            Ok(()) => {
                self.written += bytes.len() as u64;
                self.health.record_success(self.refused.is_empty());
            }
            Err(error) => {
                self.health.record_failure(&error);
                self.file = None;
            }
        }
    }

    /// Rewrites it atomically.
    pub(super) fn rewrite_images(&mut self, images: impl Iterator<Item = ContainerSnapshot>) {
        let mut bytes = Vec::new();
        let known = std::mem::take(&mut self.refused);
        // It is a few bytes long, so it is never refused.
        let _always_fits = JournalRecord::Boot(self.seed).put(self.format, ANY_BOOT, &mut bytes);
        images.for_each(|image| {
            let known = known.contains(&image.allocation);
            self.put_image(image, known, &mut bytes);
        });
        match self.replace_file(&bytes) {
            Ok(file) => {
                self.file = Some(file);
                (self.written, self.live) = (bytes.len() as u64, bytes.len() as u64);
                self.health.record_success(self.refused.is_empty());
            }
            Err(error) => self.health.record_failure(&error),
        }
    }

    /// Adds a container's record. One that is too long is left out and reported: the journal keeps the
    /// previous record until it is rewritten, and continues with the other containers. `known` says that it was refused before.
    fn put_image(&mut self, image: ContainerSnapshot, known: bool, bytes: &mut Vec<u8>) {
        let (allocation, container) = (image.allocation, image.origin.container_id.clone());
        match JournalRecord::Put(Box::new(image)).put(self.format, self.seed, bytes) {
            Ok(_) => {
                self.refused.remove(&allocation);
            }
            Err(why) => {
                self.refused.insert(allocation);
                self.health.record_refusal(&RefusedRecord { container, why }, known);
            }
        }
    }

    fn put_forgotten(&mut self, allocation: Allocation, bytes: &mut Vec<u8>) {
        self.refused.remove(&allocation);
        // As for the boot.
        let _always_fits = JournalRecord::Forget(allocation).put(self.format, self.seed, bytes);
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

/// A hash that identifies this boot of the machine.
fn boot_seed() -> u64 {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    xxh3_64(&boot)
}

impl JournalRecord {
    /// Appends the record.
    ///
    /// # Errors
    /// When it is too long to be read back. Nothing is appended then.
    fn put(&self, format: FrameFormat, seed: u64, out: &mut Vec<u8>) -> Result<usize, FormatError> {
        format.append_frame(out, seed, |out| *out = encode_after(std::mem::take(out), self))
    }
}

fn replay_records(bytes: &[u8], seed: u64) -> Replayed {
    let (mut images, mut rest) = (BTreeMap::new(), bytes);
    let mut replayed = Replayed::default();
    if let Some((payload, after)) = FORMAT.split_frame(bytes, ANY_BOOT)
        && let Some(JournalRecord::Boot(boot)) = decode(payload)
    {
        if boot != seed {
            return replayed;
        }
        rest = after;
    }
    // Damage side by side is one place, whether the frame or what is in it cannot be read.
    let mut whole = true;
    let mut add_damage = |length, whole: &mut bool| {
        replayed.damaged += usize::from(std::mem::replace(whole, false));
        replayed.damaged_bytes += length;
    };
    for next in FORMAT.iter_frames(rest, seed) {
        let payload = match next {
            NextFrame::Payload(payload) => payload,
            NextFrame::Damaged(range) => {
                add_damage(range.len(), &mut whole);
                continue;
            }
        };
        match decode(payload) {
            Some(JournalRecord::Put(image)) => drop(images.insert(image.allocation, *image)),
            Some(JournalRecord::Forget(allocation)) => drop(images.remove(&allocation)),
            Some(JournalRecord::Boot(_)) => {}
            None => {
                add_damage(FORMAT.frame_length(payload.len()), &mut whole);
                continue;
            }
        }
        whole = true;
    }
    Replayed { images: images.into_values().collect(), ..replayed }
}

#[cfg(test)]
mod tests;
