//! From what was written to what it means, with every mistake found on the way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::layers::{Layers, Origin};
use super::setting::{Kind, Setting};
use super::value;
use super::{
    Admin, AfterHandOver, Config, Containers, Guarding, Kubernetes, Listeners, Log, LogFormat, NodeLimits,
    Nri, PodMode, Process, Unix, UnixMode, WindowLog,
};
use super::{http, labels, prometheus};
use crate::aggregate::{Counting, GaugeSign, Limits, Mode, Settings, TimerUnit};
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
    fn new(origin: &Origin, key: &str, reason: String) -> Self {
        let place = match origin {
            Origin::Default => String::new(),
            origin => format!("{origin}: "),
        };
        Self { place, key: key.to_owned(), reason }
    }

    pub(super) fn unknown(key: &str, origin: &Origin) -> Self {
        let nearest =
            Setting::nearest(key).map_or(String::new(), |nearest| format!("; did you mean {nearest}?"));
        Self::new(origin, key, format!(" is not a setting{nearest}"))
    }

    pub(super) fn not_a_value(setting: &Setting, origin: &Origin) -> Self {
        Self::new(origin, setting.key, format!(" takes {}", setting.kind.form()))
    }

    pub(super) fn syntax(origin: &Origin, message: &str) -> Self {
        Self::new(origin, "", message.to_owned())
    }

    pub(super) fn unreadable(name: &str, why: &str) -> Self {
        Self { place: format!("{name}: "), key: String::new(), reason: format!("cannot be read: {why}") }
    }
}

/// Entries that a list may have. Many lists are of patterns, each of which is compared with names that others choose.
const MOST_WORDS: usize = 256;
/// Bytes that an entry may have: as many as a filter of a query.
const LONGEST_WORD: usize = 1024;

