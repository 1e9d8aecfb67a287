//! The last windows of a task's series, as the commands keep them that show a task live.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::units::short_id;
use crate::model::Timestamp;
use crate::wire::LabelMap;

/// Maximum number of windows that are kept of a series.
pub(super) const KEPT_WINDOWS: usize = 30;

/// A record, reduced to what is shown live: a task can have thousands of series, each with many windows.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct LiveRecord {
    name: String,
    #[serde(rename = "type")]
    metric_type: String,
    unit: String,
    tags: Map<String, Value>,
    origin: LiveOrigin,
    start: Timestamp,
    end: Timestamp,
    covered: f64,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    value: Option<f64>,
    agg: ReadingNumbers,
}

#[derive(Clone, Debug, Deserialize)]
struct LiveOrigin {
    #[serde(default)]
    container_id: Option<String>,
    #[serde(default)]
    labels: Option<LabelMap>,
}

/// The numbers of one series in one window.
#[derive(Clone, Debug)]
pub(super) struct WindowReading {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    /// Seconds in which the container was listening.
    pub(super) covered: f64,
    /// Whether its window is still open.
    pub(super) open: bool,
    pub(super) value: Option<f64>,
    pub(super) agg: ReadingNumbers,
}

/// The numbers of `agg` that are shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ReadingNumbers {
    pub(super) samples: Option<f64>,
    pub(super) count: Option<f64>,
    pub(super) rate: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) status: Option<String>,
}

/// What makes a series of a task. The order is that of lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct LiveSeriesId {
    pub(super) name: String,
    /// As on a line: `key:value,key`.
    pub(super) tags: String,
    pub(super) metric_type: String,
    pub(super) container: String,
}

/// The windows of one series, the oldest first.
#[derive(Clone, Debug)]
pub(super) struct SeriesWindows {
    pub(super) unit: String,
    /// The name of its container for people.
    pub(super) container_name: String,
    readings: VecDeque<WindowReading>,
}

impl SeriesWindows {
    pub(super) fn kept_readings(&self) -> &VecDeque<WindowReading> {
        &self.readings
    }

    /// The newest window; there is always one.
    pub(super) fn newest_reading(&self) -> Option<&WindowReading> {
        self.readings.back()
    }

    /// The value of each window, for a sparkline.
    pub(super) fn list_values(&self) -> Vec<Option<f64>> {
        self.readings.iter().map(|reading| reading.value).collect()
    }

    fn insert(&mut self, reading: WindowReading) {
        let at = self.readings.partition_point(|kept| kept.start < reading.start);
        match self.readings.get_mut(at) {
            // A revision, or the same window from another request.
            Some(kept) if kept.start == reading.start => *kept = reading,
            _ => self.readings.insert(at, reading),
        }
        while self.readings.len() > KEPT_WINDOWS {
            self.readings.pop_front();
        }
    }
}

/// The series of a task.
#[derive(Debug, Default)]
pub(super) struct LiveSeries {
    series: BTreeMap<LiveSeriesId, SeriesWindows>,
    /// The end of the newest window, by container.
    newest: BTreeMap<String, Timestamp>,
}

impl LiveSeries {
    pub(super) fn add_records(&mut self, records: Vec<LiveRecord>) {
        for record in records {
            let LiveRecord { name, metric_type, unit, tags, origin, start, end, covered, open, value, agg } =
                record;
            let reading = WindowReading { start, end, covered, open, value, agg };
            let container = origin.container_id.unwrap_or_default();
            let labels = origin.labels.unwrap_or_default();
            let newest = self.newest.entry(container.clone()).or_insert(reading.end);
            *newest = (*newest).max(reading.end);
            let container_name =
                labels.get("container").map_or_else(|| short_id(&container), String::as_str).to_owned();
            let id = LiveSeriesId { name, tags: format_tags(&tags), metric_type, container };
            let windows = self.series.entry(id).or_insert_with(|| SeriesWindows {
                unit,
                container_name,
                readings: VecDeque::new(),
            });
            windows.insert(reading);
        }
        self.forget_silent();
    }

    /// Forgets series that have had no record for as many windows as are kept. Otherwise a task whose tags change all
    /// the time would fill the memory of a command that runs for days.
    fn forget_silent(&mut self) {
        let Some(newest) = self.newest_end() else { return };
        self.series.retain(|_, windows| {
            windows.newest_reading().is_some_and(|reading| {
                let length = reading.end.duration_since(reading.start);
                let span = length.saturating_mul(u32::try_from(KEPT_WINDOWS).unwrap_or(u32::MAX));
                newest.duration_since(reading.end) <= span
            })
        });
    }

    pub(super) fn all_series(&self) -> &BTreeMap<LiveSeriesId, SeriesWindows> {
        &self.series
    }

