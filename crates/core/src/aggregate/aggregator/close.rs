//! Closing a window: the contents of the open window become immutable, and the ledger is updated.

mod codec;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::columns::{SeriesRow, SeriesRowMut};
use super::{Aggregator, Habits, NAMED};
use crate::aggregate::gauge::clamp_to_finite;
use crate::aggregate::histogram::Histogram;
use crate::aggregate::record::EventRecord;
use crate::aggregate::state::{CheckOutcome, SeriesState};
use crate::aggregate::table::Place;
use crate::aggregate::weight::Weight;
use crate::aggregate::window::{Layout, Window, WindowBuilder, WindowSpan};
use crate::model::{MetricType, Series, Timestamp};

/// Maximum number of records of a revision that are merged in one step.
pub const REVISED_TOGETHER: usize = 1024;

/// A period in which nothing was read, because the agent or its shard did not run.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ReadGap {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
}

/// A closed window with its accompanying data.
#[derive(Debug)]
pub struct ClosedWindow {
    /// The window itself. Can be empty.
    pub window: Window,
    /// Values in it, without late samples.
    pub values: u64,
    /// Late samples for earlier windows, oldest first; at most [`REVISED_TOGETHER`] records in each, so that they can
    /// be merged in small steps. Their spans count as not observed.
    pub revisions: Vec<Window>,
    /// The container's current summary.
    pub summary: ContainerSummary,
    /// Whether a panic of the shard has reset the ledger since the previous window.
    pub begun_again: bool,
}

/// Data that accompanies the newest window of a container, and is replaced with the next one.
#[derive(Clone, Debug)]
pub struct ContainerSummary {
    /// Every series since it was created.
    pub ledger: Arc<Ledger>,
    /// The last events, oldest first.
    pub events: Arc<[Arc<EventRecord>]>,
    /// The last outcome of every check.
    pub checks: Arc<[LastCheck]>,
    /// Levels and totals that outlast windows and are not in this one.
    pub lasting: Arc<[PersistentValue]>,
    /// The observed habits of the container's client.
    pub habits: Habits,
}

/// A level or total that must be known for the container's lifetime, even if no window shows it any more, because later
/// samples are added to it: levels of gauges, and totals of decremented counters, which are read as levels. A
/// distribution is included, without a total, to record that it has had negative values.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PersistentValue {
    /// The series.
    pub series: Arc<Series>,
    /// A gauge's level, or the total of a counter.
    pub value: f64,
    /// When the level was set, or the end of the last window that has a sample.
    pub at: Timestamp,
}

/// The last outcome of a check.
#[derive(Clone, Debug)]
pub struct LastCheck {
    /// Name and tags.
    pub series: Arc<Series>,
    /// When it arrived.
    pub at: Timestamp,
    /// The outcome.
    pub outcome: Arc<CheckOutcome>,
}

/// Totals of every live series of a container since its creation.
#[derive(Debug)]
pub struct Ledger {
    layout: Layout,
    rows: Box<[LedgerRow]>,
    /// By place; may be shorter than the layout.
    histograms: Box<[Option<Histogram>]>,
}

/// A series in a ledger, with its row, and its histogram if it has one.
pub type LedgerEntry<'l> = (&'l Arc<Series>, &'l LedgerRow, Option<&'l Histogram>);

/// One series since it was created.
#[derive(Copy, Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct LedgerRow {
    /// The sum of a counter, or of the values of a timer, histogram or distribution; 0 for other types.
    pub total: f64,
    /// Samples weighted by 1/rate.
    pub count: Weight,
    /// The end of the last window that has a sample of it, or when one last arrived late.
    pub last_seen: Timestamp,
    /// Whether a negative value was ever added, so that the total does not only grow.
    pub decremented: bool,
}

impl ContainerSummary {
    /// Bytes that it does not share with its aggregator.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ledger.bytes() + size_of_val(&*self.events) + size_of_val(&*self.checks)
    }

    /// Bytes that it shares with its aggregator while that exists, without series.
    #[must_use]
    pub fn shared_bytes(&self) -> usize {
        let events = self.events.iter().map(|event| event.bytes());
        let outcomes = self.checks.iter().map(|check| check.outcome.bytes());
        events.chain(outcomes).sum::<usize>() + size_of_val(&*self.lasting)
    }
}

