//! `tallyport tasks`: the tasks of the node.

use super::args::{ListFormat, TaskSortKey, TasksArgs};
use super::csv_text::write_csv;
use super::documents::{format_folded, format_labels, format_last};
use super::encoding::encode_query;
use super::failure::Failure;
use super::listing::{SortCell, ensure_match, report_removed};
use super::output::Console;
use super::resolve::{complete_filters, flag_pairs, parse_list};
use super::table::{CellKind, Column, ColumnRank, TextTable};
use super::units::Precision;
use crate::model::Timestamp;
use crate::net::clock;
use crate::wire::Task;

const COLUMNS: [Column; 10] = [
    Column::new("TASK", CellKind::Name),
    Column::new("STATE", CellKind::Word).with_rank(ColumnRank::State),
    Column::new("CONTAINERS", CellKind::Number).with_rank(ColumnRank::Containers),
    Column::new("SERIES", CellKind::Number).with_rank(ColumnRank::Series),
    Column::new("DATAGRAMS", CellKind::Number).with_rank(ColumnRank::Datagrams),
    Column::new("VALUES", CellKind::Number),
    Column::new("REJECTED", CellKind::Number).with_rank(ColumnRank::Rejected),
    Column::new("DROPPED", CellKind::Number).with_rank(ColumnRank::Dropped),
    Column::new("FOLDED", CellKind::Number).with_rank(ColumnRank::Folded),
    Column::new("LAST", CellKind::Number).with_rank(ColumnRank::Last),
];

const CSV_HEADINGS: [&str; 12] = [
    "task_id",
    "state",
    "finished",
    "containers",
    "series",
    "datagrams",
    "values",
    "rejected",
    "dropped",
    "folded",
    "last_datagram",
    "labels",
];

pub(super) async fn list_tasks(args: &TasksArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.client.build_client()?;
    let containers = complete_filters(&client, &args.container).await?;
    let query =
        encode_query(flag_pairs(&[("task", &args.task), ("container", &containers), ("label", &args.label)]));
    let response = client.get(&format!("/v1/tasks{query}")).await?;
    let mut tasks = parse_list::<Task>(&response)?;
    if let Some(state) = args.state {
        tasks.retain(|(_, task)| state.is_state(&task.state));
    }
    let removed = args.list.arrange_rows(&mut tasks, |key, (_, task)| sort_cell(key, task));
    match args.output.selected_format() {
        ListFormat::Json => out.write_json(&tasks.iter().map(|(json, _)| json).collect::<Vec<_>>())?,
        ListFormat::Ndjson => out.write_ndjson(tasks.iter().map(|(json, _)| json))?,
        ListFormat::Csv => write_csv(&CSV_HEADINGS, tasks.iter().map(|(_, task)| csv_row(task)), out)?,
        ListFormat::Table if tasks.is_empty() => {
            ensure_match("task", &query, args.state, false)?;
            out.write_stderr_line("no tasks yet; start one with `tallyport run -- COMMAND`");
        }
        ListFormat::Table => {
            let precision = out.choose_precision(args.precision.raw);
            let tasks = tasks.iter().map(|(_, task)| task);
            build_task_table(tasks, precision, clock::wall_time()).print_to(out)?;
            report_removed(removed, out);
        }
    }
    ensure_match("task", &query, args.state, !tasks.is_empty())
}

fn count_dropped(task: &Task) -> u64 {
    task.containers.iter().map(|container| container.dropped + container.kernel_drops).sum()
}

fn count_rejected(task: &Task) -> u64 {
    task.totals.lines.received.saturating_sub(task.totals.lines.accepted)
}

fn sort_cell(key: TaskSortKey, task: &Task) -> SortCell<'_> {
    let number = |count: u64| SortCell::Number(count as f64);
    match key {
        TaskSortKey::Task => SortCell::Text(task.task_id.as_str().into()),
        TaskSortKey::State => SortCell::Text((&*task.state).into()),
        TaskSortKey::Containers => number(task.containers.len() as u64),
        TaskSortKey::Series => number(task.series as u64),
        TaskSortKey::Datagrams => number(task.totals.datagrams.received),
        TaskSortKey::Values => number(task.totals.values.accepted),
        TaskSortKey::Rejected => number(count_rejected(task)),
        TaskSortKey::Dropped => number(count_dropped(task)),
        TaskSortKey::Folded => number(task.totals.values.folded),
        TaskSortKey::Last => SortCell::from_moment(task.last_datagram),
    }
}

pub(super) fn build_task_table<'t>(
    tasks: impl Iterator<Item = &'t Task>,
    precision: Precision,
    now: Timestamp,
) -> TextTable {
    let mut table = TextTable::new(&COLUMNS);
    for task in tasks {
        table.add_row(&[
            task.task_id.clone(),
            task.state.to_string(),
            task.containers.len().to_string(),
            precision.format_count(task.series as u64),
            precision.format_count(task.totals.datagrams.received),
            precision.format_count(task.totals.values.accepted),
            precision.format_count(count_rejected(task)),
            precision.format_count(count_dropped(task)),
            format_folded(task.totals.values.folded, precision),
            format_last(task.last_datagram, now),
        ]);
    }
    table
}

fn csv_row(task: &Task) -> Vec<String> {
    vec![
        task.task_id.clone(),
        task.state.to_string(),
        task.finished.to_string(),
        task.containers.len().to_string(),
        task.series.to_string(),
        task.totals.datagrams.received.to_string(),
        task.totals.values.accepted.to_string(),
        count_rejected(task).to_string(),
        count_dropped(task).to_string(),
        task.totals.values.folded.to_string(),
        task.last_datagram.map_or(String::new(), |last| last.to_string()),
        format_labels(&task.labels),
    ]
}
