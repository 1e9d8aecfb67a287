//! The scale of sparklines and plots, which is the same for all of them.

/// The bounds of a scale that has all of these numbers and zero on it. Without zero, the noise of a steady series would fill the
/// whole height and look like a large change. Numbers that are not finite are left out.
pub(super) fn find_scale(numbers: impl IntoIterator<Item = f64>) -> [f64; 2] {
    let finite = numbers.into_iter().filter(|number| number.is_finite());
    finite.fold([0.0, 0.0], |[low, high], number| [number.min(low), number.max(high)])
}

/// Where a number is between two others, from 0 to 1. Halved first, so that the difference of the largest numbers is finite.
pub(super) fn find_share(number: f64, [low, high]: [f64; 2]) -> f64 {
    let share = (number / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
    if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_has_zero_and_every_finite_number_on_it() {
        for (numbers, bounds) in [
            (vec![98.0, 101.0], [0.0, 101.0]),
            (vec![-3.0, -2.0], [-3.0, 0.0]),
            (vec![-3.0, 4.0, f64::NAN, f64::INFINITY], [-3.0, 4.0]),
            (vec![], [0.0, 0.0]),
        ] {
            assert_eq!(find_scale(numbers), bounds);
        }
    }

    #[test]
    fn a_share_is_between_0_and_1_for_any_numbers() {
        assert_eq!(find_share(98.0, [0.0, 196.0]), 0.5);
        assert_eq!(find_share(f64::MAX, [f64::MIN, f64::MAX]), 1.0);
        assert_eq!(find_share(0.0, [0.0, 0.0]), 0.0, "a scale without a length");
        assert_eq!([find_share(-9.0, [0.0, 1.0]), find_share(9.0, [0.0, 1.0])], [0.0, 1.0]);
    }
}
