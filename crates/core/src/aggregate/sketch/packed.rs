//! The sketch of a closed window: bytes that are read in place.
//!
//! ```text
//! packed  = 0 length *f64 / 1 length each *f64                ; values as they came, sorted, all of one weight
//!         / 2 length first *pair                              ; bins in ascending order, weights whole
//!         / 3 length *( distance weight )                     ; bins in ascending order
//!         / 4 length first *bit                               ; the same as 2: of each bin from the first to the last
//!                                                             ; as many ones as it holds, then a zero
//!         / 5 level packed                                    ; bins that were joined in pairs `level` times, 1 to 6, in
//!                                                             ; one of the forms 2 to 4
//! pair    = ( count − 1, distance − 1 ) [ rest of distance ] [ rest of count ]   ; a nibble each; 15 = and a rest
//! ```
//!
//! All numbers but f64, pairs and bits are of variable length; the distance from bin to bin is signed in the third form.
//! The bins of a hundred values are close to each other and hold few, so bits are shortest; of ten thousand values they
//! hold many, and of ten values they are far apart, so pairs are.

use super::bins::COARSEST;
use super::{EXACT, PERCENTILES, Percentiles, bin_of, error_of, middle_of};
use crate::aggregate::varint;
use crate::aggregate::weight::BIN_ONE;

const EXACT_ONES: u8 = 0;
const EXACT_WEIGHTED: u8 = 1;
const BINS_WHOLE: u8 = 2;
const BINS_FRACTIONAL: u8 = 3;
const BINS_IN_BITS: u8 = 4;
const JOINED: u8 = 5;

/// Writes sorted values exactly, and their weight unless it is one.
pub(super) fn pack_values(out: &mut Vec<u8>, sorted: &[f64], each: u64) {
    let unsampled = each == BIN_ONE || sorted.is_empty();
    out.push(if unsampled { EXACT_ONES } else { EXACT_WEIGHTED });
    varint::write(out, sorted.len() as u64);
    if !unsampled {
        varint::write(out, each);
    }
    for value in sorted {
        // −0 and 0 are the same value and must have the same encoding.
        out.extend_from_slice(&(value + 0.0).to_le_bytes());
    }
}

/// Writes ascending bins of a level and their weights.
pub(super) fn pack_bins(out: &mut Vec<u8>, bins: &[(i32, u64)], level: u8) {
    if level > 0 {
        out.extend([JOINED, level]);
    }
    let whole = bins.iter().all(|(_, weight)| weight % BIN_ONE == 0);
    let start = out.len();
    out.push(if whole { BINS_WHOLE } else { BINS_FRACTIONAL });
    varint::write(out, bins.len() as u64);
    if !whole {
        return pack_weights(out, bins);
    }
    let Some((first, _)) = bins.first() else { return };
    varint::write(out, varint::zigzag_encode(i64::from(*first)));
    let head = out.len();
    pack_pairs(out, *first, bins);
    if encoded_length(bins) < (out.len() - head) as u64 {
        out.truncate(head);
        write_ones(out, bins);
        if let Some(tag) = out.get_mut(start) {
            *tag = BINS_IN_BITS;
        }
    }
}

fn pack_weights(out: &mut Vec<u8>, bins: &[(i32, u64)]) {
    let mut previous = 0;
    for (bin, weight) in bins {
        varint::write(out, varint::zigzag_encode(i64::from(*bin) - previous));
        varint::write(out, *weight);
        previous = i64::from(*bin);
    }
}

fn pack_pairs(out: &mut Vec<u8>, first: i32, bins: &[(i32, u64)]) {
    let mut previous = i64::from(first) - 1;
    for (bin, weight) in bins {
        let distance = (i64::from(*bin) - previous).unsigned_abs().saturating_sub(1);
        let count = (weight / BIN_ONE).saturating_sub(1);
        out.push((clamp_to_nibble(count) << 4) | clamp_to_nibble(distance));
        for long in [distance, count] {
            if let Some(rest) = long.checked_sub(MORE) {
                varint::write(out, rest);
            }
        }
        previous = i64::from(*bin);
    }
}

/// A nibble with this value means that the rest of its number follows.
const MORE: u64 = 15;

fn clamp_to_nibble(number: u64) -> u8 {
    u8::try_from(number.min(MORE)).unwrap_or_default()
}

/// A sketch of a closed window, as [`super::Sketch::pack_into`] wrote it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Packed<'a>(pub &'a [u8]);

