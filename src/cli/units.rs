//! Numbers, units, ages and ids as commands print them.

use crate::model::Timestamp;

/// How exactly numbers and ids are printed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Precision {
    /// For reading on a terminal: three significant digits, a unit that fits the size, and short ids.
    Rounded,
    /// Every digit in the unit of the document, and whole ids: in pipes, in files and with `--raw`.
    Exact,
}

/// A unit: the smallest number that is shown in it, its size, and its sign.
type Step = (f64, f64, &'static str);

const COUNTS: [Step; 6] =
    [(0.0, 1.0, ""), (1e4, 1e3, "k"), (1e6, 1e6, "M"), (1e9, 1e9, "G"), (1e12, 1e12, "T"), (1e15, 1e15, "P")];

const BYTES: [Step; 6] = [
    (0.0, 1.0, " B"),
    (1024.0, 1024.0, " KiB"),
    (1_048_576.0, 1_048_576.0, " MiB"),
    (1_073_741_824.0, 1_073_741_824.0, " GiB"),
    (1_099_511_627_776.0, 1_099_511_627_776.0, " TiB"),
    (1_125_899_906_842_624.0, 1_125_899_906_842_624.0, " PiB"),
];

/// Units of time, in milliseconds. Minutes and longer units start at two, because 90 s says more than 1.5 min.
const DURATIONS: [Step; 7] = [
    (0.0, 1e-6, " ns"),
    (1e-3, 1e-3, " µs"),
    (1.0, 1.0, " ms"),
    (1e3, 1e3, " s"),
    (1.2e5, 6e4, " min"),
    (7.2e6, 3.6e6, " h"),
    (1.728e8, 8.64e7, " d"),
];

impl Precision {
    /// A number without a unit, such as a count or a level.
    pub(super) fn format_number(self, value: f64) -> String {
        match self {
            Self::Exact => format_exact(value),
            // Small levels keep the digits after the point, and large ones get an exponent.
            Self::Rounded if value.abs() < 1e4 || value.abs() >= 1e18 => format_number(value),
            Self::Rounded => scale_number(value, &COUNTS),
        }
    }

    /// A rate that this program has computed. Its last digits say nothing, so that at most three follow the point.
    pub(super) fn format_rate(self, rate: f64) -> String {
        match self {
            Self::Exact => format_number(rate),
            Self::Rounded => self.format_number(rate),
        }
    }

    pub(super) fn format_count(self, count: u64) -> String {
        match self {
            Self::Exact => count.to_string(),
            Self::Rounded => self.format_number(count as f64),
        }
    }

    /// A number of bytes.
    pub(super) fn format_bytes(self, bytes: f64) -> String {
        match self {
            Self::Exact => format!("{} B", format_exact(bytes)),
            Self::Rounded => scale_number(bytes, &BYTES),
        }
    }

    /// A duration.
    pub(super) fn format_seconds(self, seconds: f64) -> String {
        match self {
            Self::Exact => format!("{} s", format_exact(seconds)),
            Self::Rounded if seconds == 0.0 => "0 s".to_owned(),
            Self::Rounded => scale_number(seconds * 1e3, &DURATIONS),
        }
    }

    /// A value of a record. If it is rounded, a duration has its unit with it, and [`Self::separate_unit`] is empty.
    pub(super) fn format_value(self, value: f64, unit: &str) -> String {
        match (self, unit) {
            (Self::Rounded, "ms") if value == 0.0 => "0 ms".to_owned(),
            (Self::Rounded, "ms") => scale_number(value, &DURATIONS),
            _ => self.format_number(value),
        }
    }

    /// The unit that is to be shown beside the values that [`Self::format_value`] returns.
    pub(super) fn separate_unit(self, unit: &str) -> &str {
        if self == Self::Rounded && unit == "ms" { "" } else { unit }
    }

    /// The id of a container; if it is rounded, the first digits of a generated one.
    pub(super) fn format_id(self, id: &str) -> &str {
        match self {
            Self::Exact => id,
            Self::Rounded => short_id(id),
        }
    }
}

/// Every digit that tells the number from its neighbours. No negative zero: a sum over nothing is one.
fn format_exact(value: f64) -> String {
    let value = value + 0.0;
    match value.abs() {
        size if size == 0.0 || (1e-5..1e21).contains(&size) => value.to_string(),
        _ => format!("{value:e}"),
    }
}

/// Three significant digits in the largest unit that fits. A number that rounds up to a unit is shown in that unit.
fn scale_number(value: f64, steps: &[Step]) -> String {
    const ROUNDS_UP: f64 = 0.9995;
    let value = value + 0.0;
    let fits = |(from, ..): &&Step| value.abs() >= from * ROUNDS_UP;
    let (_, size, sign) = steps.iter().rev().find(fits).copied().unwrap_or((0.0, 1.0, ""));
    let scaled = value / size;
    let decimals = match scaled.abs() {
        magnitude if magnitude < 9.995 => 2,
        magnitude if magnitude < 99.95 => 1,
        _ => 0,
    };
    let digits = format!("{scaled:.decimals$}");
    let digits = if decimals == 0 { &digits } else { digits.trim_end_matches('0').trim_end_matches('.') };
    let digits = if digits == "-0" { "0" } else { digits };
    format!("{digits}{sign}")
}

/// A number in three significant digits, for lists that change all the time.
#[cfg(feature = "top")]
pub(super) fn format_brief(value: f64) -> String {
    scale_number(value, &COUNTS)
}

/// A number with at most three digits after the point.
pub(super) fn format_number(value: f64) -> String {
    let value = value + 0.0;
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

/// Formats the time since `then`, in one unit.
pub(super) fn format_elapsed(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Digits shown of a generated id, as many as container engines show.
const SHORT: usize = 12;
/// Digits of a generated id.
const GENERATED: usize = 64;

/// Shortens an id for people: the first digits of a generated id; any other id unchanged.
pub(super) fn short_id(id: &str) -> &str {
    let generated = id.len() == GENERATED && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if generated { id.get(..SHORT).unwrap_or(id) } else { id }
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

    #[test]
    fn no_format_shows_a_negative_zero() {
        let sum_of_nothing: f64 = [0.0_f64; 0].iter().sum();
        for zero in [-0.0, 0.0, sum_of_nothing] {
            for precision in [Precision::Rounded, Precision::Exact] {
                assert_eq!(precision.format_number(zero), "0");
                assert_eq!(precision.format_bytes(zero), "0 B");
                assert_eq!(precision.format_seconds(zero), "0 s");
                assert!(precision.format_value(zero, "ms").starts_with('0'));
            }
            assert_eq!(format_number(zero), "0");
        }
        assert_eq!(Precision::Rounded.format_bytes(-0.001), "0 B");
    }

    #[test]
    fn rounded_numbers_have_three_digits_and_a_unit_that_fits() {
        let counts = [9999.0, 10_000.0, 12_345.0, 999_499.0, 999_500.0, 1_234_567.0, -2.5e9, 3e14, 1e20];
        let texts = counts.map(|n| Precision::Rounded.format_number(n));
        assert_eq!(texts, ["9999", "10k", "12.3k", "999k", "1M", "1.23M", "-2.5G", "300T", "1.000e20"]);
        let bytes = [512.0, 2048.0, 1_048_575.0, 2_362_232_012.0, 1e18];
        let texts = bytes.map(|n| Precision::Rounded.format_bytes(n));
        assert_eq!(texts, ["512 B", "2 KiB", "1 MiB", "2.2 GiB", "888 PiB"]);
        let times = [0.000_5, 0.05, 0.999_9, 12.0, 999.6, 8512.0, 90_000.0, 150_000.0, 9e6, 9e9];
        let texts = times.map(|n| Precision::Rounded.format_value(n, "ms"));
        assert_eq!(
            texts,
            ["500 ns", "50 µs", "1 ms", "12 ms", "1 s", "8.51 s", "90 s", "2.5 min", "2.5 h", "104 d"]
        );
        assert_eq!(Precision::Rounded.separate_unit("ms"), "");
        assert_eq!(Precision::Rounded.separate_unit("B/s"), "B/s");
    }

    #[test]
    fn exact_numbers_are_read_back_as_the_same_numbers() {
        for value in [0.1 + 0.2, 12_345.678, 1e20, 1e300, 1e-9, -2.5, 77.300_000_01, f64::MAX] {
            let text = Precision::Exact.format_number(value);
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
        }
        assert_eq!(Precision::Exact.format_value(8512.0, "ms"), "8512");
        assert_eq!(Precision::Exact.format_rate(385.800_000_000_000_1), "385.8", "a rate is computed");
        assert_eq!(Precision::Exact.separate_unit("ms"), "ms");
        assert_eq!(Precision::Exact.format_count(u64::MAX), "18446744073709551615");
    }

    #[test]
    fn only_generated_ids_are_shortened() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(Precision::Rounded.format_id(&id), "0123456789ab");
        assert_eq!(Precision::Exact.format_id(&id), id);
        assert_eq!(Precision::Rounded.format_id("run-17"), "run-17");
    }
}
