//! The arguments of the commands that draw on the terminal.

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::target::{ClientArgs, NamespaceArgs, PodArgs};
use crate::cli::completion::{container_ids, metric_names, series_tags, task_names};
use crate::cli::listing::{SortOrder, SortParser};
use crate::model::MetricType;

/// A column of the list of tasks.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum TaskColumn {
    /// Name
    Task,
    /// State
    State,
    /// Values per second
    Values,
    /// Series in open windows
    Series,
    /// Datagrams and values dropped
    Dropped,
    /// Lines rejected
    Rejected,
    /// Values of counters beyond the limit of series
    Folded,
    /// Time of the last datagram
    Last,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TopArgs {
    /// Open this task, or the only one whose name starts with this; the id of a container, or the start of it, opens that container alone
    #[arg(add = task_names())]
    pub(in crate::cli) task_id: Option<String>,
    /// Only pods of this Kubernetes namespace; with a task, the name of a pod
    #[command(flatten)]
    pub(in crate::cli) pod: NamespaceArgs,
    /// Only tasks with this label
    #[arg(long, value_name = "K=V")]
    pub(in crate::cli) label: Vec<String>,
    /// Sort tasks by this column: numbers from the highest, times from the latest, names from A to Z; -COLUMN reverses that
    #[arg(
        long,
        value_name = "COLUMN",
        default_value = "values",
        allow_hyphen_values = true,
        value_parser = SortParser::<TaskColumn>::new()
    )]
    pub(in crate::cli) sort: SortOrder<TaskColumn>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    /// Accepted only to name the command that prints documents.
    #[arg(short, long, value_name = "FORMAT", hide = true)]
    pub(in crate::cli) output: Option<String>,
    /// As `output`.
    #[arg(long, hide = true)]
    pub(in crate::cli) json: bool,
}

/// The number of a window that is plotted.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum PlotField {
    /// Sum of a counter, level of a gauge, mean of a timer, size of a set
    Value,
    /// Sum of a counter per second; values per second of other types
    Rate,
    /// Values in the window
    Count,
    /// Median
    P50,
    /// 95th percentile
    P95,
    /// 99th percentile
    P99,
    /// Largest value
    Max,
}

impl PlotField {
    pub(in crate::cli) const ALL: [Self; 7] =
        [Self::Value, Self::Rate, Self::Count, Self::P50, Self::P95, Self::P99, Self::Max];

    /// Its name on the command line.
    pub(in crate::cli) const fn as_word(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Rate => "rate",
            Self::Count => "count",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Max => "max",
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PlotArgs {
    /// The task, or the start of its name; the id of a container, or the start of it, selects that container alone
    #[arg(add = task_names())]
    pub(in crate::cli) task_id: String,
    /// The metric, or a pattern that matches one series
    #[arg(add = metric_names())]
    pub(in crate::cli) name: String,
    #[command(flatten)]
    pub(in crate::cli) pod: PodArgs,
    /// What to plot of each window
    #[arg(long, value_name = "FIELD", default_value = "value")]
    pub(in crate::cli) field: PlotField,
    /// Only the series with this tag, K=V or K:V
    #[arg(long, value_name = "K=V", add = series_tags())]
    pub(in crate::cli) tag: Vec<String>,
    /// Only the series of this type
    #[arg(long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(MetricType::ALL.map(MetricType::as_str)))]
    pub(in crate::cli) metric_type: Option<String>,
    /// Only this container, by its id or the start of it, or those whose ids match this pattern
    #[arg(long, value_name = "GLOB", add = container_ids())]
    pub(in crate::cli) container: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}
