//! What all shards share: counts about themselves, budgets, and how many log lines a second the losses of all containers may
//! take.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::watch;

use crate::net::clock::ClockStep;
use crate::net::listener::Buffers;
use crate::store::Store;

/// State shared by all shards and the pool.
#[derive(Debug)]
pub(super) struct PoolShared {
    store: Arc<Store>,
    /// Total time each shard was busy, in nanoseconds.
    pub(super) busy: Vec<AtomicU64>,
    pub(super) memory_limit: AtomicUsize,
    /// Maximum number of remembered totals, as in `ShardPlan`.
    pub(super) remembered: AtomicUsize,
    steps_forward: AtomicU64,
    steps_back: AtomicU64,
    /// The number of times that a shard's thread did not run for seconds, and read nothing meanwhile.
    pauses: AtomicU64,
    /// The number of panics that shards have recovered from.
    pub(super) failures: watch::Sender<u64>,
    pub(super) buffers: Arc<Buffers>,
    /// Bytes of lines that wait for readers that tail containers, in total.
    pub(super) tail_bytes: Arc<AtomicUsize>,
    pub(super) loss_log: LossLog,
    /// How long each stretch of closing windows kept a shard from receiving, in microseconds.
    closing_times: Mutex<Histogram<u64>>,
}

/// Measurements of the shards, for the agent's own metrics.
#[derive(Debug)]
pub struct PoolMeasurements {
    /// Bytes that are held for containers, by aggregators and by the store.
    pub memory: usize,
    /// How often the clock was set forward.
    pub steps_forward: u64,
    /// How often the clock was set back.
    pub steps_back: u64,
    /// The number of times that a shard's thread did not run for seconds, and read nothing meanwhile.
    pub pauses: u64,
    /// The number of panics that shards have recovered from.
    pub failures: u64,
    /// How long each stretch of closing windows kept a shard from receiving, in microseconds.
    pub closing_times: Histogram<u64>,
}

impl PoolShared {
    pub(super) fn new(shards: usize, memory_limit: usize, remembered: usize, store: Arc<Store>) -> Self {
        Self {
            store,
            busy: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            memory_limit: AtomicUsize::new(memory_limit),
            remembered: AtomicUsize::new(remembered),
            steps_forward: AtomicU64::new(0),
            steps_back: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            failures: watch::Sender::new(0),
            // No buffer grows until the container table has set the budget.
            buffers: Arc::new(Buffers::new(0, 0)),
            tail_bytes: Arc::default(),
            loss_log: LossLog::default(),
            closing_times: Mutex::new(new_stall_histogram()),
        }
    }

    /// What the shards tell about themselves.
    pub(super) fn read_measurements(&self) -> PoolMeasurements {
        PoolMeasurements {
            memory: self.store.held_bytes(),
            steps_forward: self.steps_forward.load(Ordering::Relaxed),
            steps_back: self.steps_back.load(Ordering::Relaxed),
            pauses: self.pauses.load(Ordering::Relaxed),
            failures: *self.failures.borrow(),
            closing_times: self.closing_times.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Counts a clock step. All shards see it, so only the first shard's report counts.
    pub(super) fn count_step(&self, shard: usize, step: ClockStep) {
        if shard == 0 {
            match step {
                ClockStep::Forward(_) => &self.steps_forward,
                ClockStep::Back(_) => &self.steps_back,
            }
            .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a period in which a shard read nothing.
    pub(super) fn count_pause(&self) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failure of a shard.
    pub(super) fn count_failure(&self) {
        self.failures.send_modify(|failures| *failures += 1);
    }

    /// Adds to a shard's busy time.
    pub(super) fn was_busy(&self, shard: usize, took: Duration) {
        if let Some(busy) = self.busy.get(shard) {
            busy.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Records how long closing windows kept a shard from receiving.
    pub(super) fn held_up(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.closing_times.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    /// Whether the node's memory for containers is used up.
    pub(super) fn is_full(&self) -> bool {
        self.store.held_bytes() >= self.memory_limit.load(Ordering::Relaxed)
    }
}

/// Microseconds up to an hour, two significant digits: some kilobytes.
fn new_stall_histogram() -> Histogram<u64> {
    let bounds = Histogram::new_with_bounds(1, 3_600_000_000, 2);
    #[expect(clippy::expect_used, reason = "the bounds are constants, and a test makes one")]
    bounds.expect("the bounds are sound")
}

/// Lines a second: with 200 bytes each, 4 kB/s however many containers send bad input.
const LINES_PER_SECOND: u64 = 20;

/// Counts lines of all shards.
#[derive(Debug, Default)]
pub(super) struct LossLog(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    at: i64,
    lines: u64,
    left_out: u64,
}

/// Whether to write a log line.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum LineDecision {
    /// Write it, after reporting how many lines were left out before it, if any.
    Write(u64),
    LeaveOut,
}

impl LossLog {
    /// Whether a line may be written in this second since 1970.
    pub(super) fn admit_line(&self, second: i64) -> LineDecision {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Any different second starts a new count, since the clock can be set back.
        if current.at != second {
            (current.at, current.lines) = (second, 0);
        }
        if current.lines == LINES_PER_SECOND {
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
        assert_eq!((written as u64, turns[999]), (LINES_PER_SECOND, LineDecision::LeaveOut));
        assert_eq!(
            [log.admit_line(8), log.admit_line(8)],
            [LineDecision::Write(1_000 - LINES_PER_SECOND), LineDecision::Write(0)]
        );
        assert_eq!(log.admit_line(3), LineDecision::Write(0), "a clock that was set back stops nothing");
    }
}
