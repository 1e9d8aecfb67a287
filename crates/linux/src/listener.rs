//! A container's UDP socket: opening it, reading it, and sizing its receive buffer within a budget for the whole node.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::socket::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use super::sys;

/// Slightly more than the largest payload of a UDP datagram, so that no datagram is truncated.
pub const DATAGRAM: usize = 1 << 16;

/// Opens a socket at an address. Its receive buffer is `buffer` bytes, or as many as this process is allowed.
///
/// # Errors
/// If the address is in use or not local to this machine, or if no file descriptors are left.
pub fn open(address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    set_receive_buffer(&socket, buffer)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Requests a receive buffer of `bytes` bytes; [`receive_buffer_size`] returns the size that was granted.
///
/// # Errors
/// When the descriptor is not a socket.
pub fn set_receive_buffer(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    // Only a privileged process can exceed net.core.rmem_max.
    if nix::sys::socket::setsockopt(&socket, sockopt::RcvBufForce, &bytes).is_err() {
        nix::sys::socket::setsockopt(&socket, sockopt::RcvBuf, &bytes)?;
    }
    Ok(())
}

/// The size of the receive buffer that the kernel granted, in the same bytes as the request; the kernel itself reserves
/// twice as much.
///
/// # Errors
/// When the descriptor is not a socket.
pub fn receive_buffer_size(socket: &UdpSocket) -> io::Result<usize> {
    Ok(nix::sys::socket::getsockopt(socket, sockopt::RcvBuf)? / 2)
}

/// The bytes that the kernel charges to a socket's buffer for a datagram of `length` bytes, or slightly more: payload and headers
/// in a block whose size is a power of two, plus the structure that describes them.
#[must_use]
pub const fn buffer_charge(length: usize) -> usize {
    (length + 384).next_power_of_two() + 512
}

/// Why reading from a socket ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// Nothing is left.
    Fully,
    /// The budget is used up; more may be left.
    Partly,
    /// The socket cannot be read.
    Broken(Errno),
}

/// Maximum number of datagrams read from a socket in one batch.
const TOGETHER: usize = 32;

/// A batch of datagrams from one socket, in the order in which they arrived.
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
    /// Replaces the batch with up to `most` datagrams that are already waiting. A datagram that is too long is counted
    /// as truncated and not kept: its last line would be wrong without a sign of it.
    pub fn take_from_socket(&mut self, socket: impl AsFd, most: usize) -> ReadOutcome {
        self.ends.clear();
        self.cut = 0;
        let mut start = 0;
        // There must be room for the longest possible datagram.
        while self.taken_count() < most.min(TOGETHER) && start + DATAGRAM <= self.bytes.len() {
            let Some(room) = self.bytes.get_mut(start..start + DATAGRAM) else { break };
            match sys::receive_datagram(&socket, room) {
                Ok(length) if length > DATAGRAM => self.cut += 1,
                // A datagram may be empty; this is not the end of the input.
                Ok(length) => {
                    start += length;
                    self.ends.push(start);
                }
                Err(Errno::EAGAIN) => return ReadOutcome::Fully,
                Err(Errno::EINTR) => {}
                Err(error) => return ReadOutcome::Broken(error),
            }
        }
        ReadOutcome::Partly
    }

    /// Discards the batch.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.cut = 0;
    }

    /// Room for one more datagram; `None` if the batch is full.
    pub(super) fn spare_buffer(&mut self) -> Option<&mut [u8]> {
        let start = self.ends.last().copied().unwrap_or(0);
        if self.taken_count() >= TOGETHER { None } else { self.bytes.get_mut(start..start + DATAGRAM) }
    }

    /// Adds the datagram of `length` bytes that was read into the spare buffer.
    pub(super) fn add_datagram(&mut self, length: usize) {
        let start = self.ends.last().copied().unwrap_or(0);
        self.ends.push(start + length);
    }

    /// Counts a datagram that was too long.
    pub(super) fn count_truncated(&mut self) {
        self.cut += 1;
    }

    /// The datagrams of the batch, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.ends.iter().scan(0, |start, end| self.bytes.get(std::mem::replace(start, *end)..*end))
    }

    /// How many datagrams were read, including truncated ones.
    #[must_use]
    pub fn taken_count(&self) -> usize {
        self.ends.len().saturating_add(usize::try_from(self.cut).unwrap_or(usize::MAX))
    }

    /// How many datagrams were longer than UDP allows and are lost.
    #[must_use]
    pub fn truncated_count(&self) -> u64 {
        self.cut
    }
}

/// The budget of all receive buffers, in requested bytes.
#[derive(Debug)]
pub struct Buffers {
    /// Maximum for all buffers together.
    limit: AtomicUsize,
    /// Maximum for one buffer.
    largest: AtomicUsize,
    used: AtomicUsize,
}

impl Buffers {
    /// An unused budget of `limit` bytes, of which one socket grows to at most `largest`.
    #[must_use]
    pub fn new(limit: usize, largest: usize) -> Self {
        Self { limit: limit.into(), largest: largest.into(), used: 0.into() }
    }

    /// Changes the budget. Sockets that exceed the new one keep their buffers until they are closed.
    pub fn set_limits(&self, limit: usize, largest: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.largest.store(largest, Ordering::Relaxed);
    }

