//! Series that are silent. A gauge's level, a counter's total and the last outcome of a check are remembered for as long as
//! the container lives and its limits have room; only then do idle series make way for new ones.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::Aggregator;
use super::columns::{SeriesRow, SeriesRowMut};
use crate::aggregate::sketch::Sketch;
use crate::aggregate::state::SeriesState;
use crate::aggregate::table::Place;
use crate::model::Timestamp;

/// One series makes way for one, until this many have in a window; from then on that part of them at once. Finding idle
/// series and taking them out looks at every series, so a burst of new names must not cause that with each of them.
const ONE_BY_ONE: usize = 8;

impl SeriesRow<'_> {
    fn is_idle(&self, at: Timestamp, idle: Duration) -> bool {
        self.state.sample_count() == 0 && at.duration_since(self.ledger.last_seen) >= idle
    }
}

impl Aggregator {
    /// Makes room for new series: the idle ones that were updated least recently go. Answers whether any went.
    pub(super) fn evict_idle(&mut self, now: Timestamp) -> bool {
        if now < self.none_idle_before {
            return false;
        }
        let idle = self.settings.series_idle;
        // Late samples of a series may wait for the open window to be closed.
        let waits: HashSet<Place> = self.late.values().flat_map(HashMap::keys).copied().collect();
        let rows = || self.columns.iter().filter(|row| self.overflow != Some(row.place));
        let mut found: Vec<(Timestamp, Place)> = rows()
            .filter(|row| row.is_idle(now, idle) && !waits.contains(&row.place))
            .map(|row| (row.ledger.last_seen, row.place))
            .collect();
        if found.is_empty() {
            let last_seen =
                |row: SeriesRow<'_>| if row.state.sample_count() > 0 { now } else { row.ledger.last_seen };
            let oldest = rows().filter(|row| !waits.contains(&row.place)).map(last_seen).min();
            self.none_idle_before = oldest.unwrap_or(now).saturating_add(idle);
            return false;
        }
        found.sort_unstable();
        found.truncate((self.evicted_in_window / ONE_BY_ONE).max(1));
        self.evicted_in_window += found.len();
        self.accounting.evicted += found.len() as u64;
        self.remove(&found.into_iter().map(|(_, place)| place).collect());
        self.recount_memory();
        true
    }

    /// Gives memory back where it is short, for the container or for the node: what is idle must not cost series that are
    /// in use their samples.
    pub(super) fn relieve_memory_pressure(&mut self, now: Timestamp) {
        while self.is_full() && self.evict_idle(now) {}
        if self.node_full {
            self.evict_idle(now);
        }
    }

    /// Drops sets that are idle, of which nothing outlasts a window, and frees what idle distributions hold.
    pub(super) fn drop_idle(&mut self, at: Timestamp) {
        let idle = self.settings.series_idle;
        let idle_rows = self.columns.iter().filter(|row| row.is_idle(at, idle));
        let gone: BTreeSet<Place> =
            idle_rows.filter(|row| matches!(row.state, SeriesState::Set(_))).map(|row| row.place).collect();
        for SeriesRowMut { state, ledger, .. } in self.columns.iter_mut() {
            if let SeriesState::Distribution(values) = state
                && at.duration_since(ledger.last_seen) >= idle
                && values.summary.samples == 0
                && values.sketch.heap_bytes() > 0
            {
                values.sketch = Sketch::default();
            }
        }
        if !gone.is_empty() {
            self.remove(&gone);
        }
    }

    /// Forgets series.
    fn remove(&mut self, gone: &BTreeSet<Place>) {
        self.table.remove(|place| gone.contains(&place));
        for place in gone {
            self.columns.remove(*place);
            self.histograms.remove(*place);
            self.overflow = self.overflow.filter(|overflow| overflow != place);
        }
        self.series = self.columns.iter().count() - usize::from(self.overflow.is_some());
        self.layout = None;
    }
}
