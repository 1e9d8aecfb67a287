//! The commonest lines, read in one pass over the datagram: a name, one short decimal number, a type, and perhaps a
//! rate and tags.
//!
//! [`super::with_sample`] is the grammar. This module reads a part of it the same way, in half of the instructions and
//! without looking for the end of the line first, and leaves everything else to it: whatever is rare, takes care, or is
//! wrong. A property test compares the two.
//!
//! A name or a field of a line is a few dozen bytes long. The `memchr` crate selects the processor's widest vectors at each call,
//! which takes longer than looking at so few bytes sixteen at a time.

use wide::u8x16;

use super::MAX_WEIGHT;
use super::fields::ClientIdentity;
use super::line::Sample;
use super::style::NameStyle;
use super::value::{Number, Values, number_to_bar, parse_decimal_prefix};
use crate::model::MetricType;

/// A sample without tags in its name and without a timestamp, as almost all are.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Plain<'a> {
    /// The type of the series.
    pub metric_type: MetricType,
    /// The raw name. Never empty.
    pub name: &'a [u8],
    /// The text after `#`, with tags separated by `,`; empty if there is none.
    pub tags: &'a [u8],
    /// One or more values.
    pub values: Values<'a>,
    /// How many values each one stands for: 1/rate, at most [`MAX_WEIGHT`].
    pub weight: f64,
    /// Whether the client claims an identity, which only DogStatsD clients do.
    pub identified: bool,
}

impl<'a> Plain<'a> {
    /// Converts a sample; `None` if it has tags in its name or a timestamp.
    #[inline]
    #[must_use]
    pub fn from_sample(sample: &Sample<'a>) -> Option<Self> {
        let Sample {
            name,
            style: NameStyle::Plain,
            metric_type,
            tags,
            values,
            weight,
            timestamp: None,
            identity,
            ..
        } = *sample
        else {
            return None;
        };
        Some(Self { metric_type, name, tags, values, weight, identified: identity.is_given() })
    }

    /// Parses the first line of `text`; also returns the text after its line end. `None` means only that the line needs
    /// the full parser, not that it is invalid. Tag styles must be off.
    #[expect(clippy::inline_always, reason = "what is read stays in registers only where it is taken")]
    #[inline(always)]
    #[must_use]
    pub fn start_of(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        // An event or a check, or a name that looks like one.
        if text.first() == Some(&b'_') {
            return None;
        }
        let (name, rest) = text.split_at_checked(find([b':', b'|', b'\n'], text)?)?;
        let [b':', rest @ ..] = rest else { return None };
        if name.is_empty() {
            return None;
        }
        let (number, bar) = number_to_bar(rest)?;
        let (metric_type, fields) = sampled_type(rest.get(bar + 1..)?)?;
        let plain = Self {
            metric_type,
            name,
            tags: &[],
            values: Values::One(number),
            weight: 1.0,
            identified: false,
        };
        plain.with_fields(fields)
    }

    /// Takes the fields, up to the end of the line.
    #[expect(clippy::inline_always, reason = "it is the end of `start_of`")]
    #[inline(always)]
    fn with_fields(mut self, mut rest: &'a [u8]) -> Option<(Self, &'a [u8])> {
        loop {
            let field = match rest {
                [] => return Some((self, rest)),
                [b'\n', after @ ..] => return Some((self, after)),
                [b'|', field @ ..] => field,
                _ => return None,
            };
            rest = match field {
                [b'@', rate @ ..] => {
                    let (Number { value: rate, .. }, end) = parse_decimal_prefix(rate)?;
                    if !(rate > 0.0 && rate <= 1.0) {
                        return None;
                    }
                    self.weight = (1.0 / rate).min(MAX_WEIGHT);
                    field.get(1 + end..)?
                }
                [b'T', ..] => return None,
                _ => {
                    let end = find([b'|', b'\n'], field).unwrap_or(field.len());
                    let (text, after) = field.split_at_checked(end)?;
                    if let [b'#', tags @ ..] = text {
                        // A carriage return may belong to the line end.
                        if tags.last() == Some(&b'\r') {
                            return None;
                        }
                        self.tags = tags;
                    } else {
                        self.identified |= ClientIdentity::is_field(text);
                    }
                    after
                }
            };
        }
    }
}

/// A type whose values are numbers, and what follows it.
#[inline]
fn sampled_type(text: &[u8]) -> Option<(MetricType, &[u8])> {
    Some(match text {
        [b'c', rest @ ..] => (MetricType::Counter, rest),
        [b'g', rest @ ..] => (MetricType::Gauge, rest),
        [b'm', b's', rest @ ..] => (MetricType::Timer, rest),
        [b'h', rest @ ..] => (MetricType::Histogram, rest),
        [b'd', rest @ ..] => (MetricType::Distribution, rest),
        _ => return None,
    })
}

const BLOCK: usize = 16;

