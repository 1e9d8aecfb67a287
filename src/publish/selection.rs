//! Which series a publisher sends: those that match one of the queries of `include`, and none of `exclude`.

use crate::config::PublisherConfig;
use crate::model::{Origin, Series};
use crate::query::{Error, FILTERS, Filters, Query};

/// Which series a publisher sends.
#[derive(Clone, Default, Debug)]
pub(super) struct SeriesSelection {
    include: Vec<Filters>,
    exclude: Vec<Filters>,
}

/// The filters that are left to decide for the series of one origin.
#[derive(Debug)]
pub(super) struct OriginSelection<'s> {
    include: Vec<&'s Filters>,
    exclude: Vec<&'s Filters>,
    all: bool,
}

impl SeriesSelection {
    /// The selection of a publisher.
    ///
    /// # Errors
    /// When a query is not one of filters. The configuration was checked for it.
    pub(super) fn from_config(config: &PublisherConfig) -> Result<Self, Error> {
        let read = |queries: &[String]| {
            queries
                .iter()
                .map(|query| Filters::read(&Query::read(query, &FILTERS)?))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { include: read(&config.include)?, exclude: read(&config.exclude)? })
    }

    /// What is left to decide for series of this origin.
    #[must_use]
    pub(super) fn for_origin(&self, origin: &Origin) -> OriginSelection<'_> {
        OriginSelection {
            include: choose_fitting(&self.include, origin),
            exclude: choose_fitting(&self.exclude, origin),
            all: self.include.is_empty(),
        }
    }
}

fn choose_fitting<'s>(filters: &'s [Filters], origin: &Origin) -> Vec<&'s Filters> {
    filters.iter().filter(|filters| filters.matches_origin(origin)).collect()
}

impl OriginSelection<'_> {
    /// Whether a series is sent.
    #[must_use]
    pub(super) fn contains(&self, series: &Series) -> bool {
        let matched = |filters: &[&Filters]| filters.iter().any(|filters| filters.matches_series(series));
        (self.all || matched(&self.include)) && !matched(&self.exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContainerId, Generation, MetricType, TagSet, TaskId, Timestamp};

    #[test]
    fn a_series_is_sent_that_one_query_includes_and_none_excludes() {
        let read = |queries: &[&str]| {
            queries
                .iter()
                .map(|query| Filters::read(&Query::read(query, &FILTERS).unwrap()).unwrap())
                .collect()
        };
        let selection = SeriesSelection {
            include: read(&["name=http.*&label=team=shop", "tag=important"]),
            exclude: read(&["name=*.debug", "container=c-9"]),
        };
        let sent = |container: &str, name: &str, tags: &[(&str, &str)]| {
            let origin = Origin {
                container_id: ContainerId::new(container).unwrap(),
                generation: Generation(1),
                task_id: TaskId::new("web.1").unwrap(),
                labels: [("team".to_owned(), "shop".to_owned())].into(),
            };
            let series = Series {
                name: name.into(),
                tags: TagSet::from_pairs(tags.iter().copied()),
                metric_type: MetricType::Counter,
                created: Timestamp::default(),
            };
            selection.for_origin(&origin).contains(&series)
        };
        assert!(sent("c-1", "http.requests", &[]));
        assert!(!sent("c-1", "cpu", &[]));
        assert!(sent("c-1", "cpu", &[("important", "1")]));
        assert!(!sent("c-1", "http.debug", &[]) && !sent("c-9", "http.requests", &[]));
        let everything = SeriesSelection::default();
        assert!(everything.include.is_empty());
    }
}
