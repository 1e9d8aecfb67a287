//! One container's windows.

mod held;
mod image;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::aggregate::{
    ContainerSummary, Ledger, PersistentValue, Record, SeriesState, View, Window, WindowBuilder, WindowSpan,
};
use crate::model::{Allocation, Origin, SeriesKey, Timestamp};
use crate::render::prometheus::{Level, SeriesIdentity};
use crate::render::record::RecordNumber;
use crate::store::Cursor;

pub(super) use held::HeldBytes;
use held::Layouts;
pub use image::{HISTORY_VERSION, HistoryError};
pub(super) use image::{HistoryHead, ReceivedHistory, SentHistory};

/// A window with its place in the sequence.
#[derive(Debug)]
pub struct Published {
    allocation: Allocation,
    origin: Arc<Origin>,
    first: u64,
    kept: StoredWindow,
}

/// A window and what is known of it beside its records.
#[derive(Debug)]
pub struct StoredWindow {
    /// The records as they are.
    pub window: Window,
    /// How often each record was revised; empty where none was.
    pub revs: Box<[u32]>,
    /// What was added to earlier records of the interval, where `window` has the sums. It has the series of `window` at the
    /// same places.
    pub added: Option<Box<Window>>,
    /// Where it was published first, if that was in another epoch.
    pub born: Option<Cursor>,
}

impl From<Window> for StoredWindow {
    fn from(window: Window) -> Self {
        Self { window, revs: Box::default(), added: None, born: None }
    }
}

/// Everything published of one interval: the window as it was closed, and revisions, oldest first.
#[derive(Clone, Debug)]
pub struct IntervalWindows(Vec<Arc<Published>>);

/// Records of an interval that are new or revised.
#[derive(Debug)]
pub(super) struct Revision {
    pub(super) stored: StoredWindow,
    /// The number of values to be added.
    pub(super) values: u64,
    /// How many of them are lost, because the record to add them to could not be decoded.
    pub(super) lost: u64,
}

/// The kept windows of one container, and its summary.
#[derive(Clone, Debug)]
pub struct History {
    origin: Arc<Origin>,
    /// The task and the workload that its samples belong to.
    identities: (SeriesIdentity, SeriesIdentity),
    opened: Timestamp,
    /// By start.
    kept: VecDeque<IntervalWindows>,
    /// Windows that an earlier run of the agent dated to the future because its clock was ahead, by start. They were
    /// closed before all of `kept`, and move there once the clock has passed their start.
    ahead: VecDeque<IntervalWindows>,
    /// The place and the start of each interval, in the order in which intervals were closed and are dropped.
    closed: VecDeque<(u64, Timestamp)>,
    /// The last place in the sequence at which a record of this container was dropped.
    gone: u64,
    held: HeldBytes,
    layouts: Layouts,
    summary: Option<ContainerSummary>,
    /// Bytes that were shared with the aggregator, and count here since the aggregator is gone. `None` while there is one.
    alone: Option<usize>,
}

impl Published {
    pub(crate) fn new(allocation: Allocation, origin: &Arc<Origin>, kept: StoredWindow, first: u64) -> Self {
        Self { allocation, origin: Arc::clone(origin), first, kept }
    }

    /// The same window at another place in the sequence, under another allocation.
    pub(super) fn with_place(self, allocation: Allocation, first: u64) -> Self {
        Self { allocation, first, ..self }
    }

    /// The container, by its allocation.
    #[must_use]
    pub fn allocation(&self) -> Allocation {
        self.allocation
    }

    /// Where its samples come from.
    #[must_use]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    #[must_use]
    pub fn window(&self) -> &Window {
        &self.kept.window
    }

    /// What was added to earlier records of the interval: the window itself, unless it revises some. For readers that add up.
    /// `None` where that is not known, because its entry in the window log was damaged or had no room.
    #[must_use]
    pub fn added_window(&self) -> Option<&Window> {
        match &self.kept.added {
            Some(added) => Some(added),
            None => self.kept.revs.iter().all(|rev| *rev == 0).then_some(&self.kept.window),
        }
    }

    /// What was added, where that is another window.
    pub(crate) fn added_apart(&self) -> Option<&Window> {
        self.kept.added.as_deref()
    }

