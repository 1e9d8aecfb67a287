//! Other StatsD servers under the same load: CPU time for each metric received.
//!
//! `scripts/peers` installs them. Each runs with its defaults, except for settings that make it listen on a free port,
//! write nothing to disk and forward nothing.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::agent::Agent;
use super::run::cpu;
use super::send::{self, Load};

const LOAD: Load = Load::new("1 x 8 beside peers", 1, 50_000).lines(8);

/// A peer, and the largest acceptable ratio of the agent's cost to its cost.
const PEERS: [(&str, f64); 3] = [("netdata", 0.5), ("statsd", 0.15), ("statsd_exporter", 0.1)];

/// Measures all in turn; the figures are medians.
pub(crate) fn compare(rounds: usize, seconds: f64) -> Value {
    let peers: Vec<_> = PEERS.into_iter().filter(|(name, _)| installed(name)).collect();
    let mut agent = Vec::new();
    let mut others = vec![Vec::new(); peers.len()];
    for round in 1..=rounds {
        eprintln!("peers: round {round}, agent");
        agent.push(of_agent(seconds));
        for ((name, _), outcomes) in peers.iter().zip(&mut others) {
            eprintln!("peers: round {round}, {name}");
            outcomes.push(of_peer(name, seconds));
        }
    }
    let (agent, agent_lost) = median(agent);
    println!("{}, CPU a metric: agent {agent:.0} ns ({:.1} % lost)", LOAD.name, agent_lost * 100.0);
    let mut rows = vec![json!({"name": "agent", "cpu_ns_per_metric": agent, "lost": agent_lost})];
    for ((name, target), outcomes) in peers.iter().zip(others) {
        let (nanos, lost) = median(outcomes);
        let ratio = agent / nanos;
        println!(
            "  {name}: {nanos:.0} ns ({:.1} % lost); agent / {name} = {ratio:.2}, at most {target}",
            lost * 100.0
        );
        rows.push(
            json!({"name": name, "cpu_ns_per_metric": nanos, "lost": lost, "ratio": ratio, "target": target}),
        );
    }
    json!({"load": LOAD.name, "peers": rows})
}

/// The median of CPU time, and the worst loss.
fn median(mut outcomes: Vec<(f64, f64)>) -> (f64, f64) {
    outcomes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let lost = outcomes.iter().map(|(_, lost)| *lost).fold(0.0, f64::max);
    (outcomes[outcomes.len() / 2].0, lost)
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers")
}

fn program(name: &str) -> PathBuf {
    match name {
        "netdata" => PathBuf::from("/usr/sbin/netdata"),
        "statsd" => directory().join("node_modules/statsd/stats.js"),
        _ => directory().join("bin").join(name),
    }
}

fn installed(name: &str) -> bool {
    let there = program(name).exists();
    if !there {
        println!("{name}: SKIPPED, not installed; see scripts/peers");
    }
    there
}

fn of_agent(seconds: f64) -> (f64, f64) {
    let agent = Agent::start(1, &[]);
    let before = cpu(agent.child.id());
    let sent = send::send(&LOAD, &agent.addresses, seconds).datagrams;
    std::thread::sleep(Duration::from_millis(200));
    let nanos = cpu(agent.child.id()) - before;
    let (received, _) = agent.counts(sent);
    agent.end();
    outcome(nanos, sent, received)
}

fn outcome(nanos: u64, sent: u64, received: u64) -> (f64, f64) {
    (nanos as f64 / (received as f64 * LOAD.lines as f64), (sent - received) as f64 / sent as f64)
}

fn of_peer(name: &str, seconds: f64) -> (f64, f64) {
    let home = tempfile::tempdir().unwrap();
    let address: SocketAddr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut child = start(name, home.path(), address);
    let pid = child.id();
    for _ in 0..200 {
        if dropped(address).is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // Excludes the cost of starting.
    std::thread::sleep(Duration::from_secs(1));
    let before = cpu(pid);
    let sent = send::send(&LOAD, &[address], seconds).datagrams;
    std::thread::sleep(Duration::from_millis(200));
    let nanos = cpu(pid) - before;
    let lost = dropped(address).unwrap_or_else(|| panic!("{name} does not listen"));
    child.kill().unwrap();
    child.wait().unwrap();
    outcome(nanos, sent, sent - lost)
}

/// The kernel's drops at an address; `None` if no socket is open there.
fn dropped(address: SocketAddr) -> Option<u64> {
    let wanted = format!("0100007F:{:04X}", address.port());
    let text = std::fs::read_to_string("/proc/net/udp").unwrap();
    let of: Vec<u64> = text
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some(&wanted))
        .map(|line| line.split_whitespace().last().unwrap().parse().unwrap())
        .collect();
    (!of.is_empty()).then(|| of.iter().sum())
}

fn start(name: &str, home: &Path, address: SocketAddr) -> Child {
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let configuration = home.join("configuration");
    let port = address.port();
    let mut command = match name {
        "netdata" => {
            let text = format!(
                "[global]\n  run as user = root\n[db]\n  mode = ram\n[directories]\n  cache = {home}\n  lib = {home}\n  log = {home}\n\
[logs]\n  debug = none\n  error = none\n  access = none\n[web]\n  bind to = 127.0.0.1:{web}\n[health]\n  enabled = no\n[ml]\n  enabled = no\n\
[plugins]\n  enable running new plugins = no\n  proc = no\n  diskspace = no\n  cgroups = no\n  tc = no\n  idlejitter = no\n  timex = no\n  checks = no\n  statsd = yes\n\
[statsd]\n  bind to = udp:127.0.0.1:{port}\n",
                home = home.display(),
                web = free(),
            );
            std::fs::write(&configuration, text).unwrap();
            let mut command = Command::new(program(name));
            command.args(["-D", "-c"]).arg(&configuration);
            command
        }
        "statsd" => {
            let text = format!(
                "{{ port: {port}, address: '127.0.0.1', mgmt_address: '127.0.0.1', mgmt_port: {}, backends: [], flushInterval: 10000 }}",
                free()
            );
            std::fs::write(&configuration, text).unwrap();
            let mut command = Command::new("node");
            command.arg(program(name)).arg(&configuration);
            command
        }
        _ => {
            let mut command = Command::new(program(name));
            command.arg(format!("--statsd.listen-udp={address}"));
            command.args(["--statsd.listen-tcp=", "--log.level=error"]);
            command.arg(format!("--web.listen-address=127.0.0.1:{}", free()));
            command
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}
