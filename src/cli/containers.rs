//! `tallyport containers`.

use serde_json::Value;

use super::args::{ContainerArgs, ContainersListArgs, Format, OutputArgs, ReconcileArgs};
use super::documents::ago;
use super::failure::{Failure, code};
use super::output::Output;
use super::resolve::{pairs, query, read, segment};
use super::table::{Align, Table};
use crate::client::Response;
use crate::net::clock;
use crate::wire::{Container, Reconciled};

pub(super) async fn list(args: &ContainersListArgs, out: &mut Output) -> Result<(), Failure> {
    let query = query(pairs(&[("task", &args.task), ("container", &args.container), ("label", &args.label)]));
    let response = args.admin.client().get(&format!("/v1/containers{query}")).await?;
    match args.output.format() {
        Format::Json => out.json(&read::<Value>(&response)?)?,
        Format::Ndjson => out.ndjson(read::<Vec<Value>>(&response)?)?,
        Format::Prom => return Err(Failure::usage("containers are not metrics; use table, json or ndjson")),
        Format::Table => print(&read::<Vec<Container>>(&response)?, out)?,
    }
    Ok(())
}

fn print(containers: &[Container], out: &mut Output) -> std::io::Result<()> {
    if containers.is_empty() {
        out.complain("no containers yet");
        return Ok(());
    }
    let mut table = Table::new(&[
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
    let now = clock::wall();
    for container in containers {
        let reserved = &container.reserved;
        table.row(&[
            reserved.container_id.clone(),
            reserved.generation.to_string(),
            reserved.task_id.clone(),
            reserved.state.to_string(),
            container.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            reserved.address(),
            container.received.to_string(),
            container.rejected.to_string(),
            (container.dropped + container.kernel_drops).to_string(),
            container.last_datagram.map_or("never".to_owned(), |last| ago(now, last)),
        ]);
    }
    table.print(out)
}

pub(super) async fn show(args: &ContainerArgs, out: &mut Output) -> Result<(), Failure> {
    let response =
        args.admin.client().get(&format!("/v1/containers/{}", segment(&args.container_id))).await?;
    one(&response, &args.output, out)
}

pub(super) async fn release(args: &ContainerArgs, out: &mut Output) -> Result<(), Failure> {
    let path = format!("/v1/containers/{}", segment(&args.container_id));
    let response = args.admin.client().request("DELETE", &path, Vec::new()).await?;
    one(&response, &args.output, out)
}

pub(super) async fn reconcile(args: &ReconcileArgs, out: &mut Output) -> Result<(), Failure> {
    let response = args.admin.client().request("POST", "/v1/reconcile", Vec::new()).await?;
    match args.output.format() {
        Format::Json => out.json(&read::<Value>(&response)?)?,
        Format::Ndjson => out.ndjson([read::<Value>(&response)?])?,
        Format::Prom => return Err(Failure::usage("this is not a metric; use table, json or ndjson")),
        Format::Table => {
            let found: Reconciled = read(&response)?;
            let mut table = Table::new(&[("FOUND", Align::Left), ("CONTAINERS", Align::Left)]);
            table.row(&["checked".to_owned(), found.checked.to_string()]);
            for (what, ids) in [
                ("ended unnoticed", found.ended),
                ("back at their addresses", found.back),
                ("still lost", found.lost),
                ("found mute", found.mute),
            ] {
                table.row(&[what.to_owned(), if ids.is_empty() { "-".to_owned() } else { ids.join(" ") }]);
            }
            table.print(out)?;
            if !found.notes_read {
                out.complain("the wrapper's notes could not be read; the agent's log says why");
            }
        }
    }
    Ok(())
}

fn one(response: &Response, output: &OutputArgs, out: &mut Output) -> Result<(), Failure> {
    if response.status == 404 {
        let failure =
            Failure::answered(response).hint("`tallyport containers list` lists those that are here");
        return Err(failure.with_code(code::NO_TASK));
    }
    match output.format() {
        Format::Json => out.json(&read::<Value>(response)?)?,
        Format::Ndjson => out.ndjson([read::<Value>(response)?])?,
        Format::Prom => return Err(Failure::usage("a container is not a metric; use table, json or ndjson")),
        Format::Table => {
            let container: Value = read(response)?;
            let mut table = Table::new(&[("KEY", Align::Left), ("VALUE", Align::Left)]);
            for (key, value) in container.as_object().into_iter().flatten() {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                table.row(&[key.clone(), text]);
            }
            table.print(out)?;
        }
    }
    Ok(())
}
