//! What late samples, or the rest of an interval, make of records that are there already.

use std::sync::Arc;

use super::{History, IntervalWindows, StoredWindow};
use crate::aggregate::{Record, SeriesState, View, Window, WindowBuilder, WindowSpan};
use crate::model::SeriesKey;

/// Records of an interval that are new or revised.
#[derive(Debug)]
pub(in crate::store) struct Revision {
    pub(in crate::store) stored: StoredWindow,
    /// The number of values to be added.
    pub(in crate::store) values: u64,
    /// How many of them are lost, because the record to add them to could not be decoded.
    pub(in crate::store) lost: u64,
}

impl History {
    /// Merges late samples of an interval into its records. A record that cannot be decoded loses only its own late
    /// samples.
    pub(in crate::store) fn merge_late_samples(&self, delta: &Window) -> Revision {
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
    pub(in crate::store) fn merge_with_interval(&self, window: Window, values: u64) -> Revision {
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
