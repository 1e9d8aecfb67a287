//! What the node and its containers use of it: control groups of both versions, `/proc`, file systems.
//!
//! Read on request and not kept. What the system does not report, or reports for more than the container, is absent.

mod group;

pub use group::{ContainerResources, Cpu, Io, Memory, NetworkCounters, read_container_resources};

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use procfs::net::DeviceStatus;
use procfs::process::{MountInfo, MountInfos, Process};
use procfs::{Current as _, CurrentSI as _, KernelStats, LoadAverage, Meminfo, ProcResult, Uptime};

/// What the node has and uses.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeResources {
    /// Since boot.
    pub uptime: Duration,
    /// Number of processes.
    pub processes: u64,
    /// Processors.
    pub cores: u64,
    /// The load of the last minute, five and fifteen minutes.
    pub load: [f64; 3],
    /// Bytes of memory: all, free, in buffers, in caches.
    pub memory: [u64; 4],
    /// Bytes of swap: all, free.
    pub swap: [u64; 2],
    /// File systems on devices, and the root.
    pub file_systems: Vec<FileSystem>,
    /// The node's network interfaces.
    pub interfaces: Vec<Interface>,
}

/// A file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSystem {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Bytes: total, used, available to users other than root.
    pub bytes: [u64; 3],
    /// Inodes: all, used, free.
    pub inodes: [u64; 3],
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Received: bytes, packets, errors, dropped.
    pub received: [u64; 4],
    /// Sent: bytes, packets, errors, dropped.
    pub sent: [u64; 4],
}

/// Processor time since boot, in ticks.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuTimes {
    user: u64,
    system: u64,
    idle: u64,
    wait: u64,
    /// Interrupts, and what a hypervisor took.
    other: u64,
}

/// Use of processor time between two moments, in percent of all processors.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
pub struct Shares {
    /// All but idle and waiting.
    pub total: f64,
    /// In applications.
    pub user: f64,
    /// In the kernel.
    pub system: f64,
    /// Idle.
    pub idle: f64,
    /// Idle while waiting for a device.
    pub wait: f64,
}

impl CpuTimes {
    fn sum(&self) -> u64 {
        self.user + self.system + self.idle + self.wait + self.other
    }

    /// Use of the time since an earlier moment; `None` if none has passed.
    #[must_use]
    pub fn shares_since(&self, before: &Self) -> Option<Shares> {
        let all = self.sum().saturating_sub(before.sum());
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 * 100.0 / all as f64;
        (all > 0).then(|| {
            let (idle, wait) = (share(self.idle, before.idle), share(self.wait, before.wait));
            Shares {
                total: (100.0 - idle - wait).max(0.0),
                user: share(self.user, before.user),
                system: share(self.system, before.system),
                idle,
                wait,
            }
        })
    }
}

/// Measures processor use since the last measurement.
#[derive(Debug)]
pub struct CpuMeter(Mutex<Metered>);

#[derive(Debug, Default)]
struct Metered {
    before: CpuTimes,
    last: Option<Shares>,
}

impl CpuMeter {
    /// Starts measuring. Nothing is measured if `/proc` cannot be read.
    #[must_use]
    pub fn start() -> Self {
        Self(Mutex::new(Metered { before: cpu_times().unwrap_or_default(), last: None }))
    }

    /// Processor use since the last measurement. Within a second of it, returns the same result again: a shorter
    /// interval would be inaccurate.
    #[must_use]
    pub fn measure_shares(&self) -> Option<Shares> {
        let now = cpu_times().ok()?;
        let second =
            100 * u64::try_from(std::thread::available_parallelism().map_or(1, NonZero::get)).ok()?;
        let mut metered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.sum().saturating_sub(metered.before.sum());
        if passed >= second || metered.last.is_none() {
            metered.last = now.shares_since(&metered.before).or(metered.last);
            metered.before = now;
        }
        metered.last
    }
}

/// Processor time until now.
///
/// # Errors
/// When `/proc/stat` cannot be read.
fn cpu_times() -> ProcResult<CpuTimes> {
    let total = KernelStats::current()?.total;
    let of = Option::unwrap_or_default;
    Ok(CpuTimes {
        user: total.user + total.nice,
        system: total.system,
        idle: total.idle,
        wait: of(total.iowait),
        other: of(total.irq) + of(total.softirq) + of(total.steal),
    })
}

/// What the node has and uses now.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn read_node_resources() -> ProcResult<NodeResources> {
    let load = LoadAverage::current()?;
    let memory = Meminfo::current()?;
    Ok(NodeResources {
        uptime: Uptime::current()?.uptime_duration(),
        processes: procfs::process::all_processes()?.count() as u64,
        cores: KernelStats::current()?.cpu_time.len() as u64,
        load: [load.one, load.five, load.fifteen].map(f64::from),
        memory: [memory.mem_total, memory.mem_free, memory.buffers, memory.cached],
        swap: [memory.swap_total, memory.swap_free],
        file_systems: file_systems()?,
        interfaces: read_interfaces()?,
    })
}

