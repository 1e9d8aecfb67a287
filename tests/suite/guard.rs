//! The guard of listeners on the host's network: the kernel rejects datagrams that do not come from their container.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::agent::{Agent, BINARY};
use crate::containers::Bundle;
use crate::groups::{Group, Way, process_in_the_root, send_from};
use crate::namespaces::Process;
use crate::tools;

const EPERM: i32 = 1;

fn agent() -> Agent {
    Agent::with(&["--window", "1s", "--set", "listeners.guard=required"])
}

fn shown(agent: &Agent, container: &str) -> Value {
    agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null).1
}

/// Reserves a container on the host's network for this process.
fn contained(agent: &Agent, container: &str, process: &Process) -> SocketAddr {
    let address = agent.reserve(container, &format!("task-{container}")).to;
    let body = json!({"pid": process.pid()});
    let (status, answer) = agent.admin("POST", &format!("/v1/containers/{container}/attach"), &body);
    assert_eq!(status, 200, "{answer}");
    address
}

fn refused(result: std::io::Result<usize>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(EPERM))
}

#[test]
fn only_its_own_control_group_sends_to_a_guarded_container_by_whatever_way() {
    let Some(()) = tools::guard() else { return };
    let agent = agent();
    let (own, other) = (Group::new(), Group::new());
    let (process, _others) = (own.process(), other.process());
    let address = contained(&agent, "c1", &process);
    let container = shown(&agent, "c1");
    assert_eq!(
        (&container["origin_guard"], &container["origin_guard_missing"]),
        (&json!("cgroup"), &Value::Null)
    );
    let below = own.child();
    for way in Way::ALL {
        assert_eq!(send_from(Some(&own), way, address, "own:1|c"), 0, "{way:?}");
        assert_eq!(send_from(Some(&below), way, address, "below:1|c"), 0, "{way:?}");
        assert_eq!(send_from(Some(&other), way, address, "other:1|c"), EPERM, "{way:?}");
        assert_eq!(send_from(None, way, address, "host:1|c"), EPERM, "{way:?}");
    }
    agent.finish("c1");
    let totals = agent.totals("task-c1");
    assert_eq!(totals.keys().collect::<Vec<_>>(), ["below", "own"]);
    assert_eq!((&totals["own"]["value"], &totals["below"]["value"]), (&json!(4.0), &json!(4.0)));
}

#[test]
fn an_address_that_means_any_does_not_lead_around_the_guard() {
    let Some(()) = tools::guard() else { return };
    // A port that no other test's agent guards on this machine.
    let agent = Agent::with(&["--set", "listeners.guard=required", "--set", "listeners.port=18325"]);
    let own = Group::new();
    let process = own.process();
    let address = contained(&agent, "c1", &process);
    let port = address.port();
    // The kernel replaces an unspecified address by the address that the sender is bound to.
    let beside = UdpSocket::bind((address.ip(), 0)).unwrap();
    assert!(refused(beside.send_to(b"forged:1|c", ("0.0.0.0", port))));
    assert_eq!(beside.connect(("0.0.0.0", port)).unwrap_err().raw_os_error(), Some(EPERM));
    let twin = UdpSocket::bind("[::]:0").unwrap();
    for host in ["::", "::ffff:0.0.0.0"] {
        assert!(refused(twin.send_to(b"forged:1|c", (host, port))), "{host}");
    }
    // Ports without a container are not guarded.
    assert!(beside.send_to(b"a:1|c", ("0.0.0.0", port + 1)).is_ok());
    beside.set_broadcast(true).unwrap();
    let _lost = beside.send_to(b"forged:1|c", ("127.255.255.255", port));
    agent.finish("c1");
    assert_eq!(shown(&agent, "c1")["received"], 0);
    assert!(beside.send_to(b"a:1|c", ("0.0.0.0", port)).is_ok(), "the last container has gone");
}

#[test]
fn a_container_has_its_own_guard_and_takes_it_along() {
    let Some(()) = tools::guard() else { return };
    let agent = agent();
    let groups = [Group::new(), Group::new()];
    let [mut first, second] = groups.each_ref().map(Group::process);
    let addresses = [contained(&agent, "c1", &first), contained(&agent, "c2", &second)];
    let errors = || {
        let of = |group: &Group| addresses.map(|to| send_from(Some(group), Way::Send, to, "a:1|c"));
        groups.each_ref().map(of)
    };
    assert_eq!(errors(), [[0, EPERM], [EPERM, 0]]);
    first.end();
    agent.until("it is gone", || shown(&agent, "c1")["state"] == "gone");
    assert_eq!(errors(), [[0, EPERM], [0, 0]], "the first address is no longer guarded");
    agent.release("c2");
    agent.until("it is gone", || shown(&agent, "c2")["state"] == "gone");
    assert_eq!(errors(), [[0, 0], [0, 0]]);
}

