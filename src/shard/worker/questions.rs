//! What readers ask of a shard: answered after its other work, and in a part of its time.

use std::time::Duration;

use super::Worker;
use crate::model::{Allocation, Timestamp};
use crate::shard::command::{ContainerStats, Question, StatsDetail};
use crate::shard::share::Share;

/// Most questions that are accepted in one turn.
const QUESTIONS: usize = 1024;
/// Most containers that are looked at in one turn.
const LOOKS: usize = 4096;
/// No further container is looked at in a turn after this time.
const LOOKING: Duration = Duration::from_millis(1);
/// After a slice of looks, readers wait this many times as long as the slice took. So they get at most a quarter of a shard's time,
/// however much they ask.
const PAUSE: u32 = 3;
/// A shorter pause is skipped, because going to sleep and waking up takes about as long.
const SHORTEST_PAUSE: Duration = Duration::from_micros(200);

impl Worker {
    /// Answers readers, as far as this turn's share goes.
    pub(super) fn answer_readers(&mut self) {
        let began = self.clock.monotonic_time();
        if !self.looks.has_waiting() || !self.pause_of_readers(began).is_zero() {
            return;
        }
        let wall = self.observe_clock().wall;
        let mut share = Share::new(began, LOOKS, LOOKING);
        while share.take_step(self.clock.monotonic_time()) && self.look_at_next(wall) {}
        let ended = self.clock.monotonic_time();
        self.readers_wait_until = ended + ended.saturating_sub(began) * PAUSE;
    }

    /// Answers whatever was asked so far; for a shard that ends.
    pub(super) fn answer_all(&mut self) {
        self.take_in(usize::MAX);
        let wall = self.observe_clock().wall;
        while self.look_at_next(wall) {}
    }

    /// How long readers have to wait at `now`; zero where they need not.
    pub(super) fn pause_of_readers(&self, now: Duration) -> Duration {
        let pause = self.readers_wait_until.saturating_sub(now);
        if pause < SHORTEST_PAUSE { Duration::ZERO } else { pause }
    }

    /// Takes in what readers ask. Before this turn's datagrams: a tail shows what is sent after it was asked for.
    pub(super) fn take_in_questions(&mut self) {
        self.take_in(QUESTIONS);
    }

    pub(super) fn take_in(&mut self, most: usize) {
        self.questions_left = true;
        for _ in 0..most {
            match self.questions.try_recv() {
                Ok(Question::Look(of, detail, reply)) => self.looks.add(of, detail, reply),
                Ok(Question::Tap(allocation, to, room)) => {
                    if let Some(listener) = self.find(allocation) {
                        listener.add_tap(to, room);
                    }
                }
                Err(_) => {
                    self.questions_left = false;
                    return;
                }
            }
        }
    }

    /// Looks at one container; answers whether there was one to look at.
    fn look_at_next(&mut self, now: Timestamp) -> bool {
        let places = &self.places;
        let Some((allocation, detail)) = self.looks.next(|| places.keys().copied().collect()) else {
            return false;
        };
        let stats = self.collect_stats(allocation, detail, now);
        self.looks.record_stats(stats);
        true
    }

    fn collect_stats(
        &mut self,
        allocation: Allocation,
        detail: StatsDetail,
        now: Timestamp,
    ) -> Option<ContainerStats> {
        let listener = self.find(allocation)?;
        listener.count_kernel_drops();
        Some(listener.collect_stats(detail, now))
    }
}
