//! The settings of an agent.

use std::borrow::Cow;

use crate::config::{AgentConfig, Effect, Layers, Setting, SettingValue};
use crate::wire::SettingDocument;

/// Every setting in the order of the table. `config` is what was read from `layers`.
#[must_use]
pub fn setting_documents(config: &AgentConfig, layers: &Layers) -> Vec<SettingDocument> {
    let document = |(setting, written): (&'static Setting, &SettingValue)| {
        // Its default depends on another setting.
        let value = match setting.key {
            "state_dir" => config.state_dir.display().to_string(),
            _ => written.text.clone(),
        };
        SettingDocument {
            key: Cow::Borrowed(setting.key),
            value,
            origin: written.origin.to_string(),
            reload: setting.effect != Effect::Restart,
            takes_effect: Cow::Borrowed(setting.effect.effect_time()),
        }
    };
    layers.iter().map(document).collect()
}

#[cfg(test)]
mod tests {
    use crate::config::{SETTINGS, SettingKind};

    #[test]
    fn settings_name_files_with_secrets_and_contain_none() {
        let secret = |key: &str| {
            ["token", "password", "secret", "_key", "credential"].iter().any(|word| key.contains(word))
        };
        let mut found = 0;
        for setting in SETTINGS.iter().filter(|setting| secret(setting.key)) {
            let is_path = matches!(setting.kind, SettingKind::Path | SettingKind::OptionalPath);
            assert!(is_path, "{} would be shown by GET /v1/config", setting.key);
            found += 1;
        }
        assert!(found >= 2, "http.tokens and http.tls_key at least");
    }
}
