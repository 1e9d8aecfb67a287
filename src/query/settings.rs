//! The settings of an agent.

use std::borrow::Cow;

use crate::config::{AgentConfig, Effect, Layers, PublisherEntry, Setting, SettingValue};
use crate::wire::SettingDocument;

/// Every setting in the order of the tables, those of publishers last. `config` is what was read from `layers`.
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
    let publishers = layers.publisher_entries().map(|entry| publisher_document(layers, &entry));
    layers.iter().map(document).chain(publishers).collect()
}

fn publisher_document(layers: &Layers, entry: &PublisherEntry<'_>) -> SettingDocument {
    // The default of the interval is another setting.
    let value = match (entry.setting.key, entry.raw_text()) {
        ("interval", "") => layers.get("windows.length").map_or("", |written| written.text.as_str()),
        (_, text) => text,
    };
    SettingDocument {
        key: Cow::Owned(entry.key()),
        value: value.to_owned(),
        origin: entry.origin().to_string(),
        reload: true,
        takes_effect: Cow::Borrowed(entry.setting.effect.effect_time()),
    }
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
