//! Reads a bundle's `config.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::document::Object;

/// The parts of a configuration that identify a container and its network.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bundle {
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) hostname: Option<String>,
    linux: Option<Linux>,
    process: Option<BundleProcess>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
    namespaces: Option<Vec<BundleNamespace>>,
}

#[derive(Debug, Deserialize)]
struct BundleNamespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BundleProcess {
    args: Option<Vec<String>>,
}

/// The network namespace that a container asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BundleNetwork {
    /// That of the process that starts it.
    Host,
    /// The namespace at this path, which may still be the host's.
    Path(PathBuf),
    /// A namespace that the runtime will create.
    New,
}

impl Bundle {
    pub(super) fn read(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    pub(super) fn requested_network(&self) -> BundleNetwork {
        let namespaces =
            self.linux.as_ref().and_then(|linux| linux.namespaces.as_deref()).unwrap_or_default();
        match namespaces.iter().find(|namespace| namespace.kind == "network") {
            None => BundleNetwork::Host,
            Some(BundleNamespace { path: Some(path), .. }) if !path.as_os_str().is_empty() => {
                BundleNetwork::Path(path.clone())
            }
            Some(_) => BundleNetwork::New,
        }
    }

    /// The container's ID, which podman and CRI-O put at the end of the cgroup's path: `libpod-<id>`, with `.scope` if
    /// systemd manages cgroups, or `slice:crio:<id>`.
    pub(super) fn id(&self) -> Option<&str> {
        let path = self.linux.as_ref()?.cgroups_path.as_deref()?;
        let last = path.rsplit(['/', ':']).next()?;
        let last = last.strip_suffix(".scope").unwrap_or(last);
        let id = last.rsplit_once('-').map_or(last, |(_, id)| id);
        Some(id).filter(|id| !id.is_empty())
    }

    /// The command that the container runs.
    pub(super) fn process_args(&self) -> &[String] {
        self.process.as_ref().and_then(|process| process.args.as_deref()).unwrap_or_default()
    }
}

/// The environment of a process document, or of the one in a configuration.
pub(super) fn read_environment(process: &Object<'_>) -> serde_json::Result<Vec<String>> {
    process.value("env")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(namespaces: &str) -> BundleNetwork {
        Bundle::read(&format!(r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":{namespaces}}}}}"#))
            .unwrap()
            .requested_network()
    }

    #[test]
    fn an_id_is_the_end_of_the_cgroups_path() {
        let id = |path: &str| {
            let bundle = Bundle::read(&format!(r#"{{"linux":{{"cgroupsPath":"{path}"}}}}"#)).unwrap();
            bundle.id().map(str::to_owned)
        };
        for path in
            ["/libpod_parent/libpod-0ab1", "machine.slice:libpod:0ab1", "/a/libpod-0ab1.scope", "0ab1"]
        {
            assert_eq!(id(path).as_deref(), Some("0ab1"), "{path}");
        }
        assert_eq!((id(""), Bundle::read("{}").unwrap().id()), (None, None));
    }

    #[test]
    fn the_network_is_the_hosts_one_by_path_or_a_new_one() {
        assert_eq!(network("[]"), BundleNetwork::Host);
        assert_eq!(network("null"), BundleNetwork::Host);
        assert_eq!(network(r#"[{"type":"pid"},{"type":"network"}]"#), BundleNetwork::New);
        assert_eq!(network(r#"[{"type":"network","path":""}]"#), BundleNetwork::New);
        assert_eq!(network(r#"[{"type":"network","path":"/n"}]"#), BundleNetwork::Path("/n".into()));
        assert_eq!(Bundle::read("{}").unwrap().requested_network(), BundleNetwork::Host);
        assert_eq!(
            Bundle::read(r#"{"linux":null,"process":null,"annotations":null}"#).unwrap().process_args().len(),
            0
        );
    }
}