    /// The place at which it was published first, for the store of this epoch. Other than [`Published::first_seq`], it stays
    /// the same when a later run of the agent restores the window.
    #[must_use]
    pub fn birth_in(&self, epoch: u64) -> Cursor {
        self.kept.born.unwrap_or(Cursor { epoch, seq: self.first })
    }

    /// The place of its first record.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.first
    }

    /// The place of its last record.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.first + (self.kept.window.len() as u64).saturating_sub(1)
    }

    /// How often each record was revised, in the order of records; empty where none was.
    #[must_use]
    pub fn revision_counts(&self) -> &[u32] {
        &self.kept.revs
    }

    /// Its records and their numbers.
    #[must_use]
    pub fn numbered_records(&self) -> impl DoubleEndedIterator<Item = (RecordNumber, Record<'_>)> {
        (0..self.kept.window.len()).filter_map(|index| {
            let number = RecordNumber {
                seq: self.first + index as u64,
                rev: self.kept.revs.get(index).copied().unwrap_or(0),
            };
            Some((number, self.kept.window.record_at(index)?))
        })
    }
}

impl AsRef<Window> for Published {
    fn as_ref(&self) -> &Window {
        &self.kept.window
    }
}

impl IntervalWindows {
    /// The interval, as it was observed.
    #[must_use]
    pub fn span(&self) -> Option<WindowSpan> {
        self.0.first().map(|published| published.kept.window.span)
    }

    /// Number of values in its newest records. Walks over all of them.
    #[must_use]
    pub fn count_values(&self) -> u64 {
        self.newest_records().map(|(_, _, record)| record.view.sample_count()).sum()
    }

    /// Everything published of it, oldest first.
    pub fn published_windows(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.0.iter()
    }

    /// The newest revision of each record whose series is also in `window`, found in one pass that ends as soon as it has all.
    fn newest_of<'k>(&'k self, window: &'k Window) -> HashMap<SeriesKey<'k>, (u32, Record<'k>)> {
        let mut missing: HashSet<_> = window.records().map(|record| SeriesKey(record.series)).collect();
        let mut newest = HashMap::with_capacity(missing.len());
        for (number, record) in self.0.iter().rev().flat_map(|published| published.numbered_records()) {
            if missing.is_empty() {
                break;
            }
            let key = SeriesKey(record.series);
            if missing.remove(&key) {
                newest.insert(key, (number.rev, record));
            }
        }
        newest
    }

    /// The newest revision of each record, and the window it is in.
    pub fn newest_records(&self) -> impl Iterator<Item = (&Arc<Published>, RecordNumber, Record<'_>)> {
        // Most intervals have no revisions, and then each record is the newest of its series.
        let revised = self.0.len() > 1;
        let mut seen = HashSet::new();
        self.0
            .iter()
            .rev()
            .flat_map(|published| published.numbered_records().map(move |(n, record)| (published, n, record)))
            .filter(move |(_, _, record)| !revised || seen.insert(SeriesKey(record.series)))
    }
}

impl History {
    /// The history of a container that was registered at `opened`, from saved windows, each with its place in the sequence.
    #[must_use]
    pub fn from_windows(
        origin: Arc<Origin>,
        opened: Timestamp,
        windows: impl IntoIterator<Item = (u64, StoredWindow)>,
        summary: Option<ContainerSummary>,
    ) -> Self {
        let mut history = Self::new(origin, opened);
        for (first, stored) in windows {
            history.keep_elsewhere(first, stored);
        }
        if let Some(summary) = summary {
            history.set_summary(summary);
        }
        history
    }

    /// Adds a window that was still open when the agent stopped, as published first at `born`. It is merged with another
    /// part of the same interval, if there is one.
    pub fn add_part(&mut self, first: u64, born: Cursor, window: Window) {
        let values = window.count_values();
        let Revision { stored, .. } = self.merge_with_interval(window, values);
        if !stored.window.is_empty() {
            self.keep_elsewhere(first, StoredWindow { born: Some(born), ..stored });
        }
    }

    /// Keeps a window that no store has adopted yet, so that its container has no allocation.
    fn keep_elsewhere(&mut self, first: u64, stored: StoredWindow) {
        self.keep_window(Arc::new(Published::new(Allocation(0), &self.origin, stored, first)));
    }

