//! The archive: history that outlives windows, containers and the agent, counted exactly through kills.
//!
//! `make e2e-archive` kills more often, with `TALLYPORT_ARCHIVE_KILLS`.

use std::hash::BuildHasher as _;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::{Agent, of_this_test};

/// Windows of a second, of which memory keeps all that a test makes.
const ARCHIVED: &str = "archive.enabled = true\nwindows.keep = 3600\nwindows.checkpoint = \"100ms\"\n";
/// The same with as little in memory as possible.
const FORGETFUL: &str = "archive.enabled = true\nwindows.keep = 1\ncontainers.tombstone = \"1s\"\n";

fn agent_in(directory: tempfile::TempDir, text: &str) -> Agent {
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, text).unwrap();
    Agent::in_directory(directory, &["--window", "1s", "--config", file.to_str().unwrap()])
}

/// The same directory, served by a process that takes over from this one.
fn hand_over(agent: Agent) -> Agent {
    let file = agent.admin_socket().with_file_name("agent.toml");
    agent.handed_over(&["--window", "1s", "--config", file.to_str().unwrap()])
}

fn kill(mut agent: Agent) -> tempfile::TempDir {
    agent.signal(Signal::SIGKILL);
    agent.wait();
    agent.into_dead_directory()
}

/// The counts of a counter and a timer in these records.
fn counts(records: &[Value]) -> [f64; 2] {
    ["hits", "took"].map(|name| {
        let named = records.iter().filter(|record| record["name"] == name);
        named.map(|record| record["agg"]["count"].as_f64().unwrap()).sum()
    })
}

/// Whatever is archived: records of steps that have ended or not.
fn steps(agent: &Agent, step: &str) -> Vec<Value> {
    agent.metrics("web.1", &format!("?since=3h&step={step}"))
}

