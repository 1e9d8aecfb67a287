//! Inserts samples of several lines together.
//!
//! Finding a series and adding to it takes several dependent memory accesses. With many containers almost nothing is in
//! the CPU cache, and inserting one sample at a time waits for each of these accesses. So the lines of up to [`BATCH`]
//! samples are read first, then all series are looked up, then all are prefetched, and only then are the samples added,
//! in the order of the lines: the memory accesses of the samples overlap.

use std::hint::black_box;

use arrayvec::ArrayVec;

use super::habits::seconds_to_milliseconds;
use super::{Aggregator, has_growing_state};
use crate::aggregate::fingerprint::Fingerprint;
use crate::aggregate::table::{KnownSpelling, Place};
use crate::model::{MetricType, Timestamp};
use crate::statsd::{Plain, Sample, Values};

/// Maximum number of samples inserted together: about as many memory accesses as a CPU can have in flight.
const BATCH: usize = 16;

/// A sample that was read but not yet inserted.
#[derive(Copy, Clone, Debug)]
struct PendingSample<'a> {
    plain: Plain<'a>,
    fingerprint: Fingerprint,
}

/// Samples of one container that were read but not yet inserted, in order.
#[derive(Default, Debug)]
pub(super) struct Batch<'a>(ArrayVec<PendingSample<'a>, BATCH>);

impl Aggregator {
    /// Inserts a sample, or adds it to the batch.
    #[inline]
    pub(super) fn enqueue_sample<'a>(&mut self, sample: &Sample<'a>, batch: &mut Batch<'a>, now: Timestamp) {
        if let Some(plain) = Plain::from_sample(sample) {
            return self.take_plain(plain, batch, now);
        }
        self.insert_all(batch, now);
        self.ingest_sample(sample, now);
    }

    /// Adds a sample to the batch, after inserting the batch if it is full.
    #[inline]
    pub(super) fn take_plain<'a>(&mut self, plain: Plain<'a>, batch: &mut Batch<'a>, now: Timestamp) {
        if batch.0.is_full() {
            self.insert_all(batch, now);
        }
        let fingerprint = self.table.compute_fingerprint(&plain.into());
        batch.0.push(PendingSample { plain, fingerprint });
    }

    /// Inserts the samples of the batch.
    pub(super) fn insert_all(&mut self, batch: &mut Batch<'_>, now: Timestamp) {
        let found: ArrayVec<_, BATCH> =
            batch.0.iter().map(|waiting| self.table.find_spelling(waiting.fingerprint)).collect();
        if found.len() > 1 {
            self.prefetch_batch(batch, &found);
        }
        // A new series may take the place of an idle one that was found above.
        let mut outdated = false;
        for (PendingSample { plain, fingerprint }, known) in batch.0.iter().zip(found) {
            let known = if outdated { self.table.find_spelling(*fingerprint) } else { known };
            match known {
                Some(known) => self.insert_known(plain, known, now),
                // The spelling was unknown, but an earlier sample of this batch may have added it since.
                None => {
                    let evicted = self.evicted_in_window;
                    self.insert_new(plain, now);
                    outdated |= self.evicted_in_window != evicted;
                }
            }
        }
        batch.0.clear();
    }

    /// Prefetches the memory that the samples will change.
    #[inline]
    fn prefetch_batch(&self, batch: &Batch<'_>, found: &[Option<KnownSpelling>]) {
        let state = |known: &Option<KnownSpelling>| self.columns.state_at((*known)?.place);
        black_box(found.iter().filter(|known| state(known).is_some()).count());
        let touched = batch.0.iter().zip(found).map(|(waiting, known)| match waiting.plain.metric_type {
            // Use the type from the line: reading it from the state would wait for memory.
            MetricType::Timer | MetricType::Histogram | MetricType::Distribution => {
                state(known).map_or(0, |state| state.prefetch_values(&waiting.plain.values))
            }
            _ => 0,
        });
        black_box(touched.fold(0, u64::wrapping_add));
    }

    #[inline]
    fn insert_known(&mut self, plain: &Plain<'_>, known: KnownSpelling, now: Timestamp) {
        let values = u64::from(plain.values.count());
        self.accounting.values += values;
        if known.replaced {
            self.accounting.invalid_utf8 += 1;
        }
        if plain.identified {
            self.habits.dogstatsd = true;
        }
        if self.in_seconds(plain.metric_type) {
            return self.insert_in_milliseconds(known.place, plain, now);
        }
        self.insert_at(known.place, plain, now);
    }

    #[cold]
    fn insert_in_milliseconds(&mut self, place: Place, plain: &Plain<'_>, now: Timestamp) {
        for number in plain.values.numbers() {
            let values = Values::One(seconds_to_milliseconds(number));
            self.insert_at(place, &Plain { values, ..*plain }, now);
        }
    }

    #[inline]
    fn insert_at(&mut self, place: Place, plain: &Plain<'_>, now: Timestamp) {
        if has_growing_state(plain.metric_type)
            && self.memory >= self.ample
            && !self.take_a_closer_look((place, plain.metric_type), &plain.values, plain.weight, now)
        {
            return;
        }
        let deltas = self.reads_changes(plain.metric_type, &plain.values);
        if let Some(state) = self.columns.state_at_mut(place) {
            self.memory += state.insert(&plain.values, plain.weight, now, deltas);
            self.open += u64::from(plain.values.count());
        }
    }

    #[cold]
    fn insert_new(&mut self, plain: &Plain<'_>, now: Timestamp) {
        let Plain { metric_type, name, tags, values, weight, identified } = *plain;
        self.habits.dogstatsd |= identified;
        let sample = Sample { weight, tags, ..Sample::new(name, metric_type, values) };
        self.ingest_sample(&sample, now);
    }
}
