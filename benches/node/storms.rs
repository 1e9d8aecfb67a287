//! What one container or reader costs the others: 63 quiet containers with exact totals, beside one that attacks.
//!
//! `integration/hostile` has every attack and the aims; these rows are for comparing two builds (`TALLYPORT_BINARY=PATH`).

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallyport::net::clock;

use super::agent::{Agent, datagrams};
use super::run::{cpu, resident};
use super::send::connected;

const QUIET: usize = 63;
/// Datagrams a second of each quiet container.
const RATE: u32 = 20;
/// Connections that ask for everything at the same time.
const READERS: usize = 64;

/// Who attacks, and how.
#[derive(Copy, Clone)]
pub(crate) struct Storm {
    pub(crate) name: &'static str,
    kind: Kind,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    /// No attack: what the others are compared with.
    Calm,
    /// Samples of 2,000 series for each of 26 closed windows.
    Late,
    /// Distributions whose every value opens another octave, in 200 series.
    Octaves,
    /// Readers of `/v1/accounting` and `/metrics/tasks`, one after the other on each of many connections.
    Readers,
}

pub(crate) const STORMS: [Storm; 4] = [
    Storm { name: "calm", kind: Kind::Calm },
    Storm { name: "late storm", kind: Kind::Late },
    Storm { name: "octave storm", kind: Kind::Octaves },
    Storm { name: "readers storm", kind: Kind::Readers },
];

/// Attacks for so long. Says what it cost: CPU time of the agent, samples of the quiet, the slowest small reads, memory.
pub(crate) fn storm(storm: Storm, seconds: u64) -> Value {
    eprintln!("{}: {QUIET} quiet containers, {seconds} s", storm.name);
    let agent = Agent::start(QUIET + 1, &["--window", "1s", "--set", "limits.node_memory=64MiB"]);
    let pid = agent.child.id();
    let sockets = connected(&agent.addresses);
    let (attacker, quiet) = sockets.split_last().unwrap();
    if storm.kind == Kind::Readers {
        (0..2000).for_each(|n| drop(attacker.send(format!("read.by.many.{n}:1|c").as_bytes())));
    }
    let (ends, attacks) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = cpu(pid);
    let (rounds, mut reads) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_quietly(quiet, &ends));
        let attackers = if storm.kind == Kind::Readers { READERS } else { 1 };
        for _ in 0..attackers {
            scope.spawn(|| attack(storm.kind, &agent, attacker, &ends, &attacks));
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

/// Sends one datagram to each at a steady rate. Answers how many to each.
fn send_quietly(sockets: &[UdpSocket], ends: &AtomicBool) -> u64 {
    let (started, mut rounds) = (Instant::now(), 0);
    while !ends.load(Ordering::Relaxed) {
        sockets.iter().for_each(|socket| drop(socket.send(b"n:1|c")));
        rounds += 1;
        std::thread::sleep((started + Duration::from_secs(1) * rounds / RATE).duration_since(Instant::now()));
    }
    u64::from(rounds)
}

fn attack(kind: Kind, agent: &Agent, socket: &UdpSocket, ends: &AtomicBool, attacks: &AtomicU64) {
    let mut turn: u64 = 0;
    while !ends.load(Ordering::Relaxed) {
        match kind {
            Kind::Calm => std::thread::sleep(Duration::from_millis(10)),
            Kind::Late => late(socket, turn),
            Kind::Octaves => octaves(socket, turn),
            Kind::Readers => {
                let path = ["/v1/accounting", "/metrics/tasks"][usize::from(turn % 2 == 1)];
                // What is refused for being too much is an answer, too.
                drop(agent.try_get(path));
            }
        }
        turn += 1;
        attacks.fetch_add(u64::from(kind != Kind::Calm), Ordering::Relaxed);
        if matches!(kind, Kind::Late | Kind::Octaves) && turn.is_multiple_of(20) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn late(socket: &UdpSocket, turn: u64) {
    let at = clock::wall().as_secs() - 1 - i64::try_from(turn % 26).unwrap();
    let lines: Vec<String> = (0..20).map(|n| format!("late.{}:1|c|T{at}", (turn * 20 + n) % 2000)).collect();
    drop(socket.send(lines.join("\n").as_bytes()));
}

fn octaves(socket: &UdpSocket, turn: u64) {
    let values: Vec<String> = (0..60)
        .map(|n| {
            let power = i32::try_from((turn * 60 + n) % 2000).unwrap() - 1000;
            let sign = if turn.is_multiple_of(2) { 1.5 } else { -1.5 };
            format!("{:e}", sign * 2f64.powi(power))
        })
        .collect();
    drop(socket.send(format!("octaves.{}:{}|d", turn % 200, values.join(":")).as_bytes()));
}

/// Reads one quiet task again and again. Answers how long each took.
fn read(agent: &Agent, long: Duration) -> Vec<Duration> {
    let (started, mut reads) = (Instant::now(), Vec::new());
    while started.elapsed() < long {
        let asked = Instant::now();
        // One that is not answered took as long as its client had patience.
        drop(agent.try_get("/v1/tasks/c0/metrics"));
        reads.push(asked.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    reads
}

/// How many datagrams of the quiet were not received, once those that were had the time to be.
fn lost(agent: &Agent, rounds: u64) -> u64 {
    let mut missing = u64::MAX;
    for _ in 0..100 {
        let Some(counts) = agent.try_get("/v1/accounting") else { continue };
        let counts: Value = serde_json::from_str(&counts).unwrap();
        let quiet = counts["containers"].as_array().unwrap().iter();
        let quiet = quiet.filter(|one| one["container_id"] != format!("c{QUIET}").as_str());
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
