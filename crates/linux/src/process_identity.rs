//! Determines which processes belong to a container, by properties that they cannot choose: cgroup and mount namespace.
//!
//! A process of a container is in its cgroup or below, however it got there: by being started, by `exec`, by a fork. A
//! container without a cgroup of its own, as rootless ones can be, is recognised by its mount namespace. Only an administrator of
//! the node can enter either from outside. `docs/adr/0019-unix-sockets.md` has the reasons.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use serde::{Deserialize, Serialize};

use super::cgroup::{Below, Hierarchy};
use super::{process, sys};

/// Maximum number of threads to check if a process's main thread reveals nothing.
const THREADS: usize = 16;

/// The verdict on a sender.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SenderVerdict {
    /// It belongs to the container.
    Member,
    /// It does not.
    Foreign,
    /// It had ended, or was ending, before it could be examined, and its container can no longer be determined. The
    /// kernel remembers the cgroup of such a process from 6.16 on, and never the mount namespace, so this is common
    /// among short-lived processes of containers without a cgroup of their own.
    Ended,
}

/// Properties that all processes of a container have, and no other process has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ProcessIdentity {
    pid: i32,
    /// The number of its first process that is unique since boot, if the kernel has one.
    first: Option<u64>,
    /// Hierarchy and path of its cgroups, if they are its own.
    cgroups: Vec<Cgroup>,
    /// Inode of its version 2 cgroup, if that is its own.
    cgroup: Option<u64>,
    /// Its mount namespace, if that is its own.
    mounts: Option<Inode>,
}

/// A cgroup: the controllers of its hierarchy, nothing for version 2, and its path there.
type Cgroup = (String, String);
type Inode = (u64, u64);

impl ProcessIdentity {
    /// The identity of the processes of the container whose first process this is. `handle` is a pidfd of it. What the process
    /// shares with its parent or with this program, neither of which is in the container, is not the container's own.
    ///
    /// # Errors
    /// When there is no such process, or it is ending.
    pub fn from_process(pid: i32, handle: Option<&OwnedFd>) -> io::Result<Self> {
        let mut cgroups = cgroups_of(&pid.to_string())?;
        let mut mounts = mounts_of(&pid.to_string()).ok();
        let parent = process::parent_pid(pid)?.to_string();
        for outsider in ["self", &parent] {
            let theirs = cgroups_of(outsider).unwrap_or_default();
            cgroups.retain(|own| !theirs.iter().any(|theirs| is_within(theirs, own)));
            mounts = mounts.filter(|own| mounts_of(outsider).ok().as_ref() != Some(own));
        }
        cgroups.retain(|(_, path)| path != "/");
        // An ending process may have lost its distinguishing properties already; any process would then be accepted.
        if process::is_ending(&pid.to_string())? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let cgroup = handle
            .and_then(sys::cgroup_of)
            .filter(|_| cgroups.iter().any(|(hierarchy, _)| hierarchy.is_empty()));
        Ok(Self { pid, first: handle.and_then(process::number_since_boot), cgroups, cgroup, mounts })
    }

    /// The identity of all processes in the same cgroups as `process`. For tests, including those of other crates.
    ///
    /// # Errors
    /// When the process's cgroups cannot be read.
    #[doc(hidden)]
    pub fn with_cgroups_of(process: &str) -> io::Result<Self> {
        Ok(Self { cgroups: cgroups_of(process)?, ..Self::default() })
    }

    /// Whether anything distinguishes its processes from others.
    #[must_use]
    pub fn is_told_apart(&self) -> bool {
        !self.cgroups.is_empty() || self.mounts.is_some()
    }

    /// Whether a process belongs to the container. `handle` is a pidfd of the same process, in case its pid has been
    /// reused since.
    #[must_use]
    pub fn judge_process(&self, pid: i32, handle: Option<&OwnedFd>) -> SenderVerdict {
        self.judge_within(pid, handle, &mut { usize::MAX })
    }

