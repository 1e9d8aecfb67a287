//! Resource usage of a container, from its control groups and its network interfaces.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::ProcResult;
use procfs::net::DeviceStatus;
use procfs::process::{MountInfo, Process};

use crate::cgroup::{container_group_path, is_named_after};

/// Resource usage of a container. Values that the kernel does not report are absent.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ContainerResources {
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Memory charged to the group.
    pub memory: Option<Memory>,
    /// Block devices.
    pub io: Option<Io>,
    /// Number of processes in the group.
    pub processes: Option<u64>,
    /// Threads, which the kernel counts as processes.
    pub threads: Option<u64>,
    /// The network, where it is the container's own.
    pub network: Option<NetworkCounters>,
}

/// Processor time since the group was made.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Cpu {
    /// Time in user space.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// Processors it may use at once, for example 0.5. Absent without a limit.
    pub limit: Option<f64>,
    /// Number of scheduling periods in which it ran under a limit.
    pub periods: u64,
    /// Number of those in which it was throttled.
    pub throttled_periods: u64,
    /// Total time for which it was throttled.
    pub throttled: Duration,
}

/// Memory, in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Everything charged to the group, page cache included.
    pub total: u64,
    /// `total` and the swapped-out part.
    pub total_and_swap: Option<u64>,
    /// The limit above which the kernel kills processes. Absent without a limit.
    pub limit: Option<u64>,
    /// The amount that it may keep when memory is short.
    pub soft_limit: Option<u64>,
    /// Pages of files.
    pub cache: Option<u64>,
    /// Anonymous memory.
    pub rss: Option<u64>,
    /// Pages of files that are mapped.
    pub mapped_file: Option<u64>,
    /// Swapped-out memory.
    pub swap: Option<u64>,
    /// Pages that cannot be reclaimed, such as locked ones.
    pub unevictable: Option<u64>,
}

/// Block devices, all together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Io {
    /// Bytes read since the group was made.
    pub read_bytes: u64,
    /// Bytes written since the group was made.
    pub written_bytes: u64,
    /// Read operations since the group was made.
    pub reads: u64,
    /// Write operations since the group was made.
    pub writes: u64,
}

/// All interfaces together, except loopback.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetworkCounters {
    /// Received: bytes, packets, errors, dropped.
    pub received: [u64; 4],
    /// Sent: bytes, packets, errors, dropped.
    pub sent: [u64; 4],
}

/// The directories of a container's control groups.
struct Groups {
    /// Controllers of the first version.
    first: HashMap<String, PathBuf>,
    second: Option<PathBuf>,
}

/// Resource usage of the container with process `pid`. `own_network` says whether it has a network namespace of its
/// own; the node's traffic is not the container's.
///
/// # Errors
/// When the process has ended, or this process may not read its files.
pub fn read_container_resources(
    pid: i32,
    container: &str,
    own_network: bool,
) -> ProcResult<ContainerResources> {
    let process = Process::new(pid)?;
    let groups = Groups::from_process(&process, container)?;
    let network = own_network.then(|| process.dev_status().ok()).flatten();
    let network = network.map(|interfaces| sum_interfaces(&interfaces));
    if groups.first.is_empty() && groups.second.is_none() {
        return Ok(ContainerResources { network, ..read_process_resources(&process)? });
    }
    Ok(ContainerResources {
        cpu: groups.read_cpu(),
        memory: groups.read_memory(),
        io: groups.read_io(),
        processes: groups
            .read_any_version("pids", |at| Some(read_text(at, "cgroup.procs")?.lines().count() as u64)),
        threads: groups.read_any_version("pids", |at| read_number(at, "pids.current")),
        network,
    })
}

/// What a process uses that is in no group of its own. Processes that it started are not counted.
fn read_process_resources(process: &Process) -> ProcResult<ContainerResources> {
    let (stat, status) = (process.stat()?, process.status()?);
    let time = |ticks: u64| crate::process::since_boot(ticks);
    let rss = status.vmrss.map(|kibibytes| kibibytes * 1024);
    Ok(ContainerResources {
        cpu: Some(Cpu { user: time(stat.utime), system: time(stat.stime), ..Cpu::default() }),
        memory: rss.map(|total| Memory { total, rss, ..Memory::default() }),
        threads: Some(status.threads),
        ..ContainerResources::default()
    })
}

fn sum_interfaces(interfaces: &HashMap<String, DeviceStatus>) -> NetworkCounters {
    let mut network = NetworkCounters::default();
    for status in interfaces.values().filter(|status| status.name != "lo") {
        let received = [status.recv_bytes, status.recv_packets, status.recv_errs, status.recv_drop];
        let sent = [status.sent_bytes, status.sent_packets, status.sent_errs, status.sent_drop];
        for (sum, value) in network.received.iter_mut().zip(received) {
            *sum += value;
        }
        for (sum, value) in network.sent.iter_mut().zip(sent) {
            *sum += value;
        }
    }
    network
}