    /// Bytes in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that all may use together.
    #[must_use]
    pub fn byte_limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Bytes that are left for new sockets.
    #[must_use]
    pub fn available_bytes(&self) -> usize {
        self.byte_limit().saturating_sub(self.used_bytes())
    }

    /// Counts a buffer that was granted.
    pub fn count_granted(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a buffer that is gone.
    pub fn give_back(&self, bytes: usize) {
        let _always_some = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
    }

    /// Doubles a socket's buffer of `now` bytes, but only while half of the budget is left, so that flooded sockets
    /// leave enough for future containers. Returns the new size; `None` if the buffer is unchanged.
    pub fn grow_receive_buffer(&self, socket: &UdpSocket, now: usize) -> Option<usize> {
        let wanted = now.saturating_mul(2).min(self.largest.load(Ordering::Relaxed));
        let more = wanted.checked_sub(now).filter(|more| *more > 0)?;
        let room = |used: usize| used.checked_add(more).filter(|used| *used <= self.byte_limit() / 2);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let granted = match set_receive_buffer(socket, wanted) {
            Ok(()) => receive_buffer_size(socket).unwrap_or(now),
            Err(_) => now,
        };
        self.give_back(wanted.saturating_sub(granted));
        (granted > now).then_some(granted)
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
        // After two long ones, there is no room for another.
        let taken = inbox.take_from_socket(&receiver, 100);
        assert_eq!((taken, lengths(&inbox)), (ReadOutcome::Partly, vec![5, 0, 65_507, 65_507]));
        assert_eq!((inbox.take_from_socket(&receiver, 100), lengths(&inbox)), (ReadOutcome::Fully, vec![5]));
        assert_eq!(inbox.datagrams().next(), Some(b"b:1|c".as_slice()));
    }

    #[test]
    fn a_budget_is_kept() {
        let (receiver, sender) = pair();
        for _ in 0..10 {
            sender.send(b"a:1|c").unwrap();
        }
        let mut inbox = Inbox::default();
        assert_eq!(
            (inbox.take_from_socket(&receiver, 4), lengths(&inbox)),
            (ReadOutcome::Partly, vec![5; 4])
        );
        assert_eq!(
            (inbox.take_from_socket(&receiver, 100), lengths(&inbox)),
            (ReadOutcome::Fully, vec![5; 6])
        );
    }

    #[test]
    fn a_datagram_that_is_longer_than_any_of_udp_is_counted_as_cut_and_not_kept() {
        let (receiver, sender) = std::os::unix::net::UnixDatagram::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        for length in [5, DATAGRAM, DATAGRAM + 1, 7] {
            sender.send(&vec![b'x'; length]).unwrap();
        }
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take_from_socket(&receiver, 2), ReadOutcome::Partly);
        assert_eq!((lengths(&inbox), inbox.truncated_count()), (vec![5, DATAGRAM], 0));
        assert_eq!(inbox.take_from_socket(&receiver, 9), ReadOutcome::Fully);
        assert_eq!((lengths(&inbox), inbox.truncated_count()), (vec![7], 1));
    }

    #[test]
    fn the_buffer_is_as_large_as_asked_for() {
        let (receiver, _sender) = pair();
        assert_eq!(receive_buffer_size(&receiver).unwrap(), 65_536);
    }

    #[test]
    fn what_a_datagram_takes_of_the_buffer_is_not_underestimated() {
        for length in [0, 5, 100, 200, 600, 1_432, 5_000, 20_000] {
            let (receiver, sender) = pair();
            let datagram = vec![b'x'; length];
            (0..2_000).for_each(|_| drop(sender.send(&datagram)));
            let mut inbox = Inbox::default();
            let mut fitted = 0;
            while inbox.take_from_socket(&receiver, 2_000) == ReadOutcome::Partly || inbox.taken_count() > 0 {
                fitted += inbox.taken_count();
            }
            let full = 2.0 * receive_buffer_size(&receiver).unwrap() as f64;
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

    fn socket() -> UdpSocket {
        open("127.0.0.1:0".parse().unwrap(), 16_384).unwrap()
    }

    #[test]
    fn a_buffer_doubles_up_to_the_largest() {
        let buffers = Buffers::new(1 << 20, 60_000);
        let socket = socket();
        buffers.count_granted(16_384);
        assert_eq!(buffers.grow_receive_buffer(&socket, 16_384), Some(32_768));
        assert_eq!(buffers.grow_receive_buffer(&socket, 32_768), Some(60_000));
        assert_eq!(buffers.grow_receive_buffer(&socket, 60_000), None);
        assert_eq!((buffers.used_bytes(), receive_buffer_size(&socket).unwrap()), (60_000, 60_000));
    }

    #[test]
    fn half_of_the_budget_is_left_to_later_sockets() {
        let buffers = Buffers::new(100_000, 1 << 20);
        let socket = socket();
        buffers.count_granted(16_384);
        assert_eq!(buffers.grow_receive_buffer(&socket, 16_384), Some(32_768));
        assert_eq!(buffers.grow_receive_buffer(&socket, 32_768), None);
        assert_eq!((buffers.used_bytes(), buffers.available_bytes()), (32_768, 67_232));
        buffers.give_back(32_768);
        assert_eq!(buffers.used_bytes(), 0);
    }
}
