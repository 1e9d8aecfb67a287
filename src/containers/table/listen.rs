//! Opening a container's socket where it is to be, and giving it to a shard.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::{ContainerTable, SMALLEST_BUFFER};
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::ReserveError;
use crate::containers::ports;
use crate::containers::reservation::Reservation;
use crate::containers::socket::{self, Site};
use crate::containers::state::{LifecycleState, SocketNamespace};
use crate::net::listener;
use crate::net::netns::{self, Choice, Namespace};
use crate::net::process;
use crate::shard::NewListener;

/// Descriptors that containers leave to the agent, of few a quarter: for connections, and for the files it writes.
const KEPT: u64 = 128;

impl ContainerTable {
    /// Gives a new container its address, and its socket where that can be opened now.
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
                    // Who has been told its address once can have no other.
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
                // Nobody can have a port where nobody is yet.
                let (host, port) = wanted_within(reservation)?;
                let (host, port) =
                    (host.unwrap_or_else(netns::loopback_address), port.unwrap_or(ports::FIRST));
                info.address = Some(SocketAddr::new(host, port));
                Ok(())
            }
        }
    }

    /// Opens a socket in a namespace of the container's own.
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

    /// Gives a container's sockets to a shard: the one for UDP, if it has one, and the Unix socket that it was promised.
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

    /// Bytes of the next socket's buffer: what is usual, or what is left of the node's.
    pub(super) fn next_buffer(&self) -> usize {
        self.settings.receive_buffer.min(self.pool.receive_buffers().available_bytes()).max(SMALLEST_BUFFER)
    }
}

/// The parts of its address that a container with a namespace of its own insists on. At anything but a loopback address
/// others would reach it, and what says that nobody does would be wrong.
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
