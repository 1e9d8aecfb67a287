//! What metrics and labels are called.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use crate::aggregate::OVERFLOW;
use crate::model::MetricType;
use crate::model::id::ORIGIN_KEYS;

/// By which rules metrics are named.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Naming {
    /// The conventions of OpenMetrics: `_total`, base units. No two names of applications become one.
    #[default]
    Openmetrics,
    /// As `statsd_exporter` does without a mapping.
    StatsdExporter,
    /// As Datadog names what an agent flushes.
    Datadog,
    /// As etsy's statsd names what it sends to Graphite.
    Graphite,
}

impl Naming {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Openmetrics, Self::StatsdExporter, Self::Datadog, Self::Graphite];

    /// How it is written in settings and queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openmetrics => "openmetrics",
            Self::StatsdExporter => "statsd_exporter",
            Self::Datadog => "datadog",
            Self::Graphite => "graphite",
        }
    }

    /// The name of a series, before what its type adds.
    pub(super) fn metric(self, name: &str, metric_type: MetricType) -> String {
        match self {
            Self::Openmetrics if is_plain(name, metric_type) => name.replace('.', "_"),
            Self::Openmetrics => marked(name, "metric"),
            Self::StatsdExporter | Self::Datadog | Self::Graphite => replaced(name),
        }
    }

    /// The label that a client's tag becomes.
    pub(super) fn label(self, key: &str) -> Cow<'_, str> {
        if RESERVED.contains(&key) {
            return Cow::Owned(format!("client_{key}"));
        }
        match self {
            Self::Openmetrics => own_label(key),
            _ if is_label(key) => Cow::Borrowed(key),
            _ => {
                let name = replaced(key);
                let hidden = name.len() - name.trim_start_matches('_').len();
                // Prometheus takes labels with two underscores in front for its own.
                Cow::Owned(name.get(hidden.saturating_sub(1)..).unwrap_or_default().to_owned())
            }
        }
    }
}

/// Labels that a client's tag cannot be: they say where a series comes from, or mean something to Prometheus.
const RESERVED: [&str; 14] = [
    "container",
    "container_id",
    "generation",
    "instance",
    "job",
    "le",
    "namespace",
    "node",
    "pod",
    "quantile",
    "task",
    "task_id",
    "workload",
    "workload_kind",
];

/// First parts of names that Prometheus and the agent give to series of their own.
const TAKEN: [&str; 4] = ["tallyport", "scrape", "up", "ALERTS"];

/// Last parts that would make a gauge's sample that of a counter, a summary or a set.
const OF_GAUGES: [&str; 5] = ["total", "created", "sum", "count", "unique"];

/// Last parts that would make a histogram's samples those of a timer or a distribution.
const OF_HISTOGRAMS: [&str; 2] = ["seconds", "distribution"];

/// Whether a name is spelled in the one way that needs no mark: words of letters and digits with dots between them.
fn is_plain(name: &str, metric_type: MetricType) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic());
    if !begins || !name.split('.').all(word) {
        return false;
    }
    let (first, last) = match (name.split_once('.'), name.rsplit_once('.')) {
        (Some((first, _)), Some((_, last))) => (first, last),
        _ => (name, ""),
    };
    let taken = TAKEN.contains(&first) && name != OVERFLOW;
    let ambiguous = match metric_type {
        MetricType::Gauge => OF_GAUGES.contains(&last),
        MetricType::Histogram => OF_HISTOGRAMS.contains(&last),
        _ => false,
    };
    !taken && !ambiguous
}

/// Whether something can be a label as it is. Two underscores are left to Prometheus and to marks.
fn is_label(key: &str) -> bool {
    let begins = key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    begins && !key.contains("__") && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A label that no other key becomes.
pub(super) fn own_label(key: &str) -> Cow<'_, str> {
    // This is what a reserved key becomes; those of origins were renamed when they arrived.
    let renamed = key.strip_prefix("client_");
    let imitates = renamed.is_some_and(|key| RESERVED.contains(&key) && !ORIGIN_KEYS.contains(&key));
    if is_label(key) && !imitates { Cow::Borrowed(key) } else { Cow::Owned(marked(key, "tag")) }
}

