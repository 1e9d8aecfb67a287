//! Samples of several lines, inserted side by side.
//!
//! To find a series and add to it takes a handful of accesses to memory, each at an address that the one before has
//! told. With many containers hardly any of it is in the processor's cache, and a sample at a time waits for every one
//! of them. So the lines of up to [`BATCH`] samples are read first, then all series are looked up, then all are touched,
//! and only then is anything added, in the order of the lines: the waiting of one goes on beside that of the others.

use std::hint::black_box;

use arrayvec::ArrayVec;

use super::{Aggregator, grows};
use crate::aggregate::accounting::Dropped;
use crate::aggregate::table::{Known, Spelling};
use crate::model::{MetricType, Timestamp};
use crate::statsd::style::NameStyle;
use crate::statsd::{Sample, Values};

/// Samples that are inserted together at most. A processor has about as many accesses to memory under way at once.
const BATCH: usize = 16;

/// What nearly all samples are: without tags in the name, and of now.
#[derive(Copy, Clone, Debug)]
struct Plain<'a> {
    spelling: Spelling<'a>,
    values: Values<'a>,
    weight: f64,
}

/// Samples of one container that were read and not yet inserted, in order.
#[derive(Default, Debug)]
pub(super) struct Batch<'a>(ArrayVec<Plain<'a>, BATCH>);

impl<'a> Plain<'a> {
    #[inline]
    fn of(sample: &Sample<'a>) -> Option<Self> {
        let Sample {
            name, style: NameStyle::Plain, metric_type, tags, values, weight, timestamp: None, ..
        } = *sample
        else {
            return None;
        };
        Some(Self { spelling: Spelling { metric_type, name, tags }, values, weight })
    }
}

impl Aggregator {
    /// Takes a sample, now or together with those that follow.
    #[inline]
    pub(super) fn take<'a>(&mut self, sample: &Sample<'a>, batch: &mut Batch<'a>, now: Timestamp) {
        let Some(plain) = Plain::of(sample) else {
            self.insert_all(batch, now);
            return self.sample(sample, now);
        };
        if batch.0.is_full() {
            self.insert_all(batch, now);
        }
        batch.0.push(plain);
    }

    /// Inserts what waits.
    #[inline]
    pub(super) fn insert_all(&mut self, batch: &mut Batch<'_>, now: Timestamp) {
        let found: ArrayVec<_, BATCH> =
            batch.0.iter().map(|plain| self.table.known(&plain.spelling)).collect();
        if found.len() > 1 {
            self.touch(batch, &found);
        }
        for (plain, known) in batch.0.iter().zip(found) {
            match known {
                Some(known) => self.insert_known(plain, known, now),
                // The first of its spelling, though perhaps no longer: one before it may have been the same.
                None => self.insert_new(plain, now),
            }
        }
        batch.0.clear();
    }

    /// Has the processor fetch what is about to be changed, all of it at once.
    #[inline]
    fn touch(&self, batch: &Batch<'_>, found: &[Option<Known>]) {
        let state = |known: &Option<Known>| self.columns.state((*known)?.place);
        black_box(found.iter().filter(|known| state(known).is_some()).count());
        let touched = batch.0.iter().zip(found).map(|(plain, known)| match plain.spelling.metric_type {
            // The type is known from the line; to ask the state would be to wait for it.
            MetricType::Timer | MetricType::Histogram | MetricType::Distribution => {
                state(known).map_or(0, |state| state.touch(&plain.values))
            }
            _ => 0,
        });
        black_box(touched.fold(0, u64::wrapping_add));
    }

    #[inline]
    fn insert_known(&mut self, plain: &Plain<'_>, known: Known, now: Timestamp) {
        let values = u64::from(plain.values.count());
        self.accounting.values += values;
        self.accounting.invalid_utf8 += u64::from(known.replaced);
        let over = grows(plain.spelling.metric_type) && self.is_full();
        if over && self.is_over(Dropped::MemoryLimit, values) {
            return;
        }
        let deltas = self.deltas();
        if let Some((state, ledger)) = self.columns.get_mut(known.place) {
            ledger.last_seen = now;
            self.memory += state.insert(&plain.values, plain.weight, now, deltas);
        }
    }

    #[cold]
    fn insert_new(&mut self, plain: &Plain<'_>, now: Timestamp) {
        let Spelling { metric_type, name, tags } = plain.spelling;
        let sample = Sample { weight: plain.weight, tags, ..Sample::plain(name, metric_type, plain.values) };
        self.sample(&sample, now);
    }
}
