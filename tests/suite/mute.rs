//! Containers that run without an address, and their pods, which can be adopted.

use std::net::UdpSocket;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tallyport::nri::messages::{NriContainer, PodSandbox};

use crate::agent::Agent;
use crate::containers::Bundle;
use crate::namespaces::{Namespace, Process};
use crate::nri::{Runtime, pod_in, runs, setting, shown};
use crate::oci::runtimes;
use crate::tools;

const TASK: &str = "shop_web-0_u-1";
const ADOPTING: &str = "containers.adopt_mute = true";

/// A container of the pod without variables.
fn mute(name: &str) -> NriContainer {
    NriContainer { annotations: [].into(), ..runs(name, 0) }
}

/// A pod with this network, held open by this process.
fn held(namespace: &Namespace, holder: &Process) -> PodSandbox {
    PodSandbox { pid: holder.pid(), ..pod_in(namespace) }
}

fn adopted(agent: &Agent) -> f64 {
    let page = String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix("tallyport_pods_adopted "));
    line.unwrap().parse().unwrap()
}

fn warning(agent: &Agent, container: &str) -> String {
    shown(agent, container)["warnings"][0].as_str().unwrap_or_default().to_owned()
}

/// An agent whose runtime has listed its containers.
fn told(more: &str, pod: &PodSandbox, containers: &[NriContainer]) -> (Agent, Runtime, UnixListener) {
    let (_directory, listener, file) = setting(more);
    let agent = Agent::with(&["--window", "1s", "--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    runtime.knows(pod, containers);
    (agent, runtime, listener)
}

#[test]
fn an_adopted_pod_is_heard_where_clients_send_that_were_told_nothing() {
    let Some(()) = tools::network_namespaces() else { return };
    let namespace = Namespace::new();
    let mut holder = namespace.process();
    let pod = held(&namespace, &holder);
    let (agent, _runtime, _listener) = told(ADOPTING, &pod, &[mute("main"), mute("sidecar")]);
    for name in ["main", "sidecar"] {
        assert_eq!(shown(&agent, name)["state"], "mute", "it has no socket of its own, and that stays so");
        assert!(warning(&agent, name).contains("as container s1"), "{}", warning(&agent, name));
    }
    let socket = shown(&agent, "s1");
    let expected = json!(["listening", "127.0.0.1", 8125, "netns", true, true, TASK]);
    let keys = ["state", "statsd_host", "statsd_port", "origin_guard", "adopted", "attached", "task_id"];
    assert_eq!(json!(keys.map(|key| &socket[key])), expected, "{socket}");
    assert_eq!(
        (&socket["labels"]["pod"], &socket["labels"]["container"]),
        (&json!("web-0"), &Value::Null),
        "the origin is the pod"
    );
    assert_eq!(adopted(&agent), 1.0);
    namespace.send(8125, "a:3|c");
    agent.until("it has come", || shown(&agent, "s1")["received"] == 1);
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
    let _refused = outside.send_to(b"forged:1|c", ("127.0.0.1", 8125));
    agent.until("its window is closed", || agent.totals(TASK).contains_key("a"));
    let totals = agent.totals(TASK);
    assert_eq!((totals.len(), &totals["a"]["value"]), (1, &json!(3.0)));
    assert_eq!(totals["a"]["origin"]["container_id"], "s1");
    let leash = namespace.leash();
    drop(namespace);
    holder.end();
    agent.until("it ends with the pod", || shown(&agent, "s1")["state"] == "gone");
    agent.until("the network goes, too", || !leash.holds());
    assert_eq!(adopted(&agent), 0.0);
}

#[test]
fn no_container_is_adopted_that_has_an_address_or_where_that_is_off() {
    let Some(()) = tools::network_namespaces() else { return };
    let namespace = Namespace::new();
    let holder = namespace.process();
    let pod = held(&namespace, &holder);
    let (agent, ..) = told("", &pod, &[mute("main")]);
    assert_eq!((shown(&agent, "main")["state"].as_str(), adopted(&agent)), (Some("mute"), 0.0));
    assert_eq!(warning(&agent, "main"), "");
    // One of the two has lost its address to the other.
    let (agent, ..) = told(ADOPTING, &pod, &[runs("main", 18_125), runs("thief", 18_125)]);
    assert_eq!((shown(&agent, "thief")["state"].as_str(), adopted(&agent)), (Some("lost"), 0.0));
}

#[test]
fn a_pod_that_cannot_be_adopted_says_why_and_its_containers_stay_mute() {
    let Some(()) = tools::network_namespaces() else { return };
    let (namespace, other) = (Namespace::new(), Namespace::new());
    let (holder, stranger) = (namespace.process(), other.process());
    for (pod, why) in [
        (pod_in(&namespace), "process that holds its pod's network is unknown"),
        (held(&namespace, &stranger), "another network namespace"),
        (PodSandbox { linux: None, ..held(&namespace, &holder) }, "its network is the node's"),
    ] {
        let (agent, ..) = told(ADOPTING, &pod, &[mute("main")]);
        assert!(warning(&agent, "main").contains(why), "{why}: {}", warning(&agent, "main"));
        assert_eq!((shown(&agent, "main")["state"].as_str(), adopted(&agent)), (Some("mute"), 0.0));
    }
    // The pod has a StatsD server of its own.
    let body = json!({"container_id": "theirs", "options": {"port": 8125},
        "network": {"mode": "netns", "path": namespace.path()}});
    let theirs = Agent::start();
    assert_eq!(theirs.admin("POST", "/v1/containers", &body).0, 201);
    let (agent, ..) = told(ADOPTING, &held(&namespace, &holder), &[mute("main")]);
    assert!(warning(&agent, "main").contains("127.0.0.1:8125"), "{}", warning(&agent, "main"));
    let doctor = agent.cli(&["doctor"]);
    assert!(
        doctor.out.contains("is mute") && doctor.out.contains("; its pod cannot be adopted"),
        "{doctor:?}"
    );
    assert_eq!(adopted(&agent), 0.0);
}

#[test]
fn a_reload_turns_adoption_on_for_those_that_are_found_from_then_on() {
    let Some(()) = tools::network_namespaces() else { return };
    let namespace = Namespace::new();
    let holder = namespace.process();
    let (_directory, listener, file) = setting("");
    let agent = Agent::with(&["--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    runtime.knows(&held(&namespace, &holder), &[mute("first")]);
    assert_eq!(adopted(&agent), 0.0);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n{ADOPTING}")).unwrap();
    assert_eq!(agent.admin("POST", "/v1/config/reload", &Value::Null).0, 200);
    runtime.knows(&held(&namespace, &holder), &[mute("first"), mute("second")]);
    assert_eq!((adopted(&agent), warning(&agent, "first")), (1.0, String::new()));
}

/// The wrapper's notes for an agent in this directory.
fn notes(directory: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(directory.join("admin.sock.missed"));
    found.map(|found| found.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

/// Makes a note old enough to be removed.
fn age(note: &Path) {
    assert!(Command::new("touch").args(["-d", "-2 minutes"]).arg(note).status().unwrap().success());
}

#[test]
fn what_the_wrapper_started_while_the_agent_was_away_is_found_in_every_life_of_the_agent() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().to_owned();
        let bundle = Bundle::new(&runtime, &at.join("admin.sock"));
        bundle.configure(|config| {
            config["annotations"] = json!({"tallyport.task-id": "web.1", "team": "shop"});
        });
        bundle.up();
        assert_eq!(notes(&at).len(), 1, "{runtime:?}");
        let mut agent = Agent::in_directory(directory, &["--window", "1s"]);
        for life in ["first", "second"] {
            agent.until("it is found", || shown(&agent, &bundle.id)["state"] == "mute");
            let found = shown(&agent, &bundle.id);
            assert_eq!(
                (&found["task_id"], &found["labels"]["team"]),
                (&json!("web.1"), &json!("shop")),
                "{life}"
            );
            assert_eq!((&found["pid"], &found["attached"]), (&json!(bundle.pid()), &json!(true)), "{life}");
            if life == "first" {
                agent = Agent::in_directory(agent.into_directory(), &["--window", "1s"]);
            }
        }
        let page = String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
        assert!(page.lines().any(|line| line == "tallyport_containers{state=\"mute\"} 1"), "{page}");
        bundle.kill();
        agent.until("it is shown no longer than it lives", || shown(&agent, &bundle.id)["state"] == "gone");
        bundle.delete();
        notes(&at).iter().for_each(|note| age(note));
        agent.until("and its note goes", || notes(&at).is_empty());
        // The next start of the bundle is served.
        bundle.up();
        assert_eq!((shown(&agent, &bundle.id)["state"].as_str(), notes(&at).len()), (Some("listening"), 0));
    }
}

#[test]
fn no_container_is_mute_that_did_not_start_or_wanted_no_socket() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().to_owned();
        let bundle = Bundle::new(&runtime, &at.join("admin.sock"));
        bundle.settings("fail_closed = true");
        assert_ne!(bundle.try_create().code, 0);
        assert!(notes(&at).is_empty(), "it does not start");
        bundle.settings("");
        bundle.configure(|config| config["root"]["path"] = json!("no-such-root"));
        assert_ne!(bundle.try_create().code, 0);
        let failed = notes(&at);
        assert_eq!(failed.len(), 1, "the wrapper cannot know that the start will fail");
        let unwilling = Bundle::new(&runtime, &at.join("admin.sock"));
        unwilling.configure(|config| config["annotations"] = json!({"tallyport.enabled": "false"}));
        unwilling.up();
        assert_eq!(notes(&at).len(), 2);
        let agent = Agent::in_directory(directory, &["--window", "1s"]);
        agent.until("who wanted none is forgotten", || notes(&at) == failed);
        age(&failed[0]);
        agent.until("and who did not start", || notes(&at).is_empty());
        assert_eq!(agent.admin("GET", "/v1/containers", &Value::Null).1, json!([]));
    }
}

#[test]
fn a_pod_that_the_wrapper_could_not_serve_is_adopted() {
    for runtime in runtimes() {
        let namespace = Namespace::new();
        let holder = namespace.process();
        let directory = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(&runtime, &directory.path().join("admin.sock"));
        bundle.configure(|config| {
            let cri = |key: &str| format!("io.kubernetes.cri.{key}");
            config["annotations"] = json!({
                cri("container-type"): "container", cri("container-name"): "main", cri("sandbox-id"): bundle.id.clone() + "-pod",
                cri("sandbox-name"): "web-0", cri("sandbox-namespace"): "shop", cri("sandbox-uid"): "u-1"});
            let path = format!("/proc/{}/ns/net", holder.pid());
            config["linux"]["namespaces"][4] = json!({"type": "network", "path": path});
        });
        bundle.up();
        let agent =
            Agent::in_directory(directory, &["--window", "1s", "--set", "containers.adopt_mute=true"]);
        agent.until("it is found", || adopted(&agent) == 1.0);
        assert_eq!(shown(&agent, &bundle.id)["state"], "mute");
        let pod = format!("{}-pod", bundle.id);
        namespace.send(8125, "a:1|c");
        agent.until("its pod is heard", || shown(&agent, &pod)["received"] == 1);
        assert_eq!(shown(&agent, &pod)["task_id"], TASK);
    }
}
