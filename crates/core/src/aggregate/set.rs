//! Counting the distinct members of a set: exact up to a thousand, then within 2 %.

use super::varint;
use super::weight::Weight;

/// Maximum number of members that are counted exactly.
pub const EXACT: usize = 1000;
/// 2^12 registers: a standard error of 1.04/√4096 = 1.6 % (Flajolet et al., "HyperLogLog", 2007).
const REGISTER_BITS: u32 = 12;
const REGISTERS: usize = 1 << REGISTER_BITS;
/// The highest value of a register: the last possible position of the first one bit among the bits that do not select the
/// register.
const HIGHEST: usize = (64 - REGISTER_BITS) as usize + 1;

/// A set series in one window.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Raw samples.
    pub samples: u64,
    /// Samples weighted by 1/rate.
    pub count: Weight,
    members: Members,
}

/// Members by their hash: XXH3-64 without a seed, so that sets merge across restarts and nodes. The probability that two
/// of 1,000 members have the same hash is 3e-14.
#[derive(Clone, Debug)]
enum Members {
    /// Sorted, each once.
    Exact(Vec<u64>),
    Estimated(Box<[u8; REGISTERS]>),
}

impl Default for Members {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Set {
    /// Adds one member. Returns the number of bytes by which the set grew.
    pub fn insert(&mut self, member: &[u8], weight: Weight) -> usize {
        self.samples += 1;
        self.count = self.count.saturating_add(weight);
        let before = self.heap_bytes();
        self.members.insert(hash(member));
        self.heap_bytes().saturating_sub(before)
    }

    /// Adds what the other set holds.
    pub fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.count = self.count.saturating_add(other.count);
        self.members.merge(&other.members);
    }

    /// The number of distinct members: a whole number.
    #[must_use]
    pub fn cardinality(&self) -> f64 {
        self.members.cardinality()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match &self.members {
            Members::Exact(hashes) => hashes.capacity() * size_of::<u64>(),
            Members::Estimated(_) => REGISTERS,
        }
    }

    /// Writes the members. The bytes do not depend on the order in which they were added.
    pub fn pack_members(&self, out: &mut Vec<u8>) {
        match &self.members {
            Members::Exact(hashes) => {
                out.push(TAG_EXACT);
                varint::write(out, hashes.len() as u64);
                for hash in hashes {
                    out.extend_from_slice(&hash.to_le_bytes());
                }
            }
            Members::Estimated(registers) => {
                out.push(TAG_ESTIMATED);
                out.extend_from_slice(registers.as_slice());
            }
        }
    }

    /// A set from its counts and packed members; `None` if the bytes are not packed members.
    #[must_use]
    pub fn from_packed(samples: u64, count: Weight, packed: &[u8]) -> Option<Self> {
        Some(Self { samples, count, members: Members::from_packed(packed)? })
    }
}

const TAG_EXACT: u8 = 0;
const TAG_ESTIMATED: u8 = 1;

fn hash(member: &[u8]) -> u64 {
    // Hash the displayed form of a member, with U+FFFD in place of bytes that are not UTF-8.
    match std::str::from_utf8(member) {
        Ok(_) => xxhash_rust::xxh3::xxh3_64(member),
        Err(_) => xxhash_rust::xxh3::xxh3_64(String::from_utf8_lossy(member).as_bytes()),
    }
}

impl Members {
    fn insert(&mut self, hash: u64) {
        match self {
            Self::Exact(hashes) => {
                if let Err(at) = hashes.binary_search(&hash) {
                    hashes.insert(at, hash);
                    if hashes.len() > EXACT {
                        *self = Self::Estimated(registers_from_hashes(hashes));
                    }
                }
            }
            Self::Estimated(registers) => update_register(registers, hash),
        }
    }

    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Exact(hashes)) => hashes.iter().for_each(|hash| self.insert(*hash)),
            (Self::Exact(hashes), Self::Estimated(registers)) => {
                let mut merged = registers_from_hashes(hashes);
                merge_registers(&mut merged, registers);
                *self = Self::Estimated(merged);
            }
            (Self::Estimated(mine), Self::Estimated(others)) => merge_registers(mine, others),
        }
    }

    fn cardinality(&self) -> f64 {
        match self {
            Self::Exact(hashes) => hashes.len() as f64,
            Self::Estimated(registers) => estimate_cardinality(registers).round(),
        }
    }

    fn from_packed(packed: &[u8]) -> Option<Self> {
        let (&tag, mut rest) = packed.split_first()?;
        match tag {
            TAG_EXACT => {
                let length = varint::read(&mut rest)?;
                let (chunks, []) = rest.as_chunks::<8>() else { return None };
                let hashes: Vec<_> = chunks.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
                let sound = hashes.len() as u64 == length
                    && hashes.len() <= EXACT
                    && hashes.is_sorted_by(|a, b| a < b);
                sound.then_some(Self::Exact(hashes))
            }
            TAG_ESTIMATED => {
                let registers: Box<[u8; REGISTERS]> = Box::new(rest.try_into().ok()?);
                registers
                    .iter()
                    .all(|value| usize::from(*value) <= HIGHEST)
                    .then_some(Self::Estimated(registers))
            }
            _ => None,
        }
    }
}

