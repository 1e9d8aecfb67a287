//! Every setting: one row states all that is known of it.

use super::kind::SettingKind;

#[derive(Copy, Clone, Debug)]
pub struct Setting {
    /// Its key in the file, with `.` between table and name. In upper case, with `_` for `.` and `TALLYPORT_` in front, it is a
    /// variable.
    pub key: &'static str,
    /// The form and range of its values.
    pub kind: SettingKind,
    /// Its value if no source sets it; empty where it is optional or depends on the machine.
    pub default: &'static str,
    /// When a reload puts a changed value into effect.
    pub effect: Effect,
    /// What it does, in a sentence or two.
    pub help: &'static str,
}

/// When a reload puts a changed value into effect.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// At the reload.
    AtOnce,
    /// At the reload, for containers that the agent learns of afterwards. Those it knows keep what they were given.
    NewContainers,
    /// When the agent is restarted. Until then the reload keeps the old value and reports the key.
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

    /// What to do after changing the value, to follow "set ... and".
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
        help: "A file of labels that every container of the node gets in addition to its own: lines of key=\"value\", \
               as Kubernetes' downward API writes them. A reload reads it again.",
    },
    Setting {
        key: "state_dir",
        kind: SettingKind::OptionalPath,
        default: "",
        effect: Effect::Restart,
        help: "Directory for state that must survive the agent. Default: the directory `state` beside the admin socket.",
    },
    Setting {
        key: "http.listen",
        kind: SettingKind::Address,
        default: "127.0.0.1:9725",
        effect: Effect::Restart,
        help: "Address and port of the HTTP listener. An address off loopback needs http.tls_certificate and \
               http.tokens, or http.insecure.",
    },
    Setting {
        key: "http.insecure",
        kind: SettingKind::Switch,
        default: "false",
        effect: Effect::Restart,
        help: "Allow an address off loopback without TLS or without tokens. Without tokens, every client that reaches \
               the port can read everything.",
    },
    Setting {
        key: "http.tls_certificate",
        kind: SettingKind::OptionalPath,
        default: "",
        effect: Effect::AtOnce,
        help: "PEM file with the certificate of the HTTP listener, followed by its intermediate certificates. If it is \
               set, only HTTPS is served. A reload reads it again, for new connections; a file that cannot be used \
               changes nothing.",
    },
    Setting {
        key: "http.tls_key",
        kind: SettingKind::OptionalPath,
        default: "",
        effect: Effect::AtOnce,
        help: "PEM file with the key of http.tls_certificate. Read again with it.",
    },
    Setting {
        key: "http.tokens",
        kind: SettingKind::OptionalPath,
        default: "",
        effect: Effect::AtOnce,
        help: "A file of tokens, one per line, each of 16 characters or more. If it is set, every request to the HTTP \
               listener except /, /health and /ready needs one of them, as `Authorization: Bearer TOKEN`. A reload \
               reads it again.",
    },
    Setting {
        key: "http.hosts",
        kind: SettingKind::Words(&[]),
        default: "",
        effect: Effect::AtOnce,
        help: "Host names that requests to the HTTP listener may use, as patterns; others get 421, which prevents web \
               sites from reading the listener through a visitor's browser. On loopback, localhost and loopback \
               addresses are always allowed. Off loopback, addresses are always allowed, and so is every name if no \
               pattern is set.",
    },
    Setting {
        key: "http.max_connections",
        kind: SettingKind::Count(1, 65_536),
        default: "512",
        effect: Effect::Restart,
        help: "Maximum number of connections on each of the two listeners. Beyond it the oldest idle connection of the client \
               with the most connections is closed; if none is idle, new ones wait in the backlog. On the admin socket one process \
               may have half of them, and all users other than root three quarters; a connection beyond that waits half a second \
               for room and is then answered 503.",
    },
    Setting {
        key: "http.max_connections_per_client",
        kind: SettingKind::Count(1, 65_536),
        default: "128",
        effect: Effect::Restart,
        help: "Maximum number of connections to the HTTP listener from one address (IPv6: from one /64); further ones \
               are closed at once.",
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
        help: "A client that does not read is disconnected after this time, on both listeners: it runs while part of an \
               answer waits to be sent and the client takes none of it. It does not run while a stream has nothing to send.",
    },
    Setting {
        key: "http.page_memory",
        kind: SettingKind::Size(MIB, 16 * GIB),
        default: "32MiB",
        effect: Effect::AtOnce,
        help: "Memory for all answers and events of streams that are rendered and not sent yet. When it is used up, only clients that \
               have read what they were sent get more, until twice this size is held, and readers that take nothing for two seconds \
               are disconnected.",
    },
    Setting {
        key: "http.max_head",
        kind: SettingKind::Size(8 * KIB, MIB),
        default: "16KiB",
        effect: Effect::Restart,
        help: "Longest head of a request, on each of the two listeners; a longer one gets 431.",
    },
    Setting {
        key: "http.max_headers",
        kind: SettingKind::Count(1, 1000),
        default: "100",
        effect: Effect::Restart,
        help: "Most header fields of a request, on each of the two listeners; more get 431.",
    },
    Setting {
        key: "admin.socket",
        kind: SettingKind::Path,
        default: "",
        effect: Effect::Restart,
        help: "The socket that launchers and runtimes use. Default: /run/tallyport/admin.sock as root, otherwise below \
               $XDG_RUNTIME_DIR, otherwise below the temporary directory.",
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
        help: "Length of a window. Windows start at whole multiples of it since 1970.",
    },
    Setting {
        key: "windows.keep",
        kind: SettingKind::Count(1, 10_000),
        default: "30",
        effect: Effect::Restart,
        help: "Closed windows kept of each container. A sample with a timestamp can revise one as old as these.",
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
        help: "How long a series must be silent before a new series can take its place. Levels, totals and last checks \
               are kept for the container's life, unless it reaches limits.series; then the idle series updated least \
               recently is evicted. A set is dropped after this time.",
    },
    Setting {
        key: "windows.log",
        kind: SettingKind::Switch,
        default: "true",
        effect: Effect::Restart,
        help: "Write closed windows to the state directory, and read them back at the next start. If the state \
               directory is in memory, like /run, they survive the agent but not the machine.",
    },
    Setting {
        key: "windows.log_size",
        kind: SettingKind::Size(MIB, 1024 * GIB),
        default: "256MiB",
        effect: Effect::Restart,
        help: "Total size of the files of closed windows. Beyond it the oldest files are deleted, although their \
               windows are still kept in memory.",
    },
    Setting {
        key: "windows.checkpoint",
        kind: SettingKind::Time(0, HOUR),
        default: "1s",
        effect: Effect::Restart,
        help: "Interval at which open windows are written: the most that a crash loses of received data. 0s disables \
               checkpoints.",
    },
    Setting {
        key: "windows.checkpoint_rate",
        kind: SettingKind::Size(KIB, GIB),
        default: "1MiB",
        effect: Effect::Restart,
        help: "Maximum bytes of open windows written per second. If there are more, checkpoints become less frequent; \
               doctor shows the interval.",
    },
    Setting {
        key: "statsd.tag_styles",
        kind: SettingKind::Words(&["influx", "librato", "signalfx", "all"]),
        default: "",
        effect: Effect::AtOnce,
        help: "Tags inside names that are read: name,k=v (influx), name#k=v (librato), name[k=v] (signalfx).",
    },
    Setting {
        key: "statsd.gauge_sign",
        kind: SettingKind::OneOf(&["auto", "delta", "absolute"]),
        default: "auto",
        effect: Effect::NewContainers,
        help: "Meaning of g:+1|g for containers without their own setting: a change of the level (delta), or a level \
               (absolute). With auto, g:-1|g is a level in a container whose metrics have features of DogStatsD, such \
               as tags after |#, and a change in others; if any of its gauges has a plus sign, all are changes.",
    },
    Setting {
        key: "statsd.timer_unit",
        kind: SettingKind::OneOf(&["ms", "s"]),
        default: "ms",
        effect: Effect::NewContainers,
        help: "Unit of timers for containers without their own setting: milliseconds, as |ms means, or seconds, as the \
               timed decorator of Datadog's Python client sends them.",
    },
    Setting {
        key: "listeners.port",
        kind: SettingKind::Count(1, 65_535),
        default: "18125",
        effect: Effect::Restart,
        help: "Port of the containers' sockets in the agent's own network namespace, each on a separate loopback \
               address. It should be outside ip_local_port_range.",
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
        help: "Total size of all receive buffers. Beyond it new sockets get the kernel's minimum.",
    },
    Setting {
        key: "listeners.receive_buffer_max",
        kind: SettingKind::Size(4 * KIB, 256 * MIB),
        default: "4MiB",
        effect: Effect::AtOnce,
        help: "Size up to which the receive buffer of a busy socket grows, as long as all buffers together take less \
               than half of listeners.receive_buffers.",
    },
    Setting {
        key: "listeners.rest",
        kind: SettingKind::Time(0, DAY),
        default: "10m",
        effect: Effect::AtOnce,
        help: "How long an address stays unused after its container has ended, so that data still sent to it reaches \
               no other container.",
    },
    Setting {
        key: "listeners.guard",
        kind: SettingKind::OneOf(&["auto", "off", "required"]),
        default: "auto",
        effect: Effect::Restart,
        help: "Whether the kernel rejects datagrams of other processes to a container's socket on the host's network: \
               if possible (auto), never (off), or the agent does not start without it (required). It needs Linux 5.14, \
               cgroup v2, CAP_BPF and CAP_NET_ADMIN.",
    },
    Setting {
        key: "limits.mode",
        kind: SettingKind::OneOf(&["enforce", "observe"]),
        default: "enforce",
        effect: Effect::AtOnce,
        help: "Whether what is beyond a limit is dropped, or only counted.",
    },
    Setting {
        key: "limits.datagrams_per_second",
        kind: SettingKind::Rate,
        default: "unlimited",
        effect: Effect::AtOnce,
        help: "Datagrams a second that a container may send; after a pause, as many at once.",
    },
    Setting {
        key: "limits.bytes_per_second",
        kind: SettingKind::Rate,
        default: "unlimited",
        effect: Effect::AtOnce,
        help: "Bytes a second that a container may send; after a pause, as many at once.",
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
        help: "Length of a name.",
    },
    Setting {
        key: "limits.tags_bytes",
        kind: SettingKind::Size(1, 64 * KIB),
        default: "8KiB",
        effect: Effect::AtOnce,
        help: "Length of a line's tags.",
    },
    Setting {
        key: "limits.late_records",
        kind: SettingKind::Count(1, 10_000_000),
        default: "10000",
        effect: Effect::AtOnce,
        help: "Maximum number of records of closed windows that samples with timestamps may revise while one window is \
               open; each series counts once for each window.",
    },
    Setting {
        key: "limits.memory",
        kind: SettingKind::Size(64 * KIB, 64 * GIB),
        default: "64MiB",
        effect: Effect::AtOnce,
        help: "Memory of a container, its kept windows included.",
    },
    Setting {
        key: "limits.node_memory",
        kind: SettingKind::Size(MIB, 1024 * GIB),
        default: "2GiB",
        effect: Effect::AtOnce,
        help: "Maximum memory of all containers together. Beyond it no container gets new series.",
    },
    Setting {
        key: "limits.remembered",
        kind: SettingKind::Count(100, 10_000_000),
        default: "100000",
        effect: Effect::AtOnce,
        help: "How many totals of series that are gone the node remembers for each kind of label set (pods or tasks, and \
               workloads), and how many names without a series. Beyond it those of the workloads with the most are \
               forgotten first.",
    },
    Setting {
        key: "limits.containers",
        kind: SettingKind::Count(1, 1_000_000),
        default: "10000",
        effect: Effect::AtOnce,
        help: "Live containers, reservations included.",
    },
    Setting {
        key: "containers.reservation_ttl",
        kind: SettingKind::Time(SECOND, DAY),
        default: "60s",
        effect: Effect::NewContainers,
        help: "How long a reservation waits for its process before it expires. A reserve call can set another time.",
    },
    Setting {
        key: "containers.tombstone",
        kind: SettingKind::Time(0, 7 * DAY),
        default: "10m",
        effect: Effect::AtOnce,
        help: "How long a finished container can still be read.",
    },
    Setting {
        key: "containers.adopt_mute",
        kind: SettingKind::Switch,
        default: "false",
        effect: Effect::NewContainers,
        help: "Whether the pod of a container found running without an address gets a socket at 127.0.0.1:8125, the \
               default address of many clients. Data that arrives there belongs to the pod, not to one container. The \
               socket exists until the pod ends, and a StatsD server in the pod can then no longer use that port.",
    },
    Setting {
        key: "env.presets",
        kind: SettingKind::Words(&["statsd", "datadog", "DD_AGENT_HOST"]),
        default: "",
        effect: Effect::NewContainers,
        help: "Variables in addition to STATSD_UDP_HOST and STATSD_UDP_PORT: statsd adds STATSD_HOST and STATSD_PORT, \
               datadog adds DD_DOGSTATSD_URL and makes signed gauges absolute, DD_AGENT_HOST adds DD_AGENT_HOST and \
               DD_DOGSTATSD_PORT. Variables set by the application are never replaced, and neither variable of a pair \
               is written if it has set the other.",
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
        help: "Path of the Unix socket inside containers. Its directory is mounted over that of the image, so it must \
               contain nothing else.",
    },
    Setting {
        key: "unix.queue",
        kind: SettingKind::Count(1, 65_536),
        default: "512",
        effect: Effect::Restart,
        help: "Datagrams that may wait in a Unix socket before senders block. If the agent may not create a network \
               namespace, net.unix.max_dgram_qlen applies instead.",
    },
    Setting {
        key: "nri.enabled",
        kind: SettingKind::Switch,
        default: "false",
        effect: Effect::Restart,
        help: "Whether the agent is a plugin of the node's container runtime (containerd from 1.7, CRI-O from 1.26), \
               which gives every container of a pod its socket.",
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
        help: "Position among the runtime's plugins; lower ones are called first. A plugin with a high position sees \
               the variables that others have set and does not replace them by aliases.",
    },
    Setting {
        key: "kubernetes.mode",
        kind: SettingKind::OneOf(&["all", "opt-in", "observe"]),
        default: "all",
        effect: Effect::NewContainers,
        help: "Which pods get sockets: all except those with the annotation tallyport.enabled=false (all), only those \
               with true (opt-in), or none, while those that would get one are counted (observe).",
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
        help: "Only containers with these names, * and ? allowed. Where there are none, all.",
    },
    Setting {
        key: "kubernetes.exclude_containers",
        kind: SettingKind::Words(&[]),
        default: "",
        effect: Effect::NewContainers,
        help: "No containers with these names, * and ? allowed.",
    },
    Setting {
        key: "kubernetes.sandboxed_handlers",
        kind: SettingKind::Words(&[]),
        default: "runsc*,gvisor*,kata*",
        effect: Effect::NewContainers,
        help: "Runtime handlers (patterns with * and ?) whose containers have their own network stack or kernel. They \
               cannot reach a socket of the node, so they are counted and get none.",
    },
    Setting {
        key: "dcos.host",
        kind: SettingKind::Ip,
        default: "",
        effect: Effect::NewContainers,
        help: "Address that the DC/OS calls return, with a separate port for each container. If it is not set, \
               containers get a loopback address.",
    },
    Setting {
        key: "prometheus.naming",
        kind: SettingKind::OneOf(&["openmetrics", "statsd_exporter", "datadog", "graphite"]),
        default: "openmetrics",
        effect: Effect::AtOnce,
        help: "Default names on /metrics/tasks, if the query does not select any: by the conventions of OpenMetrics, \
               or those of another server.",
    },
    Setting {
        key: "prometheus.identity",
        kind: SettingKind::OneOf(&["low", "orchestrator", "high"]),
        default: "orchestrator",
        effect: Effect::AtOnce,
        help: "Default labels that identify the source of series on /metrics/tasks, if the query does not select any: \
               by workload, by pod and container or task, or by container and generation.",
    },
    Setting {
        key: "prometheus.created",
        kind: SettingKind::Switch,
        default: "false",
        effect: Effect::AtOnce,
        help: "Whether /metrics/tasks says when each counter and histogram began, to those who ask for OpenMetrics or protobuf.",
    },
    Setting {
        key: "prometheus.timers",
        kind: SettingKind::OneOf(&["summary", "histogram", "native"]),
        default: "summary",
        effect: Effect::AtOnce,
        help: "Form of timers, histograms and distributions on /metrics/tasks: percentiles of the last 60 s, \
               histograms with the bounds below, or native histograms, which need no bounds. Readers of protobuf get \
               native ones, others percentiles. Values are counted into buckets on arrival, so histograms start when \
               this is set. The namings of Datadog and Graphite have no histograms.",
    },
    Setting {
        key: "prometheus.timer_buckets",
        kind: SettingKind::Bounds { places: 3 },
        default: "0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10",
        effect: Effect::AtOnce,
        help: "Upper bounds of timers' buckets, in seconds, inclusive. Changing them restarts histograms.",
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
               values. It should exceed the scrape interval; values above containers.tombstone have no effect.",
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
        help: "How a log line looks.",
    },
    Setting {
        key: "agent.shards",
        kind: SettingKind::Count(0, 256),
        default: "0",
        effect: Effect::Restart,
        help: "Threads that receive; 0 means one for every two cores, at least one, at most eight.",
    },
    Setting {
        key: "agent.gather",
        kind: SettingKind::Time(0, 20),
        default: "10ms",
        effect: Effect::Restart,
        help: "Maximum time that datagrams may accumulate before they are read, if enough arrive and buffers have \
               room. Waking up for each datagram costs several times more. 0s reads at once.",
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
        help: "What the process does after another process has taken over from it: `end`, or `wait` for TERM. The \
               DaemonSet uses `wait`, because a pod whose process ends is restarted and would take over in turn.",
    },
    Setting {
        key: "agent.instance",
        kind: SettingKind::Text(0, 256),
        default: "",
        effect: Effect::AtOnce,
        help: "A name for this process, shown as `instance` by GET /health. `tallyport health` compares it with its own, so that a \
               probe is not answered by another agent at the same address.",
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
    /// When there is no such setting; in a constant, that does not compile.
    #[must_use]
    pub const fn effect_of(key: &str) -> Effect {
        let mut rows = SETTINGS;
        while let [row, rest @ ..] = rows {
            if is_same(row.key.as_bytes(), key.as_bytes()) {
                return row.effect;
            }
            rows = rest;
        }
        panic!("no such setting")
    }

    /// The variable that sets it.
    #[must_use]
    pub fn variable_name(&self) -> String {
        format!("TALLYPORT_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// The key nearest to a wrong one, where one is near enough to have been meant.
    #[must_use]
    pub fn nearest_key(key: &str) -> Option<&'static str> {
        let distance = |setting: &&Self| {
            // A key under the wrong table, or under none, is often right but for that.
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
const fn is_same(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([a, rest_of_one @ ..], [b, rest_of_other @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        (one, other) = (rest_of_one, rest_of_other);
    }
    one.is_empty() && other.is_empty()
}
