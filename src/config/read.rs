//! Builds the configuration from values.

use std::collections::BTreeMap;

use super::error::{ConfigError, ConfigErrors};
use super::layers::{Layers, SettingOrigin};
use super::publish::{self, PublishConfig, PublisherValues};
use super::values::SettingValues;
use super::{
    AdminConfig, AfterHandOver, AgentConfig, ArchiveConfig, ContainersConfig, Guarding, HttpConfig,
    KubernetesConfig, ListenersConfig, LogConfig, LogFormat, NodeLimits, NriConfig, PodMode, ProcessConfig,
    PrometheusConfig, TlsFiles, UnixConfig, UnixMode, WindowLogConfig, checks, labels,
};
use crate::aggregate::{AggregatorSettings, Counting, GaugeSign, LimitMode, Limits, TimerUnit};
use crate::render::prometheus::{Level, Naming, Timers};
use crate::statsd::{TagStyles, style};

/// Reads and checks the configuration.
pub(super) fn read_config(layers: &Layers) -> Result<AgentConfig, ConfigErrors> {
    let (values, mut errors) = SettingValues::read(layers);
    let labels = read_node_labels(layers, &values).unwrap_or_else(|mistakes| {
        errors.extend(mistakes);
        BTreeMap::new()
    });
    let (publishers, mistakes) = publish::read_publishers(layers.publisher_layers());
    errors.extend(mistakes);
    let config = build_config(values, labels, publishers);
    checks::check_values(&config, layers, &mut errors);
    let AggregatorSettings { window: length, keep, .. } = config.aggregation;
    // Files have what memory has lost only if there are any beyond those that memory needs.
    let has_spool = config.window_log.enabled && config.publish.spool > 0;
    let kept =
        length.saturating_mul(u32::try_from(keep).unwrap_or(u32::MAX)).min(config.containers.tombstone);
    let windows = publish::ReadWindows { length, kept_for: (!has_spool).then_some(kept) };
    publish::check_publishers(&config.publish.publishers, layers.publisher_layers(), windows, &mut errors);
    if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
}

/// The labels in the file that `node_labels` names.
fn read_node_labels(
    layers: &Layers,
    values: &SettingValues,
) -> Result<BTreeMap<String, String>, Vec<ConfigError>> {
    const KEY: &str = "node_labels";
    let Some(path) = values.optional_path(KEY) else { return Ok(BTreeMap::new()) };
    let text = crate::files::read_to_string(&path)
        .map_err(|error| vec![ConfigError::value(layers, KEY, &format!("cannot be read: {error}"))])?;
    let name = path.display().to_string();
    labels::parse(&text).map_err(|mistakes| {
        let at = |(line, why): (usize, String)| {
            ConfigError::invalid_syntax(&SettingOrigin::File(name.clone(), line), &why)
        };
        mistakes.into_iter().map(at).collect()
    })
}

