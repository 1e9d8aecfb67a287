//! The labels of a round's records, as a scraped page has them.

use std::borrow::Cow;

use tallyport_core::model::{Origin, TagSet};

use super::{Round, RoundRecord};
use crate::exposition::Escaping;
use crate::prometheus::identity::{identity_labels, label_value};
use crate::prometheus::scraped::SeriesNames;
use crate::prometheus::{Level, Marks, MarksOfAll, Naming, SeriesIdentity};

/// A name and a value.
pub(super) type LabelOf<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Reads the labels of records. Those of an identity are kept for the records that follow, which have the same one in a
/// sorted round.
#[derive(Debug)]
pub(super) struct LabelReader<'a> {
    level: Level,
    marks_of_all: &'a MarksOfAll,
    naming: Naming,
    escaping: Escaping,
    identity: Option<&'a SeriesIdentity>,
    labels: Vec<(&'static str, String)>,
    marks: Option<&'a Marks>,
}

impl<'a> LabelReader<'a> {
    pub(super) fn new(round: &Round<'a>, naming: Naming, escaping: Escaping) -> Self {
        let (level, marks_of_all) = (round.level, round.marks);
        Self { level, marks_of_all, naming, escaping, identity: None, labels: Vec::new(), marks: None }
    }

    /// The reader for receivers to which every name is written as it is.
    pub(super) fn with_plain_names(round: &Round<'a>) -> Self {
        Self::new(round, Naming::Openmetrics, Escaping::Utf8)
    }

    /// Moves to the identity of a record; returns whether it is another one.
    pub(super) fn enter_identity(&mut self, record: &RoundRecord<'a>) -> bool {
        if self.identity.is_some_and(|known| std::ptr::eq(known, record.identity) || known == record.identity)
        {
            return false;
        }
        self.identity = Some(record.identity);
        self.labels = identity_values(record.origin, self.level).collect();
        self.marks = find_marks(self.marks_of_all, record.origin);
        true
    }

    /// The labels of the identity, in the order in which a page has them.
    pub(super) fn identity_labels(&self) -> &[(&'static str, String)] {
        &self.labels
    }

    /// How names of the identity's workload are spelled.
    pub(super) fn series_names(&self) -> SeriesNames<'a> {
        SeriesNames { naming: self.naming, escaping: self.escaping, marks: self.marks }
    }

    /// The labels that tags become, sorted by name, each name once. Never one of an identity's names.
    pub(super) fn tag_labels<'t>(&self, tags: &'t TagSet) -> impl Iterator<Item = LabelOf<'t>> + use<'t> {
        tag_values(&self.series_names(), tags)
    }
}

/// The labels of an origin, in the order in which a page has them.
pub(super) fn identity_values(origin: &Origin, level: Level) -> impl Iterator<Item = (&'static str, String)> {
    let labels = identity_labels(origin, level).into_iter();
    labels.map(|(name, value)| (name, label_value(&value).into_owned()))
}

/// The labels that tags become, sorted by name, each name once.
pub(super) fn tag_values<'t>(
    names: &SeriesNames<'_>,
    tags: &'t TagSet,
) -> impl Iterator<Item = LabelOf<'t>> + use<'t> {
    names.tag_labels(tags).into_iter().map(|(name, value)| (name, label_value(value)))
}

/// The marks of an origin's names, which are kept for workloads, whatever the level.
pub(super) fn find_marks<'m>(marks: &'m MarksOfAll, origin: &Origin) -> Option<&'m Marks> {
    if marks.is_empty() {
        return None;
    }
    marks.get(&SeriesIdentity::from_origin(origin, Level::Low)).map(AsRef::as_ref)
}

/// The label under which receivers that know no types get the type of a series.
pub(super) const TYPE_LABEL: &str = "metric_type";
