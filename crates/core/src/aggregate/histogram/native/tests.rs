use proptest::prelude::*;

use super::*;

/// An upper bound as Prometheus' server computes it for its quantiles.
fn bound(index: i32, schema: i8) -> f64 {
    if schema <= 0 {
        return 2_f64.powi(index << -schema);
    }
    let per_octave = 1 << schema;
    let fraction = FRACTIONS[usize::try_from(index & (per_octave - 1)).unwrap() << (FINEST_SCHEMA - schema)];
    2.0 * fraction * 2_f64.powi(index >> schema)
}

/// ⌈log₂ of a number to the power of 2^schema⌉, in whole numbers as long as they come.
fn reference(value: f64, schema: i8) -> i32 {
    let bits = value.to_bits();
    let exponent = i32::try_from(bits >> MANTISSA_BITS).unwrap() - 1023 - 52;
    let mut power = vec![(bits & ((1 << 52) - 1)) | (1 << 52)];
    for _ in 0..schema.max(0) {
        power = squared(&power);
    }
    let whole = i32::try_from(bit_length_below(&power)).unwrap() + (exponent << schema.max(0));
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

/// How many bits the number before this one has.
fn bit_length_below(digits: &[u64]) -> usize {
    let lowest = digits.iter().position(|digit| *digit != 0).unwrap();
    let highest = digits.iter().rposition(|digit| *digit != 0).unwrap();
    let bits = 64 * highest + 64 - digits[highest].leading_zeros() as usize;
    let power_of_two = lowest == highest && digits[highest].is_power_of_two();
    bits - usize::from(power_of_two)
}

fn of(values: &[f64]) -> Native {
    let mut native = Native::new(0);
    values.iter().for_each(|value| native.insert(*value, Weight::ONE));
    native
}

/// Buckets above 0, as indexes and whole counts.
fn positive(native: &Native) -> Vec<(i32, u32)> {
    native.positive_buckets().map(|(index, count)| (index, whole(count))).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tests count no further")]
fn whole(count: Weight) -> u32 {
    count.to_rounded_f64() as u32
}

#[test]
fn a_value_that_equals_a_bound_is_within_it_at_every_schema() {
    for schema in COARSEST_SCHEMA..=FINEST_SCHEMA {
        let index = |value| i32::from(coarsen_index(index_of(value), FINEST_SCHEMA - schema));
        let [least, most] = [ZERO_THRESHOLD.next_up(), f64::MAX].map(index);
        // The highest bound is 2^1024, which no f64 is.
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
            // Prometheus' bounds are roots to within two of the smallest steps.
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
        let together = of(&parts.concat());
        let [a, b, c] = [0, 1, 2].map(|part| of(&parts[part]));
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
        assert_eq!(positive(&native), [(8 * power, 1), (8 * power + 1, 1)], "{milliseconds} ms");
    }
}

#[test]
fn more_buckets_than_may_be_make_the_schema_coarser_and_lose_nothing() {
    let mut native = Native::new(0);
    let (mut values, mut schemas) = (Vec::new(), vec![FINEST_SCHEMA]);
    // From both ends of what there is.
    for index in (-1022..8192).rev() {
        for value in [bound(index, FINEST_SCHEMA), -bound(7169 - index, FINEST_SCHEMA)] {
            values.push(value);
            native.insert(value, Weight::ONE);
        }
        assert!(native.bucket_count() <= MOST_BUCKETS);
        assert_eq!(native.count(), Weight::from_count(values.len() as u64));
        if schemas.last() != Some(&native.schema()) {
            schemas.push(native.schema());
            assert_eq!(positive(&native), by_searching(&values, native.schema()));
        }
    }
    assert_eq!(schemas, [3, 2, 1, 0, -1, -2, -3, -4]);
    assert_eq!(positive(&native), by_searching(&values, -4));
}

/// How many values are in each bucket above 0, by looking for each among all bounds.
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
    let native = of(&[0.0, -0.0, ZERO_THRESHOLD, -ZERO_THRESHOLD, f64::MIN_POSITIVE, 5e-324]);
    assert_eq!((native.zero_count(), native.bucket_count()), (Weight::from_count(6), 0));
    assert_eq!(ZERO_THRESHOLD, 2_f64.powi(-128));
    let native = of(&[f64::MAX, f64::MIN, ZERO_THRESHOLD.next_up()]);
    assert_eq!(positive(&native), [(-1023, 1), (8192, 1)]);
    assert_eq!(native.negative_buckets().map(|(index, _)| index).collect::<Vec<_>>(), [8192]);
    assert!(native.is_plausible());
}

#[test]
fn other_units_are_not_added_up() {
    let (mut seconds, plain) = (Native::new(3), of(&[1.0]));
    assert!(!seconds.merge(&plain));
    assert_eq!(seconds, Native::new(3));
}

#[test]
fn counts_that_may_be_no_whole_numbers_stay_known_as_such() {
    let third = Weight::from_f64(1.5);
    let mut native = of(&[1.0]);
    assert!(!native.is_fractional());
    native.insert(1.0, third);
    native.insert(1.0, third);
    assert!(native.is_fractional(), "though four are whole");
    let mut other = of(&[2.0]);
    assert!(other.merge(&native) && other.is_fractional());
}

#[test]
fn what_no_values_can_have_made_is_not_plausible() {
    let sound = of(&[1.0, 2.0, -4.0]);
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
