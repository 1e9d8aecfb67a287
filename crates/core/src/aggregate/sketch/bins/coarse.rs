//! Fewer octaves for the same values: bins joined in pairs.

use super::{Bins, COARSEST, MOST_OCTAVES, OCTAVE, Octave, OctaveCounts, octave_of};

/// A count, which may be too small for the sum of two.
trait Count: Copy + PartialEq {
    const ZERO: Self;

    /// `None` where the sum does not fit.
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

    /// Weights saturate.
    fn try_add(self, other: Self) -> Option<Self> {
        Some(self.saturating_add(other))
    }
}

impl Bins {
    /// Joins bins in pairs until they are as coarse as `level`, which another sketch has that is to be merged.
    pub(in super::super) fn coarsen_to(&mut self, level: u8) {
        while self.level < level.min(COARSEST) {
            self.join(1);
        }
    }

    /// Joins bins until a bin of level 0 has an octave, or there is room for one more.
    pub(super) fn make_room(&mut self, bin: i32) {
        // Octaves that are kept from the window before and not hit in this must not have an effect on this one.
        self.join(0);
        let lacks_room =
            |bins: &Self| bins.len() >= MOST_OCTAVES && bins.find(octave_of(bin >> bins.level).0).is_none();
        while self.level < COARSEST && lacks_room(self) {
            self.join(1);
        }
    }

    /// Joins `2^by` bins each, and leaves octaves out that nothing has hit.
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

/// Answers the numbers of the octaves that there are now; `None`, and nothing is changed, where a sum does not fit.
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
            let (number, inside) = octave_of(((number << super::OCTAVE_BITS) + inside) >> by);
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
