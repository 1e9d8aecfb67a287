//! An agent that ends before the next one starts: a keeper holds its state, and nothing is lost.

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tallyport::net::passing::Channel;
use tallyport::net::unix::listen_for_messages;

use crate::agent::{Address, Agent, BINARY, PATIENCE, of_this_test};
use crate::groups::{Group, Way, send_from};
use crate::handover::Load;
use crate::restart::{Sleeper, shown};
use crate::tools;

const LONG: &[&str] = &["--window", "1h"];

/// A keeper for the agent of a directory.
pub(crate) struct Keeper {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    socket: PathBuf,
}

impl Keeper {
    pub(crate) fn start(directory: &Path, flags: &[&str]) -> Self {
        let state = directory.join("state");
        std::fs::create_dir_all(&state).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["keeper", "--set", "log.format=json", "--state-dir"]).arg(&state).args(flags);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
        });
        let keeper = Self { child, log, socket: state.join("keeper.sock") };
        keeper.until("keeping");
        keeper
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    fn until(&self, message: &str) {
        let deadline = Instant::now() + PATIENCE;
        let message = format!("\"message\":\"{message}");
        while !self.log().contains(&message) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {message}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _either_way = self.child.kill();
        let _either_way = self.child.wait();
    }
}

fn pair(flags: &[&str], of_keeper: &[&str]) -> (Agent, Keeper) {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::start(directory.path(), of_keeper);
    (Agent::in_directory(directory, flags), keeper)
}

fn web(agent: &Agent) -> Address {
    agent.reserve(&of_this_test("kept-1"), "web")
}

fn open_total(agent: &Agent) -> Value {
    agent.metrics("web", "?window=open")[0]["value"].clone()
}

#[test]
fn what_an_agent_had_the_next_one_has_and_what_was_sent_between_them_too() {
    let (agent, keeper) = pair(LONG, &[]);
    let process = Sleeper::start();
    let web = agent.reserve_with(
        &json!({"container_id": of_this_test("kept-1"), "task_id": "web", "pid": process.pid()}),
    );
    web.send("a:3|c");
    agent.until("it is counted", || shown(&agent, &of_this_test("kept-1"))["received"] == 1);
    let epoch = agent.get("/v1/node").1["epoch"].clone();
    let http = agent.http;
    let directory = agent.into_directory();
    keeper.until("keeping what an agent has left");
    (0..50).for_each(|_| web.send("a:1|c"));
    // Clients are answered once the next agent runs.
    let asking = std::net::TcpStream::connect(http).unwrap();
    let agent = Agent::in_directory(directory, LONG);
    drop(asking);
    agent.until("all is counted", || shown(&agent, &of_this_test("kept-1"))["received"] == 51);
    assert_eq!(open_total(&agent), json!(53.0));
    assert_eq!((&agent.get("/v1/node").1["epoch"], agent.http), (&epoch, http));
    let took = agent.log().lines().find(|line| line.contains("took over")).map(str::to_owned).unwrap();
    let took: Value = serde_json::from_str(&took).unwrap();
    assert_eq!(took["from"], "keeper");
    assert!(took["fullest_percent"].as_f64().unwrap() > 0.0, "{took}");
    assert!(!agent.log().contains("did not end in order"), "{}", agent.log());
    keeper.until("an agent goes on with what was kept");
    // The end of a process is seen by the handle that came along.
    drop(process);
    agent.until("it has ended", || shown(&agent, &of_this_test("kept-1"))["state"] == "gone");
    // The state is the new agent's own now: a kill has the usual effect.
    web_again(agent);
}

/// After a kill, the state on disk is restored once.
fn web_again(mut agent: Agent) {
    agent.reserve(&of_this_test("kept-2"), "other").send("b:7|c");
    agent.until("it is counted", || shown(&agent, &of_this_test("kept-2"))["received"] == 1);
    // A kill may lose data younger than a checkpoint: the fifty samples, or the window that ended with its container.
    let checkpoints = || agent.own_metric("tallyport_checkpoints_total");
    let now = checkpoints();
    agent.until("two checkpoints are made", || checkpoints() >= now + 2.0);
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let agent = Agent::in_directory(agent.into_dead_directory(), LONG);
    assert_eq!(shown(&agent, &of_this_test("kept-2"))["state"], "listening");
    assert_eq!(agent.totals("web")["a"]["value"], 53.0);
}

