//! The commands. Help, completions and manual pages are generated from these definitions.

mod agent;
mod format;
#[cfg(feature = "top")]
mod live;
pub(super) mod numbers;
mod publishing;
mod reading;
mod target;
pub(super) mod times;

use std::sync::LazyLock;

use clap::{Parser, Subcommand};

pub(super) use agent::*;
pub(super) use format::*;
#[cfg(feature = "top")]
pub(super) use live::{PlotArgs, PlotField, TaskColumn, TopArgs};
pub(super) use publishing::*;
pub(super) use reading::*;
pub(super) use target::*;

use crate::products::Product;

/// The version, and the optional parts that this program was built without.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let missing: Vec<_> = Product::list_missing().map(Product::feature_name).collect();
    let version = env!("CARGO_PKG_VERSION");
    match missing.is_empty() {
        true => version.to_owned(),
        false => format!("{version} (built without {})", missing.join(", ")),
    }
});

/// A StatsD socket for every container on the node.
#[derive(Debug, Parser)]
#[command(name = "tallyport", version = VERSION.as_str(), arg_required_else_help = true, after_help = AFTER)]
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
  tallyport doctor                                     what loses data on this node, and what to do

Prometheus scrapes /metrics/tasks of the agent's URL; /metrics has only the agent's own metrics.

Exit codes: 0 found, 1 error or a fault found, 2 usage, 3 no such task, 4 no data yet,
5 agent unreachable, 6 ambiguous";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent of this node
    #[command(after_help = "\
Examples:
  tallyport agent
  tallyport agent --background
  tallyport agent --stop
  tallyport agent --config /etc/tallyport/agent.toml --set limits.series=2000

Without a file and without root it serves on http://127.0.0.1:9725: the web page at /, metrics of
applications for Prometheus at /metrics/tasks, and its own at /metrics. TERM drains and ends it,
HUP reads the configuration again. --background needs no `&`: the command returns when the agent is
ready, or prints why it did not start.")]
    Agent(AgentArgs),
    /// Keep the sockets and windows of an agent that ends until the next one starts
    #[command(after_help = "\
Examples:
  tallyport keeper --state-dir /var/lib/tallyport

For nodes where the agent must end before the next one starts, as in a DaemonSet. Run it as the
agent's user, with its state directory. An agent that gets TERM leaves its state there, and the
next agent takes it. State that no agent requests is discarded after --hold.")]
    Keeper(KeeperArgs),
    /// Reserve a socket, put its address into the environment, and execute COMMAND
    #[command(after_help = "\
Examples:
  tallyport run -- python3 app.py
  tallyport run --task-id web.1 --label team=shop -- ./server --port 8080

The program gets STATSD_UDP_HOST and STATSD_UDP_PORT. Without an agent it still starts,
without them; --fail-closed makes that an error.")]
    Run(RunArgs),
    /// Reserve a socket for CONTAINER and print its variables, for a systemd unit or another launcher
    #[command(after_help = "\
Examples:
  tallyport env web.service --task-id web
  tallyport env web.service --env-file /run/tallyport/env/web.service

In a unit:
  ExecStartPre=+/usr/bin/tallyport env %n --env-file /run/tallyport/env/%n
  EnvironmentFile=-/run/tallyport/env/%n
  ExecStopPost=-+/usr/bin/tallyport containers release %n

Without an agent there are no variables and the unit starts; --fail-closed makes that an error.")]
    Env(EnvArgs),
    /// List the tasks of this node
    #[command(after_help = "\
Examples:
  tallyport tasks
  tallyport tasks --sort dropped --limit 5
  tallyport tasks --label team=shop --json")]
    Tasks(TasksArgs),
    /// Show the tasks of this node live, sorted by values per second
    #[cfg(feature = "top")]
    #[command(after_help = "\
Examples:
  tallyport top
  tallyport top --sort dropped
  tallyport top web.1
  tallyport top -n shop

Keys: arrows, j, k and the page keys move, Enter opens a task or a series, Esc goes back, s, < and >
choose the column to sort by, r reverses the order, / filters, ? lists all keys, q quits.

It needs a terminal. For pipes, `tallyport tasks -o ndjson` lists tasks and
`tallyport metrics watch TASK -o ndjson` prints windows as they close.")]
    Top(TopArgs),
    /// List, show or release containers
    Containers {
        #[command(subcommand)]
        command: ContainersCommand,
    },
    /// Show what publishers have delivered, and try or repeat a delivery
    Publish {
        #[command(subcommand)]
        command: PublishCommand,
    },
    /// Show the metrics of a task
    #[command(after_help = "\