    /// When the container was registered.
    #[must_use]
    pub fn opened_at(&self) -> Timestamp {
        self.opened
    }

    pub(super) fn new(origin: Arc<Origin>, opened: Timestamp) -> Self {
        let identities = (
            SeriesIdentity::from_origin(&origin, Level::Orchestrator),
            SeriesIdentity::from_origin(&origin, Level::Low),
        );
        Self {
            origin,
            identities,
            opened,
            kept: VecDeque::new(),
            ahead: VecDeque::new(),
            closed: VecDeque::new(),
            gone: 0,
            held: HeldBytes::default(),
            layouts: Layouts::default(),
            summary: None,
            alone: None,
        }
    }

    /// Where the samples of these windows come from.
    #[must_use]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The task and the workload of the container.
    pub(super) fn identities(&self) -> &(SeriesIdentity, SeriesIdentity) {
        &self.identities
    }

    /// The intervals with records, by start, after those that were dated to the future by a clock that was ahead, which
    /// are older.
    #[must_use]
    pub fn kept_intervals(&self) -> impl DoubleEndedIterator<Item = &IntervalWindows> {
        self.ahead.iter().chain(&self.kept)
    }

    /// The newest interval that is not dated to the future.
    pub(super) fn newest_interval(&self) -> Option<&IntervalWindows> {
        self.kept.back()
    }

    /// The end of that interval.
    pub(super) fn newest_end(&self) -> Option<Timestamp> {
        self.newest_interval().and_then(IntervalWindows::span).map(|span| span.end)
    }

    /// How many intervals are dated to the future.
    #[must_use]
    pub fn future_interval_count(&self) -> usize {
        self.ahead.len()
    }

    /// The last place at which a record of this container was dropped.
    pub(super) fn last_gone_seq(&self) -> u64 {
        self.gone
    }

    /// Notes that records up to a place were dropped.
    pub(super) fn set_gone(&mut self, place: u64) {
        self.gone = self.gone.max(place);
    }

    /// Everything that is kept, in the order of `kept_intervals` and then oldest first.
    pub fn published_windows(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.kept_intervals().flat_map(IntervalWindows::published_windows)
    }

    /// Takes out every window that is not shared, so that it can be kept again at a place of another sequence.
    pub(super) fn take_windows(&mut self) -> Vec<Published> {
        self.closed.clear();
        self.gone = 0;
        let kept = std::mem::take(&mut self.ahead).into_iter().chain(std::mem::take(&mut self.kept));
        let all: Vec<_> = kept.flat_map(|kept| kept.0).collect();
        all.iter().for_each(|published| self.count_out(published));
        all.into_iter().filter_map(Arc::into_inner).collect()
    }

    /// Ledger, events and checks, as of the last window.
    #[must_use]
    pub fn summary(&self) -> Option<&ContainerSummary> {
        self.summary.as_ref()
    }

    /// The last known levels and totals that outlast windows, from the summary and from records. Values dated to the
    /// future by a clock that was ahead are used only for series without any other value.
    #[must_use]
    pub fn lasting_values(&self) -> Vec<PersistentValue> {
        let newest = self.kept.back().filter(|_| !self.ahead.is_empty()).and_then(IntervalWindows::span);
        let newest = newest.map_or(Timestamp::MAX, |span| span.end);
        let mut last: HashMap<SeriesKey<'_>, (bool, PersistentValue)> = HashMap::new();
        let mut note = |key, present: bool, lasting: PersistentValue| match last.get_mut(&key) {
            Some(known) if (known.0, known.1.at) <= (present, lasting.at) => *known = (present, lasting),
            Some(_) => {}
            None => drop(last.insert(key, (present, lasting))),
        };
        for lasting in self.summary.iter().flat_map(|summary| summary.lasting.iter()) {
            note(SeriesKey(&lasting.series), lasting.at <= newest, lasting.clone());
        }
        let ahead = self.ahead.iter().map(|kept| (false, kept));
        for (present, kept) in ahead.chain(self.kept.iter().map(|kept| (true, kept))) {
            let end = kept.span().map_or(Timestamp::MIN, |span| span.end);
            for (_, _, record) in kept.newest_records() {
                let (value, at) = match record.view {
                    View::Gauge(gauge) => (gauge.last, gauge.last_at),
                    View::Counter { counter, total } if counter.decremented => (total, end),
                    _ => continue,
                };
                note(
                    SeriesKey(record.series),
                    present,
                    PersistentValue { series: Arc::clone(record.series), value, at },
                );
            }
        }
        last.into_values().map(|(_, lasting)| lasting).collect()
    }

