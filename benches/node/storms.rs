//! The effect of one container or reader on the others: 63 quiet containers with exact totals, beside one that attacks.
//!
//! `integration/hostile` has every attack and the limits; these rows compare two builds (`TALLYPORT_BINARY=PATH`).

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::agent::{Agent, datagrams};
use super::attacks::{Kind, attacker};
use super::run::{cpu, resident};
use super::send::connected;

const QUIET: usize = 63;
/// Datagrams per second of each quiet container.
const RATE: u32 = 20;

/// An attack and its name.
#[derive(Copy, Clone)]
pub(crate) struct Storm {
    pub(crate) name: &'static str,
    kind: Kind,
}

pub(crate) const STORMS: [Storm; 9] = [
    Storm { name: "calm", kind: Kind::Calm },
    Storm { name: "late storm", kind: Kind::Late },
    Storm { name: "octave storm", kind: Kind::Octaves },
    Storm { name: "wide sets", kind: Kind::Sets },
    Storm { name: "readers storm", kind: Kind::Readers },
    Storm { name: "scrapers", kind: Kind::Scrapers },
    Storm { name: "pattern bombs", kind: Kind::Patterns },
    Storm { name: "slow readers", kind: Kind::SlowReaders },
    Storm { name: "unread tails", kind: Kind::Tails },
];

/// Runs an attack for this many seconds. Returns its effects: CPU time of the agent, lost samples of quiet containers,
/// the slowest small reads, memory.
pub(crate) fn storm(storm: Storm, seconds: u64) -> Value {
    eprintln!("{}: {QUIET} quiet containers, {seconds} s", storm.name);
    let agent = Agent::start(QUIET + 1, &["--window", "1s", "--set", "limits.node_memory=64MiB"]);
    let pid = agent.child.id();
    let sockets = connected(&agent.addresses);
    let (attacker_socket, quiet) = sockets.split_last().unwrap();
    storm.kind.prepare(attacker_socket);
    let (ends, attacks) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = cpu(pid);
    let (rounds, mut reads) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_quietly(quiet, &ends));
        for _ in 0..storm.kind.attackers() {
            scope.spawn(|| storm.kind.attack(&agent, attacker_socket, &ends, &attacks));
        }
        let reads = read(&agent, Duration::from_secs(seconds));
        ends.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), reads)
    });
    let nanos = cpu(pid) - before;
    let memory = resident(pid);
    let lost = lost(&agent, rounds);
    let held = figure(
        &agent.try_get("/metrics").unwrap_or_default(),
        "tallyport_window_close_seconds{quantile=\"1\"}",
    );
    agent.end();
    reads.sort_unstable();
    let p99 = reads[(reads.len() - 1) * 99 / 100];
    let attacks = attacks.into_inner();
    println!(
        "{}: {attacks} attacks in {seconds} s took {:.0} % of a core; of the quiet {lost} of {} lost; a small read {:.1} ms (p99); \
closing windows held up receiving for {:.1} ms at most; {:.1} MB",
        storm.name,
        nanos as f64 / seconds as f64 / 1e7,
        rounds * QUIET as u64,
        p99.as_secs_f64() * 1e3,
        held * 1e3,
        memory as f64 / f64::from(1 << 20),
    );
    json!({
        "load": storm.name, "attacks": attacks, "core_percent": nanos as f64 / seconds as f64 / 1e7, "sent": rounds * QUIET as u64,
        "lost": lost, "read_p99_seconds": p99.as_secs_f64(), "stall_seconds": held, "memory_bytes": memory,
    })
}

/// Sends one datagram to each socket at a steady rate. Returns the number sent to each.
fn send_quietly(sockets: &[UdpSocket], ends: &AtomicBool) -> u64 {
    let (started, mut rounds) = (Instant::now(), 0);
    while !ends.load(Ordering::Relaxed) {
        sockets.iter().for_each(|socket| drop(socket.send(b"n:1|c")));
        rounds += 1;
        std::thread::sleep((started + Duration::from_secs(1) * rounds / RATE).duration_since(Instant::now()));
    }
    u64::from(rounds)
}

/// Reads one quiet task repeatedly. Returns the duration of each read.
fn read(agent: &Agent, long: Duration) -> Vec<Duration> {
    let (started, mut reads) = (Instant::now(), Vec::new());
    while started.elapsed() < long {
        let asked = Instant::now();
        // A read without an answer counts with the client's timeout.
        drop(agent.try_get("/v1/tasks/c0/metrics"));
        reads.push(asked.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    reads
}

/// The number of datagrams of quiet containers that were not received, after waiting for those still on their way.
fn lost(agent: &Agent, rounds: u64) -> u64 {
    let mut missing = u64::MAX;
    for _ in 0..100 {
        let Some(counts) = agent.try_get("/v1/accounting") else { continue };
        let counts: Value = serde_json::from_str(&counts).unwrap();
        let quiet = counts["containers"].as_array().unwrap().iter();
        let quiet = quiet.filter(|one| one["container_id"] != attacker(agent).as_str());
        missing = quiet.map(|one| rounds.abs_diff(datagrams(one).0)).sum();
        if missing == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    missing
}

fn figure(own: &str, name: &str) -> f64 {
    own.lines()
        .find_map(|line| line.strip_prefix(name))
        .map_or(f64::NAN, |value| value.trim().parse().unwrap())
}
