//! The admin socket's path: taken over from a dead agent, never from a living one.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt as _, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that may wait.
const BACKLOG: i32 = 128;

/// Why a path could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Another agent is alive there.
    #[error("{} belongs to another agent{}", path.display(), holder.map_or(String::new(), |pid| format!(", pid {pid}")))]
    InUse {
        /// The path.
        path: PathBuf,
        /// The other agent's process, where it said so.
        holder: Option<i32>,
    },
    /// Something that is not a socket is in the way.
    #[error("{} is not a socket, so it is left alone; remove it or set another admin.socket", path.display())]
    InTheWay {
        /// The path.
        path: PathBuf,
    },
    /// The directory belongs to somebody who could put another socket in its place.
    #[error("{} belongs to user {uid}, who could replace what is in it", path.display())]
    Stranger {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The system said no.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> PathError {
    let path = path.to_owned();
    move |source| PathError::Io { path: path.clone(), source }
}

/// A directory that is this agent's alone while this value lives.
#[derive(Debug)]
pub struct HeldDirectory {
    /// Closing it gives up the lock, unless another process shares it.
    lock: File,
}

impl HeldDirectory {
    /// The lock, for the process that takes over.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }

    /// The lock that the process before shared.
    ///
    /// # Errors
    /// When it is not one, or somebody else has it.
    pub fn taken(lock: OwnedFd) -> io::Result<Self> {
        let lock = File::from(lock);
        lock.try_lock()?;
        let pid = std::process::id().to_string();
        let written =
            lock.set_len(0).and_then(|()| std::os::unix::fs::FileExt::write_all_at(&lock, pid.as_bytes(), 0));
        if let Err(error) = written {
            // The number is for people. The process before has ended by now, so a full disk must not end this one, too.
            tracing::warn!(%error, "cannot write this process's number to a lock file");
        }
        Ok(Self { lock })
    }
}

/// Makes a directory if need be and takes it for this process alone.
///
/// # Errors
/// When another agent has it, or it cannot be made or written.
pub fn hold_directory(path: &Path) -> Result<HeldDirectory, PathError> {
    make_directory(path)?;
    hold(&path.join("agent.lock"), path)
}

/// Takes a lock file, and writes in it who has it.
fn hold(lock: &Path, held: &Path) -> Result<HeldDirectory, PathError> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).truncate(false).read(true).write(true).open(lock).map_err(at(lock))?;
    match file.try_lock() {
        Ok(()) => {
            std::fs::write(lock, std::process::id().to_string()).map_err(at(lock))?;
            Ok(HeldDirectory { lock: file })
        }
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(lock).ok().and_then(|text| text.trim().parse().ok());
            Err(PathError::InUse { path: held.to_owned(), holder })
        }
        Err(TryLockError::Error(error)) => Err(at(lock)(error)),
    }
}

/// Makes a directory for this user alone, unless there is one. One that others own or may write to is refused: they
/// could put another socket where ours is.
fn make_directory(path: &Path) -> Result<(), PathError> {
    if !path.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(at(path))?;
    }
    let metadata = std::fs::metadata(path).map_err(at(path))?;
    let (uid, me) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if uid != me && uid != 0 {
        return Err(PathError::Stranger { path: path.to_owned(), uid });
    }
    Ok(())
}

/// A listening socket at a path; its name goes when this value does.
#[derive(Debug)]
pub struct BoundSocket {
    path: PathBuf,
    identity: (u64, u64),
    lock: HeldDirectory,
    /// Whether the name is the other process's, to which the lock has gone.
    left: bool,
}

impl BoundSocket {
    /// The lock of the path, for the process that takes over; see [`HeldDirectory::share`].
    ///
    /// # Errors
    /// When descriptors ran out.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.lock.share()
    }

    /// Leaves the name and its lock to the process that has taken over.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// The socket at a path whose lock the process before shared.
    ///
    /// # Errors
    /// When the lock is not one.
    pub fn taken(path: &Path, lock: OwnedFd) -> io::Result<Self> {
        // Another container may not see the path; then there is no name to remove later.
        let identity = std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
        let lock = HeldDirectory::taken(lock)?;
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
        // Not the socket of another process that has taken the path since.
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the admin socket");
        }
    }
}

/// Listens at a path with these permissions. What a dead agent left there is removed first.
///
/// # Errors
/// When another agent listens there, something else is in the way, or the directory is not ours.
pub fn listen(path: &Path, mode: u32) -> Result<(UnixListener, BoundSocket), PathError> {
    listen_as(path, mode, |path| UnixListener::bind(path))
}

/// The same for a socket that keeps messages apart (SEQPACKET).
///
/// # Errors
/// As [`listen`].
pub fn listen_for_messages(path: &Path, mode: u32) -> Result<(UnixListener, BoundSocket), PathError> {
    listen_as(path, mode, |path| {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.bind(&Short::of(path)?.address()?)?;
        socket.listen(BACKLOG)?;
        Ok(OwnedFd::from(socket).into())
    })
}

/// A socket's path that is short enough for the kernel, which knows none of 108 bytes or more: a longer one is named by a handle
/// of its directory.
#[derive(Debug)]
pub(super) struct Short {
    path: PathBuf,
    _directory: Option<File>,
}

impl Short {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let parts = (path.parent(), path.file_name());
        let (true, (Some(directory), Some(name))) = (path.as_os_str().len() >= 108, parts) else {
            return Ok(Self { path: path.to_owned(), _directory: None });
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let directory = File::options().read(true).custom_flags(flags).open(directory)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    pub(super) fn address(&self) -> io::Result<SockAddr> {
        SockAddr::unix(&self.path)
    }
}

fn listen_as(
    path: &Path,
    mode: u32,
    bind: impl FnOnce(&Path) -> io::Result<UnixListener>,
) -> Result<(UnixListener, BoundSocket), PathError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    make_directory(directory)?;
    let lock = hold(&path.with_added_extension("lock"), path)?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
            return Err(PathError::InTheWay { path: path.to_owned() });
        }
        // The lock tells about agents that know of it; a socket that answers is alive whoever made it.
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(PathError::InUse { path: path.to_owned(), holder: None });
        }
        Ok(_) => std::fs::remove_file(path).map_err(at(path))?,
        Err(_) => {}
    }
    let listener = bind(path).map_err(at(path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(at(path))?;
    listener.set_nonblocking(true).map_err(at(path))?;
    let metadata = std::fs::symlink_metadata(path).map_err(at(path))?;
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
        let (_listener, _bound) = listen(&path, 0o660).unwrap();
        let error = listen(&path, 0o660).unwrap_err().to_string();
        assert_eq!(error, format!("{} belongs to another agent, pid {}", path.display(), std::process::id()));
    }

    #[test]
    fn what_a_dead_agent_left_is_taken_over() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_listener, bound) = listen(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists(), "the name goes with the agent");
    }

    #[test]
    fn a_living_socket_of_somebody_else_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let _theirs = UnixListener::bind(&path).unwrap();
        assert!(matches!(listen(&path, 0o660), Err(PathError::InUse { holder: None, .. })));
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path, 0o660), Err(PathError::InTheWay { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_state_directory_has_one_agent_at_a_time() {
        let directory = directory();
        let path = directory.path().join("deep/state");
        let held = hold_directory(&path).unwrap();
        assert!(matches!(hold_directory(&path), Err(PathError::InUse { holder: Some(_), .. })));
        drop(held);
        assert!(hold_directory(&path).is_ok());
    }
}
