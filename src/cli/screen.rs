//! The size of the terminal, and text that fits it.

use super::cells::truncate_to_cells;
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
    match width {
        0 => String::new(),
        _ => truncate_to_cells(&clean_text(text), width).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cleaned_before_it_is_cut() {
        for (text, width, cut) in [
            ("漢字漢字", 7, "漢字漢…"),
            ("x\u{1b}[2J\ty", 20, "x\\x1b[2J\\ty"),
            ("x\u{1b}[2J", 4, "x\\x…"),
            ("anything", 0, ""),
            ("anything", 1, "…"),
        ] {
            assert_eq!(cut_text(text, width), cut, "{text:?} {width}");
        }
    }
}
