//! Sending datagrams at a given rate, for a number of rounds or for as long as standard input lasts, while agents end and start.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tallyport_client::{Client, Target};

use super::cycle::{Cycle, ExpectedTotal};
use super::{LoadError, LoadOptions, check, generate_traffic};

/// What was sent.
#[derive(Copy, Clone, Debug, Default)]
pub struct SendTotals {
    /// Datagrams sent, over all containers.
    pub datagrams: u64,
    /// How often every container's cycle was sent.
    pub rounds: u64,
    /// Time from the first datagram to the last.
    pub took: Duration,
}

/// When to stop, and what to do if an address has no receiver.
#[derive(Copy, Clone, Debug)]
pub enum StopCondition<'a> {
    /// After this many rounds. An address without a receiver is an error.
    Rounds(u64),
    /// After the round in which this flag is set. Addresses without a receiver are still sent to.
    Told(&'a AtomicBool),
}

impl StopCondition<'_> {
    fn should_continue(self, rounds: u64) -> bool {
        match self {
            Self::Rounds(all) => rounds < all,
            Self::Told(stop) => !stop.load(Ordering::Relaxed),
        }
    }
}

/// How long the sender sleeps before it checks the clock again.
const TICK: Duration = Duration::from_millis(1);

/// Sends every container's cycle repeatedly, at `rate` datagrams per second in total, taking turns between containers.
///
/// # Errors
/// If a socket cannot be created or used.
pub fn send(
    cycles: &[Cycle],
    addresses: &[SocketAddr],
    until: StopCondition<'_>,
    rate: u64,
) -> io::Result<SendTotals> {
    let sockets = addresses.iter().map(|address| connect_socket(*address)).collect::<io::Result<Vec<_>>>()?;
    let mut pace = SendPacer::new(rate);
    let longest = cycles.iter().map(|cycle| cycle.datagrams.len()).max().unwrap_or(0);
    let outlasts = matches!(until, StopCondition::Told(_));
    let mut rounds = 0;
    while until.should_continue(rounds) {
        for turn in 0..longest {
            for (cycle, socket) in cycles.iter().zip(&sockets) {
                if let Some(datagram) = cycle.datagrams.get(turn) {
                    pace.wait_until_due();
                    send_datagram(socket, datagram, outlasts)?;
                }
            }
        }
        if rounds == 0 {
            for (cycle, socket) in cycles.iter().zip(&sockets) {
                for datagram in &cycle.flood {
                    pace.wait_until_due();
                    send_datagram(socket, datagram, outlasts)?;
                }
            }
        }
        rounds += 1;
    }
    Ok(SendTotals { datagrams: pace.sent, rounds, took: pace.started.elapsed() })
}

fn connect_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket)
}

/// Sends a datagram, and tries again while the system has no room for it. If `outlasts` is set, it also tries again if the system
/// reports instead that the previous one had no receiver.
fn send_datagram(socket: &UdpSocket, datagram: &[u8], outlasts: bool) -> io::Result<()> {
    loop {
        match socket.send(datagram) {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) if outlasts && error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => std::thread::sleep(TICK),
            Err(error) => return Err(error),
        }
    }
}

/// Keeps a rate: allows as many datagrams as are due by now, then sleeps briefly.
struct SendPacer {
    started: Instant,
    sent: u64,
    due: u64,
    rate: u64,
}

impl SendPacer {
    fn new(rate: u64) -> Self {
        Self { started: Instant::now(), sent: 0, due: 0, rate }
    }

    fn wait_until_due(&mut self) {
        self.sent += 1;
        if self.rate == 0 {
            return;
        }
        while self.sent > self.due {
            let elapsed = self.started.elapsed() + TICK;
            self.due =
                u64::try_from(elapsed.as_micros() * u128::from(self.rate) / 1_000_000).unwrap_or(u64::MAX);
            if self.sent > self.due {
                std::thread::sleep(TICK);
            }
        }
    }
}

/// What was sent, whether or not it was received.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outlasted {
    /// Datagrams sent.
    pub sent: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Each container's, by id.
    pub containers: BTreeMap<String, Traffic>,
}

/// What one container has sent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: u64,
    /// Values of lines that can be read.
    pub values: u64,
    /// The sum of each counter, by name.
    pub counters: BTreeMap<String, f64>,
}

/// Reserves containers with this process as their first process, and sends until standard input ends. They end with
/// this process.
pub(super) fn send_until_input_ends(options: &LoadOptions) -> Result<Outlasted, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = Client::new(Target::Unix(options.admin_socket.clone()));
    let (names, cycles) = generate_traffic(options);
    let addresses = runtime.block_on(check::reserve_sockets(&admin, &names, Some(std::process::id())))?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        // An error counts as the end, too.
        let _either_way = io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let sent = send(&cycles, &addresses, StopCondition::Told(&stop), options.rate)?;
    let containers = names.into_iter().zip(&cycles).map(|(name, cycle)| {
        let expected = cycle.expected.after_rounds(sent.rounds);
        let counters = expected.series.into_iter().filter_map(|(name, total)| match total {
            ExpectedTotal::Counter(sum) => Some((name, sum)),
            _ => None,
        });
        let (datagrams, values) = (expected.datagrams, expected.values);
        (name, Traffic { datagrams, values, counters: counters.collect() })
    });
    Ok(Outlasted { sent: sent.datagrams, seconds: sent.took.as_secs_f64(), containers: containers.collect() })
}

/// Prints the totals as JSON.
pub(super) fn print_totals(out: &mut impl Write, sent: &Outlasted) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, sent)?;
    writeln!(out)
}
