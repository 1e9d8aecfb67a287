//! Real containers, created by a real runtime that is started through `tallyport-oci`.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::agent::Ran;

pub(crate) const WRAPPER: &str = env!("CARGO_BIN_EXE_tallyport-oci");

/// An installed runtime.
#[derive(Clone, Debug)]
pub(crate) struct Runtime(pub(crate) PathBuf);

/// A bundle, and the container that is created from it. Both are deleted when this is dropped.
pub(crate) struct Bundle {
    directory: tempfile::TempDir,
    pub(crate) id: String,
    runtime: Runtime,
    admin_socket: PathBuf,
}

/// The script of a container's first process: prints its environment, sends, and waits.
const APPLICATION: &str = "env > /out/env; exec 2> /out/err
    [ -z \"$STATSD_UDP_HOST\" ] || printf 'starts:1|c' > /dev/udp/$STATSD_UDP_HOST/$STATSD_UDP_PORT
    echo ready > /out/ready; sleep 600";

impl Bundle {
    pub(crate) fn new(runtime: &Runtime, admin_socket: &Path) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let id = format!("tp-oci-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let directory = tempfile::tempdir().unwrap();
        for part in ["rootfs", "out", "state", "etc"] {
            std::fs::create_dir(directory.path().join(part)).unwrap();
        }
        // Settings of this machine must not be read.
        std::fs::write(directory.path().join("etc/oci.toml"), "").unwrap();
        let admin_socket = admin_socket.to_owned();
        let bundle = Self { directory, id, runtime: runtime.clone(), admin_socket };
        bundle.configure(|_| {});
        bundle
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `config.json` with one change.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Value)) {
        let bind = |from: &Path, to: &str, option: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", option]});
        let system = ["/bin", "/lib", "/lib64", "/usr"].into_iter().filter(|path| Path::new(path).exists());
        let mut mounts: Vec<Value> = system.map(|path| bind(Path::new(path), path, "ro")).collect();
        mounts.push(bind(&self.path("out"), "/out", "rw"));
        mounts.push(json!({"destination": "/proc", "type": "proc", "source": "proc"}));
        mounts.push(
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}),
        );
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/",
                "args": ["/usr/bin/bash", "-c", APPLICATION],
                "env": ["PATH=/usr/bin:/bin", "STATSD_UDP_PORT=1"]
            },
            "root": {"path": "rootfs"},
            "hostname": "box",
            "mounts": mounts,
            "linux": {
                "cgroupsPath": format!("/{}", self.id),
                "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}]
            }
        });
        change(&mut config);
        std::fs::write(self.path("config.json"), config.to_string()).unwrap();
    }

    /// Changes the existing `config.json`.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut config = serde_json::from_str(&self.config()).unwrap();
        change(&mut config);
        std::fs::write(self.path("config.json"), config.to_string()).unwrap();
    }

    /// Makes the wrapper use another socket.
    pub(crate) fn ask_at(&mut self, socket: PathBuf) {
        self.admin_socket = socket;
    }

    /// Writes the wrapper's settings.
    pub(crate) fn settings(&self, text: &str) {
        std::fs::write(self.path("etc/oci.toml"), text).unwrap();
    }

    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.path("config.json")).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log.json")).unwrap_or_default()
    }

    /// Calls the wrapper as containerd does. The container keeps the output descriptor open, so the output is a file.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.start(Path::new(WRAPPER), arguments)
    }

    pub(crate) fn start(&self, program: &Path, arguments: &[&str]) -> Ran {
        // crun requires a machine with one version of cgroups, and is shown only one.
        let script = match self.runtime.0.ends_with("crun") {
            true => "umount /sys/fs/cgroup/unified 2> /dev/null; exec \"$@\"",
            false => "exec \"$@\"",
        };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "-"]);
        command.arg(program).arg("--root").arg(self.path("state"));
        command.arg("--log").arg(self.path("log.json")).args(["--log-format", "json"]).args(arguments);
        command.env("TALLYPORT_OCI_CONFIG", self.path("etc/oci.toml"));
        command.env("TALLYPORT_ADMIN_SOCKET", &self.admin_socket);
        command.env("TALLYPORT_OCI_RUNTIME", &self.runtime.0);
        let file = |name: &str| File::create(self.path(name)).unwrap();
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command.stdout(file("stdout")).stderr(file("stderr"));
        let status = command.status().unwrap();
        let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or(1));
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        Ran { code, out: read("stdout"), err: read("stderr") }
    }

    /// Calls the wrapper, which must succeed.
    pub(crate) fn must(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{:?} {arguments:?}: {} {}", self.runtime, ran.err, self.log());
        ran
    }

    pub(crate) fn create(&self) {
        let ran = self.try_create();
        assert_eq!(ran.code, 0, "{:?}: {} {}", self.runtime, ran.err, self.log());
    }

    pub(crate) fn try_create(&self) -> Ran {
        let (path, pid_file) =
            (self.directory.path().display().to_string(), self.path("pid").display().to_string());
        self.run(&["create", "--bundle", &path, "--pid-file", &pid_file, &self.id])
    }

    /// The same without the wrapper.
    pub(crate) fn up_without_the_wrapper(&self) {
        let (path, pid_file) =
            (self.directory.path().display().to_string(), self.path("pid").display().to_string());
        let ran =
            self.start(&self.runtime.0, &["create", "--bundle", &path, "--pid-file", &pid_file, &self.id]);
        assert_eq!(ran.code, 0, "{:?}: {} {}", self.runtime, ran.err, self.log());
        self.must(&["start", &self.id]);
        self.until_ready();
    }

    pub(crate) fn pid(&self) -> i32 {
        std::fs::read_to_string(self.path("pid")).unwrap().trim().parse().unwrap()
    }

    /// Creates and starts the container, and waits until its process has sent.
    pub(crate) fn up(&self) {
        let _either_way = std::fs::remove_file(self.path("out/ready"));
        self.create();
        self.must(&["start", &self.id]);
        self.until_ready();
    }

    pub(crate) fn until_ready(&self) {
        let deadline = std::time::Instant::now() + crate::agent::PATIENCE;
        while !self.path("out/ready").exists() {
            assert!(
                std::time::Instant::now() < deadline,
                "{:?}",
                std::fs::read_to_string(self.path("out/err"))
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(std::fs::read_to_string(self.path("out/err")).unwrap(), "");
    }

    /// The variables of the container's process.
    pub(crate) fn environment(&self) -> Vec<String> {
        statsd(&std::fs::read_to_string(self.path("out/env")).unwrap())
    }

    pub(crate) fn kill(&self) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
    }

    pub(crate) fn delete(&self) {
        self.must(&["delete", "--force", &self.id]);
    }
}

/// The variables of an environment that are about StatsD, sorted.
pub(crate) fn statsd(environment: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        environment.lines().filter(|line| line.contains("STATSD")).map(str::to_owned).collect();
    lines.sort();
    lines
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.path("state").join(&self.id).exists() {
            let _either_way = self.run(&["delete", "--force", &self.id]);
        }
    }
}
