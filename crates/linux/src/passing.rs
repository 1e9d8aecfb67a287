//! Passes messages and descriptors between two processes of this program, on one machine and of one user.

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, getsockopt, sendmsg, shutdown, sockopt};
use socket2::{Domain, Socket, Type};

use super::sys;
use super::unix::ShortPath;

/// Maximum number of descriptors that the kernel passes with one message.
const TOGETHER: usize = 253;
/// Longest message, in bytes; longer contents are passed as a memory file.
const LONGEST: usize = 64 << 10;

/// How often a cancellable wait checks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// One end of a connection that preserves message boundaries.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// Set when waits on this connection are cancelled.
    given_up: Option<Arc<AtomicBool>>,
}

impl Channel {
    /// Takes an accepted connection. Its peer must be a process of this user or of root.
    ///
    /// # Errors
    /// `PermissionDenied` if it is not.
    pub fn from_accepted(socket: OwnedFd) -> io::Result<Self> {
        let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            let why = format!("it is a process of user {}", peer.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(Self { socket, given_up: None })
    }

    /// Connects to the listener at a path. Its process must belong to this user or root.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` if nothing listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.connect(&ShortPath::from_path(path)?.socket_address()?)?;
        Self::from_accepted(socket.into())
    }

    /// Cancels every wait for a message shortly after `given_up` is set.
    #[must_use]
    pub fn until_given_up(self, given_up: Arc<AtomicBool>) -> Self {
        Self { given_up: Some(given_up), ..self }
    }

    /// Sends a message, and descriptors with it.
    ///
    /// # Errors
    /// When the other end is gone, or there is too much for one message.
    pub fn send(&self, message: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { [].as_slice() } else { rights.as_slice() };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(message)], rights, flags, None)?;
        Ok(())
    }

    /// Waits for a message, and the descriptors that came with it.
    ///
    /// # Errors
    /// `UnexpectedEof` when the peer is gone, `TimedOut` when nothing arrived, `ConnectionAborted` when it was
    /// cancelled.
    pub fn receive(&self, patience: Duration) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let deadline = Instant::now() + patience;
        let mut buffer = vec![0; LONGEST];
        loop {
            match sys::receive_message(&self.socket, &mut buffer) {
                Ok(sys::ReceivedMessage { length: 0, .. }) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(message) if message.length > LONGEST => return Err(io::ErrorKind::InvalidData.into()),
                Ok(message) => {
                    buffer.truncate(message.length);
                    return Ok((buffer, message.passed));
                }
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = match &self.given_up {
                Some(given_up) if given_up.load(Ordering::Relaxed) => {
                    let why = "given up, because this process was told to end again";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why));
                }
                Some(_) => left.min(LOOK),
                None => left,
            };
            let millis = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let _either_way = poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], millis);
        }
    }

    /// Waits for the message that decides what becomes of both processes. If it does not come in time, the other end can no
    /// longer send it: either this process has it, or the other one learns that it has not.
    ///
    /// # Errors
    /// As [`Self::receive`]. Nothing can be received after that.
    pub fn receive_decision(&self, patience: Duration) -> io::Result<Vec<u8>> {
        let received = self.receive(patience).or_else(|error| {
            shutdown(self.socket.as_raw_fd(), Shutdown::Read)?;
            // It may have come before that.
            self.receive(Duration::ZERO).map_err(|_| error)
        });
        received.map(|(message, _)| message)
    }

    /// Sends bytes of any length, and any number of descriptors.
    ///
    /// # Errors
    /// When the other end is gone, or there is no memory.
    pub fn send_all(&self, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let memory = create_sealed_memory(bytes)?;
        let count = u64::try_from(descriptors.len()).unwrap_or(u64::MAX);
        self.send(&count.to_le_bytes(), &[memory])?;
        descriptors.chunks(TOGETHER).try_for_each(|some| self.send(b"descriptors", some))
    }

    /// Waits for the bytes and descriptors that [`Self::send_all`] sends.
    ///
    /// # Errors
    /// As [`Self::receive`], and `InvalidData` when something else came.
    pub fn receive_all(&self, patience: Duration) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let (count, memory) = self.receive(patience)?;
        let count = usize::try_from(u64::from_le_bytes(count.try_into().map_err(|_| invalid())?));
        let count = count.map_err(|_| invalid())?;
        let bytes = read_sealed_memory(memory.into_iter().next().ok_or_else(invalid)?)?;
        let mut descriptors = Vec::new();
        while descriptors.len() < count {
            let (_, some) = self.receive(patience)?;
            // The kernel drops descriptors that exceed this process's limit.
            if some.is_empty() {
                return Err(io::Error::other("descriptors ran out"));
            }
            descriptors.extend(some);
        }
        if descriptors.len() == count { Ok((bytes, descriptors)) } else { Err(invalid()) }
    }
}

