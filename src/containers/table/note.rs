//! Containers that run without a socket: shown and counted, never silent.

use std::sync::Arc;

use super::{Entry, Table};
use crate::containers::{ContainerInfo, Reservation, ReserveError, Reserved, Unserved};
use crate::model::{Allocation, Origin};
use crate::net::clock;

impl Table {
    /// Takes a running container in, without a socket.
    pub(super) fn note(
        &mut self,
        reservation: &Reservation,
        why: Unserved,
    ) -> Result<Reserved, ReserveError> {
        if let Some(info) = self.living(&reservation.container_id) {
            return Ok(Reserved { info, new: false });
        }
        if self.ending {
            return Err(ReserveError::Ending);
        }
        if self.live.len() >= self.settings.containers {
            return Err(ReserveError::Full { limit: self.settings.containers });
        }
        let allocation = Allocation(self.next);
        self.next += 1;
        let origin = Origin {
            container_id: reservation.container_id.clone(),
            generation: self.next_generation(&reservation.container_id),
            task_id: reservation.task(),
            labels: reservation.labels.clone(),
        };
        let info = Arc::new(ContainerInfo {
            allocation,
            origin: Arc::new(origin),
            alias: reservation.alias.clone(),
            state: why.state(),
            pid: None,
            address: None,
            network: reservation.network.clone(),
            gauge_sign: reservation.signs(self.settings.gauge_sign),
            details: reservation.details.clone(),
            warnings: Vec::new(),
            receive_buffer: 0,
            reserved_at: clock::wall(),
            finished_at: None,
            last: None,
            shard: None,
        });
        self.live.insert(reservation.container_id.clone(), allocation);
        self.entries.insert(allocation, Entry { info: Arc::clone(&info), deadline: None, watch: None });
        self.directory.put(&info);
        let (container, task) = (&info.origin.container_id, &info.origin.task_id);
        tracing::warn!(%container, %task, state = %info.state, "a running container has no socket");
        Ok(Reserved { info, new: true })
    }
}
