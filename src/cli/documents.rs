//! Documents of the agent as people read them: names of containers, counts and rows of bars.

use std::collections::{BTreeMap, BTreeSet};

use super::scale::{find_scale, find_share};
use super::units::{Precision, short_id};
pub(super) use super::units::{format_elapsed, format_number};
use crate::aggregate::OVERFLOW;
use crate::model::{Labels, Timestamp};
use crate::wire::{ContainerDocument, RecordDocument, TallyMap};

/// The name of a container for people.
pub(super) fn name(container: &ContainerDocument) -> &str {
    container_name(&container.reserved.container_id, &container.labels)
}

/// Counts with their reasons, the highest first.
pub(super) fn sorted_counts(counts: &TallyMap) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(name, n)| (name.to_string(), *n)).collect();
    counts.sort_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));
    counts
}

/// The time since the last datagram, if there was one.
pub(super) fn format_last(last: Option<Timestamp>, now: Timestamp) -> String {
    last.map_or("never".to_owned(), |last| format_elapsed(now, last))
}

/// A count of folded values for a cell. Empty without any, so that a table has the column only where it says something.
pub(super) fn format_folded(folded: u64, precision: Precision) -> String {
    if folded == 0 { String::new() } else { precision.format_count(folded) }
}

/// What has become of folded values; none without any.
pub(super) fn describe_folded(folded: u64, precision: Precision) -> Option<String> {
    (folded > 0).then(|| {
        let count = precision.format_count(folded);
        format!("{count} values of counters, without their names and tags, in {OVERFLOW}: the limit of series is reached")
    })
}

/// Labels as a cell of CSV: a JSON object.
pub(super) fn format_labels(labels: &Labels) -> String {
    serde_json::to_string(labels).unwrap_or_default()
}

/// The name of a container in its pod, or its short id without a pod.
pub(super) fn container_name<'a>(id: &'a str, labels: &'a Labels) -> &'a str {
    labels.get("container").map_or_else(|| short_id(id), String::as_str)
}

/// The display names of the containers of some records, by id. Containers with the same name, such as one before and
/// after a restart, get their ids added.
pub(super) fn container_names<'r>(
    records: impl IntoIterator<Item = &'r RecordDocument>,
    precision: Precision,
) -> BTreeMap<&'r str, String> {
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in records.into_iter().filter(|record| record.origin.container_id.is_some()) {
        let id = record.origin.container_id.as_deref().unwrap_or_default();
        let name =
            record.origin.labels.as_ref().and_then(|labels| labels.get("container")).map(String::as_str);
        let name = name.unwrap_or_else(|| precision.format_id(id));
        ids.entry(name).or_default().insert(id);
    }
    let shown = |name: &str, id: &str, alone: bool| match alone {
        true => name.to_owned(),
        false => format!("{name} ({})", precision.format_id(id)),
    };
    ids.iter()
        .flat_map(|(name, of_name)| of_name.iter().map(|id| (*id, shown(name, id, of_name.len() == 1))))
        .collect()
}

/// The name of a record's container for a cell. Empty if there is only one, so that a table has the column only where it tells
/// rows apart.
pub(super) fn find_container_name(names: &BTreeMap<&str, String>, record: &RecordDocument) -> String {
    let id = record.origin.container_id.as_deref().filter(|_| names.len() > 1);
    id.and_then(|id| names.get(id)).cloned().unwrap_or_default()
}

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Bars on a scale with zero; a space for a missing number.
pub(super) fn render_sparkline(numbers: &[Option<f64>]) -> String {
    let scale = find_scale(numbers.iter().flatten().copied());
    let bar = |number: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
        let index = (find_share(number, scale) * 7.0).round() as usize;
        BARS.get(index).copied().unwrap_or(' ')
    };
    numbers.iter().map(|number| number.filter(|n| n.is_finite()).map_or(' ', bar)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, container: Option<&str>) -> RecordDocument {
        let labels: Labels =
            container.map(|name| ("container".to_owned(), name.to_owned())).into_iter().collect();
        serde_json::from_value(serde_json::json!({
            "name": "x", "type": "counter", "unit": "", "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:10Z",
            "covered": 10.0, "tags": {}, "agg": {}, "origin": {"container_id": id, "labels": labels},
        }))
        .unwrap()
    }

    #[test]
    fn containers_of_a_pod_are_called_by_their_names_and_those_of_one_name_told_apart() {
        let (first, second, third) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        let records = [
            record(&first, Some("main")),
            record(&second, Some("main")),
            record(&third, Some("sidecar")),
            record(&"d".repeat(64), None),
            record("run-17", None),
        ];
        let names = container_names(&records, Precision::Rounded);
        let names: Vec<&str> = names.values().map(String::as_str).collect();
        assert_eq!(
            names,
            ["main (aaaaaaaaaaaa)", "main (bbbbbbbbbbbb)", "sidecar", "dddddddddddd", "run-17"]
        );
    }

    #[test]
    fn bars_begin_at_zero_and_a_gap_is_a_gap() {
        assert_eq!(render_sparkline(&[Some(0.0), Some(7.0), None, Some(3.5)]), "▁█ ▅");
        assert_eq!(render_sparkline(&[Some(5.0), Some(5.0)]), "██");
        assert_eq!(render_sparkline(&[Some(99.0), Some(101.0), Some(98.0)]), "███", "noise stays small");
        assert_eq!(render_sparkline(&[Some(0.0), Some(0.0)]), "▁▁");
        assert_eq!(render_sparkline(&[Some(-7.0), Some(0.0), Some(7.0)]), "▁▅█");
        assert_eq!(render_sparkline(&[]), "");
        assert_eq!(render_sparkline(&[Some(f64::NAN)]), " ");
    }
}
