//! Finding the place of a sample's series, or making one, within the container's limits.

use super::{Aggregator, OVERFLOW};
use crate::aggregate::accounting::Dropped;
use crate::aggregate::limits::LimitMode;
use crate::aggregate::state::SeriesState;
use crate::aggregate::table::{KnownSpelling, Place, SPELLINGS, Spelling};
use crate::model::{MetricType, Series, TagSet, Timestamp};
use crate::statsd::tags::{self, Canonical};
use crate::statsd::{Check, Sample};

impl Aggregator {
    /// The place of the sample's series; `None` where its values were dropped.
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
        // Every spelling comes by here once, so known series cost nothing more.
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
        // Without one, each of its lines would have to be brought into canonical order.
        let most = if self.is_full() { 1 } else { SPELLINGS };
        if self.columns.take_spelling(place, most) {
            let before = self.table.heap_bytes();
            self.table
                .add_spelling(self.table.compute_fingerprint(spelling), KnownSpelling { place, replaced });
            self.memory += self.table.heap_bytes().saturating_sub(before);
        }
        Some(place)
    }

    /// Why the container may not have another series, if so.
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

    /// A counter beyond the limits still counts, in the overflow series, so that totals stay true.
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

    /// Bytes of what leads to series, with the room that it has to spare.
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