#[test]
fn a_load_of_known_totals_does_not_notice_that_there_was_no_agent_for_five_seconds() {
    let flags = ["--window", "1s", "--keep", "600"];
    let (agent, _keeper) = pair(&flags, &[]);
    // Few enough that a receive buffer of 256 KiB holds more than five seconds.
    let load = Load::under_way(&agent, ("51200", "640"), 500);
    let directory = agent.into_directory();
    std::thread::sleep(Duration::from_secs(5));
    load.has_come_to(&Agent::in_directory(directory, &flags));
}

#[test]
fn a_keeper_that_dies_with_it_costs_what_a_kill_costs() {
    let (agent, mut keeper) = pair(LONG, &[]);
    let web = web(&agent);
    web.send("a:3|c");
    agent.until("it is counted", || shown(&agent, &of_this_test("kept-1"))["received"] == 1);
    let directory = agent.into_directory();
    keeper.until("keeping what an agent has left");
    keeper.end(Signal::SIGKILL);
    let agent = Agent::in_directory(directory, LONG);
    agent.until_logged("did not end in order");
    web.send("a:4|c");
    agent.until("its address is its own", || shown(&agent, &of_this_test("kept-1"))["received"] == 1);
    // Received data was written when the agent ended, at the latest.
    agent.finish(&of_this_test("kept-1"));
    assert_eq!(agent.totals("web")["a"]["value"], 7.0);
}

#[test]
fn a_keeper_that_is_told_to_end_says_what_goes_with_it() {
    let (agent, mut keeper) = pair(LONG, &[]);
    web(&agent);
    let directory = agent.into_directory();
    keeper.until("keeping what an agent has left");
    assert_eq!(keeper.end(Signal::SIGTERM), Some(0));
    assert!(keeper.log().contains("the keeper ends while it holds sockets and state"), "{}", keeper.log());
    assert!(!keeper.socket.exists());
    assert_eq!(shown(&Agent::in_directory(directory, LONG), &of_this_test("kept-1"))["state"], "listening");
}

#[test]
fn what_is_not_claimed_is_let_go_of() {
    let (agent, keeper) = pair(LONG, &["--hold", "1s"]);
    let web = web(&agent);
    let directory = agent.into_directory();
    keeper.until("keeping what an agent has left");
    assert!(std::net::UdpSocket::bind(web.to).is_err(), "it is kept");
    keeper.until("no agent started in time");
    drop(std::net::UdpSocket::bind(web.to).unwrap());
    // The journal still has the container.
    let agent = Agent::in_directory(directory, LONG);
    web.send("a:1|c");
    agent.until("it is heard", || shown(&agent, &of_this_test("kept-1"))["received"] == 1);
}

#[test]
fn an_agent_that_cannot_go_on_with_it_starts_from_what_is_on_disk() {
    let (agent, keeper) = pair(LONG, &[]);
    let web = web(&agent);
    let directory = agent.into_directory();
    let agent = Agent::in_directory(directory, &["--window", "1s"]);
    agent.until_logged("windows.length differs");
    keeper.until("an agent could not use the kept state");
    web.send("a:1|c");
    agent.until("its address is its own", || shown(&agent, &of_this_test("kept-1"))["received"] == 1);
}

#[test]
fn a_claimant_that_dies_leaves_it_where_it_is() {
    let (agent, keeper) = pair(LONG, &[]);
    let web = web(&agent);
    web.send("a:1|c");
    agent.until("it is counted", || shown(&agent, &of_this_test("kept-1"))["received"] == 1);
    let directory = agent.into_directory();
    let channel = Channel::connect(&keeper.socket).unwrap();
    channel.send(b"give 1", &[]).unwrap();
    assert_eq!(channel.receive(PATIENCE).unwrap().0, b"kept");
    let taken = channel.receive_all(PATIENCE).unwrap();
    assert!(taken.1.len() > 8, "there are the agent's own, and one of the container");
    drop((channel, taken));
    keeper.until("an agent did not take what is kept; still keeping it");
    web.send("a:1|c");
    let agent = Agent::in_directory(directory, LONG);
    agent.until("all is there", || shown(&agent, &of_this_test("kept-1"))["received"] == 2);
    assert_eq!(open_total(&agent), json!(2.0));
}

