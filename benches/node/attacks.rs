//! The attacks of [`super::storms`]: actions of one container or its readers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tallyport::net::clock;

use super::agent::Agent;

/// Connections that request everything at the same time.
const READERS: usize = 64;
/// Sets of the attacking container, and members of each in one datagram.
const SETS: u64 = 60;
const MEMBERS: u64 = 150;
/// Names that the patterns are compared with, and their length.
const NAMES: u64 = 2000;
const NAME_LENGTH: usize = 200;
/// Length of a line that unread tails are sent.
const LONG_LINE: usize = 60_000;

/// The kind of an attack.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No attack, for comparison.
    Calm,
    /// Samples of 2,000 series for each of 26 closed windows.
    Late,
    /// Distributions in which every value opens another octave, in 200 series.
    Octaves,
    /// Sets with hundreds of members in every window, and late members that revise each kept window.
    Sets,
    /// Readers of `/v1/accounting` and `/metrics/tasks`, one after the other on each of many connections.
    Readers,
    /// Scrapers of `/metrics/tasks`.
    Scrapers,
    /// Readers whose patterns nearly match each of many long names.
    Patterns,
    /// Connections that request large pages and never read them.
    SlowReaders,
    /// Tails of long lines that are never read.
    Tails,
}

impl Kind {
    /// The number of attackers at the same time.
    pub(crate) fn attackers(self) -> usize {
        match self {
            Self::Readers | Self::Scrapers | Self::SlowReaders => READERS,
            Self::Patterns => 8,
            Self::Tails => 20,
            Self::Calm | Self::Late | Self::Octaves | Self::Sets => 1,
        }
    }

    /// Sends the data that readers request.
    pub(crate) fn prepare(self, socket: &UdpSocket) {
        let padding =
            if self == Self::Patterns { "a".repeat(NAME_LENGTH) } else { "read.by.many".to_owned() };
        if self.attackers() > 1 {
            (0..NAMES).for_each(|n| drop(socket.send(format!("{padding}.{n}:1|c").as_bytes())));
        }
    }

    /// Attacks until the end, and counts the attacks.
    pub(crate) fn attack(self, agent: &Agent, socket: &UdpSocket, ends: &AtomicBool, attacks: &AtomicU64) {
        let mut held = None;
        let mut turn: u64 = 0;
        while !ends.load(Ordering::Relaxed) {
            match self {
                Self::Calm => std::thread::sleep(Duration::from_millis(10)),
                Self::Late => send_late(socket, turn),
                Self::Octaves => send_octaves(socket, turn),
                Self::Sets => send_sets(socket, turn),
                // A refusal because of a limit is an answer, too.
                Self::Readers => {
                    drop(agent.try_get(["/v1/accounting", "/metrics/tasks"][usize::from(turn % 2 == 1)]));
                }
                Self::Scrapers => drop(agent.try_get("/metrics/tasks")),
                Self::Patterns => drop(agent.try_get(&patterns(agent))),
                Self::SlowReaders => hold(&mut held, agent.http, "/metrics/tasks"),
                Self::Tails => {
                    hold(&mut held, agent.http, &format!("/v1/tasks/{}/tail", attacker(agent)));
                    drop(socket.send(format!("long:1|c|#filler:{}", "x".repeat(LONG_LINE)).as_bytes()));
                }
            }
            turn += 1;
            attacks.fetch_add(u64::from(self != Self::Calm), Ordering::Relaxed);
            if self.attackers() == 1 && turn.is_multiple_of(20) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// The container that attacks is the last one.
pub(crate) fn attacker(agent: &Agent) -> String {
    format!("c{}", agent.addresses.len() - 1)
}

fn send_late(socket: &UdpSocket, turn: u64) {
    let at = clock::wall_time().as_secs() - 1 - i64::try_from(turn % 26).unwrap();
    let lines: Vec<String> = (0..20).map(|n| format!("late.{}:1|c|T{at}", (turn * 20 + n) % 2000)).collect();
    drop(socket.send(lines.join("\n").as_bytes()));
}

fn send_octaves(socket: &UdpSocket, turn: u64) {
    let values: Vec<String> = (0..60)
        .map(|n| {
            let power = i32::try_from((turn * 60 + n) % 2000).unwrap() - 1000;
            let sign = if turn.is_multiple_of(2) { 1.5 } else { -1.5 };
            format!("{:e}", sign * 2f64.powi(power))
        })
        .collect();
    drop(socket.send(format!("octaves.{}:{}|d", turn % 200, values.join(":")).as_bytes()));
}

/// Members of a set of the open window; every tenth datagram has one late member of every set of a closed window.
fn send_sets(socket: &UdpSocket, turn: u64) {
    let lines: Vec<String> = if turn.is_multiple_of(10) {
        let at = clock::wall_time().as_secs() - 1 - i64::try_from(turn / 10 % 26).unwrap();
        (0..SETS).map(|set| format!("wide.{set}:late{turn}|s|T{at}")).collect()
    } else {
        (0..MEMBERS)
            .map(|n| format!("wide.{}:{}|s", turn % SETS, (turn / SETS * MEMBERS + n) % 600))
            .collect()
    };
    drop(socket.send(lines.join("\n").as_bytes()));
}

fn patterns(agent: &Agent) -> String {
    let pattern = format!("{}*b", "*a".repeat(100));
    let patterns = vec![format!("name={pattern}"); 20].join("&");
    format!("/v1/tasks/{}/metrics?window=all&{patterns}", attacker(agent))
}

/// Holds a connection that has sent a request and does not read the answer. If the agent has closed it, it is opened
/// again.
fn hold(held: &mut Option<TcpStream>, address: SocketAddr, path: &str) {
    std::thread::sleep(Duration::from_millis(50));
    let is_open =
        held.as_ref().is_some_and(|connection| connection.peek(&mut [0]).is_ok_and(|length| length > 0));
    if is_open {
        return;
    }
    let opened = connect(address).and_then(|mut connection| {
        connection.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
        // Reads the head, to distinguish a refusal from a page.
        connection.read_exact(&mut [0; 12])?;
        Ok(connection)
    });
    *held = opened.ok();
}

/// A connection with a small receive buffer, from an address whose limits other readers do not share.
fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    socket.connect(&address.into())?;
    let connection = TcpStream::from(socket);
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(connection)
}
