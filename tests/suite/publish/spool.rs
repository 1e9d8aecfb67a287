//! Publishers that read from the window log what memory no longer has: through kills, hand-overs and outages, every record is
//! delivered, or counted as lost.

mod totals;

use std::hash::BuildHasher as _;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use super::*;

const DOWN: Reply = Reply::Status(503, "", "down");

/// Sends to some addresses until it is told to stop, also while there is no agent.
struct Sender {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Sender {
    fn start(addresses: Vec<SocketAddr>) -> Self {
        let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, count) = (Arc::clone(&is_over), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            while !told.load(Ordering::Relaxed) {
                for address in &addresses {
                    let is_sent = socket.send_to(b"hits:1|c\nhits:1|c|#route:/pay", address).is_ok();
                    count.fetch_add(if is_sent { 2 } else { 0 }, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        Self { is_over, sent, thread }
    }

    /// Stops. Returns the number of values that were sent.
    fn stop(self) -> f64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Ordering::Relaxed) as f64
    }
}

/// The documents of all publishers. The counts of each must add up, whatever has happened.
fn publishers(agent: &Agent) -> Vec<Value> {
    let (status, publishers) = agent.get("/v1/publishers");
    assert_eq!(status, 200, "{publishers}");
    let publishers = publishers.as_array().unwrap().clone();
    for publisher in &publishers {
        let records: tallyport::wire::PublishedRecordsDocument =
            serde_json::from_value(publisher["records"].clone()).unwrap();
        assert!(records.is_balanced(), "{publisher:#}");
    }
    publishers
}

fn until_all_delivered(agent: &Agent) {
    agent.until("everything is delivered", || {
        publishers(agent).iter().all(|one| one["records"]["pending"] == 0 && one["state"] == "idle")
    });
}

/// Ends an agent as a crash does.
fn kill(mut agent: Agent) -> tempfile::TempDir {
    agent.signal(Signal::SIGKILL);
    agent.wait();
    agent.into_dead_directory()
}

/// The sum over the last revision of each record in a file. A record that is there twice must be the same.
fn settled_file_sum(path: &Path, name: &str) -> f64 {
    let text = std::fs::read_to_string(path).unwrap();
    let (mut seen, mut last) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let key = (record["id"].to_string(), record["start"].to_string());
        let rev = record["rev"].as_u64().unwrap();
        if let Some(first) = seen.insert((key.clone(), rev), line) {
            assert_eq!(first, line, "one revision of a record has two forms");
        }
        if record["name"] == name {
            let sum = record["agg"]["sum"].as_f64().unwrap();
            let kept = last.entry(key).or_insert((rev, sum));
            if rev >= kept.0 {
                *kept = (rev, sum);
            }
        }
    }
    last.values().map(|(_, sum)| sum).sum()
}

/// What the agent has of a counter of a task, in the windows that it keeps.
fn kept_sum(agent: &Agent, task: &str, name: &str) -> f64 {
    let records = agent.metrics(task, "?window=all&merge");
    let sums = records.iter().filter(|record| record["name"] == name);
    sums.map(|record| record["agg"]["sum"].as_f64().unwrap()).sum()
}

fn file_and_influx(path: &Path, backend: &Backend) -> String {
    let file = format!("[publish.f]\ntype = \"file\"\npath = {:?}\n", path.display().to_string());
    format!("windows.keep = 600\n{}{file}", influx(backend.address))
}

/// A backend that is up and down by turns, for a number of requests each.
fn unsteady() -> impl FnMut(&Received) -> Reply + Send + 'static {
    let mut requests = 0_u32;
    move |_| {
        requests += 1;
        if requests % 5 < 3 { TAKEN } else { DOWN }
    }
}

