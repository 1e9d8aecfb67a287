//! The state that a killed agent leaves for the next.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::{Agent, Ran};
use crate::namespaces::Namespace;
use crate::tools;

/// A process that stands in for a container; it ends with the test.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    pub(crate) fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _either_way = self.0.kill();
        let _either_way = self.0.wait();
    }
}

/// Kills the agent, and starts another with its state.
fn killed_and_started(mut agent: Agent, flags: &[&str]) -> (Agent, Duration) {
    agent.signal(Signal::SIGKILL);
    assert!(!agent.wait().success());
    let directory = agent.into_dead_directory();
    let started = Instant::now();
    (Agent::in_directory(directory, flags), started.elapsed())
}

pub(crate) fn shown(agent: &Agent, container: &str) -> Value {
    agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null).1
}

fn state(agent: &Agent, container: &str) -> String {
    shown(agent, container)["state"].as_str().unwrap_or("none").to_owned()
}

const FLAGS: &[&str] = &["--window", "1s"];

#[test]
fn after_a_kill_living_containers_are_back_at_their_addresses_and_ended_ones_are_not() {
    let agent = Agent::with(FLAGS);
    let living: Vec<_> = (0..20).map(|_| Sleeper::start()).collect();
    let mut addresses = Vec::new();
    for (n, process) in living.iter().enumerate() {
        let body = json!({"container_id": format!("killed-{n}"), "task_id": "web", "pid": process.pid(),
                          "labels": {"n": n.to_string()}, "options": {"gauge_sign": "absolute"}});
        addresses.push(agent.reserve_with(&body));
    }
    let dying = Sleeper::start();
    agent.reserve_with(&json!({"container_id": "dying", "task_id": "web", "pid": dying.pid()}));
    agent.reserve("waiting", "later");
    agent.reserve("over", "done");
    agent.finish("over");
    addresses[0].send("level:5|g");
    agent.until("it is counted", || shown(&agent, "killed-0")["received"] == 1);
    let before = shown(&agent, "killed-0");
    // It ends while the agent is stopped.
    agent.stand_still();
    drop(dying);
    let (agent, took) = killed_and_started(agent, FLAGS);
    assert!(took < Duration::from_secs(5), "{took:?}");
    for (n, address) in addresses.iter().enumerate() {
        let now = shown(&agent, &format!("killed-{n}"));
        assert_eq!((&now["state"], &now["attached"]), (&json!("listening"), &json!(true)), "{now}");
        address.send("level:+7|g");
    }
    let now = shown(&agent, "killed-0");
    for key in
        ["statsd_host", "statsd_port", "generation", "task_id", "labels", "pid", "gauge_sign", "reserved_at"]
    {
        assert_eq!(now[key], before[key], "{key}");
    }
    agent.until("they are heard", || (0..20).all(|n| shown(&agent, &format!("killed-{n}"))["received"] == 1));
    assert_eq!(state(&agent, "waiting"), "listening", "a reservation waits on");
    assert_eq!((state(&agent, "dying"), state(&agent, "over")), ("gone".to_owned(), "gone".to_owned()));
    // It is watched as before, and its id can be used again in the next generation.
    drop(living);
    agent.until("they have ended", || (0..20).all(|n| state(&agent, &format!("killed-{n}")) == "gone"));
    agent.reserve("over", "done");
    assert_eq!(shown(&agent, "over")["generation"], 2);
}

#[test]
fn a_container_in_a_network_of_its_own_is_back_in_it() {
    let Some(()) = tools::network_namespaces() else { return };
    let agent = Agent::with(FLAGS);
    let (one, other) = (Namespace::new(), Namespace::new());
    let process = one.process();
    let by_path =
        json!({"container_id": "by-path", "network": {"mode": "netns", "path": one.path()}, "ttl": null});
    agent.reserve_with(&by_path);
    // Its sibling has the first port there, so its network must be given by path.
    agent.reserve_with(
        &json!({"container_id": "born", "pid": process.pid(), "network": {"mode": "netns", "path": one.path()}}),
    );
    agent.reserve_with(&json!({"container_id": "other", "network": {"mode": "new"}}));
    // Not before: an older process would not be believed to be it.
    let late = other.process();
    let (status, answer) = agent.admin("POST", "/v1/containers/other/attach", &json!({"pid": late.pid()}));
    assert_eq!(status, 200, "{answer}");
    let ports = |agent: &Agent| {
        ["by-path", "born", "other"]
            .map(|id| u16::try_from(shown(agent, id)["statsd_port"].as_u64().unwrap()).unwrap())
    };
    let before = ports(&agent);
    let (agent, _) = killed_and_started(agent, FLAGS);
    assert_eq!(ports(&agent), before);
    process.send(before[0], "a:1|c");
    process.send(before[1], "a:1|c");
    late.send(before[2], "a:1|c");
    agent.until("all are heard", || {
        ["by-path", "born", "other"].iter().all(|id| shown(&agent, id)["received"] == 1)
    });
    assert!(["by-path", "born", "other"].iter().all(|id| shown(&agent, id)["origin_guard"] == "netns"));
}

