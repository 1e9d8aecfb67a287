//! The Unix sockets of containers: promised with the reservation, opened with the address, checked once the process is
//! known.

use std::path::Path;
use std::sync::Arc;

use super::ContainerTable;
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::ReserveError;
use crate::containers::reservation::Reservation;
use crate::containers::unix::{ContainerUnixSocket, Sockets, UnixWish};
use crate::model::Allocation;
use crate::net::process::Watched;
use crate::net::process_identity::ProcessIdentity;
use crate::net::unixgram::Unixgram;

impl ContainerTable {
    /// Makes the directory of a container that gets a Unix socket, so that it can be mounted.
    pub(super) fn promise_unix(
        &mut self,
        info: &mut ContainerInfo,
        reservation: &Reservation,
    ) -> Result<(), ReserveError> {
        let wish = match (&reservation.mounted, reservation.unix_wish()) {
            // It has the mount already, and knows of it whatever the settings say now.
            (Some(_), Some(UnixWish::Only)) => UnixWish::Only,
            (Some(_), _) => UnixWish::Beside,
            (None, wish) => self.settings.unix.resolve_wish(wish),
        };
        if wish == UnixWish::No {
            return Ok(());
        }
        let path = reservation.mounted.clone().unwrap_or_else(|| self.settings.unix.path.clone());
        let source = self.unix.container_directory(&reservation.container_id);
        let only = wish == UnixWish::Only;
        let made = match self.has_unix(&source) {
            // Another id whose name comes out the same; nobody has that by chance.
            true => Err(std::io::Error::other("another container has its directory")),
            false => self.unix.create_directory(&source),
        };
        match made {
            Ok(()) => info.unix = Some(ContainerUnixSocket { source, path, only, checked: false }),
            Err(source) if only => return Err(ReserveError::Unix { source }),
            Err(error) => info.warnings.push(no_socket_warning(&error)),
        }
        Ok(())
    }

    /// Opens the Unix socket that a container was promised.
    pub(super) fn open_unix(&mut self, info: &mut ContainerInfo) -> Result<Option<Unixgram>, ReserveError> {
        let Some(unix) = &info.unix else { return Ok(None) };
        match self.unix.open(unix) {
            Ok(opened) => {
                let wanted = self.settings.unix.queue;
                if opened.queue < wanted {
                    let room = opened.queue;
                    info.warnings.push(format!(
                        "{room} datagrams may wait in its Unix socket, not {wanted}, because of net.unix.max_dgram_qlen"
                    ));
                }
                Ok(Some(opened))
            }
            Err(source) if unix.only => Err(ReserveError::Unix { source }),
            Err(error) => {
                info.warnings.push(no_socket_warning(&error));
                Sockets::remove(unix);
                info.unix = None;
                Ok(None)
            }
        }
    }

    /// Tells a container's shard which processes are the container's, now that its first one is known.
    pub(super) async fn set_container_processes(
        &mut self,
        allocation: Allocation,
        process: &Watched,
    ) -> Option<Arc<ContainerInfo>> {
        let info = Arc::clone(&self.entries.get(&allocation)?.info);
        let _has_one = info.unix.as_ref()?;
        let process_identity = match ProcessIdentity::from_process(info.pid?, Some(process.process_handle()))
        {
            Ok(process_identity) => process_identity,
            Err(error) => {
                tracing::debug!(container = %info.origin.container_id, %error, "its processes cannot be told from others");
                return None;
            }
        };
        let checked = process_identity.is_told_apart();
        self.pool.set_container_processes(allocation, process_identity).await.ok()?;
        self.update_info(allocation, |info| {
            if let Some(unix) = &mut info.unix {
                unix.checked = checked;
            }
            if !checked {
                info.warnings.push(
                    "it has neither a cgroup nor a mount namespace of its own, so nobody who sends by its Unix socket can \
                     be told from others"
                        .to_owned(),
                );
            }
        })
    }

    /// Removes a Unix socket whose container has ended, unless its id has come again.
    pub(super) fn give_back_unix(&self, unix: &ContainerUnixSocket) {
        match () {
            () if self.has_unix(&unix.source) => {}
            // The container goes on with the directory mounted, and the agent's next life opens a socket there.
            () if self.ending => Sockets::close(unix),
            () => Sockets::remove(unix),
        }
    }

    /// Directories of an earlier life of the agent rest as long as addresses: whoever has one mounted may be told of.
    pub(super) fn sweep_unix(&mut self) {
        if self.unix.is_swept() || self.started.elapsed() < self.settings.rest {
            return;
        }
        let live = self.live.values().filter_map(|allocation| self.entries.get(allocation));
        let claimed: Vec<_> =
            live.filter_map(|entry| entry.info.unix.as_ref()).map(|unix| unix.source.clone()).collect();
        self.unix.remove_unclaimed(|source| claimed.iter().any(|claimed| claimed == source));
    }

    fn has_unix(&self, source: &Path) -> bool {
        let live = self.live.values().filter_map(|allocation| self.entries.get(allocation));
        live.filter_map(|entry| entry.info.unix.as_ref()).any(|unix| unix.source == source)
    }
}

fn no_socket_warning(error: &std::io::Error) -> String {
    format!("it has no Unix socket: {error}")
}
