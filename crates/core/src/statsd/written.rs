//! Lines as text for people: the name that was meant, also in a line that is no valid one, and bytes that are no text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether one of the names that a line may have been written for is the wanted one.
///
/// A valid line has one name, with or without the tags that some styles write behind it. In a line without `:` before the
/// type, such as `cart.size=3|g`, the name ends where no client writes a name any further.
pub fn has_written_name(line: &[u8], is_wanted: impl Fn(&str) -> bool) -> bool {
    let (written, is_separated) = written_name(line);
    let text = String::from_utf8_lossy(written);
    // Some styles write tags behind the name; in others, these characters are part of it.
    let bare = text.split([',', '#', '[', ';']).next().unwrap_or_default();
    let meant = || bare.trim_start().split(['=', ' ', '\t', '@']).next().unwrap_or_default();
    is_wanted(&text) || is_wanted(bare) || (!is_separated && is_wanted(meant()))
}

/// The name in a line as it is written: what is before the value, and whether a separator ends it. For a service check it is
/// the name of the check, and for an event its title. A line without any separator is a name as a whole.
fn written_name(line: &[u8]) -> (&[u8], bool) {
    let until =
        |text: &[u8], ends: &[u8]| text.iter().position(|byte| ends.contains(byte)).unwrap_or(text.len());
    let (rest, ends, separator): (&[u8], &[u8], u8) = match line {
        [b'_', b's', b'c', b'|', rest @ ..] => (rest, b"|", b'|'),
        [b'_', b'e', b'{', rest @ ..] => (rest.get(until(rest, b":") + 1..).unwrap_or_default(), b"|", b'|'),
        line => (line, b":|", b':'),
    };
    let end = until(rest, ends);
    (rest.get(..end).unwrap_or(rest), rest.get(end) == Some(&separator))
}

/// The text of a line, with bytes that are not UTF-8 as `\xff`, so that they can be looked for.
#[must_use]
pub fn show_line(line: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(line) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(line.len() + 8);
    for chunk in line.utf8_chunks() {
        shown.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _infallible = write!(shown, "\\x{byte:02x}");
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_a_separator_has_the_name_that_was_meant() {
        for line in [
            "hits=3|g",
            "hits 3|c",
            "hits\t3",
            "hits@0.1|c",
            " hits=3|g",
            "hits,route=/pay 3|c",
            "hits|c",
            "hits",
        ] {
            assert!(has_written_name(line.as_bytes(), |name| name == "hits"), "{line}");
            assert!(!has_written_name(line.as_bytes(), |name| name == "hit"), "{line}");
        }
        assert!(!has_written_name(b"hits=3:1|c", |name| name == "hits"), "a valid name may contain it");
        assert!(has_written_name(b"hits=3:1|c", |name| name == "hits=3"));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        assert_eq!(show_line("é:1|c".as_bytes()), "é:1|c");
        assert_eq!(show_line(b"a\xff\xfe:1|c"), r"a\xff\xfe:1|c");
        assert_eq!(show_line(b"\xe2\x82"), r"\xe2\x82");
    }
}
