//! Network namespaces for tests, and processes inside.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::agent::PATIENCE;

/// A namespace created by `ip netns`, with `lo` down. It is deleted when this is dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("tp-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let namespace = Self { name };
        namespace.make();
        namespace
    }

    fn make(&self) {
        ip(&["netns", "add", &self.name]);
    }

    /// Another namespace under the same name.
    pub(crate) fn replace(&self) {
        ip(&["netns", "delete", &self.name]);
        self.make();
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/run/netns/{}", self.name).into()
    }

    /// An interface outside that exists for as long as the namespace does.
    pub(crate) fn leash(&self) -> Leash {
        let outside = format!("tp{}", self.name.replace('-', "").trim_start_matches("tp"));
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", "inside", "netns", &self.name]);
        Leash(outside)
    }

    /// A process inside.
    pub(crate) fn process(&self) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "sleep", "600"]);
        let process = Process::start(&mut command);
        process.until_it_has_left(&our_own());
        process
    }

    /// Sends a datagram from inside.
    pub(crate) fn send(&self, port: u16, datagram: &str) {
        let script = format!("printf '%s' '{datagram}' > /dev/udp/127.0.0.1/{port}");
        let sent = Command::new("ip").args(["netns", "exec", &self.name, "bash", "-c", &script]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _either_way = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Detects whether a namespace still exists, by an interface whose peer disappears with it.
pub(crate) struct Leash(String);

impl Leash {
    /// One on the namespace of a process.
    pub(crate) fn on(pid: i32) -> Self {
        let outside = format!("tpp{pid}");
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", "inside", "netns", &pid.to_string()]);
        Self(outside)
    }

    pub(crate) fn holds(&self) -> bool {
        PathBuf::from("/sys/class/net").join(&self.0).exists()
    }
}

fn ip(arguments: &[&str]) {
    let ran = Command::new("ip").args(arguments).output().unwrap();
    assert!(ran.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// The namespace of this process.
fn our_own() -> PathBuf {
    std::fs::read_link("/proc/self/ns/net").unwrap()
}

/// A process that is killed when this is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// A process in a namespace of its own.
    pub(crate) fn apart() -> Self {
        let process = Self::start(Command::new("unshare").args(["--net", "sleep", "600"]));
        process.until_it_has_left(&our_own());
        process
    }

    fn until_it_has_left(&self, namespace: &Path) {
        let deadline = Instant::now() + PATIENCE;
        while std::fs::read_link(format!("/proc/{}/ns/net", self.pid())).unwrap() == namespace {
            assert!(Instant::now() < deadline, "it does not leave {}", namespace.display());
            std::thread::yield_now();
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a datagram from beside it.
    pub(crate) fn send(&self, port: u16, datagram: &str) {
        let script = format!("printf '%s' '{datagram}' > /dev/udp/127.0.0.1/{port}");
        let target = self.pid().to_string();
        let sent =
            Command::new("nsenter").args(["--net", "--target", &target, "bash", "-c", &script]).status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _either_way = self.0.kill();
        let _either_way = self.0.wait();
    }
}
