//! From values to the configuration that they mean.

use std::collections::BTreeMap;

use super::error::{ConfigError, ConfigErrors};
use super::layers::{Layers, Origin};
use super::values::Values;
use super::{
    Admin, AfterHandOver, Config, Containers, Guarding, Kubernetes, Listeners, Log, LogFormat, NodeLimits,
    Nri, PodMode, Process, Unix, UnixMode, WindowLog,
};
use super::{checks, http, labels, prometheus};
use crate::aggregate::{GaugeSign, Limits, Mode, Settings, TimerUnit};
use crate::statsd::{TagStyles, style};

/// Reads everything, and checks it.
pub(super) fn resolve(layers: &Layers) -> Result<Config, ConfigErrors> {
    let (values, mut errors) = Values::read(layers);
    let labels = node_labels(layers, &values).unwrap_or_else(|mistakes| {
        errors.extend(mistakes);
        BTreeMap::new()
    });
    let config = config(values, labels);
    checks::check(&config, layers, &mut errors);
    if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
}

/// The labels in the file that `node_labels` names.
fn node_labels(layers: &Layers, values: &Values) -> Result<BTreeMap<String, String>, Vec<ConfigError>> {
    const KEY: &str = "node_labels";
    let Some(path) = values.optional_path(KEY) else { return Ok(BTreeMap::new()) };
    let text = crate::files::read_to_string(&path)
        .map_err(|error| vec![ConfigError::value(layers, KEY, &format!("cannot be read: {error}"))])?;
    let name = path.display().to_string();
    labels::parse(&text).map_err(|mistakes| {
        let at = |(line, why): (usize, String)| ConfigError::syntax(&Origin::File(name.clone(), line), &why);
        mistakes.into_iter().map(at).collect()
    })
}

/// The configuration that values mean. Settings are read here and in no other place.
pub(super) fn config(values: Values, node_labels: BTreeMap<String, String>) -> Config {
    Config {
        node: values.text("node"),
        node_labels,
        state_dir: values.path("state_dir"),
        http: http::http(&values),
        admin: Admin { socket: values.path("admin.socket"), mode: values.number("admin.mode") },
        aggregation: aggregation(&values),
        window_log: WindowLog {
            enabled: values.switch("windows.log"),
            size: values.number("windows.log_size"),
            checkpoint: values.time("windows.checkpoint"),
            checkpoint_rate: values.number("windows.checkpoint_rate"),
        },
        gauge_sign: values.choice("statsd.gauge_sign", &GAUGE_SIGNS),
        timer_unit: values.choice("statsd.timer_unit", &TIMER_UNITS),
        listeners: Listeners {
            port: values.number("listeners.port"),
            receive_buffer: values.number("listeners.receive_buffer"),
            receive_buffers: values.number("listeners.receive_buffers"),
            receive_buffer_max: values.number("listeners.receive_buffer_max"),
            rest: values.time("listeners.rest"),
            guard: values.choice("listeners.guard", &GUARDING),
        },
        node_limits: NodeLimits {
            containers: values.number("limits.containers"),
            memory: values.number("limits.node_memory"),
        },
        containers: Containers {
            reservation_ttl: values.time("containers.reservation_ttl"),
            tombstone: values.time("containers.tombstone"),
            adopt_mute: values.switch("containers.adopt_mute"),
        },
        presets: values.words("env.presets"),
        unix: Unix {
            mode: values.choice("unix.mode", &UNIX_MODES),
            path: values.path("unix.path"),
            queue: values.number("unix.queue"),
        },
        nri: Nri {
            enabled: values.switch("nri.enabled"),
            socket: values.path("nri.socket"),
            index: values.number("nri.index"),
        },
        kubernetes: kubernetes(&values),
        dcos_host: values.ip("dcos.host"),
        prometheus: prometheus::prometheus(&values),
        log: Log { filter: values.text("log.filter"), format: values.choice("log.format", &LOG_FORMATS) },
        process: Process {
            shards: values.number("agent.shards"),
            gather: values.time("agent.gather"),
            drain_deadline: values.time("agent.drain_deadline"),
            after_hand_over: values.choice("agent.after_hand_over", &AFTER_HAND_OVER),
            instance: values.text("agent.instance"),
        },
        values,
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
const LIMIT_MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("observe", Mode::Observe)];
const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const AFTER_HAND_OVER: [(&str, AfterHandOver); 2] =
    [("end", AfterHandOver::End), ("wait", AfterHandOver::Wait)];

fn aggregation(values: &Values) -> Settings {
    Settings {
        window: values.time("windows.length"),
        keep: values.number("windows.keep"),
        gauge_carry: values.time("windows.gauge_carry"),
        series_idle: values.time("windows.series_idle"),
        tag_styles: tag_styles(values),
        limits: Limits {
            mode: values.choice("limits.mode", &LIMIT_MODES),
            datagrams_per_second: values.rate("limits.datagrams_per_second"),
            bytes_per_second: values.rate("limits.bytes_per_second"),
            series: values.number("limits.series"),
            name_bytes: values.number("limits.name_bytes"),
            tags_bytes: values.number("limits.tags_bytes"),
            late_records: values.number("limits.late_records"),
            memory: values.number("limits.memory"),
        },
        counting: prometheus::counting(values),
    }
}

fn tag_styles(values: &Values) -> TagStyles {
    let words = values.words("statsd.tag_styles");
    style::read(words.iter().map(String::as_str))
        .unwrap_or_else(|word| panic!("the row of statsd.tag_styles allows {word:?}, which is no style"))
}

fn kubernetes(values: &Values) -> Kubernetes {
    Kubernetes {
        mode: values.choice("kubernetes.mode", &POD_MODES),
        namespaces: values.words("kubernetes.namespaces"),
        exclude_namespaces: values.words("kubernetes.exclude_namespaces"),
        pod_labels: values.words("kubernetes.pod_labels"),
        exclude_pod_labels: values.words("kubernetes.exclude_pod_labels"),
        containers: values.words("kubernetes.containers"),
        exclude_containers: values.words("kubernetes.exclude_containers"),
        sandboxed_handlers: values.words("kubernetes.sandboxed_handlers"),
    }
}
