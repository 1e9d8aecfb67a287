//! Tables whose columns fit the terminal.

mod layout;
mod rank;

use super::cells::{count_cells, is_right_to_left, truncate_to_cells};
use super::output::Console;
use super::text::{SafeText, escape_text};
use layout::{SizedColumn, TableLayout, fit_columns};
pub(super) use rank::ColumnRank;

/// What a column holds: its alignment, and how it gives way on a narrow terminal.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum CellKind {
    /// Identifies the row, such as a metric's name. Cut last.
    Name,
    /// Cut first, such as tags.
    Text,
    /// Never cut, such as a type or an address.
    Word,
    /// Never cut, and aligned at the right.
    Number,
}

/// A column of a table.
#[derive(Copy, Clone, Debug)]
pub(super) struct Column {
    heading: &'static str,
    kind: CellKind,
    rank: Option<ColumnRank>,
}

impl Column {
    pub(super) const fn new(heading: &'static str, kind: CellKind) -> Self {
        Self { heading, kind, rank: None }
    }

    /// Allows to leave the column out where the terminal is too narrow.
    pub(super) const fn with_rank(self, rank: ColumnRank) -> Self {
        Self { rank: Some(rank), ..self }
    }
}

/// Rows under headings. In a pipe every cell is whole. On a terminal every row takes one line; a terminal that is too narrow even
/// for that gets a line for each cell.
#[derive(Debug)]
pub(super) struct TextTable {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

const GAP: usize = 2;

impl TextTable {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn add_row(&mut self, cells: &[String]) {
        // Escaped here, so that widths match the printed text. A tab would break the columns.
        self.rows.push(cells.iter().map(|cell| escape_text(cell).replace('\t', "\\t")).collect());
    }

    /// Prints the table, and which columns with content a narrow terminal has left out.
    pub(super) fn print_to(&self, out: &mut Console) -> std::io::Result<()> {
        self.print_rows_to(out)?;
        let left_out = out.terminal_width().map(|width| self.list_left_out(width)).unwrap_or_default();
        if !left_out.is_empty() {
            out.write_stderr_line(format!("too narrow for {}; -o json shows all", left_out.join(", ")));
        }
        Ok(())
    }

    /// The headings of columns with content that a terminal of this width has no room for.
    fn list_left_out(&self, terminal: usize) -> Vec<&'static str> {
        let columns = self.measure_columns();
        let TableLayout::Columns(shown) = fit_columns(columns.clone(), terminal) else { return Vec::new() };
        let is_left_out =
            |column: &&SizedColumn| column.has_content && shown.iter().all(|it| it.index != column.index);
        columns.iter().filter(is_left_out).map(|column| self.heading_of(column)).collect()
    }

    /// Prints the table alone, for a screen whose lines are counted.
    pub(super) fn print_rows_to(&self, out: &mut Console) -> std::io::Result<()> {
        let columns = self.measure_columns();
        let layout = match out.terminal_width() {
            Some(terminal) => fit_columns(columns.clone(), terminal),
            None => TableLayout::Columns(columns.clone()),
        };
        match layout {
            TableLayout::Columns(columns) => {
                let head = out.style_bold(self.format_headings(&columns));
                let reordered = out.is_terminal();
                let rows = self.rows.iter().map(|row| format_row(row, &columns, reordered));
                out.write_lines(std::iter::once(head).chain(rows))
            }
            TableLayout::Stacked => {
                let lines = self.stack_cells(&columns, out);
                out.write_lines(lines.into_iter())
            }
        }
    }

    /// The columns that have anything to show, as wide as their widest cells.
    fn measure_columns(&self) -> Vec<SizedColumn> {
        let measure = |(index, column): (usize, &Column)| {
            let heading = count_cells(column.heading);
            let cells = || self.rows.iter().filter_map(|row| row.get(index));
            let widest = cells().map(|cell| count_cells(cell)).max();
            // A table without rows shows its headings.
            (widest != Some(0)).then_some(SizedColumn {
                index,
                kind: column.kind,
                rank: column.rank,
                has_content: cells().any(|cell| says_something(cell)),
                heading,
                width: widest.unwrap_or_default().max(heading),
            })
        };
        self.columns.iter().enumerate().filter_map(measure).collect()
    }

