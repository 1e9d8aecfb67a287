//! ttrpc, the RPC protocol of NRI: a ten-byte header and a protobuf message.
//!
//! The header is the message's length and the call's number (both 32 bits, big endian), a type and flags. The caller
//! uses increasing odd numbers for its calls; a response has the number of its call.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use serde::{Deserialize, Serialize};

use super::messages::{TtrpcRequest, TtrpcResponse, TtrpcStatus};

/// Length of a message's header.
pub const HEADER: usize = 10;
/// Largest message that is read; the protocol's own limit.
pub const LARGEST: usize = 4 << 20;

/// The status of a call for which there is no handler (gRPC's `UNIMPLEMENTED`). The runtime then falls back to an older
/// call if there is one.
pub const UNIMPLEMENTED: i32 = 12;
/// The status of a call whose message cannot be read (gRPC's `INVALID_ARGUMENT`).
pub const INVALID: i32 = 3;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum MessageKind {
    /// A call.
    Request,
    /// Its answer.
    Response,
    /// A part of a stream, which NRI does not have, or something newer.
    Other(u8),
}

impl MessageKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Other(byte) => byte,
        }
    }

    const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Request,
            2 => Self::Response,
            other => Self::Other(other),
        }
    }
}

/// A complete message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TtrpcFrame {
    /// The call it belongs to.
    pub stream: u32,
    /// Its type.
    pub kind: MessageKind,
    /// The protobuf message.
    pub data: Bytes,
}

/// Why a connection cannot be read any further.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TtrpcError {
    /// A message beyond the protocol's limit.
    #[error("a message of {length} bytes, where {LARGEST} are allowed")]
    TooLarge { length: usize },
}

/// Assembles messages from received pieces. Buffers at most one message.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FrameAssembler(BytesMut);

impl FrameAssembler {
    /// Adds received bytes.
    pub fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// The next message, once it is complete.
    ///
    /// # Errors
    /// When it is larger than allowed; nothing after it can be read.
    pub fn next_frame(&mut self) -> Result<Option<TtrpcFrame>, TtrpcError> {
        let Some(mut header) = self.0.get(..HEADER) else { return Ok(None) };
        let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
        let stream = header.get_u32();
        let kind = MessageKind::from_byte(header.get_u8());
        if length > LARGEST {
            return Err(TtrpcError::TooLarge { length });
        }
        if self.0.len() < HEADER + length {
            return Ok(None);
        }
        self.0.advance(HEADER);
        Ok(Some(TtrpcFrame { stream, kind, data: self.0.split_to(length).freeze() }))
    }
}

/// Encodes a message with its header.
///
/// # Panics
/// When the message has 4 GiB or more, which the header cannot express.
#[must_use]
#[expect(clippy::expect_used, reason = "messages have some hundred bytes for each container")]
pub fn encode_frame(stream: u32, kind: MessageKind, message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(HEADER + length);
    out.put_u32(u32::try_from(length).expect("a message is shorter than 4 GiB"));
    out.put_u32(stream);
    out.put_u8(kind.to_byte());
    out.put_u8(0);
    out.put_slice(&message.encode_to_vec());
    out.freeze()
}

#[must_use]
pub fn encode_call(stream: u32, service: &str, method: &str, message: &impl prost::Message) -> Bytes {
    let request = TtrpcRequest {
        service: service.to_owned(),
        method: method.to_owned(),
        payload: message.encode_to_vec(),
        timeout_nano: 0,
    };
    encode_frame(stream, MessageKind::Request, &request)
}

/// The answer to a call.
#[must_use]
pub fn encode_answer(stream: u32, answer: Result<Vec<u8>, TtrpcStatus>) -> Bytes {
    let response = match answer {
        Ok(payload) => TtrpcResponse { status: None, payload },
        Err(status) => TtrpcResponse { status: Some(status), payload: Vec::new() },
    };
    encode_frame(stream, MessageKind::Response, &response)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::nri::messages::Empty;

    #[test]
    fn a_message_is_whole_once_its_last_byte_is_there() {
        let bytes = encode_call(3, "service", "Method", &Empty {});
        let mut assembler = FrameAssembler::default();
        for byte in &bytes {
            assert_eq!(assembler.next_frame().unwrap(), None);
            assembler.push(&[*byte]);
        }
        let frame = assembler.next_frame().unwrap().unwrap();
        assert_eq!((frame.stream, frame.kind), (3, MessageKind::Request));
        let request = TtrpcRequest::decode(frame.data).unwrap();
        assert_eq!((request.service.as_str(), request.method.as_str()), ("service", "Method"));
        assert_eq!(assembler.next_frame().unwrap(), None);
    }

    #[test]
    fn a_message_that_is_too_large_is_refused_by_its_header() {
        let mut assembler = FrameAssembler::default();
        assembler.push(&[0x00, 0x40, 0x00, 0x01, 0, 0, 0, 1, 1, 0]);
        assert_eq!(assembler.next_frame(), Err(TtrpcError::TooLarge { length: (4 << 20) + 1 }));
    }

    #[test]
    fn an_error_is_a_status_and_nothing_else() {
        let status = TtrpcStatus { code: UNIMPLEMENTED, message: "no".to_owned() };
        let mut assembler = FrameAssembler::default();
        assembler.push(&encode_answer(5, Err(status.clone())));
        let frame = assembler.next_frame().unwrap().unwrap();
        assert_eq!((frame.stream, frame.kind), (5, MessageKind::Response));
        let response = TtrpcResponse::decode(frame.data).unwrap();
        assert_eq!((response.status, response.payload.len()), (Some(status), 0));
    }

    proptest! {
        #[test]
        fn messages_arrive_in_order_however_they_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..6),
            cut in 1_usize..4000,
        ) {
            let bytes: Vec<u8> = (1..).zip(&payloads).flat_map(|(n, payload)| encode_answer(n, Ok(payload.clone()))).collect();
            let (mut assembler, mut got) = (FrameAssembler::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                assembler.push(piece);
                while let Some(frame) = assembler.next_frame().unwrap() {
                    got.push(TtrpcResponse::decode(frame.data).unwrap().payload);
                }
            }
            prop_assert_eq!(got, payloads);
        }

        #[test]
        fn any_bytes_are_messages_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut assembler = FrameAssembler::default();
            assembler.push(&bytes);
            let mut whole = 0;
            while let Ok(Some(frame)) = assembler.next_frame() {
                whole += HEADER + frame.data.len();
                let _either_way = TtrpcRequest::decode(frame.data);
            }
            prop_assert!(whole <= bytes.len());
        }
    }
}
