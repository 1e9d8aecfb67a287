//! From what was written to what it means, with every mistake found on the way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::layers::{Layers, SettingOrigin};
use super::setting::{Setting, SettingKind};
use super::value;
use super::{
    AdminConfig, AfterHandOver, AgentConfig, ContainersConfig, Guarding, KubernetesConfig, ListenersConfig,
    LogConfig, LogFormat, NodeLimits, NriConfig, PodMode, ProcessConfig, UnixConfig, UnixMode,
    WindowLogConfig,
};
use super::{http, labels, prometheus};
use crate::aggregate::{AggregatorSettings, Counting, GaugeSign, LimitMode, Limits, TimerUnit};
use crate::statsd::{TagStyles, style};

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}{key}{reason}")]
pub struct ConfigError {
    place: String,
    key: String,
    reason: String,
}

/// Every mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigError {
    fn new(origin: &SettingOrigin, key: &str, reason: String) -> Self {
        let place = match origin {
            SettingOrigin::Default => String::new(),
            origin => format!("{origin}: "),
        };
        Self { place, key: key.to_owned(), reason }
    }

    pub(super) fn unknown_setting(key: &str, origin: &SettingOrigin) -> Self {
        let nearest =
            Setting::nearest_key(key).map_or(String::new(), |nearest| format!("; did you mean {nearest}?"));
        Self::new(origin, key, format!(" is not a setting{nearest}"))
    }

    pub(super) fn not_a_value(setting: &Setting, origin: &SettingOrigin) -> Self {
        Self::new(origin, setting.key, format!(" takes {}", setting.kind.expected_form()))
    }

    pub(super) fn invalid_syntax(origin: &SettingOrigin, message: &str) -> Self {
        Self::new(origin, "", message.to_owned())
    }

    pub(super) fn unreadable_file(name: &str, why: &str) -> Self {
        Self { place: format!("{name}: "), key: String::new(), reason: format!("cannot be read: {why}") }
    }
}

/// Entries that a list may have. Many lists are of patterns, each of which is compared with names that others choose.
const MOST_WORDS: usize = 256;
/// Bytes that an entry may have: as many as a filter of a query.
const LONGEST_WORD: usize = 1024;

/// Reads settings one by one; a wrong one is noted and stands for its type's zero, which nobody gets to see.
pub(super) struct SettingReader<'l> {
    layers: &'l Layers,
    errors: Vec<ConfigError>,
}

