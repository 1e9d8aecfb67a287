//! The names under which a page shows the metrics of applications, with a PromQL expression that reads each.

mod expression;
mod labels;
mod view;

use std::collections::BTreeMap;

use tallyport_core::aggregate::Window;
use tallyport_core::model::MetricType;

use self::expression::ExposedMetric;
pub use self::view::{Grouping, NameView, Statistic};
use super::gathered::Gathered;
use super::shape::Stat;

/// A metric of an application, as a page shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExposedName {
    /// The name that the application sends.
    pub name: String,
    /// Its type.
    pub metric_type: MetricType,
    /// The name of the samples that the expression reads.
    pub scraped: String,
    /// The names of all its samples, in the order of the page.
    pub samples: Vec<String>,
    /// Selects the samples named `scraped`.
    pub selector: String,
    /// An expression for what the view shows: the rate of a counter, a statistic of values, or the samples as they are.
    pub promql: String,
    /// What the expression reads: `rate`, `change`, `level`, `members` or a statistic, which can be another than the wanted
    /// one.
    pub reads: &'static str,
    /// Where the expression differs from what the view shows, and why.
    pub notes: Vec<&'static str>,
}

/// One kind of a family's samples.
#[derive(Debug)]
pub(super) struct SampleName {
    pub(super) stat: Stat,
    pub(super) name: String,
}

/// The metrics on a page, by name and type, with expressions for a view.
pub(super) fn list_names<W: AsRef<Window>>(gathered: &Gathered<W>, view: &NameView<'_>) -> Vec<ExposedName> {
    let mut samples: BTreeMap<usize, Vec<SampleName>> = BTreeMap::new();
    for block in &gathered.blocks {
        for (family, stat, suffix) in &block.parts {
            let sample = SampleName { stat: *stat, name: format!("{}{suffix}", block.name) };
            samples.entry(*family).or_default().push(sample);
        }
    }
    let (origins, items) = view.find_items(gathered);
    let mut named = BTreeMap::new();
    for item in items {
        let (Some(family), Some(samples)) = (gathered.families.get(item.family), samples.get(&item.family))
        else {
            continue;
        };
        let (name, metric_type) = (&*item.series.name, item.series.metric_type);
        named.entry((name, metric_type.as_str(), item.family)).or_insert_with(|| {
            let selection = view.select_samples(gathered, item, &origins);
            let metric = ExposedMetric {
                samples,
                negative: family.negative,
                grouping: &view.grouping,
                selection: &selection,
            };
            let expression = metric.write_expression(view.statistic)?;
            Some(ExposedName {
                name: name.to_owned(),
                metric_type,
                scraped: expression.scraped,
                samples: samples.iter().map(|sample| sample.name.clone()).collect(),
                selector: expression.selector,
                promql: expression.promql,
                reads: expression.reads,
                notes: selection.notes.iter().copied().chain(expression.note).collect(),
            })
        });
    }
    named.into_values().flatten().collect()
}
