//! Points in time and durations, in whole microseconds.
//!
//! Microseconds are fine enough to order the samples of one batch, and coarse enough that an offset within a window
//! fits 32 bits, which is what closed windows store.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in wall time: microseconds since the Unix epoch, UTC, within the range of RFC 3339.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest moment RFC 3339 can write, the start of year 1.
    pub const MIN: Self = Self(-62_135_596_800_000_000);
    /// The latest moment that the date library writes, a day before the end of year 9999.
    pub const MAX: Self = Self(253_402_207_200_000_000);

    /// From microseconds since the Unix epoch; clamped to what can be written as a date.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// From whole seconds since the Unix epoch, as a `|T` field carries them; clamped like `from_micros`.
    #[must_use]
    pub fn from_secs(secs: i64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The start of the window of length `width` that contains this moment. Windows are aligned to the epoch, so that
    /// all nodes use the same boundaries.
    #[must_use]
    pub fn floor_to_window(self, width: Duration) -> Self {
        let width = saturating_micros(width).max(1);
        Self::from_micros(self.0.div_euclid(width).saturating_mul(width))
    }

    /// How long after `earlier` this is; zero when it is not later.
    #[must_use]
    pub fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This moment and `span` more, clamped to [`Timestamp::MAX`].
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(saturating_micros(span)))
    }

    /// This moment less `span`, clamped to [`Timestamp::MIN`].
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self::from_micros(self.0.saturating_sub(saturating_micros(span)))
    }
}

/// A span in whole microseconds, saturating.
fn saturating_micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC, with as many digits of a second as are needed: `2026-01-01T00:00:10Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(moment) => moment.fmt(f),
            Err(_) => f.write_str("0000-00-00T00:00:00Z"),
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(|moment| Self::from_micros(moment.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Self::from_micros)
        }
    }
}

/// The same moment on two clocks, read together: wall time, and a monotonic clock that never steps.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Wall time. Can step in either direction.
    pub wall: Timestamp,
    /// Time since an arbitrary start. Only grows.
    pub mono: Duration,
}

impl Moment {
    /// Both clocks moved on by `span`. Tests drive the core with this.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self { wall: self.wall.saturating_add(span), mono: self.mono.saturating_add(span) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_as_rfc_3339_in_utc() {
        assert_eq!(Timestamp::from_secs(1_767_225_610).to_string(), "2026-01-01T00:00:10Z");
        assert_eq!(Timestamp::from_micros(1_500_000).to_string(), "1970-01-01T00:00:01.5Z");
        assert_eq!(Timestamp::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn the_extremes_can_still_be_printed() {
        assert_eq!(Timestamp::from_secs(i64::MAX), Timestamp::MAX);
        assert!(Timestamp::MAX.to_string().starts_with("9999-"));
        assert!(Timestamp::from_secs(i64::MIN).to_string().starts_with("0001-"));
    }

    #[test]
    fn windows_lie_on_a_grid_also_before_the_epoch() {
        let ten = Duration::from_secs(10);
        assert_eq!(Timestamp::from_secs(19).floor_to_window(ten), Timestamp::from_secs(10));
        assert_eq!(Timestamp::from_secs(20).floor_to_window(ten), Timestamp::from_secs(20));
        assert_eq!(Timestamp::from_secs(-1).floor_to_window(ten), Timestamp::from_secs(-10));
    }

    #[test]
    fn text_round_trips() {
        let moment = Timestamp::from_micros(1_767_225_610_250_000);
        assert_eq!(moment.to_string().parse::<Timestamp>().unwrap(), moment);
    }
}
