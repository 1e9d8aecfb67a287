//! The Helm chart creates the same objects as kustomize, applies values, and rejects invalid ones.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tallyport::config::{AgentConfig, CredentialFiles, InfluxApi, ProcessEnvironment, SinkConfig};

use crate::agent::{Ran, ran};
use crate::cli::tallyport;
use crate::kubernetes::{Built, Overlay, config, listed, pods, selections, variables};
use crate::tools;

/// Labels of Helm's conventions in addition to those of the manifests.
const OF_HELM: [&str; 4] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
];
/// Annotations that trigger a rollout; kustomize does that through names.
const HASHES: [&str; 2] = ["tallyport/settings", "tallyport/client"];

struct Helm {
    program: PathBuf,
}

impl Helm {
    /// `None` if it is missing: Debian has no package of it, so only `make e2e-helm` requires it, through `HELM`.
    fn new() -> Option<Self> {
        let program = std::env::var_os("HELM").map_or_else(|| "helm".into(), PathBuf::from);
        if Command::new(&program).arg("version").output().is_ok_and(|ran| ran.status.success()) {
            return Some(Self { program });
        }
        eprintln!("SKIPPED: helm is missing; `make e2e-helm` makes it");
        None
    }

    fn run(&self, words: &[&str], sets: &[&str]) -> Ran {
        let mut command = Command::new(&self.program);
        command.args(words).arg(tools::root().join("deploy/helm/tallyport"));
        command.args(sets.iter().flat_map(|set| ["--set-json", set]));
        ran(command.args(["--kube-version", "1.34.0", "--namespace", "tallyport"]))
    }

    fn template(&self, sets: &[&str]) -> Built {
        self.template_of("tallyport", sets)
    }

    fn template_of(&self, release: &str, sets: &[&str]) -> Built {
        let made = self.run(&["template", release], sets);
        assert_eq!(made.code, 0, "{sets:?}: {}", made.err);
        listed(&made.out)
    }
}

/// The values that correspond to a component of kustomize.
fn values(component: &str) -> &'static str {
    match component {
        "secure" => "http.secure=true",
        "keeper" => "keeper.enabled=true",
        "startup-taint" => "startupTaint.enabled=true",
        "required-plugins" => "requiredPlugins.enabled=true",
        other => panic!("the chart has no {other}"),
    }
}

/// The object without fields that only one of the two adds.
fn plain(object: &Value) -> Value {
    let mut plain = object.clone();
    strip(&mut plain);
    plain
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            entries.retain(|key, _| !OF_HELM.contains(&key.as_str()) && !HASHES.contains(&key.as_str()));
            entries.values_mut().for_each(strip);
            entries.retain(|key, value| key != "annotations" || value != &json!({}));
            for (key, value) in entries.iter_mut() {
                // agent.toml is compared by its settings.
                if let ("agent.toml", Some(text)) = (key.as_str(), value.as_str()) {
                    *value = json!(text.parse::<toml::Table>().unwrap());
                }
            }
            for reference in ["configMap", "configMapRef"] {
                if let Some(Value::String(name)) =
                    entries.get_mut(reference).and_then(|it| it.get_mut("name"))
                {
                    *name = unhashed(name);
                }
            }
            if entries.get("kind").is_some_and(|kind| kind == "ConfigMap") {
                let name = entries["metadata"]["name"].as_str().unwrap().to_owned();
                entries["metadata"]["name"] = json!(unhashed(&name));
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(strip);
            // The order of variables and volumes is irrelevant, the order of a command's words is not.
            if items.iter().all(Value::is_object) {
                items.sort_by_key(canonical);
            }
        }
        _ => {}
    }
}

/// A name without the hash that kustomize adds.
fn unhashed(name: &str) -> String {
    let is_hash = |it: &str| it.len() == 10 && it.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match name.rsplit_once('-') {
        Some((before, hash)) if is_hash(hash) => before.to_owned(),
        _ => name.to_owned(),
    }
}

fn compared(built: &Built) -> BTreeMap<(String, String), String> {
    // Helm creates the namespace only on request.
    let objects = built.iter().filter(|((kind, _), _)| kind != "Namespace");
    objects.map(|((kind, name), it)| ((kind.clone(), unhashed(name)), canonical(&plain(it)))).collect()
}