#[test]
fn kills_at_any_moment_cost_no_record_that_the_agent_still_has_and_repeat_none_in_another_form() {
    let records = tempfile::tempdir().unwrap();
    let path = records.path().join("records.ndjson");
    let backend = Backend::new(unsteady());
    let config = file_and_influx(&path, &backend);
    let mut agent = agent_in(tempfile::tempdir().unwrap(), &config);
    let containers = ["a", "b"].map(|name| of_this_test(&format!("c-{name}")));
    // Of one task, so that their records are merged.
    let addresses = containers.iter().map(|container| agent.reserve(container, "web.1").to);
    let sender = Sender::start(addresses.collect());
    for _ in 0..10 {
        let moment = std::hash::RandomState::new().hash_one(0) % 1500;
        std::thread::sleep(Duration::from_millis(100 + moment));
        agent = agent_in(kill(agent), &config);
    }
    agent.until("something arrives after the last kill", || {
        publishers(&agent).iter().all(|one| one["last_delivery"].is_string())
    });
    sender.stop();
    containers.iter().for_each(|container| agent.finish(container));
    backend.follow(|_| TAKEN);
    until_all_delivered(&agent);
    let kept = kept_sum(&agent, "web.1", "hits");
    assert!(kept > 0.0);
    assert_eq!((backend.sum("hits"), settled_file_sum(&path, "hits")), (kept, kept));
    for publisher in publishers(&agent) {
        assert_eq!(publisher["records"]["dropped"], json!({}), "{publisher:#}");
    }
}

#[test]
fn hand_overs_cost_a_publisher_nothing() {
    let records = tempfile::tempdir().unwrap();
    let path = records.path().join("records.ndjson");
    let backend = Backend::new(unsteady());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml").display().to_string();
    let mut agent = agent_in(directory, &file_and_influx(&path, &backend));
    let containers = ["a", "b"].map(|name| of_this_test(&format!("c-{name}")));
    let addresses = containers.iter().map(|container| agent.reserve(container, "web.1").to);
    let sender = Sender::start(addresses.collect());
    for _ in 0..4 {
        let arrived = backend.requests().len();
        agent.until("something is sent", || backend.requests().len() > arrived);
        agent = agent.handed_over(&["--window", "1s", "--config", &file]);
    }
    let sent = sender.stop();
    containers.iter().for_each(|container| agent.finish(container));
    backend.follow(|_| TAKEN);
    until_all_delivered(&agent);
    assert_eq!((backend.sum("hits"), settled_file_sum(&path, "hits")), (sent, sent));
    for publisher in publishers(&agent) {
        assert_eq!(publisher["records"]["dropped"], json!({}), "{publisher:#}");
    }
}

/// Windows leave memory as soon as they can, and files are as small as they can be.
/// Open windows are in checkpoints before they are closed.
const FORGETFUL: &str = "windows.keep = 1\nwindows.log_size = \"1MiB\"\nwindows.checkpoint = \"100ms\"\ncontainers.tombstone = \"1s\"\n";

/// Lets containers come, send this many series once, go, and be forgotten. Returns the number of series of all.
fn come_and_go(agent: &Agent, containers: std::ops::Range<usize>, series: usize) -> f64 {
    let sent = containers.len() * series;
    for n in containers {
        let container = of_this_test(&format!("c-{n}"));
        let address = agent.reserve(&container, &format!("task.{n}"));
        for first in (0..series).step_by(40) {
            let lines = (first..series.min(first + 40)).map(|n| format!("hits.of.a.series.{n}:1|c"));
            address.send(lines.collect::<Vec<_>>().join("\n"));
        }
        agent.finish(&container);
    }
    agent.until("all are forgotten", || {
        agent.admin("GET", "/v1/containers", &Value::Null).1.as_array().unwrap().is_empty()
    });
    sent as f64
}

fn all_points(backend: &Backend) -> f64 {
    let of_hits = |key: &str| key.starts_with("hits.of.a.series.");
    backend.points().iter().filter(|((key, _), _)| of_hits(key)).map(|(_, value)| value).sum()
}

fn spool_bytes(agent: &Agent) -> f64 {
    agent.own_metric("tallyport_publish_spool_bytes")
}

#[test]
fn an_outage_that_outlasts_windows_and_containers_in_memory_costs_nothing_and_the_spool_goes() {
    let backend = Backend::new(|_| DOWN);
    let config = format!("{FORGETFUL}{}", influx(backend.address));
    let mut agent = agent_in(tempfile::tempdir().unwrap(), &config);
    let mut sent = come_and_go(&agent, 0..12, 400);
    agent = agent_in(kill(agent), &config);
    sent += come_and_go(&agent, 12..24, 400);
    agent.until("files are kept for the publisher", || spool_bytes(&agent) > 0.0);
    let pending = &publisher(&agent)["records"]["pending"];
    assert_eq!(pending.as_f64(), Some(sent), "what is left of earlier runs is counted");
    backend.follow(|_| TAKEN);
    until_delivered(&agent);
    assert_eq!((all_points(&backend), &publisher(&agent)["records"]["dropped"]), (sent, &json!({})));
    agent.until("the files go", || spool_bytes(&agent) == 0.0);
    let times: Vec<_> = backend
        .requests()
        .iter()
        .filter(|(_, status)| *status == 204)
        .map(|(request, _)| request.at)
        .collect();
    assert!(times.is_sorted());
}

