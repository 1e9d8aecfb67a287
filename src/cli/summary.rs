//! `tallyport metrics summary`: a task at a glance.

use std::collections::BTreeMap;

use serde::Serialize;

use super::args::{OutputFormat, SummaryArgs};
use super::details::format_value;
use super::documents::{container_names, describe_folded, find_container_name, name, sorted_counts};
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use super::output::Console;
use super::records::{format_part, format_single_value};
use super::resolve::{FoundTask, parse_response};
use super::resources::{Used, fetch_usage};
use super::table::{CellKind, Column, ColumnRank, TextTable, print_pairs};
use super::text::SafeText;
use super::units::{Precision, format_elapsed};
use super::wait::find_sending_task;
use crate::model::Timestamp;
use crate::net::clock;
use crate::wire::{RecordDocument, Task, TaskMetrics};

/// Maximum number of series shown.
const LARGEST: usize = 10;

#[derive(Serialize)]
pub(super) struct TaskSummary {
    task_id: String,
    state: String,
    finished: bool,
    containers: usize,
    series: usize,
    last_datagram: Option<Timestamp>,
    values_per_second: f64,
    datagrams: u64,
    values: u64,
    events: u64,
    rejected: BTreeMap<String, u64>,
    dropped: BTreeMap<String, u64>,
    /// Values of counters beyond the limit of series.
    folded: u64,
    kernel_drops: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Used>,
    largest: Vec<Largest>,
}

/// A series and its rate.
#[derive(Serialize)]
struct Largest {
    name: String,
    tags: String,
    r#type: String,
    /// Its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<String>,
    samples_per_second: f64,
    value: String,
    unit: String,
    #[serde(skip)]
    record: RecordDocument,
}

pub(super) async fn show_summary(args: &SummaryArgs, out: &mut Console) -> Result<(), Failure> {
    let patience = args.wait.find_patience(&[Some(&args.task_id)])?;
    let client = args.client.build_client()?;
    let found = find_sending_task(&client, &args.pod, &args.task_id, patience).await?;
    found.report_whole(out);
    let FoundTask { task, .. } = found;
    let path = format!("/v1/tasks/{}/metrics{}", encode_segment(&task.task_id), encode_query([]));
    let TaskMetrics::<RecordDocument> { metrics, .. } = parse_response(&client.get(&path).await?)?;
    let mut summary = build_summary(&task, &metrics);
    summary.resources = fetch_usage(&client, &task).await?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&summary)?,
        OutputFormat::Ndjson => out.write_ndjson([&summary])?,
        OutputFormat::Table => {
            let precision = out.choose_precision(args.precision.raw);
            print_summary(&task, &summary, precision, clock::wall_time(), out)?;
        }
    }
    // Counts begin at 0 when the agent starts, and records can be older.
    if summary.datagrams == 0 && summary.largest.is_empty() {
        return Err(Failure::new(code::NO_DATA, format!("task {} has sent nothing yet", task.task_id))
            .with_hint(format!("`tallyport explain {}` shows how far its metrics get", task.task_id)));
    }
    Ok(())
}

pub(super) fn build_summary(task: &Task, records: &[RecordDocument]) -> TaskSummary {
    // Series that were silent in the task's newest window do not count towards the current rate.
    let newest = records.iter().map(|record| record.start).max();
    let rate = |record: &RecordDocument| match record.agg_value("samples") {
        Some(samples) if Some(record.start) == newest && record.covered > 0.0 => samples / record.covered,
        _ => 0.0,
    };
    let mut largest: Vec<Largest> = records
        .iter()
        .map(|record| Largest {
            name: record.name.clone(),
            tags: record.format_tags(),
            r#type: record.metric_type.clone(),
            container_id: record.origin.container_id.clone(),
            samples_per_second: rate(record),
            value: format_value(record),
            unit: record.unit.clone(),
            record: record.clone(),
        })
        .collect();
    largest.sort_by(|a, b| b.samples_per_second.total_cmp(&a.samples_per_second).then(a.name.cmp(&b.name)));
    // A sum over nothing is a negative zero.
    let values_per_second = largest.iter().fold(0.0, |sum, series| sum + series.samples_per_second);
    largest.truncate(LARGEST);
    let totals = &task.totals;
    TaskSummary {
        task_id: task.task_id.clone(),
        state: task.state.to_string(),
        finished: task.finished,
        containers: task.containers.len(),
        series: task.series,
        last_datagram: task.last_datagram,
        values_per_second,
        datagrams: totals.datagrams.received,
        values: totals.values.accepted,
        events: totals.events,
        rejected: sorted_counts(&totals.lines.rejected).into_iter().collect(),
        dropped: sorted_counts(&totals.values.dropped)
            .into_iter()
            .chain(sorted_counts(&totals.datagrams.dropped))
            .collect(),
        folded: totals.values.folded,
        kernel_drops: totals.datagrams.kernel_drops,
        resources: None,
        largest,
    }
}