    fn heading_of(&self, column: &SizedColumn) -> &'static str {
        self.columns.get(column.index).map_or("", |column| column.heading)
    }

    fn format_headings(&self, columns: &[SizedColumn]) -> String {
        let mut line = String::new();
        for column in columns {
            let heading = self.heading_of(column);
            let padding = " ".repeat(column.width.saturating_sub(count_cells(heading)));
            let gap = " ".repeat(GAP);
            match column.kind {
                CellKind::Number => line.extend([&padding, heading, &gap]),
                _ => line.extend([heading, &padding, &gap]),
            }
        }
        line.trim_end().to_owned()
    }

    /// A line for each cell that is not empty, below the one that identifies the row.
    fn stack_cells(&self, columns: &[SizedColumn], out: &Console) -> Vec<SafeText> {
        let width = out.terminal_width().unwrap_or(usize::MAX);
        let Some((first, rest)) = columns.split_first() else { return Vec::new() };
        let labels = rest.iter().map(|column| column.heading).max().unwrap_or_default();
        let mut lines = Vec::new();
        for row in &self.rows {
            let cell_of = |column: &SizedColumn| row.get(column.index).map_or("", String::as_str);
            lines.push(out.style_bold(&*truncate_to_cells(cell_of(first), width)));
            for (column, cell) in
                rest.iter().map(|column| (column, cell_of(column))).filter(|(_, cell)| !cell.is_empty())
            {
                let heading = self.heading_of(column);
                let line = format!("  {heading:<labels$}  {cell}");
                if count_cells(&line) <= width {
                    lines.push(line.into());
                    continue;
                }
                let cut = matches!(column.kind, CellKind::Name | CellKind::Text);
                let cell = if cut { truncate_to_cells(cell, width.saturating_sub(4)) } else { cell.into() };
                lines.extend([format!("  {heading}").into(), format!("    {cell}").into()]);
            }
        }
        lines
    }
}

/// Whether a cell has more to say than nothing or zero, with or without a unit. An age of `0s` is a time, not a zero.
fn says_something(cell: &str) -> bool {
    !matches!(cell, "" | "-" | "0") && !cell.starts_with("0 ")
}

/// A row in one line. With `reordered`, for a terminal that may show right-to-left text in its own order.
fn format_row(cells: &[String], columns: &[SizedColumn], reordered: bool) -> SafeText {
    let mut line = SafeText::default();
    // Spaces are written before the next cell, so that none are at the end of a line.
    let mut spaces = 0;
    for column in columns {
        let cell = cells.get(column.index).map_or("", String::as_str);
        let cell = truncate_to_cells(cell, column.width);
        let padding = column.width.saturating_sub(count_cells(&cell));
        let (before, after) = if column.kind == CellKind::Number { (padding, 0) } else { (0, padding) };
        if cell.is_empty() {
            spaces += padding + GAP;
            continue;
        }
        line = line + " ".repeat(spaces + before) + &*cell;
        if reordered && is_right_to_left(&cell) {
            line = line.end_right_to_left();
        }
        spaces = after + GAP;
    }
    line
}

/// The narrowest value beside its key. On a narrower terminal it stands below.
const NARROWEST_VALUE: usize = 20;

