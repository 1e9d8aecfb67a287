//! The mapping of series types to families and samples, for each naming scheme.

use tallyport_core::aggregate::Scale;
use tallyport_core::model::MetricType;

use super::Naming;

/// What timers, histograms and distributions become, in naming schemes that leave a choice.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Timers {
    /// Percentiles of the last values.
    #[default]
    Summary,
    /// Cumulative buckets since the series was created.
    Histogram,
    /// Native histograms for scrapers that request protobuf, percentiles for others.
    Native,
}

impl Timers {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Summary, Self::Histogram, Self::Native];

    /// How it is written in settings and queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Histogram => "histogram",
            Self::Native => "native",
        }
    }
}

/// The declared type of a family.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Declared {
    Counter,
    Gauge,
    Summary,
    Histogram,
    /// A native histogram, which is a single sample.
    Native,
    /// Each of its parts is a family of its own, without a declared type.
    Unknown,
}

/// The time that percentiles and members of sets on a page cover, in seconds, unless a window is longer. It is longer than most scrape
/// intervals.
pub const SPAN_SECONDS: u64 = 60;

/// One number of a series, or several with a label between them.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stat {
    /// A counter's sum since its creation.
    Total,
    /// The creation time of a counter or histogram.
    Created,
    /// A gauge's level.
    Level,
    /// The number of distinct members of a set in its last window.
    Cardinality,
    /// The percentiles of the last values, each with a label.
    Quantiles,
    /// The number of values within each bound, each with a label.
    Buckets,
    /// All of a native histogram.
    Native,
    /// The sum of all values since the series was created.
    Sum,
    /// Their weighted count.
    Count,
    /// Of the last values.
    Min,
    Max,
    Mean,
    Stddev,
    /// One of the percentiles, by its place among them.
    Percentile(usize),
}

/// The mapping of a type: its family, and the samples in it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) declared: Declared,
    /// Before and after the name.
    pub(crate) prefix: &'static str,
    pub(crate) suffix: &'static str,
    /// The unit, which is also the end of the name.
    pub(crate) unit: &'static str,
    /// Values are divided by ten to this power.
    pub(crate) places: i8,
    /// The parts, each with the suffix that it adds to the family's name.
    pub(crate) parts: &'static [(Stat, &'static str)],
}

const SUMMARY: &[(Stat, &str)] = &[(Stat::Quantiles, ""), (Stat::Sum, "_sum"), (Stat::Count, "_count")];
const HISTOGRAM: &[(Stat, &str)] =
    &[(Stat::Buckets, "_bucket"), (Stat::Sum, "_sum"), (Stat::Count, "_count"), (Stat::Created, "_created")];
const NATIVE: &[(Stat, &str)] = &[(Stat::Native, "")];
const PLAIN: Shape =
    Shape { declared: Declared::Unknown, prefix: "", suffix: "", unit: "", places: 0, parts: &[] };
const GAUGE: Shape = Shape { declared: Declared::Gauge, parts: &[(Stat::Level, "")], ..PLAIN };
const SET: Shape = Shape { declared: Declared::Gauge, parts: &[(Stat::Cardinality, "")], ..PLAIN };
const VALUES: Shape = Shape { declared: Declared::Summary, parts: SUMMARY, ..PLAIN };
const BARE_COUNTER: Shape = Shape { declared: Declared::Counter, parts: &[(Stat::Total, "")], ..PLAIN };

impl Shape {
    /// The shape of a metric type; `None` if the scheme does not show it.
    pub(crate) fn for_metric_type(naming: Naming, metric_type: MetricType) -> Option<Self> {
        match naming {
            Naming::Openmetrics => openmetrics_shape(metric_type),
            Naming::StatsdExporter => statsd_exporter_shape(metric_type),
            Naming::Datadog => datadog_shape(metric_type),
            Naming::Graphite => graphite_shape(metric_type),
        }
    }

    /// A sentence about the time that its recent values are of; `None` if it has only levels, and counts since the beginning.
    pub(super) fn describe_span(&self) -> Option<String> {
        let has = |wanted: fn(&Stat) -> bool| self.parts.iter().any(|(stat, _)| wanted(stat));
        let subject = match () {
            () if has(|stat| matches!(stat, Stat::Quantiles | Stat::Percentile(_))) => "Percentiles cover",
            () if has(|stat| matches!(stat, Stat::Cardinality)) => "It covers",
            () => return None,
        };
        Some(format!(" {subject} {SPAN_SECONDS} s, or one window if that is longer."))
    }

    /// Whether a part has more labels than its series.
    pub(crate) fn is_labelled(stat: Stat) -> bool {
        matches!(stat, Stat::Quantiles | Stat::Buckets)
    }

    /// The same shape with buckets instead of percentiles, if it is a summary.
    pub(crate) fn in_buckets(self, scale: Scale<'_>) -> Option<Self> {
        let (declared, parts) = match scale {
            Scale::Bounds(_) => (Declared::Histogram, HISTOGRAM),
            Scale::Powers { .. } => (Declared::Native, NATIVE),
        };
        (self.declared == Declared::Summary).then_some(Self { declared, parts, ..self })
    }

