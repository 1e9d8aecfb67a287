//! Names as they are taken from under the store's lock: pointers, which are followed when the lock is free again.

use std::collections::HashMap;
use std::sync::Arc;

use super::workload::NameClaim;
use super::{NameChange, NameChanges, NameState};
use crate::render::prometheus::{Name, SeriesIdentity};

/// The names of a workload. A writer copies them if a reader still has them.
pub(super) type Claims = Arc<HashMap<Name, NameClaim>>;

/// What has become of names after a place.
#[derive(Debug)]
pub(in crate::store) struct TakenNames {
    pub(super) what: What,
    /// The place after it.
    pub(super) next: u64,
}

#[derive(Debug)]
pub(super) enum What {
    /// In order.
    Changes(Vec<Arc<NameChange>>),
    /// Every name, by workload.
    Whole(Vec<(SeriesIdentity, Claims)>),
}

impl TakenNames {
    /// The place after these.
    pub(in crate::store) fn next(&self) -> u64 {
        self.next
    }

    /// The same as values.
    pub(in crate::store) fn into_changes(self) -> NameChanges {
        let (whole, changes) = match self.what {
            What::Changes(changes) => {
                (false, changes.iter().map(|change| NameChange::clone(change)).collect())
            }
            What::Whole(workloads) => (true, workloads.iter().flat_map(known_changes).collect()),
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
