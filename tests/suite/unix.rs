//! Containers' Unix sockets: mounted by the wrapper or the plugin, and closed to processes of others.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cadence::prelude::*;
use cadence::{StatsdClient, UnixMetricSink};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::containers::{Bundle, Runtime};
use crate::namespaces::{Namespace, Process};
use crate::tools;

/// The path of the socket in containers.
const SOCKET: &str = "/var/run/datadog/dsd.socket";

fn runtimes() -> Vec<Runtime> {
    if tools::network_namespaces().is_none() {
        return Vec::new();
    }
    ["runc", "crun"].into_iter().filter_map(tools::runtime).collect()
}

fn with(settings: &[&str]) -> Agent {
    let mut flags = vec!["--window", "1s"];
    flags.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    Agent::with(&flags)
}

fn shown(agent: &Agent, container: &str) -> Value {
    agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null).1
}

/// The path of a container's socket outside the container.
fn outside(agent: &Agent, container: &str) -> PathBuf {
    let source = shown(agent, container)["unix_socket"]["mount"]["source"].as_str().unwrap().to_owned();
    Path::new(&source).join("dsd.socket")
}

fn dropped(agent: &Agent, task: &str) -> Value {
    agent.get(&format!("/v1/tasks/{task}")).1["totals"]["datagrams"]["dropped"].clone()
}

/// The sender that the tests run inside and outside containers: this test binary with only this test.
#[test]
#[ignore = "the other tests start it where it is to send from"]
fn sender() {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(times) = variable("TP_TIMES").and_then(|times| times.parse().ok()) else { return };
    // The parent may have to move this process to a cgroup first.
    let _either_way = std::io::stdin().read_line(&mut String::new());
    let url = variable("DD_DOGSTATSD_URL").unwrap_or_default();
    let path = variable("TP_PATH").unwrap_or_else(|| url.trim_start_matches("unix://").to_owned());
    let client = StatsdClient::from_sink("tp", UnixMetricSink::from(path, UnixDatagram::unbound().unwrap()));
    for _ in 0..times {
        client.count("sent", 1).unwrap();
    }
    if let Ok(ready) = std::fs::File::create("/out/ready") {
        drop(ready);
        std::thread::sleep(std::time::Duration::from_mins(10));
    }
}

const ARGUMENTS: [&str; 4] = ["--ignored", "--exact", "unix::sender", "--nocapture"];
/// The same inside a container.
const INSIDE: [&str; 5] = ["/sender", ARGUMENTS[0], ARGUMENTS[1], ARGUMENTS[2], ARGUMENTS[3]];

/// Makes a container send this many times with cadence, to the given path if any.
fn sends(config: &mut Value, times: u32, path: Option<&str>) {
    let exe = std::env::current_exe().unwrap();
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/sender", "type": "bind", "source": exe, "options": ["bind", "ro"]}));
    config["process"]["args"] = json!(INSIDE);
    let env = config["process"]["env"].as_array_mut().unwrap();
    env.push(json!(format!("TP_TIMES={times}")));
    env.extend(path.map(|path| json!(format!("TP_PATH={path}"))));
}

fn wants(config: &mut Value, how: &str) {
    config["annotations"] = json!({"tallyport.unix-socket": how});
}

