//! Datadog's intake: counters, gauges and sets as series, values as sketches, and service checks, each by its own route.
//!
//! The values of series and sketches are those of the interval, and the same (name, host, tags, timestamp) sent again
//! overwrites what it sent before.

mod check;
mod series;
mod sketch;

use std::borrow::Cow;
use std::ops::Range;

use tallyport_core::model::MetricType;

use super::body::{BodyFormat, split_records};
use super::labels::LabelReader;
use super::{Encoded, Framing, LeftOutReason, RequestRoom, Round, RoundRecord};
use crate::prometheus::name::append_mark;

/// A route of the intake, and what is sent by it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum DatadogRoute {
    /// Counters, gauges and sets.
    Series,
    /// Timers, histograms and distributions.
    Sketches,
    /// Service checks.
    Checks,
}

impl DatadogRoute {
    /// All of them. A record is sent by exactly one.
    pub const ALL: [Self; 3] = [Self::Series, Self::Sketches, Self::Checks];

    /// The path below the intake's address.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Series => "/api/v2/series",
            Self::Sketches => "/api/beta/sketches",
            Self::Checks => "/api/v1/check_run",
        }
    }

    /// What is around and between the records of its bodies, for joining them.
    #[must_use]
    pub const fn body_framing(self) -> Framing {
        self.format().framing
    }

    /// The route by which records of a type are sent.
    #[must_use]
    pub const fn for_type(metric_type: MetricType) -> Self {
        match metric_type {
            MetricType::Counter | MetricType::Gauge | MetricType::Set => Self::Series,
            MetricType::Timer | MetricType::Histogram | MetricType::Distribution => Self::Sketches,
            MetricType::ServiceCheck => Self::Checks,
        }
    }

    /// The route by which a body was encoded.
    #[must_use]
    pub fn for_body(body: &[u8]) -> Self {
        match body.first() {
            Some(b'{') => Self::Series,
            Some(b'[') => Self::Checks,
            _ => Self::Sketches,
        }
    }

    const fn format(self) -> BodyFormat {
        const JSON: &str = "application/json";
        match self {
            Self::Series => {
                BodyFormat { content_type: JSON, framing: Framing::new("{\"series\":[", ",", "]}") }
            }
            Self::Sketches => BodyFormat { content_type: "application/x-protobuf", framing: Framing::BARE },
            Self::Checks => BodyFormat { content_type: JSON, framing: Framing::new("[", ",", "]") },
        }
    }
}

/// Encodes the records of one route. Those of the other routes are left out as [`LeftOutReason::Unsupported`].
#[must_use]
pub fn encode_datadog(
    round: &Round<'_>,
    records: Range<usize>,
    route: DatadogRoute,
    room: RequestRoom,
) -> Encoded {
    let mut labels = LabelReader::with_plain_names(round);
    split_records(round, records, room, route.format(), |record, out| {
        if DatadogRoute::for_type(record.series.metric_type) != route {
            return Err(LeftOutReason::Unsupported);
        }
        labels.enter_identity(record);
        let tags = collect_tags(&labels, record);
        match route {
            DatadogRoute::Series => series::push_series(out, round, record, tags),
            DatadogRoute::Sketches => sketch::push_sketch(out, round, record, tags),
            DatadogRoute::Checks => check::push_check(out, round, record, tags),
        }
    })
}

/// The name of a metric: letters, digits, underscores and dots, a letter first, at most 200 characters. What is longer gets a
/// mark, so that two long names stay two metrics.
fn sanitize_name(name: &str) -> Cow<'_, str> {
    const MOST: usize = 200;
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if starts_well && name.len() <= MOST && name.chars().all(is_valid) {
        return Cow::Borrowed(name);
    }
    let prefix = if starts_well { "" } else { "metric_" };
    let mut valid = prefix.to_owned();
    valid.extend(name.chars().map(|c| if is_valid(c) { c } else { '_' }));
    if valid.len() > MOST {
        valid = append_mark(&valid, name, 0, "metric");
    }
    Cow::Owned(valid)
}

/// The labels as `key:value`. A tag without a value is its key alone, and one that was sent with several values is several.
fn collect_tags(labels: &LabelReader<'_>, record: &RoundRecord<'_>) -> Vec<String> {
    let identity = labels.identity_labels().iter();
    let mut tags: Vec<String> = identity.map(|(name, value)| format!("{name}:{value}")).collect();
    for (name, values) in labels.series_names().tag_labels(&record.series.tags) {
        for value in values.split(',') {
            tags.push(if value.is_empty() { name.clone().into_owned() } else { format!("{name}:{value}") });
        }
    }
    tags
}
