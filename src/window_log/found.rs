//! What was read of a container: its windows, the one that was open, and what is known beside them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Birth, Who};
use crate::aggregate::{
    CheckOutcome, EventRecord, Habits, LastCheck, Layout, PersistentValue, SeriesState, View, Window,
    WindowBuilder, WindowSpan,
};
use crate::model::{ByIdentity, MetricType, Series, Timestamp};
use crate::store::StoredWindow;

/// A container in the log.
#[derive(Debug)]
pub(super) struct FoundContainer {
    pub(super) who: Who,
    /// In order of publication.
    pub(super) windows: BTreeMap<Birth, StoredWindow>,
    pub(super) events: VecDeque<Arc<EventRecord>>,
    pub(super) open: Option<OpenWindow>,
    pub(super) lasting: Lasts,
    /// Whether it is described beside checkpoints alone.
    pub(super) is_only_open: bool,
}

impl FoundContainer {
    /// The start of the last closed interval.
    pub(super) fn last_start(&self) -> Option<Timestamp> {
        self.windows.values().map(|stored| stored.window.span.start).max()
    }

    /// Whether it has an open window that was not closed afterwards.
    pub(super) fn has_unfinished(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let closed = |birth: &Birth, window: &Window| {
                window.span.start == open.start() && (birth.epoch == open.epoch || open.epoch == 0)
            };
            !self.windows.iter().any(|(birth, stored)| closed(birth, &stored.window))
        })
    }

    /// The births of its windows with their numbers of records; the open one comes after the closed ones of its epoch.
    pub(super) fn window_births(&self) -> impl Iterator<Item = (Birth, usize)> {
        let open = self.open.as_ref().filter(|_| self.has_unfinished());
        let closed = self.windows.iter().map(|(birth, stored)| (*birth, stored.window.len()));
        closed.chain(open.map(|open| (open.birth, usize::from(u16::MAX))))
    }
}

/// An open window, assembled from checkpoints. Each has the complete state of the series that changed, so the last one
/// counts.
#[derive(Debug)]
pub(super) struct OpenWindow {
    /// The epoch in which it was open; 0 if unknown.
    pub(super) epoch: u64,
    /// Other than the births of all windows that are there.
    pub(super) birth: Birth,
    span: WindowSpan,
    layout: Layout,
    states: BTreeMap<u32, (SeriesState, f64)>,
}

impl OpenWindow {
    pub(super) fn new(epoch: u64, window: &Window) -> Self {
        let span = WindowSpan { covered: Duration::ZERO, ..window.span };
        let (birth, layout) = (Birth::of_open(epoch, 0), window.layout().clone());
        let mut open = Self { epoch, birth, span, layout, states: BTreeMap::new() };
        open.add(epoch, window);
        open
    }

    /// Adds a checkpoint; a later window replaces an earlier one.
    pub(super) fn add(&mut self, epoch: u64, window: &Window) {
        if (epoch, window.span.start) < (self.epoch, self.span.start) {
            return;
        }
        if (epoch, window.span.start) != (self.epoch, self.span.start) {
            *self = Self::new(epoch, window);
            return;
        }
        self.span.covered = self.span.covered.max(window.span.covered);
        self.change_layout(window.layout());
        for record in window.records() {
            let total = match record.view {
                View::Counter { total, .. } => total,
                _ => 0.0,
            };
            if let Some(state) = record.view.to_state() {
                self.states.insert(record.place, (state, total));
            }
        }
    }

    /// Continues with another layout, without the states of series that are no longer at their places: another series there would
    /// get their values, and a vacant place would leave records that cannot be read.
    fn change_layout(&mut self, new: &Layout) {
        if Arc::ptr_eq(&self.layout, new) {
            return;
        }
        let old = std::mem::replace(&mut self.layout, Arc::clone(new));
        let series_at = |layout: &Layout, place: u32| layout.get(place as usize).cloned().flatten();
        self.states.retain(|place, _| series_at(&old, *place) == series_at(new, *place));
    }

    /// When it started.
    pub(super) fn start(&self) -> Timestamp {
        self.span.start
    }

    /// Closes it with its last known contents.
    pub(super) fn close(self) -> Window {
        let mut builder = WindowBuilder::new(self.span);
        for (place, (state, total)) in &self.states {
            builder.push(*place, state, *total);
        }
        builder.build(self.layout)
    }
}