impl Ledger {
    fn bytes(&self) -> usize {
        let buckets = self.histograms.iter().flatten().map(|histogram| histogram.buckets.bytes());
        size_of::<Self>() + size_of_val(&*self.rows) + size_of_val(&*self.histograms) + buckets.sum::<usize>()
    }

    /// Each live series and its row.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Series>, &LedgerRow)> {
        self.layout.iter().zip(&self.rows).filter_map(|(series, row)| Some((series.as_ref()?, row)))
    }

    /// The series at a place, as referenced by records of windows.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<(&Arc<Series>, &LedgerRow)> {
        Some((self.layout.get(place)?.as_ref()?, self.rows.get(place)?))
    }

    /// The histogram at a place, as of the last closed window, if the series has one.
    #[must_use]
    pub fn histogram_at(&self, place: usize) -> Option<&Histogram> {
        self.histograms.get(place)?.as_ref()
    }

    /// A ledger of only the gauges and sets of a layout, to show windows of an earlier run.
    #[must_use]
    pub fn of_levels(layout: &Layout) -> Self {
        let is_level =
            |series: &&Arc<Series>| matches!(series.metric_type, MetricType::Gauge | MetricType::Set);
        let levels: Vec<_> = layout.iter().map(|series| series.as_ref().filter(is_level).cloned()).collect();
        let row = |series: &Option<Arc<Series>>| LedgerRow {
            total: 0.0,
            count: Weight::ZERO,
            last_seen: series.as_ref().map_or(Timestamp::MIN, |series| series.created),
            decremented: false,
        };
        let rows = levels.iter().map(row).collect();
        Self { layout: levels.into(), rows, histograms: Box::default() }
    }

    /// Each live series, its row and its buckets.
    pub fn iter_entries(&self) -> impl Iterator<Item = LedgerEntry<'_>> {
        (0..self.place_count()).filter_map(|place| self.entry(place))
    }

    fn entry(&self, place: usize) -> Option<LedgerEntry<'_>> {
        let (series, row) = self.get(place)?;
        Some((series, row, self.histogram_at(place)))
    }

    /// How many places there are, vacant ones included.
    #[must_use]
    pub fn place_count(&self) -> usize {
        self.layout.len()
    }

    /// The entries that are missing from a later ledger of the same container.
    pub fn entries_missing_from<'l>(
        &'l self,
        later: &'l Self,
    ) -> impl Iterator<Item = LedgerEntry<'l>> + Clone {
        let places = if Arc::ptr_eq(&self.layout, &later.layout) { 0 } else { self.place_count() };
        (0..places).filter_map(|place| {
            let entry = self.entry(place)?;
            let kept = later.get(place).is_some_and(|(now, _)| entry.0.is_the_same(now));
            (!kept).then_some(entry)
        })
    }
}

impl LedgerRow {
    /// Counts what a window, or a part of one, adds.
    pub(super) fn add(&mut self, state: &SeriesState) {
        let (sum, decremented) = match state {
            SeriesState::Counter(counter) => (counter.sum, counter.decremented),
            SeriesState::Distribution(values) => (values.summary.sum, values.summary.min < 0.0),
            _ => (0.0, false),
        };
        self.total = clamp_to_finite(self.total + sum);
        self.decremented |= decremented;
        self.count = self.count.saturating_add(state.count());
    }
}

impl PersistentValue {
    /// The lasting value of a series, unless a record in the window shows it (`shown`).
    fn from_state(
        series: &Arc<Series>,
        state: &SeriesState,
        ledger: &LedgerRow,
        shown: bool,
    ) -> Option<Self> {
        let (value, at) = match state {
            SeriesState::Gauge(gauge) if !shown && gauge.is_set() => (gauge.last, gauge.last_at),
            SeriesState::Counter(_) if !shown && ledger.decremented => (ledger.total, ledger.last_seen),
            // Records of a distribution contain nothing about earlier windows.
            SeriesState::Distribution(_) if ledger.decremented => (0.0, series.created),
            _ => return None,
        };
        Some(Self { series: Arc::clone(series), value, at })
    }
}

