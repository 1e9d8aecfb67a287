//! A service manager that stores file descriptors, as systemd does: the next agent gets those that the previous one stored.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use tallyport::net::sys;

use crate::agent::{Agent, of_this_test};
use crate::restart::shown;
use crate::tools;

const LONG: &[&str] = &["--window", "1h"];

/// Executes a program that has descriptors of another process from number 3 upward, as `LISTEN_FDS` announces.
const LAUNCHER: &str = "use strict; use POSIX ();
    my ($pid, $numbers, @words) = @ARGV;
    my $process = syscall(434, $pid + 0, 0);
    my @got = map { syscall(438, $process, $_ + 0, 0) } split /,/, $numbers;
    POSIX::dup2($got[$_], 500 + $_) or die $! for 0 .. $#got;
    for (0 .. $#got) { POSIX::dup2(500 + $_, 3 + $_) or die $!; POSIX::close(500 + $_); }
    $ENV{LISTEN_PID} = $$; $ENV{LISTEN_FDS} = @got;
    exec { $words[0] } @words or die $!;";

type Stored = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// The manager of one service.
pub(crate) struct Manager {
    directory: tempfile::TempDir,
    stored: Stored,
    /// Messages that are not supported.
    strange: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let (stored, strange) = (Stored::default(), Arc::default());
        let manager = Self { directory, stored: Arc::clone(&stored), strange: Arc::clone(&strange) };
        std::thread::spawn(move || {
            loop {
                let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                poll(&mut ready, PollTimeout::NONE).unwrap();
                let mut buffer = [0; 1024];
                let message = sys::receive_message(&socket, &mut buffer).unwrap();
                let text = String::from_utf8(buffer[..message.length].to_vec()).unwrap();
                let named = text.split('\n').find_map(|line| line.strip_prefix("FDNAME="));
                let mut stored = stored.lock().unwrap();
                match (text.split('\n').next().unwrap(), named) {
                    // Without FDPOLL=0, systemd would close a pidfd when its process ends.
                    ("FDSTORE=1", Some(name)) if text.ends_with("\nFDPOLL=0") => {
                        stored.extend(message.passed.into_iter().map(|passed| (name.to_owned(), passed)));
                    }
                    ("FDSTOREREMOVE=1", Some(name)) => stored.retain(|(stored, _)| stored != name),
                    // The descriptor is closed, which is the reply.
                    ("BARRIER=1", None) => {}
                    _ => Mutex::lock(&strange).unwrap().push(text),
                }
            }
        });
        manager
    }

    fn names(&self) -> Vec<String> {
        self.stored.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    /// Starts the service with all stored descriptors, newest first, as systemd does.
    fn service(&self, directory: tempfile::TempDir, room: usize) -> Agent {
        self.service_with(directory, room, LONG)
    }

    /// The same with other flags.
    pub(crate) fn service_with(&self, directory: tempfile::TempDir, room: usize, flags: &[&str]) -> Agent {
        let stored = self.stored.lock().unwrap();
        let numbers: Vec<_> = stored.iter().rev().map(|(_, it)| it.as_raw_fd().to_string()).collect();
        let names: Vec<_> = stored.iter().rev().map(|(name, _)| name.clone()).collect();
        drop(stored);
        let socket = format!("NOTIFY_SOCKET={}", self.socket().display());
        let (room, names) = (format!("FDSTORE={room}"), format!("LISTEN_FDNAMES={}", names.join(":")));
        let (pid, numbers) = (std::process::id().to_string(), numbers.join(","));
        let launcher = ["env", &socket, &room, &names, "perl", "-e", LAUNCHER, &pid, &numbers];
        Agent::by(&launcher, directory, flags)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("notify")
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(*self.strange.lock().unwrap(), Vec::<String>::new());
        }
    }
}

fn started(manager: &Manager, room: usize) -> Agent {
    manager.service(tempfile::tempdir().unwrap(), room)
}

