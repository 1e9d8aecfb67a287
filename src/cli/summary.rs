//! `tallyport metrics summary`: a task at a glance.

use std::collections::BTreeMap;

use serde::Serialize;

use super::args::{OutputFormat, SummaryArgs};
use super::details::format_value;
use super::documents::{format_elapsed, format_number, name, sorted_counts};
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use super::output::Console;
use super::resolve::{find_task, parse_response};
use super::resources::{Used, fetch_usage};
use super::table::{Align, TextTable};
use super::text::SafeText;
use crate::net::clock;
use crate::wire::{RecordDocument, Task, TaskMetrics};

/// Maximum number of series shown.
const LARGEST: usize = 10;

#[derive(Serialize)]
struct TaskSummary {
    task_id: String,
    state: String,
    finished: bool,
    containers: usize,
    series: usize,
    last_datagram: Option<crate::model::Timestamp>,
    values_per_second: f64,
    datagrams: u64,
    values: u64,
    events: u64,
    rejected: BTreeMap<String, u64>,
    dropped: BTreeMap<String, u64>,
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
    samples_per_second: f64,
    value: String,
    unit: String,
}

pub(super) async fn show_summary(args: &SummaryArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.client.build_client()?;
    let task = find_task(&client, &args.pod, &args.task_id).await?;
    let path = format!("/v1/tasks/{}/metrics{}", encode_segment(&task.task_id), encode_query([]));
    let TaskMetrics::<RecordDocument> { metrics, .. } = parse_response(&client.get(&path).await?)?;
    let mut summary = build_summary(&task, &metrics);
    summary.resources = fetch_usage(&client, &task).await?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&summary)?,
        OutputFormat::Ndjson => out.write_ndjson([&summary])?,
        OutputFormat::Prom | OutputFormat::Hdr => {
            return Err(Failure::usage_error(
                "a summary is not a metric; use `tallyport metrics details -o prom`",
            ));
        }
        OutputFormat::Table => print_summary(&task, &summary, out)?,
    }
    // Counts begin at 0 when the agent starts, and records can be older.
    if summary.datagrams == 0 && summary.largest.is_empty() {
        return Err(Failure::new(code::NO_DATA, format!("task {} has sent nothing yet", task.task_id))
            .with_hint(format!("`tallyport explain {}` shows how far its metrics get", task.task_id)));
    }
    Ok(())
}

fn build_summary(task: &Task, records: &[RecordDocument]) -> TaskSummary {
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
            samples_per_second: rate(record),
            value: format_value(record),
            unit: record.unit.clone(),
        })
        .collect();
    largest.sort_by(|a, b| b.samples_per_second.total_cmp(&a.samples_per_second).then(a.name.cmp(&b.name)));
    let values_per_second = largest.iter().map(|series| series.samples_per_second).sum();
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
        kernel_drops: totals.datagrams.kernel_drops,
        resources: None,
        largest,
    }
}

fn print_summary(task: &Task, summary: &TaskSummary, out: &mut Console) -> std::io::Result<()> {
    let now = clock::wall_time();
    let state =
        if summary.finished { out.style_warning(&summary.state) } else { out.style_success(&summary.state) };
    out.write_line(out.style_bold(&summary.task_id) + "  " + state)?;
    for container in &task.containers {
        let pid = container.pid.map_or("no process yet".to_owned(), |pid| format!("pid {pid}"));
        out.write_line(format!("  {}  {pid}  {}", name(container), container.reserved.statsd_address()))?;
    }
    if !task.labels.is_empty() {
        let labels: Vec<String> = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        out.write_line(format!("  labels         {}", labels.join(" ")))?;
    }
    let last =
        summary.last_datagram.map_or("never".to_owned(), |last| format!("{} ago", format_elapsed(now, last)));
    out.write_line(format!("  last datagram  {last}"))?;
    out.write_line(format!(
        "  received       {} datagrams, {} values ({}/s in the last window), {} events",
        summary.datagrams,
        summary.values,
        format_number(summary.values_per_second),
        summary.events
    ))?;
    let losses = format_losses(summary);
    let losses = if losses.is_empty() { out.style_success("nothing") } else { out.style_error(&losses) };
    out.write_line(SafeText::from("  lost           ") + losses)?;
    out.write_line(format!("  series         {}", summary.series))?;
    for (what, used) in summary.resources.iter().flat_map(Used::format_lines) {
        out.write_line(format!("  {what:<13}  {used}"))?;
    }
    if !summary.largest.is_empty() {
        out.write_line("")?;
        let headings = [
            ("LARGEST SERIES", Align::Left),
            ("TYPE", Align::Left),
            ("SAMPLES/S", Align::Right),
            ("VALUE", Align::Right),
            ("UNIT", Align::Left),
            ("TAGS", Align::Left),
        ];
        let mut table = TextTable::new(&headings);
        for series in &summary.largest {
            table.add_row(&[
                series.name.clone(),
                series.r#type.clone(),
                format_number(series.samples_per_second),
                series.value.clone(),
                series.unit.clone(),
                series.tags.clone(),
            ]);
        }
        table.print_to(out)?;
    }
    Ok(())
}

fn format_losses(summary: &TaskSummary) -> String {
    let mut losses: Vec<String> = Vec::new();
    losses.extend(summary.rejected.iter().map(|(code, n)| format!("{n} lines rejected ({code})")));
    losses.extend(summary.dropped.iter().map(|(reason, n)| format!("{n} dropped ({reason})")));
    if summary.kernel_drops > 0 {
        losses.push(format!("{} datagrams dropped by the kernel", summary.kernel_drops));
    }
    losses.join(", ")
}
