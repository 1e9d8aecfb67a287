//! What can be typed. Help, completions and manual pages are made from this.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::client::Target;

/// A StatsD socket for every container on the node.
#[derive(Debug, Parser)]
#[command(name = "tallyport", version, arg_required_else_help = true, after_help = AFTER)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

const AFTER: &str = "\
Examples:
  tallyport agent                                      start an agent on defaults
  tallyport run --task-id web.1 -- python3 app.py      start a program with a socket of its own
  tallyport metrics details web.1                      what it reports right now
  tallyport explain web.1 response.latency             why a metric is not there

Exit codes: 0 found, 1 error, 2 usage, 3 no such task, 4 no data yet, 5 agent unreachable, 6 ambiguous";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent of this node
    Agent(AgentArgs),
    /// Reserve a socket, put its address into the environment, and become COMMAND
    #[command(after_help = "\
Examples:
  tallyport run -- python3 app.py
  tallyport run --task-id web.1 --label team=shop -- ./server --port 8080

The program gets STATSD_UDP_HOST and STATSD_UDP_PORT. Without an agent it starts all the same, without them;
--fail-closed makes that an error.")]
    Run(RunArgs),
    /// List the tasks of this node
    Tasks(TasksArgs),
    /// List, show or release containers
    Containers {
        #[command(subcommand)]
        command: ContainersCommand,
    },
    /// What a task reports
    Metrics {
        #[command(subcommand)]
        command: MetricsCommand,
    },
    /// Follow a task's metrics from its socket to the scraper, and say what stopped them
    #[command(after_help = "\
Examples:
  tallyport explain web.1
  tallyport explain web.1 response.latency")]
    Explain(ExplainArgs),
    /// Lines as a task sends them
    Tail(TailArgs),
    /// Read datagrams as the agent would, and say how
    #[command(after_help = "\
