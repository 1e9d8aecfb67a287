//! Paragraphs of `doctor` and `explain`: a mark, a label, and texts beside them.

use super::output::Console;
use super::text::SafeText;

/// The narrowest text beside its label. On a narrower terminal it stands below.
const NARROWEST: usize = 30;

/// Writes the mark and the label, which take `indent` cells, and the texts beside them, each on a line of its own.
///
/// A text that is longer than the line continues on the next as the terminal does it, so that a command in it can be copied.
pub(super) fn write_paragraph<'t>(
    mark: SafeText,
    label: &str,
    indent: usize,
    texts: impl IntoIterator<Item = &'t str>,
    out: &mut Console,
) -> std::io::Result<()> {
    let below = out.terminal_width().is_some_and(|width| width < indent + NARROWEST);
    let mut texts = texts.into_iter();
    let (first, spaces) = if below {
        (vec![mark + label.trim_end()], "  ".to_owned())
    } else {
        (vec![mark + label + texts.next().unwrap_or_default()], " ".repeat(indent))
    };
    out.write_lines(first.into_iter().chain(texts.map(|text| SafeText::from(&spaces) + text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(terminal: Option<usize>) -> String {
        let (mut out, captured) = Console::with_capture(terminal);
        write_paragraph("ok".into(), "  guard  ", 9, ["it is on\n", "leave it"], &mut out).unwrap();
        captured.take_text()
    }

    #[test]
    fn texts_stand_beside_their_label_and_below_it_on_a_narrow_terminal() {
        let beside = "ok  guard  it is on\\n\n         leave it\n";
        assert_eq!(written(None), beside);
        assert_eq!(written(Some(39)), beside);
        assert_eq!(written(Some(38)), "ok  guard\n  it is on\\n\n  leave it\n");
    }
}
