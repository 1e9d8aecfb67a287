//! Paragraphs of `doctor` and `explain`: a mark, a label, and texts beside them.

use super::output::Console;
use super::text::SafeText;
use super::wrap::wrap_words;

/// The narrowest text beside its label. On a narrower terminal it stands below.
const NARROWEST: usize = 30;

/// Writes the mark and the label, which take `indent` cells, and the texts beside them, each on a line of its own.
///
/// On a terminal a text that is longer than the line is broken between words, and continues on the next line with an indent.
pub(super) fn write_paragraph<'t>(
    mark: SafeText,
    label: &str,
    indent: usize,
    texts: impl IntoIterator<Item = &'t str>,
    out: &mut Console,
) -> std::io::Result<()> {
    let terminal = out.terminal_width();
    let below = terminal.is_some_and(|width| width < indent + NARROWEST);
    let spaces = " ".repeat(if below { 2 } else { indent });
    let wrap = |text: &'t str| match terminal {
        Some(width) => {
            wrap_words(text, width.saturating_sub(spaces.len()), width.saturating_sub(spaces.len()))
        }
        None => vec![text.to_owned()],
    };
    let mut texts = texts.into_iter().flat_map(wrap);
    let first = match below {
        true => mark + label.trim_end(),
        false => mark + label + texts.next().unwrap_or_default(),
    };
    out.write_lines(std::iter::once(first).chain(texts.map(|text| SafeText::from(&spaces) + text)))
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

    #[test]
    fn a_long_text_is_broken_between_words_below_its_beginning() {
        let (mut out, captured) = Console::with_capture(Some(40));
        let text = "clients put a prefix before every name, and the agent";
        write_paragraph("ok".into(), "  guard  ", 9, [text, "leave it"], &mut out).unwrap();
        assert_eq!(
            captured.take_text(),
            "ok  guard  clients put a prefix before\n         every name, and the agent\n         leave it\n"
        );
    }
}