/// Prints keys and values under one another. Nothing is cut: a value that is longer than the line continues on the next, as one
/// text that can be copied.
pub(super) fn print_pairs(
    pairs: impl IntoIterator<Item = (String, SafeText)>,
    out: &mut Console,
) -> std::io::Result<()> {
    let pairs: Vec<(SafeText, SafeText)> =
        pairs.into_iter().map(|(key, value)| (key.into(), value)).collect();
    let keys = pairs.iter().map(|(key, _)| count_cells(key.as_str())).max().unwrap_or_default();
    let terminal = out.terminal_width();
    let below = terminal.is_some_and(|width| width < keys + GAP + NARROWEST_VALUE);
    let mut lines = Vec::new();
    for (key, value) in pairs {
        if below {
            lines.extend([key, SafeText::from("    ") + value]);
        } else {
            let spaces = " ".repeat(keys.saturating_sub(count_cells(key.as_str())) + GAP);
            lines.push(key + spaces + value);
        }
    }
    out.write_lines(lines.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        let mut table = TextTable::new(&[
            Column::new("NAME", CellKind::Name),
            Column::new("TYPE", CellKind::Word).with_rank(ColumnRank::Type),
            Column::new("VALUE", CellKind::Number),
            Column::new("UNIT", CellKind::Word),
        ]);
        for (name, value) in [("a.very.long.name.indeed", "1"), ("b\n", "100000"), ("זמן.תגובה", "7")]
        {
            table.add_row(&[name, "gauge", value, ""].map(str::to_owned));
        }
        table
    }

    fn lines(terminal: Option<usize>) -> Vec<String> {
        let (mut out, written) = Console::with_capture(terminal);
        table().print_to(&mut out).unwrap();
        written.take_text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_empty_ones_are_left_out() {
        assert_eq!(
            lines(None),
            [
                "NAME                     TYPE    VALUE",
                "a.very.long.name.indeed  gauge       1",
                "b\\n                      gauge  100000",
                "זמן.תגובה                gauge       7",
            ]
        );
    }

    #[test]
    fn a_row_takes_one_line_on_a_narrow_terminal() {
        assert_eq!(
            lines(Some(20)),
            [
                "NAME           VALUE",
                "a.very.long…       1",
                "b\\n           100000",
                "זמן.תגובה\u{200e}          7"
            ]
        );
    }

    #[test]
    fn a_terminal_too_narrow_for_columns_gets_a_line_for_each_cell() {
        let lines = lines(Some(14));
        assert_eq!(lines[..5], ["a.very.long.n…", "  TYPE   gauge", "  VALUE  1", "b\\n", "  TYPE   gauge"]);
        assert_eq!(lines[5..7], ["  VALUE", "    100000"]);
    }

    #[test]
    fn a_column_of_zeros_gives_way_before_one_that_is_rarely_needed() {
        let mut table = TextTable::new(&[
            Column::new("TASK", CellKind::Name),
            Column::new("TYPE", CellKind::Word).with_rank(ColumnRank::Type),
            Column::new("REJECTED", CellKind::Number).with_rank(ColumnRank::Rejected),
            Column::new("MAX", CellKind::Number).with_rank(ColumnRank::Max),
        ]);
        table.add_row(&["web.1", "set", "0", "0 ms"].map(str::to_owned));
        table.add_row(&["db", "set", "0", ""].map(str::to_owned));
        let (mut out, written) = Console::with_capture(Some(24));
        table.print_to(&mut out).unwrap();
        assert_eq!(
            written.take_text(),
            "TASK   TYPE  REJECTED\nweb.1  set          0\ndb     set          0\n"
        );
    }

    #[test]
    fn a_column_that_a_narrow_terminal_leaves_out_is_named_if_it_has_anything_to_say() {
        assert_eq!(table().list_left_out(20), ["TYPE"]);
        assert!(table().list_left_out(80).is_empty());
        assert!(table().list_left_out(14).is_empty(), "a line for each cell leaves nothing out");
        let mut table = TextTable::new(&[
            Column::new("TASK", CellKind::Name),
            Column::new("REJECTED", CellKind::Number).with_rank(ColumnRank::Rejected),
        ]);
        table.add_row(&["web.1234567890", "0"].map(str::to_owned));
        assert!(table.list_left_out(16).is_empty());
    }

    #[test]
    fn a_table_without_rows_has_its_headings() {
        let (mut out, written) = Console::with_capture(None);
        TextTable::new(&[Column::new("KEY", CellKind::Word), Column::new("N", CellKind::Number)])
            .print_to(&mut out)
            .unwrap();
        assert_eq!(written.take_text(), "KEY  N\n");
    }
}
