//! A container's Unix datagram socket: opening it, and receiving what the container's own processes send.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket, sockopt};

use super::listener::{DATAGRAM, Inbox, ReadOutcome};
use super::process_identity::SenderVerdict;
use super::sys::{self, ReceivedMessage};

/// Longest path of a Unix socket: the kernel has room for 108 bytes, including a terminating zero.
pub const LONGEST_PATH: usize = 107;
/// How many datagrams may wait in a Unix socket that is opened in this thread's network namespace.
const QUEUE: &str = "/proc/sys/net/unix/max_dgram_qlen";

/// Whether a mount that is in a container would be hidden by one of ours. `/var/run` is a link to `/run` nearly everywhere.
#[must_use]
pub fn would_hide(theirs: &str, ours: &str) -> bool {
    normalize_run_path(theirs)
        .strip_prefix(&normalize_run_path(ours))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether two paths in a container are the same place.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    normalize_run_path(one) == normalize_run_path(other)
}

fn normalize_run_path(path: &str) -> String {
    let path = path.trim_end_matches('/');
    path.strip_prefix("/var/run").map_or_else(|| path.to_owned(), |rest| format!("/run{rest}"))
}

/// An open socket.
#[derive(Debug)]
pub struct Unixgram {
    /// The socket; not blocking.
    pub socket: UnixDatagram,
    /// Datagrams that may wait in it; a sender of more waits, or is refused.
    pub queue: usize,
}

/// Opens sockets with a longer queue than usual.
///
/// By default the kernel lets ten datagrams wait in a Unix socket. It uses the limit of the network namespace in which
/// the socket is opened. The opener keeps an otherwise empty namespace with a higher limit; a socket's path works from
/// any network namespace.
#[derive(Debug, Default)]
pub struct Opener {
    apart: Option<File>,
}

impl Opener {
    /// An opener of sockets in which `queue` datagrams may wait, or the default number if this process may not create a
    /// network namespace.
    #[must_use]
    pub fn new(queue: usize) -> Self {
        if read_queue_limit().is_some_and(|usual| usual >= queue) {
            return Self::default();
        }
        let made = run_on_own_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // This file controls the limit of the thread's own namespace.
            std::fs::write(QUEUE, queue.to_string())?;
            File::open("/proc/thread-self/ns/net")
        });
        if let Err(error) = &made {
            tracing::debug!(%error, "Unix sockets have the default queue length, net.unix.max_dgram_qlen");
        }
        Self { apart: made.ok() }
    }

    /// Opens a socket at a path, for every process that reaches the path. What a dead agent left there is removed first.
    ///
    /// # Errors
    /// When the path is too long, something that is no socket is in the way, or the directory cannot be written.
    pub fn open(&self, path: &Path) -> io::Result<Unixgram> {
        let length = path.as_os_str().len();
        if length > LONGEST_PATH {
            let why = format!(
                "its path is {length} bytes long and may have {LONGEST_PATH}; set a shorter state_dir or unix.path"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                let why = "something that is not a socket is in its place";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            Ok(_) => std::fs::remove_file(path)?,
            Err(_) => {}
        }
        let (opened, queue) = match self.apart.as_ref().map(File::try_clone) {
            Some(Ok(namespace)) => run_on_own_thread(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)?;
                create_socket()
            })?,
            _ => create_socket()?,
        };
        setsockopt(&opened, sockopt::PassCred, &true)?;
        if let Err(error) = sys::ask_for_processes(&opened) {
            tracing::debug!(%error, "senders that have ended cannot be checked");
        }
        bind(opened.as_raw_fd(), &UnixAddr::new(path)?)?;
        // The container may run as any user. Other senders are recognized by what the kernel reports for each datagram.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Unixgram { socket: opened.into(), queue })
    }
}

/// Runs a function on a dedicated thread, which may enter another namespace and never has to switch back.
fn run_on_own_thread<T: Send + 'static>(
    does: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("unixgram".to_owned()).spawn(does)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread failed")))
}

/// Creates a socket; also returns how many datagrams may wait in it.
fn create_socket() -> io::Result<(OwnedFd, usize)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok((socket(AddressFamily::Unix, SockType::Datagram, flags, None)?, read_queue_limit().unwrap_or(1)))
}

/// How many datagrams may wait in a Unix socket that is opened on this thread.
fn read_queue_limit() -> Option<usize> {
    std::fs::read_to_string(QUEUE).ok()?.trim().parse().ok()
}

/// Counts of datagrams that were discarded because of their sender.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct RefusedDatagrams {
    /// Of processes that do not belong to the container.
    pub foreign: u64,
    /// Of processes that ended before they could be checked.
    pub ended: u64,
}