impl Groups {
    fn from_process(process: &Process, container: &str) -> ProcResult<Self> {
        let mounts = Process::myself()?.mountinfo()?.0;
        let mut groups = Self { first: HashMap::new(), second: None };
        for group in process.cgroups()?.0 {
            let path = container_group_path(&group.pathname, container);
            // The root's values are the node's; groups outside this namespace cannot be read.
            if path == "/" || path.starts_with("/..") {
                continue;
            }
            let named = path.rsplit('/').next().is_some_and(|part| is_named_after(part, container));
            let find = |controller: Option<&str>| {
                let found = mounts.iter().find_map(|mount| locate_in_mount(mount, controller, path));
                found.filter(|directory| named || has_only(directory, process.pid))
            };
            if group.hierarchy == 0 {
                groups.second = find(None);
            }
            for controller in group.controllers {
                let found = find(Some(&controller));
                groups.first.extend(found.map(|directory| (controller, directory)));
            }
        }
        Ok(groups)
    }

    /// Reads a controller's values, from whichever version has it.
    fn read_per_version<T>(
        &self,
        controller: &str,
        first: impl FnOnce(&Path) -> Option<T>,
        second: impl FnOnce(&Path) -> Option<T>,
    ) -> Option<T> {
        match self.first.get(controller) {
            Some(directory) => first(directory),
            None => second(self.second.as_ref()?),
        }
    }

    /// Like [`Groups::read_per_version`], for files that both versions share.
    fn read_any_version<T>(&self, controller: &str, read: impl Fn(&Path) -> Option<T>) -> Option<T> {
        self.read_per_version(controller, &read, &read)
    }

    fn read_cpu(&self) -> Option<Cpu> {
        let (user, system) = self.read_per_version("cpuacct", first_times, |at| {
            let stat = read_key_values(at, "cpu.stat")?;
            Some((micros_value(&stat, "user_usec")?, micros_value(&stat, "system_usec")?))
        })?;
        let mut cpu = Cpu { user, system, ..Cpu::default() };
        let throttling =
            self.read_any_version("cpu", |at| read_key_values(at, "cpu.stat")).unwrap_or_default();
        let of = |key: &str| throttling.get(key).copied().unwrap_or_default();
        cpu.periods = of("nr_periods");
        cpu.throttled_periods = of("nr_throttled");
        cpu.throttled = match throttling.get("throttled_time") {
            Some(nanos) => Duration::from_nanos(*nanos),
            None => Duration::from_micros(of("throttled_usec")),
        };
        cpu.limit = self.read_per_version(
            "cpu",
            |at| {
                parse_cpu_limit(
                    read_text(at, "cpu.cfs_quota_us")?.trim(),
                    read_text(at, "cpu.cfs_period_us")?.trim(),
                )
            },
            |at| {
                let max = read_text(at, "cpu.max")?;
                let (quota, period) = max.trim().split_once(' ')?;
                parse_cpu_limit(quota, period)
            },
        );
        Some(cpu)
    }

    fn read_memory(&self) -> Option<Memory> {
        self.read_per_version(
            "memory",
            |at| {
                let stat = read_key_values(at, "memory.stat").unwrap_or_default();
                let of = |key: &str| stat.get(key).copied();
                Some(Memory {
                    total: read_number(at, "memory.usage_in_bytes")?,
                    total_and_swap: read_number(at, "memory.memsw.usage_in_bytes"),
                    limit: read_number(at, "memory.limit_in_bytes").filter(|bytes| is_limit(*bytes)),
                    soft_limit: read_number(at, "memory.soft_limit_in_bytes")
                        .filter(|bytes| is_limit(*bytes)),
                    cache: of("total_cache"),
                    rss: of("total_rss"),
                    mapped_file: of("total_mapped_file"),
                    swap: of("total_swap"),
                    unevictable: of("total_unevictable"),
                })
            },
            |at| {
                let stat = read_key_values(at, "memory.stat").unwrap_or_default();
                let of = |key: &str| stat.get(key).copied();
                let (total, swap) =
                    (read_number(at, "memory.current")?, read_number(at, "memory.swap.current"));
                Some(Memory {
                    total,
                    total_and_swap: swap.map(|swap| total.saturating_add(swap)),
                    limit: read_number(at, "memory.max"),
                    soft_limit: read_number(at, "memory.high"),
                    cache: of("file"),
                    rss: of("anon"),
                    mapped_file: of("file_mapped"),
                    swap,
                    unevictable: of("unevictable"),
                })
            },
        )
    }

