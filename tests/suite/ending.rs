//! Starting an agent beside another, reloading its settings, and ending it.

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::{Agent, BINARY, PATIENCE, ran};

#[test]
fn a_term_closes_the_open_window_as_partial_and_a_watcher_still_gets_it() {
    let mut agent = Agent::with(&["--window", "1h"]);
    let address = agent.reserve("c1", "web.1");
    let mut lines =
        agent.runtime().block_on(agent.http_client().stream_lines("/v1/tasks/web.1/watch")).unwrap();
    for _ in 0..100 {
        address.send("a:1|c");
    }
    agent.signal(Signal::SIGTERM);
    let read = async {
        let mut windows = Vec::new();
        while let Some(line) = lines.next().await.expect("it ends in order") {
            windows
                .extend(line.strip_prefix("data: ").map(|data| serde_json::from_str::<Value>(data).unwrap()));
        }
        windows
    };
    let windows = agent.runtime().block_on(async { tokio::time::timeout(PATIENCE, read).await.unwrap() });
    let record = &windows[0]["metrics"][0];
    assert_eq!((&record["value"], &record["partial"]), (&json!(100.0), &json!(true)));
    assert!(agent.wait().success());
    assert!(!agent.admin_socket().exists(), "the admin socket's name goes with the agent");
}

#[test]
fn a_second_term_ends_it_at_once_and_says_so_by_its_code() {
    let mut agent = Agent::with(&["--set", "agent.drain_deadline=1h"]);
    // A request that is never complete delays the drain.
    let held = hold_a_request(&agent);
    agent.signal(Signal::SIGTERM);
    agent.until("it drains", || agent.log().contains("draining"));
    agent.signal(Signal::SIGTERM);
    let status = agent.wait();
    assert_eq!(status.code(), Some(1), "{}", agent.log());
    drop(held);
}

#[test]
fn a_deadline_ends_a_drain_that_is_held_up() {
    let mut agent = Agent::with(&["--set", "agent.drain_deadline=300ms"]);
    let held = hold_a_request(&agent);
    let before = Instant::now();
    let status = agent.stop();
    assert_eq!(status.code(), Some(1), "{}", agent.log());
    assert!(before.elapsed() < Duration::from_secs(5));
    drop(held);
}

/// A request whose body never ends.
pub(crate) fn hold_a_request(agent: &Agent) -> std::os::unix::net::UnixStream {
    use std::io::Write as _;
    let mut stream = std::os::unix::net::UnixStream::connect(agent.admin_socket()).unwrap();
    stream.write_all(b"POST /v1/containers HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
    agent.until("the request is being read", || {
        let text = String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
        text.contains("tallyport_http_connections{listener=\"admin\"} 1")
    });
    stream
}

#[test]
fn a_second_agent_is_refused_by_name_whatever_it_shares() {
    let agent = Agent::start();
    let directory = tempfile::tempdir().unwrap();
    let own = |name: &str| directory.path().join(name).display().to_string();
    let theirs = agent.admin_socket();
    let (socket, state) =
        (theirs.display().to_string(), theirs.with_file_name("state").display().to_string());
    let start = |http: &str, socket: &str, state: &str| {
        ran(Command::new(BINARY).args([
            "agent",
            "--http-listen",
            http,
            "--admin-socket",
            socket,
            "--state-dir",
            state,
        ]))
    };
    let http = agent.http.to_string();
    for (refused, named) in [
        (start(&http, &own("a.sock"), &own("state")), format!("cannot listen on {http}")),
        (start("127.0.0.1:0", &socket, &own("state")), format!("{socket} belongs to another agent")),
        (start("127.0.0.1:0", &own("a.sock"), &state), format!("{state} belongs to another agent")),
    ] {
        assert_eq!(refused.code, 1);
        assert!(
            refused.err.contains(&named) && refused.err.contains(&format!("pid {}", agent.pid())),
            "{}",
            refused.err
        );
    }
    assert_eq!(agent.get("/health").0, 200, "and the first goes on");
}

#[test]
fn what_a_dead_agent_left_behind_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(directory.path().join("admin.sock")).unwrap());
    let agent = Agent::in_directory(directory, &[]);
    assert_eq!(agent.admin("GET", "/health", &Value::Null).0, 200);
}

#[test]
fn every_life_has_a_greater_epoch() {
    let epoch = |agent: &Agent| agent.get("/v1/node").1["epoch"].as_u64().unwrap();
    let first = Agent::start();
    let before = epoch(&first);
    let second = Agent::in_directory(first.into_directory(), &[]);
    assert!(epoch(&second) > before);
}

