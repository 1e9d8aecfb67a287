//! Which columns fit.

use super::super::super::table::ColumnRank;

/// The gap between columns.
pub(super) const GAP: u16 = 2;
/// Cells that the first column keeps on the narrowest screen.
const NARROWEST_NAME: u16 = 8;
/// Cells that the first column has if there is room. More would put the numbers far from short names.
const USUAL_NAME: u16 = 24;

/// A column beside the first one, which takes the rest of the line.
#[derive(Copy, Clone, Debug)]
pub(super) struct ColumnWidth<C> {
    pub(super) column: C,
    pub(super) width: u16,
    /// Its width if there is more room than all columns need.
    pub(super) widest: u16,
    pub(super) rank: ColumnRank,
    /// Whether it says anything in any row.
    pub(super) has_content: bool,
}

/// The columns that fit beside the names, in their order and with the widths that they get, and the width of the names.
///
/// Names are shown in full up to half of the line before further columns get room. No column is shown while there is no room for
/// one that matters more. The column that the list is sorted by is always shown, or the first one if it is sorted by names.
pub(super) fn choose_columns<C: Copy + PartialEq>(
    columns: &[ColumnWidth<C>],
    sort: C,
    longest_name: usize,
    width: u16,
) -> (Vec<ColumnWidth<C>>, u16) {
    let longest = u16::try_from(longest_name).unwrap_or(u16::MAX);
    let names = longest.min(width / 2).max(NARROWEST_NAME);
    let mut ranked = columns.to_vec();
    ranked.sort_by_key(|column| (column.column != sort, !column.has_content, column.rank));
    let mut left = width.saturating_sub(names);
    let mut chosen = Vec::new();
    for column in ranked {
        let needed = column.width + GAP;
        let always = chosen.is_empty() && width.saturating_sub(NARROWEST_NAME) >= needed;
        if needed > left && !always {
            break;
        }
        left = left.saturating_sub(needed);
        chosen.push(column.column);
    }
    let mut shown: Vec<_> =
        columns.iter().filter(|column| chosen.contains(&column.column)).copied().collect();
    let taken: u16 = shown.iter().map(|column| column.width + GAP).sum();
    let rest = width.saturating_sub(taken);
    let names = rest.min(longest.max(USUAL_NAME));
    let mut spare = rest - names;
    for column in &mut shown {
        let more = (column.widest - column.width).min(spare);
        (column.width, spare) = (column.width + more, spare - more);
    }
    (shown, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [ColumnWidth<char>; 3] = [
        ColumnWidth { column: 'a', width: 8, widest: 8, rank: ColumnRank::Last, has_content: true },
        ColumnWidth { column: 'b', width: 8, widest: 8, rank: ColumnRank::Rate, has_content: true },
        ColumnWidth { column: 'c', width: 8, widest: 20, rank: ColumnRank::Series, has_content: true },
    ];

    fn chosen(sort: char, longest: usize, width: u16) -> (String, u16) {
        let (columns, names) = choose_columns(&COLUMNS, sort, longest, width);
        (columns.iter().map(|column| column.column).collect(), names)
    }

    #[test]
    fn columns_give_way_before_names_are_cut() {
        assert_eq!(chosen('b', 10, 80), ("abc".to_owned(), 24));
        assert_eq!(chosen('b', 10, 32), ("bc".to_owned(), 12));
        assert_eq!(chosen('b', 16, 32), ("b".to_owned(), 22));
        assert_eq!(chosen('b', 4000, 32), ("b".to_owned(), 22), "names get half of the line, not all of it");
    }

    #[test]
    fn a_column_that_says_nothing_goes_first() {
        let columns = COLUMNS.map(|column| ColumnWidth { has_content: column.column != 'b', ..column });
        let chosen: String =
            choose_columns(&columns, 'c', 10, 32).0.iter().map(|column| column.column).collect();
        assert_eq!(chosen, "ac");
    }

    #[test]
    fn a_narrow_column_does_not_take_the_room_of_one_that_matters_more() {
        let mut columns = COLUMNS;
        columns[0].width = 3;
        columns[2].width = 12;
        let chosen = |width| -> String {
            choose_columns(&columns, 'b', 10, width).0.iter().map(|column| column.column).collect()
        };
        assert_eq!(chosen(33), "b", "5 cells would be enough for a, which is after c");
        assert_eq!([chosen(34), chosen(39)], ["bc", "abc"]);
    }

    #[test]
    fn room_that_is_left_goes_to_long_names_and_then_to_columns_that_can_use_it() {
        let widths = |longest, width| {
            let (columns, names) = choose_columns(&COLUMNS, 'b', longest, width);
            (names, columns.iter().map(|column| column.width).collect::<Vec<_>>())
        };
        assert_eq!(widths(30, 62), (30, vec![8, 8, 10]));
        assert_eq!(widths(30, 200), (30, vec![8, 8, 20]));
        assert_eq!(widths(30, 60), (30, vec![8, 8, 8]));
    }

    #[test]
    fn the_column_of_the_order_is_always_shown() {
        assert_eq!(chosen('a', 10, 20), ("a".to_owned(), 10));
        assert_eq!(chosen('a', 4000, 18), ("a".to_owned(), 8));
        assert_eq!(chosen('a', 4000, 17), (String::new(), 17), "there is room for the names alone");
    }
}
