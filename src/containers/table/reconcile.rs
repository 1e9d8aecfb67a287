//! Comparing on demand what is known with what is alive, which is otherwise done as things happen and by and by.

use super::ContainerTable;
use crate::model::{Allocation, ContainerId};

/// What a comparison has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReconcileReport {
    /// Containers that were taken to live.
    pub checked: usize,
    /// Those whose processes have ended, which nobody had noticed.
    pub ended: Vec<ContainerId>,
    /// Those that were lost, and are back at their addresses.
    pub back: Vec<ContainerId>,
    /// Those that stay lost. Their warnings say why.
    pub lost: Vec<ContainerId>,
}

impl ContainerTable {
    /// Looks at the process of each container that lives, and tries at once to open again the addresses that are lost.
    pub(super) async fn reconcile_containers(&mut self) -> ReconcileReport {
        let mut found = ReconcileReport { checked: self.live.len(), ..ReconcileReport::default() };
        let has_ended = |allocation| {
            let process = self.entries.get(allocation).and_then(|entry| entry.process.as_ref());
            process.is_some_and(|process| process.has_ended())
        };
        let ended: Vec<_> =
            self.live.iter().filter(|(_, allocation)| has_ended(allocation)).map(|(_, one)| *one).collect();
        found.ended.extend(ended.iter().filter_map(|allocation| self.id_of(*allocation)));
        for allocation in ended {
            self.handle_process_end(allocation);
        }
        let back = self.try_lost().await;
        found.back.extend(back.into_iter().filter_map(|allocation| self.id_of(allocation)));
        found.lost.extend(self.lost.keys().filter_map(|allocation| self.id_of(*allocation)));
        self.look_over();
        for ids in [&mut found.ended, &mut found.back, &mut found.lost] {
            ids.sort_unstable();
        }
        found
    }

    fn id_of(&self, allocation: Allocation) -> Option<ContainerId> {
        self.entries.get(&allocation).map(|entry| entry.info.origin.container_id.clone())
    }
}
