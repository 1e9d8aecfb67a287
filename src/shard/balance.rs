//! Moving containers from a shard that is hot to one that is not.
//!
//! A container is moved as it is, with its socket: meanwhile its datagrams wait in the kernel, so none is lost and none
//! overtakes another. One container alone cannot be spread: what one processor can count is its ceiling.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::Allocation;

/// A shard that is busy for this part of its time is hot.
const HOT: f64 = 0.5;
/// Shards whose busy parts differ by less are even enough; a move costs a cold cache.
const UNEVEN: f64 = 0.25;

/// What was done before this long says nothing of how things are.
const LATELY: Duration = Duration::from_secs(3);

/// How busy the shards were when they were last asked.
#[derive(Debug)]
pub(super) struct Balance {
    at: Instant,
    /// Nanoseconds of each shard, in all.
    busy: Vec<u64>,
    /// Work of each container of the hot shard, in all, and when it was asked.
    work: (Instant, HashMap<Allocation, u64>),
}

impl Balance {
    pub(super) fn new(shards: usize) -> Self {
        let now = Instant::now();
        Self { at: now, busy: vec![0; shards], work: (now, HashMap::new()) }
    }

    /// The part of its time that each shard was busy since it was asked last.
    pub(super) fn busy_since(&mut self, now: Instant, busy: Vec<u64>) -> Vec<f64> {
        let nanos = now.saturating_duration_since(self.at).as_nanos().max(1) as f64;
        let parts =
            busy.iter().zip(&self.busy).map(|(now, before)| now.saturating_sub(*before) as f64 / nanos);
        let parts = parts.collect();
        (self.at, self.busy) = (now, busy);
        parts
    }

    /// What each container did since it was asked last; nothing where that was too long ago to say how things are.
    pub(super) fn work_since(&mut self, now: Instant, work: &[(Allocation, u64)]) -> Vec<(Allocation, u64)> {
        let (at, mut before) = std::mem::replace(&mut self.work, (now, work.iter().copied().collect()));
        if now.saturating_duration_since(at) > LATELY {
            before.clear();
        }
        let since = work.iter().map(|(allocation, now)| {
            (*allocation, now.saturating_sub(before.get(allocation).copied().unwrap_or(*now)))
        });
        since.collect()
    }
}

/// The hottest and the coldest shard, and how far they are apart; `None` where they are even enough.
pub(super) fn find_imbalance(busy: &[f64]) -> Option<(usize, usize, f64)> {
    let by = |a: &(usize, &f64), b: &(usize, &f64)| a.1.total_cmp(b.1);
    let (hot, most) = busy.iter().enumerate().max_by(by)?;
    let (cold, least) = busy.iter().enumerate().min_by(by)?;
    let gap = most - least;
    (*most >= HOT && gap >= UNEVEN).then_some((hot, cold, gap / most))
}

/// The container whose going evens out best. `gap` is how much of the hot shard's work the cold one does not have.
pub(super) fn choose_container(work: &[(Allocation, u64)], gap: f64) -> Option<Allocation> {
    let all: u64 = work.iter().map(|(_, work)| work).sum();
    let part = |work: u64| work as f64 / all.max(1) as f64;
    let far = |work: u64| (part(work) - gap / 2.0).abs();
    // One that is as much as the whole gap would only change the roles, and come back.
    work.iter()
        .filter(|(_, work)| *work > 0 && part(*work) < gap * 0.75)
        .min_by(|a, b| far(a.1).total_cmp(&far(b.1)))
        .map(|(allocation, _)| *allocation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_shards_and_cool_ones_are_left_alone() {
        assert_eq!(find_imbalance(&[0.9, 0.8]), None);
        assert_eq!(find_imbalance(&[0.4, 0.0]), None);
        assert_eq!(find_imbalance(&[0.9]), None);
        assert_eq!(find_imbalance(&[0.25, 1.0, 0.5]), Some((1, 0, 0.75)));
    }

    #[test]
    fn the_container_that_halves_the_gap_goes() {
        let work = |parts: &[u64]| (0..).map(Allocation).zip(parts.iter().copied()).collect::<Vec<_>>();
        assert_eq!(choose_container(&work(&[60, 30, 10]), 0.8), Some(Allocation(1)));
        assert_eq!(choose_container(&work(&[50, 50]), 0.6), None, "that would only change the roles");
        assert_eq!(choose_container(&work(&[100]), 0.9), None, "one container alone stays where it is");
        assert_eq!(choose_container(&work(&[95, 5]), 0.5), Some(Allocation(1)));
        assert_eq!(choose_container(&work(&[0, 0]), 0.9), None);
    }

    #[test]
    fn work_is_what_was_done_since_the_last_time() {
        let mut balance = Balance::new(1);
        let (now, a, b) = (Instant::now(), Allocation(1), Allocation(2));
        assert_eq!(balance.work_since(now, &[(a, 500)]), [(a, 0)]);
        assert_eq!(balance.work_since(now, &[(a, 700), (b, 10)]), [(a, 200), (b, 0)]);
        assert_eq!(balance.work_since(now + 2 * LATELY, &[(a, 900)]), [(a, 0)], "too long ago");
    }
}
