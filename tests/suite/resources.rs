//! Compares the resource usage in the DC/OS metrics API with the system's own figures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::namespaces::{Namespace, Process};
use crate::tools;

/// Uses a processor for a third of a second, allocates memory, then waits.
const LOAD: &str = "my $kept = 'x' x (32 << 20);
    my $end = (times)[0] + (times)[1] + 0.3;
    while ((times)[0] + (times)[1] < $end) { $n++ for 1..1000; }
    open(my $done, '>', $ARGV[0]); close($done);
    sleep 600;";

/// A container's control groups, in all hierarchies with the tested controllers.
pub(crate) struct Groups {
    directories: BTreeMap<&'static str, PathBuf>,
}

fn above(container: &str) -> String {
    format!("tp-res-{}-{container}", std::process::id())
}

impl Groups {
    /// Groups named after a container, below a group of the test.
    pub(crate) fn new(container: &str) -> Option<Self> {
        let above = above(container);
        let mut directories = BTreeMap::new();
        for controller in ["cpu", "cpuacct", "memory", "blkio", "pids"] {
            let first = Path::new("/sys/fs/cgroup").join(controller);
            if first.is_dir() {
                directories.insert(controller, first.join(&above).join(container));
            }
        }
        if directories.is_empty() {
            return Self::second(container);
        }
        directories.values().for_each(|directory| std::fs::create_dir_all(directory).unwrap());
        Some(Self { directories })
    }

    /// A group of version 2 only, with the available controllers.
    fn second(container: &str) -> Option<Self> {
        let (root, above) = (tools::cgroups()?, above(container));
        std::fs::create_dir_all(root.join(&above)).unwrap();
        for directory in [&root, &root.join(&above)] {
            for controller in ["+cpu", "+memory", "+io", "+pids"] {
                let _either_way = std::fs::write(directory.join("cgroup.subtree_control"), controller);
            }
        }
        let directory = root.join(&above).join(container);
        std::fs::create_dir_all(&directory).unwrap();
        Some(Self { directories: BTreeMap::from([("unified", directory)]) })
    }

    fn of(&self, controller: &str) -> (&Path, bool) {
        match self.directories.get(controller) {
            Some(first) => (first, false),
            None => (&self.directories["unified"], true),
        }
    }

    pub(crate) fn write(&self, controller: &str, first: (&str, &str), second: (&str, &str)) {
        let (directory, is_second) = self.of(controller);
        let (file, value) = if is_second { second } else { first };
        std::fs::write(directory.join(file), value).unwrap();
    }

    fn read(&self, controller: &str, first: &str, second: &str) -> String {
        let (directory, is_second) = self.of(controller);
        std::fs::read_to_string(directory.join(if is_second { second } else { first })).unwrap()
    }

    /// The number after a word in a file.
    fn number(&self, controller: &str, first: (&str, &str), second: (&str, &str)) -> f64 {
        let (_, is_second) = self.of(controller);
        let text = self.read(controller, first.0, second.0);
        let word = if is_second { second.1 } else { first.1 };
        let value = text.lines().find_map(|line| {
            if word.is_empty() { Some(line) } else { line.strip_prefix(word)?.strip_prefix(' ') }
        });
        value.unwrap_or_else(|| panic!("{word} is not in {text}")).trim().parse().unwrap()
    }

    /// A program that is in all of the groups from its first instruction.
    pub(crate) fn start(&self, words: &[&str]) -> Process {
        let files: Vec<_> =
            self.directories.values().map(|at| at.join("cgroup.procs").display().to_string()).collect();
        let join = format!("for procs in {}; do echo $$ > $procs; done;", files.join(" "));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{join} exec \"$@\""), "sh"]).args(words).stdin(Stdio::null());
        Process::start(&mut command)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for directory in self.directories.values() {
            // A process that was just killed may still be in it.
            for _ in 0..100 {
                if std::fs::remove_dir(directory).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let _either_way = std::fs::remove_dir(directory.parent().unwrap());
        }
    }
}

