//! Reading windows that were handed out once more, and counting those that were not yet.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::{BATCH, WindowFollower};
use crate::model::Timestamp;
use crate::publish::round::RoundRules;
use crate::store::{Cursor, Published};
use crate::window_log::{SequenceReader, SpooledWindow};

/// How long the log is waited for while windows are read again, and how often.
const SHORT_WAIT: Duration = Duration::from_millis(50);
const MOST_WAITS: u32 = 40;

impl WindowFollower {
    /// The windows that were handed out between two cursors, as far as they can still be had.
    pub(in crate::publish) fn read_again(&self, (from, to): (Cursor, Cursor)) -> Vec<Arc<Published>> {
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
    pub(in crate::publish) fn read_rounds(
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
        let Some(since) = self.recent.find_before(starts.iter().min().copied()) else { return windows };
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
    pub(in crate::publish) fn count_backlog(&self) -> Option<(u64, Cursor)> {
        let (from, store) = (self.handout.handed_cursor(), &self.source.store);
        let end = store.end_cursor();
        if from.epoch == end.epoch {
            return Some((end.seq.saturating_sub(from.seq.max(store.restored_place())), end));
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
}
