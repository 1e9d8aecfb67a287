//! What the sources of settings say about publishers.

use std::collections::BTreeMap;

use super::super::error::ConfigError;
use super::super::layers::{Environment, SettingOrigin, SettingValue};
use super::setting::{PUBLISHER_SETTINGS, PublisherSetting, SinkType, VARIABLE_PREFIX};

/// The table that publishers are in.
pub(in crate::config) const TABLE: &str = "publish";
/// Maximum length of a name. It is part of file names and of a label of the agent's own metrics.
const LONGEST_NAME: usize = 32;

/// The values of all publishers that some source has set, by publisher and key.
#[derive(Clone, Default, Debug)]
pub(in crate::config) struct PublisherLayers(BTreeMap<String, WrittenPublisher>);

/// What is said about one publisher.
#[derive(Clone, Debug)]
pub(in crate::config) struct WrittenPublisher {
    /// Where it was named first.
    pub(in crate::config) origin: SettingOrigin,
    /// Its values, each from the source with the highest precedence.
    values: BTreeMap<&'static str, SettingValue>,
}

/// One setting of one publisher.
#[derive(Copy, Clone, Debug)]
pub struct PublisherEntry<'a> {
    name: &'a str,
    /// Its row.
    pub setting: &'static PublisherSetting,
    written: Option<&'a SettingValue>,
}

impl<'a> PublisherEntry<'a> {
    /// Its key in the configuration, such as `publish.mimir.url`.
    #[must_use]
    pub fn key(&self) -> String {
        full_key(self.name, self.setting.key)
    }

    /// Its text, as written or by default.
    #[must_use]
    pub fn raw_text(&self) -> &'a str {
        self.written.map_or(self.setting.default, |value| &value.text)
    }

    /// Its source.
    #[must_use]
    pub fn origin(&self) -> SettingOrigin {
        self.written.map_or(SettingOrigin::Default, |value| value.origin.clone())
    }
}

/// The parts of a key such as `publish.mimir.url`.
pub(in crate::config) fn split_publisher_key(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(TABLE)?.strip_prefix('.')?.split_once('.')
}

/// A key as `config show` and errors name it.
pub(in crate::config) fn full_key(name: &str, key: &str) -> String {
    format!("{TABLE}.{name}.{key}")
}

/// Whether a publisher may have this name.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(fits)
}

impl PublisherLayers {
    /// Notes that there is a publisher, even if nothing else is said about it.
    ///
    /// # Errors
    /// When it cannot have this name.
    pub(in crate::config) fn add_publisher(
        &mut self,
        name: &str,
        origin: &SettingOrigin,
    ) -> Result<&mut WrittenPublisher, ConfigError> {
        if !is_name(name) {
            let why = format!(" is no name of a publisher, which has 1 to {LONGEST_NAME} of a-z, 0-9 and -");
            return Err(ConfigError::new(origin, &format!("{TABLE}.{name}"), why));
        }
        Ok(self
            .0
            .entry(name.to_owned())
            .or_insert_with(|| WrittenPublisher { origin: origin.clone(), values: BTreeMap::new() }))
    }

    /// Sets a value.
    ///
    /// # Errors
    /// When the publisher cannot have this name, or no type of publisher has this setting.
    pub(in crate::config) fn set_value(
        &mut self,
        name: &str,
        key: &str,
        value: SettingValue,
    ) -> Result<(), ConfigError> {
        let publisher = self.add_publisher(name, &value.origin)?;
        match PUBLISHER_SETTINGS.iter().find(|setting| setting.key == key) {
            Some(setting) => {
                publisher.values.insert(setting.key, value);
                Ok(())
            }
            None => {
                let nearest = PublisherSetting::nearest_key(key)
                    .map_or(String::new(), |nearest| format!("; did you mean {}?", full_key(name, nearest)));
                let why = format!(" is not a setting of a publisher{nearest}");
                Err(ConfigError::new(&value.origin, &full_key(name, key), why))
            }
        }
    }

    /// Writes what variables say about publishers: those that other sources have named, and those whose type a variable sets.
    pub(in crate::config) fn add_variables(&mut self, environment: &dyn Environment) {
        for variable in environment.variable_names() {
            let named = variable.strip_prefix(VARIABLE_PREFIX).and_then(|rest| rest.strip_suffix("_TYPE"));
            let name = named.map(|name| name.to_lowercase().replace('_', "-"));
            // Kubernetes makes variables for services, whatever their names; one that fits no name is not meant for the agent.
            if let Some(name) = name.filter(|name| is_name(name)) {
                let _has_a_name = self.add_publisher(&name, &SettingOrigin::Variable(variable));
            }
        }
        let mut keys: Vec<&'static str> = PUBLISHER_SETTINGS.iter().map(|setting| setting.key).collect();
        keys.dedup();
        for (name, publisher) in &mut self.0 {
            for key in keys.iter().copied() {
                let variable = PublisherSetting::variable_name(name, key);
                if let Some(text) = environment.get(&variable) {
                    let origin = SettingOrigin::Variable(variable);
                    publisher.values.insert(key, SettingValue { text, origin });
                }
            }
        }
    }

    /// All settings of all publishers, except those without a type.
    pub(in crate::config) fn entries(&self) -> impl Iterator<Item = PublisherEntry<'_>> {
        self.0.iter().flat_map(|(name, written)| {
            let rows = written.sink_type().into_iter().flat_map(PublisherSetting::of_type);
            rows.map(move |setting| PublisherEntry { name, setting, written: written.get(setting.key) })
        })
    }

    /// The publishers, sorted by name.
    pub(in crate::config) fn iter(&self) -> impl Iterator<Item = (&str, &WrittenPublisher)> {
        self.0.iter().map(|(name, written)| (name.as_str(), written))
    }
}

impl WrittenPublisher {
    /// The value of a key, if a source has set it.
    pub(in crate::config) fn get(&self, key: &str) -> Option<&SettingValue> {
        self.values.get(key)
    }

    /// All values that a source has set.
    pub(in crate::config) fn iter(&self) -> impl Iterator<Item = (&'static str, &SettingValue)> {
        self.values.iter().map(|(key, value)| (*key, value))
    }

    /// Its type, if it is one.
    pub(in crate::config) fn sink_type(&self) -> Option<SinkType> {
        let written = self.get("type")?.text.trim();
        SinkType::ALL.into_iter().find(|sink| sink.as_str() == written)
    }

    /// An invalid value, or a value that is missing.
    pub(in crate::config) fn value_error(&self, name: &str, key: &str, reason: &str) -> ConfigError {
        let full = full_key(name, key);
        match self.get(key) {
            // An error may be logged and sent to the client that asks for a reload; a URL with a password must not be in it.
            Some(written) if may_be_secret(key) => {
                ConfigError::new(&written.origin, &full, format!(" {reason}"))
            }
            Some(written) => {
                ConfigError::new(&written.origin, &full, format!(" = {:?} {reason}", written.text))
            }
            None => ConfigError::new(&self.origin, &full, format!(" {reason}")),
        }
    }
}

/// Whether a wrong value of this setting may be a secret at the wrong place.
fn may_be_secret(key: &str) -> bool {
    matches!(key, "url" | "proxy" | "headers" | "user")
}