impl SettingReader<'_> {
    fn raw_text(&self, key: &str) -> String {
        self.layers.get(key).map_or(String::new(), |written| written.text.clone())
    }

    fn kind(key: &str) -> SettingKind {
        Setting::find(key).map_or(SettingKind::Text, |setting| setting.kind)
    }

    pub(super) fn add_error(&mut self, key: &str, reason: &str) {
        let origin = self.layers.get(key).map_or(SettingOrigin::Default, |written| written.origin.clone());
        let text = self.raw_text(key);
        self.errors.push(ConfigError::new(&origin, key, format!(" = {text:?} {reason}")));
    }

    pub(super) fn read_with<T: Default>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        match read(self.raw_text(key).trim()) {
            Ok(value) => value,
            Err(reason) => {
                self.add_error(key, &reason);
                T::default()
            }
        }
    }

    fn read_count(&mut self, key: &str) -> u64 {
        let form = Self::kind(key).expected_form();
        let (least, most) = match Self::kind(key) {
            SettingKind::Count(least, most) => (least, most),
            _ => (0, u64::MAX),
        };
        self.read_with(key, |text| {
            let number = text.parse().ok().filter(|number| (least..=most).contains(number));
            number.ok_or_else(|| format!("is not {form}"))
        })
    }

    pub(super) fn read_usize(&mut self, key: &str) -> usize {
        usize::try_from(self.read_count(key)).unwrap_or(usize::MAX)
    }

    fn read_rate(&mut self, key: &str) -> Option<u64> {
        let form = Self::kind(key).expected_form();
        self.read_with(key, |text| match text {
            "unlimited" => Ok(None),
            text => text.parse().ok().filter(|n| *n > 0).map(Some).ok_or_else(|| format!("is not {form}")),
        })
    }

    pub(super) fn read_size(&mut self, key: &str) -> usize {
        let form = Self::kind(key).expected_form();
        let (least, most) = match Self::kind(key) {
            SettingKind::Size(least, most) => (least, most),
            _ => (0, u64::MAX),
        };
        self.read_with(key, |text| {
            let bytes = value::parse_size(text)?;
            let fits = (least..=most).contains(&bytes);
            fits.then(|| usize::try_from(bytes).unwrap_or(usize::MAX)).ok_or_else(|| format!("is not {form}"))
        })
    }

    pub(super) fn read_duration(&mut self, key: &str) -> Duration {
        let form = Self::kind(key).expected_form();
        let (least, most) = match Self::kind(key) {
            SettingKind::Time(least, most) => (Duration::from_millis(least), Duration::from_millis(most)),
            _ => (Duration::ZERO, Duration::MAX),
        };
        self.read_with(key, |text| {
            let time = value::parse_duration(text)?;
            (least..=most).contains(&time).then_some(time).ok_or_else(|| format!("is not {form}"))
        })
    }

    pub(super) fn read_bool(&mut self, key: &str) -> bool {
        self.read_with(key, |text| text.parse().map_err(|_| "is not true or false".to_owned()))
    }

    pub(super) fn read_choice<T: Copy + Default>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        let form = Self::kind(key).expected_form();
        self.read_with(key, |text| {
            let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
            found.ok_or_else(|| format!("is not {form}"))
        })
    }

    pub(super) fn read_words(&mut self, key: &str) -> Vec<String> {
        let form = Self::kind(key).expected_form();
        let SettingKind::Words(known) = Self::kind(key) else { return Vec::new() };
        self.read_with(key, |text| {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            let words: Vec<String> = words.map(str::to_owned).collect();
            if words.len() > MOST_WORDS {
                return Err(format!("has {} entries and may have {MOST_WORDS}", words.len()));
            }
            if let Some(word) = words.iter().find(|word| word.len() > LONGEST_WORD) {
                let start: String = word.chars().take(32).chain(['…']).collect();
                return Err(format!(
                    "has {start:?} of {} bytes; an entry may have {LONGEST_WORD}",
                    word.len()
                ));
            }
            let odd = |word: &&String| match known {
                [] => word.chars().any(char::is_control),
                known => !known.contains(&word.as_str()),
            };
            match words.iter().find(odd) {
                Some(word) => Err(format!("has {word:?}, which is not in {form}")),
                None => Ok(words),
            }
        })
    }

    fn read_path(&mut self, key: &str) -> PathBuf {
        self.read_with(key, |text| {
            let path = PathBuf::from(text);
            path.is_absolute().then_some(path).ok_or_else(|| "is not an absolute path".to_owned())
        })
    }

    /// A path that need not be said.
    pub(super) fn read_optional_path(&mut self, key: &str) -> Option<PathBuf> {
        if self.raw_text(key).is_empty() {
            return None;
        }
        Some(self.read_path(key)).filter(|path| !path.as_os_str().is_empty())
    }
}

const GAUGE_SIGNS: [(&str, GaugeSign); 3] =
    [("auto", GaugeSign::Auto), ("delta", GaugeSign::Delta), ("absolute", GaugeSign::Absolute)];

