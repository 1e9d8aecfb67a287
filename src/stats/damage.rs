//! What could not be read at the start of the files that an earlier life of the agent has left.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A file of the state directory.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StateFile {
    /// The journal of containers.
    Journal,
    /// The number of the agent's life.
    Epoch,
}

impl StateFile {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Journal, Self::Epoch];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Epoch => "epoch",
        }
    }
}

/// What is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// Places at which it could not be read.
    pub places: usize,
    /// What is wrong, and what that costs.
    pub found: String,
}

/// The damaged files.
#[derive(Debug, Default)]
pub struct DamagedFiles(Mutex<BTreeMap<StateFile, Damaged>>);

impl DamagedFiles {
    /// Notes what was found.
    pub fn record_damage(&self, file: StateFile, damaged: Damaged) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(file, damaged);
    }

    /// What was found, by file.
    #[must_use]
    pub fn damage_by_file(&self) -> BTreeMap<StateFile, Damaged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
