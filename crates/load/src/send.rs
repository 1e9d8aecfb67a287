//! Sending at a rate.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cycle::Cycle;

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

/// When to stop, and what to do where nobody receives.
#[derive(Copy, Clone, Debug)]
pub enum Until<'a> {
    /// After so many rounds. An address at which nobody receives ends it.
    Rounds(u64),
    /// After the round in which this is set. Who does not receive is sent to all the same.
    Told(&'a AtomicBool),
}

impl Until<'_> {
    fn goes_on(self, rounds: u64) -> bool {
        match self {
            Self::Rounds(all) => rounds < all,
            Self::Told(stop) => !stop.load(Ordering::Relaxed),
        }
    }
}

/// How often the sender looks at the clock.
const TICK: Duration = Duration::from_millis(1);

/// Sends every container's cycle again and again, `rate` datagrams a second in all, the containers by turns.
///
/// # Errors
/// When a socket cannot be made or used.
pub fn send(
    cycles: &[Cycle],
    addresses: &[SocketAddr],
    until: Until<'_>,
    rate: u64,
) -> io::Result<SendTotals> {
    let sockets = addresses.iter().map(|address| connect_socket(*address)).collect::<io::Result<Vec<_>>>()?;
    let mut pace = SendPacer::new(rate);
    let longest = cycles.iter().map(|cycle| cycle.datagrams.len()).max().unwrap_or(0);
    let outlasts = matches!(until, Until::Told(_));
    let mut rounds = 0;
    while until.goes_on(rounds) {
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

/// A datagram that the system has no room for was not sent, and is sent again. So is one in whose place the system says that
/// nobody was there for the one before, where `outlasts` is said.
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

/// Keeps a rate: as many as are due by now, then a nap.
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
