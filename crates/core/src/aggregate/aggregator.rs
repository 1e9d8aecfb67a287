//! One container's aggregator: datagrams go in, closed windows come out.
//!
//! It owns everything that the container has sent, uses no clock or socket, and can be moved to another thread or, as a
//! snapshot, to another process.

mod batch;
mod changes;
mod close;
mod columns;
mod habits;
mod histograms;
mod late;
mod place;
mod recovery;
mod settings;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use batch::Batch;
use changes::SentSnapshot;
pub use changes::checksum_of;
pub use close::{
    ClosedWindow, ContainerSummary, LastCheck, Ledger, LedgerEntry, LedgerRow, PersistentValue,
    REVISED_TOGETHER, ReadGap,
};
use columns::Columns;
pub use habits::{Habits, NAMED, TimerUnit};
use histograms::Histograms;
use late::{LateStates, When};
pub use recovery::CheckpointContents;
pub use settings::AggregatorSettings;
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError};

use super::accounting::{Accounting, Dropped};
use super::limits::{LimitMode, TokenBucket};
use super::record::{EventRecord, RecentEvents, RejectedLines};
use super::state::{CheckOutcome, SeriesState};
use super::table::{Place, SeriesTable};
use super::window::Layout;
use crate::model::{MetricType, Moment, Series, Timestamp};
use crate::statsd::{self, Check, Event, ParsedLine, Plain, Rejected, Sample, Values};

/// The meaning of signed gauge values.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GaugeSign {
    /// A level if the container's metrics have DogStatsD features and its gauges never have a plus sign, otherwise a
    /// change of the level.
    #[default]
    Auto,
    /// A change of the level (StatsD).
    Delta,
    /// A level (Datadog).
    Absolute,
}

impl GaugeSign {
    /// The name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Delta => "delta",
            Self::Absolute => "absolute",
        }
    }
}

/// Receives each line and, if it was rejected, the reason.
pub type LineTap<'t> = &'t mut dyn FnMut(&[u8], Option<Rejected>);

/// The name of the series that collects the counts of counters beyond the series limit.
pub const OVERFLOW: &str = "tallyport.overflow";

/// One container's aggregator.
///
/// Fields that every datagram needs come first and in this order, so that they share cache lines: with many containers
/// almost none of them are in the cache when a socket is read.
#[derive(Debug)]
#[repr(C)]
pub struct Aggregator {
    /// The end of the open window.
    end: Timestamp,
    settings: Arc<AggregatorSettings>,
    /// Total bytes; growth is added as it happens, and every close recounts.
    memory: usize,
    /// While `memory` is below this, samples of known series are inserted without checking limits.
    ample: usize,
    /// Values in the open window and in pending late samples, counted on insertion.
    open: u64,
    /// Idle series evicted since the open window began.
    evicted_in_window: usize,
    gauge_sign: GaugeSign,
    timer_unit: TimerUnit,
    habits: Habits,
    table: SeriesTable,
    columns: Columns,
    accounting: Accounting,
    datagrams: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
    /// Histograms of series, if enabled.
    histograms: Histograms,
    /// Number of series, including idle ones, without the overflow series.
    series: usize,
    overflow: Option<Place>,
    /// No series can become idle before this moment.
    none_idle_before: Timestamp,
    /// Whether a panic has reset the ledger since the last window was closed.
    begun_again: bool,
    /// As of the last closed window.
    lasting: Arc<[PersistentValue]>,
    decremented: Arc<[Arc<Series>]>,
    /// When the open window began.
    start: Timestamp,
    /// The beginning of observation in the open window: its start, or when the container was added.
    opened: Timestamp,
    late: BTreeMap<Timestamp, LateStates>,
    /// Number of records of closed windows to be revised: the states in `late`.
    late_records: usize,
    /// Shared by all windows that are closed while no series is added or removed.
    layout: Option<Layout>,
    events: RecentEvents,
    rejected: RejectedLines,
    /// Bytes of the kept closed windows.
    history: VecDeque<usize>,
    /// Other bytes held for the container: revisions, summary, remembered totals.
    revisions: usize,
    /// Set from outside when the node has no memory left.
    node_full: bool,
    /// The state of the last snapshot that was sent ahead, while changes relative to it can be determined.
    sent_ahead: Option<SentSnapshot>,
}

