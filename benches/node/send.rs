//! The sender: known lines at a known rate.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The spacing of datagrams.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Pacing {
    /// All datagrams of a millisecond at once, as busy applications send.
    Bursts,
    /// One by one, evenly spaced.
    Each,
}

/// What is sent.
#[derive(Copy, Clone)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) containers: usize,
    /// Datagrams per second over all containers; 0: as fast as possible.
    pub(crate) rate: u64,
    /// Lines in a datagram.
    pub(crate) lines: usize,
    tags: usize,
    pacing: Pacing,
}

/// Names of each container.
const NAMES: usize = 40;
const TAGS: [&str; 4] = ["env:production", "route:/api/v1/pay", "zone:eu-central-1b", "version:2026.11.21"];

impl Load {
    pub(crate) const fn new(name: &'static str, containers: usize, rate: u64) -> Self {
        Self { name, containers, rate, lines: 1, tags: 0, pacing: Pacing::Bursts }
    }

    pub(crate) const fn lines(self, lines: usize) -> Self {
        Self { lines, ..self }
    }

    pub(crate) const fn tags(self, tags: usize) -> Self {
        Self { tags, ..self }
    }

    pub(crate) const fn paced(self, pacing: Pacing) -> Self {
        Self { pacing, ..self }
    }

    /// Counters, timers, gauges and histograms in turn.
    fn datagrams(&self) -> Vec<Vec<u8>> {
        let tags = if self.tags == 0 { String::new() } else { format!("|#{}", TAGS[..self.tags].join(",")) };
        let line = |n: usize| match n % 4 {
            0 => format!("service.requests.{}:1|c{tags}", n % NAMES),
            1 => format!("service.latency.{}:{}.{}|ms{tags}", n % NAMES, 3 + n * 7 % 40, n % 10),
            2 => format!("service.depth.{}:{}|g{tags}", n % NAMES, n * 13 % 500),
            _ => format!("service.size.{}:{}|h{tags}", n % NAMES, 100 + n * 31 % 4000),
        };
        let lines: Vec<String> = (0..NAMES * self.lines).map(line).collect();
        lines.chunks(self.lines).map(|lines| lines.join("\n").into_bytes()).collect()
    }
}

/// What was sent.
pub(crate) struct Sent {
    pub(crate) datagrams: u64,
    pub(crate) took: Duration,
}

/// A socket for each address.
pub(crate) fn connected(addresses: &[SocketAddr]) -> Vec<UdpSocket> {
    let socket = |address: &SocketAddr| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(address).unwrap();
        socket
    };
    addresses.iter().map(socket).collect()
}

/// Sends for this many seconds.
pub(crate) fn send(load: &Load, addresses: &[SocketAddr], seconds: f64) -> Sent {
    let sockets = connected(addresses);
    let datagrams = load.datagrams();
    let started = Instant::now();
    let mut sent = 0_u64;
    let mut due = 0_u64;
    while started.elapsed().as_secs_f64() < seconds {
        if load.rate > 0 {
            while sent >= due {
                due = u64::try_from(started.elapsed().as_micros()).unwrap() * load.rate / 1_000_000;
                match load.pacing {
                    Pacing::Bursts if sent >= due => std::thread::sleep(Duration::from_millis(1)),
                    _ => std::hint::spin_loop(),
                }
            }
        } else {
            due = sent + 64;
        }
        while sent < due {
            let turn = usize::try_from(sent).unwrap();
            let round = turn / sockets.len();
            sockets[turn % sockets.len()].send(&datagrams[round % datagrams.len()]).unwrap();
            sent += 1;
        }
    }
    Sent { datagrams: sent, took: started.elapsed() }
}