/// Whether a series has a record in the window that ends at `at`: it has samples, or is a gauge whose level is recent
/// enough to be carried.
fn has_window_record(state: &SeriesState, at: Timestamp, carry: Duration) -> bool {
    match state {
        SeriesState::Gauge(gauge) if gauge.samples == 0 => {
            gauge.is_set() && at.duration_since(gauge.last_at) <= carry
        }
        state => state.sample_count() > 0,
    }
}

impl Aggregator {
    /// Closes the open window if it has ended at `now`, and opens the one that contains `now`.
    pub fn roll_window(&mut self, now: Timestamp) -> Option<ClosedWindow> {
        self.roll_across(now, None)
    }

    /// Like [`Aggregator::roll_window`], after a period in which nothing was read. Datagrams of that period wait in the
    /// socket and will be counted in the newly opened window, whenever they arrived. So a window that ends within the
    /// period is covered only up to the period's beginning, and the new one only from its end on; both are partial.
    pub fn roll_across(&mut self, now: Timestamp, unread: Option<ReadGap>) -> Option<ClosedWindow> {
        if now < self.end {
            return None;
        }
        let unread = unread.filter(|unread| unread.from < self.end && unread.until >= self.end);
        let seen = unread.map_or(self.end, |unread| unread.from.max(self.opened));
        let closed = self.close_seen(self.end, seen);
        self.drop_idle(now);
        self.recount_memory();
        self.evicted_in_window = 0;
        self.relieve_memory_pressure(now);
        self.start = now.floor_to_window(self.settings.window);
        self.end = self.start.saturating_add(self.settings.window);
        self.opened = unread.map_or(self.start, |unread| unread.until.clamp(self.start, self.end));
        Some(closed)
    }

    /// Closes the open window at `now`, even before its end. The container sends nothing more.
    pub fn close_final_window(&mut self, now: Timestamp) -> ClosedWindow {
        let closed = self.close(now);
        self.opened = now.min(self.end);
        self.recount_memory();
        closed
    }

    /// The open window as it is now, carried gauges included.
    #[must_use]
    pub fn peek_open_window(&self, now: Timestamp) -> Window {
        let mut builder = WindowBuilder::new(self.open_window_span(now));
        let late = self.late_by_place();
        for SeriesRow { place, state, ledger, .. } in self.columns.iter() {
            if has_window_record(state, now, self.settings.gauge_carry) {
                let mut ledger = *ledger;
                // Late samples come first, and are included in the total of the final record.
                let late = late.get(&place).into_iter().flatten().copied();
                late.chain([state]).for_each(|state| ledger.add(state));
                builder.push_with(place, state, &ledger);
            }
        }
        builder.build(self.current_layout())
    }

    /// The current summary. Only summaries of closed windows have histograms, which are ahead of the rows until then.
    #[must_use]
    pub fn build_summary(&self) -> ContainerSummary {
        self.summary_with(Box::default())
    }

    fn summary_with(&self, histograms: Box<[Option<Histogram>]>) -> ContainerSummary {
        let layout = self.current_layout();
        let rows = self.columns.to_ledger_rows();
        let checks = self.columns.iter().filter_map(|row| match row.state {
            SeriesState::Check(check) => {
                let outcome = check.outcome.clone()?;
                Some(LastCheck { series: Arc::clone(row.series), at: check.last_at, outcome })
            }
            _ => None,
        });
        ContainerSummary {
            ledger: Arc::new(Ledger { layout, rows, histograms }),
            events: self.events.iter().cloned().collect(),
            checks: checks.collect(),
            lasting: Arc::clone(&self.lasting),
            habits: self.habits,
        }
    }

    fn close(&mut self, at: Timestamp) -> ClosedWindow {
        self.close_seen(at, at)
    }

