//! Parses one line.

use super::check::{self, Check};
use super::event::{self, Event};
use super::fields::{self, ClientIdentity};
use super::style::{NameStyle, TagStyles};
use super::value::{Values, number_to_bar, parse_number};
use super::{MAX_WEIGHT, Rejected};
use crate::model::MetricType;

/// A parsed line.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum ParsedLine<'a> {
    /// A metric's values.
    Sample(Sample<'a>),
    /// `_e{…}`: an event.
    Event(Event<'a>),
    /// `_sc|…`: a service check.
    Check(Check<'a>),
}

/// The values of a metric from one line, borrowed from the datagram.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Sample<'a> {
    /// The raw name, including tags in it if a tag style is on. Never empty.
    pub name: &'a [u8],
    /// Where tags are in `name`.
    pub style: NameStyle,
    /// The type of the series.
    pub metric_type: MetricType,
    /// One or more values.
    pub values: Values<'a>,
    /// The rate the client sampled at, in (0, 1].
    pub rate: f64,
    /// The number of values that each one stands for: 1/rate, at most [`MAX_WEIGHT`].
    pub weight: f64,
    /// The text after `#`, with tags separated by `,`; empty if there is none.
    pub tags: &'a [u8],
    /// The client's timestamp, in seconds since 1970, if there is one.
    pub timestamp: Option<i64>,
    /// The identity that the client claims.
    pub identity: ClientIdentity<'a>,
}

/// Parses one line, without its line end.
///
/// # Errors
/// The reason why the line is invalid. No part of it counts then, not even values before the invalid one.
#[inline]
pub fn parse(line: &[u8], styles: TagStyles) -> Result<ParsedLine<'_>, Rejected> {
    match line {
        [b'_', b'e', b'{', ..] => event::parse(line).map(ParsedLine::Event),
        [b'_', b's', b'c', b'|', rest @ ..] => check::parse(rest).map(ParsedLine::Check),
        _ => {
            let mut read = Err(Rejected::MissingType);
            with_sample(line, styles, |sample| read = Ok(ParsedLine::Sample(*sample)))?;
            read
        }
    }
}

/// Whether a line is a metric, not an event or a service check.
#[inline]
#[must_use]
pub const fn is_metric(line: &[u8]) -> bool {
    !matches!(line, [b'_', b'e', b'{', ..] | [b'_', b's', b'c', b'|', ..])
}

/// Parses one line of a metric and passes the sample to `take`. This avoids moving the sample, which takes a third of
/// the time of [`parse`].
///
/// # Errors
/// The reason why the line is invalid; `take` is not called then.
#[expect(clippy::inline_always, reason = "what is read stays in registers only where it is taken")]
#[inline(always)]
pub fn with_sample<'a>(
    line: &'a [u8],
    styles: TagStyles,
    take: impl FnOnce(&Sample<'a>),
) -> Result<(), Rejected> {
    let (name, rest) = split_name(line)?;
    let short = number_to_bar(rest);
    let bar = match short {
        Some((_, bar)) => bar,
        None => memchr::memchr(b'|', rest).ok_or(Rejected::MissingType)?,
    };
    let (text, after) = rest.split_at_checked(bar).ok_or(Rejected::MissingType)?;
    let (metric_type, after) = read_type(after)?;
    let values = match (metric_type, short) {
        (MetricType::Set, _) if text.is_empty() => return Err(Rejected::EmptyValue),
        (MetricType::Set, _) => Values::Member(text),
        (_, Some((number, _))) => Values::One(number),
        (_, None) => Values::read(text)?,
    };
    let mut sample = Sample::new(name, metric_type, values);
    fields::for_each_field(after, |field| sample.apply_field(field))?;
    if !styles.is_empty() {
        sample.read_style(styles)?;
    }
    take(&sample);
    Ok(())
}

/// Name and what follows its `:`.
#[inline]
fn split_name(line: &[u8]) -> Result<(&[u8], &[u8]), Rejected> {
    let at = memchr::memchr2(b':', b'|', line).ok_or(Rejected::MissingType)?;
    match line.split_at_checked(at) {
        Some(([], [b':', ..])) => Err(Rejected::EmptyName),
        Some((name, [b':', rest @ ..])) => Ok((name, rest)),
        _ => Err(Rejected::MissingValue),
    }
}

/// The type after the first `|`, and the fields behind it.
#[inline]
fn read_type(after: &[u8]) -> Result<(MetricType, &[u8]), Rejected> {
    let (metric_type, rest) = match after {
        [b'|', b'c', rest @ ..] => (MetricType::Counter, rest),
        [b'|', b'g', rest @ ..] => (MetricType::Gauge, rest),
        [b'|', b'm', b's', rest @ ..] => (MetricType::Timer, rest),
        [b'|', b'h', rest @ ..] => (MetricType::Histogram, rest),
        [b'|', b'd', rest @ ..] => (MetricType::Distribution, rest),
        [b'|', b's', rest @ ..] => (MetricType::Set, rest),
        [b'|'] | [b'|', b'|', ..] => return Err(Rejected::MissingType),
        _ => return Err(Rejected::UnknownType),
    };
    match rest.first() {
        None | Some(b'|') => Ok((metric_type, rest)),
        Some(_) => Err(Rejected::UnknownType),
    }
}