    /// Makes gauges and sets of an earlier run visible with their last values until the container closes a window in
    /// this run. The ledger was lost with that run, and a page omits them without one.
    pub fn show_levels(&mut self) {
        let newest = self.kept_intervals().next_back().and_then(|kept| kept.published_windows().last());
        if let (Some(newest), Some(summary)) = (newest, &self.summary) {
            let ledger = Arc::new(Ledger::of_levels(newest.window().layout()));
            self.set_summary(ContainerSummary { ledger, ..summary.clone() });
        }
    }

    /// Merges late samples of an interval into its records. A record that cannot be decoded loses only its own late
    /// samples.
    pub(super) fn merge_late_samples(&self, delta: &Window) -> Revision {
        let kept = self.find_interval(delta.span.start);
        let newest = kept.map(|kept| kept.newest_of(delta)).unwrap_or_default();
        let (mut states, mut values, mut lost) = (Vec::new(), 0, 0);
        for record in delta.records() {
            values += record.view.sample_count();
            let Some((state, rev)) = revise_record(&record.view, newest.get(&SeriesKey(record.series)))
            else {
                lost += record.view.sample_count();
                continue;
            };
            states.push((record.place, state, total_of(&record.view), rev));
        }
        states.sort_unstable_by_key(|(place, ..)| *place);
        let span = kept.and_then(IntervalWindows::span).unwrap_or_else(|| self.observed_span(delta.span));
        let mut builder = WindowBuilder::new(span);
        for (place, state, total, _) in &states {
            builder.push(*place, state, *total);
        }
        let window = builder.build(Arc::clone(delta.layout()));
        let revs = window.records().map(|record| {
            let at = states.binary_search_by_key(&record.place, |(place, ..)| *place);
            at.ok().and_then(|at| states.get(at)).map_or(0, |(.., rev)| *rev)
        });
        let revs: Box<[u32]> = revs.collect();
        // Everything else is new, and says itself what was added.
        let added = revs.iter().any(|rev| *rev > 0).then(|| {
            let is_used = |place: u32| states.binary_search_by_key(&place, |(place, ..)| *place).is_ok();
            Box::new(copy_records(delta, is_used))
        });
        let stored = StoredWindow { window, revs, added, born: None };
        Revision { stored, values, lost }
    }

    /// Prepares a closed window of `values` values for publication. If an earlier run of the agent has left a part of
    /// the same interval, both are merged: an interval has at most one record per series.
    pub(super) fn merge_with_interval(&self, window: Window, values: u64) -> Revision {
        let Some(before) = self.find_interval(window.span.start).and_then(IntervalWindows::span) else {
            return Revision { stored: window.into(), values, lost: 0 };
        };
        let mut joined = self.merge_late_samples(&window);
        let span = &mut joined.stored.window.span;
        span.covered = (before.covered + window.span.covered).min(before.nominal_length());
        joined
    }

    /// The part of an interval without records in which the container was observed.
    fn observed_span(&self, span: WindowSpan) -> WindowSpan {
        WindowSpan { covered: span.end.duration_since(span.start.max(self.opened)), ..span }
    }

    /// The interval that starts at a moment.
    fn find_interval(&self, start: Timestamp) -> Option<&IntervalWindows> {
        [&self.kept, &self.ahead].into_iter().find_map(|all| all.get(place_of(all, start).ok()?))
    }

    /// Keeps a window. Intervals that were set aside as dated to the future join the others once a window that starts
    /// at the same time or later is closed.
    pub(super) fn keep_window(&mut self, published: Arc<Published>) {
        let start = published.window().span.start;
        while self.ahead.front().and_then(IntervalWindows::span).is_some_and(|span| span.start <= start) {
            let Some(reached) = self.ahead.pop_front() else { break };
            let at =
                reached.span().map_or(0, |span| place_of(&self.kept, span.start).unwrap_or_else(|at| at));
            self.kept.insert(at, reached);
        }
        self.keep_among(published, |history| &mut history.kept);
    }

