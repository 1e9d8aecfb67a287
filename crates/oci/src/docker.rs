//! What docker knows of a container and does not tell its runtime: name, image, labels. Its API is not asked, since it
//! is waiting for this very call to end.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// `config.v2.json`, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DockerContainer {
    name: String,
    config: DockerConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DockerConfig {
    image: String,
    labels: Option<BTreeMap<String, String>>,
}

/// A container's labels, with `docker.name` and `docker.image`; nothing for one that is not docker's.
pub(super) fn read_annotations(root: &Path, id: &str) -> BTreeMap<String, String> {
    // Docker's ids are 64 hexadecimal digits, so this leads out of no directory.
    let of_docker = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !of_docker || root.as_os_str().is_empty() {
        return BTreeMap::new();
    }
    let path = root.join("containers").join(id).join("config.v2.json");
    let known =
        tallyport_linux::files::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok());
    let Some(DockerContainer { name, config }) = known else { return BTreeMap::new() };
    let mut annotations = config.labels.unwrap_or_default();
    annotations.insert("docker.name".to_owned(), name.trim_start_matches('/').to_owned());
    annotations.insert("docker.image".to_owned(), config.image);
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_of_dockers_has_its_name_and_labels() {
        let root = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef".repeat(4);
        let directory = root.path().join("containers").join(&id);
        std::fs::create_dir_all(&directory).unwrap();
        let known = r#"{"ID":"0","Name":"/web","Config":{"Image":"shop/web:7","Labels":{"team":"shop"},"Tty":false},"State":{}}"#;
        std::fs::write(directory.join("config.v2.json"), known).unwrap();
        let found = read_annotations(root.path(), &id);
        assert_eq!((found["docker.name"].as_str(), found["docker.image"].as_str()), ("web", "shop/web:7"));
        assert_eq!(found["team"], "shop");
        std::fs::write(directory.join("config.v2.json"), "nonsense").unwrap();
        for (root, id) in [(root.path(), id.as_str()), (root.path(), "../x"), (Path::new(""), &id)] {
            assert!(read_annotations(root, id).is_empty(), "{id}");
        }
    }
}
