//! `tallyport tasks` and `tallyport containers`.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::args::{ContainerArgs, ContainersListArgs, OutputArgs, OutputFormat, ReconcileArgs, TasksArgs};
use super::documents::format_elapsed;
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use super::output::Console;
use super::resolve::{flag_pairs, parse_response};
use super::table::{Align, TextTable};
use crate::client::Response;
use crate::net::clock;
use crate::wire::{ContainerDocument, ReconciledDocument, Task};

pub(super) async fn list_containers(args: &ContainersListArgs, out: &mut Console) -> Result<(), Failure> {
    let query = encode_query(flag_pairs(&[
        ("task", &args.task),
        ("container", &args.container),
        ("label", &args.label),
    ]));
    let response = args.admin.build_client().get(&format!("/v1/containers{query}")).await?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&parse_response::<Value>(&response)?)?,
        OutputFormat::Ndjson => out.write_ndjson(parse_response::<Vec<Value>>(&response)?)?,
        OutputFormat::Prom | OutputFormat::Hdr => {
            return Err(Failure::usage_error("containers are not metrics; use table, json or ndjson"));
        }
        OutputFormat::Table => {
            ensure_match("container", &query, &response)?;
            print_containers(&parse_response::<Vec<ContainerDocument>>(&response)?, out)?;
        }
    }
    ensure_match("container", &query, &response)
}

/// Fails if filters select nothing.
fn ensure_match(what: &str, query: &str, response: &Response) -> Result<(), Failure> {
    if query.is_empty() || !parse_response::<Vec<IgnoredAny>>(response)?.is_empty() {
        return Ok(());
    }
    let filters = form_urlencoded::parse(query.trim_start_matches('?').as_bytes());
    let filters: Vec<String> = filters.map(|(key, value)| format!("--{key} {value}")).collect();
    let message = format!("no {what} of this node matches {}", filters.join(" "));
    Err(Failure::new(code::NO_TASK, message).with_hint("without filters, the command lists all of them"))
}

fn print_containers(containers: &[ContainerDocument], out: &mut Console) -> std::io::Result<()> {
    if containers.is_empty() {
        out.write_stderr_line("no containers yet");
        return Ok(());
    }
    let mut table = TextTable::new(&[
        ("CONTAINER", Align::Left),
        ("GEN", Align::Right),
        ("TASK", Align::Left),
        ("STATE", Align::Left),
        ("PID", Align::Right),
        ("ADDRESS", Align::Left),
        ("RECEIVED", Align::Right),
        ("REJECTED", Align::Right),
        ("DROPPED", Align::Right),
        ("LAST", Align::Right),
    ]);
    let now = clock::wall_time();
    for container in containers {
        let reserved = &container.reserved;
        table.add_row(&[
            reserved.container_id.clone(),
            reserved.generation.to_string(),
            reserved.task_id.clone(),
            reserved.state.to_string(),
            container.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            reserved.statsd_address(),
            container.received.to_string(),
            container.rejected.to_string(),
            (container.dropped + container.kernel_drops).to_string(),
            container.last_datagram.map_or("never".to_owned(), |last| format_elapsed(now, last)),
        ]);
    }
    table.print_to(out)
}

pub(super) async fn show_container(args: &ContainerArgs, out: &mut Console) -> Result<(), Failure> {
    let response = args
        .admin
        .build_client()
        .get(&format!("/v1/containers/{}", encode_segment(&args.container_id)))
        .await?;
    print_container(&response, &args.output, out)
}

pub(super) async fn release_container(args: &ContainerArgs, out: &mut Console) -> Result<(), Failure> {
    let path = format!("/v1/containers/{}", encode_segment(&args.container_id));
    let response = args.admin.build_client().send_request("DELETE", &path, Vec::new()).await?;
    print_container(&response, &args.output, out)
}

pub(super) async fn reconcile_containers(args: &ReconcileArgs, out: &mut Console) -> Result<(), Failure> {
    let response = args.admin.build_client().send_request("POST", "/v1/reconcile", Vec::new()).await?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&parse_response::<Value>(&response)?)?,
        OutputFormat::Ndjson => out.write_ndjson([parse_response::<Value>(&response)?])?,
        OutputFormat::Prom | OutputFormat::Hdr => {
            return Err(Failure::usage_error("this is not a metric; use table, json or ndjson"));
        }
        OutputFormat::Table => {
            let found: ReconciledDocument = parse_response(&response)?;
            let mut table = TextTable::new(&[("FOUND", Align::Left), ("CONTAINERS", Align::Left)]);
            table.add_row(&["checked".to_owned(), found.checked.to_string()]);
            for (what, ids) in [
                ("ended unnoticed", found.ended),
                ("back at their addresses", found.back),
                ("still lost", found.lost),
                ("found mute", found.mute),
            ] {
                table
                    .add_row(&[what.to_owned(), if ids.is_empty() { "-".to_owned() } else { ids.join(" ") }]);
            }
            table.print_to(out)?;
            if !found.notes_read {
                out.write_stderr_line("the wrapper's notes could not be read; the agent's log says why");
            }
        }
    }
    Ok(())
}

fn print_container(response: &Response, output: &OutputArgs, out: &mut Console) -> Result<(), Failure> {
    if response.status == 404 {
        let failure = Failure::from_response(response)
            .with_hint("`tallyport containers list` lists the containers of this node");
        return Err(failure.with_code(code::NO_TASK));
    }
    match output.selected_format() {
        OutputFormat::Json => out.write_json(&parse_response::<Value>(response)?)?,
        OutputFormat::Ndjson => out.write_ndjson([parse_response::<Value>(response)?])?,
        OutputFormat::Prom | OutputFormat::Hdr => {
            return Err(Failure::usage_error("a container is not a metric; use table, json or ndjson"));
        }
        OutputFormat::Table => {
            let container: Value = parse_response(response)?;
            let mut table = TextTable::new(&[("KEY", Align::Left), ("VALUE", Align::Left)]);
            for (key, value) in container.as_object().into_iter().flatten() {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                table.add_row(&[key.clone(), text]);
            }
            table.print_to(out)?;
        }
    }
    Ok(())
}

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
        OutputFormat::Table => {
            ensure_match("task", &query, &response)?;
            print_tasks(&parse_response::<Vec<Task>>(&response)?, out)?;
        }
    }
    ensure_match("task", &query, &response)
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
