//! The real agent, as the plugin of a containerd, queried with its own commands.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::{given, until};

pub struct Agent {
    child: Child,
    directory: PathBuf,
}

impl Agent {
    /// Starts it, and waits until the runtime has registered it.
    pub fn start(directory: &Path, nri: &Path, more: &[&str]) -> Self {
        let nri = format!("nri.socket={}", nri.display());
        let agent = Self::spawn(directory, &[&["nri.enabled=true", &nri], more].concat());
        until("the plugin is registered", || agent.metric("tallyport_nri_connected") == Some(1.0));
        agent
    }

    /// Starts it with NRI off.
    pub fn alone(directory: &Path) -> Self {
        let agent = Self::spawn(directory, &[]);
        until("it answers", || agent.ask(&["tasks"]).is_some());
        agent
    }

    fn spawn(directory: &Path, settings: &[&str]) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
        // The capabilities in deploy/kubernetes/tallyport.yaml, and no others.
        let capabilities = "-all,+sys_admin,+sys_ptrace,+net_admin";
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", capabilities, "--inh-caps", capabilities, "--no-new-privs"]);
        command.arg(given("TALLYPORT_E2E_AGENT"));
        command.args(["agent", "--window", "1s", "--log", "debug", "--http-listen", "127.0.0.1:0"]);
        command.arg("--admin-socket").arg(directory.join("admin.sock"));
        // Not the default port: another agent may be running on this machine.
        command.args(["--set", "listeners.port=18627"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, directory: directory.to_owned() }
    }

    /// The output of a command, if it succeeds.
    pub fn ask(&self, args: &[&str]) -> Option<Value> {
        let output = Command::new(given("TALLYPORT_E2E_AGENT"))
            .args(args)
            .arg("--json")
            .env("TALLYPORT_URL", self.url())
            .env("TALLYPORT_ADMIN_SOCKET", self.directory.join("admin.sock"))
            .output()
            .unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    fn url(&self) -> String {
        // The admin socket serves everything that the HTTP listener does.
        format!("unix:{}", self.directory.join("admin.sock").display())
    }

    pub fn container(&self, id: &str) -> Option<Value> {
        self.ask(&["containers", "show", id])
    }

    pub fn state(&self, id: &str) -> Option<String> {
        Some(self.container(id)?["state"].as_str()?.to_owned())
    }

    /// The value of one of the agent's own metrics, by name and labels.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let socket = self.directory.join("admin.sock");
        let page = http(&socket, "/metrics", None)?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Sends a body to the admin socket; returns whether the answer was a success.
    pub fn post(&self, path: &str, body: &str) -> bool {
        let answer = http(&self.directory.join("admin.sock"), path, Some(body));
        answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 20"))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it cleanly.
    pub fn stop(mut self) {
        let ended = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(ended.success());
        assert!(self.child.wait().unwrap().success());
    }

    /// Stops it cleanly, and deletes its journal of containers.
    pub fn stop_and_forget(self) {
        let state = self.directory.join("state");
        self.stop();
        std::fs::remove_file(state.join("containers.journal")).expect("it kept a journal");
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            // Most lines are the tests' own requests.
            let said: Vec<_> = log.lines().filter(|line| !line.contains("admin call")).collect();
            eprintln!("the agent's log:\n{}", said.join("\n"));
        }
        let _either_way = self.child.kill();
        let _either_way = self.child.wait();
    }
}

/// Requests a path on the admin socket: POST with a body, otherwise GET.
fn http(socket: &Path, path: &str, body: Option<&str>) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    let (method, body) = (if body.is_some() { "POST" } else { "GET" }, body.unwrap_or_default());
    let length = body.len();
    let head = format!("host: agent\r\nconnection: close\r\ncontent-length: {length}\r\n");
    write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\n{body}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