Examples:
  tallyport parse 'page.views:1|c|#route:/pay'
  printf 'a:1|c\\nb:x|c' | base64 | tallyport parse --base64")]
    Parse(ParseArgs),
    /// Check or show the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Look for what is wrong on this node
    Doctor(DoctorArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them into a directory
    Man(ManArgs),
    /// Print the version
    Version(VersionArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum ContainersCommand {
    /// Every container the agent knows
    List(ContainersListArgs),
    /// One container
    Show(ContainerArgs),
    /// Release a container: read what it sent, close its window, let its socket go
    Release(ContainerArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum MetricsCommand {
    /// Every series of a task
    #[command(after_help = "\
Examples:
  tallyport metrics details web.1
  tallyport metrics details web.1 --name 'response.*' --tag route=/pay
  tallyport metrics details web.1 --since 5m --merge --json

Without --window, each series shows its newest closed record, or the open one where none is closed yet.")]
    Details(DetailsArgs),
    /// A task at a glance: state, rates, drops, its largest series
    Summary(SummaryArgs),
    /// A task's series, redrawn with every window
    Watch(WatchArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Find every mistake at once
    Check(ConfigArgs),
    /// Print what holds, and who said it
    Show(ConfigArgs),
    /// Print the reference page, in Markdown
    Reference(ReferenceArgs),
    /// Print an example file
    Example,
}

#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    pub(super) sources: Sources,
    /// Where metrics are served
    #[arg(long, value_name = "ADDR")]
    pub(super) http_listen: Option<String>,
    /// Serve off loopback without TLS and without a token
    #[arg(long)]
    pub(super) http_insecure: bool,
    /// The socket that launchers and runtimes ask
    #[arg(long, value_name = "PATH")]
    pub(super) admin_socket: Option<String>,
    /// Directory for what must survive the agent
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<String>,
    /// Length of a window
    #[arg(long, value_name = "DUR")]
    pub(super) window: Option<String>,
    /// Closed windows kept of each container
    #[arg(long, value_name = "N")]
    pub(super) keep: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or target=level pairs
    #[arg(long, value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// How a log line looks
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub(super) struct Sources {
    /// The configuration file [default: /etc/tallyport/agent.toml where it exists]
    #[arg(long, value_name = "FILE", env = "TALLYPORT_CONFIG", hide_env_values = true)]
    pub(super) config: Option<PathBuf>,
    /// Any setting, as `tallyport config show` names it; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The task's name [default: the command's name and the process number]
    #[arg(long, value_name = "ID")]
    pub(super) task_id: Option<String>,
    /// A label of the task; may be repeated
    #[arg(long = "label", value_name = "K=V")]
    pub(super) labels: Vec<String>,
    /// Do not start COMMAND where there is no socket to be had
    #[arg(long)]
    pub(super) fail_closed: bool,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(super) command: Vec<std::ffi::OsString>,
}

/// How to find the agent to read from.
#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// The agent to ask
    #[arg(
        long,
        env = "TALLYPORT_URL",
        default_value = "http://127.0.0.1:9725",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(super) url: Target,
}

/// How to find the agent's admin socket.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// The agent's admin socket
    #[arg(long, env = "TALLYPORT_ADMIN_SOCKET", value_name = "PATH", hide_env_values = true)]
    pub(super) admin_socket: Option<PathBuf>,
}

/// How the answer is to look.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// How the answer looks
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
    /// The same as -o json
    #[arg(long, conflicts_with = "output")]
    pub(super) json: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// Indented JSON
    Json,
    /// One JSON document a line
    Ndjson,
    /// Prometheus text, where there are metrics
    Prom,
}

impl OutputArgs {
    pub(super) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// Which records, tasks and containers are wanted; repeated filters must all hold.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only this container, or those that fit this pattern
    #[arg(long, value_name = "GLOB")]
    pub(super) container: Vec<String>,
    /// Only series whose name fits this pattern
    #[arg(long, value_name = "GLOB")]
    pub(super) name: Vec<String>,
    /// Only series with this tag, K=V or K:V
    #[arg(long, value_name = "K=V")]
    pub(super) tag: Vec<String>,
    /// Only containers with this label
    #[arg(long, value_name = "K=V")]
    pub(super) label: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct TasksArgs {
    /// Only this task, or those that fit this pattern
    #[arg(long, value_name = "GLOB")]
    pub(super) task: Vec<String>,
    /// Only tasks with such a container
    #[arg(long, value_name = "GLOB")]
    pub(super) container: Vec<String>,
    /// Only tasks with this label
    #[arg(long, value_name = "K=V")]
    pub(super) label: Vec<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct ContainersListArgs {
    /// Only containers of such a task
    #[arg(long, value_name = "GLOB")]
    pub(super) task: Vec<String>,
    /// Only this container, or those that fit this pattern
    #[arg(long, value_name = "GLOB")]
    pub(super) container: Vec<String>,
    /// Only containers with this label
    #[arg(long, value_name = "K=V")]
    pub(super) label: Vec<String>,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct ContainerArgs {
    /// The container
    pub(super) container_id: String,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Which windows.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Window {
    /// Each series' newest closed record
    Last,
    /// What is open
    Open,
    /// Every closed record that is kept
    All,
}

#[derive(Debug, Args)]
pub(super) struct DetailsArgs {
    /// The task, or the start of its name
    pub(super) task_id: String,
    /// Which windows
    #[arg(long, value_name = "WINDOW")]
    pub(super) window: Option<Window>,
    /// Only windows that ended within this time, such as 5m
    #[arg(long, value_name = "DUR")]
    pub(super) since: Option<String>,
    /// One record for each series, merged from all that were selected
    #[arg(long)]
    pub(super) merge: bool,
    #[command(flatten)]
    pub(super) filters: FilterArgs,
    #[command(flatten)]
    pub(super) client: ClientArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct SummaryArgs {
    /// The task, or the start of its name
    pub(super) task_id: String,
    #[command(flatten)]
    pub(super) client: ClientArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// The task, or the start of its name
    pub(super) task_id: String,
    /// Stop after so many windows
    #[arg(long, value_name = "N")]
    pub(super) windows: Option<u64>,
    #[command(flatten)]
    pub(super) filters: FilterArgs,
    #[command(flatten)]
    pub(super) client: ClientArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The task, or the start of its name
    pub(super) task_id: String,
    /// The metric, or a pattern
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// The task, or the start of its name
    pub(super) task_id: String,
    /// Nothing but the lines
    #[arg(long)]
    pub(super) raw: bool,
    /// Stop after so many lines
    #[arg(long, value_name = "N")]
    pub(super) lines: Option<u64>,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct ParseArgs {
    /// Datagrams are base64
    #[arg(long)]
    pub(super) base64: bool,
    /// Tag styles to read in names: influx, librato, signalfx, all
    #[arg(long, value_name = "STYLES", default_value = "")]
    pub(super) tag_styles: String,
    /// Datagrams; without any, one from each line of standard input
    #[arg(value_name = "DATAGRAM")]
    pub(super) datagrams: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    pub(super) sources: Sources,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReferenceArgs {
    /// The page of the agent's own metrics instead
    #[arg(long, action = ArgAction::SetTrue)]
    pub(super) metrics: bool,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub(super) client: ClientArgs,
    #[command(flatten)]
    pub(super) admin: AdminArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write a page for every command into this directory
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    #[command(flatten)]
    pub(super) output: OutputArgs,
}
