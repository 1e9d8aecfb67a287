//! The bins of an open window, in as few cache lines as possible.
//!
//! An octave of 64 bins occupies one cache line as long as no bin is hit more than 255 times by values of one weight;
//! then the counters of all octaves are widened as needed. Octaves are stored consecutively, and almost always without
//! gaps, so a bin is found by its offset from the first one.
//!
//! There are at most [`MOST_OCTAVES`]. If values need more, all bins are joined in pairs, repeatedly if necessary, and
//! each octave here then spans two, four, ... octaves of the f64 range. How often depends only on which bins were hit,
//! not on the order of values and merges.

use super::OCTAVE_BITS;

const OCTAVE: usize = 1 << OCTAVE_BITS;
/// Maximum number of octaves of one sketch. It bounds the memory of a sketch to 32 KiB, and the work to insert an
/// octave to moving 63.
pub(super) const MOST_OCTAVES: usize = 64;
/// The maximum number of times that bins are joined in pairs; [`MOST_OCTAVES`] then cover the whole f64 range.
pub(super) const COARSEST: u8 = 6;

/// An octave's counts; the narrowest form is one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Octave<C>([C; OCTAVE]);

#[derive(Clone, Debug)]
enum OctaveCounts {
    /// Counts in units.
    Bytes(Vec<Octave<u8>>),
    /// Counts in units.
    Words(Vec<Octave<u16>>),
    /// Weights.
    Weights(Vec<Octave<u64>>),
}

/// Weights by bin.
#[derive(Clone, Debug)]
pub(super) struct Bins {
    counts: OctaveCounts,
    /// The weight of one count, unless weights are stored directly.
    unit: u64,
    /// Whether bins are in use.
    in_use: bool,
    /// How often bins were joined in pairs, at most [`COARSEST`].
    level: u8,
    /// The number of the first octave.
    first: i32,
    /// The number of each octave, if there are gaps.
    numbers: Option<Box<[i32]>>,
}

impl Default for Bins {
    fn default() -> Self {
        Self {
            counts: OctaveCounts::Bytes(Vec::new()),
            unit: 1,
            in_use: false,
            level: 0,
            first: 0,
            numbers: None,
        }
    }
}

impl Bins {
    /// Whether bins are in use.
    #[inline]
    pub(super) fn in_use(&self) -> bool {
        self.in_use
    }

    /// Uses bins from now on.
    pub(super) fn mark_in_use(&mut self) {
        self.in_use = true;
    }

    /// The weight of one count.
    pub(super) fn unit_weight(&self) -> u64 {
        self.unit
    }

    /// Sets the weight of one count, before anything is counted.
    pub(super) fn set_unit(&mut self, unit: u64) {
        debug_assert!(!self.in_use);
        self.unit = unit;
    }

    /// How often bins were joined in pairs.
    pub(super) fn coarsening_level(&self) -> u8 {
        self.level
    }

    /// Resets all counts. The next window most likely needs the same octaves, so they are kept, unless one of them was
    /// unused in this window, or bins were joined, which the next window may not need.
    pub(super) fn clear(&mut self) {
        let kept = self.in_use
            && self.level == 0
            && match &mut self.counts {
                OctaveCounts::Bytes(octaves) => zero_octaves(octaves, 0),
                OctaveCounts::Words(octaves) => zero_octaves(octaves, 0),
                OctaveCounts::Weights(octaves) => zero_octaves(octaves, 0),
            };
        if kept {
            self.in_use = false;
        } else {
            *self = Self::default();
        }
    }

    /// Adds a weight to a bin of level 0. Returns the bytes by which this grew.
    #[inline]
    pub(super) fn add(&mut self, bin: i32, weight: u64) -> usize {
        let (number, inside) = octave_of(bin >> self.level);
        let (at, inside, grown) = match self.find(number) {
            Some(at) => (at, inside, 0),
            None => self.open(bin),
        };
        let counted = match &mut self.counts {
            OctaveCounts::Bytes(octaves) if weight == self.unit => {
                bin_of(octaves, at, inside).is_some_and(|bin| try_increment(bin, bin.checked_add(1)))
            }
            OctaveCounts::Words(octaves) if weight == self.unit => {
                bin_of(octaves, at, inside).is_some_and(|bin| try_increment(bin, bin.checked_add(1)))
            }
            OctaveCounts::Weights(octaves) => bin_of(octaves, at, inside)
                .is_some_and(|bin| try_increment(bin, Some(bin.saturating_add(weight)))),
            _ => false,
        };
        if counted { grown } else { grown + self.widen_and_add(bin, weight) }
    }

    /// The weight of the bin that contains a bin of level 0.
    #[inline]
    pub(super) fn get(&self, bin: i32) -> u64 {
        let (number, inside) = octave_of(bin >> self.level);
        self.find(number).map_or(0, |at| self.weight_at(at, inside))
    }

    /// Where the octave with this number is.
    #[inline]
    fn find(&self, number: i32) -> Option<usize> {
        match &self.numbers {
            None => usize::try_from(number.wrapping_sub(self.first)).ok().filter(|at| *at < self.len()),
            Some(numbers) => numbers.binary_search(&number).ok(),
        }
    }

