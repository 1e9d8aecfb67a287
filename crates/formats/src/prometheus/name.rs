//! Names of metrics and labels.

use std::borrow::Cow;

use tallyport_core::aggregate::OVERFLOW;
use tallyport_core::model::MetricType;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::shape::openmetrics_suffix;
use crate::exposition::Escaping;

/// The naming scheme of metrics.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Naming {
    /// The conventions of OpenMetrics: `_total`, base units. Of two colliding names, the later one gets a mark.
    #[default]
    Openmetrics,
    /// As `statsd_exporter` does without a mapping.
    StatsdExporter,
    /// As Datadog names what an agent flushes.
    Datadog,
    /// As etsy's statsd names what it sends to Graphite.
    Graphite,
}

/// How to spell a name.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct NameSpelling {
    /// Which characters the reader accepts.
    pub escaping: Escaping,
    /// Which of a name's marks it carries; `None` for the plain name.
    pub mark: Option<u8>,
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

    /// The name of a series, without the suffix of its type. Only the OpenMetrics scheme has marks and UTF-8; the other
    /// schemes imitate servers that have neither.
    pub(crate) fn metric_name(self, name: &str, metric_type: MetricType, spelling: NameSpelling) -> String {
        match self {
            Self::Openmetrics => sanitize_metric(name, metric_type, spelling),
            Self::StatsdExporter | Self::Datadog | Self::Graphite => third_party_metric_name(name),
        }
    }

    /// The label that a client's tag becomes.
    pub(crate) fn label_name(self, key: &str, spelling: NameSpelling) -> Cow<'_, str> {
        match self {
            Self::Openmetrics => sanitize_label(key, spelling),
            _ => sanitize_label(key, NameSpelling { escaping: Escaping::Underscores, mark: None }),
        }
    }
}

/// Labels that a client's tag cannot become: they identify the origin of a series, or have a meaning in Prometheus.
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

/// Metrics that Prometheus adds to scraped targets or through its rules.
const OF_PROMETHEUS: [&str; 10] = [
    "ALERTS",
    "ALERTS_FOR_STATE",
    "scrape_body_size_bytes",
    "scrape_duration_seconds",
    "scrape_sample_limit",
    "scrape_samples_post_metric_relabeling",
    "scrape_samples_scraped",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "up",
];

/// The prefix of the agent's own metrics.
const OF_THE_AGENT: &str = "tallyport_";

/// A metric's name in the OpenMetrics scheme. The suffix of the type is added even if the name already has it: Envoy
/// counts both `upstream_rq` and `upstream_rq_total`, which would collide otherwise.
fn sanitize_metric(name: &str, metric_type: MetricType, spelling: NameSpelling) -> String {
    let base = match spelling.escaping {
        Escaping::Underscores => replace_invalid_chars(name),
        Escaping::Utf8 => replace_control_chars(name).into_owned(),
    };
    let reserved = name != OVERFLOW && is_reserved(&base, openmetrics_suffix(metric_type));
    match spelling.mark.or(reserved.then_some(0)) {
        Some(mark) => append_mark(&base, name, mark, "metric"),
        None => base,
    }
}

/// Whether Prometheus or the agent has metrics with the name that these two are together: an application's metrics could
/// trigger alerts on these.
fn is_reserved(base: &str, suffix: &str) -> bool {
    let of_the_agent = match OF_THE_AGENT.strip_prefix(base) {
        Some(rest) => suffix.starts_with(rest),
        None => base.starts_with(OF_THE_AGENT),
    };
    of_the_agent || OF_PROMETHEUS.iter().any(|name| name.strip_suffix(suffix) == Some(base))
}

/// A label's name. Prometheus drops labels that begin with two underscores, so only one is kept.
pub(super) fn sanitize_label(key: &str, spelling: NameSpelling) -> Cow<'_, str> {
    let as_it_is = match spelling.escaping {
        Escaping::Underscores => is_valid(key),
        Escaping::Utf8 => !key.is_empty() && !key.contains(char::is_control),
    };
    let mut name = match spelling.escaping {
        _ if as_it_is => Cow::Borrowed(key),
        Escaping::Underscores => Cow::Owned(replace_invalid_chars(key)),
        Escaping::Utf8 => replace_control_chars(key),
    };
    let hidden = name.len() - name.trim_start_matches('_').len();
    if hidden > 1 {
        name = Cow::Owned(name.get(hidden - 1..).unwrap_or_default().to_owned());
    }
    if RESERVED.contains(&name.as_ref()) {
        name = Cow::Owned(format!("client_{name}"));
    }
    match spelling.mark.or(key.is_empty().then_some(0)) {
        Some(mark) => Cow::Owned(append_mark(&name, key, mark, "tag")),
        None => name,
    }
}

