//! Buckets with powers of two and their roots as bounds, as in Prometheus' native histograms: there are as many buckets
//! as the values need, and any two series can be added.
//!
//! At schema s, bucket i covers (2^((i-1)·2^-s), 2^(i·2^-s)]; the next coarser schema joins pairs of buckets. The
//! source is Prometheus' specification of native histograms; for the reasons see `docs/adr/0045-native-histograms.md`.

use serde::{Deserialize, Serialize};

use crate::aggregate::sketch::Packed;
use crate::aggregate::weight::Weight;

/// The initial schema: eight buckets per octave, each 9 % wider than the one below.
pub const FINEST_SCHEMA: i8 = 3;

/// Prometheus' coarsest schema: a bucket covers sixteen octaves, so 72 buckets of each sign cover all f64 values.
pub const COARSEST_SCHEMA: i8 = -4;

/// Maximum number of non-empty buckets of both signs together; beyond it the schema becomes coarser.
pub const MOST_BUCKETS: usize = 160;

/// Values no further from 0 than this count as 0: 2^-128, as in Prometheus' client libraries.
pub const ZERO_THRESHOLD: f64 = f64::from_bits((EXPONENT_BIAS - 128) << MANTISSA_BITS);

const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
const EXPONENT_BIAS: u64 = 1023;

/// The bounds from one half to one, at the finest schema. To the last bit those that Prometheus works with, some of which
/// are a bit beside the roots they stand for: all implementations must put a value into the same bucket.
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

/// Capacity is grown by this number of buckets.
const ROOM: usize = 8;

/// How many values were in each bucket.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Native {
    /// Values are counted in a unit of 10^places times the unit in which they are sent.
    places: i8,
    schema: i8,
    /// Whether any weight was not a whole number. Once set it stays set, so that readers do not see the two kinds
    /// alternate.
    fractional: bool,
    zero: Weight,
    positive: Side,
    negative: Side,
}