    /// Closes the window at a moment; its coverage ends at `seen`.
    fn close_seen(&mut self, at: Timestamp, seen: Timestamp) -> ClosedWindow {
        self.sent_ahead = None;
        self.layout = Some(self.current_layout());
        // Revisions are published before the window, so they are added to totals first.
        let (revisions, late_values) = self.close_late();
        let mut builder = WindowBuilder::new(self.open_window_span(seen));
        let mut closed_values = 0;
        let (mut lasting, mut decremented) = (Vec::new(), Vec::new());
        for SeriesRowMut { place, series, state, ledger } in self.columns.iter_mut() {
            ledger.add(state);
            if state.sample_count() > 0 {
                ledger.last_seen = at;
            }
            closed_values += state.sample_count();
            let shown = has_window_record(state, at, self.settings.gauge_carry);
            if shown {
                builder.push_with(place, state, ledger);
            }
            if ledger.decremented && decremented.len() < NAMED {
                decremented.push(Arc::clone(series));
            }
            lasting.extend(PersistentValue::from_state(series, state, ledger, shown));
            if let SeriesState::Distribution(values) = state
                && shown
                && series.metric_type == MetricType::Timer
            {
                self.habits.count_timer(&values.summary);
            }
            state.next_window();
        }
        self.remember_lasting(lasting);
        self.decremented = decremented.into();
        let window = builder.build(self.current_layout());
        let summary = self.summary_with(self.histograms.to_boxed_slice());
        self.track_window_bytes(&window);
        // Only now: if any of the above panics, the values are in no record and must be counted as lost.
        self.accounting.in_records += closed_values + late_values;
        // Set to zero instead of subtracting the closed values: a value that is in no record then shows as an
        // imbalance.
        self.open = 0;
        let begun_again = std::mem::take(&mut self.begun_again);
        ClosedWindow { window, values: closed_values, revisions, summary, begun_again }
    }

    /// Replaces the list of lasting values. An unchanged list keeps its allocation, so that readers can recognise it by
    /// its address.
    fn remember_lasting(&mut self, lasting: Vec<PersistentValue>) {
        let same = |(a, b): (&PersistentValue, &PersistentValue)| {
            Arc::ptr_eq(&a.series, &b.series) && (a.value.to_bits(), a.at) == (b.value.to_bits(), b.at)
        };
        if lasting.len() != self.lasting.len() || !lasting.iter().zip(&*self.lasting).all(same) {
            self.lasting = lasting.into();
        }
    }

    pub(super) fn open_window_span(&self, at: Timestamp) -> WindowSpan {
        WindowSpan { start: self.start, end: self.end, covered: at.min(self.end).duration_since(self.opened) }
    }

    /// The current layout of the series.
    pub(super) fn current_layout(&self) -> Layout {
        self.layout.as_ref().map_or_else(|| self.columns.to_layout(), Arc::clone)
    }

    /// Takes out the late samples; returns them as revisions of earlier windows, with their number of values.
    fn close_late(&mut self) -> (Vec<Window>, u64) {
        let late = std::mem::take(&mut self.late);
        self.late_records = 0;
        let (mut revisions, mut values) = (Vec::with_capacity(late.len()), 0);
        for (start, states) in late {
            let mut states: Vec<_> = states.into_iter().collect();
            states.sort_unstable_by_key(|(place, _)| *place);
            for states in states.chunks(REVISED_TOGETHER) {
                let (revision, closed) = self.build_revision(start, states);
                revisions.push(revision);
                values += closed;
            }
        }
        (revisions, values)
    }

    /// The revision of one window, with its number of values.
    fn build_revision(&mut self, start: Timestamp, states: &[(Place, SeriesState)]) -> (Window, u64) {
        let mut values = 0;
        let end = start.saturating_add(self.settings.window);
        let mut builder = WindowBuilder::new(WindowSpan { start, end, covered: Duration::ZERO });
        for (place, state) in states {
            let Some((_, ledger)) = self.columns.get_mut(*place) else { continue };
            ledger.add(state);
            values += state.sample_count();
            builder.push_with(*place, state, ledger);
        }
        (builder.build(self.current_layout()), values)
    }

    /// Counts a closed window's memory for as long as it is kept.
    fn track_window_bytes(&mut self, window: &Window) {
        if !window.is_empty() {
            self.history.push_back(window.bytes());
        }
        while self.history.len() > self.settings.keep {
            self.history.pop_front();
        }
    }

    /// Recounts the memory.
    pub(super) fn recount_memory(&mut self) {
        self.memory = size_of::<Self>()
            + self.places_bytes()
            + self.columns.heap_bytes()
            + self.histograms.heap_bytes()
            + self.events.heap_bytes()
            + size_of_val(&*self.lasting)
            + self.late_bytes()
            + self.revisions
            + self.history.iter().sum::<usize>();
    }
}
