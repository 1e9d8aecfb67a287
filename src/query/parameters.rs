//! Query parameters, which have the same names in URLs and on the command line.

use std::str::FromStr;
use std::time::Duration;

use super::data::Error;
use crate::aggregate::Record;
use crate::identity::read_switch;
use crate::model::{Glob, Origin, Series, TagSet, Timestamp};

/// The keys and values of a URL's query, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a query, and refuses keys that the route does not know: a misspelled filter would otherwise return
    /// everything.
    ///
    /// # Errors
    /// With the first unknown key and the most similar known one.
    pub fn read(raw: &str, known: &[&str]) -> Result<Self, Error> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(raw.as_bytes()).into_owned().collect();
        match pairs.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) => Err(Error::unknown_parameter(key, known)),
            None => Ok(Self(pairs)),
        }
    }

    #[must_use]
    pub fn last_value(&self, key: &str) -> Option<&str> {
        self.all_values(key).last()
    }

    /// Every value of a key.
    pub fn all_values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on: `key` alone, or with a word for true.
    ///
    /// # Errors
    /// When it is neither on nor off.
    pub fn parse_switch(&self, key: &'static str) -> Result<bool, Error> {
        match self.last_value(key) {
            None => Ok(false),
            Some("") => Ok(true),
            Some(value) => {
                read_switch(value).ok_or_else(|| Error::bad_parameter(key, value, "is not true or false"))
            }
        }
    }

    /// Parses a value.
    ///
    /// # Errors
    /// When it is invalid.
    pub fn parse_value<T: FromStr>(&self, key: &'static str) -> Result<Option<T>, Error>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |value: &str| {
            value.parse().map_err(|error: T::Err| Error::bad_parameter(key, value, &error.to_string()))
        };
        self.last_value(key).map(parse).transpose()
    }

    /// The moment of `since`: a timestamp, or a time before `now`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse_since(&self, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        self.last_value("since").map(|text| parse_moment("since", text, now)).transpose()
    }
}

pub(crate) use crate::config::{FILTERS, MOST_FILTERS};

/// Maximum length of a filter in bytes: more than names, tasks and containers have by default.
pub(crate) const LONGEST_FILTER: usize = 1024;

/// Filters of records, tasks and containers. Repeated filters must all match.
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
    /// When there are more than `MOST_FILTERS`, or one is longer than `LONGEST_FILTER`: each is compared with
    /// every series of the node.
    pub fn read(query: &Query) -> Result<Self, Error> {
        let of_key = |key: &'static str| query.all_values(key).map(move |value| (key, value));
        let filters: Vec<_> = FILTERS.into_iter().flat_map(of_key).collect();
        if filters.len() > MOST_FILTERS {
            return Err(Error::TooManyFilters { most: MOST_FILTERS });
        }
        if let Some((key, value)) = filters.iter().find(|(_, value)| value.len() > LONGEST_FILTER) {
            let start: String = value.chars().take(32).chain(['…']).collect();
            let why = format!("is {} bytes long and may have {LONGEST_FILTER}", value.len());
            return Err(Error::bad_parameter(key, &start, &why));
        }
        let globs = |key| query.all_values(key).map(Glob::new).collect();
        let pairs = |key| query.all_values(key).map(Pair::new).collect();
        Ok(Self {
            tasks: globs("task"),
            containers: globs("container"),
            names: globs("name"),
            tags: pairs("tag"),
            labels: pairs("label"),
        })
    }

    /// Whether records of this origin are wanted.
    #[must_use]
    pub fn matches_origin(&self, origin: &Origin) -> bool {
        self.tasks.iter().all(|glob| glob.is_match(origin.task_id.as_str()))
            && self.containers.iter().all(|glob| glob.is_match(origin.container_id.as_str()))
            && self
                .labels
                .iter()
                .all(|pair| origin.labels.get(&pair.key).is_some_and(|value| pair.matches_value(value)))
    }

    /// Whether a record is wanted, regardless of its origin.
    #[must_use]
    pub fn matches_record(&self, record: &Record<'_>) -> bool {
        self.matches_series(record.series)
    }

    /// Whether records of a series are wanted.
    #[must_use]
    pub fn matches_series(&self, series: &Series) -> bool {
        self.names.iter().all(|glob| glob.is_match(&series.name)) && self.matches_tags(&series.tags)
    }

    /// Whether they are wanted whatever their names and tags.
    #[must_use]
    pub fn has_all_series(&self) -> bool {
        self.names.is_empty() && self.tags.is_empty()
    }

    fn matches_tags(&self, tags: &TagSet) -> bool {
        // The values of a repeated key are joined by commas; any of them may match.
        let fits = |pair: &Pair, value: &str| {
            pair.matches_value(value) || value.split(',').any(|one| pair.matches_value(one))
        };
        self.tags.iter().all(|pair| tags.get(&pair.key).is_some_and(|value| fits(pair, value)))
    }

    /// The patterns for names.
    #[must_use]
    pub fn name_patterns(&self) -> &[Glob] {
        &self.names
    }

    /// Whether any of them is a pattern, which must be matched against every name.
    #[must_use]
    pub fn has_patterns(&self) -> bool {
        let mut globs = self.tasks.iter().chain(&self.containers).chain(&self.names);
        globs.any(|glob| !glob.is_literal())
    }

    /// Whether any filter restricts the origin of records.
    #[must_use]
    pub fn names_origins(&self) -> bool {
        !(self.tasks.is_empty() && self.containers.is_empty() && self.labels.is_empty())
    }

    /// Whether there is a filter of containers, in which case finished ones are included.
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

    fn matches_value(&self, value: &str) -> bool {
        self.value.as_ref().is_none_or(|wanted| wanted == value)
    }
}