#[test]
fn what_a_small_spool_has_no_room_for_is_counted_exactly_also_by_an_agent_that_comes_after_a_kill() {
    for is_killed in [false, true] {
        let backend = Backend::new(|_| DOWN);
        let config = format!("publish.spool = \"1MiB\"\n{FORGETFUL}{}", influx(backend.address));
        let mut agent = agent_in(tempfile::tempdir().unwrap(), &config);
        let mut sent = come_and_go(&agent, 0..100, 1000);
        agent.until_logged("too far behind for the size of the spool");
        if is_killed {
            agent = agent_in(kill(agent), &config);
        }
        sent += come_and_go(&agent, 100..104, 1000);
        agent.until("the spool has its size", || spool_bytes(&agent) <= f64::from(1 << 20));
        backend.follow(|_| TAKEN);
        until_delivered(&agent);
        let records = publisher(&agent)["records"].clone();
        let dropped = records["dropped"]["spool"].as_f64().unwrap();
        assert!(dropped > 0.0 && dropped < sent, "{records}");
        // Of an agent that is killed, what it had closed and not written yet is not known to the next.
        let closed = records["closed"].as_f64().unwrap();
        assert!(closed == sent || (is_killed && closed < sent), "{sent} sent: {records}");
        // Windows leave memory as soon as the next one is closed, and are written all the same: nothing is `expired`.
        assert_eq!(records["dropped"], json!({ "spool": records["dropped"]["spool"] }), "{records}");
        assert_eq!(
            (all_points(&backend), records["delivered"].as_f64()),
            (closed - dropped, Some(closed - dropped)),
            "{records}"
        );
        assert!(agent.cli(&["doctor"]).out.contains("(spool)"));
    }
}

#[test]
fn a_late_part_of_an_older_interval_survives_a_kill_before_it_is_delivered() {
    let backend = Backend::new(|_| TAKEN);
    let config = influx(backend.address);
    let agent = agent_in(tempfile::tempdir().unwrap(), &config);
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    address.send("hits:1|c");
    agent.until("the interval is delivered", || backend.sum("hits") == 1.0);
    until_delivered(&agent);
    let ((_, time), _) = backend.points().into_iter().next().unwrap();
    // The end of the interval in milliseconds.
    let within = time.parse::<u64>().unwrap() / 1000 - 1;
    backend.follow(|_| DOWN);
    address.send(format!("hits:5|c|T{within}"));
    let is_tried = |backend: &Backend| {
        let refused = backend.requests().into_iter().filter(|(_, status)| *status == 503);
        refused.flat_map(|(request, _)| request.lines).any(|line| parse_point(&line).1 == 6.0)
    };
    agent.until("the late part is tried", || is_tried(&backend));
    let directory = kill(agent);
    backend.follow(|_| TAKEN);
    let agent = agent_in(directory, &config);
    agent.until("the late part arrives", || backend.sum("hits") == 6.0);
    until_delivered(&agent);
    assert_eq!(publisher(&agent)["records"]["dropped"], json!({}));
}

#[test]
fn a_publisher_that_is_removed_holds_no_files() {
    let backend = Backend::new(|_| DOWN);
    let agent = agent_with(&format!("{FORGETFUL}{}", influx(backend.address)));
    come_and_go(&agent, 0..12, 400);
    agent.until("files are kept for it", || spool_bytes(&agent) > 0.0);
    let file = agent.admin_socket().with_file_name("agent.toml");
    std::fs::write(&file, FORGETFUL).unwrap();
    assert_eq!(agent.admin("POST", "/v1/config/reload", &Value::Null).0, 200);
    let windows = agent.admin_socket().with_file_name("state").join("windows");
    agent.until("the files go", || {
        let names = std::fs::read_dir(&windows).unwrap().map(|entry| entry.unwrap().file_name());
        names.into_iter().all(|name| !name.to_string_lossy().starts_with("spool-"))
    });
}
