//! Which records are gone, and of which containers: a reader has missed something only where one of its containers has
//! lost it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::Origin;

/// Forgotten containers that are told apart. Beyond it, what the oldest lost is taken to be everybody's loss.
const MOST: usize = 4096;

/// The last places whose records are gone, beyond what each container's history knows of its own. Cheap to clone.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(super) struct Losses {
    /// Of any container.
    last: u64,
    /// Of forgotten containers that are not told apart any more.
    untold: u64,
    /// Of forgotten containers, in the order they were forgotten.
    forgotten: Arc<VecDeque<(u64, Arc<Origin>)>>,
}

impl Losses {
    /// A container that is here has lost records up to a place; its history knows, too.
    pub(super) fn lose(&mut self, place: u64) {
        self.last = self.last.max(place);
    }

    /// A container is forgotten, and with it records up to a place.
    pub(super) fn forget(&mut self, origin: &Arc<Origin>, place: u64) {
        if place == 0 {
            return;
        }
        self.lose(place);
        let forgotten = Arc::make_mut(&mut self.forgotten);
        forgotten.push_back((place, Arc::clone(origin)));
        if forgotten.len() > MOST
            && let Some((place, _)) = forgotten.pop_front()
        {
            self.untold = self.untold.max(place);
        }
    }

    /// The last place that any container has lost.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The last place that one of these has lost and that is in no history.
    pub(super) fn of_forgotten(&self, wanted: impl Fn(&Origin) -> bool) -> u64 {
        let wanted = self.forgotten.iter().filter(|(_, origin)| wanted(origin));
        wanted.map(|(place, _)| *place).fold(self.untold, u64::max)
    }
}
