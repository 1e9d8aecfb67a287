//! The configuration: one table of settings, layered from defaults, a file, the environment and flags, and read into checked
//! values.
//!
//! All errors are reported together, each with its source. A setting is defined by its row in `config/setting.rs`: the
//! parser, `config show`, the reference page, the shipped example and the behaviour at reload are derived from it.

mod checks;
mod error;
mod kind;
mod labels;
mod layers;
mod publish;
mod read;
mod reference;
mod setting;
mod url;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use error::{ConfigError, ConfigErrors};
pub use kind::SettingKind;
pub use layers::{
    Environment, Layers, ProcessEnvironment, SettingOrigin, SettingValue, find_misspelt_variables,
};
pub use publish::{
    CredentialFiles, DatadogSink, DebugSink, FILTERS, FileSink, GraphiteSink, HttpTarget, InfluxApi,
    InfluxFields, InfluxSink, MOST_FILTERS, OtlpSink, PUBLISHER_SETTINGS, ProxyChoice, PublishConfig,
    PublisherChange, PublisherChanges, PublisherConfig, PublisherEffect, PublisherEntry, PublisherSetting,
    RemoteWriteSink, RemoteWriteVersion, SinkConfig, SinkType, StartAt, Temporality,
};
pub use reference::{render_example, render_reference};
pub use setting::{Effect, SETTINGS, Setting};

use crate::aggregate::{AggregatorSettings, GaugeSign, TimerUnit};
use crate::render::prometheus::{Level, Naming, Timers};
use publish::PublisherValues;
use values::SettingValues;

/// The default configuration file.
pub const DEFAULT_FILE: &str = "/etc/tallyport/agent.toml";

/// The checked configuration of the agent.
#[derive(Clone, PartialEq, Debug)]
pub struct AgentConfig {
    /// The node's name in records.
    pub node: String,
    /// Labels of every record of the node.
    pub node_labels: BTreeMap<String, String>,
    /// Directory for state that must survive the agent.
    pub state_dir: PathBuf,
    /// The HTTP listener.
    pub http: HttpConfig,
    /// The admin socket.
    pub admin: AdminConfig,
    /// Windows, parsing and the limits of one container.
    pub aggregation: AggregatorSettings,
    /// Closed and open windows on disk.
    pub window_log: WindowLogConfig,
    /// The meaning of signed gauge values, for containers that do not set it.
    pub gauge_sign: GaugeSign,
    /// The unit of timers, for containers that do not set it.
    pub timer_unit: TimerUnit,
    /// Containers' sockets.
    pub listeners: ListenersConfig,
    /// What the node may use.
    pub node_limits: NodeLimits,
    /// The life of containers.
    pub containers: ContainersConfig,
    /// Aliases of the two variables, by preset.
    pub presets: Vec<String>,
    /// Containers' Unix sockets.
    pub unix: UnixConfig,
    /// The plugin of the container runtime.
    pub nri: NriConfig,
    /// Which pods and containers it serves.
    pub kubernetes: KubernetesConfig,
    /// The address that the DC/OS API returns, if set.
    pub dcos_host: Option<IpAddr>,
    /// Containers' metrics for Prometheus.
    pub prometheus: PrometheusConfig,
    /// The history of containers in a file.
    pub archive: ArchiveConfig,
    /// Where windows are sent to.
    pub publish: PublishConfig,
    pub log: LogConfig,
    /// Threads and shutdown.
    pub process: ProcessConfig,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// The values that all of this was read from.
    values: SettingValues,
    /// The same for publishers, sorted by name.
    publishers: Vec<PublisherValues>,
}

/// The HTTP listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpConfig {
    /// Its address.
    pub listen: SocketAddr,
    /// Whether TLS or tokens may be missing on an address other than loopback.
    pub insecure: bool,
    /// Its certificate; without one, it serves plain HTTP.
    pub tls: Option<TlsFiles>,
    /// The file of tokens; without one, requests need no token.
    pub tokens: Option<PathBuf>,
    /// Patterns for the host names of requests.
    pub hosts: Vec<String>,
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Maximum number of connections from one address.
    pub max_connections_per_client: usize,
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a client may read nothing of a response.
    pub write_timeout: Duration,
    /// Maximum total size of responses that are rendered but not sent yet, in bytes.
    pub page_memory: usize,
    /// Maximum size of a request head, in bytes.
    pub max_head: usize,
    /// Maximum number of header fields of a request.
    pub max_headers: usize,
}