    /// Like [`Self::judge_process`], with at most `searches` searches for the cgroups of ended processes, each of which
    /// reads directories that the container may have made large. Searches used are subtracted from `searches`; without
    /// one left, the verdict is [`SenderVerdict::Ended`].
    #[must_use]
    pub fn judge_within(&self, pid: i32, handle: Option<&OwnedFd>, searches: &mut usize) -> SenderVerdict {
        if !self.is_told_apart() {
            return SenderVerdict::Member;
        }
        let Some(handle) = handle else { return self.look_at(pid) };
        if process::has_ended(handle) {
            return self.judge_ended(handle, searches);
        }
        match self.look_at(pid) {
            SenderVerdict::Ended => self.judge_ended(handle, searches),
            // If it has ended meanwhile, the data read may belong to another process.
            _ if process::has_ended(handle) => self.judge_ended(handle, searches),
            seen => seen,
        }
    }

    /// The verdict on a process that has ended or is ending, from what the kernel remembers about it. If that is not
    /// conclusive, the process is not foreign but unknown.
    fn judge_ended(&self, handle: &OwnedFd, searches: &mut usize) -> SenderVerdict {
        if self.first.is_some() && self.first == process::number_since_boot(handle) {
            return SenderVerdict::Member;
        }
        match (self.cgroup, sys::cgroup_of(handle)) {
            (Some(own), Some(its)) if own == its => SenderVerdict::Member,
            (Some(_), Some(_)) if *searches == 0 => SenderVerdict::Ended,
            (Some(_), Some(its)) => match self.find_below(its, searches) {
                Below::Has => SenderVerdict::Member,
                Below::HasNone => SenderVerdict::Foreign,
                Below::Unknown => SenderVerdict::Ended,
            },
            _ => SenderVerdict::Ended,
        }
    }

    /// Whether the cgroup of version 2 with this number is below the container's. Takes one search.
    fn find_below(&self, id: u64, searches: &mut usize) -> Below {
        *searches = searches.saturating_sub(1);
        let own = self.cgroups.iter().find(|(hierarchy, _)| hierarchy.is_empty());
        let found =
            Hierarchy::find_cached().zip(own).map(|(hierarchy, (_, path))| hierarchy.find_below(path, id));
        found.unwrap_or(Below::Unknown)
    }

    fn look_at(&self, pid: i32) -> SenderVerdict {
        if pid == self.pid {
            return SenderVerdict::Member;
        }
        let process = pid.to_string();
        match self.look_into(&process) {
            // A process outlives its main thread, but that thread no longer has namespaces.
            SenderVerdict::Ended => self.look_into_threads(&process),
            verdict => verdict,
        }
    }

    /// The verdict from `/proc` on a process, or on a thread (`PID/task/TID`).
    fn look_into(&self, process: &str) -> SenderVerdict {
        let Ok(its) = cgroups_of(process) else { return SenderVerdict::Ended };
        let in_mounts = || {
            let its = self.mounts.and_then(|_| mounts_of(process).ok());
            its.is_some() && its == self.mounts
        };
        if its.iter().any(|its| self.contains_cgroup(its)) || in_mounts() {
            return SenderVerdict::Member;
        }
        // An exiting process loses its mount namespace and its version 1 cgroups some time before its pidfd reports the
        // end. Checked last: if it is not exiting even now, the data read above is valid.
        match process::is_ending(process) {
            Ok(false) => SenderVerdict::Foreign,
            Ok(true) | Err(_) => SenderVerdict::Ended,
        }
    }

    fn look_into_threads(&self, process: &str) -> SenderVerdict {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let threads = threads.filter_map(|thread| thread.file_name().into_string().ok());
        threads
            .take(THREADS)
            .map(|thread| self.look_into(&format!("{process}/task/{thread}")))
            .find(|verdict| *verdict != SenderVerdict::Ended)
            .unwrap_or(SenderVerdict::Ended)
    }

