//! What people call a container: its name in its pod, not the digits that its runtime numbers it with.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Labels;
use crate::wire::RecordDocument;

/// Digits of a runtime's id that are shown, as many as container engines show.
const SHORT: usize = 12;

/// An id as people read it: the first digits of what a runtime made up, and anything else as it is.
pub(super) fn short_id(id: &str) -> &str {
    let made_up = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if made_up { id.get(..SHORT).unwrap_or(id) } else { id }
}

/// The name that a pod gives to a container, or its id where it is in no pod.
pub(super) fn container_name<'a>(id: &'a str, labels: &'a Labels) -> &'a str {
    labels.get("container").map_or_else(|| short_id(id), String::as_str)
}

/// The containers of some records by name. Those of one name, such as a container and the one that it was before a restart, are
/// told apart by their ids.
pub(super) fn container_names(records: &[RecordDocument]) -> BTreeMap<&str, String> {
    let of = |record: &'_ RecordDocument| record.origin.container_id.is_some();
    let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in records.iter().filter(|record| of(record)) {
        let id = record.origin.container_id.as_deref().unwrap_or_default();
        let name =
            record.origin.labels.as_ref().map_or_else(|| short_id(id), |labels| container_name(id, labels));
        ids.entry(name).or_default().insert(id);
    }
    let shown = |name: &str, id: &str, alone: bool| match alone {
        true => name.to_owned(),
        false => format!("{name} ({})", short_id(id)),
    };
    ids.iter()
        .flat_map(|(name, of_name)| of_name.iter().map(|id| (*id, shown(name, id, of_name.len() == 1))))
        .collect()
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
        let names = container_names(&records);
        let names: Vec<&str> = names.values().map(String::as_str).collect();
        assert_eq!(
            names,
            ["main (aaaaaaaaaaaa)", "main (bbbbbbbbbbbb)", "sidecar", "dddddddddddd", "run-17"]
        );
    }
}
