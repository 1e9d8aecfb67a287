//! Service checks: `_sc|name|status|fields`.

use std::fmt;

use super::Rejected;
use super::fields::{self, ClientIdentity};

/// A parsed service check.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Check<'a> {
    /// Never empty.
    pub name: &'a [u8],
    /// The outcome.
    pub status: CheckStatus,
    /// `m:`, the message.
    pub message: Option<&'a [u8]>,
    /// `h:`.
    pub hostname: Option<&'a [u8]>,
    /// `d:`, seconds since 1970.
    pub timestamp: Option<i64>,
    /// The text after `#`.
    pub tags: &'a [u8],
    /// The identity that the client claims.
    pub identity: ClientIdentity<'a>,
}

/// The outcome of a check. The numbers are DogStatsD's.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are DogStatsD's and say it all")]
pub enum CheckStatus {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl CheckStatus {
    /// The name used in JSON and in the CLI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    /// The status with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Ok),
            1 => Some(Self::Warning),
            2 => Some(Self::Critical),
            3 => Some(Self::Unknown),
            _ => None,
        }
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Reads what follows `_sc|`.
pub(super) fn parse(rest: &[u8]) -> Result<Check<'_>, Rejected> {
    let bar = memchr::memchr(b'|', rest).ok_or(Rejected::CheckFormat)?;
    let (name, rest) = rest.split_at_checked(bar).ok_or(Rejected::CheckFormat)?;
    if name.is_empty() {
        return Err(Rejected::CheckEmptyName);
    }
    let (status, rest) = match rest {
        [b'|', digit @ b'0'..=b'3', rest @ ..] => (CheckStatus::from_number(digit - b'0'), rest),
        _ => (None, rest),
    };
    let (Some(status), [] | [b'|', ..]) = (status, rest) else {
        return Err(Rejected::CheckStatus);
    };
    let mut check = Check {
        name,
        status,
        message: None,
        hostname: None,
        timestamp: None,
        tags: &[],
        identity: ClientIdentity::NONE,
    };
    fields::for_each_field(rest, |field| {
        check.apply_field(field);
        Ok::<(), Rejected>(())
    })?;
    Ok(check)
}

impl<'a> Check<'a> {
    fn apply_field(&mut self, field: &'a [u8]) {
        let filled = |value: &'a [u8]| (!value.is_empty()).then_some(value);
        match field {
            [b'd', b':', value @ ..] => self.timestamp = fields::parse_seconds(value).or(self.timestamp),
            [b'h', b':', value @ ..] => self.hostname = filled(value),
            [b'm', b':', value @ ..] => self.message = filled(value),
            [b'#', tags @ ..] => self.tags = tags,
            other => self.identity.apply_field(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_any_order_and_the_last_of_a_kind_wins() {
        let check = parse(b"agent.up|2|d:21|h:a|m:down|#env:dev|h:b|d:22").unwrap();
        assert_eq!((check.name, check.status), (b"agent.up".as_slice(), CheckStatus::Critical));
        assert_eq!((check.timestamp, check.hostname), (Some(22), Some(b"b".as_slice())));
        assert_eq!((check.message, check.tags), (Some(b"down".as_slice()), b"env:dev".as_slice()));
    }

    #[test]
    fn what_is_wrong_with_a_check_is_named() {
        for (line, why) in [
            ("", Rejected::CheckFormat),
            ("agent.up", Rejected::CheckFormat),
            ("|0", Rejected::CheckEmptyName),
            ("|", Rejected::CheckEmptyName),
            ("agent.up|OK", Rejected::CheckStatus),
            ("agent.up|21", Rejected::CheckStatus),
            ("agent.up|4", Rejected::CheckStatus),
            ("agent.up|", Rejected::CheckStatus),
        ] {
            assert_eq!(parse(line.as_bytes()).map(|_| ()), Err(why), "{line}");
        }
    }
}
