//! The size of the terminal, and text that fits it.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::output::Console;
use super::text::escape_text;

/// Columns and lines of the terminal that standard output is; `None` for a pipe or a file.
pub(super) fn read_screen_size(out: &Console) -> Option<(usize, usize)> {
    if !out.is_terminal() {
        return None;
    }
    let (width, height) = terminal_size::terminal_size()?;
    // Some serial consoles report no size at all.
    let known = |cells: u16, usual: usize| if cells == 0 { usual } else { usize::from(cells) };
    Some((known(width.0, 80), known(height.0, 24)))
}

/// Text for one line of the screen: safe to print, without tabs.
pub(super) fn clean_text(text: &str) -> String {
    escape_text(text).replace('\t', "\\t")
}

/// The same text, cleaned, if it takes no more than `width` cells; otherwise its beginning and `…`.
pub(super) fn cut_text(text: &str, width: usize) -> String {
    let text = clean_text(text);
    if text.width() <= width {
        return text;
    }
    let Some(mut left) = width.checked_sub(1) else { return String::new() };
    let fits = |c: &char| match left.checked_sub(c.width().unwrap_or(0)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_cells_and_not_by_characters() {
        for (text, width, cut) in [
            ("plain", 5, "plain"),
            ("plain", 4, "pla…"),
            ("漢字漢字", 8, "漢字漢字"),
            ("漢字漢字", 7, "漢字漢…"),
            ("漢字漢字", 6, "漢字…"),
            ("a\u{301}b", 2, "a\u{301}b"),
            ("x\u{1b}[2J\ty", 20, "x\\x1b[2J\\ty"),
            ("anything", 0, ""),
            ("anything", 1, "…"),
        ] {
            assert_eq!(cut_text(text, width), cut, "{text:?} {width}");
        }
    }
}
