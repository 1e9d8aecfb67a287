//! The agent as a plugin of a simulated container runtime. `make e2e-nri` uses real ones.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use prost::Message;
use serde_json::Value;
use tallyport::net::passing::Channel;
use tallyport::nri::messages::{
    About, ConfigureAnswer, CreateContainerAnswer, Empty, LinuxContainer, LinuxNamespace, LinuxPodSandbox,
    NriContainer, PLUGIN_SERVICE, PodSandbox, RegisterPlugin, Synchronize, SynchronizeAnswer, TtrpcRequest,
    TtrpcResponse,
};
use tallyport::nri::mux::{Connection, Demux, split_into_frames};
use tallyport::nri::ttrpc::{self, FrameAssembler, TtrpcFrame};

use crate::agent::{Agent, PATIENCE};
use crate::namespaces::Namespace;
use crate::tools;

/// The runtime's side of one connection.
pub(crate) struct Runtime {
    stream: UnixStream,
    demux: Demux,
    plugin: FrameAssembler,
    runtime: FrameAssembler,
    next: u32,
}

impl Runtime {
    pub(crate) fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (plugin, runtime) = (FrameAssembler::default(), FrameAssembler::default());
        Self { stream, demux: Demux::default(), plugin, runtime, next: 1 }
    }

    fn frame(&mut self, of_plugin: bool) -> TtrpcFrame {
        loop {
            let assembler = if of_plugin { &mut self.plugin } else { &mut self.runtime };
            if let Some(frame) = assembler.next_frame().unwrap() {
                return frame;
            }
            let mut bytes = [0; 4096];
            let n = self.stream.read(&mut bytes).unwrap();
            assert!(n > 0, "the agent closed the connection");
            let (plugin, runtime) = (&mut self.plugin, &mut self.runtime);
            let each = |connection, piece: &[u8]| match connection {
                Connection::Plugin => plugin.push(piece),
                Connection::Runtime => runtime.push(piece),
            };
            self.demux.push(&bytes[..n], each).unwrap();
        }
    }

    pub(crate) fn call<A: Message + Default>(&mut self, method: &str, message: &impl Message) -> A {
        let call = ttrpc::encode_call(self.next, PLUGIN_SERVICE, method, message);
        self.next += 2;
        self.stream.write_all(&split_into_frames(Connection::Plugin, &call)).unwrap();
        let response = TtrpcResponse::decode(self.frame(true).data).unwrap();
        assert_eq!(response.status, None, "{method}");
        A::decode(response.payload.as_slice()).unwrap()
    }

    pub(crate) fn takes_the_plugin(&mut self) -> RegisterPlugin {
        let plugin = self.registers_the_plugin();
        let _done: SynchronizeAnswer = self.call("Synchronize", &Synchronize::default());
        plugin
    }

    fn registers_the_plugin(&mut self) -> RegisterPlugin {
        let frame = self.frame(false);
        let plugin =
            RegisterPlugin::decode(TtrpcRequest::decode(frame.data).unwrap().payload.as_slice()).unwrap();
        let answer = ttrpc::encode_answer(frame.stream, Ok(Vec::new()));
        self.stream.write_all(&split_into_frames(Connection::Runtime, &answer)).unwrap();
        let _events: ConfigureAnswer = self.call("Configure", &Empty {});
        plugin
    }

    pub(crate) fn knows(&mut self, pod: &PodSandbox, containers: &[NriContainer]) {
        let all = Synchronize { pods: vec![pod.clone()], containers: containers.to_vec(), more: false };
        let _done: SynchronizeAnswer = self.call("Synchronize", &all);
    }

    /// Creates and starts a container in a network that cannot be found.
    pub(crate) fn starts_without_a_socket(&mut self, id: &str) {
        let mut about = about(id);
        let network = LinuxNamespace { kind: "network".to_owned(), path: "/no/such/netns".to_owned() };
        about.container.as_mut().unwrap().linux = Some(LinuxContainer { namespaces: vec![network] });
        let answer: CreateContainerAnswer = self.call("CreateContainer", &about);
        assert_eq!(answer.adjust, None);
        let _started: Empty = self.call("StartContainer", &about);
    }

    /// The names of the variables that a new container gets.
    fn variables(&mut self, id: &str) -> Vec<String> {
        let answer: CreateContainerAnswer = self.call("CreateContainer", &about(id));
        answer.adjust.unwrap_or_default().env.into_iter().map(|variable| variable.key).collect()
    }
}

