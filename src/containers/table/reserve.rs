//! Reservations: a container gets its address before it starts.

use std::sync::Arc;

use tokio::time::Instant;

use super::{ContainerEntry, ContainerTable};
use crate::containers::ReservedContainer;
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::ReserveError;
use crate::containers::process::Candidate;
use crate::containers::reservation::{ContainerNetwork, Dialect, Reservation, Ttl};
use crate::containers::socket::Site;
use crate::containers::state::{Guarded, LifecycleState, SocketNamespace};
use crate::model::{Allocation, ContainerId, Generation, Origin};
use crate::net::clock;

impl ContainerTable {
    pub(super) async fn reserve_container(
        &mut self,
        reservation: Reservation,
    ) -> Result<ReservedContainer, ReserveError> {
        if let Some(reason) = reservation.opt_out_reason() {
            return Err(ReserveError::OptedOut { reason });
        }
        self.drain_if_ended(&reservation.container_id);
        if let Some(info) = self.find_live_container(&reservation.container_id) {
            return check_same_container(&info, &reservation)
                .map(|()| ReservedContainer { info, new: false });
        }
        if self.ending {
            return Err(ReserveError::Ending);
        }
        if self.live.len() >= self.settings.containers {
            return Err(ReserveError::Full { limit: self.settings.containers });
        }
        let mut site = Site::from_reservation(&reservation)?;
        let mut process = None;
        if let Some(pid) = reservation.pid {
            let (settled, pid, watched) = self.validate_candidate(site, Candidate::find(pid)?)?;
            (site, process) = (settled, Some((pid, watched)));
        }
        let mut info = self.new_info(&reservation, &site);
        if let Err(error) = self.assign_address(&mut info, &reservation, site).await {
            info.unix.iter().for_each(|unix| self.give_back_unix(unix));
            return Err(error);
        }
        let allocation = info.allocation;
        let deadline = match &process {
            Some((pid, _)) => {
                (info.pid, info.attached) = (Some(*pid), true);
                self.guard_listener(&mut info);
                None
            }
            None => self.reservation_deadline(&reservation),
        };
        let info = Arc::new(info);
        self.live.insert(reservation.container_id.clone(), allocation);
        let since_boot = clock::since_boot();
        let entry =
            ContainerEntry { info: Arc::clone(&info), deadline, since_boot, process: None, watch: None };
        self.entries.insert(allocation, entry);
        self.directory.upsert_container(&info);
        let info = match process {
            Some((_, watched)) => self.watch_process(allocation, watched).await.unwrap_or(info),
            None => info,
        };
        let (container, task) = (&info.origin.container_id, &info.origin.task_id);
        tracing::info!(%container, %task, generation = info.origin.generation.0, address = info.address.map(|address| address.to_string()), "reserved");
        Ok(ReservedContainer { info, new: true })
    }

    /// The information about a container before it has a socket.
    pub(super) fn new_info(&mut self, reservation: &Reservation, site: &Site) -> ContainerInfo {
        let mut labels = reservation.origin_labels();
        labels.extend(self.settings.node_labels.clone());
        let origin = Arc::new(Origin {
            container_id: reservation.container_id.clone(),
            generation: self.next_generation(&reservation.container_id),
            task_id: reservation.effective_task_id(),
            labels,
        });
        let allocation = Allocation(self.next);
        self.next += 1;
        ContainerInfo {
            allocation,
            origin,
            alias: reservation.task_alias(),
            state: LifecycleState::Reserved,
            attached: false,
            pid: None,
            address: None,
            unix: None,
            network: reservation.network.clone(),
            place: site.socket_namespace(),
            guarded: Guarded::Off,
            gauge_sign: reservation.gauge_sign_or(self.settings.gauge_sign),
            timer_unit: reservation.timer_unit_or(self.settings.timer_unit),
            details: reservation.details.clone(),
            reason: None,
            warnings: Vec::new(),
            receive_buffer: 0,
            reserved_at: clock::wall_time(),
            finished_at: None,
            last: None,
        }
    }

    fn next_generation(&self, id: &ContainerId) -> Generation {
        self.directory
            .find_container(id)
            .map_or(Generation(1), |last| Generation(last.origin.generation.0.saturating_add(1)))
    }

    fn reservation_deadline(&self, reservation: &Reservation) -> Option<Instant> {
        match (reservation.ttl, reservation.dialect) {
            (Ttl::Never, _) | (Ttl::Default, Dialect::Dcos) => None,
            (Ttl::After(ttl), _) => Some(Instant::now() + ttl),
            (Ttl::Default, Dialect::V1) => Some(Instant::now() + self.settings.reservation_ttl),
        }
    }
}

/// Checks that a repeated reservation is for the existing container.
fn check_same_container(info: &ContainerInfo, reservation: &Reservation) -> Result<(), ReserveError> {
    // The isolator repeats its calls after its own restarts, with nothing but the id.
    if reservation.dialect == Dialect::Dcos {
        return Ok(());
    }
    // Only the namespace matters, not the path by which it was given.
    let place = Site::from_reservation(reservation)?.socket_namespace();
    let unborn = place == SocketNamespace::Unborn && info.network == ContainerNetwork::New;
    let differs = [
        ("task", info.origin.task_id != reservation.effective_task_id()),
        ("network", place != info.place && !unborn),
        // The NRI plugin does not learn the bundle, but what it reserved is the same container as the wrapper's.
        ("bundle", values_conflict(info.details.bundle.as_ref(), reservation.details.bundle.as_ref())),
    ];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((what, _)) => Err(ReserveError::Conflict { id: reservation.container_id.clone(), what }),
        None => Ok(()),
    }
}

/// Whether both values are known and differ.
fn values_conflict<T: PartialEq>(is: Option<&T>, said: Option<&T>) -> bool {
    is.zip(said).is_some_and(|(is, said)| is != said)
}
