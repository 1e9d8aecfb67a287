//! A list that is sorted and filtered while its rows change.

use super::super::listing::SortCell;

/// A column that a list can be sorted by.
pub(super) trait SortColumn: Copy + PartialEq + 'static {
    /// All columns, in the order in which keys choose them.
    const ALL: &'static [Self];

    /// Whether its cells are numbers, of which the largest comes first unless the order is reversed.
    fn is_largest_first(self) -> bool;
}

/// The order, the filter and the selection of a list whose rows have keys `K`.
#[derive(Debug)]
pub(super) struct SortedList<K, C> {
    pub(super) sort: C,
    pub(super) reversed: bool,
    /// Words that a row must contain.
    pub(super) filter: String,
    order: Vec<K>,
    /// The selected row, which stays selected wherever it moves. `None` is the first row, whichever that is.
    selected: Option<K>,
    index: usize,
    offset: usize,
}

impl<K: Clone + Ord, C: SortColumn> SortedList<K, C> {
    pub(super) fn new(sort: C) -> Self {
        Self {
            sort,
            reversed: false,
            filter: String::new(),
            order: Vec::new(),
            selected: None,
            index: 0,
            offset: 0,
        }
    }

    /// Filters and sorts the rows. `read` returns the text to search and the key to sort by.
    pub(super) fn arrange_rows<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a K>,
        read: impl Fn(&K, C) -> (String, SortCell<'static>),
    ) where
        K: 'a,
    {
        let words: Vec<String> = self.filter.split_whitespace().map(str::to_lowercase).collect();
        let mut fitting: Vec<(SortCell<'_>, &K)> = rows
            .filter_map(|key| {
                let (text, sort) = read(key, self.sort);
                let text = text.to_lowercase();
                words.iter().all(|word| text.contains(word)).then_some((sort, key))
            })
            .collect();
        // Equal rows keep the order of their keys in both directions, so that they do not jump.
        fitting.sort_by(|(a, first), (b, second)| {
            a.compare_to(b, self.reversed).then_with(|| first.cmp(second))
        });
        self.order = fitting.into_iter().map(|(_, key)| key.clone()).collect();
        self.find_selected();
    }

    /// Finds the selected row again. If it is gone, the row in its place is selected.
    fn find_selected(&mut self) {
        let Some(selected) = &self.selected else {
            self.index = 0;
            return;
        };
        match self.order.iter().position(|key| key == selected) {
            Some(at) => self.index = at,
            None => self.select_index(self.index),
        }
    }

    fn select_index(&mut self, index: usize) {
        self.index = index.min(self.order.len().saturating_sub(1));
        self.selected = self.order.get(self.index).cloned();
    }

    /// Moves the selection by this many rows, up if negative.
    pub(super) fn move_by(&mut self, rows: isize) {
        self.select_index(self.index.saturating_add_signed(rows));
    }

    /// Selects the first row, and whichever is first later.
    pub(super) fn select_first(&mut self) {
        (self.selected, self.index) = (None, 0);
    }

    pub(super) fn select_last(&mut self) {
        self.select_index(usize::MAX);
    }

    /// The selected row.
    pub(super) fn selected_key(&self) -> Option<&K> {
        self.order.get(self.index)
    }

    /// How many rows fit the filter.
    pub(super) fn count_rows(&self) -> usize {
        self.order.len()
    }

    /// The rows of a page of this height with the selected row on it, and the place of that row.
    pub(super) fn page_of(&mut self, height: usize) -> (&[K], usize) {
        if height == 0 {
            return (&[], 0);
        }
        let last_offset = self.order.len().saturating_sub(height);
        let lowest = (self.index + 1).saturating_sub(height);
        self.offset = self.offset.clamp(lowest, self.index).min(last_offset.max(lowest));
        let end = (self.offset + height).min(self.order.len());
        (self.order.get(self.offset..end).unwrap_or_default(), self.index - self.offset)
    }

    /// Sorts by the next column, or by the one before.
    pub(super) fn choose_column(&mut self, forward: bool) {
        let all = C::ALL;
        let at = all.iter().position(|column| *column == self.sort).unwrap_or(0);
        let next = if forward { at + 1 } else { at + all.len() - 1 } % all.len();
        self.sort = all.get(next).copied().unwrap_or(self.sort);
        self.reversed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Copy, Clone, PartialEq, Debug)]
    enum Column {
        Name,
        Number,
    }

    impl SortColumn for Column {
        const ALL: &'static [Self] = &[Self::Name, Self::Number];

        fn is_largest_first(self) -> bool {
            self == Self::Number
        }
    }

    /// A list of names, each with a number.
    struct Sample {
        rows: Vec<(String, f64)>,
        list: SortedList<String, Column>,
    }

    impl Sample {
        fn new(rows: &[(&str, f64)]) -> Self {
            let mut sample = Self { rows: Vec::new(), list: SortedList::new(Column::Number) };
            sample.replace(rows);
            sample
        }

