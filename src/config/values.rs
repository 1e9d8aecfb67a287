//! The value of every setting, parsed according to the kind in its row.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ConfigError;
use super::kind::{SettingKind, Value};
use super::layers::Layers;
use super::setting::{Effect, SETTINGS, Setting};
use crate::aggregate::Bounds;

/// The value of every setting.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct SettingValues(BTreeMap<&'static str, Value>);

impl SettingValues {
    /// Parses all values, and returns all errors. An invalid value is replaced by the default, so that the other
    /// settings can be checked as well; the caller does not use the values if there are errors.
    pub(super) fn read(layers: &Layers) -> (Self, Vec<ConfigError>) {
        let rows = layers.iter().map(|(setting, written)| {
            (setting.key, setting.kind, layers.default_of(setting), written.text.as_str())
        });
        let (mut values, wrong) = Self::read_rows(rows);
        let errors =
            wrong.into_iter().map(|(key, reason)| ConfigError::value(layers, key, &reason)).collect();
        values.fill_dependent_defaults();
        (values, errors)
    }

    /// Parses the values of rows, each a key, a kind, a default and a text, and returns the keys of invalid ones with the reasons.
    pub(super) fn read_rows<'a>(
        rows: impl Iterator<Item = (&'static str, SettingKind, &'a str, &'a str)>,
    ) -> (Self, Vec<(&'static str, String)>) {
        let mut wrong = Vec::new();
        let mut values = BTreeMap::new();
        for (key, kind, default, text) in rows {
            let value = kind.read(text.trim()).or_else(|reason| {
                wrong.push((key, reason));
                kind.read(default)
            });
            // A default may be invalid, too, such as the host's name, which has been reported already.
            values.insert(key, value.unwrap_or_else(|_| Value::Text(String::new())));
        }
        (Self(values), wrong)
    }

    /// Fills in defaults that depend on other settings or on the machine, so that they are compared and kept like any value.
    fn fill_dependent_defaults(&mut self) {
        if self.optional_path("state_dir").is_none() {
            let socket = self.path_value("admin.socket");
            let directory = socket.parent().unwrap_or(Path::new("/")).join("state");
            self.0.insert("state_dir", Value::Path(Some(directory)));
        }
        if self.count_value::<u64>("agent.shards") == 0 {
            self.0.insert("agent.shards", Value::Number(usual_shards()));
        }
    }

    /// These values, with those of `running` for settings whose change needs a restart.
    pub(super) fn applied_over(mut self, running: &Self) -> Self {
        for setting in SETTINGS.iter().filter(|setting| setting.effect == Effect::Restart) {
            self.0.insert(setting.key, running.get(setting.key).clone());
        }
        self
    }

    /// The settings whose values differ from those of `other`.
    pub(super) fn changed_from(&self, other: &Self) -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(|setting| self.get(setting.key) != other.get(setting.key))
    }

    /// Whether a value switches something on or changes how it works: it is not the default, `false` or `off`.
    pub(super) fn is_in_use(&self, setting: &Setting, layers: &Layers) -> bool {
        let value = self.get(setting.key);
        let is_default = setting.kind.read(layers.default_of(setting)).is_ok_and(|default| default == *value);
        !is_default && !matches!(value, Value::Switch(false) | Value::Word("off"))
    }

    /// Whether there is a row with this key. Only publishers of some types have all rows that readers ask for.
    pub(super) fn has_row(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The value of a row, if there is one with this key.
    pub(super) fn find(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    fn get(&self, key: &'static str) -> &Value {
        self.find(key).unwrap_or_else(|| panic!("{key} is not a row of the table of settings"))
    }

    pub(super) fn raw_text(&self, key: &'static str) -> String {
        match self.get(key) {
            Value::Text(text) => text.clone(),
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn path_value(&self, key: &'static str) -> PathBuf {
        match self.get(key) {
            Value::Path(Some(path)) => path.clone(),
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn optional_path(&self, key: &'static str) -> Option<PathBuf> {
        match self.get(key) {
            Value::Path(path) => path.clone(),
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn ip_value(&self, key: &'static str) -> Option<IpAddr> {
        match self.get(key) {
            Value::Ip(ip) => *ip,
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn address_value(&self, key: &'static str) -> SocketAddr {
        match self.get(key) {
            Value::Address(address) => *address,
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn bool_value(&self, key: &'static str) -> bool {
        match self.get(key) {
            Value::Switch(switch) => *switch,
            other => kind_mismatch(key, other),
        }
    }

    /// The choice that the word of a setting selects.
    pub(super) fn choice_value<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> T {
        let value = self.get(key);
        let chosen = choices.iter().find(|(word, _)| matches!(value, Value::Word(chosen) if chosen == word));
        chosen.map_or_else(|| kind_mismatch(key, value), |(_, choice)| *choice)
    }

    /// The word of a setting that is one of several.
    pub(super) fn word_value(&self, key: &'static str) -> &'static str {
        match self.get(key) {
            Value::Word(word) => word,
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn word_values(&self, key: &'static str) -> Vec<String> {
        match self.get(key) {
            Value::Words(words) => words.clone(),
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn bucket_bounds(&self, key: &'static str) -> Bounds {
        match self.get(key) {
            Value::Bounds(bounds) => bounds.clone(),
            other => kind_mismatch(key, other),
        }
    }

    /// A count, bytes or permissions.
    pub(super) fn count_value<T: TryFrom<u64>>(&self, key: &'static str) -> T {
        match self.get(key) {
            Value::Number(number) => {
                T::try_from(*number).unwrap_or_else(|_| kind_mismatch(key, self.get(key)))
            }
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn rate_value(&self, key: &'static str) -> Option<u64> {
        match self.get(key) {
            Value::Rate(rate) => *rate,
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn optional_duration(&self, key: &'static str) -> Option<Duration> {
        match self.get(key) {
            Value::OptionalTime(time) => *time,
            other => kind_mismatch(key, other),
        }
    }

    pub(super) fn duration_value(&self, key: &'static str) -> Duration {
        match self.get(key) {
            Value::Time(time) => *time,
            other => kind_mismatch(key, other),
        }
    }
}

/// A reader does not match the row of its setting. Every reader runs whenever a configuration is read, so this shows at
/// the first start whatever the file contains, and a test tries every word and every limit.
fn kind_mismatch(key: &str, value: &Value) -> ! {
    panic!("{key} is read as something else than its row says: {value:?}")
}

/// One thread for every two cores can receive far more than a node's containers send, and leaves the other core to
/// them.
fn usual_shards() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores as u64 / 2).clamp(1, 8)
}