/// The mounted file systems; one that is mounted several times is listed at its first mount point, and the root's at the root.
fn file_systems() -> ProcResult<Vec<FileSystem>> {
    let io_error = |error| procfs::ProcError::Io(error, None);
    let known = std::fs::read_to_string("/proc/filesystems").map_err(io_error)?;
    let on_devices: BTreeSet<&str> =
        known.lines().filter(|line| !line.starts_with("nodev")).map(str::trim).collect();
    let root = std::fs::metadata("/").map_err(io_error)?.dev();
    let mounts = Process::myself()?.mountinfo()?;
    Ok(list_mount_points(mounts, root, &on_devices).into_iter().filter_map(measure_file_system).collect())
}

/// The root, and the first mount point of each other file system on a device. In a chroot the root need not be a mount point.
fn list_mount_points(mounts: MountInfos, root: u64, on_devices: &BTreeSet<&str>) -> Vec<PathBuf> {
    let is_root = |mount: &MountInfo| mount.mount_point.as_os_str() == "/";
    let root = match mounts.iter().find(|mount| is_root(mount)) {
        Some(mount) => mount.majmin.clone(),
        None => format!("{}:{}", nix::sys::stat::major(root), nix::sys::stat::minor(root)),
    };
    let mut seen = BTreeSet::from([root]);
    let mut found = vec![PathBuf::from("/")];
    for mount in mounts {
        if on_devices.contains(mount.fs_type.as_str()) && seen.insert(mount.majmin) {
            found.push(mount.mount_point);
        }
    }
    found
}

/// `None` for file systems that cannot be queried, such as stale mounts or those of other users.
fn measure_file_system(path: PathBuf) -> Option<FileSystem> {
    let stat = statvfs(&path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    Some(FileSystem {
        path,
        bytes: [
            bytes(stat.blocks()),
            bytes(stat.blocks().saturating_sub(stat.blocks_free())),
            bytes(stat.blocks_available()),
        ],
        inodes: [stat.files(), stat.files().saturating_sub(stat.files_free()), stat.files_free()],
    })
}

fn read_interfaces() -> ProcResult<Vec<Interface>> {
    let found = Process::myself()?.dev_status()?;
    let found: BTreeMap<_, _> = found.into_iter().collect();
    let interface = |(name, status): (String, DeviceStatus)| Interface {
        name,
        received: [status.recv_bytes, status.recv_packets, status.recv_errs, status.recv_drop],
        sent: [status.sent_bytes, status.sent_packets, status.sent_errs, status.sent_drop],
    };
    Ok(found.into_iter().map(interface).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn shares_are_of_the_time_that_has_passed() {
        let before = CpuTimes { user: 100, system: 100, idle: 100, wait: 100, other: 100 };
        let now = CpuTimes { user: 130, system: 110, idle: 150, wait: 105, other: 105 };
        let shares = now.shares_since(&before).unwrap();
        assert_eq!(shares, Shares { total: 45.0, user: 30.0, system: 10.0, idle: 50.0, wait: 5.0 });
        assert_eq!(now.shares_since(&now), None);
    }

    fn mount_points(mounts: &str) -> Vec<PathBuf> {
        let mounts = <MountInfos as procfs::FromRead>::from_read(mounts.as_bytes()).unwrap();
        list_mount_points(mounts, nix::sys::stat::makedev(8, 1), &BTreeSet::from(["ext4"]))
    }

    #[test]
    fn the_root_is_listed_where_it_is_a_mount_point_and_where_it_is_not() {
        let data = "31 21 8:2 / /data rw - ext4 /dev/b rw\n32 21 0:40 / /run rw - tmpfs none rw\n";
        let chroot = "30 21 8:1 /usr /usr ro - ext4 /dev/a ro\n".to_owned() + data;
        assert_eq!(mount_points(&chroot), [Path::new("/"), Path::new("/data")]);
        let overlay = "21 1 0:30 / / rw - overlay none rw\n".to_owned() + data;
        assert_eq!(mount_points(&overlay), [Path::new("/"), Path::new("/data")]);
        let several = "22 21 8:2 /x /mnt rw - ext4 /dev/b rw\n".to_owned() + &overlay;
        assert_eq!(mount_points(&several), [Path::new("/"), Path::new("/mnt")]);
    }

    #[test]
    fn this_node_is_described() {
        let node = read_node_resources().unwrap();
        assert!(node.cores > 0 && node.processes > 0 && node.memory[0] > node.memory[1]);
        assert!(node.file_systems.iter().any(|system| system.path.as_os_str() == "/"));
        assert!(node.interfaces.iter().any(|interface| interface.name == "lo"));
    }
}
