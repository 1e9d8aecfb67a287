//! The multiplexer: several connections over one Unix socket.
//!
//! A frame is an eight-byte header, the connection's number and the payload's length (both big endian), and the
//! payload. Nothing opens or closes a connection: both sides know the numbers.
//!
//! The runtime reads through a buffer of 4096 bytes and closes the whole socket if a frame is larger than the room left
//! in it, so sent messages are split into frames of that size. Received messages may be split anywhere.

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Serialize};

use super::ttrpc;

/// Length of a frame's header.
pub const HEADER: usize = 8;
/// Largest payload that is sent in one frame.
pub const CHUNK: usize = 4096;
/// Largest payload that is received in one frame: one whole message.
pub const LARGEST: usize = ttrpc::HEADER + ttrpc::LARGEST;

/// A connection inside the socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Connection {
    /// The runtime calls us: the Plugin service.
    Plugin,
    /// We call the runtime: the Runtime service.
    Runtime,
}

impl Connection {
    #[must_use]
    pub const fn to_number(self) -> u32 {
        match self {
            Self::Plugin => 1,
            Self::Runtime => 2,
        }
    }

    /// The connection with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Plugin),
            2 => Some(Self::Runtime),
            _ => None,
        }
    }
}

/// The other side does not speak this protocol.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame of {length} bytes, where {LARGEST} are allowed; this is no NRI socket")]
pub struct MuxError {
    length: usize,
}

/// Parses frames as they arrive. Payload is not buffered, but passed on in the received pieces.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Demux {
    /// The received part of a header.
    header: Vec<u8>,
    /// The connection of the current payload, and its missing bytes.
    current: Option<(Option<Connection>, usize)>,
}

impl Demux {
    /// Takes what was received, and hands every piece of payload to `each`. Frames of unknown connections
    /// are skipped.
    ///
    /// # Errors
    /// When a frame is larger than any that may come; nothing after it can be read.
    pub fn push(&mut self, received: &[u8], mut each: impl FnMut(Connection, &[u8])) -> Result<(), MuxError> {
        let mut rest = received;
        while !rest.is_empty() {
            match self.current.take() {
                None => {
                    let missing = HEADER.saturating_sub(self.header.len()).min(rest.len());
                    let (taken, left) = rest.split_at(missing);
                    self.header.extend_from_slice(taken);
                    rest = left;
                    self.read_header()?;
                }
                Some((connection, length)) => {
                    let (taken, left) = rest.split_at(length.min(rest.len()));
                    rest = left;
                    if let Some(connection) = connection {
                        each(connection, taken);
                    }
                    let missing = length.saturating_sub(taken.len());
                    self.current = (missing > 0).then_some((connection, missing));
                }
            }
        }
        Ok(())
    }

    /// Parses the header, once it is complete.
    fn read_header(&mut self) -> Result<(), MuxError> {
        let &[n0, n1, n2, n3, l0, l1, l2, l3] = self.header.as_slice() else { return Ok(()) };
        self.header.clear();
        let number = u32::from_be_bytes([n0, n1, n2, n3]);
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if length > LARGEST {
            return Err(MuxError { length });
        }
        self.current = (length > 0).then_some((Connection::from_number(number), length));
        Ok(())
    }
}

/// Splits a message into frames.
///
/// # Panics
/// Never: the length of a frame fits its header.
#[must_use]
#[expect(clippy::expect_used, reason = "CHUNK is a constant below 4 GiB")]
pub fn split_into_frames(connection: Connection, message: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(message.len() + HEADER * message.len().div_ceil(CHUNK));
    for chunk in message.chunks(CHUNK) {
        out.put_u32(connection.to_number());
        out.put_u32(u32::try_from(chunk.len()).expect("a chunk is at most CHUNK long"));
        out.put_slice(chunk);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn received(pieces: &[&[u8]]) -> Result<Vec<(Connection, Vec<u8>)>, MuxError> {
        let (mut demux, mut whole) = (Demux::default(), Vec::<(Connection, Vec<u8>)>::new());
        for piece in pieces {
            demux.push(piece, |connection, payload| match whole.last_mut() {
                Some((last, bytes)) if *last == connection => bytes.extend_from_slice(payload),
                _ => whole.push((connection, payload.to_vec())),
            })?;
        }
        Ok(whole)
    }

    #[test]
    fn no_frame_that_is_sent_is_larger_than_the_runtime_can_read() {
        let frames = split_into_frames(Connection::Runtime, &[7; 9000]);
        let mut rest = frames.as_ref();
        let mut lengths = Vec::new();
        while !rest.is_empty() {
            assert_eq!(rest[..4], [0, 0, 0, 2]);
            let length = u32::from_be_bytes(rest[4..8].try_into().unwrap()) as usize;
            lengths.push(length);
            rest = &rest[8 + length..];
        }
        assert_eq!(lengths, [4096, 4096, 808]);
    }

    #[test]
    fn frames_of_unknown_connections_are_passed_over() {
        let mut bytes = vec![0, 0, 0, 9, 0, 0, 0, 3, 1, 2, 3];
        bytes.extend_from_slice(&split_into_frames(Connection::Plugin, b"ours"));
        bytes.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(received(&[&bytes]).unwrap(), [(Connection::Plugin, b"ours".to_vec())]);
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused_before_any_of_it_is_kept() {
        let error = received(&[&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]]).unwrap_err();
        assert!(error.to_string().contains("4294967295"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives_however_it_is_cut(
            messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..9000)), 1..6),
            cut in 1_usize..5000,
        ) {
            let of = |plugin: bool| if plugin { Connection::Plugin } else { Connection::Runtime };
            let mut bytes = Vec::new();
            let mut sent: Vec<(Connection, Vec<u8>)> = Vec::new();
            for (plugin, message) in messages {
                bytes.extend_from_slice(&split_into_frames(of(plugin), &message));
                match sent.last_mut() {
                    Some((last, whole)) if *last == of(plugin) => whole.extend_from_slice(&message),
                    _ => sent.push((of(plugin), message)),
                }
            }
            prop_assert_eq!(received(&bytes.chunks(cut).collect::<Vec<_>>()).unwrap(), sent);
        }

        #[test]
        fn any_bytes_are_payload_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut payload = 0;
            let _either_way = Demux::default().push(&bytes, |_, piece| payload += piece.len());
            prop_assert!(payload <= bytes.len());
        }
    }
}
