//! Lines for a reader that tails a container, and how much memory they may take while they wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::Timestamp;
use crate::statsd::Rejected;

/// Bytes of lines that may wait for one tail.
const OF_ONE: usize = 1 << 20;
/// Bytes of lines that may wait for all tails of the node together.
const OF_ALL: usize = 16 << 20;
/// What a waiting line takes beside its text.
const OVERHEAD: usize = 256;

/// What one tail's lines take of its own bound, and of the bound that all tails share.
#[derive(Clone, Debug)]
pub struct TailRoom {
    own: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

impl TailRoom {
    /// The room of a tail beside others, which count in `all`.
    pub(super) fn with_shared_bound(all: &Arc<AtomicUsize>) -> Self {
        Self { own: Arc::default(), all: Arc::clone(all) }
    }

    /// Takes room for a line of so many bytes, until what is returned is dropped. Nothing where a bound is reached.
    pub(super) fn reserve_line(&self, line: usize) -> Option<TakenRoom> {
        let bytes = line.saturating_add(OVERHEAD);
        let take = |of: &AtomicUsize, most: usize| {
            let more = |taken: usize| taken.checked_add(bytes).filter(|taken| *taken <= most);
            of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        };
        if !take(&self.own, OF_ONE) {
            return None;
        }
        if !take(&self.all, OF_ALL) {
            self.own.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(TakenRoom { room: self.clone(), bytes })
    }
}

/// One line of a container, for a reader that tails it.
#[derive(Debug)]
pub struct TappedLine {
    /// When it came.
    pub at: Timestamp,
    pub line: Vec<u8>,
    /// Why it was rejected, if it was.
    pub rejected: Option<Rejected>,
    /// Lines before it that there was no room for.
    pub lost: u64,
    /// What it takes of the bounds of tails while it waits.
    pub(super) _room: TakenRoom,
}

/// Room that a waiting line has taken.
#[derive(Debug)]
pub(super) struct TakenRoom {
    room: TailRoom,
    bytes: usize,
}

impl Drop for TakenRoom {
    fn drop(&mut self) {
        self.room.own.fetch_sub(self.bytes, Ordering::Relaxed);
        self.room.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_takes_no_more_than_its_bound_and_all_tails_no_more_than_theirs() {
        let all = Arc::default();
        let line = 60_000;
        let fill = |room: &TailRoom| std::iter::from_fn(|| room.reserve_line(line)).collect::<Vec<_>>();
        let mut taken = Vec::new();
        for n in 0..OF_ALL / OF_ONE {
            let of_one = fill(&TailRoom::with_shared_bound(&all));
            assert_eq!(of_one.len(), OF_ONE / (line + OVERHEAD), "tail {n}");
            taken.push(of_one);
        }
        // What the bounds of single tails have left of the common one.
        let rest: Vec<_> = (0..3).map(|_| fill(&TailRoom::with_shared_bound(&all))).collect();
        assert_eq!(all.load(Ordering::Relaxed) / (line + OVERHEAD), OF_ALL / (line + OVERHEAD));
        let another = TailRoom::with_shared_bound(&all);
        assert!(another.reserve_line(line).is_none());
        assert_eq!(another.own.load(Ordering::Relaxed), 0, "a line that is refused takes nothing");
        drop((taken, rest));
        assert_eq!(all.load(Ordering::Relaxed), 0);
        assert!(another.reserve_line(line).is_some());
    }
}