/// Values and units by name; those with tags by name and tag.
fn points(message: &Value) -> BTreeMap<String, (f64, String)> {
    let points = message["datapoints"].as_array().unwrap().iter().map(|point| {
        let tags = point["tags"].as_object().into_iter().flatten();
        let tags = tags.filter(|(key, _)| *key != "container_id").map(|(_, value)| value);
        let name = tags.fold(point["name"].as_str().unwrap().to_owned(), |name, tag| {
            format!("{name} {}", tag.as_str().unwrap())
        });
        (name, (point["value"].as_f64().unwrap(), point["unit"].as_str().unwrap().to_owned()))
    });
    points.collect()
}

fn reserve(agent: &Agent, container: &str, body: &Value) {
    let mut whole = json!({"container_id": container, "task_id": format!("{container}.task"), "labels": {"framework_name": "marathon"}});
    whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let (status, answer) = agent.admin("POST", "/v1/containers", &whole);
    assert_eq!(status, 201, "{answer}");
}

#[test]
fn a_containers_resources_are_those_that_its_control_groups_have() {
    let Some(()) = tools::guard() else { return };
    let container = "c-42";
    let Some(groups) = Groups::new(container) else { return };
    groups.write("memory", ("memory.limit_in_bytes", "268435456"), ("memory.max", "268435456"));
    groups.write("cpu", ("cpu.cfs_quota_us", "5000"), ("cpu.max", "5000 100000"));
    let directory = tempfile::tempdir().unwrap();
    let done = directory.path().join("done");
    let process = groups.start(&["perl", "-e", LOAD, done.to_str().unwrap()]);
    let agent = Agent::start();
    reserve(&agent, container, &json!({"pid": process.pid()}));
    agent.until("the load is over", || done.exists());
    let used = || {
        let user = groups.number("cpuacct", ("cpuacct.usage", ""), ("cpu.stat", "usage_usec"));
        let (_, is_second) = groups.of("cpuacct");
        user / if is_second { 1e6 } else { 1e9 }
    };
    let before = used();
    let (status, message) = agent.get("/v0/containers/c-42");
    let after = used();
    assert_eq!(status, 200, "{message}");
    let points = points(&message);
    let value = |name: &str| points.get(name).unwrap_or_else(|| panic!("{name} is not in {points:#?}")).0;
    let cpu = value("cpus.user.time") + value("cpus.system.time");
    assert!(before > 0.25 && (before - 0.001..=after + 0.001).contains(&cpu), "{before} {cpu} {after}");
    assert_eq!(value("cpus.limit"), 0.05);
    let throttled = groups.number("cpu", ("cpu.stat", "nr_throttled"), ("cpu.stat", "nr_throttled"));
    let counted = value("cpus.nr.throttled");
    assert!(throttled > 0.0 && (throttled - 2.0..=throttled).contains(&counted), "{counted} of {throttled}");
    let (_, is_second) = groups.of("cpu");
    let system = groups.number("cpu", ("cpu.stat", "throttled_time"), ("cpu.stat", "throttled_usec"))
        / if is_second { 1e6 } else { 1e9 };
    let time = value("cpus.throttled.time");
    assert!(time > 0.0 && (system - time).abs() < 0.5, "{time} of {system}");
    let memory = groups.number("memory", ("memory.usage_in_bytes", ""), ("memory.current", ""));
    // The kernel charges in batches, to each processor its own.
    assert!((value("mem.total") - memory).abs() < 2e6 && memory > 32e6, "{} {memory}", value("mem.total"));
    assert_eq!(value("mem.limit"), 268_435_456.0);
    let rss = groups.number("memory", ("memory.stat", "total_rss"), ("memory.stat", "anon"));
    assert!((value("mem.rss") - rss).abs() < 2e6 && rss > 32e6, "{} {rss}", value("mem.rss"));
    assert_eq!((value("processes"), value("threads")), (1.0, 1.0));
    for (name, unit) in [("cpus.user.time", "seconds"), ("mem.total", "bytes"), ("threads", "count")] {
        assert_eq!(points[name].1, unit);
    }
    assert!(!points.keys().any(|name| name.starts_with("net.")), "the network is the node's: {points:?}");
    let dimensions = &message["dimensions"];
    assert_eq!(
        (&dimensions["container_id"], &dimensions["framework_name"]),
        (&json!("c-42"), &json!("marathon"))
    );
    summary_shows_them(&agent, container);
    drop(process);
    agent.until("the container is gone", || agent.get("/v0/containers/c-42").0 == 204);
    assert_eq!(agent.get("/v0/containers/nobody").0, 204);
}