/// What can be kept of a text, and a mark made from all of it. Plain names have no two underscores in a row.
fn marked(text: &str, otherwise: &str) -> String {
    const MOST: usize = 128;
    let mut name = String::new();
    for c in text.chars().take(MOST) {
        if c.is_ascii_alphanumeric() {
            if name.is_empty() && c.is_ascii_digit() {
                name.push('_');
            }
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    name.truncate(name.trim_end_matches('_').len());
    if name.is_empty() {
        name.push_str(otherwise);
    }
    name.push_str("__");
    let mut hash = xxh3_64(text.as_bytes());
    for _ in 0..MARK {
        const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let digit = DIGITS.get((hash & 31) as usize).copied().unwrap_or(b'a');
        name.push(char::from(digit));
        hash >>= 5;
    }
    name
}

/// Digits of a mark: 40 bits.
const MARK: usize = 8;

/// What is no letter, digit or underscore becomes one, as others do it.
fn replaced(text: &str) -> String {
    let mut name: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    if name.starts_with("tallyport_task") {
        name.insert_str(0, "client_");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge(name: &str) -> String {
        Naming::Openmetrics.metric(name, MetricType::Gauge)
    }

    #[test]
    fn dots_become_underscores_and_nothing_else_is_plain() {
        assert_eq!(gauge("jvm.heap.used"), "jvm_heap_used");
        assert_eq!(gauge("hits"), "hits");
        for other in ["a_b", "a-b", "a b", "a/b", "a..b", ".a.b", "a.b.", "ä.b"] {
            let name = gauge(other);
            assert!(name != "a_b" && name.contains("__"), "{other} is {name}");
        }
        assert!(gauge("page.load_time").starts_with("page_load_time__"));
        assert!(gauge("404").starts_with("_404__"));
        assert!(gauge("...").starts_with("metric__"));
    }

    #[test]
    fn names_of_prometheus_and_of_the_agent_are_marked() {
        for taken in ["up", "scrape.duration.seconds", "ALERTS", "tallyport.task.info"] {
            assert!(gauge(taken).contains("__"), "{taken}");
        }
        assert_eq!(Naming::Openmetrics.metric(OVERFLOW, MetricType::Counter), "tallyport_overflow");
        assert_eq!(gauge("upstream.errors"), "upstream_errors");
    }

    #[test]
    fn a_gauge_that_would_be_the_sample_of_another_type_is_marked() {
        for last in OF_GAUGES {
            assert!(gauge(&format!("jobs.{last}")).starts_with(&format!("jobs_{last}__")));
            assert_eq!(gauge(last), last, "there is nothing that it could be the sample of");
        }
        let counter = Naming::Openmetrics.metric("jobs.total", MetricType::Counter);
        assert_eq!(counter, "jobs_total");
    }

    #[test]
    fn labels_stay_what_they_are_unless_they_cannot() {
        let label = |key| Naming::Openmetrics.label(key).into_owned();
        assert_eq!(["route", "status_code", "_a"].map(label), ["route", "status_code", "_a"]);
        assert_eq!(["job", "le", "pod"].map(label), ["client_job", "client_le", "client_pod"]);
        for odd in ["a.b", "a__b", "__name__", "1a", "ä", "", "client_job", "a b"] {
            let label = label(odd);
            assert!(label.contains("__") && !label.starts_with("__"), "{odd} is {label}");
        }
        assert_eq!(label("client_task_id"), "client_task_id", "it was renamed when it arrived");
    }

    #[test]
    fn other_namings_replace_what_cannot_be() {
        let name = |naming: Naming, name| naming.metric(name, MetricType::Timer);
        assert_eq!(name(Naming::StatsdExporter, "page.load_time"), "page_load_time");
        assert_eq!(name(Naming::Graphite, "404-errors"), "_404_errors");
        assert_eq!(Naming::Datadog.label("http.method"), "http_method");
        assert_eq!(["__a", "1a", "ä"].map(|key| Naming::Datadog.label(key).into_owned()), ["_a", "_1a", "_"]);
        assert_eq!(Naming::Datadog.label("pod"), "client_pod");
    }
}
