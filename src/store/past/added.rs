//! Adds to totals without the store's lock: copies them, adds to the copy, and stores it unless they changed meanwhile.

use std::sync::Arc;

use super::remembered::Gone;
use super::{Past, has_totals};
use crate::aggregate::LedgerEntry;
use crate::model::Timestamp;
use crate::render::prometheus::SeriesIdentity;

/// Up to this many series are added under the lock, which takes less time than copying.
const MAX_ADDED_IN_PLACE: usize = 64;

/// Totals of a task and of a workload at one moment.
#[derive(Debug)]
pub(in crate::store) struct Current {
    task: Option<Arc<Gone>>,
    workload: Option<Arc<Gone>>,
    /// Whether only one container of the task is here, with which the task's totals are removed.
    alone: bool,
    /// Whether no reader holds these totals, so that they can be changed in place.
    free: bool,
    share: usize,
}

/// A copy of the totals with additions.
#[derive(Debug)]
pub(in crate::store) struct Added {
    before: Current,
    task: Option<Arc<Gone>>,
    workload: Arc<Gone>,
    /// How many totals were evicted because the identity had too many.
    went: usize,
    newest: Timestamp,
}

/// Totals that are to be freed when the lock is released.
pub(in crate::store) type Freed = Current;

impl Current {
    /// Adds the totals of removed series to a copy. `None` if [`Past::add`] is as fast under the lock.
    pub(in crate::store) fn with_entries(self, entries: &[LedgerEntry<'_>]) -> Option<Added> {
        let counting = || entries.iter().filter(|(series, ..)| has_totals(series.metric_type));
        let newest = counting().map(|(_, row, _)| row.last_seen).max()?;
        if self.free && counting().nth(MAX_ADDED_IN_PLACE).is_none() {
            return None;
        }
        let with = |gone: &Option<Arc<Gone>>| {
            let mut gone = gone.as_deref().cloned().unwrap_or_default();
            let went = gone.add_all(counting(), self.share);
            (Arc::new(gone), went)
        };
        let (workload, mut went) = with(&self.workload);
        let task = (!self.alone).then(|| with(&self.task));
        went += task.as_ref().map_or(0, |(_, went)| *went);
        Some(Added { before: self, task: task.map(|(task, _)| task), workload, went, newest })
    }
}

impl Past {
    /// Totals as they are now.
    pub(in crate::store) fn current_totals(
        &self,
        (task, workload): &(SeriesIdentity, SeriesIdentity),
    ) -> Current {
        let free = self.placed.is_free(task) && self.workloads.is_free(workload);
        let alone = self.here.get(task).is_none_or(|here| *here <= 1);
        let (task, workload) = (self.placed.get(task), self.workloads.get(workload));
        Current { task, workload, alone, free, share: self.share }
    }

    /// Stores the new totals; returns them as an error if the current ones have changed since they were copied.
    pub(in crate::store) fn try_replace(
        &mut self,
        identities: &(SeriesIdentity, SeriesIdentity),
        added: Added,
    ) -> Result<Freed, Added> {
        let same = |now: &Option<Arc<Gone>>, before: &Option<Arc<Gone>>| match (now, before) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (None, None) => true,
            _ => false,
        };
        let (now, before) = (self.current_totals(identities), &added.before);
        let unchanged = same(&now.task, &before.task) && same(&now.workload, &before.workload);
        if !unchanged || (now.alone, now.share) != (before.alone, before.share) {
            return Err(added);
        }
        let (task, workload) = identities;
        self.workloads.replace_totals(workload, added.workload);
        added.task.into_iter().for_each(|totals| self.placed.replace_totals(task, totals));
        self.newest = self.newest.max(added.newest);
        self.evicted.series_limit += added.went as u64;
        self.prune_totals();
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{LedgerRow, Weight};
    use crate::model::{ContainerId, Generation, Labels, MetricType, Origin, Series, TagSet, TaskId};
    use crate::render::prometheus::Level;

    fn origin() -> Origin {
        let (container_id, task_id) = (ContainerId::new("c").unwrap(), TaskId::new("web.1").unwrap());
        Origin { container_id, generation: Generation(1), task_id, labels: Labels::new() }
    }

    fn identities() -> (SeriesIdentity, SeriesIdentity) {
        (
            SeriesIdentity::from_origin(&origin(), Level::Orchestrator),
            SeriesIdentity::from_origin(&origin(), Level::Low),
        )
    }

    fn series(many: usize) -> Vec<(Arc<Series>, LedgerRow)> {
        let of = |n: usize| {
            let (name, created) = (format!("n{n}").into(), Timestamp::from_secs(1));
            let series = Series { name, tags: TagSet::default(), metric_type: MetricType::Counter, created };
            let row =
                LedgerRow { total: n as f64, count: Weight::ONE, last_seen: created, decremented: false };
            (Arc::new(series), row)
        };
        (0..many).map(of).collect()
    }

    fn entries(series: &[(Arc<Series>, LedgerRow)]) -> Vec<LedgerEntry<'_>> {
        series.iter().map(|(series, row)| (series, row, None)).collect()
    }

    fn seen(past: &Past) -> Vec<String> {
        let mut all = Vec::new();
        for level in [Level::Low, Level::Orchestrator] {
            all.extend(
                past.totals_at_level(level)
                    .values()
                    .flat_map(|gone| gone.iter())
                    .map(|counted| format!("{counted:?}")),
            );
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn totals_are_the_same_whether_they_are_added_with_or_without_the_lock() {
        let many = series(200);
        let [mut with, mut without] = [Past::default(), Past::default()];
        for past in [&mut with, &mut without] {
            past.add_container(&origin());
            past.add_container(&origin());
        }
        for _ in 0..2 {
            with.add(&origin(), entries(&many).into_iter());
            let added = without.current_totals(&identities()).with_entries(&entries(&many)).unwrap();
            assert!(without.try_replace(&identities(), added).is_ok());
        }
        assert_eq!(seen(&with), seen(&without));
        assert_eq!((with.len(), with.bytes()), (without.len(), without.bytes()));
        assert_eq!(without.bytes(), without.recount_bytes());
    }

    #[test]
    fn totals_that_have_changed_in_between_are_not_replaced() {
        let (many, few) = (series(200), series(1));
        let mut past = Past::default();
        past.add_container(&origin());
        let added = past.current_totals(&identities()).with_entries(&entries(&many)).unwrap();
        past.add(&origin(), entries(&few).into_iter());
        let before = seen(&past);
        assert!(past.try_replace(&identities(), added).is_err());
        assert_eq!(seen(&past), before);
    }

    #[test]
    fn a_few_series_are_added_in_place_unless_a_reader_holds_the_totals() {
        let few = series(3);
        let mut past = Past::default();
        past.add_container(&origin());
        past.add(&origin(), entries(&few).into_iter());
        assert!(past.current_totals(&identities()).with_entries(&entries(&few)).is_none());
        let reader = past.totals_at_level(Level::Low).get(&identities().1).cloned();
        assert!(past.current_totals(&identities()).with_entries(&entries(&few)).is_some());
        drop(reader);
    }
}
