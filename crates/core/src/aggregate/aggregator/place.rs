//! Finds the place of a sample's series, or adds the series within the container's limits.
//!
//! A gauge's level, a counter's total and the last outcome of a check are remembered for as long as the container lives and its
//! limits have room. Only then do idle series make way for new ones.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::columns::{SeriesRow, SeriesRowMut};
use super::{Aggregator, OVERFLOW};
use crate::aggregate::accounting::Dropped;
use crate::aggregate::limits::LimitMode;
use crate::aggregate::sketch::Sketch;
use crate::aggregate::state::SeriesState;
use crate::aggregate::table::{KnownSpelling, Place, SPELLINGS, Spelling};
use crate::model::{MetricType, Series, TagSet, Timestamp};
use crate::statsd::tags::{self, Canonical};
use crate::statsd::{Check, Sample};

impl Aggregator {
    /// The place of the sample's series; `None` if its values were dropped.
    #[inline]
    pub(super) fn place_of_sample(&mut self, sample: &Sample<'_>, now: Timestamp) -> Option<Place> {
        let spelling = Spelling { metric_type: sample.metric_type, name: sample.name, tags: sample.tags };
        match self.find_known_place(&spelling) {
            Some(place) => Some(place),
            None => self.spelled_anew(
                &spelling,
                || tags::canonicalize_sample(sample),
                u64::from(sample.values.count()),
                now,
            ),
        }
    }

    pub(super) fn place_of_check(&mut self, check: &Check<'_>, now: Timestamp) -> Option<Place> {
        let spelling = Spelling { metric_type: MetricType::ServiceCheck, name: check.name, tags: check.tags };
        match self.find_known_place(&spelling) {
            Some(place) => Some(place),
            None => self.spelled_anew(&spelling, || canonical_check(check), 1, now),
        }
    }

    #[inline]
    fn find_known_place(&mut self, spelling: &Spelling<'_>) -> Option<Place> {
        let known = self.table.find_spelling(self.table.compute_fingerprint(spelling))?;
        self.accounting.invalid_utf8 += u64::from(known.replaced);
        Some(known.place)
    }

    #[cold]
    fn spelled_anew(
        &mut self,
        spelling: &Spelling<'_>,
        canonical: impl FnOnce() -> Canonical,
        values: u64,
        now: Timestamp,
    ) -> Option<Place> {
        let limits = self.settings.limits;
        // Every spelling gets here once, so known series cost nothing more.
        self.habits.dogstatsd |=
            !spelling.tags.is_empty() && spelling.metric_type != MetricType::ServiceCheck;
        if spelling.name.len() > limits.name_bytes && self.is_over(Dropped::NameTooLong, values)
            || spelling.tags.len() > limits.tags_bytes && self.is_over(Dropped::TagsTooLong, values)
        {
            return None;
        }
        let Canonical { name, tags, replaced, renamed } = canonical();
        self.accounting.invalid_utf8 += u64::from(replaced);
        let metric_type = spelling.metric_type;
        let found = self.table.find(&name, &tags, metric_type, |place| self.columns.series_at(place));
        let place = if let Some(place) = found {
            place
        } else {
            let mut refusal = self.refusal_reason();
            if refusal.is_some() && self.evict_idle(now) {
                refusal = self.refusal_reason();
            }
            if let Some(reason) = refusal {
                if limits.mode == LimitMode::Enforce {
                    return self.refuse_series(reason, metric_type, values, now);
                }
                self.accounting.over_limit.count(reason, values);
            }
            self.accounting.renamed_tags += u64::from(renamed);
            self.series += 1;
            self.add(Series { name: name.into(), tags, metric_type, created: now }, now)
        };
        // Without a remembered spelling, each line of the series would have to be canonicalized.
        let most = if self.is_full() { 1 } else { SPELLINGS };
        if self.columns.take_spelling(place, most) {
            let before = self.table.heap_bytes();
            self.table
                .add_spelling(self.table.compute_fingerprint(spelling), KnownSpelling { place, replaced });
            self.memory += self.table.heap_bytes().saturating_sub(before);
        }
        Some(place)
    }

    /// The reason why the container may not have another series, if there is one.
    fn refusal_reason(&self) -> Option<Dropped> {
        if self.series >= self.settings.limits.series {
            Some(Dropped::SeriesLimit)
        } else if self.is_full() {
            Some(Dropped::MemoryLimit)
        } else if self.node_full {
            Some(Dropped::NodeMemory)
        } else {
            None
        }
    }

    /// Counters beyond the limits are added to the overflow series, so that totals stay correct.
    fn refuse_series(
        &mut self,
        reason: Dropped,
        metric_type: MetricType,
        values: u64,
        now: Timestamp,
    ) -> Option<Place> {
        if metric_type != MetricType::Counter {
            self.accounting.dropped.count(reason, values);
            return None;
        }
        self.accounting.folded += values;
        if let Some(place) = self.overflow {
            return Some(place);
        }
        let series = Series {
            name: OVERFLOW.into(),
            tags: TagSet::default(),
            metric_type: MetricType::Counter,
            created: now,
        };
        let place = self
            .table
            .find(&series.name, &series.tags, series.metric_type, |place| self.columns.series_at(place))
            .unwrap_or_else(|| self.add(series, now));
        self.overflow = Some(place);
        Some(place)
    }

    /// Puts a series where a place is vacant.
    pub(super) fn add(&mut self, series: Series, now: Timestamp) -> Place {
        let before = self.places_bytes();
        self.memory += series.bytes() + SeriesState::new(series.metric_type).heap_bytes();
        self.layout = None;
        let place = self.columns.add(series, now);
        let columns = &self.columns;
        self.table.add(place, |place| columns.series_at(place));
        self.memory += self.places_bytes().saturating_sub(before);
        place
    }

    /// Bytes of the columns and the lookup table, including spare capacity.
    pub(super) fn places_bytes(&self) -> usize {
        self.columns.column_bytes() + self.table.heap_bytes()
    }
}

fn canonical_check(check: &Check<'_>) -> Canonical {
    let (tags, tags_replaced) = tags::canonical_tags(check.tags);
    let name = String::from_utf8_lossy(check.name);
    let replaced = tags_replaced || matches!(name, std::borrow::Cow::Owned(_));
    Canonical { name: name.into_owned(), tags, replaced, renamed: 0 }
}

/// Series are evicted one at a time at first; later, each eviction removes the number evicted so far in the window
/// divided by this. Eviction visits every series, so a burst of new names must not cause one for each of them.
const ONE_BY_ONE: usize = 8;

impl SeriesRow<'_> {
    fn is_idle(&self, at: Timestamp, idle: Duration) -> bool {
        self.state.sample_count() == 0 && at.duration_since(self.ledger.last_seen) >= idle
    }
}

impl Aggregator {
    /// Evicts the least recently updated idle series to make room for new ones. Returns whether any were evicted.
    pub(super) fn evict_idle(&mut self, now: Timestamp) -> bool {
        if now < self.none_idle_before {
            return false;
        }
        let idle = self.settings.series_idle;
        // Series with pending late samples must stay until the open window is closed.
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

    /// Frees memory if it is short, for the container or the node: idle series must not cost active ones their samples.
    pub(super) fn relieve_memory_pressure(&mut self, now: Timestamp) {
        while self.is_full() && self.evict_idle(now) {}
        if self.node_full {
            self.evict_idle(now);
        }
    }

    /// Drops idle sets, which keep nothing beyond a window, and frees the memory of idle distributions.
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