/// Builds the configuration from values. This is the only place that reads settings.
pub(super) fn build_config(
    values: SettingValues,
    node_labels: BTreeMap<String, String>,
    publishers: Vec<PublisherValues>,
) -> AgentConfig {
    AgentConfig {
        node: values.raw_text("node"),
        node_labels,
        state_dir: values.path_value("state_dir"),
        http: build_http(&values),
        admin: AdminConfig {
            socket: values.path_value("admin.socket"),
            mode: values.count_value("admin.mode"),
        },
        aggregation: read_aggregation(&values),
        window_log: WindowLogConfig {
            enabled: values.bool_value("windows.log"),
            size: values.count_value("windows.log_size"),
            checkpoint: values.duration_value("windows.checkpoint"),
            checkpoint_rate: values.count_value("windows.checkpoint_rate"),
        },
        gauge_sign: values.choice_value("statsd.gauge_sign", &GAUGE_SIGNS),
        timer_unit: values.choice_value("statsd.timer_unit", &TIMER_UNITS),
        listeners: ListenersConfig {
            port: values.count_value("listeners.port"),
            receive_buffer: values.count_value("listeners.receive_buffer"),
            receive_buffers: values.count_value("listeners.receive_buffers"),
            receive_buffer_max: values.count_value("listeners.receive_buffer_max"),
            rest: values.duration_value("listeners.rest"),
            guard: values.choice_value("listeners.guard", &GUARDING),
        },
        node_limits: NodeLimits {
            containers: values.count_value("limits.containers"),
            memory: values.count_value("limits.node_memory"),
            remembered: values.count_value("limits.remembered"),
        },
        containers: ContainersConfig {
            reservation_ttl: values.duration_value("containers.reservation_ttl"),
            tombstone: values.duration_value("containers.tombstone"),
            adopt_mute: values.bool_value("containers.adopt_mute"),
        },
        presets: values.word_values("env.presets"),
        unix: UnixConfig {
            mode: values.choice_value("unix.mode", &UNIX_MODES),
            path: values.path_value("unix.path"),
            queue: values.count_value("unix.queue"),
        },
        nri: NriConfig {
            enabled: values.bool_value("nri.enabled"),
            socket: values.path_value("nri.socket"),
            index: values.count_value("nri.index"),
        },
        kubernetes: read_kubernetes(&values),
        dcos_host: values.ip_value("dcos.host"),
        prometheus: build_prometheus(&values),
        archive: ArchiveConfig {
            enabled: values.bool_value("archive.enabled"),
            size: values.count_value("archive.size"),
        },
        publish: build_publish(&values, &publishers),
        log: LogConfig {
            filter: values.raw_text("log.filter"),
            format: values.choice_value("log.format", &LOG_FORMATS),
        },
        process: ProcessConfig {
            shards: values.count_value("agent.shards"),
            gather: values.duration_value("agent.gather"),
            drain_deadline: values.duration_value("agent.drain_deadline"),
            after_hand_over: values.choice_value("agent.after_hand_over", &AFTER_HAND_OVER),
            instance: values.raw_text("agent.instance"),
        },
        file: None,
        values,
        publishers,
    }
}

const GAUGE_SIGNS: [(&str, GaugeSign); 3] =
    [("auto", GaugeSign::Auto), ("delta", GaugeSign::Delta), ("absolute", GaugeSign::Absolute)];
const TIMER_UNITS: [(&str, TimerUnit); 2] = [("ms", TimerUnit::Milliseconds), ("s", TimerUnit::Seconds)];
const GUARDING: [(&str, Guarding); 3] =
    [("auto", Guarding::Auto), ("off", Guarding::Off), ("required", Guarding::Required)];
const UNIX_MODES: [(&str, UnixMode); 3] =
    [("off", UnixMode::Off), ("opt-in", UnixMode::OptIn), ("all", UnixMode::All)];
const POD_MODES: [(&str, PodMode); 3] =
    [("all", PodMode::All), ("opt-in", PodMode::OptIn), ("observe", PodMode::Observe)];
const LIMIT_MODES: [(&str, LimitMode); 2] =
    [("enforce", LimitMode::Enforce), ("observe", LimitMode::Observe)];
const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const AFTER_HAND_OVER: [(&str, AfterHandOver); 2] =
    [("end", AfterHandOver::End), ("wait", AfterHandOver::Wait)];

fn read_aggregation(values: &SettingValues) -> AggregatorSettings {
    AggregatorSettings {
        window: values.duration_value("windows.length"),
        keep: values.count_value("windows.keep"),
        gauge_carry: values.duration_value("windows.gauge_carry"),
        series_idle: values.duration_value("windows.series_idle"),
        tag_styles: tag_styles(values),
        limits: Limits {
            mode: values.choice_value("limits.mode", &LIMIT_MODES),
            datagrams_per_second: values.rate_value("limits.datagrams_per_second"),
            bytes_per_second: values.rate_value("limits.bytes_per_second"),
            series: values.count_value("limits.series"),
            name_bytes: values.count_value("limits.name_bytes"),
            tags_bytes: values.count_value("limits.tags_bytes"),
            late_records: values.count_value("limits.late_records"),
            memory: values.count_value("limits.memory"),
        },
        counting: required_counting(values),
    }
}

