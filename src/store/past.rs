//! Totals of removed series, so that a workload's counters continue from their last values.
//!
//! A job of two seconds is gone before a reader can read it twice. Its counts are added up here when it is removed: by
//! pod or task while another container of the same is here, by workload for a day.
//!
//! An identity has at most as many of these totals as a container may have series, and a level at most
//! `limits.remembered`. Beyond that, the least recently updated are evicted: first of the identity that has too many,
//! then of those with the most.

mod added;
mod remembered;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use remembered::RememberedTotals;
pub use remembered::{Gone, GoneByIdentity};
pub(super) use remembered::{RememberedBound, fair_share};

use crate::aggregate::{Buckets, Histogram, LedgerEntry, Limits, Weight};
use crate::model::{MetricType, Origin, Series, Timestamp};
use crate::render::prometheus::{Level, SeriesIdentity, Total};

/// How long a workload's counters are kept after their last sample: a job that runs once a day adds to yesterday's.
pub const REMEMBERED: Duration = Duration::from_hours(25);

/// Default for the number of series per level, and of names without a series, until `limits.remembered` is known.
pub(super) const MOST: usize = 100_000;

/// Totals of removed series with the same identity.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SeriesTotals {
    /// The series, as one of those had it.
    pub series: Arc<Series>,
    /// When the first of them was created.
    pub created: Timestamp,
    /// The end of the last window that had a sample of it.
    pub last_seen: Timestamp,
    /// The sum of a counter, or of the values of a timer, histogram or distribution.
    pub total: Total,
    /// Samples weighted by 1/rate.
    pub count: Weight,
    /// The counts in buckets, if it has a histogram.
    pub histogram: Option<Summed>,
    /// Whether a negative value was ever added.
    pub decremented: bool,
}

/// The sum of removed histograms.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summed {
    /// When the first of them began.
    pub created: Timestamp,
    /// The sum of all values.
    pub sum: Total,
    /// How many were in each bucket.
    pub buckets: Arc<Buckets>,
}

impl Summed {
    /// Adds a histogram. Sums with other bounds are obsolete, since readers are now shown the new bounds, and are
    /// replaced.
    fn add(summed: &mut Option<Self>, histogram: &Histogram) {
        if let Some(known) = summed
            && Arc::make_mut(&mut known.buckets).merge(&histogram.buckets)
        {
            known.created = known.created.min(histogram.created);
            known.sum = known.sum.saturating_add(histogram.sum.into());
            return;
        }
        let Histogram { created, sum, buckets } = histogram;
        *summed = Some(Self { created: *created, sum: (*sum).into(), buckets: Arc::clone(buckets) });
    }
}

/// Counts of totals that were evicted before a day was over, by reason.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct EvictedTotals {
    /// Their workload or task had more than a container may have series.
    pub series_limit: u64,
    /// The node had too many, and their workload or task was among those with the most.
    pub node: u64,
}

/// Changed identities of a level with their totals, and removed ones.
type LevelChanges = (Vec<(SeriesIdentity, Vec<SeriesTotals>)>, Vec<SeriesIdentity>);

/// Changes in the remembered totals, for another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct PastChanges {
    placed: LevelChanges,
    workloads: LevelChanges,
}

/// The remembered totals that another process already has.
#[derive(Debug, Default)]
pub(super) struct KnownTotals {
    placed: GoneByIdentity,
    workloads: GoneByIdentity,
}

/// All remembered totals of both levels at one moment.
#[derive(Debug)]
pub(super) struct Everything {
    placed: GoneByIdentity,
    workloads: GoneByIdentity,
}

