//! Buckets between configured bounds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::aggregate::weight::Weight;

/// Most bounds that a histogram can have.
pub const MOST_BOUNDS: usize = 100;

/// Upper bounds of buckets, rising, in the unit in which values are sent. A value that equals one is within it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Bounds(Arc<[f64]>);

/// Why numbers cannot be bounds.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BoundsError {
    /// None, or more than [`MOST_BOUNDS`].
    #[error("is not 1 to {MOST_BOUNDS} bounds")]
    Number,
    /// Not all of them numbers, or each larger than the one before.
    #[error("is not finite numbers, each larger than the one before")]
    Order,
}

impl Bounds {
    /// Bounds of values that are sent in a unit of which 10^`places` are the bounds' own.
    ///
    /// # Errors
    /// When they are too many or too few, do not rise, or are not finite.
    pub fn new(bounds: &[f64], places: i8) -> Result<Self, BoundsError> {
        if bounds.is_empty() || bounds.len() > MOST_BOUNDS {
            return Err(BoundsError::Number);
        }
        let bounds: Arc<[f64]> = bounds.iter().map(|bound| shift_decimal_point(*bound, places)).collect();
        let sound = Self(bounds);
        if sound.is_plausible() { Ok(sound) } else { Err(BoundsError::Order) }
    }

    /// Each of them, in a unit of which one is 10^`places` of those in which values are sent.
    pub fn iter_scaled(&self, places: i8) -> impl Iterator<Item = f64> {
        self.0.iter().map(move |bound| shift_decimal_point(*bound, -places))
    }

    /// The first of them.
    #[must_use]
    pub fn lowest_bound(&self) -> f64 {
        self.0.first().copied().unwrap_or_default()
    }

    fn is_plausible(&self) -> bool {
        let rises = self.0.is_sorted_by(|one, next| one < next);
        rises && !self.0.is_empty() && self.0.iter().all(|bound| bound.is_finite())
    }
}

/// A number as it is written, with its point moved: 0.1 s are what `100` ms is read as, whatever 0.1 · 1000 gives.
fn shift_decimal_point(number: f64, places: i8) -> f64 {
    match places {
        0 => number,
        places => format!("{number}e{places}").parse().unwrap_or(f64::NAN),
    }
}

/// How many values were within each bound, and not within the one before.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Classic {
    bounds: Bounds,
    /// One more than bounds: the last is of what is beyond all of them.
    counts: Box<[Weight]>,
}

impl Classic {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self { bounds: bounds.clone(), counts: vec![Weight::ZERO; bounds.0.len() + 1].into() }
    }

    #[inline]
    pub(super) fn insert(&mut self, value: f64, weight: Weight) {
        let at = self.bounds.0.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(at) {
            *count = count.saturating_add(weight);
        }
    }

    /// Adds what others counted by the same bounds. Answers whether they are the same.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let same = self.bounds == other.bounds;
        if same {
            for (mine, other) in self.counts.iter_mut().zip(&other.counts) {
                *mine = mine.saturating_add(*other);
            }
        }
        same
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub(super) fn bucket_counts(&self) -> &[Weight] {
        &self.counts
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.counts)
    }

    pub(super) fn is_plausible(&self) -> bool {
        self.bounds.is_plausible() && self.counts.len() == self.bounds.0.len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_are_not_too_many() {
        assert_eq!(Bounds::new(&[], 0), Err(BoundsError::Number));
        assert_eq!(Bounds::new(&vec![1.0; MOST_BOUNDS + 1], 0), Err(BoundsError::Number));
        for wrong in [[1.0, 1.0], [2.0, 1.0], [1.0, f64::INFINITY], [f64::NAN, 1.0]] {
            assert_eq!(Bounds::new(&wrong, 0), Err(BoundsError::Order), "{wrong:?}");
        }
        assert_eq!(Bounds::new(&[1.0, 1e306], 3), Err(BoundsError::Order), "no number in milliseconds");
    }
}
