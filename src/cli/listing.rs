//! Order and number of the rows of a list.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::marker::PhantomData;
use std::num::NonZeroUsize;

use clap::builder::{EnumValueParser, PossibleValue, TypedValueParser};
use clap::{Args, ValueEnum};

use super::args::numbers::parse_count;
use super::failure::{Failure, code};
use super::output::Console;
use crate::model::Timestamp;

/// A value of a command-line option that is chosen from a list.
pub(super) trait ArgumentChoice: ValueEnum + Copy + std::fmt::Debug + Send + Sync + 'static {}

impl<T: ValueEnum + Copy + std::fmt::Debug + Send + Sync + 'static> ArgumentChoice for T {}

/// The order of a list, and how much of it is printed.
#[derive(Debug, Args)]
pub(super) struct ListArgs<K: ArgumentChoice> {
    /// Sort by this key: numbers from the highest, times from the latest, names from A to Z; -KEY reverses that
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = SortParser::<K>::new())]
    sort: Option<SortOrder<K>>,
    /// Print only the first N, at least 1
    #[arg(long, value_name = "N", value_parser = parse_count::<NonZeroUsize>)]
    limit: Option<NonZeroUsize>,
}

/// The value of `--sort`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct SortOrder<K> {
    pub(super) key: K,
    /// Against the usual order of [`SortCell::compare_to`].
    pub(super) reversed: bool,
}

impl<K> SortOrder<K> {
    /// The usual order of this key.
    #[cfg(all(test, feature = "top"))]
    pub(super) const fn from_key(key: K) -> Self {
        Self { key, reversed: false }
    }
}

/// Parses `KEY` and `-KEY`.
#[derive(Clone)]
pub(super) struct SortParser<K>(PhantomData<K>);

impl<K> SortParser<K> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K: ArgumentChoice> TypedValueParser for SortParser<K> {
    type Value = SortOrder<K>;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let reversed = value.to_str().and_then(|text| text.strip_prefix('-'));
        let key =
            EnumValueParser::<K>::new().parse_ref(command, argument, reversed.map_or(value, OsStr::new))?;
        Ok(SortOrder { key, reversed: reversed.is_some() })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(K::value_variants().iter().filter_map(ValueEnum::to_possible_value)))
    }
}

/// What a row is compared by.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum SortCell<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    /// The row has no such value. It comes last in either order.
    Missing,
}

impl SortCell<'_> {
    pub(super) fn from_number(number: Option<f64>) -> Self {
        number.map_or(Self::Missing, Self::Number)
    }

    /// A moment: the latest is the highest.
    pub(super) fn from_moment(at: Option<Timestamp>) -> Self {
        Self::from_number(at.map(|at| at.as_micros() as f64))
    }

    /// Whether it says anything: no missing value, and no zero.
    #[cfg(feature = "top")]
    pub(super) fn has_content(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0.0,
            Self::Missing => false,
        }
    }

    /// The order of rows in every list: numbers from the highest and texts from A to Z, or the other way round if it is
    /// `reversed`.
    pub(super) fn compare_to(&self, other: &Self, reversed: bool) -> Ordering {
        let order = match (self, other) {
            (Self::Missing, Self::Missing) => return Ordering::Equal,
            (Self::Missing, _) => return Ordering::Greater,
            (_, Self::Missing) => return Ordering::Less,
            (Self::Number(a), Self::Number(b)) => b.total_cmp(a),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        };
        if reversed { order.reverse() } else { order }
    }
}

impl<K: ArgumentChoice> ListArgs<K> {
    /// Whether neither option is given.
    pub(super) fn is_default(&self) -> bool {
        self.sort.is_none() && self.limit.is_none()
    }

