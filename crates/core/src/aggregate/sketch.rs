//! A sketch for percentiles within 1 % of any values, in few bytes, that merges without loss.
//!
//! Up to [`EXACT`] values of one weight are stored exactly. More are counted in bins: each octave of the f64 range is
//! divided into 64 equal bins, so a bin's width is at most 1/64 of its value and its middle is within 0.78 % of all
//! values in it, for every normal f64, including negative ones and zero. A bin's number is the top bits of the f64, so
//! finding it takes one shift, gives the same result on every machine, and needs no configured range.
//!
//! Values that span more than 64 octaves get wider bins: pairs of bins are joined, up to six times, until 64 groups of
//! 64 bins hold them all. `error_of` gives the precision of percentiles for such values.
//!
//! The result depends only on the values and their weights, and bins are integers, so the sketch of two windows
//! together is the merge of both, bit for bit. Why not hdrhistogram or a logarithmic sketch: `docs/adr/0003-sketch.md`.

mod bins;
mod packed;

use bins::{Bins, COARSEST};
pub use packed::Packed;
use packed::{PackedContents, pack_bins, pack_values};

use super::weight::Weight;

/// Maximum number of values that are stored exactly.
pub const EXACT: usize = 16;
/// The number of bins in an octave is two to this power.
const OCTAVE_BITS: u32 = 6;
/// The number of f64 bits below a bin's number.
const BELOW: u32 = f64::MANTISSA_DIGITS - 1 - OCTAVE_BITS;

/// The percentiles that are served, and their names.
pub const PERCENTILES: [(u32, &str); 5] = [(50, "p50"), (75, "p75"), (90, "p90"), (95, "p95"), (99, "p99")];
/// One value for each of [`PERCENTILES`].
pub type Percentiles = [f64; PERCENTILES.len()];

/// The bin of a value: its sign, exponent, and the first six bits of its mantissa. Bins are ordered like their values;
/// 0 is the bin of zero and of subnormal values.
#[inline]
fn bin_of(value: f64) -> i32 {
    let size = (value.abs().to_bits() >> BELOW) as i32;
    if value < 0.0 { -size } else { size }
}

/// The value that represents a bin of a level, which contains `2^level` bins of level 0: the harmonic mean of its
/// bounds, which has the same relative distance from both.
fn middle_of(bin: i32, level: u8) -> f64 {
    if bin == 0 {
        return 0.0;
    }
    let first = bin << level;
    let last = first + (1 << level) - 1;
    let at = |number: u32| f64::from_bits(u64::from(number) << BELOW);
    let low = at(first.unsigned_abs().min(last.unsigned_abs()));
    let high = at(first.unsigned_abs().max(last.unsigned_abs()) + 1);
    // 2·low·high/(low+high), ordered so that nothing overflows; the last bin has no finite upper end.
    let middle = if high.is_finite() { low / (0.5 + 0.5 * (low / high)) } else { low };
    if bin < 0 { -middle } else { middle }
}

/// The maximum relative error of a percentile after bins were joined `level` times: from 1/129 to a third.
fn error_of(level: u8) -> f64 {
    let width = f64::from(1 << level.min(COARSEST)) / f64::from(1 << OCTAVE_BITS);
    width / (2.0 + width)
}

/// The sketch of an open window.
#[derive(Clone, Debug, Default)]
pub struct Sketch {
    /// The exact values, all of one weight; empty once they are counted in bins.
    raw: Vec<f64>,
    /// Also holds the weight of the raw values.
    bins: Bins,
}