/// The files of a certificate.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TlsFiles {
    /// The chain of certificates.
    pub certificate: PathBuf,
    /// The private key of the first.
    pub key: PathBuf,
}

impl HttpConfig {
    /// The settings that are missing for an address other than loopback; `None` if none is.
    #[must_use]
    pub fn missing_protection(&self) -> Option<&'static str> {
        if self.listen.ip().is_loopback() || self.insecure {
            return None;
        }
        match (&self.tls, &self.tokens) {
            (Some(_), Some(_)) => None,
            (None, Some(_)) => Some("http.tls_certificate and http.tls_key"),
            (Some(_), None) => Some("http.tokens"),
            (None, None) => Some("http.tls_certificate, http.tls_key and http.tokens"),
        }
    }

    /// The protection that `old` has and this one lacks, with a verb; `None` if none is removed.
    #[must_use]
    pub fn dropped_protection(&self, old: &Self) -> Option<&'static str> {
        match (old.tls.is_some() && self.tls.is_none(), old.tokens.is_some() && self.tokens.is_none()) {
            (true, true) => Some("http.tls_certificate, http.tls_key and http.tokens are"),
            (true, false) => Some("http.tls_certificate and http.tls_key are"),
            (false, true) => Some("http.tokens is"),
            (false, false) => None,
        }
    }
}

/// The admin socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminConfig {
    pub socket: PathBuf,
    /// Its permissions.
    pub mode: u32,
}

/// Closed and open windows on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowLogConfig {
    /// Whether they are written.
    pub enabled: bool,
    /// Maximum total size of the files of closed windows, in bytes.
    pub size: usize,
    /// Interval at which open windows are written; zero disables it.
    pub checkpoint: Duration,
    /// Maximum bytes of open windows written per second.
    pub checkpoint_rate: usize,
}

/// The history of containers in a file.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ArchiveConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Bytes that it may have.
    pub size: u64,
}

/// Containers' sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenersConfig {
    /// The port in the agent's own network namespace.
    pub port: u16,
    /// Receive buffer of one socket, in bytes.
    pub receive_buffer: usize,
    /// Maximum total size of all receive buffers, in bytes.
    pub receive_buffers: usize,
    /// Size up to which the receive buffer of a busy socket grows, in bytes.
    pub receive_buffer_max: usize,
    /// How long an address rests before another container gets it.
    pub rest: Duration,
    /// Whether the kernel refuses what others send.
    pub guard: Guarding,
}

/// Whether the kernel rejects datagrams from other processes to a container on the host's network.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Guarding {
    /// If it can.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always; the agent does not start without it.
    Required,
}

/// What the node may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeLimits {
    /// Maximum number of live containers.
    pub containers: usize,
    /// Maximum memory of all aggregators and windows, in bytes.
    pub memory: usize,
    /// Maximum number of remembered totals of ended series for each kind of label set, and of names without a series.
    pub remembered: usize,
}

/// The life of containers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainersConfig {
    /// How long a reservation waits for its process.
    pub reservation_ttl: Duration,
    /// How long a finished container stays readable.
    pub tombstone: Duration,
    /// Whether pods of containers that were started without an address get a socket at the default one.
    pub adopt_mute: bool,
}

/// Containers' Unix sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnixConfig {
    /// Which containers get one.
    pub mode: UnixMode,
    /// Its path inside containers.
    pub path: PathBuf,
    /// Maximum number of datagrams that may wait in one.
    pub queue: usize,
}

/// Which containers get a Unix socket.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum UnixMode {
    /// None.
    Off,
    /// Those that ask for it.
    #[default]
    OptIn,
    /// All except those that opt out.
    All,
}

/// The plugin of the container runtime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NriConfig {
    /// Whether it is enabled.
    pub enabled: bool,
    /// The runtime's socket.
    pub socket: PathBuf,
    /// Its place among the runtime's plugins.
    pub index: u8,
}