impl<'a> Sample<'a> {
    /// A sample without any fields.
    #[inline]
    #[must_use]
    pub const fn new(name: &'a [u8], metric_type: MetricType, values: Values<'a>) -> Self {
        Self {
            name,
            style: NameStyle::Plain,
            metric_type,
            values,
            rate: 1.0,
            weight: 1.0,
            tags: &[],
            timestamp: None,
            identity: ClientIdentity::NONE,
        }
    }

    /// Applies one field. Unknown fields are ignored, because clients keep adding new ones.
    #[inline]
    fn apply_field(&mut self, field: &'a [u8]) -> Result<(), Rejected> {
        match field {
            [b'@', rate @ ..] => {
                let rate = parse_number(rate).map_or(f64::NAN, |number| number.value);
                if !(rate > 0.0 && rate <= 1.0) {
                    return Err(Rejected::InvalidSampleRate);
                }
                self.rate = rate;
                self.weight = (1.0 / rate).min(MAX_WEIGHT);
            }
            [b'#', tags @ ..] => self.tags = tags,
            [b'T', seconds @ ..] => {
                self.timestamp = Some(fields::parse_seconds(seconds).ok_or(Rejected::InvalidTimestamp)?);
            }
            other => self.identity.apply_field(other),
        }
        Ok(())
    }

    /// Finds tags in the name, if a tag style is on.
    fn read_style(&mut self, styles: TagStyles) -> Result<(), Rejected> {
        self.style = NameStyle::from_name(self.name, styles);
        if self.style.name_is_empty(self.name) {
            return Err(Rejected::EmptyName);
        }
        if !self.tags.is_empty() && self.style.tag_pairs(self.name).next().is_some() {
            return Err(Rejected::MixedTagStyles);
        }
        let sampled =
            matches!(self.metric_type, MetricType::Timer | MetricType::Histogram | MetricType::Distribution);
        if matches!(self.style, NameStyle::SignalFx { .. }) && self.values.count() > 1 && !sampled {
            return Err(Rejected::PackedBracketType);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Number;
    use super::*;

    fn sample(line: &str) -> Result<Sample<'_>, Rejected> {
        let mut read = Err(Rejected::MissingType);
        with_sample(line.as_bytes(), TagStyles::NONE, |sample| read = Ok(*sample))?;
        read
    }

    #[test]
    fn a_plain_line_is_name_value_and_type() {
        let read = sample("page.views:3|c").unwrap();
        assert_eq!(read.name, b"page.views");
        assert_eq!(read.metric_type, MetricType::Counter);
        assert_eq!(read.values, Values::One(Number { value: 3.0, signed: false }));
        assert_eq!((read.rate, read.weight, read.tags, read.timestamp), (1.0, 1.0, &b""[..], None));
    }

    #[test]
    fn fields_come_in_any_order_and_the_last_of_a_kind_wins() {
        let read = sample("x:1|c|T1656581400|#a:b|c:ci-abc|@0.5|#c:d|@0.1|z:1||:|card:low").unwrap();
        assert_eq!((read.rate, read.weight), (0.1, 10.0));
        assert_eq!(read.tags, b"c:d");
        assert_eq!(read.timestamp, Some(1_656_581_400));
        assert_eq!(read.identity.container_id(), Some(b"abc".as_slice()));
        assert_eq!(read.identity.cardinality_level(), Some(b"low".as_slice()));
    }

    #[test]
    fn a_rate_is_in_0_to_1_and_its_weight_is_clamped() {
        for rate in ["0", "2", "-0.5", "NaN", "inf", "", "0,5", "1.1", "-0", "abc"] {
            assert_eq!(
                sample(&format!("x:1|c|@{rate}")).map(|_| ()),
                Err(Rejected::InvalidSampleRate),
                "{rate}"
            );
        }
        assert_eq!(sample("x:1|ms|@1e-300").unwrap().weight, MAX_WEIGHT);
        assert_eq!(sample("x:1|ms|@+.5").unwrap().weight, 2.0);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (line, why) in [
            ("hello", Rejected::MissingType),
            ("abc666|g", Rejected::MissingValue),
            ("metric|12:3|c", Rejected::MissingValue),
            (":1|c", Rejected::EmptyName),
            ("t:|g", Rejected::EmptyValue),
            ("t:|s", Rejected::EmptyValue),
            ("t:1", Rejected::MissingType),
            ("t:1|", Rejected::MissingType),
            ("t:1||c", Rejected::MissingType),
            ("t:1|q", Rejected::UnknownType),
            ("t:1|C", Rejected::UnknownType),
            ("t:1|cs", Rejected::UnknownType),
            ("t:1|c:2|c", Rejected::UnknownType),
            ("t:1|c ", Rejected::UnknownType),
            ("t:x|c", Rejected::InvalidValue),
            ("t:1|c|T", Rejected::InvalidTimestamp),
            ("t:1|c|T0", Rejected::InvalidTimestamp),
        ] {
            assert_eq!(sample(line).map(|_| ()), Err(why), "{line}");
        }
    }

    #[test]
    fn a_set_takes_any_bytes_also_colons() {
        assert_eq!(sample("u:a:b|s").unwrap().values, Values::Member(b"a:b"));
        assert_eq!(sample("u:5|s").unwrap().values, Values::Member(b"5"));
    }

    #[test]
    fn a_sign_is_remembered_also_among_packed_values() {
        assert!(sample("g:-0|g").unwrap().values.has_sign());
        assert!(sample("g:42:5:-18|g").unwrap().values.has_sign());
        assert!(!sample("g:42:5|g").unwrap().values.has_sign());
    }
}
