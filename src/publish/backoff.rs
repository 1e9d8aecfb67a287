//! How long a publisher waits before it sends a request again: decorrelated jitter, so that agents that lost the same
//! backend do not come back to it at the same moment.

use std::time::Duration;

/// The shortest wait.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest wait that the publisher chooses itself.
const LONGEST: Duration = Duration::from_mins(1);
/// The longest wait that a server may ask for. A longer one would hold back data for a header that may be a mistake.
const LONGEST_ASKED: Duration = Duration::from_mins(5);

/// The waits between repeats of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Backoff {
    last: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { last: SHORTEST }
    }
}

impl Backoff {
    /// The next wait: between 100 ms and three times the one before, at most a minute. `random` is in `[0, 1)`.
    ///
    /// Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    pub(super) fn next_wait(&mut self, random: f64) -> Duration {
        let most = self.last.saturating_mul(3).min(LONGEST);
        self.last = SHORTEST + most.saturating_sub(SHORTEST).mul_f64(random.clamp(0.0, 1.0));
        self.last
    }

    /// The next wait, where a server asked for one: what it asked for, at most five minutes, and no shorter than the publisher
    /// itself would wait.
    pub(super) fn next_asked(&mut self, random: f64, asked: Option<Duration>) -> Duration {
        let own = self.next_wait(random);
        asked.map_or(own, |asked| asked.min(LONGEST_ASKED).max(own))
    }

    /// Starts over, after a success.
    pub(super) fn start_over(&mut self) {
        *self = Self::default();
    }
}

/// A source of random numbers for waits: a `SplitMix64` sequence, which needs no quality beyond being different in every
/// process.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    /// A sequence that depends on the seed alone.
    #[must_use]
    pub(super) const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, in `[0, 1)`.
    pub(super) fn next_number(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_tenth_of_a_second_to_a_minute_and_start_over() {
        let mut backoff = Backoff::default();
        let longest: Vec<_> = (0..8).map(|_| backoff.next_wait(0.999_999).as_secs_f64().round()).collect();
        assert_eq!(longest, [0.0, 1.0, 3.0, 8.0, 24.0, 60.0, 60.0, 60.0]);
        backoff.start_over();
        assert!(backoff.next_wait(0.5) < Duration::from_millis(301));
    }

    #[test]
    fn no_wait_is_outside_the_range_and_two_agents_do_not_wait_alike() {
        let waits = |seed| {
            let (mut backoff, mut jitter) = (Backoff::default(), Jitter::from_seed(seed));
            (0..1000).map(|_| backoff.next_wait(jitter.next_number())).collect::<Vec<_>>()
        };
        let (one, other) = (waits(1), waits(2));
        assert!(one.iter().chain(&other).all(|wait| (SHORTEST..=LONGEST).contains(wait)));
        assert!(one.iter().zip(&other).filter(|(a, b)| a == b).count() < 100);
    }

    #[test]
    fn a_server_may_ask_for_up_to_five_minutes_and_for_no_less_than_the_own_wait() {
        let asked = |seconds| Backoff::default().next_asked(0.0, Some(Duration::from_secs(seconds)));
        assert_eq!(asked(3), Duration::from_secs(3));
        assert_eq!(asked(3600), Duration::from_mins(5));
        assert_eq!(asked(0), SHORTEST);
    }
}
