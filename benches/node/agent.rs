//! An agent for benchmarks, with containers.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::{Value, json};
use tallyport::client::{Client, Target};

/// A running agent. Its containers are named `c0`, `c1` and so on.
pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) addresses: Vec<SocketAddr>,
    /// The address of its HTTP listener.
    pub(crate) http: SocketAddr,
    admin: Client,
    runtime: tokio::runtime::Runtime,
    /// Deleted with the agent.
    _directory: tempfile::TempDir,
}

impl Agent {
    /// Starts an agent with this many containers and further arguments.
    pub(crate) fn start(containers: usize, arguments: &[&str]) -> Self {
        Self::start_build(&this_build(), containers, arguments)
    }

    /// The same for another build of the agent.
    pub(crate) fn start_build(binary: &Path, containers: usize, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket: PathBuf = directory.path().join("admin.sock");
        // The port was free a moment ago, which is sufficient for a benchmark.
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(binary)
            .args(["agent", "--http-listen", &http.to_string(), "--log", "error", "--admin-socket"])
            .arg(&socket)
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .args(arguments)
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let admin = Client::new(Target::Unix(socket));
        let mut agent = Self { child, addresses: Vec::new(), http, admin, runtime, _directory: directory };
        agent.wait();
        agent.addresses = (0..containers).map(|index| agent.reserve(index)).collect();
        agent
    }

    fn wait(&self) {
        for _ in 0..200 {
            if self.runtime.block_on(self.admin.get("/ready")).is_ok_and(|answer| answer.status == 200) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the agent does not become ready");
    }

    fn reserve(&self, index: usize) -> SocketAddr {
        let body = json!({"container_id": format!("c{index}"), "ttl": null}).to_string().into_bytes();
        let answer = self.runtime.block_on(self.admin.send_request("POST", "/v1/containers", body)).unwrap();
        let reserved: Value = serde_json::from_slice(&answer.body).unwrap();
        SocketAddr::new(
            reserved["statsd_host"].as_str().unwrap().parse().unwrap(),
            u16::try_from(reserved["statsd_port"].as_u64().unwrap()).unwrap(),
        )
    }

    /// The agent's answer to a GET; `None` if it refuses or does not answer in time.
    pub(crate) fn try_get(&self, path: &str) -> Option<String> {
        let answer = self.runtime.block_on(self.admin.get(path)).ok()?;
        (answer.status == 200).then(|| String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// The agent's answer to a GET, as text.
    pub(crate) fn get(&self, path: &str) -> String {
        let answer = self.runtime.block_on(self.admin.get(path)).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// Datagrams received and dropped by the kernel, once all sent ones are accounted for, or after five seconds.
    pub(crate) fn counts(&self, sent: u64) -> (u64, u64) {
        let mut counted = (0, 0);
        for _ in 0..100 {
            let counts: Value = serde_json::from_str(&self.get("/v1/accounting")).unwrap();
            counted = datagrams(&counts["total"]);
            if counted.0 + counted.1 >= sent {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        counted
    }

    /// Stops it cleanly.
    pub(crate) fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

/// The measured build: this one, or the one that `TALLYPORT_BINARY` names.
pub(crate) fn this_build() -> PathBuf {
    std::env::var_os("TALLYPORT_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_tallyport").into()).into()
}

/// Datagrams received and dropped by the kernel, from one accounting document.
pub(crate) fn datagrams(counts: &Value) -> (u64, u64) {
    let of = |key: &str| counts["datagrams"][key].as_u64().unwrap();
    (of("received"), of("kernel_drops"))
}