#[test]
fn a_container_whose_address_is_taken_is_lost_and_seen_and_back_once_it_is_free() {
    let agent = Agent::with(FLAGS);
    let process = Sleeper::start();
    let address =
        agent.reserve_with(&json!({"container_id": "evicted", "task_id": "web", "pid": process.pid()}));
    let mut agent = agent;
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let stranger = UdpSocket::bind(address.to).unwrap();
    let agent = Agent::in_directory(agent.into_dead_directory(), FLAGS);
    let lost = shown(&agent, "evicted");
    assert_eq!((&lost["state"], &lost["attached"]), (&json!("lost"), &json!(true)), "{lost}");
    assert!(lost["reason"].as_str().unwrap().contains("is taken"), "{lost}");
    let doctor: Ran = agent.cli(&["doctor"]);
    assert!(doctor.code == 1 && doctor.out.contains("evicted of task web is lost"), "{}", doctor.out);
    let page = String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
    assert!(page.contains("tallyport_containers{state=\"lost\"} 1"), "{page}");
    drop(stranger);
    agent.until("it is back", || state(&agent, "evicted") == "listening");
    address.send("a:1|c");
    agent.until("it is heard", || shown(&agent, "evicted")["received"] == 1);
    drop(process);
    agent.until("it has ended", || state(&agent, "evicted") == "gone");
}

#[test]
fn one_that_is_lost_and_ends_is_gone() {
    let mut agent = Agent::with(FLAGS);
    let process = Sleeper::start();
    let address = agent.reserve_with(&json!({"container_id": "evicted-for-good", "pid": process.pid()}));
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let _stranger = UdpSocket::bind(address.to).unwrap();
    let agent = Agent::in_directory(agent.into_dead_directory(), FLAGS);
    assert_eq!(state(&agent, "evicted-for-good"), "lost");
    drop(process);
    agent.until("it has ended", || state(&agent, "evicted-for-good") == "gone");
}

#[test]
fn an_orderly_end_keeps_containers_for_the_next_agent_too() {
    let agent = Agent::with(FLAGS);
    let process = Sleeper::start();
    let address = agent.reserve_with(&json!({"container_id": "orderly", "pid": process.pid()}));
    let agent = Agent::in_directory(agent.into_directory(), FLAGS);
    address.send("a:1|c");
    agent.until("it is heard", || shown(&agent, "orderly")["received"] == 1);
}

/// A file system of its own.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    pub(crate) fn new(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir(&path).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "none", path.to_str().unwrap()]);
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _either_way = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

pub(crate) fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().unwrap().success(), "{args:?}");
}

fn journal_finding(agent: &Agent) -> String {
    let found: Value = serde_json::from_str(&agent.cli(&["doctor", "--json"]).out).unwrap();
    let journal = found.as_array().unwrap().iter().find(|finding| finding["check"] == "journal").unwrap();
    journal["status"].as_str().unwrap().to_owned()
}

/// An agent whose state directory is full or read-only continues, reports it, and writes again when possible.
fn goes_on_without_its_state(size: &str, breaks: impl Fn(&Path), mends: impl Fn(&Path)) {
    let Some(()) = tools::network_namespaces() else { return };
    let directory = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(directory.path().join("state"), size);
    let agent = Agent::in_directory(directory, FLAGS);
    let process = Sleeper::start();
    // Another agent with the same names could take their addresses meanwhile.
    let named = |n: u32| format!("of-{size}-{n}");
    let reserve = |n: u32| {
        let labels = json!({"x": "y".repeat(4_000)});
        agent.reserve_with(&json!({"container_id": named(n), "pid": process.pid(), "labels": labels}))
    };
    let first = reserve(0);
    assert_eq!(journal_finding(&agent), "ok");
    breaks(&mounted.0);
    // Together they need more than the remaining space.
    for n in 1..100 {
        reserve(n).send("a:1|c");
    }
    agent.until("it says so", || journal_finding(&agent) == "failed");
    first.send("a:1|c");
    agent.until("all are served", || (0..100).all(|n| shown(&agent, &named(n))["received"] == 1));
    let page = String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
    assert!(!page.contains("tallyport_journal_failures_total 0"), "{page}");
    mends(&mounted.0);
    agent.until("it is well again", || journal_finding(&agent) == "ok");
    let (mut agent, _) = killed_and_started(agent, FLAGS);
    assert!((0..100).all(|n| state(&agent, &named(n)) == "listening"), "{}", agent.log());
    assert!(agent.stop().success());
    drop(mounted);
}

#[test]
fn a_full_disk_takes_no_container_its_socket() {
    let fills = |state: &Path| assert!(std::fs::write(state.join("ballast"), vec![0_u8; 1 << 20]).is_err());
    goes_on_without_its_state("64k", fills, |state| {
        std::fs::remove_file(state.join("ballast")).unwrap();
        mount(&["-o", "remount,size=10m", state.to_str().unwrap()]);
    });
}

#[test]
fn a_state_directory_that_becomes_read_only_takes_no_container_its_socket() {
    let aside = |path: &Path| path.with_added_extension("aside");
    // Made read-only before it is mounted, because a file opened in between would prevent that.
    let locks = |path: &Path| {
        let aside = aside(path);
        std::fs::create_dir(&aside).unwrap();
        let (path, aside) = (path.to_str().unwrap(), aside.to_str().unwrap());
        mount(&["--bind", path, aside]);
        mount(&["-o", "remount,bind,ro", aside]);
        mount(&["--bind", aside, path]);
    };
    goes_on_without_its_state("10m", locks, |path| {
        for mounted in [path, &aside(path)] {
            assert!(Command::new("umount").arg(mounted).status().unwrap().success());
        }
    });
}
