//! Splits a round into request bodies that fit their room.

use std::ops::Range;

use super::{Encoded, EncodedRequest, LeftOut, LeftOutReason, RequestRoom, Round, RoundRecord};

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
    let mut splitter = Splitter::new(range.start, room, format);
    let mut encoded_record = Vec::new();
    for (index, record) in round.records.iter().enumerate().take(range.end).skip(range.start) {
        encoded_record.clear();
        let done = encode(record, &mut encoded_record).and_then(|()| splitter.push(index, &encoded_record));
        if let Err(why) = done {
            splitter.encoded.left_out.push(LeftOut { record: index, why });
        }
    }
    splitter.finish(range.end)
}

/// Bodies being written.
struct Splitter {
    format: BodyFormat,
    room: RequestRoom,
    encoded: Encoded,
    body: Vec<u8>,
    /// The first record that the body covers, and how many are in it.
    start: usize,
    held: usize,
}

impl Splitter {
    fn new(start: usize, room: RequestRoom, format: BodyFormat) -> Self {
        let room = RequestRoom { records: room.records.max(1), ..room };
        Self { format, room, encoded: Encoded::default(), body: Vec::new(), start, held: 0 }
    }

    /// Adds an encoded record to the body, or to a new one if it is full.
    fn push(&mut self, index: usize, record: &[u8]) -> Result<(), LeftOutReason> {
        let Framing { open, between, close } = self.format.framing;
        if open.len() + record.len() + close.len() > self.room.bytes {
            return Err(LeftOutReason::TooLarge);
        }
        let grown = self.body.len() + between.len() + record.len() + close.len();
        if self.held > 0 && (grown > self.room.bytes || self.held >= self.room.records) {
            self.end_body(index);
        }
        let before = if self.held == 0 { open } else { between };
        self.body.extend_from_slice(before.as_bytes());
        self.body.extend_from_slice(record);
        self.held += 1;
        Ok(())
    }

    fn end_body(&mut self, end: usize) {
        self.body.extend_from_slice(self.format.framing.close.as_bytes());
        self.encoded.requests.push(EncodedRequest {
            body: std::mem::take(&mut self.body),
            content_type: self.format.content_type,
            content_encoding: None,
            records: self.start..end,
            held: std::mem::take(&mut self.held),
        });
        self.start = end;
    }

    fn finish(mut self, end: usize) -> Encoded {
        if self.held > 0 {
            self.end_body(end);
        }
        self.encoded
    }
}
