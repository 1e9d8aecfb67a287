//! `tallyport tasks`.

use serde_json::Value;

use super::args::{OutputFormat, TasksArgs};
use super::documents::format_elapsed;
use super::failure::Failure;
use super::output::Console;
use super::resolve::{encode_query, flag_pairs, parse_response};
use super::table::{Align, TextTable};
use crate::net::clock;
use crate::wire::Task;

pub(super) async fn list_tasks(args: &TasksArgs, out: &mut Console) -> Result<(), Failure> {
    let query = encode_query(flag_pairs(&[
        ("task", &args.task),
        ("container", &args.container),
        ("label", &args.label),
    ]));
    let response = args.client.build_client()?.get(&format!("/v1/tasks{query}")).await?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&parse_response::<Value>(&response)?)?,
        OutputFormat::Ndjson => out.write_ndjson(parse_response::<Vec<Value>>(&response)?)?,
        OutputFormat::Prom | OutputFormat::Hdr => {
            return Err(Failure::usage_error("tasks are not metrics; use table, json or ndjson"));
        }
        OutputFormat::Table => print_tasks(&parse_response::<Vec<Task>>(&response)?, out)?,
    }
    Ok(())
}

fn print_tasks(tasks: &[Task], out: &mut Console) -> std::io::Result<()> {
    if tasks.is_empty() {
        out.write_stderr_line("no tasks yet; start one with `tallyport run -- COMMAND`");
        return Ok(());
    }
    let mut table = TextTable::new(&[
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
    let now = clock::wall_time();
    for task in tasks {
        let dropped: u64 =
            task.containers.iter().map(|container| container.dropped + container.kernel_drops).sum();
        table.add_row(&[
            task.task_id.clone(),
            task.state.to_string(),
            task.containers.len().to_string(),
            task.series.to_string(),
            task.totals.datagrams.received.to_string(),
            task.totals.values.accepted.to_string(),
            (task.totals.lines.received - task.totals.lines.accepted).to_string(),
            dropped.to_string(),
            task.last_datagram.map_or("never".to_owned(), |last| format_elapsed(now, last)),
        ]);
    }
    table.print_to(out)
}
