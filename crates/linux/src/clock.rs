//! The only module that reads the time, and its handling of wall-clock steps.

use std::time::{Duration, Instant, SystemTime};

use tallyport_time::{Moment, Timestamp};

/// An observed step of the wall clock.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ClockStep {
    /// It was set forward by this much; windows are skipped.
    Forward(Duration),
    /// It was set back by this much; windows continue as if it had not been.
    Back(Duration),
}

/// Smaller differences come from reading the two clocks in turn, or from slewing.
const STEP: Duration = Duration::from_secs(1);

/// Wall time that never goes back.
///
/// A closed window must not reopen, and no interval may have two windows. So if the wall clock is set back, this clock
/// follows the monotonic clock, ahead of the wall clock, until the latter catches up or the agent restarts. If the wall
/// clock is set forward, this clock follows it.
#[derive(Debug, Default)]
pub struct SteadyClock {
    last: Option<Moment>,
    /// Whether the wall clock is behind, so that a step is reported only once.
    behind: bool,
}

impl SteadyClock {
    /// A clock that starts at `not_before` or later, whatever the wall clock says, because the previous process has
    /// closed windows up to there. `read` is the current reading of both clocks.
    #[must_use]
    pub fn from(not_before: Option<Timestamp>, read: Moment) -> Self {
        let ahead = not_before.filter(|wall| *wall > read.wall);
        let behind = ahead.is_some_and(|wall| wall.duration_since(read.wall) >= STEP);
        Self { last: ahead.map(|wall| Moment { wall, mono: read.mono }), behind }
    }

    /// The current time, given a reading of both clocks.
    pub fn advance_to(&mut self, read: Moment) -> (Moment, Option<ClockStep>) {
        let Some(last) = self.last else {
            self.last = Some(read);
            return (read, None);
        };
        let expected = last.wall.saturating_add(read.mono.saturating_sub(last.mono));
        let now = Moment { wall: read.wall.max(expected), mono: read.mono };
        self.last = Some(now);
        let (ahead, back) = (read.wall.duration_since(expected), expected.duration_since(read.wall));
        let step = if ahead >= STEP {
            Some(ClockStep::Forward(ahead))
        } else if back >= STEP && !self.behind {
            Some(ClockStep::Back(back))
        } else {
            None
        };
        self.behind = back >= STEP;
        (now, step)
    }
}

/// The process's clocks, read together.
#[derive(Copy, Clone, Debug)]
pub struct Clock {
    started: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock {
    /// Reads both clocks. The monotonic parts of moments from different [`Clock`]s are not comparable.
    #[must_use]
    pub fn read(&self) -> Moment {
        Moment { wall: wall_time(), mono: self.monotonic_time() }
    }

    /// The current monotonic time.
    #[must_use]
    pub fn monotonic_time(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Wall time now.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall_time() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Time since boot, including suspend: the time base of the kernel's process start times.
#[must_use]
pub fn since_boot() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wall_secs: i64, mono_secs: u64) -> Moment {
        Moment { wall: Timestamp::from_secs(wall_secs), mono: Duration::from_secs(mono_secs) }
    }

    #[test]
    fn a_step_back_is_told_once_and_time_goes_on() {
        let mut clock = SteadyClock::default();
        clock.advance_to(read(1000, 0));
        let (now, step) = clock.advance_to(read(405, 5));
        assert_eq!((now.wall.as_secs(), step), (1005, Some(ClockStep::Back(Duration::from_mins(10)))));
        let (now, step) = clock.advance_to(read(406, 6));
        assert_eq!((now.wall.as_secs(), step), (1006, None));
        let (now, step) = clock.advance_to(read(2000, 7));
        assert_eq!((now.wall.as_secs(), step), (2000, Some(ClockStep::Forward(Duration::from_secs(993)))));
        assert_eq!(
            clock.advance_to(read(1000, 8)).1,
            Some(ClockStep::Back(Duration::from_secs(1001))),
            "told again"
        );
    }

    #[test]
    fn a_clock_is_not_behind_the_one_of_the_process_before() {
        let seconds = |secs| Some(Timestamp::from_secs(secs));
        let mut ahead = SteadyClock::from(seconds(1_600), read(1_000, 0));
        assert_eq!(ahead.advance_to(read(1_001, 1)), (read(1_601, 1), None), "it was told before");
        let mut behind = SteadyClock::from(seconds(900), read(1_000, 0));
        assert_eq!(behind.advance_to(read(1_001, 1)), (read(1_001, 1), None), "what took long is no step");
    }

    #[test]
    fn a_step_forward_is_followed() {
        let mut clock = SteadyClock::default();
        clock.advance_to(read(1000, 0));
        let (now, step) = clock.advance_to(read(1605, 5));
        assert_eq!((now.wall.as_secs(), step), (1605, Some(ClockStep::Forward(Duration::from_mins(10)))));
        assert_eq!(clock.advance_to(read(1606, 6)), (read(1606, 6), None));
    }

    #[test]
    fn time_never_goes_back() {
        let mut clock = SteadyClock::default();
        let mut last = Timestamp::MIN;
        for (n, wall) in (0..).zip([1000, 999, 998, 1001, 500, 1002, 1010]) {
            let (now, _) = clock.advance_to(read(wall, n));
            assert!(now.wall >= last);
            last = now.wall;
        }
    }
}
