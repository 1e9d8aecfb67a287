//! Network namespaces: identifying them, and opening sockets inside them.
//!
//! Each call enters a namespace on a dedicated thread that ends with the call, so no thread has to switch back. The
//! socket stays in its namespace while it is open, and keeps the namespace alive.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::sys::statfs::FsType;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{files, listener, sys};

/// The namespace that this process is in.
const OWN: &str = "/proc/self/ns/net";
/// `NSFS_MAGIC` of `linux/magic.h`: the file system that namespaces live in.
const NSFS: FsType = FsType(0x6e73_6673);

/// Identifies a namespace. Unique among existing namespaces; the ID of a removed namespace may be reused.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NamespaceId {
    dev: u64,
    ino: u64,
}

impl NamespaceId {
    /// The number that `/proc/PID/ns/net` shows.
    #[must_use]
    pub const fn inode(self) -> u64 {
        self.ino
    }
}

/// Why a path is not a network namespace.
#[derive(Debug, thiserror::Error)]
#[error("{} is not a network namespace: {why}", path.display())]
pub struct NotANamespace {
    /// The path.
    pub path: PathBuf,
    /// What it is instead.
    pub why: io::Error,
}

/// An open network namespace. It exists for as long as this does, so it is not kept longer than needed.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    id: NamespaceId,
}

/// The addresses that a socket may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The loopback address; `None` for the default.
    pub host: Option<IpAddr>,
    /// The ports, in order of preference.
    pub ports: Vec<u16>,
}

/// A socket in a namespace.
#[derive(Debug)]
pub struct NamespaceSocket {
    /// The socket; not blocking.
    pub socket: UdpSocket,
    /// Where it listens.
    pub address: SocketAddr,
    /// Why the namespace's `lo` stays down, where it does: nothing arrives until it is brought up.
    pub loopback_down: Option<io::Error>,
}

impl Namespace {
    /// Opens the namespace at a path, and nothing that only looks like one: a device or a pipe there is not touched.
    /// A path below `/var/run` or `/run` is tried under the other of these names, too ([`files::other_name`]).
    ///
    /// # Errors
    /// When there is nothing, or something else.
    pub fn open(path: &Path) -> Result<Self, NotANamespace> {
        files::open_by_either_name(path, Self::open_checked)
            .map_err(|why| NotANamespace { path: path.to_owned(), why })
    }

    /// The namespace of a process, which may have ended since; a caller that must know checks for its end afterwards.
    ///
    /// # Errors
    /// When there is no such process, or this one may not look at it.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        Self::open_checked(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace that this process is in.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn own_id() -> io::Result<NamespaceId> {
        Self::open_checked(Path::new(OWN)).map(|own| own.id)
    }

    /// A namespace whose descriptor was passed.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        check_system(&file)?;
        Self::from_file(file)
    }

    /// Opens the namespace of the process that a pidfd refers to, even if the process has no pid in this pid namespace.
    ///
    /// # Errors
    /// `PermissionDenied` when this process may not enter it; others when the process has ended.
    pub async fn of_handle(process: &OwnedFd) -> io::Result<Self> {
        let process = process.try_clone()?;
        let (tell, told) = oneshot::channel();
        std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
            let entered = setns(&process, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let _not_waited_for = tell.send(entered.and_then(|()| File::open("/proc/thread-self/ns/net")));
        })?;
        let opened = told.await.unwrap_or_else(|_| Err(io::Error::other("the thread that looked failed")));
        Self::from_file(opened?)
    }

    fn open_checked(path: &Path) -> io::Result<Self> {
        let looked_at = File::from(nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?);
        check_system(&looked_at)?;
        // A descriptor opened with `O_PATH` cannot be entered; this reopens the same file that was checked.
        Self::from_file(File::open(format!("/proc/self/fd/{}", looked_at.as_raw_fd()))?)
    }

    fn from_file(file: File) -> io::Result<Self> {
        if sys::namespace_kind(&file)? != libc::CLONE_NEWNET {
            return Err(io::Error::other("it is a namespace of another kind"));
        }
        let metadata = file.metadata()?;
        Ok(Self { file, id: NamespaceId { dev: metadata.dev(), ino: metadata.ino() } })
    }

    /// Which namespace it is.
    #[must_use]
    pub fn id(&self) -> NamespaceId {
        self.id
    }

    /// Opens a socket on a loopback address of the namespace, at the first of these ports that is free there. Brings
    /// `lo` up if it is down.
    ///
    /// # Errors
    /// `PermissionDenied` when this process may not enter; `AddrInUse` when every port is taken.
    pub async fn open_socket(self, choice: Choice, buffer: usize) -> io::Result<NamespaceSocket> {
        let (tell, told) = oneshot::channel();
        std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
            let opened = setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| listen_here(&choice, buffer));
            // If the receiver is gone, the socket is closed.
            let _either_way = tell.send(opened);
        })?;
        told.await.unwrap_or_else(|_| Err(io::Error::other("the thread that entered the namespace failed")))
    }
}

