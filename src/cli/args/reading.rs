//! The arguments of commands that list tasks and containers, or show the metrics of a task.

use std::num::NonZeroU64;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, ValueEnum};

use super::format::{DetailsFormat, ListFormat, OutputArgs, RawArgs, StreamFormat};
use super::numbers::parse_count;
use super::target::{AdminArgs, ClientArgs, FilterArgs, NamespaceArgs, PodArgs, StateFilter};
use super::times;
use crate::cli::completion::{container_ids, metric_names, task_names};
use crate::cli::listing::ListArgs;
use crate::cli::wait::WaitArgs;
use crate::model::MetricType;

/// The keys by which tasks are sorted.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum TaskSortKey {
    Task,
    State,
    Containers,
    Series,
    Datagrams,
    Values,
    Rejected,
    Dropped,
    /// Values of counters beyond the limit of series
    Folded,
    /// Time since the last datagram
    Last,
}

/// The keys by which containers are sorted.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum ContainerSortKey {
    Container,
    Task,
    State,
    Received,
    Rejected,
    Dropped,
    /// Values of counters beyond the limit of series
    Folded,
    /// Time since the last datagram
    Last,
}

/// The keys by which records are sorted.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum RecordSortKey {
    Name,
    Type,
    Value,
    Count,
    P50,
    P95,
    P99,
    Max,
    /// Time since the end of the window
    Age,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TasksArgs {
    /// Only this task, or tasks that match this pattern
    #[arg(long, value_name = "GLOB", add = task_names())]
    pub(in crate::cli) task: Vec<String>,
    /// Only tasks with this container, by its id or the start of it, or with those whose ids match this pattern
    #[arg(long, value_name = "GLOB", add = container_ids())]
    pub(in crate::cli) container: Vec<String>,
    /// Only tasks with this label
    #[arg(long, value_name = "K=V")]
    pub(in crate::cli) label: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    /// Only tasks in this state
    #[arg(long, value_name = "STATE")]
    pub(in crate::cli) state: Option<StateFilter>,
    #[command(flatten)]
    pub(in crate::cli) list: ListArgs<TaskSortKey>,
    #[command(flatten)]
    pub(in crate::cli) precision: RawArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs<ListFormat>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ContainersListArgs {
    /// Only containers of tasks that match this pattern
    #[arg(long, value_name = "GLOB", add = task_names())]
    pub(in crate::cli) task: Vec<String>,
    /// Only this container, by its id or the start of it, or those whose ids match this pattern
    #[arg(long, value_name = "GLOB", add = container_ids())]
    pub(in crate::cli) container: Vec<String>,
    /// Only containers with this label
    #[arg(long, value_name = "K=V")]
    pub(in crate::cli) label: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    /// Only containers in this state
    #[arg(long, value_name = "STATE")]
    pub(in crate::cli) state: Option<StateFilter>,
    #[command(flatten)]
    pub(in crate::cli) list: ListArgs<ContainerSortKey>,
    #[command(flatten)]
    pub(in crate::cli) precision: RawArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs<ListFormat>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReconcileArgs {
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ContainerArgs {
    /// The container's id, or the start of it
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = container_ids())]
    pub(in crate::cli) container_id: String,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    #[command(flatten)]
    pub(in crate::cli) precision: RawArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

/// Which windows to read.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum WindowSelection {
    /// Each series' newest closed record
    Last,
    /// The open window
    Open,
    /// Every closed record that is kept
    All,
}

/// Steps of the history instead of windows.
#[derive(Debug, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// One record per series and step of this length, from the archive: 1m, 10m, 1h, or auto for one that suits the time
    #[arg(long, value_name = "STEP", conflicts_with_all = ["window", "merge"])]
    pub(in crate::cli) step: Option<String>,
    /// Only steps that start before this time ago, or before this moment in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = times::check_since, conflicts_with_all = ["window", "merge"])]
    pub(in crate::cli) until: Option<String>,
    /// The step that contains this time ago, or this moment in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = times::check_since, conflicts_with_all = ["window", "merge", "since", "until"])]
    pub(in crate::cli) at: Option<String>,
}

