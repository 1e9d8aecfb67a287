//! Where a command writes: text, tables, JSON. Colours only on a terminal.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;

/// Standard output and standard error.
pub(super) struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    terminal: bool,
    width: Option<usize>,
}

impl Output {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let width =
            terminal.then(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0))).flatten();
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()), terminal, width }
    }

    /// Whether a person looks at it.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns of the terminal, if it is one.
    pub(super) fn width(&self) -> Option<usize> {
        self.width
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// To standard error; where that is gone, too, nobody is left to tell.
    pub(super) fn complain(&mut self, text: &str) {
        let _nobody_reads = writeln!(self.err, "{text}");
    }

    /// Indented JSON, as every command prints it.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let value = serde_json::to_value(value)?;
        let mut text = String::new();
        indented(&mut text, &value, 0, false);
        self.line(&text)
    }

    /// One JSON document a line.
    pub(super) fn ndjson<T: Serialize>(&mut self, values: impl IntoIterator<Item = T>) -> io::Result<()> {
        let mut text = Vec::new();
        for value in values {
            serde_json::to_writer(&mut text, &value)?;
            text.push(b'\n');
        }
        self.write(&text)
    }

    /// Text that stands out on a terminal.
    pub(super) fn strong(&self, text: &str) -> String {
        self.styled("1", text)
    }

    /// Text that stands back on a terminal.
    pub(super) fn faint(&self, text: &str) -> String {
        self.styled("2", text)
    }

    pub(super) fn good(&self, text: &str) -> String {
        self.styled("32", text)
    }

    pub(super) fn warning(&self, text: &str) -> String {
        self.styled("33", text)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.styled("31", text)
    }

    fn styled(&self, style: &str, text: &str) -> String {
        // https://no-color.org
        let plain = !self.terminal || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if plain { text.to_owned() } else { format!("\u{1b}[{style}m{text}\u{1b}[0m") }
    }
}

/// JSON with four spaces and one key a line, as the DC/OS CLI printed it; tags stay on one line, so that a `grep` for
/// a name shows its value, unit, moment and tags.
fn indented(out: &mut String, value: &Value, depth: usize, flat: bool) {
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
                indented(out, value, depth + 1, flat);
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
                indented(out, value, depth + 1, flat || key == "tags");
            }
            indent(out, depth);
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_one_key_a_line_but_tags_on_one() {
        let value = serde_json::json!([{"name": "a", "tags": {"k": "v", "l": ["x", "y"]}, "agg": {"p50": 1.5}, "no": []}]);
        let mut text = String::new();
        indented(&mut text, &value, 0, false);
        assert_eq!(
            text,
            "[\n    {\n        \"name\": \"a\",\n        \"tags\": {\"k\": \"v\", \"l\": [\"x\", \"y\"]},\n        \
             \"agg\": {\n            \"p50\": 1.5\n        },\n        \"no\": []\n    }\n]"
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
