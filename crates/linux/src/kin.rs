//! Which processes belong to a container, told by what they cannot choose: their cgroup and their mount namespace.
//!
//! A process of a container is in its cgroup or below, however it got there: by being started, by `exec`, by a fork. Of a
//! container that has no cgroup of its own (a rootless one may not) the mount namespace tells. Nobody outside gets into
//! either without being an administrator of the node. `docs/adr/0019-unix-sockets.md` has the reasons.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

use super::{process, sys};

/// What is known of a sender.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It belongs to the container.
    Kin,
    /// It does not.
    Foreign,
    /// It had ended before it could be looked at. Of such a process the kernel remembers the cgroup from 6.16 on, and never the
    /// mount namespace, so this is what processes of a container without a cgroup of its own often are.
    Ended,
}

/// What all processes of one container have, and no others.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Kin {
    pid: i32,
    /// Hierarchy and path of its cgroups, where they are its own.
    cgroups: Vec<Cgroup>,
    /// Inode of its cgroup of version 2, where that is its own.
    cgroup: Option<u64>,
    /// Its mount namespace, where that is its own.
    mounts: Option<Inode>,
}

/// A cgroup: the controllers of its hierarchy, nothing for version 2, and its path there.
type Cgroup = (String, String);
type Inode = (u64, u64);

impl Kin {
    /// The kin of a process, which is a container's first. `cgroup` is what the kernel says of it by its handle. What the
    /// process shares with its parent or with this program, which are no containers, is not the container's own.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: i32, cgroup: Option<u64>) -> io::Result<Self> {
        let mut cgroups = cgroups_of(&pid.to_string())?;
        let mut mounts = mounts_of(&pid.to_string()).ok();
        let parent = process::parent(pid)?.to_string();
        for outsider in ["self", &parent] {
            let theirs = cgroups_of(outsider).unwrap_or_default();
            cgroups.retain(|own| !theirs.iter().any(|theirs| is_within(theirs, own)));
            mounts = mounts.filter(|own| mounts_of(outsider).ok().as_ref() != Some(own));
        }
        cgroups.retain(|(_, path)| path != "/");
        let cgroup = cgroup.filter(|_| cgroups.iter().any(|(hierarchy, _)| hierarchy.is_empty()));
        Ok(Self { pid, cgroups, cgroup, mounts })
    }

    /// Whether anything tells its processes from others.
    #[must_use]
    pub fn is_told_apart(&self) -> bool {
        !self.cgroups.is_empty() || self.mounts.is_some()
    }

    /// Whether a process belongs to the container. `handle` is the kernel's of the very process that is meant, so that its
    /// number cannot be another's by now.
    #[must_use]
    pub fn judge(&self, pid: i32, handle: Option<&OwnedFd>) -> Verdict {
        let seen = self.look_at(pid);
        match handle {
            Some(handle) if process::has_ended(handle) => match (self.cgroup, sys::cgroup_of(handle)) {
                (Some(own), Some(its)) if own == its => Verdict::Kin,
                (Some(_), Some(_)) => Verdict::Foreign,
                _ => Verdict::Ended,
            },
            _ => seen,
        }
    }

    fn look_at(&self, pid: i32) -> Verdict {
        if pid == self.pid || !self.is_told_apart() {
            return Verdict::Kin;
        }
        let Ok(its) = cgroups_of(&pid.to_string()) else { return Verdict::Ended };
        let in_cgroup = self.cgroups.iter().any(|own| its.iter().any(|its| is_within(its, own)));
        let in_mounts = || {
            let its = self.mounts.and_then(|_| mounts_of(&pid.to_string()).ok());
            its.is_some() && its == self.mounts
        };
        if in_cgroup || in_mounts() { Verdict::Kin } else { Verdict::Foreign }
    }
}

fn cgroups_of(process: &str) -> io::Result<Vec<Cgroup>> {
    Ok(read(&std::fs::read_to_string(format!("/proc/{process}/cgroup"))?))
}

/// `hierarchy number:controllers:path`, one to a line; a path may have `:` in it.
fn read(text: &str) -> Vec<Cgroup> {
    let fields = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1).map(str::to_owned);
        fields.next().zip(fields.next())
    };
    text.lines().filter_map(fields).collect()
}

/// Whether a cgroup is another or below it.
fn is_within((hierarchy, path): &Cgroup, (of, above): &Cgroup) -> bool {
    let below = path.strip_prefix(above.as_str());
    hierarchy == of && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || above == "/")
}

fn mounts_of(process: &str) -> io::Result<Inode> {
    let namespace = std::fs::metadata(format!("/proc/{process}/ns/mnt"))?;
    Ok((namespace.dev(), namespace.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(path: &str) -> Cgroup {
        (String::new(), path.to_owned())
    }

    #[test]
    fn a_cgroup_is_within_itself_and_those_above_and_in_no_sibling() {
        for (path, above, within) in [
            ("/kubepods/pod1/c1", "/kubepods/pod1/c1", true),
            ("/kubepods/pod1/c1/nested", "/kubepods/pod1/c1", true),
            ("/kubepods/pod1/c10", "/kubepods/pod1/c1", false),
            ("/kubepods/pod1", "/kubepods/pod1/c1", false),
            ("/c1", "/", true),
        ] {
            assert_eq!(is_within(&cgroup(path), &cgroup(above)), within, "{path} {above}");
        }
        assert!(!is_within(&("cpu".to_owned(), "/a".to_owned()), &cgroup("/a")), "another hierarchy");
    }

    #[test]
    fn every_hierarchy_is_read() {
        let read = read("4:cpu,cpuacct:/a:b\n0::/c\nnonsense\n");
        assert_eq!(read, [("cpu,cpuacct".to_owned(), "/a:b".to_owned()), cgroup("/c")]);
    }

    fn sleeper() -> std::process::Child {
        std::process::Command::new("sleep").arg("60").spawn().unwrap()
    }

    #[test]
    fn who_has_nothing_of_its_own_cannot_be_told_from_others() {
        let mut child = sleeper();
        let kin = Kin::of(child.id().try_into().unwrap(), None).unwrap();
        assert!(!kin.is_told_apart(), "{kin:?}");
        assert_eq!(kin.judge(1, None), Verdict::Kin);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_number_that_is_used_again_is_not_taken_for_whoever_had_it() {
        let me = i32::try_from(std::process::id()).unwrap();
        let kin = Kin { pid: 1, cgroups: cgroups_of("self").unwrap(), ..Kin::default() };
        assert_eq!(kin.judge(me, None), Verdict::Kin);
        // Its handle means another process, which has ended: the number has come to be ours since.
        let mut child = sleeper();
        let handle = sys::pidfd_open(child.id().try_into().unwrap()).unwrap();
        assert_eq!(kin.judge(me, Some(&handle)), Verdict::Kin);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(kin.judge(me, Some(&handle)), Verdict::Ended);
    }
}