/// Whether a socket is in the network namespace that this process is in.
///
/// # Errors
/// When the kernel is older than 5.14 and `/proc` is not there.
pub fn is_here(socket: &UdpSocket) -> io::Result<bool> {
    let cookies = sys::netns_cookie(socket).and_then(|theirs| {
        let own = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
        Ok((theirs, sys::netns_cookie(own)?))
    });
    match cookies {
        Ok((theirs, ours)) => Ok(theirs == ours),
        Err(_) => is_listed_here(socket),
    }
}

/// Like [`is_here`], by the kernel's table of UDP sockets, for kernels without namespace cookies. The table is read in
/// pages and skips entries when other sockets close in between, so a single reading does not prove absence.
fn is_listed_here(socket: &UdpSocket) -> io::Result<bool> {
    const READINGS: usize = 4;
    let inode = File::from(socket.as_fd().try_clone_to_owned()?).metadata()?.ino().to_string();
    for table in ["udp", "udp6"].repeat(READINGS) {
        let listed = match std::fs::read_to_string(format!("/proc/self/net/{table}")) {
            Ok(listed) => listed,
            // There is no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table == "udp6" => continue,
            Err(error) => return Err(error),
        };
        if listed.lines().any(|line| line.split_whitespace().nth(9) == Some(&inode)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check_system(file: &File) -> io::Result<()> {
    let system = nix::sys::statfs::fstatfs(file)?;
    if system.filesystem_type() != NSFS {
        return Err(io::Error::other("it is an ordinary file"));
    }
    Ok(())
}

/// The loopback address for containers with a network namespace of their own: `127.0.0.1`, or `::1` if the kernel has
/// no IPv4.
#[must_use]
pub fn loopback_address() -> IpAddr {
    match socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// Opens a socket in the namespace of the calling thread.
fn listen_here(Choice { host, ports }: &Choice, buffer: usize) -> io::Result<NamespaceSocket> {
    let loopback_down = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
        .or_else(|_| socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None))
        .and_then(sys::raise_loopback)
        .err();
    let opened = match first_free(host.unwrap_or_else(loopback_address), ports, buffer) {
        Err(error) if host.is_none() && error.kind() == io::ErrorKind::AddrNotAvailable => {
            first_free(IpAddr::V6(Ipv6Addr::LOCALHOST), ports, buffer)
        }
        opened => opened,
    };
    opened.map(|(socket, address)| NamespaceSocket { socket, address, loopback_down })
}

fn first_free(host: IpAddr, ports: &[u16], buffer: usize) -> io::Result<(UdpSocket, SocketAddr)> {
    for port in ports {
        let address = SocketAddr::new(host, *port);
        match listener::open(address, buffer) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            opened => return opened.map(|socket| (socket, address)),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespace_is_known_by_what_it_is_not_by_how_it_is_named() {
        let own = Namespace::own_id().unwrap();
        let path = format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
        assert_eq!(Namespace::open(Path::new(&path)).unwrap().id(), own);
        assert_eq!(Namespace::of_process(std::process::id().try_into().unwrap()).unwrap().id(), own);
    }

    #[test]
    fn what_is_no_network_namespace_is_refused_and_said() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for (path, why) in [
            ("/etc/hostname", "ordinary file"),
            ("/no/such/path", "No such file"),
            ("/proc/self/ns/mnt", "another kind"),
            // Opening it for reading would wait for a writer for ever.
            (pipe.to_str().unwrap(), "ordinary file"),
        ] {
            let error = Namespace::open(Path::new(path)).unwrap_err();
            assert!(error.why.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn a_socket_of_ours_is_known_while_others_open_and_close() {
        let churn = |done: &std::sync::atomic::AtomicBool| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _closed_together: Vec<_> =
                    (0..300).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect();
            }
        };
        let ours = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| churn(&done));
            let missed = (0..500).filter(|_| !is_here(&ours).unwrap()).count();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(missed, 0);
        });
        assert!(is_listed_here(&ours).unwrap());
    }

    #[test]
    fn the_first_free_port_is_taken() {
        let (first, address) = first_free(loopback_address(), &[18_725, 18_726], 4096).unwrap();
        assert_eq!(address.port(), 18_725);
        assert_eq!(first_free(loopback_address(), &[18_725, 18_726], 4096).unwrap().1.port(), 18_726);
        assert_eq!(
            first_free(loopback_address(), &[18_725], 4096).unwrap_err().kind(),
            io::ErrorKind::AddrInUse,
            "{first:?}"
        );
    }
}
