//! What `tallyport hook` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum HookCommand {
    /// Write the configuration that an engine needs, after showing what changes
    #[command(after_help = "\
Examples:
  tallyport hook install --for docker --dry-run            show what would change
  tallyport hook install --for docker --default            every container of this docker
  tallyport hook install --for containerd                  pods whose runtimeClassName is tallyport
  tallyport hook install --for podman --mechanism hook     without another runtime
  tallyport hook install --for crio --real-runtime /usr/bin/crun

An existing file is copied to NAME.tallyport-backup first, keeps its mode and owner, and is
replaced whole or not at all. A second run changes nothing. No service is restarted.")]
    Install(HookInstallArgs),
    /// Remove what install wrote from an engine's configuration
    #[command(after_help = "\
Examples:
  tallyport hook remove --for docker --dry-run
  tallyport hook remove --for containerd

A file that has not been changed since is restored byte for byte; from any other file, only what
install wrote is removed. Containers created with tallyport-oci need that program until they are
removed.")]
    Remove(HookRemoveArgs),
}

/// The container engine.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum EngineName {
    /// containerd's CRI plugin: /etc/containerd/config.toml
    Containerd,
    /// dockerd: /etc/docker/daemon.json
    Docker,
    /// podman: /etc/containers/containers.conf.d/99-tallyport.conf
    Podman,
    /// CRI-O: /etc/crio/crio.conf.d/99-tallyport.conf
    Crio,
}

/// How containers come by their address.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum MechanismName {
    /// A separate runtime: tallyport-oci, which wraps the real one
    Wrapper,
    /// podman's precreate hook, for every container; processes of exec do not get the variables
    Hook,
    /// containerd's base runtime specification: 127.0.0.1:8125 in every pod, one socket for all its containers
    BaseSpec,
}

/// The engine and its files.
#[derive(Debug, Args)]
pub(in crate::cli) struct EngineArgs {
    /// The engine
    #[arg(long = "for", value_name = "ENGINE")]
    pub(in crate::cli) engine: EngineName,
    /// The engine's configuration file [default: the engine's own default]
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Name of the runtime, as in --runtime or a runtime class
    #[arg(long, value_name = "NAME", default_value = "tallyport")]
    pub(in crate::cli) runtime_name: String,
    /// The wrapper [default: tallyport-oci beside this program]
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) wrapper: Option<PathBuf>,
    /// Directory for other files that an engine reads
    #[arg(long, value_name = "DIR", default_value = "/etc/tallyport")]
    pub(in crate::cli) directory: PathBuf,
    /// Show what would change, and write nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HookInstallArgs {
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
    /// How containers come by their address
    #[arg(long, value_name = "MECHANISM", default_value = "wrapper")]
    pub(in crate::cli) mechanism: MechanismName,
    /// Make it the default runtime
    #[arg(long)]
    pub(in crate::cli) default: bool,
    /// The runtime that the wrapper starts; written into its settings, /etc/tallyport/oci.toml
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) real_runtime: Option<PathBuf>,
    /// With base-spec: the specification to start from [default: the output of `ctr oci spec`]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) spec: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HookRemoveArgs {
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
}
