//! Publishers: `[publish]`, and one table `[publish.NAME]` for each destination that windows are sent to.
//!
//! The keys of a publisher are rows of a table of their own ([`PUBLISHER_SETTINGS`]), because their names contain the
//! publisher's and each type of destination has its own. Reading, `config show`, the reference page, the example file and the
//! behaviour at reload are derived from it, as they are for all other settings.

mod changes;
mod checks;
mod files;
mod layers;
mod read;
mod setting;
mod target;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use changes::{PublisherChange, PublisherChanges};
pub use setting::{PUBLISHER_SETTINGS, PublisherEffect, PublisherSetting, SinkType};
pub use target::{CredentialFiles, HttpTarget, ProxyChoice};

pub(super) use checks::{ReadWindows, check_publishers};
pub(super) use files::check_files;
pub use layers::PublisherEntry;
pub(super) use layers::{PublisherLayers, split_publisher_key};
pub(super) use read::{PublisherValues, build_publishers, keep_fitting, read_publishers};

use crate::render::prometheus::{Level, Naming, Timers};
pub use crate::render::publish::InfluxFields;

/// The keys of filters, in queries of the HTTP API and in `include` and `exclude`.
pub const FILTERS: [&str; 5] = ["task", "container", "name", "tag", "label"];
/// Maximum number of filters in a query. Each is compared with every series of the node.
pub const MOST_FILTERS: usize = 32;

/// What all publishers share, and the publishers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishConfig {
    /// Bytes of the files that are kept for publishers, beyond what the window log keeps.
    pub spool: u64,
    /// How long after an interval's end its windows are waited for.
    pub settle: Duration,
    /// How long a worker may hold a round before it is given to another.
    pub lease: Duration,
    /// Interval at which expired leases are looked for.
    pub reap_every: Duration,
    /// Maximum number of leases that one look returns.
    pub reap_limit: usize,
    /// The publishers, sorted by name.
    pub publishers: Vec<PublisherConfig>,
}

/// One publisher. Its name is that of its cursor, metrics and dead letters, so a publisher that is configured differently
/// under the same name goes on where it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublisherConfig {
    /// One to 32 of `[a-z0-9-]`.
    pub name: String,
    /// Where it sends to.
    pub sink: SinkConfig,
    /// The length of a round, a multiple of `windows.length`.
    pub interval: Duration,
    /// For how long rounds are gathered so that they can share requests, a multiple of the interval; zero if each is sent by
    /// itself.
    pub batch: Duration,
    /// Only series that match one of these queries; all series if there are none. Each is a query of filters ([`FILTERS`])
    /// such as `name=http.*&label=namespace=shop`, as it is written in a URL.
    pub include: Vec<String>,
    /// No series that match one of these queries.
    pub exclude: Vec<String>,
    /// How precisely series identify their source.
    pub identity: Level,
    /// The number of requests that may be under way at a time, between which series are divided.
    pub workers: usize,
    /// The age at which a round is no longer sent; `None` if it never is too old.
    pub max_age: Option<Duration>,
    /// Where a publisher without a cursor begins.
    pub start: StartAt,
}

/// Where a publisher begins that has sent nothing yet.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum StartAt {
    /// With the windows that close from now on.
    #[default]
    Now,
    /// With the oldest window that is kept.
    Kept,
}

/// A destination, and how records are written for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SinkConfig {
    /// The log of the agent.
    Debug(DebugSink),
    /// A file of records.
    File(FileSink),
    /// `InfluxDB`, and what accepts its line protocol over HTTP.
    Influxdb(InfluxSink),
    /// Graphite's plain text protocol over TCP.
    Graphite(GraphiteSink),
    /// Prometheus remote write.
    RemoteWrite(RemoteWriteSink),
    /// The OpenTelemetry protocol over HTTP.
    Otlp(OtlpSink),
    /// Datadog's API for metrics.
    Datadog(DatadogSink),
}

