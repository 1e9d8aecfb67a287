//! Opening a container's socket where it is to be, and giving it to a shard.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::{SMALLEST_BUFFER, Table};
use crate::containers::directory::ContainerInfo;
use crate::containers::errors::ReserveError;
use crate::containers::ports;
use crate::containers::reservation::Reservation;
use crate::containers::socket::{self, Site};
use crate::containers::state::{Place, State};
use crate::net::listener;
use crate::net::netns::{self, Namespace};
use crate::shard::NewListener;

impl Table {
    /// Gives a new container its address, and its socket where that can be opened now.
    pub(super) async fn place(
        &mut self,
        info: &mut ContainerInfo,
        reservation: &Reservation,
        site: Site,
    ) -> Result<(), ReserveError> {
        let now = self.started.elapsed();
        match site {
            Site::Shared => {
                let buffer = self.next_buffer();
                let (udp, address) =
                    socket::open(reservation, &self.settings, &mut self.addresses, buffer, now)?;
                let listening = self.listen(info, udp, address).await;
                if listening.is_err() {
                    self.addresses.give_back(address, Duration::ZERO);
                }
                listening
            }
            Site::Own(namespace) => {
                let ports = self.ports.candidates(namespace.id(), reservation.name(), now);
                self.listen_within(info, namespace, ports, reservation.name()).await
            }
            Site::Unborn => {
                // Nobody can have a port where nobody is yet.
                info.address = Some(SocketAddr::new(netns::loopback(), ports::FIRST));
                Ok(())
            }
        }
    }

    /// Opens a socket in a namespace of the container's own.
    pub(super) async fn listen_within(
        &mut self,
        info: &mut ContainerInfo,
        namespace: Namespace,
        ports: Vec<u16>,
        name: &str,
    ) -> Result<(), ReserveError> {
        let id = namespace.id();
        let opened = namespace.listen(ports, self.next_buffer()).await;
        let opened = opened.map_err(|source| ReserveError::Enter { source })?;
        if let Some(error) = opened.loopback_down {
            info.warnings.push(format!("the interface lo is down in the container's network, and the agent cannot bring it up: {error}"));
        }
        self.listen(info, opened.socket, opened.address).await?;
        info.place = Place::Own(id);
        self.ports.take(id, name, opened.address.port());
        Ok(())
    }

    /// Gives a socket to a shard.
    async fn listen(
        &mut self,
        info: &mut ContainerInfo,
        udp: UdpSocket,
        address: SocketAddr,
    ) -> Result<(), ReserveError> {
        let asked = self.next_buffer();
        let granted = listener::receive_buffer(&udp).unwrap_or(asked);
        let wanted = self.settings.receive_buffer;
        if granted < wanted {
            let why = if asked < wanted { "listeners.receive_buffers" } else { "net.core.rmem_max" };
            let warning = format!("the receive buffer is {granted} bytes, not {wanted}, because of {why}");
            info.warnings.push(warning);
        }
        let (allocation, origin) = (info.allocation, Arc::clone(&info.origin));
        let new = NewListener { allocation, origin, socket: udp, gauge_sign: info.gauge_sign };
        info.shard = Some(self.pool.open(new).await?);
        self.buffers += granted;
        info.receive_buffer = granted;
        info.address = Some(address);
        info.state = State::Listening;
        Ok(())
    }

    /// Bytes of the next socket's buffer: what is usual, or what is left of the node's.
    fn next_buffer(&self) -> usize {
        let left = self.settings.receive_buffers.saturating_sub(self.buffers);
        self.settings.receive_buffer.min(left).max(SMALLEST_BUFFER)
    }
}
