//! Requests to the agent: HTTP/1.1 over its admin socket, within a time budget.
//!
//! Only answers of root, of this user, and of the user that the agent is configured to run as are trusted. The path of the admin
//! socket proves nothing: after an agent has ended, any process that can write to the directory can listen there, and its answers
//! would go into the configuration of containers.

use std::cell::Cell;
use std::fs::Metadata;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use socket2::{Domain, SockAddr, Socket, Type};
use tallyport_linux::files;
use tallyport_wire::Refusal;

use super::errors::Error;

/// Longest accepted response, in bytes.
const LONGEST: usize = 1 << 20;
/// How long to wait before retrying to connect while the agent's queue is full.
const RETRY_DELAY: Duration = Duration::from_millis(5);

/// A connection to an agent, usable until the budget is used up.
#[derive(Debug)]
pub(super) struct Agent {
    socket: PathBuf,
    trusted: Trusted,
    deadline: Instant,
    /// The pid of the last connection's peer.
    peer: Cell<Option<i32>>,
}

/// An answer.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct AgentReply {
    pub(super) status: u16,
    pub(super) body: String,
}

impl AgentReply {
    pub(super) fn refusal_error(&self) -> Error {
        let Refusal { code, message, .. } = serde_json::from_str(&self.body).unwrap_or_default();
        Error::Refused { status: self.status, code: code.into_owned(), message }
    }
}

impl Agent {
    /// The agent that listens at this path, if it runs as a trusted user.
    pub(super) fn new(socket: PathBuf, trusted: Trusted, deadline: Instant) -> Self {
        Self { socket, trusted, deadline, peer: Cell::new(None) }
    }

    /// The users whose responses are trusted.
    pub(super) fn trusted_users(&self) -> Trusted {
        self.trusted
    }

    pub(super) fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// When the budget is used up.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Sends a request, and waits for the response.
    pub(super) fn send_request(&self, method: &str, path: &str, body: &str) -> Result<AgentReply, Error> {
        let unreachable = |source| Error::Unreachable { socket: self.socket.clone(), source };
        let mut stream = self.connect().map_err(unreachable)?;
        let peer = getsockopt(&stream, PeerCredentials).map_err(|error| unreachable(error.into()))?;
        if !self.trusted.contains_user(peer.uid()) {
            return Err(Error::Stranger { socket: self.socket.clone(), user: peer.uid() });
        }
        self.peer.set(Some(peer.pid()));
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let text = self.send_and_receive(&mut stream, &request).map_err(unreachable)?;
        read(&text).map_err(|why| Error::Answer { socket: self.socket.clone(), why: why.to_owned() })
    }

    /// Whether the agent shares this program's pid namespace, so that it can open a pidfd for a pid from here.
    pub(super) fn shares_processes(&self) -> bool {
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/pid"));
        self.peer.get().is_some_and(|peer| match (namespace(&peer.to_string()), namespace("self")) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            _ => false,
        })
    }

    /// The rest of the budget, for another program; zero if it is used up.
    pub(super) fn left_of_budget(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// What is left of the budget.
    fn remaining_time(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(timeout_error()) } else { Ok(left) }
    }

    /// Connects without blocking: the queue of a hung agent fills up, and a blocking call would wait for ever.
    fn connect(&self) -> io::Result<UnixStream> {
        let address = SockAddr::unix(&self.socket)?;
        loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&address) {
                Ok(()) => {
                    socket.set_nonblocking(false)?;
                    return Ok(UnixStream::from(std::os::fd::OwnedFd::from(socket)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(self.remaining_time()?.min(RETRY_DELAY));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn send_and_receive(&self, stream: &mut UnixStream, request: &str) -> io::Result<String> {
        let mut rest = request.as_bytes();
        while !rest.is_empty() {
            stream.set_write_timeout(Some(self.remaining_time()?))?;
            match stream.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) => check_retriable(error)?,
            }
        }
        let mut text = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            stream.set_read_timeout(Some(self.remaining_time()?))?;
            let length = match stream.read(&mut buffer) {
                Ok(length) => length,
                Err(error) => {
                    check_retriable(error)?;
                    continue;
                }
            };
            text.extend_from_slice(buffer.get(..length).unwrap_or_default());
            if length == 0 || is_whole(&text) {
                return String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into());
            }
            if text.len() > LONGEST {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
    }
}

fn timeout_error() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time")
}

/// Returns `Ok` if the call should be retried. A call with a timeout is interrupted when the process is stopped and
/// continued.
fn check_retriable(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => Err(timeout_error()),
        _ => Err(error),
    }
}

/// Splits a response into its head and the rest.
fn split_head(text: &str) -> Option<(&str, &str)> {
    text.split_once("\r\n\r\n")
}

fn find_header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    headers.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
}

/// The expected length of a response's body.
fn body_length(head: &str) -> Option<usize> {
    match head.split_whitespace().nth(1) {
        Some("204") => Some(0),
        _ => find_header(head, "content-length")?.parse().ok(),
    }
}

fn is_whole(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    split_head(text).is_some_and(|(head, body)| body_length(head).is_some_and(|length| body.len() >= length))
}

