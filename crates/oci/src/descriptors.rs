//! Passes descriptors instead of pids to the agent, over `<admin socket>.fd`: one message and one response.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};
use tallyport_linux::{listener, sys};
use tallyport_wire::{Attachment, AttachmentAnswer};

use super::agent::Trusted;
use super::document::to_json;
use super::errors::Error;

/// Longest answer.
const LONGEST: usize = 8192;
/// Receive buffer of a socket that is opened here, in bytes; the agent adjusts it later.
const BUFFER: usize = 262_144;

/// The descriptor socket of an admin socket.
pub(super) fn socket_of(admin: &Path) -> PathBuf {
    let mut path = admin.as_os_str().to_owned();
    path.push(".fd");
    path.into()
}

/// Tells the agent which process a container is, by a pidfd and a handle of its network namespace. If the agent may not
/// enter that namespace but this program may, the socket is opened here.
pub(super) fn attach_by_descriptor(
    (admin, trusted): (&Path, Trusted),
    container: &str,
    pid: i32,
    deadline: Instant,
) -> Result<(), Error> {
    let path = socket_of(admin);
    let unreachable = |source| Error::Unreachable { socket: path.clone(), source };
    let process = sys::pidfd_open(pid).map_err(unreachable)?;
    let mut passed = vec![process];
    // A rootless crun makes its process unreadable even for its own user; the agent then has to use the pidfd alone.
    passed.extend(std::fs::File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from));
    let ask = |passed: &[OwnedFd]| {
        let socket = connect(&path, deadline).map_err(unreachable)?;
        // Checked before anything is passed: handles of a process and its network must not get to other users.
        let user = getsockopt(&socket, PeerCredentials).map_err(|error| unreachable(error.into()))?.uid();
        if !trusted.contains_user(user) {
            return Err(Error::Stranger { socket: path.clone(), user });
        }
        send_and_receive(&socket, container, passed, deadline).map_err(unreachable)
    };
    let mut heard = ask(&passed)?;
    if let (Some("cannot_enter"), Some(address)) = (heard.code.as_deref(), heard.address)
        && let Some(socket) = passed.get(1).and_then(|namespace| open(namespace, address).ok())
    {
        passed.push(socket);
        heard = ask(&passed)?;
    }
    match heard {
        AttachmentAnswer { status: 200, .. } => Ok(()),
        AttachmentAnswer { status, code, message, .. } => Err(Error::Refused {
            status,
            code: code.unwrap_or_default().into_owned(),
            message: message.unwrap_or_default(),
        }),
    }
}

/// Opens a socket in a namespace. This program stays there, which does not affect anything that it still has to do.
fn open(namespace: &OwnedFd, address: SocketAddr) -> io::Result<OwnedFd> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let socket = listener::open(address, BUFFER)?;
    // If it cannot be brought up here, another process may do so later.
    let _either_way = sys::raise_loopback(&socket);
    Ok(socket.into())
}

/// What is left until a deadline.
fn remaining_time(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
}

fn connect(path: &Path, deadline: Instant) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    loop {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address) {
            Ok(()) => return Ok(socket),
            // Its queue is full.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(remaining_time(deadline)?.min(Duration::from_millis(5)));
            }
            Err(error) => return Err(error),
        }
    }
}

fn send_and_receive(
    mut socket: &Socket,
    container: &str,
    passed: &[OwnedFd],
    deadline: Instant,
) -> io::Result<AttachmentAnswer> {
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(remaining_time(deadline)?))?;
    let said = to_json(&Attachment { attach: container.into() });
    let numbers: Vec<_> = passed.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(said.as_bytes())],
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    socket.set_read_timeout(Some(remaining_time(deadline)?))?;
    let mut answer = vec![0; LONGEST];
    let length = io::Read::read(&mut socket, &mut answer)?;
    answer.truncate(length);
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&answer).map_err(io::Error::other)
}
