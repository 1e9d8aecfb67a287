//! Names as they are copied under the store's lock: pointers, which are dereferenced after the lock is released.

use std::collections::HashMap;
use std::sync::Arc;

use super::workload::NameClaim;
use super::{NameChange, NameChanges, NameState};
use crate::render::prometheus::{Name, SeriesIdentity};

/// The names of a workload. A writer copies them if a reader still holds them.
pub(super) type Claims = Arc<HashMap<Name, NameClaim>>;

/// How names have changed since a position in the sequence of changes.
#[derive(Debug)]
pub(in crate::store) struct TakenNames {
    pub(super) what: TakenContents,
    /// The position after the last of them.
    pub(super) next: u64,
}

#[derive(Debug)]
pub(super) enum TakenContents {
    /// The changes, in order.
    Changes(Vec<Arc<NameChange>>),
    /// Every name, by workload.
    Whole(Vec<(SeriesIdentity, Claims)>),
}

impl TakenNames {
    /// The position after these changes.
    pub(in crate::store) fn next(&self) -> u64 {
        self.next
    }

    /// Copies what the pointers refer to.
    pub(in crate::store) fn into_changes(self) -> NameChanges {
        let (whole, changes) = match self.what {
            TakenContents::Changes(changes) => {
                (false, changes.iter().map(|change| NameChange::clone(change)).collect())
            }
            TakenContents::Whole(workloads) => (true, workloads.iter().flat_map(known_changes).collect()),
        };
        NameChanges { whole, changes, next: self.next }
    }
}

fn known_changes((workload, claims): &(SeriesIdentity, Claims)) -> impl Iterator<Item = NameChange> {
    claims.iter().map(|(name, claim)| {
        let now = NameState::Known(claim.spelled, claim.first.clone());
        NameChange { workload: workload.clone(), name: name.clone(), now }
    })
}
