//! Series of which nothing more is sent.

use tallyport_core::model::{Origin, Series, SeriesKey, Timestamp};

use crate::prometheus::{Level, MarksOfAll, SeriesIdentity};
use crate::publish::scraped::NamedItem;

/// A series of which nothing more is sent.
#[derive(Copy, Clone, Debug)]
pub struct EndedSeries<'a> {
    /// The container; of a merged series, one of its containers.
    pub origin: &'a Origin,
    /// The labels that identify the origin.
    pub identity: &'a SeriesIdentity,
    /// The series.
    pub series: &'a Series,
}

/// Series that ended after samples of them were sent.
#[derive(Clone, Debug)]
pub struct EndedRound<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The timestamp of the markers: after the last sample of each series, and the same when a request is repeated.
    pub at: Timestamp,
    /// The level of the identities.
    pub level: Level,
    /// The marks of names, as in the rounds before.
    pub marks: &'a MarksOfAll,
    /// The series. Sorted by [`EndedRound::sort_series`].
    pub series: Vec<EndedSeries<'a>>,
}

impl EndedRound<'_> {
    /// Sorts the series, which makes the encoded bytes independent of the order in which they were collected.
    pub fn sort_series(&mut self) {
        self.series.sort_by(|a, b| (a.identity, SeriesKey(a.series)).cmp(&(b.identity, SeriesKey(b.series))));
    }
}

impl NamedItem for EndedSeries<'_> {
    fn origin(&self) -> &Origin {
        self.origin
    }

    fn identity(&self) -> &SeriesIdentity {
        self.identity
    }

    fn series(&self) -> &Series {
        self.series
    }
}
