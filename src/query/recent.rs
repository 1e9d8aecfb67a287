//! Values in the kept windows of tasks, which readers of the node's stream get with its first event.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::sink::Budget;
use crate::containers::{ContainerInfo, TaskContainers};
use crate::model::{Allocation, Timestamp};
use crate::store::{History, Store};

/// Maximum number of windows that are counted.
const MOST_WINDOWS: usize = 60;

/// The number of values in each kept window of each container.
#[derive(Debug)]
pub struct RecentWindows {
    by_container: HashMap<Allocation, Vec<u64>>,
    until: Timestamp,
    count: usize,
}

impl RecentWindows {
    /// Counts the values in the windows of these tasks: the newest `count`, each `length` long, that had ended by `now`. `None`
    /// if the budget is used up: one count walks over every record.
    #[must_use]
    pub fn count(
        store: &Store,
        tasks: &[TaskContainers],
        (length, count): (Duration, usize),
        now: Timestamp,
        budget: &impl Budget,
    ) -> Option<Self> {
        let containers = tasks.iter().flat_map(|listed| &listed.containers);
        let history =
            |info: &Arc<ContainerInfo>| Some((info.allocation, store.find_history(info.allocation)?));
        let histories: Vec<(Allocation, Arc<History>)> = containers.filter_map(history).collect();
        // Not the last boundary before `now`: the window that ended there may not be published yet.
        let ends = histories.iter().flat_map(|(_, history)| history.kept_intervals());
        let ends = ends.filter_map(|kept| Some(kept.span()?.end)).filter(|end| *end <= now);
        let until = ends.max().unwrap_or_else(|| now.floor_to_window(length));
        let mut recent = Self { by_container: HashMap::new(), until, count: count.min(MOST_WINDOWS) };
        for (allocation, history) in histories {
            recent.count_windows(allocation, &history, length, budget)?;
        }
        Some(recent)
    }

    fn count_windows(
        &mut self,
        allocation: Allocation,
        history: &History,
        length: Duration,
        budget: &impl Budget,
    ) -> Option<()> {
        let mut values = vec![0; self.count];
        for kept in history.kept_intervals() {
            // The last window of a container that has ended begins here and ends later: it counts as the newest.
            let Some(span) = kept.span().filter(|span| span.start <= self.until) else { continue };
            let age = self.until.duration_since(span.end).as_micros() / length.as_micros().max(1);
            let age = usize::try_from(age).unwrap_or(usize::MAX);
            let place = self.count.checked_sub(age.saturating_add(1));
            let Some(value) = place.and_then(|place| values.get_mut(place)) else { continue };
            if !budget.goes_on() {
                return None;
            }
            *value += kept.count_values();
        }
        self.by_container.insert(allocation, values);
        Some(())
    }

    /// Values in each window of a task, the oldest first.
    pub(super) fn count_values(&self, listed: &TaskContainers) -> Vec<u64> {
        let mut sums = vec![0; self.count];
        for values in listed.containers.iter().filter_map(|info| self.by_container.get(&info.allocation)) {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        sums
    }

    /// The end of the newest window.
    pub(super) fn end_of_newest(&self) -> Timestamp {
        self.until
    }
}