/// Creates a sealed memory file with these bytes, which can be passed to another process and no longer be changed.
///
/// # Errors
/// When there is no memory.
pub fn create_sealed_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut memory =
        File::from(memfd_create("tallyport", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    memory.write_all(bytes)?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory.into())
}

/// Reads the contents of a sealed memory file from its beginning.
///
/// # Errors
/// When the descriptor is not one.
pub fn read_sealed_memory(memory: OwnedFd) -> io::Result<Vec<u8>> {
    let mut memory = File::from(memory);
    let mut bytes = Vec::new();
    memory.rewind()?;
    memory.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Channel, Channel) {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        (Channel::from_accepted(one.into()).unwrap(), Channel::from_accepted(other.into()).unwrap())
    }

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn much_comes_whole_with_descriptors_in_their_order() {
        let (one, other) = pair();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let files: Vec<OwnedFd> = (0..300)
            .map(|n: u32| {
                let mut file = File::from(memfd_create("x", MFdFlags::MFD_CLOEXEC).unwrap());
                file.write_all(&n.to_le_bytes()).unwrap();
                file.into()
            })
            .collect();
        let sent = bytes.clone();
        let sending = std::thread::spawn(move || one.send_all(&sent, &files).unwrap());
        let (came, files) = other.receive_all(Duration::from_secs(20)).unwrap();
        sending.join().unwrap();
        assert!(came == bytes);
        let numbers: Vec<_> = files
            .into_iter()
            .map(|file| {
                let mut number = [0; 4];
                let mut file = File::from(file);
                file.rewind().unwrap();
                file.read_exact(&mut number).unwrap();
                u32::from_le_bytes(number)
            })
            .collect();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn memory_that_is_sealed_is_read_and_never_changed() {
        let memory = create_sealed_memory(b"state").unwrap();
        let again = memory.try_clone().unwrap();
        assert!(File::from(memory).write_all(b"x").is_err());
        assert_eq!(read_sealed_memory(again).unwrap(), b"state");
    }

    #[test]
    fn silence_and_an_end_are_told_apart() {
        let (one, other) = pair();
        assert_eq!(one.receive(SOON).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(other);
        assert_eq!(one.receive(SOON).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(one.send(b"x", &[]).is_err());
    }

    #[test]
    fn a_decision_comes_in_time_or_cannot_be_sent_any_more() {
        let (one, other) = pair();
        other.send(b"in time", &[]).unwrap();
        assert_eq!(one.receive_decision(Duration::ZERO).unwrap(), b"in time");
        assert_eq!(one.receive_decision(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(other.send(b"late", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let given_up = Arc::new(AtomicBool::new(true));
        let (one, other) = pair();
        let one = one.until_given_up(given_up);
        assert_eq!(one.receive_decision(SOON).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(other.send(b"late", &[]).is_err());
    }

    #[test]
    fn a_wait_ends_once_it_is_given_up() {
        let (one, other) = pair();
        let given_up = Arc::new(AtomicBool::new(false));
        let one = one.until_given_up(Arc::clone(&given_up));
        other.send(b"x", &[]).unwrap();
        let waiting = std::thread::spawn(move || {
            let first = one.receive(Duration::from_hours(1)).unwrap().0;
            (first, one.receive(Duration::from_hours(1)).unwrap_err().kind())
        });
        given_up.store(true, Ordering::Relaxed);
        assert_eq!(waiting.join().unwrap(), (b"x".to_vec(), io::ErrorKind::ConnectionAborted));
        drop(other);
    }

    #[test]
    fn fewer_descriptors_than_announced_are_not_waited_for_for_ever() {
        let (one, other) = pair();
        let memory: OwnedFd = memfd_create("x", MFdFlags::MFD_CLOEXEC).unwrap();
        one.send(&5_u64.to_le_bytes(), &[memory]).unwrap();
        assert_eq!(other.receive_all(SOON).unwrap_err().kind(), io::ErrorKind::TimedOut);
        one.send(b"nonsense", &[]).unwrap();
        assert_eq!(other.receive_all(SOON).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