impl Sketch {
    /// Whether nothing was inserted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty() && !self.bins.in_use()
    }

    /// Touches the memory that the next value will need, to prefetch it.
    #[inline]
    pub(super) fn prefetch_bin(&self, value: f64) -> u64 {
        if self.bins.in_use() { self.bins.get(bin_of(value)) } else { self.raw.len() as u64 }
    }

    /// Adds one value. Returns the bytes by which the sketch grew.
    #[inline]
    pub fn insert(&mut self, value: f64, weight: Weight) -> usize {
        self.insert_binned(value, weight.for_bin())
    }

    #[inline]
    fn insert_binned(&mut self, value: f64, weight: u64) -> usize {
        if self.bins.in_use() {
            return self.bins.add(bin_of(value), weight);
        }
        self.insert_raw(value, weight)
    }

    fn insert_raw(&mut self, value: f64, weight: u64) -> usize {
        if self.raw.is_empty() {
            self.bins.set_unit(weight);
        }
        if self.raw.len() < EXACT && self.bins.unit_weight() == weight {
            let before = self.raw.capacity();
            self.raw.push(value);
            return (self.raw.capacity() - before) * size_of::<f64>();
        }
        self.spill_to_bins() + self.bins.add(bin_of(value), weight)
    }

    /// Moves the raw values to bins, which are used from now on.
    #[cold]
    fn spill_to_bins(&mut self) -> usize {
        self.bins.mark_in_use();
        let each = self.bins.unit_weight();
        self.raw.drain(..).map(|value| self.bins.add(bin_of(value), each)).sum()
    }

    /// Adds the other sketch.
    pub fn merge(&mut self, other: &Self) {
        for value in &other.raw {
            self.insert_binned(*value, other.bins.unit_weight());
        }
        if other.bins.in_use() {
            self.spill_to_bins();
            let level = other.bins.coarsening_level();
            self.bins.coarsen_to(level);
            for (bin, weight) in other.bins.iter() {
                self.bins.add(bin << level, weight);
            }
        }
    }

    /// Adds a packed sketch. `None` if the bytes are not a packed sketch.
    pub fn merge_packed(&mut self, packed: Packed<'_>) -> Option<()> {
        match packed.parse_contents()? {
            PackedContents::Exact { each, values } => {
                for value in values {
                    self.insert_binned(value, each);
                }
            }
            PackedContents::Bins(mut bins) => {
                self.spill_to_bins();
                let level = bins.coarsening_level();
                self.bins.coarsen_to(level);
                for (bin, weight) in &mut bins {
                    self.bins.add(bin << level, weight);
                }
                bins.check_complete()?;
            }
        }
        Some(())
    }

    /// Removes all values. Capacity that was used is kept for the next ones; unused capacity is freed.
    pub fn clear(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
        self.raw.clear();
        self.bins.clear();
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.raw.capacity() * size_of::<f64>() + self.bins.heap_bytes()
    }

    /// Writes the sketch in its smallest form; the same values in any order give the same bytes.
    pub fn pack_into(&self, out: &mut Vec<u8>) {
        if self.bins.in_use() {
            return pack_bins(out, &self.bins.iter().collect::<Vec<_>>(), self.bins.coarsening_level());
        }
        let mut values = self.raw.clone();
        values.sort_unstable_by(f64::total_cmp);
        pack_values(out, &values, self.bins.unit_weight());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: &[f64], weight: f64) -> Sketch {
        let mut sketch = Sketch::default();
        for value in values {
            sketch.insert(*value, Weight::from_f64(weight));
        }
        sketch
    }

    fn packed(sketch: &Sketch) -> Vec<u8> {
        let mut out = Vec::new();
        sketch.pack_into(&mut out);
        out
    }

    fn percentiles(values: &[f64]) -> Percentiles {
        Packed(&packed(&sketch(values, 1.0))).percentiles(f64::NEG_INFINITY, f64::INFINITY).unwrap()
    }

    #[test]
    fn a_few_values_give_exact_percentiles() {
        let values: Vec<_> = (1..=10).map(f64::from).collect();
        assert_eq!(percentiles(&values), [5.0, 8.0, 9.0, 10.0, 10.0]);
        assert_eq!(percentiles(&[7.25]), [7.25; 5]);
        assert_eq!(percentiles(&[-3.5, 0.0]), [-3.5, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn rank_is_counted_in_whole_numbers() {
        // 0.9 · 100 samples is the 90th, not the 91st.
        let values: Vec<_> = (1..=100).map(f64::from).collect();
        let [p50, p75, p90, p95, p99] = percentiles(&values);
        for (found, wanted) in [(p50, 50.0), (p75, 75.0), (p90, 90.0), (p95, 95.0), (p99, 99.0)] {
            assert!((found - wanted).abs() <= wanted * 0.008, "{found} is not {wanted}");
        }
    }

    #[test]
    fn the_middle_of_a_bin_is_within_0_8_percent_of_its_ends() {
        for exponent in -400..400 {
            for step in 0..640 {
                let value = 2_f64.powi(exponent) * (1.0 + f64::from(step) / 640.0);
                let middle = middle_of(bin_of(value), 0);
                assert!((middle - value).abs() <= value * 0.008, "{value} became {middle}");
                assert_eq!(middle_of(bin_of(-value), 0), -middle);
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_have_bins_too() {
        for value in [f64::MAX, f64::MIN_POSITIVE, 1e-9, 1e12] {
            let middle = middle_of(bin_of(value), 0);
            assert!(middle.is_finite() && (middle - value).abs() <= value * 0.02, "{value} became {middle}");
        }
        assert_eq!(middle_of(bin_of(0.0), 0), 0.0);
        assert_eq!(middle_of(bin_of(-0.0), 0), 0.0);
        assert_eq!(middle_of(bin_of(5e-324), 0), 0.0);
    }

    /// Values of which each is in another octave, up to `octaves`, half of them negative.
    fn one_in_each(octaves: i32) -> Vec<f64> {
        (0..octaves).map(|n| 2_f64.powi(n / 2 * 3 - 1000) * f64::from(1 - 2 * (n % 2))).collect()
    }

    #[test]
    fn a_sketch_takes_bounded_memory_whatever_its_values() {
        for weight in [1.0, 1.5] {
            let mut wide = sketch(&one_in_each(1300), weight);
            for value in one_in_each(1300) {
                wide.insert(value, Weight::from_f64(2.5));
            }
            assert!(wide.heap_bytes() <= 64 * 512 + 512, "{}", wide.heap_bytes());
        }
    }

    #[test]
    fn more_than_64_octaves_make_bins_wider_and_say_how_wide() {
        let error = |values: &[f64]| Packed(&packed(&sketch(values, 1.0))).relative_error();
        assert_eq!(error(&one_in_each(64)), None);
        let most = error(&one_in_each(1300)).unwrap();
        assert!(most > 0.3 && most < 0.34, "{most}");
        let mut sorted = one_in_each(1300);
        let found = percentiles(&sorted);
        sorted.sort_by(f64::total_cmp);
        for ((percent, _), found) in PERCENTILES.iter().zip(found) {
            let wanted = sorted[(sorted.len() * *percent as usize).div_ceil(100) - 1];
            assert!(
                (found - wanted).abs() <= wanted.abs() * most * 1.01,
                "p{percent}: {found} is not {wanted}"
            );
        }
    }

    #[test]
    fn the_whole_range_of_numbers_fits_at_the_coarsest_level() {
        for bin in [bin_of(f64::MAX), -bin_of(f64::MAX), 0, -1] {
            assert!((-32..32).contains(&(bin >> COARSEST >> OCTAVE_BITS)), "{bin}");
        }
        assert!(middle_of(bin_of(f64::MAX) >> COARSEST, COARSEST).is_finite());
        assert!(middle_of(-bin_of(f64::MAX) >> COARSEST, COARSEST).is_finite());
    }

    #[test]
    fn octaves_of_the_window_before_do_not_make_bins_wider() {
        let mut again = sketch(&one_in_each(60), 1.0);
        again.clear();
        let values: Vec<_> = (0..40).map(|n| 2_f64.powi(n * 5 + 600)).collect();
        for value in &values {
            again.insert(*value, Weight::ONE);
        }
        assert_eq!(packed(&again), packed(&sketch(&values, 1.0)));
    }

    #[test]
    fn a_wide_window_leaves_the_next_one_fine() {
        let mut again = sketch(&one_in_each(1300), 1.0);
        again.clear();
        let values: Vec<_> = (1..40).map(f64::from).collect();
        for value in &values {
            again.insert(*value, Weight::ONE);
        }
        assert_eq!(packed(&again), packed(&sketch(&values, 1.0)));
    }

    #[test]
    fn whole_counts_add_up_to_the_rounded_weight_and_lose_no_value() {
        for (samples, weight) in
            [(10, 1.0), (10, 1.5), (10, 1.0 / 0.3), (1000, 1.0), (1000, 1.5), (1000, 1.0 / 0.7)]
        {
            let values: Vec<_> = (1..=samples).map(f64::from).collect();
            let bytes = packed(&sketch(&values, weight));
            let counts = Packed(&bytes).whole_counts(1.0, f64::from(samples)).unwrap();
            let total: u64 = counts.iter().map(|(_, count)| count).sum();
            assert!(
                (total as f64 - f64::from(samples) * weight).abs() <= 0.501,
                "{total} of {samples} × {weight}"
            );
            assert!(counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
            assert!(counts.is_sorted_by(|a, b| a.0 < b.0), "{counts:?}");
        }
        assert_eq!(Packed(&packed(&sketch(&[], 1.0))).whole_counts(0.0, 1.0), None);
        assert_eq!(Packed(&[2, 2, 0, 1]).whole_counts(0.0, 1.0), None, "bytes that end too early");
    }

    #[test]
    fn weights_move_the_rank() {
        let mut sketch = sketch(&[1.0], 1.0);
        sketch.insert(100.0, Weight::from_f64(99.0));
        let [p50, ..] = Packed(&packed(&sketch)).percentiles(1.0, 100.0).unwrap();
        assert!((p50 - 100.0).abs() < 1.0);
    }

    #[test]
    fn a_hundred_samples_take_about_forty_bytes() {
        // Latencies spread over a factor of eight.
        let values: Vec<_> = (0..100).map(|n| 5.0 * 8_f64.powf(f64::from(n) / 100.0)).collect();
        assert!(packed(&sketch(&values, 1.0)).len() <= 42, "{}", packed(&sketch(&values, 1.0)).len());
        assert_eq!(packed(&sketch(&values[..1], 1.0)).len(), 10);
    }

    #[test]
    fn weights_as_large_as_a_snapshot_can_have_saturate() {
        let mut bytes = Vec::new();
        pack_values(&mut bytes, &[1.0; EXACT], u64::MAX);
        let mut sketch = Sketch::default();
        for _ in 0..2 {
            sketch.merge_packed(Packed(&bytes)).unwrap();
        }
        sketch.insert(100.0, Weight::ONE);
        let [p50, ..] = Packed(&packed(&sketch)).percentiles(1.0, 100.0).unwrap();
        assert!((p50 - 1.0).abs() < 0.01);
    }

    #[test]
    fn bytes_that_are_no_sketch_are_refused() {
        for bytes in [
            &[][..],
            &[9, 0],
            &[2, 0],
            &[3, 0],
            &[0, 2, 0],
            &[0, 17],
            &[2, 2, 0, 1],
            &[2, 1, 0, 1, 0],
            &[1, 1, 0, 0, 0],
            &[5, 0, 2, 1, 0, 0],
            &[5, 7, 2, 1, 0, 0],
            &[5, 1, 5, 1, 2, 1, 0, 0],
            &[5, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[5, 1],
        ] {
            assert_eq!(Sketch::default().merge_packed(Packed(bytes)), None, "{bytes:?}");
        }
        let nan = [&[0, 1][..], &f64::NAN.to_le_bytes()].concat();
        assert_eq!(Sketch::default().merge_packed(Packed(&nan)), None);
    }

    proptest! {
        #[test]
        fn property_merging_equals_inserting_together(
            left in prop::collection::vec((-1e12..1e12_f64, 1_u8..4), 0..150),
            right in prop::collection::vec((-1e3..1e3_f64, 1_u8..4), 0..150),
            one_weight: bool,
        ) {
            let weight = |w: u8| Weight::from_f64(if one_weight { 10.0 } else { 1.0 / (f64::from(w) * 0.3) });
            let fill = |sketch: &mut Sketch, values: &[(f64, u8)]| {
                for (value, w) in values {
                    sketch.insert(*value, weight(*w));
                }
            };
            let (mut a, mut b, mut both) = (Sketch::default(), Sketch::default(), Sketch::default());
            fill(&mut a, &left);
            fill(&mut b, &right);
            fill(&mut both, &left);
            fill(&mut both, &right);
            let mut from_packed = a.clone();
            from_packed.merge_packed(Packed(&packed(&b))).unwrap();
            a.merge(&b);
            prop_assert_eq!(packed(&a), packed(&both));
            prop_assert_eq!(packed(&from_packed), packed(&both));
        }

        #[test]
        fn property_wide_values_give_the_same_sketch_however_they_are_merged(
            // In pieces: any three of them, of any range.
            pieces in prop::collection::vec(
                prop::collection::vec((-1000..1000_i32, 0..64_u8, prop::bool::ANY, 1_u8..3), 0..120), 3),
        ) {
            let fill = |pieces: &[&Vec<(i32, u8, bool, u8)>]| {
                let mut sketch = Sketch::default();
                for (exponent, step, negative, weight) in pieces.iter().copied().flatten() {
                    let value = 2_f64.powi(*exponent) * (1.0 + f64::from(*step) / 64.0);
                    sketch.insert(if *negative { -value } else { value }, Weight::from_f64(f64::from(*weight)));
                }
                sketch
            };
            let [a, b, c] = [&pieces[0], &pieces[1], &pieces[2]];
            let whole = packed(&fill(&[a, b, c]));
            let (mut left, mut right, mut tail) = (fill(&[a]), fill(&[c]), fill(&[b]));
            left.merge(&fill(&[b]));
            left.merge_packed(Packed(&packed(&fill(&[c])))).unwrap();
            tail.merge(&right);
            right = fill(&[a]);
            right.merge(&tail);
            prop_assert_eq!(&packed(&left), &whole);
            prop_assert_eq!(&packed(&right), &whole);
            prop_assert_eq!(&packed(&fill(&[c, a, b])), &whole);
        }

        #[test]
        fn property_percentiles_are_the_nearest_rank_within_one_percent(
            values in prop::collection::vec(prop_oneof![
                -1e12..1e12_f64, -1.0..1.0_f64, 1e-9..1e-6_f64, Just(0.0)], 1..300),
        ) {
            let found = percentiles(&values);
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            for ((percent, _), found) in PERCENTILES.iter().zip(found) {
                let rank = (sorted.len() * *percent as usize).div_ceil(100);
                let wanted = sorted[rank - 1];
                prop_assert!((found - wanted).abs() <= wanted.abs() * 0.01, "p{percent}: {found} is not {wanted}");
            }
        }
    }
}
