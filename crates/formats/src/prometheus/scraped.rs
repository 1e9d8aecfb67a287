//! Names and labels of single series, for documents that have no page around them.

use std::borrow::Cow;

use tallyport_core::model::{MetricType, Series, TagSet};

use super::shape::Shape;
use super::{Marks, NameSpelling, Naming};
use crate::exposition::Escaping;

/// How the names and tags of one workload's series are spelled.
#[derive(Copy, Clone, Debug)]
pub(crate) struct SeriesNames<'m> {
    pub(crate) naming: Naming,
    pub(crate) escaping: Escaping,
    /// Those of the workload, if it has any.
    pub(crate) marks: Option<&'m Marks>,
}

/// What the help text of a family says.
pub(crate) fn format_help(series: &Series) -> String {
    // Without `format!`, because publishers need it for each series of each round.
    ["The ", series.metric_type.as_str(), " ", &series.name, " of StatsD."].concat()
}

impl SeriesNames<'_> {
    /// The mark of a metric's name.
    pub(crate) fn metric_mark(&self, name: &str, metric_type: MetricType) -> Option<u8> {
        self.marks?.metric_mark(name, metric_type, self.escaping)
    }

    /// The name of a series' family, to which the parts of its shape add their suffixes, and the shape. `None` if the naming
    /// scheme does not show the type.
    pub(crate) fn family_name(&self, series: &Series) -> Option<(String, Shape)> {
        let shape = Shape::for_metric_type(self.naming, series.metric_type)?;
        let mark = self.metric_mark(&series.name, series.metric_type);
        let spelling = NameSpelling { escaping: self.escaping, mark };
        let mut name = self.naming.metric_name(&series.name, series.metric_type, spelling);
        name.push_str(shape.suffix);
        if !shape.prefix.is_empty() {
            name.insert_str(0, shape.prefix);
        }
        Some((name, shape))
    }

    /// The label that a tag becomes.
    pub(crate) fn label_name<'k>(&self, key: &'k str) -> Cow<'k, str> {
        let mark = self.marks.and_then(|marks| marks.label_mark(key, self.escaping));
        self.naming.label_name(key, NameSpelling { escaping: self.escaping, mark })
    }

    /// The labels that tags become, sorted by name, each name once. Values are as the client sent them; see
    /// [`super::identity::label_value`].
    pub(crate) fn tag_labels<'t>(&self, tags: &'t TagSet) -> Vec<(Cow<'t, str>, &'t str)> {
        let mut labels: Vec<_> = tags.iter().map(|(key, value)| (self.label_name(key), value)).collect();
        labels.sort_unstable();
        // Naming schemes without marks can map two keys to one label; the first is kept.
        labels.dedup_by(|(a, _), (b, _)| a == b);
        labels
    }
}
