//! Pods of a real containerd: the variables that their containers get, and the datagrams that arrive from them.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tallyport_nri::agent::Agent;
use tallyport_nri::containerd::Containerd;
use tallyport_nri::cri::{Cri, Pod};
use tallyport_nri::until;

const WEB: Pod = Pod {
    name: "web-7d4b9c-x2x4z",
    uid: "0b5e7c1e-web",
    namespace: "shop",
    own_network: false,
    annotations: &[("tallyport.task-id", "web")],
    labels: &[("app.kubernetes.io/name", "store"), ("pod-template-hash", "7d4b9c")],
};
const TASK: &str = "shop_web-7d4b9c-x2x4z_0b5e7c1e-web";

/// A node: a containerd with the agent as its plugin.
struct Node {
    containerd: Containerd,
    cri: Cri,
    directory: tempfile::TempDir,
}

impl Node {
    fn start() -> (Self, Agent) {
        Self::with(&[])
    }

    fn with(settings: &[&str]) -> (Self, Agent) {
        let containerd = Containerd::start();
        let cri = containerd.cri();
        let node = Self { containerd, cri, directory: tempfile::tempdir().unwrap() };
        let agent = node.agent(settings);
        (node, agent)
    }

    fn agent(&self, settings: &[&str]) -> Agent {
        Agent::start(self.directory.path(), &self.containerd.nri_socket(), settings)
    }

    fn pod(&mut self, pod: &Pod) -> String {
        let id = self.cri.run_pod(pod);
        self.containerd.owns(&id);
        id
    }
}

fn value<'e>(env: &'e [String], name: &str) -> Option<&'e str> {
    env.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
}

/// The number of datagrams received from a container.
fn received(agent: &Agent, id: &str) -> u64 {
    agent.container(id).and_then(|container| container["received"].as_u64()).unwrap_or(0)
}

/// The total of a task's counter.
fn ticks(agent: &Agent, task: &str) -> Option<Value> {
    let records = agent.ask(&["metrics", "details", task, "--window", "all", "--merge"])?;
    records.as_array()?.iter().find(|record| record["name"] == "app.ticks").cloned()
}

fn namespace(pid: u32) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
}

#[test]
fn a_host_network_pod_is_served_from_its_first_datagram_to_its_end() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    for round in ["first", "second"] {
        let id = node.cri.start(&pod, &WEB, "main", &[("STATSD_UDP_PORT", "9"), ("OTHER", "stays")]);
        let container = agent.container(&id).expect("the agent knows it");
        let (host, port) = (&container["statsd_host"], container["statsd_port"].to_string());
        for env in [node.cri.process_env(&id), node.cri.exec_env(&id)] {
            assert_eq!(value(&env, "STATSD_UDP_HOST"), host.as_str(), "{round}: {env:?}");
            assert_eq!(value(&env, "STATSD_UDP_PORT"), Some(port.as_str()), "{round}: {env:?}");
            assert_eq!(value(&env, "OTHER"), Some("stays"));
        }
        assert_eq!(container["task_id"], TASK);
        assert_eq!(container["pid"], node.cri.pid(&id));
        let labels = json!({
            "namespace": "shop", "pod": WEB.name, "uid": WEB.uid, "container": "main", "image": "localhost/app:1",
            "app": "store", "service": "store", "workload": "web", "workload_kind": "Deployment",
        });
        assert_eq!(container["labels"], labels);
        until("datagrams arrive", || received(&agent, &id) > 5);
        until("they are counted under the pod", || ticks(&agent, TASK).is_some());
        assert_eq!(ticks(&agent, TASK).unwrap()["origin"]["container_id"], id.as_str());
        assert!(ticks(&agent, "shop/web").is_some(), "and under its other name");
        let by_pod =
            agent.ask(&["metrics", "details", "-n", "shop", WEB.name, "-c", "main", "--window", "all"]);
        assert!(by_pod.is_some_and(|records| !records.as_array().unwrap().is_empty()));
        node.cri.stop(&id);
        let took = until("its end is noticed", || agent.state(&id).as_deref() == Some("gone"));
        assert!(took < Duration::from_secs(1), "{took:?}");
        node.cri.remove(&id);
    }
    assert_eq!(agent.metric("tallyport_nri_containers_total{outcome=\"injected\"}"), Some(2.0));
    let slowest = agent.metric("tallyport_nri_handling_seconds{quantile=\"0.99\"}").unwrap();
    eprintln!("the plugin answered within {slowest} s (p99)");
    agent.stop();
}

