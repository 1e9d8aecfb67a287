//! What the NRI plugin counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// What became of a container that the runtime told of.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was given a socket before it started.
    Injected,
    /// It was found running, and its address was opened again.
    Restored,
    /// It was found running without an address.
    Mute,
    /// It was found running, and its address could not be opened again.
    Lost,
    /// It would have been given a socket, were the mode not to observe.
    Observed,
    /// It said no, or did not say yes where that is asked for.
    OptedOut,
    /// The configuration leaves it out.
    Excluded,
    /// It has a network stack or a kernel of its own, and cannot reach a socket of the node.
    Sandboxed,
    /// It was to be given a socket, but none was to be had; it starts without.
    Failed,
}

impl Outcome {
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

/// What the plugin counts.
#[derive(Debug)]
pub struct NriStats {
    connected: AtomicBool,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Microseconds.
    handled: Mutex<Histogram<u64>>,
}

/// Longest time that is told from longer ones. The runtime itself gives up after two seconds.
const LONGEST_MICROS: u64 = 10_000_000;

impl Default for NriStats {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and good ones")]
    fn default() -> Self {
        let handled = Histogram::new_with_max(LONGEST_MICROS, 2).expect("bounds from 1 to 10 s");
        Self { connected: AtomicBool::new(false), outcomes: Default::default(), handled: Mutex::new(handled) }
    }
}

impl NriStats {
    /// Notes whether the plugin is registered.
    pub fn connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    /// Whether the plugin is registered.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Counts what became of a container.
    pub fn count(&self, outcome: Outcome) {
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it came to that.
    #[must_use]
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Notes how long an answer took.
    pub fn handled(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST_MICROS);
        self.handled.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    /// How long answers took, in microseconds.
    #[must_use]
    pub fn handling(&self) -> Histogram<u64> {
        self.handled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
