//! What a publisher sends next: the windows that are due, on the disk, and not dropped by the spool.

use super::cut::Cut;
use super::{CUT_RECORDS, LOG_PATIENCE, PublisherTask, SOON, Woken};
use crate::model::Timestamp;
use crate::publish::follow::{ReadState, TakenWindows};
use crate::publish::round::PlacedWindow;
use crate::publish::tally::{Fate, SPOOL};
use crate::store::Cursor;
use crate::window_log::SpoolHandout;

impl PublisherTask {
    /// Counts what is left to send, for a publisher that begins in this process. What earlier runs of the agent have left is in
    /// files. Returns whether it is to go on.
    pub(super) async fn begin_counting(&mut self) -> bool {
        while self.status.values().position.is_none() {
            if self.count_lost() {
                self.count_backlog();
            }
            if self.status.values().position.is_none()
                && self.wait(SOON, None).await == Woken::Stopped
                && self.is_told_to_end_at_once()
            {
                return false;
            }
        }
        true
    }

    pub(super) fn count_backlog(&mut self) {
        let Some((left, end)) = self.follower.count_backlog() else { return };
        let position = self.position;
        self.status.update_with(|status| {
            // What was lost is counted already.
            let lost = status.tally.sum();
            (status.position, status.begun) = (Some(position), Some(position.cursor));
            (status.backlog, status.counted_from) = (left + lost, end.seq);
        });
    }

    /// Counts what the spool has dropped before this publisher. Returns whether windows can be handed out.
    pub(super) fn count_lost(&mut self) -> bool {
        let handout = self.follower.check_handout();
        if handout == SpoolHandout::Closed {
            return false;
        }
        if let Some((position, records)) = self.place.count_lost() {
            self.position = position;
            self.status.update_with(|status| {
                status.position = status.position.map(|_| position);
                status.tally.add(Fate::Dropped(SPOOL), records);
            });
        }
        // Nothing is in hand, so everything before is done with.
        self.position.cursor = self.position.cursor.max(self.follower.handed_cursor());
        true
    }

    /// The next windows to send, or when there may be some.
    pub(super) fn next_cut(&mut self, now: Timestamp, flushing: bool) -> Result<Cut, Option<Timestamp>> {
        let soon = Err(Some(now.saturating_add(SOON)));
        let mut wanted = CUT_RECORDS;
        loop {
            if !self.count_lost() {
                return soon;
            }
            let read = match self.follower.read_ahead(wanted) {
                Ok(read) => read,
                Err(error) => {
                    let name = &self.config.name;
                    tracing::warn!(publisher = name, %error, "the window log cannot be read; trying again");
                    return soon;
                }
            };
            let placed: Vec<_> = self.follower.placed_ahead().collect();
            let due = match flushing {
                // Nothing comes any more, so nothing is waited for.
                true => placed.len(),
                false => match self.rules().count_due(placed.iter().copied(), now) {
                    Ok(due) => due,
                    // All of them are gone.
                    Err(None) if placed.is_empty() && self.follower.is_past_last_cut() => 0,
                    Err(None) if read == ReadState::Waiting => return soon,
                    Err(due) => return Err(due),
                },
            };
            if due == placed.len() && read == ReadState::More && !self.follower.has_whole_run() {
                wanted += CUT_RECORDS;
                continue;
            }
            let taken = self.limit_to_written(due, &placed, now);
            match placed.is_empty() {
                true if !self.follower.is_past_last_cut() => {
                    return if read == ReadState::Waiting { soon } else { Err(None) };
                }
                false if taken == 0 => return soon,
                _ => {}
            }
            let from = self.follower.handed_cursor();
            // Otherwise some of them were dropped since.
            if let Some(windows) = self.follower.take_windows(taken) {
                return Ok(self.begin_cut(from, windows));
            }
        }
    }

    /// How many of the windows that are due are sent now: only what is on the disk, because a window that was not would come back
    /// after a kill with less in it.
    pub(super) fn limit_to_written(&self, due: usize, placed: &[PlacedWindow], now: Timestamp) -> usize {
        let written = self.follower.count_written();
        match placed.get(written) {
            Some(first) if written < due => {
                let rules = self.rules();
                let should_be = rules.round_end(first.span).saturating_add(rules.settle + LOG_PATIENCE);
                if should_be < now {
                    return due;
                }
                // Of a round that cannot get another part, or is to share requests, nothing is sent before everything is there.
                let is_whole = self.adds_up() || !rules.batch.is_zero();
                let batch_of = |window: &PlacedWindow| rules.batch_start(rules.round_start(window.span));
                let is_before = |window: &PlacedWindow| !is_whole || batch_of(window) < batch_of(first);
                placed.iter().take(written).rposition(is_before).map_or(0, |last| last + 1)
            }
            _ => due,
        }
    }

    pub(super) fn begin_cut(&mut self, from: Cursor, windows: TakenWindows) -> Cut {
        let rules = self.rules();
        let oldest_due = windows.windows.iter().map(|window| rules.batch_end(window.window().span)).min();
        self.status.update_with(|status| status.oldest_due = oldest_due);
        Cut::new(from, windows)
    }
}