    /// Adds an octave for a bin of level 0, or joins bins until there is one for it. Returns the octave's index, the
    /// bin's index in it, and the bytes by which this grew.
    #[cold]
    fn open(&mut self, bin: i32) -> (usize, usize, usize) {
        let before = self.heap_bytes();
        if self.len() >= MOST_OCTAVES {
            self.make_room(bin);
        }
        let (number, inside) = octave_of(bin >> self.level);
        let at = self.find(number).unwrap_or_else(|| self.insert_octave(number));
        (at, inside, self.heap_bytes().saturating_sub(before))
    }

    fn insert_octave(&mut self, number: i32) -> usize {
        let mut numbers: Vec<i32> = self.octave_numbers().collect();
        let at = numbers.partition_point(|known| *known < number);
        numbers.insert(at, number);
        match &mut self.counts {
            OctaveCounts::Bytes(octaves) => insert(octaves, at, 0),
            OctaveCounts::Words(octaves) => insert(octaves, at, 0),
            OctaveCounts::Weights(octaves) => insert(octaves, at, 0),
        }
        self.set_numbers(&numbers);
        at
    }

    /// Sets the numbers of the octaves, in ascending order.
    fn set_numbers(&mut self, numbers: &[i32]) {
        self.first = numbers.first().copied().unwrap_or(0);
        let gapless = numbers.iter().zip(self.first..).all(|(known, wanted)| *known == wanted);
        self.numbers = (!gapless).then(|| numbers.into());
    }

    /// Widens the counters, or switches to weights, and adds the weight that did not fit.
    #[cold]
    fn widen_and_add(&mut self, bin: i32, weight: u64) -> usize {
        let before = self.heap_bytes();
        self.widen_counts(weight == self.unit);
        self.heap_bytes().saturating_sub(before) + self.add(bin, weight)
    }

    /// Switches to wider counters; directly to weights if `units` is false.
    fn widen_counts(&mut self, units: bool) {
        self.counts = match &self.counts {
            OctaveCounts::Bytes(octaves) if units => OctaveCounts::Words(widen_octaves(octaves, u16::from)),
            OctaveCounts::Bytes(octaves) => {
                OctaveCounts::Weights(widen_octaves(octaves, |n| self.weight_of_count(u64::from(n))))
            }
            OctaveCounts::Words(octaves) => {
                OctaveCounts::Weights(widen_octaves(octaves, |n| self.weight_of_count(u64::from(n))))
            }
            OctaveCounts::Weights(octaves) => OctaveCounts::Weights(octaves.clone()),
        };
    }

    /// All non-empty bins of this level with their weights, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, u64)> {
        self.octave_numbers().enumerate().flat_map(move |(at, number)| {
            (number << OCTAVE_BITS..)
                .zip(0..OCTAVE)
                .map(move |(bin, inside)| (bin, self.weight_at(at, inside)))
                .filter(|(_, weight)| *weight > 0)
        })
    }

    /// The weight of `count` counts. Saturates, because a snapshot can have any unit.
    #[inline]
    fn weight_of_count(&self, count: u64) -> u64 {
        count.saturating_mul(self.unit)
    }

    #[inline]
    fn weight_at(&self, at: usize, inside: usize) -> u64 {
        match &self.counts {
            OctaveCounts::Bytes(octaves) => {
                read(octaves, at, inside).map_or(0, |n| self.weight_of_count(u64::from(n)))
            }
            OctaveCounts::Words(octaves) => {
                read(octaves, at, inside).map_or(0, |n| self.weight_of_count(u64::from(n)))
            }
            OctaveCounts::Weights(octaves) => read(octaves, at, inside).unwrap_or(0),
        }
    }

    fn octave_numbers(&self) -> impl Iterator<Item = i32> {
        let listed = self.numbers.iter().flatten().copied();
        let counted = match &self.numbers {
            None => self.first..self.first.saturating_add(i32::try_from(self.len()).unwrap_or(i32::MAX)),
            Some(_) => 0..0,
        };
        listed.chain(counted)
    }

    #[inline]
    fn len(&self) -> usize {
        match &self.counts {
            OctaveCounts::Bytes(octaves) => octaves.len(),
            OctaveCounts::Words(octaves) => octaves.len(),
            OctaveCounts::Weights(octaves) => octaves.len(),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let octaves = match &self.counts {
            OctaveCounts::Bytes(octaves) => octaves.capacity() * size_of::<Octave<u8>>(),
            OctaveCounts::Words(octaves) => octaves.capacity() * size_of::<Octave<u16>>(),
            OctaveCounts::Weights(octaves) => octaves.capacity() * size_of::<Octave<u64>>(),
        };
        octaves + self.numbers.as_ref().map_or(0, |numbers| size_of_val(&**numbers))
    }
}

/// The number of a bin's octave, and the bin's place in it.
#[inline]
fn octave_of(bin: i32) -> (i32, usize) {
    (bin >> OCTAVE_BITS, (bin & ((1 << OCTAVE_BITS) - 1)).unsigned_abs() as usize)
}

