//! Runs one subject under one load, and measures it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::agent::Agent;
use super::send::{self, Load};

/// The receiving program.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Naive,
    Coalescing,
    Agent,
}

/// The result of a run.
#[derive(Copy, Clone)]
pub(crate) struct Outcome {
    /// Datagrams sent per second.
    pub(crate) rate: f64,
    /// CPU time for each datagram received, in nanoseconds.
    pub(crate) nanos: f64,
    /// The share of sent datagrams that was not received, in the worst round.
    pub(crate) lost: f64,
    /// Resident memory at the end, in bytes.
    pub(crate) memory: u64,
}

impl Subject {
    pub(crate) const ALL: [Self; 3] = [Self::Naive, Self::Coalescing, Self::Agent];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Coalescing => "coalescing",
            Self::Agent => "agent",
        }
    }
}

impl Outcome {
    pub(crate) fn median(all: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = all.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let memory = all.iter().map(|outcome| outcome.memory).max().unwrap();
        // A median would hide a loss in one round.
        let lost = all.iter().map(|outcome| outcome.lost).fold(0.0, f64::max);
        Self { rate: middle(|o| o.rate), nanos: middle(|o| o.nanos), lost, memory }
    }

    pub(crate) fn json(&self) -> Value {
        json!({"datagrams_per_second": self.rate, "cpu_ns_per_datagram": self.nanos, "lost": self.lost, "memory_bytes": self.memory})
    }
}

/// Runs a subject under a load for this many seconds.
pub(crate) fn run(subject: Subject, load: &Load, seconds: f64) -> Outcome {
    send_to(Running::start(subject, load.containers), load, seconds)
}

/// Runs a build of the agent under a load for this many seconds.
pub(crate) fn run_build(binary: &Path, load: &Load, seconds: f64) -> Outcome {
    send_to(Running::Agent(Box::new(Agent::start_build(binary, load.containers, &[]))), load, seconds)
}

fn send_to(running: Running, load: &Load, seconds: f64) -> Outcome {
    // Excludes the cost of starting.
    std::thread::sleep(Duration::from_millis(200));
    let before = cpu(running.pid());
    let sent = send::send(load, running.addresses(), seconds);
    std::thread::sleep(Duration::from_millis(100));
    let nanos = cpu(running.pid()) - before;
    let memory = resident(running.pid());
    let (received, dropped) = running.finish(sent.datagrams);
    assert_eq!(received + dropped, sent.datagrams, "every datagram was received or counted");
    Outcome {
        rate: sent.datagrams as f64 / sent.took.as_secs_f64(),
        nanos: nanos as f64 / received.max(1) as f64,
        lost: dropped as f64 / sent.datagrams as f64,
        memory,
    }
}

/// CPU time of all threads of a process in nanoseconds, as counted by the scheduler.
pub(crate) fn cpu(pid: u32) -> u64 {
    cpu_of(pid, |_| true)
}

/// The same for the threads with a certain name.
pub(crate) fn cpu_of(pid: u32, named: impl Fn(&str) -> bool) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .map(|thread| thread.unwrap().path())
        .filter(|thread| std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| named(name.trim())))
        .filter_map(|thread| std::fs::read_to_string(thread.join("schedstat")).ok())
        .map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

enum Running {
    Agent(Box<Agent>),
    Receiver(Child, Vec<SocketAddr>),
}

impl Running {
    fn start(subject: Subject, containers: usize) -> Self {
        match subject {
            Subject::Agent => Self::Agent(Box::new(Agent::start(containers, &[]))),
            other => Self::receiver(other.name(), containers),
        }
    }

    fn receiver(kind: &str, sockets: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["receive", kind, &sockets.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let addresses = line.split_whitespace().map(|address| address.parse().unwrap()).collect();
        Self::Receiver(child, addresses)
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Agent(agent) => agent.child.id(),
            Self::Receiver(child, _) => child.id(),
        }
    }

    fn addresses(&self) -> &[SocketAddr] {
        match self {
            Self::Agent(agent) => &agent.addresses,
            Self::Receiver(_, addresses) => addresses,
        }
    }

    /// Datagrams received and dropped by the kernel, once all sent ones are accounted for.
    fn finish(self, sent: u64) -> (u64, u64) {
        match self {
            Self::Agent(agent) => {
                let counts = agent.counts(sent);
                agent.end();
                counts
            }
            Self::Receiver(mut child, _) => {
                child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
                let mut line = String::new();
                BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
                assert!(child.wait().unwrap().success());
                let mut counts = line.split_whitespace().map(|count| count.parse().unwrap());
                (counts.next().unwrap(), counts.next().unwrap())
            }
        }
    }
}
