//! Which records are gone, and of which containers: a reader has missed something only where one of its containers has
//! lost it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::Origin;

/// Forgotten containers that are told apart. A container beyond them counts as one that every reader has lost.
const MOST: usize = 4096;

/// A forgotten container, and the last place of its records.
type Forgotten = (u64, Arc<Origin>);

/// The last places whose records are gone, beyond what each container's history knows of its own. Cheap to clone.
#[derive(Clone, Default, Debug)]
pub(super) struct Losses {
    /// Of any container.
    last: u64,
    /// Of forgotten containers that are not told apart any more.
    untold: u64,
    /// Of forgotten containers, in the order they were forgotten.
    forgotten: Arc<VecDeque<Forgotten>>,
    /// Containers that were ever added to these.
    added: u64,
}

/// What has changed in losses, for another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LossChanges {
    last: u64,
    untold: u64,
    /// Containers that were forgotten since, as far as they are told apart.
    forgotten: Vec<Forgotten>,
}

impl Losses {
    /// A container that is here has lost records up to a place; its history knows, too.
    pub(super) fn record_loss(&mut self, place: u64) {
        self.last = self.last.max(place);
    }

    /// A container is forgotten, and with it records up to a place.
    pub(super) fn forget_container(&mut self, origin: &Arc<Origin>, place: u64) {
        if place == 0 {
            return;
        }
        self.record_loss(place);
        self.add((place, Arc::clone(origin)));
    }

    fn add(&mut self, new: Forgotten) {
        self.added += 1;
        let forgotten = Arc::make_mut(&mut self.forgotten);
        forgotten.push_back(new);
        if forgotten.len() > MOST
            && let Some((place, _)) = forgotten.pop_front()
        {
            self.untold = self.untold.max(place);
        }
    }

    /// What has changed since another process was told the first `told` of all containers that were ever added, which are counted in
    /// `told` from then on.
    pub(super) fn changes_since(&self, told: &mut u64) -> LossChanges {
        let new = usize::try_from(self.added.saturating_sub(*told)).unwrap_or(usize::MAX);
        let known = self.forgotten.len().saturating_sub(new);
        *told = self.added;
        let forgotten = self.forgotten.range(known..).cloned().collect();
        LossChanges { last: self.last, untold: self.untold, forgotten }
    }

    /// Takes in what has changed in another process.
    pub(super) fn apply_changes(&mut self, changes: LossChanges) {
        changes.forgotten.into_iter().for_each(|forgotten| self.add(forgotten));
        (self.last, self.untold) = (changes.last, changes.untold);
    }

    /// The last place that any container has lost.
    pub(super) fn last_lost_seq(&self) -> u64 {
        self.last
    }

    /// The last place that one of these has lost and that is in no history.
    pub(super) fn of_forgotten(&self, wanted: impl Fn(&Origin) -> bool) -> u64 {
        let wanted = self.forgotten.iter().filter(|(_, origin)| wanted(origin));
        wanted.map(|(place, _)| *place).fold(self.untold, u64::max)
    }
}