#[test]
fn kills_and_hand_overs_at_any_moment_leave_each_window_in_each_step_once() {
    let kills = std::env::var("TALLYPORT_ARCHIVE_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let mut agent = agent_in(tempfile::tempdir().unwrap(), ARCHIVED);
    let containers = ["a", "b"].map(|name| of_this_test(&format!("c-{name}")));
    let addresses = containers.each_ref().map(|container| agent.reserve(container, "web.1").to);
    let is_over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_over);
    let sender = std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        while !told.load(Ordering::Relaxed) {
            for address in &addresses {
                let _nothing_listens_now_and_then = socket.send_to(b"hits:1|c\ntook:14.5|ms", address);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    for n in 0..kills {
        let moment = std::hash::RandomState::new().hash_one(0) % 7_000;
        std::thread::sleep(Duration::from_millis(100 + moment));
        agent = match n % 4 {
            1 => hand_over(agent),
            _ => agent_in(kill(agent), ARCHIVED),
        };
    }
    std::thread::sleep(Duration::from_secs(2));
    is_over.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    // Everything that the agent has after the kills, by its windows.
    let newest = || agent.metrics("web.1", "?window=open");
    agent.until("the last window is closed", || counts(&newest()) == [0.0, 0.0]);
    let all = counts(&agent.metrics("web.1", "?window=all"));
    assert!(all[0] > 500.0, "{all:?}");
    // Here some of it comes from memory, and there nothing does.
    for step in ["1m", "10m", "1h"] {
        assert_eq!(counts(&steps(&agent, step)), all, "{step}");
    }
    agent = agent_in(agent.into_directory(), FORGETFUL);
    agent.until("all is archived", || counts(&steps(&agent, "10m")) == all);
    agent = agent_in(agent.into_directory(), FORGETFUL);
    for step in ["1m", "10m", "1h"] {
        assert_eq!(counts(&steps(&agent, step)), all, "{step}");
    }
    assert_eq!(agent.own_metric("tallyport_archive_left_out_total{reason=\"missed\"}"), 0.0);
    assert_eq!(agent.own_metric("tallyport_archive_failing"), 0.0);
}

#[test]
fn a_task_that_is_long_gone_has_its_history_with_the_percentiles_of_all_values() {
    let mut agent = agent_in(tempfile::tempdir().unwrap(), FORGETFUL);
    let container = of_this_test("c");
    let address = agent.reserve(&container, "web.1");
    for part in 0..40 {
        let values = (0..25).map(|n| format!("{}", part * 25 + n + 1)).collect::<Vec<_>>().join(":");
        address.send(format!("took:{values}|ms|#route:/pay\nhits:1|c\nlevel:{part}|g"));
        std::thread::sleep(Duration::from_millis(60));
    }
    agent.finish(&container);
    agent.until("the container is forgotten", || agent.get("/v1/tasks/web.1").0 == 404);
    agent.until("all is archived", || {
        agent.get("/v1/tasks/web.1/metrics?step=1h").1["metrics"]
            .as_array()
            .is_some_and(|all| counts(all) == [40.0, 1000.0])
    });
    agent = agent_in(agent.into_directory(), FORGETFUL);
    let (status, answer) = agent.get("/v1/tasks/web.1/metrics?step=1h&name=took");
    assert_eq!(
        (status, &answer["step"], &answer["task"]["finished"]),
        (200, &3600.into(), &true.into()),
        "{answer}"
    );
    let records = answer["metrics"].as_array().unwrap();
    // One step, or two if an hour has just begun.
    if let [record] = records.as_slice() {
        let agg = &record["agg"];
        assert_eq!(
            (agg["count"].as_f64(), agg["min"].as_f64(), agg["max"].as_f64(), agg["sum"].as_f64()),
            (Some(1000.0), Some(1.0), Some(1000.0), Some(500_500.0))
        );
        let p99 = agg["p99"].as_f64().unwrap();
        assert!((p99 - 990.0).abs() <= 9.9, "{p99}");
        assert_eq!((&record["seconds"], &record["tags"]["route"]), (&3600.into(), &"/pay".into()));
    }
    let level = agent.metrics("web.1", "?step=10m&name=level");
    assert_eq!(level.last().unwrap()["value"].as_f64(), Some(39.0));
    let shown =
        agent.cli(&["metrics", "details", "web.1", "took", "--since", "2h", "--step", "1h", "--json"]);
    assert!(shown.code == 0 && shown.out.contains("\"p99\""), "{}{}", shown.out, shown.err);
    let moment = level.last().unwrap()["start"].as_str().unwrap().to_owned();
    let at = agent.cli(&["metrics", "details", "web.1", "level", "--at", &moment, "--step", "10m"]);
    assert!(at.code == 0 && at.out.contains("level"), "{}{}", at.out, at.err);
    let unknown = agent.cli(&["metrics", "details", "web.2", "--step", "10m"]);
    assert!(unknown.code != 0, "{}", unknown.out);
}

#[test]
fn what_cannot_be_answered_says_why_and_what_to_do() {
    let agent = agent_in(tempfile::tempdir().unwrap(), "windows.keep = 30\n");
    let container = of_this_test("c");
    let address = agent.reserve(&container, "web.1");
    address.send("hits:1|c\ntook:5|ms");
    agent.until("a window is closed", || !agent.metrics("web.1", "?window=last").is_empty());
    // Without an archive, memory is folded.
    assert_eq!(counts(&agent.metrics("web.1", "?step=1m")), [1.0, 1.0]);
    let refusal = |query: &str| {
        let (status, answer) = agent.get(&format!("/v1/tasks/web.1/metrics?{query}"));
        (status, answer["error"]["code"].to_string() + &answer.to_string())
    };
    let (status, text) = refusal("at=2h");
    assert!(status == 400 && text.contains("archive_off") && text.contains("archive.enabled"), "{text}");
    let future = "2999-01-01T00:00:00Z";
    let (at, since) = (format!("at={future}"), format!("since={future}&step=1m"));
    for query in ["step=5m", "step=1m&merge", "at=now", "since=1m&until=5m&step=1m", &at, &since] {
        let (status, text) = refusal(query);
        assert!(status == 400 && text.contains("bad_parameter"), "{query}: {text}");
    }
}

#[test]
fn a_damaged_archive_is_replaced_while_everything_else_goes_on() {
    let mut agent = agent_in(tempfile::tempdir().unwrap(), FORGETFUL);
    let container = of_this_test("c");
    agent.reserve(&container, "web.1").send("hits:1|c\ntook:5|ms");
    agent.until("it is archived", || agent.own_metric("tallyport_archive_records_total") > 0.0);
    let directory = agent.into_directory();
    let state = directory.path().join("state");
    std::fs::write(state.join("archive.db"), vec![7; 50_000]).unwrap();
    agent = agent_in(directory, FORGETFUL);
    agent.until("it is set aside", || {
        agent.own_metric("tallyport_archive_damaged_total{what=\"file\"}") == 1.0
    });
    assert!(state.join("archive.damaged.db").exists());
    let address = agent.reserve(&of_this_test("d"), "web.2");
    address.send("hits:1|c");
    agent.until("a new one is filled", || agent.own_metric("tallyport_archive_records_total") > 0.0);
    assert_eq!(agent.own_metric("tallyport_archive_failing"), 0.0);
}
