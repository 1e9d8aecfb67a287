//! How far a publisher is: what it is done with, what it was handed out, and what was dropped before it.

use super::PublisherHold;
use crate::store::Cursor;

/// How far a publisher is.
#[derive(Copy, Clone, Debug)]
pub(super) struct Progress {
    /// Files with windows after this place are kept for it.
    pub(super) hold: Cursor,
    /// Everything up to here is done with.
    done: Cursor,
    /// Everything up to here was handed out, unless it was dropped before.
    handed: Cursor,
    /// Everything up to here was handed out or dropped; at least `handed`.
    pub(super) taken: Cursor,
    /// What was dropped last ends here.
    dropped_through: Cursor,
    /// Records that were dropped before they were handed out.
    dropped: u64,
    /// Whether records are being counted as dropped, so that `taken` is not known yet.
    pub(super) is_counting: bool,
}

/// Which records of a file a publisher has not read, and which it may still need.
#[derive(Copy, Clone, Debug)]
pub(super) struct UnreadRecords {
    /// Records after this place are not handed out.
    pub(super) taken: Cursor,
    /// Records after the first and up to the second of these are handed out and not done with.
    pub(super) in_hand: (Cursor, Cursor),
}

impl Progress {
    /// Of a publisher that is done with everything up to a cursor.
    pub(super) const fn begin_at(cursor: Cursor) -> Self {
        Self {
            hold: cursor,
            done: cursor,
            handed: cursor,
            taken: cursor,
            dropped_through: Cursor { epoch: 0, seq: 0 },
            dropped: 0,
            is_counting: false,
        }
    }

    /// Starts again at a cursor, which may be before what was handed out. What was held is held until the publisher says
    /// otherwise.
    pub(super) fn restart_at(&mut self, cursor: Cursor) {
        let hold = self.hold.min(cursor);
        let (dropped, is_counting) = (self.dropped, self.is_counting);
        *self = Self { hold, dropped, is_counting, ..Self::begin_at(cursor) };
    }

    /// Is done with everything up to `done`, and needs what is after `hold`.
    pub(super) fn finish_through(&mut self, hold: Cursor, done: Cursor) {
        (self.hold, self.done) = (hold, done);
        self.handed = self.handed.max(done);
        self.taken = self.taken.max(done);
    }

    /// Hands out what is between two cursors. Returns whether it may: not if some of it was dropped.
    pub(super) fn hand_out(&mut self, before: Cursor, end: Cursor) -> bool {
        let may = !self.is_counting && self.taken <= before;
        if may {
            (self.handed, self.taken) = (end, end);
        }
        may
    }

    /// What the publisher misses of windows up to `last`, if anything. Nothing is handed out until that is counted.
    pub(super) fn begin_dropping(&mut self, last: Cursor) -> Option<UnreadRecords> {
        let from = self.done.max(self.dropped_through);
        if last <= from {
            return None;
        }
        self.is_counting = true;
        Some(UnreadRecords { taken: self.taken, in_hand: (from, self.handed) })
    }

    /// Notes that so many records that were not handed out are dropped, and everything up to `through` with them.
    pub(super) fn end_dropping(&mut self, records: u64, through: Cursor) {
        self.is_counting = false;
        self.dropped += records;
        self.taken = self.taken.max(through);
        self.dropped_through = self.dropped_through.max(through);
    }

    pub(super) fn describe_hold(&self, name: &str) -> PublisherHold {
        let Self { hold, taken, dropped, .. } = *self;
        PublisherHold { name: name.to_owned(), cursor: hold, taken, dropped }
    }
}

impl UnreadRecords {
    /// The first place that something is missed after.
    pub(super) fn from(&self) -> Cursor {
        self.taken.min(self.in_hand.0)
    }

    /// Whether a window that was born here was handed out and may be needed again.
    pub(super) fn is_in_hand(&self, birth: Cursor) -> bool {
        birth > self.in_hand.0 && birth <= self.in_hand.1
    }
}
