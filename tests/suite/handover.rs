//! Hand-overs: nothing is lost or counted twice, and a failed one changes nothing.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tallyport::model::Timestamp;
use tallyport::net::clock;
use tallyport::net::passing::Channel;

use crate::agent::{Agent, BINARY, PATIENCE, ran};
use crate::ending::hold_a_request;
use crate::namespaces::Namespace;
use crate::page::ask;
use crate::restart::{Sleeper, shown};
use crate::tools;

const LONG: &[&str] = &["--window", "1h"];

/// A load of known totals that continues over hand-overs.
pub(crate) struct Load {
    process: Child,
    /// The agent's cursor after the load has started.
    cursor: String,
}

impl Load {
    /// Starts to send this many values at this rate of datagrams per second, and waits until `received` have arrived.
    pub(crate) fn under_way(agent: &Agent, (samples, rate): (&str, &str), received: u64) -> Self {
        let mut load = Command::new(env!("CARGO_BIN_EXE_tallyport-load"));
        let url = format!("http://{}", agent.http);
        load.args(["--json", "--containers", "16", "--samples", samples, "--rate", rate, "--url", &url]);
        load.arg("--admin-socket").arg(agent.admin_socket()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = load.spawn().unwrap();
        agent.until("it is under way", || {
            agent.get("/v1/accounting").1["total"]["datagrams"]["received"].as_u64().unwrap() > received
        });
        let cursor = agent.get("/v1/node").1["cursor"].as_str().unwrap().to_owned();
        Self { process, cursor }
    }

    /// Waits for its end, and checks that everything has arrived, cursors continue, and every interval occurs exactly
    /// once.
    pub(crate) fn has_come_to(self, agent: &Agent) {
        let output = self.process.wait_with_output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert_eq!(report["mismatches"], json!([]), "{}", String::from_utf8_lossy(&output.stderr));
        let n = |key: &str| report[key].as_u64().unwrap();
        assert_eq!((n("sent"), n("kernel_drops")), (n("received"), 0), "{report}");
        let (status, after) = agent.get(&format!("/v1/metrics?since={}", self.cursor));
        assert_eq!(status, 200, "{after}");
        let records = after["metrics"].as_array().unwrap();
        let mut places: Vec<_> = records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
        let first: u64 = self.cursor.rsplit_once('-').unwrap().1.parse().unwrap();
        places.sort_unstable();
        assert_eq!(places, (first + 1..=first + places.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_load_of_known_totals_does_not_notice_five_hand_overs() {
    // Buffers for six seconds, longer than a pause on a busy machine. Larger ones would hold a backlog that such a
    // machine cannot read while the other process waits.
    let flags = ["--window", "1s", "--keep", "600", "--set", "listeners.receive_buffer=1MiB"];
    let mut agent = Agent::with(&flags);
    let load = Load::under_way(&agent, ("240000", "3000"), 1_000);
    let epoch = agent.get("/v1/node").1["epoch"].clone();
    for _ in 0..5 {
        // Each also waits until no window is about to be closed.
        std::thread::sleep(Duration::from_millis(400));
        agent = agent.handed_over(&flags);
    }
    load.has_come_to(&agent);
    assert_eq!(agent.get("/v1/node").1["epoch"], epoch);
}

#[test]
fn everything_that_was_there_is_there_and_goes_on() {
    let agent = Agent::with(LONG);
    let process = Sleeper::start();
    let web = agent.reserve_with(&json!({"container_id": "c1", "task_id": "web", "pid": process.pid()}));
    let waiting = agent.reserve("waiting", "later");
    agent.reserve("over", "done").send("a:3|c");
    agent.until("it is there", || shown(&agent, "over")["received"] == 1);
    agent.finish("over");
    web.send("hits:10|c\nlevel:5|g\nms:1:2:3|ms\nbad");
    agent.until("it is counted", || shown(&agent, "c1")["received"] == 1);
    // An upper estimate until the window closes.
    let shown_but_memory = |agent: &Agent| {
        let mut shown = shown(agent, "c1");
        shown.as_object_mut().unwrap().remove("memory");
        shown
    };
    let before = shown_but_memory(&agent);
    let last_problem = |agent: &Agent| {
        let (_, first) = ask(agent, "/v1/watch", &[]).events().nth(1).unwrap();
        let mut tasks = first["tasks"].as_array().unwrap().iter();
        tasks.find(|task| task["task_id"] == "web").unwrap()["last_problem"].clone()
    };
    let problem = last_problem(&agent);
    assert!(problem.is_string(), "{problem}");
    let agent = agent.handed_over(LONG);
    assert_eq!(shown_but_memory(&agent), before);
    assert_eq!(last_problem(&agent), problem, "what was lost in the kept windows is still new");
    assert!(agent.admin_socket().exists(), "its name is not the old one's any more");
    web.send("hits:5|c\nlevel:+2|g\nms:4|ms");
    waiting.send("a:1|c");
    agent.until("it is counted", || {
        shown(&agent, "c1")["received"] == 2 && shown(&agent, "waiting")["received"] == 1
    });
    let open = agent.metrics("web", "?window=open");
    let value = |name: &str| open.iter().find(|record| record["name"] == name).unwrap()["value"].clone();
    assert_eq!((value("hits"), value("level"), value("ms")), (json!(15.0), json!(7.0), json!(2.5)));
    assert_eq!(agent.totals("done")["a"]["value"], 3.0);
    let (_, accounting) = agent.get("/v1/accounting");
    assert_eq!(
        (&accounting["total"]["balanced"], &accounting["total"]["lines"]["rejected"]["missing_type"]),
        (&json!(true), &json!(1))
    );
    // The end of a process is seen by the handle that came along.
    drop(process);
    agent.until("it has ended", || shown(&agent, "c1")["state"] == "gone");
    assert_eq!(agent.totals("web")["hits"]["value"], 15.0);
    // A kill after a hand-over is like any other.
    let mut agent = agent;
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let agent = Agent::in_directory(agent.into_dead_directory(), LONG);
    assert_eq!(shown(&agent, "waiting")["state"], "listening");
    assert_eq!(agent.cli(&["doctor"]).code, 0, "{}", agent.cli(&["doctor"]).out);
}

#[test]
fn windows_are_on_disk_once_after_a_hand_over_and_a_kill() {
    let flags = ["--window", "1s"];
    let agent = Agent::with(&flags);
    let web = agent.reserve("c1", "web");
    let closed = |agent: &Agent| {
        let records = agent.metrics("web", "?window=all");
        records.iter().map(|record| (record["start"].clone(), record["value"].clone())).collect::<Vec<_>>()
    };
    web.send("a:1|c");
    agent.until("a window is closed", || closed(&agent).len() == 1);
    let mut agent = agent.handed_over(&flags);
    web.send("a:2|c");
    agent.until("another is closed", || closed(&agent).len() == 2);
    agent.until("both are on disk", || agent.own_metric("tallyport_window_log_windows_total") >= 2.0);
    let before = closed(&agent);
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let agent = Agent::in_directory(agent.into_dead_directory(), &flags);
    assert_eq!(closed(&agent), before);
    assert_eq!(shown(&agent, "c1")["state"], "listening");
    assert_eq!(agent.get("/v1/tasks").1.as_array().map(Vec::len), Some(1), "one task, not one for each life");
}

#[test]
fn what_was_counted_goes_over_by_containers_that_are_gone_too() {
    let mut flags = vec!["--window", "1s", "--set", "containers.tombstone=0s"];
    flags.extend(["--set", "prometheus.identity=low", "--set", "prometheus.timers=histogram"]);
    let agent = Agent::with(&flags);
    let address =
        agent.reserve_with(&json!({"container_id": "c1", "task_id": "job", "labels": {"job": "j"}}));
    agent
        .reserve_with(&json!({"container_id": "c2", "task_id": "job", "labels": {"job": "j"}}))
        .send("runs:1|c\ntime:7:11|ms");
    agent.until("it is counted", || shown(&agent, "c2")["received"] == 1);
    agent.finish("c2");
    let counted = |agent: &Agent| {
        let page = String::from_utf8(agent.get_raw("/metrics/tasks").body.to_vec()).unwrap();
        let values =
            ["runs_total{", "time_seconds_bucket{workload=\"job\",le=\"0.01\"}", "time_seconds_count{"].map(
                |start| {
                    let line = page.lines().find(|line| line.starts_with(start))?;
                    line.rsplit_once(' ')?.1.parse::<f64>().ok()
                },
            );
        values.map(Option::unwrap_or_default)
    };
    agent.until("it is forgotten, and still counts", || {
        agent.admin("GET", "/v1/containers/c2", &json!({})).0 == 404 && counted(&agent) == [1.0, 1.0, 2.0]
    });
    address.send("time:3|ms");
    agent.until("both are one", || counted(&agent) == [1.0, 2.0, 3.0]);
    let agent = agent.handed_over(&flags);
    assert_eq!(counted(&agent), [1.0, 2.0, 3.0]);
    address.send("time:10|ms");
    agent.until("all of it goes on", || counted(&agent) == [1.0, 3.0, 4.0]);
}

#[test]
fn sockets_inside_networks_and_unix_sockets_go_over_too() {
    let Some(()) = tools::network_namespaces() else { return };
    let flags = ["--window", "1h", "--set", "unix.mode=all"];
    let agent = Agent::with(&flags);
    let namespace = Namespace::new();
    agent.reserve_with(&json!({"container_id": "c1", "network": {"mode": "new"}, "ttl": null}));
    // Not before, because an older process would not be accepted.
    let process = namespace.process();
    let (status, answer) = agent.admin("POST", "/v1/containers/c1/attach", &json!({"pid": process.pid()}));
    assert_eq!(status, 200, "{answer}");
    let socket = shown(&agent, "c1")["unix_socket"].clone();
    process.send(18_125, "a:1|c");
    agent.until("it is heard", || shown(&agent, "c1")["received"] == 1);
    let agent = agent.handed_over(&flags);
    assert_eq!(
        (&shown(&agent, "c1")["origin_guard"], &shown(&agent, "c1")["unix_socket"]),
        (&json!("netns"), &socket)
    );
    process.send(18_125, "a:1|c");
    agent.until("it is heard", || shown(&agent, "c1")["received"] == 2);
    let source = socket["source"].as_str().or(socket["directory"].as_str());
    assert!(source.is_none_or(|source| std::fs::read_dir(source).unwrap().count() == 1), "{socket}");
}

#[test]
fn a_process_that_would_run_with_something_else_is_refused_and_the_old_one_goes_on() {
    let agent = Agent::with(LONG);
    let web = agent.reserve("c1", "web");
    let socket = agent.admin_socket();
    let refused = ran(Command::new(BINARY)
        .args(["agent", "--take-over", "--http-listen", "127.0.0.1:0", "--window", "2s", "--admin-socket"])
        .arg(&socket)
        .arg("--state-dir")
        .arg(socket.with_file_name("state")));
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("windows.length differs; restart the agent instead"), "{}", refused.err);
    web.send("a:1|c");
    agent.until("it is heard", || shown(&agent, "c1")["received"] == 1);
    agent.until_logged("hand-over failed; continuing");
    assert!(socket.exists());
}

/// Receives all messages to a process that takes over. Returns the last one and its descriptors.
fn last_message(channel: &Channel) -> (Vec<u8>, Vec<OwnedFd>) {
    loop {
        let (bytes, descriptors) = channel.receive_all(PATIENCE).unwrap();
        if !descriptors.is_empty() {
            return (bytes, descriptors);
        }
        channel.send(b"have", &[]).unwrap();
    }
}

/// A process that takes over from this agent, and has received no state yet.
fn takes_over(agent: &Agent) -> Channel {
    let path = agent.admin_socket().with_file_name("state").join("hand-over.sock");
    let channel = Channel::connect(&path).unwrap();
    channel.receive(PATIENCE).unwrap();
    channel.send(b"take", &[]).unwrap();
    channel
}

impl Agent {
    /// Another process, which takes over from this one by a process between them. The connection to the new one stays open, as if
    /// this one were still about to end.
    pub(crate) fn handed_over_by_relay(mut self, flags: &[&str]) -> (Self, Channel) {
        let socket = self.admin_socket().with_file_name("state").join("hand-over.sock");
        let moved = socket.with_file_name("moved.sock");
        std::fs::rename(&socket, &moved).unwrap();
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        listener.bind(&SockAddr::unix(&socket).unwrap()).unwrap();
        listener.listen(1).unwrap();
        let relay = std::thread::spawn(move || {
            let new = Channel::from_accepted(listener.accept().unwrap().0.into()).unwrap();
            let old = Channel::connect(&moved).unwrap();
            let word =
                |from: &Channel, to: &Channel| to.send(&from.receive(PATIENCE).unwrap().0, &[]).unwrap();
            word(&old, &new);
            word(&new, &old);
            loop {
                let (bytes, descriptors) = old.receive_all(PATIENCE).unwrap();
                new.send_all(&bytes, &descriptors).unwrap();
                if !descriptors.is_empty() {
                    break;
                }
                word(&new, &old);
            }
            for _ in ["ready, go", "serving, bye"] {
                word(&new, &old);
                word(&old, &new);
            }
            new
        });
        let next = self.followed_by(&[flags, &["--take-over"]].concat());
        let before = relay.join().unwrap();
        assert!(self.wait().success(), "{}", self.log());
        (next, before)
    }
}

#[test]
fn only_what_has_changed_meanwhile_is_left_for_the_pause() {
    let agent = Agent::with(LONG);
    let web = agent.reserve("c1", "web");
    let name = |n: usize| format!("requests.of.a.series.with.a.long.name.{n}");
    let all: Vec<_> = (0..2000).collect();
    for some in all.chunks(20) {
        let lines: Vec<_> = some.iter().map(|n| format!("{}:1|c", name(*n))).collect();
        web.send(lines.join("\n"));
    }
    agent.until("all is counted", || shown(&agent, "c1")["received"] == 100);
    let (state, descriptors) = last_message(&takes_over(&agent));
    assert!(state.len() < 10_000, "{} bytes", state.len());
    drop(descriptors);
    // That process has ended, and data sent now is a change to the snapshot that the next one gets.
    web.send("a:2|c");
    agent.until("it is counted", || shown(&agent, "c1")["received"] == 101);
    let agent = agent.handed_over(LONG);
    assert_eq!(shown(&agent, "c1")["received"], 101);
    let open = agent.metrics("web", "?window=open");
    let sum: f64 = open.iter().map(|record| record["value"].as_f64().unwrap()).sum();
    assert_eq!((open.len(), sum), (2001, 2002.0));
}

/// Waits until a window of two seconds is about to be closed. Returns when it ends.
fn about_to_be_closed() -> Timestamp {
    let window = Duration::from_secs(2);
    loop {
        let now = clock::wall_time();
        let over = now.floor_to_window(window).saturating_add(window);
        if over.duration_since(now) < Duration::from_millis(300) {
            return over;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn no_window_is_closed_in_the_pause() {
    let agent = Agent::with(&["--window", "2s"]);
    agent.reserve("c1", "web").send("a:1|c");
    let over = about_to_be_closed();
    let channel = takes_over(&agent);
    let (_, descriptors) = last_message(&channel);
    assert!(clock::wall_time() >= over, "the pause began before a window that was due");
    drop((channel, descriptors));
    agent.until("it goes on", || agent.totals("web")["a"]["value"] == 1.0);
}

#[test]
fn a_signal_ends_the_wait_for_windows_to_be_closed() {
    let mut agent = Agent::with(&["--window", "2s"]);
    agent.reserve("c1", "web").send("a:1|c");
    agent.until("it is counted", || shown(&agent, "c1")["received"] == 1);
    about_to_be_closed();
    let channel = takes_over(&agent);
    channel.receive_all(PATIENCE).unwrap();
    channel.send(b"have", &[]).unwrap();
    agent.signal(Signal::SIGTERM);
    agent.until_logged("waiting for its outcome");
    let (_, descriptors) = last_message(&channel);
    for (said, heard) in [(&b"ready"[..], &b"go"[..]), (b"serving", b"bye")] {
        channel.send(said, &[]).unwrap();
        assert_eq!(channel.receive(PATIENCE).unwrap().0, heard);
    }
    assert!(agent.wait().success(), "{}", agent.log());
    agent.until_logged("handed over");
    drop(descriptors);
}

#[test]
fn wherever_the_other_process_dies_the_old_one_goes_on_and_loses_nothing() {
    let agent = Agent::with(LONG);
    let web = agent.reserve("c1", "web");
    let path = agent.admin_socket().with_file_name("state").join("hand-over.sock");
    let mut sent = 0;
    // The other process sends this many messages and ends.
    for words in 0..=4 {
        let channel = Channel::connect(&path).unwrap();
        channel.receive(PATIENCE).unwrap();
        let mut taken = Vec::new();
        if words > 0 {
            channel.send(b"take", &[]).unwrap();
            channel.receive_all(PATIENCE).unwrap();
        }
        if words > 1 {
            channel.send(b"have", &[]).unwrap();
            let (_, none) = channel.receive_all(PATIENCE).unwrap();
            assert!(none.is_empty(), "open aggregates go ahead as well");
        }
        if words > 2 {
            channel.send(b"have", &[]).unwrap();
            taken = last_message(&channel).1;
            assert!(taken.len() > 8, "there are the agent's own, and one of the container");
            // No process reads the socket, and nothing is lost.
            (0..50).for_each(|_| web.send("a:1|c"));
            sent += 50;
        }
        if words > 3 {
            channel.send(b"ready", &[]).unwrap();
            assert_eq!(channel.receive(PATIENCE).unwrap().0, b"go");
        }
        drop((channel, taken));
        web.send("a:1|c");
        sent += 1;
        agent.until("all is counted", || shown(&agent, "c1")["received"] == sent);
        assert_eq!(agent.get("/ready").0, 200);
    }
    assert_eq!(agent.metrics("web", "?window=open")[0]["value"].as_f64(), Some(f64::from(sent)));
    // A process that does not end takes over.
    let agent = agent.handed_over(LONG);
    assert_eq!(shown(&agent, "c1")["received"], sent);
}

#[test]
fn a_signal_in_the_middle_of_a_hand_over_takes_nothing_from_the_process_that_takes_over() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = Agent::with(LONG);
        let socket = agent.admin_socket();
        let channel = Channel::connect(&socket.with_file_name("state").join("hand-over.sock")).unwrap();
        channel.receive(PATIENCE).unwrap();
        channel.send(b"take", &[]).unwrap();
        let (_, descriptors) = last_message(&channel);
        // From here on the other process has all it needs, and takes over.
        agent.signal(signal);
        for (said, heard) in [(&b"ready"[..], &b"go"[..]), (b"serving", b"bye")] {
            channel.send(said, &[]).unwrap();
            assert_eq!(channel.receive(PATIENCE).unwrap().0, heard);
        }
        assert!(agent.wait().success(), "{}", agent.log());
        agent.until_logged("handed over");
        assert!(socket.exists() && socket.with_added_extension("fd").exists(), "the names are the other's");
        drop(descriptors);
    }
}

/// An agent whose container has sent `a:3|c`, and a process that has begun to take over and has the closed windows.
fn half_way(mut agent: Agent) -> (Agent, Channel) {
    agent.reserve("c1", "web").send("a:3|c");
    agent.until("it is counted", || shown(&agent, "c1")["received"] == 1);
    let path = agent.admin_socket().with_file_name("state").join("hand-over.sock");
    let channel = Channel::connect(&path).unwrap();
    channel.receive(PATIENCE).unwrap();
    channel.send(b"take", &[]).unwrap();
    let (_, descriptors) = channel.receive_all(PATIENCE).unwrap();
    assert!(descriptors.is_empty(), "the windows come first");
    agent.signal(Signal::SIGTERM);
    agent.until_logged("waiting for its outcome");
    assert!(agent.is_running());
    (agent, channel)
}

#[test]
fn a_hand_over_whose_windows_are_being_sent_is_finished_before_a_signal_ends_the_agent() {
    let (mut agent, channel) = half_way(Agent::with(LONG));
    let socket = agent.admin_socket();
    channel.send(b"have", &[]).unwrap();
    let (_, descriptors) = channel.receive_all(PATIENCE).unwrap();
    assert!(descriptors.len() > 8, "no more windows are sent than have to be");
    for (said, heard) in [(&b"ready"[..], &b"go"[..]), (b"serving", b"bye")] {
        channel.send(said, &[]).unwrap();
        assert_eq!(channel.receive(PATIENCE).unwrap().0, heard);
    }
    assert!(agent.wait().success(), "{}", agent.log());
    agent.until_logged("handed over");
    assert!(socket.exists(), "the names are the other's");
}

#[test]
fn a_hand_over_that_fails_after_a_signal_leaves_the_agents_state_on_disk() {
    let (mut agent, channel) = half_way(Agent::with(LONG));
    drop(channel);
    assert!(agent.wait().success(), "{}", agent.log());
    let agent = Agent::in_directory(agent.into_dead_directory(), LONG);
    assert_eq!(agent.totals("web")["a"]["value"], 3.0);
    assert_eq!(agent.get("/v1/accounting").1["total"]["balanced"], true);
}

#[test]
fn an_admin_socket_whose_name_is_gone_stops_no_hand_over() {
    let agent = Agent::with(LONG);
    let web = agent.reserve("c1", "web");
    let (old, new) = (agent.admin_socket(), agent.admin_socket().with_file_name("elsewhere.sock"));
    web.send("a:1|c");
    agent.until("it is counted", || shown(&agent, "c1")["received"] == 1);
    std::fs::remove_file(old.with_added_extension("fd")).unwrap();
    std::fs::remove_file(old).unwrap();
    let agent = agent.handed_over(&[LONG, &["--admin-socket", new.to_str().unwrap()]].concat());
    web.send("a:1|c");
    agent.until("all is counted", || agent.metrics("web", "?window=open")[0]["value"] == 2.0);
}

#[test]
fn a_process_that_is_replaced_after_its_deadline_waits_all_the_same() {
    let flags =
        ["--window", "1h", "--set", "agent.after_hand_over=wait", "--set", "agent.drain_deadline=100ms"];
    let mut old = Agent::with(&flags);
    // A request that never ends delays the drain.
    let _held = hold_a_request(&old);
    let new = old.followed_by(&["--window", "1m", "--replace"]);
    assert_eq!(new.get("/ready").0, 200);
    assert!(old.is_running(), "{}", old.log());
    old.signal(Signal::SIGTERM);
    assert_eq!(old.wait().code(), Some(1), "it was cut short: {}", old.log());
}

/// A free port.
fn free_port() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn listeners_that_are_set_elsewhere_are_opened_there_and_nothing_is_lost() {
    let port = free_port();
    let loopback = format!("127.0.0.1:{port}");
    let agent = Agent::with(&["--window", "1h", "--http-listen", &loopback]);
    let web = agent.reserve("c1", "web");
    web.send("a:1|c");
    agent.until("it is counted", || shown(&agent, "c1")["received"] == 1);
    // The same port on every address: the old process has to close its own first.
    let everywhere = ["--window", "1h", "--http-listen", &format!("0.0.0.0:{port}"), "--http-insecure"];
    let agent = agent.handed_over(&everywhere);
    web.send("a:1|c");
    agent.until("all is counted", || shown(&agent, "c1")["received"] == 2);
    assert_eq!(agent.http.to_string(), format!("0.0.0.0:{port}"));
    // Another admin socket: the old one is removed.
    let old_socket = agent.admin_socket();
    let socket = old_socket.with_file_name("elsewhere.sock");
    let elsewhere = [&everywhere[..], &["--admin-socket", socket.to_str().unwrap()]].concat();
    let agent = agent.handed_over(&elsewhere);
    assert!(!old_socket.exists() && socket.exists());
    web.send("a:1|c");
    agent.until("all is counted", || agent.metrics("web", "?window=open")[0]["value"] == 3.0);
}

#[test]
fn an_address_that_a_third_process_has_stops_no_agent() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = Agent::with(LONG);
    let listen = taken.local_addr().unwrap().to_string();
    let mut next = Command::new(BINARY);
    next.args(["agent", "--take-over", "--window", "1h", "--http-listen", &listen, "--admin-socket"]);
    next.arg(agent.admin_socket()).arg("--state-dir").arg(agent.admin_socket().with_file_name("state"));
    let refused = ran(&mut next);
    assert!(refused.code == 1 && refused.err.contains("cannot listen on"), "{}", refused.err);
    let web = agent.reserve("c1", "web");
    web.send("a:1|c");
    agent.until("it goes on", || shown(&agent, "c1")["received"] == 1);
}

#[test]
fn a_process_that_is_to_wait_after_a_hand_over_ends_by_a_signal_alone() {
    let flags = ["--window", "1h", "--set", "agent.after_hand_over=wait"];
    let mut old = Agent::with(&flags);
    let web = old.reserve("c1", "web");
    assert!(old.listeners() >= 4, "{}", old.listeners());
    let new = old.followed_by(&[&flags[..], &["--take-over"]].concat());
    web.send("a:1|c");
    new.until("it serves", || shown(&new, "c1")["received"] == 1);
    new.until("the old one waits", || old.log().contains("waiting for TERM"));
    assert_eq!((old.is_running(), old.listeners()), (true, 0), "{}", old.log());
    // It holds nothing: after a kill of the new process, sockets and locks are free.
    let mut new = new;
    new.signal(Signal::SIGKILL);
    new.wait();
    let third = Agent::in_directory(new.into_dead_directory(), &flags);
    assert_eq!(third.get("/ready").0, 200);
    old.signal(Signal::SIGTERM);
    assert!(old.wait().success(), "{}", old.log());
}

#[test]
fn a_process_that_cannot_go_on_with_what_there_is_replaces_the_agent_and_starts_from_disk() {
    let mut old = Agent::with(&["--window", "1h", "--set", "agent.after_hand_over=wait"]);
    let process = Sleeper::start();
    let web = old.reserve_with(&json!({"container_id": "c1", "task_id": "web", "pid": process.pid()}));
    web.send("a:3|c");
    old.until("it is counted", || shown(&old, "c1")["received"] == 1);
    let new = old.followed_by(&["--window", "1m", "--replace"]);
    new.until_logged("asking the agent that runs to end");
    assert_eq!(shown(&new, "c1")["state"], "listening");
    assert_eq!(new.totals("web")["a"]["value"], 3.0, "its open window was closed");
    web.send("a:4|c");
    new.until("it is counted", || shown(&new, "c1")["received"] == 1);
    assert!(old.is_running(), "{}", old.log());
    old.signal(Signal::SIGTERM);
    assert!(old.wait().success(), "{}", old.log());
    // A compatible process takes over.
    let mut new = new;
    let last = new.followed_by(&["--window", "1m", "--replace"]);
    assert!(new.wait().success() && last.log().contains("took over"), "{}", last.log());
}

#[test]
fn without_an_agent_to_take_over_from_it_starts_as_usual() {
    let agent = Agent::with(&["--take-over"]);
    assert_eq!(agent.get("/ready").0, 200);
    agent.until_logged("there is no agent to take over from");
}
