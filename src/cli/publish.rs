//! `tallyport publish`: what the agent's publishers have sent, what was refused, and how to try, repeat or verify something.

mod verify;

use std::process::ExitCode;

use serde_json::Value;

use super::args::{
    ListFormat, OutputFormat, PublishListArgs, PublishReplayArgs, PublisherArgs, PublisherCallArgs,
};
use super::containers::print_properties;
use super::csv_text::write_csv;
use super::documents::format_last;
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use super::output::Console;
use super::resolve::{parse_list, parse_response};
use super::table::{CellKind, Column, ColumnRank, TextTable};
use super::units::Precision;
use crate::client::Client;
use crate::model::Timestamp;
use crate::net::clock;
use crate::wire::{DeadLetterDocument, PublisherCheckDocument, PublisherDocument, ReplayedDocument};

pub(super) use verify::{describe_difference, describe_result, verify_publisher, verify_sample};

const COLUMNS: [Column; 9] = [
    Column::new("PUBLISHER", CellKind::Name),
    Column::new("TYPE", CellKind::Word).with_rank(ColumnRank::Type),
    Column::new("STATE", CellKind::Word),
    Column::new("DELIVERED", CellKind::Number).with_rank(ColumnRank::Rate),
    Column::new("PENDING", CellKind::Number).with_rank(ColumnRank::Pending),
    Column::new("DROPPED", CellKind::Number).with_rank(ColumnRank::Dropped),
    Column::new("DEAD", CellKind::Number).with_rank(ColumnRank::Rejected),
    Column::new("BEHIND", CellKind::Number).with_rank(ColumnRank::Behind),
    Column::new("LAST", CellKind::Number).with_rank(ColumnRank::Last),
];

const CSV_HEADINGS: [&str; 9] =
    ["name", "type", "state", "delivered", "pending", "dropped", "dead", "behind_seconds", "last_delivery"];

pub(super) async fn list_publishers(args: &PublishListArgs, out: &mut Console) -> Result<(), Failure> {
    let response = args.client.build_client()?.get("/v1/publishers").await?;
    let publishers = parse_list::<PublisherDocument>(&response)?;
    match args.output.selected_format() {
        ListFormat::Json => out.write_json(&publishers.iter().map(|(json, _)| json).collect::<Vec<_>>())?,
        ListFormat::Ndjson => out.write_ndjson(publishers.iter().map(|(json, _)| json))?,
        ListFormat::Csv => {
            write_csv(&CSV_HEADINGS, publishers.iter().map(|(_, publisher)| csv_row(publisher)), out)?;
        }
        ListFormat::Table if publishers.is_empty() => {
            out.write_stderr_line("no publishers are configured; see docs/publish.md");
        }
        ListFormat::Table => {
            let precision = out.choose_precision(args.precision.raw);
            let publishers = publishers.iter().map(|(_, publisher)| publisher);
            build_publisher_table(publishers, precision, clock::wall_time()).print_to(out)?;
        }
    }
    Ok(())
}

pub(super) fn build_publisher_table<'p>(
    publishers: impl Iterator<Item = &'p PublisherDocument>,
    precision: Precision,
    now: Timestamp,
) -> TextTable {
    let mut table = TextTable::new(&COLUMNS);
    for publisher in publishers {
        let records = &publisher.records;
        table.add_row(&[
            publisher.name.clone(),
            publisher.sink_type.to_string(),
            publisher.state.to_string(),
            precision.format_count(records.delivered),
            precision.format_count(records.pending),
            precision.format_count(records.dropped.values().sum()),
            precision.format_count(records.dead),
            precision.format_seconds(publisher.behind_seconds),
            format_last(publisher.last_delivery, now),
        ]);
    }
    table
}

fn csv_row(publisher: &PublisherDocument) -> Vec<String> {
    let records = &publisher.records;
    vec![
        publisher.name.clone(),
        publisher.sink_type.to_string(),
        publisher.state.to_string(),
        records.delivered.to_string(),
        records.pending.to_string(),
        records.dropped.values().sum::<u64>().to_string(),
        records.dead.to_string(),
        publisher.behind_seconds.to_string(),
        publisher.last_delivery.map_or(String::new(), |last| last.to_string()),
    ]
}