Prometheus scrapes the metrics of all tasks at /metrics/tasks of the agent's URL;
`tallyport metrics details TASK -o prom` prints the part of one task.")]
    Metrics {
        #[command(subcommand)]
        command: MetricsCommand,
    },
    /// Follow a task's metrics from its socket to the scraper, and report what stopped them
    #[command(after_help = "\
Examples:
  tallyport explain web.1
  tallyport explain web.1 response.latency

The last step is /metrics/tasks, the page for Prometheus: its name of each metric, and an expression.")]
    Explain(ExplainArgs),
    /// Print lines as a task sends them
    #[command(after_help = "\
Examples:
  tallyport tail web.1
  tallyport tail web.1 'response.*'
  tallyport tail web.1 --rejected
  tallyport tail web.1 --raw --lines 100 | sort | uniq -c")]
    Tail(TailArgs),
    /// Parse datagrams as the agent does, and print the result
    #[command(after_help = "\
Examples:
  tallyport parse 'page.views:1|c|#route:/pay'
  printf 'a:1|c\\nb:x|c' | base64 | tallyport parse --base64

The exit code is 1 if any line is rejected; `rejected` names the lines and the reasons.")]
    Parse(ParseArgs),
    /// Check or show the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Configure container engines to use tallyport-oci, or undo that
    #[cfg(feature = "install")]
    Hook {
        #[command(subcommand)]
        command: super::hook::HookCommand,
    },
    /// Make the running agent read its configuration again
    #[command(after_help = "\
Examples:
  tallyport reload
  kubectl -n tallyport exec ds/tallyport -- tallyport reload

A configuration with errors is refused: the old one stays in force, and the exit code is 1.")]
    Reload(ReloadArgs),
    /// Check that the agent answers, and that it is the expected one
    #[command(after_help = "\
Examples:
  tallyport health
  tallyport health --instance 7d0f1a52
  tallyport health --wait 10s

For probes of orchestrators: the exit code is 0 if the agent is alive, 1 if another agent answers, 5 if
none does. It requests only /health and needs no token. With --wait it also requests /ready.")]
    Health(HealthArgs),
    /// Remove a taint from a Kubernetes node once its agent is registered with the container runtime
    #[cfg(feature = "nri")]
    #[command(after_help = "\
Examples:
  tallyport untaint --node node-1
  tallyport untaint --node node-1 --taint example.org/not-ready --interval 10s

Runs in a pod with a service account that may get and patch nodes, until TERM or INT: when the node
comes back with the taint, it is removed again.")]
    Untaint(super::untaint::UntaintArgs),
    /// Find problems on this node
    #[command(after_help = "\
Examples:
  tallyport doctor
  tallyport doctor --json
  tallyport doctor --publish
  tallyport doctor --probe runc --probe docker

It also says when the metrics of tasks (/metrics/tasks) were scraped last. A probe is a short container that is started as others are and sends one metric; doctor says
how far it came, and how to fix what failed.")]
    Doctor(DoctorArgs),
    /// Send the metric that doctor's probe waits for
    #[command(hide = true)]
    ProbeSend,
    /// Print what a shell needs to complete commands, and names of tasks, containers and metrics
    #[command(after_help = "\
Examples:
  tallyport completions bash > /usr/share/bash-completion/completions/tallyport
  source <(tallyport completions bash)
  tallyport completions fish | source

Names come from the running agent, which --url, --token-file and --admin-socket in the line
select, as do their variables. If it does not answer within 0.3 seconds, only commands and options
are completed.")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them into a directory
    #[command(after_help = "\
