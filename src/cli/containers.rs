//! `tallyport containers`: lists, shows, releases and compares containers.

use serde_json::Value;

use super::args::{
    ContainerArgs, ContainerSortKey, ContainersListArgs, ListFormat, OutputFormat, ReconcileArgs,
};
use super::csv_text::write_csv;
use super::documents::{format_folded, format_labels, format_last};
use super::encoding::{encode_query, encode_segment};
use super::failure::Failure;
use super::listing::{SortCell, ensure_match, report_removed};
use super::output::Console;
use super::resolve::{complete_filters, find_container, flag_pairs, parse_list, parse_response};
use super::table::{CellKind, Column, ColumnRank, TextTable, print_pairs};
use super::units::Precision;
use crate::client::Response;
use crate::model::Timestamp;
use crate::net::clock;
use crate::wire::{ContainerDocument, ReconciledDocument};

const COLUMNS: [Column; 11] = [
    Column::new("CONTAINER", CellKind::Name),
    Column::new("GEN", CellKind::Number).with_rank(ColumnRank::Generation),
    Column::new("TASK", CellKind::Name),
    Column::new("STATE", CellKind::Word).with_rank(ColumnRank::State),
    Column::new("PID", CellKind::Number).with_rank(ColumnRank::Pid),
    Column::new("ADDRESS", CellKind::Word).with_rank(ColumnRank::Address),
    Column::new("RECEIVED", CellKind::Number).with_rank(ColumnRank::Datagrams),
    Column::new("REJECTED", CellKind::Number).with_rank(ColumnRank::Rejected),
    Column::new("DROPPED", CellKind::Number).with_rank(ColumnRank::Dropped),
    Column::new("FOLDED", CellKind::Number).with_rank(ColumnRank::Folded),
    Column::new("LAST", CellKind::Number).with_rank(ColumnRank::Last),
];

const CSV_HEADINGS: [&str; 12] = [
    "container_id",
    "generation",
    "task_id",
    "state",
    "pid",
    "address",
    "received",
    "rejected",
    "dropped",
    "folded",
    "last_datagram",
    "labels",
];

pub(super) async fn list_containers(args: &ContainersListArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.admin.build_client();
    let completed = complete_filters(&client, &args.container).await?;
    let query =
        encode_query(flag_pairs(&[("task", &args.task), ("container", &completed), ("label", &args.label)]));
    let response = client.get(&format!("/v1/containers{query}")).await?;
    let mut containers = parse_list::<ContainerDocument>(&response)?;
    if let Some(state) = args.state {
        containers.retain(|(_, container)| state.is_state(&container.reserved.state));
    }
    // The agent lists them in the order in which they came, which differs after a restart.
    containers.sort_by(|(_, a), (_, b)| order_of(a).cmp(&order_of(b)));
    let removed = args.list.arrange_rows(&mut containers, |key, (_, container)| sort_cell(key, container));
    match args.output.selected_format() {
        ListFormat::Json => out.write_json(&containers.iter().map(|(json, _)| json).collect::<Vec<_>>())?,
        ListFormat::Ndjson => out.write_ndjson(containers.iter().map(|(json, _)| json))?,
        ListFormat::Csv => {
            write_csv(&CSV_HEADINGS, containers.iter().map(|(_, container)| csv_row(container)), out)?;
        }
        ListFormat::Table if containers.is_empty() => {
            ensure_match("container", &query, args.state, false)?;
            out.write_stderr_line("no containers yet");
        }
        ListFormat::Table => {
            let precision = out.choose_precision(args.precision.raw);
            let containers = containers.iter().map(|(_, container)| container);
            build_container_table(containers, precision, clock::wall_time()).print_to(out)?;
            report_removed(removed, out);
        }
    }
    ensure_match("container", &query, args.state, !containers.is_empty())
}

fn order_of(container: &ContainerDocument) -> (&str, &str, u32) {
    let reserved = &container.reserved;
    (&reserved.task_id, &reserved.container_id, reserved.generation)
}

fn sort_cell(key: ContainerSortKey, container: &ContainerDocument) -> SortCell<'_> {
    match key {
        ContainerSortKey::Container => SortCell::Text(container.reserved.container_id.as_str().into()),
        ContainerSortKey::Task => SortCell::Text(container.reserved.task_id.as_str().into()),
        ContainerSortKey::State => SortCell::Text((&*container.reserved.state).into()),
        ContainerSortKey::Received => SortCell::Number(container.received as f64),
        ContainerSortKey::Rejected => SortCell::Number(container.rejected as f64),
        ContainerSortKey::Dropped => SortCell::Number(count_dropped(container) as f64),
        ContainerSortKey::Folded => SortCell::Number(container.folded as f64),
        ContainerSortKey::Last => SortCell::from_moment(container.last_datagram),
    }
}

fn count_dropped(container: &ContainerDocument) -> u64 {
    container.dropped + container.kernel_drops
}