impl KnownTotals {
    /// The changes that the other process does not have yet; records them as known.
    pub(super) fn learn_changes(&mut self, now: &Everything) -> PastChanges {
        let unknown = |known: &mut GoneByIdentity, now: &GoneByIdentity| {
            let same = |identity: &SeriesIdentity, gone: &Arc<Gone>| {
                known.get(identity).is_some_and(|known| Arc::ptr_eq(known, gone))
            };
            let changed: Vec<_> = now.iter().filter(|(identity, gone)| !same(identity, gone)).collect();
            let gone: Vec<_> =
                known.keys().filter(|identity| !now.contains_key(*identity)).cloned().collect();
            gone.iter().for_each(|identity| drop(known.remove(identity)));
            for (identity, gone) in &changed {
                known.insert(SeriesIdentity::clone(identity), Arc::clone(gone));
            }
            let counted = changed.into_iter().map(|(id, gone)| (id.clone(), gone.iter().cloned().collect()));
            (counted.collect(), gone)
        };
        PastChanges {
            placed: unknown(&mut self.placed, &now.placed),
            workloads: unknown(&mut self.workloads, &now.workloads),
        }
    }

    /// Applies changes from another process.
    pub(super) fn apply_changes(&mut self, changes: PastChanges) {
        let apply = |known: &mut GoneByIdentity, (changed, gone): LevelChanges| {
            gone.iter().for_each(|identity| drop(known.remove(identity)));
            for (identity, counted) in changed {
                known.insert(identity, Arc::new(Gone::from_counted(counted)));
            }
        };
        apply(&mut self.placed, changes.placed);
        apply(&mut self.workloads, changes.workloads);
    }
}

/// All remembered totals.
#[derive(Debug)]
pub(super) struct Past {
    placed: RememberedTotals,
    /// How many containers of each pod or task are here, and of each workload.
    here: HashMap<SeriesIdentity, usize>,
    here_of_workloads: HashMap<SeriesIdentity, usize>,
    workloads: RememberedTotals,
    /// How many series each identity may have, and all of a level together.
    share: usize,
    bound: RememberedBound,
    evicted: EvictedTotals,
    newest: Timestamp,
    /// When old ones were last looked for.
    pruned: Timestamp,
}

impl Default for Past {
    fn default() -> Self {
        Self::at_most(Limits::default().series, MOST)
    }
}

impl Past {
    fn at_most(share: usize, most: usize) -> Self {
        let (placed, here, here_of_workloads, workloads, evicted) = Default::default();
        let (newest, pruned) = (Timestamp::MIN, Timestamp::MIN);
        let bound = RememberedBound::new(most);
        Self { placed, here, here_of_workloads, workloads, share, bound, evicted, newest, pruned }
    }

    /// Sets how many series each identity may have, and all of a level together.
    pub(super) fn set_limits(&mut self, share: usize, most: usize) {
        self.share = share.min(most);
        self.bound.set(most);
        self.prune_totals();
    }

    /// The remembered totals of a level: none at the level of single containers, which never return.
    pub(super) fn totals_at_level(&self, level: Level) -> GoneByIdentity {
        match level {
            Level::Low => self.workloads.by_identity().clone(),
            Level::Orchestrator => self.placed.by_identity().clone(),
            Level::High => GoneByIdentity::default(),
        }
    }

    /// All current totals.
    pub(super) fn all_totals(&self) -> Everything {
        Everything {
            placed: self.placed.by_identity().clone(),
            workloads: self.workloads.by_identity().clone(),
        }
    }

    /// Restores the totals of another process. Its containers are added later.
    pub(super) fn from_known(KnownTotals { placed, workloads }: KnownTotals) -> Self {
        let series = workloads.values().flat_map(|gone| gone.iter());
        let newest = series.map(|counted| counted.last_seen).max().unwrap_or(Timestamp::MIN);
        let (placed, workloads) = (RememberedTotals::new(placed), RememberedTotals::new(workloads));
        Self { placed, workloads, newest, ..Self::default() }
    }

    /// How many series are remembered, of both levels.
    pub(super) fn len(&self) -> usize {
        self.placed.len() + self.workloads.len()
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        self.placed.bytes() + self.workloads.bytes()
    }

    /// Counts of totals that were evicted early.
    pub(super) fn evicted_totals(&self) -> EvictedTotals {
        self.evicted
    }

