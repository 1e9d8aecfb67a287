//! Listening at the admin socket's path: it is taken over from a dead agent, never from a live one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt as _, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Maximum number of connections waiting to be accepted.
const BACKLOG: i32 = 128;

/// Why a path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// A live agent uses the path.
    #[error("{} belongs to another agent{}", path.display(), holder.map_or(String::new(), |pid| format!(", pid {pid}")))]
    InUse {
        /// The path.
        path: PathBuf,
        /// The other agent's pid, if known.
        holder: Option<i32>,
    },
    /// Something that is not a socket is in the way.
    #[error("{} is not a socket, so it is left alone; remove it or set another admin.socket", path.display())]
    InTheWay {
        /// The path.
        path: PathBuf,
    },
    /// The directory belongs to another user.
    #[error("{} belongs to user {uid}, who could replace what is in it; use a directory of this user or of root", path.display())]
    Stranger {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Other users can write to the directory, and it has no sticky bit.
    #[error("{} has mode {mode:04o}, so other users could replace what is in it; run chmod go-w on it or use another directory", path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file with the lock's name is not a lock file of this user.
    #[error("{} is not a lock file of this user, so it is left alone; remove it", path.display())]
    NotALock {
        /// Where the lock should be.
        path: PathBuf,
    },
    /// The file with the log's name is not a file of this user.
    #[error("{} is not a log file of this user, so it is left alone; remove it", path.display())]
    NotALog {
        /// Where the log should be.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn io_error_at(path: &Path) -> impl Fn(io::Error) -> PathError {
    let path = path.to_owned();
    move |source| PathError::Io { path: path.clone(), source }
}

/// A directory that this agent holds exclusively while this value exists.
#[derive(Debug)]
pub struct HeldDirectory {
    /// Closing it releases the lock, unless another process shares it.
    lock: File,
}

impl HeldDirectory {
    /// The lock, for the process that takes over.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub fn share_lock(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }

    /// The lock that the process before shared.
    ///
    /// # Errors
    /// When it is not one, or another process has it.
    pub fn from_shared_lock(lock: OwnedFd) -> io::Result<Self> {
        let lock = File::from(lock);
        lock.try_lock()?;
        let held = Self { lock };
        if let Err(error) = held.write_pid() {
            // The pid is only informative. The previous process has ended by now, so a full disk must not end this one,
            // too.
            tracing::warn!(%error, "cannot write this process's number to a lock file");
        }
        Ok(held)
    }

    /// Writes this process's pid into its lock through the descriptor: the path may lead elsewhere by now.
    fn write_pid(&self) -> io::Result<()> {
        self.lock.set_len(0)?;
        std::os::unix::fs::FileExt::write_all_at(&self.lock, std::process::id().to_string().as_bytes(), 0)
    }
}

/// Creates a directory if needed, and locks it for this process.
///
/// # Errors
/// When another agent holds it, or it cannot be created or written.
pub fn hold_directory(path: &Path) -> Result<HeldDirectory, PathError> {
    make_directory(path, 0o700)?;
    acquire_lock(&path.join("agent.lock"), path)
}

/// Opens a log file for reading and appending. It and its directory are created if needed, for this user alone. A file of more than
/// `largest` bytes is first renamed to `PATH.1`, in place of the one that has that name.
///
/// # Errors
/// When the directory belongs to another user, something other than a file of this user has the name, or a system call fails.
pub fn open_log_file(path: &Path, largest: u64) -> Result<File, PathError> {
    make_directory(path.parent().unwrap_or(Path::new("/")), 0o700)?;
    let open = || {
        open_own_file(path, File::options().append(true))?
            .ok_or_else(|| PathError::NotALog { path: path.to_owned() })
    };
    let file = open()?;
    if file.metadata().map_err(io_error_at(path))?.len() <= largest {
        return Ok(file);
    }
    std::fs::rename(path, path.with_added_extension("1")).map_err(io_error_at(path))?;
    open()
}

/// Takes a lock file, and writes this process's pid to it.
fn acquire_lock(lock: &Path, held: &Path) -> Result<HeldDirectory, PathError> {
    let mut file = open_lock(lock)?;
    match file.try_lock() {
        Ok(()) => {
            let held = HeldDirectory { lock: file };
            held.write_pid().map_err(io_error_at(lock))?;
            Ok(held)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.read_to_string(&mut text).ok();
            Err(PathError::InUse {
                path: held.to_owned(),
                holder: read.and_then(|_| text.trim().parse().ok()),
            })
        }
        Err(TryLockError::Error(error)) => Err(io_error_at(lock)(error)),
    }
}

fn open_lock(lock: &Path) -> Result<File, PathError> {
    open_own_file(lock, File::options().write(true))?
        .ok_or_else(|| PathError::NotALock { path: lock.to_owned() })
}

/// Opens or creates a file that is written to. In a directory with a sticky bit other users can create files, so `None` is returned
/// for links, FIFOs, and files with another owner or several names: their targets would be written to.
fn open_own_file(path: &Path, options: &mut OpenOptions) -> Result<Option<File>, PathError> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match options.read(true).create(true).mode(0o600).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
        Err(error) => return Err(io_error_at(path)(error)),
    };
    let found = file.metadata().map_err(io_error_at(path))?;
    let is_own = found.is_file() && found.nlink() == 1 && is_trusted(found.uid());
    Ok(is_own.then_some(file))
}

