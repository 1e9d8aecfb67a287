//! The encoding of a container for the journal and for hand-overs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::directory::ContainerInfo;
use super::reservation::{ContainerNetwork, Details, NAME_LABEL};
use super::state::{Guarded, LifecycleState, SocketNamespace};
use super::unix::ContainerUnixSocket;
use crate::aggregate::{Accounting, GaugeSign, TimerUnit};
use crate::model::{Allocation, Origin, TaskId, Timestamp};
use crate::shard::ContainerStats;

/// The version of the encoding; other versions are not read.
pub const IMAGE_VERSION: u8 = 2;

/// Everything that is needed to restore a container, or to detect that it has ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ContainerSnapshot {
    pub(super) allocation: Allocation,
    pub(super) origin: Arc<Origin>,
    pub(super) alias: Option<TaskId>,
    pub(super) state: LifecycleState,
    pub(super) attached: bool,
    pub(super) pid: Option<i32>,
    pub(super) identity: Option<ProcessFingerprint>,
    pub(super) address: Option<SocketAddr>,
    pub(super) unix: Option<ContainerUnixSocket>,
    pub(super) network: ContainerNetwork,
    pub(super) place: SocketNamespace,
    pub(super) gauge_sign: GaugeSign,
    pub(super) timer_unit: TimerUnit,
    /// Bundle, sandbox, uid of the pod, handler, image. An array, because skipped fields would break this encoding.
    pub(super) details: [Option<String>; 5],
    /// Whether it represents a pod with a container that was found without an address.
    pub(super) adopted: bool,
    pub(super) reason: Option<String>,
    pub(super) warnings: Vec<String>,
    pub(super) receive_buffer: usize,
    pub(super) reserved_at: Timestamp,
    /// The same as time since boot, comparable with the start of processes.
    pub(super) since_boot: Duration,
    /// When the reservation expires, or the tombstone goes.
    pub(super) deadline: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    /// Its counts when it ended.
    pub(super) accounting: Option<Accounting>,
}

/// Identifies a process across restarts of the agent.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessFingerprint {
    /// When it started, in the kernel's ticks since boot.
    pub start_ticks: u64,
    /// The id of its cgroup v2, if available.
    pub cgroup: Option<u64>,
}

impl ContainerSnapshot {
    /// The number of the container, unique among all that are written.
    #[must_use]
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// Where its samples come from.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn from_info(
        info: &ContainerInfo,
        identity: Option<ProcessFingerprint>,
        since_boot: Duration,
        deadline: Option<Timestamp>,
    ) -> Self {
        let Details { bundle, sandbox_id, pod_uid, runtime_handler, image, adopted } = info.details.clone();
        Self {
            allocation: info.allocation,
            origin: Arc::clone(&info.origin),
            alias: info.alias.clone(),
            state: info.state,
            attached: info.attached,
            pid: info.pid,
            identity,
            address: info.address,
            unix: info.unix.clone(),
            network: info.network.clone(),
            place: info.place,
            gauge_sign: info.gauge_sign,
            timer_unit: info.timer_unit,
            details: [bundle, sandbox_id, pod_uid, runtime_handler, image],
            adopted,
            reason: info.reason.clone(),
            warnings: info.warnings.clone(),
            receive_buffer: info.receive_buffer,
            reserved_at: info.reserved_at,
            since_boot,
            deadline,
            finished_at: info.finished_at,
            accounting: info.last.as_ref().map(|last| last.accounting.clone()),
        }
    }

    /// The container as readers see it. Whether it is guarded is determined later.
    pub(super) fn to_info(&self) -> ContainerInfo {
        let [bundle, sandbox_id, pod_uid, runtime_handler, image] = self.details.clone();
        let ended = self.state.is_finished();
        ContainerInfo {
            allocation: self.allocation,
            origin: Arc::clone(&self.origin),
            alias: self.alias.clone(),
            state: self.state,
            attached: self.attached,
            pid: self.pid,
            address: self.address,
            unix: self.unix.clone(),
            network: self.network.clone(),
            place: self.place,
            guarded: Guarded::Off,
            gauge_sign: self.gauge_sign,
            timer_unit: self.timer_unit,
            details: Details { bundle, sandbox_id, pod_uid, runtime_handler, image, adopted: self.adopted },
            reason: self.reason.clone(),
            warnings: self.warnings.clone(),
            receive_buffer: self.receive_buffer,
            reserved_at: self.reserved_at,
            finished_at: self.finished_at,
            last: ended.then(|| {
                let accounting = self.accounting.clone().unwrap_or_default();
                Arc::new(ContainerStats::of_ended(self.allocation, accounting))
            }),
        }
    }

    /// Marks the container as ended.
    pub(super) fn into_gone(mut self, now: Timestamp, deadline: Timestamp) -> Self {
        self.state = LifecycleState::Gone;
        self.finished_at = self.finished_at.or(Some(now));
        self.deadline = self.deadline.filter(|_| self.accounting.is_some()).or(Some(deadline));
        self
    }

    /// Its name among the containers of its pod.
    pub(super) fn name(&self) -> &str {
        let labelled = self.origin.labels.get(NAME_LABEL).map(String::as_str);
        labelled.unwrap_or(self.origin.container_id.as_str())
    }
}
