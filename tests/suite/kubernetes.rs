//! Checks the manifests against the program and each other: flags, variables, settings, routes, privileges, memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize as _;
use serde_json::{Value, json};
use tallyport::config::{AgentConfig, Layers, ProcessEnvironment, SETTINGS, SettingOrigin};

use crate::agent::ran;
use crate::cli::tallyport;
use crate::deploy::{UNITS, kind, manifests, read, strings, takes};
use crate::tools;

const BASE: &str = "deploy/kubernetes/tallyport.yaml";
const KEEPER: &str = "deploy/kubernetes/components/keeper/keeper.yaml";
const UNTAINT: &str = "deploy/kubernetes/components/startup-taint/untaint.yaml";
const SECURE: &str = "deploy/kubernetes/components/secure/agent.yaml";
const COMPONENTS: [&str; 4] = ["secure", "keeper", "startup-taint", "required-plugins"];
const TOLERATES: &str = "tallyport.tolerate-missing";

fn pod(file: &str) -> Value {
    kind(&manifests(file), "DaemonSet")["spec"]["template"].clone()
}

fn container(file: &str) -> Value {
    pod(file)["spec"]["containers"][0].clone()
}

/// Variables with a value instead of a reference.
pub(crate) fn variables(container: &Value) -> BTreeMap<String, String> {
    let given = container["env"].as_array().into_iter().flatten();
    let pair = |it: &Value| Some((it["name"].as_str()?.to_owned(), it["value"].as_str()?.to_owned()));
    given.filter_map(pair).collect()
}

/// The effective configuration of an agent with these variables.
pub(crate) fn config(variables: &BTreeMap<String, String>) -> AgentConfig {
    let mut layers = Layers::with_defaults(&ProcessEnvironment);
    for setting in SETTINGS {
        if let Some(text) = variables.get(&setting.variable_name()) {
            layers
                .set_value(setting.key, text.clone(), SettingOrigin::Variable(setting.variable_name()))
                .unwrap();
        }
    }
    AgentConfig::from_layers(&layers).unwrap()
}

