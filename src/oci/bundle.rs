//! What a bundle's `config.json` says about a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::document::Object;

/// The parts of a configuration that say who a container is and where.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bundle {
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) hostname: Option<String>,
    linux: Option<Linux>,
    process: Option<Process>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    args: Option<Vec<String>>,
}

/// The network namespace that a container asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Network {
    /// That of whoever starts it.
    Host,
    /// The one at this path, which may be the host's all the same.
    Path(PathBuf),
    /// One that the runtime is going to make.
    New,
}

impl Bundle {
    pub(super) fn read(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    pub(super) fn network(&self) -> Network {
        let namespaces =
            self.linux.as_ref().and_then(|linux| linux.namespaces.as_deref()).unwrap_or_default();
        match namespaces.iter().find(|namespace| namespace.kind == "network") {
            None => Network::Host,
            Some(Namespace { path: Some(path), .. }) if !path.as_os_str().is_empty() => {
                Network::Path(path.clone())
            }
            Some(_) => Network::New,
        }
    }

    /// The command that the container runs.
    pub(super) fn command(&self) -> &[String] {
        self.process.as_ref().and_then(|process| process.args.as_deref()).unwrap_or_default()
    }
}

/// The environment of a process document, or of the one in a configuration.
pub(super) fn environment(process: &Object<'_>) -> serde_json::Result<Vec<String>> {
    process.value("env")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(namespaces: &str) -> Network {
        Bundle::read(&format!(r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":{namespaces}}}}}"#))
            .unwrap()
            .network()
    }

    #[test]
    fn the_network_is_the_hosts_one_by_path_or_a_new_one() {
        assert_eq!(network("[]"), Network::Host);
        assert_eq!(network("null"), Network::Host);
        assert_eq!(network(r#"[{"type":"pid"},{"type":"network"}]"#), Network::New);
        assert_eq!(network(r#"[{"type":"network","path":""}]"#), Network::New);
        assert_eq!(network(r#"[{"type":"network","path":"/n"}]"#), Network::Path("/n".into()));
        assert_eq!(Bundle::read("{}").unwrap().network(), Network::Host);
        assert_eq!(
            Bundle::read(r#"{"linux":null,"process":null,"annotations":null}"#).unwrap().command().len(),
            0
        );
    }
}
