//! What a reader asks for: the same names in a URL and on the command line.

use std::str::FromStr;
use std::time::Duration;

use super::error::ApiError;
use crate::aggregate::Record;
use crate::identity::read_switch;
pub use crate::model::Glob;
use crate::model::{Origin, Series, TagSet, Timestamp};

/// The keys and values of a URL's query, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query, and refuses keys that the route does not know: a filter that is misspelled would answer
    /// everything.
    ///
    /// # Errors
    /// With the first unknown key and the nearest known one.
    pub fn read(raw: &str, known: &[&str]) -> Result<Self, ApiError> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(raw.as_bytes()).into_owned().collect();
        match pairs.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(ApiError::unknown_parameter(key, known)),
            None => Ok(Self(pairs)),
        }
    }

    /// The last value of a key.
    #[must_use]
    pub fn last(&self, key: &str) -> Option<&str> {
        self.all(key).last()
    }

    /// Every value of a key.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on: `key` alone, or with a word for yes.
    ///
    /// # Errors
    /// When it is neither on nor off.
    pub fn switch(&self, key: &'static str) -> Result<bool, ApiError> {
        match self.last(key) {
            None => Ok(false),
            Some("") => Ok(true),
            Some(value) => {
                read_switch(value).ok_or_else(|| ApiError::bad_parameter(key, value, "is not true or false"))
            }
        }
    }

    /// A value that is read from text.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn parsed<T: FromStr>(&self, key: &'static str) -> Result<Option<T>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |value: &str| {
            value.parse().map_err(|error: T::Err| ApiError::bad_parameter(key, value, &error.to_string()))
        };
        self.last(key).map(parse).transpose()
    }
}

/// The keys of [`Filters`].
pub(super) const FILTERS: [&str; 5] = ["task", "container", "name", "tag", "label"];

/// Filters that one query may have, of all kinds together.
pub(super) const MOST_FILTERS: usize = 32;
/// Bytes that a filter may have: more than any name, task or container has by default.
pub(super) const LONGEST_FILTER: usize = 1024;

/// Which records, tasks and containers are wanted. Repeated filters must all hold.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    tasks: Vec<Glob>,
    containers: Vec<Glob>,
    names: Vec<Glob>,
    tags: Vec<Pair>,
    labels: Vec<Pair>,
}

impl Filters {
    /// Reads the filters of a query.
    ///
    /// # Errors
    /// When there are more than `MOST_FILTERS`, or one is longer than `LONGEST_FILTER`: each is compared with every
    /// series that the node has.
    pub fn read(query: &Query) -> Result<Self, ApiError> {
        let of_key = |key: &'static str| query.all(key).map(move |value| (key, value));
        let filters: Vec<_> = FILTERS.into_iter().flat_map(of_key).collect();
        if filters.len() > MOST_FILTERS {
            return Err(ApiError::too_many_filters(MOST_FILTERS));
        }
        if let Some((key, value)) = filters.iter().find(|(_, value)| value.len() > LONGEST_FILTER) {
            let start: String = value.chars().take(32).chain(['…']).collect();
            let why = format!("is {} bytes long and may have {LONGEST_FILTER}", value.len());
            return Err(ApiError::bad_parameter(key, &start, &why));
        }
        let globs = |key| query.all(key).map(Glob::new).collect();
        let pairs = |key| query.all(key).map(Pair::new).collect();
        Ok(Self {
            tasks: globs("task"),
            containers: globs("container"),
            names: globs("name"),
            tags: pairs("tag"),
            labels: pairs("label"),
        })
    }

    /// Whether records from there are wanted.
    #[must_use]
    pub fn origin(&self, origin: &Origin) -> bool {
        self.tasks.iter().all(|glob| glob.matches(origin.task_id.as_str()))
            && self.containers.iter().all(|glob| glob.matches(origin.container_id.as_str()))
            && self
                .labels
                .iter()
                .all(|pair| origin.labels.get(&pair.key).is_some_and(|value| pair.fits(value)))
    }

    /// Whether a record is wanted, its origin aside.
    #[must_use]
    pub fn record(&self, record: &Record<'_>) -> bool {
        self.series(record.series)
    }

    /// Whether records of a series are wanted.
    #[must_use]
    pub fn series(&self, series: &Series) -> bool {
        self.names.iter().all(|glob| glob.matches(&series.name)) && self.tags(&series.tags)
    }

    fn tags(&self, tags: &TagSet) -> bool {
        // A key with several values has them joined by commas; any of them will do.
        let fits = |pair: &Pair, value: &str| pair.fits(value) || value.split(',').any(|one| pair.fits(one));
        self.tags.iter().all(|pair| tags.get(&pair.key).is_some_and(|value| fits(pair, value)))
    }

    /// Whether there are patterns among them, each of which is searched for in every name.
    #[must_use]
    pub fn has_patterns(&self) -> bool {
        let mut globs = self.tasks.iter().chain(&self.containers).chain(&self.names);
        globs.any(|glob| !glob.is_literal())
    }

    /// Whether not everything is wanted, wherever it comes from.
    #[must_use]
    pub fn names_origins(&self) -> bool {
        !(self.tasks.is_empty() && self.containers.is_empty() && self.labels.is_empty())
    }

    /// Whether containers are named, so that finished ones are meant, too.
    #[must_use]
    pub fn names_containers(&self) -> bool {
        !self.containers.is_empty()
    }
}

