//! Mistakes in a configuration, each with the place where it was made.

use super::layers::{Layers, SettingOrigin};
use super::setting::Setting;

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

    /// A value that is written for a setting and cannot be used.
    pub(super) fn value(layers: &Layers, key: &str, reason: &str) -> Self {
        match layers.get(key) {
            Some(written) => Self::new(&written.origin, key, format!(" = {:?} {reason}", written.text)),
            None => Self::new(&SettingOrigin::Default, key, format!(" {reason}")),
        }
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

    /// Whether it concerns a setting of this table.
    pub(super) fn is_in(&self, table: &str) -> bool {
        self.key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
    }
}
