//! A container of the table as it is written down: for the next life of the agent, and for the process that takes over.

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

/// The version of images that are written, and the only one that is read.
pub const IMAGE_VERSION: u8 = 2;

/// Everything that is needed to have a container back, or to see that it is gone.
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
    /// Bundle, sandbox, uid of the pod, handler, image: absent keys are no values in JSON, and would be nothing at all here.
    pub(super) details: [Option<String>; 5],
    /// Whether it stands for a pod of which a container was found without an address.
    pub(super) adopted: bool,
    pub(super) reason: Option<String>,
    pub(super) warnings: Vec<String>,
    pub(super) receive_buffer: usize,
    pub(super) reserved_at: Timestamp,
    /// The same as the kernel counts the start of processes.
    pub(super) since_boot: Duration,
    /// When the reservation expires, or the tombstone goes.
    pub(super) deadline: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    /// What it had sent when it ended.
    pub(super) accounting: Option<Accounting>,
}

/// By what a process is known again.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessFingerprint {
    /// When it started, in the kernel's ticks since boot.
    pub start_ticks: u64,
    /// Its cgroup of version 2, where the kernel says.
    pub cgroup: Option<u64>,
}

impl ContainerSnapshot {
    /// The number of the container; not that of any other that is written down.
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

    /// What is shown of it. Whether it is guarded has to be found out.
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

    /// The same container, once it is seen to have ended.
    pub(super) fn into_gone(mut self, now: Timestamp, deadline: Timestamp) -> Self {
        self.state = LifecycleState::Gone;
        self.finished_at = self.finished_at.or(Some(now));
        self.deadline = self.deadline.filter(|_| self.accounting.is_some()).or(Some(deadline));
        self
    }

    /// What it is called beside its siblings.
    pub(super) fn name(&self) -> &str {
        let labelled = self.origin.labels.get(NAME_LABEL).map(String::as_str);
        labelled.unwrap_or(self.origin.container_id.as_str())
    }
}
