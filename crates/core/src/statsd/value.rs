//! Parses numbers: decimal and finite; an explicit sign is recorded.

use super::Rejected;

/// One number of a line.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Number {
    /// Its value, always finite.
    pub value: f64,
    /// Whether it was written with `+` or `-`, which for a gauge can mean "change by".
    pub signed: bool,
}

/// The values of one line.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Values<'a> {
    /// One number, by far the most common case.
    One(Number),
    /// Several numbers in one line, each checked when the line was parsed.
    Packed {
        /// The text between the first `:` and `|`.
        text: &'a [u8],
        /// How many numbers it holds, at least one.
        count: u32,
        /// Whether any of them has a sign.
        signed: bool,
    },
    /// A member of a set, any bytes.
    Member(&'a [u8]),
}

impl<'a> Values<'a> {
    /// The number of values, as counted in the accounting.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Self::One(_) | Self::Member(_) => 1,
            Self::Packed { count, .. } => *count,
        }
    }

    /// Whether any number has a sign.
    #[must_use]
    pub fn has_sign(&self) -> bool {
        match self {
            Self::One(number) => number.signed,
            Self::Packed { signed, .. } => *signed,
            Self::Member(_) => false,
        }
    }

    /// The numbers in order; none for a set.
    pub fn numbers(&self) -> impl Iterator<Item = Number> + use<'a> {
        let (one, text) = match *self {
            Self::One(number) => (Some(number), &[][..]),
            Self::Packed { text, .. } => (None, text),
            Self::Member(_) => (None, &[][..]),
        };
        one.into_iter().chain(split_values(text).filter_map(|part| parse_number(part).ok()))
    }

    /// Reads the text between `:` and `|`. Empty parts between colons are skipped.
    pub(super) fn read(text: &'a [u8]) -> Result<Self, Rejected> {
        let mut one = None;
        let mut count = 0;
        let mut signed = false;
        for part in split_values(text) {
            let number = parse_number(part)?;
            one = Some(number);
            count += 1;
            signed |= number.signed;
        }
        match (one, count) {
            (None, _) => Err(Rejected::EmptyValue),
            (Some(number), 1) => Ok(Self::One(number)),
            (Some(_), _) => Ok(Self::Packed { text, count, signed }),
        }
    }
}

/// The parts between colons that are not empty.
fn split_values(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b':').filter(|part| !part.is_empty())
}

/// Reads a whole text as one number.
#[inline]
pub(super) fn parse_number(text: &[u8]) -> Result<Number, Rejected> {
    match parse_decimal_prefix(text) {
        Some((number, end)) if end == text.len() => Ok(number),
        _ => any_number(text),
    }
}

fn any_number(text: &[u8]) -> Result<Number, Rejected> {
    let (negative, signed, digits) = match text {
        [b'-', rest @ ..] => (true, true, rest),
        [b'+', rest @ ..] => (false, true, rest),
        _ => (false, false, text),
    };
    // The standard library parses "nan" and "inf", so only text that starts like a decimal number may reach it.
    if !digits.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.') {
        let non_finite =
            [b"nan".as_slice(), b"inf", b"infinity"].iter().any(|name| digits.eq_ignore_ascii_case(name));
        return Err(if non_finite { Rejected::NonFiniteValue } else { Rejected::InvalidValue });
    }
    let value: f64 = fast_float2::parse(digits).map_err(|_| Rejected::InvalidValue)?;
    if !value.is_finite() {
        return Err(Rejected::NonFiniteValue);
    }
    Ok(Number { value: if negative { -value } else { value }, signed })
}

/// 10^n, each exact in an f64.
const POWERS_OF_TEN: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// The same as integers.
const WHOLE_POWERS_OF_TEN: [i64; 16] = [
    1,
    10,
    100,
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
    100_000_000_000,
    1_000_000_000_000,
    10_000_000_000_000,
    100_000_000_000_000,
    1_000_000_000_000_000,
];

/// Parses the plain decimal number at the start of `text` in one pass; also returns its length. `None` if it needs the
/// full parser: it has more than 15 digits, or none.
///
/// Up to 15 digits fit an f64 exactly, and so does the power of ten, so a single division rounds correctly
/// (Clinger, "How to read floating point numbers accurately", 1990).
#[inline]
pub(super) fn parse_decimal_prefix(text: &[u8]) -> Option<(Number, usize)> {
    let (negative, signed, digits) = match text {
        [b'-', rest @ ..] => (true, true, rest),
        [b'+', rest @ ..] => (false, true, rest),
        _ => (false, false, text),
    };
    let (whole, count) = leading_digits(digits);
    let rest = digits.get(count..)?;
    let (value, count, rest) = match rest {
        [b'.', rest @ ..] => {
            let (part, places) = leading_digits(rest);
            let mantissa = whole.wrapping_mul(*WHOLE_POWERS_OF_TEN.get(places)?).wrapping_add(part);
            (mantissa as f64 / POWERS_OF_TEN.get(places)?, count + places, rest.get(places..)?)
        }
        _ => (whole as f64, count, rest),
    };
    if count == 0 || count > 15 {
        return None;
    }
    Some((Number { value: if negative { -value } else { value }, signed }, text.len() - rest.len()))
}

