//! Bodies that are records one after the other, with a framing around and between them.

use std::ops::Range;

use super::split::{EncodedBody, RequestBody, RequestSplitter};
use super::{Encoded, LeftOutReason, RequestRoom, Round, RoundRecord};

/// The bytes around the records of a body, and between them.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Framing {
    open: &'static str,
    between: &'static str,
    close: &'static str,
}

/// What all bodies of a dialect have in common.
#[derive(Copy, Clone, Debug)]
pub(super) struct BodyFormat {
    pub(super) content_type: &'static str,
    pub(super) framing: Framing,
}

impl Framing {
    /// Records that need nothing around them: lines, or fields of a protobuf message.
    pub const BARE: Self = Self { open: "", between: "", close: "" };

    pub(super) const fn new(open: &'static str, between: &'static str, close: &'static str) -> Self {
        Self { open, between, close }
    }

    /// One body with the records of several, each of which has this framing: for sending several rounds at once.
    #[must_use]
    pub fn join<'b>(&self, bodies: impl IntoIterator<Item = &'b [u8]>) -> Vec<u8> {
        let mut joined = self.open.as_bytes().to_vec();
        for body in bodies {
            if joined.len() > self.open.len() {
                joined.extend_from_slice(self.between.as_bytes());
            }
            let inner = body.strip_prefix(self.open.as_bytes()).unwrap_or(body);
            joined.extend_from_slice(inner.strip_suffix(self.close.as_bytes()).unwrap_or(inner));
        }
        joined.extend_from_slice(self.close.as_bytes());
        joined
    }
}

/// Encodes a range of a round's records, one after another, in as many bodies as they need. `encode` appends one record; what
/// it appended before it refused the record is discarded.
pub(super) fn split_records<'a>(
    round: &Round<'a>,
    records: Range<usize>,
    room: RequestRoom,
    format: BodyFormat,
    mut encode: impl FnMut(&RoundRecord<'a>, &mut Vec<u8>) -> Result<(), LeftOutReason>,
) -> Encoded {
    let range = records.start.min(round.records.len())..records.end.min(round.records.len());
    let mut splitter = RequestSplitter::new(FramedBody::new(format), room, range.clone());
    let mut encoded_record = Vec::new();
    for (index, record) in round.records.iter().enumerate().take(range.end).skip(range.start) {
        encoded_record.clear();
        let encoded = encode(record, &mut encoded_record);
        // One that would not fit alone ends no request.
        match encoded.and_then(|()| format.check_size(&encoded_record, room)) {
            Ok(()) => splitter.add_record(index, |body| body.push_record(&encoded_record)),
            Err(why) => splitter.leave_out(index, why),
        }
    }
    splitter.finish()
}

impl BodyFormat {
    fn check_size(&self, record: &[u8], room: RequestRoom) -> Result<(), LeftOutReason> {
        let Framing { open, close, .. } = self.framing;
        let alone = open.len() + record.len() + close.len();
        if alone > room.bytes { Err(LeftOutReason::TooLarge) } else { Ok(()) }
    }
}

/// A body of records with their framing.
struct FramedBody {
    format: BodyFormat,
    bytes: Vec<u8>,
}

impl FramedBody {
    const fn new(format: BodyFormat) -> Self {
        Self { format, bytes: Vec::new() }
    }

    fn push_record(&mut self, record: &[u8]) -> bool {
        let Framing { open, between, .. } = self.format.framing;
        let before = if self.bytes.is_empty() { open } else { between };
        self.bytes.extend_from_slice(before.as_bytes());
        self.bytes.extend_from_slice(record);
        true
    }
}

impl RequestBody for FramedBody {
    /// The number of bytes.
    type Mark = usize;

    fn mark(&mut self) -> usize {
        self.bytes.len()
    }

    fn roll_back(&mut self, mark: usize) {
        self.bytes.truncate(mark);
    }

    fn body_len(&self) -> usize {
        self.bytes.len() + self.format.framing.close.len()
    }

    fn take_body(&mut self) -> EncodedBody {
        let BodyFormat { content_type, framing } = self.format;
        let mut body = std::mem::take(&mut self.bytes);
        body.extend_from_slice(framing.close.as_bytes());
        EncodedBody { body, content_type, content_encoding: None }
    }
}
