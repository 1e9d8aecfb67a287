//! `tallyport metrics details`: every series of a task.

use serde_json::{Map, Value};

use super::args::{DetailsArgs, DetailsFormat, WindowSelection};
use super::csv_text::write_csv;
use super::documents::format_number;
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use super::hdr_log::HdrLog;
use super::listing::report_removed;
use super::nearest::list_nearest_names;
use super::output::Console;
use super::records::{CSV_HEADINGS, build_csv_row, build_record_table, find_sort_cell, is_distribution};
use super::resolve::{FoundTask, find_task, parse_response};
use super::scrape_page::print_scrape_page;
use super::wait::{find_sending_task, repeat_until_complete};
use crate::client::Client;
use crate::model::Glob;
use crate::net::clock;
use crate::wire::{CountsDocument, RecordDocument, Task, TaskMetrics, TaskShort};

pub(super) async fn show_details(args: &DetailsArgs, out: &mut Console) -> Result<(), Failure> {
    let patience = args.wait.find_patience(&[Some(&args.task_id), args.filters.metric.as_deref()])?;
    let client = args.client.build_client()?;
    if args.output.selected_format() == DetailsFormat::Prom {
        let found = find_sending_task(&client, &args.pod.of, &args.task_id, patience).await?;
        print_scrape_page(&client, args, &found, out).await?;
        found.report_part(out);
        return Ok(());
    }
    let query = async || fetch_metrics(args, &client).await;
    let (mut metrics, found) =
        repeat_until_complete(patience, query, |(metrics, _)| !metrics.is_empty()).await?;
    let task = &found.task;
    let removed = args.list.arrange_rows(&mut metrics, find_sort_cell);
    match args.output.selected_format() {
        DetailsFormat::Json => out.write_json(&metrics.iter().map(reorder_record).collect::<Vec<_>>())?,
        DetailsFormat::Ndjson => out.write_ndjson(metrics.iter().map(reorder_record))?,
        DetailsFormat::Csv => write_csv(&CSV_HEADINGS, metrics.iter().map(build_csv_row), out)?,
        DetailsFormat::Hdr => print_hdr_log(args, &task.task_id, &parse_records(&metrics)?, out)?,
        DetailsFormat::Table if metrics.is_empty() => {}
        DetailsFormat::Table | DetailsFormat::Prom => {
            let precision = out.choose_precision(args.precision.raw);
            build_record_table(&parse_records(&metrics)?, precision, clock::wall_time()).print_to(out)?;
            report_removed(removed, out);
        }
    }
    if metrics.is_empty() {
        return Err(no_data_failure(args, &found, &fetch_all_records(&client, &task.task_id).await));
    }
    found.report_part(out);
    if task.finished && args.output.selected_format() == DetailsFormat::Table {
        out.write_stderr_line(format!("{} is finished", task.task_id));
    }
    Ok(())
}

/// The records that match the arguments, and their task.
async fn fetch_metrics(args: &DetailsArgs, client: &Client) -> Result<(Vec<Value>, FoundTask), Failure> {
    let found = match find_task(client, &args.pod.of, &args.task_id).await {
        // A task that is long gone may have left its history.
        Err(unknown) if args.may_be_history() => find_archived_task(args, client).await.ok_or(unknown)?,
        found => found?,
    };
    let query = details_query(args, &found)?;
    let path = format!("/v1/tasks/{}/metrics{query}", encode_segment(&found.task.task_id));
    let TaskMetrics::<Value> { mut metrics, .. } = parse_response(&client.get(&path).await?)?;
    if let Some(wanted) = &args.metric_type {
        metrics.retain(|record| record.get("type").and_then(Value::as_str) == Some(wanted));
    }
    Ok((metrics, found))
}

