//! Where the settings that advice names are set.

use std::collections::BTreeMap;

use super::resolve::parse_response;
use crate::client::Client;
use crate::model::setting_name::name_places;
use crate::wire::SettingDocument;

/// What the running agent says of its configuration.
#[derive(Default)]
pub(super) struct SettingPlaces {
    /// The file that it has read.
    file: Option<String>,
    /// The sources of settings, by key; none without access to the admin socket.
    origins: BTreeMap<String, String>,
}

impl SettingPlaces {
    /// Asks the agent for the sources of its settings. `file` is the one that it has read.
    pub(super) async fn fetch_places(file: Option<String>, admin: &Client) -> Self {
        let settings: Vec<SettingDocument> = match admin.get("/v1/config").await {
            Ok(response) => parse_response(&response).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        Self { file, origins: settings.into_iter().map(|it| (it.key.into_owned(), it.origin)).collect() }
    }

    /// The advice with the place of each setting in it, if that is known.
    pub(super) fn name_in(&self, advice: &str) -> String {
        name_places(advice, |key| self.find_place(key))
    }

    /// A default is changed in the file. A value from a flag or a variable would hide what is written there.
    fn find_place(&self, key: &str) -> Option<String> {
        let file = self.file.as_deref();
        match self.origins.get(key).map_or("default", String::as_str) {
            "default" => file.map(|file| format!("in {file}")),
            origin if file.is_some_and(|file| origin.starts_with(file)) => Some(format!("in {origin}")),
            origin => Some(format!("(now set by {origin})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::setting_name::setting_name;

    fn named(file: Option<&str>, origin: Option<&str>) -> String {
        let places = SettingPlaces {
            file: file.map(str::to_owned),
            origins: origin
                .map(|origin| ("limits.series".to_owned(), origin.to_owned()))
                .into_iter()
                .collect(),
        };
        places.name_in(concat!("raise ", setting_name!("limits.series"), " and reload"))
    }

    #[test]
    fn the_file_the_line_or_the_flag_is_named() {
        let file = Some("/etc/tallyport/agent.toml");
        assert_eq!(named(file, None), "raise limits.series in /etc/tallyport/agent.toml and reload");
        assert_eq!(named(file, Some("default")), named(file, None));
        assert_eq!(
            named(file, Some("/etc/tallyport/agent.toml:7")),
            "raise limits.series in /etc/tallyport/agent.toml:7 and reload"
        );
        assert_eq!(
            named(file, Some("TALLYPORT_LIMITS_SERIES")),
            "raise limits.series (now set by TALLYPORT_LIMITS_SERIES) and reload"
        );
        assert!(named(None, Some("default")).contains("`tallyport config show limits.series --running`"));
    }
}
