//! Many readers, slow readers and expensive requests, with a real agent: their memory is bounded, and others are still served.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;
use tallyport::client::{LineStream, Response};

use crate::agent::{Address, Agent, PATIENCE};

const MIB: f64 = 1024.0 * 1024.0;

/// Sends one counter for each name, no faster than they are received.
fn fill(agent: &Agent, address: &Address, container: &str, names: impl Iterator<Item = String>) {
    fill_with(agent, address, container, names.map(|name| format!("{name}:1|c")));
}

/// Sends lines, each for a different series, no faster than they are received.
fn fill_with(agent: &Agent, address: &Address, container: &str, lines: impl Iterator<Item = String>) {
    let all: Vec<String> = lines.collect();
    let mut sent = 0;
    for some in all.chunks(500) {
        for lines in some.chunks(20) {
            address.send(lines.join("\n"));
        }
        sent += some.len() as u64;
        agent.until("they are received", || {
            let shown = agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null).1;
            shown["series"].as_u64() >= Some(sent)
        });
    }
}

/// Opens a connection that sends a request and does not read the response.
fn connect_without_reading(agent: &Agent, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(agent.http).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
    stream
}

/// The same for a stream of events that starts after a cursor.
fn unread_after(agent: &Agent, path: &str, cursor: &str) -> TcpStream {
    let mut stream = TcpStream::connect(agent.http).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nlast-event-id: {cursor}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn slow_disconnects(agent: &Agent) -> f64 {
    agent.own_metric("tallyport_http_connections_closed_total{listener=\"http\",reason=\"slow\"}")
}

fn resident_bytes(agent: &Agent) -> f64 {
    agent.own_metric("process_resident_memory_bytes")
}

/// Sends two thousand gauges with long names, which every later window contains, so that its event is about a megabyte. Returns
/// the cursor after which all windows have all of them.
fn fill_every_window(agent: &Agent) -> String {
    let address = agent.reserve("c-1", "web.1");
    let names = (0..2000).map(|n| format!("a.series.{n}.{}", "x".repeat(250)));
    fill_with(agent, &address, "c-1", names.map(|name| format!("{name}:1|g")));
    agent.get("/v1/node").1["cursor"].as_str().unwrap().to_owned()
}

/// How many windows of the task were closed after a cursor and are still kept.
fn kept_after(agent: &Agent, cursor: &str) -> usize {
    let records = agent.metrics("web.1", &format!("?window=all&name=a.series.0.{}", "x".repeat(250)));
    let seq: u64 = cursor.split_once('-').unwrap().1.parse().unwrap();
    records.iter().filter(|record| record["seq"].as_u64() > Some(seq)).count()
}

/// The name and the data of an event of a stream.
type Event = (String, Value);

/// Reads a stream of events until `enough` returns true, and returns all events read.
fn events_until(agent: &Agent, lines: &mut LineStream, enough: &dyn Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    let mut name = String::new();
    agent.runtime().block_on(async {
        while !enough(&events) {
            let line = tokio::time::timeout(PATIENCE, lines.next()).await.expect("nothing comes");
            let line = line.unwrap().expect("the stream goes on");
            if let Some(named) = line.strip_prefix("event: ") {
                named.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                events.push((name.clone(), serde_json::from_str(data).unwrap()));
            }
        }
    });
    events
}

fn whole_page(agent: &Agent) -> Response {
    agent.get_raw("/metrics/tasks")
}

#[test]
fn a_hundred_and_twenty_readers_that_do_not_read_hold_bounded_memory_and_are_disconnected() {
    let agent = Agent::with(&[
        "--window",
        "1s",
        "--set",
        "http.write_timeout=8s",
        "--set",
        "http.page_memory=8MiB",
        "--set",
        "limits.series=20000",
        "--set",
        "http.max_connections_per_client=300",
    ]);
    let address = agent.reserve("c-1", "web.1");
    fill(&agent, &address, "c-1", (0..4000).map(|n| format!("a.series.{n}.{}", "x".repeat(250))));
    agent.until("all are on the page", || whole_page(&agent).body.len() > 2 << 20);
    // The allocator keeps memory that page builds have freed, so build some pages before measuring.
    (0..3).for_each(|_| drop(whole_page(&agent)));
    let before = resident_bytes(&agent);
    // Half of them share pages; the others ask for pages of their own.
    let of_own = |n: usize| format!("/metrics/tasks?{}", vec!["shard=0/1"; n].join("&"));
    let paths = (0..60).map(|_| "/metrics/tasks".to_owned()).chain((1..=60).map(of_own));
    let readers: Vec<_> = paths.map(|path| connect_without_reading(&agent, &path)).collect();
    let mut most = 0.0_f64;
    agent.until("a scrape is answered meanwhile", || {
        most = most.max(resident_bytes(&agent));
        let page = whole_page(&agent);
        page.status == 200 && page.body.len() > 2 << 20
    });
    assert!(slow_disconnects(&agent) < 120.0, "all readers were disconnected before the scrape was answered");
    agent.until("all are answered or disconnected", || {
        most = most.max(resident_bytes(&agent));
        agent.own_metric("tallyport_http_connections{listener=\"http\"}") <= 60.0
    });
    let cut = agent.own_metric("tallyport_http_pages_failed_total{reason=\"cut\"}");
    assert!(cut + slow_disconnects(&agent) > 0.0, "none was disconnected");
    let growth = (most - before) / MIB;
    assert!(growth < 64.0, "{growth} MiB more than before");
    drop(readers);
    agent.until("nothing is held", || agent.own_metric("tallyport_http_page_bytes") == 0.0);
}

#[test]
fn a_reader_that_does_not_read_is_disconnected_and_doctor_says_so() {
    let agent = Agent::with(&["--window", "1s", "--set", "http.write_timeout=500ms"]);
    let address = agent.reserve("c-1", "web.1");
    fill(&agent, &address, "c-1", (0..4000).map(|n| format!("a.series.{n}.{}", "x".repeat(250))));
    agent.until("all are on the page", || whole_page(&agent).body.len() > 2 << 20);
    let reader = connect_without_reading(&agent, "/metrics/tasks");
    agent.until("it is disconnected", || slow_disconnects(&agent) == 1.0);
    let doctor = agent.cli(&["doctor"]);
    assert!(
        doctor.out.contains("1 connections were closed because their clients did not read"),
        "{}",
        doctor.out
    );
    agent.until("nothing is held", || agent.own_metric("tallyport_http_page_bytes") == 0.0);
    drop(reader);
}

#[test]
fn a_stream_outlives_the_time_that_a_write_may_take() {
    let agent = Agent::with(&["--window", "1s", "--set", "http.write_timeout=100ms"]);
    let address = agent.reserve("c-1", "web.1");
    agent.runtime().block_on(async {
        let mut lines = agent.http_client().stream_lines("/v1/tasks/web.1/watch").await.unwrap();
        for n in 0..3 {
            address.send("a:1|c");
            let next = async {
                while !lines.next().await.unwrap().expect("the stream goes on").starts_with("data: ") {}
            };
            tokio::time::timeout(PATIENCE, next).await.unwrap_or_else(|_| panic!("event {n} does not come"));
        }
    });
    assert_eq!(slow_disconnects(&agent), 0.0);
}

#[test]
fn a_replay_of_all_kept_windows_is_complete_and_holds_one_event_at_a_time() {
    let agent = Agent::with(&["--window", "1s", "--set", "http.write_timeout=5m"]);
    let cursor = fill_every_window(&agent);
    agent.until("six windows are kept", || kept_after(&agent, &cursor) >= 6);
    let path = "/v1/tasks/web.1/watch";
    let held = || agent.own_metric("tallyport_http_page_bytes");
    let mut replays = Vec::new();
    for n in 1..=4 {
        replays.push(unread_after(&agent, path, &cursor));
        agent.until("what it holds is counted", || held() >= f64::from(n) * MIB / 2.0);
    }
    // Each has asked for six megabytes and more.
    assert!(held() < 4.0 * 2.0 * MIB, "{} bytes are held", held());
    let lines = agent.runtime().block_on(agent.http_client().stream_lines_after(path, Some(&cursor)));
    let events = events_until(&agent, &mut lines.unwrap(), &|events| events.len() >= 6);
    for pair in events.windows(2) {
        assert_eq!((pair[0].0.as_str(), &pair[0].1["end"]), ("window", &pair[1].1["start"]));
    }
    for (_, window) in &events {
        assert_eq!(window["metrics"].as_array().unwrap().len(), 2000);
    }
    drop(replays);
    agent.until("nothing is held", || held() == 0.0);
}

#[test]
fn a_replay_whose_windows_are_dropped_meanwhile_says_so_and_goes_on() {
    let agent = Agent::with(&["--window", "1s", "--set", "windows.keep=6", "--set", "http.write_timeout=5m"]);
    let cursor = fill_every_window(&agent);
    agent.until("two windows are kept", || kept_after(&agent, &cursor) >= 2);
    let client = agent.http_client();
    let lines = agent.runtime().block_on(client.stream_lines_after("/v1/tasks/web.1/watch", Some(&cursor)));
    let newest = || agent.metrics("web.1", "?window=last").last().unwrap()["seq"].as_u64().unwrap();
    let before = newest();
    agent.until("other windows are kept", || newest() > before + 8 * 2000);
    let is_window = |event: &Event| event.0 == "window";
    let events = events_until(&agent, &mut lines.unwrap(), &|events| {
        events.iter().any(|event| event.0 == "gap") && events.last().is_some_and(is_window)
    });
    let kinds: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert!(kinds.starts_with(&["window"]) && kinds.ends_with(&["gap", "window"]), "{kinds:?}");
}

#[test]
fn beyond_the_queue_a_client_that_does_not_read_its_pages_gets_429_and_others_are_answered() {
    let agent = Agent::with(&[
        "--window",
        "1s",
        "--set",
        "http.page_memory=1MiB",
        "--set",
        "http.max_connections_per_client=300",
    ]);
    let address = agent.reserve("c-1", "web.1");
    fill(&agent, &address, "c-1", (0..4000).map(|n| format!("a.series.{n}.{}", "x".repeat(250))));
    agent.until("all are on the page", || whole_page(&agent).body.len() > 2 << 20);
    // Each asks for a page of its own and does not read it. Two are built at a time, and wait for memory until their readers
    // are cut off; the queue has 32 places for one client.
    let mut readers = Vec::new();
    let answered = |reader: &TcpStream| {
        let mut head = [0; 1024];
        // Looked at and left in the buffer.
        reader.set_nonblocking(true).unwrap();
        reader.peek(&mut head).ok().map(|n| String::from_utf8_lossy(&head[..n]).into_owned())
    };
    let is_refused =
        |reader: &TcpStream| answered(reader).is_some_and(|head| head.starts_with("HTTP/1.1 429"));
    agent.until("one is refused", || {
        if readers.len() < 200 {
            let of_own = format!("/metrics/tasks?{}", vec!["shard=0/1"; readers.len() + 1].join("&"));
            readers.push(connect_without_reading(&agent, &of_own));
        }
        readers.iter().any(is_refused)
    });
    let first = readers.iter().position(is_refused).unwrap();
    let waiting = readers[..first].iter().filter(|reader| answered(reader).is_none()).count();
    assert!(
        waiting >= 20,
        "only {waiting} of {first} before it still wait: it was not refused for the queue"
    );
    let head = answered(&readers[first]).unwrap().to_ascii_lowercase();
    assert!(head.contains("retry-after: 2") && head.contains("\"busy\""), "{head}");
    assert!(agent.own_metric("tallyport_http_pages_failed_total{reason=\"busy\"}") >= 1.0);
    assert_eq!(agent.get("/v1/tasks/web.1").0, 200, "requests of other kinds have a queue of their own");
    drop(readers);
    agent.until("pages are built again", || whole_page(&agent).status == 200);
}

#[test]
fn a_tail_that_is_not_read_is_disconnected_and_says_so_and_fails() {
    let agent = Agent::with(&["--window", "1s", "--set", "http.write_timeout=2s"]);
    let address = agent.reserve("c1", "web.1");
    let mut tail = agent.command(&["tail", "web.1"]);
    let tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let line = format!("{}:1|c", "x".repeat(500));
    let slow = "tallyport_http_connections_closed_total{listener=\"admin\",reason=\"slow\"}";
    agent.until("it is disconnected", || {
        (0..100).for_each(|_| address.send(&line));
        agent.own_metric(slow) == 1.0
    });
    let ended = tail.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("closed the stream before its end: it was not read for"), "{said}");
    assert!(said.contains("http.write_timeout"), "{said}");
}