#[test]
fn siblings_and_host_network_containers_are_told_apart_by_sockets_of_their_own() {
    for runtime in runtimes() {
        let agent = with(&["env.presets=datadog"]);
        let pod = Namespace::new();
        let bundles = [Some(&pod), Some(&pod), None].map(|network| {
            let bundle = Bundle::new(&runtime, &agent.admin_socket());
            bundle.configure(|config| {
                wants(config, "only");
                sends(config, 5, None);
                let all = config["linux"]["namespaces"].as_array_mut().unwrap();
                all.pop();
                all.extend(network.map(|pod| json!({"type": "network", "path": pod.path()})));
                // The application may run as any user.
                config["process"]["user"] = json!({"uid": 1234, "gid": 1234});
                std::fs::set_permissions(
                    bundle.path("out"),
                    std::os::unix::fs::PermissionsExt::from_mode(0o777),
                )
                .unwrap();
            });
            bundle.create();
            bundle.must(&["start", &bundle.id]);
            agent.until("it has sent", || bundle.path("out/ready").exists());
            bundle
        });
        for bundle in &bundles {
            agent.until("it is counted", || shown(&agent, &bundle.id)["received"] == 5);
            let shown = shown(&agent, &bundle.id);
            assert_eq!(
                (&shown["origin_guard"], &shown["statsd_host"]),
                (&json!("unix"), &Value::Null),
                "{shown}"
            );
            assert_eq!((&shown["state"], &shown["env"]), (&json!("listening"), &json!({})));
            assert_eq!(shown["unix_socket"]["env"], json!({"DD_DOGSTATSD_URL": format!("unix://{SOCKET}")}));
            let environment = std::fs::read(format!("/proc/{}/environ", bundle.pid())).unwrap();
            let environment = String::from_utf8(environment).unwrap().replace('\0', "\n");
            assert_eq!(
                crate::containers::statsd(&environment),
                [format!("DD_DOGSTATSD_URL=unix://{SOCKET}")]
            );
        }
        let [victim, _, forger] = &bundles;
        // Root of the host can open the socket, but its datagrams are dropped.
        let outside = outside(&agent, &victim.id);
        let root = UnixDatagram::unbound().unwrap();
        (0..100).for_each(|_| assert_eq!(root.send_to(b"forged:1|c", &outside).unwrap(), 10));
        agent.until("they are counted", || dropped(&agent, &victim.id) == json!({"foreign_sender": 100}));
        // So can a container into which the directory was mounted.
        forger.delete();
        let forger = Bundle::new(&runtime, &agent.admin_socket());
        forger.configure(|config| {
            sends(config, 50, Some("/victim/dsd.socket"));
            let source = outside.parent().unwrap();
            config["mounts"].as_array_mut().unwrap().push(
                json!({"destination": "/victim", "type": "bind", "source": source, "options": ["bind"]}),
            );
        });
        forger.create();
        forger.must(&["start", &forger.id]);
        agent
            .until("they are counted, too", || dropped(&agent, &victim.id) == json!({"foreign_sender": 150}));
        assert_eq!(shown(&agent, &victim.id)["received"], 155);
        let (_, explained) = agent.get(&format!("/v1/tasks/{}", victim.id));
        assert_eq!(explained["totals"]["balanced"], true);
        for bundle in bundles.iter().take(2).chain([&forger]) {
            bundle.kill();
            agent.until("it is gone", || shown(&agent, &bundle.id)["state"] == "gone");
        }
        assert!(!outside.parent().unwrap().exists(), "and so is its directory");
        let totals = agent.totals(&victim.id);
        assert_eq!((totals.len(), &totals["tp.sent"]["value"]), (1, &json!(5.0)), "{runtime:?}");
        bundles.iter().take(2).chain([&forger]).for_each(Bundle::delete);
    }
}

#[test]
fn beside_its_address_a_container_has_a_socket_that_joining_processes_find_too() {
    for runtime in runtimes() {
        let agent = with(&["env.presets=datadog"]);
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        bundle.configure(|config| {
            wants(config, "true");
            let exe = std::env::current_exe().unwrap();
            config["mounts"].as_array_mut().unwrap().push(
                json!({"destination": "/sender", "type": "bind", "source": exe, "options": ["bind", "ro"]}),
            );
        });
        // Twice, because a bundle may be reused.
        for generation in 1..=2 {
            bundle.up();
            let expected = [
                &format!("DD_DOGSTATSD_URL=unix://{SOCKET}"),
                "STATSD_UDP_HOST=127.0.0.1",
                "STATSD_UDP_PORT=18125",
            ];
            assert_eq!(bundle.environment(), expected);
            let process = json!({"terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/",
                "env": ["PATH=/usr/bin:/bin", "TP_TIMES=3"],
                "args": INSIDE});
            std::fs::write(bundle.path("process.json"), process.to_string()).unwrap();
            std::fs::remove_file(bundle.path("out/ready")).unwrap();
            let file = bundle.path("process.json").display().to_string();
            bundle.must(&["exec", "--detach", "--process", &file, &bundle.id]);
            // One by UDP when it started, and three by the socket.
            agent.until("all are counted", || shown(&agent, &bundle.id)["received"] == 4);
            let shown = shown(&agent, &bundle.id);
            assert_eq!(
                (&shown["origin_guard"], &shown["dropped"]),
                (&json!("netns"), &json!(0)),
                "the weaker guard is shown"
            );
            assert_eq!(shown["generation"], generation);
            bundle.delete();
            // The first process of a pid namespace ends after it has reaped all others.
            agent.until("it is gone", || self::shown(&agent, &bundle.id)["state"] == "gone");
        }
        let config: Value = serde_json::from_str(&bundle.config()).unwrap();
        let mounts = config["mounts"].as_array().unwrap();
        let ours = mounts.iter().filter(|mount| mount["destination"] == "/var/run/datadog");
        assert_eq!(ours.count(), 1);
    }
}

