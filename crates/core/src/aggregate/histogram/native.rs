//! Buckets whose bounds are powers of two and roots of them, as Prometheus' native histograms have them: there are as many
//! as values need, and any two series can be added up.
//!
//! At schema s, bucket i has what is in (2^((i-1)·2^-s), 2^(i·2^-s)]; a coarser schema makes one bucket of two. The source
//! is Prometheus' specification of native histograms; why we count so: `docs/adr/0045-native-histograms.md`.

use serde::{Deserialize, Serialize};

use crate::aggregate::weight::Weight;

/// The schema that histograms begin with: eight buckets to an octave, each 9 % wider than the one below.
pub const FINEST_SCHEMA: i8 = 3;

/// The coarsest that Prometheus has: a bucket is sixteen octaves, so all that an f64 can be are 72 of each sign.
pub const COARSEST_SCHEMA: i8 = -4;

/// Most buckets that have something in them, of both signs together, before the schema becomes coarser.
pub const MOST_BUCKETS: usize = 160;

/// What is no further from 0 than this is counted as 0: 2^-128, as clients of Prometheus have it.
pub const ZERO_THRESHOLD: f64 = f64::from_bits((EXPONENT_BIAS - 128) << MANTISSA_BITS);

const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
const EXPONENT_BIAS: u64 = 1023;

/// The bounds from one half to one, at the finest schema. To the last bit those that Prometheus works with, some of which
/// are a bit beside the roots they stand for: everybody is to put a value into the same bucket.
const FRACTIONS: [f64; 1 << FINEST_SCHEMA] = [
    0.5,
    0.545_253_866_332_628_8,
    0.594_603_557_501_360_5,
    0.648_419_777_325_504_8,
    0.707_106_781_186_547_5,
    0.771_105_412_703_970_4,
    0.840_896_415_253_714_4,
    0.917_004_043_204_671_1,
];

/// How much room is made for new buckets at once.
const ROOM: usize = 8;

/// How many values were in each bucket.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Native {
    /// Values are counted in a unit of which one is 10^places of those in which they are sent.
    places: i8,
    schema: i8,
    /// Whether something counted for other than a whole number. It stays so, lest a reader see two kinds by turns.
    fractional: bool,
    zero: Weight,
    positive: Side,
    negative: Side,
}

/// Buckets of one sign that have something in them.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
struct Side {
    /// Rising.
    indexes: Vec<i16>,
    counts: Vec<Weight>,
}

impl Native {
    pub(super) fn new(places: i8) -> Self {
        let (positive, negative) = Default::default();
        Self { places, schema: FINEST_SCHEMA, fractional: false, zero: Weight::ZERO, positive, negative }
    }

    #[inline]
    pub(super) fn insert(&mut self, sent: f64, weight: Weight) {
        // Divided, not multiplied by a thousandth, which no f64 is: so 62.5 ms are 2^-4 s.
        let value = if self.places == 0 { sent } else { sent / 10_f64.powi(self.places.into()) };
        self.fractional |= !weight.is_whole();
        if value.abs() <= ZERO_THRESHOLD {
            self.zero = self.zero.saturating_add(weight);
            return;
        }
        let index = coarsen_index(index_of(value.abs()), FINEST_SCHEMA - self.schema);
        let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
        if side.add(index, weight) {
            self.enforce_bucket_limit();
        }
    }