#[test]
fn a_tail_ends_in_order_with_the_container() {
    let agent = Agent::start();
    let address = agent.reserve("c1", "web.1");
    let mut tail = agent.command(&["tail", "web.1"]);
    let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (shown, line) = std::sync::mpsc::channel();
    let out = BufReader::new(tail.stdout.take().unwrap());
    let lines = std::thread::spawn(move || out.lines().for_each(|line| drop(shown.send(line.unwrap()))));
    agent.until("it shows lines", || {
        address.send("a:1|c");
        line.try_recv().is_ok()
    });
    agent.finish("c1");
    let ended = tail.wait_with_output().unwrap();
    lines.join().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn a_watch_that_is_not_read_goes_on_after_the_last_window_that_came() {
    let agent = Agent::with(&["--window", "1s", "--set", "http.write_timeout=2s"]);
    fill_every_window(&agent);
    let mut watch = agent.command(&["metrics", "watch", "web.1", "-o", "ndjson"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    agent.until("it is disconnected", || slow_disconnects(&agent) == 1.0);
    let newest = agent.metrics("web.1", "?window=last").last().unwrap()["end"].clone();
    let mut windows: Vec<Value> = Vec::new();
    for line in BufReader::new(watch.stdout.take().unwrap()).lines() {
        windows.push(serde_json::from_str(&line.unwrap()).unwrap());
        if windows.last().unwrap()["start"].as_str() >= newest.as_str() {
            break;
        }
    }
    watch.kill().unwrap();
    let said = String::from_utf8(watch.wait_with_output().unwrap().stderr).unwrap();
    assert!(
        said.contains("it was not read for") && said.contains("going on after the last window"),
        "{said}"
    );
    for pair in windows.windows(2) {
        assert_eq!(pair[0]["end"], pair[1]["start"], "none is missing and none comes twice");
    }
}

/// A pattern that is compared with a whole name of `x` before it does not fit.
fn bomb() -> String {
    format!("*{}y*", "?".repeat(60).replace("??", "?x"))
}

/// Sends expensive requests, one after another, until it is dropped.
struct Bomber {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Requests that were answered.
    answered: Arc<AtomicUsize>,
}

impl Bomber {
    fn start(agent: &Agent, paths: impl Iterator<Item = String>) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let http = agent.http;
        let threads = paths.map(|path| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(http).unwrap();
                    let request =
                        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut answer = Vec::new();
                    let _either_way = stream.read_to_end(&mut answer);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, threads, answered }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Bomber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

#[test]
fn health_and_reservations_are_answered_while_patterns_are_searched_for() {
    let agent = Agent::with(&["--window", "1s", "--set", "limits.series=20000"]);
    let address = agent.reserve("c-1", "web.1");
    fill(&agent, &address, "c-1", (0..3000).map(|n| format!("a.series.{n}.{}", "x".repeat(250))));
    agent.reserve("c-2", "small.1").send("small:1|c");
    agent.until("the small task has a record", || {
        agent.get("/v1/tasks/small.1/metrics").1["metrics"].as_array().is_some_and(|all| !all.is_empty())
    });
    let filters = |n: usize| (0..30).map(|m| format!("name={}{n}{m}", bomb())).collect::<Vec<_>>().join("&");
    let routes =
        ["/metrics/tasks?", "/v1/metrics?", "/v1/tasks/web.1/metrics?window=all&", "/metrics/tasks?"];
    let bomber =
        Bomber::start(&agent, routes.iter().enumerate().map(|(n, route)| format!("{route}{}", filters(n))));
    let mut n = 0;
    // Each of these answers fails the test if it does not come.
    agent.until("others are answered beside requests with patterns", || {
        for _ in 0..5 {
            assert_eq!(agent.get("/health").0, 200);
        }
        n += 1;
        agent.reserve(&format!("new-{n}"), "new");
        assert_eq!(agent.get("/v1/tasks/small.1/metrics").0, 200);
        n >= 20 && bomber.answered() > 0
    });
}

#[test]
fn readers_of_one_page_share_its_build() {
    let agent = Agent::with(&["--window", "10s"]);
    let address = agent.reserve("c-1", "web.1");
    fill(&agent, &address, "c-1", (0..500).map(|n| format!("a.series.{n}")));
    let before = agent.own_metric("tallyport_http_pages_shared_total");
    let readers: Vec<_> = (0..64)
        .map(|_| {
            let http = agent.http;
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(http).unwrap();
                let request = "GET /metrics/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            })
        })
        .collect();
    for reader in readers {
        let answer = reader.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let shared = agent.own_metric("tallyport_http_pages_shared_total") - before;
    assert!(shared >= 32.0, "{shared} of 64 shared a page");
}

#[test]
fn every_answer_forbids_browsers_to_guess_what_it_is() {
    let agent = Agent::start();
    for path in
        ["/", "/health", "/metrics", "/v1/tasks", "/nowhere", "/v1/tasks?colour=blue", "/v1/openapi.json"]
    {
        let mut stream = TcpStream::connect(agent.http).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert_eq!(answer.matches("x-content-type-options: nosniff").count(), 1, "{path}: {answer}");
    }
}

#[test]
fn idle_connections_to_the_admin_socket_keep_no_other_process_waiting() {
    let agent = Agent::with(&["--set", "http.max_connections=64", "--set", "http.header_timeout=10m"]);
    // More than there are places, and none of them ever asks.
    let idle: Vec<_> = (0..300).map(|_| UnixStream::connect(agent.admin_socket()).unwrap()).collect();
    for n in 0..5 {
        let process = agent.cli(&["containers", "list"]);
        assert_eq!(process.code, 0, "{n}: {process:?}");
    }
    let closed = "tallyport_http_connections_closed_total{listener=\"admin\",reason=\"idle\"} ";
    let mut more = Vec::new();
    agent.until("an idle connection is closed for another", || {
        more.push(UnixStream::connect(agent.admin_socket()).unwrap());
        let page = agent.get_raw("/metrics");
        let page = String::from_utf8_lossy(&page.body);
        page.lines().any(|line| line.strip_prefix(closed).is_some_and(|count| count != "0"))
    });
    drop((idle, more));
}

#[test]
fn a_body_that_does_not_arrive_is_answered_with_408() {
    let agent = Agent::start();
    let mut stream = UnixStream::connect(agent.admin_socket()).unwrap();
    let head = "POST /v1/containers HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("slow_body"), "{answer}");
}