#[test]
fn a_container_goes_on_after_a_restart_of_the_agent() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    let id = node.cri.start(&pod, &WEB, "main", &[]);
    until("datagrams arrive", || received(&agent, &id) > 5);
    let address = |agent: &Agent| {
        let container = agent.container(&id).unwrap();
        (container["statsd_host"].clone(), container["statsd_port"].clone())
    };
    let before = address(&agent);
    // The agent's journal has the container; without the journal, the runtime's list is sufficient.
    agent.stop();
    let mut agent = node.agent(&[]);
    for restored in [0.0, 1.0] {
        assert_eq!(address(&agent), before);
        assert_eq!(agent.state(&id).as_deref(), Some("listening"));
        let so_far = received(&agent, &id);
        until("datagrams arrive again", || received(&agent, &id) > so_far + 5);
        until("under the same task", || ticks(&agent, TASK).is_some());
        assert_eq!(agent.metric("tallyport_nri_containers_total{outcome=\"restored\"}"), Some(restored));
        if restored == 0.0 {
            agent.stop_and_forget();
            agent = node.agent(&[]);
        }
    }
    node.cri.stop(&id);
    until("its end is noticed", || agent.state(&id).as_deref() == Some("gone"));
}

#[test]
fn a_restart_of_containerd_hurts_no_container_and_the_next_one_is_served() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    let id = node.cri.start(&pod, &WEB, "main", &[]);
    until("datagrams arrive", || received(&agent, &id) > 5);
    let pid = agent.pid();
    node.containerd.restart();
    node.cri = node.containerd.cri();
    until("the plugin is back", || agent.log().matches("compared with the container runtime").count() == 2);
    let so_far = received(&agent, &id);
    until("datagrams go on", || received(&agent, &id) > so_far + 5);
    assert_eq!((agent.state(&id).as_deref(), agent.pid()), (Some("listening"), pid));
    let next = node.cri.start(&pod, &WEB, "next", &[]);
    until("the next one is served", || received(&agent, &next) > 5);
}

#[test]
fn a_container_that_never_started_is_released_once_removed() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    let created = node.cri.create(&pod, &WEB, "never-started", &[]).unwrap();
    assert_eq!(agent.state(&created).as_deref(), Some("listening"));
    node.cri.remove(&created);
    until("its removal is noticed", || agent.state(&created).as_deref() == Some("gone"));
}

#[test]
fn a_container_that_the_runtime_cannot_start_leaves_nothing_behind() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    node.cri.command = "/bin/no-such-program".to_owned();
    let id = node.cri.create(&pod, &WEB, "main", &[]).unwrap();
    let error = node.cri.try_start(&id).unwrap_err();
    assert!(error.contains("no-such-program"), "{error}");
    node.cri.remove(&id);
    until("nothing waits for it", || agent.state(&id).as_deref() == Some("gone"));
}

#[test]
fn containers_that_come_and_go_leave_nothing_behind() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    // Without the files of the window log, which are opened when there is something to write.
    let held = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_link(entry.unwrap().path())
            .is_ok_and(|target| !target.to_string_lossy().contains("/windows/"))
    };
    let descriptors = |agent: &Agent| {
        std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().map(held).filter(|held| *held).count()
    };
    let before = descriptors(&agent);
    let mut ids = Vec::new();
    for n in 0..40 {
        let id = node.cri.start(&pod, &WEB, &format!("main-{n}"), &[]);
        if n % 2 == 0 {
            // Killed from outside, as by the kernel when memory runs out.
            let killed =
                std::process::Command::new("kill").args(["-9", &node.cri.pid(&id).to_string()]).status();
            assert!(killed.unwrap().success());
        } else {
            node.cri.stop(&id);
        }
        ids.push(id);
    }
    until("all are gone", || ids.iter().all(|id| agent.state(id).as_deref() == Some("gone")));
    until("no socket and no process is held", || descriptors(&agent) <= before);
    for id in &ids {
        node.cri.remove(id);
    }
    assert_eq!(agent.metric("tallyport_containers{state=\"listening\"}"), Some(0.0));
}

#[test]
fn a_container_that_ends_while_containerd_is_away_is_released_at_once() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    let id = node.cri.start(&pod, &WEB, "main", &[]);
    let pid = node.cri.pid(&id);
    node.containerd.stopped(|| {
        assert!(
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success()
        );
        until("its process is watched", || agent.state(&id).as_deref() == Some("gone"));
    });
    node.cri = node.containerd.cri();
    until("the plugin is back", || agent.metric("tallyport_nri_connected") == Some(1.0));
    assert_eq!(agent.state(&id).as_deref(), Some("gone"));
}

