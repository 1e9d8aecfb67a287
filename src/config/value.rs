//! How values are written: times and sizes have a unit, lists are words.

use std::time::Duration;

/// A time with a unit: `500ms`, `10s`, `1h 30m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("needs a unit, such as {text}s"));
    }
    humantime::parse_duration(text)
        .map_err(|_| "is not a time; write it like 500ms, 10s or 1h 30m".to_owned())
}

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A size with a unit: `512B`, `256KiB`, `2GiB`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("needs a unit, such as {text}KiB"));
    }
    let read = UNITS.iter().find_map(|(unit, bytes)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*bytes)
    });
    read.ok_or_else(|| "is not a size; write it like 512B, 256KiB or 2GiB".to_owned())
}

/// A size as it is written, in the largest unit that fits.
pub(super) fn size_text(bytes: u64) -> String {
    let fitting = UNITS.iter().take(4).rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match fitting {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// A time as it is written.
pub(super) fn time_text(millis: u64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_a_unit() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10"), Err("needs a unit, such as 10s".to_owned()));
        assert!(
            parse_duration("").is_err()
                && parse_duration("ten seconds").is_err()
                && parse_duration("-1s").is_err()
        );
    }

    #[test]
    fn a_size_needs_a_unit() {
        assert_eq!(parse_size("256KiB"), Ok(262_144));
        assert_eq!(parse_size("1 MB"), Ok(1_000_000));
        assert_eq!(parse_size("12B"), Ok(12));
        assert_eq!(parse_size("64"), Err("needs a unit, such as 64KiB".to_owned()));
        assert!(parse_size("").is_err() && parse_size("x").is_err() && parse_size("99999999999GiB").is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        for bytes in [1, 1024, 262_144, 3 << 30, 1000] {
            assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
        for millis in [0, 100, 60_000, 5_400_000] {
            assert_eq!(parse_duration(&time_text(millis)), Ok(Duration::from_millis(millis)));
        }
    }
}
