//! The service manager, as systemd has it: what a service can say on the socket of `NOTIFY_SOCKET`, and have it keep.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::pipe2;

/// The socket of the service manager.
#[derive(Debug)]
pub struct ServiceManager(UnixDatagram);

impl ServiceManager {
    /// Connects to the socket that `NOTIFY_SOCKET` names: a path, or `@` and an abstract name.
    ///
    /// # Errors
    /// When nobody is there.
    pub fn connect(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(Self(socket))
    }

    /// Has it keep a descriptor under a name, whatever becomes of what the descriptor is of.
    ///
    /// # Errors
    /// When it is gone.
    pub fn store_descriptor(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        // Without the last it lets a process's handle go when the process ends.
        self.send_message(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), Some(descriptor))
    }

    /// Has it let go of what it keeps under a name.
    ///
    /// # Errors
    /// When it is gone.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.send_message(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None)
    }

    /// Waits until it has done what was said before.
    ///
    /// # Errors
    /// `TimedOut` when it has not by then.
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
        sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

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
        let manager = ServiceManager::connect(path.as_os_str()).unwrap();
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
    fn an_abstract_name_begins_with_an_at() {
        let name = format!("tallyport-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        ServiceManager::connect(OsStr::new(&format!("@{name}"))).unwrap().remove("x").unwrap();
        assert_eq!(heard(&socket).0, "FDSTOREREMOVE=1\nFDNAME=x");
        assert!(ServiceManager::connect(OsStr::new("/nobody/here")).is_err());
    }
}