pub(super) fn build_container_table<'c>(
    containers: impl Iterator<Item = &'c ContainerDocument>,
    precision: Precision,
    now: Timestamp,
) -> TextTable {
    let mut table = TextTable::new(&COLUMNS);
    for container in containers {
        let reserved = &container.reserved;
        table.add_row(&[
            precision.format_id(&reserved.container_id).to_owned(),
            reserved.generation.to_string(),
            reserved.task_id.clone(),
            reserved.state.to_string(),
            container.pid.map_or("-".to_owned(), |pid| pid.to_string()),
            reserved.statsd_address(),
            precision.format_count(container.received),
            precision.format_count(container.rejected),
            precision.format_count(count_dropped(container)),
            format_folded(container.folded, precision),
            format_last(container.last_datagram, now),
        ]);
    }
    table
}

fn csv_row(container: &ContainerDocument) -> Vec<String> {
    let reserved = &container.reserved;
    let address = reserved.statsd_host.as_ref().map_or(String::new(), |_| reserved.statsd_address());
    vec![
        reserved.container_id.clone(),
        reserved.generation.to_string(),
        reserved.task_id.clone(),
        reserved.state.to_string(),
        container.pid.map_or(String::new(), |pid| pid.to_string()),
        address,
        container.received.to_string(),
        container.rejected.to_string(),
        count_dropped(container).to_string(),
        container.folded.to_string(),
        container.last_datagram.map_or(String::new(), |last| last.to_string()),
        format_labels(&container.labels),
    ]
}

pub(super) async fn show_container(args: &ContainerArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.admin.build_client();
    let id = find_container(&client, &args.container_id).await?;
    let response = client.get(&format!("/v1/containers/{}", encode_segment(&id))).await?;
    print_container(&response, args, out)
}

pub(super) async fn release_container(args: &ContainerArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.admin.build_client();
    let id = find_container(&client, &args.container_id).await?;
    let path = format!("/v1/containers/{}", encode_segment(&id));
    let response = client.send_request("DELETE", &path, Vec::new()).await?;
    print_container(&response, args, out)
}

pub(super) async fn reconcile_containers(args: &ReconcileArgs, out: &mut Console) -> Result<(), Failure> {
    let response = args.admin.build_client().send_request("POST", "/v1/reconcile", Vec::new()).await?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&parse_response::<Value>(&response)?)?,
        OutputFormat::Ndjson => out.write_ndjson([parse_response::<Value>(&response)?])?,
        OutputFormat::Table => {
            let found: ReconciledDocument = parse_response(&response)?;
            let checked = ("checked".to_owned(), found.checked.to_string().into());
            let lists = [
                ("ended unnoticed", found.ended),
                ("back at their addresses", found.back),
                ("still lost", found.lost),
                ("found mute", found.mute),
            ];
            let lists = lists.into_iter().map(|(what, ids)| {
                (what.to_owned(), if ids.is_empty() { "-".into() } else { ids.join(" ").into() })
            });
            print_pairs(std::iter::once(checked).chain(lists), out)?;
            if !found.notes_read {
                out.write_stderr_line("the wrapper's notes could not be read; the agent's log says why");
            }
        }
    }
    Ok(())
}

fn print_container(response: &Response, args: &ContainerArgs, out: &mut Console) -> Result<(), Failure> {
    let container: Value = parse_response(response)?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&container)?,
        OutputFormat::Ndjson => out.write_ndjson([container])?,
        OutputFormat::Table => print_properties(&container, out.choose_precision(args.precision.raw), out)?,
    }
    Ok(())
}

pub(super) fn print_properties(
    container: &Value,
    precision: Precision,
    out: &mut Console,
) -> std::io::Result<()> {
    let pairs = list_pairs(container, precision).into_iter();
    print_pairs(pairs.map(|(key, value)| (key, value.into())), out)
}

/// The keys of a document and their values. A key of an object within it follows the object's key and a point.
fn list_pairs(document: &Value, precision: Precision) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (key, value) in document.as_object().into_iter().flatten() {
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                pairs.extend(
                    list_pairs(value, precision)
                        .into_iter()
                        .map(|(inner, text)| (format!("{key}.{inner}"), text)),
                );
            }
            value => pairs.push((key.clone(), format_property(key, value, precision))),
        }
    }
    pairs
}

/// A property of a container. Sizes in bytes are named here, because the document has no units.
fn format_property(key: &str, value: &Value, precision: Precision) -> String {
    match (key, value) {
        (_, Value::String(text)) => text.clone(),
        (_, Value::Null | Value::Object(_)) => "-".to_owned(),
        (_, Value::Array(values)) if values.is_empty() => "-".to_owned(),
        (_, Value::Array(values)) => {
            let texts = values.iter().map(|value| format_property(key, value, precision));
            texts.collect::<Vec<_>>().join(", ")
        }
        ("memory" | "receive_buffer", Value::Number(bytes)) if precision == Precision::Rounded => {
            precision.format_bytes(bytes.as_f64().unwrap_or_default())
        }
        (
            "received" | "kernel_drops" | "dropped" | "folded" | "rejected" | "series",
            Value::Number(count),
        ) => precision.format_number(count.as_f64().unwrap_or_default()),
        (_, value) => value.to_string(),
    }
}