    /// Counts a new container.
    pub(super) fn add_container(&mut self, origin: &Origin) {
        *self.here.entry(SeriesIdentity::from_origin(origin, Level::Orchestrator)).or_default() += 1;
        *self.here_of_workloads.entry(SeriesIdentity::from_origin(origin, Level::Low)).or_default() += 1;
    }

    /// Adds the totals of removed series of a container that continues.
    pub(super) fn add<'l>(&mut self, origin: &Origin, series: impl Iterator<Item = LedgerEntry<'l>>) {
        let counting: Vec<_> = series.filter(|(series, ..)| has_totals(series.metric_type)).collect();
        self.remember_totals(origin, &counting, true);
    }

    /// Adds the totals of idle series that a continuing container evicted. If it is the only container of its pod or
    /// task, these totals are dropped at that level, where the series restart if they return; sums over several
    /// containers must not lose one of them.
    pub(super) fn add_evicted<'l>(&mut self, origin: &Origin, series: impl Iterator<Item = LedgerEntry<'l>>) {
        let counting: Vec<_> = series.filter(|(series, ..)| has_totals(series.metric_type)).collect();
        if counting.is_empty() {
            return;
        }
        let identity = SeriesIdentity::from_origin(origin, Level::Orchestrator);
        let others = self.here.get(&identity).is_some_and(|here| *here > 1);
        self.remember_totals(origin, &counting, others);
        if !others {
            self.placed.forget_series(&identity, counting.iter().map(|(series, ..)| *series));
        }
    }

    fn remember_totals(&mut self, origin: &Origin, counting: &[LedgerEntry<'_>], placed: bool) {
        if counting.is_empty() {
            return;
        }
        let newest = counting.iter().map(|(_, row, _)| row.last_seen).max();
        self.newest = self.newest.max(newest.unwrap_or(self.newest));
        let mut went =
            self.workloads.add(&SeriesIdentity::from_origin(origin, Level::Low), counting, self.share);
        if placed {
            went += self.placed.add(
                &SeriesIdentity::from_origin(origin, Level::Orchestrator),
                counting,
                self.share,
            );
        }
        self.evicted.series_limit += went as u64;
        self.prune_totals();
    }

    /// Removes a container, after its remaining totals were added.
    pub(super) fn remove_container(&mut self, origin: &Origin) {
        one_fewer(&mut self.here_of_workloads, &SeriesIdentity::from_origin(origin, Level::Low));
        let identity = SeriesIdentity::from_origin(origin, Level::Orchestrator);
        if one_fewer(&mut self.here, &identity) == 0 {
            self.placed.remove(&identity);
        }
    }

    /// Bytes of remembered totals that count for a container: its equal share of its task's and its workload's.
    pub(super) fn part_of(&self, (task, workload): &(SeriesIdentity, SeriesIdentity)) -> usize {
        let part = |of: &RememberedTotals, here: &HashMap<SeriesIdentity, usize>, identity| {
            of.bytes_of(identity) / here.get(identity).copied().unwrap_or(1).max(1)
        };
        part(&self.placed, &self.here, task) + part(&self.workloads, &self.here_of_workloads, workload)
    }

    /// How many containers of a workload are here.
    pub(super) fn here_of(&self, workload: &SeriesIdentity) -> usize {
        self.here_of_workloads.get(workload).copied().unwrap_or_default()
    }

    /// Recounts the bytes of all totals.
    pub(super) fn recount_bytes(&self) -> usize {
        self.placed.recount_totals().1 + self.workloads.recount_totals().1
    }

    fn prune_totals(&mut self) {
        const PRUNE_INTERVAL: Duration = Duration::from_mins(1);
        if self.newest.duration_since(self.pruned) >= PRUNE_INTERVAL {
            self.pruned = self.newest;
            self.workloads.forget_before(self.newest.saturating_sub(REMEMBERED));
        }
        if let Some(target) = self.bound.target(self.workloads.len().max(self.placed.len())) {
            let went = self.workloads.keep_to(target) + self.placed.keep_to(target);
            self.evicted.node += went as u64;
        }
    }
}

