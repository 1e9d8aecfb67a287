//! Recovery from panics on a shard: a panic is caught, logged and counted, and the shard continues.
//!
//! Its sockets stay open, and all containers but the one being worked on keep their state. That one restarts from the
//! store, because the panic may have left it in any state.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::Worker;
use crate::model::Timestamp;

/// A shard that panics this many times within [`PANIC_PERIOD`] would do nothing but recover, so it ends.
const MAX_PANICS: usize = 10;
const PANIC_PERIOD: Duration = Duration::from_mins(1);

/// The times of a shard's recent panics.
#[derive(Debug, Default)]
pub(super) struct Failures(VecDeque<Instant>);

impl Failures {
    /// Records a panic; returns whether there were too many.
    fn are_too_many(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        self.0.retain(|at| now.saturating_duration_since(*at) < PANIC_PERIOD);
        self.0.len() >= MAX_PANICS
    }
}

impl Worker {
    /// Runs until the shard is stopped, its command channel is closed, or it panics too often.
    pub(in crate::shard) fn run(&mut self) {
        let mut failed: Option<Box<dyn Any + Send>> = None;
        loop {
            // A panic can only break the listener being worked on, which restarts; all other state is consistent
            // between any two statements. The recovery may panic, too, so it runs inside.
            let served = catch_unwind(AssertUnwindSafe(|| {
                if let Some(panic) = failed.take() {
                    self.resume_after_panic(panic.as_ref());
                }
                self.run_turns();
            }));
            let Err(panic) = served else { return };
            if self.failures.are_too_many(Instant::now()) {
                return;
            }
            failed = Some(panic);
        }
    }

    pub(super) fn resume_after_panic(&mut self, panic: &(dyn Any + Send)) {
        let now = self.observe_clock().wall;
        self.closing = None;
        self.ready.clear();
        self.pass = None;
        // The panic may have kept windows that have ended from being closed.
        self.next_end = Timestamp::MIN;
        // Commands may be waiting whose wake-up was already consumed.
        (self.commands_left, self.questions_left) = (true, true);
        let broken = self.current_place.take().and_then(|place| self.listeners.get_mut(place)?.as_mut());
        let (container, lost) = match broken {
            Some(listener) => (Some(listener.name()), listener.recover_from_panic(&self.store, now)),
            None => (None, 0),
        };
        self.shared.count_failure();
        let why = text_of(panic);
        tracing::error!(shard = self.index, why, container, lost, "a shard has panicked and continues");
    }
}

/// The message of a panic.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no panic message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_again_and_again_is_too_much_and_now_and_then_is_not() {
        let (mut often, mut seldom) = (Failures::default(), Failures::default());
        let now = Instant::now();
        let at = |n: u32, apart: Duration| now + apart * n;
        let first = (1..100).find(|n| often.are_too_many(at(*n, Duration::from_secs(1))));
        assert_eq!(first, Some(10));
        assert!(!(0..100).any(|n| seldom.are_too_many(at(n, Duration::from_secs(10)))));
    }
}