/// Reads everything.
pub(super) fn read_config(layers: &Layers) -> Result<AgentConfig, ConfigErrors> {
    let mut reader = SettingReader { layers, errors: Vec::new() };
    let admin = read_admin(&mut reader);
    let (prometheus, counting) = prometheus::read(&mut reader);
    let config = AgentConfig {
        node: read_node_name(&mut reader),
        node_labels: read_node_labels(&mut reader),
        state_dir: read_state_dir(&mut reader, &admin.socket),
        http: http::read(&mut reader),
        admin,
        aggregation: read_aggregation(&mut reader, counting),
        window_log: WindowLogConfig {
            enabled: reader.read_bool("windows.log"),
            size: reader.read_size("windows.log_size"),
            checkpoint: reader.read_duration("windows.checkpoint"),
            checkpoint_rate: reader.read_size("windows.checkpoint_rate"),
        },
        gauge_sign: reader.read_choice("statsd.gauge_sign", &GAUGE_SIGNS),
        timer_unit: reader
            .read_choice("statsd.timer_unit", &[("ms", TimerUnit::Milliseconds), ("s", TimerUnit::Seconds)]),
        listeners: ListenersConfig {
            port: u16::try_from(reader.read_count("listeners.port")).unwrap_or_default(),
            receive_buffer: reader.read_size("listeners.receive_buffer"),
            receive_buffers: reader.read_size("listeners.receive_buffers"),
            receive_buffer_max: reader.read_size("listeners.receive_buffer_max"),
            rest: reader.read_duration("listeners.rest"),
            guard: reader.read_choice("listeners.guard", &GUARDING),
        },
        node_limits: NodeLimits {
            containers: reader.read_usize("limits.containers"),
            memory: reader.read_size("limits.node_memory"),
            remembered: reader.read_usize("limits.remembered"),
        },
        containers: ContainersConfig {
            reservation_ttl: reader.read_duration("containers.reservation_ttl"),
            tombstone: reader.read_duration("containers.tombstone"),
            adopt_mute: reader.read_bool("containers.adopt_mute"),
        },
        presets: reader.read_words("env.presets"),
        unix: read_unix(&mut reader),
        nri: read_nri(&mut reader),
        kubernetes: read_kubernetes(&mut reader),
        dcos_host: read_dcos_host(&mut reader),
        prometheus,
        log: read_log(&mut reader),
        process: ProcessConfig {
            shards: resolve_shard_count(reader.read_usize("agent.shards")),
            gather: reader.read_duration("agent.gather"),
            drain_deadline: reader.read_duration("agent.drain_deadline"),
            after_hand_over: reader.read_choice(
                "agent.after_hand_over",
                &[("end", AfterHandOver::End), ("wait", AfterHandOver::Wait)],
            ),
            instance: read_instance(&mut reader),
        },
    };
    if reader.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(reader.errors)) }
}

fn read_node_name(reader: &mut SettingReader<'_>) -> String {
    reader.read_with("node", |text| {
        let sound = !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
        sound.then(|| text.to_owned()).ok_or_else(|| "is not a name of 1 to 256 bytes".to_owned())
    })
}

fn read_instance(reader: &mut SettingReader<'_>) -> String {
    reader.read_with("agent.instance", |text| {
        let sound = text.len() <= 256 && !text.chars().any(char::is_control);
        sound
            .then(|| text.to_owned())
            .ok_or_else(|| "is longer than 256 bytes or has control characters".to_owned())
    })
}

fn read_node_labels(reader: &mut SettingReader<'_>) -> BTreeMap<String, String> {
    const KEY: &str = "node_labels";
    let Some(path) = reader.read_optional_path(KEY) else { return BTreeMap::new() };
    let text = match crate::files::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            reader.add_error(KEY, &format!("cannot be read: {error}"));
            return BTreeMap::new();
        }
    };
    let name = path.display().to_string();
    labels::parse(&text).unwrap_or_else(|mistakes| {
        let at = |(line, why): (usize, String)| {
            ConfigError::invalid_syntax(&SettingOrigin::File(name.clone(), line), &why)
        };
        reader.errors.extend(mistakes.into_iter().map(at));
        BTreeMap::new()
    })
}

fn read_admin(reader: &mut SettingReader<'_>) -> AdminConfig {
    let socket = reader.read_path("admin.socket");
    // The kernel's sun_path has 108 bytes, the last for a zero; beside it there is one with `.fd` behind its name.
    if socket.as_os_str().len() > 104 {
        reader.add_error("admin.socket", "is longer than the 104 bytes that it may have");
    }
    let mode = reader.read_with("admin.mode", |text| {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.ok_or_else(|| "is not permissions in octal, such as \"0660\"".to_owned())
    });
    AdminConfig { socket, mode }
}

fn read_state_dir(reader: &mut SettingReader<'_>, socket: &Path) -> PathBuf {
    if reader.raw_text("state_dir").is_empty() {
        return socket.parent().unwrap_or(Path::new("/")).join("state");
    }
    reader.read_path("state_dir")
}

fn read_aggregation(reader: &mut SettingReader<'_>, counting: Counting) -> AggregatorSettings {
    let styles = reader.read_words("statsd.tag_styles");
    AggregatorSettings {
        window: read_window_length(reader),
        keep: reader.read_usize("windows.keep"),
        gauge_carry: reader.read_duration("windows.gauge_carry"),
        series_idle: reader.read_duration("windows.series_idle"),
        tag_styles: style::read(styles.iter().map(String::as_str)).unwrap_or(TagStyles::NONE),
        limits: Limits {
            mode: reader.read_choice(
                "limits.mode",
                &[("enforce", LimitMode::Enforce), ("observe", LimitMode::Observe)],
            ),
            datagrams_per_second: reader.read_rate("limits.datagrams_per_second"),
            bytes_per_second: reader.read_rate("limits.bytes_per_second"),
            series: reader.read_usize("limits.series"),
            name_bytes: reader.read_size("limits.name_bytes"),
            tags_bytes: reader.read_size("limits.tags_bytes"),
            late_records: reader.read_usize("limits.late_records"),
            memory: reader.read_size("limits.memory"),
        },
        counting,
    }
}

