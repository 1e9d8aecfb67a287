//! A file in CRI-O's `crio.conf.d`; the last file that sets a value wins.

use toml_edit::Item;

use super::tables::{edit_document, ensure_table, get, get_string, give_back, read, set_value};
use super::{EngineEntry, Garbled, Mechanism};

pub(super) const FILE: &str = "/etc/crio/crio.conf.d/99-tallyport.conf";
pub(super) const RESTART: &str = "systemctl restart crio";
const RUNTIME: [&str; 2] = ["crio", "runtime"];
const DEFAULT: &str = "default_runtime";
/// The directory for the state of the runtime's containers; CRI-O uses a separate one for each handler.
const STATE: &str = "/run/tallyport-crio";

/// The entry with a handler's name.
pub(super) fn find_entry(file: &str, name: &str) -> Result<Option<EngineEntry>, Garbled> {
    let document = read(file)?;
    let Some(runtime) = get(document.as_table(), &RUNTIME).and_then(Item::as_table_like) else {
        return Ok(None);
    };
    let handler = get(runtime, &["runtimes", name]).and_then(Item::as_table_like);
    let default = get_string(runtime, &[DEFAULT]).as_deref() == Some(name);
    Ok(handler.map(|handler| EngineEntry {
        mechanism: Mechanism::Wrapper,
        name: name.to_owned(),
        path: get_string(handler, &["runtime_path"]).unwrap_or_default(),
        default,
    }))
}

pub(super) fn add_entry(file: &str, entry: &EngineEntry) -> Result<String, Garbled> {
    edit_document(file, super::HEADER, |document| {
        let runtime = ensure_table(document.as_table_mut(), &RUNTIME)?;
        if entry.default {
            set_value(runtime, DEFAULT, entry.name.as_str());
        }
        let handler = ensure_table(runtime, &["runtimes", &entry.name])?;
        set_value(handler, "runtime_path", entry.path.as_str());
        for (key, value) in [("runtime_type", "oci"), ("runtime_root", STATE)] {
            if handler.get(key).is_none() {
                set_value(handler, key, value);
            }
        }
        Ok(())
    })
}

/// Removes an entry, and restores the default of `before`.
pub(super) fn remove_entry(file: &str, entry: &EngineEntry, before: &str) -> Result<String, Garbled> {
    let mut document = read(file)?;
    let runtime = ensure_table(document.as_table_mut(), &RUNTIME)?;
    if entry.default {
        let was = read(before).ok();
        let was = was.and_then(|was| get_string(was.as_table(), &[&RUNTIME[..], &[DEFAULT]].concat()));
        give_back(runtime, DEFAULT, was, &entry.name);
    }
    ensure_table(runtime, &["runtimes"])?.remove(&entry.name);
    Ok(document.to_string())
}