/// Whether a text is a valid name in every version of Prometheus.
pub(crate) fn is_valid(name: &str) -> bool {
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The maximum length of a name before its mark, in characters.
const MOST: usize = 128;

/// Appends a mark to a name, derived from the whole original text.
pub(crate) fn append_mark(name: &str, text: &str, mark: u8, otherwise: &str) -> String {
    /// Digits of a mark: 40 bits.
    const MARK: usize = 8;
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let kept = match name.trim_end_matches('_') {
        "" => otherwise,
        _ if text.is_empty() => otherwise,
        kept => kept,
    };
    let mut name: String = kept.chars().take(MOST).collect();
    name.push_str("__");
    let mut hash = xxh3_64_with_seed(text.as_bytes(), mark.into());
    for _ in 0..MARK {
        let digit = DIGITS.get((hash & 31) as usize).copied().unwrap_or(b'a');
        name.push(char::from(digit));
        hash >>= 5;
    }
    name
}

/// Replaces each character that is not a letter, digit or underscore with an underscore.
fn replace_invalid_chars(text: &str) -> String {
    let valid = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'_' };
    let bytes = match text.is_ascii() {
        true => text.bytes().map(valid).collect(),
        false => text.chars().map(|c| u8::try_from(c).map_or(b'_', valid)).collect::<Vec<u8>>(),
    };
    // They are all of ASCII.
    let mut name = String::from_utf8(bytes).unwrap_or_default();
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// Replaces control characters with Unicode's control pictures, because not every parser accepts them.
fn replace_control_chars(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let picture = |c: char| match c {
        '\0'..'\u{20}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('_'),
        '\u{7f}' => '\u{2421}',
        c if c.is_control() => '_',
        c => c,
    };
    Cow::Owned(text.chars().map(picture).collect())
}

/// The name that other StatsD servers derive from a text.
fn third_party_metric_name(text: &str) -> String {
    let mut name = replace_invalid_chars(text);
    if name.starts_with("tallyport_task") {
        name.insert_str(0, "client_");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: NameSpelling = NameSpelling { escaping: Escaping::Underscores, mark: None };
    const UTF8: NameSpelling = NameSpelling { escaping: Escaping::Utf8, mark: None };

    fn gauge(name: &str) -> String {
        Naming::Openmetrics.metric_name(name, MetricType::Gauge, PLAIN)
    }

    #[test]
    fn what_prometheus_does_not_allow_becomes_an_underscore_and_the_rest_stays() {
        for name in ["jvm_heap_used", "jvm.heap.used", "jvm-heap/used", "jvm heap.used"] {
            assert_eq!(gauge(name), "jvm_heap_used");
        }
        assert_eq!(["A__b_", "_a", "a..b"].map(gauge), ["A__b_", "_a", "a__b"]);
        assert_eq!(["404", "ä.b", "..."].map(gauge), ["_404", "__b", "___"]);
    }

    #[test]
    fn names_of_prometheus_and_of_the_agent_are_marked() {
        for taken in ["up", "scrape.duration.seconds", "ALERTS", "tallyport.task.info", "tallyport_x"] {
            assert!(gauge(taken).contains("__"), "{taken}");
        }
        let timer = Naming::Openmetrics.metric_name("scrape.duration", MetricType::Timer, PLAIN);
        assert!(timer.starts_with("scrape_duration__"), "{timer}");
        let counter = |name| Naming::Openmetrics.metric_name(name, MetricType::Counter, PLAIN);
        assert_eq!([OVERFLOW, "up"].map(counter), ["tallyport_overflow", "up"], "up_total is free");
        assert_eq!(gauge("upstream.errors"), "upstream_errors");
    }

    #[test]
    fn a_mark_is_behind_the_name_and_another_for_each_text_and_attempt() {
        let of = |name, mark| {
            let spelling = NameSpelling { mark: Some(mark), ..PLAIN };
            Naming::Openmetrics.metric_name(name, MetricType::Counter, spelling)
        };
        let all = [of("a.b", 0), of("a_b", 0), of("a_b", 1)];
        assert!(all.iter().all(|name| name.starts_with("a_b__") && name.len() == 13), "{all:?}");
        assert!(all[0] != all[1] && all[1] != all[2], "{all:?}");
    }

    #[test]
    fn tags_become_labels_as_names_become_metrics() {
        let label = |key| Naming::Openmetrics.label_name(key, PLAIN).into_owned();
        assert_eq!(["route", "status_code", "_a", "a__b"].map(label), ["route", "status_code", "_a", "a__b"]);
        assert_eq!(["envoy.cluster_name", "a b", "1a"].map(label), ["envoy_cluster_name", "a_b", "_1a"]);
        assert_eq!(["job", "le", "pod"].map(label), ["client_job", "client_le", "client_pod"]);
        assert_eq!(["container.id", "task-id"].map(label), ["client_container_id", "client_task_id"]);
        assert_eq!(["__name__", "__a", "ä"].map(label), ["_name__", "_a", "_"]);
        assert!(label("").starts_with("tag__"));
        let marked = Naming::Openmetrics.label_name("ä", NameSpelling { mark: Some(0), ..PLAIN });
        assert!(marked.starts_with("tag__"), "Prometheus would remove what begins with two underscores");
    }

    #[test]
    fn readers_of_utf_8_get_names_as_they_are() {
        let name = |name| Naming::Openmetrics.metric_name(name, MetricType::Counter, UTF8);
        assert_eq!(["page.load_time", "ä b", "404"].map(name), ["page.load_time", "ä b", "404"]);
        assert_eq!(["x_total", "a\u{7}"].map(name), ["x_total", "a\u{2407}"]);
        let label = |key| Naming::Openmetrics.label_name(key, UTF8).into_owned();
        assert_eq!(["http.method", "job", "__name__"].map(label), ["http.method", "client_job", "_name__"]);
    }

    #[test]
    fn other_namings_replace_what_cannot_be_and_know_no_marks() {
        for spelling in [PLAIN, UTF8, NameSpelling { mark: Some(0), ..PLAIN }] {
            let name = |naming: Naming, name| naming.metric_name(name, MetricType::Timer, spelling);
            assert_eq!(name(Naming::StatsdExporter, "page.load_time"), "page_load_time");
            assert_eq!(name(Naming::Graphite, "404-errors"), "_404_errors");
            let label = |key| Naming::Datadog.label_name(key, spelling).into_owned();
            assert_eq!(["http.method", "__a", "1a", "ä"].map(label), ["http_method", "_a", "_1a", "_"]);
            assert_eq!(label("pod"), "client_pod");
        }
    }
}
