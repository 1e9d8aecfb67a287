//! Moves containers from a hot shard to one that is not.
//!
//! A container moves with its socket and its state. Its datagrams wait in the kernel meanwhile, so none is lost or
//! reordered. A single container cannot be split across shards: its ceiling is what one core can process.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::Allocation;

/// A shard that is busy for this fraction of its time is hot.
const HOT: f64 = 0.5;
/// Shards whose busy fractions differ by less are balanced well enough; a move costs a cold cache.
const UNEVEN: f64 = 0.25;

/// Measurements over a longer interval than this say nothing about the current load.
const LATELY: Duration = Duration::from_secs(3);

/// The busy times and the work at the last measurement.
#[derive(Debug)]
pub(super) struct Balance {
    at: Instant,
    /// Total busy time of each shard, in nanoseconds.
    busy: Vec<u64>,
    /// When the hot shard's work was measured, and the total work of each of its containers.
    work: (Instant, HashMap<Allocation, u64>),
}

impl Balance {
    pub(super) fn new(shards: usize) -> Self {
        let now = Instant::now();
        Self { at: now, busy: vec![0; shards], work: (now, HashMap::new()) }
    }

    /// The fraction of time that each shard was busy since the last measurement.
    pub(super) fn busy_since(&mut self, now: Instant, busy: Vec<u64>) -> Vec<f64> {
        let nanos = now.saturating_duration_since(self.at).as_nanos().max(1) as f64;
        let parts =
            busy.iter().zip(&self.busy).map(|(now, before)| now.saturating_sub(*before) as f64 / nanos);
        let parts = parts.collect();
        (self.at, self.busy) = (now, busy);
        parts
    }

    /// The work of each container since the last measurement; empty if that was too long ago.
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

/// The hottest and the coldest shard, and the difference between them; `None` if they are balanced well enough.
pub(super) fn find_imbalance(busy: &[f64]) -> Option<(usize, usize, f64)> {
    let by = |a: &(usize, &f64), b: &(usize, &f64)| a.1.total_cmp(b.1);
    let (hot, most) = busy.iter().enumerate().max_by(by)?;
    let (cold, least) = busy.iter().enumerate().min_by(by)?;
    let gap = most - least;
    (*most >= HOT && gap >= UNEVEN).then_some((hot, cold, gap / most))
}

/// The container whose move balances the two best. `gap` is the part of the hot shard's work by which it exceeds the
/// cold one's.
pub(super) fn choose_container(work: &[(Allocation, u64)], gap: f64) -> Option<Allocation> {
    let all: u64 = work.iter().map(|(_, work)| work).sum();
    let part = |work: u64| work as f64 / all.max(1) as f64;
    let far = |work: u64| (part(work) - gap / 2.0).abs();
    // Moving one that accounts for the whole gap would only swap the roles, and it would move back.
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
