//! The cost of existing containers: idle ones, and a full node.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::agent::Agent;
use super::run::{cpu, cpu_of, resident};
use super::send::connected;

const CONTAINERS: usize = 1000;

/// A thousand containers that send nothing.
pub(crate) fn idle(seconds: u64) -> Value {
    eprintln!("idle: {CONTAINERS} containers");
    let agent = Agent::start(CONTAINERS, &[]);
    let pid = agent.child.id();
    std::thread::sleep(Duration::from_millis(500));
    let (before, started) = (cpu(pid), Instant::now());
    // Long enough for a window to close.
    std::thread::sleep(Duration::from_secs(seconds));
    let percent = (cpu(pid) - before) as f64 / started.elapsed().as_nanos() as f64 * 100.0;
    let memory = resident(pid);
    agent.end();
    println!("{CONTAINERS} containers, idle: {percent:.3} % of a core, {:.1} MB", megabytes(memory));
    json!({"load": "idle", "containers": CONTAINERS, "core_percent": percent, "memory_bytes": memory})
}

/// A thousand containers with a hundred series each: 50 counters, 25 gauges, 25 timers of 100 values per window, with
/// 30 kept windows; then everything is scraped while more arrives.
pub(crate) fn full(windows: u64) -> Value {
    eprintln!("full: {CONTAINERS} containers, 100 series each, {windows} windows");
    let agent = Agent::start(CONTAINERS, &["--window", "2s", "--keep", "30"]);
    let pid = agent.child.id();
    let mut sender = Sender::new(&agent.addresses);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2 * windows + 2) {
        sender.window(Duration::from_secs(2));
    }
    let memory = resident(pid);
    let control = || cpu_of(pid, |name| !name.starts_with("shard-"));
    let scraped = std::thread::scope(|scope| {
        let sending = scope.spawn(|| sender.window(Duration::from_secs(2)));
        std::thread::sleep(Duration::from_millis(300));
        let before = control();
        let length = agent.get("/v1/metrics").len();
        let nanos = control() - before;
        sending.join().unwrap();
        (nanos, length)
    });
    let own = agent.get("/metrics");
    let (received, dropped) = agent.counts(sender.sent);
    agent.end();
    let figure = |name: &str| -> f64 {
        own.lines()
            .find_map(|line| line.strip_prefix(name))
            .map_or(f64::NAN, |value| value.trim().parse().unwrap())
    };
    let stall = figure("tallyport_window_close_seconds{quantile=\"1\"}");
    let (nanos, length) = scraped;
    println!(
        "{CONTAINERS} containers x 100 series, {windows} windows: {:.1} MB; closing windows held up receiving for {:.1} ms at \
most; a scrape of {:.1} MB took {:.0} ms of CPU; {} of {} datagrams lost",
        megabytes(memory),
        stall * 1e3,
        megabytes(length as u64),
        nanos as f64 / 1e6,
        sender.sent - received,
        sender.sent,
    );
    assert_eq!(received + dropped, sender.sent, "every datagram was received or counted");
    json!({
        "load": "full", "containers": CONTAINERS, "windows": windows, "memory_bytes": memory, "stall_seconds": stall,
        "scrape_cpu_seconds": nanos as f64 / 1e9, "scrape_bytes": length, "sent": sender.sent, "lost": sender.sent - received,
    })
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

struct Sender {
    sockets: Vec<UdpSocket>,
    datagrams: Vec<Vec<u8>>,
    sent: u64,
}

impl Sender {
    fn new(addresses: &[SocketAddr]) -> Self {
        let lines: Vec<String> = (0..50)
            .map(|n| format!("service.requests.{n}:{n}|c"))
            .chain((0..25).map(|n| format!("service.depth.{n}:{n}|g")))
            .collect();
        let timer = |n: usize| {
            // Latencies spread over a factor of eight.
            let values: Vec<String> = (0..100)
                .map(|v| format!("{:.2}", (5 + n) as f64 * 8_f64.powf(f64::from(v) / 100.0)))
                .collect();
            format!("service.latency.{n}:{}|ms", values.join(":")).into_bytes()
        };
        let datagrams =
            lines.chunks(25).map(|lines| lines.join("\n").into_bytes()).chain((0..25).map(timer)).collect();
        Self { sockets: connected(addresses), datagrams, sent: 0 }
    }

    /// Sends everything once, spread over the time of a window.
    fn window(&mut self, length: Duration) {
        let started = Instant::now();
        let all = u32::try_from(self.datagrams.len() * self.sockets.len()).unwrap();
        let mut done = 0;
        for datagram in &self.datagrams {
            for socket in &self.sockets {
                socket.send(datagram).unwrap();
                (done, self.sent) = (done + 1, self.sent + 1);
                while done % 64 == 0 && started.elapsed() < length * done / all {
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        }
    }
}
