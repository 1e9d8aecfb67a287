//! A container's UDP socket: opened, sized, emptied.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::socket::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use super::sys;

/// Largest payload of a UDP datagram, and then some; with this nothing is ever cut.
pub const DATAGRAM: usize = 1 << 16;

/// Opens a socket at an address. Its receive buffer is `buffer` bytes, or as many as this process may have.
///
/// # Errors
/// When the address is taken or not this machine's, or descriptors ran out.
pub fn open(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    set_receive_buffer(&socket, buffer)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Asks for a receive buffer of so many bytes; [`receive_buffer`] says what was given.
///
/// # Errors
/// When the descriptor is not a socket.
pub fn set_receive_buffer(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    // Beyond net.core.rmem_max only a privileged process gets what it asks for.
    if nix::sys::socket::setsockopt(&socket, sockopt::RcvBufForce, &bytes).is_err() {
        nix::sys::socket::setsockopt(&socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}

/// The receive buffer the kernel gave, in bytes as they were asked for; the kernel keeps twice that for its own needs.
///
/// # Errors
/// When the descriptor is not a socket.
pub fn receive_buffer(socket: &UdpSocket) -> io::Result<usize> {
    Ok(nix::sys::socket::getsockopt(socket, sockopt::RcvBuf)? / 2)
}

/// What a datagram of so many bytes takes of a socket's buffer, in the kernel's own count, or a little more: its payload
/// and headers in a block whose size is a power of two, and what describes them.
#[must_use]
pub const fn buffer_charge(length: usize) -> usize {
    (length + 384).next_power_of_two() + 512
}

/// How emptying a socket ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Emptied {
    /// Nothing is left.
    Fully,
    /// The budget is used up; more may be left.
    Partly,
    /// The socket cannot be read.
    Broken(Errno),
}

/// Datagrams that are taken from a socket together at most.
const TOGETHER: usize = 32;

/// Datagrams as they came from one socket, one after the other.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Where each datagram ends.
    ends: ArrayVec<usize, TOGETHER>,
    cut: u64,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; 2 * DATAGRAM], ends: ArrayVec::new(), cut: 0 }
    }
}

impl Inbox {
    /// Takes up to `most` datagrams that are already there, in place of those that were here. A datagram that is too
    /// long is counted as cut, and not kept: its last line would be wrong, and nobody could tell.
    pub fn take_from_socket(&mut self, socket: impl AsFd, most: usize) -> Emptied {
        self.ends.clear();
        self.cut = 0;
        let mut start = 0;
        // There must be room for the longest.
        while self.taken_count() < most.min(TOGETHER) && start + DATAGRAM <= self.bytes.len() {
            let Some(room) = self.bytes.get_mut(start..start + DATAGRAM) else { break };
            match sys::receive_datagram(&socket, room) {
                Ok(length) if length > DATAGRAM => self.cut += 1,
                // A datagram may be empty; that is no end.
                Ok(length) => {
                    start += length;
                    self.ends.push(start);
                }
                Err(Errno::EAGAIN) => return Emptied::Fully,
                Err(Errno::EINTR) => {}
                Err(error) => return Emptied::Broken(error),
            }
        }
        Emptied::Partly
    }

