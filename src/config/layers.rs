//! Layers of settings: defaults below, then the file, then variables, then flags; and mistakes, each with the place where it
//! was made.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::kind::SettingKind;
use super::publish::{self, PUBLISHER_SETTINGS, PublisherEntry, PublisherLayers};
use super::setting::{Effect, SETTINGS, Setting};
use crate::files;

/// The environment of the process, or a substitute in tests.
pub trait Environment {
    /// The value of a variable.
    fn get(&self, name: &str) -> Option<String>;
    /// The names of all variables.
    fn variable_names(&self) -> Vec<String>;
    /// The host's name.
    fn hostname(&self) -> String;
    /// Whether the process is root.
    fn is_root(&self) -> bool;
    /// The user id.
    fn uid(&self) -> u32;
}

/// The environment this process runs in.
#[derive(Copy, Clone, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn variable_names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }

    fn hostname(&self) -> String {
        nix::unistd::gethostname()
            .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    fn is_root(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    fn uid(&self) -> u32 {
        nix::unistd::geteuid().as_raw()
    }
}

/// A value as written, and its source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingValue {
    /// The text; a list's words are joined by commas.
    pub text: String,
    /// Its source.
    pub origin: SettingOrigin,
}

/// The value of every setting, from the source with the highest precedence.
#[derive(Clone, Debug)]
pub struct Layers {
    defaults: BTreeMap<&'static str, String>,
    written: BTreeMap<&'static str, SettingValue>,
    publishers: PublisherLayers,
}

impl Layers {
    /// The defaults, some of which depend on the user and the machine.
    #[must_use]
    pub fn with_defaults(environment: &dyn Environment) -> Self {
        let runtime_dir = runtime_dir(environment);
        let default = |setting: &Setting| match setting.key {
            "node" => environment.hostname(),
            "admin.socket" => format!("{runtime_dir}/admin.sock"),
            _ => setting.default.to_owned(),
        };
        let defaults: BTreeMap<_, _> =
            SETTINGS.iter().map(|setting| (setting.key, default(setting))).collect();
        let written = defaults
            .iter()
            .map(|(key, text)| (*key, SettingValue { text: text.clone(), origin: SettingOrigin::Default }));
        Self { written: written.collect(), defaults, publishers: PublisherLayers::default() }
    }

    /// The default text of a setting.
    pub(super) fn default_of(&self, setting: &Setting) -> &str {
        self.defaults.get(setting.key).map_or(setting.default, String::as_str)
    }

    /// The text and source of a setting.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&SettingValue> {
        self.written.get(key)
    }

    /// All settings in the order of the table, with their text and source.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, &SettingValue)> {
        SETTINGS.iter().filter_map(|setting| Some((setting, self.written.get(setting.key)?)))
    }

    /// The same layers in an agent that ran with `old` when it read them: settings that take effect at a restart have their old
    /// values.
    #[must_use]
    pub fn applied_over(mut self, old: &Self) -> Self {
        for setting in SETTINGS.iter().filter(|setting| setting.effect == Effect::Restart) {
            match old.written.get(setting.key) {
                Some(written) => self.written.insert(setting.key, written.clone()),
                None => self.written.remove(setting.key),
            };
        }
        self
    }

    /// An error in a setting of a publisher, at the place where it is set.
    #[must_use]
    pub fn publisher_error(&self, name: &str, key: &str, reason: &str) -> Option<ConfigError> {
        let mut publishers = self.publishers.iter();
        publishers
            .find(|(written, _)| *written == name)
            .map(|(_, written)| written.value_error(name, key, reason))
    }

    /// What is said about publishers.
    pub(super) fn publisher_layers(&self) -> &PublisherLayers {
        &self.publishers
    }

    /// All settings of all publishers, in the order of their table, with their text and source.
    pub fn publisher_entries(&self) -> impl Iterator<Item = PublisherEntry<'_>> {
        self.publishers.entries()
    }

    /// Checks the files that publishers name; returns the errors.
    #[must_use]
    pub fn check_files(&self) -> Vec<ConfigError> {
        publish::check_files(&self.publishers)
    }

    /// Sets a value.
    ///
    /// # Errors
    /// When there is no such setting.
    pub fn set_value(&mut self, key: &str, text: String, origin: SettingOrigin) -> Result<(), ConfigError> {
        if let Some((name, key)) = publish::split_publisher_key(key) {
            return self.publishers.set_value(name, key, SettingValue { text, origin });
        }
        match Setting::find(key) {
            Some(setting) => {
                self.written.insert(setting.key, SettingValue { text, origin });
                Ok(())
            }
            None => Err(ConfigError::unknown_setting(key, &origin)),
        }
    }

    /// Sets the values of a file; returns its errors.
    pub fn add_file(&mut self, path: &Path) -> Vec<ConfigError> {
        let name = path.display().to_string();
        match files::read_to_string(path) {
            Ok(text) => self.add_toml(&text, &name),
            Err(error) => vec![ConfigError::unreadable_file(&name, &error.to_string())],
        }
    }

    /// Sets the values in a file's text; returns its errors.
    pub fn add_toml(&mut self, text: &str, name: &str) -> Vec<ConfigError> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let line_of = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let mut found: Vec<ConfigError> = errors
            .iter()
            .map(|error| {
                let line = error.span().map_or(1, |span| line_of(span.start));
                ConfigError::invalid_syntax(&SettingOrigin::File(name.to_owned(), line), error.message())
            })
            .collect();
        let at = |start| SettingOrigin::File(name.to_owned(), line_of(start));
        self.add_table("", table.get_ref(), &at, &mut found);
        found
    }

    fn add_table(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        at: &dyn Fn(usize) -> SettingOrigin,
        found: &mut Vec<ConfigError>,
    ) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let origin = at(name.span().start);
            let written = match value.get_ref() {
                DeValue::Table(inner) if prefix == PUBLISHERS => {
                    match self.publishers.add_publisher(name.get_ref(), &origin).map(drop) {
                        Ok(()) => self.add_table(&format!("{key}."), inner, at, found),
                        Err(error) => found.push(error),
                    }
                    continue;
                }
                DeValue::Table(inner) if SETTINGS.iter().any(|s| s.key.starts_with(&format!("{key}."))) => {
                    self.add_table(&format!("{key}."), inner, at, found);
                    continue;
                }
                value => text_of(value),
            };
            let result = match (written, find_kind(&key)) {
                (None, Some(kind)) => Err(ConfigError::not_a_value(&key, &kind, &origin)),
                (text, _) => self.set_value(&key, text.unwrap_or_default(), origin),
            };
            found.extend(result.err());
        }
    }

    /// Writes what variables say. Other variables that start with `TALLYPORT_` are ignored: Kubernetes makes some for
    /// every service.
    pub fn add_variables(&mut self, environment: &dyn Environment) {
        for setting in SETTINGS {
            let name = setting.variable_name();
            if let Some(text) = environment.get(&name) {
                self.written
                    .insert(setting.key, SettingValue { text, origin: SettingOrigin::Variable(name) });
            }
        }
        self.publishers.add_variables(environment);
    }
}

