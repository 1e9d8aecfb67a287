//! Numbers in arguments, each with its range in the error.

use std::str::FromStr;

/// Parses a number of things into a type that has no zero, such as `NonZeroU64`.
pub(in crate::cli) fn parse_count<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "write a whole number of at least 1".to_owned())
}

/// Parses the number of a process.
pub(super) fn parse_pid(text: &str) -> Result<i32, String> {
    let pid = text.parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| format!("write the number of a process, from 1 to {}", i32::MAX))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    #[test]
    fn a_number_out_of_range_is_refused_with_the_range() {
        assert_eq!(parse_count::<NonZeroU64>("7"), Ok(NonZeroU64::new(7).unwrap()));
        for wrong in ["0", "-1", "x", "", "1.5", "99999999999999999999"] {
            assert!(parse_count::<NonZeroU64>(wrong).unwrap_err().ends_with("at least 1"), "{wrong}");
        }
        assert_eq!(parse_pid("42"), Ok(42));
        for wrong in ["0", "-1", "x", "4294967296"] {
            assert!(parse_pid(wrong).unwrap_err().ends_with("from 1 to 2147483647"), "{wrong}");
        }
    }
}
