//! Widths of the columns of a table.

use super::{CellKind, ColumnRank, GAP};

/// The width below which the column that identifies a row is never cut.
const NARROWEST_NAME: usize = 10;
/// The same for other text, while a column can be left out instead.
const NARROW_TEXT: usize = 12;
/// The same for other text.
const NARROWEST_TEXT: usize = 8;

/// A column that is shown, and its width in cells.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct SizedColumn {
    /// Its position in the rows.
    pub(super) index: usize,
    pub(super) kind: CellKind,
    /// See [`super::Column::with_rank`].
    pub(super) rank: Option<ColumnRank>,
    /// Whether any cell says something: is not empty, and not zero.
    pub(super) has_content: bool,
    /// The width of the heading, which is never cut.
    pub(super) heading: usize,
    pub(super) width: usize,
}

/// How a table is printed.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum TableLayout {
    /// One line for each row.
    Columns(Vec<SizedColumn>),
    /// One line for each cell: the terminal is too narrow for columns.
    Stacked,
}

/// Makes columns fit a terminal.
///
/// Text gives way first, down to an eighth of the terminal, so that one endless name does not take the tags of all other rows.
/// Then names give way, down to an equal share of half the terminal. After that, columns are left out: first those without
/// content, then the others, both from the last rank on. Text and names are cut further only when no column can be left out any more.
pub(super) fn fit_columns(mut columns: Vec<SizedColumn>, terminal: usize) -> TableLayout {
    let names = columns.iter().filter(|column| column.kind == CellKind::Name).count();
    let narrow_name = (terminal / (1 + names)).max(NARROWEST_NAME);
    let narrow_text = (terminal / 8).max(NARROW_TEXT);
    loop {
        let mut fitted = columns.clone();
        if shrink_columns(&mut fitted, terminal, narrow_text, narrow_name) {
            return TableLayout::Columns(fitted);
        }
        let droppable = columns.iter().enumerate().filter(|(_, column)| column.rank.is_some());
        match droppable.max_by_key(|(_, column)| (!column.has_content, column.rank)) {
            Some((at, _)) => columns.remove(at),
            None => break,
        };
    }
    match shrink_columns(&mut columns, terminal, NARROWEST_TEXT, NARROWEST_NAME) {
        true => TableLayout::Columns(columns),
        false => TableLayout::Stacked,
    }
}

/// Narrows text, then names, until the columns fit. Returns whether they do.
fn shrink_columns(
    columns: &mut [SizedColumn],
    terminal: usize,
    narrowest_text: usize,
    narrowest_name: usize,
) -> bool {
    for (kind, narrowest) in [(CellKind::Text, narrowest_text), (CellKind::Name, narrowest_name)] {
        while sum_widths(columns) > terminal {
            let shrinkable = |column: &&mut SizedColumn| {
                column.kind == kind && column.width > narrowest.max(column.heading)
            };
            match columns.iter_mut().filter(shrinkable).max_by_key(|column| column.width) {
                Some(widest) => widest.width -= 1,
                None => break,
            }
        }
    }
    sum_widths(columns) <= terminal
}

/// The width of a row.
fn sum_widths(columns: &[SizedColumn]) -> usize {
    let gaps = GAP * columns.len().saturating_sub(1);
    columns.iter().map(|column| column.width).sum::<usize>() + gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: CellKind, width: usize, rank: Option<ColumnRank>) -> SizedColumn {
        SizedColumn { index: 0, kind, rank, has_content: true, heading: 4, width }
    }

    fn columns() -> Vec<SizedColumn> {
        vec![
            column(CellKind::Name, 30, None),
            column(CellKind::Word, 10, Some(ColumnRank::State)),
            column(CellKind::Number, 6, None),
            column(CellKind::Text, 20, Some(ColumnRank::Tags)),
        ]
    }

    fn widths(terminal: usize) -> Vec<usize> {
        match fit_columns(columns(), terminal) {
            TableLayout::Columns(columns) => columns.iter().map(|column| column.width).collect(),
            TableLayout::Stacked => Vec::new(),
        }
    }

    #[test]
    fn text_gives_way_before_a_name_and_a_name_after_every_column_that_can_be_left_out() {
        assert_eq!(widths(72), [30, 10, 6, 20], "everything fits");
        assert_eq!(widths(71), [30, 10, 6, 19], "text gives way first");
        assert_eq!(widths(64), [30, 10, 6, 12]);
        assert_eq!(widths(63), [30, 6, 20], "then columns are left out in their order");
        assert_eq!(widths(52), [30, 6, 12]);
        assert_eq!(widths(43), [21, 6, 12], "before that, names wider than half of the terminal give way");
        assert_eq!(widths(40), [30, 6]);
        assert_eq!(widths(35), [27, 6], "then the name is cut further");
        assert_eq!(widths(18), [10, 6]);
        assert!(widths(17).is_empty(), "then there is a line for each cell");
    }

    #[test]
    fn columns_that_say_nothing_are_left_out_before_those_that_do() {
        let mut columns = columns();
        columns[3].has_content = false;
        let TableLayout::Columns(fitted) = fit_columns(columns.clone(), 63) else { panic!() };
        assert_eq!(fitted.iter().map(|column| column.width).collect::<Vec<_>>(), [30, 10, 6]);
        columns[0].has_content = false;
        let TableLayout::Columns(fitted) = fit_columns(columns, 40) else { panic!() };
        assert_eq!(
            fitted.iter().map(|column| column.width).collect::<Vec<_>>(),
            [20, 10, 6],
            "never the first"
        );
    }

    #[test]
    fn words_and_numbers_are_never_cut() {
        for terminal in 18..100 {
            let TableLayout::Columns(fitted) = fit_columns(columns(), terminal) else { panic!("{terminal}") };
            assert!(sum_widths(&fitted) <= terminal);
            for column in fitted {
                let natural = columns().iter().any(|it| it.kind == column.kind && it.width == column.width);
                assert!(natural || matches!(column.kind, CellKind::Name | CellKind::Text), "{terminal}");
            }
        }
    }

    #[test]
    fn two_names_share_what_one_would_have() {
        let columns = vec![column(CellKind::Name, 64, None), column(CellKind::Name, 20, None)];
        let TableLayout::Columns(fitted) = fit_columns(columns, 62) else { panic!() };
        assert_eq!(fitted.iter().map(|column| column.width).collect::<Vec<_>>(), [40, 20]);
    }
}
