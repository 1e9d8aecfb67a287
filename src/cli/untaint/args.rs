//! What `tallyport untaint` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::args::{UrlArgs, times};

#[derive(Debug, Args)]
pub(in crate::cli) struct UntaintArgs {
    /// The Kubernetes node that this command runs on
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) node: String,
    /// The key of the taint to remove
    #[arg(long, value_name = "KEY", default_value = "tallyport/agent-not-ready")]
    pub(in crate::cli) taint: String,
    /// How often to check whether the node has the taint again
    #[arg(long, value_name = "DUR", default_value = "30s", value_parser = times::parse_duration)]
    pub(in crate::cli) interval: Duration,
    /// Directory of the service account's token and ca.crt
    #[arg(long, value_name = "DIR", default_value = "/var/run/secrets/kubernetes.io/serviceaccount")]
    pub(in crate::cli) credentials: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) at: UrlArgs,
}