/// The author of a pod sets its variables, and must not receive another container's samples by doing so.
#[test]
fn a_pod_that_names_another_containers_address_does_not_get_it() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    let victim = node.cri.start(&pod, &WEB, "victim", &[]);
    let env = node.cri.process_env(&victim);
    let of = |name: &str| value(&env, name).unwrap().to_owned();
    let (host, port) = (of("STATSD_UDP_HOST"), of("STATSD_UDP_PORT"));
    agent.stop();
    let forged = format!("{host}:{port}");
    let annotations: &'static [(&str, &str)] = vec![("tallyport.address", &*forged.leak())].leak();
    let other = Pod { name: "thief", uid: "u-thief", namespace: "bank", annotations, ..WEB };
    let sandbox = node.pod(&other);
    let variables = [("STATSD_UDP_HOST", host.as_str()), ("STATSD_UDP_PORT", port.as_str())];
    let thief = node.cri.start(&sandbox, &other, "thief", &variables);
    let agent = node.agent(&[]);
    assert_eq!(agent.state(&victim).as_deref(), Some("listening"));
    assert_eq!(agent.state(&thief).as_deref(), Some("mute"));
    until("the victim's datagrams are its own", || received(&agent, &victim) > 5);
    assert_eq!(agent.container(&victim).unwrap()["statsd_host"], host);
}

#[test]
fn what_started_without_the_agent_is_mute() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    agent.kill();
    let id = node.cri.start(&pod, &WEB, "main", &[]);
    let env = node.cri.process_env(&id);
    assert_eq!(value(&env, "STATSD_UDP_HOST"), None, "it starts, without");
    let agent = node.agent(&[]);
    until("it is shown", || agent.state(&id).as_deref() == Some("mute"));
    assert_eq!(agent.metric("tallyport_containers{state=\"mute\"}"), Some(1.0));
    assert_eq!(agent.container(&id).unwrap()["task_id"], TASK);
    node.cri.stop(&id);
    until("and no longer than it lives", || agent.state(&id).as_deref() == Some("gone"));
}

/// A client without variables may still send to its default address.
#[test]
fn the_pod_of_a_mute_container_is_heard_where_it_is_adopted() {
    if !Path::new("/usr/lib/cni/ptp").exists() {
        assert!(std::env::var_os("CI").is_none(), "the CNI plugins are missing");
        eprintln!("SKIPPED: the CNI plugins are missing");
        return;
    }
    let (mut node, agent) = Node::start();
    let own = Pod { own_network: true, ..WEB };
    let pod = node.pod(&own);
    agent.kill();
    let default = [("STATSD_UDP_HOST", "127.0.0.1"), ("STATSD_UDP_PORT", "8125")];
    let id = node.cri.start(&pod, &own, "main", &default);
    let agent = node.agent(&["containers.adopt_mute=true"]);
    until("it is shown", || agent.state(&id).as_deref() == Some("mute"));
    assert_eq!(agent.metric("tallyport_pods_adopted"), Some(1.0), "{:?}", agent.container(&id));
    until("its datagrams arrive", || received(&agent, &pod) > 5);
    until("they are counted under the pod", || ticks(&agent, TASK).is_some());
    assert_eq!(ticks(&agent, TASK).unwrap()["origin"]["container_id"], pod.as_str());
    node.cri.remove_pod(&pod);
    until("it ends with the pod", || agent.state(&pod).as_deref() == Some("gone"));
    assert_eq!(agent.metric("tallyport_pods_adopted"), Some(0.0));
}

#[test]
fn an_agent_that_hangs_holds_containers_up_for_no_longer_than_the_runtime_waits() {
    let (mut node, agent) = Node::start();
    let pod = node.pod(&WEB);
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &agent.pid().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    let started = std::time::Instant::now();
    let id = node.cri.start(&pod, &WEB, "main", &[]);
    eprintln!("a container started after {:?} beside an agent that hangs", started.elapsed());
    signal("-CONT");
    assert_eq!(value(&node.cri.process_env(&id), "STATSD_UDP_HOST"), None);
    until("it is shown", || agent.state(&id).as_deref() == Some("mute"));
}