/// Which windows to read.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Windows {
    /// The newest closed record of each series, or the open one if none is closed yet.
    #[default]
    Newest,
    /// The newest closed record of each series.
    Last,
    Open,
    /// Every closed record that is kept.
    All,
}

/// Which records of a task are wanted, and whether to merge them.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub windows: Windows,
    /// Only windows that end after this time.
    pub since: Option<Timestamp>,
    /// Merges the selected records into one per series.
    pub merge: bool,
    /// Adds up series over all tags except these, and over containers.
    pub by: Option<Vec<String>>,
    /// Whether distributions are added in HdrHistogram's encoding.
    pub hdr: bool,
    /// Which records.
    pub filters: Filters,
}

/// The keys of [`Selection`].
pub(crate) const SELECTION: [&str; 10] =
    ["window", "since", "merge", "by", "hdr", "task", "container", "name", "tag", "label"];

impl Selection {
    /// Reads a selection.
    ///
    /// # Errors
    /// When `window`, `since` or `by` is invalid.
    pub fn read(query: &Query, now: Timestamp) -> Result<Self, Error> {
        let since = query.parse_since(now)?;
        let windows = match query.last_value("window") {
            // `since` alone selects all windows since then.
            None if since.is_some() => Windows::All,
            None => Windows::Newest,
            Some("last") => Windows::Last,
            Some("open") => Windows::Open,
            Some("all") => Windows::All,
            Some(other) => return Err(Error::bad_parameter("window", other, "is not last, open or all")),
        };
        let (merge, hdr) = (query.parse_switch("merge")?, query.parse_switch("hdr")?);
        let by = query.last_value("by").map(parse_keys).transpose()?;
        Ok(Self { windows, since, merge, by, hdr, filters: Filters::read(query)? })
    }
}

/// Parses the keys of tags, separated by commas, which no key contains.
pub(super) fn parse_keys(text: &str) -> Result<Vec<String>, Error> {
    let keys: Vec<String> = text.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect();
    if keys.len() > MOST_FILTERS {
        let start: String = text.chars().take(32).chain(['…']).collect();
        return Err(Error::bad_parameter("by", &start, &format!("has more than {MOST_FILTERS} keys")));
    }
    Ok(keys)
}

/// Parses a timestamp, or a time before `now`.
pub(super) fn parse_moment(key: &str, text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    match humantime::parse_duration(text) {
        Ok(ago) => Ok(now.saturating_sub(ago)),
        Err(_) => Err(Error::bad_parameter(key, text, "is not a time such as 5m, nor a moment in RFC 3339")),
    }
}

/// Parses a duration such as `30s`.
///
/// # Errors
/// When the text is not a duration.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "is not a time; write it like 30s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Result<Selection, Error> {
        Selection::read(&Query::read(raw, &SELECTION)?, Timestamp::from_secs(1000))
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = read("windw=all").unwrap_err();
        assert!(
            matches!(error, Error::UnknownParameter { .. }) && error.to_string().contains("window"),
            "{error}"
        );
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
        assert!(read("hdr").unwrap().hdr && read("hdr=1").unwrap().hdr && !read("hdr=false").unwrap().hdr);
        let by = |raw: &str| read(raw).unwrap().by;
        assert_eq!(by("by=route,status"), Some(vec!["route".to_owned(), "status".to_owned()]));
        assert_eq!((by("by="), by("")), (Some(Vec::new()), None));
        let many = format!("by={}", vec!["k"; MOST_FILTERS + 1].join(","));
        for wrong in [&*many, "window=newest", "since=soon", "merge=perhaps", "hdr=v2"] {
            assert!(matches!(read(wrong), Err(Error::BadParameter { .. })), "{wrong}");
        }
    }

    #[test]
    fn more_or_longer_filters_than_the_bounds_are_refused_with_the_bound() {
        let many = |n: usize| {
            read(&vec!["name=*"; n / 2].join("&")).and(read(&["name=*", "tag=a"].repeat(n / 2).join("&")))
        };
        assert!(many(MOST_FILTERS).is_ok());
        let error = many(MOST_FILTERS + 2).unwrap_err();
        assert!(matches!(error, Error::TooManyFilters { most: MOST_FILTERS }), "{error}");
        for key in FILTERS {
            let of_length = |n: usize| read(&format!("{key}={}", "?".repeat(n)));
            assert!(of_length(LONGEST_FILTER).is_ok(), "{key}");
            let error = of_length(LONGEST_FILTER + 1).unwrap_err();
            let text = error.to_string();
            assert!(text.len() < 200 && text.contains("1024"), "{text}");
        }
    }

    #[test]
    fn a_tag_is_written_either_way_and_one_of_several_values_is_enough() {
        let tags = TagSet::from_pairs([("route", "/pay"), ("zone", "a"), ("zone", "b"), ("live", "")]);
        let wanted = |raw: &str| read(raw).unwrap().filters.matches_tags(&tags);
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
