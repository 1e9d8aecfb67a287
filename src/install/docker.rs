//! dockerd's `daemon.json`.
//!
//! `runtimes` has every runtime except runc by name, and `default-runtime` is the name of the default one.

use serde_json::Value;

use super::json;
use super::{EngineEntry, Garbled, Mechanism};
use crate::oci::document;

pub(super) const FILE: &str = "/etc/docker/daemon.json";
pub(super) const RESTART: &str = "systemctl reload docker";
/// On a reload, dockerd keeps settings that are no longer in the file.
pub(super) const RESTART_REMOVED: &str = "systemctl restart docker (a reload does not remove settings); its containers stop unless live-restore is on";
const RUNTIMES: &str = "runtimes";
const DEFAULT: &str = "default-runtime";

fn garbled_error(error: &serde_json::Error) -> Garbled {
    Garbled(error.to_string())
}

/// dockerd treats an empty file like a missing one.
fn object_or_empty(text: &str) -> &str {
    if text.trim().is_empty() { "{}\n" } else { text }
}

fn parse_string(text: Option<&str>) -> Option<String> {
    serde_json::from_str(text?).ok()
}

/// The entry with a runtime's name.
pub(super) fn find_entry(text: &str, name: &str) -> Result<Option<EngineEntry>, Garbled> {
    let text = object_or_empty(text);
    let path = json::get(text, &[RUNTIMES, name, "path"]).map_err(|error| garbled_error(&error))?;
    let taken = json::get(text, &[RUNTIMES, name]).map_err(|error| garbled_error(&error))?.is_some();
    Ok(taken.then(|| EngineEntry {
        mechanism: Mechanism::Wrapper,
        name: name.to_owned(),
        path: parse_string(path).unwrap_or_default(),
        default: default(text).ok().flatten().as_deref() == Some(name),
    }))
}

fn default(text: &str) -> Result<Option<String>, Garbled> {
    let value = json::get(object_or_empty(text), &[DEFAULT]).map_err(|error| garbled_error(&error))?;
    Ok(parse_string(value))
}

pub(super) fn add_entry(text: &str, entry: &EngineEntry) -> Result<String, Garbled> {
    let edit = || {
        let path = document::to_json(&entry.path);
        let mut text = json::set_value(object_or_empty(text), &[RUNTIMES, &entry.name, "path"], &path)?;
        if entry.default {
            text = json::set_value(&text, &[DEFAULT], &document::to_json(&entry.name))?;
        }
        Ok(text)
    };
    edit().map_err(|error| garbled_error(&error))
}

/// Removes an entry, and restores the default of `before`.
pub(super) fn remove_entry(text: &str, entry: &EngineEntry, before: &str) -> Result<String, Garbled> {
    let was = if entry.default { default(before)? } else { None };
    let edit = || {
        let mut text = json::remove(text, &[RUNTIMES, &entry.name])?;
        let left: Option<Value> = json::get(&text, &[RUNTIMES])?.map(serde_json::from_str).transpose()?;
        if left.is_some_and(|left| left.as_object().is_some_and(serde_json::Map::is_empty)) {
            text = json::remove(&text, &[RUNTIMES])?;
        }
        match was.filter(|was| *was != entry.name) {
            Some(was) => json::set_value(&text, &[DEFAULT], &document::to_json(&was)),
            None if entry.default => json::remove(&text, &[DEFAULT]),
            None => Ok(text),
        }
    };
    edit().map_err(|error| garbled_error(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(default: bool) -> EngineEntry {
        EngineEntry {
            mechanism: Mechanism::Wrapper,
            name: "tallyport".to_owned(),
            path: "/usr/bin/tallyport-oci".to_owned(),
            default,
        }
    }

    const FILE: &str = "{\n    \"log-opts\": {\"max-size\": \"10m\"},\n    \"default-runtime\": \"nvidia\",\n    \"runtimes\": {\n        \"nvidia\": {\n            \"path\": \"nvidia-container-runtime\"\n        }\n    }\n}";

    #[test]
    fn a_runtime_is_added_and_everything_else_keeps_its_text() {
        let expected = FILE.replace(
            "        }\n    }\n}",
            "        },\n        \"tallyport\": {\"path\": \"/usr/bin/tallyport-oci\"}\n    }\n}",
        );
        assert_eq!(add_entry(FILE, &entry(false)).unwrap(), expected);
        let with_default = add_entry(FILE, &entry(true)).unwrap();
        assert_eq!(
            with_default,
            expected.replace("\"default-runtime\": \"nvidia\"", "\"default-runtime\": \"tallyport\"")
        );
        assert_eq!(add_entry(&with_default, &entry(true)).unwrap(), with_default, "twice is once");
        assert_eq!(find_entry(&with_default, "tallyport").unwrap(), Some(entry(true)));
        assert_eq!(find_entry(&expected, "tallyport").unwrap(), Some(entry(false)));
        assert_eq!(find_entry(FILE, "tallyport").unwrap(), None);
    }

    #[test]
    fn no_file_and_an_empty_one_are_begun() {
        let expected = "{\n  \"runtimes\": {\"tallyport\": {\"path\": \"/usr/bin/tallyport-oci\"}},\n  \"default-runtime\": \"tallyport\"\n}\n";
        assert_eq!(add_entry("", &entry(true)).unwrap(), expected);
        assert_eq!(add_entry(" \n", &entry(true)).unwrap(), expected);
    }

    #[test]
    fn taking_it_away_gives_the_default_back() {
        let installed = add_entry(FILE, &entry(true)).unwrap().replace("10m", "20m");
        assert_eq!(remove_entry(&installed, &entry(true), FILE).unwrap(), FILE.replace("10m", "20m"));
        let alone = add_entry("{\"debug\": true}", &entry(true)).unwrap();
        assert_eq!(remove_entry(&alone, &entry(true), "").unwrap(), "{\"debug\": true}");
    }

    #[test]
    fn what_dockerd_would_not_read_is_refused() {
        for text in ["{", "// comment\n{}", "[]", "{\"runtimes\": []}", "{\"runtimes\": {\"tallyport\": 7}}"]
        {
            assert!(add_entry(text, &entry(false)).is_err(), "{text}");
        }
    }
}