fn tag_styles(values: &SettingValues) -> TagStyles {
    let words = values.word_values("statsd.tag_styles");
    style::read(words.iter().map(String::as_str))
        .unwrap_or_else(|word| panic!("the row of statsd.tag_styles allows {word:?}, which is no style"))
}

fn read_kubernetes(values: &SettingValues) -> KubernetesConfig {
    KubernetesConfig {
        mode: values.choice_value("kubernetes.mode", &POD_MODES),
        namespaces: values.word_values("kubernetes.namespaces"),
        exclude_namespaces: values.word_values("kubernetes.exclude_namespaces"),
        pod_labels: values.word_values("kubernetes.pod_labels"),
        exclude_pod_labels: values.word_values("kubernetes.exclude_pod_labels"),
        containers: values.word_values("kubernetes.containers"),
        exclude_containers: values.word_values("kubernetes.exclude_containers"),
        sandboxed_handlers: values.word_values("kubernetes.sandboxed_handlers"),
    }
}

/// The defaults of `/metrics/tasks`.
pub(super) fn build_prometheus(values: &SettingValues) -> PrometheusConfig {
    PrometheusConfig {
        naming: values
            .choice_value("prometheus.naming", &Naming::ALL.map(|naming| (naming.as_str(), naming))),
        identity: values
            .choice_value("prometheus.identity", &Level::ALL.map(|level| (level.as_str(), level))),
        created: values.bool_value("prometheus.created"),
        timers: timers(values),
        linger: values.duration_value("prometheus.linger"),
    }
}

/// What must be counted on arrival for these settings.
pub(super) fn required_counting(values: &SettingValues) -> Counting {
    match timers(values) {
        Timers::Histogram => Counting::Classic {
            timers: values.bucket_bounds("prometheus.timer_buckets"),
            values: values.bucket_bounds("prometheus.value_buckets"),
        },
        Timers::Native => Counting::Native,
        Timers::Summary => Counting::Off,
    }
}

fn timers(values: &SettingValues) -> Timers {
    values.choice_value("prometheus.timers", &Timers::ALL.map(|timers| (timers.as_str(), timers)))
}

fn build_publish(values: &SettingValues, publishers: &[PublisherValues]) -> PublishConfig {
    PublishConfig {
        spool: values.count_value("publish.spool"),
        settle: values.duration_value("publish.settle"),
        lease: values.duration_value("publish.lease"),
        reap_every: values.duration_value("publish.reap_every"),
        reap_limit: values.count_value("publish.reap_limit"),
        publishers: publish::build_publishers(publishers, values.duration_value("windows.length")),
    }
}

/// Builds the configuration of the HTTP listener from values.
pub(super) fn build_http(values: &SettingValues) -> HttpConfig {
    let certificate = values.optional_path("http.tls_certificate");
    let tls = certificate.zip(values.optional_path("http.tls_key"));
    HttpConfig {
        listen: values.address_value("http.listen"),
        insecure: values.bool_value("http.insecure"),
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        tokens: values.optional_path("http.tokens"),
        hosts: values.word_values("http.hosts"),
        max_connections: values.count_value("http.max_connections"),
        max_connections_per_client: values.count_value("http.max_connections_per_client"),
        header_timeout: values.duration_value("http.header_timeout"),
        write_timeout: values.duration_value("http.write_timeout"),
        page_memory: values.count_value("http.page_memory"),
        max_head: values.count_value("http.max_head"),
        max_headers: values.count_value("http.max_headers"),
    }
}