#[test]
fn a_mount_of_the_applications_own_is_not_hidden() {
    for runtime in runtimes() {
        let agent = with(&["unix.mode=all", "env.presets=datadog"]);
        for (how, code) in [("true", 0), ("only", 1)] {
            let bundle = Bundle::new(&runtime, &agent.admin_socket());
            bundle.settings("fail_closed = true");
            bundle.configure(|config| {
                wants(config, how);
                config["mounts"].as_array_mut().unwrap().push(
                    json!({"destination": "/run/datadog", "type": "tmpfs", "source": "tmpfs", "options": []}),
                );
            });
            let ran = bundle.run(&["create", "--bundle", ".", "--pid-file", "pid", &bundle.id]);
            assert_eq!(ran.code, code, "{}", ran.err);
            assert!(ran.err.contains("/run/datadog is a mount of its own"), "{}", ran.err);
            if code == 0 {
                assert!(
                    bundle.config().contains("DD_DOGSTATSD_URL=udp://127.0.0.1:18125"),
                    "{}",
                    bundle.config()
                );
            }
        }
    }
}

/// A cgroup (version 2) with a process in it that stands in for a container's first process.
struct Cgroup(PathBuf, Process);

impl Cgroup {
    fn new() -> Option<Self> {
        tools::network_namespaces()?;
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
        let path = root.join(format!("tp-unix-{}-{:?}", std::process::id(), std::thread::current().id()));
        std::fs::create_dir(&path).unwrap();
        let process = Process::start(Command::new("sleep").arg("600"));
        let cgroup = Self(path, process);
        cgroup.take(cgroup.1.pid());
        Some(cgroup)
    }

    fn take(&self, pid: u32) {
        put_into(&self.0, pid);
    }

    fn reserve(&self, agent: &Agent, container: &str) -> Value {
        let body = json!({"container_id": container, "pid": self.1.pid(), "labels": {"tallyport.unix-socket": "only"}});
        let (status, reserved) = agent.admin("POST", "/v1/containers", &body);
        assert_eq!(status, 201, "{reserved}");
        reserved
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.1.end();
        let _either_way = std::fs::remove_dir(&self.0);
    }
}