    /// Adds what others counted in the same unit, at the coarser schema of both. Answers whether the unit is the same.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        if self.places != other.places {
            return false;
        }
        while self.schema > other.schema {
            self.coarsen_schema();
        }
        let by = other.schema - self.schema;
        for (mine, others) in [(&mut self.positive, &other.positive), (&mut self.negative, &other.negative)] {
            for (index, count) in others.indexes.iter().zip(&others.counts) {
                mine.add(coarsen_index(*index, by), *count);
            }
        }
        self.zero = self.zero.saturating_add(other.zero);
        self.fractional |= other.fractional;
        self.enforce_bucket_limit();
        true
    }

    /// Makes buckets wider until there are no more than there may be. How wide depends on which there are alone, not on who
    /// came first.
    fn enforce_bucket_limit(&mut self) {
        while self.bucket_count() > MOST_BUCKETS && self.schema > COARSEST_SCHEMA {
            self.coarsen_schema();
        }
    }

    fn coarsen_schema(&mut self) {
        self.schema -= 1;
        self.positive.merge_bucket_pairs();
        self.negative.merge_bucket_pairs();
    }

    fn bucket_count(&self) -> usize {
        self.positive.indexes.len() + self.negative.indexes.len()
    }

    pub(super) fn decimal_places(&self) -> i8 {
        self.places
    }

    /// All values, weighted by 1/rate.
    #[must_use]
    pub fn count(&self) -> Weight {
        let counts = self.positive.counts.iter().chain(&self.negative.counts);
        counts.fold(self.zero, |sum, count| sum.saturating_add(*count))
    }

    /// How fine it is, from [`COARSEST_SCHEMA`] to [`FINEST_SCHEMA`].
    #[must_use]
    pub fn schema(&self) -> i8 {
        self.schema
    }

    /// Whether something counted for other than a whole number, so that its counts may be none.
    #[must_use]
    pub fn is_fractional(&self) -> bool {
        self.fractional
    }

    /// How many were no further from 0 than [`ZERO_THRESHOLD`].
    #[must_use]
    pub fn zero_count(&self) -> Weight {
        self.zero
    }

    /// Buckets above 0 that have something in them, from the lowest.
    pub fn positive_buckets(&self) -> impl Iterator<Item = (i32, Weight)> {
        self.positive.iter()
    }

    /// Those below 0, from the one closest to it.
    pub fn negative_buckets(&self) -> impl Iterator<Item = (i32, Weight)> {
        self.negative.iter()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.positive.heap_bytes() + self.negative.heap_bytes()
    }

    pub(super) fn is_plausible(&self) -> bool {
        (0..=18).contains(&self.places)
            && (COARSEST_SCHEMA..=FINEST_SCHEMA).contains(&self.schema)
            && self.bucket_count() <= MOST_BUCKETS
            && self.positive.is_plausible(self.schema)
            && self.negative.is_plausible(self.schema)
    }
}

impl Side {
    /// Answers whether the bucket is new.
    #[inline]
    fn add(&mut self, index: i16, weight: Weight) -> bool {
        match self.indexes.binary_search(&index) {
            Ok(at) => {
                if let Some(count) = self.counts.get_mut(at) {
                    *count = count.saturating_add(weight);
                }
                false
            }
            Err(at) => {
                if self.indexes.len() == self.indexes.capacity() {
                    self.indexes.reserve_exact(ROOM);
                    self.counts.reserve_exact(ROOM);
                }
                self.indexes.insert(at, index);
                self.counts.insert(at, weight);
                true
            }
        }
    }

    /// Makes one bucket of two, in place.
    fn merge_bucket_pairs(&mut self) {
        let mut halved = Self::default();
        for (index, count) in self.indexes.iter().zip(&self.counts) {
            halved.add(coarsen_index(*index, 1), *count);
        }
        *self = halved;
    }

    fn iter(&self) -> impl Iterator<Item = (i32, Weight)> {
        self.indexes.iter().map(|index| i32::from(*index)).zip(self.counts.iter().copied())
    }

    fn heap_bytes(&self) -> usize {
        self.indexes.capacity() * size_of::<i16>() + self.counts.capacity() * size_of::<Weight>()
    }

    fn is_plausible(&self, schema: i8) -> bool {
        let [least, most] = [ZERO_THRESHOLD.next_up(), f64::MAX]
            .map(|value| coarsen_index(index_of(value), FINEST_SCHEMA - schema));
        self.indexes.len() == self.counts.len()
            && self.indexes.is_sorted_by(|one, next| one < next)
            && self.indexes.iter().all(|index| (least..=most).contains(index))
    }
}

/// The bucket of a finite number above [`ZERO_THRESHOLD`], at the finest schema.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "an exponent has eleven bits, and the number no sign")]
fn index_of(value: f64) -> i16 {
    let bits = value.to_bits();
    // value = fraction · 2^exponent, the fraction from one half to one.
    let exponent = (bits >> MANTISSA_BITS) as i16 - (EXPONENT_BIAS - 1) as i16;
    let mantissa = bits & ((1 << MANTISSA_BITS) - 1);
    let fraction = f64::from_bits(mantissa | (EXPONENT_BIAS - 1) << MANTISSA_BITS);
    let within = FRACTIONS.iter().map(|bound| i16::from(*bound < fraction)).sum::<i16>();
    ((exponent - 1) << FINEST_SCHEMA) + within
}

/// The bucket that a bucket is in where the schema is less by `by`.
#[inline]
fn coarsen_index(index: i16, by: i8) -> i16 {
    ((index - 1) >> by) + 1
}

#[cfg(test)]
mod tests;
