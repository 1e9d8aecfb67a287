//! Containers of an earlier life of the agent of which only windows came back.

use std::sync::Arc;

use tokio::time::Instant;

use super::{ContainerEntry, ContainerTable};
use crate::aggregate::{Accounting, GaugeSign, TimerUnit};
use crate::containers::directory::ContainerInfo;
use crate::containers::reservation::{ContainerNetwork, Details};
use crate::containers::state::{Guarded, LifecycleState, SocketNamespace};
use crate::model::{Allocation, Origin, TaskId, Timestamp};
use crate::net::clock;
use crate::shard::ContainerStats;

/// A container that has ended, and whose windows are in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FinishedContainer {
    /// Its number; not that of any other.
    pub allocation: Allocation,
    /// Where its samples came from.
    pub origin: Arc<Origin>,
    /// Another name by which its task can be read.
    pub alias: Option<TaskId>,
    /// When it came.
    pub opened: Timestamp,
    /// When it had ended.
    pub finished_at: Timestamp,
}

impl ContainerTable {
    /// Shows containers that have ended, until their tombstones go.
    pub fn show_finished(&mut self, finished: Vec<FinishedContainer>) {
        let now = clock::wall_time();
        for container in finished {
            self.next = self.next.max(container.allocation.0.saturating_add(1));
            let left = self.settings.tombstone.saturating_sub(now.duration_since(container.finished_at));
            let info = Arc::new(container.into_info());
            self.directory.upsert_container(&info);
            let entry = ContainerEntry {
                info: Arc::clone(&info),
                deadline: Some(Instant::now() + left),
                since_boot: clock::since_boot(),
                process: None,
                watch: None,
            };
            self.entries.insert(info.allocation, entry);
        }
    }
}

impl FinishedContainer {
    /// What is shown of it. Its counts went with the agent that counted.
    fn into_info(self) -> ContainerInfo {
        let last = ContainerStats::of_ended(self.allocation, Accounting::default());
        ContainerInfo {
            allocation: self.allocation,
            origin: self.origin,
            alias: self.alias,
            state: LifecycleState::Gone,
            attached: false,
            pid: None,
            address: None,
            unix: None,
            network: ContainerNetwork::Host,
            place: SocketNamespace::Shared,
            guarded: Guarded::Off,
            gauge_sign: GaugeSign::default(),
            timer_unit: TimerUnit::default(),
            details: Details::default(),
            reason: None,
            warnings: Vec::new(),
            receive_buffer: 0,
            reserved_at: self.opened,
            finished_at: Some(self.finished_at),
            last: Some(Arc::new(last)),
        }
    }
}