/// The task of exactly this name, if the archive has it.
async fn find_archived_task(args: &DetailsArgs, client: &Client) -> Option<FoundTask> {
    let path = format!("/v1/tasks/{}/metrics?at=0s", encode_segment(&args.task_id));
    let TaskMetrics::<Value> { task, .. } = parse_response(&client.get(&path).await.ok()?).ok()?;
    let TaskShort { task_id, state, finished, generation, labels, .. } = task;
    Some(FoundTask::from(Task {
        task_id,
        state,
        finished,
        generation,
        labels,
        containers: Vec::new(),
        last_datagram: None,
        series: 0,
        widest_tags: None,
        totals: CountsDocument::default(),
        recent_rejected: Vec::new(),
        last_scrape: None,
    }))
}

/// Writes the log, and reports on standard error what it does not contain.
fn print_hdr_log(
    args: &DetailsArgs,
    task_id: &str,
    records: &[RecordDocument],
    out: &mut Console,
) -> Result<(), Failure> {
    let log = HdrLog::new(records);
    out.write_data(&log.to_text())?;
    if log.omitted > 0 {
        out.write_stderr_line(format!(
            "records left out because HdrHistogram cannot hold values below 0 or above {:e}: {}; -o json shows them",
            crate::render::hdr::LARGEST,
            log.omitted
        ));
    }
    // The caller reports the case of no records at all.
    if log.is_empty() && !records.is_empty() {
        let message = format!(
            "task {task_id} has no matching timer, histogram or distribution that HdrHistogram can hold"
        );
        return Err(Failure::new(code::NO_DATA, message)
            .with_hint(format!("`tallyport metrics details {}` lists its records", args.task_id)));
    }
    Ok(())
}

/// Every series' newest record, to say what there is where nothing matched; none if it cannot be read.
pub(super) async fn fetch_all_records(client: &Client, task_id: &str) -> Vec<RecordDocument> {
    let path = format!("/v1/tasks/{}/metrics", encode_segment(task_id));
    let Ok(response) = client.get(&path).await else { return Vec::new() };
    parse_response(&response).map_or_else(|_| Vec::new(), |TaskMetrics { metrics, .. }| metrics)
}

/// `records` are all of the task, without filters.
fn no_data_failure(args: &DetailsArgs, found: &FoundTask, records: &[RecordDocument]) -> Failure {
    let task_id = &found.task.task_id;
    let filtered = found.container.is_some()
        || !args.filters.series_pairs().is_empty()
        || !args.filters.container.is_empty()
        || args.pod.pod_container.is_some()
        || args.window.is_some()
        || args.since.is_some()
        || args.history.list_pairs().next().is_some()
        || args.metric_type.is_some();
    let said = if filtered { "has no matching record" } else { "has sent nothing yet" };
    let hint = match suggest_name(args, records) {
        Some(hint) => hint,
        None if filtered => format!("`tallyport metrics details {task_id}` without filters shows all"),
        None => format!("`tallyport explain {task_id}` shows how far its metrics get"),
    };
    Failure::new(code::NO_DATA, format!("task {task_id} {said}")).with_hint(hint)
}

/// What to change about a name that nothing matched, or about the filters beside it.
fn suggest_name(args: &DetailsArgs, records: &[RecordDocument]) -> Option<String> {
    let names: Vec<Glob> = args.filters.list_names().map(Glob::new).collect();
    let given = args.filters.list_names().next()?;
    if let Some(found) = records.iter().find(|record| names.iter().all(|glob| glob.is_match(&record.name))) {
        let RecordDocument { metric_type, name, .. } = found;
        return Some(format!("the {metric_type} {name} exists; the other filters leave it out"));
    }
    let nearest = list_nearest_names(records.iter().map(|record| &*record.name), given);
    let containing = nearest.iter().any(|name| name.contains(given));
    let pattern = match containing {
        true => format!("; '*{given}*' finds names that contain it"),
        false => String::new(),
    };
    (!nearest.is_empty()).then(|| format!("nearest names: {}{pattern}", nearest.join(", ")))
}