#[test]
fn a_container_that_is_only_in_the_second_version_shows_what_that_has() {
    let Some(()) = tools::guard() else { return };
    let container = "c-second";
    let Some(groups) = Groups::second(container) else { return };
    let directory = tempfile::tempdir().unwrap();
    let done = directory.path().join("done");
    // Outside the version 1 groups of the test itself.
    let leave = "for c in cpu cpuacct memory blkio pids; do
        at=/sys/fs/cgroup/$c/cgroup.procs; [ ! -e $at ] || echo $$ > $at; done; exec perl -e \"$@\"";
    let process = groups.start(&["sh", "-c", leave, "sh", LOAD, done.to_str().unwrap()]);
    let agent = Agent::start();
    reserve(&agent, container, &json!({"pid": process.pid()}));
    agent.until("the load is over", || done.exists());
    let used = |word: &str| groups.number("cpu", ("", ""), ("cpu.stat", word)) / 1e6;
    let before = used("usage_usec");
    let (status, message) = agent.get(&format!("/v0/containers/{container}"));
    let (after, user) = (used("usage_usec"), used("user_usec"));
    assert_eq!(status, 200, "{message}");
    let points = points(&message);
    let (own_user, own_system) = (points["cpus.user.time"].0, points["cpus.system.time"].0);
    let own = own_user + own_system;
    assert!(before > 0.25 && (before - 0.001..=after + 0.001).contains(&own), "{before} {own} {after}");
    assert!((own_user - user).abs() < 0.01, "{own_user} of {user}");
    assert_eq!(points["processes"].0, 1.0);
    // Figures of controllers that this machine has in version 2; files of the others do not exist.
    let (at, _) = groups.of("memory");
    for (name, file) in [("mem.total", "memory.current"), ("threads", "pids.current")] {
        let there = std::fs::read_to_string(at.join(file)).ok();
        let there = there.map(|text| text.trim().parse::<f64>().unwrap());
        let own = points.get(name).map(|point| point.0);
        assert_eq!(own.is_some(), there.is_some(), "{name}");
        assert!(
            own.zip(there).is_none_or(|(own, there)| (own - there).abs() < 2e6),
            "{name}: {own:?} of {there:?}"
        );
    }
}

/// The part of `tallyport metrics summary` besides the application's series.
fn summary_shows_them(agent: &Agent, container: &str) {
    let (_, shown) = agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null);
    crate::agent::Address::of(&shown).send("hits:1|c");
    let task = format!("{container}.task");
    agent.until("the window is closed", || agent.metrics(&task, "?window=last").len() == 1);
    let table = agent.cli(&["metrics", "summary", &task]);
    assert_eq!(table.code, 0, "{}", table.err);
    for part in ["  cpu  ", "s of 0.05 CPUs", "  memory  ", " B of 268435456 B", "hits"] {
        assert!(table.out.contains(part), "{part:?} is not in\n{}", table.out);
    }
    let json: Value = serde_json::from_str(&agent.cli(&["metrics", "summary", "--json", &task]).out).unwrap();
    assert!(json["resources"]["cpu_seconds"].as_f64().unwrap() > 0.25, "{json}");
    assert_eq!(json["resources"]["memory_limit_bytes"], 268_435_456.0, "{json}");
}