/// `key=value` or `key:value`; `key` alone means any value.
#[derive(Clone, Debug)]
struct Pair {
    key: String,
    value: Option<String>,
}

impl Pair {
    fn new(text: &str) -> Self {
        match text.split_once(['=', ':']) {
            Some((key, value)) => Self { key: key.to_owned(), value: Some(value.to_owned()) },
            None => Self { key: text.to_owned(), value: None },
        }
    }

    fn fits(&self, value: &str) -> bool {
        self.value.as_ref().is_none_or(|wanted| wanted == value)
    }
}

/// Which windows are wanted.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Windows {
    /// Of each series the newest closed record, or the open one where none is closed yet.
    #[default]
    Newest,
    /// Of each series the newest closed record.
    Last,
    /// What is open.
    Open,
    /// Every closed record that is kept.
    All,
}

/// Which records of a task are wanted, and whether to merge them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Which windows.
    pub windows: Windows,
    /// Only windows that end after this moment.
    pub since: Option<Timestamp>,
    /// One record for each series, merged from what was selected.
    pub merge: bool,
    /// Which records.
    pub filters: Filters,
}

/// The keys of [`Selection`].
pub(super) const SELECTION: [&str; 8] =
    ["window", "since", "merge", "task", "container", "name", "tag", "label"];

impl Selection {
    /// Reads a selection.
    ///
    /// # Errors
    /// When a window is not one of the three, or `since` is no time.
    pub fn read(query: &Query, now: Timestamp) -> Result<Self, ApiError> {
        let since = query.last("since").map(|text| since(text, now)).transpose()?;
        let windows = match query.last("window") {
            // Who asks since when wants everything since then.
            None if since.is_some() => Windows::All,
            None => Windows::Newest,
            Some("last") => Windows::Last,
            Some("open") => Windows::Open,
            Some("all") => Windows::All,
            Some(other) => return Err(ApiError::bad_parameter("window", other, "is not last, open or all")),
        };
        Ok(Self { windows, since, merge: query.switch("merge")?, filters: Filters::read(query)? })
    }
}

/// A moment, or how long ago.
fn since(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    match humantime::parse_duration(text) {
        Ok(ago) => Ok(now.minus(ago)),
        Err(_) => {
            Err(ApiError::bad_parameter("since", text, "is not a time such as 5m, nor a moment in RFC 3339"))
        }
    }
}

/// A wait such as `30s`.
///
/// # Errors
/// When the text is no time.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "is not a time; write it like 30s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Result<Selection, ApiError> {
        Selection::read(&Query::read(raw, &SELECTION)?, Timestamp::from_secs(1000))
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = read("windw=all").unwrap_err();
        assert_eq!((error.status, error.code), (400, "unknown_parameter"));
        assert!(error.message.contains("window"), "{}", error.message);
    }

    #[test]
    fn windows_and_moments_are_read() {
        assert_eq!(read("").unwrap().windows, Windows::Newest);
        assert_eq!(read("window=last&window=all").unwrap().windows, Windows::All);
        let since = read("since=5m").unwrap();
        assert_eq!((since.windows, since.since), (Windows::All, Some(Timestamp::from_secs(700))));
        assert_eq!(read("since=1970-01-01T00:10:00Z").unwrap().since, Some(Timestamp::from_secs(600)));
        assert!(
            read("merge").unwrap().merge
                && read("merge=true").unwrap().merge
                && !read("merge=0").unwrap().merge
        );
        for wrong in ["window=newest", "since=soon", "merge=perhaps"] {
            assert_eq!(read(wrong).unwrap_err().code, "bad_parameter", "{wrong}");
        }
    }

    #[test]
    fn more_or_longer_filters_than_the_bounds_are_refused_with_the_bound() {
        let many = |n: usize| {
            read(&vec!["name=*"; n / 2].join("&")).and(read(&["name=*", "tag=a"].repeat(n / 2).join("&")))
        };
        assert!(many(MOST_FILTERS).is_ok());
        let error = many(MOST_FILTERS + 2).unwrap_err();
        assert_eq!((error.status, error.code), (400, "bad_parameter"));
        assert!(error.message.contains("32"), "{}", error.message);
        for key in FILTERS {
            let of_length = |n: usize| read(&format!("{key}={}", "?".repeat(n)));
            assert!(of_length(LONGEST_FILTER).is_ok(), "{key}");
            let error = of_length(LONGEST_FILTER + 1).unwrap_err();
            assert_eq!(error.status, 400);
            assert!(error.message.len() < 200 && error.message.contains("1024"), "{}", error.message);
        }
    }

    #[test]
    fn a_tag_is_written_either_way_and_one_of_several_values_is_enough() {
        let tags = TagSet::from_pairs([("route", "/pay"), ("zone", "a"), ("zone", "b"), ("live", "")]);
        let wanted = |raw: &str| read(raw).unwrap().filters.tags(&tags);
        for raw in [
            "tag=route=/pay",
            "tag=route:/pay",
            "tag=zone=b",
            "tag=zone=a,b",
            "tag=live",
            "tag=live=",
            "tag=route",
        ] {
            assert!(wanted(raw), "{raw}");
        }
        for raw in ["tag=route=/", "tag=zone=c", "tag=zone=a&tag=zone=c", "tag=missing"] {
            assert!(!wanted(raw), "{raw}");
        }
    }
}
