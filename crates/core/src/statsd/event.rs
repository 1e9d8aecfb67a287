//! Events: `_e{title length,text length}:title|text|fields`.

use std::borrow::Cow;

use nom::bytes::complete::tag;
use nom::character::complete::digit1;
use nom::combinator::map_res;
use nom::sequence::{delimited, separated_pair};
use nom::{IResult, Parser as _};

use super::Rejected;
use super::fields::{self, ClientIdentity};

/// A parsed event.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Event<'a> {
    /// The raw title, with `\n` for line ends, never empty; see [`Event::unescaped_title`].
    pub raw_title: &'a [u8],
    /// The raw text; see [`Event::unescaped_text`].
    pub raw_text: &'a [u8],
    /// `d:`, seconds since 1970.
    pub timestamp: Option<i64>,
    /// `t:`.
    pub alert_type: AlertType,
    /// `p:`.
    pub priority: Priority,
    /// `h:`.
    pub hostname: Option<&'a [u8]>,
    /// `k:`.
    pub aggregation_key: Option<&'a [u8]>,
    /// `s:`.
    pub source_type: Option<&'a [u8]>,
    /// The text after `#`.
    pub tags: &'a [u8],
    /// The identity that the client claims.
    pub identity: ClientIdentity<'a>,
}

/// The severity of an event.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are DogStatsD's and say it all")]
pub enum AlertType {
    Error,
    Warning,
    #[default]
    Info,
    Success,
}

impl AlertType {
    /// The name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Success => "success",
        }
    }
}

/// The priority of an event.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are DogStatsD's and say it all")]
pub enum Priority {
    #[default]
    Normal,
    Low,
}

impl Priority {
    /// The name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl<'a> Event<'a> {
    /// The title with real line ends.
    #[must_use]
    pub fn unescaped_title(&self) -> Cow<'a, str> {
        with_line_ends(self.raw_title)
    }

    /// The text with real line ends; `None` if it is empty.
    #[must_use]
    pub fn unescaped_text(&self) -> Option<Cow<'a, str>> {
        (!self.raw_text.is_empty()).then(|| with_line_ends(self.raw_text))
    }

    fn apply_field(&mut self, field: &'a [u8]) {
        let filled = |value: &'a [u8]| (!value.is_empty()).then_some(value);
        match field {
            // An invalid optional field is ignored; the event is kept (as in the Datadog Agent).
            [b'd', b':', value @ ..] => self.timestamp = fields::parse_seconds(value).or(self.timestamp),
            [b'h', b':', value @ ..] => self.hostname = filled(value),
            [b'k', b':', value @ ..] => self.aggregation_key = filled(value),
            [b's', b':', value @ ..] => self.source_type = filled(value),
            [b'p', b':', value @ ..] => {
                self.priority = if value == b"low" { Priority::Low } else { Priority::Normal };
            }
            [b't', b':', value @ ..] => {
                self.alert_type = match value {
                    b"error" => AlertType::Error,
                    b"warning" => AlertType::Warning,
                    b"success" => AlertType::Success,
                    _ => AlertType::Info,
                };
            }
            [b'#', tags @ ..] => self.tags = tags,
            other => self.identity.apply_field(other),
        }
    }
}

/// Clients write a line end as a backslash and an `n`, because a real one would end the line.
fn with_line_ends(raw: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(raw);
    if text.contains("\\n") { text.replace("\\n", "\n").into() } else { text }
}

/// `_e{title length,text length}:`
fn parse_header(line: &[u8]) -> IResult<&[u8], (usize, usize)> {
    delimited(tag("_e{"), separated_pair(parse_length, tag(","), parse_length), tag("}:")).parse(line)
}

fn parse_length(input: &[u8]) -> IResult<&[u8], usize> {
    map_res(digit1, |digits: &[u8]| {
        std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(Rejected::EventHeader)
    })
    .parse(input)
}

/// Reads a line that starts with `_e{`.
pub(super) fn parse(line: &[u8]) -> Result<Event<'_>, Rejected> {
    let (rest, (title_length, text_length)) = parse_header(line).map_err(|_| Rejected::EventHeader)?;
    if title_length == 0 {
        return Err(Rejected::EventEmptyTitle);
    }
    let (raw_title, rest) = rest.split_at_checked(title_length).ok_or(Rejected::EventLength)?;
    // The lengths say where the text starts; the byte between is not checked (as in the Datadog Agent).
    let (_, rest) = rest.split_first().ok_or(Rejected::EventLength)?;
    let (raw_text, rest) = rest.split_at_checked(text_length).ok_or(Rejected::EventLength)?;
    if !matches!(rest, [] | [b'|', ..]) {
        return Err(Rejected::EventLength);
    }
    let mut event = Event {
        raw_title,
        raw_text,
        timestamp: None,
        alert_type: AlertType::default(),
        priority: Priority::default(),
        hostname: None,
        aggregation_key: None,
        source_type: None,
        tags: &[],
        identity: ClientIdentity::NONE,
    };
    fields::for_each_field(rest, |field| {
        event.apply_field(field);
        Ok::<(), Rejected>(())
    })?;
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_bytes_and_count_bars_and_colons() {
        let event = parse("_e{6,12}:ab|| c|größe\\nmy!".as_bytes())
            .map(|event| (event.unescaped_title(), event.unescaped_text()));
        assert_eq!(event, Ok(("ab|| c".into(), Some("größe\nmy!".into()))));
        assert_eq!(parse("_e{6,10}:ab|| c|größe\\nmy!".as_bytes()), Err(Rejected::EventLength), "characters");
    }

    #[test]
    fn optional_fields_come_in_any_order() {
        let event =
            parse(b"_e{1,1}:a|b|t:warning|x:unk|d:123|h:host|p:low|k:key|s:src|#t1,t:2|c:xyz").unwrap();
        assert_eq!((event.raw_title, event.raw_text), (b"a".as_slice(), b"b".as_slice()));
        assert_eq!((event.alert_type, event.priority), (AlertType::Warning, Priority::Low));
        assert_eq!(event.timestamp, Some(123));
        assert_eq!(event.hostname, Some(b"host".as_slice()));
        assert_eq!(event.aggregation_key, Some(b"key".as_slice()));
        assert_eq!(event.source_type, Some(b"src".as_slice()));
        assert_eq!(event.tags, b"t1,t:2");
        assert_eq!(event.identity.container_id(), Some(b"xyz".as_slice()));
    }

    #[test]
    fn a_bad_optional_field_costs_only_itself() {
        let event = parse(b"_e{5,4}:title|text|d:abc|p:urgent|t:doom|h:").unwrap();
        assert_eq!(
            (event.timestamp, event.priority, event.alert_type),
            (None, Priority::Normal, AlertType::Info)
        );
        assert_eq!(event.hostname, None);
    }

    #[test]
    fn what_is_wrong_with_an_event_is_named() {
        for (line, why) in [
            ("_e{5555:title|text", Rejected::EventHeader),
            ("_e{a,1}:title|text", Rejected::EventHeader),
            ("_e{,}:title|text", Rejected::EventHeader),
            ("_e{1,999999999999999999999999}:a|b", Rejected::EventHeader),
            ("_e{-5,2}:abc", Rejected::EventHeader),
            ("_e{0,4}:|text", Rejected::EventEmptyTitle),
            ("_e{10,10}:title|text", Rejected::EventLength),
            ("_e{1,1}:ab", Rejected::EventLength),
            ("_e{1,1}:a|bc", Rejected::EventLength),
        ] {
            assert_eq!(parse(line.as_bytes()).map(|_| ()), Err(why), "{line}");
        }
    }
}
