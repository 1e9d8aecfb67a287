//! `exec --process`: engines build the document of a joining process from their own copy of the configuration, so our
//! edits to the bundle have to be repeated there. They are read from the bundle; no request to the agent is needed.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::command_line::Call;
use super::errors::Error;
use super::{edit, file};

/// The default state directories of runtimes.
const ROOTS: [&str; 3] = ["runc", "crun", "youki"];

/// The state that runtimes store for a container: crun and youki have its bundle as a field, runc as a label.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeState {
    bundle: Option<PathBuf>,
    config: Option<RuntimeStateConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeStateConfig {
    labels: Option<Vec<String>>,
}

/// Gives the joining process the variables of its container.
pub(super) fn inject_into_process(call: &Call) -> Result<(), Error> {
    // Without a document the runtime uses the container's own environment.
    let Some(document) = &call.process else { return Ok(()) };
    let id = call.id.as_deref().ok_or(Error::CommandLine("container"))?;
    let config = find_bundle(call.root.as_deref(), id).unwrap_or_else(|| ".".into()).join("config.json");
    let garbled = |path: &Path| {
        let path = path.to_owned();
        move |error: serde_json::Error| Error::Garbled { path, why: error.to_string() }
    };
    let (process, config_text) = (file::read(document)?, file::read(&config)?);
    match edit::edit_process(&process, &config_text).map_err(garbled(document))? {
        Some(edited) => file::replace_file(document, &edited),
        // The container has no socket.
        None => Ok(()),
    }
}

fn find_bundle(root: Option<&Path>, id: &str) -> Option<PathBuf> {
    state_files(root, id)
        .into_iter()
        .find_map(|path| bundle_of(&tallyport_linux::files::read_to_string(&path).ok()?))
}

/// The files in which runtimes may store the state of a container.
pub(super) fn state_files(root: Option<&Path>, id: &str) -> Vec<PathBuf> {
    if id.contains('/') || id == ".." {
        return Vec::new();
    }
    let roots = match root {
        Some(root) => vec![root.to_owned()],
        None => {
            let rootless = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
            let bases = rootless.into_iter().chain([PathBuf::from("/run")]);
            bases.flat_map(|base| ROOTS.map(|name| base.join(name))).collect()
        }
    };
    roots.iter().flat_map(|root| ["state.json", "status"].map(|name| root.join(id).join(name))).collect()
}

fn bundle_of(state: &str) -> Option<PathBuf> {
    let state: RuntimeState = serde_json::from_str(state).ok()?;
    let labels = state.config.and_then(|config| config.labels).unwrap_or_default();
    let labelled = || labels.iter().find_map(|label| label.strip_prefix("bundle=")).map(PathBuf::from);
    state.bundle.or_else(labelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_remembers_its_bundle() {
        let bundle = |state: &str| bundle_of(state).map(|bundle| bundle.display().to_string());
        let runc =
            r#"{"id":"c1","init_process_pid":7,"config":{"rootfs":"/r","labels":["a=b","bundle=/b"]}}"#;
        assert_eq!(bundle(runc).as_deref(), Some("/b"));
        assert_eq!(bundle(r#"{"pid":7,"bundle":"/b","rootfs":"r"}"#).as_deref(), Some("/b"));
        assert_eq!(bundle(r#"{"config":{"labels":null}}"#), None);
        assert_eq!(bundle("nonsense"), None);
    }

    #[test]
    fn an_id_cannot_lead_out_of_the_runtimes_directory() {
        assert!(
            state_files(None, "../../etc").is_empty()
                && state_files(Some(Path::new("/run/runc")), "..").is_empty()
        );
        assert_eq!(
            state_files(Some(Path::new("/r")), "c1"),
            ["/r/c1/state.json", "/r/c1/status"].map(PathBuf::from)
        );
    }
}