/// Whether a user can do whatever this process can.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// Creates a directory with a mode unless it exists, and world-accessible parents. A directory that other users own or
/// can write to is rejected: they could replace the socket. With a sticky bit, as in `/tmp`, they cannot.
fn make_directory(path: &Path, mode: u32) -> Result<(), PathError> {
    if !path.exists() {
        let parent = path.parent().unwrap_or(Path::new("/"));
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(io_error_at(path))?;
        match std::fs::DirBuilder::new().mode(mode).create(path) {
            // Another agent that starts at the same time may have created it.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error_at(path)(error));
            }
            _ => {}
        }
    }
    let metadata = std::fs::metadata(path).map_err(io_error_at(path))?;
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if !is_trusted(uid) {
        return Err(PathError::Stranger { path: path.to_owned(), uid });
    }
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        return Err(PathError::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

/// A listening socket at a path, which is removed when this value is dropped.
#[derive(Debug)]
pub struct BoundSocket {
    path: PathBuf,
    identity: (u64, u64),
    lock: HeldDirectory,
    /// Whether the path now belongs to the process that has taken over the lock.
    left: bool,
}

impl BoundSocket {
    /// The lock of the path, for the process that takes over; see [`HeldDirectory::share_lock`].
    ///
    /// # Errors
    /// When descriptors ran out.
    pub fn share_lock(&self) -> io::Result<OwnedFd> {
        self.lock.share_lock()
    }

    /// Leaves the path and its lock to the process that has taken over.
    pub fn leave_to_successor(mut self) {
        self.left = true;
    }

    /// The socket at a path whose lock the previous process shared.
    ///
    /// # Errors
    /// When the lock is not one.
    pub fn from_shared_lock(path: &Path, lock: OwnedFd) -> io::Result<Self> {
        // The path may be invisible from another container; then there is nothing to remove later.
        let identity = std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
        let lock = HeldDirectory::from_shared_lock(lock)?;
        Ok(Self {
            path: path.to_owned(),
            left: identity.is_err(),
            identity: identity.unwrap_or_default(),
            lock,
        })
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // Do not remove the socket of another process that has taken the path since.
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the admin socket");
        }
    }
}

/// Listens at a path with these permissions, after removing a dead agent's socket there.
///
/// # Errors
/// When another agent listens there, something else is in the way, or the directory is not ours.
pub fn listen_for_streams(path: &Path, mode: u32) -> Result<(UnixListener, BoundSocket), PathError> {
    listen_as(path, mode, |path| UnixListener::bind(path))
}

/// Like [`listen_for_streams`], for a socket that preserves message boundaries (SEQPACKET).
///
/// # Errors
/// As [`listen_for_streams`].
pub fn listen_for_messages(path: &Path, mode: u32) -> Result<(UnixListener, BoundSocket), PathError> {
    listen_as(path, mode, |path| {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.bind(&ShortPath::from_path(path)?.socket_address()?)?;
        socket.listen(BACKLOG)?;
        Ok(OwnedFd::from(socket).into())
    })
}

/// A path that is short enough for a Unix socket address, less than 108 bytes: a longer one is replaced by a path
/// through a descriptor of its directory.
#[derive(Debug)]
pub(super) struct ShortPath {
    path: PathBuf,
    _directory: Option<File>,
}

