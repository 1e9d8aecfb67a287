//! Control groups, version 2: finding the hierarchy, and the group of a process.
//!
//! A machine may have both versions at once; only version 2 has a single hierarchy, and IDs that BPF programs can read.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nix::sched::{CloneFlags, setns};

/// The inode of the root directory (`kernfs` numbers from one).
const ROOT: u64 = 1;
/// Maximum number of descendant groups that one search visits: a container may create any number of them.
const MAX_GROUPS: usize = 64;
/// Maximum number of directory entries that one search reads; a group has some fifty files.
const MAX_ENTRIES: usize = 8192;

/// Moves this thread, and threads that it starts later, to the node's cgroup namespace, if it is in another one and can
/// see the node's processes: the kernel reports paths of groups relative to the reader's namespace, and those of other
/// containers are invisible from a container's. Returns whether the thread was in another namespace.
///
/// # Errors
/// `PermissionDenied` without `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE`.
pub fn see_those_of_the_node() -> io::Result<bool> {
    // In a container with a pid namespace of its own, this is the container's own first process, in the same namespace.
    let node = File::open("/proc/1/ns/cgroup")?;
    let (theirs, ours) = (node.metadata()?, std::fs::metadata("/proc/self/ns/cgroup")?);
    if theirs.ino() == ours.ino() {
        return Ok(false);
    }
    setns(node, CloneFlags::CLONE_NEWCGROUP)?;
    Ok(true)
}

/// A control group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// The kernel's ID of the group, which is never reused until reboot.
    pub id: u64,
    /// Its depth below the root, which has level 0.
    pub level: u32,
    directory: PathBuf,
}

impl Group {
    /// Whether the group with this ID is this one, or below it.
    #[must_use]
    pub fn contains_id(&self, id: u64) -> bool {
        self.id == id || is_below(&self.directory, id)
    }
}

/// Whether the group with this ID is below a directory. Groups may be removed during the search.
fn is_below(directory: &Path, id: u64) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.metadata().ok()?, entry.path())))
        .any(|(metadata, path)| metadata.is_dir() && (metadata.ino() == id || is_below(&path, id)))
}

/// Whether a group is below another.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Below {
    /// The group is below the other.
    Has,
    /// There are no groups below that one.
    HasNone,
    /// It was not found, but may have been removed or not visited; or the group above is invisible.
    Unknown,
}

/// The hierarchy of the machine.
#[derive(Debug)]
pub struct Hierarchy {
    path: PathBuf,
    root: File,
}

