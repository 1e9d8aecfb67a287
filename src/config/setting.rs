//! Every setting, one row each: its key, kind, default and help text, and when a change takes effect.

use super::kind::SettingKind;
use crate::products::Product;

#[derive(Copy, Clone, Debug)]
pub struct Setting {
    /// Its key in the configuration file, with `.` between table and name. The environment variable is the key in upper
    /// case, with `_` for `.` and the prefix `TALLYPORT_`.
    pub key: &'static str,
    /// The form and range of its values.
    pub kind: SettingKind,
    /// Its value if no source sets it; empty if it is optional or depends on the machine.
    pub default: &'static str,
    /// When a changed value takes effect.
    pub effect: Effect,
    /// What it does, in a sentence or two.
    pub help: &'static str,
}

/// When a changed value takes effect.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// At the reload.
    AtOnce,
    /// At the reload, for containers that the agent learns of afterwards. Containers it already knows keep the old value.
    NewContainers,
    /// When the agent is restarted. Until then, a reload keeps the old value and reports the key.
    Restart,
}

impl Effect {
    /// The phrase that completes "takes effect".
    #[must_use]
    pub const fn effect_time(self) -> &'static str {
        match self {
            Self::AtOnce => "at reload",
            Self::NewContainers => "at reload, for new containers",
            Self::Restart => "at restart",
        }
    }

    /// What to do after changing the value; completes "set ... and".
    #[must_use]
    pub const fn remedy_text(self) -> &'static str {
        match self {
            Self::AtOnce => "reload",
            Self::NewContainers => "reload, then restart the container",
            Self::Restart => "restart the agent",
        }
    }
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Every setting, in the order of the reference page.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "node",
        kind: SettingKind::Text(1, 256),
        default: "",
        effect: Effect::Restart,
        help: "The node's name in every record. Default: the host name.",
    },
    Setting {
        key: "node_labels",
        kind: SettingKind::OptionalPath,
        default: "",
        effect: Effect::NewContainers,
        help: "File of labels that every container on the node gets in addition to its own: lines of key=\"value\", the \
               format of Kubernetes' downward API. A reload rereads it.",
    },
    Setting {
        key: "state_dir",
        kind: SettingKind::OptionalPath,
        default: "",
        effect: Effect::Restart,
        help: "Directory for state that must outlive the agent process. Default: the directory `state` next to the admin \
               socket.",
    },
    Setting {
        key: "http.listen",
        kind: SettingKind::Address,
        default: "127.0.0.1:9725",
        effect: Effect::Restart,
        help: "Address and port of the HTTP listener. An address other than loopback requires http.tls_certificate and \
               http.tokens, or http.insecure.",
    },
    Setting {
        key: "http.insecure",
        kind: SettingKind::Switch,
        default: "false",
        effect: Effect::Restart,
        help: "Allow an address other than loopback without TLS or without tokens. Without tokens, any client that can \
               reach the port can read everything.",
    },
    Setting {
        key: "http.tls_certificate",
        kind: SettingKind::OptionalPath,
        default: "",
        effect: Effect::AtOnce,
        help: "PEM file with the certificate of the HTTP listener, followed by its intermediate certificates. If set, only \
               HTTPS is served. A reload rereads it for new connections; if the file cannot be used, nothing changes.",
    },
    Setting {
        key: "http.tls_key",
        kind: SettingKind::OptionalPath,
        default: "",
        effect: Effect::AtOnce,
        help: "PEM file with the private key for http.tls_certificate. It is reread together with the certificate.",
    },
    Setting {
        key: "http.tokens",
        kind: SettingKind::OptionalPath,
        default: "",
        effect: Effect::AtOnce,
        help: "File of tokens, one per line, each at least 16 characters long. If set, every request to the HTTP listener \
               except /, /health and /ready must send one of them as `Authorization: Bearer TOKEN`. A reload rereads it.",
    },
    Setting {
        key: "http.hosts",
        kind: SettingKind::Words(&[]),
        default: "",
        effect: Effect::AtOnce,
        help: "Patterns for the host names that requests to the HTTP listener may use. Other requests get 421, which \
               prevents web sites from reading the listener through a visitor's browser. On loopback, localhost and \
               loopback addresses are always allowed. On any other address, IP addresses are always allowed, and so is \
               every name if no pattern is set.",
    },
    Setting {
        key: "http.max_connections",
        kind: SettingKind::Count(1, 65_536),
        default: "512",
        effect: Effect::Restart,
        help: "Maximum number of connections on each of the two listeners. Above it, the oldest idle connection of the \
               client with the most connections is closed; if none is idle, new connections wait in the backlog. On the \
               admin socket, one process may have half of them, and all users other than root together three quarters; a \
               connection above that waits half a second for a free slot and then gets 503.",
    },
    Setting {
        key: "http.max_connections_per_client",
        kind: SettingKind::Count(1, 65_536),
        default: "128",
        effect: Effect::Restart,
        help: "Maximum number of connections to the HTTP listener from one address (IPv6: from one /64). Further \
               connections are closed at once.",
    },
    Setting {
        key: "http.header_timeout",
        kind: SettingKind::Time(100, 10 * MINUTE),
        default: "5s",
        effect: Effect::Restart,
        help: "Time limit for a client to send the head of a request or to complete the TLS handshake.",
    },
    Setting {
        key: "http.write_timeout",
        kind: SettingKind::Time(100, 10 * MINUTE),
        default: "30s",
        effect: Effect::Restart,
        help: "A client that does not read is disconnected after this time, on both listeners. The timer runs while part \
               of a response waits to be sent and the client reads none of it. It does not run while a stream has nothing \
               to send.",
    },
    Setting {
        key: "http.page_memory",
        kind: SettingKind::Size(MIB, 16 * GIB),
        default: "32MiB",
        effect: Effect::AtOnce,
        help: "Memory for all responses and stream events that are rendered but not sent yet. When it is used up, only \
               clients that have read what they were sent get more, until twice this size is held, and clients that read \
               nothing for two seconds are disconnected.",
    },
    Setting {
        key: "http.max_head",
        kind: SettingKind::Size(8 * KIB, MIB),
        default: "16KiB",
        effect: Effect::Restart,
        help: "Maximum size of a request head on each of the two listeners. A request with a larger head gets 431.",
    },
    Setting {
        key: "http.max_headers",
        kind: SettingKind::Count(1, 1000),
        default: "100",
        effect: Effect::Restart,
        help: "Maximum number of header fields in a request on each of the two listeners. A request with more gets 431.",
    },
    Setting {
        key: "admin.socket",
        kind: SettingKind::Path,
        default: "",
        effect: Effect::Restart,
        help: "Unix socket that launchers and container runtimes use. Default: /run/tallyport/admin.sock as root, \
               otherwise under $XDG_RUNTIME_DIR, otherwise under the temporary directory.",
    },
    Setting {
        key: "admin.mode",
        kind: SettingKind::Mode,
        default: "0660",
        effect: Effect::Restart,
        help: "Permissions of the admin socket. Users who may write to it may reserve and release containers.",
    },
    Setting {
        key: "windows.length",
        kind: SettingKind::Time(SECOND, HOUR),
        default: "10s",
        effect: Effect::Restart,
        help: "Length of a window. Windows start at whole multiples of it since the Unix epoch.",
    },
    Setting {
        key: "windows.keep",
        kind: SettingKind::Count(1, 10_000),
        default: "30",
        effect: Effect::Restart,
        help: "Number of closed windows that are kept for each container. A sample with a timestamp can revise any of \
               these.",
    },
    Setting {
        key: "windows.gauge_carry",
        kind: SettingKind::Time(0, 7 * DAY),
        default: "5m",
        effect: Effect::AtOnce,
        help: "How long a gauge that is no longer sent still appears in new windows, marked as carried.",
    },
    Setting {
        key: "windows.series_idle",
        kind: SettingKind::Time(MINUTE, 7 * DAY),
        default: "1h",
        effect: Effect::AtOnce,
        help: "How long a series must be silent before a new series can take its place. Levels, totals and last checks are \
               kept for the lifetime of the container unless it reaches limits.series; then the least recently updated \
               idle series is evicted. A set is dropped after this time.",
    },
    Setting {
        key: "windows.log",
        kind: SettingKind::Switch,
        default: "true",
        effect: Effect::Restart,
        help: "Write closed windows to the state directory, and read them back at the next start. If the state directory \
               is in memory, as /run is, they survive a restart of the agent but not of the machine.",
    },
    Setting {
        key: "windows.log_size",
        kind: SettingKind::Size(MIB, 1024 * GIB),
        default: "256MiB",
        effect: Effect::Restart,
        help: "Maximum total size of the files of closed windows. Above it, the oldest files are deleted, even if their \
               windows are still kept in memory.",
    },
    Setting {
        key: "windows.checkpoint",
        kind: SettingKind::Time(0, HOUR),
        default: "1s",
        effect: Effect::Restart,
        help: "Interval at which open windows are written to disk, and therefore the most received data that a crash \
               loses. 0s disables checkpoints.",
    },
    Setting {
        key: "windows.checkpoint_rate",
        kind: SettingKind::Size(KIB, GIB),
        default: "1MiB",
        effect: Effect::Restart,
        help: "Maximum bytes of open windows written per second. If there is more to write, checkpoints become less \
               frequent; `tallyport doctor` shows the interval.",
    },
    Setting {
        key: "statsd.tag_styles",
        kind: SettingKind::Words(&["influx", "librato", "signalfx", "all"]),
        default: "",
        effect: Effect::AtOnce,
        help: "Styles of tags inside names that are parsed: name,k=v (influx), name#k=v (librato), name[k=v] (signalfx).",
    },
    Setting {
        key: "statsd.gauge_sign",
        kind: SettingKind::OneOf(&["auto", "delta", "absolute"]),
        default: "auto",
        effect: Effect::NewContainers,
        help: "Meaning of g:+1|g for containers that do not set it themselves: a change of the level (delta) or a new \
               level (absolute). With auto, g:-1|g is a new level in a container whose metrics use DogStatsD features, \
               such as tags after |#, and a change in any other; if any of its gauges has a plus sign, all signed values \
               are changes.",
    },
    Setting {
        key: "statsd.timer_unit",
        kind: SettingKind::OneOf(&["ms", "s"]),
        default: "ms",
        effect: Effect::NewContainers,
        help: "Unit of timers for containers that do not set it themselves: milliseconds, which is what |ms means, or \
               seconds, which the timed decorator of Datadog's Python client sends.",
    },
    Setting {
        key: "listeners.port",
        kind: SettingKind::Count(1, 65_535),
        default: "18125",
        effect: Effect::Restart,
        help: "Port of the containers' sockets in the agent's own network namespace, where each socket has its own \
               loopback address. It should be outside net.ipv4.ip_local_port_range.",
    },
    Setting {
        key: "listeners.receive_buffer",
        kind: SettingKind::Size(4 * KIB, 256 * MIB),
        default: "256KiB",
        effect: Effect::NewContainers,
        help: "Receive buffer of each socket. A small datagram uses 832 bytes of it.",
    },
    Setting {
        key: "listeners.receive_buffers",
        kind: SettingKind::Size(MIB, 64 * GIB),
        default: "512MiB",
        effect: Effect::AtOnce,
        help: "Maximum total size of all receive buffers. Above it, new sockets get the kernel's minimum.",
    },
    Setting {
        key: "listeners.receive_buffer_max",
        kind: SettingKind::Size(4 * KIB, 256 * MIB),
        default: "4MiB",
        effect: Effect::AtOnce,
        help: "Size up to which the receive buffer of a busy socket grows, as long as all buffers together use less than \
               half of listeners.receive_buffers.",
    },
    Setting {
        key: "listeners.rest",
        kind: SettingKind::Time(0, DAY),
        default: "10m",
        effect: Effect::AtOnce,
        help: "How long an address stays unused after its container has ended, so that data still sent to it does not \
               reach another container. A change applies to containers that end afterwards.",
    },
    Setting {
        key: "listeners.guard",
        kind: SettingKind::OneOf(&["auto", "off", "required"]),
        default: "auto",
        effect: Effect::Restart,
        help: "Whether the kernel rejects datagrams that other processes send to a container's socket on the host network: \
               if possible (auto), never (off), or always, so that the agent does not start if this is impossible \
               (required). It requires Linux 5.14, cgroup v2, CAP_BPF and CAP_NET_ADMIN.",
    },
    Setting {
        key: "limits.mode",
        kind: SettingKind::OneOf(&["enforce", "observe"]),
        default: "enforce",
        effect: Effect::AtOnce,
        help: "Whether data above a limit is dropped (enforce) or only counted (observe).",
    },
    Setting {
        key: "limits.datagrams_per_second",
        kind: SettingKind::Rate,
        default: "unlimited",
        effect: Effect::AtOnce,
        help: "Maximum number of datagrams per second from a container. After a pause, as many may arrive in one burst.",
    },
    Setting {
        key: "limits.bytes_per_second",
        kind: SettingKind::Rate,
        default: "unlimited",
        effect: Effect::AtOnce,
        help: "Maximum number of bytes per second from a container. After a pause, as many may arrive in one burst.",
    },
    Setting {
        key: "limits.series",
        kind: SettingKind::Count(1, 10_000_000),
        default: "10000",
        effect: Effect::AtOnce,
        help: "Maximum number of series of a container. Further counters are added to tallyport.overflow.",
    },
    Setting {
        key: "limits.name_bytes",
        kind: SettingKind::Size(1, 64 * KIB),
        default: "1KiB",
        effect: Effect::AtOnce,
        help: "Maximum length of a metric name.",
    },
    Setting {
        key: "limits.tags_bytes",
        kind: SettingKind::Size(1, 64 * KIB),
        default: "8KiB",
        effect: Effect::AtOnce,
        help: "Maximum length of the tags of a line.",
    },
    Setting {
        key: "limits.late_records",
        kind: SettingKind::Count(1, 10_000_000),
        default: "10000",
        effect: Effect::AtOnce,
        help: "Maximum number of records of closed windows that samples with timestamps may revise while one window is \
               open. A series counts once for each window.",
    },
    Setting {
        key: "limits.memory",
        kind: SettingKind::Size(64 * KIB, 64 * GIB),
        default: "64MiB",
        effect: Effect::AtOnce,
        help: "Maximum memory of a container, including its kept windows.",
    },
    Setting {
        key: "limits.node_memory",
        kind: SettingKind::Size(MIB, 1024 * GIB),
        default: "2GiB",
        effect: Effect::AtOnce,
        help: "Maximum memory of all containers together. Above it, no container gets new series.",
    },
    Setting {
        key: "limits.remembered",
        kind: SettingKind::Count(100, 1_000_000),
        default: "100000",
        effect: Effect::AtOnce,
        help: "How many totals of ended series the node remembers for each kind of label set (pods or tasks, and \
               workloads), and how many names without a series. Above it, those of the workloads with the most are \
               forgotten first.",
    },
    Setting {
        key: "limits.containers",
        kind: SettingKind::Count(1, 1_000_000),
        default: "10000",
        effect: Effect::AtOnce,
        help: "Maximum number of live containers, including reservations.",
    },
    Setting {
        key: "containers.reservation_ttl",
        kind: SettingKind::Time(SECOND, DAY),
        default: "60s",
        effect: Effect::NewContainers,
        help: "How long a reservation waits for its process before it expires. A reserve call can set a different time.",
    },
    Setting {
        key: "containers.tombstone",
        kind: SettingKind::Time(0, 7 * DAY),
        default: "10m",
        effect: Effect::AtOnce,
        help: "How long the data of a finished container can still be read. A change applies to containers that end afterwards.",
    },
    Setting {
        key: "containers.adopt_mute",
        kind: SettingKind::Switch,
        default: "false",
        effect: Effect::NewContainers,
        help: "Whether to open a socket at 127.0.0.1:8125, the default address of many clients, in the pod of a container \
               that is found running without an address. Data that arrives there belongs to the pod, not to one container. \
               The socket exists until the pod ends; until then, a StatsD server in the pod cannot use that port.",
    },
    Setting {
        key: "env.presets",
        kind: SettingKind::Words(&["statsd", "datadog", "DD_AGENT_HOST"]),
        default: "",
        effect: Effect::NewContainers,
        help: "Environment variables to set in addition to STATSD_UDP_HOST and STATSD_UDP_PORT: statsd adds STATSD_HOST \
               and STATSD_PORT, datadog adds DD_DOGSTATSD_URL and makes signed gauges absolute, DD_AGENT_HOST adds \
               DD_AGENT_HOST and DD_DOGSTATSD_PORT. Variables set by the application are never replaced, and if it sets \
               one variable of a pair, the other is not added.",
    },
    Setting {
        key: "unix.mode",
        kind: SettingKind::OneOf(&["off", "opt-in", "all"]),
        default: "opt-in",
        effect: Effect::NewContainers,
        help: "Which containers get a Unix socket of their own, mounted by the OCI wrapper or the NRI plugin: none \
               (off), those with the annotation tallyport.unix-socket (opt-in), or all except those whose annotation is \
               false (all).",
    },
    Setting {
        key: "unix.path",
        kind: SettingKind::Path,
        default: "/var/run/datadog/dsd.socket",
        effect: Effect::NewContainers,
        help: "Path of the Unix socket inside containers. Its directory is mounted over the image's directory of that \
               path, which must contain nothing else.",
    },
    Setting {
        key: "unix.queue",
        kind: SettingKind::Count(1, 65_536),
        default: "512",
        effect: Effect::Restart,
        help: "Number of datagrams that may wait in a Unix socket before senders block. If the agent is not allowed to \
               create a network namespace, net.unix.max_dgram_qlen applies instead.",
    },
    Setting {
        key: "nri.enabled",
        kind: SettingKind::Switch,
        default: "false",
        effect: Effect::Restart,
        help: "Whether the agent runs as an NRI plugin of the node's container runtime (containerd 1.7 or later, CRI-O \
               1.26 or later), so that every container of a pod gets its socket.",
    },
    Setting {
        key: "nri.socket",
        kind: SettingKind::Path,
        default: "/var/run/nri/nri.sock",
        effect: Effect::Restart,
        help: "The runtime's NRI socket.",
    },
    Setting {
        key: "nri.index",
        kind: SettingKind::Count(0, 99),
        default: "90",
        effect: Effect::Restart,
        help: "Position among the runtime's plugins; plugins with lower numbers are called first. A plugin with a high \
               number sees the variables that others have set and does not replace them with aliases.",
    },
    Setting {
        key: "kubernetes.mode",
        kind: SettingKind::OneOf(&["all", "opt-in", "observe"]),
        default: "all",
        effect: Effect::NewContainers,
        help: "Which pods get sockets: all except those with the annotation tallyport.enabled=false (all), only those with \
               tallyport.enabled=true (opt-in), or none, while pods that would get one are counted (observe).",
    },
    Setting {
        key: "kubernetes.namespaces",
        kind: SettingKind::Words(&[]),
        default: "",
        effect: Effect::NewContainers,
        help: "Serve only pods of these namespaces (patterns with * and ?). Empty means all.",
    },
    Setting {
        key: "kubernetes.exclude_namespaces",
        kind: SettingKind::Words(&[]),
        default: "kube-system",
        effect: Effect::NewContainers,
        help: "Exclude pods of these namespaces (patterns with * and ?), whatever their annotations.",
    },
    Setting {
        key: "kubernetes.pod_labels",
        kind: SettingKind::Words(&[]),
        default: "",
        effect: Effect::NewContainers,
        help: "Serve only pods that have all of these labels, key or key=value (patterns with * and ? in the value).",
    },
    Setting {
        key: "kubernetes.exclude_pod_labels",
        kind: SettingKind::Words(&[]),
        default: "app.kubernetes.io/name=tallyport",
        effect: Effect::NewContainers,
        help: "Exclude pods that have any of these labels, whatever their annotations. The default excludes the agent itself.",
    },
    Setting {
        key: "kubernetes.containers",
        kind: SettingKind::Words(&[]),
        default: "",
        effect: Effect::NewContainers,
        help: "Serve only containers with these names (patterns with * and ?). Empty means all.",
    },
    Setting {
        key: "kubernetes.exclude_containers",
        kind: SettingKind::Words(&[]),
        default: "",
        effect: Effect::NewContainers,
        help: "Exclude containers with these names (patterns with * and ?).",
    },
    Setting {
        key: "kubernetes.sandboxed_handlers",
        kind: SettingKind::Words(&[]),
        default: "runsc*,gvisor*,kata*",
        effect: Effect::NewContainers,
        help: "Runtime handlers (patterns with * and ?) whose containers have their own network stack or kernel. They \
               cannot reach a socket on the node, so they get none and are only counted.",
    },
    Setting {
        key: "dcos.host",
        kind: SettingKind::Ip,
        default: "",
        effect: Effect::NewContainers,
        help: "Address that the DC/OS API calls return, with a separate port for each container. If not set, containers \
               get loopback addresses.",
    },
    Setting {
        key: "prometheus.naming",
        kind: SettingKind::OneOf(&["openmetrics", "statsd_exporter", "datadog", "graphite"]),
        default: "openmetrics",
        effect: Effect::AtOnce,
        help: "Naming scheme of /metrics/tasks unless the query selects one: the conventions of OpenMetrics, or those of \
               another server.",
    },
    Setting {
        key: "prometheus.identity",
        kind: SettingKind::OneOf(&["low", "orchestrator", "high"]),
        default: "orchestrator",
        effect: Effect::AtOnce,
        help: "Labels that identify the source of series on /metrics/tasks unless the query selects others: the workload \
               (low), the pod and container or the task (orchestrator), or the container and generation (high).",
    },
    Setting {
        key: "prometheus.created",
        kind: SettingKind::Switch,
        default: "false",
        effect: Effect::AtOnce,
        help: "Whether /metrics/tasks contains the creation time of each counter and histogram for scrapers that request \
               OpenMetrics or protobuf.",
    },
    Setting {
        key: "prometheus.timers",
        kind: SettingKind::OneOf(&["summary", "histogram", "native"]),
        default: "summary",
        effect: Effect::AtOnce,
        help: "Form of timers, histograms and distributions on /metrics/tasks: percentiles of the last 60 s (summary), \
               histograms with the bounds below (histogram), or native histograms, which need no bounds (native). With \
               native, scrapers that request protobuf get native histograms, all others percentiles. Values are counted \
               into buckets on arrival, so histograms start when this is set. The naming schemes of Datadog and Graphite \
               have no histograms.",
    },
    Setting {
        key: "prometheus.timer_buckets",
        kind: SettingKind::Bounds { places: 3 },
        default: "0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10",
        effect: Effect::AtOnce,
        help: "Inclusive upper bounds of timer buckets, in seconds. Changing them restarts the histograms.",
    },
    Setting {
        key: "prometheus.value_buckets",
        kind: SettingKind::Bounds { places: 0 },
        default: "1,2.5,5,10,25,50,100,250,500,1000,2500,5000,10000",
        effect: Effect::AtOnce,
        help: "The same for histograms and distributions, in the unit in which they are sent.",
    },
    Setting {
        key: "prometheus.linger",
        kind: SettingKind::Time(0, DAY),
        default: "2m",
        effect: Effect::AtOnce,
        help: "How long the series of an ended container stay on /metrics/tasks, so that every scraper sees the last \
               values. This should exceed the scrape interval; values above containers.tombstone have no effect.",
    },
    Setting {
        key: "archive.enabled",
        kind: SettingKind::Switch,
        default: "false",
        effect: Effect::Restart,
        help: "Keep the history of every container in the file archive.db in state_dir: a day in steps of a minute, and 30 \
               days in steps of ten minutes.",
    },
    Setting {
        key: "archive.size",
        kind: SettingKind::Size(8 * MIB, 1024 * GIB),
        default: "2GiB",
        effect: Effect::AtOnce,
        help: "Maximum size of archive.db. Above it, the oldest steps of a minute are deleted, and then those of ten minutes.",
    },
    Setting {
        key: "publish.spool",
        kind: SettingKind::Size(0, 1024 * GIB),
        default: "1GiB",
        effect: Effect::AtOnce,
        help: "Maximum total size of the files of closed windows that are kept for publishers alone, beyond \
               windows.log_size. Above it, the oldest are deleted, and each publisher counts what it had not sent. 0B keeps \
               none.",
    },
    Setting {
        key: "publish.settle",
        kind: SettingKind::Time(0, MINUTE),
        default: "1s",
        effect: Effect::AtOnce,
        help: "How long after the end of an interval publishers wait for its last windows.",
    },
    Setting {
        key: "publish.lease",
        kind: SettingKind::Time(SECOND, HOUR),
        default: "60s",
        effect: Effect::AtOnce,
        help: "How long a publisher's worker may keep an interval without a result. After that, another sends it.",
    },
    Setting {
        key: "publish.reap_every",
        kind: SettingKind::Time(SECOND, HOUR),
        default: "30s",
        effect: Effect::AtOnce,
        help: "Interval at which expired leases are looked for.",
    },
    Setting {
        key: "publish.reap_limit",
        kind: SettingKind::Count(1, 1_000_000),
        default: "5000",
        effect: Effect::AtOnce,
        help: "Maximum number of expired leases that are given to other workers at a time, the oldest first.",
    },
    Setting {
        key: "log.filter",
        kind: SettingKind::LogFilter,
        default: "info",
        effect: Effect::AtOnce,
        help: "Log level: error, warn, info, debug or trace, or target=level pairs separated by commas.",
    },
    Setting {
        key: "log.format",
        kind: SettingKind::OneOf(&["text", "json"]),
        default: "text",
        effect: Effect::Restart,
        help: "Format of log lines.",
    },
    Setting {
        key: "agent.shards",
        kind: SettingKind::Count(0, 256),
        default: "0",
        effect: Effect::Restart,
        help: "Number of receiving threads. 0 means one for every two cores, with a minimum of one and a maximum of eight.",
    },
    Setting {
        key: "agent.gather",
        kind: SettingKind::Time(0, 20),
        default: "10ms",
        effect: Effect::Restart,
        help: "Maximum time that datagrams may accumulate before they are read, if enough arrive and the buffers have \
               room. Waking up for each datagram costs several times as much CPU time. With 0s, datagrams are read at \
               once.",
    },
    Setting {
        key: "agent.drain_deadline",
        kind: SettingKind::Time(100, HOUR),
        default: "10s",
        effect: Effect::AtOnce,
        help: "How long a graceful shutdown may take before it is cut off.",
    },
    Setting {
        key: "agent.after_hand_over",
        kind: SettingKind::OneOf(&["end", "wait"]),
        default: "end",
        effect: Effect::AtOnce,
        help: "What the process does after another process has taken over from it: exit (`end`), or wait for SIGTERM \
               (`wait`). The DaemonSet uses `wait`, because a pod whose process exits is restarted and would take over in \
               turn.",
    },
    Setting {
        key: "agent.instance",
        kind: SettingKind::Text(0, 256),
        default: "",
        effect: Effect::AtOnce,
        help: "Name of this process, shown as `instance` by GET /health. `tallyport health` compares it with its own \
               setting, so that a probe is not answered by another agent at the same address.",
    },
];