/// The newest written state of each series.
#[derive(Default, Debug)]
pub(super) struct Lasts {
    lasting: HashMap<ByIdentity, PersistentValue>,
    checks: HashMap<ByIdentity, LastCheck>,
    habits: Habits,
}

impl Lasts {
    /// Adds an entry; `None` if it is invalid.
    pub(super) fn add(
        &mut self,
        lasting: Vec<PersistentValue>,
        checks: Vec<(Arc<Series>, Timestamp, Arc<CheckOutcome>)>,
        habits: Habits,
    ) -> Option<()> {
        let sound = lasting.iter().all(PersistentValue::is_plausible)
            && checks.iter().all(|(series, ..)| series.metric_type == MetricType::ServiceCheck);
        if !sound {
            return None;
        }
        for last in lasting {
            let known =
                self.lasting.entry(ByIdentity(Arc::clone(&last.series))).or_insert_with(|| last.clone());
            if known.at <= last.at {
                *known = last;
            }
        }
        for (series, at, outcome) in checks {
            self.add_check(LastCheck { series, at, outcome });
        }
        self.habits = habits;
        Some(())
    }

    /// Adds the state of the same container under another key, which is void.
    pub(super) fn merge(&mut self, older: Self) {
        for (key, last) in older.lasting {
            self.lasting.entry(key).or_insert(last);
        }
        older.checks.into_values().for_each(|check| self.add_check(check));
        if self.habits == Habits::default() {
            self.habits = older.habits;
        }
    }

    /// Adds the outcomes of checks in a window.
    pub(super) fn checks_of(&mut self, window: &Window) {
        for record in window.records() {
            if let View::Check { last_at: at, outcome, .. } = record.view {
                let (series, outcome) = (Arc::clone(record.series), Arc::clone(outcome));
                self.add_check(LastCheck { series, at, outcome });
            }
        }
    }

    fn add_check(&mut self, check: LastCheck) {
        let known = self.checks.entry(ByIdentity(Arc::clone(&check.series))).or_insert_with(|| check.clone());
        if known.at <= check.at {
            *known = check;
        }
    }

    /// All of it; checks sorted by name and tags.
    pub(super) fn into_parts(self) -> (Vec<LastCheck>, Vec<PersistentValue>, Habits) {
        let mut checks: Vec<_> = self.checks.into_values().collect();
        checks.sort_by(|a, b| (&a.series.name, &a.series.tags).cmp(&(&b.series.name, &b.series.tags)));
        (checks, self.lasting.into_values().collect(), self.habits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Counter, Weight};
    use crate::model::TagSet;

    /// 2026-01-01T00:00:00Z, on the grid.
    fn start() -> Timestamp {
        Timestamp::from_secs(1_767_225_600)
    }

    fn layout<const N: usize>(names: [Option<&str>; N]) -> Layout {
        let series = |name: &str| {
            let (name, tags) = (name.into(), TagSet::default());
            Arc::new(Series { name, tags, metric_type: MetricType::Counter, created: start() })
        };
        names.into_iter().map(|name| name.map(series)).collect()
    }

    fn window(layout: &Layout, counts: &[(u32, f64)]) -> Window {
        let mut builder = WindowBuilder::new(WindowSpan {
            start: start(),
            end: start().saturating_add(Duration::from_secs(10)),
            covered: Duration::from_secs(1),
        });
        for (place, sum) in counts {
            let counter = Counter { samples: 1, count: Weight::ONE, sum: *sum, decremented: false };
            builder.push(*place, &SeriesState::Counter(counter), *sum);
        }
        builder.build(Arc::clone(layout))
    }

    /// Names with their sums.
    fn read_counters(window: &Window) -> Vec<(&str, f64)> {
        let read = window.records().map(|record| match record.view {
            View::Counter { counter, .. } => (&*record.series.name, counter.sum),
            other => panic!("{other:?}"),
        });
        read.collect()
    }

    #[test]
    fn series_that_leave_their_places_while_a_window_is_open_take_no_other_series_with_them() {
        let first = layout([Some("a"), Some("gone"), Some("replaced"), Some("b")]);
        let mut open = OpenWindow::new(1, &window(&first, &[(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]));
        let second = layout([Some("a"), None, Some("new"), Some("b"), Some("c")]);
        open.add(1, &window(&second, &[(4, 5.0)]));
        let closed = open.close();
        assert_eq!(read_counters(&closed), [("a", 1.0), ("b", 4.0), ("c", 5.0)]);
        assert_eq!(closed.len(), 3);
    }
}
