//! What the agent answers, as far as the commands read it. What they do not know they pass on as it came.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::names::container_name;
use crate::model::Timestamp;

/// One record, with everything it has.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ReportedRecord {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) metric_type: String,
    #[serde(default)]
    pub(super) value: Option<f64>,
    pub(super) unit: String,
    pub(super) end: Timestamp,
    pub(super) start: Timestamp,
    pub(super) covered: f64,
    #[serde(default)]
    pub(super) open: bool,
    pub(super) tags: Map<String, Value>,
    pub(super) agg: Map<String, Value>,
    pub(super) origin: RecordOrigin,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RecordOrigin {
    #[serde(default)]
    pub(super) container_id: Option<String>,
    #[serde(default)]
    pub(super) labels: Map<String, Value>,
}

impl ReportedRecord {
    /// A number of `agg`.
    pub(super) fn agg_value(&self, key: &str) -> Option<f64> {
        self.agg.get(key).and_then(Value::as_f64)
    }

    /// Tags as they are written on a line: `key:value,key`.
    pub(super) fn format_tags(&self) -> String {
        let tags = self.tags.iter().map(|(key, value)| match value.as_str() {
            Some("") | None => key.clone(),
            Some(value) => format!("{key}:{value}"),
        });
        tags.collect::<Vec<_>>().join(",")
    }

    /// Name, tags and type: what makes a series.
    pub(super) fn series_key(&self) -> (String, String, String) {
        (self.name.clone(), self.format_tags(), self.metric_type.clone())
    }
}

/// A task's answer to a request for metrics.
#[derive(Debug, Deserialize)]
pub(super) struct TaskMetrics {
    pub(super) task: TaskHeader,
    pub(super) metrics: Vec<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TaskHeader {
    pub(super) task_id: String,
    pub(super) finished: bool,
}

/// A task, in full.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Task {
    pub(super) task_id: String,
    pub(super) state: String,
    pub(super) finished: bool,
    pub(super) containers: Vec<ReportedContainer>,
    pub(super) labels: Map<String, Value>,
    pub(super) last_datagram: Option<Timestamp>,
    pub(super) series: usize,
    #[serde(default)]
    pub(super) widest_tags: Vec<ReportedWideTag>,
    pub(super) totals: Totals,
    pub(super) recent_rejected: Vec<ReportedRejection>,
    pub(super) last_scrape: Option<Timestamp>,
}

/// A tag key, or the name where there is none, that makes many series.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ReportedWideTag {
    pub(super) key: Option<String>,
    pub(super) values: usize,
    pub(super) series: usize,
}

/// What a container's lines tell of the client that writes them.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ReportedClient {
    pub(super) dogstatsd: bool,
    pub(super) gauge_changes: u64,
    pub(super) timers_look_like_seconds: bool,
    pub(super) decremented: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ReportedContainer {
    pub(super) container_id: String,
    pub(super) task_id: String,
    pub(super) generation: u32,
    pub(super) state: String,
    pub(super) attached: bool,
    pub(super) statsd_host: Option<String>,
    pub(super) statsd_port: Option<u16>,
    pub(super) env: Map<String, Value>,
    #[serde(default)]
    pub(super) labels: Map<String, Value>,
    /// Why it has no socket.
    #[serde(default)]
    pub(super) reason: Option<String>,
    pub(super) warnings: Vec<String>,
    /// Agents before this version do not say.
    #[serde(default)]
    pub(super) client: Option<ReportedClient>,
    #[serde(default)]
    pub(super) pid: Option<i32>,
    #[serde(default)]
    pub(super) last_datagram: Option<Timestamp>,
    #[serde(default)]
    pub(super) received: u64,
    #[serde(default)]
    pub(super) kernel_drops: u64,
    #[serde(default)]
    pub(super) dropped: u64,
    #[serde(default)]
    pub(super) rejected: u64,
    #[serde(default)]
    pub(super) origin_guard_missing: Option<String>,
}

impl ReportedContainer {
    /// What people call it.
    pub(super) fn name(&self) -> &str {
        container_name(&self.container_id, &self.labels)
    }

    pub(super) fn statsd_address(&self) -> String {
        match (&self.statsd_host, self.statsd_port) {
            (Some(host), Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => "-".to_owned(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Totals {
    pub(super) datagrams: ReportedDatagrams,
    pub(super) lines: ReportedLines,
    pub(super) values: ReportedValues,
    pub(super) events: u64,
    pub(super) over_limit: Map<String, Value>,
    pub(super) balanced: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ReportedDatagrams {
    pub(super) received: u64,
    pub(super) kernel_drops: u64,
    pub(super) dropped: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ReportedLines {
    pub(super) received: u64,
    pub(super) accepted: u64,
    pub(super) rejected: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ReportedValues {
    pub(super) accepted: u64,
    pub(super) in_records: u64,
    pub(super) open: u64,
    pub(super) folded: u64,
    pub(super) dropped: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ReportedRejection {
    pub(super) at: Timestamp,
    pub(super) code: String,
    pub(super) advice: String,
    #[serde(default)]
    pub(super) line: Option<String>,
}

/// `{"reason":12}` as `12 reason`.
pub(super) fn sorted_counts(counts: &Map<String, Value>) -> Vec<(String, u64)> {
    let mut counts: Vec<_> =
        counts.iter().filter_map(|(name, n)| Some((name.clone(), n.as_u64()?))).collect();
    counts.sort_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));
    counts
}

/// A number as people read it.
pub(super) fn format_number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let size = value.abs();
    if !(1e-3..1e15).contains(&size) {
        return format!("{value:.3e}");
    }
    let text = if size >= 1000.0 { format!("{value:.1}") } else { format!("{value:.3}") };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How long ago, in one unit.
pub(super) fn format_elapsed(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let texts = [3.0, 0.1 + 0.2, 12345.678, 1e20, 1e-9, -2.5, 0.0].map(format_number);
        assert_eq!(texts, ["3", "0.3", "12345.7", "1.000e20", "1.000e-9", "-2.5", "0"]);
    }

    #[test]
    fn ages_have_one_unit() {
        let at = Timestamp::from_secs;
        let ages = [0, 59, 60, 3599, 3600, 86_400].map(|secs| format_elapsed(at(secs), at(0)));
        assert_eq!(ages, ["0s", "59s", "1m", "59m", "1h", "1d"]);
        assert_eq!(format_elapsed(at(0), at(100)), "0s", "a clock that is a little off");
    }
}
