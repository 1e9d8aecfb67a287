//! Every setting of a publisher, one row each: its key, the types it belongs to, its kind, default and help text, and what a
//! change does.

use super::super::kind::SettingKind;

/// The type of a destination.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SinkType {
    Debug,
    File,
    Influxdb,
    Graphite,
    RemoteWrite,
    Otlp,
    Datadog,
}

impl SinkType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Debug,
        Self::File,
        Self::Influxdb,
        Self::Graphite,
        Self::RemoteWrite,
        Self::Otlp,
        Self::Datadog,
    ];

    /// How it is written in `type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::File => "file",
            Self::Influxdb => "influxdb",
            Self::Graphite => "graphite",
            Self::RemoteWrite => "remote_write",
            Self::Otlp => "otlp",
            Self::Datadog => "datadog",
        }
    }
}

/// A setting of publishers of some types. A key has several rows if its values differ by type.
#[derive(Copy, Clone, Debug)]
pub struct PublisherSetting {
    /// Its key in the publisher's table. The environment variable is `TALLYPORT_PUBLISH_`, the publisher's name and the
    /// key in upper case, with `_` for `-`.
    pub key: &'static str,
    /// The types of publishers that have it.
    pub types: &'static [SinkType],
    /// The form and range of its values.
    pub kind: SettingKind,
    /// Its value if no source sets it; empty if it is optional, or has to be set.
    pub default: &'static str,
    /// What a changed value does.
    pub effect: PublisherEffect,
    /// What it does, in a sentence or two.
    pub help: &'static str,
}

/// What a changed value does to a publisher that is running. Its cursor stays whatever changes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PublisherEffect {
    /// From the reload on, requests are made in another way.
    Requests,
    /// From the reload on, other series are sent, and their totals start again.
    Series,
    /// Nothing, if it has a cursor.
    FirstStart,
}

impl PublisherEffect {
    /// The phrase that completes "takes effect".
    #[must_use]
    pub const fn effect_time(self) -> &'static str {
        match self {
            Self::Requests => "at reload",
            Self::Series => "at reload, when the publisher's totals start again",
            Self::FirstStart => "when a publisher of this name starts for the first time",
        }
    }
}

const ALL: &[SinkType] = &SinkType::ALL;
const HTTP: &[SinkType] = &[SinkType::Influxdb, SinkType::RemoteWrite, SinkType::Otlp, SinkType::Datadog];
/// Those whose requests can be compressed; remote write always is.
const GZIP: &[SinkType] = &[SinkType::Influxdb, SinkType::Otlp, SinkType::Datadog];
/// Those whose requests can contain several rounds.
const BATCHED: &[SinkType] = &[
    SinkType::Debug,
    SinkType::File,
    SinkType::Influxdb,
    SinkType::Graphite,
    SinkType::Otlp,
    SinkType::Datadog,
];
/// Those that write a user and a password into a request.
const PASSWORD: &[SinkType] = &[SinkType::Influxdb, SinkType::RemoteWrite, SinkType::Otlp];
/// Those whose servers refuse what is an hour old.
const AGED: &[SinkType] = &[SinkType::RemoteWrite, SinkType::Datadog];
const AGELESS: &[SinkType] =
    &[SinkType::Debug, SinkType::File, SinkType::Influxdb, SinkType::Graphite, SinkType::Otlp];

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const MAX_AGE: &str =
    "Age at which rounds are dropped instead of sent, and counted, because the server would refuse them.";

