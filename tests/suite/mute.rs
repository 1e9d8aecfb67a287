//! Containers that run without an address, and their pods, which can be adopted.

use std::net::UdpSocket;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};
use tallyport::nri::messages::{Container, PodSandbox};

use crate::agent::Agent;
use crate::namespaces::{Namespace, Process};
use crate::nri::{Runtime, pod_in, runs, setting, shown};
use crate::tools;

const TASK: &str = "shop_web-0_u-1";
const ADOPTING: &str = "containers.adopt_mute = true";

/// A container of the pod that was told nothing.
fn mute(name: &str) -> Container {
    Container { annotations: [].into(), ..runs(name, 0) }
}

/// A pod with this network, which this process holds.
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

/// An agent whose runtime has told it what is there.
fn told(more: &str, pod: &PodSandbox, containers: &[Container]) -> (Agent, Runtime, UnixListener) {
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
        assert!(warning(&agent, name).contains("here as container s1"), "{}", warning(&agent, name));
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
fn nobody_is_adopted_who_was_told_an_address_or_where_that_is_not_wanted() {
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
        (pod_in(&namespace), "which process holds its pod's network"),
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
    assert!(doctor.out.contains("is mute; its pod cannot be adopted"), "{doctor:?}");
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