    /// The divisor of values.
    pub(crate) fn divisor(&self) -> f64 {
        10_f64.powi(self.places.into())
    }
}

/// The suffix of a type in the OpenMetrics scheme.
pub(crate) fn openmetrics_suffix(metric_type: MetricType) -> &'static str {
    let Some(shape) = openmetrics_shape(metric_type) else { return "" };
    match shape.parts.first() {
        Some((_, suffix)) if shape.declared == Declared::Counter => suffix,
        _ => shape.suffix,
    }
}

fn openmetrics_shape(metric_type: MetricType) -> Option<Shape> {
    Some(match metric_type {
        MetricType::Counter => Shape {
            declared: Declared::Counter,
            parts: &[(Stat::Total, "_total"), (Stat::Created, "_created")],
            ..PLAIN
        },
        MetricType::Gauge => GAUGE,
        MetricType::Timer => Shape { suffix: "_seconds", unit: "seconds", places: 3, ..VALUES },
        MetricType::Histogram => VALUES,
        MetricType::Distribution => Shape { suffix: "_distribution", ..VALUES },
        MetricType::Set => Shape { suffix: "_unique", ..SET },
        MetricType::ServiceCheck => return None,
    })
}

fn statsd_exporter_shape(metric_type: MetricType) -> Option<Shape> {
    Some(match metric_type {
        MetricType::Counter => BARE_COUNTER,
        MetricType::Gauge => GAUGE,
        MetricType::Timer => Shape { places: 3, ..VALUES },
        MetricType::Histogram | MetricType::Distribution => VALUES,
        MetricType::Set => SET,
        MetricType::ServiceCheck => return None,
    })
}

fn datadog_shape(metric_type: MetricType) -> Option<Shape> {
    const VALUES: &[(Stat, &str)] = &[
        (Stat::Max, "_max"),
        (Stat::Percentile(0), "_median"),
        (Stat::Mean, "_avg"),
        (Stat::Count, "_count"),
        (Stat::Percentile(3), "_95percentile"),
    ];
    Some(match metric_type {
        MetricType::Counter => BARE_COUNTER,
        MetricType::Gauge => GAUGE,
        MetricType::Timer | MetricType::Histogram | MetricType::Distribution => {
            Shape { parts: VALUES, ..PLAIN }
        }
        MetricType::Set => SET,
        MetricType::ServiceCheck => return None,
    })
}

fn graphite_shape(metric_type: MetricType) -> Option<Shape> {
    const VALUES: &[(Stat, &str)] = &[
        (Stat::Count, "_count"),
        (Stat::Sum, "_sum"),
        (Stat::Mean, "_mean"),
        (Stat::Stddev, "_std"),
        (Stat::Min, "_lower"),
        (Stat::Max, "_upper"),
        (Stat::Percentile(0), "_median"),
        (Stat::Percentile(2), "_upper_90"),
        (Stat::Percentile(3), "_upper_95"),
        (Stat::Percentile(4), "_upper_99"),
    ];
    Some(match metric_type {
        MetricType::Counter => {
            Shape { prefix: "stats_counters_", parts: &[(Stat::Total, "_count")], ..BARE_COUNTER }
        }
        MetricType::Gauge => Shape { prefix: "stats_gauges_", ..GAUGE },
        MetricType::Timer | MetricType::Histogram | MetricType::Distribution => {
            Shape { prefix: "stats_timers_", parts: VALUES, ..PLAIN }
        }
        MetricType::Set => Shape { prefix: "stats_sets_", parts: &[(Stat::Cardinality, "_count")], ..SET },
        MetricType::ServiceCheck => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statistics_of_recent_values_have_a_time_that_they_cover() {
        let span =
            |metric_type| Shape::for_metric_type(Naming::Openmetrics, metric_type).unwrap().describe_span();
        let percentiles = " Percentiles cover 60 s, or one window if that is longer.";
        assert_eq!(span(MetricType::Timer).as_deref(), Some(percentiles));
        assert_eq!(
            span(MetricType::Set).as_deref(),
            Some(" It covers 60 s, or one window if that is longer.")
        );
        assert_eq!((span(MetricType::Counter), span(MetricType::Gauge)), (None, None));
        let timer = Shape::for_metric_type(Naming::Openmetrics, MetricType::Timer).unwrap();
        let histogram = timer.in_buckets(Scale::Powers { places: 3 }).unwrap();
        assert_eq!(histogram.describe_span(), None, "a query chooses the time");
    }

    #[test]
    fn every_type_but_checks_has_a_shape_with_parts() {
        for naming in Naming::ALL {
            for metric_type in MetricType::ALL {
                let shape = Shape::for_metric_type(naming, metric_type);
                let shown = metric_type != MetricType::ServiceCheck;
                assert_eq!(
                    shape.is_some_and(|shape| !shape.parts.is_empty()),
                    shown,
                    "{naming:?} {metric_type}"
                );
            }
        }
    }
}