        fn replace(&mut self, rows: &[(&str, f64)]) {
            self.rows = rows.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
            self.arrange();
        }

        fn arrange(&mut self) {
            let rows = self.rows.clone();
            let number = |key: &String| rows.iter().find(|(name, _)| name == key).unwrap().1;
            self.list.arrange_rows(rows.iter().map(|(name, _)| name), |key, column| {
                let sort = match column {
                    Column::Name => SortCell::Text(key.clone().into()),
                    Column::Number => SortCell::Number(number(key)),
                };
                (key.clone(), sort)
            });
        }

        fn page(&mut self, height: usize) -> (Vec<String>, usize) {
            let (rows, selected) = self.list.page_of(height);
            (rows.to_vec(), selected)
        }
    }

    #[test]
    fn the_largest_numbers_come_first_and_names_from_a_to_z() {
        let mut sample = Sample::new(&[("b", 1.0), ("a", 1.0), ("c", 3.0)]);
        assert_eq!(sample.page(9).0, ["c", "a", "b"]);
        sample.list.reversed = true;
        sample.arrange();
        assert_eq!(sample.page(9).0, ["a", "b", "c"]);
        sample.list.choose_column(true);
        sample.arrange();
        assert_eq!((sample.list.sort, sample.page(9).0.join("")), (Column::Name, "abc".to_owned()));
        sample.list.choose_column(false);
        assert_eq!((sample.list.sort, sample.list.reversed), (Column::Number, false));
    }

    #[test]
    fn the_selection_stays_on_its_row_when_the_order_changes() {
        let mut sample = Sample::new(&[("a", 3.0), ("b", 2.0), ("c", 1.0)]);
        sample.list.move_by(1);
        assert_eq!(sample.list.selected_key().unwrap(), "b");
        sample.replace(&[("a", 3.0), ("b", 0.0), ("c", 1.0), ("d", 9.0)]);
        assert_eq!(sample.page(9), (vec!["d".to_owned(), "a".to_owned(), "c".to_owned(), "b".to_owned()], 3));
        assert_eq!(sample.list.selected_key().unwrap(), "b");
    }

    #[test]
    fn without_a_move_the_first_row_is_selected_whichever_it_is() {
        let mut sample = Sample::new(&[("a", 3.0), ("b", 2.0)]);
        sample.replace(&[("a", 3.0), ("b", 4.0)]);
        assert_eq!(sample.list.selected_key().unwrap(), "b");
        sample.list.move_by(1);
        sample.list.select_first();
        sample.replace(&[("a", 5.0), ("b", 4.0)]);
        assert_eq!(sample.list.selected_key().unwrap(), "a");
    }

    #[test]
    fn if_the_selected_row_goes_the_one_in_its_place_is_selected() {
        let mut sample = Sample::new(&[("a", 3.0), ("b", 2.0), ("c", 1.0)]);
        sample.list.move_by(1);
        sample.replace(&[("a", 3.0), ("c", 1.0)]);
        assert_eq!(sample.list.selected_key().unwrap(), "c");
        sample.replace(&[("a", 3.0)]);
        assert_eq!(sample.list.selected_key().unwrap(), "a");
        sample.replace(&[]);
        assert_eq!(sample.list.selected_key(), None);
        assert_eq!(sample.page(5), (Vec::new(), 0));
    }

    #[test]
    fn rows_must_contain_every_word_of_the_filter() {
        let mut sample = Sample::new(&[("web.Pay", 3.0), ("web.cart", 2.0), ("db", 1.0)]);
        sample.list.filter = "WEB pa".to_owned();
        sample.arrange();
        assert_eq!(sample.page(9).0, ["web.Pay"]);
        assert_eq!(sample.list.count_rows(), 1);
    }

    #[test]
    fn a_page_contains_the_selected_row_and_moves_no_further_than_it_must() {
        let names: Vec<String> = (0..10).map(|n| format!("{n}")).collect();
        let rows: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.0)).collect();
        let mut sample = Sample::new(&rows);
        assert_eq!(sample.page(3).0, ["0", "1", "2"]);
        sample.list.move_by(4);
        assert_eq!(sample.page(3), (vec!["2".to_owned(), "3".to_owned(), "4".to_owned()], 2));
        sample.list.move_by(-1);
        assert_eq!(sample.page(3), (vec!["2".to_owned(), "3".to_owned(), "4".to_owned()], 1));
        sample.list.select_last();
        assert_eq!(sample.page(3).0, ["7", "8", "9"]);
        assert_eq!(sample.page(20).0.len(), 10, "a larger screen is filled");
        sample.list.move_by(-100);
        assert_eq!((sample.page(0).0.len(), sample.page(1)), (0, (vec!["0".to_owned()], 0)));
    }
}
