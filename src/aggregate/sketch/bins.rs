//! The bins of an open window, in as few cache lines as they fit in.
//!
//! An octave of 64 bins is one line of a cache as long as no bin is hit more than 255 times by values of one weight;
//! then all octaves become as wide as is needed. Octaves lie one after the other, and nearly always without a gap, so
//! a bin is found by counting from the first one.

use super::OCTAVE_BITS;

const OCTAVE: usize = 1 << OCTAVE_BITS;

/// An octave's counts; the narrowest is one line of a cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Octave<C>([C; OCTAVE]);

#[derive(Clone, Debug)]
enum Counts {
    /// How often, in units.
    Bytes(Vec<Octave<u8>>),
    /// How often, in units.
    Words(Vec<Octave<u16>>),
    /// Weights as they are.
    Weights(Vec<Octave<u64>>),
}

/// Weights by bin.
#[derive(Clone, Debug)]
pub(super) struct Bins {
    counts: Counts,
    /// What one count stands for, unless these are weights.
    unit: u64,
    /// Whether values are counted here at all.
    in_use: bool,
    /// The number of the first octave.
    first: i32,
    /// The number of each octave, where they have gaps.
    numbers: Option<Box<[i32]>>,
}

impl Default for Bins {
    fn default() -> Self {
        Self { counts: Counts::Bytes(Vec::new()), unit: 1, in_use: false, first: 0, numbers: None }
    }
}

impl Bins {
    /// Whether values are counted here.
    #[inline]
    pub(super) fn in_use(&self) -> bool {
        self.in_use
    }

    /// Values are counted here from now on.
    pub(super) fn begin(&mut self) {
        self.in_use = true;
    }

    /// What one count stands for.
    pub(super) fn unit(&self) -> u64 {
        self.unit
    }

    /// Says what one count stands for, before anything is counted.
    pub(super) fn set_unit(&mut self, unit: u64) {
        debug_assert!(!self.in_use);
        self.unit = unit;
    }

    /// Forgets all counts. The next window most likely needs the same octaves, so they are kept, unless one was not
    /// needed in this.
    pub(super) fn clear(&mut self) {
        let kept = self.in_use
            && match &mut self.counts {
                Counts::Bytes(octaves) => zero(octaves, 0),
                Counts::Words(octaves) => zero(octaves, 0),
                Counts::Weights(octaves) => zero(octaves, 0),
            };
        if kept {
            self.in_use = false;
        } else {
            *self = Self::default();
        }
    }

    /// Adds a weight to a bin. Answers the bytes by which this grew.
    #[inline]
    pub(super) fn add(&mut self, bin: i32, weight: u64) -> usize {
        let (number, inside) = octave_of(bin);
        let (at, grown) = match self.find(number) {
            Some(at) => (at, 0),
            None => self.open(number),
        };
        let counted = match &mut self.counts {
            Counts::Bytes(octaves) if weight == self.unit => {
                bin_of(octaves, at, inside).is_some_and(|bin| increment(bin, bin.checked_add(1)))
            }
            Counts::Words(octaves) if weight == self.unit => {
                bin_of(octaves, at, inside).is_some_and(|bin| increment(bin, bin.checked_add(1)))
            }
            Counts::Weights(octaves) => bin_of(octaves, at, inside)
                .is_some_and(|bin| increment(bin, Some(bin.saturating_add(weight)))),
            _ => false,
        };
        if counted { grown } else { grown + self.widen(bin, weight) }
    }

    /// The weight of a bin.
    #[inline]
    pub(super) fn get(&self, bin: i32) -> u64 {
        let (number, inside) = octave_of(bin);
        self.find(number).map_or(0, |at| self.weight(at, inside))
    }

    /// Where the octave with this number is.
    #[inline]
    fn find(&self, number: i32) -> Option<usize> {
        match &self.numbers {
            None => usize::try_from(number.wrapping_sub(self.first)).ok().filter(|at| *at < self.len()),
            Some(numbers) => numbers.binary_search(&number).ok(),
        }
    }

