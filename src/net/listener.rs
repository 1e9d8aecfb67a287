//! A container's UDP socket: opened, sized, emptied.

use std::io;
use std::net::{SocketAddr, UdpSocket};

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
    // Beyond net.core.rmem_max only a privileged process gets what it asks for.
    if nix::sys::socket::setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
        socket.set_recv_buffer_size(buffer)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
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
pub const fn charge(length: usize) -> usize {
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

/// Takes up to `budget` datagrams that are already there.
pub fn take(socket: &UdpSocket, buffer: &mut [u8], budget: usize, mut each: impl FnMut(&[u8])) -> Emptied {
    for _ in 0..budget {
        match sys::receive(socket, buffer) {
            // A datagram may be empty; that is no end.
            Ok(length) => each(buffer.get(..length).unwrap_or_default()),
            Err(Errno::EAGAIN) => return Emptied::Fully,
            Err(Errno::EINTR) => {}
            Err(error) => return Emptied::Broken(error),
        }
    }
    Emptied::Partly
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let receiver = open("127.0.0.1:0".parse().unwrap(), 65_536).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        (receiver, sender)
    }

    #[test]
    fn datagrams_come_whole_and_in_order_and_may_be_empty() {
        let (receiver, sender) = pair();
        let long = vec![b'x'; 65_507];
        for datagram in [b"a:1|c".as_slice(), b"", &long, b"b:1|c"] {
            sender.send(datagram).unwrap();
        }
        let mut lengths = Vec::new();
        let emptied = take(&receiver, &mut vec![0; DATAGRAM], 100, |datagram| lengths.push(datagram.len()));
        assert_eq!((lengths, emptied), (vec![5, 0, 65_507, 5], Emptied::Fully));
    }

    #[test]
    fn a_budget_is_kept() {
        let (receiver, sender) = pair();
        for _ in 0..10 {
            sender.send(b"a:1|c").unwrap();
        }
        let mut taken = 0;
        assert_eq!(take(&receiver, &mut [0; 64], 4, |_| taken += 1), Emptied::Partly);
        assert_eq!(taken, 4);
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
            let mut fitted = 0;
            take(&receiver, &mut vec![0; DATAGRAM], 2_000, |_| fitted += 1);
            let full = 2.0 * receive_buffer(&receiver).unwrap() as f64;
            let charged = (fitted * charge(length)) as f64 / full;
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