fn registers_from_hashes(hashes: &[u64]) -> Box<[u8; REGISTERS]> {
    let mut registers = Box::new([0; REGISTERS]);
    for hash in hashes {
        update_register(&mut registers, *hash);
    }
    registers
}

/// Adds a hash: its first bits select a register, which keeps the highest position of the first one bit among the other bits.
fn update_register(registers: &mut [u8; REGISTERS], hash: u64) {
    let register = (hash >> (64 - REGISTER_BITS)) as usize;
    let rest = hash << REGISTER_BITS | 1 << (REGISTER_BITS - 1);
    let place = u8::try_from(rest.leading_zeros() + 1).unwrap_or(u8::MAX);
    if let Some(highest) = registers.get_mut(register) {
        *highest = (*highest).max(place);
    }
}

fn merge_registers(mine: &mut [u8; REGISTERS], others: &[u8; REGISTERS]) {
    for (mine, other) in mine.iter_mut().zip(others) {
        *mine = (*mine).max(*other);
    }
}

/// Ertl's improved raw estimator, unbiased over the whole range without tables ("New cardinality estimation
/// algorithms for HyperLogLog sketches", 2017, algorithm 6).
fn estimate_cardinality(registers: &[u8; REGISTERS]) -> f64 {
    let mut with_value = [0_u32; HIGHEST + 1];
    for value in registers {
        if let Some(registers) = with_value.get_mut(usize::from(*value)) {
            *registers += 1;
        }
    }
    let m = REGISTERS as f64;
    let [empty, between @ .., full] = with_value;
    let mut z = m * tau(1.0 - f64::from(full) / m);
    for registers in between.iter().rev() {
        z = 0.5 * (z + f64::from(*registers));
    }
    z += m * sigma(f64::from(empty) / m);
    m * m / (2.0 * std::f64::consts::LN_2 * z)
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_of(members: std::ops::Range<u64>, prefix: &str) -> Set {
        let mut set = Set::default();
        for member in members {
            set.insert(format!("{prefix}{member}").as_bytes(), Weight::ONE);
        }
        set
    }

    fn packed(set: &Set) -> Vec<u8> {
        let mut out = Vec::new();
        set.pack_members(&mut out);
        out
    }

    #[test]
    fn up_to_a_thousand_members_the_count_is_exact() {
        let mut set = set_of(0..1000, "user");
        assert_eq!((set.cardinality(), set.samples), (1000.0, 1000));
        for member in 0..1000 {
            set.insert(format!("user{member}").as_bytes(), Weight::ONE);
        }
        assert_eq!((set.cardinality(), set.samples), (1000.0, 2000));
    }

    #[test]
    fn beyond_a_thousand_the_error_is_at_most_2_percent_at_one_sigma() {
        for size in [1_001, 5_000, 20_000, 100_000] {
            let errors = (0..60).map(|run| {
                let found = set_of(0..size, &format!("{run}:")).cardinality();
                (found - size as f64) / size as f64
            });
            let squares: Vec<_> = errors.map(|error| error * error).collect();
            let sigma = (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
            assert!(sigma <= 0.02, "{size} members: {:.2} %", sigma * 100.0);
        }
    }

    #[test]
    fn merging_equals_inserting_together_on_both_sides_of_the_limit() {
        for (left, right) in
            [(0..10, 5..20), (0..900, 800..1200), (0..2000, 10..20), (0..20, 0..3000), (0..2000, 0..3000)]
        {
            let mut merged = set_of(left.clone(), "m");
            merged.merge(&set_of(right.clone(), "m"));
            let mut together = set_of(left, "m");
            right.for_each(|member| {
                together.insert(format!("m{member}").as_bytes(), Weight::ONE);
            });
            assert_eq!(packed(&merged), packed(&together));
            assert_eq!((merged.samples, merged.count), (together.samples, together.count));
        }
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(b"alice"), 5_593_767_425_381_308_080);
    }

    #[test]
    fn members_survive_packing_and_broken_bytes_are_refused() {
        for set in [set_of(0..0, ""), set_of(0..7, "m"), set_of(0..5000, "m")] {
            let bytes = packed(&set);
            let back = Set::from_packed(set.samples, set.count, &bytes).unwrap();
            assert_eq!((packed(&back), back.cardinality()), (bytes.clone(), set.cardinality()));
            for length in 0..bytes.len() {
                assert!(Set::from_packed(1, Weight::ONE, &bytes[..length]).is_none());
            }
        }
        assert!(Set::from_packed(0, Weight::ZERO, &[7]).is_none());
        assert!(Set::from_packed(0, Weight::ZERO, &[vec![1], vec![200; REGISTERS]].concat()).is_none());
    }
}
