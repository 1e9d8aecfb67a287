//! Mistakes in a configuration, each with the place where it was made.

use std::fmt;

use super::kind::SettingKind;
use super::layers::{Layers, SettingOrigin};
use super::setting::Setting;

/// An error in a configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}{key}{reason}")]
pub struct ConfigError {
    place: String,
    /// The file and the line, if it is in one.
    position: Option<(String, usize)>,
    key: String,
    reason: String,
    /// Whether a file could not be read at all.
    unreadable_file: bool,
}

/// All errors of a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In the order of the file. They are found in another: the syntax first, publishers last.
        let mut errors: Vec<&ConfigError> = self.0.iter().collect();
        errors.sort_by_key(|error| (error.position.is_none(), &error.position));
        for (index, error) in errors.into_iter().enumerate() {
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
    /// An invalid value of a setting.
    pub(super) fn value(layers: &Layers, key: &str, reason: &str) -> Self {
        match layers.get(key) {
            Some(written) => Self::new(&written.origin, key, format!(" = {:?} {reason}", written.text)),
            None => Self::new(&SettingOrigin::Default, key, format!(" {reason}")),
        }
    }

    pub(super) fn new(origin: &SettingOrigin, key: &str, reason: String) -> Self {
        let place = match origin {
            SettingOrigin::Default => String::new(),
            origin => format!("{origin}: "),
        };
        let position = match origin {
            SettingOrigin::File(name, line) => Some((name.clone(), *line)),
            _ => None,
        };
        Self { place, position, key: key.to_owned(), reason, unreadable_file: false }
    }

    pub(super) fn unknown_setting(key: &str, origin: &SettingOrigin) -> Self {
        let nearest =
            Setting::nearest_key(key).map_or(String::new(), |nearest| format!("; did you mean {nearest}?"));
        Self::new(origin, key, format!(" is not a setting{nearest}"))
    }

    pub(super) fn not_a_value(key: &str, kind: &SettingKind, origin: &SettingOrigin) -> Self {
        Self::new(origin, key, format!(" takes {}", kind.expected_form()))
    }

    pub(super) fn invalid_syntax(origin: &SettingOrigin, message: &str) -> Self {
        Self::new(origin, "", message.to_owned())
    }

    pub(super) fn unreadable_file(name: &str, why: &str) -> Self {
        Self {
            place: format!("{name}: "),
            position: None,
            key: String::new(),
            reason: format!("cannot be read: {why}"),
            unreadable_file: true,
        }
    }

    /// Whether it is about a file that cannot be read, and not about what a file says.
    #[must_use]
    pub fn is_unreadable_file(&self) -> bool {
        self.unreadable_file
    }

    /// The key that it is about; empty if it is about no setting.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Whether it is about a setting in this table.
    pub(super) fn is_in(&self, table: &str) -> bool {
        self.key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_listed_in_the_order_of_the_file() {
        let at =
            |line| ConfigError::new(&SettingOrigin::File("agent.toml".to_owned(), line), "k", String::new());
        let flag = ConfigError::new(&SettingOrigin::Flag("--set".to_owned()), "k", String::new());
        let text = ConfigErrors(vec![flag, at(14), at(2), at(12)]).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, ["agent.toml:2: k", "agent.toml:12: k", "agent.toml:14: k", "--set: k"]);
    }
}
