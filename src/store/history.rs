//! One container's windows.

mod held;
mod image;
mod published;
mod revision;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::aggregate::{ContainerSummary, Ledger, PersistentValue, View, Window};
use crate::model::{Allocation, Origin, SeriesKey, Timestamp};
use crate::render::prometheus::{Level, SeriesIdentity};
use crate::store::Cursor;

pub(super) use held::HeldBytes;
use held::Layouts;
pub use image::{HISTORY_VERSION, HistoryError};
pub(super) use image::{HistoryHead, ReceivedHistory, SentHistory};
pub use published::{IntervalWindows, Published, StoredWindow};
pub(super) use revision::Revision;

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

/// Where the interval that starts at a moment is, or would be.
fn place_of(all: &VecDeque<IntervalWindows>, start: Timestamp) -> Result<usize, usize> {
    let at = all.partition_point(|kept| kept.span().is_some_and(|span| span.start < start));
    let is_it = all.get(at).and_then(IntervalWindows::span).is_some_and(|span| span.start == start);
    if is_it { Ok(at) } else { Err(at) }
}