pub(super) fn print_summary(
    task: &Task,
    summary: &TaskSummary,
    precision: Precision,
    now: Timestamp,
    out: &mut Console,
) -> std::io::Result<()> {
    let state =
        if summary.finished { out.style_warning(&summary.state) } else { out.style_success(&summary.state) };
    out.write_line(out.style_bold(&summary.task_id) + "  " + state)?;
    for container in &task.containers {
        let pid = container.pid.map_or("no process yet".to_owned(), |pid| format!("pid {pid}"));
        out.write_line(format!("  {}  {pid}  {}", name(container), container.reserved.statsd_address()))?;
    }
    print_pairs(list_properties(task, summary, precision, now, out), out)?;
    if !summary.largest.is_empty() {
        out.write_line("")?;
        build_largest_table(&summary.largest, precision).print_to(out)?;
    }
    Ok(())
}

/// The lines of a summary between its containers and its largest series.
fn list_properties(
    task: &Task,
    summary: &TaskSummary,
    precision: Precision,
    now: Timestamp,
    out: &Console,
) -> Vec<(String, SafeText)> {
    let mut pairs: Vec<(String, SafeText)> = Vec::new();
    let mut add = |key: &str, value: SafeText| pairs.push((format!("  {key}"), value));
    if !task.labels.is_empty() {
        let labels: Vec<String> = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        add("labels", labels.join(" ").into());
    }
    let ago = |last| format!("{} ago", format_elapsed(now, last));
    add("last datagram", summary.last_datagram.map_or("never".to_owned(), ago).into());
    let received = format!(
        "{} datagrams, {} values ({}/s in the last window), {} events",
        precision.format_count(summary.datagrams),
        precision.format_count(summary.values),
        precision.format_rate(summary.values_per_second),
        precision.format_count(summary.events)
    );
    add("received", received.into());
    let losses = format_losses(summary, precision);
    add("lost", if losses.is_empty() { out.style_success("nothing") } else { out.style_error(&losses) });
    if let Some(folded) = describe_folded(summary.folded, precision) {
        add("folded", out.style_warning(folded));
    }
    add("series", precision.format_count(summary.series as u64).into());
    for (what, used) in summary.resources.iter().flat_map(|used| used.format_lines(precision)) {
        add(what, used.into());
    }
    pairs
}

const LARGEST_COLUMNS: [Column; 11] = [
    Column::new("LARGEST SERIES", CellKind::Name),
    Column::new("TYPE", CellKind::Word).with_rank(ColumnRank::Type),
    Column::new("SAMPLES/S", CellKind::Number).with_rank(ColumnRank::Rate),
    Column::new("VALUE", CellKind::Number),
    Column::new("P50", CellKind::Number).with_rank(ColumnRank::P50),
    Column::new("P95", CellKind::Number).with_rank(ColumnRank::P95),
    Column::new("P99", CellKind::Number),
    Column::new("MAX", CellKind::Number).with_rank(ColumnRank::Max),
    Column::new("UNIT", CellKind::Word).with_rank(ColumnRank::Unit),
    Column::new("TAGS", CellKind::Text).with_rank(ColumnRank::Tags),
    Column::new("CONTAINER", CellKind::Text).with_rank(ColumnRank::Container),
];

fn build_largest_table(largest: &[Largest], precision: Precision) -> TextTable {
    let containers = container_names(largest.iter().map(|series| &series.record), precision);
    let mut table = TextTable::new(&LARGEST_COLUMNS);
    for Largest { record, samples_per_second, .. } in largest {
        table.add_row(&[
            record.name.clone(),
            record.metric_type.clone(),
            precision.format_rate(*samples_per_second),
            format_single_value(record, precision),
            format_part(record, "p50", precision),
            format_part(record, "p95", precision),
            format_part(record, "p99", precision),
            format_part(record, "max", precision),
            precision.separate_unit(&record.unit).to_owned(),
            record.format_tags(),
            find_container_name(&containers, record),
        ]);
    }
    table
}

fn format_losses(summary: &TaskSummary, precision: Precision) -> String {
    let count = |n: &u64| precision.format_count(*n);
    let rejected = summary.rejected.iter().map(|(code, n)| format!("{} lines rejected ({code})", count(n)));
    let dropped = summary.dropped.iter().map(|(reason, n)| format!("{} dropped ({reason})", count(n)));
    let kernel = (summary.kernel_drops > 0)
        .then(|| format!("{} datagrams dropped by the kernel", count(&summary.kernel_drops)));
    rejected.chain(dropped).chain(kernel).collect::<Vec<_>>().join(", ")
}
