//! Divides records between requests.

use std::ops::Range;

use super::{Encoded, EncodedRequest, LeftOut, LeftOutReason, RequestRoom};

/// The most bytes of a request before compression, whatever room there is: far above what receivers accept.
const MOST_BYTES: usize = 128 << 20;

/// A request that is filled record by record.
pub(super) trait RequestBody {
    /// A state to return to.
    type Mark;

    /// The present state.
    fn mark(&mut self) -> Self::Mark;
    /// Removes everything that was added after a mark, which is the last one.
    fn roll_back(&mut self, mark: Self::Mark);
    /// Bytes of the body before compression, if it ended now; never less than it will have.
    fn body_len(&self) -> usize;
    /// The body, as it is sent. The next request starts empty.
    fn take_body(&mut self) -> EncodedBody;
}

/// A body, as it is sent.
pub(super) struct EncodedBody {
    pub(super) body: Vec<u8>,
    pub(super) content_type: &'static str,
    pub(super) content_encoding: Option<&'static str>,
}

/// Fills one request after the other.
#[derive(Debug)]
pub(super) struct RequestSplitter<B> {
    body: B,
    room: RequestRoom,
    encoded: Encoded,
    /// The first record that the present request covers.
    start: usize,
    /// How many records it has.
    held: usize,
    /// The next record.
    next: usize,
    /// The end of the records.
    end: usize,
}

impl<B: RequestBody> RequestSplitter<B> {
    pub(super) fn new(body: B, room: RequestRoom, records: Range<usize>) -> Self {
        let Range { start, end } = records;
        let room = RequestRoom { bytes: room.bytes.min(MOST_BYTES), ..room };
        Self { body, room, encoded: Encoded::default(), start, held: 0, next: start, end }
    }

    /// Leaves a record out.
    pub(super) fn leave_out(&mut self, record: usize, why: LeftOutReason) {
        self.advance_to(record);
        self.encoded.left_out.push(LeftOut { record, why });
        self.next = record + 1;
    }

    /// Passes over a record that needs nothing.
    pub(super) fn skip_record(&mut self, record: usize) {
        self.advance_to(record);
        self.next = record + 1;
    }

    /// Adds a record, for which `write` returns whether it wrote anything.
    pub(super) fn add_record(&mut self, record: usize, write: impl Fn(&mut B) -> bool) {
        self.advance_to(record);
        if self.held >= self.room.records.max(1) {
            self.end_request(record);
        }
        let why = match self.try_add(&write) {
            Err(LeftOutReason::TooLarge) if self.held > 0 => {
                self.end_request(record);
                self.try_add(&write).err()
            }
            tried => tried.err(),
        };
        match why {
            Some(why) => self.leave_out(record, why),
            None => {
                self.held += 1;
                self.next = record + 1;
            }
        }
    }

    fn try_add(&mut self, write: &impl Fn(&mut B) -> bool) -> Result<(), LeftOutReason> {
        let mark = self.body.mark();
        let why = match write(&mut self.body) {
            false => LeftOutReason::NoValue,
            true if self.body.body_len() > self.room.bytes => LeftOutReason::TooLarge,
            true => return Ok(()),
        };
        self.body.roll_back(mark);
        Err(why)
    }

    /// Records that were passed over without a word have no place in this dialect.
    fn advance_to(&mut self, record: usize) {
        let passed = (self.next..record).map(|record| LeftOut { record, why: LeftOutReason::Unsupported });
        self.encoded.left_out.extend(passed);
        self.next = self.next.max(record);
    }

    fn end_request(&mut self, at: usize) {
        if self.held > 0 {
            let EncodedBody { body, content_type, content_encoding } = self.body.take_body();
            let records = self.start..at;
            let held = self.held;
            self.encoded.requests.push(EncodedRequest {
                body,
                content_type,
                content_encoding,
                records,
                held,
            });
        }
        (self.start, self.held) = (at, 0);
    }

    pub(super) fn finish(mut self) -> Encoded {
        self.advance_to(self.end);
        self.end_request(self.end);
        self.encoded
    }
}
