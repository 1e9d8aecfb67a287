//! A real agent for the tests: the built binary on its own port, in its own directory.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallyport::client::{Client, Response};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tallyport");

/// The time limit for every step of a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running agent. Dropping it stops it, and fails the test if it does not stop cleanly.
pub(crate) struct Agent {
    child: Option<Child>,
    directory: Option<tempfile::TempDir>,
    pub(crate) http: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    runtime: tokio::runtime::Runtime,
}

/// The output and the exit code of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Agent {
    /// Windows of a second, so that tests need not wait for ten.
    pub(crate) fn start() -> Self {
        Self::with(&["--window", "1s"])
    }

    pub(crate) fn with(flags: &[&str]) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), flags)
    }

    /// An agent in another network. Its HTTP listener cannot be reached from here, but its admin socket can.
    pub(crate) fn inside(network: &Path, flags: &[&str]) -> Self {
        let launcher = ["nsenter", &format!("--net={}", network.display())];
        Self::by(&launcher, tempfile::tempdir().unwrap(), flags)
    }

    pub(crate) fn in_directory(directory: tempfile::TempDir, flags: &[&str]) -> Self {
        Self::by(&[], directory, flags)
    }

    /// An agent in its own pid namespace.
    pub(crate) fn apart(flags: &[&str]) -> Self {
        let launcher = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
        Self::by(&launcher, tempfile::tempdir().unwrap(), flags)
    }

    /// An agent that may not enter namespaces.
    pub(crate) fn without_privileges(flags: &[&str]) -> Self {
        let launcher = ["setpriv", "--bounding-set=-sys_admin"];
        Self::by(&launcher, tempfile::tempdir().unwrap(), flags)
    }

    /// An agent with this limit of open descriptors.
    pub(crate) fn with_descriptors(most: u64, flags: &[&str]) -> Self {
        let launcher = ["prlimit", &format!("--nofile={most}:{most}")];
        Self::by(&launcher, tempfile::tempdir().unwrap(), flags)
    }

    /// An agent started by a command that executes it or waits for it.
    pub(crate) fn by(launcher: &[&str], directory: tempfile::TempDir, flags: &[&str]) -> Self {
        let words = [launcher, &[BINARY]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["agent", "--log-format", "json"]);
        if !flags.contains(&"--http-listen") {
            command.args(["--http-listen", "127.0.0.1:0"]);
        }
        if !flags.contains(&"--admin-socket") {
            command.arg("--admin-socket").arg(directory.path().join("admin.sock"));
        }
        command
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (listening, told) = mpsc::channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let document: Value = serde_json::from_str(&line).unwrap_or_default();
                if document["message"] == "listening" {
                    let _receiver_gone = listening.send(document["http"].as_str().unwrap().parse().unwrap());
                }
                kept.lock().unwrap().push(line);
            }
        });
        match told.recv_timeout(PATIENCE) {
            Ok(http) => {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
                Self { child: Some(child), directory: Some(directory), http, log, runtime: runtime.unwrap() }
            }
            Err(_) => {
                let _either_way = child.kill();
                panic!("the agent did not start: {:?}", log.lock().unwrap());
            }
        }
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.directory.as_ref().unwrap().path().join("admin.sock")
    }

    /// Stops it cleanly, and keeps its directory for another.
    pub(crate) fn into_directory(mut self) -> tempfile::TempDir {
        assert!(self.stop().success(), "{}", self.log());
        self.directory.take().unwrap()
    }

    /// Starts another process beside this one, which continues.
    pub(crate) fn followed_by(&mut self, flags: &[&str]) -> Self {
        Self::by(&[], self.directory.take().unwrap(), flags)
    }

    /// Returns whether it is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// The number of its listening sockets.
    pub(crate) fn listeners(&self) -> usize {
        let inodes = |table: &str, listens: fn(&[&str]) -> bool| -> Vec<String> {
            let text = std::fs::read_to_string(format!("/proc/{}/net/{table}", self.pid())).unwrap();
            let lines = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
            let inode = if table == "tcp" { 9 } else { 6 };
            lines.filter(|fields| listens(fields)).map(|fields| fields[inode].to_owned()).collect()
        };
        // The state of a TCP socket, and the flags of a Unix socket.
        // One reading may skip sockets while others close.
        let mut listening = Vec::new();
        for _ in 0..4 {
            listening.extend(inodes("tcp", |fields| fields[3] == "0A"));
            listening.extend(inodes("unix", |fields| fields[3] == "00010000"));
        }
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let links = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links
            .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned))
            .filter(|inode| listening.contains(inode))
            .count()
    }

    /// Starts a process that takes over from this one, which must end with code 0.
    pub(crate) fn handed_over(mut self, flags: &[&str]) -> Self {
        let directory = self.directory.take().unwrap();
        let next = Self::by(&[], directory, &[flags, &["--take-over"]].concat());
        assert!(self.wait().success(), "{}", self.log());
        next.until_logged("took over");
        next
    }

    /// Keeps the directory of a killed agent for another.
    pub(crate) fn into_dead_directory(mut self) -> tempfile::TempDir {
        assert!(self.child.is_none(), "it lives");
        self.directory.take().unwrap()
    }

    /// The number of its open descriptors. Files of the window log and the journal are not counted, because they are
    /// opened and closed at any time, some of them after the agent has logged that it listens.
    pub(crate) fn descriptors(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let links = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.filter(|link| link.extension().is_none_or(|it| it != "log" && it != "journal")).count()
    }

    /// Stops its process until it is resumed.
    pub(crate) fn stand_still(&self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        self.until("it stands still", || stat().contains(") T "));
    }

    pub(crate) fn pid(&self) -> i32 {
        let started = self.child.as_ref().unwrap().id();
        // The agent is the started process, or its only child.
        let children = std::fs::read_to_string(format!("/proc/{started}/task/{started}/children"));
        let child = children.ok().and_then(|children| children.trim().parse().ok());
        child.unwrap_or_else(|| started.try_into().unwrap())
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    pub(crate) fn http_client(&self) -> Client {
        Client::new(self.http.to_string().parse().unwrap())
    }

    pub(crate) fn admin_client(&self) -> Client {
        Client::new(format!("unix:{}", self.admin_socket().display()).parse().unwrap())
    }

    /// The tokio runtime of this agent's clients.
    pub(crate) fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    pub(crate) fn get_raw(&self, path: &str) -> Response {
        self.runtime.block_on(self.http_client().get(path)).unwrap()
    }

    /// `GET` on the HTTP listener: status and JSON.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        document(&self.get_raw(path))
    }

    /// Any request on the admin socket: status and JSON.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        document(&self.runtime.block_on(self.admin_client().send_request(method, path, body)).unwrap())
    }

    /// `GET` on the admin socket; `None` without an answer.
    pub(crate) fn try_admin(&self, path: &str) -> Option<(u16, Value)> {
        self.runtime.block_on(self.admin_client().get(path)).ok().map(|response| document(&response))
    }

    /// `GET` on the admin socket, as text.
    pub(crate) fn admin_text(&self, path: &str) -> String {
        let response = self.runtime.block_on(self.admin_client().get(path)).unwrap();
        String::from_utf8(response.body.to_vec()).unwrap()
    }

    /// Reserves a socket in the agent's own network namespace.
    pub(crate) fn reserve(&self, container: &str, task: &str) -> Address {
        self.reserve_with(&json!({"container_id": container, "task_id": task, "ttl": null}))
    }

    pub(crate) fn reserve_with(&self, body: &Value) -> Address {
        let (status, reserved) = self.admin("POST", "/v1/containers", body);
        assert_eq!(status, 201, "{reserved}");
        Address::of(&reserved)
    }

    pub(crate) fn release(&self, container: &str) {
        let (status, answer) = self.admin("DELETE", &format!("/v1/containers/{container}"), &Value::Null);
        assert_eq!(status, 202, "{answer}");
    }

    /// Releases a container and waits until all of its data is readable.
    pub(crate) fn finish(&self, container: &str) {
        self.release(container);
        self.until("the container is gone", || {
            let (_, shown) = self.admin("GET", &format!("/v1/containers/{container}"), &Value::Null);
            shown["state"] == "gone"
        });
    }

    /// The records of a task that a query selects.
    pub(crate) fn metrics(&self, task: &str, query: &str) -> Vec<Value> {
        let (status, answer) = self.get(&format!("/v1/tasks/{task}/metrics{query}"));
        assert_eq!(status, 200, "{answer}");
        answer["metrics"].as_array().unwrap().clone()
    }

    /// All records of a task, merged to one for each series, by name.
    pub(crate) fn totals(&self, task: &str) -> serde_json::Map<String, Value> {
        let records = self.metrics(task, "?window=all&merge");
        records.into_iter().map(|record| (record["name"].as_str().unwrap().to_owned(), record)).collect()
    }

    /// A client command of the real binary, with the addresses of this agent.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .env("TALLYPORT_URL", format!("http://{}", self.http))
            .env("TALLYPORT_ADMIN_SOCKET", self.admin_socket())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn cli(&self, args: &[&str]) -> Ran {
        ran(&mut self.command(args))
    }

    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a text in the log, which is written concurrently with the event that it describes.
    pub(crate) fn until_logged(&self, text: &str) {
        self.until(text, || self.log().contains(text));
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                let _either_way = child.kill();
                panic!("the agent did not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it cleanly.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.wait()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        if std::thread::panicking() {
            let _either_way = self.child.as_mut().map(Child::kill);
            eprintln!("the agent's log:\n{}", self.log());
        } else {
            let status = self.stop();
            assert!(status.success(), "the agent did not end in order, {status}:\n{}", self.log());
        }
    }
}

fn document(response: &Response) -> (u16, Value) {
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

/// A container id that no other test uses, in this run or in another on this machine. Addresses are derived from ids,
/// and after a restart a container needs the same address, which another test must not have taken in between.
pub(crate) fn of_this_test(label: &str) -> String {
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    format!("{label}-{}-{thread}", std::process::id())
}

pub(crate) fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The address of a container's socket, and a socket to send from.
pub(crate) struct Address {
    pub(crate) to: SocketAddr,
    socket: UdpSocket,
}

impl Address {
    pub(crate) fn of(reserved: &Value) -> Self {
        let host: std::net::IpAddr = reserved["statsd_host"].as_str().unwrap().parse().unwrap();
        let port = u16::try_from(reserved["statsd_port"].as_u64().unwrap()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Self { to: SocketAddr::new(host, port), socket }
    }

    pub(crate) fn send(&self, datagram: impl AsRef<[u8]>) {
        self.socket.send_to(datagram.as_ref(), self.to).unwrap();
    }
}
