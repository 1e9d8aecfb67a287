//! Text for people, in which no input from outside can control the terminal.

use std::fmt::Write as _;
use std::ops::Add;

/// One line of text that is safe to print.
///
/// Plain strings become `SafeText` by escaping. Only [`SafeText::with_style`] adds control sequences, so a name, tag, label or file
/// cannot move the cursor, set the clipboard or reorder a line, whichever command prints it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct SafeText(String);

impl SafeText {
    /// The text between a terminal's control sequence for a style and the one that ends it.
    pub(super) fn with_style(style: &str, text: impl Into<Self>) -> Self {
        Self(format!("\u{1b}[{style}m{}\u{1b}[0m", text.into().0))
    }

    /// Moves to the top left corner of an emptied screen.
    pub(super) fn clear_screen() -> Self {
        Self("\u{1b}[H\u{1b}[2J".to_owned())
    }

    /// The same text with U+200E after it. A terminal that reorders right-to-left text would otherwise count the numbers that
    /// follow as a part of it, and show the columns of a table in another order.
    pub(super) fn end_right_to_left(mut self) -> Self {
        self.0.push('\u{200e}');
        self
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SafeText {
    fn from(text: &str) -> Self {
        Self(escape_text(text))
    }
}

impl From<&String> for SafeText {
    fn from(text: &String) -> Self {
        Self(escape_text(text))
    }
}

impl From<String> for SafeText {
    fn from(text: String) -> Self {
        Self(escape_text(&text))
    }
}

impl<T: Into<Self>> Add<T> for SafeText {
    type Output = Self;

    fn add(mut self, more: T) -> Self {
        self.0.push_str(&more.into().0);
        self
    }
}

/// Replaces characters that a terminal interprets or does not show by `\n`, `\x1b` or `\u{202e}`. Tabs and backslashes
/// stay, since this is for people; programs that need the exact text read JSON.
pub(super) fn escape_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            _ if !is_unsafe(c) => escaped.push(c),
            _ if u32::from(c) <= 0xff => {
                let _infallible = write!(escaped, "\\x{:02x}", u32::from(c));
            }
            _ => escaped.extend(c.escape_unicode()),
        }
    }
    escaped
}

/// Escapes each line of a text of several lines.
pub(super) fn escape_lines(text: &str) -> String {
    text.split('\n').map(escape_text).collect::<Vec<_>>().join("\n")
}

/// The same JSON document without characters that a terminal interprets. JSON writers escape C0 controls themselves;
/// other unsafe characters can only occur inside strings, where `\u` escapes mean the same.
pub(super) fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) && !c.is_ascii_whitespace() {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _infallible = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether a terminal interprets the character or displays it misleadingly: C0 and C1 controls, line and paragraph
/// separators, bidirectional controls (Unicode TR 36, 3.8), and characters without a glyph. The joiners U+200C and
/// U+200D are left: scripts and emoji need them.
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_nothing_else_changes() {
        for (text, shown) in [
            ("plain é 漢 👩\u{200d}🚒 a\\b", "plain é 漢 👩\u{200d}🚒 a\\b"),
            ("\u{1b}]52;c;aGk=\u{7}", "\\x1b]52;c;aGk=\\x07"),
            ("\0 \u{7f} \u{9b}31m", "\\x00 \\x7f \\x9b31m"),
            ("a\tb\r\nc", "a\tb\\r\\nc"),
            ("\u{202e}cod.exe\u{2066}\u{2028}", "\\u{202e}cod.exe\\u{2066}\\u{2028}"),
            ("\u{feff}\u{200b}\u{e0041}", "\\u{feff}\\u{200b}\\u{e0041}"),
        ] {
            assert_eq!(SafeText::from(text).as_str(), shown);
        }
        assert_eq!(escape_lines("a\tb\u{1b}\nc\0"), "a\tb\\x1b\nc\\x00");
    }

    #[test]
    fn only_styles_of_this_program_reach_the_terminal() {
        let text = SafeText::with_style("1", "a\u{1b}[0m") + " " + "\u{1b}[2J";
        assert_eq!(text.as_str(), "\u{1b}[1ma\\x1b[0m\u{1b}[0m \\x1b[2J");
    }

    #[test]
    fn escaped_json_is_the_same_document() {
        let value = serde_json::json!({"k\u{9b}": "\u{1b}\0\u{7f}\u{202e}\u{e0041}\u{85}\u{2028}é\n\"\\"});
        for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let escaped = escape_json(&json);
            assert!(escaped.chars().all(|c| c == '\n' || !is_unsafe(c)), "{escaped:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        }
    }
}
