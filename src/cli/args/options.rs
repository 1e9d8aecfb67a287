//! The arguments of each command.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{EnumValueParser, NonEmptyStringValueParser, PossibleValuesParser};
use clap::{ArgAction, Args, ValueEnum};

use super::times;
use crate::cli::completion::{container_ids, metric_names, pod_containers, task_names};
use crate::cli::listing::{ArgumentChoice, ListArgs};
use crate::cli::resolve::parse_container_filter;
use crate::cli::wait::WaitArgs;
use crate::client::Target;
use crate::model::MetricType;

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Args)]
pub(in crate::cli) struct AgentArgs {
    #[command(flatten)]
    pub(in crate::cli) sources: Sources,
    /// Address to serve metrics on
    #[arg(long, value_name = "ADDR")]
    pub(in crate::cli) http_listen: Option<String>,
    /// Allow access off loopback without TLS and tokens
    #[arg(long)]
    pub(in crate::cli) http_insecure: bool,
    /// Path of the admin socket, for launchers and runtimes
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) admin_socket: Option<String>,
    /// Directory for state that must survive the agent
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) state_dir: Option<String>,
    /// Length of a window
    #[arg(long, value_name = "DUR", value_parser = times::check_duration)]
    pub(in crate::cli) window: Option<String>,
    /// Closed windows to keep for each container
    #[arg(long, value_name = "N")]
    pub(in crate::cli) keep: Option<String>,
    /// Take over from the running agent without losing a datagram; start as usual if none runs
    #[arg(long)]
    pub(in crate::cli) take_over: bool,
    /// Like --take-over; if versions or window lengths differ, shut down the running agent and start from disk
    #[arg(long, conflicts_with = "take_over")]
    pub(in crate::cli) replace: bool,
    /// Return once the agent is ready, and leave it running; it logs to agent.log in its state directory
    #[arg(long)]
    pub(in crate::cli) background: bool,
    /// Stop the agent that runs with this configuration, and wait until it has ended
    #[arg(long, conflicts_with_all = ["background", "take_over", "replace"])]
    pub(in crate::cli) stop: bool,
    /// Write the URL to standard output once the agent is ready, and leave the terminal's session
    #[arg(long, hide = true)]
    pub(in crate::cli) announce: bool,
    /// Log level: error, warn, info, debug, trace, or target=level pairs
    #[arg(long, value_name = "FILTER")]
    pub(in crate::cli) log: Option<String>,
    /// Format of log lines
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) log_format: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct KeeperArgs {
    #[command(flatten)]
    pub(in crate::cli) sources: Sources,
    /// The agent's state directory
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) state_dir: Option<String>,
    /// How long to keep state that no agent requests
    #[arg(long, value_name = "DUR", default_value = "5m", value_parser = times::parse_duration)]
    pub(in crate::cli) hold: Duration,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(in crate::cli) struct Sources {
    /// The configuration file [default: /etc/tallyport/agent.toml if it exists]
    #[arg(long, value_name = "FILE", env = "TALLYPORT_CONFIG", hide_env_values = true)]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Any setting, as `tallyport config show` names it; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(in crate::cli) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// The task's name [default: the command's name and the process number]
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) task_id: Option<String>,
    /// A label of the task; may be repeated
    #[arg(long = "label", value_name = "K=V")]
    pub(in crate::cli) labels: Vec<String>,
    /// Do not start COMMAND if no socket is available
    #[arg(long)]
    pub(in crate::cli) fail_closed: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(in crate::cli) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EnvArgs {
    /// Name of what is started, such as a unit
    #[arg(value_name = "CONTAINER")]
    pub(in crate::cli) container: String,
    /// The task's name [default: the container's]
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) task_id: Option<String>,
    /// A label of the task; may be repeated
    #[arg(long = "label", value_name = "K=V")]
    pub(in crate::cli) labels: Vec<String>,
    /// The container's process, if it is running; its end releases the socket
    #[arg(long, value_name = "PID")]
    pub(in crate::cli) pid: Option<i32>,
    /// Write the variables to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) env_file: Option<PathBuf>,
    /// Fail if no socket is available, instead of printing no variables
    #[arg(long)]
    pub(in crate::cli) fail_closed: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
}

/// The address of the agent, for requests that need no token.
#[derive(Debug, Args)]
pub(in crate::cli) struct UrlArgs {
    /// URL of the agent
    #[arg(
        long,
        env = "TALLYPORT_URL",
        default_value = "http://127.0.0.1:9725",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(in crate::cli) url: Target,
    /// Certificates of trusted authorities for https:// URLs [default: those of the system]
    #[arg(long, env = "TALLYPORT_CA", value_name = "FILE", hide_env_values = true)]
    pub(in crate::cli) ca: Option<PathBuf>,
}

/// The address of the agent to read from, and the token.
#[derive(Debug, Args)]
pub(in crate::cli) struct ClientArgs {
    #[command(flatten)]
    pub(in crate::cli) at: UrlArgs,
    #[arg(
        long,
        help = "File whose first line is the agent's token; TALLYPORT_TOKEN is a token itself",
        env = "TALLYPORT_TOKEN_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    pub(in crate::cli) token_file: Option<PathBuf>,
}

