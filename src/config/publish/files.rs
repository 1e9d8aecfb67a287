//! The files that publishers name.
//!
//! They are not part of reading a configuration: a command that only needs the address of the agent may run where they are not
//! readable, as the keeper of a `DaemonSet` does.

use std::path::Path;

use super::super::error::ConfigError;
use super::super::kind::SettingKind;
use super::layers::PublisherLayers;
use super::setting::PublisherSetting;
use crate::files;

/// Checks that the files can be used.
pub(in crate::config) fn check_files(layers: &PublisherLayers) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for (name, written) in layers.iter() {
        let rows = written.sink_type().into_iter().flat_map(PublisherSetting::of_type);
        for setting in rows {
            let check = match setting.kind {
                SettingKind::SecretFile => check_secret,
                SettingKind::InputFile => check_readable,
                _ => continue,
            };
            // What is no absolute path is reported when the value is read.
            let path = written.get(setting.key).map(|value| Path::new(value.text.trim()));
            if let Some(Err(why)) = path.filter(|path| path.is_absolute()).map(check) {
                errors.push(written.value_error(name, setting.key, &why));
            }
        }
    }
    errors
}

/// Checks that the agent can read a file of secrets, that others cannot, and that it contains something.
fn check_secret(path: &Path) -> Result<(), String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = files::open(path).and_then(|file| file.metadata()).map_err(unreadable)?;
    if files::is_open_to_others(&metadata) {
        return Err("can be read by everybody on this machine; chmod o= it".to_owned());
    }
    if metadata.len() == 0 {
        return Err("is empty".to_owned());
    }
    Ok(())
}

fn check_readable(path: &Path) -> Result<(), String> {
    files::open(path).map(drop).map_err(|error| format!("cannot be read: {error}"))
}
