//! What makes a container's many series: the tags with the most different values.

use std::collections::{HashMap, HashSet};

use crate::model::Series;

/// A tag key, or the name itself, and how many different values it has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WideTag {
    /// The tag's key; `None` for the names of the series.
    pub key: Option<String>,
    /// Different values.
    pub values: usize,
    /// Series that have it.
    pub series: usize,
}

/// The `most` widest tags, the widest first. What has one value only makes no series, and is left out.
#[must_use]
pub fn widest_tags<'s>(series: impl IntoIterator<Item = &'s Series>, most: usize) -> Vec<WideTag> {
    let mut found: HashMap<Option<&str>, (HashSet<&str>, usize)> = HashMap::new();
    for series in series {
        let name = std::iter::once((None, &*series.name));
        for (key, value) in name.chain(series.tags.iter().map(|(key, value)| (Some(key), value))) {
            let (values, with_it) = found.entry(key).or_default();
            values.insert(value);
            *with_it += 1;
        }
    }
    let wide = |(key, (values, series)): (Option<&str>, (HashSet<&str>, usize))| WideTag {
        key: key.map(str::to_owned),
        values: values.len(),
        series,
    };
    let mut all: Vec<_> = found.into_iter().map(wide).filter(|tag| tag.values > 1).collect();
    all.sort_by(|a, b| (b.values, b.series, &a.key).cmp(&(a.values, a.series, &b.key)));
    all.truncate(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MetricType, TagSet, Timestamp};

    #[test]
    fn the_tags_that_make_most_series_come_first_and_names_count_too() {
        let series = |n: usize| Series {
            name: format!("requests.{}", n % 3).into(),
            tags: TagSet::from_pairs(vec![
                ("env".to_owned(), "production".to_owned()),
                ("user".to_owned(), n.to_string()),
                ("route".to_owned(), (n % 2).to_string()),
            ]),
            metric_type: MetricType::Counter,
            created: Timestamp::from_secs(0),
        };
        let all: Vec<_> = (0..60).map(series).collect();
        let wide = |key: Option<&str>, values| WideTag { key: key.map(str::to_owned), values, series: 60 };
        let wanted = [wide(Some("user"), 60), wide(None, 3), wide(Some("route"), 2)];
        assert_eq!(widest_tags(&all, 5), wanted);
        assert_eq!(widest_tags(&all, 1), wanted[..1]);
    }
}
