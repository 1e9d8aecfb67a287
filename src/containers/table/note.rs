//! Containers that run without a socket: shown and counted, never silent.

use std::sync::Arc;

use super::{ContainerEntry, ContainerTable};
use crate::containers::socket::Site;
use crate::containers::{Reservation, ReserveError, ReservedContainer, Unserved};
use crate::net::clock;

impl ContainerTable {
    /// Takes a running container in, without a socket, and the reason for that.
    pub(super) async fn register_unserved(
        &mut self,
        reservation: &Reservation,
        why: Unserved,
        reason: String,
    ) -> Result<ReservedContainer, ReserveError> {
        self.drain_if_ended(&reservation.container_id);
        if let Some(info) = self.find_live_container(&reservation.container_id) {
            return Ok(ReservedContainer { info, new: false });
        }
        if self.ending {
            return Err(ReserveError::Ending);
        }
        if self.live.len() >= self.settings.containers {
            return Err(ReserveError::Full { limit: self.settings.containers });
        }
        // A network that cannot be found is no reason to be silent about who runs there.
        let site = Site::from_reservation(reservation).unwrap_or(Site::Unborn);
        let mut info = self.new_info(reservation, &site);
        info.state = why.to_state();
        info.reason = Some(reason);
        if why == Unserved::Mute {
            info.warnings.extend(self.adopt_pod(reservation, site).await);
        }
        let allocation = info.allocation;
        let info = Arc::new(info);
        self.live.insert(reservation.container_id.clone(), allocation);
        let since_boot = clock::since_boot();
        let entry = ContainerEntry {
            info: Arc::clone(&info),
            deadline: None,
            since_boot,
            process: None,
            watch: None,
        };
        self.entries.insert(allocation, entry);
        self.directory.upsert_container(&info);
        let (container, task) = (&info.origin.container_id, &info.origin.task_id);
        tracing::warn!(%container, %task, state = %info.state, reason = info.reason, "a running container has no socket");
        Ok(ReservedContainer { info, new: true })
    }
}
