//! `tallyport tasks`.

use serde_json::Value;

use super::args::{Format, TasksArgs};
use super::documents::ago;
use super::failure::Failure;
use super::output::Output;
use super::resolve::{pairs, query, read};
use super::table::{Align, Table};
use crate::net::clock;
use crate::wire::Task;

pub(super) async fn tasks(args: &TasksArgs, out: &mut Output) -> Result<(), Failure> {
    let query = query(pairs(&[("task", &args.task), ("container", &args.container), ("label", &args.label)]));
    let response = args.client.client()?.get(&format!("/v1/tasks{query}")).await?;
    match args.output.format() {
        Format::Json => out.json(&read::<Value>(&response)?)?,
        Format::Ndjson => out.ndjson(read::<Vec<Value>>(&response)?)?,
        Format::Prom => return Err(Failure::usage("tasks are not metrics; use table, json or ndjson")),
        Format::Table => print(&read::<Vec<Task>>(&response)?, out)?,
    }
    Ok(())
}

fn print(tasks: &[Task], out: &mut Output) -> std::io::Result<()> {
    if tasks.is_empty() {
        out.complain("no tasks yet; start one with `tallyport run -- COMMAND`");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("TASK", Align::Left),
        ("STATE", Align::Left),
        ("CONTAINERS", Align::Right),
        ("SERIES", Align::Right),
        ("DATAGRAMS", Align::Right),
        ("VALUES", Align::Right),
        ("REJECTED", Align::Right),
        ("DROPPED", Align::Right),
        ("LAST", Align::Right),
    ]);
    let now = clock::wall();
    for task in tasks {
        let dropped: u64 =
            task.containers.iter().map(|container| container.dropped + container.kernel_drops).sum();
        table.row(&[
            task.task_id.clone(),
            task.state.to_string(),
            task.containers.len().to_string(),
            task.series.to_string(),
            task.totals.datagrams.received.to_string(),
            task.totals.values.accepted.to_string(),
            (task.totals.lines.received - task.totals.lines.accepted).to_string(),
            dropped.to_string(),
            task.last_datagram.map_or("never".to_owned(), |last| ago(now, last)),
        ]);
    }
    table.print(out)
}
