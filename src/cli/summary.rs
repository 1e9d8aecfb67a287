//! `tallyport metrics summary`: a task at a glance.

use std::collections::BTreeMap;

use serde::Serialize;

use super::args::{Format, SummaryArgs};
use super::details::value;
use super::documents::{ago, counted, name, number};
use super::failure::{Failure, code};
use super::output::Output;
use super::resolve::{query, read, segment, task};
use super::resources::{Used, used};
use super::table::{Align, Table};
use super::text::Text;
use crate::net::clock;
use crate::wire::{Record, Task, TaskMetrics};

/// How many series are shown.
const LARGEST: usize = 10;

#[derive(Serialize)]
struct Summary {
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

/// A series and how much it sends.
#[derive(Serialize)]
struct Largest {
    name: String,
    tags: String,
    r#type: String,
    samples_per_second: f64,
    value: String,
    unit: String,
}

pub(super) async fn summary(args: &SummaryArgs, out: &mut Output) -> Result<(), Failure> {
    let client = args.client.client()?;
    let task = task(&client, &args.pod, &args.task_id).await?;
    let path = format!("/v1/tasks/{}/metrics{}", segment(&task.task_id), query([]));
    let TaskMetrics::<Record> { metrics, .. } = read(&client.get(&path).await?)?;
    let mut summary = summed(&task, &metrics);
    summary.resources = used(&client, &task).await?;
    match args.output.format() {
        Format::Json => out.json(&summary)?,
        Format::Ndjson => out.ndjson([&summary])?,
        Format::Prom => {
            return Err(Failure::usage("a summary is not a metric; use `tallyport metrics details -o prom`"));
        }
        Format::Table => print(&task, &summary, out)?,
    }
    if summary.datagrams == 0 {
        return Err(Failure::new(code::NO_DATA, format!("task {} has sent nothing yet", task.task_id))
            .hint(format!("`tallyport explain {}` says how far its metrics come", task.task_id)));
    }
    Ok(())
}

fn summed(task: &Task, records: &[Record]) -> Summary {
    // A series that was silent in the newest window of the task adds nothing to what it sends now.
    let newest = records.iter().map(|record| record.start).max();
    let rate = |record: &Record| match record.agg("samples") {
        Some(samples) if Some(record.start) == newest && record.covered > 0.0 => samples / record.covered,
        _ => 0.0,
    };
    let mut largest: Vec<Largest> = records
        .iter()
        .map(|record| Largest {
            name: record.name.clone(),
            tags: record.tags(),
            r#type: record.metric_type.clone(),
            samples_per_second: rate(record),
            value: value(record),
            unit: record.unit.clone(),
        })
        .collect();
    largest.sort_by(|a, b| b.samples_per_second.total_cmp(&a.samples_per_second).then(a.name.cmp(&b.name)));
    let values_per_second = largest.iter().map(|series| series.samples_per_second).sum();
    largest.truncate(LARGEST);
    let totals = &task.totals;
    Summary {
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
        rejected: counted(&totals.lines.rejected).into_iter().collect(),
        dropped: counted(&totals.values.dropped)
            .into_iter()
            .chain(counted(&totals.datagrams.dropped))
            .collect(),
        kernel_drops: totals.datagrams.kernel_drops,
        resources: None,
        largest,
    }
}

fn print(task: &Task, summary: &Summary, out: &mut Output) -> std::io::Result<()> {
    let now = clock::wall();
    let state = if summary.finished { out.warning(&summary.state) } else { out.good(&summary.state) };
    out.line(out.strong(&summary.task_id) + "  " + state)?;
    for container in &task.containers {
        let pid = container.pid.map_or("no process yet".to_owned(), |pid| format!("pid {pid}"));
        out.line(format!("  {}  {pid}  {}", name(container), container.reserved.address()))?;
    }
    if !task.labels.is_empty() {
        let labels: Vec<String> = task.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        out.line(format!("  labels         {}", labels.join(" ")))?;
    }
    let last = summary.last_datagram.map_or("never".to_owned(), |last| format!("{} ago", ago(now, last)));
    out.line(format!("  last datagram  {last}"))?;
    out.line(format!(
        "  received       {} datagrams, {} values ({}/s in the last window), {} events",
        summary.datagrams,
        summary.values,
        number(summary.values_per_second),
        summary.events
    ))?;
    let losses = losses(summary);
    let losses = if losses.is_empty() { out.good("nothing") } else { out.bad(&losses) };
    out.line(Text::from("  lost           ") + losses)?;
    out.line(format!("  series         {}", summary.series))?;
    for (what, used) in summary.resources.iter().flat_map(Used::lines) {
        out.line(format!("  {what:<13}  {used}"))?;
    }
    if !summary.largest.is_empty() {
        out.line("")?;
        let headings = [
            ("LARGEST SERIES", Align::Left),
            ("TYPE", Align::Left),
            ("SAMPLES/S", Align::Right),
            ("VALUE", Align::Right),
            ("UNIT", Align::Left),
            ("TAGS", Align::Left),
        ];
        let mut table = Table::new(&headings);
        for series in &summary.largest {
            table.row(&[
                series.name.clone(),
                series.r#type.clone(),
                number(series.samples_per_second),
                series.value.clone(),
                series.unit.clone(),
                series.tags.clone(),
            ]);
        }
        table.print(out)?;
    }
    Ok(())
}

fn losses(summary: &Summary) -> String {
    let mut losses: Vec<String> = Vec::new();
    losses.extend(summary.rejected.iter().map(|(code, n)| format!("{n} lines rejected ({code})")));
    losses.extend(summary.dropped.iter().map(|(reason, n)| format!("{n} dropped ({reason})")));
    if summary.kernel_drops > 0 {
        losses.push(format!("{} datagrams dropped by the kernel", summary.kernel_drops));
    }
    losses.join(", ")
}
