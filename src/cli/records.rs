//! Records as rows: of a table, of CSV, and of a sorted list.

use std::collections::HashSet;

use serde_json::Value;

use super::args::RecordSortKey;
use super::csv_text::format_cell;
use super::documents::{container_names, find_container_name, format_elapsed};
use super::listing::SortCell;
use super::table::{CellKind, Column, ColumnRank, TextTable};
use super::units::Precision;
use crate::model::Timestamp;
use crate::wire::RecordDocument;

/// What a record is sorted by. A record without the key, such as a counter when the key is a quantile, comes last.
pub(super) fn find_sort_cell(key: RecordSortKey, record: &Value) -> SortCell<'_> {
    let text = |key: &str| SortCell::Text(record.get(key).and_then(Value::as_str).unwrap_or_default().into());
    let part = |key: &str| record.get("agg").and_then(|agg| agg.get(key));
    let number = |key: &str| SortCell::from_number(part(key).and_then(Value::as_f64));
    match key {
        RecordSortKey::Name => text("name"),
        RecordSortKey::Type => text("type"),
        RecordSortKey::Value => SortCell::from_number(record.get("value").and_then(Value::as_f64)),
        RecordSortKey::Count => match part("p50") {
            Some(_) => number("count"),
            None => SortCell::Missing,
        },
        RecordSortKey::P50 => number("p50"),
        RecordSortKey::P95 => number("p95"),
        RecordSortKey::P99 => number("p99"),
        RecordSortKey::Max if part("p50").is_none() => SortCell::Missing,
        RecordSortKey::Max => number("max"),
        RecordSortKey::Age => {
            let carried = part("last_at").filter(|_| part("carried").is_some());
            let at = carried.or_else(|| record.get("end")).and_then(Value::as_str);
            SortCell::from_moment(at.and_then(|at| at.parse().ok()))
        }
    }
}

/// The first line of CSV.
pub(super) const CSV_HEADINGS: [&str; 26] = [
    "name",
    "type",
    "tags",
    "unit",
    "container_id",
    "start",
    "end",
    "open",
    "partial",
    "value",
    "samples",
    "count",
    "rate",
    "total",
    "sum",
    "min",
    "max",
    "mean",
    "stddev",
    "p50",
    "p75",
    "p90",
    "p95",
    "p99",
    "status",
    "last_at",
];

/// A record as a line of CSV. A heading names a key of the record, of its origin or of its aggregate.
pub(super) fn build_csv_row(record: &Value) -> Vec<String> {
    let find = |key: &&str| {
        let parts = [Some(record), record.get("origin"), record.get("agg")];
        parts.into_iter().flatten().find_map(|part| part.get(*key))
    };
    let cell = |key: &&str| match (*key, find(key)) {
        ("open" | "partial", None) => "false".to_owned(),
        (_, value) => format_cell(value),
    };
    CSV_HEADINGS.iter().map(cell).collect()
}

const COLUMNS: [Column; 13] = [
    Column::new("NAME", CellKind::Name),
    Column::new("TYPE", CellKind::Word).with_rank(ColumnRank::Type),
    Column::new("VALUE", CellKind::Number),
    Column::new("COUNT", CellKind::Number).with_rank(ColumnRank::Count),
    Column::new("P50", CellKind::Number).with_rank(ColumnRank::P50),
    Column::new("P95", CellKind::Number).with_rank(ColumnRank::P95),
    Column::new("P99", CellKind::Number),
    Column::new("MAX", CellKind::Number).with_rank(ColumnRank::Max),
    Column::new("UNIT", CellKind::Word).with_rank(ColumnRank::Unit),
    Column::new("TAGS", CellKind::Text).with_rank(ColumnRank::Tags),
    Column::new("AGE", CellKind::Number).with_rank(ColumnRank::Last),
    Column::new("UNTIL", CellKind::Word),
    Column::new("CONTAINER", CellKind::Text).with_rank(ColumnRank::Container),
];

pub(super) fn build_record_table(
    records: &[RecordDocument],
    precision: Precision,
    now: Timestamp,
) -> TextTable {
    let containers = container_names(records, precision);
    // Rows of one series differ in their windows, which an age of whole minutes does not tell apart.
    let several_windows = has_several_windows(records);
    let mut table = TextTable::new(&COLUMNS);
    for record in records {
        let (age, until) = match several_windows {
            true => (String::new(), format_until(record, precision)),
            false => (format_age(record, now), String::new()),
        };
        let part = |key| format_part(record, key, precision);
        let count = record.agg_value("count").filter(|_| is_distribution(record));
        table.add_row(&[
            record.name.clone(),
            record.metric_type.clone(),
            format_single_value(record, precision),
            count.map_or(String::new(), |count| precision.format_number(count)),
            part("p50"),
            part("p95"),
            part("p99"),
            part("max"),
            precision.separate_unit(&record.unit).to_owned(),
            record.format_tags(),
            age,
            until,
            find_container_name(&containers, record),
        ]);
    }
    table
}

/// A quantile or the maximum of a distribution; empty for any other record.
pub(super) fn format_part(record: &RecordDocument, key: &str, precision: Precision) -> String {
    let value = record.agg_value(key).filter(|_| is_distribution(record));
    value.map_or(String::new(), |value| precision.format_value(value, &record.unit))
}

/// Whether a record has quantiles.
pub(super) fn is_distribution(record: &RecordDocument) -> bool {
    record.agg.contains_key("p50")
}

/// The value of a record: a number, a status, or the mean of a distribution.
pub(super) fn format_single_value(record: &RecordDocument, precision: Precision) -> String {
    if let Some(status) = record.agg.get("status").and_then(Value::as_str) {
        return status.to_owned();
    }
    match record.value {
        Some(value) => precision.format_value(value, &record.unit),
        None => "-".to_owned(),
    }
}

