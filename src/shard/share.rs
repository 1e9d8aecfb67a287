//! How much of a turn one kind of work may take.

use std::time::Duration;

/// A bounded part of a turn: so many steps, and no further step once so much time has passed.
///
/// The time is an argument, so that a test can count steps without waiting.
#[derive(Debug)]
pub(super) struct Share {
    steps: usize,
    ends: Duration,
    begun: bool,
}

impl Share {
    /// A share that begins at `now`.
    pub(super) fn new(now: Duration, steps: usize, time: Duration) -> Self {
        Self { steps, ends: now.saturating_add(time), begun: false }
    }

    /// Takes one step at `now`; answers whether there is room for it. The first step always has room, however slow the machine is:
    /// otherwise work could be put off for ever.
    pub(super) fn take_step(&mut self, now: Duration) -> bool {
        if self.steps == 0 || (self.begun && now >= self.ends) {
            return false;
        }
        self.steps -= 1;
        self.begun = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_share_ends_by_count_and_by_time_and_always_has_one_step() {
        let steps = |steps, time, each: Duration| {
            let mut share = Share::new(Duration::ZERO, steps, time);
            (0..100).take_while(|n| share.take_step(each * *n)).count()
        };
        assert_eq!(steps(10, MS, Duration::ZERO), 10);
        assert_eq!(steps(1000, 5 * MS, MS), 5);
        assert_eq!(steps(10, Duration::ZERO, MS), 1);
        let mut late = Share::new(Duration::ZERO, 10, MS);
        assert!(
            late.take_step(100 * MS) && !late.take_step(100 * MS),
            "a clock that jumps costs no progress"
        );
    }
}