/// Decrements a container count; returns the containers that are left.
fn one_fewer(here: &mut HashMap<SeriesIdentity, usize>, identity: &SeriesIdentity) -> usize {
    let left = here.get_mut(identity).map_or(0, |here| {
        *here = here.saturating_sub(1);
        *here
    });
    if left == 0 {
        here.remove(identity);
    }
    left
}

fn has_totals(metric_type: MetricType) -> bool {
    !matches!(metric_type, MetricType::Gauge | MetricType::Set | MetricType::ServiceCheck)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Bounds, LedgerRow, Scale};
    use crate::model::{ContainerId, Generation, Labels, TagSet, TaskId};
    use crate::statsd::{ParsedLine, TagStyles, parse};

    fn origin(task: &str) -> Origin {
        Origin {
            container_id: ContainerId::new("c").unwrap(),
            generation: Generation(1),
            task_id: TaskId::new(task).unwrap(),
            labels: Labels::new(),
        }
    }

    fn add(past: &mut Past, task: &str, name: &str, total: f64, at: i64) {
        let series = Arc::new(Series {
            name: name.into(),
            tags: TagSet::default(),
            metric_type: MetricType::Counter,
            created: Timestamp::from_secs(at),
        });
        let last_seen = Timestamp::from_secs(at);
        let row = LedgerRow { total, count: Weight::ONE, last_seen, decremented: total < 0.0 };
        past.add(&origin(task), std::iter::once((&series, &row, None)));
    }

    fn total(past: &Past, level: Level, task: &str) -> Option<f64> {
        let gone =
            past.totals_at_level(level).get(&SeriesIdentity::from_origin(&origin(task), level)).cloned()?;
        Some(gone.iter().map(|counted| counted.total.as_f64()).sum())
    }

    #[test]
    fn lives_of_a_workload_add_up() {
        let mut past = Past::default();
        past.add_container(&origin("job.1"));
        add(&mut past, "job.1", "done", 3.0, 10);
        past.remove_container(&origin("job.1"));
        add(&mut past, "job.2", "done", 4.0, 20);
        past.remove_container(&origin("job.2"));
        assert_eq!(total(&past, Level::Low, "job.3"), Some(7.0));
        assert_eq!(total(&past, Level::Orchestrator, "job.1"), None, "no task of that name is here");
    }

    #[test]
    fn a_workload_remembers_that_a_counter_was_counted_down() {
        let mut past = Past::default();
        add(&mut past, "job.1", "active", -1.0, 10);
        add(&mut past, "job.2", "active", 5.0, 20);
        let gone = past
            .totals_at_level(Level::Low)
            .remove(&SeriesIdentity::from_origin(&origin("job.1"), Level::Low))
            .unwrap();
        assert!(gone.iter().all(|counted| counted.decremented && counted.total.as_f64() == 4.0));
    }

    #[test]
    fn a_series_that_made_room_begins_anew_where_its_container_is_alone_and_goes_on_in_its_workload() {
        let evict = |past: &mut Past| {
            let series = Arc::new(Series {
                name: "rare".into(),
                tags: TagSet::default(),
                metric_type: MetricType::Counter,
                created: Timestamp::from_secs(1),
            });
            let last_seen = Timestamp::from_secs(1);
            let row = LedgerRow { total: 3.0, count: Weight::ONE, last_seen, decremented: false };
            past.add_evicted(&origin("web.1"), std::iter::once((&series, &row, None)));
            [Level::Orchestrator, Level::Low].map(|level| total(past, level, "web.1").unwrap_or_default())
        };
        let mut alone = Past::default();
        alone.add_container(&origin("web.1"));
        assert_eq!(evict(&mut alone), [0.0, 3.0]);
        let mut beside = Past::default();
        beside.add_container(&origin("web.1"));
        beside.add_container(&origin("web.1"));
        assert_eq!(evict(&mut beside), [3.0, 3.0]);
    }

    #[test]
    fn a_task_goes_on_while_one_of_its_containers_is_here() {
        let mut past = Past::default();
        past.add_container(&origin("web.1"));
        past.add_container(&origin("web.1"));
        add(&mut past, "web.1", "hits", 5.0, 10);
        past.remove_container(&origin("web.1"));
        assert_eq!(total(&past, Level::Orchestrator, "web.1"), Some(5.0));
        past.remove_container(&origin("web.1"));
        assert_eq!(total(&past, Level::Orchestrator, "web.1"), None);
    }

    #[test]
    fn buckets_of_a_workload_add_up_and_other_bounds_begin_anew() {
        let mut past = Past::default();
        let mut add = |bounds: f64, value: &[u8], at: i64| {
            let (name, created) = ("t".into(), Timestamp::from_secs(at));
            let series =
                Series { name, tags: TagSet::default(), metric_type: MetricType::Histogram, created };
            let bounds = Bounds::new(&[bounds], 0).unwrap();
            let mut histogram = Histogram::new(Scale::Bounds(&bounds), created);
            let Ok(ParsedLine::Sample(sample)) = parse(value, TagStyles::NONE) else { panic!() };
            histogram.insert(&sample.values, sample.weight);
            let row = LedgerRow { total: 0.0, count: Weight::ONE, last_seen: created, decremented: false };
            past.add(&origin("job.1"), std::iter::once((&Arc::new(series), &row, Some(&histogram))));
            let gone = past
                .totals_at_level(Level::Low)
                .remove(&SeriesIdentity::from_origin(&origin("job.1"), Level::Low))
                .unwrap();
            let summed = gone.iter().next().unwrap().histogram.clone().unwrap();
            let counts: Vec<_> = summed.buckets.cumulative_counts().map(Weight::as_f64).collect();
            (counts, summed.sum.as_f64(), summed.created)
        };
        add(10.0, b"t:1|h", 5);
        assert_eq!(add(10.0, b"t:20|h|@0.1", 7), (vec![1.0, 11.0], 201.0, Timestamp::from_secs(5)));
        assert_eq!(add(11.0, b"t:20|h", 9), (vec![0.0, 1.0], 20.0, Timestamp::from_secs(9)));
    }

    #[test]
    fn native_histograms_of_a_workload_add_up_at_the_coarser_schema() {
        let mut past = Past::default();
        let mut add = |values: &mut dyn Iterator<Item = f64>, at: i64| {
            let created = Timestamp::from_secs(at);
            let series = Series {
                name: "t".into(),
                tags: TagSet::default(),
                metric_type: MetricType::Histogram,
                created,
            };
            let mut histogram = Histogram::new(Scale::Powers { places: 0 }, created);
            for value in values {
                let line = format!("t:{value}|h");
                let Ok(ParsedLine::Sample(sample)) = parse(line.as_bytes(), TagStyles::NONE) else {
                    panic!()
                };
                histogram.insert(&sample.values, sample.weight);
            }
            let row = LedgerRow { total: 0.0, count: Weight::ONE, last_seen: created, decremented: false };
            past.add(&origin("job.1"), std::iter::once((&Arc::new(series), &row, Some(&histogram))));
            let gone = past
                .totals_at_level(Level::Low)
                .remove(&SeriesIdentity::from_origin(&origin("job.1"), Level::Low))
                .unwrap();
            let summed = gone.iter().next().unwrap().histogram.clone().unwrap();
            let Buckets::Native(native) = &*summed.buckets else { panic!() };
            (native.schema(), summed.buckets.count().as_f64(), summed.sum.as_f64())
        };
        let wide = |power: i32| 2_f64.powf(f64::from(power) / 8.0);
        assert_eq!(add(&mut [1.0, 2.0].into_iter(), 5), (3, 2.0, 3.0));
        assert_eq!(add(&mut (0..300).map(wide), 7).0, 2, "more than 160 buckets at the finest");
        let (schema, count, _) = add(&mut [4.0].into_iter(), 9);
        assert_eq!((schema, count), (2, 303.0));
    }

    #[test]
    fn what_was_not_sent_for_a_day_is_forgotten() {
        let mut past = Past::default();
        add(&mut past, "old.1", "done", 1.0, 0);
        add(&mut past, "new.1", "done", 1.0, 25 * 3600);
        assert_eq!(total(&past, Level::Low, "old.1"), Some(1.0));
        add(&mut past, "new.1", "done", 1.0, 25 * 3600 + 60);
        assert_eq!((total(&past, Level::Low, "old.1"), total(&past, Level::Low, "new.1")), (None, Some(2.0)));
    }

    #[test]
    fn beyond_the_limit_the_oldest_go() {
        let mut past = Past::at_most(20, 20);
        for n in 0..21 {
            add(&mut past, "job.1", &format!("n{n}"), 1.0, n);
        }
        let left = total(&past, Level::Low, "job.1").unwrap();
        assert!((17.0..=20.0).contains(&left), "{left}");
        let gone = past.totals_at_level(Level::Low);
        let oldest = gone.values().flat_map(|gone| gone.iter()).map(|counted| counted.last_seen).min();
        assert!(oldest > Some(Timestamp::from_secs(0)));
        let EvictedTotals { series_limit, node } = past.evicted_totals();
        assert_eq!((series_limit as f64, node), (2.0 * (21.0 - left), 0), "of its task and of its workload");
    }

    fn remembered(past: &Past, workload: &str) -> usize {
        let gone = past
            .totals_at_level(Level::Low)
            .get(&SeriesIdentity::from_origin(&origin(workload), Level::Low))
            .cloned();
        gone.map_or(0, |gone| gone.iter().count())
    }

    #[test]
    fn a_container_with_fresh_names_again_and_again_keeps_to_its_series_limit() {
        let mut past = Past::at_most(100, 100_000);
        past.add_container(&origin("web.1"));
        for n in 0..1000 {
            add(&mut past, "web.1", &format!("n{n}"), 1.0, n);
        }
        assert!((90..=100).contains(&remembered(&past, "web.1")));
        assert!(past.len() <= 200, "of its task and of its workload");
        assert_eq!(past.evicted_totals().node, 0);
        assert!(past.evicted_totals().series_limit >= 1800);
    }

    #[test]
    fn one_workloads_names_do_not_push_out_anothers() {
        let mut past = Past::at_most(1000, 1000);
        for n in 0..50 {
            add(&mut past, "small.1", &format!("n{n}"), 1.0, n);
        }
        for n in 0..10_000 {
            add(&mut past, "large.1", &format!("n{n}"), 1.0, 1000 + n);
        }
        assert_eq!(remembered(&past, "small.1"), 50, "although they are older than all others");
        assert!(remembered(&past, "large.1") > 800);
        assert!(past.evicted_totals().node > 0);
    }

    #[test]
    fn more_workloads_than_there_may_be_totals_go_by_age() {
        let mut past = Past::at_most(10, 10);
        for n in 0..100 {
            add(&mut past, &format!("job{n}.1"), "done", 1.0, n);
        }
        assert!(past.totals_at_level(Level::Low).len() <= 10);
        assert_eq!((remembered(&past, "job0.1"), remembered(&past, "job99.1")), (0, 1));
    }

    #[test]
    fn what_is_counted_as_held_is_what_a_recount_finds() {
        let mut past = Past::at_most(4, 25);
        let mut seed = 1_u64;
        for step in 0..3000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (task, name) = (format!("job{}.1", seed >> 33 & 7), format!("n{}", seed >> 40 & 15));
            match seed >> 60 {
                0 => past.add_container(&origin(&task)),
                1 if past
                    .here
                    .contains_key(&SeriesIdentity::from_origin(&origin(&task), Level::Orchestrator)) =>
                {
                    past.remove_container(&origin(&task));
                }
                _ => add(&mut past, &task, &name, 1.0, step),
            }
            for level in [&past.placed, &past.workloads] {
                assert_eq!((level.len(), level.bytes()), level.recount_totals());
            }
        }
        assert!(past.len() > 0 && past.evicted_totals().series_limit > 0 && past.evicted_totals().node > 0);
    }
}