/// Indented JSON with keys in order, so that a difference is easy to see.
fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(entries) => {
                let entries: BTreeMap<_, _> =
                    entries.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
                json!(entries)
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    serde_json::to_string_pretty(&sorted(value)).unwrap()
}

#[test]
fn the_chart_makes_what_kustomize_makes_of_every_selection_of_components() {
    let (Some(helm), Some(overlay)) = (Helm::new(), Overlay::new()) else { return };
    for selection in selections() {
        let mut sets = vec![r#"image={"repository": "registry.example/team/tallyport", "tag": "9.9"}"#];
        sets.extend(selection.iter().map(|component| values(component)));
        let (by_helm, by_kustomize) =
            (compared(&helm.template(&sets)), compared(&overlay.build(&selection, "")));
        assert_eq!(
            by_helm.keys().collect::<Vec<_>>(),
            by_kustomize.keys().collect::<Vec<_>>(),
            "{selection:?}"
        );
        for (key, object) in by_kustomize {
            let other = &by_helm[&key];
            let differs = object.lines().zip(other.lines()).find(|(one, other)| one != other);
            assert!(object == *other, "{key:?} of {selection:?} differs, first at {differs:?}");
        }
    }
}

#[test]
fn the_charts_pod_monitor_is_the_one_beside_the_manifests() {
    let Some(helm) = Helm::new() else { return };
    let by_helm = helm.template(&["podMonitor.enabled=true", "http.secure=true"]);
    let key = ("PodMonitor".to_owned(), "tallyport".to_owned());
    let beside = listed(&crate::deploy::read("deploy/kubernetes/podmonitor.yaml"));
    assert_eq!(canonical(&plain(&by_helm[&key])), canonical(&plain(&beside[&key])));
    let open = helm.template(&["podMonitor.enabled=true"]);
    let endpoint = &open[&key]["spec"]["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["scheme"], &endpoint["authorization"]), (&Value::Null, &Value::Null));
}

#[test]
fn lint_has_nothing_against_the_chart_with_everything_on() {
    let Some(helm) = Helm::new() else { return };
    let everything: Vec<_> = ["secure", "keeper", "startup-taint", "required-plugins"]
        .map(values)
        .into_iter()
        .chain([
            "podMonitor.enabled=true",
            r#"publish={"i": {"type": "influxdb", "port": 8086}}"#,
            r#"publishSecrets={"i": "influx"}"#,
        ])
        .collect();
    for sets in [&[][..], &everything] {
        let linted = helm.run(&["lint", "--strict"], sets);
        assert_eq!(linted.code, 0, "{}{}", linted.out, linted.err);
    }
}

#[test]
fn values_reach_every_pod() {
    let Some(helm) = Helm::new() else { return };
    let built = helm.template_of("metrics", &[
        "keeper.enabled=true",
        "startupTaint={\"enabled\": true, \"key\": \"example.org/wait\"}",
        "http={\"secure\": true, \"secretName\": \"mine\", \"keys\": {\"ca\": \"ca.crt\", \"tokens\": \"tokens\"}}",
        "priorityClassName=\"high\"",
        "nodeSelector={\"disk\": \"ssd\"}",
        "tolerations=[{\"key\": \"a\", \"operator\": \"Exists\"}]",
        "affinity={\"nodeAffinity\": {}}",
        "podLabels={\"team\": \"ops\"}",
        "podAnnotations={\"note\": \"x\"}",
        "imagePullSecrets=[{\"name\": \"pull\"}]",
        "image.pullPolicy=\"Always\"",
        "extraEnv=[{\"name\": \"TALLYPORT_LOG_FORMAT\", \"value\": \"json\"}]",
    ]);
    let pods = pods(&built);
    let names = ["metrics-tallyport", "metrics-tallyport-keeper", "metrics-tallyport-untaint"];
    assert_eq!(pods.keys().copied().collect::<Vec<_>>(), names);
    for (name, pod) in &pods {
        let spec = &pod["spec"];
        assert_eq!(spec["priorityClassName"], "high", "{name}");
        assert_eq!(spec["nodeSelector"], json!({"disk": "ssd"}), "{name}");
        assert_eq!(spec["tolerations"], json!([{"key": "a", "operator": "Exists"}]), "{name}");
        assert_eq!(spec["affinity"], json!({"nodeAffinity": {}}), "{name}");
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]), "{name}");
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "Always", "{name}");
        assert_eq!(
            (&pod["metadata"]["labels"]["team"], &pod["metadata"]["annotations"]["note"]),
            (&json!("ops"), &json!("x"))
        );
    }
    let agent = variables(&pods[names[0]]["spec"]["containers"][0]);
    assert_eq!(agent["TALLYPORT_HTTP_TOKENS"], "/etc/tallyport-http/tokens");
    assert_eq!(agent["TALLYPORT_LOG_FORMAT"], "json");
    let untaint = &pods[names[2]]["spec"];
    assert!(untaint["containers"][0]["args"].as_array().unwrap().contains(&json!("example.org/wait")));
    assert_eq!(untaint["containers"][0]["envFrom"][0]["configMapRef"]["name"], "metrics-tallyport-client");
    assert_eq!(untaint["volumes"][0]["secret"]["secretName"], "mine");
    let client = &built[&("ConfigMap".to_owned(), "metrics-tallyport-client".to_owned())]["data"];
    assert_eq!(client["TALLYPORT_CA"], "/etc/tallyport-http/ca.crt");
}

