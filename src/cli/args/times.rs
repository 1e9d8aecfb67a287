//! Times and durations in arguments. One without a unit is a mistake in the use of a command.

use std::time::Duration;

use crate::model::Timestamp;

/// Parses a duration such as `30s`.
pub(in crate::cli) fn parse_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("it needs a unit, such as {text}s or {text}m"));
    }
    humantime::parse_duration(text).map_err(|_| "write a time like 500ms, 30s or 1h 30m".to_owned())
}

/// Checks a duration that the configuration or the agent parses.
pub(super) fn check_duration(text: &str) -> Result<String, String> {
    parse_duration(text).map(|_| text.to_owned())
}

/// Checks a duration before now, or a moment.
pub(super) fn check_since(text: &str) -> Result<String, String> {
    match text.parse::<Timestamp>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => check_duration(text)
            .map_err(|why| format!("{why}; a moment is written like 2026-01-01T12:00:00Z")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_a_moment() {
        for right in ["5m", "1h 30m", "0s", "2026-01-01T12:00:00Z"] {
            assert_eq!(check_since(right), Ok(right.to_owned()));
        }
        for wrong in ["5", "", "soon", "-5m", "5 parsecs"] {
            assert!(check_since(wrong).is_err() && check_duration(wrong).is_err(), "{wrong}");
        }
        assert!(parse_duration("5").unwrap_err().contains("5s"));
    }
}
