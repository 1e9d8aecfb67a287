//! The arguments of commands that run an agent or a program, or look after them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::format::OutputArgs;
use super::target::{AdminArgs, ClientArgs, UrlArgs};
use super::{numbers, times};
use crate::cli::completion::{assigned_settings, setting_keys};
use crate::model::{ContainerId, TaskId};

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
    #[arg(long = "set", value_name = "KEY=VALUE", add = assigned_settings())]
    pub(in crate::cli) set: Vec<String>,
}

/// Parses a label, which has a key.
fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// The task's name [default: the command's name and the process number]
    #[arg(long, value_name = "ID", value_parser = TaskId::new)]
    pub(in crate::cli) task_id: Option<TaskId>,
    /// A label of the task; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label)]
    pub(in crate::cli) labels: Vec<(String, String)>,
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
    #[arg(value_name = "CONTAINER", value_parser = ContainerId::new)]
    pub(in crate::cli) container: ContainerId,
    /// The task's name [default: the container's]
    #[arg(long, value_name = "ID", value_parser = TaskId::new)]
    pub(in crate::cli) task_id: Option<TaskId>,
    /// A label of the task; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = parse_label)]
    pub(in crate::cli) labels: Vec<(String, String)>,
    /// The container's process, if it is running; its end releases the socket
    #[arg(long, value_name = "PID", value_parser = numbers::parse_pid)]
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
pub(in crate::cli) struct ShowConfigArgs {
    #[command(flatten)]
    pub(in crate::cli) sources: Sources,
    /// Only these settings, or those in these tables, such as limits
    #[arg(value_name = "KEY", add = setting_keys())]
    pub(in crate::cli) keys: Vec<String>,
    /// Show the settings of the running agent, and those that are configured otherwise here
    #[arg(long)]
    pub(in crate::cli) running: bool,
    #[command(flatten)]
    pub(in crate::cli) admin: AdminArgs,
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
    /// Compare a part of what each publisher has sent with what its destination holds
    #[arg(long)]
    pub(in crate::cli) publish: bool,
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