pub(super) enum PackedContents<'a> {
    Exact { each: u64, values: ExactValues<'a> },
    Bins(PackedBins<'a>),
}

pub(super) struct ExactValues<'a>(&'a [u8]);

impl Iterator for ExactValues<'_> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*bytes))
    }
}

pub(super) struct PackedBins<'a> {
    rest: &'a [u8],
    left: u64,
    bin: i64,
    level: u8,
    form: Form,
    torn: bool,
}

/// How each bin is written.
enum Form {
    Pairs,
    Weights,
    Bits(Ones),
}

impl Iterator for PackedBins<'_> {
    type Item = (i32, u64);

    fn next(&mut self) -> Option<(i32, u64)> {
        self.left = self.left.checked_sub(1)?;
        let next = self.read();
        self.torn |= next.is_none();
        next
    }
}

impl PackedBins<'_> {
    /// How often bins were joined in pairs.
    pub(super) fn coarsening_level(&self) -> u8 {
        self.level
    }

    fn read(&mut self) -> Option<(i32, u64)> {
        let (distance, weight) = match &mut self.form {
            Form::Pairs => self.read_pair()?,
            Form::Weights => self.read_weight()?,
            Form::Bits(ones) => {
                let (distance, count) = ones.next(&mut self.rest)?;
                (distance, count.checked_mul(BIN_ONE)?)
            }
        };
        self.bin = self.bin.checked_add(distance)?;
        let range = (-bin_of(f64::MAX)) >> self.level..=bin_of(f64::MAX) >> self.level;
        let bin = i32::try_from(self.bin).ok().filter(|bin| range.contains(bin))?;
        (weight > 0).then_some((bin, weight))
    }

    fn read_weight(&mut self) -> Option<(i64, u64)> {
        let distance = varint::zigzag_decode(varint::read(&mut self.rest)?);
        Some((distance, varint::read(&mut self.rest)?))
    }

    fn read_pair(&mut self) -> Option<(i64, u64)> {
        let (pair, rest) = self.rest.split_first()?;
        self.rest = rest;
        let distance = self.read_number(pair & 0x0f)?;
        let count = self.read_number(pair >> 4)?;
        Some((i64::try_from(distance).ok()?, count.checked_mul(BIN_ONE)?))
    }

    fn read_number(&mut self, nibble: u8) -> Option<u64> {
        let rest = if u64::from(nibble) == MORE { varint::read(&mut self.rest)? } else { 0 };
        rest.checked_add(u64::from(nibble) + 1)
    }

    /// Checks that the bytes contain exactly the announced number of entries.
    pub(super) fn check_complete(&self) -> Option<()> {
        let ended = match &self.form {
            Form::Bits(ones) => ones.is_over(),
            Form::Pairs | Form::Weights => true,
        };
        (!self.torn && self.left == 0 && self.rest.is_empty() && ended).then_some(())
    }
}

fn bins_from_parts(rest: &[u8], left: u64, bin: i64, (form, level): (Form, u8)) -> PackedContents<'_> {
    PackedContents::Bins(PackedBins { rest, left, bin, level, form, torn: false })
}

