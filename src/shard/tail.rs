//! Lines for a reader that tails a container: which of them it wants, and how much memory they may take while they wait
//! for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::{Glob, Timestamp};
use crate::statsd::{Rejected, has_written_name};

/// Maximum bytes of lines that wait in one tail.
const OF_ONE: usize = 1 << 20;
/// Maximum bytes of lines that wait in all tails of the node together.
const OF_ALL: usize = 16 << 20;
/// Memory that a waiting line takes in addition to its text, in bytes.
const OVERHEAD: usize = 256;

/// Which lines a reader wants. The shard applies it, so that a reader loses no line because of others that it does not
/// want.
#[derive(Clone, Debug, Default)]
pub struct LineFilter {
    /// Patterns for the name in a line; all of them must match.
    pub names: Vec<Glob>,
    /// Only rejected lines, or only accepted ones.
    pub rejected: Option<bool>,
}

impl LineFilter {
    /// Whether the reader wants a line.
    pub(super) fn matches_line(&self, line: &[u8], rejected: bool) -> bool {
        self.rejected.is_none_or(|wanted| wanted == rejected)
            && (self.names.is_empty() || self.has_names(line))
    }

    fn has_names(&self, line: &[u8]) -> bool {
        self.names.iter().all(|glob| has_written_name(line, |name| glob.is_match(name)))
    }
}

/// The usage of one tail's own bound, and of the bound that all tails share.
#[derive(Clone, Debug)]
pub struct TailRoom {
    own: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

impl TailRoom {
    /// The room of a new tail; `all` is the shared usage of all tails.
    pub(super) fn with_shared_bound(all: &Arc<AtomicUsize>) -> Self {
        Self { own: Arc::default(), all: Arc::clone(all) }
    }

    /// Reserves room for a line of this many bytes until the result is dropped. `None` if a bound is reached.
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
    /// The number of lines dropped before it for lack of room.
    pub lost: u64,
    /// The share of the tail's and the node's bounds that it occupies while it waits.
    pub(super) _room: TakenRoom,
}

/// Room that is reserved for a waiting line.
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

    fn wants(names: &[&str], rejected: Option<bool>, line: &[u8], is_rejected: bool) -> bool {
        let names = names.iter().map(|name| Glob::new(name)).collect();
        LineFilter { names, rejected }.matches_line(line, is_rejected)
    }

    #[test]
    fn a_reader_gets_the_lines_of_the_names_that_it_wants() {
        for line in [
            &b"hits:1|c"[..],
            b"hits:x|c",
            b"hits",
            b"hits|c",
            b"hits=1|c",
            b"hits,route=/pay:1|c",
            b"hits#a=b:1|c",
        ] {
            let text = String::from_utf8_lossy(line);
            assert!(wants(&["hits"], None, line, true) && wants(&["h*", "*s"], None, line, false), "{text}");
            assert!(!wants(&["hit"], None, line, true) && !wants(&["h*", "x*"], None, line, false), "{text}");
        }
        assert!(wants(&["db"], None, b"_sc|db|1|m:down", false));
        assert!(wants(&["deploy"], None, b"_e{6,2}:deploy|up", false));
        assert!(wants(&[], None, b"anything", false));
    }

    #[test]
    fn a_rejected_line_whose_name_cannot_be_read_is_compared_as_it_is() {
        for line in [&b""[..], b":", b"|", b"_e{", b"_sc|", b"\xff\xfe:1|c", b"_e{5:x"] {
            assert!(wants(&["*"], Some(true), line, true), "{line:?}");
            assert!(!wants(&["hits"], None, line, true), "{line:?}");
        }
        assert!(wants(&["\u{fffd}*"], None, b"\xffx:1|c", true));
    }

    #[test]
    fn a_reader_gets_the_lines_of_the_outcome_that_it_wants() {
        for outcome in [false, true] {
            assert!(wants(&[], Some(outcome), b"a:1|c", outcome) && wants(&[], None, b"a:1|c", outcome));
            assert!(!wants(&[], Some(!outcome), b"a:1|c", outcome));
        }
    }

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
