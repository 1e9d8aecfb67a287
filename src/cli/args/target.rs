//! Which agent a command asks, and for which tasks, containers and series.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::completion::{container_ids, metric_names, pod_containers, series_tags};
use crate::client::Target;

/// Where commands look for the agent that serves as it does without settings.
pub(in crate::cli) const DEFAULT_URL: &str = "http://127.0.0.1:9725";

/// The address of the agent, for requests that need no token.
#[derive(Debug, Args)]
pub(in crate::cli) struct UrlArgs {
    /// URL of the agent
    #[arg(
        long,
        env = "TALLYPORT_URL",
        default_value = DEFAULT_URL,
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

/// Filters of records, tasks and containers; repeated filters must all match.
#[derive(Debug, Args)]
pub(in crate::cli) struct FilterArgs {
    /// Only this metric, or those whose names match this pattern, as --name
    #[arg(value_name = "NAME", add = metric_names())]
    pub(in crate::cli) metric: Option<String>,
    /// Only this container, by its id or the start of it, or those whose ids match this pattern
    #[arg(long, value_name = "GLOB", add = container_ids())]
    pub(in crate::cli) container: Vec<String>,
    /// Only series whose name matches this pattern
    #[arg(long, value_name = "GLOB", add = metric_names())]
    pub(in crate::cli) name: Vec<String>,
    /// Only series with this tag, K=V or K:V
    #[arg(long, value_name = "K=V", add = series_tags())]
    pub(in crate::cli) tag: Vec<String>,
    /// Only containers with this label
    #[arg(long, value_name = "K=V")]
    pub(in crate::cli) label: Vec<String>,
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
