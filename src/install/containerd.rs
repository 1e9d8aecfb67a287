//! The settings of the CRI plugin in containerd's `config.toml`.
//!
//! The runtime's table is copied from the current default, so that settings such as `SystemdCgroup` apply to both.

use toml_edit::{DocumentMut, Item, Table, TableLike, value};

use super::tables::{copy_table, ensure_table, get, get_string, give_back, read, set_value};
use super::{EngineEntry, Garbled, Mechanism};

pub(super) const FILE: &str = "/etc/containerd/config.toml";
pub(super) const RESTART: &str = "systemctl restart containerd";
/// containerd's shim for runc.
const SHIM: &str = "io.containerd.runc.v2";
/// The default runtime if the file does not set one.
const USUAL: &str = "runc";
const DEFAULT: &str = "default_runtime_name";
/// The content of a new file; containerd 1 and 2 both read this version.
const NEW: &str = "version = 2\n";

/// Parses a file; returns it with the path of the CRI plugin in its version.
fn open(file: &str) -> Result<(DocumentMut, [&'static str; 3]), Garbled> {
    let document = read(if file.trim().is_empty() { NEW } else { file })?;
    let version = document.get("version").and_then(Item::as_integer);
    let plugin = match version.unwrap_or(1) {
        2 => "io.containerd.grpc.v1.cri",
        3 | 4 => "io.containerd.cri.v1.runtime",
        1 => {
            let why = "its format is version 1, which containerd 2 does not read; write it anew with \
                       `containerd config migrate`, or begin it with `version = 2` where it has no plugins";
            return Err(Garbled(why.to_owned()));
        }
        version => return Err(Garbled(format!("format version {version} is not known here"))),
    };
    Ok((document, ["plugins", plugin, "containerd"]))
}

fn find_runtime<'a>(document: &'a DocumentMut, plugin: &[&str], name: &str) -> Option<&'a dyn TableLike> {
    get(document.as_table(), &[plugin, &["runtimes", name]].concat())?.as_table_like()
}

/// The entry with a runtime's name.
pub(super) fn find_entry(file: &str, name: &str) -> Result<Option<EngineEntry>, Garbled> {
    let (document, plugin) = open(file)?;
    let default = get_string(document.as_table(), &[&plugin[..], &[DEFAULT]].concat());
    Ok(find_runtime(&document, &plugin, name).map(|table| {
        let spec = get_string(table, &["base_runtime_spec"]).filter(|path| super::is_ours(path));
        EngineEntry {
            mechanism: if spec.is_some() { Mechanism::BaseSpec } else { Mechanism::Wrapper },
            name: name.to_owned(),
            path: spec.or_else(|| get_string(table, &["options", "BinaryName"])).unwrap_or_default(),
            default: default.as_deref() == Some(name),
        }
    }))
}

pub(super) fn add_entry(file: &str, entry: &EngineEntry) -> Result<String, Garbled> {
    let (mut document, plugin) = open(file)?;
    let model = runtime_template(&document, &plugin, &entry.name);
    let containerd = ensure_table(document.as_table_mut(), &plugin)?;
    if entry.default {
        set_value(containerd, DEFAULT, entry.name.as_str());
    }
    let runtimes = ensure_table(containerd, &["runtimes"])?;
    // containerd 1.x drops its built-in runc entry if the file names any runtime, and then its CRI plugin does not
    // start.
    if runtimes.is_empty() {
        let mut runc = Table::new();
        runc.insert("runtime_type", value(SHIM));
        runtimes.insert(USUAL, Item::Table(runc));
    }
    if runtimes.get(&entry.name).is_none() {
        runtimes.insert(&entry.name, Item::Table(model));
    }
    let ours = ensure_table(runtimes, &[&entry.name])?;
    match entry.mechanism {
        Mechanism::BaseSpec => set_value(ours, "base_runtime_spec", entry.path.as_str()),
        _ => {
            let options = ensure_table(ours, &["options"])?;
            set_value(options, "BinaryName", entry.path.as_str());
        }
    }
    Ok(document.to_string())
}

/// The table to copy for the new runtime: the default runtime if it uses runc's shim, else runc.
fn runtime_template(document: &DocumentMut, plugin: &[&str], name: &str) -> Table {
    let default = get_string(document.as_table(), &[plugin, &[DEFAULT]].concat());
    let names = default.iter().map(String::as_str).chain([USUAL]).filter(|other| *other != name);
    let of_runc =
        |table: &&dyn TableLike| get_string(*table, &["runtime_type"]).is_none_or(|shim| shim == SHIM);
    let found = names.filter_map(|name| find_runtime(document, plugin, name)).find(of_runc);
    let mut model = found.map(copy_table).unwrap_or_default();
    if !model.contains_key("runtime_type") {
        model.insert("runtime_type", value(SHIM));
    }
    model
}

/// The binary of the runtime that the new one is copied from, if it is not runc: the wrapper would start another.
pub(super) fn template_binary(file: &str, name: &str) -> Result<Option<String>, Garbled> {
    let (document, plugin) = open(file)?;
    Ok(get_string(&runtime_template(&document, &plugin, name), &["options", "BinaryName"])
        .filter(|path| !super::is_ours(path)))
}

/// Whether the file disables the CRI plugin, as the one in docker's packages does.
pub(super) fn without_pods(file: &str) -> bool {
    let disabled =
        read(file).ok().and_then(|document| super::tables::string_list(document.get("disabled_plugins")));
    disabled
        .is_some_and(|names| names.iter().any(|name| name == "cri" || name == "io.containerd.grpc.v1.cri"))
}

/// Removes an entry, and restores the default of `before`.
pub(super) fn remove_entry(file: &str, entry: &EngineEntry, before: &str) -> Result<String, Garbled> {
    let (mut document, plugin) = open(file)?;
    let containerd = ensure_table(document.as_table_mut(), &plugin)?;
    if entry.default {
        let was = open(before).ok().and_then(|(document, plugin)| {
            get_string(document.as_table(), &[&plugin[..], &[DEFAULT]].concat())
        });
        give_back(containerd, DEFAULT, was, &entry.name);
    }
    ensure_table(containerd, &["runtimes"])?.remove(&entry.name);
    Ok(document.to_string())
}
