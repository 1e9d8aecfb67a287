//! PromQL for the samples of one metric.

use tallyport_core::aggregate::PERCENTILES;

use super::super::identity::{push_label, push_quoted};
use super::super::name::is_valid;
use super::super::shape::Stat;
use super::SampleName;
use super::view::{Grouping, SampleSelection, Statistic};

/// The range of `rate` in expressions. At the default scrape interval of Prometheus, one minute, a shorter range can
/// have too few samples.
const RANGE: &str = "5m";

const LARGEST: &str = "Percentiles of summaries cannot be merged: this is the largest one of the series, an upper bound of the \
                       percentile of all values. prometheus.timers = \"histogram\" makes them mergeable.";
const MEMBERS: &str =
    "Members that several series report are counted by each of them: this is an upper bound.";
const NO_MAX: &str = "A summary has no maximum; this is its highest percentile.";
const BUCKET_MAX: &str = "This is the bound of the highest bucket that has values, not the exact maximum.";
const NEAREST: &str =
    "The naming of this page does not have the chosen statistic; this is the nearest that it has.";
const LARGEST_OF_SERIES: &str =
    "This is the largest one of the series: the naming of this page has nothing to merge.";

/// The samples of a metric, and which of them are wanted.
#[derive(Debug)]
pub(super) struct ExposedMetric<'m> {
    pub(super) samples: &'m [SampleName],
    /// Whether a sum on the page has decreased or can decrease.
    pub(super) negative: bool,
    pub(super) grouping: &'m Grouping,
    pub(super) selection: &'m SampleSelection,
}

/// An expression, and what it reads.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) scraped: String,
    pub(super) selector: String,
    pub(super) promql: String,
    pub(super) reads: &'static str,
    pub(super) note: Option<&'static str>,
}

impl ExposedMetric<'_> {
    /// The expression for a statistic; types without a choice ignore it. `None` if the metric has no samples.
    pub(super) fn write_expression(&self, statistic: Statistic) -> Option<Expression> {
        let main = self.samples.iter().min_by_key(|sample| preference(sample.stat, statistic))?;
        let selector = format_selector(&main.name, &self.selection.labels);
        let (promql, reads, note) = match main.stat {
            Stat::Total => {
                (self.sum(&self.over_time(&selector)), if self.negative { "change" } else { "rate" }, None)
            }
            Stat::Level => (selector.clone(), "level", None),
            Stat::Cardinality if self.adds_up() => (self.sum(&selector), "members", Some(MEMBERS)),
            Stat::Cardinality => (selector.clone(), "members", None),
            Stat::Buckets | Stat::Native => self.write_histogram(main, statistic)?,
            Stat::Quantiles => return self.write_summary(main, statistic),
            Stat::Percentile(_) | Stat::Max | Stat::Mean | Stat::Min | Stat::Stddev => {
                self.write_gauge(main.stat, &selector, statistic)
            }
            Stat::Sum | Stat::Count | Stat::Created => (selector.clone(), "sum", Some(NEAREST)),
        };
        Some(Expression { scraped: main.name.clone(), selector, promql, reads, note })
    }

    fn adds_up(&self) -> bool {
        matches!(self.grouping, Grouping::Tags(_))
    }

    fn sum(&self, inner: &str) -> String {
        aggregate("sum", &self.selection.keys, inner)
    }

    /// What a sum has grown by. `rate()` takes each decrease for a restart from zero.
    fn over_time(&self, selector: &str) -> String {
        format!("{}({selector}[{RANGE}])", if self.negative { "delta" } else { "rate" })
    }

    fn write_histogram(
        &self,
        main: &SampleName,
        statistic: Statistic,
    ) -> Option<(String, &'static str, Option<&'static str>)> {
        let rate = format!("rate({}[{RANGE}])", format_selector(&main.name, &self.selection.labels));
        let native = main.stat == Stat::Native;
        if statistic == Statistic::Mean {
            let rate = self.sum(&rate);
            let mean = if native {
                format!("histogram_sum({rate}) / histogram_count({rate})")
            } else {
                self.write_mean()?.2
            };
            return Some((mean, "mean", None));
        }
        let bound = (!native).then(|| "le".to_owned());
        let keys: Vec<String> = bound.into_iter().chain(self.selection.keys.iter().cloned()).collect();
        let quantile = quantile_of(statistic).unwrap_or("1");
        let note = (statistic == Statistic::Max).then_some(BUCKET_MAX);
        let text = format!("histogram_quantile({quantile}, {})", aggregate("sum", &keys, &rate));
        Some((text, statistic.as_str(), note))
    }

    fn write_summary(&self, main: &SampleName, statistic: Statistic) -> Option<Expression> {
        if statistic == Statistic::Mean {
            let (scraped, selector, promql) = self.write_mean()?;
            return Some(Expression { scraped, selector, promql, reads: "mean", note: None });
        }
        let mut labels = self.selection.labels.clone();
        push_label(&mut labels, "quantile", quantile_of(statistic).unwrap_or("0.99"));
        let percentile = format_selector(&main.name, &labels);
        let is_max = statistic == Statistic::Max;
        let note = if is_max { Some(NO_MAX) } else { self.adds_up().then_some(LARGEST) };
        Some(Expression {
            scraped: main.name.clone(),
            selector: format_selector(&main.name, &self.selection.labels),
            promql: if self.adds_up() {
                aggregate("max", &self.selection.keys, &percentile)
            } else {
                percentile
            },
            reads: if is_max { "p99" } else { statistic.as_str() },
            note,
        })
    }

    /// The sum of all values by their count: the name and the selector of the sum, and the expression.
    fn write_mean(&self) -> Option<(String, String, String)> {
        let find = |stat| self.samples.iter().find(|sample| sample.stat == stat);
        let (sum, count) = (find(Stat::Sum)?, find(Stat::Count)?);
        let grown = |sample: &SampleName| {
            self.sum(&self.over_time(&format_selector(&sample.name, &self.selection.labels)))
        };
        let selector = format_selector(&sum.name, &self.selection.labels);
        Some((sum.name.clone(), selector, format!("{} / {}", grown(sum), grown(count))))
    }

    /// Namings without summaries have one gauge for each statistic.
    fn write_gauge(
        &self,
        stat: Stat,
        selector: &str,
        wanted: Statistic,
    ) -> (String, &'static str, Option<&'static str>) {
        let found = Statistic::ALL.into_iter().find(|statistic| stat_of(*statistic) == Some(stat));
        let reads = match (found, stat) {
            (Some(statistic), _) => statistic.as_str(),
            (None, Stat::Percentile(_)) => "percentile",
            (None, Stat::Min) => "min",
            (None, _) => "stddev",
        };
        let text = if self.adds_up() {
            aggregate("max", &self.selection.keys, selector)
        } else {
            selector.to_owned()
        };
        let note = match found {
            Some(statistic) if statistic == wanted => {
                (self.adds_up() && wanted != Statistic::Max).then_some(LARGEST_OF_SERIES)
            }
            _ => Some(NEAREST),
        };
        (text, reads, note)
    }
}