impl Inbox {
    /// Replaces the batch with up to `most` datagrams that are already waiting. Datagrams whose sender does not belong
    /// to the container are counted and discarded.
    pub fn take_from_members(
        &mut self,
        socket: &UnixDatagram,
        most: usize,
        mut judge: impl FnMut(i32, Option<&OwnedFd>) -> SenderVerdict,
    ) -> (ReadOutcome, RefusedDatagrams) {
        self.clear();
        let mut refused = RefusedDatagrams::default();
        while self.taken_count() < most {
            let Some(room) = self.spare_buffer() else { break };
            let ReceivedMessage { length, sender, process, passed: _closed } =
                match sys::receive_message(socket, room) {
                    Ok(message) => message,
                    Err(Errno::EAGAIN) => return (ReadOutcome::Fully, refused),
                    Err(Errno::EINTR) => continue,
                    Err(error) => return (ReadOutcome::Broken(error), refused),
                };
            // The kernel always reports the sender; if it ever does not, the datagram is not trusted.
            match sender.map_or(SenderVerdict::Foreign, |sender| judge(sender, process.as_ref())) {
                SenderVerdict::Member if length > DATAGRAM => self.count_truncated(),
                SenderVerdict::Member => self.add_datagram(length),
                SenderVerdict::Foreign => refused.foreign += 1,
                SenderVerdict::Ended => refused.ended += 1,
            }
            // Foreign datagrams count against the turn, too, so that a flood of them cannot prolong it.
            if refused.foreign + refused.ended >= most as u64 {
                break;
            }
        }
        (ReadOutcome::Partly, refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_open_to_every_user_and_replaces_that_of_a_dead_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dsd.socket");
        let opener = Opener::default();
        drop(opener.open(&path).unwrap());
        let opened = opener.open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        UnixDatagram::unbound().unwrap().send_to(b"a:1|c", &path).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let mut inbox = Inbox::default();
        let taken = inbox.take_from_members(&opened.socket, 9, |pid, _| {
            if pid == me { SenderVerdict::Member } else { SenderVerdict::Foreign }
        });
        assert_eq!(
            (taken, inbox.datagrams().count()),
            ((ReadOutcome::Fully, RefusedDatagrams::default()), 1)
        );
    }

    #[test]
    fn what_cannot_be_a_sockets_path_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("x".repeat(LONGEST_PATH));
        let error = Opener::default().open(&long).unwrap_err().to_string();
        assert!(error.contains("may have 107"), "{error}");
        let fits = "x".repeat(LONGEST_PATH - directory.path().as_os_str().len() - 1);
        assert!(Opener::default().open(&directory.path().join(fits)).is_ok());
        let file = directory.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(Opener::default().open(&file).unwrap_err().to_string().contains("not a socket"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn more_may_wait_where_this_process_can_see_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let opened = Opener::new(700).open(&directory.path().join("s")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(directory.path().join("s")).unwrap();
        sender.set_nonblocking(true).unwrap();
        let fitted = (0..2_000).take_while(|_| sender.send(b"a:1|c").is_ok()).count();
        // The sender's own buffer may be full first.
        assert!(fitted <= opened.queue + 1 && fitted >= opened.queue.min(200), "{fitted} {}", opened.queue);
        if nix::unistd::geteuid().is_root() {
            assert!(opened.queue >= 700);
        }
    }

    #[test]
    fn datagrams_of_foreign_senders_are_counted_and_not_read() {
        let (receiver, sender) = UnixDatagram::pair().unwrap();
        setsockopt(&receiver, sockopt::PassCred, &true).unwrap();
        for length in [3, 4, DATAGRAM + 1, 5, 6] {
            sender.send(&vec![b'x'; length]).unwrap();
        }
        let mut verdicts = [
            SenderVerdict::Member,
            SenderVerdict::Foreign,
            SenderVerdict::Member,
            SenderVerdict::Ended,
            SenderVerdict::Member,
        ]
        .into_iter();
        let mut inbox = Inbox::default();
        let (emptied, refused) = inbox.take_from_members(&receiver, 9, |_, _| verdicts.next().unwrap());
        assert_eq!((emptied, refused), (ReadOutcome::Fully, RefusedDatagrams { foreign: 1, ended: 1 }));
        assert_eq!(inbox.datagrams().map(<[u8]>::len).collect::<Vec<_>>(), [3, 6]);
        assert_eq!(inbox.truncated_count(), 1);
    }

    #[test]
    fn a_stranger_who_floods_has_a_turn_and_no_more() {
        let (receiver, sender) = UnixDatagram::pair().unwrap();
        setsockopt(&receiver, sockopt::PassCred, &true).unwrap();
        (0..5).for_each(|_| drop(sender.send(b"x")));
        let mut inbox = Inbox::default();
        let (emptied, refused) = inbox.take_from_members(&receiver, 3, |_, _| SenderVerdict::Foreign);
        assert_eq!((emptied, refused.foreign), (ReadOutcome::Partly, 3));
    }
}
