//! Bins as bits: of each from the first to the last as many ones as it holds, then a zero.

use crate::aggregate::weight::BIN_ONE;

/// Bytes that ascending bins of whole weights take.
pub(super) fn encoded_length(bins: &[(i32, u64)]) -> u64 {
    let (Some((first, _)), Some((last, _))) = (bins.first(), bins.last()) else { return 0 };
    let zeros = u64::from(last.abs_diff(*first)) + 1;
    let ones = bins.iter().fold(0_u64, |ones, (_, weight)| ones.saturating_add(weight / BIN_ONE));
    zeros.saturating_add(ones).div_ceil(8)
}

/// Writes ascending bins of whole weights.
pub(super) fn write_ones(out: &mut Vec<u8>, bins: &[(i32, u64)]) {
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
pub(super) struct Ones {
    bits: u64,
    /// How many of `bits` are still to be read; the others are zero.
    left: u32,
}

impl Ones {
    /// How far the next bin is from the one before, and what it holds. `None` where there is no other.
    pub(super) fn next(&mut self, rest: &mut &[u8]) -> Option<(i64, u64)> {
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
            // Without the zero that ends it a bin is torn.
            self.left.checked_sub(1)?;
            if self.bits & 1 == 0 {
                self.skip_bits(1);
                return Some((distance, count));
            }
        }
    }

    /// Whether nothing but the rest of the last byte is left, and that is zero.
    pub(super) fn is_over(&self) -> bool {
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