Examples:
  tallyport man | man -l -
  tallyport man --dir /usr/local/share/man")]
    Man(ManArgs),
    /// Print the version
    Version(VersionArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum ContainersCommand {
    /// List every container the agent knows
    #[command(after_help = "\
Examples:
  tallyport containers list
  tallyport containers list --state lost
  tallyport containers list --task 'web.*' -o ndjson")]
    List(ContainersListArgs),
    /// Show one container
    #[command(after_help = "\
Examples:
  tallyport containers show c-42")]
    Show(ContainerArgs),
    /// Release a container: drain its socket, close its window and its socket
    #[command(after_help = "\
Examples:
  tallyport containers release c-42")]
    Release(ContainerArgs),
    /// Compare the agent's table with running processes immediately
    #[command(after_help = "\
Examples:
  tallyport containers reconcile
  tallyport containers reconcile --json")]
    Reconcile(ReconcileArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum PublishCommand {
    /// List the publishers, what they have delivered, and what is left
    #[command(after_help = "\
Examples:
  tallyport publish list
  tallyport publish list --json")]
    List(PublishListArgs),
    /// Show one publisher: its state, its records, and what its destination said last
    #[command(after_help = "\
Examples:
  tallyport publish show influx")]
    Show(PublisherArgs),
    /// Send one record to a publisher's destination, and report the answer
    #[command(after_help = "\
Examples:
  tallyport publish check influx

The record is a counter named tallyport.publish.check. A file is only opened. The exit code is 1
if the destination does not accept.")]
    Check(PublisherCallArgs),
    /// List the records that a publisher's destination refused
    #[command(after_help = "\
Examples:
  tallyport publish dead influx
  tallyport publish dead influx -o ndjson")]
    Dead(PublisherCallArgs),
    /// Send dead letters again, or with --since what was already sent
    #[command(after_help = "\
Examples:
  tallyport publish replay influx
  tallyport publish replay influx --since 5m

Dead letters that are accepted are removed. A file gets what is sent again once more.")]
    Replay(PublishReplayArgs),
    /// Compare what was sent with what the destination holds
    #[command(after_help = "\
Examples:
  tallyport publish verify influx
  tallyport publish verify influx --since 10m -o json

The agent asks the destination for the number and the sums of the points of every series, over all whole
rounds within that time of which it still has the windows, in memory or in files, and every difference
is named. The last line says what of that time was not compared. The types influxdb, remote_write and
file can be compared. The exit code is 1 if anything differs or nothing could be compared.")]
    Verify(PublishVerifyArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum MetricsCommand {
    /// Show every series of a task
    #[command(after_help = "\
Examples:
  tallyport metrics details web.1
  tallyport metrics details web.1 --wait=1m
  tallyport metrics details web.1 response.latency
  tallyport metrics details web.1 'response.*' --tag route=/pay
  tallyport metrics details web.1 --type timer --sort p99 --limit 5
  tallyport metrics details web.1 --since 5m --merge --json
  tallyport metrics details web.1 --since 2d --step 10m
  tallyport metrics details web.1 --at 2026-01-01T03:00:00Z
  tallyport metrics details web.1 --window all -o hdr > web.1.hlog
  tallyport metrics details -n shop web-0 -c main
  tallyport metrics details web.1 -o csv > web.1.csv

Without --window, each series shows its newest closed record, or the open one if none is
closed yet. Percentiles cover that record's window, or with --merge all selected windows; those
of -o prom and of Prometheus cover the last 60 s.")]
    Details(Box<DetailsArgs>),
    /// Show a task at a glance: state, rates, drops, its largest series
    #[command(after_help = "\
Examples:
  tallyport metrics summary web.1")]
    Summary(SummaryArgs),
    /// Show a task's series, redrawn with every window
    #[command(after_help = "\
Examples:
  tallyport metrics watch web.1
  tallyport metrics watch web.1 'response.*' --windows 6

On a terminal, it shows as many series as fit, and waits for an agent that goes away.")]
    Watch(WatchArgs),
    /// Plot one series over its kept windows and the open one
    #[cfg(feature = "top")]
    #[command(after_help = "\
Examples:
  tallyport metrics plot web.1 request.latency --field p99
  tallyport metrics plot web.1 page.views --tag route=/pay --field rate

The plot fits the terminal; in a pipe it has 80 columns. If several series match, they are listed.")]
    Plot(PlotArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Report every error of the configuration
    #[command(after_help = "\
Examples:
  tallyport config check --config agent.toml")]
    Check(ConfigArgs),
    /// Print the configuration that an agent started here would have, or that the running agent has, and the source of each value
    #[command(after_help = "\
Examples:
  tallyport config show
  TALLYPORT_WINDOWS_LENGTH=1s tallyport config show --json
  tallyport config show --running

With --running, the agent is asked on its admin socket: --admin-socket, or the one that is configured here.")]
    Show(ShowConfigArgs),
    /// Print the reference page, in Markdown
    Reference(ReferenceArgs),
    /// Print an example file
    Example,
}
