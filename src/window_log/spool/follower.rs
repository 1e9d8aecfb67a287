//! Following the node's sequence for one publisher: what it is handed out is its own, and what was dropped before that is counted.

use std::io;
use std::sync::Arc;

use super::progress::Progress;
use super::sequence::{SequenceReader, SpoolBatch};
use super::{Spool, SpoolState};
use crate::store::{Cursor, Store};

/// Hands out every window after a cursor, each once and in the order of births, to one publisher. What was handed out comes again
/// only after a new start at an earlier cursor, and not if it was dropped meanwhile.
#[derive(Debug)]
pub struct SpoolFollower {
    publisher: String,
    /// Everything up to here was handed out.
    handed: Cursor,
    spool: Arc<Spool>,
    reader: SequenceReader,
}

/// Whether windows can be handed out.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SpoolHandout {
    /// What was read is still there to be handed out.
    Open,
    /// Everything up to this place was dropped since. What was read is void; reading goes on after it.
    DroppedThrough(Cursor),
    /// Not now: windows are being dropped, or the publisher has left.
    Closed,
}

impl Spool {
    /// Follows the sequence for a publisher from a cursor on, which also holds the files after it. Cursors of earlier runs of
    /// the agent are good; one before everything that is kept starts with the oldest window.
    #[must_use]
    pub fn follow_after(self: &Arc<Self>, publisher: &str, cursor: Cursor) -> SpoolFollower {
        self.lock().restart_publisher(publisher, cursor);
        let reader = self.read_after(cursor);
        SpoolFollower { publisher: publisher.to_owned(), handed: cursor, spool: Arc::clone(self), reader }
    }
}

impl SpoolFollower {
    /// Everything up to here was handed out, or dropped before.
    #[must_use]
    pub fn handed_cursor(&self) -> Cursor {
        self.handed
    }

    /// Whether windows can be handed out. Asked before each reading ahead.
    pub fn check_handout(&mut self, store: &Store) -> SpoolHandout {
        self.leave_foreign_cursor(store);
        let progress = self.spool.lock().publishers.get(&self.publisher).copied();
        match progress {
            Some(Progress { taken, is_counting: false, .. }) if taken > self.handed => {
                self.handed = taken;
                self.let_go();
                SpoolHandout::DroppedThrough(taken)
            }
            Some(Progress { is_counting: false, .. }) => SpoolHandout::Open,
            _ => SpoolHandout::Closed,
        }
    }

    /// Reads the next windows, at most `most`, without handing them out; none if there is nothing new. Reads files, so that it
    /// may wait for a disk.
    ///
    /// # Errors
    /// When a file cannot be read. Later calls try again, and leave it out in the end.
    pub fn read_ahead(&mut self, store: &Store, most: usize) -> io::Result<SpoolBatch> {
        self.reader.read_windows(store, most)
    }

    /// Hands out everything up to a cursor, which was read. Returns whether it may be used: not if some of it was dropped since.
    pub fn hand_out_through(&mut self, cursor: Cursor) -> bool {
        let taken = self.spool.lock().hand_out(&self.publisher, self.handed, cursor);
        if taken {
            self.handed = cursor;
        }
        taken
    }

    /// Forgets what was read and not handed out: it is read again.
    pub fn let_go(&mut self) {
        self.reader = self.spool.read_after(self.handed);
    }

    /// Starts with this run of the agent if the cursor is none of this agent: its state directory was replaced, or the file of the
    /// cursor was changed.
    fn leave_foreign_cursor(&mut self, store: &Store) {
        if self.handed.epoch < store.epoch() || self.handed <= store.end_cursor() {
            return;
        }
        let start = Cursor { epoch: store.epoch(), seq: 0 };
        tracing::warn!(publisher = self.publisher, cursor = %self.handed, "this cursor was never given out; publishing starts with what this run of the agent has");
        self.spool.lock().restart_publisher(&self.publisher, start);
        self.handed = start;
        self.let_go();
    }
}

impl SpoolState {
    /// Starts a publisher at a cursor, which may be before what it has read.
    fn restart_publisher(&mut self, publisher: &str, cursor: Cursor) {
        let progress =
            self.publishers.entry(publisher.to_owned()).or_insert_with(|| Progress::begin_at(cursor));
        progress.restart_at(cursor);
    }

    /// Hands out to a publisher what is between two cursors. Returns whether it may be used.
    fn hand_out(&mut self, publisher: &str, before: Cursor, end: Cursor) -> bool {
        self.publishers.get_mut(publisher).is_some_and(|progress| progress.hand_out(before, end))
    }
}