fn details_query(args: &DetailsArgs, found: &FoundTask) -> Result<String, Failure> {
    let containers = found.container_filters(&args.pod, &args.filters.container)?;
    let mut pairs = args.filters.series_pairs();
    pairs.extend(containers.iter().map(|(key, value)| (*key, value.as_str())));
    if let Some(window) = args.window {
        let word = match window {
            WindowSelection::Last => "last",
            WindowSelection::Open => "open",
            WindowSelection::All => "all",
        };
        pairs.push(("window", word));
    }
    if let Some(since) = &args.since {
        pairs.push(("since", since));
    }
    pairs.extend(args.history.list_pairs());
    if args.merge {
        pairs.push(("merge", "true"));
    }
    if args.output.selected_format() == DetailsFormat::Hdr {
        pairs.push(("hdr", "true"));
    }
    Ok(encode_query(pairs))
}

pub(super) fn parse_records(metrics: &[Value]) -> Result<Vec<RecordDocument>, Failure> {
    let record = |value: &Value| serde_json::from_value(value.clone());
    metrics.iter().map(record).collect::<Result<_, _>>().map_err(|error| Failure::malformed_response(&error))
}

/// The keys of the record in the order of the DC/OS CLI, with the end of its window as its timestamp; then all others.
fn reorder_record(record: &Value) -> Value {
    let mut rest = record.as_object().cloned().unwrap_or_default();
    let timestamp = rest.get("end").cloned().unwrap_or_default();
    let mut ordered = Map::new();
    for key in ["name", "value", "unit", "timestamp", "tags", "type", "agg"] {
        let value = if key == "timestamp" { Some(timestamp.clone()) } else { rest.shift_remove(key) };
        if let Some(value) = value {
            ordered.insert(key.to_owned(), value);
        }
    }
    ordered.extend(rest);
    Value::Object(ordered)
}

/// The value of a record in one cell. Timers show their count and quantiles.
pub(super) fn format_value(record: &RecordDocument) -> String {
    if let Some(status) = record.agg.get("status").and_then(Value::as_str) {
        return status.to_owned();
    }
    if is_distribution(record) {
        let parts = ["count", "p50", "p95", "p99", "max"];
        let parts =
            parts.iter().filter_map(|key| Some(format!("{key}={}", format_number(record.agg_value(key)?))));
        return parts.collect::<Vec<_>>().join(" ");
    }
    record.value.map_or("-".to_owned(), format_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &Value) -> RecordDocument {
        let mut document = serde_json::json!({
            "id": "i", "epoch": 1, "node": "n1", "start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:10Z",
            "seconds": 10, "covered": 10, "partial": false, "origin": {"container_id": "c1"}, "name": "x",
            "type": "counter", "unit": "", "tags": {}, "agg": {}
        });
        document.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn a_record_is_printed_as_the_dcos_cli_printed_it() {
        let record = serde_json::json!({"id": "i", "end": "e", "name": "x", "tags": {}, "agg": {}, "unit": "ms",
            "type": "timer", "value": 1.5, "seq": 3});
        let keys: Vec<String> = reorder_record(&record).as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["name", "value", "unit", "timestamp", "tags", "type", "agg", "id", "end", "seq"]);
    }

    #[test]
    fn a_timer_is_one_cell_and_a_check_is_a_word() {
        let timer = record(
            &serde_json::json!({"agg": {"count": 128, "p50": 11.0, "p95": 40.1, "p99": 77.3, "max": 91.0}}),
        );
        assert_eq!(format_value(&timer), "count=128 p50=11 p95=40.1 p99=77.3 max=91");
        assert_eq!(
            format_value(&record(&serde_json::json!({"agg": {"status": "critical"}, "value": 2.0}))),
            "critical"
        );
        assert_eq!(format_value(&record(&serde_json::json!({"value": 3.0}))), "3");
        assert_eq!(format_value(&record(&serde_json::json!({}))), "-");
    }
}