/// The position of the first occurrence of any needle in `text`.
#[inline]
pub(super) fn find<const N: usize>(needles: [u8; N], text: &[u8]) -> Option<usize> {
    let found = |block: &[u8; BLOCK]| {
        let block = u8x16::new(*block);
        let hits =
            needles.iter().fold(u8x16::ZERO, |hits, needle| hits | block.simd_eq(u8x16::splat(*needle)));
        hits.to_bitmask()
    };
    let mut at = 0;
    while let Some((block, _)) = text.get(at..)?.split_first_chunk() {
        let hits = found(block);
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize);
        }
        at += BLOCK;
    }
    // The last block overlaps the one before, which has no hits.
    if let Some((before, block)) = text.split_last_chunk() {
        let hits = found(block);
        return (hits != 0).then(|| before.len() + hits.trailing_zeros() as usize);
    }
    text.iter().position(|byte| needles.contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{ParsedLine, TagStyles, parse, split_lines};
    use super::*;

    /// The result of the full parser for the first line.
    fn with_care(text: &[u8]) -> Option<Plain<'_>> {
        match parse(split_lines(text).next()?, TagStyles::NONE) {
            Ok(ParsedLine::Sample(sample)) => Plain::from_sample(&sample),
            _ => None,
        }
    }

    fn is_quick(line: &str) -> bool {
        Plain::start_of(line.as_bytes()).is_some()
    }

    #[test]
    fn common_lines_are_read_in_one_pass() {
        for line in [
            "a:1|c",
            "service.requests.total:1|c\n",
            "service.response.latency:12.75|ms|@0.1|#env:production,region:eu-west-1",
            "q:-3|g|#a:b|c:ci-1234",
            "q:+0.5|h|c:ci-1234|#a:b",
            "d:7|d|#",
            "d:7|d|",
        ] {
            assert!(is_quick(line), "{line}");
            assert_eq!(Plain::start_of(line.as_bytes()).map(|(plain, _)| plain), with_care(line.as_bytes()));
        }
    }

    #[test]
    fn what_takes_care_is_left_to_the_grammar() {
        for line in [
            "",
            "\na:1|c",
            ":1|c",
            "a|1:c",
            "a:1",
            "a:1|x",
            "a:1|cc",
            "a:1|m",
            "a:1:2|ms",
            "a:1e3|c",
            "a:x|s",
            "a:5|s",
            "a:1|c\r\n",
            "a:1|c|#b\r",
            "a:1|c|#b\r\nb:1|c",
            "a:1|c|@0",
            "a:1|c|@2",
            "a:1|c|@1e-3",
            "a:1|c|T1767225600",
            "_sc|a|0",
            "_e{1,1}:5|c",
        ] {
            assert!(!is_quick(line), "{line:?}");
        }
    }

    #[test]
    fn lines_are_read_one_after_the_other() {
        let mut rest = b"a:1|c\nb:2|g|#x:y\nc:3|ms|@0.5".as_slice();
        let mut read = Vec::new();
        while let Some((plain, after)) = Plain::start_of(rest) {
            read.push((plain.name, plain.tags, plain.weight));
            rest = after;
        }
        assert_eq!(read, [(b"a".as_slice(), b"".as_slice(), 1.0), (b"b", b"x:y", 1.0), (b"c", b"", 2.0)]);
        assert_eq!(rest, b"");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn one_pass_reads_what_the_grammar_reads(
            text in "(_|é|[a-c]{0,20})[:|\n]?[0-9.+\\-e]{0,17}[:|\n]?(c|g|ms|h|d|s|m|x)?(\\|(@[0-9.e]{0,4}|#[a-b:,\r]{0,40}|T[0-9]{0,2}|c:x|\r|)){0,4}[\r\n]{0,3}[a-c:|1\n]{0,8}"
        ) {
            if let Some((plain, after)) = Plain::start_of(text.as_bytes()) {
                prop_assert_eq!(Some(plain), with_care(text.as_bytes()));
                let line = &text.as_bytes()[..text.len() - after.len()];
                prop_assert_eq!(split_lines(line).count(), 1);
                prop_assert!(after.is_empty() || line.ends_with(b"\n"));
            }
        }
    }

    #[test]
    fn every_needle_is_found_wherever_it_is() {
        for length in 0..70 {
            let mut text = vec![b'x'; length];
            assert_eq!(find([b':', b'|'], &text), None);
            for at in (0..length).rev() {
                for needle in [b':', b'|'] {
                    text[at] = needle;
                    assert_eq!(find([b':', b'|'], &text), Some(at), "{at} of {length}");
                }
            }
        }
    }

    #[test]
    fn nothing_beyond_the_text_is_found() {
        let text = [b':'; 64];
        assert_eq!(find([b'|'], &text), None);
        assert_eq!(find([b':'], &text[..0]), None);
    }
}