/// Every setting of publishers, in the order of the reference page.
pub const PUBLISHER_SETTINGS: &[PublisherSetting] = &[
    PublisherSetting {
        key: "type",
        types: ALL,
        kind: SettingKind::OneOf(&[
            "debug",
            "file",
            "influxdb",
            "graphite",
            "remote_write",
            "otlp",
            "datadog",
        ]),
        default: "",
        effect: PublisherEffect::Series,
        help: "Protocol of the destination: log lines of the agent (debug), a file of records as NDJSON (file), InfluxDB's line \
               protocol over HTTP (influxdb), Graphite's plain text over TCP (graphite), Prometheus remote write \
               (remote_write), OpenTelemetry over HTTP (otlp), or Datadog's API (datadog). It must be set.",
    },
    PublisherSetting {
        key: "url",
        types: &[SinkType::RemoteWrite, SinkType::Otlp],
        kind: SettingKind::OptionalUrl,
        default: "",
        effect: PublisherEffect::Requests,
        help: "URL that requests are sent to, such as https://mimir.example/api/v1/push. It must be set.",
    },
    PublisherSetting {
        key: "url",
        types: &[SinkType::Influxdb],
        kind: SettingKind::OptionalUrl,
        default: "",
        effect: PublisherEffect::Requests,
        help: "URL of the server, without the path of the write route. If not set, host and port name the server.",
    },
    PublisherSetting {
        key: "url",
        types: &[SinkType::Datadog],
        kind: SettingKind::OptionalUrl,
        default: "",
        effect: PublisherEffect::Requests,
        help: "URL of the server, without the path of the API, such as https://api.datadoghq.com. It must be set.",
    },
    PublisherSetting {
        key: "query_url",
        types: &[SinkType::RemoteWrite],
        kind: SettingKind::OptionalUrl,
        default: "",
        effect: PublisherEffect::Requests,
        help: "URL of the server's query API, which `publish verify` asks, without /api/v1/query: as in a Grafana data source, such as \
               https://mimir.example/prometheus. It gets the credentials and header fields of url. If not set, it follows from \
               url.",
    },
    PublisherSetting {
        key: "host",
        types: &[SinkType::Influxdb, SinkType::Graphite],
        kind: SettingKind::Host,
        default: "localhost",
        effect: PublisherEffect::Requests,
        help: "Name or address of the server.",
    },
    PublisherSetting {
        key: "port",
        types: &[SinkType::Influxdb],
        kind: SettingKind::Count(1, 65_535),
        default: "8086",
        effect: PublisherEffect::Requests,
        help: "Port of the server.",
    },
    PublisherSetting {
        key: "port",
        types: &[SinkType::Graphite],
        kind: SettingKind::Count(1, 65_535),
        default: "2003",
        effect: PublisherEffect::Requests,
        help: "Port of the server.",
    },
    PublisherSetting {
        key: "api",
        types: &[SinkType::Influxdb],
        kind: SettingKind::OneOf(&["v1", "v2", "v3"]),
        default: "v1",
        effect: PublisherEffect::Requests,
        help: "Write route of the server: /write with a database (v1), /api/v2/write with an organisation and a bucket (v2), or \
               /api/v3/write_lp with a database (v3).",
    },
    PublisherSetting {
        key: "database",
        types: &[SinkType::Influxdb],
        kind: SettingKind::Text(1, 256),
        default: "kadabra",
        effect: PublisherEffect::Requests,
        help: "Database that points are written to, with the routes v1 and v3. It must exist.",
    },
    PublisherSetting {
        key: "org",
        types: &[SinkType::Influxdb],
        kind: SettingKind::Text(0, 256),
        default: "",
        effect: PublisherEffect::Requests,
        help: "Organisation of the bucket, with the route v2.",
    },
    PublisherSetting {
        key: "bucket",
        types: &[SinkType::Influxdb],
        kind: SettingKind::Text(0, 256),
        default: "",
        effect: PublisherEffect::Requests,
        help: "Bucket that points are written to, with the route v2, which requires it. It must exist.",
    },
    PublisherSetting {
        key: "path",
        types: &[SinkType::File],
        kind: SettingKind::OptionalPath,
        default: "",
        effect: PublisherEffect::Requests,
        help: "File that records are appended to. It must be set. A reload opens it again, for rotation.",
    },
    PublisherSetting {
        key: "logger",
        types: &[SinkType::Debug],
        kind: SettingKind::Text(1, 256),
        default: "publish",
        effect: PublisherEffect::Requests,
        help: "Name in the log lines, whose target is `publish` and whose level is info.",
    },
    PublisherSetting {
        key: "token_file",
        types: &[SinkType::Influxdb, SinkType::RemoteWrite, SinkType::Otlp],
        kind: SettingKind::SecretFile,
        default: "",
        effect: PublisherEffect::Requests,
        help: "File with a token, which is sent in the header field Authorization. It must not be readable by others, and is \
               read again when it changes.",
    },
    PublisherSetting {
        key: "token_file",
        types: &[SinkType::Datadog],
        kind: SettingKind::SecretFile,
        default: "",
        effect: PublisherEffect::Requests,
        help: "File with an API key, which is sent in the header field DD-API-KEY. It must be set and must not be readable by \
               others, and is read again when it changes.",
    },
    PublisherSetting {
        key: "user",
        types: PASSWORD,
        kind: SettingKind::Text(0, 256),
        default: "",
        effect: PublisherEffect::Requests,
        help: "User name, which is sent together with the password in password_file. Requires that file, and no token_file.",
    },
    PublisherSetting {
        key: "password_file",
        types: PASSWORD,
        kind: SettingKind::SecretFile,
        default: "",
        effect: PublisherEffect::Requests,
        help: "File with the password of the user. It must not be readable by others, and is read again when it changes.",
    },
    PublisherSetting {
        key: "headers",
        types: HTTP,
        kind: SettingKind::Words(&[]),
        default: "",
        effect: PublisherEffect::Requests,
        help: "Header fields of every request, such as X-Scope-OrgID=prod for a tenant. Secrets belong in headers_file.",
    },
    PublisherSetting {
        key: "headers_file",
        types: HTTP,
        kind: SettingKind::SecretFile,
        default: "",
        effect: PublisherEffect::Requests,
        help: "File with further header fields, one `Name: value` on each line. It must not be readable by others, and is read \
               again when it changes.",
    },
    PublisherSetting {
        key: "ca",
        types: HTTP,
        kind: SettingKind::InputFile,
        default: "",
        effect: PublisherEffect::Requests,
        help: "PEM file with the only certificate authorities to trust. Default: those that the system trusts.",
    },
    PublisherSetting {
        key: "client_certificate",
        types: HTTP,
        kind: SettingKind::InputFile,
        default: "",
        effect: PublisherEffect::Requests,
        help: "PEM file with the certificate that is shown to the server, followed by its intermediate certificates. Requires \
               client_key.",
    },
    PublisherSetting {
        key: "client_key",
        types: HTTP,
        kind: SettingKind::SecretFile,
        default: "",
        effect: PublisherEffect::Requests,
        help: "PEM file with the private key for client_certificate. It must not be readable by others.",
    },
    PublisherSetting {
        key: "proxy",
        types: HTTP,
        kind: SettingKind::Proxy,
        default: "env",
        effect: PublisherEffect::Requests,
        help: "Proxy for requests: the one that the variables HTTP_PROXY or HTTPS_PROXY name, with the exceptions in NO_PROXY \
               (env), the one at a URL, or none (empty). HTTPS goes through a tunnel (CONNECT).",
    },
    PublisherSetting {
        key: "timeout",
        types: &[
            SinkType::Influxdb,
            SinkType::Graphite,
            SinkType::RemoteWrite,
            SinkType::Otlp,
            SinkType::Datadog,
        ],
        kind: SettingKind::Time(100, 10 * MINUTE),
        default: "5s",
        effect: PublisherEffect::Requests,
        help: "Time limit of a request, from connecting to the end of the response. After it, the request is sent again.",
    },
    PublisherSetting {
        key: "compress",
        types: GZIP,
        kind: SettingKind::Switch,
        default: "true",
        effect: PublisherEffect::Requests,
        help: "Whether requests are compressed with gzip.",
    },
    PublisherSetting {
        key: "workers",
        types: HTTP,
        kind: SettingKind::Count(1, 16),
        default: "1",
        effect: PublisherEffect::Requests,
        help: "Maximum number of requests that are under way at a time. The series of a round are divided between them by their \
               source, so that each series arrives in order. The next round is sent when all are answered.",
    },
    PublisherSetting {
        key: "interval",
        types: ALL,
        kind: SettingKind::OptionalTime(SECOND, DAY),
        default: "",
        effect: PublisherEffect::Series,
        help: "Interval that each record covers, a multiple of windows.length. In a longer interval windows are merged, so \
               nothing is left out. Default: windows.length.",
    },
    PublisherSetting {
        key: "batch",
        types: BATCHED,
        kind: SettingKind::Time(0, HOUR),
        default: "0s",
        effect: PublisherEffect::Requests,
        help: "How long intervals are gathered so that they can be sent in one request, a multiple of interval and shorter than \
               max_age. What is larger than a request is divided. With 0s, each interval is sent as soon as it has ended. Type otlp \
               requires temporality = \"delta\" for it.",
    },
    PublisherSetting {
        key: "include",
        types: ALL,
        kind: SettingKind::Words(&[]),
        default: "",
        effect: PublisherEffect::Series,
        help: "Send only series that match one of these queries. A query consists of filters of the HTTP API, all of which must \
               match: name=http.*&label=namespace=shop. Empty means all.",
    },
    PublisherSetting {
        key: "exclude",
        types: ALL,
        kind: SettingKind::Words(&[]),
        default: "",
        effect: PublisherEffect::Series,
        help: "Send no series that match one of these queries, written as in include.",
    },
    PublisherSetting {
        key: "identity",
        types: ALL,
        kind: SettingKind::OneOf(&["low", "orchestrator", "high"]),
        default: "orchestrator",
        effect: PublisherEffect::Series,
        help: "Labels that identify the source of series: the workload (low), the pod and container or the task \
               (orchestrator), or the container and generation (high). Series that have the same ones are merged.",
    },
    PublisherSetting {
        key: "naming",
        types: &[SinkType::RemoteWrite],
        kind: SettingKind::OneOf(&["openmetrics", "statsd_exporter", "datadog", "graphite"]),
        default: "openmetrics",
        effect: PublisherEffect::Series,
        help: "Naming scheme, as in prometheus.naming.",
    },
    PublisherSetting {
        key: "timers",
        types: &[SinkType::RemoteWrite],
        kind: SettingKind::OneOf(&["summary", "native"]),
        default: "summary",
        effect: PublisherEffect::Series,
        help: "Form of timers, histograms and distributions: percentiles of the interval (summary), or native histograms, which \
               the receiver must accept (native).",
    },
    PublisherSetting {
        key: "labels",
        types: &[SinkType::RemoteWrite],
        kind: SettingKind::Words(&[]),
        default: "",
        effect: PublisherEffect::Series,
        help: "Labels of every series in addition to those of the source, such as cluster=eu-1. Without them, series have the \
               labels that a scrape adds: node, job (tallyport) and instance (the node). A label without a value (job=) is \
               left out.",
    },
    PublisherSetting {
        key: "version",
        types: &[SinkType::RemoteWrite],
        kind: SettingKind::OneOf(&["auto", "1.0", "2.0"]),
        default: "auto",
        effect: PublisherEffect::Requests,
        help: "Version of the protocol. With auto, 2.0 is used if the receiver understands it, otherwise 1.0.",
    },
    PublisherSetting {
        key: "temporality",
        types: &[SinkType::Otlp],
        kind: SettingKind::OneOf(&["cumulative", "delta"]),
        default: "cumulative",
        effect: PublisherEffect::Series,
        help: "What counters and histograms count: everything since the series was created (cumulative), which Prometheus \
               requires, or the interval alone (delta).",
    },
    PublisherSetting {
        key: "fields",
        types: &[SinkType::Influxdb],
        kind: SettingKind::OneOf(&["all", "kadabra"]),
        default: "all",
        effect: PublisherEffect::Series,
        help: "Fields of a point: everything in a record (all), or the value and the unit only, as Kadabra writes them \
               (kadabra).",
    },
    PublisherSetting {
        key: "template",
        types: &[SinkType::Graphite],
        kind: SettingKind::Text(0, 1024),
        default: "",
        effect: PublisherEffect::Series,
        help: "Path of a series: text with names in braces, which are {identity}, {type}, {name} and labels of the source. Dots in \
               labels become underscores. Empty: tallyport.{identity}.{type}.{name}, or {name} with tags.",
    },
    PublisherSetting {
        key: "tags",
        types: &[SinkType::Graphite],
        kind: SettingKind::Switch,
        default: "false",
        effect: PublisherEffect::Series,
        help: "Whether labels and tags are written as tags (name;key=value), which Graphite 1.1 understands, instead of a path.",
    },
    PublisherSetting {
        key: "max_age",
        types: AGED,
        kind: SettingKind::OptionalTime(MINUTE, 30 * DAY),
        default: "55m",
        effect: PublisherEffect::Requests,
        help: MAX_AGE,
    },
    PublisherSetting {
        key: "max_age",
        types: AGELESS,
        kind: SettingKind::OptionalTime(MINUTE, 30 * DAY),
        default: "",
        effect: PublisherEffect::Requests,
        help: MAX_AGE,
    },
    PublisherSetting {
        key: "start",
        types: ALL,
        kind: SettingKind::OneOf(&["now", "kept"]),
        default: "now",
        effect: PublisherEffect::FirstStart,
        help: "Where a publisher begins that has sent nothing yet: with the windows that close from then on (now), or with the \
               oldest that are kept (kept).",
    },
];

