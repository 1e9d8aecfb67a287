//! CSV output (RFC 4180): a line of headings, then one line for each row, with exact values.

use csv::{Terminator, WriterBuilder};
use serde_json::Value;

use super::output::Console;
use super::text::escape_text;

/// Writes rows below headings. In a pipe or a file every cell is exact and lines end with CRLF, as RFC 4180 asks. On a terminal
/// cells are escaped and lines end with LF.
///
/// A cell that begins with `=`, `+`, `-` or `@` is not changed, although spreadsheet programs take it for a formula: programs
/// would read another name, and negative numbers begin with `-`. The reference page warns of it.
pub(super) fn write_csv(
    headings: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
    out: &mut Console,
) -> std::io::Result<()> {
    let on_terminal = out.is_terminal();
    let terminator = if on_terminal { Terminator::Any(b'\n') } else { Terminator::CRLF };
    let mut writer = WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
    writer.write_record(headings)?;
    for row in rows {
        match on_terminal {
            true => writer.write_record(row.iter().map(|cell| escape_text(cell)))?,
            false => writer.write_record(&row)?,
        }
    }
    let bytes = writer.into_inner().map_err(|error| std::io::Error::other(error.to_string()))?;
    // `write_data` would escape the CR at the end of each line on a terminal, where none is written.
    out.write_data(&String::from_utf8_lossy(&bytes))
}

/// A value of a JSON document as a cell: text without quotes, nothing for `null`, anything else as JSON.
pub(super) fn format_cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "=1+1\u{1b}[2J,\"q\"\r\nend";

    fn written(terminal: Option<usize>) -> String {
        let (mut out, captured) = Console::with_capture(terminal);
        let rows = [vec![HOSTILE.to_owned(), "-7".to_owned()], vec![String::new(), "é".to_owned()]];
        write_csv(&["name", "value"], rows, &mut out).unwrap();
        captured.take_text()
    }

    #[test]
    fn cells_are_exact_in_a_pipe() {
        let text = written(None);
        assert_eq!(text, "name,value\r\n\"=1+1\u{1b}[2J,\"\"q\"\"\r\nend\",-7\r\n,é\r\n");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows[0], [HOSTILE, "-7"][..]);
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        assert_eq!(written(Some(80)), "name,value\n\"=1+1\\x1b[2J,\"\"q\"\"\\r\\nend\",-7\n,é\n");
    }

    #[test]
    fn documents_become_cells_of_json() {
        let tags = serde_json::json!({"route": "/pay", "shop": ["a", "b"]});
        assert_eq!(format_cell(Some(&tags)), r#"{"route":"/pay","shop":["a","b"]}"#);
        assert_eq!(format_cell(Some(&Value::from(1.5))), "1.5");
        assert_eq!((format_cell(Some(&Value::Null)), format_cell(None)), (String::new(), String::new()));
    }
}
