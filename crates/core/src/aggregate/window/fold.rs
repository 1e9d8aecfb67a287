//! Merges windows of one container into one of a longer interval.
//!
//! Sketches, counts, extremes and set members of the result are those of one aggregate that was given every value. Sums are
//! rounded in the order of merging, first and last values go by time, and a counter's total is that of the part added last.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::{Layout, Record, View, Window, WindowBuilder, WindowSpan};
use crate::aggregate::state::SeriesState;
use crate::model::Timestamp;

/// A window in the making, from the windows that start in its interval.
#[derive(Debug)]
pub struct WindowFold {
    start: Timestamp,
    end: Timestamp,
    covered: Duration,
    /// The interval that was added last in time, and how much of it is in `covered`.
    newest: Option<(Timestamp, Duration)>,
    series: BTreeMap<u32, FoldedSeries>,
}

#[derive(Debug)]
struct FoldedSeries {
    state: SeriesState,
    /// The total of a counter; 0 for other types.
    total: f64,
}

/// Whether a part has what followed in time, or what came late.
#[derive(Copy, Clone, PartialEq, Eq)]
enum PartOrder {
    ByTime,
    Late,
}

impl WindowFold {
    /// Without any records.
    #[must_use]
    pub fn new(start: Timestamp, length: Duration) -> Self {
        let end = start.saturating_add(length);
        Self { start, end, covered: Duration::ZERO, newest: None, series: BTreeMap::new() }
    }

    /// Goes on with a window that was built before; `newest` is what [`WindowFold::newest_interval`] said then. `None` if one of
    /// its records cannot be read.
    #[must_use]
    pub fn resume_window(window: &Window, newest: Option<(Timestamp, Duration)>) -> Option<Self> {
        let WindowSpan { start, end, covered } = window.span;
        let mut series = BTreeMap::new();
        for Record { place, view, .. } in window.records() {
            series.insert(place, FoldedSeries { state: view.to_state()?, total: total_of(&view) });
        }
        Some(Self { start, end, covered, newest, series })
    }

    /// Adds a window that starts in the interval. `place_of` says where each of its series is in the result. Returns the number
    /// of records that could not be added, because their bytes are damaged or they have no place.
    pub fn add_window(&mut self, window: &Window, place_of: impl FnMut(&Record<'_>) -> Option<u32>) -> u64 {
        self.note_observed(window.span);
        self.add_records(window.records(), PartOrder::ByTime, place_of)
    }

    /// Adds what came late to records that were added before. `observed` is the interval as it is known now. Returns the number
    /// of records that could not be added.
    pub fn add_revision(
        &mut self,
        added: &Window,
        observed: WindowSpan,
        place_of: impl FnMut(&Record<'_>) -> Option<u32>,
    ) -> u64 {
        self.note_observed(observed);
        self.add_records(added.records(), PartOrder::Late, place_of)
    }

    fn add_records<'w>(
        &mut self,
        records: impl Iterator<Item = Record<'w>>,
        order: PartOrder,
        mut place_of: impl FnMut(&Record<'_>) -> Option<u32>,
    ) -> u64 {
        let mut left_out = 0;
        for record in records {
            let added = place_of(&record).and_then(|place| self.add_view(place, &record.view, order));
            left_out += u64::from(added.is_none());
        }
        left_out
    }

    fn add_view(&mut self, place: u32, view: &View<'_>, order: PartOrder) -> Option<()> {
        let total = total_of(view);
        match self.series.entry(place) {
            Entry::Vacant(vacant) => {
                vacant.insert(FoldedSeries { state: view.to_state()?, total });
            }
            Entry::Occupied(occupied) => {
                let folded = occupied.into_mut();
                merge_view(&mut folded.state, view, order)?;
                folded.total = total;
            }
        }
        Some(())
    }

    /// Counts how long the container was observed. Parts of one interval count once, and so does one that comes late, if other
    /// parts of its interval came before.
    fn note_observed(&mut self, span: WindowSpan) {
        // A window of a length that does not divide the interval can end after it.
        self.end = self.end.max(span.end);
        match self.newest {
            Some((start, _)) if span.start < start => {}
            Some((start, before)) if span.start == start => {
                self.covered += span.covered.saturating_sub(before);
                self.newest = Some((start, span.covered.max(before)));
            }
            _ => {
                self.covered += span.covered;
                self.newest = Some((span.start, span.covered));
            }
        }
    }

    /// The last interval that was added, and how much of it was observed; for [`WindowFold::resume_window`].
    #[must_use]
    pub fn newest_interval(&self) -> Option<(Timestamp, Duration)> {
        self.newest
    }

    /// How many series it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether it has no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The finished window. `layout` has the series at the places that `place_of` gave.
    #[must_use]
    pub fn build(&self, layout: Layout) -> Window {
        let longest = self.end.duration_since(self.start);
        let span = WindowSpan { start: self.start, end: self.end, covered: self.covered.min(longest) };
        let mut builder = WindowBuilder::new(span);
        for (place, FoldedSeries { state, total }) in &self.series {
            builder.push(*place, state, *total);
        }
        builder.build(layout)
    }
}

/// Adds a record to a state of the same series. `None` if its bytes are damaged.
fn merge_view(state: &mut SeriesState, view: &View<'_>, order: PartOrder) -> Option<()> {
    match (&mut *state, view) {
        // A sketch is merged from its bytes, without one of its own.
        (SeriesState::Distribution(values), View::Distribution { summary, sketch }) => {
            values.sketch.merge_packed(*sketch)?;
            match order {
                PartOrder::ByTime => values.summary.merge(summary),
                PartOrder::Late => values.summary.merge_revision(summary),
            }
        }
        _ => {
            let other = view.to_state()?;
            match order {
                PartOrder::ByTime => state.merge(&other),
                PartOrder::Late => state.merge_revision(&other),
            }
        }
    }
    Some(())
}

fn total_of(view: &View<'_>) -> f64 {
    match view {
        View::Counter { total, .. } => *total,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests;
