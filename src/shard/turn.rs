//! Time in a shard's turn: how long datagrams gather before they are drained, and how much of a turn one kind of work may take.
//!
//! Being woken up for one datagram costs more than receiving, reading and counting it. So a shard begins to drain its
//! sockets at most once in a while, as long as three things hold, and drains at once otherwise:
//!
//! - enough comes: at the present rate at least [`WORTH`] datagrams arrive meanwhile;
//! - there is room: the socket that fills up fastest uses at most [`GATHERED_FRACTION`] of its buffer meanwhile, so that a rate
//!   that suddenly multiplies still loses nothing;
//! - it is short: never longer than `agent.gather`.
//!
//! While one drain lasts, datagrams gather for the next, so a busy shard does not wait at all.
//!
//! A shard without traffic waits for nothing and sets no timer. Why these figures: `docs/adr/0009-gathering.md`.

use std::time::Duration;

/// The number of datagrams from which waiting is worth one more wake-up.
const WORTH: f64 = 4.0;
/// The fraction of a socket's buffer that may fill while datagrams gather.
const GATHERED_FRACTION: f64 = 0.125;
/// The time constant over which the rate adapts.
const MEMORY: Duration = Duration::from_millis(100);
/// The half-life of the highest observed fill rate, which is remembered because bursts recur.
const HALF_LIFE: Duration = Duration::from_secs(1);
/// Shorter waits are skipped: going to sleep and waking up takes as long.
const SHORTEST: Duration = Duration::from_micros(100);

/// The result of one drain.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
pub(super) struct Drained {
    pub(super) datagrams: u64,
    /// How full the fullest socket was, as a fraction of its buffer.
    pub(super) fullest: f64,
    /// Whether a socket had more datagrams than one turn reads.
    pub(super) more: bool,
}

impl Drained {
    /// Adds what another socket had.
    pub(super) fn add(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.fullest = self.fullest.max(other.fullest);
        self.more |= other.more;
    }
}

/// How long datagrams may gather.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    longest: Duration,
    /// Datagrams a second.
    rate: f64,
    /// How fast the fastest socket filled up lately, in buffers a second.
    fill: f64,
    more: bool,
}

impl Gather {
    /// Nothing has come yet. With a `longest` of zero nothing ever waits.
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, rate: 0.0, fill: 0.0, more: false }
    }

    /// Learns from a drain that came `after` the one before it.
    pub(super) fn record_drain(&mut self, drained: Drained, after: Duration) {
        let seconds = after.max(SHORTEST).as_secs_f64();
        let share = seconds / (seconds + MEMORY.as_secs_f64());
        self.rate += share * (drained.datagrams as f64 / seconds - self.rate);
        // After a long silence it is unknown how quickly a burst came; it took less than this.
        let burst = seconds.min(self.longest.max(SHORTEST).as_secs_f64());
        let kept = 0.5_f64.powf(seconds / HALF_LIFE.as_secs_f64());
        self.fill = (drained.fullest / burst).max(self.fill * kept);
        self.more = drained.more;
    }

    /// Whether a socket that is `fullest` full, `since` after the previous drain, has too little room to gather for the
    /// longest permitted time.
    pub(super) fn is_hot(&self, fullest: f64, since: Duration) -> bool {
        let longest = self.longest.max(SHORTEST);
        // Clamped, so that a burst within a very short interval is not extrapolated without limit.
        let periods = longest.as_secs_f64() / since.clamp(longest / 16, longest).as_secs_f64();
        fullest * periods > GATHERED_FRACTION
    }

    /// How long to wait, `since` after the last drain began; zero if waiting is not worth it or there is no room.
    pub(super) fn wait_duration(&self, since: Duration) -> Duration {
        if self.more || self.rate * self.longest.as_secs_f64() < WORTH {
            return Duration::ZERO;
        }
        let room = if self.fill > 0.0 { GATHERED_FRACTION / self.fill } else { f64::INFINITY };
        let period = self.longest.min(Duration::try_from_secs_f64(room).unwrap_or(Duration::MAX));
        let wait = period.saturating_sub(since);
        if wait < SHORTEST { Duration::ZERO } else { wait }
    }
}