impl Aggregator {
    /// An aggregator for a container that is added at `now`.
    #[must_use]
    pub fn new(settings: Arc<AggregatorSettings>, gauge_sign: GaugeSign, now: Timestamp) -> Self {
        let start = now.floor_to_window(settings.window);
        let end = start.saturating_add(settings.window);
        let mut new = Self {
            settings,
            gauge_sign,
            timer_unit: TimerUnit::default(),
            habits: Habits::default(),
            table: SeriesTable::default(),
            columns: Columns::default(),
            histograms: Histograms::default(),
            series: 0,
            overflow: None,
            none_idle_before: Timestamp::MIN,
            evicted_in_window: 0,
            begun_again: false,
            lasting: Arc::default(),
            decremented: Arc::default(),
            start,
            end,
            opened: now,
            late: BTreeMap::new(),
            late_records: 0,
            layout: None,
            events: RecentEvents::default(),
            rejected: RejectedLines::default(),
            accounting: Accounting::default(),
            open: 0,
            datagrams: None,
            bytes: None,
            memory: 0,
            ample: 0,
            history: VecDeque::new(),
            revisions: 0,
            node_full: false,
            sent_ahead: None,
        };
        new.ample = new.unchecked_memory_limit();
        new
    }

    /// Sets the unit of the container's timers.
    #[must_use]
    pub fn with_timer_unit(self, timer_unit: TimerUnit) -> Self {
        Self { timer_unit, ..self }
    }

    /// Prefetches the fields that every datagram needs into the CPU cache, before a socket is read.
    #[inline]
    pub fn prefetch_hot_fields(&self) {
        let counts = &self.accounting;
        black_box((self.end, self.habits.plus, self.table.is_empty(), self.columns.is_empty()));
        black_box((counts.received, counts.values));
    }

    /// Takes one datagram that arrived at `now`, which must not be before the open window; call
    /// [`Aggregator::roll_window`] first.
    pub fn ingest_datagram(&mut self, bytes: &[u8], now: Moment, tap: Option<LineTap<'_>>) {
        self.ingest_datagrams([bytes], now, tap);
    }