impl<'a> Packed<'a> {
    pub(super) fn parse_contents(self) -> Option<PackedContents<'a>> {
        match self.0 {
            [JOINED, level @ 1..=COARSEST, joined @ ..] => Self(joined).contents_at(*level),
            _ => self.contents_at(0),
        }
    }

    fn contents_at(self, level: u8) -> Option<PackedContents<'a>> {
        let (&tag, mut rest) = self.0.split_first()?;
        let left = varint::read(&mut rest)?;
        match tag {
            EXACT_ONES | EXACT_WEIGHTED if level > 0 => None,
            EXACT_ONES | EXACT_WEIGHTED => {
                let each = if tag == EXACT_ONES { BIN_ONE } else { varint::read(&mut rest)? };
                let values = ExactValues(rest);
                let sound = left <= EXACT as u64
                    && rest.len() as u64 == left * 8
                    && each > 0
                    && ExactValues(rest).all(f64::is_finite);
                sound.then_some(PackedContents::Exact { each, values })
            }
            // No bins would be a sketch of values that were never sent.
            BINS_FRACTIONAL if left > 0 => Some(bins_from_parts(rest, left, 0, (Form::Weights, level))),
            BINS_WHOLE | BINS_IN_BITS if left > 0 => {
                let first = varint::zigzag_decode(varint::read(&mut rest)?);
                let form = if tag == BINS_WHOLE { Form::Pairs } else { Form::Bits(Ones::default()) };
                Some(bins_from_parts(rest, left, first.checked_sub(1)?, (form, level)))
            }
            _ => None,
        }
    }

    /// The maximum relative error of percentiles if the values span so many octaves that bins were joined: from 0.015
    /// to 0.34. `None` if they were not joined; the error is then below 0.01.
    #[must_use]
    pub fn relative_error(self) -> Option<f64> {
        match self.0 {
            [JOINED, level @ 1..=COARSEST, ..] => Some(error_of(*level)),
            _ => None,
        }
    }

    /// Nearest rank: for each percentile the smallest value whose cumulative weight is at least that share of the
    /// total, clamped to `min` and `max`. `None` if there are no values.
    #[must_use]
    pub fn percentiles(self, min: f64, max: f64) -> Option<Percentiles> {
        let found = match self.parse_contents()? {
            PackedContents::Exact { values, .. } => {
                let values: Vec<_> = values.map(|value| (value, 1)).collect();
                nearest_rank(values.iter().copied(), values.len() as u128)
            }
            PackedContents::Bins(bins) => {
                let level = bins.coarsening_level();
                let bins: Vec<_> = bins.collect();
                let total = bins.iter().map(|(_, weight)| u128::from(*weight)).sum();
                nearest_rank(bins.iter().map(|(bin, weight)| (middle_of(*bin, level), *weight)), total)
            }
        };
        found.map(|values| values.map(|value| value.clamp(min, max)))
    }

    /// The values of the sketch in ascending order, each with its weight for bins: exact values, or the value that represents
    /// each bin, as [`Packed::percentiles`] uses it, clamped to `min` and `max`. `None` if the bytes are not a packed sketch.
    pub(in crate::aggregate) fn weighted_values(self, min: f64, max: f64) -> Option<Vec<(f64, u64)>> {
        let mut weighted: Vec<(f64, u64)> = match self.parse_contents()? {
            PackedContents::Exact { each, values } => values.map(|value| (value, each)).collect(),
            PackedContents::Bins(mut bins) => {
                let level = bins.coarsening_level();
                let weighted = bins.by_ref().map(|(bin, weight)| (middle_of(bin, level), weight)).collect();
                bins.check_complete()?;
                weighted
            }
        };
        weighted.iter_mut().for_each(|(value, _)| *value = value.clamp(min, max));
        Some(weighted)
    }

    /// The values of the sketch in ascending order, with whole counts: exact values, or the value that represents each
    /// bin, as [`Packed::percentiles`] uses it, clamped to `min` and `max`.
    ///
    /// Weights are rounded as running totals, so the counts up to any value are within one half of the weights up to
    /// it. No count is zero, because no weight is less than one. `None` if there are no values, or the bytes are not a
    /// packed sketch.
    #[must_use]
    pub fn whole_counts(self, min: f64, max: f64) -> Option<Vec<(f64, u64)>> {
        let (mut weights, mut counted) = (0_u128, 0_u128);
        let count = |(value, weight): (f64, u64)| {
            weights += u128::from(weight);
            let upto = (weights + u128::from(BIN_ONE / 2)) / u128::from(BIN_ONE);
            let count = u64::try_from(upto - counted).unwrap_or(u64::MAX);
            counted = upto;
            (value, count)
        };
        let counts: Vec<_> = self.weighted_values(min, max)?.into_iter().map(count).collect();
        (!counts.is_empty()).then_some(counts)
    }
}

/// `ascending` values and their weights, which add up to `total`.
fn nearest_rank(ascending: impl Iterator<Item = (f64, u64)>, total: u128) -> Option<Percentiles> {
    let mut found = [0.0; PERCENTILES.len()];
    let mut wanted = found.iter_mut().zip(PERCENTILES.iter().map(|(percent, _)| {
        // Integer arithmetic: in f64, 0.1 · 30 is more than 3 and would select the fourth of thirty values.
        (total * u128::from(*percent)).div_ceil(100)
    }));
    let mut next = wanted.next();
    let mut cumulative = 0_u128;
    for (value, weight) in ascending {
        cumulative += u128::from(weight);
        while let Some((slot, rank)) = next.as_mut() {
            if cumulative < *rank {
                break;
            }
            **slot = value;
            next = wanted.next();
        }
        if next.is_none() {
            return Some(found);
        }
    }
    None
}

