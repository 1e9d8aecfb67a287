//! Opening a container's sockets and giving them to a shard.
//!
//! A Unix socket is promised with the reservation, opened with the address, and checked once the process is known.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{ContainerTable, SMALLEST_BUFFER};
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::ReserveError;
use crate::containers::ports;
use crate::containers::reservation::Reservation;
use crate::containers::socket::{self, Site};
use crate::containers::state::{LifecycleState, SocketNamespace};
use crate::containers::unix::{ContainerUnixSocket, Sockets, UnixWish};
use crate::model::Allocation;
use crate::net::listener;
use crate::net::netns::{self, Choice, Namespace};
use crate::net::process::{self, Watched};
use crate::net::process_identity::ProcessIdentity;
use crate::net::unixgram::Unixgram;
use crate::shard::NewListener;

/// Descriptors reserved for connections and files of the agent; at most a quarter of the limit.
const KEPT: u64 = 128;

impl ContainerTable {
    /// Assigns a new container its address, and opens its socket if that is possible now.
    pub(super) async fn assign_address(
        &mut self,
        info: &mut ContainerInfo,
        reservation: &Reservation,
        site: Site,
    ) -> Result<(), ReserveError> {
        let now = self.started.elapsed();
        self.promise_unix(info, reservation)?;
        if info.unix.as_ref().is_some_and(|unix| unix.only) {
            return self.start_listening(info, None).await;
        }
        match site {
            Site::Shared => {
                let buffer = self.next_buffer();
                let (udp, address) =
                    socket::open(reservation, &self.settings, &mut self.addresses, buffer, now)?;
                let listening = self.start_listening(info, Some((udp, address))).await;
                if listening.is_err() {
                    self.addresses.give_back(address, Duration::ZERO);
                }
                listening
            }
            Site::Own(namespace) => {
                let (host, port) = wanted_within(reservation)?;
                let ports = match port {
                    // A container that has been told its address cannot get another one.
                    Some(port) => vec![port],
                    None => self.ports.candidate_ports(namespace.id(), reservation.name(), now),
                };
                let choice = Choice { host, ports };
                let listening = self.listen_within(info, namespace, choice, reservation.name()).await;
                listening.map_err(|error| match (error, port) {
                    (ReserveError::Enter { source }, Some(port)) if source.kind() == ErrorKind::AddrInUse => {
                        let address = SocketAddr::new(host.unwrap_or_else(netns::loopback_address), port);
                        ReserveError::AddressTaken { address }
                    }
                    (error, _) => error,
                })
            }
            Site::Unborn => {
                // No port can be in use in a namespace that does not exist yet.
                let (host, port) = wanted_within(reservation)?;
                let (host, port) =
                    (host.unwrap_or_else(netns::loopback_address), port.unwrap_or(ports::FIRST));
                info.address = Some(SocketAddr::new(host, port));
                Ok(())
            }
        }
    }

    /// Opens a socket in the container's own namespace.
    pub(super) async fn listen_within(
        &mut self,
        info: &mut ContainerInfo,
        namespace: Namespace,
        choice: Choice,
        name: &str,
    ) -> Result<(), ReserveError> {
        let id = namespace.id();
        let opened = namespace.open_socket(choice, self.next_buffer()).await;
        let opened = opened.map_err(|source| ReserveError::Enter { source })?;
        if let Some(error) = opened.loopback_down {
            info.warnings.push(format!("the interface lo is down in the container's network, and the agent cannot bring it up: {error}"));
        }
        self.start_listening(info, Some((opened.socket, opened.address))).await?;
        info.place = SocketNamespace::Own(id);
        self.ports.claim_port(id, name, opened.address.port());
        Ok(())
    }

    /// Passes a container's sockets to a shard: its UDP socket, if any, and its Unix socket, if it was promised one.
    pub(super) async fn start_listening(
        &mut self,
        info: &mut ContainerInfo,
        udp: Option<(UdpSocket, SocketAddr)>,
    ) -> Result<(), ReserveError> {
        let (limit, left) = process::descriptors_left();
        let kept = KEPT.min(limit / 4);
        if left < kept {
            return Err(ReserveError::NoDescriptors { limit, kept });
        }
        let asked = self.next_buffer();
        let granted =
            udp.as_ref().map_or(0, |(socket, _)| listener::receive_buffer_size(socket).unwrap_or(asked));
        let wanted = self.settings.receive_buffer;
        if granted < wanted && udp.is_some() {
            let why = if asked < wanted { "listeners.receive_buffers" } else { "net.core.rmem_max" };
            let warning = format!("the receive buffer is {granted} bytes, not {wanted}, because of {why}");
            info.warnings.push(warning);
        }
        let unix = self.open_unix(info)?;
        let (socket, address) = udp.unzip();
        let (allocation, origin) = (info.allocation, Arc::clone(&info.origin));
        let (gauge_sign, timer_unit) = (info.gauge_sign, info.timer_unit);
        let new = NewListener { allocation, origin, socket, unix, gauge_sign, timer_unit, before: None };
        self.pool.open(new).await?;
        info.receive_buffer = granted;
        info.address = address;
        info.state = LifecycleState::Listening;
        Ok(())
    }

    /// The buffer size of the next socket, in bytes: the configured size, or what is left of the node's total.
    pub(super) fn next_buffer(&self) -> usize {
        self.settings.receive_buffer.min(self.pool.receive_buffers().available_bytes()).max(SMALLEST_BUFFER)
    }
}

/// The parts of its address that a container with a namespace of its own insists on. At anything but a loopback address
/// other hosts would reach it, although its state says that none can.
fn wanted_within(reservation: &Reservation) -> Result<(Option<IpAddr>, Option<u16>), ReserveError> {
    let Some(wanted) = reservation.wanted else { return Ok((None, None)) };
    match wanted.host {
        Some(host) if !host.is_loopback() => Err(ReserveError::Socket {
            address: SocketAddr::new(host, wanted.port.unwrap_or(ports::FIRST)),
            source: io::Error::new(ErrorKind::AddrNotAvailable, "it is not a loopback address"),
        }),
        host => Ok((host, wanted.port)),
    }
}

impl ContainerTable {
    /// Creates the directory of a container that gets a Unix socket, so that it can be mounted.
    pub(super) fn promise_unix(
        &mut self,
        info: &mut ContainerInfo,
        reservation: &Reservation,
    ) -> Result<(), ReserveError> {
        let wish = match (&reservation.mounted, reservation.unix_wish()) {
            // It has the mount already, so it gets a socket regardless of the current settings.
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
            // Another id whose name comes out the same, which does not happen by chance.
            true => Err(io::Error::other("another container has its directory")),
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

    /// Tells a container's shard which processes belong to it, now that its first one is known.
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
                tracing::debug!(container = %info.origin.container_id, %error, "cannot identify its processes");
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
                    "it has neither a cgroup nor a mount namespace of its own, so senders on its Unix socket cannot be \
                     identified"
                        .to_owned(),
                );
            }
        })
    }

    /// Removes the Unix socket of an ended container, unless a new container has the same id.
    pub(super) fn give_back_unix(&self, unix: &ContainerUnixSocket) {
        match () {
            () if self.has_unix(&unix.source) => {}
            // The container keeps the directory mounted, and the next agent opens a socket there.
            () if self.ending => Sockets::close(unix),
            () => Sockets::remove(unix),
        }
    }

    /// Keeps directories of an earlier agent for as long as addresses rest, because the runtime may still report a container
    /// that has one mounted.
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

fn no_socket_warning(error: &io::Error) -> String {
    format!("it has no Unix socket: {error}")
}
