//! Parses StatsD and DogStatsD into borrowed samples, events and checks.
//!
//! ```text
//! datagram   = line *( LF line )                      ; one CR before LF is ignored, so are empty lines
//! line       = metric / event / check
//! metric     = name ":" values "|" type *( "|" field )
//! values     = number *( ":" number )                 ; empty ones are skipped, one bad one rejects the line
//!            / member                                 ; for a set: any bytes up to "|"
//! number     = [ "+" / "-" ] digits [ "." digits ] [ e [ sign ] digits ]   ; decimal and finite
//! type       = "c" / "g" / "ms" / "h" / "d" / "s"
//! field      = "@" rate / "#" tags / "T" seconds / "c:" container / "e:" external / "card:" cardinality
//!            / anything                               ; in any order, unknown ones ignored, the last of a kind wins
//! event      = "_e{" length "," length "}:" title any text *( "|" field )   ; lengths in bytes
//! check      = "_sc|" name "|" status *( "|" field )
//! ```
//!
//! The grammar is Datadog's, v1.0 to v1.6, as a superset of classic StatsD. If servers disagree,
//! `docs/reference/statsd.md` describes the behaviour here and the reason. An invalid line does not affect others.
//!
//! Parsing a line allocates nothing, reads nothing past its input and never panics, for any bytes; `fuzz/` tests that.
//! Only `tags` allocates, once for each new series.

mod check;
mod event;
mod fields;
mod line;
mod plain;
pub mod style;
pub mod tags;
mod value;
mod written;

use std::iter;

pub use check::{Check, CheckStatus};
pub use event::{AlertType, Event, Priority};
pub use fields::{ClientIdentity, ExternalData};
pub use line::{ParsedLine, Sample, is_metric, parse, with_sample};
pub use plain::Plain;
pub use style::TagStyles;
pub use value::{Number, Values};
pub use written::{has_written_name, show_line};

/// Largest weight of a sampled value. Smaller rates count as one in a million, so that no single line can outweigh
/// everything else.
pub const MAX_WEIGHT: f64 = 1e6;

/// Why a line was rejected. Each reason has a stable code for counters and labels.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rejected {
    /// Nothing before the first `:`.
    EmptyName,
    /// No `:` between name and type.
    MissingValue,
    /// No value between `:` and `|`.
    EmptyValue,
    /// No `|` and type after the value.
    MissingType,
    /// A type other than `c g ms h d s`.
    UnknownType,
    /// A value that is not a decimal number.
    InvalidValue,
    /// A value that is infinite, or not a number, or too large to be one.
    NonFiniteValue,
    /// A rate that is not a number in (0, 1].
    InvalidSampleRate,
    /// A `T` field that is not a positive number of seconds.
    InvalidTimestamp,
    /// An event whose header is not `_e{title length,text length}:`.
    EventHeader,
    /// An event whose lengths do not fit its text.
    EventLength,
    /// An event without a title.
    EventEmptyTitle,
    /// A service check without name or status.
    CheckFormat,
    /// A service check whose name is empty.
    CheckEmptyName,
    /// A service check whose status is not 0, 1, 2 or 3.
    CheckStatus,
    /// Tags both in the name and in a `#` field.
    MixedTagStyles,
    /// Several values with tags in brackets, and a type that has no samples.
    PackedBracketType,
}

impl Rejected {
    /// Every reason, in order.
    pub const ALL: [Self; 17] = [
        Self::EmptyName,
        Self::MissingValue,
        Self::EmptyValue,
        Self::MissingType,
        Self::UnknownType,
        Self::InvalidValue,
        Self::NonFiniteValue,
        Self::InvalidSampleRate,
        Self::InvalidTimestamp,
        Self::EventHeader,
        Self::EventLength,
        Self::EventEmptyTitle,
        Self::CheckFormat,
        Self::CheckEmptyName,
        Self::CheckStatus,
        Self::MixedTagStyles,
        Self::PackedBracketType,
    ];

