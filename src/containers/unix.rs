//! Containers' Unix sockets: which containers get one, and the directories that are mounted into them.
//!
//! A directory is mounted instead of the socket alone, so that a running container sees the socket that a restarted
//! agent opens. The directories are in one that only the agent's user may enter; containers access theirs through the
//! mount.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::identity::read_switch;
use crate::model::ContainerId;
use crate::net::unixgram::{Opener, Unixgram};

/// Which containers get a Unix socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum UnixSocketMode {
    /// None.
    Off,
    /// Those that ask for it.
    OptIn,
    /// All except those that opt out.
    All,
}

/// What a container requests.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum UnixWish {
    /// It wants none.
    No,
    /// It wants one in addition to its address.
    Beside,
    /// It wants only a Unix socket, and no address that other processes could send to.
    Only,
}

impl UnixWish {
    /// Parses a label or an annotation; `None` if it is invalid.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        match read_switch(text) {
            Some(true) => Some(Self::Beside),
            Some(false) => Some(Self::No),
            None => text.trim().eq_ignore_ascii_case("only").then_some(Self::Only),
        }
    }
}

/// Settings of Unix sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnixSettings {
    /// Which containers get one.
    pub mode: UnixSocketMode,
    /// Its path inside containers.
    pub path: PathBuf,
    /// The agent's directory, with a subdirectory for each socket.
    pub directory: PathBuf,
    /// Maximum number of datagrams that may wait in one.
    pub queue: usize,
}

impl UnixSettings {
    /// Whether a container gets one, and whether it gets nothing else.
    #[must_use]
    pub fn resolve_wish(&self, wish: Option<UnixWish>) -> UnixWish {
        match self.mode {
            UnixSocketMode::Off => UnixWish::No,
            UnixSocketMode::OptIn => wish.unwrap_or(UnixWish::No),
            UnixSocketMode::All => wish.unwrap_or(UnixWish::Beside),
        }
    }
}

/// A container's Unix socket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ContainerUnixSocket {
    /// The directory of the socket on the node, which is mounted into the container.
    pub source: PathBuf,
    /// The path of the socket inside the container.
    pub path: PathBuf,
    /// Whether the container has no address.
    pub only: bool,
    /// Whether senders are checked to be processes of the container.
    pub checked: bool,
}

impl ContainerUnixSocket {
    /// The path in the container at which the directory is mounted.
    #[must_use]
    pub fn mount_destination(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn socket_path(&self) -> PathBuf {
        self.source.join(self.path.file_name().unwrap_or_default())
    }
}

/// The directories.
#[derive(Debug)]
pub(super) struct Sockets {
    directory: PathBuf,
    queue: usize,
    /// Created for the first socket, since most nodes have none.
    opener: Option<Opener>,
    /// Whether what an earlier life of the agent left, and that was not claimed since, is gone.
    swept: bool,
}

impl Sockets {
    /// Removes the sockets of an earlier life, so that sending to one fails. Their directories stay for
    /// containers that have them mounted.
    pub(super) fn clear(&self) {
        for left in list_directory(&self.directory) {
            for file in list_directory(&left) {
                // It may be gone already, or may not be a file of the agent.
                let _either_way = std::fs::remove_file(file);
            }
        }
    }

    pub(super) fn new(directory: &Path, queue: usize) -> Self {
        Self { directory: directory.to_owned(), queue, opener: None, swept: false }
    }

    /// The directory of a container's socket. It is the same after a restart of the agent, and a hash, because ids can
    /// contain any characters.
    pub(super) fn container_directory(&self, id: &ContainerId) -> PathBuf {
        self.directory.join(format!("{:032x}", xxh3_128(id.as_str().as_bytes())))
    }

    /// Makes a container's directory, which every process that reaches it may enter.
    pub(super) fn create_directory(&self, source: &Path) -> io::Result<()> {
        let with = |path: &Path, mode| {
            std::fs::create_dir_all(path)?;
            if !is_directory(path) {
                let why = "it is a link, which is not followed; remove it";
                return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
            }
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        };
        with(&self.directory, 0o700)?;
        with(source, 0o755)
    }

    pub(super) fn open(&mut self, unix: &ContainerUnixSocket) -> io::Result<Unixgram> {
        let queue = self.queue;
        self.opener.get_or_insert_with(|| Opener::new(queue)).open(&unix.socket_path())
    }

    /// Removes a socket, so that sending to it fails.
    pub(super) fn close(unix: &ContainerUnixSocket) {
        // A reservation that got no process may have a directory but no socket.
        let _either_way = std::fs::remove_file(unix.socket_path());
    }