impl HistoryArgs {
    /// The parameters of a query.
    pub(in crate::cli) fn list_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = [("step", &self.step), ("until", &self.until), ("at", &self.at)];
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DetailsArgs {
    /// The task, or the start of its name; the id of a container, or the start of it, selects that container alone
    #[arg(add = task_names())]
    pub(in crate::cli) task_id: String,
    #[command(flatten)]
    pub(in crate::cli) pod: PodArgs,
    /// Which windows
    #[arg(long, value_name = "WINDOW")]
    pub(in crate::cli) window: Option<WindowSelection>,
    /// Only windows that ended within this time, such as 5m, or since this moment in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = times::check_since)]
    pub(in crate::cli) since: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) history: HistoryArgs,
    /// One record per series, merged from all selected records
    #[arg(long)]
    pub(in crate::cli) merge: bool,
    #[command(flatten)]
    pub(in crate::cli) wait: WaitArgs,
    #[command(flatten)]
    pub(in crate::cli) filters: FilterArgs,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    /// Only series of this type
    #[arg(long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(MetricType::ALL.map(MetricType::as_str)))]
    pub(in crate::cli) metric_type: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) list: ListArgs<RecordSortKey>,
    #[command(flatten)]
    pub(in crate::cli) precision: RawArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs<DetailsFormat>,
}

impl DetailsArgs {
    /// Whether the answer may be about a time that only the archive has.
    pub(in crate::cli) fn may_be_history(&self) -> bool {
        self.since.is_some() || self.history.list_pairs().next().is_some()
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SummaryArgs {
    /// The task, or the start of its name; the id of a container, or the start of it, selects its task
    #[arg(add = task_names())]
    pub(in crate::cli) task_id: String,
    #[command(flatten)]
    pub(in crate::cli) pod: NamespaceArgs,
    #[command(flatten)]
    pub(in crate::cli) wait: WaitArgs,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    #[command(flatten)]
    pub(in crate::cli) precision: RawArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WatchArgs {
    /// The task, or the start of its name; the id of a container, or the start of it, selects that container alone
    #[arg(add = task_names())]
    pub(in crate::cli) task_id: String,
    #[command(flatten)]
    pub(in crate::cli) pod: PodArgs,
    /// Stop after this many windows, at least 1
    #[arg(long, value_name = "N", value_parser = parse_count::<NonZeroU64>)]
    pub(in crate::cli) windows: Option<NonZeroU64>,
    #[command(flatten)]
    pub(in crate::cli) filters: FilterArgs,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs<StreamFormat>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExplainArgs {
    /// The task, or the start of its name; the id of a container, or the start of it, selects its task
    #[arg(add = task_names())]
    pub(in crate::cli) task_id: String,
    #[command(flatten)]
    pub(in crate::cli) pod: NamespaceArgs,
    /// The metric, or a pattern
    #[arg(add = metric_names())]
    pub(in crate::cli) name: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) wait: WaitArgs,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TailArgs {
    /// The task, or the start of its name; the id of a container, or the start of it, selects that container alone
    #[arg(add = task_names())]
    pub(in crate::cli) task_id: String,
    #[command(flatten)]
    pub(in crate::cli) pod: NamespaceArgs,
    /// Only lines of this metric, or of those that fit this pattern
    #[arg(add = metric_names())]
    pub(in crate::cli) name: Option<String>,
    /// Only lines that are rejected
    #[arg(long, conflicts_with = "accepted")]
    pub(in crate::cli) rejected: bool,
    /// Only lines that are accepted
    #[arg(long)]
    pub(in crate::cli) accepted: bool,
    /// Print only the lines: unchanged, or with control characters escaped on a terminal
    #[arg(long)]
    pub(in crate::cli) raw: bool,
    /// Stop after this many lines, at least 1
    #[arg(long, value_name = "N", value_parser = parse_count::<NonZeroU64>)]
    pub(in crate::cli) lines: Option<NonZeroU64>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs<StreamFormat>,
}
