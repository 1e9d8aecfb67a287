//! The descriptor socket: containers that the agent cannot reach by a process number, and malicious callers.

use std::fs::File;
use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::agent::Agent;
use crate::containers::{Bundle, Runtime, WRAPPER};
use crate::namespaces::{Namespace, Process};
use crate::tools;

fn runtimes() -> Vec<Runtime> {
    if tools::network_namespaces().is_none() {
        return Vec::new();
    }
    ["runc", "crun"].into_iter().filter_map(tools::runtime).collect()
}

fn shown(agent: &Agent, container: &str) -> Value {
    agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null).1
}

fn descriptors(agent: &Agent) -> usize {
    agent.descriptors()
}

/// A caller that can send anything.
struct Caller(Socket);

impl Caller {
    fn new(agent: &Agent) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let path = agent.admin_socket().with_added_extension("fd");
        socket.connect(&SockAddr::unix(path).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(socket)
    }

    fn says(&self, text: &[u8], passed: &[RawFd]) -> Value {
        let rights = [ControlMessage::ScmRights(passed)];
        let rights = if passed.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(text)], rights, MsgFlags::MSG_NOSIGNAL, None)
            .unwrap();
        let mut answer = vec![0; 8192];
        // A read with a time limit is not restarted if the whole test was stopped for a while.
        let length = loop {
            match std::io::Read::read(&mut &self.0, &mut answer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.unwrap(),
            }
        };
        serde_json::from_slice(&answer[..length]).unwrap_or_default()
    }
}

fn handle(process: &Process) -> OwnedFd {
    tallyport::net::sys::pidfd_open(process.pid().try_into().unwrap()).unwrap()
}

fn network(process: &Process) -> File {
    File::open(format!("/proc/{}/ns/net", process.pid())).unwrap()
}