    fn read_io(&self) -> Option<Io> {
        self.read_per_version("blkio", first_io, |at| {
            let mut io = Io::default();
            for field in read_text(at, "io.stat")?.split_whitespace() {
                let Some((key, value)) = field.split_once('=') else { continue };
                let sum = match key {
                    "rbytes" => &mut io.read_bytes,
                    "wbytes" => &mut io.written_bytes,
                    "rios" => &mut io.reads,
                    "wios" => &mut io.writes,
                    // Other fields come from the scheduler of a device, and not all of them are numbers.
                    _ => continue,
                };
                *sum += value.parse::<u64>().ok()?;
            }
            Some(io)
        })
    }
}

/// Whether a group contains only a process and its descendants. What a group is charged with is otherwise also that of
/// other processes: those of a login session, for example, share a group.
fn has_only(directory: &Path, process: i32) -> bool {
    let mut processes = Vec::new();
    list_processes(directory, &mut processes).is_some()
        && processes.iter().all(|pid| is_descendant(*pid, process))
}

/// Maximum number of processes that are compared with one process.
const MAX_PROCESSES: usize = 1024;
/// Maximum number of ancestors of a process that are visited.
const MAX_ANCESTORS: usize = 64;

/// Adds the processes of a group and of the groups below it. `None` if they are too many, or cannot be read.
fn list_processes(directory: &Path, processes: &mut Vec<i32>) -> Option<()> {
    for line in read_text(directory, "cgroup.procs")?.lines() {
        if processes.len() == MAX_PROCESSES {
            return None;
        }
        processes.push(line.parse().ok()?);
    }
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list_processes(&entry.path(), processes)?;
        }
    }
    Some(())
}

/// Whether a process is another one, or descends from it. A process that has ended does not matter.
fn is_descendant(mut pid: i32, ancestor: i32) -> bool {
    for _ in 0..MAX_ANCESTORS {
        if pid == ancestor {
            return true;
        }
        // A process of another pid namespace has the number 0.
        if pid <= 1 {
            return false;
        }
        match Process::new(pid).and_then(|process| process.stat()) {
            Ok(stat) => pid = stat.ppid,
            Err(_) => return true,
        }
    }
    false
}

/// The directory of a hierarchy's path below one of its mounts, which may show only a subtree.
fn locate_in_mount(mount: &MountInfo, controller: Option<&str>, path: &str) -> Option<PathBuf> {
    let is_it = match controller {
        None => mount.fs_type == "cgroup2",
        Some(controller) => mount.fs_type == "cgroup" && mount.super_options.contains_key(controller),
    };
    let path = Path::new(path).strip_prefix(&mount.root).ok()?;
    is_it.then(|| mount.mount_point.join(path)).filter(|directory| directory.is_dir())
}

/// User and system time. Ticks are coarser than the group's total time, which is split in their proportion.
fn first_times(at: &Path) -> Option<(Duration, Duration)> {
    let stat = read_key_values(at, "cpuacct.stat")?;
    let (user, system) = (*stat.get("user")?, *stat.get("system")?);
    let used = Duration::from_nanos(read_number(at, "cpuacct.usage")?);
    let user_share = if user + system == 0 { 1.0 } else { user as f64 / (user + system) as f64 };
    let user = used.mul_f64(user_share).min(used);
    Some((user, used.saturating_sub(user)))
}

fn first_io(at: &Path) -> Option<Io> {
    let sum = |name: &str| {
        let text = read_text(at, &format!("blkio.throttle.{name}_recursive"))
            .or_else(|| read_text(at, &format!("blkio.throttle.{name}")))?;
        let of = |word: &str| -> u64 {
            let lines = text
                .lines()
                .filter_map(|line| line.split_once(' ')?.1.strip_prefix(word)?.trim().parse::<u64>().ok());
            lines.sum()
        };
        Some((of("Read "), of("Write ")))
    };
    let ((read_bytes, written_bytes), (reads, writes)) = (sum("io_service_bytes")?, sum("io_serviced")?);
    Some(Io { read_bytes, written_bytes, reads, writes })
}

fn read_text(at: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(at.join(file)).ok()
}

/// A file that is one number. `max` is none.
fn read_number(at: &Path, file: &str) -> Option<u64> {
    read_text(at, file)?.trim().parse().ok()
}

/// A file of lines with a key and a number.
fn read_key_values(at: &Path, file: &str) -> Option<HashMap<String, u64>> {
    let text = read_text(at, file)?;
    let line = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    Some(text.lines().filter_map(line).collect())
}

fn micros_value(stat: &HashMap<String, u64>, key: &str) -> Option<Duration> {
    stat.get(key).map(|micros| Duration::from_micros(*micros))
}

