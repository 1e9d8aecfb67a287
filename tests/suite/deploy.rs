//! What stands in `deploy/` is what the program takes: flags, variables, settings, routes.

use std::path::Path;
use std::process::Command;

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::agent::{BINARY, ran};
use crate::cli::tallyport;
use crate::tools;

const UNITS: [&str; 2] = ["deploy/systemd/tallyport.service", "deploy/systemd/example-app.service"];

fn read(path: &str) -> String {
    std::fs::read_to_string(tools::root().join(path)).unwrap()
}

fn manifests(path: &str) -> Vec<Value> {
    let text = read(path);
    serde_norway::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
}

/// Words after `tallyport`: a command that is there, with flags that it has.
fn takes(words: &[&str]) {
    let flags = words.iter().position(|word| word.starts_with('-')).unwrap_or(words.len());
    let lower = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase());
    let command: Vec<&str> = words[..flags].iter().take_while(lower).copied().collect();
    let help = tallyport(&[&["help"], &command[..]].concat());
    assert_eq!(help.code, 0, "tallyport {command:?}: {}", help.err);
    for flag in words[flags..].iter().filter(|word| word.starts_with('-')) {
        assert!(help.out.contains(&format!("{flag} ")), "tallyport {command:?} has no {flag}");
    }
}

/// The words of every command line of ours in a unit.
fn commands(unit: &str) -> Vec<Vec<&str>> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
    let ours =
        lines.filter_map(|(_, line)| line.trim_start_matches(['+', '-']).strip_prefix("/usr/bin/tallyport "));
    ours.map(|words| words.split_whitespace().collect()).collect()
}

#[test]
fn every_command_of_a_unit_is_one_that_the_program_takes() {
    for unit in UNITS {
        let text = read(unit);
        let commands = commands(&text);
        assert!(!commands.is_empty(), "{unit}");
        commands.iter().for_each(|words| takes(words));
    }
    let agent = read(UNITS[0]);
    assert!(!agent.contains("Type=notify"), "the agent does not notify");
    assert!(agent.contains("RuntimeDirectory=tallyport\n"), "the admin socket is in /run/tallyport");
}

#[test]
fn systemd_takes_the_units() {
    let Some(analyze) = tools::program("systemd-analyze", "scripts/setup containers") else { return };
    let directory = tempfile::tempdir().unwrap();
    let copy = |unit: &str| directory.path().join(Path::new(unit).file_name().unwrap());
    for unit in UNITS {
        // It looks for the programs, too.
        std::fs::write(copy(unit), read(unit).replace("/usr/bin/tallyport", BINARY)).unwrap();
    }
    let path = format!("{}:", directory.path().display());
    for unit in UNITS {
        let mut command = Command::new(&analyze);
        let verified = ran(command.arg("verify").arg(copy(unit)).env("SYSTEMD_UNIT_PATH", &path));
        let name = copy(unit).file_name().unwrap().to_string_lossy().into_owned();
        // Of other units it says much, too.
        let said: Vec<&str> = verified.err.lines().filter(|line| line.contains(&name)).collect();
        assert!(verified.code == 0 && said.is_empty(), "{unit}: {}", verified.err);
    }
}