fn read(text: &str) -> Result<AgentReply, &'static str> {
    let (head, body) = split_head(text).ok_or("the answer breaks off")?;
    let status = head.strip_prefix("HTTP/1.1 ").ok_or("this is not HTTP/1.1")?;
    let status = status.split_whitespace().next().and_then(|status| status.parse().ok());
    let status = status.ok_or("the answer has no status")?;
    let length = body_length(head).ok_or("the answer does not say how long it is")?;
    let body = body.get(..length).ok_or("the answer breaks off")?;
    Ok(AgentReply { status, body: body.to_owned() })
}

/// Encodes an ID as a segment of a URL path.
pub(super) fn encode_path_segment(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    id.bytes().map(one).collect()
}

/// The user of the packaged agent.
pub(super) const AGENT_USER: &str = "tallyport";
/// The kernel's default ID for users that are not mapped into a user namespace.
const OVERFLOW: u32 = 65_534;

/// Trusted users.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Trusted {
    own: u32,
    agent: Option<u32>,
    /// In a user namespace, such as rootless podman's, all users outside of it have this ID, including root.
    outside: Option<u32>,
}

impl Trusted {
    /// Root, this user, and the user with this name or ID.
    pub(super) fn with_agent(agent: &str) -> Self {
        let users = || files::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
        let agent = agent.parse().ok().or_else(|| find_user_id(&users(), agent));
        Self { own: nix::unistd::geteuid().as_raw(), agent, outside: overflow_user_id() }
    }

    /// Whether a user is one of them.
    pub(super) fn contains_user(self, user: u32) -> bool {
        user == 0 || user == self.own || Some(user) == self.agent || Some(user) == self.outside
    }

    /// Whether a file belongs to one of them.
    pub(super) fn owns_file(self, found: &Metadata) -> bool {
        self.contains_user(found.uid())
    }
}

/// The number of a user.
fn find_user_id(users: &str, name: &str) -> Option<u32> {
    let mut lines = users.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| if fields.next() == Some(name) { fields.nth(1)?.parse().ok() } else { None })
}

/// The ID of users outside of this user namespace, unless it is the initial one.
fn overflow_user_id() -> Option<u32> {
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let overflow = || std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok();
    (!whole).then(|| overflow().unwrap_or(OVERFLOW))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_answer_is_read_to_its_length() {
        let read = |text: &str| (is_whole(text.as_bytes()), read(text));
        let answer = |status, body: &str| Ok(AgentReply { status, body: body.to_owned() });
        assert_eq!(
            read("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}more"),
            (true, answer(201, "{}"))
        );
        assert_eq!(read("HTTP/1.1 204 No Content\r\ntallyport-reason: x\r\n\r\n"), (true, answer(204, "")));
        assert_eq!(
            read("HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\n{}"),
            (false, Err("the answer breaks off"))
        );
        assert_eq!(read("HTTP/1.1 200"), (false, Err("the answer breaks off")));
        assert_eq!(read("SSH-2.0\r\n\r\n").1, Err("this is not HTTP/1.1"));
    }

    #[test]
    fn an_agent_that_hangs_costs_no_more_than_the_budget() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let budget = Duration::from_millis(100);
        let ask = || {
            let started = Instant::now();
            let agent = Agent::new(socket.clone(), Trusted::with_agent("0"), started + budget);
            let error = agent.send_request("GET", "/", "").unwrap_err().to_string();
            (error, started.elapsed())
        };
        let (error, taken) = ask();
        assert!(error.contains("did not answer in time"), "{error}");
        assert!(taken >= budget && taken < budget * 5, "{taken:?}");
        // With its queue full, not even a connection is accepted.
        let queue: Vec<_> = (0..5000)
            .map_while(|_| {
                let caller = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
                caller.set_nonblocking(true).unwrap();
                caller.connect(&SockAddr::unix(&socket).unwrap()).ok().map(|()| caller)
            })
            .collect();
        let (error, taken) = ask();
        assert!(error.contains("did not answer in time"), "{error}");
        assert!(taken < budget * 5, "{taken:?} {}", queue.len());
        drop(listener);
        let (error, taken) = ask();
        assert!(error.contains("Connection refused") && taken < budget, "{error}");
    }

    #[test]
    fn an_id_stays_one_part_of_a_path() {
        assert_eq!(encode_path_segment("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(encode_path_segment("a/b ?é"), "a%2Fb%20%3F%C3%A9");
    }

    const USERS: &str =
        "root:x:0:0::/root:/bin/sh\ntallyport2:x:7:7::/:/x\ntallyport:x:987:987::/:/x\nbroken:x\n";

    #[test]
    fn a_user_is_known_by_name_or_number() {
        assert_eq!(
            [find_user_id(USERS, "tallyport"), find_user_id(USERS, "broken"), find_user_id(USERS, "x")],
            [Some(987), None, None]
        );
        assert_eq!(Trusted::with_agent("1234").agent, Some(1234));
    }

    #[test]
    fn only_root_this_user_and_the_agents_are_believed() {
        let trusted = Trusted { own: 1000, agent: Some(987), outside: None };
        assert_eq!(
            [0, 1000, 987, 1001, 65_534].map(|user| trusted.contains_user(user)),
            [true, true, true, false, false]
        );
        let inside = Trusted { outside: Some(65_534), ..trusted };
        assert!(inside.contains_user(65_534), "root has no number of its own there");
    }
}