/// The help text of a command, in one line.
fn help(command: &str) -> String {
    tallyport(&["help", command]).out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn mebibytes(quantity: &Value) -> usize {
    quantity.as_str().unwrap().strip_suffix("Mi").unwrap().parse().unwrap()
}

#[test]
fn every_pod_starts_as_the_program_takes_it_and_sets_only_variables_that_it_reads() {
    let reference = read("docs/reference/configuration.md");
    let helps = ["tasks", "health"].map(help).concat();
    for file in [BASE, KEEPER, UNTAINT] {
        let container = container(file);
        let words = [strings(&container["command"]), strings(&container["args"])].concat();
        assert_eq!(words[0], "tallyport", "{file}");
        takes(&words[1..]);
    }
    takes(&strings(&container(BASE)["startupProbe"]["exec"]["command"])[1..]);
    let secure = container(SECURE);
    for variable in container(BASE)["env"].as_array().unwrap().iter().chain(secure["env"].as_array().unwrap())
    {
        let name = variable["name"].as_str().unwrap();
        let known =
            reference.contains(&format!("Variable `{name}`.")) || helps.contains(&format!("[env: {name}]"));
        assert!(known, "the program reads no {name}");
    }
    // Kubernetes expands $(NAME) from variables that the pod sets.
    let untaint = container(UNTAINT);
    let node = strings(&untaint["args"])
        .into_iter()
        .find_map(|it| it.strip_prefix("$(")?.strip_suffix(')'))
        .unwrap();
    let field = untaint["env"].as_array().unwrap().iter().find(|it| it["name"] == node).unwrap();
    assert_eq!(field["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
}

#[test]
fn probes_ask_where_the_agent_listens_and_the_startup_probe_means_its_own_pod() {
    let agent = container(BASE);
    let openapi: Value = serde_json::from_str(&read("proto/openapi.json")).unwrap();
    for probe in ["livenessProbe", "readinessProbe"] {
        let get = &agent[probe]["httpGet"];
        assert!(openapi["paths"].get(get["path"].as_str().unwrap()).is_some(), "{get}");
        let address = format!("{}:{}", get["host"].as_str().unwrap(), get["port"]);
        assert!(read("deploy/agent.toml").contains(&format!("# listen = \"{address}\"")), "{address}");
    }
    let command = strings(&agent["startupProbe"]["exec"]["command"]);
    assert_eq!(command, ["tallyport", "health"]);
    let instance =
        agent["env"].as_array().unwrap().iter().find(|it| it["name"] == "TALLYPORT_AGENT_INSTANCE");
    assert_eq!(instance.unwrap()["valueFrom"]["fieldRef"]["fieldPath"], "metadata.uid");
    assert!(help("health").contains("[env: TALLYPORT_AGENT_INSTANCE]"));
}

#[test]
fn an_update_starts_the_new_agent_beside_the_old_one_and_nothing_keeps_it_from_starting() {
    let set = kind(&manifests(BASE), "DaemonSet")["spec"].clone();
    assert_eq!(set["updateStrategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
    let agent = &set["template"]["spec"]["containers"][0];
    // It takes over, or if that is impossible, makes the old one end first.
    assert!(strings(&agent["args"]).contains(&"--replace"));
    assert_eq!(variables(agent)["TALLYPORT_AGENT_AFTER_HAND_OVER"], "wait");
    for file in [BASE, KEEPER, UNTAINT] {
        // On the node's network a containerPort is a hostPort, which only one pod of a node can have.
        assert_eq!(container(file)["ports"], Value::Null, "{file}");
        let strategy = kind(&manifests(file), "DaemonSet")["spec"]["updateStrategy"]["type"].clone();
        assert_eq!(strategy, "RollingUpdate", "kubectl rollout status follows no other: {file}");
    }
}

#[test]
fn the_manifests_name_the_image_that_is_made() {
    let made = format!("tallyport:{}", env!("CARGO_PKG_VERSION"));
    for file in [BASE, KEEPER, UNTAINT] {
        assert_eq!(container(file)["image"], made, "{file}");
    }
    let chart = &manifests("deploy/helm/tallyport/Chart.yaml")[0];
    assert_eq!(
        (&chart["appVersion"], &chart["version"]),
        (&json!(env!("CARGO_PKG_VERSION")), &chart["appVersion"])
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
fn the_memory_limit_is_the_agents_budget_with_a_quarter_of_it_and_the_receive_buffers() {
    let agent = container(BASE);
    let config = config(&variables(&agent));
    let (budget, buffers) = (config.node_limits.memory, config.listeners.receive_buffers);
    let limit = mebibytes(&agent["resources"]["limits"]["memory"]) << 20;
    assert_eq!(limit, budget + budget / 4 + buffers);
    let chart = &manifests("deploy/helm/tallyport/values.yaml")[0]["memory"];
    let mebibytes = |bytes: usize| json!(bytes >> 20);
    assert_eq!(chart, &json!({"budgetMiB": mebibytes(budget), "receiveBuffersMiB": mebibytes(buffers)}));
}

#[test]
fn the_agents_sockets_and_every_path_of_a_network_are_mounted() {
    let pod = pod(BASE)["spec"].clone();
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let mounted = |path: &Path| mounts.iter().find(|mount| mount["mountPath"] == path.to_str().unwrap());
    let config = config(&variables(&pod["containers"][0]));
    assert!(config.nri.enabled);
    for socket in [&config.nri.socket, &config.admin.socket] {
        assert!(mounted(socket.parent().unwrap()).is_some(), "{}", socket.display());
    }
    for path in ["/run/netns", "/var/run/netns"] {
        let mount = mounted(Path::new(path)).unwrap();
        assert_eq!(
            (&mount["name"], &mount["mountPropagation"]),
            (&json!("netns"), &json!("HostToContainer"))
        );
    }
    let volumes: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
    assert!(mounts.iter().all(|mount| volumes.contains(&&mount["name"])), "{volumes:?}");
    let file = tools::root().join("deploy/kubernetes/agent.toml");
    let checked = tallyport(&["config", "check", "--config", file.to_str().unwrap()]);
    assert_eq!(checked.code, 0, "{}", checked.err);
}

#[test]
fn the_keeper_shares_the_agents_state_and_user_and_nothing_else() {
    let (agent, keeper) = (pod(BASE), pod(KEEPER));
    let (of_agent, of_keeper) = (container(BASE), container(KEEPER));
    let state = |container: &Value| {
        let words = strings(&container["args"]);
        words[words.iter().position(|word| *word == "--state-dir").unwrap() + 1].to_owned()
    };
    assert_eq!(state(&of_agent), state(&of_keeper));
    assert_eq!(of_agent["securityContext"]["runAsUser"], of_keeper["securityContext"]["runAsUser"]);
    assert_eq!(of_keeper["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    let volume = |pod: &Value| {
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == "state").unwrap().clone()
    };
    assert_eq!(volume(&agent), volume(&keeper));
}

#[test]
fn every_pod_of_ours_is_left_out_by_the_agent_and_belongs_to_one_set() {
    let excluded = config(&BTreeMap::new()).kubernetes.exclude_pod_labels;
    let mut components = Vec::new();
    for file in [BASE, KEEPER, UNTAINT] {
        let labels = pod(file)["metadata"]["labels"].clone();
        let has = |it: &String| it.split_once('=').is_some_and(|(name, value)| labels[name] == value);
        assert!(excluded.iter().any(has), "{file}: {labels}");
        let selector = kind(&manifests(file), "DaemonSet")["spec"]["selector"]["matchLabels"].clone();
        assert_eq!(selector, labels, "{file}");
        components.push(labels["app.kubernetes.io/component"].clone());
    }
    components.dedup();
    assert_eq!(components, ["agent", "keeper", "untaint"]);
}

#[test]
fn the_manifest_the_unit_and_the_table_name_the_same_privileges() {
    let manifests = manifests(BASE);
    let pod = &kind(&manifests, "DaemonSet")["spec"]["template"]["spec"];
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!((&security["capabilities"]["drop"], &security["privileged"]), (&json!(["ALL"]), &Value::Null));
    assert_eq!((&pod["hostPID"], &pod["hostNetwork"]), (&json!(true), &json!(true)));
    let names: Vec<String> =
        strings(&security["capabilities"]["add"]).iter().map(|name| format!("CAP_{name}")).collect();
    let (unit, page) = (read(UNITS[0]), read("docs/reference/deployment.md"));
    let bounded = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    assert_eq!(bounded.split(' ').collect::<Vec<_>>(), names);
    // A user other than root has only the listed capabilities.
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
    // It does not use the API server.
    assert!(manifests.iter().all(|manifest| !manifest["kind"].as_str().unwrap().contains("Role")));
    assert_eq!(pod["automountServiceAccountToken"], false);
}

#[test]
fn what_may_change_nodes_may_do_nothing_else() {
    let manifests = manifests(UNTAINT);
    let rules = &kind(&manifests, "ClusterRole")["rules"];
    assert_eq!(rules, &json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}]));
    let security = container(UNTAINT)["securityContext"].clone();
    assert_eq!(
        (&security["runAsNonRoot"], &security["capabilities"]),
        (&json!(true), &json!({"drop": ["ALL"]}))
    );
    // It trusts the agent's certificate, and does not read its key or its tokens.
    let volumes = pod(UNTAINT)["spec"]["volumes"].clone();
    let keys: Vec<_> =
        volumes[0]["secret"]["items"].as_array().unwrap().iter().map(|it| &it["key"]).collect();
    assert_eq!(keys, ["tls.crt", "ca.crt"]);
}

#[test]
fn the_pod_monitor_finds_the_agent_without_a_port_and_takes_tasks_labels_from_the_page() {
    let labels = pod(BASE)["metadata"]["labels"].clone();
    let monitor = kind(&manifests("deploy/kubernetes/podmonitor.yaml"), "PodMonitor")["spec"].clone();
    for (label, value) in monitor["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&labels[label], value, "{label}");
    }
    let openapi: Value = serde_json::from_str(&read("proto/openapi.json")).unwrap();
    let endpoints = monitor["podMetricsEndpoints"].as_array().unwrap();
    let port = config(&BTreeMap::new()).http.listen.port();
    for endpoint in endpoints {
        assert_eq!(endpoint["port"], Value::Null, "the pods name none");
        let path = endpoint["path"].as_str().unwrap();
        assert!(openapi["paths"].get(path).is_some(), "{path}");
        assert_eq!(endpoint["honorLabels"] == true, path == "/metrics/tasks");
        let relabelings = endpoint["relabelings"].as_array().unwrap();
        let address = relabelings.iter().find(|it| it["targetLabel"] == "__address__").unwrap();
        assert!(address["replacement"].as_str().unwrap().ends_with(&format!(":{port}")), "{address}");
        assert!(relabelings.contains(&json!({"action": "labeldrop", "regex": "pod"})));
    }
    assert_eq!(endpoints.len(), 2);
    assert_eq!(endpoints[0]["relabelings"], endpoints[1]["relabelings"]);
}

#[test]
fn the_secure_component_is_closed_and_its_secret_is_the_one_that_scrapers_read() {
    const MOUNTED: &str = "/etc/tallyport-http";
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
    let (pod, agent) = (pod(SECURE)["spec"].clone(), container(SECURE));
    let variables = variables(&agent);
    let mut check = Command::new(crate::agent::BINARY);
    check.args(["config", "check", "--config", "/dev/null"]);
    for (name, value) in &variables {
        check.env(name, value.replace(MOUNTED, directory.path().to_str().unwrap()));
        let file = value.strip_prefix(&format!("{MOUNTED}/"));
        assert!(file.is_none_or(|file| secret.iter().any(|(name, _)| *name == file)), "{value}");
    }
    let checked = ran(&mut check);
    assert_eq!(checked.code, 0, "{}", checked.err);
    let config = config(&variables);
    assert!(!config.http.listen.ip().is_loopback() && !config.http.insecure);
    assert_eq!(
        (&agent["volumeMounts"][0]["mountPath"], &agent["volumeMounts"][0]["name"]),
        (&json!(MOUNTED), &pod["volumes"][0]["name"])
    );
    let of = &pod["volumes"][0]["secret"]["secretName"];
    assert_eq!(&self::pod(UNTAINT)["spec"]["volumes"][0]["secret"]["secretName"], of);
    let monitors = manifests("deploy/kubernetes/podmonitor.yaml");
    for endpoint in kind(&monitors, "PodMonitor")["spec"]["podMetricsEndpoints"].as_array().unwrap() {
        assert_eq!(endpoint["scheme"], "https");
        assert_eq!(endpoint["authorization"]["credentials"], json!({"name": of, "key": "token"}));
        assert_eq!(endpoint["tlsConfig"]["ca"]["secret"], json!({"name": of, "key": "tls.crt"}));
        assert_eq!(endpoint["tlsConfig"]["serverName"], "tallyport");
    }
}

/// Objects by kind and name.
pub(crate) type Built = BTreeMap<(String, String), Value>;

/// The objects of a stream of documents. Helm writes empty documents for disabled parts.
pub(crate) fn listed(text: &str) -> Built {
    let documents = serde_norway::Deserializer::from_str(text).map(|it| Value::deserialize(it).unwrap());
    let key = |it: &Value| {
        (it["kind"].as_str().unwrap().to_owned(), it["metadata"]["name"].as_str().unwrap().to_owned())
    };
    documents.filter(|it| !it.is_null()).map(|it| (key(&it), it)).collect()
}

/// An overlay outside the manifests' directory, as an administrator would write it.
pub(crate) struct Overlay {
    directory: tempfile::TempDir,
}

impl Overlay {
    /// `None` if kubectl is missing.
    pub(crate) fn new() -> Option<Self> {
        // Debian has no package of it; the files themselves were checked above.
        if ran(Command::new("sh").args(["-c", "command -v kubectl"])).code != 0 {
            eprintln!("SKIPPED: kubectl is missing");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .arg(tools::root().join("deploy/kubernetes"))
            .arg(directory.path().join("vendor"))
            .status();
        assert!(copied.unwrap().success());
        std::fs::create_dir_all(directory.path().join("clusters/one")).unwrap();
        Some(Self { directory })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join("clusters/one").join(name)
    }

    /// The output of kustomize for these components and additional lines, by kind and name.
    pub(crate) fn build(&self, components: &[&str], more: &str) -> Built {
        let lines: Vec<_> =
            components.iter().map(|name| format!("  - ../../vendor/components/{name}\n")).collect();
        let components =
            if lines.is_empty() { String::new() } else { format!("components:\n{}", lines.concat()) };
        let text = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - ../../vendor\n{components}\
             images:\n  - name: tallyport\n    newName: registry.example/team/tallyport\n    newTag: \"9.9\"\n{more}"
        );
        std::fs::write(self.at("kustomization.yaml"), text).unwrap();
        let made = ran(Command::new("kubectl").arg("kustomize").arg(self.at("")));
        assert_eq!(made.code, 0, "{}", made.err);
        listed(&made.out)
    }
}

pub(crate) fn pods(built: &Built) -> BTreeMap<&str, &Value> {
    let sets = built.iter().filter(|((kind, _), _)| kind == "DaemonSet");
    sets.map(|((_, name), set)| (name.as_str(), &set["spec"]["template"])).collect()
}

/// Every selection of the components, in the order of the list.
pub(crate) fn selections() -> Vec<Vec<&'static str>> {
    let chosen = |bits: usize| {
        COMPONENTS.iter().enumerate().filter(move |(index, _)| bits >> index & 1 == 1).map(|(_, name)| *name)
    };
    (0..1 << COMPONENTS.len()).map(|bits| chosen(bits).collect()).collect()
}

#[test]
fn every_selection_of_components_builds_in_either_order_and_is_whole() {
    let Some(overlay) = Overlay::new() else { return };
    for mut selection in selections() {
        let built = overlay.build(&selection, "");
        selection.reverse();
        assert_eq!(overlay.build(&selection, ""), built, "{selection:?}");
        let has = |name: &str| selection.contains(&name);
        let pods = pods(&built);
        let wanted = [
            ("tallyport", true),
            ("tallyport-keeper", has("keeper")),
            ("tallyport-untaint", has("startup-taint")),
        ];
        let wanted: Vec<_> = wanted.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        assert_eq!(pods.keys().copied().collect::<Vec<_>>(), wanted, "{selection:?}");
        for (name, pod) in &pods {
            let containers = pod["spec"]["containers"].as_array().unwrap();
            assert_eq!(containers.len(), 1, "{name}");
            assert_eq!(
                containers[0]["image"], "registry.example/team/tallyport:9.9",
                "{name} in {selection:?}"
            );
            assert_eq!(containers[0]["ports"], Value::Null, "{name}");
            let tolerates = pod["metadata"]["annotations"][TOLERATES] == "true";
            assert!(tolerates || !has("required-plugins"), "{name} does not start in {selection:?}");
        }
        let named = |wanted: &str| -> Vec<&str> {
            built.keys().filter(|(kind, _)| kind == wanted).map(|(_, name)| name.as_str()).collect()
        };
        assert_eq!(named("ClusterRole").len(), usize::from(has("startup-taint")));
        let maps = named("ConfigMap");
        let settings = maps.iter().find(|name| !name.starts_with("tallyport-client")).unwrap();
        let agent = &pods["tallyport"]["spec"];
        assert!(
            agent["volumes"]
                .as_array()
                .unwrap()
                .contains(&json!({"name": "config", "configMap": {"name": settings}}))
        );
        is_reached_as_it_serves(&built, has("secure"));
    }
}

/// Every client in the pods uses the address and protocol that the agent serves.
fn is_reached_as_it_serves(built: &Built, secure: bool) {
    let pods = pods(built);
    let agent = &pods["tallyport"]["spec"]["containers"][0];
    let client =
        built.iter().find(|((kind, name), _)| kind == "ConfigMap" && name.starts_with("tallyport-client"));
    assert_eq!(client.is_some(), secure);
    assert_eq!(variables(agent).contains_key("TALLYPORT_HTTP_TLS_KEY"), secure);
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(agent[probe]["httpGet"]["scheme"] == "HTTPS", secure, "{probe}");
    }
    let asking: Vec<_> = pods.iter().filter(|(name, _)| **name != "tallyport-keeper").collect();
    let Some(((_, name), client)) = client else {
        assert_eq!(agent["envFrom"], Value::Null);
        return;
    };
    assert_eq!(client["data"]["TALLYPORT_URL"], "https://localhost:9725");
    for (pod, template) in asking {
        let container = &template["spec"]["containers"][0];
        assert_eq!(container["envFrom"][0]["configMapRef"]["name"], name.as_str(), "{pod}");
        let trusted = Path::new(client["data"]["TALLYPORT_CA"].as_str().unwrap());
        let mounts = container["volumeMounts"].as_array().unwrap();
        let mounted = mounts.iter().find(|it| it["mountPath"] == trusted.parent().unwrap().to_str().unwrap());
        assert_eq!(mounted.unwrap()["name"], "http", "{pod}");
    }
}

#[test]
fn settings_of_an_overlay_roll_out_and_cannot_undo_what_the_manifests_depend_on() {
    let Some(overlay) = Overlay::new() else { return };
    let more = "configMapGenerator:\n  - name: tallyport\n    namespace: tallyport\n    behavior: merge\n    files: [agent.toml]\n";
    let config = |text: &str| {
        std::fs::write(overlay.at("agent.toml"), text).unwrap();
        let built = overlay.build(&["secure", "startup-taint"], more);
        let agent = pods(&built)["tallyport"].clone();
        let volumes = agent["spec"]["volumes"].as_array().unwrap().clone();
        let name = volumes.iter().find(|it| it["name"] == "config").unwrap()["configMap"]["name"].clone();
        let map = built.get(&("ConfigMap".to_owned(), name.as_str().unwrap().to_owned())).unwrap();
        assert_eq!(map["data"]["agent.toml"], text);
        (name, variables(&agent["spec"]["containers"][0]))
    };
    let first = config("[windows]\nlength = \"30s\"\n");
    let second = config("[windows]\nlength = \"60s\"\n");
    assert_ne!(first.0, second.0, "a change must start new pods");
    assert_eq!(first.1, second.1);
    assert_eq!(self::config(&first.1).http.listen.port(), 9725);
}