/// How to find the agent's admin socket.
#[derive(Debug, Args)]
pub(in crate::cli) struct AdminArgs {
    /// The agent's admin socket
    #[arg(long, env = "TALLYPORT_ADMIN_SOCKET", value_name = "PATH", hide_env_values = true)]
    pub(in crate::cli) admin_socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReloadArgs {
    /// Apply it even if it removes TLS or tokens from the HTTP listener
    #[arg(long)]
    pub(in crate::cli) force: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HealthArgs {
    /// Fail unless the agent that answers has this name (agent.instance)
    #[arg(long, env = "TALLYPORT_AGENT_INSTANCE", value_name = "ID", hide_env_values = true)]
    pub(in crate::cli) instance: Option<String>,
    /// Wait until the agent answers and is ready, at most this long [default with --wait: 30s]
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        default_missing_value = "30s",
        value_parser = times::parse_duration
    )]
    pub(in crate::cli) wait: Option<Duration>,
    #[command(flatten)]
    pub(in crate::cli) at: UrlArgs,
}

/// The format of the output: `F` has those that the command can print.
#[derive(Debug, Args)]
pub(in crate::cli) struct OutputArgs<F: OutputChoice = OutputFormat> {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = EnumValueParser::<F>::new())]
    pub(in crate::cli) output: F,
    /// Print JSON, as -o json does
    #[arg(long, conflicts_with = "output")]
    pub(in crate::cli) json: bool,
}

/// The formats of a command.
pub(in crate::cli) trait OutputChoice: ArgumentChoice {
    /// The format that `--json` selects.
    const JSON: Self;
}

/// The formats of commands that print one document.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum OutputFormat {
    /// For people
    Table,
    /// Indented JSON
    Json,
    /// One JSON document per line
    Ndjson,
}

impl OutputChoice for OutputFormat {
    const JSON: Self = Self::Json;
}

/// The formats of streams, which have no end that an indented document could wait for.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum StreamFormat {
    /// For people
    Table,
    /// One JSON document per line
    #[value(alias = "json")]
    Ndjson,
}

impl OutputChoice for StreamFormat {
    const JSON: Self = Self::Ndjson;
}

/// The formats of lists.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum ListFormat {
    /// For people
    Table,
    /// Indented JSON
    Json,
    /// One JSON document per line
    Ndjson,
    /// RFC 4180, with headings and exact values
    Csv,
}

impl OutputChoice for ListFormat {
    const JSON: Self = Self::Json;
}

/// The formats of records.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum DetailsFormat {
    /// For people
    Table,
    /// Indented JSON
    Json,
    /// One JSON document per line
    Ndjson,
    /// RFC 4180, with headings and exact values
    Csv,
    /// Prometheus text
    Prom,
    /// HdrHistogram log of timers, histograms and distributions
    Hdr,
}

impl OutputChoice for DetailsFormat {
    const JSON: Self = Self::Json;
}

impl<F: OutputChoice> OutputArgs<F> {
    pub(in crate::cli) fn selected_format(&self) -> F {
        if self.json { F::JSON } else { self.output }
    }
}

/// Whether tables are for reading or for other programs.
#[derive(Debug, Args)]
pub(in crate::cli) struct RawArgs {
    /// Print every digit and whole container ids, as in a pipe
    #[arg(long)]
    pub(in crate::cli) raw: bool,
}

/// The state of a container, for `--state`.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum StateFilter {
    /// Its network namespace does not exist yet
    Reserved,
    /// Its socket is open
    Listening,
    /// It has ended, and data left in its socket is being read
    Draining,
    /// It has ended and can still be read
    Gone,
    /// It runs without a socket
    Mute,
    /// Its address could not be opened again
    Lost,
}

impl StateFilter {
    /// Whether this is the state of a document.
    pub(in crate::cli) fn is_state(self, state: &str) -> bool {
        self.to_possible_value().is_some_and(|value| value.get_name() == state)
    }
}

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