#[test]
fn who_is_not_selected_gets_nothing() {
    let (mut node, agent) =
        Node::with(&["env.presets=statsd,datadog", "kubernetes.exclude_containers=side*"]);
    let out = Pod { name: "out", uid: "u-out", annotations: &[("tallyport.enabled", "false")], ..WEB };
    let system = Pod { name: "dns", uid: "u-dns", namespace: "kube-system", ..WEB };
    let one = Pod {
        name: "one",
        uid: "u-one",
        annotations: &[("tallyport.enabled/container.quiet", "false")],
        ..WEB
    };
    for (pod, container, served) in [
        (&out, "main", false),
        (&system, "main", false),
        (&one, "quiet", false),
        (&one, "sidecar", false),
        (&one, "main", true),
    ] {
        let sandbox = node.pod(&Pod { uid: container, ..pod.clone() });
        let id = node.cri.start(&sandbox, pod, container, &[("STATSD_HOST", "mine")]);
        let env = node.cri.process_env(&id);
        assert_eq!(value(&env, "STATSD_UDP_HOST").is_some(), served, "{} {container}", pod.name);
        assert_eq!(value(&env, "DD_DOGSTATSD_URL").is_some(), served);
        assert_eq!(value(&env, "STATSD_HOST"), Some("mine"), "never over what the application set");
        assert_eq!(value(&env, "STATSD_PORT"), None, "nor beside half of what it set");
        assert_eq!(agent.container(&id).is_some(), served);
    }
}

/// Two containers share one network namespace, which is not the node's.
#[test]
fn a_pod_with_a_network_of_its_own_is_served_inside_it() {
    if !Path::new("/usr/lib/cni/ptp").exists() {
        assert!(std::env::var_os("CI").is_none(), "the CNI plugins are missing");
        eprintln!("SKIPPED: the CNI plugins are missing");
        return;
    }
    let (mut node, agent) = Node::start();
    let own = Pod { own_network: true, ..WEB };
    let pod = node.pod(&own);
    let ids = ["main", "sidecar"].map(|name| node.cri.start(&pod, &own, name, &[]));
    let [main, sidecar] = ids.each_ref().map(|id| namespace(node.cri.pid(id)));
    assert_eq!(main, sidecar);
    assert_ne!(main, namespace(std::process::id()));
    let served = |agent: &Agent, cri: &Cri, id: &str, name: &str, port: &str| {
        let container = agent.container(id).unwrap();
        assert_eq!((&container["state"], &container["origin_guard"]), (&json!("listening"), &json!("netns")));
        assert_eq!(container["labels"]["container"], name);
        for env in [cri.process_env(id), cri.exec_env(id)] {
            assert_eq!(value(&env, "STATSD_UDP_HOST"), Some("127.0.0.1"), "{env:?}");
            assert_eq!(value(&env, "STATSD_UDP_PORT"), Some(port), "{env:?}");
        }
        until("datagrams arrive", || received(agent, id) > 5);
        let of_container = ["metrics", "details", "-n", "shop", WEB.name, "-c", name, "--window", "all"];
        until("they are counted under the pod and the container", || {
            let records = agent.ask(&of_container).unwrap_or_default();
            let mut records = records.as_array().into_iter().flatten();
            records.any(|record| record["name"] == "app.ticks" && record["origin"]["container_id"] == id)
        });
    };
    served(&agent, &node.cri, &ids[0], "main", "18125");
    served(&agent, &node.cri, &ids[1], "sidecar", "18126");
    node.cri.stop(&ids[0]);
    let took = until("its end is noticed", || agent.state(&ids[0]).as_deref() == Some("gone"));
    assert!(took < Duration::from_secs(1), "{took:?}");
    let main = node.cri.start(&pod, &own, "main-again", &[]);
    assert_eq!(agent.container(&main).unwrap()["statsd_port"], 18_127, "the other's port rests");
    node.cri.stop(&main);
    node.cri.remove(&ids[0]);
    let main = node.cri.start(&pod, &own, "main", &[]);
    served(&agent, &node.cri, &main, "main", "18125");
    agent.stop_and_forget();
    let agent = node.agent(&[]);
    served(&agent, &node.cri, &main, "main", "18125");
    served(&agent, &node.cri, &ids[1], "sidecar", "18126");
    assert_eq!(agent.metric("tallyport_nri_containers_total{outcome=\"restored\"}"), Some(2.0));
    // 127.0.0.1 of the host is a different address.
    let outside = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for port in 18_125..18_130 {
        let _refused = outside.send_to(b"forged:1|c", ("127.0.0.1", port));
    }
    node.cri.stop(&ids[1]);
    node.cri.stop(&main);
    until("both are gone", || [&main, &ids[1]].iter().all(|id| agent.state(id).as_deref() == Some("gone")));
    let records = agent.ask(&["metrics", "details", TASK, "--window", "all"]).unwrap();
    assert!(records.as_array().unwrap().iter().all(|record| record["name"] != "forged"), "{records}");
}