#[test]
fn a_containers_network_is_that_of_its_namespace() {
    let Some(()) = tools::network_namespaces() else { return };
    let namespace = Namespace::new();
    let _leash = namespace.leash();
    let inside = |words: &[&str]| {
        let ran = Command::new("ip")
            .args(["netns", "exec", namespace.path().file_name().unwrap().to_str().unwrap()])
            .args(words)
            .output();
        assert!(ran.unwrap().status.success(), "{words:?}");
    };
    inside(&["ip", "address", "add", "192.0.2.1/24", "dev", "inside"]);
    inside(&["ip", "link", "set", "inside", "up"]);
    let process = namespace.process();
    let agent = Agent::start();
    reserve(
        &agent,
        "c-1",
        &json!({"network": {"mode": "netns", "path": namespace.path()}, "pid": process.pid()}),
    );
    // There is no reply, but neighbour discovery sends packets if the other end is up.
    let traffic = || {
        let text = std::fs::read_to_string(format!("/proc/{}/net/dev", process.pid())).unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("inside:")).unwrap();
        line.split_whitespace().map(|number| number.parse::<f64>().unwrap()).collect::<Vec<_>>()
    };
    let (status, message) = agent.get("/v0/containers/c-1");
    let system = traffic();
    assert_eq!(status, 200, "{message}");
    let points = points(&message);
    for (name, at) in [
        ("net.rx.bytes", 0),
        ("net.rx.packets", 1),
        ("net.rx.errors", 2),
        ("net.rx.dropped", 3),
        ("net.tx.bytes", 8),
        ("net.tx.packets", 9),
        ("net.tx.errors", 10),
        ("net.tx.dropped", 11),
    ] {
        assert!(
            (points[name].0 - system[at]).abs() <= 2.0 * 90.0,
            "{name}: {} is not {}",
            points[name].0,
            system[at]
        );
    }
}

#[test]
fn the_node_is_described_as_proc_describes_it() {
    let agent = Agent::start();
    let mut message = Value::Null;
    // CPU usage is unknown before the kernel's first accounting.
    agent.until("processors are measured", || {
        let (status, answer) = agent.get("/v0/node");
        assert_eq!(status, 200);
        message = answer;
        points(&message).contains_key("cpu.user")
    });
    let points = points(&message);
    let value = |name: &str| points.get(name).unwrap_or_else(|| panic!("{name} is not in {points:#?}")).0;
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let kilobytes = |key: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    };
    assert_eq!((value("memory.total"), value("swap.total")), (kilobytes("MemTotal"), kilobytes("SwapTotal")));
    assert!((value("memory.free") - kilobytes("MemFree")).abs() < value("memory.total") / 10.0);
    let cores = std::fs::read_to_string("/proc/cpuinfo")
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    assert_eq!(value("cpu.cores"), cores as f64);
    let uptime: f64 =
        std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((value("system.uptime") - uptime).abs() < 5.0);
    let disk = nix::sys::statvfs::statvfs("/").unwrap();
    let root = (disk.blocks() * disk.fragment_size()) as f64;
    assert_eq!(value("filesystem.capacity.total /"), root);
    assert!(value("filesystem.capacity.used /") + value("filesystem.capacity.free /") <= root);
    assert!(value("network.in lo") >= 0.0 && value("network.out.packets lo") >= 0.0);
    assert!(value("load.1min") >= 0.0 && value("process.count") > 0.0);
    let shares = ["cpu.user", "cpu.system", "cpu.idle", "cpu.wait"].map(value);
    assert!(
        shares.iter().sum::<f64>() <= 100.01
            && (value("cpu.total") - (100.0 - shares[2] - shares[3])).abs() < 0.01
    );
    let units =
        ["memory.total", "cpu.idle", "load.1min", "system.uptime"].map(|name| points[name].1.as_str());
    assert_eq!(units, ["bytes", "percent", "count", "count"]);
    assert_eq!(message["dimensions"]["mesos_id"], "");
}