/// The share of equal characters from which a variable is taken for a misspelt setting. Variables that Kubernetes makes for a service
/// of the agent, such as `TALLYPORT_SERVICE_HOST`, are less similar to any setting.
const SIMILAR: f64 = 0.8;

/// Variables that set nothing although their names are close to that of a setting, each with the setting's variable.
#[must_use]
pub fn find_misspelt_variables(environment: &dyn Environment) -> Vec<(String, String)> {
    let settings: Vec<String> = SETTINGS.iter().map(Setting::variable_name).collect();
    let mut names = environment.variable_names();
    names.sort_unstable();
    let misspelt = |name: String| {
        let text = name.strip_prefix("TALLYPORT_").filter(|_| !settings.contains(&name))?;
        let likeness = |setting: &str| {
            strsim::normalized_damerau_levenshtein(setting.trim_start_matches("TALLYPORT_"), text)
        };
        let alike = settings.iter().map(|setting| (likeness(setting), setting));
        let (share, nearest) = alike.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (share >= SIMILAR).then(|| (name.clone(), nearest.clone()))
    };
    names.into_iter().filter_map(misspelt).collect()
}

/// Prefix of the keys of a publisher's table.
const PUBLISHERS: &str = "publish.";

/// The form of values of a key, or one of several where that depends on the type of a publisher.
fn find_kind(key: &str) -> Option<SettingKind> {
    match publish::split_publisher_key(key) {
        Some((_, key)) => {
            PUBLISHER_SETTINGS.iter().find(|setting| setting.key == key).map(|setting| setting.kind)
        }
        None => Setting::find(key).map(|setting| setting.kind),
    }
}

/// The text of a single value, or of a list of them.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(switch) => Some(switch.to_string()),
        DeValue::Array(values) => {
            let words = values.iter().map(|value| match value.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                DeValue::Integer(number) => Some(number.to_string()),
                DeValue::Float(number) => Some(number.to_string()),
                _ => None,
            });
            words.collect::<Option<Vec<_>>>().map(|words| words.join(","))
        }
        _ => None,
    }
}

/// The default directory of the admin socket.
fn runtime_dir(environment: &dyn Environment) -> String {
    if environment.is_root() {
        return "/run/tallyport".to_owned();
    }
    match environment.get("XDG_RUNTIME_DIR").filter(|dir| dir.starts_with('/')) {
        Some(dir) => format!("{}/tallyport", dir.trim_end_matches('/')),
        None => {
            let temporary = environment.get("TMPDIR").filter(|dir| dir.starts_with('/'));
            let temporary = temporary.unwrap_or_else(|| "/tmp".to_owned());
            format!("{}/tallyport-{}", temporary.trim_end_matches('/'), environment.uid())
        }
    }
}

/// Where a value was set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SettingOrigin {
    /// Nowhere: it is the default.
    Default,
    /// A file, at a line.
    File(String, usize),
    Variable(String),
    Flag(String),
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name, line) => write!(f, "{name}:{line}"),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}
