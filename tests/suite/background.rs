//! `tallyport agent --background` and `--stop`, and commands that wait for an agent and its tasks.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::agent::{BINARY, PATIENCE, Ran, ran};

/// The addresses of an agent in a directory of its own. Dropping it stops the agent.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn agent(&self, flags: &[&str]) -> Ran {
        let mut command = Command::new(BINARY);
        command.args(["agent", "--http-listen", "127.0.0.1:0"]);
        command.arg("--admin-socket").arg(self.path("admin.sock")).arg("--state-dir").arg(self.path("state"));
        ran(command.args(flags).stdin(Stdio::null()))
    }

    /// Starts an agent in the background. Returns its process and its URL.
    fn start(&self, flags: &[&str]) -> (i32, String) {
        let started = self.agent(&[&["--background", "--window", "1s"], flags].concat());
        assert_eq!(started.code, 0, "{started:?}");
        let log = self.path("state/agent.log").display().to_string();
        let words: Vec<&str> = started.out.trim_end().split(", ").collect();
        let [pid, url, file] = words[..] else { panic!("{started:?}") };
        assert_eq!(file, format!("log {log}"));
        let socket = self.path("admin.sock").display().to_string();
        assert_eq!(
            started.err,
            format!("for other commands: export TALLYPORT_URL={url} TALLYPORT_ADMIN_SOCKET={socket}\n")
        );
        (pid.strip_prefix("agent ready: pid ").unwrap().parse().unwrap(), url.to_owned())
    }

    fn client(&self, url: &str, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        let socket = self.path("admin.sock");
        command
            .args(args)
            .env("TALLYPORT_URL", url)
            .env("TALLYPORT_ADMIN_SOCKET", socket)
            .stdin(Stdio::null());
        command
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("state/agent.log")).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.agent(&["--stop"]);
    }
}

/// A process that ends with this value.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _either_way = self.0.kill();
        let _either_way = self.0.wait();
    }
}

/// The session of a process; `None` if the process has ended, even if its parent has not noticed.
fn session(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[0] != "Z").then(|| fields[3].parse().unwrap())
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn an_agent_in_the_background_is_ready_when_its_command_returns_and_ends_when_it_is_stopped() {
    let place = Place::new();
    let (pid, url) = place.start(&[]);
    let health = ran(&mut place.client(&url, &["health"]));
    assert!(health.code == 0 && health.out.ends_with(&format!("pid {pid}\n")), "{health:?}");
    assert_eq!(ran(&mut place.client(&url, &["doctor"])).code, 0);
    assert_eq!(session(pid), Some(pid), "no signal of this terminal reaches it");
    assert!(place.log().contains("listening"));
    let stopped = place.agent(&["--stop"]);
    assert_eq!((stopped.code, stopped.out), (0, format!("agent stopped: pid {pid}\n")));
    until("the process has ended", || session(pid).is_none());
    let again = place.agent(&["--stop"]);
    assert!(again.code == 5 && again.err.contains("no agent runs with the state directory"), "{again:?}");
}

#[test]
fn an_agent_that_cannot_start_in_the_background_says_why() {
    let place = Place::new();
    let (pid, url) = place.start(&[]);
    let second = place.agent(&["--background"]);
    assert!(second.code == 1 && second.out.is_empty(), "{second:?}");
    let why = format!("belongs to another agent, pid {pid}");
    assert!(second.err.contains(&why) && second.err.contains("agent.log"), "{second:?}");
    assert_eq!(ran(&mut place.client(&url, &["health"])).code, 0, "the first goes on");
    let wrong = place.agent(&["--background", "--set", "windows.keep=none"]);
    assert!(wrong.code == 1 && wrong.err.contains("windows.keep"), "{wrong:?}");
}

#[test]
fn an_agent_in_the_background_takes_over_from_another() {
    let place = Place::new();
    let (first, url) = place.start(&[]);
    for flag in ["--take-over", "--replace"] {
        let (next, same) = place.start(&[flag]);
        assert_eq!(same, url);
        assert_ne!(next, first);
    }
    until("the first has ended", || session(first).is_none());
    assert_eq!(place.log().matches("took over").count(), 2, "{}", place.log());
}

#[test]
fn commands_that_wait_are_answered_by_an_agent_and_a_task_that_start_later() {
    let place = Place::new();
    let url = format!("unix:{}", place.path("admin.sock").display());
    for args in [&["health"][..], &["metrics", "details", "late"]] {
        assert_eq!(ran(&mut place.client(&url, args)).code, 5, "without --wait it fails at once");
    }
    let wait = |args: &[&str]| {
        let mut command = place.client(&url, args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let waiting: Vec<Child> = [
        &["health", "--wait", "30s"][..],
        &["metrics", "details", "late", "--wait"],
        &["metrics", "summary", "late", "--wait=30s"],
        &["explain", "late", "hits", "--wait"],
    ]
    .into_iter()
    .map(wait)
    .collect();
    place.start(&[]);
    let script = "while sleep 0.05; do echo 'hits:1|c' >\"/dev/udp/$STATSD_UDP_HOST/$STATSD_UDP_PORT\"; done";
    let task = ["run", "--task-id", "late", "--", "bash", "-c", script];
    let _task = Started(place.client(&url, &task).spawn().unwrap());
    for child in waiting {
        let output = child.wait_with_output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !out.is_empty(), "{output:?}");
    }
}

#[test]
fn waiting_ends_with_the_message_and_the_code_of_a_command_that_does_not_wait() {
    let place = Place::new();
    let (_, url) = place.start(&[]);
    for args in [&["metrics", "details", "none"][..], &["explain", "none"]] {
        let at_once = ran(&mut place.client(&url, args));
        let waited = ran(&mut place.client(&url, &[args, &["--wait=100ms"]].concat()));
        assert_eq!((at_once.code, &at_once.err), (3, &waited.err));
        assert_eq!(waited.code, 3);
    }
}