/// Whether a series has more than one record.
fn has_several_windows(records: &[RecordDocument]) -> bool {
    let mut seen = HashSet::new();
    let series = records
        .iter()
        .map(|record| (&record.origin.container_id, &record.metric_type, &record.name, record.format_tags()));
    series.into_iter().any(|series| !seen.insert(series))
}

/// When the window of a record ends: to the second on a terminal, as in the document in a pipe.
fn format_until(record: &RecordDocument, precision: Precision) -> String {
    if record.open {
        return "open".to_owned();
    }
    match precision {
        Precision::Exact => record.end.to_string(),
        Precision::Rounded => Timestamp::from_secs(record.end.as_secs()).to_string(),
    }
}

fn format_age(record: &RecordDocument, now: Timestamp) -> String {
    if record.open {
        return "open".to_owned();
    }
    let carried = record.agg.get("carried").is_some();
    let last_at = record.agg.get("last_at").and_then(Value::as_str).and_then(|text| text.parse().ok());
    format_elapsed(now, last_at.filter(|_| carried).unwrap_or(record.end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(json: &Value) -> RecordDocument {
        let mut document = json!({
            "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:10Z", "covered": 10, "origin": {"container_id": "c1"},
            "name": "x", "type": "counter", "unit": "", "tags": {}, "agg": {}
        });
        document.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn the_value_of_a_distribution_is_its_mean_and_that_of_a_check_its_status() {
        let timer = record(&json!({"agg": {"p50": 11.0}, "value": 14.4, "unit": "ms"}));
        assert_eq!(format_single_value(&timer, Precision::Rounded), "14.4 ms");
        let check = record(&json!({"agg": {"status": "critical"}, "value": 2.0}));
        assert_eq!(format_single_value(&check, Precision::Rounded), "critical");
        let level = record(&json!({"value": 1_234_567.0}));
        assert_eq!(format_single_value(&level, Precision::Rounded), "1.23M");
        assert_eq!(format_single_value(&level, Precision::Exact), "1234567");
        assert_eq!(format_single_value(&record(&json!({})), Precision::Exact), "-");
    }

    #[test]
    fn a_record_is_sorted_by_what_its_row_shows() {
        let timer = json!({"name": "t", "value": 5.0, "end": "2026-01-01T00:00:10Z", "agg": {"p50": 1, "count": 3, "max": 9.5}});
        let counter = json!({"name": "c", "value": 7.0, "end": "2026-01-01T00:00:10.5Z", "agg": {"count": 2, "max": 7.0}});
        for (key, of_timer, of_counter) in [
            (RecordSortKey::Name, SortCell::Text("t".into()), SortCell::Text("c".into())),
            (RecordSortKey::Value, SortCell::Number(5.0), SortCell::Number(7.0)),
            (RecordSortKey::Count, SortCell::Number(3.0), SortCell::Missing),
            (RecordSortKey::Max, SortCell::Number(9.5), SortCell::Missing),
            (RecordSortKey::P99, SortCell::Missing, SortCell::Missing),
            (RecordSortKey::Age, SortCell::Number(1.767_225_61e15), SortCell::Number(1.767_225_610_5e15)),
        ] {
            assert_eq!(find_sort_cell(key, &timer), of_timer, "{key:?}");
            assert_eq!(find_sort_cell(key, &counter), of_counter, "{key:?}");
        }
    }

    #[test]
    fn a_line_of_csv_has_the_digits_of_the_document() {
        let record = json!({
            "name": "=x", "type": "timer", "tags": {"route": "/pay"}, "unit": "ms", "origin": {"container_id": "c1"},
            "start": "s", "end": "e", "partial": true, "value": 0.1 + 0.2, "agg": {"samples": 3, "p50": 5.0},
        });
        let row = build_csv_row(&record);
        assert_eq!(row.len(), CSV_HEADINGS.len());
        assert_eq!(
            row[..13],
            [
                "=x",
                "timer",
                r#"{"route":"/pay"}"#,
                "ms",
                "c1",
                "s",
                "e",
                "false",
                "true",
                "0.30000000000000004",
                "3",
                "",
                ""
            ]
        );
    }

    #[test]
    fn windows_of_one_series_are_told_apart_by_their_ends() {
        let now = "2026-01-01T00:05:00Z".parse().unwrap();
        let first = json!({"end": "2026-01-01T00:00:10.25Z"});
        let (first, second) = (record(&first), record(&json!({"end": "2026-01-01T00:00:20Z", "open": true})));
        let shown = |records: &[RecordDocument], terminal| {
            let (mut out, captured) = crate::cli::output::Console::with_capture(terminal);
            build_record_table(records, out.choose_precision(false), now).print_to(&mut out).unwrap();
            captured.take_text()
        };
        let both = [first.clone(), second];
        assert!(shown(&both, None).contains("2026-01-01T00:00:10.25Z"), "{}", shown(&both, None));
        let text = shown(&both, Some(80));
        assert!(text.contains("UNTIL") && !text.contains("AGE"), "{text}");
        assert!(text.contains("2026-01-01T00:00:10Z") && text.contains("open"), "{text}");
        let alone = shown(&[first], Some(80));
        assert!(alone.contains("AGE") && !alone.contains("UNTIL"), "{alone}");
    }

    #[test]
    fn the_age_of_a_carried_gauge_is_that_of_its_level() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let agg = json!({"carried": true, "last_at": "2026-01-01T00:00:03Z"});
        assert_eq!(format_age(&record(&json!({"agg": agg})), now), "57s");
        assert_eq!(format_age(&record(&json!({})), now), "50s");
        assert_eq!(format_age(&record(&json!({"open": true})), now), "open");
    }
}