fn put_into(cgroup: &Path, pid: u32) {
    std::fs::write(cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
}

/// Sends from a separate process, in the given cgroup if any, and waits until it has ended.
fn send_and_end(path: &Path, within: Option<&Path>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(ARGUMENTS).env("TP_TIMES", "1").env("TP_PATH", path);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    if let Some(cgroup) = within {
        put_into(cgroup, child.id());
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// Whether the kernel remembers the cgroup of a sender that has ended (6.16).
fn kernel_remembers() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

#[test]
fn a_sender_that_has_ended_is_known_by_the_cgroup_that_it_was_in() {
    let Some(cgroup) = Cgroup::new() else { return };
    let agent = with(&[]);
    cgroup.reserve(&agent, "c1");
    assert_eq!(shown(&agent, "c1")["origin_guard"], "unix");
    let path = outside(&agent, "c1");
    // The agent checks them long after they have ended.
    agent.stand_still();
    send_and_end(&path, Some(&cgroup.0));
    (0..3).for_each(|_| send_and_end(&path, None));
    agent.signal(Signal::SIGCONT);
    agent.until("all have come", || shown(&agent, "c1")["received"] == 4);
    let expected = match kernel_remembers() {
        true => json!({"foreign_sender": 3}),
        false => json!({"ended_sender": 4}),
    };
    assert_eq!(dropped(&agent, "c1"), expected);
}

#[test]
fn a_sender_that_has_ended_below_its_containers_cgroup_is_not_taken_for_a_foreign_one() {
    let Some(cgroup) = Cgroup::new() else { return };
    let agent = with(&[]);
    cgroup.reserve(&agent, "c1");
    let path = outside(&agent, "c1");
    let [kept, removed] = ["kept", "removed"].map(|name| cgroup.0.join(name));
    agent.stand_still();
    for below in [&kept, &removed] {
        std::fs::create_dir(below).unwrap();
        send_and_end(&path, Some(below));
    }
    std::fs::remove_dir(removed).unwrap();
    agent.signal(Signal::SIGCONT);
    agent.until("all have come", || shown(&agent, "c1")["received"] == 2);
    let unknown = if kernel_remembers() { 1 } else { 2 };
    assert_eq!(dropped(&agent, "c1"), json!({"ended_sender": unknown}));
    std::fs::remove_dir(kept).unwrap();
}

#[test]
fn what_waits_in_a_unix_socket_during_a_hand_over_is_the_containers_own() {
    let Some(cgroup) = Cgroup::new() else { return };
    let flags = ["--window", "1s"];
    let agent = Agent::with(&flags);
    cgroup.reserve(&agent, "c1");
    let times = 100_000;
    let mut sender = Command::new(std::env::current_exe().unwrap());
    sender.args(ARGUMENTS).env("TP_TIMES", times.to_string()).env("TP_PATH", outside(&agent, "c1"));
    let mut sender =
        sender.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    cgroup.take(sender.id());
    drop(sender.stdin.take());
    agent.until("it is under way", || shown(&agent, "c1")["received"].as_u64() > Some(1000));
    // The queue is always full, so datagrams wait whenever the other process begins to read.
    let agent = agent.handed_over(&flags);
    assert!(sender.wait().unwrap().success());
    agent.until("all have come", || shown(&agent, "c1")["received"] == times);
    assert_eq!(dropped(&agent, "c1"), json!({}));
}

#[test]
fn no_sender_is_believed_before_the_container_is_known() {
    let agent = with(&["unix.mode=all"]);
    let body = json!({"container_id": "c1", "ttl": null});
    let (_, reserved) = agent.admin("POST", "/v1/containers", &body);
    assert_eq!(reserved["unix_socket"]["env"], json!({}), "without the preset");
    let me = UnixDatagram::unbound().unwrap();
    me.send_to(b"forged:1|c", outside(&agent, "c1")).unwrap();
    agent.until("it is counted", || dropped(&agent, "c1") == json!({"foreign_sender": 1}));
}

#[test]
fn a_container_with_nothing_of_its_own_is_served_and_shown_as_unguarded() {
    let agent = with(&[]);
    let mut process = Process::start(Command::new("sleep").arg("600"));
    let body =
        json!({"container_id": "c1", "pid": process.pid(), "labels": {"tallyport.unix-socket": "only"}});
    let (_, reserved) = agent.admin("POST", "/v1/containers", &body);
    assert!(
        reserved["warnings"].to_string().contains("neither a cgroup nor a mount namespace"),
        "{reserved}"
    );
    UnixDatagram::unbound().unwrap().send_to(b"a:1|c", outside(&agent, "c1")).unwrap();
    agent.until("it is counted", || shown(&agent, "c1")["received"] == 1);
    assert_eq!(
        (&shown(&agent, "c1")["origin_guard"], &shown(&agent, "c1")["dropped"]),
        (&json!("none"), &json!(0))
    );
    process.end();
}

#[test]
fn settings_decide_which_containers_get_a_socket_and_where() {
    let socket = |agent: &Agent, id: &str, said: Option<&str>| {
        let labels = said.map_or(json!({}), |said| json!({"tallyport.unix-socket": said}));
        let (status, reserved) =
            agent.admin("POST", "/v1/containers", &json!({"container_id": id, "labels": labels}));
        assert_eq!(status, 201, "{reserved}");
        reserved["unix_socket"]["path"].as_str().map(str::to_owned)
    };
    let agent = with(&[]);
    assert_eq!(
        (socket(&agent, "c1", None), socket(&agent, "c2", Some("yes"))),
        (None, Some(SOCKET.to_owned()))
    );
    let agent = with(&["unix.mode=off"]);
    assert_eq!(socket(&agent, "c1", Some("only")), None);
    let agent = with(&["unix.mode=all", "unix.path=/var/run/tallyport/statsd.sock", "unix.queue=700"]);
    let path = "/var/run/tallyport/statsd.sock";
    assert_eq!((socket(&agent, "c1", None).as_deref(), socket(&agent, "c2", Some("no"))), (Some(path), None));
    let shown = shown(&agent, "c1");
    assert_eq!(shown["unix_socket"]["mount"]["destination"], "/var/run/tallyport");
    let source = Path::new(shown["unix_socket"]["mount"]["source"].as_str().unwrap()).join("statsd.sock");
    assert!(source.exists());
    if tools::network_namespaces().is_some() {
        agent.stand_still();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(source).unwrap();
        sender.set_nonblocking(true).unwrap();
        nix::sys::socket::setsockopt(&sender, nix::sys::socket::sockopt::SndBuf, &(8 << 20)).unwrap();
        let fitted = (0..2000).take_while(|_| sender.send(b"a:1|c").is_ok()).count();
        agent.signal(Signal::SIGCONT);
        assert!((200..=701).contains(&fitted), "{fitted}");
    }
}

#[test]
fn a_path_that_is_too_long_is_said() {
    // The admin socket's path is short enough, those of containers are not, wherever temporary files are.
    let length = 84_usize.saturating_sub(std::env::temp_dir().as_os_str().len());
    let directory = tempfile::Builder::new().prefix(&"x".repeat(length)).tempdir().unwrap();
    let sockets = directory.path().join("state/sockets");
    let agent = Agent::in_directory(directory, &[]);
    let reserve = |id: &str, how: &str| {
        agent.admin(
            "POST",
            "/v1/containers",
            &json!({"container_id": id, "labels": {"tallyport.unix-socket": how}}),
        )
    };
    let (status, refused) = reserve("c1", "only");
    assert_eq!((status, &refused["code"]), (503, &json!("no_socket")));
    assert!(refused["message"].as_str().unwrap().contains("may have 107"), "{refused}");
    let (status, reserved) = reserve("c2", "true");
    assert_eq!((status, &reserved["unix_socket"]), (201, &Value::Null), "its address is as good as ever");
    assert!(reserved["warnings"][0].as_str().unwrap().contains("may have 107"), "{reserved}");
    assert_eq!(std::fs::read_dir(sockets).unwrap().count(), 0, "nothing is left of either");
}

#[test]
fn what_a_dead_agent_left_is_removed_and_a_living_one_leaves_nothing() {
    let mut agent = with(&["unix.mode=all"]);
    agent.reserve("c1", "t1");
    let first = outside(&agent, "c1");
    agent.finish("c1");
    assert!(!first.parent().unwrap().exists());
    agent.reserve("c2", "t2");
    let second = outside(&agent, "c2");
    agent.signal(Signal::SIGKILL);
    assert!(!agent.wait().success());
    assert!(second.exists(), "a killed agent does not remove it");
    let directory = agent.into_dead_directory();
    // The journal has no record of this one.
    std::fs::remove_file(directory.path().join("state/containers.journal")).unwrap();
    let agent = Agent::in_directory(directory, &["--window", "1s", "--set", "listeners.rest=1s"]);
    assert!(!second.exists(), "the socket is removed, so that sending fails");
    agent.until("it has rested", || !second.parent().unwrap().exists());
}

#[test]
fn the_datadog_client_for_python_sends_by_the_socket_from_inside_a_container() {
    let Some(python) = tools::python() else { return };
    let Some(runtime) = runtimes().into_iter().next() else { return };
    let agent = with(&["env.presets=datadog"]);
    let bundle = Bundle::new(&runtime, &agent.admin_socket());
    let ask = "import sys; print(sys.base_prefix); print(sys.prefix)";
    let answer = Command::new(&python).args(["-c", ask]).output().unwrap();
    let prefixes = String::from_utf8(answer.stdout).unwrap();
    bundle.configure(|config| {
        wants(config, "only");
        for prefix in prefixes.lines().filter(|prefix| !prefix.starts_with("/usr")) {
            config["mounts"].as_array_mut().unwrap().push(
                json!({"destination": prefix, "type": "bind", "source": prefix, "options": ["rbind", "ro"]}),
            );
        }
        let script = "
import os, time
from datadog.dogstatsd import DogStatsd
path = os.environ['DD_DOGSTATSD_URL'].removeprefix('unix://')
statsd = DogStatsd(socket_path=path, disable_telemetry=True, disable_buffering=True)
for n in range(20):
    statsd.increment('python.hits', tags=['n:%d' % (n % 2)])
statsd.gauge('python.level', -3.5)
open('/out/ready', 'w').close()
time.sleep(600)
";
        config["process"]["args"] = json!([python, "-c", script]);
    });
    bundle.create();
    bundle.must(&["start", &bundle.id]);
    agent.until("all is counted", || shown(&agent, &bundle.id)["received"] == 21);
    bundle.kill();
    agent.until("it is gone", || shown(&agent, &bundle.id)["state"] == "gone");
    let hits: f64 = agent
        .metrics(&bundle.id, "?window=all&merge&name=python.hits")
        .iter()
        .map(|record| record["value"].as_f64().unwrap())
        .sum();
    assert_eq!((hits, &agent.totals(&bundle.id)["python.level"]["value"]), (20.0, &json!(-3.5)));
    bundle.delete();
}