impl ShortPath {
    pub(super) fn from_path(path: &Path) -> io::Result<Self> {
        let parts = (path.parent(), path.file_name());
        let (true, (Some(directory), Some(name))) = (path.as_os_str().len() >= 108, parts) else {
            return Ok(Self { path: path.to_owned(), _directory: None });
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let directory = File::options().read(true).custom_flags(flags).open(directory)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    pub(super) fn socket_address(&self) -> io::Result<SockAddr> {
        SockAddr::unix(&self.path)
    }
}

fn listen_as(
    path: &Path,
    mode: u32,
    bind: impl FnOnce(&Path) -> io::Result<UnixListener>,
) -> Result<(UnixListener, BoundSocket), PathError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    make_directory(directory, 0o755)?;
    let lock = acquire_lock(&path.with_added_extension("lock"), path)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(PathError::InTheWay { path: path.to_owned() });
        }
        // The lock tells about agents that know of it; a socket that answers is alive, whichever program made it.
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(PathError::InUse { path: path.to_owned(), holder: None });
        }
        Ok(_) => std::fs::remove_file(path).map_err(io_error_at(path))?,
        Err(_) => {}
    }
    let listener = bind(path).map_err(io_error_at(path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io_error_at(path))?;
    listener.set_nonblocking(true).map_err(io_error_at(path))?;
    let metadata = std::fs::symlink_metadata(path).map_err(io_error_at(path))?;
    let identity = (metadata.dev(), metadata.ino());
    Ok((listener, BoundSocket { path: path.to_owned(), identity, lock, left: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_second_agent_at_the_same_path_is_refused_by_name() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let (_listener, _bound) = listen_for_streams(&path, 0o660).unwrap();
        let error = listen_for_streams(&path, 0o660).unwrap_err().to_string();
        assert_eq!(error, format!("{} belongs to another agent, pid {}", path.display(), std::process::id()));
    }

    #[test]
    fn what_a_dead_agent_left_is_taken_over() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, bound) = once_unlocked(|| listen_for_streams(&path, 0o600)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists(), "the name goes with the agent");
    }

    #[test]
    fn a_living_socket_of_another_process_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let _theirs = UnixListener::bind(&path).unwrap();
        assert!(matches!(listen_for_streams(&path, 0o660), Err(PathError::InUse { holder: None, .. })));
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(listen_for_streams(&path, 0o660), Err(PathError::InTheWay { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_lock_that_is_a_link_or_a_fifo_is_refused_and_its_target_unchanged() {
        let directory = directory();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("target"), "precious").unwrap();
        std::os::unix::fs::symlink(at("target"), at("a.sock.lock")).unwrap();
        std::os::unix::fs::symlink(at("target"), at("agent.lock")).unwrap();
        nix::unistd::mkfifo(&at("b.sock.lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(at("other"), "precious").unwrap();
        std::fs::hard_link(at("other"), at("c.sock.lock")).unwrap();
        for name in ["a.sock", "b.sock", "c.sock"] {
            let refused = listen_for_streams(&at(name), 0o660);
            assert!(matches!(refused, Err(PathError::NotALock { .. })), "{name}: {refused:?}");
            assert!(!at(name).exists());
        }
        assert!(matches!(hold_directory(directory.path()), Err(PathError::NotALock { .. })));
        for name in ["target", "other"] {
            assert_eq!(std::fs::read_to_string(at(name)).unwrap(), "precious");
        }
    }

    #[test]
    fn a_log_is_appended_to_and_what_is_no_file_of_this_user_is_left_alone() {
        use std::io::Write as _;
        let directory = directory();
        let at = |name: &str| directory.path().join(name);
        let log = at("state/agent.log");
        for line in ["one\n", "two\n"] {
            open_log_file(&log, 100).unwrap().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
        std::os::unix::fs::symlink(&log, at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::hard_link(&log, at("second name")).unwrap();
        for name in ["link", "fifo", "second name"] {
            let refused = open_log_file(&at(name), 100);
            assert!(matches!(refused, Err(PathError::NotALog { .. })), "{name}: {refused:?}");
        }
    }

    #[test]
    fn a_log_that_is_too_large_is_kept_beside_the_next_one() {
        use std::io::Write as _;
        let directory = directory();
        let log = directory.path().join("agent.log");
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        for (line, now, before) in [
            ("one\n", "one\n", ""),
            ("two\n", "one\ntwo\n", ""),
            ("three\n", "three\n", "one\ntwo\n"),
            ("4\n", "three\n4\n", "one\ntwo\n"),
            ("five\n", "five\n", "three\n4\n"),
        ] {
            open_log_file(&log, 7).unwrap().write_all(line.as_bytes()).unwrap();
            assert_eq!((read("agent.log").as_str(), read("agent.log.1").as_str()), (now, before));
        }
    }

    /// Tries again while a lock that was just released is held: a process that another test starts has it until its exec.
    fn once_unlocked<T>(open: impl Fn() -> Result<T, PathError>) -> Result<T, PathError> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match open() {
                Err(PathError::InUse { .. }) if std::time::Instant::now() < deadline => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                opened => return opened,
            }
        }
    }

    #[test]
    fn a_directory_that_other_users_can_write_to_is_refused_unless_it_is_sticky() {
        let directory = directory();
        let shared = directory.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        for (mode, refused) in [(0o777, true), (0o775, true), (0o1777, false), (0o755, false), (0o700, false)]
        {
            set_mode(&shared, mode);
            let socket = once_unlocked(|| listen_for_streams(&shared.join("a.sock"), 0o660));
            let state = once_unlocked(|| hold_directory(&shared));
            let is_refused = [socket.is_err(), state.is_err()];
            assert_eq!(is_refused, [refused; 2], "{mode:o}: {socket:?} {state:?}");
            if let Err(error) = state {
                assert!(error.to_string().contains("chmod go-w"), "{error}");
            }
        }
    }

    #[test]
    fn state_is_for_this_user_alone_and_the_directory_of_the_socket_can_be_entered() {
        let directory = directory();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        let run = directory.path().join("run");
        let _held = hold_directory(&run.join("state")).unwrap();
        assert_eq!((mode(&run), mode(&run.join("state"))), (0o755, 0o700));
        assert_eq!(mode(&run.join("state/agent.lock")), 0o600);
    }

    #[test]
    fn a_state_directory_has_one_agent_at_a_time() {
        let directory = directory();
        let path = directory.path().join("deep/state");
        let held = hold_directory(&path).unwrap();
        assert!(matches!(hold_directory(&path), Err(PathError::InUse { holder: Some(_), .. })));
        drop(held);
        assert!(once_unlocked(|| hold_directory(&path)).is_ok());
    }
}
