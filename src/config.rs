//! The configuration: one table of settings, layered from defaults, a file, the environment and flags, and read into checked values.
//!
//! All mistakes are reported together, each with its place. Everything that is known of a setting is its row in
//! `config/setting.rs`: the parser, `config show`, the reference page, the shipped example, and what a reload keeps and reports
//! are made from it.

mod checks;
mod kind;
mod labels;
mod layers;
mod read;
mod reference;
mod setting;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use kind::SettingKind;
pub use layers::{ConfigError, ConfigErrors, Environment, Layers, ProcessEnvironment, SettingOrigin};
pub use reference::{render_example, render_reference};
pub use setting::{Effect, SETTINGS, Setting};

use crate::aggregate::{AggregatorSettings, GaugeSign, TimerUnit};
use crate::render::prometheus::{Level, Naming, Timers};
use values::SettingValues;

/// Where a configuration file is looked for when none is named.
pub const DEFAULT_FILE: &str = "/etc/tallyport/agent.toml";

/// Everything the agent is told, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct AgentConfig {
    /// The node's name in records.
    pub node: String,
    /// Labels that every record of the node has.
    pub node_labels: BTreeMap<String, String>,
    /// Where the agent keeps what must survive it.
    pub state_dir: PathBuf,
    /// The HTTP listener.
    pub http: HttpConfig,
    /// The admin socket.
    pub admin: AdminConfig,
    /// Windows, parsing and the limits of one container.
    pub aggregation: AggregatorSettings,
    /// Closed and open windows on disk.
    pub window_log: WindowLogConfig,
    /// What a signed gauge value means where the container does not say.
    pub gauge_sign: GaugeSign,
    /// The unit of the timers of a container that does not say.
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
    /// The address that the DC/OS dialect gives out, where set.
    pub dcos_host: Option<IpAddr>,
    /// Containers' metrics for Prometheus.
    pub prometheus: PrometheusConfig,
    pub log: LogConfig,
    /// Threads and shutdown.
    pub process: ProcessConfig,
    /// What all of this was read from.
    values: SettingValues,
}

/// The HTTP listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it may lack TLS or tokens off loopback.
    pub insecure: bool,
    /// Its certificate; it speaks plain HTTP where there is none.
    pub tls: Option<TlsFiles>,
    /// The file of tokens; it asks for none where there is no file.
    pub tokens: Option<PathBuf>,
    /// Names by which it may be asked, as patterns.
    pub hosts: Vec<String>,
    /// Most connections at one time.
    pub max_connections: usize,
    /// Most connections from one address.
    pub max_connections_per_client: usize,
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// How many bytes answers that are built or being sent may hold together.
    pub page_memory: usize,
    /// Longest head of a request, in bytes.
    pub max_head: usize,
    /// Most header fields of a request.
    pub max_headers: usize,
}

/// The files of a certificate.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TlsFiles {
    /// The chain of certificates.
    pub certificate: PathBuf,
    /// The key of the first.
    pub key: PathBuf,
}

impl HttpConfig {
    /// What is missing for an address that others reach, where it is one; `None` where nothing is.
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

    /// What another has that keeps readers out, and this one has not, with its verb; `None` where nothing is dropped.
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
    /// All files of closed windows together, in bytes.
    pub size: usize,
    /// How often open windows are written; never where it is zero.
    pub checkpoint: Duration,
    /// Bytes of open windows to be written a second.
    pub checkpoint_rate: usize,
}

/// Containers' sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenersConfig {
    /// The port in the agent's own network namespace.
    pub port: u16,
    /// Receive buffer of one socket, in bytes.
    pub receive_buffer: usize,
    /// All receive buffers together, in bytes.
    pub receive_buffers: usize,
    /// What the receive buffer of a busy socket grows to, in bytes.
    pub receive_buffer_max: usize,
    /// How long an address rests before another container gets it.
    pub rest: Duration,
    /// Whether the kernel refuses what others send.
    pub guard: Guarding,
}

/// Whether the kernel refuses what others send to a container on the host's network.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Guarding {
    /// Where it can.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always; an agent that cannot have that does not start.
    Required,
}

/// What the node may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeLimits {
    /// Live containers.
    pub containers: usize,
    /// Memory of all aggregators and windows, in bytes.
    pub memory: usize,
    /// Totals of series that are gone, of each level, and names without a series.
    pub remembered: usize,
}

/// The life of containers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContainersConfig {
    /// How long a reservation waits for its process.
    pub reservation_ttl: Duration,
    /// How long a finished container stays readable.
    pub tombstone: Duration,
    /// Whether pods of containers that were never told an address get a socket at the usual one.
    pub adopt_mute: bool,
}

/// Containers' Unix sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnixConfig {
    /// Who gets one.
    pub mode: UnixMode,
    /// Where containers find it.
    pub path: PathBuf,
    /// Datagrams that may wait in one.
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
    /// All but those that say no.
    All,
}

/// The plugin of the container runtime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NriConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// The runtime's socket.
    pub socket: PathBuf,
    /// Its place among the runtime's plugins.
    pub index: u8,
}

/// Which pods and containers the plugin serves; lists are patterns, as they were written.
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

/// Containers' metrics for Prometheus, where a query does not say otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrometheusConfig {
    /// What metrics are called.
    pub naming: Naming,
    /// How closely series say where they come from.
    pub identity: Level,
    /// Whether it is said when counters were created.
    pub created: bool,
    /// What timers, histograms and distributions become.
    pub timers: Timers,
    /// How long series outlast their container.
    pub linger: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// What is logged: a level, or `target=level` pairs.
    pub filter: String,
    /// How it looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Threads and shutdown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessConfig {
    /// Threads that receive.
    pub shards: usize,
    /// How long a graceful shutdown may take.
    pub drain_deadline: Duration,
    /// How long datagrams may gather before they are read.
    pub gather: Duration,
    /// What `GET /health` calls this process; empty where it has no name.
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
    /// It waits for TERM, so that what started it does not start it again.
    Wait,
}

impl AgentConfig {
    /// Reads layered settings.
    ///
    /// # Errors
    /// Every mistake in them, all at once.
    pub fn from_layers(layers: &Layers) -> Result<Self, ConfigErrors> {
        read::read_config(layers)
    }

    /// Reads the text of a configuration file alone, over the defaults.
    ///
    /// # Errors
    /// Every mistake in it.
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

    /// What a signed gauge value means to a container that does not say. Clients that the datadog preset is for write
    /// a level with its sign.
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

    /// The configuration that a running agent has after a reload: this one, with the values of `running` for all settings that take
    /// effect at restart only.
    #[must_use]
    pub fn applied_over(self, running: &Self) -> Self {
        read::build_config(self.values.applied_over(&running.values), self.node_labels)
    }
}

#[cfg(test)]
mod tests;
