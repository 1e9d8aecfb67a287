//! Where a publisher reads closed windows from: memory, and the files of the window log for what memory no longer has.

mod again;
mod memory;
mod recent;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::recent::RecentCuts;
use super::cursor_file::Position;
use super::round::PlacedWindow;
use crate::model::Timestamp;
use crate::store::{Cursor, Published, Store};
use crate::window_log::{Spool, SpoolBatch, SpoolFollower, SpoolHandout, SpooledWindow};

/// Windows that are read at once.
const BATCH: usize = 512;

/// What publishers read from.
#[derive(Clone, Debug)]
pub(super) struct WindowSource {
    pub(super) store: Arc<Store>,
    pub(super) spool: Arc<Spool>,
    /// For how long after the end of a round parts of it may come that have to be merged with what was sent.
    pub(super) late_parts: Duration,
}

/// A publisher's reader of the node's sequence.
///
/// What it has read ahead is let go before a backend is waited for: windows that are not taken are the log's to keep or to give
/// up.
#[derive(Debug)]
pub(super) struct WindowFollower {
    source: WindowSource,
    handout: SpoolFollower,
    ahead: VecDeque<AheadWindow>,
    /// Records that are missing after the last window ahead.
    missed: u64,
    /// The end of what was read.
    read_to: Cursor,
    recent: RecentCuts,
}

/// A window that was read and not handed out.
#[derive(Debug)]
struct AheadWindow {
    window: SpooledWindow,
    /// Records that are missing before it.
    missed: u64,
}

/// How far reading got.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum ReadState {
    /// There may be more.
    More,
    /// This is everything.
    AtEnd,
    /// Something may come that cannot be read yet.
    Waiting,
}

/// Windows that are handed out.
#[derive(Debug)]
pub(super) struct TakenWindows {
    pub(super) windows: Vec<Arc<Published>>,
    /// The cursor after them.
    pub(super) to: Cursor,
    /// Records that are missing before and between them.
    pub(super) missed: u64,
}

impl WindowFollower {
    /// A reader that goes on at a position, for the publisher of this name.
    #[must_use]
    pub(super) fn new(source: WindowSource, publisher: &str, position: Position) -> Self {
        source.spool.hold_earlier(publisher, position.earlier, position.cursor);
        let handout = source.spool.follow_after(publisher, position.cursor);
        let recent = RecentCuts::new(source.late_parts, position);
        Self { source, handout, ahead: VecDeque::new(), missed: 0, read_to: position.cursor, recent }
    }

    /// Whether windows can be handed out. What was read ahead is void if some of it was dropped.
    pub(super) fn check_handout(&mut self) -> SpoolHandout {
        let before = self.handout.handed_cursor();
        let handout = self.handout.check_handout(&self.source.store);
        if handout != SpoolHandout::Open || self.handout.handed_cursor() != before {
            self.let_go();
        }
        handout
    }

    /// Reads ahead until there are this many records, or all that there are.
    ///
    /// # Errors
    /// When a file cannot be read. It is tried again, and left out in the end.
    pub(super) fn read_ahead(&mut self, records: usize) -> io::Result<ReadState> {
        let mut held: usize = self.ahead.iter().map(|ahead| ahead.window.published.window().len()).sum();
        while held < records {
            let SpoolBatch { windows, cursor, missed, is_waiting } =
                self.handout.read_ahead(&self.source.store, BATCH)?;
            if windows.is_empty() && missed == 0 {
                self.read_to = cursor;
                return Ok(if is_waiting { ReadState::Waiting } else { ReadState::AtEnd });
            }
            self.missed += missed;
            self.read_to = cursor;
            for window in windows {
                held += window.published.window().len();
                let missed = std::mem::take(&mut self.missed);
                self.ahead.push_back(AheadWindow { window, missed });
            }
        }
        Ok(ReadState::More)
    }

    /// What was read ahead of one run of the agent, so that it can be one cut.
    pub(super) fn placed_ahead(&self) -> impl Iterator<Item = PlacedWindow> {
        self.of_one_run().map(|ahead| {
            let window = ahead.window.published.window();
            PlacedWindow { span: window.span, records: window.len() }
        })
    }

    /// Whether windows of another run follow those that can be one cut.
    #[must_use]
    pub(super) fn has_whole_run(&self) -> bool {
        self.of_one_run().count() < self.ahead.len()
    }

    /// How many of the first windows ahead cannot come back with less in them after a kill: they are on the disk.
    pub(super) fn count_written(&self) -> usize {
        let (spool, epoch) = (&self.source.spool, self.source.store.epoch());
        if !spool.will_be_written() {
            return self.ahead.len();
        }
        let written = spool.written_cursor();
        self.of_one_run()
            .take_while(|ahead| ahead.window.birth.epoch < epoch || ahead.window.cursor <= written)
            .count()
    }

    fn of_one_run(&self) -> impl Iterator<Item = &AheadWindow> {
        let run = self.ahead.front().map(|ahead| ahead.window.birth.epoch);
        self.ahead.iter().take_while(move |ahead| Some(ahead.window.birth.epoch) == run)
    }

    /// Everything up to here was handed out, or dropped before.
    #[must_use]
    pub(super) fn handed_cursor(&self) -> Cursor {
        self.handout.handed_cursor()
    }

    /// Whether there is something between the last cut and what was read, be it that nothing of it exists any more.
    #[must_use]
    pub(super) fn is_past_last_cut(&self) -> bool {
        self.read_to > self.handout.handed_cursor()
    }

    /// Hands out the first windows ahead. `None` if some of them were dropped since.
    pub(super) fn take_windows(&mut self, count: usize) -> Option<TakenWindows> {
        let is_all = count >= self.ahead.len();
        let last = count.checked_sub(1).and_then(|last| self.ahead.get(last));
        let to = match last {
            Some(last) if !is_all => last.window.cursor,
            _ => self.read_to,
        };
        if !self.handout.hand_out_through(to) {
            self.let_go();
            return None;
        }
        let mut missed = if is_all { std::mem::take(&mut self.missed) } else { 0 };
        let taken = self.ahead.drain(..count.min(self.ahead.len()));
        let windows = taken.map(|ahead| {
            missed += ahead.missed;
            ahead.window.published
        });
        Some(TakenWindows { windows: windows.collect(), to, missed })
    }

    /// Hands out what was handed out to the task before. Returns whether all of it is still there.
    pub(super) fn hand_out_again(&mut self, to: Cursor) -> bool {
        let is_there = self.handout.hand_out_through(to);
        self.let_go();
        is_there
    }

    /// Forgets what was read ahead. It is read again.
    pub(super) fn let_go(&mut self) {
        self.ahead = VecDeque::new();
        self.missed = 0;
        self.handout.let_go();
        self.read_to = self.handout.handed_cursor();
    }

    /// Is done with a cut, whose last round ends at `newest_end`. Returns the place after which windows are still held, because
    /// parts of their rounds may come.
    pub(super) fn finish_cut(
        &mut self,
        publisher: &str,
        from: Cursor,
        newest_end: Option<Timestamp>,
    ) -> Cursor {
        let newest = self.recent.note_cut(from, newest_end);
        self.release_rounds(publisher, newest)
    }

    /// Holds windows no longer whose rounds get no more parts at this time, or where everything up to this time was sent.
    /// Returns the place after which windows are still held.
    pub(super) fn release_rounds(&mut self, publisher: &str, now: Timestamp) -> Cursor {
        let done = self.handout.handed_cursor();
        let earlier = self.recent.release_before(now, done);
        self.source.spool.hold_earlier(publisher, earlier, done);
        earlier
    }
}