    /// The end of the newest window.
    pub(super) fn newest_end(&self) -> Option<Timestamp> {
        self.newest.values().max().copied()
    }

    /// Whether the series come from more than one container.
    pub(super) fn has_several_containers(&self) -> bool {
        let mut ids = self.series.keys().map(|id| &id.container);
        let first = ids.next();
        ids.any(|id| Some(id) != first)
    }

    /// Samples per second in the newest window of its container; 0 for a series that was silent in it, or whose
    /// container has had no window for a while.
    pub(super) fn samples_per_second(&self, id: &LiveSeriesId, windows: &SeriesWindows) -> f64 {
        let (Some(reading), Some(newest)) = (windows.newest_reading(), self.newest.get(&id.container)) else {
            return 0.0;
        };
        let length = reading.end.duration_since(reading.start);
        let overall = self.newest_end().unwrap_or(*newest);
        let current = reading.end == *newest && overall.duration_since(*newest) <= length;
        match reading.agg.samples {
            Some(samples) if current && reading.covered > 0.0 => samples / reading.covered,
            _ => 0.0,
        }
    }
}

/// Tags as they are written on a line.
fn format_tags(tags: &Map<String, Value>) -> String {
    let tags = tags.iter().map(|(key, value)| match value.as_str() {
        Some("") | None => key.clone(),
        Some(value) => format!("{key}:{value}"),
    });
    tags.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record of ten seconds; `more` adds or replaces keys.
    pub(in crate::cli) fn sample_record(name: &str, start: i64, more: &Value) -> LiveRecord {
        let mut document = serde_json::json!({
            "name": name, "type": "counter", "unit": "", "tags": {}, "origin": {"container_id": "c1"},
            "start": Timestamp::from_secs(start), "end": Timestamp::from_secs(start + 10), "covered": 10.0,
            "value": 5.0, "agg": {"samples": 20},
        });
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(document).unwrap()
    }

    fn rate(live: &LiveSeries, name: &str) -> f64 {
        let (id, windows) = live.all_series().iter().find(|(id, _)| id.name == name).unwrap();
        live.samples_per_second(id, windows)
    }

    #[test]
    fn windows_are_kept_in_order_and_a_revision_replaces_its_window() {
        let mut live = LiveSeries::default();
        let none = serde_json::json!({});
        live.add_records(vec![
            sample_record("a", 20, &none),
            sample_record("a", 0, &none),
            sample_record("a", 10, &none),
        ]);
        live.add_records(vec![sample_record("a", 10, &serde_json::json!({"value": 9.0}))]);
        let windows = live.all_series().values().next().unwrap();
        assert_eq!(windows.list_values(), [Some(5.0), Some(9.0), Some(5.0)]);
        let later = (3..50).map(|n| sample_record("a", n * 10, &none)).collect();
        live.add_records(later);
        assert_eq!(live.all_series().values().next().unwrap().kept_readings().len(), KEPT_WINDOWS);
    }

    #[test]
    fn the_same_series_of_two_containers_is_two() {
        let mut live = LiveSeries::default();
        let other = serde_json::json!({"origin": {"container_id": "c2"}, "value": 7.0});
        live.add_records(vec![sample_record("a", 0, &serde_json::json!({})), sample_record("a", 0, &other)]);
        assert!(live.has_several_containers());
        let values: Vec<_> = live.all_series().values().map(SeriesWindows::list_values).collect();
        assert_eq!(values, [vec![Some(5.0)], vec![Some(7.0)]]);
    }

    #[test]
    fn a_series_that_is_silent_in_the_newest_window_has_no_rate() {
        let mut live = LiveSeries::default();
        let none = serde_json::json!({});
        let other = serde_json::json!({"origin": {"container_id": "c2"}});
        live.add_records(vec![
            sample_record("a", 0, &none),
            sample_record("b", 0, &none),
            sample_record("c", 0, &other),
        ]);
        live.add_records(vec![sample_record("a", 10, &none)]);
        assert_eq!([rate(&live, "a"), rate(&live, "b")], [2.0, 0.0]);
        assert_eq!(rate(&live, "c"), 2.0, "the window of the other container arrives a little later");
        live.add_records(vec![sample_record("a", 20, &none)]);
        assert_eq!(rate(&live, "c"), 0.0);
    }

    #[test]
    fn a_series_without_records_for_thirty_windows_is_forgotten() {
        let mut live = LiveSeries::default();
        let none = serde_json::json!({});
        live.add_records(vec![sample_record("old", 0, &none), sample_record("a", 300, &none)]);
        assert_eq!(live.all_series().len(), 2);
        live.add_records(vec![sample_record("a", 310, &none)]);
        let names: Vec<_> = live.all_series().keys().map(|id| id.name.as_str()).collect();
        assert_eq!(names, ["a"]);
    }
}