#[test]
fn the_daemon_set_starts_the_agent_as_the_program_takes_it() {
    let manifests = manifests("deploy/kubernetes/tallyport.yaml");
    let agent = &kind(&manifests, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    let words = [strings(&agent["command"]), strings(&agent["args"])].concat();
    assert_eq!(words[0], "tallyport");
    takes(&words[1..]);
    takes(&strings(&agent["startupProbe"]["exec"]["command"])[1..]);
    let reference = read("docs/reference/configuration.md");
    for variable in agent["env"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        assert!(reference.contains(&format!("Variable `{name}`.")), "{name}");
    }
    let openapi: Value = serde_json::from_str(&read("proto/openapi.json")).unwrap();
    for probe in ["livenessProbe", "readinessProbe"] {
        let get = &agent[probe]["httpGet"];
        assert!(openapi["paths"].get(get["path"].as_str().unwrap()).is_some(), "{get}");
        let address = format!("{}:{}", get["host"].as_str().unwrap(), get["port"]);
        assert!(read("deploy/agent.toml").contains(&format!("# listen = \"{address}\"")), "{address}");
    }
}

#[test]
fn the_manifests_name_the_image_that_is_made() {
    let made = format!("tallyport:{}", env!("CARGO_PKG_VERSION"));
    for file in ["tallyport.yaml", "keeper.yaml"] {
        let manifests = manifests(&format!("deploy/kubernetes/{file}"));
        let container = &kind(&manifests, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], made, "{file}");
    }
    let kustomization = &manifests("deploy/kubernetes/kustomization.yaml")[0]["images"][0];
    assert_eq!(
        json!(made),
        format!("{}:{}", kustomization["name"].as_str().unwrap(), kustomization["newTag"].as_str().unwrap())
    );
    assert!(
        read("scripts/image").contains("image=${IMAGE:-tallyport:$version}"),
        "what it is called by default"
    );
    let recipe = read("deploy/image/Containerfile");
    let reference = read("docs/reference/configuration.md");
    let variables = recipe.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap().split(' ');
    for (variable, _) in variables.filter_map(|word| word.split_once('=')).filter(|(name, _)| *name != "PATH")
    {
        assert!(reference.contains(&format!("Variable `{variable}`.")), "{variable}");
    }
    let words: Vec<String> =
        serde_json::from_str(recipe.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap()).unwrap();
    takes(&words.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn the_keeper_is_beside_the_agent_and_stays_when_that_is_updated() {
    let (agents, keepers) =
        (manifests("deploy/kubernetes/tallyport.yaml"), manifests("deploy/kubernetes/keeper.yaml"));
    let (agent, keeper) = (&kind(&agents, "DaemonSet")["spec"], &kind(&keepers, "DaemonSet")["spec"]);
    let container = |set: &Value| set["template"]["spec"]["containers"][0].clone();
    let (of_agent, of_keeper) = (container(agent), container(keeper));
    let words = [strings(&of_keeper["command"]), strings(&of_keeper["args"])].concat();
    takes(&words[1..]);
    let state = |container: &Value| {
        let words = strings(&container["args"]);
        words[words.iter().position(|word| *word == "--state-dir").unwrap() + 1].to_owned()
    };
    assert_eq!(state(&of_agent), state(&of_keeper));
    assert_eq!(of_agent["securityContext"]["runAsUser"], of_keeper["securityContext"]["runAsUser"]);
    assert_eq!(of_keeper["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(keeper["updateStrategy"]["type"], "OnDelete");
    let volume = |set: &Value| {
        let volumes = set["template"]["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == "state").unwrap().clone()
    };
    assert_eq!(volume(agent), volume(keeper));
    let component = "app.kubernetes.io/component";
    assert_ne!(agent["selector"]["matchLabels"][component], keeper["selector"]["matchLabels"][component]);
}

#[test]
fn the_unit_has_systemd_keep_what_the_agent_has() {
    let unit = read(UNITS[0]);
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    assert_eq!(value("NotifyAccess="), "main");
    let room = value("FileDescriptorStoreMax=");
    assert_eq!(value("Environment=FDSTORE="), room);
    // Passing so many costs the agent as many of its own.
    let limit = value("LimitNOFILE=").parse::<usize>().unwrap();
    assert!(limit > 2 * room.parse::<usize>().unwrap(), "{room} of {limit}");
}

#[test]
fn the_pod_monitor_finds_the_agent_and_takes_tasks_labels_from_the_page() {
    let (agents, monitors) =
        (manifests("deploy/kubernetes/tallyport.yaml"), manifests("deploy/kubernetes/podmonitor.yaml"));
    let pod = &kind(&agents, "DaemonSet")["spec"]["template"];
    let monitor = &kind(&monitors, "PodMonitor")["spec"];
    for (label, value) in monitor["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&pod["metadata"]["labels"][label], value, "{label}");
    }
    let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
    let openapi: Value = serde_json::from_str(&read("proto/openapi.json")).unwrap();
    let endpoints = monitor["podMetricsEndpoints"].as_array().unwrap();
    for endpoint in endpoints {
        assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{endpoint}");
        let path = endpoint["path"].as_str().unwrap();
        assert!(openapi["paths"].get(path).is_some(), "{path}");
        assert_eq!(endpoint["honorLabels"] == true, path == "/metrics/tasks");
    }
    assert_eq!(endpoints.len(), 2);
}

#[test]
fn the_secure_component_is_closed_and_its_secret_is_the_one_that_scrapers_read() {
    const MOUNTED: &str = "/etc/tallyport-http";
    let settings = manifests("deploy/kubernetes/secure/settings.yaml");
    let directory = tempfile::tempdir().unwrap();
    let names = ["localhost".to_owned(), "tallyport".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let secret = [
        ("tls.crt", made.cert.pem()),
        ("tls.key", made.signing_key.serialize_pem()),
        ("token", "0123456789abcdef\n".to_owned()),
    ];
    for (name, text) in &secret {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let text = kind(&settings, "ConfigMap")["data"]["agent.toml"].as_str().unwrap();
    assert!(!text.contains("insecure"));
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, text.replace(MOUNTED, directory.path().to_str().unwrap())).unwrap();
    let checked = tallyport(&["config", "check", "--config", file.to_str().unwrap()]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    let patch = manifests("deploy/kubernetes/secure/agent.yaml");
    let pod = &kind(&patch, "DaemonSet")["spec"]["template"]["spec"];
    let agent = &pod["containers"][0];
    assert_eq!(
        (&agent["volumeMounts"][0]["mountPath"], &agent["volumeMounts"][0]["name"]),
        (&json!(MOUNTED), &pod["volumes"][0]["name"])
    );
    for variable in agent["env"].as_array().unwrap() {
        let (name, value) = (variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        assert!(tallyport(&["help", "tasks"]).out.contains(&format!("[env: {name}]")), "{name}");
        let file = value.strip_prefix(&format!("{MOUNTED}/"));
        assert!(file.is_none_or(|file| secret.iter().any(|(name, _)| *name == file)), "{value}");
    }
    let monitors = manifests("deploy/kubernetes/podmonitor.yaml");
    for endpoint in kind(&monitors, "PodMonitor")["spec"]["podMetricsEndpoints"].as_array().unwrap() {
        let of = &pod["volumes"][0]["secret"]["secretName"];
        assert_eq!(endpoint["scheme"], "https");
        assert_eq!(endpoint["authorization"]["credentials"], json!({"name": of, "key": "token"}));
        assert_eq!(endpoint["tlsConfig"]["ca"]["secret"], json!({"name": of, "key": "tls.crt"}));
        assert_eq!(endpoint["tlsConfig"]["serverName"], "tallyport");
    }
}

#[test]
fn kustomize_makes_the_manifests_with_and_without_the_secure_component() {
    // It comes with kubectl, which Debian has not; elsewhere the files were read above.
    if ran(Command::new("sh").args(["-c", "command -v kubectl"])).code != 0 {
        eprintln!("SKIPPED: kubectl is missing");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(tools::root().join("deploy/kubernetes/."))
        .arg(directory.path())
        .status();
    assert!(copied.unwrap().success());
    let made = || {
        let made = ran(Command::new("kubectl").arg("kustomize").arg(directory.path()));
        assert_eq!(made.code, 0, "{}", made.err);
        made.out
    };
    let plain = made();
    assert!(plain.contains("kind: DaemonSet") && !plain.contains("tallyport-http"));
    let file = directory.path().join("kustomization.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let with = text.replace("# components:\n#   - secure", "components:\n  - secure");
    assert_ne!(text, with);
    std::fs::write(&file, with).unwrap();
    let secure = made();
    assert_eq!(secure.matches("scheme: HTTPS").count(), 2);
    assert!(
        secure.contains("secretName: tallyport-http") && secure.contains("fieldPath: spec.nodeName"),
        "{secure}"
    );
}

#[test]
fn the_daemon_sets_settings_hold_and_its_sockets_are_mounted() {
    let manifests = manifests("deploy/kubernetes/tallyport.yaml");
    let text = kind(&manifests, "ConfigMap")["data"]["agent.toml"].as_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, text).unwrap();
    let checked = tallyport(&["config", "check", "--config", file.to_str().unwrap()]);
    assert_eq!(checked.code, 0, "{}", checked.err);
    let settings: toml::Table = text.parse().unwrap();
    let pod = &kind(&manifests, "DaemonSet")["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    for table in ["nri", "admin"] {
        let parent = Path::new(settings[table]["socket"].as_str().unwrap()).parent().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == parent.to_str().unwrap()), "{table}");
    }
    let volumes: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
    assert!(mounts.iter().all(|mount| volumes.contains(&&mount["name"])), "{volumes:?}");
}

#[test]
fn the_manifest_the_unit_and_the_table_name_the_same_privileges() {
    let manifests = manifests("deploy/kubernetes/tallyport.yaml");
    let pod = &kind(&manifests, "DaemonSet")["spec"]["template"]["spec"];
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!((&security["capabilities"]["drop"], &security["privileged"]), (&json!(["ALL"]), &Value::Null));
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &json!(true)));
    let names: Vec<String> =
        strings(&security["capabilities"]["add"]).iter().map(|name| format!("CAP_{name}")).collect();
    let (unit, page) = (read(UNITS[0]), read("docs/reference/deployment.md"));
    let bounded = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    assert_eq!(bounded.split(' ').collect::<Vec<_>>(), names);
    // Another user than root has what it is given, and nothing else.
    assert!(
        unit.contains(&format!("\nAmbientCapabilities={bounded}\n")) && unit.contains("\nUser=tallyport\n")
    );
    assert!(read("deploy/systemd/sysusers.conf").contains("\nu tallyport "));
    let tried = read("integration/runtimes/privileges");
    for name in &names {
        assert!(page.contains(&format!("\n| `{name}` |")), "{name}");
        let short = name.trim_start_matches("CAP_").to_lowercase();
        assert!(tried.contains(&format!("+{short}")), "nothing tries {name}");
    }
    // Nothing in it speaks to the API server.
    assert!(manifests.iter().all(|manifest| !manifest["kind"].as_str().unwrap().contains("Role")));
    assert_eq!(pod["automountServiceAccountToken"], false);
}

#[test]
fn who_takes_the_taint_away_waits_for_a_metric_that_is_there() {
    let manifests = manifests("deploy/kubernetes/startup-taint.yaml");
    let pod = &kind(&manifests, "DaemonSet")["spec"]["template"];
    let script = pod["spec"]["containers"][0]["args"][0].as_str().unwrap();
    let metric = script.split_once("'^").unwrap().1.split(' ').next().unwrap();
    assert!(read("docs/reference/own-metrics.md").contains(&format!("`{metric}`")), "{metric}");
    let rules = &kind(&manifests, "ClusterRole")["rules"];
    assert_eq!(rules, &json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}]));
    // By this label the agent leaves a pod out; that of the agent's own set would take it for one of its own without
    // another beside it.
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/name"], "tallyport");
    let agents = self::manifests("deploy/kubernetes/tallyport.yaml");
    let selector = &kind(&agents, "DaemonSet")["spec"]["selector"]["matchLabels"];
    assert_ne!(selector["app.kubernetes.io/component"], labels["app.kubernetes.io/component"]);
}
