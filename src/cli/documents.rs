//! Documents of the agent as people read them.

use super::names::container_name;
use crate::model::Timestamp;
use crate::wire::{ContainerDocument, TallyMap};

/// What people call a container.
pub(super) fn name(container: &ContainerDocument) -> &str {
    container_name(&container.reserved.container_id, &container.labels)
}

/// Counts with their reasons, the highest first.
pub(super) fn sorted_counts(counts: &TallyMap) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    counts.sort_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));
    counts
}

/// A number as people read it.
pub(super) fn format_number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let size = value.abs();
    if !(1e-3..1e15).contains(&size) {
        return format!("{value:.3e}");
    }
    let text = if size >= 1000.0 { format!("{value:.1}") } else { format!("{value:.3}") };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How long ago, in one unit.
pub(super) fn format_elapsed(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [3.0, 0.1 + 0.2, 12345.678, 1e20, 1e-9, -2.5, 0.0].map(format_number);
        assert_eq!(texts, ["3", "0.3", "12345.7", "1.000e20", "1.000e-9", "-2.5", "0"]);
    }

    #[test]
    fn ages_have_one_unit() {
        let at = Timestamp::from_secs;
        let ages = [0, 59, 60, 3599, 3600, 86_400].map(|secs| format_elapsed(at(secs), at(0)));
        assert_eq!(ages, ["0s", "59s", "1m", "59m", "1h", "1d"]);
        assert_eq!(format_elapsed(at(0), at(100)), "0s", "a clock that is a little off");
    }
}