    /// Whether a cgroup is one of the container's, or below one.
    fn contains_cgroup(&self, cgroup: &Cgroup) -> bool {
        self.cgroups.iter().any(|own| is_within(cgroup, own))
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
    fn a_process_with_nothing_of_its_own_cannot_be_told_from_others() {
        let mut child = sleeper();
        let process_identity = ProcessIdentity::from_process(child.id().try_into().unwrap(), None).unwrap();
        assert!(!process_identity.is_told_apart(), "{process_identity:?}");
        assert_eq!(process_identity.judge_process(1, None), SenderVerdict::Member);
        let handle = sys::pidfd_open(child.id().try_into().unwrap()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            process_identity.judge_process(1, Some(&handle)),
            SenderVerdict::Member,
            "nor can one that has ended"
        );
    }

    /// Waits until a condition holds.
    fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !is_so() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn children(pid: &str) -> Vec<String> {
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect()
    }

    /// Exiting takes a while, and a process leaves its mount namespace early. The first process of a pid namespace is
    /// held at that point by a process of the namespace whose parent is outside and does not wait for it.
    #[test]
    fn a_process_that_is_ending_is_not_taken_for_one_of_another_container() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let start = |program: &str, arguments: &[&str]| {
            std::process::Command::new(program).args(arguments).args(["sleep", "60"]).spawn().unwrap()
        };
        // Nothing is mounted in it. By default unshare changes the root's propagation, which fails where the root is no mount point.
        let mut outside = start("unshare", &["--pid", "--mount", "--propagation", "unchanged", "--fork"]);
        let parent = outside.id().to_string();
        until("it has a child", || !children(&parent).is_empty());
        let first = children(&parent).remove(0);
        let is_sleep =
            |pid: &str| std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"sleep\n");
        until("it sleeps", || is_sleep(&first));
        let mut joined = start("nsenter", &["--target", &first, "--pid"]);
        let parent = joined.id().to_string();
        until("another has joined it", || children(&parent).first().is_some_and(|pid| is_sleep(pid)));
        let signal = |pid: &str, signal| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), signal).unwrap();
        };
        let stopped =
            |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") T ");
        signal(&parent, nix::sys::signal::SIGSTOP);
        until("its parent waits for nothing", || stopped(&parent));
        let pid = first.parse().unwrap();
        let handle = sys::pidfd_open(pid).unwrap();
        let process_identity =
            ProcessIdentity { mounts: Some(mounts_of(&first).unwrap()), ..ProcessIdentity::default() };
        let elsewhere =
            ProcessIdentity { mounts: Some(mounts_of("self").unwrap()), ..ProcessIdentity::default() };
        let living =
            (process_identity.judge_process(pid, Some(&handle)), elsewhere.judge_process(pid, Some(&handle)));
        signal(&first, nix::sys::signal::SIGKILL);
        until("its mount namespace is gone", || mounts_of(&first).is_err());
        let has_ended = process::has_ended(&handle);
        let ending = [Some(&handle), None].map(|handle| {
            (process_identity.judge_process(pid, handle), elsewhere.judge_process(pid, handle))
        });
        let known = ProcessIdentity::from_process(pid, None).map_err(|error| error.kind());
        signal(&parent, nix::sys::signal::SIGCONT);
        joined.wait().unwrap();
        outside.wait().unwrap();
        assert_eq!(living, (SenderVerdict::Member, SenderVerdict::Foreign));
        assert!(!has_ended, "its handle does not say so yet");
        assert_eq!(ending, [(SenderVerdict::Ended, SenderVerdict::Ended); 2]);
        assert_eq!(known, Err(io::ErrorKind::NotFound), "nor is it known whose it was");
    }

    #[test]
    fn the_first_process_of_a_container_is_known_after_its_end() {
        let [mut first, mut other] = [sleeper(), sleeper()];
        let handles = [&first, &other].map(|child| sys::pidfd_open(child.id().try_into().unwrap()).unwrap());
        let [pid, other_pid] = [&first, &other].map(|child| i32::try_from(child.id()).unwrap());
        // Only its mount namespace identifies the container, and the kernel does not remember it for ended processes.
        let process_identity = ProcessIdentity {
            mounts: Some((0, 0)),
            ..ProcessIdentity::from_process(pid, handles.first()).unwrap()
        };
        for child in [&mut first, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let expected =
            if process_identity.first.is_some() { SenderVerdict::Member } else { SenderVerdict::Ended };
        let [of_first, of_other] = &handles;
        assert_eq!(process_identity.judge_process(pid, Some(of_first)), expected);
        assert_eq!(process_identity.judge_process(other_pid, Some(of_other)), SenderVerdict::Ended);
        assert_eq!(
            process_identity.judge_process(pid, Some(of_other)),
            SenderVerdict::Ended,
            "the number may be another's by now"
        );
    }

    #[test]
    fn beyond_its_searches_a_process_that_has_ended_is_only_known_to_have_ended() {
        let [mut first, mut other] = [sleeper(), sleeper()];
        let handle = sys::pidfd_open(other.id().try_into().unwrap()).unwrap();
        let (pid, other_pid) = (first.id().try_into().unwrap(), other.id().try_into().unwrap());
        let own = ProcessIdentity {
            cgroup: Some(u64::MAX),
            mounts: Some((0, 0)),
            ..ProcessIdentity::from_process(pid, None).unwrap()
        };
        for child in [&mut first, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let remembers = sys::cgroup_of(&handle).is_some();
        let mut searches = 2;
        let _either = own.judge_within(other_pid, Some(&handle), &mut searches);
        assert_eq!(searches, if remembers { 1 } else { 2 });
        searches = 0;
        assert_eq!(own.judge_within(other_pid, Some(&handle), &mut searches), SenderVerdict::Ended);
        assert_eq!(searches, 0);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_known_by_the_others() {
        let program = "import ctypes, threading, time\n\
            threading.Thread(target=time.sleep, args=(60,)).start()\n\
            ctypes.CDLL(None).pthread_exit(None)";
        let arguments = ["--mount", "python3", "-c", program];
        let Ok(mut child) = std::process::Command::new("unshare").args(arguments).spawn() else { return };
        let process = child.id().to_string();
        let pid = process.parse().unwrap();
        let handle = sys::pidfd_open(pid).unwrap();
        // Without the privilege to create a mount namespace, or without Python, it ends at once.
        let ends = |of: &str| process::is_ending(of).unwrap_or(true);
        let goes_on = || first_other(&process).filter(|thread| ends(&process) && !ends(thread));
        until("its first thread has ended", || goes_on().is_some() || process::has_ended(&handle));
        let Some(thread) = goes_on() else {
            child.wait().unwrap();
            return;
        };
        let process_identity =
            ProcessIdentity { mounts: Some(mounts_of(&thread).unwrap()), ..ProcessIdentity::default() };
        let elsewhere =
            ProcessIdentity { mounts: Some(mounts_of("self").unwrap()), ..ProcessIdentity::default() };
        let verdicts = [process_identity, elsewhere]
            .map(|process_identity| process_identity.judge_process(pid, Some(&handle)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(verdicts, [SenderVerdict::Member, SenderVerdict::Foreign]);
    }

    /// A thread of a process other than its main thread, as a path below `/proc`.
    fn first_other(process: &str) -> Option<String> {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten();
        let mut names = threads.filter_map(|thread| thread.file_name().into_string().ok());
        Some(format!("{process}/task/{}", names.find(|name| name != process)?))
    }

    #[test]
    fn a_pid_that_is_used_again_is_not_taken_for_the_earlier_process() {
        let me = i32::try_from(std::process::id()).unwrap();
        let process_identity =
            ProcessIdentity { pid: 1, ..ProcessIdentity::with_cgroups_of("self").unwrap() };
        assert_eq!(process_identity.judge_process(me, None), SenderVerdict::Member);
        // The pidfd refers to another process, which has ended: our process has the reused pid.
        let mut child = sleeper();
        let handle = sys::pidfd_open(child.id().try_into().unwrap()).unwrap();
        assert_eq!(process_identity.judge_process(me, Some(&handle)), SenderVerdict::Member);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process_identity.judge_process(me, Some(&handle)), SenderVerdict::Ended);
    }
}
