//! The names under which a page shows the metrics of applications, with a PromQL expression that reads each.

use std::collections::BTreeMap;

use tallyport_core::aggregate::Window;
use tallyport_core::model::MetricType;

use super::family::Family;
use super::gathered::Gathered;
use super::identity::{push_label, push_quoted};
use super::name::is_valid;
use super::shape::Stat;

/// The range of `rate` in expressions. At the default scrape interval of Prometheus, one minute, a shorter range can
/// have too few samples.
const RANGE: &str = "5m";

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
    /// An expression for the whole metric: the rate of a counter, the 0.99 quantile of values, or the samples as they are.
    pub promql: String,
}

/// One kind of a family's samples.
struct SampleName {
    stat: Stat,
    name: String,
}

/// The metrics on a page, by name and type. `labels` are added to every selector.
pub(super) fn list_names<W: AsRef<Window>>(gathered: &Gathered<W>, labels: &str) -> Vec<ExposedName> {
    let mut samples: BTreeMap<usize, Vec<SampleName>> = BTreeMap::new();
    for block in &gathered.blocks {
        for (family, stat, suffix) in &block.parts {
            let sample = SampleName { stat: *stat, name: format!("{}{suffix}", block.name) };
            samples.entry(*family).or_default().push(sample);
        }
    }
    let mut named = BTreeMap::new();
    for item in &gathered.items {
        let (Some(family), Some(samples)) = (gathered.families.get(item.family), samples.get(&item.family))
        else {
            continue;
        };
        let (name, metric_type) = (&*item.series.name, item.series.metric_type);
        named
            .entry((name, metric_type.as_str(), item.family))
            .or_insert_with(|| describe_metric(name, metric_type, family, samples, labels));
    }
    named.into_values().flatten().collect()
}

fn describe_metric(
    name: &str,
    metric_type: MetricType,
    family: &Family,
    samples: &[SampleName],
    labels: &str,
) -> Option<ExposedName> {
    let chosen = samples.iter().min_by_key(|sample| preference(sample.stat))?;
    let selector = format_selector(&chosen.name, labels);
    Some(ExposedName {
        name: name.to_owned(),
        metric_type,
        scraped: chosen.name.clone(),
        samples: samples.iter().map(|sample| sample.name.clone()).collect(),
        promql: format_expression(chosen, family, labels, &selector),
        selector,
    })
}

/// The part of a metric that an expression should read has the smallest number.
fn preference(stat: Stat) -> usize {
    match stat {
        Stat::Total | Stat::Level | Stat::Cardinality | Stat::Quantiles | Stat::Buckets | Stat::Native => 0,
        // The highest percentile first.
        Stat::Percentile(place) => 100_usize.saturating_sub(place),
        Stat::Max | Stat::Mean | Stat::Min | Stat::Stddev => 101,
        Stat::Sum | Stat::Count => 102,
        Stat::Created => 103,
    }
}

fn format_expression(sample: &SampleName, family: &Family, labels: &str, selector: &str) -> String {
    match sample.stat {
        // rate() takes each decrease for a restart from zero.
        Stat::Total if family.negative => format!("sum(delta({selector}[{RANGE}]))"),
        Stat::Total => format!("sum(rate({selector}[{RANGE}]))"),
        Stat::Buckets => format!("histogram_quantile(0.99, sum by (le) (rate({selector}[{RANGE}])))"),
        Stat::Native => format!("histogram_quantile(0.99, sum(rate({selector}[{RANGE}])))"),
        Stat::Quantiles => {
            let mut labels = labels.to_owned();
            push_label(&mut labels, "quantile", "0.99");
            format_selector(&sample.name, &labels)
        }
        _ => selector.to_owned(),
    }
}

fn format_selector(name: &str, labels: &str) -> String {
    if is_valid(name) {
        return if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}}}") };
    }
    let mut text = "{".to_owned();
    push_quoted(&mut text, name);
    if !labels.is_empty() {
        text.push(',');
        text.push_str(labels);
    }
    text.push('}');
    text
}