#[test]
fn another_network_is_another_world() {
    let (Some(()), Some(())) = (tools::guard(), tools::network_namespaces()) else { return };
    let agent = agent();
    let own = Group::new();
    let process = own.process();
    let address = contained(&agent, "c1", &process);
    let apart = Process::apart();
    let script = format!("ip link set lo up; printf 'a:1|c' > /dev/udp/{}/{}", address.ip(), address.port());
    let target = apart.pid().to_string();
    let sent = Command::new("nsenter").args(["--net", "--target", &target, "bash", "-c", &script]).status();
    assert!(sent.unwrap().success(), "the address is not guarded in another network");
    assert_eq!(send_from(None, Way::Connect, address, "a:1|c"), EPERM);
}

#[test]
fn sockets_connected_before_the_guard_are_reported() {
    let Some(()) = tools::guard() else { return };
    let agent = agent();
    let own = Group::new();
    let process = own.process();
    let address = agent.reserve("c1", "t");
    let early = UdpSocket::bind("127.0.0.1:0").unwrap();
    early.connect(address.to).unwrap();
    agent.admin("POST", "/v1/containers/c1/attach", &json!({"pid": process.pid()}));
    let container = shown(&agent, "c1");
    assert_eq!(container["origin_guard"], "none");
    let warning = container["origin_guard_missing"].as_str().unwrap();
    assert!(warning.contains("1 sockets of others were connected to its address before"), "{warning}");
    early.send(b"a:1|c").unwrap();
    agent.until("it gets through", || shown(&agent, "c1")["received"] == 1);
    assert_eq!(send_from(None, Way::Send, address.to, "a:1|c"), 0, "half a guard is none");
}

#[test]
fn a_container_that_was_connected_before_is_no_stranger_to_itself() {
    let Some(()) = tools::guard() else { return };
    let agent = agent();
    let own = Group::new();
    let below = own.child();
    let address = agent.reserve("c1", "t").to;
    // As after a restart of the agent, when its clients have kept their sockets.
    let script = format!("exec 3> /dev/udp/{}/{}; sleep 600", address.ip(), address.port());
    let words = ["bash", "-c", &script].map(str::to_owned);
    let process = Process::start(&mut own.command(&words));
    let _child = Process::start(&mut below.command(&words));
    agent.until("both are connected", || {
        let table = std::fs::read_to_string("/proc/self/net/udp").unwrap();
        let [a, b, c, d] = match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets(),
            std::net::IpAddr::V6(ip) => panic!("{ip}"),
        };
        table.matches(&format!(" {d:02X}{c:02X}{b:02X}{a:02X}:{:04X} 01", address.port())).count() == 2
    });
    let (status, answer) = agent.admin("POST", "/v1/containers/c1/attach", &json!({"pid": process.pid()}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(shown(&agent, "c1")["origin_guard"], "cgroup");
    assert_eq!(send_from(None, Way::Send, address, "a:1|c"), EPERM);
}

/// Runs in a pid namespace whose first process stands in for the node's: reserves a container on the node's network
/// from an agent in a container of its own, and prints the agent's document of it.
const AGENT_IN_A_CONTAINER: &str = r#"set -e
    agents=$1 own=$2 work=$3; shift 3
    (echo 0 >"$own/cgroup.procs"; exec sleep 60) &
    until grep -q "${own##*/}" /proc/$!/cgroup; do :; done
    (echo 0 >"$agents/cgroup.procs"; exec unshare --cgroup "$@" --http-listen 127.0.0.1:0 \
        --admin-socket "$work/admin.sock" --state-dir "$work/state" --set listeners.guard=required) &
    until test -S "$work/admin.sock"; do kill -0 $!; sleep 0.01; done
    curl -s --unix-socket "$work/admin.sock" http://agent/v1/containers --json '{"container_id":"c1"}' >/dev/null
    curl -s --unix-socket "$work/admin.sock" http://agent/v1/containers/c1/attach --json '{"pid":'$(jobs -p %1)'}' >/dev/null
    curl -s --unix-socket "$work/admin.sock" http://agent/v1/containers/c1"#;

#[test]
fn an_agent_in_a_container_guards_others_where_it_sees_the_nodes_processes() {
    let Some(()) = tools::guard() else { return };
    let Some(_) = tools::program("curl", "scripts/setup containers") else { return };
    let (agents, own) = (Group::new(), Group::new());
    for (privileges, guard) in [("+all", "cgroup"), ("-sys_ptrace", "none")] {
        let work = tempfile::tempdir().unwrap();
        let mut node = Command::new("unshare");
        node.args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "bash",
            "-c",
            AGENT_IN_A_CONTAINER,
            "bash",
        ]);
        node.args([agents.path(), own.path(), work.path()]);
        node.args(["setpriv", "--bounding-set", privileges, BINARY, "agent"]);
        let ran = crate::agent::ran(&mut node);
        let shown: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
        assert_eq!(shown["origin_guard"], guard, "{shown}");
        let missing = shown["origin_guard_missing"].as_str().unwrap_or_default();
        assert_eq!(missing.contains("out of the agent's sight"), guard == "none", "{shown}");
    }
}