    /// Takes datagrams that arrived at `now`, in order. Equivalent to single calls, but faster.
    pub fn ingest_datagrams<'d>(
        &mut self,
        datagrams: impl IntoIterator<Item = &'d [u8]>,
        now: Moment,
        mut tap: Option<LineTap<'_>>,
    ) {
        let mut batch = Batch::default();
        let quick = tap.is_none() && self.settings.tag_styles.is_empty();
        for bytes in datagrams {
            self.accounting.received += 1;
            self.accounting.bytes += bytes.len() as u64;
            self.accounting.last_datagram = Some(now.wall);
            if !self.admit_datagram(bytes.len() as u64, now.mono) {
                continue;
            }
            let mut rest = bytes;
            while !rest.is_empty() {
                if quick && let Some((plain, after)) = Plain::start_of(rest) {
                    self.accounting.lines += 1;
                    self.accounting.accepted += 1;
                    self.take_plain(plain, &mut batch, now.wall);
                    rest = after;
                    continue;
                }
                let (line, after) = statsd::first_line(rest);
                rest = after;
                if line.is_empty() {
                    continue;
                }
                let outcome = self.ingest_line(line, &mut batch, now.wall);
                if let Some(tap) = tap.as_mut() {
                    tap(line, outcome.err());
                }
            }
        }
        self.insert_all(&mut batch, now.wall);
    }

    /// Counts datagrams that were too long to be read, at `now`.
    pub fn count_truncated(&mut self, datagrams: u64, now: Timestamp) {
        self.count_discarded(Dropped::Truncated, datagrams, now);
    }

    /// Counts datagrams that were discarded for this reason at `now`.
    pub fn count_discarded(&mut self, reason: Dropped, datagrams: u64, now: Timestamp) {
        if datagrams > 0 {
            self.accounting.received += datagrams;
            self.accounting.last_datagram = Some(now);
            self.accounting.dropped.count(reason, datagrams);
        }
    }

    /// Whether the container may send this datagram now.
    fn admit_datagram(&mut self, length: u64, now: Duration) -> bool {
        let limits = self.settings.limits;
        let datagrams = limits.datagrams_per_second.is_none_or(|rate| {
            self.datagrams.get_or_insert_with(|| TokenBucket::new(rate, now)).try_take_tokens(1, rate, now)
        });
        if !datagrams && self.is_over(Dropped::DatagramRate, 1) {
            return false;
        }
        let bytes = limits.bytes_per_second.is_none_or(|rate| {
            self.bytes.get_or_insert_with(|| TokenBucket::new(rate, now)).try_take_tokens(length, rate, now)
        });
        bytes || !self.is_over(Dropped::ByteRate, 1)
    }

    /// Whether the container has used up its memory.
    fn is_full(&self) -> bool {
        self.memory >= self.settings.limits.memory
    }

    /// Counts `n` values or datagrams beyond a limit; returns whether to drop them.
    fn is_over(&mut self, reason: Dropped, n: u64) -> bool {
        match self.settings.limits.mode {
            LimitMode::Enforce => self.accounting.dropped.count(reason, n),
            LimitMode::Observe => self.accounting.over_limit.count(reason, n),
        }
        self.settings.limits.mode == LimitMode::Enforce
    }

    fn ingest_line<'d>(
        &mut self,
        line: &'d [u8],
        batch: &mut Batch<'d>,
        now: Timestamp,
    ) -> Result<(), Rejected> {
        self.accounting.lines += 1;
        let read = if statsd::is_metric(line) {
            statsd::with_sample(line, self.settings.tag_styles, |sample| {
                self.accounting.accepted += 1;
                self.enqueue_sample(sample, batch, now);
            })
        } else {
            self.insert_all(batch, now);
            self.ingest_event_or_check(line, now)
        };
        if let Err(code) = read {
            self.accounting.rejected.count(code);
            self.rejected.push(now, code, line);
        }
        read
    }

    #[cold]
    fn ingest_event_or_check(&mut self, line: &[u8], now: Timestamp) -> Result<(), Rejected> {
        let item = statsd::parse(line, self.settings.tag_styles)?;
        self.accounting.accepted += 1;
        match item {
            ParsedLine::Sample(sample) => self.ingest_sample(&sample, now),
            ParsedLine::Check(check) => self.ingest_check(&check, now),
            ParsedLine::Event(event) => self.ingest_event(&event, now),
        }
        Ok(())
    }

    /// Takes one sample that arrived at `now`.
    #[inline]
    pub fn ingest_sample(&mut self, sample: &Sample<'_>, now: Timestamp) {
        self.habits.dogstatsd |= sample.timestamp.is_some() || sample.identity.is_given();
        if self.in_seconds(sample.metric_type) {
            for number in sample.values.numbers() {
                let values = Values::One(habits::seconds_to_milliseconds(number));
                self.sample_as_read(&Sample { values, ..*sample }, now);
            }
            return;
        }
        self.sample_as_read(sample, now);
    }

    #[inline]
    fn sample_as_read(&mut self, sample: &Sample<'_>, now: Timestamp) {
        let values = u64::from(sample.values.count());
        self.accounting.values += values;
        let when = match sample.timestamp {
            None => When::Open(now),
            Some(seconds) => match self.classify_timestamp(seconds, now) {
                Ok(when) => when,
                Err(reason) => return self.accounting.dropped.count(reason, values),
            },
        };
        let Some(place) = self.place_of_sample(sample, now) else { return };
        // Each late sample may be the first of its series in its window.
        let grows = has_growing_state(sample.metric_type) || matches!(when, When::Late { .. });
        if grows
            && self.memory >= self.ample
            && !self.take_a_closer_look((place, sample.metric_type), &sample.values, sample.weight, now)
        {
            return;
        }
        match when {
            When::Open(at) => {
                let deltas = self.reads_changes(sample.metric_type, &sample.values);
                if let Some(state) = self.columns.state_at_mut(place) {
                    self.memory += state.insert(&sample.values, sample.weight, at, deltas);
                    self.open += values;
                }
            }
            When::Late { window, at } => self.insert_late(place, sample, window, at, now),
        }
    }

    fn ingest_check(&mut self, check: &Check<'_>, now: Timestamp) {
        self.accounting.values += 1;
        let Some(place) = self.place_of_check(check, now) else { return };
        // Each closed window keeps what its checks said.
        if self.is_full() && self.is_over(Dropped::MemoryLimit, 1) {
            return;
        }
        let mut replaced = false;
        let mut text = |bytes: &[u8]| {
            replaced |= std::str::from_utf8(bytes).is_err();
            String::from_utf8_lossy(bytes).into_owned()
        };
        let outcome = CheckOutcome {
            status: check.status,
            message: check.message.map(&mut text),
            hostname: check.hostname.map(&mut text),
            timestamp: check.timestamp.map(Timestamp::from_secs),
        };
        self.accounting.invalid_utf8 += u64::from(replaced);
        if let Some(state) = self.columns.state_at_mut(place) {
            self.memory += state.insert_outcome(Arc::new(outcome), now);
            self.open += 1;
        }
    }

    fn ingest_event(&mut self, event: &Event<'_>, now: Timestamp) {
        let (record, replaced) = EventRecord::new(event, now);
        self.accounting.events += 1;
        self.accounting.invalid_utf8 += u64::from(replaced);
        self.events.push(record);
    }

    /// Sets whether the node has used up its memory, so that new series are refused.
    pub fn set_node_full(&mut self, full: bool) {
        self.node_full = full;
    }

    /// Sets how many bytes are held for the container elsewhere, including its closed windows. All of them count as its
    /// memory.
    pub fn set_kept_bytes(&mut self, bytes: usize) {
        let revisions = bytes.saturating_sub(self.history.iter().sum());
        self.memory = self.memory.saturating_sub(self.revisions) + revisions;
        self.revisions = revisions;
    }

    /// Bytes of memory, without those held elsewhere.
    #[must_use]
    pub fn own_memory(&self) -> usize {
        self.memory.saturating_sub(self.revisions + self.history.iter().sum::<usize>())
    }

    /// Counts datagrams that the kernel dropped since the socket was opened.
    pub fn set_kernel_drops(&mut self, drops: u64) {
        self.accounting.kernel_drops = drops;
    }

    /// Counts of what arrived and what happened to it.
    #[must_use]
    pub fn accounting(&self) -> &Accounting {
        &self.accounting
    }

    /// The most recently rejected lines.
    #[must_use]
    pub fn rejected_lines(&self) -> &RejectedLines {
        &self.rejected
    }

    /// Series, idle ones included.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.series
    }

    /// Bytes of memory, kept windows included; exact at every close, an upper estimate between.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.memory
    }

    /// Accepted values that are not in a closed record yet, as counted on arrival.
    #[must_use]
    pub fn open_values(&self) -> u64 {
        self.open
    }

    /// Recounts [`Aggregator::open_values`] by visiting every series.
    #[must_use]
    pub fn recount_open_values(&self) -> u64 {
        let open = self.columns.iter().map(|row| row.state.sample_count());
        let late = self.late.values().flat_map(LateStates::values).map(SeriesState::sample_count);
        open.chain(late).sum()
    }

    /// The end of the open window, when [`Aggregator::roll_window`] is next due.
    #[must_use]
    pub fn window_end(&self) -> Timestamp {
        self.end
    }
}

/// Whether additional samples of a known series can increase its memory.
const fn has_growing_state(metric_type: MetricType) -> bool {
    matches!(
        metric_type,
        MetricType::Timer | MetricType::Histogram | MetricType::Distribution | MetricType::Set
    )
}