/// Why there is no hierarchy.
#[derive(Debug, thiserror::Error)]
pub enum HierarchyError {
    /// None of the second version is mounted.
    #[error("no cgroup v2 hierarchy is mounted")]
    None,
    /// Only a subtree of the hierarchy is mounted.
    #[error("only a branch of the cgroup v2 hierarchy is mounted; run the agent with the host's cgroups")]
    Branch,
    /// The system does not tell.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file or directory that cannot be read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why a process has no group that distinguishes it from others.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// It is in the root group, where any process may be.
    #[error("its process is in no cgroup v2 of its own")]
    Root,
    /// It is outside this process's cgroup namespace.
    #[error(
        "its cgroup v2 is out of the agent's sight; run the agent with the host's processes, CAP_SYS_ADMIN and CAP_SYS_PTRACE"
    )]
    OutOfSight,
    /// The system does not tell.
    #[error("its cgroup cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl Hierarchy {
    /// Finds where the whole hierarchy is mounted.
    ///
    /// # Errors
    /// When it is not mounted, or only a branch of it is.
    pub fn find() -> Result<Self, HierarchyError> {
        let file = Path::new("/proc/self/mountinfo");
        let unreadable = |source| HierarchyError::Unreadable { path: file.to_owned(), source };
        let mounts = std::fs::read_to_string(file).map_err(unreadable)?;
        let mut error = HierarchyError::None;
        for path in mount_points(&mounts).map(PathBuf::from) {
            match File::open(&path).and_then(|root| Ok((root.metadata()?.ino(), root))) {
                Ok((ROOT, root)) => return Ok(Self { path, root }),
                Ok(_) => error = HierarchyError::Branch,
                Err(source) => error = HierarchyError::Unreadable { path, source },
            }
        }
        Err(error)
    }

    /// The hierarchy, looked up once; `None` if it is not mounted, or only a subtree of it is.
    #[must_use]
    pub fn find_cached() -> Option<&'static Self> {
        static SHARED: LazyLock<Option<Hierarchy>> = LazyLock::new(|| Hierarchy::find().ok());
        SHARED.as_ref()
    }

    /// Whether the group with this ID is below the group with this path, as in `/proc/PID/cgroup`. Visits a bounded
    /// number of groups; in the usual case, without any, it reads one directory's metadata.
    #[must_use]
    pub fn find_below(&self, path: &str, id: u64) -> Below {
        self.find_below_within(path, id, MAX_ENTRIES)
    }

    /// Like [`Hierarchy::find_below`], reading at most this many directory entries.
    fn find_below_within(&self, path: &str, id: u64, mut entries_left: usize) -> Below {
        let mut unvisited = vec![self.path.join(path.trim_start_matches('/'))];
        // The kernel counts a directory, the entry for it in its parent, and its subdirectories.
        match unvisited.last().map(std::fs::metadata) {
            Some(Ok(metadata)) if metadata.nlink() <= 2 => return Below::HasNone,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Below::Unknown,
        }
        for _ in 0..MAX_GROUPS {
            let Some(directory) = unvisited.pop() else { break };
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            for entry in entries.take(entries_left) {
                entries_left -= 1;
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if entry.ino() == id {
                    return Below::Has;
                }
                unvisited.push(entry.path());
            }
        }
        Below::Unknown
    }

    /// The group of a container, found by one of its processes: the process's group or the one above it that is named
    /// after the container, since a container may create groups below its own. If none is, the process's group.
    ///
    /// # Errors
    /// When no group distinguishes the process from others, or the process has ended.
    pub fn group_of(&self, pid: i32, container: &str) -> Result<Group, GroupError> {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let path = group_path(&groups).ok_or(GroupError::Root)?;
        if path.starts_with("/..") {
            return Err(GroupError::OutOfSight);
        }
        let path = container_group_path(path, container);
        let level = path.split('/').filter(|part| !part.is_empty()).count();
        if level == 0 {
            return Err(GroupError::Root);
        }
        let directory = self.path.join(path.trim_start_matches('/'));
        let id = std::fs::metadata(&directory)?.ino();
        Ok(Group { id, level: u32::try_from(level).unwrap_or(u32::MAX), directory })
    }
}

impl AsFd for Hierarchy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The mount points of version 2 hierarchies. The file system type follows a dash after fields that are partly
/// optional.
fn mount_points(mountinfo: &str) -> impl Iterator<Item = &str> {
    mountinfo.lines().filter_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        (system.split(' ').next() == Some("cgroup2")).then(|| mount.split(' ').nth(4)).flatten()
    })
}