#[test]
fn a_container_that_cannot_be_told_from_others_is_served_and_says_so() {
    let Some(()) = tools::guard() else { return };
    let agent = Agent::with(&["--window", "1s", "--set", "dcos.host=127.0.0.77"]);
    let process = process_in_the_root();
    let address = contained(&agent, "c1", &process);
    let container = shown(&agent, "c1");
    assert_eq!(container["origin_guard"], "none");
    let warning = container["origin_guard_missing"].as_str().unwrap();
    assert!(warning.contains("no cgroup v2 of its own"), "{warning}");
    assert_eq!(send_from(None, Way::Send, address, "a:1|c"), 0);
    agent.until("it is received", || shown(&agent, "c1")["received"] == 1);
    let doctor = agent.cli(&["doctor"]);
    assert!(doctor.out.contains("others on the host's network can send to c1"), "{}", doctor.out);
}

#[test]
fn an_agent_that_is_killed_leaves_no_guard_behind() {
    let Some(()) = tools::guard() else { return };
    let mut agent = agent();
    let own = Group::new();
    let process = own.process();
    let address = contained(&agent, "c1", &process);
    assert_eq!(send_from(None, Way::Send, address, "a:1|c"), EPERM);
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    assert!(!agent.wait().success());
    let next = UdpSocket::bind(address).unwrap();
    for way in Way::ALL {
        assert_eq!(send_from(None, way, address, "a:1|c"), 0, "{way:?}");
        assert_eq!(next.recv(&mut [0; 16]).unwrap(), 5);
    }
}

#[test]
fn the_setting_says_whether_there_is_a_guard_and_doctor_shows_it() {
    let Some(()) = tools::guard() else { return };
    for (setting, state, said) in
        [("auto", "on", "the kernel keeps others"), ("off", "off", "off (listeners.guard)")]
    {
        let agent = Agent::with(&["--window", "1s", "--set", &format!("listeners.guard={setting}")]);
        let (own, other) = (Group::new(), Group::new());
        let process = own.process();
        let address = contained(&agent, "c1", &process);
        let guarded = state == "on";
        assert_eq!(agent.get("/v1/node").1["guard"], state);
        assert_eq!(shown(&agent, "c1")["origin_guard"], if guarded { "cgroup" } else { "none" });
        assert_eq!(shown(&agent, "c1")["origin_guard_missing"], Value::Null, "nothing is amiss");
        let error = send_from(Some(&other), Way::Send, address, "a:1|c");
        assert_eq!(error, if guarded { EPERM } else { 0 });
        let doctor = agent.cli(&["doctor"]);
        assert!(doctor.out.contains(said), "{}", doctor.out);
    }
}

#[test]
fn without_the_privilege_the_agent_says_what_is_missing_and_starts_unless_it_must_have_it() {
    let Some(()) = tools::guard() else { return };
    for (setting, starts) in [("auto", true), ("required", false)] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-all", BINARY, "agent", "--http-listen", "127.0.0.1:0"]);
        command.args(["--set", &format!("listeners.guard={setting}"), "--admin-socket"]);
        command.arg(directory.path().join("admin.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if starts {
            let socket = directory.path().join("admin.sock");
            while !socket.exists() {
                assert!(child.try_wait().unwrap().is_none());
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let mut doctor = Command::new(BINARY);
            doctor.args(["doctor", "--json", "--url", &format!("unix:{}", socket.display())]);
            let found: Value = serde_json::from_str(&crate::agent::ran(&mut doctor).out).unwrap();
            let guard = found.as_array().unwrap().iter().find(|finding| finding["check"] == "guard").unwrap();
            assert_eq!(guard["status"], "warning");
            assert!(guard["found"].as_str().unwrap().contains("CAP_BPF"), "{guard}");
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
                nix::sys::signal::Signal::SIGTERM,
            )
            .unwrap();
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.success(), starts);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("CAP_BPF"), "{said}");
    }
}

#[test]
fn containers_of_a_real_runtime_are_kept_apart_on_the_hosts_network() {
    let (Some(()), Some(())) = (tools::guard(), tools::network_namespaces()) else { return };
    let Some(runtime) = tools::runtime("runc") else { return };
    let agent = agent();
    let bundles = [(); 2].map(|()| {
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        bundle.configure(|config| {
            config["linux"]["namespaces"].as_array_mut().unwrap().pop();
        });
        bundle.up();
        bundle
    });
    let address = |bundle: &Bundle| {
        let shown = shown(&agent, &bundle.id);
        assert_eq!(shown["origin_guard"], "cgroup", "{shown}");
        format!("{}/{}", shown["statsd_host"].as_str().unwrap(), shown["statsd_port"])
    };
    let addresses = bundles.each_ref().map(address);
    let sends = |bundle: &Bundle, to: &str| {
        let script = format!("printf 'a:1|c' > /dev/udp/{to}");
        bundle.run(&["exec", &bundle.id, "/usr/bin/bash", "-c", &script]).code == 0
    };
    let tried = bundles.each_ref().map(|bundle| addresses.each_ref().map(|to| sends(bundle, to)));
    assert_eq!(tried, [[true, false], [false, true]]);
    for bundle in &bundles {
        agent.until("its own have come", || shown(&agent, &bundle.id)["received"] == 2);
        bundle.delete();
    }
}