#[test]
fn what_the_service_manager_keeps_the_next_agent_has() {
    let Some(()) = tools::guard() else { return };
    let manager = Manager::start();
    let mut agent = started(&manager, 4096);
    let web = agent.reserve(&of_this_test("stored-1"), "web");
    agent.reserve(&of_this_test("waiting"), "later");
    web.send("a:3|c");
    agent.until("it is counted", || shown(&agent, &of_this_test("stored-1"))["received"] == 1);
    let epoch = agent.get("/v1/node").1["epoch"].clone();
    for round in 1..=2 {
        let directory = agent.into_directory();
        let names = manager.names();
        assert!(names.len() > 10, "the agent's own, two of containers, and the state: {names:?}");
        assert_eq!(names.last().unwrap(), "tp0", "without the state nothing is complete");
        (0..50).for_each(|_| web.send("a:1|c"));
        agent = manager.service(directory, 4096);
        agent.until("all is counted", || {
            shown(&agent, &of_this_test("stored-1"))["received"] == 1 + 50 * round
        });
        agent.until_logged("\"from\":\"service manager\"");
        assert_eq!(agent.get("/v1/node").1["epoch"], epoch);
        agent.until("nothing is stored any more", || manager.names().is_empty());
    }
    assert_eq!(agent.metrics("web", "?window=open")[0]["value"], json!(103.0));
    assert_eq!(shown(&agent, &of_this_test("waiting"))["state"], "listening");
}

#[test]
fn a_store_without_enough_room_keeps_nothing_and_the_agent_ends_as_ever() {
    let Some(()) = tools::guard() else { return };
    let manager = Manager::start();
    let agent = started(&manager, 5);
    let web = agent.reserve(&of_this_test("stored-1"), "web");
    web.send("a:3|c");
    agent.until("it is counted", || shown(&agent, &of_this_test("stored-1"))["received"] == 1);
    let directory = agent.into_directory();
    assert_eq!(manager.names(), Vec::<String>::new());
    let agent = Agent::in_directory(directory, LONG);
    assert!(!agent.log().contains("did not end in order"), "{}", agent.log());
    assert_eq!(agent.totals("web")["a"]["value"], 3.0);
}

#[test]
fn what_is_not_complete_is_let_go_of_and_the_agent_starts_from_what_is_on_disk() {
    let Some(()) = tools::guard() else { return };
    let manager = Manager::start();
    let agent = started(&manager, 4096);
    let web = agent.reserve(&of_this_test("stored-1"), "web");
    web.send("a:3|c");
    agent.until("it is counted", || shown(&agent, &of_this_test("stored-1"))["received"] == 1);
    let directory = agent.into_directory();
    manager.stored.lock().unwrap().retain(|(name, _)| name != "tp0" && name != "tp3");
    let agent = manager.service(directory, 4096);
    agent.until_logged("is incomplete");
    assert_eq!(manager.names(), Vec::<String>::new());
    web.send("a:4|c");
    agent.until("its address is its own", || shown(&agent, &of_this_test("stored-1"))["received"] == 1);
    agent.finish(&of_this_test("stored-1"));
    assert_eq!(agent.totals("web")["a"]["value"], 7.0);
}

#[test]
fn descriptors_that_are_nothing_of_an_agents_do_not_bother_it() {
    let Some(()) = tools::guard() else { return };
    let manager = Manager::start();
    let other = UnixDatagram::unbound().unwrap();
    manager.stored.lock().unwrap().push(("theirs".to_owned(), other.into()));
    let agent = started(&manager, 4096);
    assert_eq!(agent.get("/ready").0, 200);
    assert_eq!(manager.names(), ["theirs"]);
    // Without a manager, the agent does not look for descriptors.
    let plain = Agent::by(&["env", "LISTEN_FDS=7", "LISTEN_PID=1"], tempfile::tempdir().unwrap(), LONG);
    assert_eq!((plain.get("/ready").0, plain.get("/v1/tasks").1), (200, Value::Array(Vec::new())));
}