    /// Keeps a window of an earlier run whose start is in the future.
    pub(super) fn keep_ahead(&mut self, published: Arc<Published>) {
        self.keep_among(published, |history| &mut history.ahead);
    }

    fn keep_among(
        &mut self,
        published: Arc<Published>,
        among: impl FnOnce(&mut Self) -> &mut VecDeque<IntervalWindows>,
    ) {
        self.count_in(&published);
        let (start, first) = (published.window().span.start, published.first_seq());
        let all = among(self);
        match place_of(all, start) {
            Ok(at) => all.get_mut(at).into_iter().for_each(|kept| kept.0.push(Arc::clone(&published))),
            Err(at) => {
                let next = all.get(at).and_then(IntervalWindows::span).map(|span| span.start);
                all.insert(at, IntervalWindows(vec![published]));
                self.note_closed(first, start, next);
            }
        }
    }

    /// Notes when an interval was closed, by its first place. An interval that late samples create is treated as closed just
    /// before the one that starts at `next`. As the newest it would outlast intervals whose samples still arrive.
    fn note_closed(&mut self, first: u64, start: Timestamp, next: Option<Timestamp>) {
        let next = next.and_then(|next| self.closed.iter().position(|(_, start)| *start == next));
        let place = next.and_then(|at| self.closed.get(at)).map_or(first, |(place, _)| first.min(*place));
        let at = next.unwrap_or(usize::MAX);
        self.closed.insert(at.min(self.closed.partition_point(|(other, _)| *other < first)), (place, start));
    }

    /// Removes the intervals that were closed first, until `keep` are left, and returns them to be freed.
    ///
    /// The start of an interval does not determine which was closed first, because the clock may have been ahead.
    pub(super) fn drop_beyond(&mut self, keep: usize) -> Vec<Arc<Published>> {
        let mut dropped = Vec::new();
        while self.closed.len() > keep {
            let Some((_, start)) = self.closed.pop_front() else { break };
            let all = if place_of(&self.ahead, start).is_ok() { &mut self.ahead } else { &mut self.kept };
            let interval = place_of(all, start).ok().and_then(|at| all.remove(at));
            dropped.extend(interval.into_iter().flat_map(|kept| kept.0));
        }
        for published in &dropped {
            self.count_out(published);
            self.gone = self.gone.max(published.last_seq());
        }
        dropped
    }
}

/// Merges a late record with the newest kept record of its series, if there is one. Returns the state and the revision
/// count; `None` if a record cannot be decoded.
fn revise_record(late: &View<'_>, newest: Option<&(u32, Record<'_>)>) -> Option<(SeriesState, u32)> {
    let late = late.to_state()?;
    let Some((rev, old)) = newest else { return Some((late, 0)) };
    let mut state = old.view.to_state()?;
    state.merge_revision(&late);
    Some((state, rev.saturating_add(1)))
}

/// The total of a counter's series as of its record.
fn total_of(view: &View<'_>) -> f64 {
    match view {
        View::Counter { total, .. } => *total,
        _ => 0.0,
    }
}

/// A copy of the records of a window at the wanted places.
fn copy_records(window: &Window, is_wanted: impl Fn(u32) -> bool) -> Window {
    let wanted = window.records().filter(|record| is_wanted(record.place));
    let states =
        wanted.filter_map(|record| Some((record.place, record.view.to_state()?, total_of(&record.view))));
    let mut states: Vec<_> = states.collect();
    states.sort_unstable_by_key(|(place, ..)| *place);
    let mut builder = WindowBuilder::new(window.span);
    for (place, state, total) in &states {
        builder.push(*place, state, *total);
    }
    builder.build(Arc::clone(window.layout()))
}

/// Where the interval that starts at a moment is, or would be.
fn place_of(all: &VecDeque<IntervalWindows>, start: Timestamp) -> Result<usize, usize> {
    let at = all.partition_point(|kept| kept.span().is_some_and(|span| span.start < start));
    let is_it = all.get(at).and_then(IntervalWindows::span).is_some_and(|span| span.start == start);
    if is_it { Ok(at) } else { Err(at) }
}
