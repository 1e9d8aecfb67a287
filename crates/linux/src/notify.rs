//! The service manager's notification socket (`NOTIFY_SOCKET`, as in systemd): sending messages and storing
//! descriptors.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::pipe2;

/// The socket of the service manager.
#[derive(Debug)]
pub struct ServiceManager(UnixDatagram);

impl ServiceManager {
    /// Connects to the socket that `NOTIFY_SOCKET` names: a path, or `@` and an abstract name. A message that the service manager
    /// does not make room for within `patience` fails with `WouldBlock`.
    ///
    /// # Errors
    /// When no process listens there.
    pub fn connect(name: &OsStr, patience: Duration) -> io::Result<Self> {
        let address = match name.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Self(socket))
    }

    /// Stores a descriptor in the service manager under a name, until it is removed explicitly.
    ///
    /// # Errors
    /// When the service manager is gone.
    pub fn store_descriptor(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        // Without `FDPOLL=0`, systemd drops a pidfd when its process ends.
        self.send_message(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), Some(descriptor))
    }

    /// Removes the descriptors stored under a name.
    ///
    /// # Errors
    /// When the service manager is gone.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.send_message(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None)
    }

    /// Waits until the service manager has processed all earlier messages.
    ///
    /// # Errors
    /// `TimedOut` when it has not done so within `patience`.
    pub fn wait_for_barrier(&self, patience: Duration) -> io::Result<()> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        self.send_message("BARRIER=1", Some(theirs.as_fd()))?;
        drop(theirs);
        let millis = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)], millis)? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    fn send_message(&self, message: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let raw = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
        let rights = raw.as_ref().map(|raw| [ControlMessage::ScmRights(raw)]);
        let rights = rights.as_ref().map_or([].as_slice(), |rights| rights.as_slice());
        let parts = [IoSlice::new(message.as_bytes())];
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None) {
                // With a time limit on the socket, the kernel does not restart the call after a signal.
                Err(Errno::EINTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    const SOON: Duration = Duration::from_millis(50);

    fn heard(socket: &UnixDatagram) -> (String, usize) {
        let mut buffer = [0; 256];
        let message = sys::receive_message(socket, &mut buffer).unwrap();
        let text = String::from_utf8(buffer[..message.length].to_vec()).unwrap();
        (text, message.passed.len())
    }

    #[test]
    fn what_it_is_told_is_what_it_understands() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::connect(path.as_os_str(), SOON).unwrap();
        manager.store_descriptor("one", socket.as_fd()).unwrap();
        assert_eq!(heard(&socket), ("FDSTORE=1\nFDNAME=one\nFDPOLL=0".to_owned(), 1));
        manager.remove("one").unwrap();
        assert_eq!(heard(&socket), ("FDSTOREREMOVE=1\nFDNAME=one".to_owned(), 0));
        let waits = manager.wait_for_barrier(Duration::from_millis(20)).unwrap_err();
        assert_eq!(waits.kind(), io::ErrorKind::TimedOut);
        // The descriptor is closed with the message.
        assert_eq!(heard(&socket), ("BARRIER=1".to_owned(), 1));
        let answering = std::thread::spawn(move || {
            socket.recv(&mut [0; 64]).unwrap();
        });
        manager.wait_for_barrier(Duration::from_secs(20)).unwrap();
        answering.join().unwrap();
    }

    #[test]
    fn a_manager_that_reads_nothing_holds_no_process_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::connect(path.as_os_str(), SOON).unwrap();
        // Its queue is full after as many messages as net.unix.max_dgram_qlen says, or as its receive buffer holds.
        let error = loop {
            if let Err(error) = manager.store_descriptor("one", socket.as_fd()) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_abstract_name_begins_with_an_at() {
        let name = format!("tallyport-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        ServiceManager::connect(OsStr::new(&format!("@{name}")), SOON).unwrap().remove("x").unwrap();
        assert_eq!(heard(&socket).0, "FDSTOREREMOVE=1\nFDNAME=x");
        assert!(ServiceManager::connect(OsStr::new("/nobody/here"), SOON).is_err());
    }
}