/// The encoded length of ascending bins with whole weights, in bytes.
fn encoded_length(bins: &[(i32, u64)]) -> u64 {
    let (Some((first, _)), Some((last, _))) = (bins.first(), bins.last()) else { return 0 };
    let zeros = u64::from(last.abs_diff(*first)) + 1;
    let ones = bins.iter().fold(0_u64, |ones, (_, weight)| ones.saturating_add(weight / BIN_ONE));
    zeros.saturating_add(ones).div_ceil(8)
}

/// Writes ascending bins with whole weights.
fn write_ones(out: &mut Vec<u8>, bins: &[(i32, u64)]) {
    let (mut byte, mut used) = (0, 0);
    let mut write = |bit: u8| {
        byte |= bit << used;
        used += 1;
        if used == u8::BITS {
            out.push(byte);
            (byte, used) = (0, 0);
        }
    };
    let mut next = bins.first().map_or(0, |(first, _)| *first);
    for (bin, weight) in bins {
        (next..*bin).for_each(|_| write(0));
        (0..weight / BIN_ONE).for_each(|_| write(1));
        write(0);
        next = bin + 1;
    }
    if used > 0 {
        out.push(byte);
    }
}

/// Reads what [`write_ones`] wrote.
#[derive(Default)]
struct Ones {
    bits: u64,
    /// Number of unread bits in `bits`; the others are zero.
    left: u32,
}

impl Ones {
    /// The distance of the next bin from the previous one, and its count. `None` after the last bin, or if the bytes
    /// are truncated.
    fn next(&mut self, rest: &mut &[u8]) -> Option<(i64, u64)> {
        let (mut distance, mut count) = (1, 0);
        loop {
            self.refill_bits(rest);
            let zeros = self.bits.trailing_zeros().min(self.left);
            self.skip_bits(zeros);
            distance += i64::from(zeros);
            if self.left > 0 {
                break;
            }
            if rest.is_empty() {
                return None;
            }
        }
        loop {
            let ones = self.bits.trailing_ones().min(self.left);
            self.skip_bits(ones);
            count += u64::from(ones);
            self.refill_bits(rest);
            // A bin without its terminating zero is truncated.
            self.left.checked_sub(1)?;
            if self.bits & 1 == 0 {
                self.skip_bits(1);
                return Some((distance, count));
            }
        }
    }

    /// Whether only the zero padding of the last byte is left.
    fn is_over(&self) -> bool {
        self.left < u8::BITS && self.bits == 0
    }

    fn skip_bits(&mut self, bits: u32) {
        self.bits = self.bits.unbounded_shr(bits);
        self.left -= bits;
    }

    fn refill_bits(&mut self, rest: &mut &[u8]) {
        while self.left <= u64::BITS - u8::BITS
            && let Some((byte, after)) = rest.split_first()
        {
            self.bits |= u64::from(*byte) << self.left;
            self.left += u8::BITS;
            *rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(mut rest: &[u8], bins: usize) -> Option<Vec<(i64, u64)>> {
        let mut ones = Ones::default();
        let read = (0..bins).map(|_| ones.next(&mut rest)).collect::<Option<_>>()?;
        (rest.is_empty() && ones.is_over()).then_some(read)
    }

    #[test]
    fn a_bin_is_its_count_in_ones_and_a_zero() {
        let mut out = Vec::new();
        write_ones(&mut out, &[(-2, BIN_ONE), (1, 3 * BIN_ONE)]);
        assert_eq!(out, [0b0111_0001]);
        assert_eq!(read(&out, 2), Some(vec![(1, 1), (3, 3)]));
    }

    #[test]
    fn what_is_torn_or_too_long_is_refused() {
        for (bytes, bins) in [(&[][..], 1), (&[0xff], 1), (&[0], 1), (&[1, 0], 1), (&[5], 1), (&[5], 3)] {
            assert_eq!(read(bytes, bins), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn property_what_is_written_is_read(
            first in -70_000..70_000_i32,
            steps in prop::collection::vec((1..200_i32, 1..200_u64), 1..50),
        ) {
            let mut bin = first - 1;
            let mut bins = Vec::new();
            for (n, (step, count)) in steps.iter().enumerate() {
                bin += if n == 0 { 1 } else { *step };
                bins.push((bin, count * BIN_ONE));
            }
            let mut out = Vec::new();
            write_ones(&mut out, &bins);
            prop_assert_eq!(out.len() as u64, encoded_length(&bins));
            let found = read(&out, bins.len()).unwrap();
            let mut at = i64::from(first) - 1;
            for ((distance, count), (bin, weight)) in found.iter().zip(&bins) {
                at += distance;
                prop_assert_eq!((at, count * BIN_ONE), (i64::from(*bin), *weight));
            }
        }
    }
}
