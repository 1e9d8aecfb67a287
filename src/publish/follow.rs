//! Where a publisher reads closed windows from: memory, and the files of the window log for what memory no longer has.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::cursor_file::Position;
use super::round::{PlacedWindow, RoundRules};
use crate::model::Timestamp;
use crate::render::prometheus::{Level, MarksOfAll, SeriesIdentity};
use crate::store::{Cursor, Published, Store};
use crate::window_log::{SequenceReader, Spool, SpoolBatch, SpoolFollower, SpoolHandout, SpooledWindow};

/// Windows that are read at once.
const BATCH: usize = 512;
/// How long the log is waited for while windows are read again, and how often.
const SHORT_WAIT: Duration = Duration::from_millis(50);
const MOST_WAITS: u32 = 40;

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
    /// Where cuts began of which parts may still come, and the end of their last round; oldest first.
    recent: VecDeque<(Cursor, Timestamp)>,
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
        let recent = position.through.map(|through| (position.earlier, through));
        Self {
            source,
            handout,
            ahead: VecDeque::new(),
            missed: 0,
            read_to: position.cursor,
            recent: recent.into_iter().collect(),
        }
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
        self.recent.extend(newest_end.map(|end| (from, end)));
        let newest = self.recent.iter().map(|(_, end)| *end).max();
        self.release_rounds(publisher, newest.unwrap_or_default())
    }

    /// Holds windows no longer whose rounds get no more parts at this time, or where everything up to this time was sent.
    /// Returns the place after which windows are still held.
    pub(super) fn release_rounds(&mut self, publisher: &str, now: Timestamp) -> Cursor {
        while let Some((_, end)) = self.recent.front()
            && end.saturating_add(self.source.late_parts) < now
        {
            self.recent.pop_front();
        }
        let done = self.handout.handed_cursor();
        let earlier = self.recent.iter().map(|(from, _)| *from).min().unwrap_or(done).min(done);
        self.source.spool.hold_earlier(publisher, earlier, done);
        earlier
    }

    /// The windows that were handed out between two cursors, as far as they can still be had.
    pub(super) fn read_again(&self, (from, to): (Cursor, Cursor)) -> Vec<Arc<Published>> {
        let mut windows = Vec::new();
        let mut reader = self.source.spool.read_after(from);
        while reader.read_position() < to {
            let Some(batch) = self.read_batch(&mut reader) else { break };
            let within = batch.into_iter().filter(|window| window.birth <= to);
            windows.extend(within.map(|window| window.published));
        }
        windows
    }

    /// The next windows of a reader; `None` at the end. Waits for what the log brings in a moment: there is nothing else to do.
    fn read_batch(&self, reader: &mut SequenceReader) -> Option<Vec<SpooledWindow>> {
        for _ in 0..MOST_WAITS {
            match reader.read_windows(&self.source.store, BATCH) {
                Ok(batch) if batch.is_waiting => std::thread::sleep(SHORT_WAIT),
                Ok(batch) if batch.windows.is_empty() && batch.missed == 0 => return None,
                Ok(batch) => return Some(batch.windows),
                // The reader leaves out what cannot be read.
                Err(error) => tracing::debug!(%error, "a file of the window log cannot be read"),
            }
        }
        None
    }

    /// The other windows of rounds that start at one of these moments: those that were handed out before a cut, and those that
    /// memory has after it.
    pub(super) fn read_rounds(
        &self,
        rules: &RoundRules,
        starts: &[Timestamp],
        (from, to): (Cursor, Cursor),
    ) -> Vec<Arc<Published>> {
        let epoch = self.source.store.epoch();
        let is_wanted = |published: &Published| starts.contains(&rules.round_start(published.window().span));
        let mut windows = self.source.store.kept_after(0);
        windows.retain(|published| {
            let birth = published.birth_in(epoch);
            (birth <= from || birth > to) && is_wanted(published)
        });
        let oldest = starts.iter().min();
        let since = self.recent.iter().find(|(_, end)| oldest.is_some_and(|oldest| end > oldest));
        let Some((since, _)) = since.copied().or(self.recent.front().copied()) else { return windows };
        if self.source.store.some_since_of(since, 1, |_| true).is_ok() {
            return windows;
        }
        // Memory has lost some of them. The files are held.
        let known: HashSet<_> = windows.iter().map(|published| published.birth_in(epoch)).collect();
        let mut reader = self.source.spool.read_after(since);
        while reader.read_position() < from {
            let Some(batch) = self.read_batch(&mut reader) else { break };
            let wanted = batch.into_iter().filter(|window| {
                window.birth <= from && !known.contains(&window.birth) && is_wanted(&window.published)
            });
            windows.extend(wanted.map(|window| window.published));
        }
        windows
    }

    /// Counts the records after the last cut, and where they end. `None` if they cannot all be read yet.
    pub(super) fn count_backlog(&self) -> Option<(u64, Cursor)> {
        let (from, store) = (self.handout.handed_cursor(), &self.source.store);
        let end = store.end_cursor();
        if from.epoch == end.epoch {
            return Some((end.seq.saturating_sub(from.seq), end));
        }
        let mut reader = self.source.spool.read_after(from);
        let mut records = 0;
        loop {
            match reader.read_windows(store, BATCH) {
                Ok(batch) if batch.is_waiting => return None,
                Ok(batch) => {
                    let windows = batch.windows.iter();
                    let read = windows.map(|window| window.published.window().len() as u64).sum::<u64>();
                    records += read + batch.missed;
                    if read + batch.missed == 0 {
                        return Some((records, batch.cursor));
                    }
                }
                Err(error) => tracing::debug!(%error, "a file of the window log cannot be read"),
            }
        }
    }

    /// The windows in memory that were handed out.
    #[must_use]
    pub(super) fn read_kept(&self, through: Cursor) -> Vec<Arc<Published>> {
        let (store, mut windows) = (&self.source.store, self.source.store.kept_after(0));
        windows.retain(|published| published.birth_in(store.epoch()) <= through);
        windows
    }

    /// All windows in memory.
    #[must_use]
    pub(super) fn read_all_kept(&self) -> Vec<Arc<Published>> {
        self.source.store.kept_after(0)
    }

    /// The identities of containers that are served, and of those of which windows are left. `None` if it takes more than memory to
    /// tell.
    #[must_use]
    pub(super) fn read_live_identities(&self, level: Level) -> Option<HashSet<SeriesIdentity>> {
        let store = &self.source.store;
        // In this order: a container that ends meanwhile has published its last window before.
        let served = store.served_origins();
        let left = store.read_since(self.handout.handed_cursor()).ok()?.published;
        let origins = served.iter().chain(left.iter().map(|published| published.origin()));
        Some(origins.map(|origin| SeriesIdentity::from_origin(origin, level)).collect())
    }

    /// The names that carry a mark.
    #[must_use]
    pub(super) fn read_marks(&self, level: Level) -> MarksOfAll {
        self.source.store.snapshot_at_level(level).2
    }

    /// Subscribes to the newest place in the sequence.
    #[must_use]
    pub(super) fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        self.source.store.subscribe()
    }

    /// The number of this run of the agent.
    #[must_use]
    pub(super) fn epoch(&self) -> u64 {
        self.source.store.epoch()
    }
}