/// Filters of records, tasks and containers; repeated filters must all match.
#[derive(Debug, Args)]
pub(in crate::cli) struct FilterArgs {
    /// Only this container, or those whose ids match this pattern; 12 digits select ids that begin with them
    #[arg(long, value_name = "GLOB", value_parser = parse_container_filter, add = container_ids())]
    pub(in crate::cli) container: Vec<String>,
    /// Only series whose name matches this pattern
    #[arg(long, value_name = "GLOB", add = metric_names())]
    pub(in crate::cli) name: Vec<String>,
    /// Only series with this tag, K=V or K:V
    #[arg(long, value_name = "K=V")]
    pub(in crate::cli) tag: Vec<String>,
    /// Only containers with this label
    #[arg(long, value_name = "K=V")]
    pub(in crate::cli) label: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TasksArgs {
    /// Only this task, or tasks that match this pattern
    #[arg(long, value_name = "GLOB", add = task_names())]
    pub(in crate::cli) task: Vec<String>,
    /// Only tasks with a container whose id matches this pattern; 12 digits select ids that begin with them
    #[arg(long, value_name = "GLOB", value_parser = parse_container_filter, add = container_ids())]
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
    /// Only this container, or those whose ids match this pattern; 12 digits select ids that begin with them
    #[arg(long, value_name = "GLOB", value_parser = parse_container_filter, add = container_ids())]
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
pub(in crate::cli) struct PublishListArgs {
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    #[command(flatten)]
    pub(in crate::cli) precision: RawArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs<ListFormat>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublisherArgs {
    /// The publisher's name in the configuration
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(in crate::cli) name: String,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    #[command(flatten)]
    pub(in crate::cli) precision: RawArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublisherCallArgs {
    /// The publisher's name in the configuration
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(in crate::cli) name: String,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PublishReplayArgs {
    #[command(flatten)]
    pub(in crate::cli) call: PublisherCallArgs,
    /// Instead of dead letters, kept windows that ended within this time, such as 5m, or since this moment in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = times::check_since)]
    pub(in crate::cli) since: Option<String>,
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

/// Names a task by its Kubernetes pod.
#[derive(Debug, Args)]
pub(in crate::cli) struct NamespaceArgs {
    /// The task is a pod of this Kubernetes namespace: its name, the start of it, or its other name
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(in crate::cli) namespace: Option<String>,
}

/// Names a task by its Kubernetes pod, and one of its containers.
#[derive(Debug, Args)]
pub(in crate::cli) struct PodArgs {
    #[command(flatten)]
    pub(in crate::cli) of: NamespaceArgs,
    /// Only this container of the pod: its name, its id, or the start of its id
    #[arg(short = 'c', value_name = "CONTAINER", requires = "namespace", add = pod_containers())]
    pub(in crate::cli) pod_container: Option<String>,
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

#[derive(Debug, Args)]
pub(in crate::cli) struct DetailsArgs {
    /// The task, or the start of its name
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

#[derive(Debug, Args)]
pub(in crate::cli) struct SummaryArgs {
    /// The task, or the start of its name
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
    /// The task, or the start of its name
    #[arg(add = task_names())]
    pub(in crate::cli) task_id: String,
    #[command(flatten)]
    pub(in crate::cli) pod: PodArgs,
    /// Stop after this many windows
    #[arg(long, value_name = "N")]
    pub(in crate::cli) windows: Option<u64>,
    #[command(flatten)]
    pub(in crate::cli) filters: FilterArgs,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs<StreamFormat>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExplainArgs {
    /// The task, or the start of its name
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
    /// The task, or the start of its name
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
    /// Stop after this many lines
    #[arg(long, value_name = "N")]
    pub(in crate::cli) lines: Option<u64>,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs<StreamFormat>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ParseArgs {
    /// Datagrams are base64
    #[arg(long)]
    pub(in crate::cli) base64: bool,
    /// Tag styles to read in names: influx, librato, signalfx, all
    #[arg(long, value_name = "STYLES", default_value = "", hide_default_value = true)]
    pub(in crate::cli) tag_styles: String,
    /// Datagrams; without any, each line of standard input is one
    #[arg(value_name = "DATAGRAM")]
    pub(in crate::cli) datagrams: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfigArgs {
    #[command(flatten)]
    pub(in crate::cli) sources: Sources,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReferenceArgs {
    /// Print the page of the agent's own metrics instead
    #[arg(long, action = ArgAction::SetTrue)]
    pub(in crate::cli) metrics: bool,
}

/// How a probe is started.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum ProbeName {
    /// The wrapper with runc
    Runc,
    /// The wrapper with crun
    Crun,
    /// ctr, containerd and the wrapper
    Containerd,
    /// docker with the runtime tallyport
    Docker,
    /// podman with the runtime tallyport
    Podman,
}

impl ProbeName {
    /// The program that starts the probe.
    pub(in crate::cli) fn program_name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Containerd => "ctr",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Whether the program is a runtime, started directly by the wrapper.
    pub(in crate::cli) fn is_runtime(self) -> bool {
        matches!(self, Self::Runc | Self::Crun)
    }
}

impl std::fmt::Display for ProbeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Containerd { "containerd" } else { self.program_name() })
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DoctorArgs {
    /// Start a short container this way and check that its metric arrives; may be repeated
    #[arg(long, value_name = "WAY")]
    pub(in crate::cli) probe: Vec<ProbeName>,
    /// The probe's runtime in docker and podman; `default` selects the engine's default runtime
    #[arg(long, value_name = "NAME", default_value = "tallyport", requires = "probe")]
    pub(in crate::cli) runtime_name: String,
    /// The probe's wrapper [default: tallyport-oci beside this program]
    #[arg(long, value_name = "PATH", requires = "probe")]
    pub(in crate::cli) wrapper: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ManArgs {
    /// Write all pages below this directory, into man1, man5 and man8
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct VersionArgs {
    #[command(flatten)]
    pub(in crate::cli) output: OutputArgs,
}