impl Setting {
    /// The setting with this key.
    #[must_use]
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// When a change of the setting with this key takes effect.
    ///
    /// # Panics
    /// If there is no such setting; in a constant, this is a compile error.
    #[must_use]
    pub const fn effect_of(key: &str) -> Effect {
        let mut rows = SETTINGS;
        while let [row, rest @ ..] = rows {
            if bytes_equal(row.key.as_bytes(), key.as_bytes()) {
                return row.effect;
            }
            rows = rest;
        }
        panic!("no such setting")
    }

    /// The optional part of the program that it belongs to, if any.
    #[must_use]
    pub fn find_product(&self) -> Option<Product> {
        match self.key.split_once('.') {
            Some(("archive", _)) => Some(Product::Archive),
            Some(("dcos", _)) => Some(Product::Dcos),
            Some(("listeners", "guard")) => Some(Product::Guard),
            Some(("nri" | "kubernetes", _)) => Some(Product::Nri),
            _ => None,
        }
    }

    /// Whether this program contains what it configures.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.find_product().is_none_or(Product::is_built_in)
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable_name(&self) -> String {
        format!("TALLYPORT_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// The key most similar to an unknown one, if it is similar enough to be the one that was meant.
    #[must_use]
    pub fn nearest_key(key: &str) -> Option<&'static str> {
        let distance = |setting: &&Self| {
            // Often only the table of a key is wrong or missing, so compare the last parts too.
            let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
            let tables = strsim::normalized_damerau_levenshtein(setting.key, key);
            let names = 0.9 * strsim::normalized_damerau_levenshtein(&last(setting.key), &last(key));
            tables.max(names)
        };
        let nearest = SETTINGS.iter().max_by(|a, b| distance(a).total_cmp(&distance(b)))?;
        (distance(&nearest) > 0.55).then_some(nearest.key)
    }
}

/// `==` for constants.
const fn bytes_equal(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([a, rest_of_one @ ..], [b, rest_of_other @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        (one, other) = (rest_of_one, rest_of_other);
    }
    one.is_empty() && other.is_empty()
}
