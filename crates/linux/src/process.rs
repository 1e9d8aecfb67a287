//! Processes: watching for the end of a container's process, and this process's own resource usage.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::FsType;
use tokio::io::unix::AsyncFd;

use super::sys;

/// A process whose end is watched.
#[derive(Debug)]
pub struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Watches a process by pidfd, which never refers to another process.
    ///
    /// # Errors
    /// `NotFound` if there is no such process.
    pub fn new(pid: i32) -> io::Result<Self> {
        // Pids of zero and below denote process groups in other calls; here they are invalid.
        if pid <= 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self(sys::register_readable(sys::pidfd_open(pid)?)?))
    }

    /// Watches the process of a pidfd.
    ///
    /// # Errors
    /// When the runtime's poller cannot take it.
    pub fn from_handle(handle: OwnedFd) -> io::Result<Self> {
        Ok(Self(sys::register_readable(handle)?))
    }

    /// The pidfd of the process, which stays valid after the process has ended.
    #[must_use]
    pub fn process_handle(&self) -> &OwnedFd {
        self.0.get_ref()
    }

    /// Waits until it has ended.
    pub async fn wait_for_end(&self) {
        // An error means that the descriptor is no longer watched, which it is until `self` is dropped.
        let _ready = self.0.readable().await;
    }

    /// Whether it has ended. Until then its pid cannot refer to another process.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        has_ended(self.0.get_ref())
    }

    /// The ID of its cgroup, if the kernel reports it; see [`sys::cgroup_of`].
    #[must_use]
    pub fn cgroup_id(&self) -> Option<u64> {
        sys::cgroup_of(self.0.get_ref())
    }
}

/// Whether the process of a pidfd has ended.
pub(super) fn has_ended(process: impl AsFd) -> bool {
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// The pid of a pidfd's process; 0 if it has none here, for example if it is in a sibling pid namespace.
///
/// # Errors
/// When the descriptor is not a pidfd, or its process has ended.
pub fn number_of(handle: &OwnedFd) -> io::Result<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    match pid {
        Some(pid) if pid >= 0 => Ok(pid),
        Some(_) => Err(io::ErrorKind::NotFound.into()),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a handle of a process")),
    }
}

/// Whether two pidfds refer to the same process. Before Linux 6.9 pidfds cannot be told apart, and this is always true.
#[must_use]
pub fn are_one(one: &OwnedFd, other: &OwnedFd) -> bool {
    let inode = |handle: &OwnedFd| nix::sys::stat::fstat(handle).map(|stat| stat.st_ino);
    matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one == other)
}

/// A number for a pidfd's process that is not reused until reboot. It stays the same after the process has ended.
/// `None` before Linux 6.9.
pub(super) fn number_since_boot(handle: &OwnedFd) -> Option<u64> {
    /// The file system of pidfds, with one inode per process (`linux/magic.h`). Older kernels use one inode for all.
    const PIDFS: FsType = FsType(0x5049_4446);
    let system = nix::sys::statfs::fstatfs(handle).ok()?;
    let of_its_own = system.filesystem_type() == PIDFS;
    of_its_own.then(|| nix::sys::stat::fstat(handle).ok()).flatten().map(|stat| stat.st_ino)
}

/// The start time of a process, in clock ticks since boot. It distinguishes processes that have used the same pid.
///
/// # Errors
/// `NotFound` where there is no such process.
pub fn start_ticks(pid: i32) -> io::Result<u64> {
    read_stat_field(&pid.to_string(), 19)
}

/// The pid of a process's parent, or of the process that adopted it; 0 if that has no pid here.
///
/// # Errors
/// `NotFound` where there is no such process.
pub fn parent_pid(pid: i32) -> io::Result<i32> {
    read_stat_field(&pid.to_string(), 1)
}

/// Whether a process, or a thread (`PID/task/TID`), is exiting or has ended. It leaves its namespaces some time before
/// its pidfd becomes readable. A process whose main thread has ended looks the same while its other threads run.
///
/// # Errors
/// `NotFound` where there is no such process.
pub(super) fn is_ending(process: &str) -> io::Result<bool> {
    /// `PF_EXITING` of `linux/sched.h`.
    const EXITING: u32 = 4;
    Ok(read_stat_field::<u32>(process, 6)? & EXITING != 0)
}

/// A field of `/proc/PID/stat`, numbered from the first one after the name.
fn read_stat_field<T: std::str::FromStr>(process: &str, field: usize) -> io::Result<T> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name is in parentheses and may itself contain parentheses and spaces.
    let (_, fields) = stat.rsplit_once(')').ok_or(io::ErrorKind::InvalidData)?;
    let value = fields.split_whitespace().nth(field).and_then(|value| value.parse().ok());
    value.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Converts the result of [`start_ticks`] to time since boot; exact to one tick, which is usually 10 ms.
#[must_use]
pub fn since_boot(ticks: u64) -> Duration {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    let per_second = per_second.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0);
    Duration::from_millis(ticks.saturating_mul(1000) / per_second.unwrap_or(100))
}

/// Resource usage of this process.
#[derive(Copy, Clone, Debug, Default)]
pub struct Usage {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// Bytes of resident memory.
    pub resident: u64,
    /// Open file descriptors.
    pub open_fds: usize,
    /// Most file descriptors it may have open.
    pub max_fds: u64,
}

/// The limit of open descriptors of this process, and an upper bound on how many are left: a new descriptor gets the
/// lowest free number, so all numbers below it are taken. Zero if none can be opened.
#[must_use]
pub fn descriptors_left() -> (u64, u64) {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    use nix::sys::resource::{Resource, getrlimit};
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let lowest = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC);
    let lowest = lowest.ok().and_then(|lowest| u64::try_from(lowest.as_raw_fd()).ok());
    (most, lowest.map_or(0, |lowest| most.saturating_sub(lowest)))
}

/// The current resource usage of this process; zero for values that the system does not report.
#[must_use]
pub fn own_usage() -> Usage {
    use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
    let cpu = getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
        let span = |time: nix::sys::time::TimeVal| {
            let micros = time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_usec());
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        };
        span(usage.user_time()) + span(usage.system_time())
    });
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    let page = page.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096);
    Usage {
        cpu,
        resident: pages * page,
        // Reading the directory itself opens one more.
        open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1)),
        max_fds: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_process_starts_when_it_is_started() {
        let before = clock::since_boot();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = since_boot(start_ticks(pid).unwrap());
        let tick = Duration::from_millis(20);
        assert!(started + tick >= before && started <= clock::since_boot() + tick, "{started:?} {before:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(start_ticks(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_handle_says_which_process_it_is_of_and_nothing_else_does() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let handle = sys::pidfd_open(pid).unwrap();
        assert_eq!(number_of(&handle).unwrap(), pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(number_of(&handle).unwrap_err().kind(), io::ErrorKind::NotFound);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(number_of(&file.into()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn an_end_is_known_before_the_process_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let watched = Watched::new(child.id().try_into().unwrap()).unwrap();
        assert!(!watched.has_ended());
        child.kill().unwrap();
        watched.wait_for_end().await;
        assert!(watched.has_ended());
        child.wait().unwrap();
    }
}
