//! One container that floods beside many quiet ones: their losses, and the delay until their values are visible.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::agent::{Agent, datagrams};
use super::send::connected;

const CONTAINERS: usize = 64;
/// Datagrams per second of each quiet container.
const QUIET: u64 = 100;

/// The same quiet containers, first alone and then beside a flood.
pub(crate) fn flood(seconds: u64) -> Value {
    let alone = round("alone", false, seconds);
    let beside = round("beside a flood", true, seconds);
    let later = beside.seen_after.saturating_sub(alone.seen_after);
    println!(
        "63 quiet containers beside one that floods with {:.0} datagrams/s: {} of {} lost; of the flood {} sent = {} received + {} \
dropped by the kernel; a quiet value is seen after {:.1} ms at most, alone after {:.1} ms",
        beside.flood.0 as f64 / seconds as f64,
        beside.quiet.0 - beside.quiet.1,
        beside.quiet.0,
        beside.flood.0,
        beside.flood.1,
        beside.flood.2,
        beside.seen_after.as_secs_f64() * 1e3,
        alone.seen_after.as_secs_f64() * 1e3,
    );
    assert_eq!(beside.flood.0, beside.flood.1 + beside.flood.2, "the flood's drops are exact");
    json!({
        "load": "flood", "quiet_sent": beside.quiet.0, "quiet_lost": beside.quiet.0 - beside.quiet.1,
        "flood_sent": beside.flood.0, "flood_received": beside.flood.1, "flood_kernel_drops": beside.flood.2,
        "seen_after_seconds": beside.seen_after.as_secs_f64(), "seen_after_alone_seconds": alone.seen_after.as_secs_f64(),
        "later_seconds": later.as_secs_f64(),
    })
}

struct Round {
    /// Sent and received.
    quiet: (u64, u64),
    /// Sent, received, dropped by the kernel.
    flood: (u64, u64, u64),
    /// The 95th percentile of the time from sending a quiet value until it was visible.
    seen_after: Duration,
}

fn round(name: &str, flooding: bool, seconds: u64) -> Round {
    eprintln!("flood: {name}");
    let agent = Agent::start(CONTAINERS, &[]);
    let sockets = connected(&agent.addresses);
    let (ending, flooded) = (AtomicBool::new(false), AtomicU64::new(0));
    let (flooder, quiet) = sockets.split_first().unwrap();
    let (probe, quiet) = quiet.split_first().unwrap();
    let (quiet_sent, seen_after) = std::thread::scope(|scope| {
        if flooding {
            scope.spawn(|| {
                while !ending.load(Ordering::Relaxed) {
                    flooder.send(b"flood.requests:1|c\nflood.latency:12|ms").unwrap();
                    flooded.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let sending = scope.spawn(|| send_quietly(quiet, seconds));
        let seen = probed(&agent, probe, seconds);
        let sent = sending.join().unwrap();
        ending.store(true, Ordering::Relaxed);
        (sent, seen)
    });
    let sent = flooded.load(Ordering::Relaxed);
    agent.counts(sent + quiet_sent);
    let counts: Value = serde_json::from_str(&agent.get("/v1/accounting")).unwrap();
    agent.end();
    let mut of_flood = (sent, 0, 0);
    let mut received = 0;
    for container in counts["containers"].as_array().unwrap() {
        match container["container_id"].as_str().unwrap() {
            "c0" => (of_flood.1, of_flood.2) = datagrams(container),
            "c1" => {}
            _ => received += datagrams(container).0,
        }
    }
    Round { quiet: (quiet_sent, received), flood: of_flood, seen_after }
}

fn send_quietly(sockets: &[UdpSocket], seconds: u64) -> u64 {
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        let due = u64::try_from(started.elapsed().as_millis()).unwrap() * QUIET / 1000 * sockets.len() as u64;
        while sent < due {
            sockets[usize::try_from(sent).unwrap() % sockets.len()].send(b"quiet.requests:1|c").unwrap();
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    sent
}

/// Sends a value from one quiet container repeatedly, and polls until it is counted.
fn probed(agent: &Agent, probe: &UdpSocket, seconds: u64) -> Duration {
    let started = Instant::now();
    let mut took = Vec::new();
    while started.elapsed() < Duration::from_secs(seconds) {
        let before = received(agent);
        let sent = Instant::now();
        probe.send(b"probe.requests:1|c").unwrap();
        while received(agent) == before {
            assert!(sent.elapsed() < Duration::from_secs(5), "a quiet value never became visible");
        }
        took.push(sent.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    took.sort();
    took[took.len() * 19 / 20]
}

fn received(agent: &Agent) -> u64 {
    let container: Value = serde_json::from_str(&agent.get("/v1/containers/c1")).unwrap();
    container["received"].as_u64().unwrap()
}
