//! Reads and creates the files that the agent depends on, and rejects other kinds of files in their place.
//!
//! Opening a FIFO blocks until another process opens it, too: that would block a start, a reload, or in the wrapper
//! every container's start. A device may have no end. Writing to a link would overwrite its target.
//!
//! `/run` and `/var/run` are one directory on nearly every node. Container runtimes use either name, and an image without a base
//! system has only one of them. A path that is right on the node may not exist for an agent in a container, so it is tried under
//! the other name, too.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, TMPFS_MAGIC};

/// `RAMFS_MAGIC` of `linux/magic.h`.
const RAMFS: FsType = FsType(0x8584_58f6);

/// Whether what is below a path is in memory, so that it does not survive a reboot.
///
/// # Errors
/// When the path is not there, or its file system cannot be found out.
pub fn is_volatile(path: &Path) -> io::Result<bool> {
    let kind = nix::sys::statfs::statfs(path)?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS)
}

/// Opens a regular file for reading. `/dev/null` counts as an empty file, which is how a file is disabled. Links are
/// followed, because mounted configuration consists of them.
///
/// # Errors
/// When it cannot be opened, or is of another kind; never blocks.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(file),
        () if kind.is_char_device() && metadata.rdev() == libc::makedev(1, 3) => return Ok(file),
        () if kind.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}; a regular file is needed")))
}

/// Whether users other than the owner and the group may read or change a file, which a file of secrets must not allow.
#[must_use]
pub fn is_open_to_others(metadata: &std::fs::Metadata) -> bool {
    metadata.mode() & 0o007 != 0
}

/// The whole of a file.
///
/// # Errors
/// As [`open`], and when it cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The whole of a text file.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    io::read_to_string(open(path)?)
}

/// Creates a file that only this user can read. An existing file of this name is removed first, so that a link or a
/// FIFO is not written to. The name is meant for a temporary file that is renamed once it is complete.
///
/// # Errors
/// When it cannot be created.
pub fn create_private_file(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// The two names.
const NAMES: [&str; 2] = ["/run", "/var/run"];

/// The same path below the other name; `None` for paths below neither.
#[must_use]
pub fn other_name(path: &Path) -> Option<PathBuf> {
    let [run, var_run] = NAMES.map(Path::new);
    let below = |from: &Path, to: &Path| path.strip_prefix(from).ok().map(|rest| to.join(rest));
    below(var_run, run).or_else(|| below(run, var_run))
}

/// Opens a path or, if that fails, the same path under the other name.
///
/// # Errors
/// The error of the path as given, since that is the one the user knows.
pub fn open_by_either_name<T>(path: &Path, open: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let refused = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        opened => return opened,
    };
    other_name(path).and_then(|other| open(&other).ok()).ok_or(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_a_socket_and_a_directory_are_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
        for name in ["fifo", "link"] {
            let error = read(&at(name)).unwrap_err().to_string();
            assert_eq!(error, "it is a FIFO; a regular file is needed", "{name}");
        }
        assert_eq!(read(directory.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("a device"));
    }

    #[test]
    fn what_is_in_memory_is_volatile() {
        assert!(!is_volatile(Path::new("/proc")).unwrap());
        assert!(is_volatile(Path::new("/missing")).is_err());
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        // The last mount on a path is the one that is seen.
        let mounted: std::collections::HashMap<_, _> =
            mounts.lines().filter_map(|line| line.split(' ').nth(1).zip(line.split(' ').nth(2))).collect();
        for path in ["/dev/shm", "/run", "/tmp", "/sys"] {
            if let (Some(kind), Ok(volatile)) = (mounted.get(path), is_volatile(Path::new(path))) {
                assert_eq!(volatile, *kind == "tmpfs", "{path} is {kind}");
            }
        }
    }

    #[test]
    fn a_linked_file_and_nothing_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_to_string(&link).unwrap(), "text");
        assert_eq!(read_to_string(Path::new("/dev/null")).unwrap(), "");
    }

    #[test]
    fn a_made_file_replaces_a_link_and_leaves_its_target() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("epoch.new"));
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let file = create_private_file(&link).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    }

    #[test]
    fn each_name_has_the_other() {
        let other = |path: &str| other_name(Path::new(path));
        assert_eq!(other("/var/run/netns/cni-1"), Some("/run/netns/cni-1".into()));
        assert_eq!(other("/run/nri/nri.sock"), Some("/var/run/nri/nri.sock".into()));
        for without in ["/var/running/x", "/runtime", "/proc/1/ns/net", "run/netns/x", ""] {
            assert_eq!(other(without), None, "{without:?}");
        }
    }

    #[test]
    fn the_other_name_is_tried_only_where_the_first_has_nothing() {
        let found = |there: &str, path: &str| {
            let open = |tried: &Path| match tried == Path::new(there) {
                true => Ok(tried.to_owned()),
                false => Err(io::ErrorKind::NotFound.into()),
            };
            open_by_either_name(Path::new(path), open).map_err(|error| error.kind())
        };
        assert_eq!(found("/run/netns/a", "/var/run/netns/a"), Ok("/run/netns/a".into()));
        assert_eq!(found("/var/run/netns/a", "/run/netns/a"), Ok("/var/run/netns/a".into()));
        assert_eq!(found("/run/netns/a", "/run/netns/a"), Ok("/run/netns/a".into()));
        assert_eq!(found("/run/netns/a", "/run/netns/b"), Err(io::ErrorKind::NotFound));
        let refused = open_by_either_name::<()>(Path::new("/run/a"), |path| {
            assert_eq!(path, Path::new("/run/a"), "a refusal is an answer");
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
