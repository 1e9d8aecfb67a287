//! How much all receive buffers of the node may take together, and larger ones for sockets that need them.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::listener;

/// The budget of all receive buffers, in bytes as they are asked for.
#[derive(Debug)]
pub struct Buffers {
    /// All of them together.
    limit: AtomicUsize,
    /// One of them.
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

    /// Doubles a socket's buffer of `now` bytes. Only while half of the budget is left, so that sockets that flood leave
    /// enough for containers that are yet to come. Answers the new size; `None` where it stays as it is.
    pub fn grow_receive_buffer(&self, socket: &UdpSocket, now: usize) -> Option<usize> {
        let wanted = now.saturating_mul(2).min(self.largest.load(Ordering::Relaxed));
        let more = wanted.checked_sub(now).filter(|more| *more > 0)?;
        let room = |used: usize| used.checked_add(more).filter(|used| *used <= self.byte_limit() / 2);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let granted = match listener::set_receive_buffer(socket, wanted) {
            Ok(()) => listener::receive_buffer_size(socket).unwrap_or(now),
            Err(_) => now,
        };
        self.give_back(wanted.saturating_sub(granted));
        (granted > now).then_some(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> UdpSocket {
        listener::open("127.0.0.1:0".parse().unwrap(), 16_384).unwrap()
    }

    #[test]
    fn a_buffer_doubles_up_to_the_largest() {
        let buffers = Buffers::new(1 << 20, 60_000);
        let socket = socket();
        buffers.count_granted(16_384);
        assert_eq!(buffers.grow_receive_buffer(&socket, 16_384), Some(32_768));
        assert_eq!(buffers.grow_receive_buffer(&socket, 32_768), Some(60_000));
        assert_eq!(buffers.grow_receive_buffer(&socket, 60_000), None);
        assert_eq!((buffers.used_bytes(), listener::receive_buffer_size(&socket).unwrap()), (60_000, 60_000));
    }

    #[test]
    fn half_of_the_budget_is_left_to_those_who_are_yet_to_come() {
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
