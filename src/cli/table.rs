//! Columns that fit the terminal.

use super::output::Console;
use super::text::{SafeText, escape_text};

/// The alignment of a column.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows under headings. On a terminal the widest columns are cut so that a row takes one line.
#[derive(Debug)]
pub(super) struct TextTable {
    headings: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

const GAP: usize = 2;
/// The width below which no column is cut.
const NARROWEST: usize = 8;

impl TextTable {
    pub(super) fn new(headings: &[(&'static str, Align)]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    pub(super) fn add_row(&mut self, cells: &[String]) {
        // Escaped here, so that widths match the printed text. A tab would break the columns.
        self.rows.push(cells.iter().map(|cell| escape_text(cell).replace('\t', "\\t")).collect());
    }

    pub(super) fn print_to(&self, out: &mut Console) -> std::io::Result<()> {
        let widths = self.column_widths(out.terminal_width());
        let headings: Vec<String> = self.headings.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        let head: SafeText = out.style_bold(self.format_row(&headings, &widths));
        let rows = self.rows.iter().map(|row| SafeText::from(self.format_row(row, &widths)));
        out.write_lines(std::iter::once(head).chain(rows))
    }

    fn column_widths(&self, terminal: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.headings.iter().map(|(heading, _)| heading.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let Some(terminal) = terminal else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > terminal {
            match widths.iter_mut().max() {
                Some(widest) if *widest > NARROWEST => *widest -= 1,
                _ => break,
            }
        }
        widths
    }

    fn format_row(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(&self.headings) {
            let cell = truncate_cell(cell, *width);
            let padding = " ".repeat(width - cell.chars().count());
            let (before, after) =
                if *align == Align::Right { (padding.as_str(), "") } else { ("", padding.as_str()) };
            line.push_str(before);
            line.push_str(&cell);
            line.push_str(after);
            line.push_str(&" ".repeat(GAP));
        }
        line.trim_end().to_owned()
    }
}

fn truncate_cell(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        let mut table = TextTable::new(&[("NAME", Align::Left), ("VALUE", Align::Right)]);
        table.add_row(&["a.very.long.name.indeed".to_owned(), "1".to_owned()]);
        table.add_row(&["b\n".to_owned(), "100000".to_owned()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = table();
        let widths = table.column_widths(None);
        assert_eq!(table.format_row(&table.rows[0], &widths), "a.very.long.name.indeed       1");
        assert_eq!(table.format_row(&table.rows[1], &widths), "b\\n                      100000");
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_column() {
        let table = table();
        let widths = table.column_widths(Some(20));
        let line = table.format_row(&table.rows[0], &widths);
        assert_eq!(line, "a.very.long…       1");
        assert_eq!(line.chars().count(), 20);
    }
}
