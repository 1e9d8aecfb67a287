//! Reservations: a container gets its address before it starts.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Entry, Table};
use crate::containers::Reserved;
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::ReserveError;
use crate::containers::process::Candidate;
use crate::containers::reservation::{Dialect, Network, Reservation, Ttl};
use crate::containers::socket::Site;
use crate::containers::state::{Guarded, Place, State};
use crate::model::{Allocation, ContainerId, Generation, Origin};
use crate::net::clock;

impl Table {
    pub(super) async fn reserve(&mut self, reservation: Reservation) -> Result<Reserved, ReserveError> {
        if let Some(reason) = reservation.opted_out() {
            return Err(ReserveError::OptedOut { reason });
        }
        self.bury(&reservation.container_id);
        if let Some(info) = self.living(&reservation.container_id) {
            return same(&info, &reservation).map(|()| Reserved { info, new: false });
        }
        if self.ending {
            return Err(ReserveError::Ending);
        }
        if self.live.len() >= self.settings.containers {
            return Err(ReserveError::Full { limit: self.settings.containers });
        }
        let mut site = Site::of(&reservation)?;
        let mut process = None;
        if let Some(pid) = reservation.pid {
            let (settled, pid, watched) = self.settle(site, Candidate::find(pid)?)?;
            (site, process) = (settled, Some((pid, watched)));
        }
        let mut info = self.new_info(&reservation, &site);
        if let Err(error) = self.place(&mut info, &reservation, site).await {
            info.unix.iter().for_each(|unix| self.give_back_unix(unix));
            return Err(error);
        }
        let allocation = info.allocation;
        let deadline = match &process {
            Some((pid, _)) => {
                (info.pid, info.attached) = (Some(*pid), true);
                self.protect(&mut info);
                None
            }
            None => self.expiry(&reservation),
        };
        let info = Arc::new(info);
        self.live.insert(reservation.container_id.clone(), allocation);
        let since_boot = clock::since_boot();
        let entry = Entry { info: Arc::clone(&info), deadline, since_boot, process: None, watch: None };
        self.entries.insert(allocation, entry);
        self.directory.put(&info);
        let info = match process {
            Some((_, watched)) => self.watch(allocation, watched).await.unwrap_or(info),
            None => info,
        };
        let (container, task) = (&info.origin.container_id, &info.origin.task_id);
        tracing::info!(%container, %task, generation = info.origin.generation.0, address = info.address.map(|address| address.to_string()), "reserved");
        Ok(Reserved { info, new: true })
    }

    /// What is known of a container before it has a socket.
    pub(super) fn new_info(&mut self, reservation: &Reservation, site: &Site) -> ContainerInfo {
        let mut labels = reservation.origin_labels();
        labels.extend(self.settings.node_labels.clone());
        let origin = Arc::new(Origin {
            container_id: reservation.container_id.clone(),
            generation: self.next_generation(&reservation.container_id),
            task_id: reservation.task(),
            labels,
        });
        let allocation = Allocation(self.next);
        self.next += 1;
        ContainerInfo {
            allocation,
            origin,
            alias: reservation.alias(),
            state: State::Reserved,
            attached: false,
            pid: None,
            address: None,
            unix: None,
            network: reservation.network.clone(),
            place: site.place(),
            guarded: Guarded::Off,
            gauge_sign: reservation.signs(self.settings.gauge_sign),
            timer_unit: reservation.times(self.settings.timer_unit),
            details: reservation.details.clone(),
            reason: None,
            warnings: Vec::new(),
            receive_buffer: 0,
            reserved_at: clock::wall(),
            finished_at: None,
            last: None,
        }
    }

    fn next_generation(&self, id: &ContainerId) -> Generation {
        self.directory
            .container(id)
            .map_or(Generation(1), |last| Generation(last.origin.generation.0.saturating_add(1)))
    }

    fn expiry(&self, reservation: &Reservation) -> Option<Instant> {
        match (reservation.ttl, reservation.dialect) {
            (Ttl::Never, _) | (Ttl::Default, Dialect::Dcos) => None,
            (Ttl::After(ttl), _) => Some(Instant::now() + ttl),
            (Ttl::Default, Dialect::V1) => Some(Instant::now() + self.settings.reservation_ttl),
        }
    }
}

/// Whether a repeated reservation is for the container that is here.
fn same(info: &ContainerInfo, reservation: &Reservation) -> Result<(), ReserveError> {
    // The isolator repeats itself after its own restarts, with nothing but the id.
    if reservation.dialect == Dialect::Dcos {
        return Ok(());
    }
    // It is the namespace that counts, by whatever path it was named.
    let place = Site::of(reservation)?.place();
    let unborn = place == Place::Unborn && info.network == Network::New;
    let differs = [
        ("task", info.origin.task_id != reservation.task()),
        ("network", place != info.place && !unborn),
        // The NRI plugin is told of no bundle; what it reserved is the wrapper's container all the same.
        ("bundle", another(info.details.bundle.as_ref(), reservation.details.bundle.as_ref())),
    ];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((what, _)) => Err(ReserveError::Conflict { id: reservation.container_id.clone(), what }),
        None => Ok(()),
    }
}

/// Whether both say what it is, and not the same.
fn another<T: PartialEq>(is: Option<&T>, said: Option<&T>) -> bool {
    is.zip(said).is_some_and(|(is, said)| is != said)
}
