//! The output of commands: text, tables, JSON. Colours only on a terminal.
//!
//! Text for people goes through [`SafeText`], which escapes control characters on terminals and in pipes alike: what a pipe
//! collects is often shown on a terminal later (`less -R`, a CI log). JSON keeps its value exactly.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;

use super::text::{SafeText, escape_json, escape_lines, escape_text};
use super::units::Precision;
use super::wrap::wrap_line;

/// Standard output and standard error.
pub(super) struct Console {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    terminal: bool,
    width: Option<usize>,
    /// The width of the terminal on standard error, if it is one.
    err_width: Option<usize>,
    coloured: bool,
}

impl Console {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let width =
            terminal.then(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))).flatten();
        // https://no-color.org
        let coloured = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let err_width = terminal_size::terminal_size_of(io::stderr()).map(|(width, _)| usize::from(width.0));
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            terminal,
            width,
            err_width,
            coloured,
        }
    }

    /// How exactly numbers and ids are printed: every digit in a pipe, and on a terminal if `raw` asks for it.
    pub(super) fn choose_precision(&self, raw: bool) -> Precision {
        if raw || !self.terminal { Precision::Exact } else { Precision::Rounded }
    }

    /// Whether standard output is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The width of the terminal in columns, if it is one.
    pub(super) fn terminal_width(&self) -> Option<usize> {
        self.width
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// Writes a page that this program contains, such as the reference of settings, unchanged.
    pub(super) fn write_page(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)
    }

    /// Writes lines in a format for programs, such as Prometheus text: exact in files and pipes, escaped on a terminal.
    pub(super) fn write_data(&mut self, text: &str) -> io::Result<()> {
        if self.terminal { self.write(escape_lines(text).as_bytes()) } else { self.write(text.as_bytes()) }
    }

    pub(super) fn write_line(&mut self, text: impl Into<SafeText>) -> io::Result<()> {
        self.write(format!("{}\n", text.into().as_str()).as_bytes())
    }

    /// Writes several lines at once, so that a redrawn table does not flicker.
    pub(super) fn write_lines(&mut self, lines: impl Iterator<Item = SafeText>) -> io::Result<()> {
        let mut text = String::new();
        for line in lines {
            text.push_str(line.as_str());
            text.push('\n');
        }
        self.write(text.as_bytes())
    }

    /// Writes a line to standard error; on a terminal it is broken between words. A failure is ignored: there is no other place to
    /// report it.
    pub(super) fn write_stderr_line(&mut self, text: impl AsRef<str>) {
        for line in wrap_line(&escape_text(text.as_ref()), self.err_width) {
            let _unreportable = writeln!(self.err, "{line}");
        }
    }

    /// Writes a message of several lines to standard error, such as a list of errors.
    pub(super) fn write_stderr_lines(&mut self, text: &str) {
        text.split('\n').for_each(|line| self.write_stderr_line(line));
    }

    /// Writes indented JSON, in the format of all commands.
    pub(super) fn write_json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let value = serde_json::to_value(value)?;
        let mut text = String::new();
        write_indented_json(&mut text, &value, 0, false);
        self.write_json_line(&text)
    }

    /// Writes a JSON document as the agent sent it.
    pub(super) fn write_json_line(&mut self, json: &str) -> io::Result<()> {
        self.write(format!("{}\n", escape_json(json)).as_bytes())
    }

    /// Writes one JSON document per line.
    pub(super) fn write_ndjson<T: Serialize>(
        &mut self,
        values: impl IntoIterator<Item = T>,
    ) -> io::Result<()> {
        let mut text = String::new();
        for value in values {
            text.push_str(&serde_json::to_string(&value)?);
            text.push('\n');
        }
        self.write(escape_json(&text).as_bytes())
    }

    /// Bold on a terminal.
    pub(super) fn style_bold(&self, text: impl Into<SafeText>) -> SafeText {
        self.apply_style("1", text)
    }

    /// Dimmed on a terminal.
    pub(super) fn style_dimmed(&self, text: impl Into<SafeText>) -> SafeText {
        self.apply_style("2", text)
    }

    pub(super) fn style_success(&self, text: impl Into<SafeText>) -> SafeText {
        self.apply_style("32", text)
    }

    pub(super) fn style_warning(&self, text: impl Into<SafeText>) -> SafeText {
        self.apply_style("33", text)
    }

    pub(super) fn style_error(&self, text: impl Into<SafeText>) -> SafeText {
        self.apply_style("31", text)
    }

    fn apply_style(&self, style: &str, text: impl Into<SafeText>) -> SafeText {
        if self.coloured { SafeText::with_style(style, text) } else { text.into() }
    }
}