impl SinkConfig {
    /// Its type.
    #[must_use]
    pub const fn sink_type(&self) -> SinkType {
        match self {
            Self::Debug(_) => SinkType::Debug,
            Self::File(_) => SinkType::File,
            Self::Influxdb(_) => SinkType::Influxdb,
            Self::Graphite(_) => SinkType::Graphite,
            Self::RemoteWrite(_) => SinkType::RemoteWrite,
            Self::Otlp(_) => SinkType::Otlp,
            Self::Datadog(_) => SinkType::Datadog,
        }
    }

    /// The time limit of a request; zero for types without one.
    #[must_use]
    pub fn timeout_limit(&self) -> Duration {
        match self {
            Self::Graphite(sink) => sink.timeout,
            other => other.http_target().map_or(Duration::ZERO, |target| target.timeout),
        }
    }

    /// How its server is reached, for types that use HTTP.
    #[must_use]
    pub const fn http_target(&self) -> Option<&HttpTarget> {
        match self {
            Self::Debug(_) | Self::File(_) | Self::Graphite(_) => None,
            Self::Influxdb(sink) => Some(&sink.target),
            Self::RemoteWrite(sink) => Some(&sink.target),
            Self::Otlp(sink) => Some(&sink.target),
            Self::Datadog(sink) => Some(&sink.target),
        }
    }
}

/// The log of the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DebugSink {
    /// The name that its lines carry.
    pub logger: String,
}

/// A file of records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSink {
    pub path: PathBuf,
}

impl FileSink {
    /// The directory of the file, if it does not exist. It may be mounted later, so this is no mistake of the configuration.
    #[must_use]
    pub fn missing_directory(&self) -> Option<&Path> {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir())
    }
}

/// `InfluxDB`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InfluxSink {
    /// The server; its URL has no path of the API.
    pub target: HttpTarget,
    /// The API, and where in the server records belong.
    pub api: InfluxApi,
    /// Which fields are written.
    pub fields: InfluxFields,
    /// Whether requests are compressed.
    pub compress: bool,
}

/// An API of `InfluxDB`, and the place that its write route names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InfluxApi {
    /// `/write`.
    V1 { database: String },
    /// `/api/v2/write`; `org` is empty for servers that need none.
    V2 { org: String, bucket: String },
    /// `/api/v3/write_lp`.
    V3 { database: String },
}

/// Graphite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphiteSink {
    /// A name or an address.
    pub host: String,
    pub port: u16,
    /// Time limit for connecting, and for the server to take what is sent.
    pub timeout: Duration,
    /// The path of a series, with the names of what belongs there in braces.
    pub template: String,
    /// Whether labels and tags are written as tags of Graphite 1.1.
    pub tags: bool,
}

/// Prometheus remote write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteWriteSink {
    /// The server; its URL is that of the receiver.
    pub target: HttpTarget,
    /// Where queries are answered, if that is known: the URL below which there is `/api/v1/query`.
    pub query_url: Option<String>,
    /// The version of the protocol.
    pub version: RemoteWriteVersion,
    /// How metrics are named.
    pub naming: Naming,
    /// How timers, histograms and distributions are written: [`Timers::Summary`] or [`Timers::Native`].
    pub timers: Timers,
    /// Labels of every series. An empty value removes a label that series have otherwise (`node`, `job`, `instance`).
    pub labels: Vec<(String, String)>,
}

/// A version of remote write.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum RemoteWriteVersion {
    /// 2.0 if the server understands it, otherwise 1.0.
    #[default]
    Auto,
    V1,
    V2,
}

/// The OpenTelemetry protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtlpSink {
    /// The server; its URL is that of the receiver of metrics.
    pub target: HttpTarget,
    /// What counters and histograms count.
    pub temporality: Temporality,
    /// Whether requests are compressed.
    pub compress: bool,
}

/// What the values of counters and histograms count.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Temporality {
    /// Since the series was created.
    #[default]
    Cumulative,
    /// In the interval.
    Delta,
}

/// Datadog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatadogSink {
    /// The server; its URL has no path of the API. The token is the API key.
    pub target: HttpTarget,
    /// Whether requests are compressed.
    pub compress: bool,
}

#[cfg(test)]
mod tests;
