//! podman's `containers.conf`: a runtime, or a directory of hooks.
//!
//! A list in one file replaces the same list in files that are read earlier, so a new list here starts with the current
//! values.

use toml_edit::{Array, Item, Table};

use super::tables::{
    add_to_list, edit_document, ensure_table, get, get_string, give_back, read, remove_from_list, set_value,
    string_list,
};
use super::{EngineEntry, Garbled, Mechanism};

pub(super) const FILE: &str = "/etc/containers/containers.conf.d/99-tallyport.conf";
pub(super) const RESTART: &str = "nothing has to be restarted: podman reads it at its next start";
/// Files that are read before ours.
pub(super) const OTHERS: [&str; 2] =
    ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"];
/// The name of the hook's file.
pub(super) const HOOK: &str = "tallyport.json";
const ENGINE: &str = "engine";
const JSON: &str = "runtime_supports_json";
const HOOKS: &str = "hooks_dir";

/// The lists that apply if our file has none.
#[derive(Clone, Debug)]
pub(super) struct Usual {
    json: Vec<String>,
    hooks: Vec<String>,
}

impl Default for Usual {
    /// podman's built-in lists.
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            json: list(&["crun", "runc", "kata", "runsc", "youki", "krun"]),
            hooks: list(&["/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d"]),
        }
    }
}

impl Usual {
    /// Applies the lists of a file that is read before ours.
    pub(super) fn override_with(mut self, file: &str) -> Self {
        if let Ok(document) = read(file) {
            let list = |key| string_list(get(document.as_table(), &[ENGINE, key]));
            self.json = list(JSON).unwrap_or(self.json);
            self.hooks = list(HOOKS).unwrap_or(self.hooks);
        }
        self
    }
}

/// The entry with a runtime's name, or our directory of hooks.
pub(super) fn find_entry(file: &str, name: &str) -> Result<Option<EngineEntry>, Garbled> {
    let document = read(file)?;
    let runtime = string_list(get(document.as_table(), &[ENGINE, "runtimes", name]));
    let default = get_string(document.as_table(), &[ENGINE, "runtime"]).as_deref() == Some(name);
    let directories = string_list(get(document.as_table(), &[ENGINE, HOOKS])).unwrap_or_default();
    let ours = directories.into_iter().find(|path| super::is_ours(path));
    let (mechanism, path) = match (runtime, ours) {
        (Some(paths), _) => (Mechanism::Wrapper, paths.into_iter().next().unwrap_or_default()),
        (None, Some(path)) => (Mechanism::Hook, path),
        (None, None) => return Ok(None),
    };
    Ok(Some(EngineEntry { mechanism, name: name.to_owned(), path, default }))
}

pub(super) fn add_entry(file: &str, entry: &EngineEntry, usual: &Usual) -> Result<String, Garbled> {
    edit_document(file, super::HEADER, |document| {
        let engine = document.entry(ENGINE).or_insert(Item::Table(Table::new()));
        let engine = engine.as_table_like_mut().ok_or_else(|| Garbled("engine is not a table".to_owned()))?;
        if entry.mechanism == Mechanism::Hook {
            return add_to_list(engine, HOOKS, &usual.hooks, &entry.path);
        }
        if entry.default {
            set_value(engine, "runtime", entry.name.as_str());
        }
        // Without this, podman cannot parse the wrapper's error messages.
        add_to_list(engine, JSON, &usual.json, &entry.name)?;
        set_value(ensure_table(engine, &["runtimes"])?, &entry.name, Array::from_iter([entry.path.as_str()]));
        Ok(())
    })
}

/// Removes an entry, and restores the default of `before`.
pub(super) fn remove_entry(file: &str, entry: &EngineEntry, before: &str) -> Result<String, Garbled> {
    let mut document = read(file)?;
    let engine = ensure_table(document.as_table_mut(), &[ENGINE])?;
    if entry.mechanism == Mechanism::Hook {
        remove_from_list(engine, HOOKS, &entry.path);
        return Ok(document.to_string());
    }
    if entry.default {
        let was =
            read(before).ok().and_then(|document| get_string(document.as_table(), &[ENGINE, "runtime"]));
        give_back(engine, "runtime", was, &entry.name);
    }
    remove_from_list(engine, JSON, &entry.name);
    ensure_table(engine, &["runtimes"])?.remove(&entry.name);
    Ok(document.to_string())
}

/// The hook with which podman lets the wrapper edit a container's configuration.
pub(super) fn render_hook(wrapper: &str) -> String {
    let hook = serde_json::json!({
        "version": "1.0.0",
        "hook": {"path": wrapper, "args": ["tallyport-oci", "precreate"], "timeout": 3},
        "when": {"always": true},
        "stages": ["precreate"],
    });
    format!("{hook:#}\n")
}