/// Reads settings one by one; a wrong one is noted and stands for its type's zero, which nobody gets to see.
pub(super) struct Reader<'l> {
    layers: &'l Layers,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn text(&self, key: &str) -> String {
        self.layers.get(key).map_or(String::new(), |written| written.text.clone())
    }

    fn kind(key: &str) -> Kind {
        Setting::find(key).map_or(Kind::Text, |setting| setting.kind)
    }

    pub(super) fn wrong(&mut self, key: &str, reason: &str) {
        let origin = self.layers.get(key).map_or(Origin::Default, |written| written.origin.clone());
        let text = self.text(key);
        self.errors.push(ConfigError::new(&origin, key, format!(" = {text:?} {reason}")));
    }

    pub(super) fn read<T: Default>(&mut self, key: &str, read: impl FnOnce(&str) -> Result<T, String>) -> T {
        match read(self.text(key).trim()) {
            Ok(value) => value,
            Err(reason) => {
                self.wrong(key, &reason);
                T::default()
            }
        }
    }

    fn count(&mut self, key: &str) -> u64 {
        let form = Self::kind(key).form();
        let (least, most) = match Self::kind(key) {
            Kind::Count(least, most) => (least, most),
            _ => (0, u64::MAX),
        };
        self.read(key, |text| {
            let number = text.parse().ok().filter(|number| (least..=most).contains(number));
            number.ok_or_else(|| format!("is not {form}"))
        })
    }

    pub(super) fn usize(&mut self, key: &str) -> usize {
        usize::try_from(self.count(key)).unwrap_or(usize::MAX)
    }

    fn rate(&mut self, key: &str) -> Option<u64> {
        let form = Self::kind(key).form();
        self.read(key, |text| match text {
            "unlimited" => Ok(None),
            text => text.parse().ok().filter(|n| *n > 0).map(Some).ok_or_else(|| format!("is not {form}")),
        })
    }

    pub(super) fn size(&mut self, key: &str) -> usize {
        let form = Self::kind(key).form();
        let (least, most) = match Self::kind(key) {
            Kind::Size(least, most) => (least, most),
            _ => (0, u64::MAX),
        };
        self.read(key, |text| {
            let bytes = value::size(text)?;
            let fits = (least..=most).contains(&bytes);
            fits.then(|| usize::try_from(bytes).unwrap_or(usize::MAX)).ok_or_else(|| format!("is not {form}"))
        })
    }

    pub(super) fn time(&mut self, key: &str) -> Duration {
        let form = Self::kind(key).form();
        let (least, most) = match Self::kind(key) {
            Kind::Time(least, most) => (Duration::from_millis(least), Duration::from_millis(most)),
            _ => (Duration::ZERO, Duration::MAX),
        };
        self.read(key, |text| {
            let time = value::time(text)?;
            (least..=most).contains(&time).then_some(time).ok_or_else(|| format!("is not {form}"))
        })
    }

    pub(super) fn switch(&mut self, key: &str) -> bool {
        self.read(key, |text| text.parse().map_err(|_| "is not true or false".to_owned()))
    }

    pub(super) fn choice<T: Copy + Default>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        let form = Self::kind(key).form();
        self.read(key, |text| {
            let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
            found.ok_or_else(|| format!("is not {form}"))
        })
    }

    pub(super) fn words(&mut self, key: &str) -> Vec<String> {
        let form = Self::kind(key).form();
        let Kind::Words(known) = Self::kind(key) else { return Vec::new() };
        self.read(key, |text| {
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

    fn path(&mut self, key: &str) -> PathBuf {
        self.read(key, |text| {
            let path = PathBuf::from(text);
            path.is_absolute().then_some(path).ok_or_else(|| "is not an absolute path".to_owned())
        })
    }

    /// A path that need not be said.
    pub(super) fn path_or_none(&mut self, key: &str) -> Option<PathBuf> {
        if self.text(key).is_empty() {
            return None;
        }
        Some(self.path(key)).filter(|path| !path.as_os_str().is_empty())
    }
}

const GAUGE_SIGNS: [(&str, GaugeSign); 3] =
    [("auto", GaugeSign::Auto), ("delta", GaugeSign::Delta), ("absolute", GaugeSign::Absolute)];

/// Reads everything.
pub(super) fn resolve(layers: &Layers) -> Result<Config, ConfigErrors> {
    let mut reader = Reader { layers, errors: Vec::new() };
    let admin = admin(&mut reader);
    let (prometheus, counting) = prometheus::read(&mut reader);
    let config = Config {
        node: node(&mut reader),
        node_labels: node_labels(&mut reader),
        state_dir: state_dir(&mut reader, &admin.socket),
        http: http::read(&mut reader),
        admin,
        aggregation: aggregation(&mut reader, counting),
        window_log: WindowLog {
            enabled: reader.switch("windows.log"),
            size: reader.size("windows.log_size"),
            checkpoint: reader.time("windows.checkpoint"),
            checkpoint_rate: reader.size("windows.checkpoint_rate"),
        },
        gauge_sign: reader.choice("statsd.gauge_sign", &GAUGE_SIGNS),
        timer_unit: reader
            .choice("statsd.timer_unit", &[("ms", TimerUnit::Milliseconds), ("s", TimerUnit::Seconds)]),
        listeners: Listeners {
            port: u16::try_from(reader.count("listeners.port")).unwrap_or_default(),
            receive_buffer: reader.size("listeners.receive_buffer"),
            receive_buffers: reader.size("listeners.receive_buffers"),
            receive_buffer_max: reader.size("listeners.receive_buffer_max"),
            rest: reader.time("listeners.rest"),
            guard: reader.choice("listeners.guard", &GUARDING),
        },
        node_limits: NodeLimits {
            containers: reader.usize("limits.containers"),
            memory: reader.size("limits.node_memory"),
            remembered: reader.usize("limits.remembered"),
        },
        containers: Containers {
            reservation_ttl: reader.time("containers.reservation_ttl"),
            tombstone: reader.time("containers.tombstone"),
            adopt_mute: reader.switch("containers.adopt_mute"),
        },
        presets: reader.words("env.presets"),
        unix: unix(&mut reader),
        nri: nri(&mut reader),
        kubernetes: kubernetes(&mut reader),
        dcos_host: dcos_host(&mut reader),
        prometheus,
        log: log(&mut reader),
        process: Process {
            shards: shards(reader.usize("agent.shards")),
            gather: reader.time("agent.gather"),
            drain_deadline: reader.time("agent.drain_deadline"),
            after_hand_over: reader.choice(
                "agent.after_hand_over",
                &[("end", AfterHandOver::End), ("wait", AfterHandOver::Wait)],
            ),
            instance: instance(&mut reader),
        },
    };
    if reader.errors.is_empty() { Ok(config) } else { Err(ConfigErrors(reader.errors)) }
}

fn node(reader: &mut Reader<'_>) -> String {
    reader.read("node", |text| {
        let sound = !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
        sound.then(|| text.to_owned()).ok_or_else(|| "is not a name of 1 to 256 bytes".to_owned())
    })
}

fn instance(reader: &mut Reader<'_>) -> String {
    reader.read("agent.instance", |text| {
        let sound = text.len() <= 256 && !text.chars().any(char::is_control);
        sound
            .then(|| text.to_owned())
            .ok_or_else(|| "is longer than 256 bytes or has control characters".to_owned())
    })
}

fn node_labels(reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    const KEY: &str = "node_labels";
    let Some(path) = reader.path_or_none(KEY) else { return BTreeMap::new() };
    let text = match crate::files::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            reader.wrong(KEY, &format!("cannot be read: {error}"));
            return BTreeMap::new();
        }
    };
    let name = path.display().to_string();
    labels::parse(&text).unwrap_or_else(|mistakes| {
        let at = |(line, why): (usize, String)| ConfigError::syntax(&Origin::File(name.clone(), line), &why);
        reader.errors.extend(mistakes.into_iter().map(at));
        BTreeMap::new()
    })
}

fn admin(reader: &mut Reader<'_>) -> Admin {
    let socket = reader.path("admin.socket");
    // The kernel's sun_path has 108 bytes, the last for a zero; beside it there is one with `.fd` behind its name.
    if socket.as_os_str().len() > 104 {
        reader.wrong("admin.socket", "is longer than the 104 bytes that it may have");
    }
    let mode = reader.read("admin.mode", |text| {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.ok_or_else(|| "is not permissions in octal, such as \"0660\"".to_owned())
    });
    Admin { socket, mode }
}