#[inline]
fn bin_of<C>(octaves: &mut [Octave<C>], at: usize, inside: usize) -> Option<&mut C> {
    octaves.get_mut(at)?.0.get_mut(inside)
}

#[inline]
fn read<C: Copy>(octaves: &[Octave<C>], at: usize, inside: usize) -> Option<C> {
    octaves.get(at)?.0.get(inside).copied()
}

/// Sets a counter to its next value. Returns whether it did not overflow.
#[inline]
fn try_increment<C>(bin: &mut C, next: Option<C>) -> bool {
    next.map(|next| *bin = next).is_some()
}

/// Inserts an octave. Capacity grows by one while there are few, since doubling would leave half of it unused; later by
/// a quarter.
fn insert<C: Copy>(octaves: &mut Vec<Octave<C>>, at: usize, zero: C) {
    if octaves.len() == octaves.capacity() {
        octaves.reserve_exact((octaves.len() / 4).max(1));
    }
    octaves.insert(at, Octave([zero; OCTAVE]));
}

/// Zeroes the octaves. Returns whether every octave had been hit.
fn zero_octaves<C: Copy + PartialEq>(octaves: &mut [Octave<C>], zero: C) -> bool {
    octaves.iter_mut().all(|octave| {
        let hit = octave.0.iter().any(|count| *count != zero);
        octave.0.fill(zero);
        hit
    })
}

fn widen_octaves<C: Copy, W>(octaves: &[Octave<C>], wide: impl Fn(C) -> W) -> Vec<Octave<W>> {
    octaves.iter().map(|octave| Octave(octave.0.map(&wide))).collect()
}

/// A counter type, which may be too narrow for a sum.
trait Count: Copy + PartialEq {
    const ZERO: Self;

    /// `None` if the sum does not fit.
    fn try_add(self, other: Self) -> Option<Self>;
}

impl Count for u8 {
    const ZERO: Self = 0;

    fn try_add(self, other: Self) -> Option<Self> {
        self.checked_add(other)
    }
}

impl Count for u16 {
    const ZERO: Self = 0;

    fn try_add(self, other: Self) -> Option<Self> {
        self.checked_add(other)
    }
}

impl Count for u64 {
    const ZERO: Self = 0;

    /// Saturates.
    fn try_add(self, other: Self) -> Option<Self> {
        Some(self.saturating_add(other))
    }
}

impl Bins {
    /// Joins bins in pairs until they are as coarse as `level`, the level of another sketch that is about to be merged.
    pub(super) fn coarsen_to(&mut self, level: u8) {
        while self.level < level.min(COARSEST) {
            self.join(1);
        }
    }

    /// Joins bins until a bin of level 0 has an octave, or there is room for one more.
    fn make_room(&mut self, bin: i32) {
        // Octaves that are kept from the previous window but not hit in this one must have no effect.
        self.join(0);
        let lacks_room =
            |bins: &Self| bins.len() >= MOST_OCTAVES && bins.find(octave_of(bin >> bins.level).0).is_none();
        while self.level < COARSEST && lacks_room(self) {
            self.join(1);
        }
    }

    /// Joins groups of `2^by` bins, and removes octaves without hits.
    fn join(&mut self, by: u8) {
        let old: Vec<i32> = self.octave_numbers().collect();
        let numbers = loop {
            let joined = match &mut self.counts {
                OctaveCounts::Bytes(octaves) => replace_octaves(octaves, &old, by),
                OctaveCounts::Words(octaves) => replace_octaves(octaves, &old, by),
                OctaveCounts::Weights(octaves) => replace_octaves(octaves, &old, by),
            };
            match joined {
                Some(numbers) => break numbers,
                None => self.widen_counts(true),
            }
        };
        self.level += by;
        self.set_numbers(&numbers);
    }
}

/// Replaces the octaves, and returns their new numbers. `None`, without a change, if a sum does not fit.
fn replace_octaves<C: Count>(octaves: &mut Vec<Octave<C>>, old: &[i32], by: u8) -> Option<Vec<i32>> {
    let (numbers, joined) = join_octaves(octaves, old, by)?;
    *octaves = joined;
    Some(numbers)
}

fn join_octaves<C: Count>(octaves: &[Octave<C>], old: &[i32], by: u8) -> Option<(Vec<i32>, Vec<Octave<C>>)> {
    let (mut numbers, mut joined) = (Vec::new(), Vec::<Octave<C>>::new());
    for (octave, number) in octaves.iter().zip(old) {
        for (count, inside) in octave.0.iter().zip(0..) {
            if *count == C::ZERO {
                continue;
            }
            let (number, inside) = octave_of(((number << OCTAVE_BITS) + inside) >> by);
            if numbers.last() != Some(&number) {
                numbers.push(number);
                joined.push(Octave([C::ZERO; OCTAVE]));
            }
            let bin = joined.last_mut()?.0.get_mut(inside)?;
            *bin = bin.try_add(*count)?;
        }
    }
    Some((numbers, joined))
}
