//! What others are told of names.

use serde::{Deserialize, Serialize};

use crate::render::prometheus::{Name, SeriesIdentity, Spelled};

/// One change of the table, for another process or for the disk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NameChange {
    /// Whose name it is: the identity of a workload.
    pub workload: SeriesIdentity,
    pub name: Name,
    /// What became of it.
    pub now: NameState,
}

/// What became of a name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum NameState {
    /// It came, and is spelled so; where it has a mark, because of another.
    Known(Spelled, Option<Name>),
    Forgotten,
}

/// Changes after a place, or everything where some of them are gone.
#[derive(Debug, Default)]
pub struct NameChanges {
    /// Whether what was known before is void.
    pub whole: bool,
    /// In order.
    pub changes: Vec<NameChange>,
    /// The place after them.
    pub next: u64,
}

/// Two names that would have been one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meeting {
    /// The labels of the workload.
    pub workload: SeriesIdentity,
    /// The name with a mark, and what it is called.
    pub marked: Name,
    /// What it is called on a page that is not in UTF-8; in one that is, where only there they meet.
    pub shown: String,
    /// The name that was there first.
    pub first: Option<Name>,
}