    /// Sorts the rows and removes those beyond the limit. Rows that are equal keep their order. Returns how many were removed.
    pub(super) fn arrange_rows<T>(
        &self,
        rows: &mut Vec<T>,
        cell: impl for<'r> Fn(K, &'r T) -> SortCell<'r>,
    ) -> usize {
        if let Some(SortOrder { key, reversed }) = self.sort {
            rows.sort_by(|a, b| cell(key, a).compare_to(&cell(key, b), reversed));
        }
        let kept = self.limit.map_or(usize::MAX, NonZeroUsize::get);
        let removed = rows.len().saturating_sub(kept);
        rows.truncate(kept);
        removed
    }
}

/// Fails if filters select nothing: those in `query`, which the agent applied, and `state`, which was applied here.
pub(super) fn ensure_match(
    what: &str,
    query: &str,
    state: Option<impl ArgumentChoice>,
    found: bool,
) -> Result<(), Failure> {
    let filters = form_urlencoded::parse(query.trim_start_matches('?').as_bytes());
    let mut filters: Vec<String> = filters.map(|(key, value)| format!("--{key} {value}")).collect();
    let state = state.and_then(|state| state.to_possible_value());
    filters.extend(state.map(|state| format!("--state {}", state.get_name())));
    if found || filters.is_empty() {
        return Ok(());
    }
    let message = format!("no {what} of this node matches {}", filters.join(" "));
    Err(Failure::new(code::NO_TASK, message).with_hint("without filters, the command lists all of them"))
}

/// Reports rows that `--limit` removed.
pub(super) fn report_removed(removed: usize, out: &mut Console) {
    if removed > 0 {
        out.write_stderr_line(format!("{removed} more not shown (--limit)"));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
    enum Key {
        Name,
        Value,
    }

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        list: ListArgs<Key>,
    }

    type Row = (&'static str, Option<f64>);

    fn arranged(arguments: &[&str]) -> (Vec<&'static str>, usize) {
        let command = Command::try_parse_from([&["list"], arguments].concat()).unwrap();
        let mut rows: Vec<Row> = vec![("b", Some(2.0)), ("a", None), ("d", Some(2.0)), ("c", Some(-7.0))];
        let removed = command.list.arrange_rows(&mut rows, |key, row| match key {
            Key::Name => SortCell::Text(row.0.into()),
            Key::Value => SortCell::from_number(row.1),
        });
        (rows.iter().map(|row| row.0).collect(), removed)
    }

    #[test]
    fn rows_without_the_key_come_last_and_equal_rows_keep_their_order() {
        assert_eq!(arranged(&[]), (vec!["b", "a", "d", "c"], 0));
        assert_eq!(arranged(&["--sort", "name"]).0, ["a", "b", "c", "d"]);
        assert_eq!(arranged(&["--sort", "-name"]).0, ["d", "c", "b", "a"]);
        assert_eq!(arranged(&["--sort", "value"]).0, ["b", "d", "c", "a"], "the highest number comes first");
        assert_eq!(arranged(&["--sort=-value"]).0, ["c", "b", "d", "a"]);
        assert_eq!(arranged(&["--sort", "value", "--limit", "1"]), (vec!["b"], 3));
    }

    #[test]
    fn the_latest_moment_comes_first() {
        let at = |seconds| SortCell::from_moment(Some(Timestamp::from_secs(seconds)));
        assert_eq!(at(20).compare_to(&at(10), false), Ordering::Less);
        assert_eq!(SortCell::from_moment(None).compare_to(&at(10), false), Ordering::Greater);
        assert_eq!(SortCell::from_moment(None).compare_to(&at(10), true), Ordering::Greater);
    }

    #[test]
    fn an_unknown_key_and_a_limit_of_none_are_refused() {
        for arguments in [["--sort", "size"], ["--sort", "-size"], ["--limit", "0"], ["--limit", "many"]] {
            let refused = Command::try_parse_from([&["list"], &arguments[..]].concat()).unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            let text = refused.to_string();
            assert_eq!(text.contains("possible values: name, value"), arguments[0] == "--sort", "{text}");
        }
    }
}