    /// Forgets what was here.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.cut = 0;
    }

    /// Room for one more datagram; none where there is none.
    pub(super) fn spare_buffer(&mut self) -> Option<&mut [u8]> {
        let start = self.ends.last().copied().unwrap_or(0);
        if self.taken_count() >= TOGETHER { None } else { self.bytes.get_mut(start..start + DATAGRAM) }
    }

    /// Keeps a datagram of so many bytes that is in the room.
    pub(super) fn add(&mut self, length: usize) {
        let start = self.ends.last().copied().unwrap_or(0);
        self.ends.push(start + length);
    }

    /// Counts a datagram that was too long.
    pub(super) fn add_cut(&mut self) {
        self.cut += 1;
    }

    /// What was taken, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().scan(0, |start, end| self.bytes.get(std::mem::replace(start, *end)..*end))
    }

    /// How many were taken, those that were cut included.
    #[must_use]
    pub fn taken_count(&self) -> usize {
        self.ends.len().saturating_add(usize::try_from(self.cut).unwrap_or(usize::MAX))
    }

    /// How many were too long for a datagram of UDP, and are lost.
    #[must_use]
    pub fn cut_count(&self) -> u64 {
        self.cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        pair_with(65_536)
    }

    fn pair_with(buffer: usize) -> (UdpSocket, UdpSocket) {
        let receiver = open("127.0.0.1:0".parse().unwrap(), buffer).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        (receiver, sender)
    }

    fn lengths(inbox: &Inbox) -> Vec<usize> {
        inbox.datagrams().map(<[u8]>::len).collect()
    }

    #[test]
    fn datagrams_come_whole_and_in_order_and_may_be_empty() {
        let (receiver, sender) = pair_with(212_992);
        let long = vec![b'x'; 65_507];
        for datagram in [b"a:1|c".as_slice(), b"", &long, &long, b"b:1|c"] {
            sender.send(datagram).unwrap();
        }
        let mut inbox = Inbox::default();
        // Behind two long ones there is no room for another.
        let taken = inbox.take_from_socket(&receiver, 100);
        assert_eq!((taken, lengths(&inbox)), (Emptied::Partly, vec![5, 0, 65_507, 65_507]));
        assert_eq!((inbox.take_from_socket(&receiver, 100), lengths(&inbox)), (Emptied::Fully, vec![5]));
        assert_eq!(inbox.datagrams().next(), Some(b"b:1|c".as_slice()));
    }

    #[test]
    fn a_budget_is_kept() {
        let (receiver, sender) = pair();
        for _ in 0..10 {
            sender.send(b"a:1|c").unwrap();
        }
        let mut inbox = Inbox::default();
        assert_eq!((inbox.take_from_socket(&receiver, 4), lengths(&inbox)), (Emptied::Partly, vec![5; 4]));
        assert_eq!((inbox.take_from_socket(&receiver, 100), lengths(&inbox)), (Emptied::Fully, vec![5; 6]));
    }

    #[test]
    fn a_datagram_that_is_longer_than_any_of_udp_is_counted_as_cut_and_not_kept() {
        let (receiver, sender) = std::os::unix::net::UnixDatagram::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        for length in [5, DATAGRAM, DATAGRAM + 1, 7] {
            sender.send(&vec![b'x'; length]).unwrap();
        }
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take_from_socket(&receiver, 2), Emptied::Partly);
        assert_eq!((lengths(&inbox), inbox.cut_count()), (vec![5, DATAGRAM], 0));
        assert_eq!(inbox.take_from_socket(&receiver, 9), Emptied::Fully);
        assert_eq!((lengths(&inbox), inbox.cut_count()), (vec![7], 1));
    }

    #[test]
    fn the_buffer_is_as_large_as_asked_for() {
        let (receiver, _sender) = pair();
        assert_eq!(receive_buffer(&receiver).unwrap(), 65_536);
    }

    #[test]
    fn what_a_datagram_takes_of_the_buffer_is_not_underestimated() {
        for length in [0, 5, 100, 200, 600, 1_432, 5_000, 20_000] {
            let (receiver, sender) = pair();
            let datagram = vec![b'x'; length];
            (0..2_000).for_each(|_| drop(sender.send(&datagram)));
            let mut inbox = Inbox::default();
            let mut fitted = 0;
            while inbox.take_from_socket(&receiver, 2_000) == Emptied::Partly || inbox.taken_count() > 0 {
                fitted += inbox.taken_count();
            }
            let full = 2.0 * receive_buffer(&receiver).unwrap() as f64;
            let charged = (fitted * buffer_charge(length)) as f64 / full;
            assert!(
                (0.9..2.6).contains(&charged),
                "{length} bytes: {fitted} fitted, {charged:.2} of the buffer"
            );
        }
    }

    #[test]
    fn a_taken_address_is_refused() {
        let (receiver, _sender) = pair();
        let again = open(receiver.local_addr().unwrap(), 65_536);
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
