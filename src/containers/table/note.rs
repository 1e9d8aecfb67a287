//! Containers that run without a socket: shown and counted, never silent.

use std::sync::Arc;

use super::{Entry, Table};
use crate::containers::socket::Site;
use crate::containers::{Reservation, ReserveError, Reserved, Unserved};
use crate::net::clock;

impl Table {
    /// Takes a running container in, without a socket, and the reason for that.
    pub(super) async fn note(
        &mut self,
        reservation: &Reservation,
        why: Unserved,
        reason: String,
    ) -> Result<Reserved, ReserveError> {
        self.bury(&reservation.container_id);
        if let Some(info) = self.living(&reservation.container_id) {
            return Ok(Reserved { info, new: false });
        }
        if self.ending {
            return Err(ReserveError::Ending);
        }
        if self.live.len() >= self.settings.containers {
            return Err(ReserveError::Full { limit: self.settings.containers });
        }
        // A network that cannot be found is no reason to be silent about who runs there.
        let site = Site::of(reservation).unwrap_or(Site::Unborn);
        let mut info = self.new_info(reservation, &site);
        info.state = why.state();
        info.reason = Some(reason);
        if why == Unserved::Mute {
            info.warnings.extend(self.adopt(reservation, site).await);
        }
        let allocation = info.allocation;
        let info = Arc::new(info);
        self.live.insert(reservation.container_id.clone(), allocation);
        let since_boot = clock::since_boot();
        let entry = Entry { info: Arc::clone(&info), deadline: None, since_boot, process: None, watch: None };
        self.entries.insert(allocation, entry);
        self.directory.put(&info);
        let (container, task) = (&info.origin.container_id, &info.origin.task_id);
        tracing::warn!(%container, %task, state = %info.state, reason = info.reason, "a running container has no socket");
        Ok(Reserved { info, new: true })
    }
}
