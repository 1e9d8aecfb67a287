//! Exponential histograms, which have their buckets in two lists without gaps.
//!
//! At scale s, bucket i holds what is above 2^(i·2^-s) and at most 2^((i+1)·2^-s): Prometheus' buckets of schema s, with
//! numbers that are one less.

use tallyport_core::aggregate::{MOST_BUCKETS, Native, Weight, ZERO_THRESHOLD};

use crate::prometheus::protobuf::count_to_u64;
use crate::publish::protobuf::ProtoWriter;

/// How counts become whole numbers.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Rounding {
    /// Each by itself, so that none decreases from one cumulative histogram to the next.
    Each,
    /// As running totals, so that their sum is the rounded sum.
    Together,
}

/// A histogram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ExponentialBuckets {
    /// The sum of all counts.
    pub(super) count: u64,
    scale: i32,
    zero: u64,
    positive: DenseSide,
    negative: DenseSide,
}

/// The buckets of one sign.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct DenseSide {
    /// The number of the first.
    offset: i32,
    counts: Vec<u64>,
}

impl ExponentialBuckets {
    /// The same histogram at the finest scale at which no list has more than [`MOST_BUCKETS`] buckets, empty ones included: one
    /// value far from the others would make a list of thousands.
    pub(super) fn from_native(native: &Native, rounding: Rounding) -> Self {
        let lower = |(index, count): (i32, Weight)| (index - 1, count);
        let mut positive: Vec<_> = native.positive_buckets().map(lower).collect();
        let mut negative: Vec<_> = native.negative_buckets().map(lower).collect();
        let mut scale = i32::from(native.schema());
        while is_too_long(&positive) || is_too_long(&negative) {
            scale -= 1;
            for side in [&mut positive, &mut negative] {
                side.iter_mut().for_each(|(index, _)| *index >>= 1);
            }
        }
        let (mut count, mut weights) = (0_u64, Weight::ZERO);
        let mut round = |weight: Weight| {
            let rounded = match rounding {
                Rounding::Each => count_to_u64(weight.to_rounded_f64()),
                Rounding::Together => {
                    weights = weights.saturating_add(weight);
                    count_to_u64(weights.to_rounded_f64()).saturating_sub(count)
                }
            };
            count = count.saturating_add(rounded);
            rounded
        };
        let zero = round(native.zero_count());
        let negative = DenseSide::new(&negative, &mut round);
        let positive = DenseSide::new(&positive, &mut round);
        Self { count, scale, zero, positive, negative }
    }

    /// Writes the fields of a data point that are those of the histogram, but for its count.
    pub(super) fn write_fields(&self, out: &mut ProtoWriter) {
        out.write_sint(6, self.scale.into());
        out.write_fixed64(7, self.zero);
        for (tag, side) in [(8, &self.positive), (9, &self.negative)] {
            if !side.counts.is_empty() {
                out.write_message(tag, |out| {
                    out.write_sint(1, side.offset.into());
                    out.write_packed_uints(2, side.counts.iter().copied());
                });
            }
        }
        out.write_double(14, ZERO_THRESHOLD);
    }
}

/// Whether a list from the first to the last of ascending buckets is too long.
fn is_too_long(side: &[(i32, Weight)]) -> bool {
    match (side.first(), side.last()) {
        (Some((first, _)), Some((last, _))) => last.abs_diff(*first) as usize >= MOST_BUCKETS,
        _ => false,
    }
}

impl DenseSide {
    /// From ascending buckets, of which several can have one number.
    fn new(side: &[(i32, Weight)], round: &mut impl FnMut(Weight) -> u64) -> Self {
        let Some((offset, _)) = side.first() else { return Self::default() };
        let mut counts = Vec::new();
        for same in side.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((index, _)) = same.first() else { continue };
            counts.resize(index.abs_diff(*offset) as usize, 0);
            let weight = same.iter().fold(Weight::ZERO, |sum, (_, weight)| sum.saturating_add(*weight));
            counts.push(round(weight));
        }
        Self { offset: *offset, counts }
    }
}

#[cfg(test)]
mod tests {
    use tallyport_core::aggregate::sketch::{Packed, Sketch};

    use super::*;

    fn native(values: &[f64], weight: f64) -> Native {
        let mut sketch = Sketch::default();
        for value in values {
            sketch.insert(*value, Weight::from_f64(weight));
        }
        let mut bytes = Vec::new();
        sketch.pack_into(&mut bytes);
        Native::from_packed(Packed(&bytes), f64::NEG_INFINITY, f64::INFINITY, 0).unwrap()
    }

    #[test]
    fn a_bucket_ends_where_prometheus_bucket_of_the_next_number_does() {
        let found =
            ExponentialBuckets::from_native(&native(&[1.0, 1.5, 2.0, -4.0, 0.0], 1.0), Rounding::Each);
        assert_eq!((found.count, found.scale, found.zero), (5, 3, 1));
        // 1 is the upper end of bucket -1, and 2 that of bucket 7.
        assert_eq!(found.positive.offset, -1);
        assert_eq!(found.positive.counts, [1, 0, 0, 0, 0, 1, 0, 0, 1]);
        assert_eq!(found.negative, DenseSide { offset: 15, counts: vec![1] });
    }

    #[test]
    fn values_far_apart_make_the_scale_coarser_and_lose_nothing() {
        let found = ExponentialBuckets::from_native(&native(&[1e-30, 1.0, 1.0, 1e30], 1.0), Rounding::Each);
        assert!(found.positive.counts.len() <= MOST_BUCKETS && found.scale < 3, "{found:?}");
        assert_eq!((found.count, found.positive.counts.iter().sum::<u64>()), (4, 4));
        // 1 is the upper end of bucket -1 at every scale.
        let at = usize::try_from(-1 - found.positive.offset).unwrap();
        assert_eq!(found.positive.counts[at], 2);
    }

    #[test]
    fn sampled_values_add_up_to_the_rounded_sum_or_never_decrease() {
        let sampled = native(&[1.0, 2.0, 4.0, 8.0, -1.0, 0.0], 1.0 / 0.7);
        let together = ExponentialBuckets::from_native(&sampled, Rounding::Together);
        assert_eq!(together.count, 9, "6 / 0.7 is 8.57");
        let each = ExponentialBuckets::from_native(&sampled, Rounding::Each);
        assert_eq!(each.count, 6, "six times 1.43");
    }
}
