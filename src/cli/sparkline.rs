//! A row of bars, one for each number.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Bars from the smallest number to the largest; a gap where there is none.
pub(super) fn render_sparkline(numbers: &[Option<f64>]) -> String {
    let known = || numbers.iter().flatten().copied().filter(|number| number.is_finite());
    let (low, high) =
        known().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), n| (low.min(n), high.max(n)));
    let bar = |number: f64| {
        let share = if high > low { (number - low) / (high - low) } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
        let index = (share * 7.0).round() as usize;
        BARS.get(index).copied().unwrap_or(' ')
    };
    numbers.iter().map(|number| number.filter(|n| n.is_finite()).map_or(' ', bar)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_the_lowest_and_a_gap_is_a_gap() {
        assert_eq!(render_sparkline(&[Some(0.0), Some(7.0), None, Some(3.5)]), "▁█ ▅");
        assert_eq!(render_sparkline(&[Some(5.0), Some(5.0)]), "▁▁");
        assert_eq!(render_sparkline(&[]), "");
        assert_eq!(render_sparkline(&[Some(f64::NAN)]), " ");
    }
}