/// The value and number of the digits at the start of `text`. The value wraps around beyond 18 digits. The type is
/// signed, although the value is never negative, because CPUs convert signed integers to f64 in one instruction.
#[inline]
fn leading_digits(text: &[u8]) -> (i64, usize) {
    let (mut number, mut count) = (0_i64, 0);
    while let Some(eight) = text.get(count..).and_then(<[u8]>::first_chunk) {
        let (part, digits) = digits_of_eight(*eight);
        let power = WHOLE_POWERS_OF_TEN.get(digits).copied().unwrap_or_default();
        number = number.wrapping_mul(power).wrapping_add(part);
        count += digits;
        if digits < 8 {
            return (number, count);
        }
    }
    for byte in text.get(count..).unwrap_or_default() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number.wrapping_mul(10).wrapping_add(i64::from(digit));
        count += 1;
    }
    (number, count)
}

/// The value and number of the leading digits of eight bytes, without branches: the CPU cannot predict where a number
/// ends, and a loop would cause a misprediction for almost every line.
///
/// Lemire and Mula, "Parsing series of integers with SIMD" (2021), for the multiplications.
#[inline]
fn digits_of_eight(bytes: [u8; 8]) -> (i64, usize) {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    const PAIRS: u64 = 0x0000_00FF_0000_00FF;
    let digits = u64::from_le_bytes(bytes) ^ 0x3030_3030_3030_3030;
    // The high bit of each byte above 9; carries only affect bytes after the first of them.
    let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & HIGH;
    let count = others.trailing_zeros() / 8;
    // Pad with leading zeros.
    let digits = digits.unbounded_shl(64 - 8 * count);
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let high = (pairs >> 16 & PAIRS).wrapping_mul(1 + (10_000 << 32));
    (i64::from((low.wrapping_add(high) >> 32) as u32), count as usize)
}

/// Parses the number at the start of `text` that ends at `|`; also returns the position of the `|`. `None` if it needs
/// the full parser: packed values, exponents, more than 15 digits, or not a number.
#[inline]
pub(super) fn number_to_bar(text: &[u8]) -> Option<(Number, usize)> {
    parse_decimal_prefix(text).filter(|(_, end)| text.get(*end) == Some(&b'|'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_decimal_and_finite() {
        for (text, value) in [
            ("5", 5.0),
            ("+5", 5.0),
            ("-5", -5.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("4.9e-324", 5e-324),
            ("0012", 12.0),
        ] {
            assert_eq!(parse_number(text.as_bytes()).map(|n| n.value), Ok(value), "{text}");
        }
        for text in ["", "+", ".", "--5", "+-5", "0x10", "1_000", "1,5", " 5", "5 ", "1e", "1.2.3", "５", "é"]
        {
            assert_eq!(parse_number(text.as_bytes()), Err(Rejected::InvalidValue), "{text}");
        }
        for text in ["nan", "NaN", "inf", "-inf", "+Infinity", "1e400", "-1e400"] {
            assert_eq!(parse_number(text.as_bytes()), Err(Rejected::NonFiniteValue), "{text}");
        }
    }

    #[test]
    fn the_short_way_reads_the_same_as_the_long_way() {
        for text in [
            "5|",
            "-0|",
            "12.5|c",
            "+.5|",
            "5.|",
            "999999999999999|",
            "0.00000000000001|",
            "123456.789012345|",
        ] {
            let (short, end) = number_to_bar(text.as_bytes()).unwrap();
            let long = any_number(&text.as_bytes()[..end]).unwrap();
            assert_eq!((short.value.to_bits(), short.signed), (long.value.to_bits(), long.signed), "{text}");
        }
    }

    #[test]
    fn digits_are_read_wherever_they_end() {
        let all = b"12345678901234567x12345678";
        for start in 0..all.len() {
            for end in start..=all.len() {
                let text = &all[start..end];
                let digits: Vec<_> = text.iter().take_while(|byte| byte.is_ascii_digit()).collect();
                let number = digits.iter().fold(0, |number, digit| 10 * number + i64::from(*digit - b'0'));
                assert_eq!(leading_digits(text), (number, digits.len()), "{}", text.escape_ascii());
            }
        }
        for other in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
            assert_eq!(digits_of_eight([b'4', b'2', other, b'7', other, 0xff, other, b'1']), (42, 2));
        }
    }

    #[test]
    fn the_short_way_leaves_what_takes_care_to_the_long_way() {
        for text in ["", "5", "|", ".|", "1e3|", "1:2|", "1.2.3|", "1234567890123456|", "x|"] {
            assert_eq!(number_to_bar(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn packed_values_keep_their_order_and_skip_empty_ones() {
        let values = Values::read(b"1::2:").unwrap();
        assert_eq!(values.count(), 2);
        assert_eq!(values.numbers().map(|n| n.value).collect::<Vec<_>>(), [1.0, 2.0]);
        assert_eq!(Values::read(b"::"), Err(Rejected::EmptyValue));
        assert_eq!(Values::read(b"1:x:3"), Err(Rejected::InvalidValue));
        assert!(matches!(Values::read(b":5:"), Ok(Values::One(_))));
    }
}