    /// Makes an octave; answers where it is, and the bytes it takes.
    #[cold]
    fn open(&mut self, number: i32) -> (usize, usize) {
        let before = self.heap_bytes();
        let mut numbers: Vec<i32> = self.numbers().collect();
        let at = numbers.partition_point(|known| *known < number);
        numbers.insert(at, number);
        match &mut self.counts {
            Counts::Bytes(octaves) => insert(octaves, at, 0),
            Counts::Words(octaves) => insert(octaves, at, 0),
            Counts::Weights(octaves) => insert(octaves, at, 0),
        }
        self.first = numbers.first().copied().unwrap_or(number);
        let gapless = numbers.iter().zip(self.first..).all(|(known, wanted)| *known == wanted);
        self.numbers = (!gapless).then(|| numbers.into());
        (at, self.heap_bytes().saturating_sub(before))
    }

    /// Makes room for larger or other counts, and adds what did not fit.
    #[cold]
    fn widen(&mut self, bin: i32, weight: u64) -> usize {
        let before = self.heap_bytes();
        self.counts = match &self.counts {
            Counts::Bytes(octaves) if weight == self.unit => Counts::Words(widened(octaves, u16::from)),
            Counts::Bytes(octaves) => Counts::Weights(widened(octaves, |n| self.units(u64::from(n)))),
            Counts::Words(octaves) => Counts::Weights(widened(octaves, |n| self.units(u64::from(n)))),
            Counts::Weights(octaves) => Counts::Weights(octaves.clone()),
        };
        self.heap_bytes().saturating_sub(before) + self.add(bin, weight)
    }

    /// Every bin that was hit and its weight, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, u64)> {
        self.numbers().enumerate().flat_map(move |(at, number)| {
            (number << OCTAVE_BITS..)
                .zip(0..OCTAVE)
                .map(move |(bin, inside)| (bin, self.weight(at, inside)))
                .filter(|(_, weight)| *weight > 0)
        })
    }

    /// What so many counts weigh. A snapshot can have any unit.
    #[inline]
    fn units(&self, count: u64) -> u64 {
        count.saturating_mul(self.unit)
    }

    #[inline]
    fn weight(&self, at: usize, inside: usize) -> u64 {
        match &self.counts {
            Counts::Bytes(octaves) => read(octaves, at, inside).map_or(0, |n| self.units(u64::from(n))),
            Counts::Words(octaves) => read(octaves, at, inside).map_or(0, |n| self.units(u64::from(n))),
            Counts::Weights(octaves) => read(octaves, at, inside).unwrap_or(0),
        }
    }

    fn numbers(&self) -> impl Iterator<Item = i32> {
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
            Counts::Bytes(octaves) => octaves.len(),
            Counts::Words(octaves) => octaves.len(),
            Counts::Weights(octaves) => octaves.len(),
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let octaves = match &self.counts {
            Counts::Bytes(octaves) => octaves.capacity() * size_of::<Octave<u8>>(),
            Counts::Words(octaves) => octaves.capacity() * size_of::<Octave<u16>>(),
            Counts::Weights(octaves) => octaves.capacity() * size_of::<Octave<u64>>(),
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

/// Answers whether there was room.
#[inline]
fn increment<C>(bin: &mut C, next: Option<C>) -> bool {
    next.map(|next| *bin = next).is_some()
}

/// Grows one by one: octaves are few, and doubling would leave half of them empty.
fn insert<C: Copy>(octaves: &mut Vec<Octave<C>>, at: usize, zero: C) {
    octaves.reserve_exact(1);
    octaves.insert(at, Octave([zero; OCTAVE]));
}

/// Answers whether every octave had been hit.
fn zero<C: Copy + PartialEq>(octaves: &mut [Octave<C>], zero: C) -> bool {
    octaves.iter_mut().all(|octave| {
        let hit = octave.0.iter().any(|count| *count != zero);
        octave.0.fill(zero);
        hit
    })
}

fn widened<C: Copy, W>(octaves: &[Octave<C>], wide: impl Fn(C) -> W) -> Vec<Octave<W>> {
    octaves.iter().map(|octave| Octave(octave.0.map(&wide))).collect()
}