/// The path of a process's version 2 group, from the text of `/proc/PID/cgroup`.
fn group_path(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Whether a group is named after a container: by its ID, or in systemd's form.
#[must_use]
pub fn is_named_after(group: &str, container: &str) -> bool {
    let name = group.strip_suffix(".scope").unwrap_or(group);
    name.strip_suffix(container).is_some_and(|engine| engine.is_empty() || engine.ends_with('-'))
}

/// The part of a path up to the group that is named after a container.
#[must_use]
pub fn container_group_path<'p>(path: &'p str, container: &str) -> &'p str {
    let ends = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| at).skip(1).chain([path.len()]);
    let parts = ends.filter_map(|end| path.get(..end));
    let whole = |part: &&str| part.rsplit('/').next().is_some_and(|name| is_named_after(name, container));
    parts.filter(whole).last().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_found_beside_the_first() {
        let mounts = "32 31 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
                      42 31 0:39 / /elsewhere rw shared:1 master:2 - cgroup2 none rw\n\
                      43 31 0:40 / /tmp/cgroup2 rw - tmpfs cgroup2 rw\n";
        assert_eq!(mount_points(mounts).collect::<Vec<_>>(), ["/sys/fs/cgroup/unified", "/elsewhere"]);
    }

    #[test]
    fn a_process_has_one_group_of_the_second_version_or_none() {
        assert_eq!(group_path("9:name=systemd:/\n1:cpu:/x\n0::/a/b\n"), Some("/a/b"));
        assert_eq!(group_path("9:name=systemd:/\n1:cpu:/x\n"), None);
    }

    #[test]
    fn a_container_ends_where_the_group_with_its_name_does() {
        let id = "4f5c";
        for (path, of_container) in [
            ("/docker/4f5c", "/docker/4f5c"),
            ("/docker/4f5c/init.scope", "/docker/4f5c"),
            ("/system.slice/docker-4f5c.scope", "/system.slice/docker-4f5c.scope"),
            ("/machine.slice/libpod-4f5c.scope/container", "/machine.slice/libpod-4f5c.scope"),
            ("/docker/4f5c/docker/4f5c/x", "/docker/4f5c/docker/4f5c"),
            ("/docker/a4f5c/x", "/docker/a4f5c/x"),
            ("/docker/4f5cd/x", "/docker/4f5cd/x"),
            ("/user.slice/session-1.scope", "/user.slice/session-1.scope"),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(container_group_path(path, id), of_container);
        }
    }

    #[test]
    fn a_group_is_found_below_another_by_its_number() {
        let Ok(hierarchy) = Hierarchy::find() else { return };
        let above = format!("tallyport-below-{}", std::process::id());
        let (outer, inner) = (hierarchy.path.join(&above), hierarchy.path.join(&above).join("a/b"));
        if std::fs::create_dir(&outer).is_err() {
            return;
        }
        let path = format!("/{above}");
        let before = hierarchy.find_below(&path, 7);
        std::fs::create_dir_all(&inner).unwrap();
        let id = std::fs::metadata(&inner).unwrap().ino();
        let found = [hierarchy.find_below(&path, id), hierarchy.find_below(&path, 7)];
        for directory in [&inner, inner.parent().unwrap(), &outer] {
            std::fs::remove_dir(directory).unwrap();
        }
        assert_eq!((before, found), (Below::HasNone, [Below::Has, Below::Unknown]));
        assert_eq!(hierarchy.find_below(&path, id), Below::Unknown, "that one is gone, too");
    }

    #[test]
    fn a_search_reads_so_many_entries_however_many_groups_a_container_has() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let hierarchy = Hierarchy { root: File::open(&path).unwrap(), path };
        let made = |n: usize| {
            let group = directory.path().join(format!("container/{n}"));
            std::fs::create_dir_all(&group).unwrap();
            std::fs::metadata(group).unwrap().ino()
        };
        let ids: Vec<u64> = (0..40).map(made).collect();
        let found = |entries: usize| {
            let has = |id: &&u64| hierarchy.find_below_within("container", **id, entries) == Below::Has;
            ids.iter().filter(has).count()
        };
        assert_eq!((found(10), found(40), found(MAX_ENTRIES)), (10, 40, 40));
    }

    #[test]
    fn our_own_group_is_what_the_system_says() {
        let Ok(hierarchy) = Hierarchy::find() else { return };
        let pid = i32::try_from(std::process::id()).unwrap();
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = group_path(&groups).unwrap();
        match hierarchy.group_of(pid, "nobody") {
            Ok(group) => assert_eq!(group.level as usize, path.matches('/').count()),
            Err(GroupError::Root) => assert_eq!(path, "/"),
            Err(error) => panic!("{error}"),
        }
        assert!(matches!(hierarchy.group_of(i32::MAX, "nobody"), Err(GroupError::Unreadable(_))));
    }
}
