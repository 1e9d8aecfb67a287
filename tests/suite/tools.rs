//! Tools that some tests need in addition to cargo. `scripts/setup` installs them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python of `integration/.venv`, which has the packages of `integration/clients/python/requirements.txt`.
pub(crate) fn python() -> Option<PathBuf> {
    let python = root().join("integration/.venv/bin/python");
    let there = succeeds(
        Command::new(&python).args(["-c", "import datadog, google.protobuf, prometheus_client, statsd"]),
    );
    found(
        there,
        python,
        "Python with the packages statsd, datadog, prometheus-client and protobuf",
        "scripts/setup python",
    )
}

/// Prometheus' tool that checks expositions, if installed: its package includes the server, so only
/// `make e2e-prometheus` requires it.
pub(crate) fn promtool() -> Option<PathBuf> {
    on_path("promtool").then(|| "promtool".into())
}

/// The program that formats manual pages, if installed.
pub(crate) fn formatter() -> Option<PathBuf> {
    on_path("groff").then(|| "groff".into())
}

/// A shell, and the program that gives it a terminal.
pub(crate) fn shell(name: &str) -> Option<PathBuf> {
    found(
        [name, "script"].iter().all(|tool| on_path(tool)),
        name.into(),
        &format!("{name} or script"),
        "scripts/setup shells",
    )
}

/// Node.js, if it finds the package hot-shots of `integration/clients/node`.
pub(crate) fn node() -> Option<PathBuf> {
    let mut command = Command::new("node");
    command.args(["-e", "require('hot-shots')"]).current_dir(root().join("integration/clients/node"));
    found(succeeds(&mut command), "node".into(), "Node.js with the package hot-shots", "scripts/setup node")
}

/// Root privileges and the programs for network namespaces.
pub(crate) fn network_namespaces() -> Option<()> {
    let root = nix::unistd::geteuid().is_root();
    found(root, (), "root, who may make network namespaces,", "sudo")?;
    let there = ["ip", "unshare", "nsenter", "bash", "pgrep"].iter().all(|tool| on_path(tool));
    found(there, (), "ip, unshare, nsenter, bash or pgrep", "scripts/setup containers")?;
    // In a chroot, the root need not be one. scripts/ci/own-root makes it one.
    let mounts = succeeds(Command::new("unshare").args(["--mount", "true"]));
    found(
        mounts,
        (),
        "a root directory that is a mount point, as mount namespaces need,",
        "scripts/ci/own-root",
    )
}

/// Root privileges and the programs for mounting file systems.
pub(crate) fn mounting() -> Option<()> {
    found(nix::unistd::geteuid().is_root(), (), "root, who may mount file systems,", "sudo")?;
    found(
        ["mount", "umount"].iter().all(|tool| on_path(tool)),
        (),
        "mount or umount",
        "scripts/setup containers",
    )
}

/// The mount point of the complete cgroup v2 hierarchy, whose root has inode 1; that of a mounted subtree has another.
pub(crate) fn cgroups() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let path = mounts.filter(|fields| fields.get(2) == Some(&"cgroup2")).find_map(|fields| {
        let path = PathBuf::from(fields[1]);
        let root = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).ok()?) == 1;
        root.then_some(path)
    });
    found(path.is_some(), path.unwrap_or_default(), "the whole cgroup v2 hierarchy", "a cgroup2 mount")
}

/// The requirements of the kernel guard and of its tests.
pub(crate) fn guard() -> Option<()> {
    found(nix::unistd::geteuid().is_root(), (), "root, who may guard listeners,", "sudo")?;
    cgroups()?;
    let there = ["perl", "setpriv"].iter().all(|tool| on_path(tool));
    found(there, (), "perl or setpriv", "scripts/setup containers")
}

/// An OCI runtime.
pub(crate) fn runtime(name: &str) -> Option<crate::containers::Runtime> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found_at =
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file());
    let runtime = crate::containers::Runtime(found_at.clone().unwrap_or_default());
    found(found_at.is_some(), runtime, name, "scripts/setup containers")
}

/// A program other than a container runtime.
pub(crate) fn program(name: &str, remedy: &str) -> Option<PathBuf> {
    found(on_path(name), name.into(), name, remedy)
}

fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// If a tool is missing, the test is skipped with a message; if `CI` is set, it fails.
#[expect(clippy::explicit_write, reason = "what a passing test prints with a macro is not shown")]
fn found<T>(there: bool, tool: T, what: &str, remedy: &str) -> Option<T> {
    if there {
        return Some(tool);
    }
    assert!(std::env::var_os("CI").is_none(), "{what} is missing: run {remedy}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    writeln!(std::io::stderr(), "SKIPPED {test}: {what} is missing; {remedy} makes it").unwrap();
    None
}