/// The part of a metric that an expression should read has the smallest number.
fn preference(stat: Stat, wanted: Statistic) -> usize {
    match stat {
        Stat::Total | Stat::Level | Stat::Cardinality | Stat::Quantiles | Stat::Buckets | Stat::Native => 0,
        stat if stat_of(wanted) == Some(stat) => 1,
        // The highest percentile first.
        Stat::Percentile(place) => 100_usize.saturating_sub(place),
        Stat::Max | Stat::Mean | Stat::Min | Stat::Stddev => 101,
        Stat::Sum | Stat::Count => 102,
        Stat::Created => 103,
    }
}

/// The part of a metric that is a statistic, in namings that have one part for each. Percentiles are by their place among those
/// that summaries have.
fn stat_of(statistic: Statistic) -> Option<Stat> {
    let place = |wanted: u32| PERCENTILES.iter().position(|(percent, _)| *percent == wanted);
    match statistic {
        Statistic::Mean => Some(Stat::Mean),
        Statistic::Max => Some(Stat::Max),
        Statistic::P50 => place(50).map(Stat::Percentile),
        Statistic::P95 => place(95).map(Stat::Percentile),
        Statistic::P99 => place(99).map(Stat::Percentile),
    }
}

fn quantile_of(statistic: Statistic) -> Option<&'static str> {
    match statistic {
        Statistic::P50 => Some("0.5"),
        Statistic::P95 => Some("0.95"),
        Statistic::P99 => Some("0.99"),
        Statistic::Mean | Statistic::Max => None,
    }
}

fn aggregate(operator: &str, keys: &[String], inner: &str) -> String {
    if keys.is_empty() {
        format!("{operator}({inner})")
    } else {
        format!("{operator} by ({}) ({inner})", keys.join(", "))
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