/// JSON indented by four spaces with one key per line, as the DC/OS CLI printed it. Tags stay on one line, so that
/// `grep` with context shows a name with its value, unit, timestamp and tags.
fn write_indented_json(out: &mut String, value: &Value, depth: usize, flat: bool) {
    let indent = |out: &mut String, depth: usize| {
        if !flat {
            out.push('\n');
            out.extend(std::iter::repeat_n("    ", depth));
        }
    };
    match value {
        Value::Array(values) if !values.is_empty() => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                out.push_str(if index == 0 {
                    ""
                } else if flat {
                    ", "
                } else {
                    ","
                });
                indent(out, depth + 1);
                write_indented_json(out, value, depth + 1, flat);
            }
            indent(out, depth);
            out.push(']');
        }
        Value::Object(entries) if !entries.is_empty() => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push_str(if index == 0 {
                    ""
                } else if flat {
                    ", "
                } else {
                    ","
                });
                indent(out, depth + 1);
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push_str(": ");
                write_indented_json(out, value, depth + 1, flat || key == "tags");
            }
            indent(out, depth);
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
impl Console {
    /// A console whose output a test reads, on a terminal of this width without colours or in a pipe.
    pub(super) fn with_capture(terminal: Option<usize>) -> (Self, Captured) {
        let captured = Captured::default();
        let out = Box::new(captured.clone());
        let err = Box::new(io::sink());
        let (width, err_width) = (terminal, None);
        (Self { out, err, terminal: terminal.is_some(), width, err_width, coloured: false }, captured)
    }
}

/// The standard output of a test's console.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Captured(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

#[cfg(test)]
impl Captured {
    pub(super) fn take_text(&self) -> String {
        String::from_utf8(self.0.take()).unwrap_or_default()
    }
}

#[cfg(test)]
impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The captured standard output.
    fn written(terminal: bool, write: impl FnOnce(&mut Console) -> io::Result<()>) -> String {
        let (mut out, captured) = Console::with_capture(terminal.then_some(80));
        write(&mut out).unwrap();
        captured.take_text()
    }

    #[test]
    fn text_for_people_is_escaped_everywhere_and_text_for_programs_on_terminals() {
        let hostile = "a\u{1b}[2J\n";
        for terminal in [true, false] {
            assert_eq!(written(terminal, |out| out.write_line(hostile)), "a\\x1b[2J\\n\n");
        }
        assert_eq!(written(false, |out| out.write_data(hostile)), hostile);
        assert_eq!(written(true, |out| out.write_data(hostile)), "a\\x1b[2J\n");
    }

    #[test]
    fn json_has_no_character_that_a_terminal_obeys_and_the_same_value() {
        let value = Value::from("\u{1b}]52;c;\u{7}\u{9b}\u{202e}");
        for text in [
            written(true, |out| out.write_json(&value)),
            written(true, |out| out.write_ndjson([&value])),
            written(true, |out| out.write_json_line(&value.to_string())),
        ] {
            assert!(text.trim_end().is_ascii(), "{text:?}");
            assert!(!text.trim_end().contains(char::is_control), "{text:?}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn json_has_one_key_a_line_but_tags_on_one() {
        let value = serde_json::json!([{"name": "a", "tags": {"k": "v", "l": ["x", "y"]}, "agg": {"p50": 1.5}, "no": []}]);
        let mut text = String::new();
        write_indented_json(&mut text, &value, 0, false);
        assert_eq!(
            text,
            "[\n    {\n        \"name\": \"a\",\n        \"tags\": {\"k\": \"v\", \"l\": [\"x\", \"y\"]},\n        \
             \"agg\": {\n            \"p50\": 1.5\n        },\n        \"no\": []\n    }\n]"
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