/// The non-empty buckets of one sign.
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

    /// The values of a closed window's sketch, of which `min` and `max` are the extremes. A value that the sketch has exactly
    /// is in its bucket; a bin is counted as a whole in the bucket of the value that represents it, which is within 0.8 % of
    /// the values in the bin, so of values that close to a bound some can be one bucket off. The counts add up to those of
    /// the sketch. `None` if the bytes are not a packed sketch.
    ///
    /// `places` is the unit of the bounds, as in [`super::Scale::Powers`].
    #[must_use]
    pub fn from_packed(sketch: Packed<'_>, min: f64, max: f64, places: i8) -> Option<Self> {
        let mut native = Self::new(places);
        for (value, weight) in sketch.weighted_values(min, max)? {
            native.insert(value, Weight::from_bin(weight));
        }
        Some(native)
    }

    #[inline]
    pub(super) fn insert(&mut self, sent: f64, weight: Weight) {
        // Division, because no f64 is exactly a thousandth: 62.5 ms is then exactly 2^-4 s.
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

    /// Adds counts in the same unit, at the coarser of both schemas. Returns false, without adding them, if the units
    /// differ.
    pub fn merge(&mut self, other: &Self) -> bool {
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

    /// Coarsens the schema until the number of buckets is within the limit. The result does not depend on the order of
    /// values.
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

    /// The schema, from [`COARSEST_SCHEMA`] to [`FINEST_SCHEMA`].
    #[must_use]
    pub fn schema(&self) -> i8 {
        self.schema
    }

    /// Whether any weight was not a whole number, so that counts may not be integers.
    #[must_use]
    pub fn is_fractional(&self) -> bool {
        self.fractional
    }

    /// The number of values no further from 0 than [`ZERO_THRESHOLD`].
    #[must_use]
    pub fn zero_count(&self) -> Weight {
        self.zero
    }

    /// The non-empty buckets above 0, in ascending order.
    pub fn positive_buckets(&self) -> impl Iterator<Item = (i32, Weight)> {
        self.positive.iter()
    }

    /// The non-empty buckets below 0, from the one closest to 0.
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
    /// Adds a weight to a bucket. Returns whether the bucket is new.
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

    /// Joins pairs of buckets, in place.
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

/// The bucket that contains this bucket in a schema that is coarser by `by`.
#[inline]
fn coarsen_index(index: i16, by: i8) -> i16 {
    ((index - 1) >> by) + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An upper bound as Prometheus' server computes it for its quantiles.
    fn bound(index: i32, schema: i8) -> f64 {
        if schema <= 0 {
            return 2_f64.powi(index << -schema);
        }
        let per_octave = 1 << schema;
        let fraction =
            FRACTIONS[usize::try_from(index & (per_octave - 1)).unwrap() << (FINEST_SCHEMA - schema)];
        2.0 * fraction * 2_f64.powi(index >> schema)
    }

    /// ⌈log₂ of a number to the power of 2^schema⌉, in arbitrary-precision integers.
    fn reference(value: f64, schema: i8) -> i32 {
        let bits = value.to_bits();
        let exponent = i32::try_from(bits >> MANTISSA_BITS).unwrap() - 1023 - 52;
        let mut power = vec![(bits & ((1 << 52) - 1)) | (1 << 52)];
        for _ in 0..schema.max(0) {
            power = squared(&power);
        }
        let whole = i32::try_from(ceil_log2(&power)).unwrap() + (exponent << schema.max(0));
        // ⌈x / n⌉ = ⌈⌈x⌉ / n⌉ for whole n.
        if schema < 0 { (whole + (1 << -schema) - 1) >> -schema } else { whole }
    }

    fn squared(digits: &[u64]) -> Vec<u64> {
        let mut product = vec![0_u64; 2 * digits.len()];
        for (i, a) in digits.iter().enumerate() {
            let mut carry = 0_u128;
            for (j, b) in digits.iter().enumerate() {
                let sum = u128::from(*a) * u128::from(*b) + u128::from(product[i + j]) + carry;
                product[i + j] = u64::try_from(sum & u128::from(u64::MAX)).unwrap();
                carry = sum >> 64;
            }
            product[i + digits.len()] = u64::try_from(carry).unwrap();
        }
        product
    }

    /// ⌈log₂ of a number⌉: the bit length of the next smaller integer. Digits have 64 bits each, lowest first.
    fn ceil_log2(digits: &[u64]) -> usize {
        let lowest = digits.iter().position(|digit| *digit != 0).unwrap();
        let highest = digits.iter().rposition(|digit| *digit != 0).unwrap();
        let bits = 64 * highest + 64 - digits[highest].leading_zeros() as usize;
        let power_of_two = lowest == highest && digits[highest].is_power_of_two();
        bits - usize::from(power_of_two)
    }

    fn native_of(values: &[f64]) -> Native {
        let mut native = Native::new(0);
        values.iter().for_each(|value| native.insert(*value, Weight::ONE));
        native
    }

    /// The buckets of positive values, as indexes and whole counts.
    fn positive_counts(native: &Native) -> Vec<(i32, u32)> {
        native.positive_buckets().map(|(index, count)| (index, whole(count))).collect()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts in tests are small")]
    fn whole(count: Weight) -> u32 {
        count.to_rounded_f64() as u32
    }

    #[test]
    fn a_value_that_equals_a_bound_is_within_it_at_every_schema() {
        for schema in COARSEST_SCHEMA..=FINEST_SCHEMA {
            let index = |value| i32::from(coarsen_index(index_of(value), FINEST_SCHEMA - schema));
            let [least, most] = [ZERO_THRESHOLD.next_up(), f64::MAX].map(index);
            // The highest bound is 2^1024, which is not representable as f64.
            for expected in least..most {
                let bound = bound(expected, schema);
                assert_eq!(index(bound), expected, "{bound:e} at {schema}");
                assert_eq!(index(bound.next_up()), expected + 1, "more than {bound:e} at {schema}");
            }
        }
    }

    proptest! {
        #[test]
        fn buckets_are_those_of_exact_arithmetic(bits in 0_u64..0x7ff0_0000_0000_0000) {
            let value = f64::from_bits(bits);
            prop_assume!(value > ZERO_THRESHOLD * 2.0 && value < f64::MAX / 2.0);
            for schema in COARSEST_SCHEMA..=FINEST_SCHEMA {
                let index = i32::from(coarsen_index(index_of(value), FINEST_SCHEMA - schema));
                // Prometheus' bounds are within two units in the last place of the exact roots.
                let (below, above) = (value.next_down().next_down(), value.next_up().next_up());
                prop_assert!((reference(below, schema)..=reference(above, schema)).contains(&index));
            }
        }

        #[test]
        fn parts_merge_to_what_all_values_together_are(
            parts in prop::collection::vec(prop::collection::vec((-400_i32..400, 1.0..2_f64, any::<bool>()), 0..90), 3)
        ) {
            let value = |(power, fraction, negative): &(i32, f64, bool)| {
                let size = fraction * 2_f64.powf(f64::from(*power) / 4.0);
                if *negative { -size } else { size }
            };
            let parts: Vec<Vec<f64>> = parts.iter().map(|part| part.iter().map(value).collect()).collect();
            let together = native_of(&parts.concat());
            let [a, b, c] = [0, 1, 2].map(|part| native_of(&parts[part]));
            for order in [[&a, &b, &c], [&c, &a, &b], [&b, &c, &a]] {
                let mut left = order[0].clone();
                prop_assert!(left.merge(order[1]) && left.merge(order[2]));
                let mut right = order[1].clone();
                prop_assert!(right.merge(order[2]) && right.merge(order[0]));
                prop_assert_eq!(&left, &together);
                prop_assert_eq!(&right, &together);
            }
            prop_assert!(together.is_plausible());
            prop_assert_eq!(together.count(), Weight::from_count(parts.concat().len() as u64));
        }
    }

    #[test]
    fn timers_that_are_a_power_of_two_of_a_second_are_at_a_bound() {
        for power in -40..40 {
            let milliseconds = 1000.0 * 2_f64.powi(power);
            let mut native = Native::new(3);
            native.insert(milliseconds, Weight::ONE);
            native.insert(milliseconds.next_up(), Weight::ONE);
            assert_eq!(positive_counts(&native), [(8 * power, 1), (8 * power + 1, 1)], "{milliseconds} ms");
        }
    }

    #[test]
    fn more_buckets_than_may_be_make_the_schema_coarser_and_lose_nothing() {
        let mut native = Native::new(0);
        let (mut values, mut schemas) = (Vec::new(), vec![FINEST_SCHEMA]);
        // From both ends of the range.
        for index in (-1022..8192).rev() {
            for value in [bound(index, FINEST_SCHEMA), -bound(7169 - index, FINEST_SCHEMA)] {
                values.push(value);
                native.insert(value, Weight::ONE);
            }
            assert!(native.bucket_count() <= MOST_BUCKETS);
            assert_eq!(native.count(), Weight::from_count(values.len() as u64));
            if schemas.last() != Some(&native.schema()) {
                schemas.push(native.schema());
                assert_eq!(positive_counts(&native), by_searching(&values, native.schema()));
            }
        }
        assert_eq!(schemas, [3, 2, 1, 0, -1, -2, -3, -4]);
        assert_eq!(positive_counts(&native), by_searching(&values, -4));
    }

    /// The number of values in each bucket above 0, found by searching all bounds for each value.
    fn by_searching(values: &[f64], schema: i8) -> Vec<(i32, u32)> {
        let index = |value| i32::from(coarsen_index(index_of(value), FINEST_SCHEMA - schema));
        let bounds: Vec<_> =
            (index(ZERO_THRESHOLD.next_up())..index(f64::MAX)).map(|i| (i, bound(i, schema))).collect();
        let mut counts = std::collections::BTreeMap::new();
        for value in values.iter().filter(|value| **value > 0.0) {
            let at = bounds.partition_point(|(_, bound)| bound < value);
            *counts.entry(bounds.get(at).map_or(index(f64::MAX), |(index, _)| *index)).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    #[test]
    fn what_is_nearly_nothing_is_nothing_and_the_largest_has_a_bucket() {
        let native = native_of(&[0.0, -0.0, ZERO_THRESHOLD, -ZERO_THRESHOLD, f64::MIN_POSITIVE, 5e-324]);
        assert_eq!((native.zero_count(), native.bucket_count()), (Weight::from_count(6), 0));
        assert_eq!(ZERO_THRESHOLD, 2_f64.powi(-128));
        let native = native_of(&[f64::MAX, f64::MIN, ZERO_THRESHOLD.next_up()]);
        assert_eq!(positive_counts(&native), [(-1023, 1), (8192, 1)]);
        assert_eq!(native.negative_buckets().map(|(index, _)| index).collect::<Vec<_>>(), [8192]);
        assert!(native.is_plausible());
    }

    fn packed(values: &[f64], weight: f64) -> Vec<u8> {
        let mut sketch = crate::aggregate::sketch::Sketch::default();
        for value in values {
            sketch.insert(*value, Weight::from_f64(weight));
        }
        let mut bytes = Vec::new();
        sketch.pack_into(&mut bytes);
        bytes
    }

    fn from_sketch(values: &[f64], weight: f64, places: i8) -> Native {
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Native::from_packed(Packed(&packed(values, weight)), min, max, places).unwrap()
    }

    #[test]
    fn a_few_values_of_a_sketch_are_counted_as_they_are() {
        let values = [0.25, 1.0, 1.0, -8.0, 0.0];
        assert_eq!(from_sketch(&values, 1.0, 0), native_of(&values));
        let timer = from_sketch(&[62.5, 1000.0], 1.0, 3);
        assert_eq!(positive_counts(&timer), [(-32, 1), (0, 1)], "2^-4 s and 1 s");
        assert!(Native::from_packed(Packed(b"x"), 0.0, 1.0, 0).is_none());
    }

    proptest! {
        #[test]
        fn property_bins_keep_their_counts_and_are_at_most_one_bucket_off(
            values in prop::collection::vec((0.0..40_f64, any::<bool>()), 17..400),
            weight in prop::sample::select(vec![1.0, 10.0, 1.0 / 0.3]),
        ) {
            let value = |(power, negative): &(f64, bool)| {
                let size = 2_f64.powf(*power) - 0.5;
                if *negative { -size } else { size }
            };
            let values: Vec<f64> = values.iter().map(value).collect();
            let counted = from_sketch(&values, weight, 0);
            let bins = Weight::from_bin(Weight::from_f64(weight).for_bin());
            prop_assert_eq!(counted.count(), bins.saturating_mul(values.len() as u64));
            prop_assert_eq!(counted.is_fractional(), weight.fract() != 0.0);
            // Ranks: with the values in order, the bucket at each rank is that of the value, or beside it.
            let mut exact: Vec<i32> = values
                .iter()
                .filter(|value| **value > 0.0)
                .map(|value| i32::from(coarsen_index(index_of(*value), FINEST_SCHEMA - counted.schema())))
                .collect();
            exact.sort_unstable();
            let found = counted.positive_buckets().flat_map(|(index, count)| {
                let each = u128::from(count) / u128::from(bins);
                std::iter::repeat_n(index, usize::try_from(each).unwrap())
            });
            let found: Vec<i32> = found.collect();
            prop_assert_eq!(found.len(), exact.len());
            prop_assert!(found.iter().zip(&exact).all(|(found, exact)| (found - exact).abs() <= 1));
        }
    }

    #[test]
    fn other_units_are_not_added_up() {
        let (mut seconds, plain) = (Native::new(3), native_of(&[1.0]));
        assert!(!seconds.merge(&plain));
        assert_eq!(seconds, Native::new(3));
    }

    #[test]
    fn counts_that_may_be_no_whole_numbers_stay_known_as_such() {
        let third = Weight::from_f64(1.5);
        let mut native = native_of(&[1.0]);
        assert!(!native.is_fractional());
        native.insert(1.0, third);
        native.insert(1.0, third);
        assert!(native.is_fractional(), "though four are whole");
        let mut other = native_of(&[2.0]);
        assert!(other.merge(&native) && other.is_fractional());
    }

    #[test]
    fn what_no_values_can_have_made_is_not_plausible() {
        let sound = native_of(&[1.0, 2.0, -4.0]);
        assert!(sound.is_plausible());
        let damages: [fn(&mut Native); 6] = [
            |native| native.schema = FINEST_SCHEMA + 1,
            |native| native.schema = COARSEST_SCHEMA - 1,
            |native| native.positive.indexes.swap(0, 1),
            |native| native.negative.counts.clear(),
            |native| native.positive.indexes[1] = 8193,
            |native| native.negative.indexes[0] = -1024,
        ];
        for damage in damages {
            let mut damaged = sound.clone();
            damage(&mut damaged);
            assert!(!damaged.is_plausible(), "{damaged:?}");
        }
        let many: Side = Side { indexes: (0..=160).collect(), counts: vec![Weight::ONE; MOST_BUCKETS + 1] };
        assert!(!Native { positive: many, ..sound }.is_plausible());
    }
}