fn attaches(agent: &Agent, container: &str, passed: &[RawFd]) -> (u64, String) {
    let answer = Caller::new(agent).says(json!({"attach": container}).to_string().as_bytes(), passed);
    (answer["status"].as_u64().unwrap(), answer["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_container_is_attached_by_a_handle_of_its_process_and_its_network() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::start();
    let before = descriptors(&agent);
    let body = json!({"container_id": "c1", "task_id": "t", "network": {"mode": "new"}});
    assert_eq!(agent.admin("POST", "/v1/containers", &body).0, 201);
    let (mut process, other) = (Process::apart(), Process::apart());
    let (its_handle, its_network) = (handle(&process), network(&process));
    let of_other = [handle(&other).as_raw_fd(), its_network.as_raw_fd()];
    assert_eq!(attaches(&agent, "c1", &of_other).1, "bad_descriptors", "it is closed by now");
    let (other_handle, other_network) = (handle(&other), network(&other));
    let refused = |code: &str| (409, code.to_owned());
    assert_eq!(
        attaches(&agent, "c1", &[its_handle.as_raw_fd(), other_network.as_raw_fd()]),
        refused("another_namespace"),
        "a process and a network that do not belong together"
    );
    let passed = [its_handle.as_raw_fd(), its_network.as_raw_fd()];
    assert_eq!(attaches(&agent, "c1", &passed).0, 200);
    assert_eq!(attaches(&agent, "c1", &passed).0, 200, "a repeat changes nothing");
    assert_eq!(attaches(&agent, "c1", &passed[..1]).0, 200, "the handle alone says who it is");
    assert_eq!(
        attaches(&agent, "c1", &[other_handle.as_raw_fd(), other_network.as_raw_fd()]),
        refused("conflict")
    );
    let attached = shown(&agent, "c1");
    assert_eq!((&attached["state"], &attached["pid"]), (&json!("listening"), &json!(process.pid())));
    process.send(18_125, "a:1|c");
    agent.until("it is counted", || shown(&agent, "c1")["received"] == 1);
    process.end();
    agent.until("it is gone", || shown(&agent, "c1")["state"] == "gone");
    drop((its_handle, its_network, other_handle, other_network));
    agent.until("no descriptor is left", || descriptors(&agent) <= before);
}

#[test]
fn a_hostile_client_leaves_the_agent_as_it_was() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::start();
    let body = json!({"container_id": "c1", "network": {"mode": "new"}, "ttl": null});
    assert_eq!(agent.admin("POST", "/v1/containers", &body).0, 201);
    let process = Process::apart();
    let (its_handle, its_network, null) =
        (handle(&process), network(&process), File::open("/dev/null").unwrap());
    let (handle, network, null) = (its_handle.as_raw_fd(), its_network.as_raw_fd(), null.as_raw_fd());
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let before = descriptors(&agent);
    let said = json!({"attach": "c1"}).to_string();
    let long = format!("{{\"attach\":\"c1\",\"x\":\"{}\"}}", "x".repeat(5000));
    for _ in 0..3 {
        for (text, passed, code) in [
            (said.as_str(), &[][..], "bad_descriptors"),
            (&said, &[network], "bad_descriptors"),
            (&said, &[null; 253], "bad_descriptors"),
            (&said, &[network, handle], "bad_descriptors"),
            (&said, &[null, null], "bad_descriptors"),
            (&said, &[handle, null], "bad_descriptors"),
            (&said, &[handle, network, null], "bad_descriptors"),
            (&said, &[handle, network, udp.as_raw_fd(), null], "bad_descriptors"),
            (&long, &[handle, network], "body_too_long"),
            ("", &[handle, network], "bad_body"),
            ("\0\u{ff}", &[handle, network], "bad_body"),
            ("{\"attach\":\"../../x\"}", &[handle, network], "bad_id"),
            ("{\"attach\":\"nobody\"}", &[handle, network], "unknown_container"),
        ] {
            let answer = Caller::new(&agent).says(text.as_bytes(), passed);
            // An empty message looks like a caller that disconnects.
            assert!(answer["code"] == code || text.is_empty(), "{text:?} {}: {answer}", passed.len());
        }
    }
    // They connect, send nothing, and stay; more than there is room for.
    let silent: Vec<_> = (0..100).map(|_| Caller::new(&agent)).collect();
    assert_eq!(agent.get("/health").0, 200);
    assert_eq!(attaches(&agent, "c1", &[handle, network]).0, 200, "once the silent have been sent away");
    drop(silent);
    agent.until("no descriptor is left but the container's", || descriptors(&agent) <= before + 2);
}

#[test]
fn an_agent_in_a_pid_namespace_of_its_own_knows_its_containers_and_their_ends() {
    for runtime in runtimes() {
        let agent = Agent::apart(&["--window", "1s"]);
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        bundle.configure(|config| config["annotations"] = json!({"tallyport.task-id": "web.1"}));
        for generation in 1..=2 {
            bundle.up();
            let shown = shown(&agent, &bundle.id);
            assert_eq!(
                (&shown["state"], &shown["attached"]),
                (&json!("listening"), &json!(true)),
                "{runtime:?}"
            );
            assert_eq!(
                (shown.get("pid"), &shown["generation"]),
                (None, &json!(generation)),
                "it has no number there"
            );
            let config: Value = serde_json::from_str(&bundle.config()).unwrap();
            assert_eq!(config["hooks"].get("poststop"), None, "the handle tells of its end");
            agent.until("it is counted", || self::shown(&agent, &bundle.id)["received"] == 1);
            bundle.kill();
            agent.until("it is gone", || self::shown(&agent, &bundle.id)["state"] == "gone");
            bundle.delete();
        }
        assert_eq!(agent.totals("web.1")["starts"]["value"], 1.0, "of the newest life");
    }
}

/// Gives users other than root access to a bundle.
fn open(bundle: &Bundle) {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: PathBuf, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(bundle.path(""), 0o755);
    mode(bundle.path("out"), 0o777);
}

fn with_users(config: &mut Value, first: u32, size: u32) {
    let linux = &mut config["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    let mapping = json!([{"containerID": 0, "hostID": first, "size": size}]);
    (linux["uidMappings"], linux["gidMappings"]) = (mapping.clone(), mapping);
}

#[test]
fn a_container_with_a_user_namespace_has_its_socket() {
    for runtime in runtimes() {
        for agent in [Agent::start(), Agent::apart(&["--window", "1s"])] {
            let bundle = Bundle::new(&runtime, &agent.admin_socket());
            open(&bundle);
            std::os::unix::fs::chown(bundle.path("rootfs"), Some(100_000), Some(100_000)).unwrap();
            bundle.configure(|config| with_users(config, 100_000, 65_536));
            bundle.up();
            agent.until("it is counted", || shown(&agent, &bundle.id)["received"] == 1);
            assert_eq!(shown(&agent, &bundle.id)["origin_guard"], "netns", "{runtime:?}");
            bundle.delete();
        }
    }
}

#[test]
fn a_rootless_container_of_another_user_has_its_socket() {
    for runtime in runtimes() {
        let agent = Agent::with(&["--window", "1s", "--set", "admin.mode=0666"]);
        std::fs::set_permissions(
            agent.admin_socket().parent().unwrap(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        bundle.configure(|config| {
            with_users(config, 1001, 1);
            config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
        });
        // The user may not be able to reach the build directory, as below a home of mode 0700.
        let wrapper = bundle.path("tallyport-oci");
        std::fs::copy(WRAPPER, &wrapper).unwrap();
        let script = format!(
            "#!/bin/sh\nexec setpriv --reuid=1001 --regid=1001 --clear-groups {} \"$@\"\n",
            wrapper.display()
        );
        std::fs::write(bundle.path("rootless"), script).unwrap();
        open(&bundle);
        let own =
            std::process::Command::new("chown").arg("-R").arg("1001:1001").arg(bundle.path("")).status();
        assert!(own.unwrap().success());
        std::fs::set_permissions(
            bundle.path("rootless"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let rootless = |arguments: &[&str]| {
            let ran = bundle.start(&bundle.path("rootless"), arguments);
            assert_eq!(ran.code, 0, "{runtime:?} {arguments:?}: {} {}", ran.err, bundle.log());
        };
        let (path, pid) = (bundle.path("").display().to_string(), bundle.path("pid").display().to_string());
        rootless(&["create", "--bundle", &path, "--pid-file", &pid, &bundle.id]);
        rootless(&["start", &bundle.id]);
        bundle.until_ready();
        agent.until("it is counted", || shown(&agent, &bundle.id)["received"] == 1);
        let shown = shown(&agent, &bundle.id);
        assert_eq!((&shown["attached"], &shown["origin_guard"]), (&json!(true), &json!("netns")));
        agent.until_logged("\"uid\":1001");
        bundle.kill();
        agent.until("it is gone", || self::shown(&agent, &bundle.id)["state"] == "gone");
        rootless(&["delete", "--force", &bundle.id]);
    }
}

#[test]
fn the_socket_for_descriptors_has_the_admin_sockets_mode_and_goes_with_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let agent = Agent::with(&["--set", "admin.mode=0600"]);
    let path = agent.admin_socket().with_added_extension("fd");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let directory = agent.into_directory();
    assert!(!Path::new(&path).exists());
    drop(directory);
}

#[test]
fn an_agent_that_may_not_enter_a_namespace_takes_a_socket_that_was_opened_there() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::without_privileges(&["--window", "1s"]);
    let body = json!({"container_id": "c1", "network": {"mode": "new"}});
    assert_eq!(agent.admin("POST", "/v1/containers", &body).0, 201);
    let namespace = Namespace::new();
    let process = namespace.process();
    let (its_handle, its_network) = (handle(&process), network(&process));
    let passed = [its_handle.as_raw_fd(), its_network.as_raw_fd()];
    let answer = Caller::new(&agent).says(b"{\"attach\":\"c1\"}", &passed);
    assert_eq!(
        (&answer["code"], &answer["address"]),
        (&json!("cannot_enter"), &json!("127.0.0.1:18125")),
        "{answer}"
    );
    let inside = |port: u16| {
        let namespace = network(&process);
        std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            tallyport::net::listener::open(([127, 0, 0, 1], port).into(), 65_536).unwrap()
        })
        .join()
        .unwrap()
    };
    let ours = UdpSocket::bind("127.0.0.1:18125");
    for astray in [inside(18_126)].into_iter().chain(ours.ok()) {
        let all = [passed[0], passed[1], astray.as_raw_fd()];
        assert_eq!(attaches(&agent, "c1", &all), (400, "bad_descriptors".to_owned()));
    }
    let socket = inside(18_125);
    tallyport::net::sys::raise_loopback(&socket).unwrap();
    assert_eq!(attaches(&agent, "c1", &[passed[0], passed[1], socket.as_raw_fd()]).0, 200);
    drop(socket);
    process.send(18_125, "a:1|c");
    agent.until("it is counted", || shown(&agent, "c1")["received"] == 1);
    assert_eq!(shown(&agent, "c1")["origin_guard"], "netns");
}