#[test]
fn an_agent_that_dies_while_it_leaves_something_has_left_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = Keeper::start(directory.path(), &[]);
    let channel = Channel::connect(&keeper.socket).unwrap();
    channel.send(b"keep 1", &[]).unwrap();
    assert_eq!(channel.receive(PATIENCE).unwrap().0, b"yes");
    drop(channel);
    keeper.until("an agent has left nothing after all");
    let channel = Channel::connect(&keeper.socket).unwrap();
    channel.send(b"give 1", &[]).unwrap();
    assert_eq!(channel.receive(PATIENCE).unwrap().0, b"nothing");
}

#[test]
fn another_version_is_told_so_and_an_agent_ends_as_ever_where_it_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut keeper = Keeper::start(directory.path(), &[]);
    let channel = Channel::connect(&keeper.socket).unwrap();
    channel.send(b"keep 9", &[]).unwrap();
    let (answer, _) = channel.receive(PATIENCE).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), "no: this keeper understands version 1 only");
    keeper.end(Signal::SIGTERM);
    // A keeper that does not support the current messages.
    let (listener, _name) = listen_for_messages(&keeper.socket, 0o600).unwrap();
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let channel = Channel::from_accepted(stream.unwrap().into()).unwrap();
            let _either_way = channel.receive(PATIENCE);
            let _either_way = channel.send(b"no: this keeper understands version 0 only", &[]);
        }
    });
    let agent = Agent::in_directory(directory, LONG);
    let web = web(&agent);
    web.send("a:3|c");
    agent.until("it is counted", || shown(&agent, &of_this_test("kept-1"))["received"] == 1);
    let directory = agent.into_directory();
    let agent = Agent::in_directory(directory, LONG);
    agent.until_logged("understands version 0 only");
    assert!(!agent.log().contains("did not end in order"), "{}", agent.log());
    assert_eq!(agent.totals("web")["a"]["value"], 3.0);
}

#[test]
fn a_stranger_gets_nothing() {
    let Some(()) = tools::guard() else { return };
    let (agent, keeper) = pair(LONG, &[]);
    web(&agent);
    let directory = agent.into_directory();
    keeper.until("keeping what an agent has left");
    // The modes would deny this user access, so they are widened.
    let open = |path: &Path, mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
    };
    open(directory.path(), 0o755);
    open(keeper.socket.parent().unwrap(), 0o755);
    open(&keeper.socket, 0o666);
    let script = "use Socket; socket(my $s, AF_UNIX, SOCK_SEQPACKET, 0) or die $!;
        connect($s, pack_sockaddr_un($ARGV[0])) or die $!;
        send($s, 'give 1', 0); print length(recv($s, my $b, 99, 0) // '') + length($b // '');";
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e", script])
        .arg(&keeper.socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), said.as_ref()), ("0", ""));
    keeper.until("refused a connection to the keeper");
    assert!(keeper.log().contains("it is a process of user 65534"), "{}", keeper.log());
    assert_eq!(shown(&Agent::in_directory(directory, LONG), &of_this_test("kept-1"))["state"], "listening");
}