#[test]
fn a_reload_applies_what_it_can_and_names_what_needs_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, "limits.series = 1\n").unwrap();
    let agent = Agent::with(&["--config", file.to_str().unwrap(), "--window", "10s"]);
    let address = agent.reserve("c1", "web.1");
    let has_series = |n: usize| agent.get("/v1/tasks/web.1").1["series"] == n;
    address.send("a:1|g\nb:1|g");
    agent.until("one fits", || has_series(1));
    std::fs::write(&file, "limits.series = 2\nhttp.max_connections = 7\nagent.gather = \"3ms\"\n").unwrap();
    let (status, reloaded) = agent.admin("POST", "/v1/config/reload", &Value::Null);
    assert_eq!(
        (status, reloaded),
        (200, json!({"applied": true, "needs_restart": ["http.max_connections", "agent.gather"]}))
    );
    address.send("b:1|g\nc:1|g");
    agent.until("two fit", || has_series(2));

    std::fs::write(&file, "limits.series = \"many\"\nlimits.sries = 1\n").unwrap();
    let (status, refused) = agent.admin("POST", "/v1/config/reload", &Value::Null);
    let message = refused["message"].as_str().unwrap();
    assert_eq!((status, &refused["code"]), (400, &json!("bad_configuration")));
    assert!(message.contains("did you mean limits.series?") && message.contains("\"many\""), "{message}");
    address.send("c:1|g");
    assert_eq!(agent.get("/v1/tasks/web.1").1["series"], 2, "the old settings stay");

    std::fs::write(&file, "limits.series = 3\n").unwrap();
    agent.signal(Signal::SIGHUP);
    agent.until("a signal reloads, too", || agent.log().matches("configuration reloaded").count() == 2);
    address.send("c:1|g");
    agent.until("three fit", || has_series(3));
}

#[test]
fn a_bad_configuration_does_not_start_and_names_every_mistake() {
    let refused =
        ran(Command::new(BINARY).args(["agent", "--window", "2d", "--keep", "0", "--set", "nonsense=1"]));
    assert_eq!(refused.code, 1);
    for part in
        ["3 mistakes", "--window: windows.length", "--keep: windows.keep", "nonsense is not a setting"]
    {
        assert!(refused.err.contains(part), "{part} is not in {}", refused.err);
    }
}

#[test]
fn datagrams_that_find_no_room_are_counted_to_the_last() {
    let agent = Agent::with(&["--window", "10s", "--set", "listeners.receive_buffer=4KiB"]);
    let address = agent.reserve("c1", "web.1");
    // The agent cannot keep up with a stopped process.
    agent.stand_still();
    for _ in 0..1000 {
        address.send("a:1|c");
    }
    agent.signal(Signal::SIGCONT);
    agent.finish("c1");
    let (_, accounting) = agent.get("/v1/accounting");
    let datagrams = &accounting["total"]["datagrams"];
    let (received, dropped) =
        (datagrams["received"].as_u64().unwrap(), datagrams["kernel_drops"].as_u64().unwrap());
    assert!(dropped > 0);
    assert_eq!((received + dropped, &datagrams["arrived"]), (1000, &json!(1000)));
    assert_eq!(agent.totals("web.1")["a"]["value"], received as f64);
}

#[test]
fn what_is_gone_is_remembered_up_to_a_limit_that_a_reload_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, "limits.remembered = 5000\ncontainers.tombstone = \"0s\"\n").unwrap();
    let agent = Agent::with(&["--config", file.to_str().unwrap(), "--window", "1s"]);
    for task in ["first", "second"] {
        let lines: Vec<_> = (0..200).map(|n| format!("n{n}:1|c")).collect();
        let address = agent.reserve(task, task);
        lines.chunks(50).for_each(|lines| address.send(lines.join("\n")));
        agent.until("all is counted", || agent.get(&format!("/v1/tasks/{task}")).1["series"] == 200);
        agent.release(task);
    }
    let remembered = || agent.own_metric("tallyport_totals_remembered");
    agent.until("all is remembered", || remembered() == 400.0);
    std::fs::write(&file, "limits.remembered = 100\ncontainers.tombstone = \"0s\"\n").unwrap();
    let (status, reloaded) = agent.admin("POST", "/v1/config/reload", &Value::Null);
    assert_eq!((status, reloaded), (200, json!({"applied": true, "needs_restart": []})));
    agent.until("most is forgotten", || remembered() <= 100.0 && remembered() >= 80.0);
}