/// A bounded part of a turn: a maximum number of steps, and a time after which no further step begins.
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

    /// Takes one step at `now`, and returns whether the share allows it. The first step is always allowed, however slow
    /// the machine is: otherwise work could be postponed for ever. `now` is called only where the answer depends on it.
    pub(super) fn take_step(&mut self, now: impl FnOnce() -> Duration) -> bool {
        if self.steps == 0 || (self.begun && now() >= self.ends) {
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

    const LONGEST: Duration = Duration::from_millis(10);

    /// Drains every `every`, each of this many datagrams that fill the buffer this far.
    fn steady(gather: &mut Gather, every: Duration, datagrams: u64, fullest: f64) {
        for _ in 0..200 {
            gather.record_drain(Drained { datagrams, fullest, more: false }, every);
        }
    }

    #[test]
    fn nothing_waits_without_traffic_or_where_little_comes() {
        let mut gather = Gather::new(LONGEST);
        assert_eq!(gather.wait_duration(Duration::ZERO), Duration::ZERO);
        steady(&mut gather, Duration::from_millis(10), 1, 0.002);
        assert_eq!(gather.wait_duration(Duration::ZERO), Duration::ZERO, "100 a second");
        steady(&mut gather, Duration::from_millis(1), 1, 0.002);
        assert_eq!(gather.wait_duration(Duration::ZERO), LONGEST, "1000 a second");
    }

    #[test]
    fn the_fullest_socket_keeps_seven_eighths_of_its_room() {
        let mut gather = Gather::new(LONGEST);
        // One socket fills up within 40 ms.
        steady(&mut gather, Duration::from_millis(4), 60, 0.1);
        let wait = gather.wait_duration(Duration::ZERO);
        assert!(wait > Duration::from_micros(4_900) && wait < Duration::from_micros(5_100), "{wait:?}");
        // A burst is remembered.
        gather.record_drain(Drained { datagrams: 300, fullest: 0.5, more: false }, Duration::from_millis(5));
        assert_eq!(gather.wait_duration(Duration::ZERO), Duration::from_micros(1_250));
        steady(&mut gather, Duration::from_millis(4), 60, 0.01);
        assert!(gather.wait_duration(Duration::ZERO) > Duration::from_micros(1_250));
    }

    #[test]
    fn a_socket_with_more_than_a_turn_is_not_kept_waiting() {
        let mut gather = Gather::new(LONGEST);
        steady(&mut gather, Duration::from_millis(5), 256, 0.01);
        assert!(gather.wait_duration(Duration::ZERO) > Duration::ZERO);
        gather.record_drain(Drained { datagrams: 256, fullest: 0.01, more: true }, Duration::from_millis(5));
        assert_eq!(gather.wait_duration(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_socket_that_fills_up_at_once_is_drained_at_once() {
        let mut gather = Gather::new(LONGEST);
        steady(&mut gather, Duration::from_micros(200), 600, 1.0);
        assert_eq!(gather.wait_duration(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn time_that_a_drain_took_is_not_waited_again() {
        let mut gather = Gather::new(LONGEST);
        steady(&mut gather, Duration::from_millis(10), 100, 0.001);
        assert_eq!(gather.wait_duration(Duration::from_millis(4)), Duration::from_millis(6));
        assert_eq!(gather.wait_duration(Duration::from_millis(9_950)), Duration::ZERO);
        assert_eq!(gather.wait_duration(Duration::from_secs(5)), Duration::ZERO);
    }

    #[test]
    fn a_socket_is_hot_where_an_eighth_of_it_fills_up_within_the_longest_wait() {
        let gather = Gather::new(LONGEST);
        assert!(!gather.is_hot(0.12, LONGEST) && gather.is_hot(0.13, LONGEST));
        assert!(
            !gather.is_hot(0.012, Duration::from_millis(1)) && gather.is_hot(0.013, Duration::from_millis(1))
        );
        assert!(!gather.is_hot(0.12, Duration::from_secs(1)), "slow");
        assert!(!gather.is_hot(0.003, Duration::ZERO), "a few datagrams at once");
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut gather = Gather::new(Duration::ZERO);
        steady(&mut gather, Duration::from_millis(1), 100, 0.01);
        assert_eq!(gather.wait_duration(Duration::ZERO), Duration::ZERO);
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_share_ends_by_count_and_by_time_and_always_has_one_step() {
        let steps = |steps, time, each: Duration| {
            let mut share = Share::new(Duration::ZERO, steps, time);
            (0..100).take_while(|n| share.take_step(|| each * *n)).count()
        };
        assert_eq!(steps(10, MS, Duration::ZERO), 10);
        assert_eq!(steps(1000, 5 * MS, MS), 5);
        assert_eq!(steps(10, Duration::ZERO, MS), 1);
        let mut late = Share::new(Duration::ZERO, 10, MS);
        assert!(
            late.take_step(|| 100 * MS) && !late.take_step(|| 100 * MS),
            "a clock that jumps costs no progress"
        );
    }
}