pub(super) async fn show_publisher(args: &PublisherArgs, out: &mut Console) -> Result<(), Failure> {
    let response = args.client.build_client()?.get("/v1/publishers").await?;
    let publishers = parse_list::<PublisherDocument>(&response)?;
    let names: Vec<_> = publishers.iter().map(|(_, publisher)| publisher.name.clone()).collect();
    let found = publishers.into_iter().find(|(_, publisher)| publisher.name == args.name);
    let Some((document, _)) = found else { return Err(unknown_publisher(&args.name, &names)) };
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&document)?,
        OutputFormat::Ndjson => out.write_ndjson([document])?,
        OutputFormat::Table => print_properties(&document, out.choose_precision(args.precision.raw), out)?,
    }
    Ok(())
}

fn unknown_publisher(name: &str, names: &[String]) -> Failure {
    let known = match names.is_empty() {
        true => "none are configured".to_owned(),
        false => format!("there are {}", names.join(", ")),
    };
    Failure::new(code::ERROR, format!("there is no publisher {name:?}; {known}"))
}

pub(super) async fn check_publisher(
    args: &PublisherCallArgs,
    out: &mut Console,
) -> Result<ExitCode, Failure> {
    let response = call(&args.admin.build_client(), "POST", &args.name, "check").await?;
    let checked: PublisherCheckDocument = parse_response(&response)?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&checked)?,
        OutputFormat::Ndjson => out.write_ndjson([&checked])?,
        OutputFormat::Table => {
            let answer = checked.answer.as_deref();
            let text = match (&*checked.outcome, answer) {
                ("ok", _) => "accepted".to_owned(),
                (outcome, None) => format!("not accepted: {}", describe_outcome(outcome)),
                (outcome, Some(answer)) => format!("not accepted: {}: {answer}", describe_outcome(outcome)),
            };
            out.write_line(text)?;
            out.write_line(format!("it would send {} series of the windows that are kept", checked.series))?;
            if let Some(advice) = &checked.advice {
                out.write_line(format!("to do: {advice}"))?;
            }
        }
    }
    Ok(if checked.outcome == "ok" { ExitCode::SUCCESS } else { ExitCode::from(code::ERROR) })
}

/// What the class of an answer means for the destination.
fn describe_outcome(outcome: &str) -> &str {
    match outcome {
        "retry" => "it does not work at the moment",
        "reject" => "it refuses the content",
        "auth" => "it refuses access",
        "gone" => "it does not exist",
        "too_large" => "the request is too large for it",
        other => other,
    }
}

pub(super) async fn list_dead_letters(args: &PublisherCallArgs, out: &mut Console) -> Result<(), Failure> {
    let response = call(&args.admin.build_client(), "GET", &args.name, "dead").await?;
    let letters = parse_list::<DeadLetterDocument>(&response)?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&letters.iter().map(|(json, _)| json).collect::<Vec<_>>())?,
        OutputFormat::Ndjson => out.write_ndjson(letters.iter().map(|(json, _)| json))?,
        OutputFormat::Table if letters.is_empty() => out.write_stderr_line("no dead letters"),
        OutputFormat::Table => {
            for (_, letter) in &letters {
                let of = |key: &str| letter.record.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
                let task = letter.record.pointer("/origin/task_id").and_then(Value::as_str).unwrap_or("?");
                out.write_line(format!(
                    "{} {} {} of {task}: {}",
                    letter.at,
                    of("type"),
                    of("name"),
                    letter.answer
                ))?;
            }
        }
    }
    Ok(())
}

pub(super) async fn replay_publisher(
    args: &PublishReplayArgs,
    out: &mut Console,
) -> Result<ExitCode, Failure> {
    let query = encode_query(args.since.as_deref().map(|since| ("since", since)));
    let path = format!("replay{query}");
    let response = call(&args.call.admin.build_client(), "POST", &args.call.name, &path).await?;
    let replayed: ReplayedDocument = parse_response(&response)?;
    match args.call.output.selected_format() {
        OutputFormat::Json => out.write_json(&replayed)?,
        OutputFormat::Ndjson => out.write_ndjson([&replayed])?,
        OutputFormat::Table => {
            out.write_line(format!(
                "{} records were accepted, {} were not",
                replayed.delivered, replayed.refused
            ))?;
            if let Some(answer) = &replayed.answer {
                out.write_line(format!("the last answer: {answer}"))?;
            }
        }
    }
    Ok(if replayed.refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(code::ERROR) })
}

async fn call(
    client: &Client,
    method: &str,
    name: &str,
    what: &str,
) -> Result<crate::client::Response, Failure> {
    let path = format!("/v1/publishers/{}/{what}", encode_segment(name));
    Ok(client.send_request(method, &path, Vec::new()).await?)
}
