//! Counters of the NRI plugin.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::model::Timestamp;

/// The outcome for a container that the runtime reported.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum NriOutcome {
    /// It was given a socket before it started.
    Injected,
    /// It was found running, and its address was opened again.
    Restored,
    /// It was found running without an address.
    Mute,
    /// It was found running, and its address could not be opened again.
    Lost,
    /// It would have been given a socket, but the mode is `observe`.
    Observed,
    /// It opted out, or did not opt in where that is required.
    OptedOut,
    /// The configuration excludes it.
    Excluded,
    /// It has its own network stack or kernel, and cannot reach a socket on the node.
    Sandboxed,
    /// It should have got a socket, but that failed; it starts without one.
    Failed,
}

impl NriOutcome {
    /// Every outcome.
    pub const ALL: [Self; 9] = [
        Self::Injected,
        Self::Restored,
        Self::Mute,
        Self::Lost,
        Self::Observed,
        Self::OptedOut,
        Self::Excluded,
        Self::Sandboxed,
        Self::Failed,
    ];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Restored => "restored",
            Self::Mute => "mute",
            Self::Lost => "lost",
            Self::Observed => "observed",
            Self::OptedOut => "opted_out",
            Self::Excluded => "excluded",
            Self::Sandboxed => "sandboxed",
            Self::Failed => "failed",
        }
    }
}

/// The state of the connection to the container runtime.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Link {
    /// The plugin is disabled.
    #[default]
    Off,
    /// There is no connection.
    Absent {
        /// Why not.
        why: String,
    },
    /// The runtime has accepted the connection and has not yet listed its containers. It does so after its current
    /// operation, which can take as long as a container takes to stop.
    Registering,
    /// The runtime calls the plugin for every container that it creates.
    Connected,
}

impl Link {
    /// As a word.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Absent { .. } => "absent",
            Self::Registering => "registering",
            Self::Connected => "connected",
        }
    }

    /// Why new containers get no socket; `None` if they get one or the plugin is disabled.
    #[must_use]
    pub fn describe_trouble(&self) -> Option<String> {
        match self {
            Self::Off | Self::Connected => None,
            Self::Absent { why } => Some(format!("the container runtime is not connected: {why}")),
            Self::Registering => Some(
                "the container runtime has accepted the plugin and has not listed its containers".to_owned(),
            ),
        }
    }
}

/// Consecutive containers that should have got a socket and got none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailureStreak {
    /// How many, since the last one that got a socket.
    pub containers: u64,
    /// When the last of them was created.
    pub at: Timestamp,
    /// Why it got none.
    pub why: String,
}

/// Counters of the NRI plugin.
#[derive(Debug)]
pub struct NriStats {
    link: Mutex<(Link, Option<Timestamp>)>,
    failing: Mutex<Option<FailureStreak>>,
    outcomes: [AtomicU64; NriOutcome::ALL.len()],
    /// Handling times in microseconds.
    handling_times: Mutex<Histogram<u64>>,
}

/// Maximum recorded time, in microseconds. The runtime itself times out after two seconds.
const LONGEST_MICROS: u64 = 10_000_000;

impl Default for NriStats {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and good ones")]
    fn default() -> Self {
        let handling_times = Histogram::new_with_max(LONGEST_MICROS, 2).expect("bounds from 1 to 10 s");
        Self {
            link: Mutex::default(),
            failing: Mutex::default(),
            outcomes: Default::default(),
            handling_times: Mutex::new(handling_times),
        }
    }
}

impl NriStats {
    /// Records the state of the connection. The time is kept if only the reason changes.
    pub fn set_link(&self, link: Link, now: Timestamp) {
        let mut held = lock_ignoring_poison(&self.link);
        if std::mem::discriminant(&held.0) != std::mem::discriminant(&link) {
            held.1 = Some(now);
        }
        held.0 = link;
    }

    /// The state of the connection, and since when.
    #[must_use]
    pub fn current_link(&self) -> (Link, Option<Timestamp>) {
        lock_ignoring_poison(&self.link).clone()
    }

    /// Whether the plugin is registered.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        lock_ignoring_poison(&self.link).0 == Link::Connected
    }

    /// Counts the outcome for a container.
    pub fn count(&self, outcome: NriOutcome) {
        if outcome == NriOutcome::Injected {
            *lock_ignoring_poison(&self.failing) = None;
        }
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a container that got no socket.
    pub fn count_failure(&self, why: &str, now: Timestamp) {
        self.count(NriOutcome::Failed);
        let mut failing = lock_ignoring_poison(&self.failing);
        let before = failing.as_ref().map_or(0, |failing| failing.containers);
        *failing = Some(FailureStreak { containers: before.saturating_add(1), at: now, why: why.to_owned() });
    }

    /// The containers that got no socket since the last that did.
    #[must_use]
    pub fn failure_streak(&self) -> Option<FailureStreak> {
        lock_ignoring_poison(&self.failing).clone()
    }

    /// How many containers had this outcome.
    #[must_use]
    pub fn count_for(&self, outcome: NriOutcome) -> u64 {
        self.outcomes.get(outcome as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Records how long a call took.
    pub fn record_handling(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST_MICROS);
        lock_ignoring_poison(&self.handling_times).saturating_record(micros);
    }

    /// How long calls took, in microseconds.
    #[must_use]
    pub fn handling_times(&self) -> Histogram<u64> {
        lock_ignoring_poison(&self.handling_times).clone()
    }
}

fn lock_ignoring_poison<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_in_a_row_until_a_container_gets_its_socket() {
        let stats = NriStats::default();
        assert_eq!(stats.failure_streak(), None);
        stats.count_failure("first", Timestamp::from_secs(1));
        stats.count_failure("second", Timestamp::from_secs(2));
        let (containers, at) = (2, Timestamp::from_secs(2));
        assert_eq!(stats.failure_streak(), Some(FailureStreak { containers, at, why: "second".to_owned() }));
        stats.count(NriOutcome::Excluded);
        assert!(stats.failure_streak().is_some(), "an excluded container does not end the streak");
        stats.count(NriOutcome::Injected);
        assert_eq!((stats.failure_streak(), stats.count_for(NriOutcome::Failed)), (None, 2));
    }

    #[test]
    fn a_link_keeps_its_time_while_only_the_reason_changes() {
        let stats = NriStats::default();
        let absent = |why: &str| Link::Absent { why: why.to_owned() };
        stats.set_link(absent("no socket"), Timestamp::from_secs(1));
        stats.set_link(absent("refused"), Timestamp::from_secs(2));
        assert_eq!(stats.current_link(), (absent("refused"), Some(Timestamp::from_secs(1))));
        stats.set_link(Link::Registering, Timestamp::from_secs(3));
        assert!(!stats.is_connected() && stats.current_link().0.describe_trouble().is_some());
        stats.set_link(Link::Connected, Timestamp::from_secs(4));
        assert!(stats.is_connected() && stats.current_link().0.describe_trouble().is_none());
        assert_eq!(stats.current_link().1, Some(Timestamp::from_secs(4)));
    }
}
