//! Processes: knowing when a container's ends, and what our own uses.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use super::sys;

/// A process that is watched.
#[derive(Debug)]
pub struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Watches a process, by a handle that never comes to mean another.
    ///
    /// # Errors
    /// `NotFound` where there is no such process.
    pub fn new(pid: i32) -> io::Result<Self> {
        // Zero and below mean groups to other calls; here they would be a mistake that opens nothing.
        if pid <= 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self(sys::readable(sys::pidfd_open(pid)?)?))
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        // An error means that the descriptor is no longer watched, which it is until `self` is dropped.
        let _ready = self.0.readable().await;
    }
}

/// What this process uses.
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

/// What this process uses now; zeros where the system does not say.
#[must_use]
pub fn usage() -> Usage {
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
        // Reading the directory opens one more.
        open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1)),
        max_fds: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft),
    }
}
