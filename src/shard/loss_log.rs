//! How many log lines a second the losses of all containers may take.

use std::sync::{Mutex, PoisonError};

/// Lines a second: with 200 bytes each, 4 kB/s however many containers send bad input.
const MOST: u64 = 20;

/// Counts lines of all shards.
#[derive(Debug, Default)]
pub(super) struct LossLog(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    at: i64,
    lines: u64,
    left_out: u64,
}

/// What to do with a log line.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum LineDecision {
    /// Write it, after saying how many were left out before it; zero where none were.
    Write(u64),
    LeaveOut,
}

impl LossLog {
    /// Whether a line may be written in this second since 1970.
    pub(super) fn admit_line(&self, second: i64) -> LineDecision {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Any other second, since the clock can be set back.
        if current.at != second {
            (current.at, current.lines) = (second, 0);
        }
        if current.lines == MOST {
            current.left_out += 1;
            return LineDecision::LeaveOut;
        }
        current.lines += 1;
        LineDecision::Write(std::mem::take(&mut current.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_one_says_how_many_were_left_out() {
        let log = LossLog::default();
        let turns: Vec<_> = (0..1_000).map(|_| log.admit_line(7)).collect();
        let written = turns.iter().filter(|turn| **turn == LineDecision::Write(0)).count();
        assert_eq!((written as u64, turns[999]), (MOST, LineDecision::LeaveOut));
        assert_eq!(
            [log.admit_line(8), log.admit_line(8)],
            [LineDecision::Write(1_000 - MOST), LineDecision::Write(0)]
        );
        assert_eq!(log.admit_line(3), LineDecision::Write(0), "a clock that was set back stops nothing");
    }
}