#[test]
fn the_guard_stays_up_while_there_is_no_agent() {
    let Some(()) = tools::guard() else { return };
    let flags = [LONG, &["--set", "listeners.guard=required"]].concat();
    let (agent, keeper) = pair(&flags, &[]);
    let (own, other) = (Group::new(), Group::new());
    let (process, _others) = (own.process(), other.process());
    let to = web(&agent).to;
    let (status, answer) = agent.admin(
        "POST",
        &format!("/v1/containers/{}/attach", of_this_test("kept-1")),
        &json!({"pid": process.pid()}),
    );
    assert_eq!(status, 200, "{answer}");
    let way = Way::ALL[0];
    assert_ne!(send_from(Some(&other), way, to, "a:1|c"), 0);
    let directory = agent.into_directory();
    keeper.until("keeping what an agent has left");
    assert_ne!(send_from(Some(&other), way, to, "a:1|c"), 0, "no agent runs");
    assert_eq!(send_from(Some(&own), way, to, "a:1|c"), 0);
    let agent = Agent::in_directory(directory, &flags);
    agent.until("its own is heard", || shown(&agent, &of_this_test("kept-1"))["received"] == 1);
    assert_ne!(send_from(Some(&other), way, to, "a:1|c"), 0, "there is another guard");
}

#[test]
fn a_mistake_in_the_configuration_costs_nothing_of_what_is_kept() {
    let (agent, keeper) = pair(LONG, &[]);
    let web = web(&agent);
    web.send("a:3|c");
    agent.until("it is counted", || shown(&agent, &of_this_test("kept-1"))["received"] == 1);
    let directory = agent.into_directory();
    keeper.until("keeping what an agent has left");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let mut next = Command::new(BINARY);
    next.args(["agent", "--window", "1h", "--http-listen", &listen, "--admin-socket"]);
    next.arg(directory.path().join("admin.sock")).arg("--state-dir").arg(directory.path().join("state"));
    let refused = crate::agent::ran(&mut next);
    assert!(refused.code == 1 && refused.err.contains("cannot listen on"), "{}", refused.err);
    keeper.until("an agent did not take what is kept; still keeping it");
    web.send("a:4|c");
    let agent = Agent::in_directory(directory, LONG);
    agent.until("all is counted", || shown(&agent, &of_this_test("kept-1"))["received"] == 2);
    assert_eq!(open_total(&agent), json!(7.0));
}

/// A keeper that accepts what the agent of a directory is about to leave, or says nothing. Afterwards it tells what came next, or
/// why nothing did.
fn strange_keeper(directory: &Path, accepts: bool) -> (mpsc::Receiver<()>, JoinHandle<io::Result<Vec<u8>>>) {
    let (listener, name) = listen_for_messages(&directory.join("state/keeper.sock"), 0o600).unwrap();
    listener.set_nonblocking(false).unwrap();
    let (asked, was_asked) = mpsc::channel();
    let keeping = std::thread::spawn(move || {
        let channel = Channel::from_accepted(listener.accept().unwrap().0.into()).unwrap();
        assert_eq!(channel.receive(PATIENCE).unwrap().0, b"keep 1");
        if accepts {
            channel.send(b"yes", &[]).unwrap();
        }
        asked.send(()).unwrap();
        let next = channel.receive(PATIENCE).map(|(message, _)| message);
        drop(name);
        next
    });
    (was_asked, keeping)
}

#[test]
fn a_second_signal_ends_the_wait_for_a_keeper_that_says_nothing() {
    let mut agent = Agent::with(LONG);
    let (asked, keeping) = strange_keeper(agent.admin_socket().parent().unwrap(), false);
    agent.signal(Signal::SIGTERM);
    asked.recv_timeout(PATIENCE).unwrap();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.wait().code(), Some(1), "{}", agent.log());
    agent.until_logged("\"the keeper cannot be used\",\"error\":\"given up");
    assert_eq!(keeping.join().unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_second_signal_leaves_nothing_with_a_keeper_while_the_window_log_waits_for_the_agent_before() {
    let old = Agent::with(LONG);
    old.reserve(&of_this_test("kept-1"), "web");
    let (mut agent, before) = old.handed_over_by_relay(LONG);
    let (asked, keeping) = strange_keeper(agent.admin_socket().parent().unwrap(), true);
    agent.signal(Signal::SIGTERM);
    asked.recv_timeout(PATIENCE).unwrap();
    agent.signal(Signal::SIGTERM);
    let next = keeping.join().unwrap();
    assert_eq!(next.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "nothing was left");
    assert_eq!(agent.wait().code(), Some(1), "{}", agent.log());
    drop(before);
}
