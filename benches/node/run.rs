//! One subject under one load: started, sent to, asked, ended.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tallyport::client::{Client, Target};

use super::send::{self, Load};

/// Who receives.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Naive,
    Coalescing,
    Agent,
}

/// What it did.
#[derive(Copy, Clone)]
pub(crate) struct Outcome {
    /// Datagrams sent in a second.
    pub(crate) rate: f64,
    /// CPU time for each datagram received, in nanoseconds.
    pub(crate) nanos: f64,
    /// Part of what was sent that was not received; the worst round's.
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
        // A loss in one round is a loss; a median would hide it.
        let lost = all.iter().map(|outcome| outcome.lost).fold(0.0, f64::max);
        Self { rate: middle(|o| o.rate), nanos: middle(|o| o.nanos), lost, memory }
    }

    pub(crate) fn json(&self) -> Value {
        json!({"datagrams_per_second": self.rate, "cpu_ns_per_datagram": self.nanos, "lost": self.lost, "memory_bytes": self.memory})
    }
}

/// Runs a subject under a load for so long.
pub(crate) fn run(subject: Subject, load: &Load, seconds: f64) -> Outcome {
    let mut running = Running::start(subject, load.containers);
    // What starting costs is not what receiving costs.
    std::thread::sleep(Duration::from_millis(200));
    let before = cpu(running.child.id());
    let sent = send::send(load, &running.addresses, seconds);
    std::thread::sleep(Duration::from_millis(100));
    let nanos = cpu(running.child.id()) - before;
    let memory = resident(running.child.id());
    let (received, dropped) = running.finish(sent.datagrams);
    assert_eq!(
        received + dropped,
        sent.datagrams,
        "{}: every datagram was received or counted",
        subject.name()
    );
    Outcome {
        rate: sent.datagrams as f64 / sent.took.as_secs_f64(),
        nanos: nanos as f64 / received.max(1) as f64,
        lost: dropped as f64 / sent.datagrams as f64,
        memory,
    }
}

/// Nanoseconds that all threads of a process have run, by the scheduler's count.
fn cpu(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("schedstat")).ok())
        .map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

struct Running {
    child: Child,
    addresses: Vec<SocketAddr>,
    agent: Option<Agent>,
}

struct Agent {
    admin: Client,
    runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
}

impl Running {
    fn start(subject: Subject, containers: usize) -> Self {
        match subject {
            Subject::Agent => Self::agent(containers),
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
        Self { child, addresses, agent: None }
    }

    fn agent(containers: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let child = Command::new(env!("CARGO_BIN_EXE_tallyport"))
            .args(["agent", "--http-listen", "127.0.0.1:0", "--log", "error", "--admin-socket"])
            .arg(&socket)
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin = Client::new(Target::Unix(socket));
        let agent = Agent { admin, runtime, directory };
        agent.wait();
        let addresses = (0..containers).map(|index| agent.reserve(index)).collect();
        Self { child, addresses, agent: Some(agent) }
    }

    /// How many datagrams were received, and how many the kernel dropped, once all that were sent are accounted for.
    fn finish(&mut self, sent: u64) -> (u64, u64) {
        let counts = match &self.agent {
            Some(agent) => {
                let counts = agent.counts(sent);
                nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(self.child.id().cast_signed()),
                    nix::sys::signal::SIGTERM,
                )
                .unwrap();
                counts
            }
            None => {
                self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
                let mut line = String::new();
                BufReader::new(self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
                let mut counts = line.split_whitespace().map(|count| count.parse().unwrap());
                (counts.next().unwrap(), counts.next().unwrap())
            }
        };
        assert!(self.child.wait().unwrap().success());
        counts
    }
}

impl Agent {
    fn wait(&self) {
        for _ in 0..200 {
            if self.runtime.block_on(self.admin.get("/ready")).is_ok_and(|answer| answer.status == 200) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the agent does not get ready in {}", self.directory.path().display());
    }

    fn reserve(&self, index: usize) -> SocketAddr {
        let body = json!({"container_id": format!("c{index}"), "ttl": null}).to_string().into_bytes();
        let answer = self.runtime.block_on(self.admin.request("POST", "/v1/containers", body)).unwrap();
        let reserved: Value = serde_json::from_slice(&answer.body).unwrap();
        SocketAddr::new(
            reserved["statsd_host"].as_str().unwrap().parse().unwrap(),
            u16::try_from(reserved["statsd_port"].as_u64().unwrap()).unwrap(),
        )
    }

    /// Asks until everything that was sent is accounted for, or five seconds are over.
    fn counts(&self, sent: u64) -> (u64, u64) {
        let mut counted = (0, 0);
        for _ in 0..100 {
            let answer = self.runtime.block_on(self.admin.get("/v1/accounting")).unwrap();
            let counts: Value = serde_json::from_slice(&answer.body).unwrap();
            let datagrams = &counts["total"]["datagrams"];
            counted = (datagrams["received"].as_u64().unwrap(), datagrams["kernel_drops"].as_u64().unwrap());
            if counted.0 + counted.1 >= sent {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        counted
    }
}
