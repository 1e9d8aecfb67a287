//! Who a container is: a table of rules for what each runtime says about it, and what docker knows but does not tell its runtime:
//! name, image and labels. Docker's API is not asked, because it is waiting for this very call to end.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tallyport_identity::annotation;

use super::bundle::Bundle;
use super::document::Object;
use super::table::{self, TomlTable};

/// The rows for known runtimes.
const BUILT_IN: &str = include_str!("identity.toml");
/// Maximum number of labels that are copied, and of bytes in each: an annotation may contain a whole manifest.
const COPIED: usize = 32;
const LONGEST: usize = 256;

/// The rows of the table, and what marks containers that only hold a pod's namespaces (sandboxes).
#[derive(Clone, Debug, Default)]
pub(super) struct IdentityRules {
    identity: Vec<IdentityRule>,
    sandbox: Vec<Mark>,
}

/// One row: which containers it matches, and how they are identified.
#[derive(Clone, Debug, Default)]
pub(super) struct IdentityRule {
    when: BTreeMap<String, String>,
    task_id: Vec<String>,
    labels: BTreeMap<String, String>,
    copy: Vec<String>,
    sandbox_id: Option<String>,
    pod_uid: Option<String>,
    image: Option<String>,
}

/// What marks a container that only holds a pod's namespaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    when: BTreeMap<String, String>,
    command: Vec<String>,
}

/// The identity of a container.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct ContainerIdentity {
    pub(super) task_id: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) sandbox_id: Option<String>,
    pub(super) pod_uid: Option<String>,
    pub(super) image: Option<String>,
}

/// What is known about a container.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) id: &'a str,
    pub(super) hostname: &'a str,
    /// What its runtime says about it.
    pub(super) annotations: BTreeMap<String, String>,
}

impl IdentityRules {
    /// These rows, followed by the built-in ones.
    pub(super) fn before_built_in(identity: &[IdentityRule], sandbox: &[Mark]) -> Self {
        // A test parses the built-in rows, so this cannot fail.
        let built_in = table::read(BUILT_IN, |table| Self {
            identity: table.take_tables("identity", IdentityRule::from_table),
            sandbox: table.take_tables("sandbox", Mark::from_table),
        })
        .unwrap_or_default();
        Self {
            identity: identity.iter().cloned().chain(built_in.identity).collect(),
            sandbox: sandbox.iter().cloned().chain(built_in.sandbox).collect(),
        }
    }

    /// Whether a container only holds a pod's namespaces.
    pub(super) fn is_sandbox(&self, bundle: &Bundle, annotations: &BTreeMap<String, String>) -> bool {
        self.sandbox.iter().any(|mark| {
            let command = !mark.command.is_empty() && mark.command == bundle.process_args();
            command || (!mark.when.is_empty() && matches_annotations(&mark.when, annotations))
        })
    }

    /// Identifies a container by the first row that matches it.
    pub(super) fn identify_container(&self, facts: &Facts<'_>) -> Option<ContainerIdentity> {
        self.identity
            .iter()
            .find(|row| matches_annotations(&row.when, &facts.annotations))
            .map(|row| row.build_identity(facts))
    }
}