fn state_dir(reader: &mut Reader<'_>, socket: &Path) -> PathBuf {
    if reader.text("state_dir").is_empty() {
        return socket.parent().unwrap_or(Path::new("/")).join("state");
    }
    reader.path("state_dir")
}

fn aggregation(reader: &mut Reader<'_>, counting: Counting) -> Settings {
    let styles = reader.words("statsd.tag_styles");
    Settings {
        window: whole_seconds(reader),
        keep: reader.usize("windows.keep"),
        gauge_carry: reader.time("windows.gauge_carry"),
        series_idle: reader.time("windows.series_idle"),
        tag_styles: style::read(styles.iter().map(String::as_str)).unwrap_or(TagStyles::NONE),
        limits: Limits {
            mode: reader.choice("limits.mode", &[("enforce", Mode::Enforce), ("observe", Mode::Observe)]),
            datagrams_per_second: reader.rate("limits.datagrams_per_second"),
            bytes_per_second: reader.rate("limits.bytes_per_second"),
            series: reader.usize("limits.series"),
            name_bytes: reader.size("limits.name_bytes"),
            tags_bytes: reader.size("limits.tags_bytes"),
            late_records: reader.usize("limits.late_records"),
            memory: reader.size("limits.memory"),
        },
        counting,
    }
}

/// A window is a whole number of seconds, so that its ends are readable and timestamps, which are whole seconds too,
/// fall into one window.
fn whole_seconds(reader: &mut Reader<'_>) -> Duration {
    let window = reader.time("windows.length");
    if window.subsec_nanos() != 0 {
        reader.wrong("windows.length", "is not a whole number of seconds");
    }
    window
}

fn dcos_host(reader: &mut Reader<'_>) -> Option<IpAddr> {
    reader.read("dcos.host", |text| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| "is not an IP address".to_owned()),
    })
}

const GUARDING: [(&str, Guarding); 3] =
    [("auto", Guarding::Auto), ("off", Guarding::Off), ("required", Guarding::Required)];

/// The path inside containers. Its directory is mounted, so it must not be one that containers need for anything else.
fn unix(reader: &mut Reader<'_>) -> Unix {
    let modes = [("off", UnixMode::Off), ("opt-in", UnixMode::OptIn), ("all", UnixMode::All)];
    let path = reader.path("unix.path");
    let parent = path.parent().unwrap_or(Path::new("/"));
    let shared =
        ["/var/run", "/var/lib", "/var/tmp", "/var/log", "/usr/bin", "/usr/lib", "/usr/local", "/dev/shm"];
    let climbs = path.components().any(|part| !matches!(part, Component::RootDir | Component::Normal(_)));
    if path.as_os_str().len() > 107 {
        reader.wrong("unix.path", "is longer than the 107 bytes that a socket's path may have");
    } else if path.is_absolute()
        && (climbs || parent.components().count() < 3 || shared.iter().any(|at| parent == Path::new(at)))
    {
        reader.wrong(
            "unix.path",
            "is in a directory that containers need for other things; set one like /var/run/datadog/dsd.socket",
        );
    }
    Unix { mode: reader.choice("unix.mode", &modes), path, queue: reader.usize("unix.queue") }
}

fn nri(reader: &mut Reader<'_>) -> Nri {
    Nri {
        enabled: reader.switch("nri.enabled"),
        socket: reader.path("nri.socket"),
        index: u8::try_from(reader.count("nri.index")).unwrap_or_default(),
    }
}

fn kubernetes(reader: &mut Reader<'_>) -> Kubernetes {
    let modes = [("all", PodMode::All), ("opt-in", PodMode::OptIn), ("observe", PodMode::Observe)];
    Kubernetes {
        mode: reader.choice("kubernetes.mode", &modes),
        namespaces: reader.words("kubernetes.namespaces"),
        exclude_namespaces: reader.words("kubernetes.exclude_namespaces"),
        pod_labels: reader.words("kubernetes.pod_labels"),
        exclude_pod_labels: reader.words("kubernetes.exclude_pod_labels"),
        containers: reader.words("kubernetes.containers"),
        exclude_containers: reader.words("kubernetes.exclude_containers"),
        sandboxed_handlers: reader.words("kubernetes.sandboxed_handlers"),
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn log(reader: &mut Reader<'_>) -> Log {
    let filter = reader.read("log.filter", |text| {
        // The library takes a misspelled level for a target, and then logs everything that target has to say.
        let pairs = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part.trim()));
        match text.parse::<tracing_subscriber::filter::Targets>() {
            Ok(_) if pairs => Ok(text.to_owned()),
            _ => Err(format!("is not a level ({}) or target=level pairs", LEVELS.join(", "))),
        }
    });
    let json = reader.choice("log.format", &[("text", false), ("json", true)]);
    Log { filter, format: if json { LogFormat::Json } else { LogFormat::Text } }
}

/// One thread for every two cores receives far more than a node's containers send, and leaves the other to them.
fn shards(wanted: usize) -> usize {
    if wanted > 0 {
        return wanted;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).clamp(1, 8)
}