impl PublisherSetting {
    /// The setting with this key of publishers of a type.
    #[must_use]
    pub fn find(key: &str, sink: SinkType) -> Option<&'static Self> {
        PUBLISHER_SETTINGS.iter().find(|setting| setting.key == key && setting.types.contains(&sink))
    }

    /// The settings of publishers of a type.
    pub fn of_type(sink: SinkType) -> impl Iterator<Item = &'static Self> {
        PUBLISHER_SETTINGS.iter().filter(move |setting| setting.types.contains(&sink))
    }

    /// The types that have a setting with this key, in their usual order.
    #[must_use]
    pub fn types_with(key: &str) -> Vec<SinkType> {
        SinkType::ALL.into_iter().filter(|sink| Self::find(key, *sink).is_some()).collect()
    }

    /// Why publishers of a type do not have a key that others have, where that is not obvious.
    #[must_use]
    pub fn absence_reason(key: &str, sink: SinkType) -> Option<&'static str> {
        (key == "batch" && sink == SinkType::RemoteWrite).then_some(
            "a receiver refuses a repeated request with two samples of a series, the first of which is older than what it has then; \
             a longer interval makes fewer requests",
        )
    }

    /// The environment variable that sets a key of a publisher.
    #[must_use]
    pub fn variable_name(name: &str, key: &str) -> String {
        format!("{VARIABLE_PREFIX}{name}_{key}").replace('-', "_").to_uppercase()
    }

    /// The key most similar to an unknown one, if it is similar enough to be the one that was meant.
    #[must_use]
    pub fn nearest_key(key: &str) -> Option<&'static str> {
        let distance = |setting: &&Self| strsim::normalized_damerau_levenshtein(setting.key, key);
        let nearest = PUBLISHER_SETTINGS.iter().max_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        (distance(&nearest) > 0.55).then_some(nearest.key)
    }
}

/// Start of the names of environment variables of publishers.
pub(super) const VARIABLE_PREFIX: &str = "TALLYPORT_PUBLISH_";