fn matches_annotations(when: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> bool {
    when.iter().all(|(key, value)| annotations.get(key).is_some_and(|is| value == "*" || value == is))
}

impl Mark {
    pub(super) fn from_table(table: &mut TomlTable<'_>) -> Self {
        Self { when: table.take_named_texts("when"), command: table.take_texts("command") }
    }
}

impl IdentityRule {
    pub(super) fn from_table(table: &mut TomlTable<'_>) -> Self {
        // The name is only for people who read the file.
        let _name = table.take_text("name");
        Self {
            when: table.take_named_texts("when"),
            task_id: table.take_texts("task_id"),
            labels: table.take_named_texts("labels"),
            copy: table.take_texts("copy"),
            sandbox_id: table.take_text("sandbox_id"),
            pod_uid: table.take_text("pod_uid"),
            image: table.take_text("image"),
        }
    }

    fn build_identity(&self, facts: &Facts<'_>) -> ContainerIdentity {
        let filled = |template: &Option<String>| {
            template.as_deref().and_then(|template| fill_template(template, facts))
        };
        let labels = self
            .labels
            .iter()
            .filter_map(|(name, template)| Some((name.clone(), fill_template(template, facts)?)));
        let mut labels: BTreeMap<_, _> = labels.collect();
        let copied = facts.annotations.iter().filter(|(key, value)| {
            value.len() <= LONGEST && self.copy.iter().any(|pattern| matches_pattern(pattern, key))
        });
        for (key, value) in copied.take(COPIED) {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let container = labels.get("container").cloned();
        for (key, value) in facts.annotations.iter().filter(|(key, _)| key.starts_with(annotation::PREFIX)) {
            // An annotation with a container's name applies to that container and overrides one for all containers.
            match key.split_once("/container.") {
                Some((key, name)) if Some(name) == container.as_deref() => {
                    labels.insert(key.to_owned(), value.clone());
                }
                Some(_) => {}
                None => drop(labels.entry(key.clone()).or_insert_with(|| value.clone())),
            }
        }
        labels.retain(|key, _| !key.contains("/container."));
        ContainerIdentity {
            task_id: self.task_id.iter().find_map(|template| fill_template(template, facts)),
            labels,
            sandbox_id: filled(&self.sandbox_id),
            pod_uid: filled(&self.pod_uid),
            image: filled(&self.image),
        }
    }
}

fn matches_pattern(pattern: &str, key: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == key, |prefix| key.starts_with(prefix))
}

/// Fills in the placeholders of a template; `None` if the value of one is missing or empty.
fn fill_template(template: &str, facts: &Facts<'_>) -> Option<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        text.push_str(before);
        text.push_str(&resolve_placeholder(name, facts).filter(|value| !value.is_empty())?);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

fn resolve_placeholder(name: &str, facts: &Facts<'_>) -> Option<String> {
    match name {
        "id" => return Some(facts.id.to_owned()),
        "hostname" => return Some(facts.hostname.to_owned()),
        _ => {}
    }
    match name.split_once('#') {
        Some((annotation, member)) => {
            let object = Object::read(facts.annotations.get(annotation)?).ok()?;
            object.value(member).ok()
        }
        None => facts.annotations.get(name).cloned(),
    }
}

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

/// A container's labels, with `docker.name` and `docker.image`; empty for containers that are not Docker's.
pub(super) fn read_docker_annotations(root: &Path, id: &str) -> BTreeMap<String, String> {
    // Docker's IDs are 64 hexadecimal digits, so the path cannot leave the directory.
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

    fn identify(annotations: &[(&str, &str)]) -> ContainerIdentity {
        let annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let facts = Facts { id: "c1", hostname: "h", annotations };
        IdentityRules::before_built_in(&[], &[]).identify_container(&facts).unwrap()
    }

    fn labels(identity: &ContainerIdentity) -> Vec<String> {
        identity.labels.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    const POD: [(&str, &str); 6] = [
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.container-name", "app"),
        ("io.kubernetes.cri.sandbox-id", "s1"),
        ("io.kubernetes.cri.sandbox-name", "web-1"),
        ("io.kubernetes.cri.sandbox-namespace", "shop"),
        ("io.kubernetes.cri.sandbox-uid", "u-1"),
    ];

    #[test]
    fn a_pod_is_its_own_task_whatever_its_annotations_say() {
        let mut annotations = POD.to_vec();
        annotations.push(("tallyport.task-id", "kube-system_etcd_u-0"));
        let identity = identify(&annotations);
        assert_eq!(identity.task_id.as_deref(), Some("shop_web-1_u-1"));
        let expected = [
            "container=app",
            "namespace=shop",
            "pod=web-1",
            "tallyport.task-id=kube-system_etcd_u-0",
            "uid=u-1",
        ];
        assert_eq!(labels(&identity), expected);
        assert_eq!((identity.sandbox_id.as_deref(), identity.pod_uid.as_deref()), (Some("s1"), Some("u-1")));
    }

    #[test]
    fn an_annotation_for_one_container_of_a_pod_is_for_no_other() {
        let mut annotations = POD.to_vec();
        annotations.push(("tallyport.enabled", "true"));
        annotations.push(("tallyport.enabled/container.app", "false"));
        annotations.push(("tallyport.gauge-sign/container.sidecar", "absolute"));
        let identity = identify(&annotations);
        assert_eq!(identity.labels["tallyport.enabled"], "false");
        assert!(
            !identity.labels.keys().any(|key| key.contains("gauge-sign") || key.contains('/')),
            "{identity:?}"
        );
    }

    #[derive(serde::Deserialize)]
    struct Described {
        name: String,
        oci: BTreeMap<String, String>,
        reserved: Reserved,
    }

    #[derive(serde::Deserialize)]
    struct Reserved {
        task_id: String,
        labels: BTreeMap<String, String>,
        sandbox_id: String,
        pod_uid: Option<String>,
        image: String,
    }

    /// A test of the agent reads the same file, and compares the result with the one from NRI's description.
    #[test]
    fn pods_are_described_as_the_agent_expects() {
        let pods: Vec<Described> = serde_json::from_str(include_str!("../../../testdata/pods.json")).unwrap();
        for Described { name, oci, reserved } in pods {
            let facts = Facts { id: "c1", hostname: "h", annotations: oci };
            let Reserved { task_id, labels, sandbox_id, pod_uid, image } = reserved;
            let (task_id, sandbox_id, image) = (Some(task_id), Some(sandbox_id), Some(image));
            let expected = ContainerIdentity { task_id, labels, sandbox_id, pod_uid, image };
            assert_eq!(
                IdentityRules::before_built_in(&[], &[]).identify_container(&facts),
                Some(expected),
                "{name}"
            );
        }
    }

    #[test]
    fn crio_says_it_in_json() {
        let pod = r#"{"io.kubernetes.pod.name":"web-1","io.kubernetes.pod.namespace":"shop","io.kubernetes.pod.uid":"u-1","io.kubernetes.container.name":"app"}"#;
        let identity = identify(&[
            ("io.kubernetes.cri-o.ContainerType", "container"),
            ("io.kubernetes.cri-o.Labels", pod),
        ]);
        assert_eq!(identity.task_id.as_deref(), Some("shop_web-1_u-1"));
        assert_eq!(labels(&identity), ["container=app", "namespace=shop", "pod=web-1", "uid=u-1"]);
        let nonsense = identify(&[
            ("io.kubernetes.cri-o.ContainerType", "container"),
            ("io.kubernetes.cri-o.Labels", "{"),
        ]);
        assert_eq!((nonsense.task_id, nonsense.labels.len()), (None, 0));
    }

    #[test]
    fn nomad_docker_and_others_have_their_rows() {
        let nomad = identify(&[("docker.name", "x-1"), ("com.hashicorp.nomad.alloc_id", "a1")]);
        assert_eq!(nomad.task_id.as_deref(), Some("a1"));
        let docker = identify(&[("docker.name", "web"), ("docker.image", "shop/web:7"), ("other", "x")]);
        assert_eq!((docker.task_id.as_deref(), docker.image.as_deref()), (Some("web"), Some("shop/web:7")));
        assert_eq!(labels(&docker), ["container=web"]);
        let podman = identify(&[("io.container.manager", "libpod"), ("tallyport.task-id", "web.1")]);
        assert_eq!(podman.task_id.as_deref(), Some("web.1"));
        let long = "x".repeat(LONGEST + 1);
        let ctr = identify(&[("team", "shop"), ("manifest", &long)]);
        assert_eq!((ctr.task_id.as_deref(), labels(&ctr)), (None, vec!["team=shop".to_owned()]));
    }

    #[test]
    fn a_container_that_holds_a_pod_is_known_by_its_mark_or_its_command() {
        let identities = IdentityRules::before_built_in(&[], &[]);
        let command =
            |command: &str| Bundle::read(&format!(r#"{{"process":{{"args":{command}}}}}"#)).unwrap();
        let is = |bundle: &Bundle, key: &str, value: &str| {
            identities.is_sandbox(bundle, &BTreeMap::from([(key.to_owned(), value.to_owned())]))
        };
        let app = command(r#"["/bin/app"]"#);
        assert!(is(&app, "io.kubernetes.cri.container-type", "sandbox"));
        assert!(!is(&app, "io.kubernetes.cri.container-type", "container"));
        assert!(is(&command(r#"["/pause"]"#), "a", "b") && is(&command(r#"["/catatonit","-P"]"#), "a", "b"));
        assert!(!is(&command("[]"), "a", "b"));
    }

    #[test]
    fn a_container_of_dockers_has_its_name_and_labels() {
        let root = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef".repeat(4);
        let directory = root.path().join("containers").join(&id);
        std::fs::create_dir_all(&directory).unwrap();
        let known = r#"{"ID":"0","Name":"/web","Config":{"Image":"shop/web:7","Labels":{"team":"shop"},"Tty":false},"State":{}}"#;
        std::fs::write(directory.join("config.v2.json"), known).unwrap();
        let found = read_docker_annotations(root.path(), &id);
        assert_eq!((found["docker.name"].as_str(), found["docker.image"].as_str()), ("web", "shop/web:7"));
        assert_eq!(found["team"], "shop");
        std::fs::write(directory.join("config.v2.json"), "nonsense").unwrap();
        for (root, id) in [(root.path(), id.as_str()), (root.path(), "../x"), (Path::new(""), &id)] {
            assert!(read_docker_annotations(root, id).is_empty(), "{id}");
        }
    }
}