/// The number of processors, from a quota per period; `None` without a quota.
fn parse_cpu_limit(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The first version writes "none" as the largest multiple of a page.
fn is_limit(bytes: u64) -> bool {
    bytes < 1 << 62
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version 2 group with these files, as in the kernel's documentation.
    fn second(files: &[(&str, &str)]) -> (tempfile::TempDir, Groups) {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in files {
            std::fs::write(directory.path().join(file), text).unwrap();
        }
        let second = Some(directory.path().to_owned());
        (directory, Groups { first: HashMap::new(), second })
    }

    #[test]
    fn a_group_with_another_process_is_not_that_of_one_process_alone() {
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = Process::myself().unwrap().stat().unwrap().ppid;
        let directory = tempfile::tempdir().unwrap();
        let list = |group: &Path, processes: &[i32]| {
            std::fs::create_dir_all(group).unwrap();
            let lines: String = processes.iter().map(|pid| format!("{pid}\n")).collect();
            std::fs::write(group.join("cgroup.procs"), lines).unwrap();
        };
        let (group, below) = (directory.path().join("g"), directory.path().join("g/below"));
        list(&group, &[own]);
        assert!(has_only(&group, own) && has_only(&group, parent), "a child belongs to its parent");
        list(&group, &[own, parent]);
        assert!(!has_only(&group, own), "the parent was there before");
        list(&group, &[own, 0]);
        assert!(!has_only(&group, own), "a process of another pid namespace");
        list(&group, &[own]);
        list(&below, &[parent]);
        assert!(!has_only(&group, own), "groups below are charged to it as well");
        list(&below, &[own]);
        assert!(has_only(&group, own));
        assert!(
            !has_only(&directory.path().join("none"), own),
            "what cannot be read is not known to be its own"
        );
    }

    #[test]
    fn a_group_of_the_second_version_is_read_whole() {
        let (_directory, groups) = second(&[
            (
                "cpu.stat",
                "usage_usec 3500000\nuser_usec 2500000\nsystem_usec 1000000\nnice_usec 0\ncore_sched.force_idle_usec 0\n\
                 nr_periods 40\nnr_throttled 7\nthrottled_usec 350000\nnr_bursts 0\nburst_usec 0\n",
            ),
            ("cpu.max", "50000 100000\n"),
            ("memory.current", "9465856\n"),
            ("memory.swap.current", "4096\n"),
            ("memory.max", "44040192\n"),
            ("memory.high", "22020096\n"),
            (
                "memory.stat",
                "anon 9359360\nfile 106496\nkernel 1138688\nfile_mapped 40960\ninactive_anon 0\nunevictable 8192\n\
                 workingset_refault_anon 0\n",
            ),
            (
                "io.stat",
                "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n\
                 8:0 rbytes=100 wbytes=200 rios=3 wios=4 dbytes=50331648 dios=3021 use_delay=0 delay_nsec=0 depth=max\n",
            ),
            ("pids.current", "3\n"),
        ]);
        let time = Duration::from_millis;
        let cpu = Cpu {
            user: time(2500),
            system: time(1000),
            limit: Some(0.5),
            periods: 40,
            throttled_periods: 7,
            throttled: time(350),
        };
        assert_eq!(groups.read_cpu(), Some(cpu));
        let memory = Memory {
            total: 9_465_856,
            total_and_swap: Some(9_469_952),
            limit: Some(44_040_192),
            soft_limit: Some(22_020_096),
            cache: Some(106_496),
            rss: Some(9_359_360),
            mapped_file: Some(40_960),
            swap: Some(4_096),
            unevictable: Some(8_192),
        };
        assert_eq!(groups.read_memory(), Some(memory));
        let io = Io { read_bytes: 1_459_300, written_bytes: 314_773_704, reads: 195, writes: 357 };
        assert_eq!(groups.read_io(), Some(io));
        assert_eq!(groups.read_any_version("pids", |at| read_number(at, "pids.current")), Some(3));
    }

    #[test]
    fn what_a_group_of_the_second_version_has_not_is_absent() {
        let (_directory, groups) = second(&[
            ("cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\n"),
            ("cpu.max", "max 100000\n"),
            ("memory.current", "9465856\n"),
            ("memory.max", "max\n"),
            ("memory.high", "max\n"),
            ("io.stat", ""),
        ]);
        let micros = Duration::from_micros;
        assert_eq!(groups.read_cpu(), Some(Cpu { user: micros(2), system: micros(1), ..Cpu::default() }));
        assert_eq!(groups.read_memory(), Some(Memory { total: 9_465_856, ..Memory::default() }));
        assert_eq!(groups.read_io(), Some(Io::default()));
        let (_directory, without_controllers) = second(&[("cgroup.procs", "1\n")]);
        assert_eq!(without_controllers.read_cpu(), None);
        assert_eq!(without_controllers.read_memory(), None);
        assert_eq!(without_controllers.read_io(), None);
    }
}
