//! Prose on a terminal: broken between words, with the following lines indented.

use super::cells::count_cells;
use super::text::escape_text;

/// Breaks a text between words into lines: the first of at most `first` cells, the others of at most `rest`.
///
/// A word that is longer than a line has one of its own, which the terminal breaks. So has a command in backticks: with a line break
/// in it, it could not be copied.
pub(super) fn wrap_words(text: &str, first: usize, rest: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in split_words(&escape_text(text)) {
        let room = if lines.len() == 1 { first } else { rest };
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if count_cells(line) + 1 + count_cells(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Wraps a line of prose to a terminal, if there is one. Lines after the first are indented by two cells more than it.
pub(super) fn wrap_line(text: &str, terminal: Option<usize>) -> Vec<String> {
    let Some(width) = terminal.filter(|width| count_cells(&escape_text(text)) > *width) else {
        return vec![text.to_owned()];
    };
    let indent = text.len() - text.trim_start_matches(' ').len();
    let (before, below) = (" ".repeat(indent), " ".repeat(indent + 2));
    let lines = wrap_words(text, width.saturating_sub(indent), width.saturating_sub(indent + 2));
    let starts = std::iter::once(&before).chain(std::iter::repeat(&below));
    starts.zip(lines).map(|(start, line)| format!("{start}{line}")).collect()
}

/// The words between spaces. A span in backticks is a part of one word.
fn split_words(text: &str) -> Vec<&str> {
    let mut quoted = false;
    let between = |c: char| {
        quoted ^= c == '`';
        c == ' ' && !quoted
    };
    text.split(between).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_between_words_and_not_inside_of_commands() {
        assert_eq!(wrap_words("one two three", 7, 9), ["one two", "three"]);
        assert_eq!(wrap_words("one two three", 3, 9), ["one", "two three"]);
        assert_eq!(wrap_words("use `a b c` or d", 10, 10), ["use", "`a b c` or", "d"]);
        assert_eq!(wrap_words("a longer.than.a.line b", 5, 5), ["a", "longer.than.a.line", "b"]);
        assert_eq!(wrap_words("", 5, 5), [""]);
    }

    #[test]
    fn the_lines_below_the_first_are_indented() {
        assert_eq!(wrap_line("  one two three", Some(10)), ["  one two", "    three"]);
        assert_eq!(wrap_line("  one two three", None), ["  one two three"]);
        assert_eq!(wrap_line("one  two", Some(8)), ["one  two"], "what fits stays as it is");
    }
}
