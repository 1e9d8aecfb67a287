//! Identifies a spelling of a series by 128 bits (`docs/adr/0029-fingerprints.md`).
//!
//! Two hashes of 64 bits with independent secret seeds, computed in one pass, so that the text is loaded and its length examined once
//! for both. Each is the folded multiplication of `foldhash` (wyhash before it): 16 bytes at a time, each half combined with secret
//! bits, multiplied to 128 bits, and both halves of the product combined.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::model::MetricType;

/// Identifies a spelling within the table whose seeds were used.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint {
    /// Also determines its slot in the table.
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) metric_type: MetricType,
}

/// Secret seeds of one table. Names and tags are untrusted, so no reader may learn anything that depends on these.
#[derive(Copy, Clone, Debug)]
pub(super) struct FingerprintSeeds {
    first: LaneSeeds,
    second: LaneSeeds,
}

/// Secret seeds of one of both hashes.
#[derive(Copy, Clone, Debug)]
struct LaneSeeds {
    /// The state before the first byte.
    start: u64,
    /// Combined with the second half of each block.
    block: u64,
}

impl FingerprintSeeds {
    /// Derives seeds from a hasher that was seeded at random.
    pub(super) fn derive_from(hasher: &RandomState) -> Self {
        // The standard library's SipHash between them: related inputs give unrelated seeds.
        let secret = std::hash::RandomState::new();
        let seed = |index: u8| secret.hash_one((hasher.hash_one(index), index));
        let lane = |index: u8| LaneSeeds { start: seed(index), block: seed(index + 1) };
        Self { first: lane(0), second: lane(2) }
    }

    /// The fingerprint of a name of at least one byte, its tags and its type.
    #[inline]
    pub(super) fn compute_fingerprint(
        &self,
        name: &[u8],
        tags: &[u8],
        metric_type: MetricType,
    ) -> Fingerprint {
        let mut lanes = Lanes { seeds: self, first: self.first.start, second: self.second.start };
        lanes.absorb_bytes(name);
        if !tags.is_empty() {
            lanes.absorb_bytes(tags);
        }
        Fingerprint { first: lanes.first, second: lanes.second, metric_type }
    }
}

/// The states of both hashes.
struct Lanes<'a> {
    seeds: &'a FingerprintSeeds,
    first: u64,
    second: u64,
}

impl Lanes<'_> {
    #[inline]
    fn absorb_bytes(&mut self, bytes: &[u8]) {
        // The length distinguishes "a" and "bc" from "ab" and "c", and a text from the same text with a repeated end.
        let length = bytes.len() as u64;
        self.first = self.first.wrapping_add(length);
        self.second = self.second.wrapping_add(length);
        if bytes.len() > 16 {
            self.absorb_blocks(bytes);
        } else if let (Some(low), Some(high)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            self.absorb_block(u64::from_le_bytes(*low), u64::from_le_bytes(*high));
        } else if let (Some(low), Some(high)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            self.absorb_block(u32::from_le_bytes(*low).into(), u32::from_le_bytes(*high).into());
        } else if let (Some(low), Some(middle), Some(high)) =
            (bytes.first(), bytes.get(bytes.len() / 2), bytes.last())
        {
            self.absorb_block(u16::from_le_bytes([*low, *middle]).into(), u64::from(*high));
        }
    }

    /// Absorbs more than 16 bytes. The last block may overlap the one before it.
    #[inline]
    fn absorb_blocks(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((block, more)) = rest.split_first_chunk::<16>()
            && !more.is_empty()
        {
            self.absorb_array(block);
            rest = more;
        }
        if let Some(last) = bytes.last_chunk() {
            self.absorb_array(last);
        }
    }

    #[inline]
    fn absorb_array(&mut self, block: &[u8; 16]) {
        let [low, high] = halve_u128(u128::from_le_bytes(*block));
        self.absorb_block(low, high);
    }

    #[inline]
    fn absorb_block(&mut self, low: u64, high: u64) {
        self.first = fold_product(low ^ self.first, high ^ self.seeds.first.block);
        self.second = fold_product(low ^ self.second, high ^ self.seeds.second.block);
    }
}

#[inline]
fn fold_product(left: u64, right: u64) -> u64 {
    let [low, high] = halve_u128(u128::from(left) * u128::from(right));
    low ^ high
}

/// The lower and the upper 64 bits.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves are what is asked for")]
const fn halve_u128(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn fixed_seeds() -> FingerprintSeeds {
        let lane = |start, block| LaneSeeds { start, block };
        FingerprintSeeds {
            first: lane(0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9),
            second: lane(0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93),
        }
    }

    fn fingerprint(name: &[u8], tags: &[u8]) -> [u64; 2] {
        let Fingerprint { first, second, .. } =
            fixed_seeds().compute_fingerprint(name, tags, MetricType::Counter);
        [first, second]
    }

    #[test]
    fn each_bit_of_the_text_changes_about_half_of_both_hashes() {
        let mut flipped = [0_u32; 2];
        let mut flips = 0;
        for length in 1..=67 {
            let text: Vec<u8> = (0..length).map(|index: u8| index.wrapping_mul(37) ^ 0x5a).collect();
            let unchanged = fingerprint(&text, b"env:prod");
            for bit in 0..text.len() * 8 {
                let mut other = text.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                flips += 1;
                for ((total, a), b) in flipped.iter_mut().zip(unchanged).zip(fingerprint(&other, b"env:prod"))
                {
                    assert_ne!(a, b, "length {length}, bit {bit}");
                    *total += (a ^ b).count_ones();
                }
            }
        }
        for total in flipped {
            let share = f64::from(total) / f64::from(flips) / 64.0;
            assert!((0.49..0.51).contains(&share), "{share} of the bits change");
        }
    }

    #[test]
    fn texts_that_differ_in_length_or_in_where_the_tags_begin_differ() {
        let mut seen = HashSet::new();
        for length in 1..200 {
            for text in [vec![0; length], vec![b'x'; length]] {
                for split in 1..=length {
                    let (name, tags) = text.split_at(split);
                    seen.extend(fingerprint(name, tags));
                }
            }
        }
        assert_eq!(seen.len(), 2 * 2 * (199 * 200 / 2));
    }

    #[test]
    fn names_that_count_up_spread_over_the_slots_of_a_table() {
        const NAMES: u32 = 1 << 16;
        let mut halves = [HashSet::new(), HashSet::new()];
        let mut slots = [[0_u32; 256]; 4];
        for number in 0..NAMES {
            let pair = fingerprint(format!("service.{}.requests.{number}", number % 7).as_bytes(), b"");
            for (index, (half, hash)) in halves.iter_mut().zip(pair).enumerate() {
                half.insert(hash);
                // hashbrown takes the slot from the lowest bits, and a tag from the highest.
                let [low, .., high] = hash.to_le_bytes();
                slots[2 * index][usize::from(low)] += 1;
                slots[2 * index + 1][usize::from(high)] += 1;
            }
        }
        assert!(halves.iter().all(|half| half.len() == NAMES as usize));
        for counts in slots {
            let expected = f64::from(NAMES / 256);
            let chi_square: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
            // 255 degrees of freedom: six standard deviations are 135.
            assert!((120.0..390.0).contains(&chi_square), "{chi_square}");
        }
    }
}