    /// Removes a socket and its directory.
    pub(super) fn remove(unix: &ContainerUnixSocket) {
        Self::close(unix);
        if let Err(error) = std::fs::remove_dir(&unix.source) {
            tracing::debug!(directory = %unix.source.display(), %error, "cannot remove the directory of a Unix socket");
        }
    }

    /// Whether [`Self::remove_unclaimed`] has been done.
    pub(super) fn is_swept(&self) -> bool {
        self.swept
    }

    /// Removes the directories that belong to no container.
    pub(super) fn remove_unclaimed(&mut self, is_claimed: impl Fn(&Path) -> bool) {
        self.swept = true;
        for left in list_directory(&self.directory).into_iter().filter(|left| !is_claimed(left)) {
            // A directory that is not empty was not created by the agent.
            let _either_way = std::fs::remove_dir(left);
        }
    }
}

/// Whether a path is a directory itself, and not a link to one.
fn is_directory(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// The entries of a directory; empty if it does not exist. Links are not followed, so that no other files are removed.
fn list_directory(directory: &Path) -> Vec<PathBuf> {
    if !is_directory(directory) {
        return Vec::new();
    }
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_and_the_container_decide_about_a_socket() {
        use UnixWish::{Beside, No, Only};
        for (mode, said, expected) in [
            (UnixSocketMode::Off, Some(Only), No),
            (UnixSocketMode::OptIn, None, No),
            (UnixSocketMode::OptIn, Some(Beside), Beside),
            (UnixSocketMode::All, None, Beside),
            (UnixSocketMode::All, Some(No), No),
            (UnixSocketMode::All, Some(Only), Only),
        ] {
            let settings = UnixSettings { mode, path: "/a/b".into(), directory: "/c".into(), queue: 1 };
            assert_eq!(settings.resolve_wish(said), expected, "{mode:?} {said:?}");
        }
        assert_eq!(
            ["Yes", "ONLY", "off", "maybe", ""].map(UnixWish::read),
            [Some(Beside), Some(Only), Some(No), None, None]
        );
    }

    #[test]
    fn whatever_a_container_is_called_its_directory_is_one_of_ours() {
        let sockets = Sockets::new(Path::new("/run/tallyport/state/sockets"), 1);
        let mut places: Vec<_> = ["c1", "c2", "..a", "%2e%2e", "a b", "-", "\u{e9}", &"x".repeat(256)]
            .map(|id| sockets.container_directory(&ContainerId::new(id).unwrap()))
            .into();
        for place in &places {
            assert_eq!(place.parent(), Some(Path::new("/run/tallyport/state/sockets")));
            assert_eq!(place.file_name().unwrap().len(), 32);
        }
        places.sort();
        places.dedup();
        assert_eq!(places.len(), 8);
    }

    #[test]
    fn no_link_in_place_of_a_directory_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let (others, directory) = (root.path().join("others"), root.path().join("sockets"));
        std::fs::create_dir(&others).unwrap();
        std::fs::create_dir(others.join("deep")).unwrap();
        std::fs::write(others.join("deep/file"), "precious").unwrap();
        std::os::unix::fs::symlink(&others, &directory).unwrap();
        let sockets = Sockets::new(&directory, 1);
        let place = sockets.container_directory(&ContainerId::new("c1").unwrap());
        sockets.clear();
        assert!(sockets.create_directory(&place).unwrap_err().to_string().contains("not followed"));
        std::fs::remove_file(&directory).unwrap();
        std::fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink(others.join("deep"), &place).unwrap();
        sockets.clear();
        assert!(sockets.create_directory(&place).is_err());
        assert_eq!(std::fs::read_to_string(others.join("deep/file")).unwrap(), "precious");
    }

    #[test]
    fn what_an_earlier_agent_left_goes_unless_it_is_claimed() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sockets");
        let before = Sockets::new(&directory, 1);
        let places = ["c1", "c2"].map(|id| before.container_directory(&ContainerId::new(id).unwrap()));
        for place in &places {
            before.create_directory(place).unwrap();
            std::fs::write(place.join("dsd.socket"), "").unwrap();
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&places[0])), (0o700, 0o755));
        let mut after = Sockets::new(&directory, 1);
        after.clear();
        assert!(places.iter().all(|place| place.exists() && list_directory(place).is_empty()));
        after.remove_unclaimed(|place| place == places[0]);
        assert_eq!((places[0].exists(), places[1].exists(), after.is_swept()), (true, false, true));
    }
}
