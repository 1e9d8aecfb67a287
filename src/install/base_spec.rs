//! containerd's `base_runtime_spec`: one specification for all containers, with one address and a hook that opens it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Error, Garbled};
use crate::oci::edit::{self, Gift, Hook, HookRecord};

/// The default address of clients.
const ADDRESS: (&str, u16) = ("127.0.0.1", 8125);
/// Timeout of the hook in seconds; the wrapper's own time limit is one second.
const TIMEOUT: u64 = 3;

/// Adds the address and the hook to a specification.
pub(super) fn with_address(specification: &str, wrapper: &str) -> Result<String, Garbled> {
    let (host, port) = ADDRESS;
    let port = port.to_string();
    let variables = [("STATSD_UDP_HOST", host), ("STATSD_UDP_PORT", port.as_str())];
    let variables: BTreeMap<_, _> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let hooks = |_: &HookRecord| {
        vec![("createRuntime", Hook::new(wrapper, "pod", std::slice::from_ref(&port), TIMEOUT))]
    };
    let edit = || {
        let gift = Gift { variables: variables.clone(), mount: None };
        let text = edit::edit_config(specification, &gift, &hooks)?.text;
        let document: Value = serde_json::from_str(&text)?;
        Ok(format!("{document:#}\n"))
    };
    edit().map_err(|error: serde_json::Error| Garbled(error.to_string()))
}

/// The specification to start from: the given file, or the output of `ctr oci spec`.
pub(super) fn load_specification(file: Option<&Path>) -> Result<String, Error> {
    if let Some(path) = file {
        return crate::files::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source });
    }
    let wrong =
        |why: String| Error::Program { path: "ctr".into(), why: format!("{why}; give --spec FILE instead") };
    let output = Command::new("ctr").args(["oci", "spec"]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| wrong(error.to_string()))?;
    match String::from_utf8(output.stdout) {
        Ok(text) if output.status.success() => Ok(text),
        _ => Err(wrong(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
