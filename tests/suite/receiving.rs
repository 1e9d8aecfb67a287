//! How sockets are read: together, or at once.

use std::time::{Duration, Instant};

use crate::agent::Agent;

/// The number of times that the shard's thread slept while it received two thousand datagrams within a second.
fn naps(gather: &str) -> u64 {
    let agent = Agent::with(&["--set", &format!("agent.gather={gather}"), "--set", "agent.shards=1"]);
    let address = agent.reserve("c1", "web.1");
    let before = slept(agent.pid());
    let started = Instant::now();
    for n in 0..2_000_u32 {
        address.send("a:1|c");
        while started.elapsed() < Duration::from_micros(500) * n {
            std::hint::spin_loop();
        }
    }
    let naps = slept(agent.pid()) - before;
    agent.until("everything has arrived", || {
        agent.get("/v1/accounting").1["total"]["datagrams"]["received"] == 2_000
    });
    naps
}

fn slept(pid: i32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses =
        threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    let shard = statuses.into_iter().find(|status| status.contains("shard-0")).unwrap();
    let count = shard.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    count.trim().parse().unwrap()
}

#[test]
fn datagrams_gather_before_they_are_read_unless_that_is_turned_off() {
    // On a busy machine datagrams arrive in bursts, after which the shard correctly waits less.
    let mut seen = Vec::new();
    let fewer = (0..5).any(|_| {
        let (together, at_once) = (naps("20ms"), naps("0s"));
        seen.push((together, at_once));
        together * 3 < at_once
    });
    assert!(fewer, "naps when they gather and when they do not: {seen:?}");
}

/// Sends bursts that fill a small buffer, and returns the final size of the receive buffer.
fn after_bursts(agent: &Agent) -> u64 {
    let web = agent.reserve("c1", "web.1");
    let buffer = || agent.get("/v1/tasks/web.1").1["containers"][0]["receive_buffer"].as_u64().unwrap();
    assert_eq!(buffer(), 16_384);
    for _ in 0..40 {
        (0..12).for_each(|_| web.send("a:1|c"));
        std::thread::sleep(Duration::from_millis(15));
    }
    buffer()
}

#[test]
fn a_busy_socket_gets_a_larger_buffer_and_the_budget_knows() {
    let agent = Agent::with(&["--set", "listeners.receive_buffer=16KiB"]);
    let grown = after_bursts(&agent);
    assert!(grown >= 32_768, "{grown}");
    assert_eq!(agent.get("/v1/node").1["receive_buffers"], grown);
    assert!(agent.cli(&["doctor"]).out.contains("in all 0 of 512 MiB"), "{}", agent.cli(&["doctor"]).out);
}

#[test]
fn a_buffer_grows_no_further_than_its_maximum() {
    let agent = Agent::with(&[
        "--set",
        "listeners.receive_buffer=16KiB",
        "--set",
        "listeners.receive_buffer_max=16KiB",
    ]);
    assert_eq!(after_bursts(&agent), 16_384);
}