fn about(id: &str) -> About {
    let container = NriContainer { id: id.to_owned(), name: "main".to_owned(), ..NriContainer::default() };
    About { pod: Some(web_pod()), container: Some(container) }
}

fn web_pod() -> PodSandbox {
    PodSandbox {
        id: "s1".to_owned(),
        name: "web-0".to_owned(),
        uid: "u-1".to_owned(),
        namespace: "shop".to_owned(),
        ..PodSandbox::default()
    }
}

/// A directory with a runtime's socket and a configuration that names it.
pub(crate) fn setting(more: &str) -> (tempfile::TempDir, UnixListener, String) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nri.sock");
    let file = directory.path().join("agent.toml").display().to_string();
    let text =
        format!("nri.enabled = true\nnri.socket = \"{}\"\nlisteners.port = 18628\n{more}", socket.display());
    std::fs::write(&file, text).unwrap();
    (directory, UnixListener::bind(socket).unwrap(), file)
}

#[test]
fn the_agent_is_a_plugin_where_the_configuration_says_so_and_nowhere_else() {
    let (_directory, listener, file) = setting("nri.index = 7");
    listener.set_nonblocking(true).unwrap();
    let without = Agent::with(&["--config", &file, "--set", "nri.enabled=false"]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(listener.accept().is_err(), "the agent does not connect");
    drop(without);
    listener.set_nonblocking(false).unwrap();
    let agent = Agent::with(&["--config", &file]);
    let plugin = Runtime::accept(&listener).takes_the_plugin();
    assert_eq!((plugin.name.as_str(), plugin.index.as_str()), ("tallyport", "07"));
    assert_eq!(agent.get_raw("/ready").status, 200, "a runtime that goes away does not make it unready");
}

#[test]
fn a_pods_container_is_a_task_that_can_be_read() {
    let (_directory, listener, file) = setting("env.presets = [\"statsd\"]");
    let agent = Agent::with(&["--window", "1s", "--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    let names = runtime.variables("c1");
    assert_eq!(names, ["STATSD_HOST", "STATSD_PORT", "STATSD_UDP_HOST", "STATSD_UDP_PORT"]);
    let (status, task) = agent.get("/v1/tasks/shop_web-0_u-1");
    assert_eq!((status, &task["containers"][0]["container_id"]), (200, &Value::from("c1")));
    assert_eq!(task["labels"]["namespace"], "shop");
    let page = String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
    for line in ["tallyport_nri_connected 1", "tallyport_nri_containers_total{outcome=\"injected\"} 1"] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
}

#[test]
fn a_reload_changes_whom_the_plugin_serves() {
    let (directory, listener, file) = setting("");
    let agent = Agent::with(&["--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    assert_eq!(runtime.variables("c1").len(), 2);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\nkubernetes.mode = \"opt-in\"")).unwrap();
    assert_eq!(agent.admin("POST", "/v1/config/reload", &Value::Null).0, 200);
    assert!(runtime.variables("c2").is_empty(), "without a restart");
    drop(directory);
}

#[test]
fn a_running_container_without_an_address_is_shown_everywhere() {
    let (_directory, listener, file) = setting("");
    let agent = Agent::with(&["--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    let pod = PodSandbox {
        id: "s1".to_owned(),
        name: "web-0".to_owned(),
        uid: "u-1".to_owned(),
        ..PodSandbox::default()
    };
    let (id, pod_sandbox_id) = ("c1".to_owned(), "s1".to_owned());
    let container = NriContainer { id, pod_sandbox_id, state: 3, ..NriContainer::default() };
    runtime.knows(&pod, &[container]);
    let (_, shown) = agent.admin("GET", "/v1/containers/c1", &Value::Null);
    assert_eq!((&shown["state"], &shown["statsd_host"]), (&Value::from("mute"), &Value::Null));
    assert_eq!(shown["env"], serde_json::json!({}));
    let (status, metrics) = agent.get("/v1/tasks/_web-0_u-1/metrics");
    assert_eq!((status, &metrics["metrics"]), (200, &serde_json::json!([])));
    let explained = agent.cli(&["explain", "_web-0_u-1"]);
    assert!(explained.code == 4 && explained.out.contains("c1 is mute"), "{explained:?}");
    let doctor = agent.cli(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("c1 of task _web-0_u-1 is mute"), "{doctor:?}");
    let page = String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
    assert!(page.lines().any(|line| line == "tallyport_containers{state=\"mute\"} 1"), "{page}");
    for path in ["/v1/tasks", "/v1/accounting", "/v1/metrics", "/v0/containers"] {
        assert_eq!(agent.get_raw(path).status, 200, "{path}");
    }
}

#[test]
fn a_connection_that_is_cut_costs_no_container_its_socket_and_is_made_again() {
    let (_directory, listener, file) = setting("");
    let agent = Agent::with(&["--window", "1s", "--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    assert_eq!(runtime.variables("c1").len(), 2);
    let before = shown(&agent, "c1");
    // In the middle of a frame, too.
    runtime.stream.write_all(&[0, 0, 0, 1, 0, 0]).unwrap();
    drop(runtime);
    let cut = std::time::Instant::now();
    crate::agent::Address::of(&before).send("a:1|c");
    agent.until("what is sent meanwhile is counted", || shown(&agent, "c1")["received"] == 1);
    let mut runtime = Runtime::accept(&listener);
    assert!(cut.elapsed() < std::time::Duration::from_secs(4), "{:?}", cut.elapsed());
    runtime.registers_the_plugin();
    let meanwhile = "started-meanwhile";
    let told = format!("{}:{}", before["statsd_host"].as_str().unwrap(), before["statsd_port"]);
    let annotated = [("tallyport.address".to_owned(), told)].into();
    let running = [("c1", annotated), (meanwhile, HashMap::new())].map(|(id, annotations)| NriContainer {
        id: id.to_owned(),
        pod_sandbox_id: "s1".to_owned(),
        annotations,
        state: 3,
        ..NriContainer::default()
    });
    runtime.knows(&web_pod(), &running);
    assert_eq!(
        (shown(&agent, "c1")["state"].as_str(), shown(&agent, meanwhile)["state"].as_str()),
        (Some("listening"), Some("mute")),
        "who was served still is, who could not be is shown"
    );
    assert_eq!(runtime.variables("c2").len(), 2, "and the next one is served");
}

/// A pod with its own network.
pub(crate) fn pod_in(namespace: &Namespace) -> PodSandbox {
    let network = LinuxNamespace { kind: "network".to_owned(), path: namespace.path().display().to_string() };
    PodSandbox { linux: Some(LinuxPodSandbox { namespaces: vec![network] }), ..web_pod() }
}

/// A container of that pod, as the runtime lists it once it runs at an address.
pub(crate) fn runs(name: &str, port: u16) -> NriContainer {
    let annotations = [("tallyport.address".to_owned(), format!("127.0.0.1:{port}"))].into();
    let pod_sandbox_id = "s1".to_owned();
    NriContainer {
        id: name.to_owned(),
        name: name.to_owned(),
        pod_sandbox_id,
        annotations,
        state: 3,
        ..NriContainer::default()
    }
}

pub(crate) fn shown(agent: &Agent, container: &str) -> Value {
    agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null).1
}

#[test]
fn the_containers_of_a_pod_have_their_sockets_inside_its_network() {
    let Some(()) = tools::network_namespaces() else { return };
    let (_directory, listener, file) = setting("");
    let agent = Agent::with(&["--window", "1s", "--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    let namespace = Namespace::new();
    for (name, port) in [("main", 18_125), ("sidecar", 18_126)] {
        let about = About {
            pod: Some(pod_in(&namespace)),
            container: Some(NriContainer { state: 1, ..runs(name, 0) }),
        };
        let answer: CreateContainerAnswer = runtime.call("CreateContainer", &about);
        let given: Vec<_> = answer.adjust.unwrap().env.into_iter().map(|variable| variable.value).collect();
        assert_eq!(given, ["127.0.0.1".to_owned(), port.to_string()]);
        namespace.send(port, &format!("{name}:1|c"));
        agent.until("it has come", || shown(&agent, name)["received"] == 1);
    }
    assert_eq!(shown(&agent, "main")["origin_guard"], "netns");
    // It is created again with another id, beside its sibling.
    agent.release("main");
    agent.until("it is gone", || shown(&agent, "main")["state"] == "gone");
    let again = NriContainer { id: "main-2".to_owned(), state: 1, ..runs("main", 0) };
    let about = About { pod: Some(pod_in(&namespace)), container: Some(again) };
    let _answer: CreateContainerAnswer = runtime.call("CreateContainer", &about);
    assert_eq!(shown(&agent, "main-2")["statsd_port"], 18_125, "its name has its port");
}

#[test]
fn an_address_inside_a_pods_network_is_opened_again_after_a_restart() {
    let Some(()) = tools::network_namespaces() else { return };
    let (_directory, listener, file) = setting("");
    let namespace = Namespace::new();
    let agent = Agent::with(&["--window", "1s", "--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    // Listed in an order other than that of their creation; each still has its own port.
    runtime
        .knows(&pod_in(&namespace), &[runs("sidecar", 18_126), runs("main", 18_125), runs("thief", 18_125)]);
    for (name, port) in [("main", 18_125), ("sidecar", 18_126)] {
        let container = shown(&agent, name);
        assert_eq!((&container["state"], &container["statsd_port"]), (&"listening".into(), &port.into()));
        namespace.send(port, &format!("{name}:1|c"));
        agent.until("it has come", || shown(&agent, name)["received"] == 1);
    }
    let thief = shown(&agent, "thief");
    assert_eq!((&thief["state"], &thief["origin_guard"]), (&"lost".into(), &"none".into()));
}

#[test]
fn a_pods_container_has_its_unix_socket_mounted_and_opened_again_after_a_restart() {
    let (_directory, listener, file) = setting("env.presets = [\"datadog\"]");
    let agent = Agent::with(&["--window", "1s", "--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    let pod = PodSandbox {
        id: "s1".to_owned(),
        name: "web-0".to_owned(),
        uid: "u-1".to_owned(),
        namespace: "shop".to_owned(),
        annotations: [
            ("tallyport.unix-socket".to_owned(), "only".to_owned()),
            ("tallyport.unix-socket/container.sidecar".to_owned(), "false".to_owned()),
        ]
        .into(),
        ..PodSandbox::default()
    };
    let mut create = |name: &str| {
        let container = NriContainer { state: 1, annotations: [].into(), ..runs(name, 0) };
        let about = About { pod: Some(pod.clone()), container: Some(container) };
        let answer: CreateContainerAnswer = runtime.call("CreateContainer", &about);
        answer.adjust.unwrap()
    };
    assert!(create("sidecar").mounts.is_empty());
    let given = create("main");
    let variables: Vec<_> =
        given.env.iter().map(|variable| (variable.key.as_str(), variable.value.as_str())).collect();
    assert_eq!(variables, [("DD_DOGSTATSD_URL", "unix:///var/run/datadog/dsd.socket")]);
    let [mount] = given.mounts.as_slice() else { panic!("{:?}", given.mounts) };
    assert_eq!((mount.destination.as_str(), mount.kind.as_str()), ("/var/run/datadog", "bind"));
    assert!(mount.options.contains(&"ro".to_owned()));
    let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let (directory, before) = (agent.into_directory(), inode(&mount.source));
    let socket = format!("{}/dsd.socket", mount.source);
    assert!(!std::path::Path::new(&socket).exists(), "the socket is removed, so that sending fails");
    let agent =
        Agent::in_directory(directory, &["--window", "1s", "--config", &file, "--set", "unix.mode=off"]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    let running = NriContainer { annotations: given.annotations.clone(), ..runs("main", 0) };
    runtime.knows(&pod, &[running]);
    let again = shown(&agent, "main");
    assert_eq!(
        (&again["state"], &again["statsd_host"]),
        (&Value::from("listening"), &Value::Null),
        "{again}"
    );
    assert_eq!(inode(&mount.source), before, "the directory that it has mounted");
    std::os::unix::net::UnixDatagram::unbound().unwrap().send_to(b"a:1|c", socket).unwrap();
    agent.until("it is heard", || shown(&agent, "main")["received"] == 1);
}

#[test]
fn a_runtime_that_is_absent_is_said_everywhere_and_keeps_no_agent_from_being_ready() {
    let (_directory, listener, file) = setting("");
    drop(listener);
    let agent = Agent::with(&["--config", &file]);
    let degraded = || agent.get("/ready").1["degraded"].clone();
    agent.until("it is said", || degraded()[0]["what"] == "nri");
    assert_eq!(agent.get("/ready").0, 200);
    let node = agent.get("/v1/node").1;
    assert_eq!(node["nri"]["state"], "absent");
    assert!(node["nri"]["why"].as_str().unwrap().contains("nri.sock"), "{node}");
    let doctor = agent.cli(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("pods start without a socket"), "{}", doctor.out);
    assert_eq!(
        (agent.own_metric("tallyport_nri_enabled"), agent.own_metric("tallyport_nri_connected")),
        (1.0, 0.0)
    );
    let without = Agent::with(&["--config", &file, "--set", "nri.enabled=false"]);
    assert_eq!(without.get("/ready").1["degraded"], serde_json::json!([]));
    assert_eq!(without.own_metric("tallyport_nri_enabled"), 0.0);
    assert!(without.cli(&["doctor"]).out.contains("off (nri.enabled)"));
}

#[test]
fn a_pod_without_a_socket_is_shown_with_the_reason_wherever_people_look() {
    let (_directory, listener, file) = setting("");
    let agent = Agent::with(&["--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    runtime.starts_without_a_socket("c1");
    let failing = || agent.get("/v1/node").1["nri"]["failing"].clone();
    assert_eq!(failing()["containers"], 1);
    assert_eq!(agent.get("/ready").1["degraded"][0]["what"], "pods");
    assert_eq!(agent.own_metric("tallyport_nri_failing_containers"), 1.0);
    let task = agent.get("/v1/tasks/shop_web-0_u-1").1;
    let reason = task["containers"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("/no/such/netns is not a network namespace"), "{task}");
    for command in [&["doctor"][..], &["explain", "-n", "shop", "web-0"]] {
        let said = agent.cli(command).out;
        assert!(said.contains("/no/such/netns is not a network namespace"), "{command:?}: {said}");
    }
    assert!(agent.cli(&["doctor"]).out.contains("the last 1 containers got no socket"));
    runtime.starts_without_a_socket("c3");
    assert!(agent.cli(&["doctor"]).out.contains("none of 2 containers got a socket"));
    // The next one gets its socket.
    assert_eq!(runtime.variables("c2").len(), 2);
    assert_eq!((failing(), agent.get("/ready").1["degraded"].clone()), (Value::Null, serde_json::json!([])));
}

#[test]
fn a_process_that_hangs_while_it_takes_over_does_not_cost_the_plugin_its_connection() {
    let (_directory, listener, file) = setting("");
    let agent = Agent::with(&["--window", "1h", "--config", &file]);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    let path = agent.admin_socket().with_file_name("state").join("hand-over.sock");
    for (n, says) in [None, Some(b"ready")].into_iter().enumerate() {
        let channel = Channel::connect(&path).unwrap();
        channel.receive(PATIENCE).unwrap();
        channel.send(b"take", &[]).unwrap();
        let taken = loop {
            let (_, descriptors) = channel.receive_all(PATIENCE).unwrap();
            if !descriptors.is_empty() {
                break descriptors;
            }
            channel.send(b"have", &[]).unwrap();
        };
        // From here on the plugin is paused. The remaining process answers the runtime's call.
        let began = std::time::Instant::now();
        if let Some(word) = says {
            channel.send(word, &[]).unwrap();
            assert_eq!(channel.receive(PATIENCE).unwrap().0, b"go");
        }
        assert_eq!(runtime.variables(&format!("c{n}")).len(), 2);
        let waited = began.elapsed();
        assert!(waited < std::time::Duration::from_secs(2), "containerd disconnects the plugin: {waited:?}");
        agent.until_logged("in time");
        drop((channel, taken));
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the connection is the one that there was");
    let flags = ["--window", "1h", "--config", &file];
    let agent = agent.handed_over(&flags);
    assert_eq!(runtime.variables("c2").len(), 2);
    assert_eq!(agent.get("/v1/tasks/shop_web-0_u-1").1["containers"].as_array().unwrap().len(), 3);
}

#[test]
fn the_runtime_does_not_notice_that_another_process_takes_over() {
    let (_directory, listener, file) = setting("");
    let flags = ["--window", "1h", "--config", &file];
    let agent = Agent::with(&flags);
    let mut runtime = Runtime::accept(&listener);
    runtime.takes_the_plugin();
    assert_eq!(runtime.variables("c1").len(), 2);
    let address = agent.get("/v1/tasks/shop_web-0_u-1").1["containers"][0]["statsd_port"].clone();
    // Sent before or during the hand-over, it is answered by the process that is active then.
    let agent = agent.handed_over(&flags);
    assert_eq!(runtime.variables("c2").len(), 2);
    agent.until("it is connected", || agent.own_metric("tallyport_nri_connected") == 1.0);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "there is one connection, and it has changed hands");
    let task = agent.get("/v1/tasks/shop_web-0_u-1").1;
    assert_eq!(task["containers"].as_array().unwrap().len(), 2);
    assert_eq!(task["containers"][0]["statsd_port"], address);
    // The new process releases containers that the old one knew.
    let _removed: Empty = runtime.call("RemoveContainer", &about("c1"));
    agent.until("it is gone", || crate::restart::shown(&agent, "c1")["state"] == "gone");
}
