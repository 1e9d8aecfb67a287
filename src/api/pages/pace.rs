//! Limits the total rate of responses, so that fast readers do not occupy the control runtime and the CPUs.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes per second: twice a gigabit link; one connection over loopback can take eight times as much. At twice this
/// rate, readers on the node occupied both CPUs of a small machine, and small responses had to wait.
const RATE: u32 = 256 << 20;
/// Bytes that are sent without a delay after an idle period.
const BURST: u32 = 8 << 20;

/// The rate limiter of all responses together.
#[derive(Debug)]
pub(super) struct PageRateLimiter {
    /// When everything sent so far would have been sent at [`RATE`].
    until: Mutex<Option<Instant>>,
}

impl PageRateLimiter {
    pub(super) const fn new() -> Self {
        Self { until: Mutex::new(None) }
    }

    /// Counts bytes that a reader took; returns until when it has to wait, if at all.
    pub(super) fn count(&self, bytes: u32, now: Instant) -> Option<Instant> {
        let burst = Duration::from_secs(1) * BURST / RATE;
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let next = until.map_or(now, |until| until.max(now)) + Duration::from_secs(1) * bytes / RATE;
        *until = Some(next);
        next.checked_sub(burst).filter(|rest| *rest > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_all_readers_together_keep_to_the_rate() {
        let (pace, now) = (PageRateLimiter::new(), Instant::now());
        assert_eq!(pace.count(BURST, now), None);
        let second = Duration::from_secs(1);
        assert_eq!(pace.count(RATE / 2, now), Some(now + second / 2));
        assert_eq!(pace.count(RATE / 2, now), Some(now + second), "another reader rests behind the first");
        assert_eq!(pace.count(RATE / 4, now + second), Some(now + second + second / 4));
        assert_eq!(pace.count(BURST, now + 10 * second), None, "a rest allows another burst");
    }
}