/// Which pods and containers the plugin serves; lists contain patterns, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KubernetesConfig {
    /// What holds for a pod that says nothing.
    pub mode: PodMode,
    /// Only pods of these namespaces.
    pub namespaces: Vec<String>,
    /// No pods of these namespaces.
    pub exclude_namespaces: Vec<String>,
    /// Only pods with all of these labels.
    pub pod_labels: Vec<String>,
    /// No pods with any of these labels.
    pub exclude_pod_labels: Vec<String>,
    /// Only containers with these names.
    pub containers: Vec<String>,
    /// No containers with these names.
    pub exclude_containers: Vec<String>,
    /// Runtime handlers whose containers cannot be served.
    pub sandboxed_handlers: Vec<String>,
}

/// What holds for a pod that says nothing.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum PodMode {
    /// It gets sockets.
    #[default]
    All,
    /// It gets none.
    OptIn,
    /// No container gets any; those that would have are counted.
    Observe,
}

/// Defaults of containers' metrics for Prometheus, which a query can override.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrometheusConfig {
    /// The naming scheme of metrics.
    pub naming: Naming,
    /// How precisely labels identify the source of a series.
    pub identity: Level,
    /// Whether the creation times of counters are served.
    pub created: bool,
    /// The form of timers, histograms and distributions.
    pub timers: Timers,
    /// How long series outlast their container.
    pub linger: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// What is logged: a level, or `target=level` pairs.
    pub filter: String,
    /// The format of log lines.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Threads and shutdown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessConfig {
    /// Number of receiving threads.
    pub shards: usize,
    /// How long a graceful shutdown may take.
    pub drain_deadline: Duration,
    /// How long datagrams may gather before they are read.
    pub gather: Duration,
    /// The name of this process in `GET /health`; empty if it has none.
    pub instance: String,
    /// What the process does once another has taken over.
    pub after_hand_over: AfterHandOver,
}

/// What a process does once another has taken over.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum AfterHandOver {
    /// It ends with code 0.
    #[default]
    End,
    /// It waits for TERM, so that its supervisor does not restart it.
    Wait,
}

impl AgentConfig {
    /// Reads layered settings.
    ///
    /// # Errors
    /// With every error in them.
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigErrors> {
        read::read_config(layers)
    }

    /// Reads the text of a configuration file alone, over the defaults.
    ///
    /// # Errors
    /// With every error in it.
    pub fn from_toml(text: &str, environment: &dyn Environment) -> Result<Self, ConfigErrors> {
        let mut layers = Layers::with_defaults(environment);
        let errors = layers.add_toml(text, "configuration");
        let resolved = read::read_config(&layers);
        match resolved {
            Ok(config) if errors.is_empty() => Ok(config),
            Ok(_) => Err(ConfigErrors(errors)),
            Err(ConfigErrors(more)) => Err(ConfigErrors(errors.into_iter().chain(more).collect())),
        }
    }

    /// The meaning of signed gauge values for containers that do not set it. Clients that use the datadog preset send
    /// levels with their sign.
    #[must_use]
    pub fn usual_gauge_sign(&self) -> GaugeSign {
        let datadog = self.presets.iter().any(|preset| preset == "datadog");
        if datadog { GaugeSign::Absolute } else { self.gauge_sign }
    }

    /// The keys of the settings that differ from `running` and take effect at restart only.
    #[must_use]
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        let changed = self.values.changed_from(&running.values);
        changed.filter(|setting| setting.effect == Effect::Restart).map(|setting| setting.key).collect()
    }

    /// The configuration that a running agent has after a reload: this one, with the values of `running` for all settings
    /// that take effect at restart only.
    #[must_use]
    pub fn applied_over(self, running: &Self) -> Self {
        let window = running.aggregation.window;
        let publishers = publish::keep_fitting(self.publishers, &running.publishers, window);
        let values = self.values.applied_over(&running.values);
        Self { file: self.file, ..read::build_config(values, self.node_labels, publishers) }
    }

    /// What a reload has to do with the publishers of `running`, so that they become those of this configuration.
    #[must_use]
    pub fn publisher_changes(&self, running: &Self) -> PublisherChanges {
        fn configured(config: &AgentConfig) -> Vec<(&PublisherValues, &PublisherConfig)> {
            config.publishers.iter().zip(&config.publish.publishers).collect()
        }
        PublisherChanges::find_changes(&configured(running), &configured(self))
    }
}

#[cfg(test)]
mod tests;
