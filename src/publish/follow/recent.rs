//! From where on windows are held because rounds that were sent may get another part.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::Timestamp;
use crate::publish::cursor_file::Position;
use crate::store::Cursor;

/// The cuts of which parts may still come.
#[derive(Debug)]
pub(super) struct RecentCuts {
    /// For how long after the end of a round parts of it may come.
    late_parts: Duration,
    /// Where each began, and the end of its last round; in the order in which they were sent.
    cuts: VecDeque<(Cursor, Timestamp)>,
}

impl RecentCuts {
    /// Goes on where a publisher was: all that it held is taken for one cut.
    pub(super) fn new(late_parts: Duration, position: Position) -> Self {
        let held = position.through.map(|through| (position.earlier, through));
        Self { late_parts, cuts: held.into_iter().collect() }
    }

    /// Notes a cut that is sent, if parts of it may come. Returns the end of the newest round.
    pub(super) fn note_cut(&mut self, from: Cursor, newest_end: Option<Timestamp>) -> Timestamp {
        self.cuts.extend(newest_end.map(|end| (from, end)));
        self.cuts.iter().map(|(_, end)| *end).max().unwrap_or_default()
    }

    /// Forgets the cuts of which no part comes any more at this time. Returns the place after which windows are held, for a
    /// publisher that was handed out everything up to `done`.
    pub(super) fn release_before(&mut self, now: Timestamp, done: Cursor) -> Cursor {
        while let Some((_, end)) = self.cuts.front()
            && end.saturating_add(self.late_parts) < now
        {
            self.cuts.pop_front();
        }
        self.cuts.iter().map(|(from, _)| *from).min().unwrap_or(done).min(done)
    }

    /// A place before all windows of rounds that start at this moment or later; the earliest that is held, if that is not known.
    pub(super) fn find_before(&self, start: Option<Timestamp>) -> Option<Cursor> {
        let of_start = self.cuts.iter().find(|(_, end)| start.is_some_and(|start| *end > start));
        of_start.or(self.cuts.front()).map(|(from, _)| *from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seq: u64) -> Cursor {
        Cursor { epoch: 3, seq }
    }

    fn time(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_767_225_600 + secs)
    }

    fn cuts(earlier: u64, through: Option<Timestamp>) -> RecentCuts {
        let position = Position { cursor: at(100), earlier: at(earlier), through, sending: None };
        RecentCuts::new(Duration::from_secs(40), position)
    }

    #[test]
    fn windows_are_held_from_the_oldest_cut_on_of_which_a_part_may_come() {
        let mut recent = cuts(100, None);
        assert_eq!(
            (recent.find_before(Some(time(0))), recent.release_before(time(0), at(100))),
            (None, at(100))
        );
        // The second cut has only a late part of an earlier round.
        for (from, end, newest) in [(100, 10, 10), (150, 0, 10), (170, 20, 20)] {
            assert_eq!(recent.note_cut(at(from), Some(time(end))), time(newest));
        }
        assert_eq!(recent.note_cut(at(200), None), time(20), "of it no part can come");
        assert_eq!(recent.release_before(time(50), at(210)), at(100), "until after the time for late parts");
        assert_eq!(recent.release_before(time(51), at(210)), at(170), "the second has been over for longer");
        assert_eq!(recent.release_before(time(61), at(210)), at(210));
    }

    #[test]
    fn a_round_is_looked_for_in_the_first_cut_that_ends_after_its_start() {
        let mut recent = cuts(70, Some(time(10)));
        recent.note_cut(at(100), Some(time(20)));
        let found = |start| recent.find_before(Some(time(start)));
        assert_eq!([found(0), found(9), found(10), found(19)], [at(70), at(70), at(100), at(100)].map(Some));
        assert_eq!([found(20), recent.find_before(None)], [Some(at(70)); 2], "everything that is held");
    }
}
