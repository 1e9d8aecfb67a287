//! A file in CRI-O's `crio.conf.d`, of which the last that sets a value wins.

use toml_edit::Item;

use super::tables::{edit, get, give_back, make, read, set, text};
use super::{Entry, Garbled, Mechanism};

pub(super) const FILE: &str = "/etc/crio/crio.conf.d/99-tallyport.conf";
pub(super) const RESTART: &str = "systemctl restart crio";
const RUNTIME: [&str; 2] = ["crio", "runtime"];
const DEFAULT: &str = "default_runtime";
/// Where the runtime keeps the state of its containers, apart from other handlers' as CRI-O has it.
const STATE: &str = "/run/tallyport-crio";

/// What stands under a handler's name.
pub(super) fn found(file: &str, name: &str) -> Result<Option<Entry>, Garbled> {
    let document = read(file)?;
    let Some(runtime) = get(document.as_table(), &RUNTIME).and_then(Item::as_table_like) else {
        return Ok(None);
    };
    let handler = get(runtime, &["runtimes", name]).and_then(Item::as_table_like);
    let default = text(runtime, &[DEFAULT]).as_deref() == Some(name);
    Ok(handler.map(|handler| Entry {
        mechanism: Mechanism::Wrapper,
        name: name.to_owned(),
        path: text(handler, &["runtime_path"]).unwrap_or_default(),
        default,
    }))
}

pub(super) fn install(file: &str, entry: &Entry) -> Result<String, Garbled> {
    edit(file, super::HEADER, |document| {
        let runtime = make(document.as_table_mut(), &RUNTIME)?;
        if entry.default {
            set(runtime, DEFAULT, entry.name.as_str());
        }
        let handler = make(runtime, &["runtimes", &entry.name])?;
        set(handler, "runtime_path", entry.path.as_str());
        for (key, value) in [("runtime_type", "oci"), ("runtime_root", STATE)] {
            if handler.get(key).is_none() {
                set(handler, key, value);
            }
        }
        Ok(())
    })
}

/// Takes an entry away; the default becomes what it was `before`.
pub(super) fn remove(file: &str, entry: &Entry, before: &str) -> Result<String, Garbled> {
    let mut document = read(file)?;
    let runtime = make(document.as_table_mut(), &RUNTIME)?;
    if entry.default {
        let was = read(before).ok();
        let was = was.and_then(|was| text(was.as_table(), &[&RUNTIME[..], &[DEFAULT]].concat()));
        give_back(runtime, DEFAULT, was, &entry.name);
    }
    make(runtime, &["runtimes"])?.remove(&entry.name);
    Ok(document.to_string())
}