    /// The stable code.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyName => "empty_name",
            Self::MissingValue => "missing_value",
            Self::EmptyValue => "empty_value",
            Self::MissingType => "missing_type",
            Self::UnknownType => "unknown_type",
            Self::InvalidValue => "invalid_value",
            Self::NonFiniteValue => "non_finite_value",
            Self::InvalidSampleRate => "invalid_sample_rate",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::EventHeader => "event_header",
            Self::EventLength => "event_length",
            Self::EventEmptyTitle => "event_empty_title",
            Self::CheckFormat => "service_check_format",
            Self::CheckEmptyName => "service_check_empty_name",
            Self::CheckStatus => "service_check_status",
            Self::MixedTagStyles => "mixed_tagging_styles",
            Self::PackedBracketType => "invalid_extended_aggregate_type",
        }
    }

    /// What to change about the line, in a few words.
    #[must_use]
    pub const fn suggested_fix(self) -> &'static str {
        match self {
            Self::EmptyName => "put a name before the first ':'",
            Self::MissingValue => "write name:value|type; there is no ':' before the '|'",
            Self::EmptyValue => "put a value between ':' and '|'",
            Self::MissingType => "write name:value|type; '|type' is missing or empty",
            Self::UnknownType => "use one of the types c, g, ms, h, d, s",
            Self::InvalidValue => "send a decimal number, such as 12, -0.5 or 1e3",
            Self::NonFiniteValue => "send a finite number; NaN and infinity cannot be added up",
            Self::InvalidSampleRate => "send a rate greater than 0 and at most 1, such as @0.1",
            Self::InvalidTimestamp => "send T and whole seconds since 1970, such as T1767225600",
            Self::EventHeader => "start an event with _e{title length,text length}:",
            Self::EventLength => "count title and text in bytes, not in characters",
            Self::EventEmptyTitle => "give the event a title",
            Self::CheckFormat => "write _sc|name|status",
            Self::CheckEmptyName => "give the check a name",
            Self::CheckStatus => "use the status 0, 1, 2 or 3",
            Self::MixedTagStyles => "write tags either in the name or after '#', not both",
            Self::PackedBracketType => "send several values with tags in brackets only as ms, h or d",
        }
    }
}

/// The first line of a text, without its line end and one CR before it, and what follows.
#[inline]
#[must_use]
pub fn first_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
    let (line, after) = text.split_at_checked(end).unwrap_or((text, &[]));
    (line.strip_suffix(b"\r").unwrap_or(line), after.get(1..).unwrap_or_default())
}

/// The lines of a datagram: split at LF, one CR before it dropped, empty ones skipped.
pub fn split_lines(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        while !datagram.is_empty() {
            let (line, after) = first_line(datagram);
            datagram = after;
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(datagram: &[u8]) -> Vec<&[u8]> {
        split_lines(datagram).collect()
    }

    #[test]
    fn a_last_line_needs_no_line_end() {
        assert_eq!(split(b"a:1|c\nb:2|c"), [b"a:1|c", b"b:2|c"]);
        assert_eq!(split(b"a:1|c\nb:2|c\n"), [b"a:1|c", b"b:2|c"]);
    }

    #[test]
    fn one_carriage_return_and_empty_lines_are_ignored() {
        assert_eq!(split(b"a:1|c\r\n\r\n\n\r\nb"), [b"a:1|c".as_slice(), b"b"]);
        assert_eq!(split(b"a\r\r\n"), [b"a\r"]);
        assert_eq!(split(b""), Vec::<&[u8]>::new());
        assert_eq!(split(b"\n\r\n"), Vec::<&[u8]>::new());
    }

    #[test]
    fn every_code_is_its_own_and_has_advice() {
        let mut codes: Vec<_> = Rejected::ALL.iter().map(|reason| reason.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Rejected::ALL.len());
        assert!(Rejected::ALL.iter().all(|reason| !reason.suggested_fix().is_empty()));
    }
}