#[test]
fn settings_are_written_as_they_are_and_start_new_pods() {
    let Some(helm) = Helm::new() else { return };
    let rendered = |text: &str| {
        let built = helm.template(&[&format!("settings={}", json!(text))]);
        let annotations = pods(&built)["tallyport"]["metadata"]["annotations"].clone();
        let map = built[&("ConfigMap".to_owned(), "tallyport".to_owned())]["data"]["agent.toml"].clone();
        (annotations, map.as_str().unwrap().to_owned())
    };
    let text = "[kubernetes]\nmode = \"opt-in\"\n\n[env]\npresets = [\"statsd\"]";
    let (first, file) = rendered(text);
    assert!(file.contains(text), "{file}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    std::fs::write(&path, &file).unwrap();
    let checked = tallyport(&["config", "check", "--config", path.to_str().unwrap()]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    assert_ne!(first, rendered("").0);
    assert_eq!(first, rendered(text).0);
}

#[test]
fn publishers_are_tables_of_the_settings_and_their_secrets_are_files_that_only_the_agent_can_read() {
    let Some(helm) = Helm::new() else { return };
    let publish = json!({
        "influx": {
            "type": "influxdb", "url": "https://influx.example:8086", "database": "a \"b\" & <c>", "workers": 4,
            "compress": false, "token_file": "/etc/tallyport-publish/influx/token",
            "headers": ["X-Tenant=shop", "X-Node=a"],
        },
        "mimir-eu": {"type": "remote_write", "url": "https://mimir.example/api/v1/push", "timeout": "10s"},
    });
    let settings = "[publish]\nsettle = \"2s\"\n";
    let sets = [
        format!("publish={publish}"),
        format!("settings={}", json!(settings)),
        r#"publishSecrets={"influx": "influx-credentials", "mimir": "mimir"}"#.to_owned(),
        r#"extraVolumes=[{"name": "ca", "configMap": {"name": "trusted"}}]"#.to_owned(),
        r#"extraVolumeMounts=[{"name": "ca", "mountPath": "/etc/ca"}]"#.to_owned(),
    ];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let built = helm.template(&sets);
    let file = built[&("ConfigMap".to_owned(), "tallyport".to_owned())]["data"]["agent.toml"].clone();
    let config = AgentConfig::from_toml(file.as_str().unwrap(), &ProcessEnvironment)
        .unwrap_or_else(|errors| panic!("{errors}"));
    let names: Vec<&str> =
        config.publish.publishers.iter().map(|publisher| publisher.name.as_str()).collect();
    assert_eq!((names, config.publish.settle.as_secs()), (vec!["influx", "mimir-eu"], 2));
    let influx = &config.publish.publishers[0];
    assert_eq!(influx.workers, 4);
    let SinkConfig::Influxdb(sink) = &influx.sink else { panic!("{influx:?}") };
    let InfluxApi::V1 { database } = &sink.api else { panic!("{sink:?}") };
    assert_eq!((database.as_str(), sink.compress, sink.target.headers.len()), ("a \"b\" & <c>", false, 2));
    assert_eq!(sink.target.credentials, CredentialFiles::Token("/etc/tallyport-publish/influx/token".into()));
    let pod = pods(&built)["tallyport"]["spec"].clone();
    let find =
        |list: &Value, name: &str| list.as_array().unwrap().iter().find(|it| it["name"] == name).cloned();
    for (name, secret) in [("influx", "influx-credentials"), ("mimir", "mimir")] {
        let volume = find(&pod["volumes"], &format!("publish-{name}")).unwrap();
        assert_eq!(volume["secret"], json!({"secretName": secret, "defaultMode": 0o400}));
        let mount = find(&pod["containers"][0]["volumeMounts"], &format!("publish-{name}")).unwrap();
        assert_eq!(mount["mountPath"], format!("/etc/tallyport-publish/{name}"));
        assert_eq!(mount["readOnly"], true);
    }
    assert_eq!(find(&pod["volumes"], "ca").unwrap()["configMap"]["name"], "trusted");
    assert_eq!(find(&pod["containers"][0]["volumeMounts"], "ca").unwrap()["mountPath"], "/etc/ca");
    let annotation =
        |sets: &[&str]| pods(&helm.template(sets))["tallyport"]["metadata"]["annotations"].clone();
    assert_ne!(annotation(&sets), annotation(&sets[1..]), "changed publishers start new pods");
}

#[test]
fn the_memory_limit_follows_the_budget_unless_it_is_given() {
    let Some(helm) = Helm::new() else { return };
    let agent = |sets: &[&str]| pods(&helm.template(sets))["tallyport"]["spec"]["containers"][0].clone();
    let large = agent(&["memory={\"budgetMiB\": 2048, \"receiveBuffersMiB\": 256}"]);
    assert_eq!(large["resources"]["limits"]["memory"], "2816Mi");
    assert_eq!(large["resources"]["requests"]["cpu"], "50m");
    let config = config(&variables(&large));
    assert_eq!((config.node_limits.memory, config.listeners.receive_buffers), (2048 << 20, 256 << 20));
    let given = agent(&["resources.limits={\"memory\": \"1Gi\", \"cpu\": \"1\"}"]);
    assert_eq!(given["resources"]["limits"], json!({"memory": "1Gi", "cpu": "1"}));
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    let Some(helm) = Helm::new() else { return };
    for (set, named) in [
        ("keeper.enabled=\"yes\"", "enabled"),
        ("memory.budgetMiB=\"512Mi\"", "budgetMiB"),
        ("memory.budgetMiB=1", "budgetMiB"),
        ("image.pullPolicy=\"Sometimes\"", "pullPolicy"),
        ("image.repository=\"\"", "repository"),
        ("settings={\"kubernetes\": {}}", "settings"),
        ("tolerations={}", "tolerations"),
        ("keeper.hold=\"forever\"", "hold"),
        ("http.listen=\"0.0.0.0:80\"", "listen"),
        ("nri.socket=\"nri.sock\"", "socket"),
        ("kepeer={\"enabled\": true}", "kepeer"),
        ("publish={\"Influx\": {\"type\": \"influxdb\"}}", "Influx"),
        ("publish={\"i\": {\"type\": \"kafka\"}}", "type"),
        ("publish={\"i\": {\"url\": \"http://x\"}}", "type"),
        ("publish={\"i\": {\"type\": \"debug\", \"headers\": {\"a\": \"b\"}}}", "headers"),
        ("publishSecrets={\"a/b\": \"s\"}", "a/b"),
        ("http.secret=\"mine\"", "secret"),
    ] {
        let refused = helm.run(&["template", "tallyport"], &[set]);
        assert_ne!(refused.code, 0, "{set}");
        assert!(refused.err.contains(named), "{set}: {}", refused.err);
    }
}