/// A window is a whole number of seconds, so that its ends are readable and timestamps, which are whole seconds too,
/// fall into one window.
fn read_window_length(reader: &mut SettingReader<'_>) -> Duration {
    let window = reader.read_duration("windows.length");
    if window.subsec_nanos() != 0 {
        reader.add_error("windows.length", "is not a whole number of seconds");
    }
    window
}

fn read_dcos_host(reader: &mut SettingReader<'_>) -> Option<IpAddr> {
    reader.read_with("dcos.host", |text| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| "is not an IP address".to_owned()),
    })
}

const GUARDING: [(&str, Guarding); 3] =
    [("auto", Guarding::Auto), ("off", Guarding::Off), ("required", Guarding::Required)];

/// The path inside containers. Its directory is mounted, so it must not be one that containers need for anything else.
fn read_unix(reader: &mut SettingReader<'_>) -> UnixConfig {
    let modes = [("off", UnixMode::Off), ("opt-in", UnixMode::OptIn), ("all", UnixMode::All)];
    let path = reader.read_path("unix.path");
    let parent = path.parent().unwrap_or(Path::new("/"));
    let shared =
        ["/var/run", "/var/lib", "/var/tmp", "/var/log", "/usr/bin", "/usr/lib", "/usr/local", "/dev/shm"];
    let climbs = path.components().any(|part| !matches!(part, Component::RootDir | Component::Normal(_)));
    if path.as_os_str().len() > 107 {
        reader.add_error("unix.path", "is longer than the 107 bytes that a socket's path may have");
    } else if path.is_absolute()
        && (climbs || parent.components().count() < 3 || shared.iter().any(|at| parent == Path::new(at)))
    {
        reader.add_error(
            "unix.path",
            "is in a directory that containers need for other things; set one like /var/run/datadog/dsd.socket",
        );
    }
    UnixConfig { mode: reader.read_choice("unix.mode", &modes), path, queue: reader.read_usize("unix.queue") }
}

fn read_nri(reader: &mut SettingReader<'_>) -> NriConfig {
    NriConfig {
        enabled: reader.read_bool("nri.enabled"),
        socket: reader.read_path("nri.socket"),
        index: u8::try_from(reader.read_count("nri.index")).unwrap_or_default(),
    }
}

fn read_kubernetes(reader: &mut SettingReader<'_>) -> KubernetesConfig {
    let modes = [("all", PodMode::All), ("opt-in", PodMode::OptIn), ("observe", PodMode::Observe)];
    KubernetesConfig {
        mode: reader.read_choice("kubernetes.mode", &modes),
        namespaces: reader.read_words("kubernetes.namespaces"),
        exclude_namespaces: reader.read_words("kubernetes.exclude_namespaces"),
        pod_labels: reader.read_words("kubernetes.pod_labels"),
        exclude_pod_labels: reader.read_words("kubernetes.exclude_pod_labels"),
        containers: reader.read_words("kubernetes.containers"),
        exclude_containers: reader.read_words("kubernetes.exclude_containers"),
        sandboxed_handlers: reader.read_words("kubernetes.sandboxed_handlers"),
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn read_log(reader: &mut SettingReader<'_>) -> LogConfig {
    let filter = reader.read_with("log.filter", |text| {
        // The library takes a misspelled level for a target, and then logs everything that target has to say.
        let pairs = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part.trim()));
        match text.parse::<tracing_subscriber::filter::Targets>() {
            Ok(_) if pairs => Ok(text.to_owned()),
            _ => Err(format!("is not a level ({}) or target=level pairs", LEVELS.join(", "))),
        }
    });
    let json = reader.read_choice("log.format", &[("text", false), ("json", true)]);
    LogConfig { filter, format: if json { LogFormat::Json } else { LogFormat::Text } }
}

/// One thread for every two cores receives far more than a node's containers send, and leaves the other to them.
fn resolve_shard_count(wanted: usize) -> usize {
    if wanted > 0 {
        return wanted;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).clamp(1, 8)
}
