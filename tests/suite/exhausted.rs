//! An agent that runs out of descriptors or reaches its limit of containers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::{Address, Agent, PATIENCE};
use crate::restart::{Mounted, Sleeper, mount, shown};
use crate::tools;

/// One connection to the admin socket, for many calls.
struct Line(BufReader<UnixStream>);

impl Line {
    fn new(agent: &Agent) -> Self {
        let stream = UnixStream::connect(agent.admin_socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn reserve(&mut self, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let head =
            format!("POST /v1/containers HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        self.0.get_mut().write_all(format!("{head}{body}").as_bytes()).unwrap();
        let (mut status, mut length, mut line) = (0, 0, String::new());
        while line != "\r\n" {
            line.clear();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the agent hung up");
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.split(' ').next().unwrap().parse().unwrap();
            } else if let Some(rest) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = rest.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).unwrap();
        (status, serde_json::from_slice(&answer).unwrap())
    }
}

/// CPU time that a process has used so far.
fn cpu(agent: &Agent) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

const FLAGS: &[&str] = &["--window", "1s"];

#[test]
fn containers_leave_the_last_descriptors_to_the_agent() {
    let Some(_) = tools::program("prlimit", "scripts/setup containers") else { return };
    let agent = Agent::with_descriptors(200, FLAGS);
    let process = Sleeper::start();
    let mut line = Line::new(&agent);
    let mut served = Vec::new();
    let refused = loop {
        let n = served.len();
        assert!(n < 200, "no reservation is refused");
        // Their processes need descriptors, too.
        match line
            .reserve(&json!({"container_id": format!("few-{n}"), "task_id": "web", "pid": process.pid()}))
        {
            (201, reserved) => served.push(Address::of(&reserved)),
            (status, refused) => break (status, refused),
        }
    };
    let message = refused.1["message"].as_str().unwrap();
    assert_eq!((refused.0, &refused.1["code"]), (503, &json!("no_socket")), "{message}");
    assert!(message.contains("may have 200 descriptors") && message.contains("LimitNOFILE="), "{message}");
    assert!(served.len() > 30, "{} are served", served.len());
    // Existing containers are served, and every request is answered.
    served.iter().for_each(|address| address.send("a:1|c"));
    let all = served.len() as f64;
    agent.until("all are heard", || agent.own_metric("tallyport_values_accepted_total") == all);
    let mut readers: Vec<_> = (0..30).map(|_| TcpStream::connect(agent.http).unwrap()).collect();
    for reader in &mut readers {
        reader.write_all(b"GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        reader.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    for reader in &mut readers {
        let mut answer = String::new();
        reader.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(agent.get("/ready").0, 200);
    assert_eq!(agent.own_metric("process_max_fds"), 200.0);
    agent.until("windows are written", || agent.own_metric("tallyport_window_log_windows_total") >= all);
    assert_eq!(agent.own_metric("tallyport_window_log_failing"), 0.0);
    assert!(!agent.log().contains("Too many open files"), "{}", agent.log());
    // Ended containers make room for others.
    ["few-0", "few-1", "few-2"].iter().for_each(|container| agent.finish(container));
    let again = json!({"container_id": "few-again", "task_id": "web", "pid": process.pid()});
    agent.until("there is room", || line.reserve(&again).0 == 201);
}

#[test]
fn connections_that_take_every_descriptor_stop_no_container_and_burn_no_core() {
    let Some(_) = tools::program("prlimit", "scripts/setup containers") else { return };
    let agent = Agent::with_descriptors(120, &["--window", "1s", "--set", "http.header_timeout=10m"]);
    let address = agent.reserve("heard", "web");
    let mut line = Line::new(&agent);
    assert_eq!(line.reserve(&json!({"container_id": "early", "ttl": null})).0, 201);
    let silent: Vec<_> = (0..150).map(|_| TcpStream::connect(agent.http).unwrap()).collect();
    agent.until("it says so", || agent.log().contains("cannot accept a connection"));
    let (before, began) = (cpu(&agent), Instant::now());
    while began.elapsed() < Duration::from_secs(2) {
        address.send("a:1|c");
        std::thread::sleep(Duration::from_millis(20));
    }
    let used = cpu(&agent).checked_sub(before).unwrap();
    assert!(used < Duration::from_millis(500), "{used:?} of a processor in two seconds");
    // An open connection gets an answer with the reason.
    let (status, refused) = line.reserve(&json!({"container_id": "late"}));
    assert_eq!((status, &refused["code"]), (503, &json!("no_socket")), "{refused}");
    drop(silent);
    agent.until("it answers again", || agent.get("/ready").0 == 200);
    assert!(shown(&agent, "heard")["received"].as_u64().unwrap() > 50);
    assert_eq!(line.reserve(&json!({"container_id": "late"})).0, 201);
    agent.until("windows are written", || agent.own_metric("tallyport_window_log_failing") == 0.0);
}

/// Raises the limit of descriptors for this many containers, if the machine permits it.
fn more_descriptors() -> u64 {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let raised = std::process::Command::new("prlimit").args(["--nofile=30000:30000", "true"]).status();
    if raised.is_ok_and(|status| status.success()) { 30_000 } else { hard }
}

#[test]
fn twenty_thousand_reservations_are_served_or_told_why_not() {
    let Some(_) = tools::program("prlimit", "scripts/setup containers") else { return };
    let descriptors = more_descriptors();
    let agent =
        Agent::with_descriptors(descriptors, &["--window", "10s", "--set", "limits.containers=19000"]);
    let empty = agent.own_metric("process_resident_memory_bytes");
    let mut line = Line::new(&agent);
    let (mut addresses, mut refused) = (Vec::new(), Vec::new());
    for n in 0..20_000 {
        match line.reserve(
            &json!({"container_id": format!("many-{n}"), "task_id": format!("t{}", n % 100), "ttl": null}),
        ) {
            (201, reserved) => addresses.push(reserved),
            (status, answer) => {
                assert_eq!(status, 503, "{answer}");
                refused.push(answer);
            }
        }
    }
    let full = agent.own_metric("process_resident_memory_bytes");
    let each = (full - empty) / addresses.len() as f64;
    assert!(each < 16_384.0, "{each} bytes for each");
    // As many are served as fit, and the others get a remedy.
    let room = descriptors.saturating_sub(500).min(19_000) as usize;
    assert!(addresses.len() >= room, "{} of {room}: {}", addresses.len(), refused[0]);
    for why in &refused {
        let message = why["message"].as_str().unwrap();
        let remedy = if why["code"] == "no_socket" { "LimitNOFILE=" } else { "limits.containers" };
        assert!(message.contains(remedy), "{why}");
    }
    let listed = agent.admin("GET", "/v1/containers", &Value::Null).1;
    assert_eq!(listed.as_array().unwrap().len(), addresses.len());
    assert_eq!(agent.get("/ready").0, 200);
    // The first, the last and some between are received.
    let some: Vec<_> = addresses.iter().step_by(1000).chain(addresses.last()).map(Address::of).collect();
    some.iter().for_each(|address| address.send("a:1|c"));
    let heard = some.len() as f64;
    agent.until("they are heard", || agent.own_metric("tallyport_values_accepted_total") == heard);
    assert_eq!(agent.own_metric("tallyport_containers{state=\"listening\"}"), addresses.len() as f64);
    assert_eq!(agent.get("/v1/tasks").1.as_array().map(Vec::len), Some(100));
    let doctor = agent.cli(&["doctor"]);
    assert!(!doctor.out.is_empty() && doctor.err.is_empty(), "{doctor:?}");
    eprintln!("{} containers, {} refused, {each:.0} bytes for each", addresses.len(), refused.len());
}

#[test]
fn a_state_directory_that_becomes_read_only_is_told_by_everybody_and_made_good() {
    let Some(()) = tools::mounting() else { return };
    let directory = tempfile::tempdir().unwrap();
    let state = Mounted::new(directory.path().join("state"), "10m");
    let path = state.0.to_str().unwrap().to_owned();
    let mut agent = Agent::in_directory(directory, &["--window", "1s", "--set", "windows.log_size=1MiB"]);
    let process = Sleeper::start();
    let reserve =
        |id: &str| agent.reserve_with(&json!({"container_id": id, "task_id": "web", "pid": process.pid()}));
    let first = reserve("before");
    first.send("a:1|c");
    agent.until("it is written", || agent.own_metric("tallyport_window_log_windows_total") >= 1.0);
    // Open files can still be written, but no new one can be created.
    mount(&["--bind", &path, &path]);
    mount(&["-o", "remount,bind,ro", &path]);
    let second = reserve("meanwhile");
    let failing = || agent.own_metric("tallyport_window_log_failing") == 1.0;
    // As soon as a file is full.
    let mut names = (0..).map(|n| format!("a-series-with-a-long-name-{}-{n}:1|c\n", "x".repeat(200)));
    agent.until("the window log cannot be written", || {
        second.send(names.by_ref().take(5).collect::<String>());
        failing()
    });
    let journal = || agent.own_metric("tallyport_journal_failures_total");
    agent.until_logged("cannot write the window log");
    let doctor = agent.cli(&["doctor"]);
    assert!(doctor.out.contains("nothing can be written"), "{}", doctor.out);
    assert_eq!(agent.get("/ready").0, 200, "it serves on");
    let before = shown(&agent, "meanwhile")["received"].as_u64().unwrap();
    second.send("a:1|c");
    agent.until("it is heard", || shown(&agent, "meanwhile")["received"].as_u64().unwrap() > before);
    assert!(std::process::Command::new("umount").arg(&path).status().unwrap().success());
    agent.until("it is written again", || !failing());
    let failures = journal();
    reserve("after");
    assert_eq!(journal(), failures);
    agent.until_logged("the window log is written again");
    let doctor = agent.cli(&["doctor"]).out;
    assert!(!doctor.contains("nothing can be written"), "{doctor}");
    assert!(agent.stop().success());
    drop(state);
}

#[test]
fn the_holder_of_a_port_on_every_address_is_named_and_each_failed_reservation_is_counted() {
    let squatter = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = squatter.local_addr().unwrap().port();
    let agent = Agent::with(&["--window", "1s", "--set", &format!("listeners.port={port}")]);
    let reserve = |container: &str| {
        agent.admin(
            "POST",
            "/v1/containers",
            &json!({"container_id": container, "task_id": "web.1", "ttl": null}),
        )
    };
    for n in 1..=2 {
        let (status, refused) = reserve("taken");
        assert_eq!((status, &refused["code"]), (503, &json!("no_socket")), "{refused}");
        assert!(refused["message"].as_str().unwrap().contains("another process has this port"), "{refused}");
        assert_eq!(agent.own_metric("tallyport_address_in_use_total"), f64::from(n));
    }
    let doctor = agent.cli(&["doctor"]);
    let holder =
        format!("{port} (listeners.port) is held on every address by process {} (", std::process::id());
    assert!(doctor.code == 1 && doctor.out.contains(&holder), "{}", doctor.out);
    drop(squatter);
    assert_eq!(reserve("free").0, 201);
    assert!(!agent.cli(&["doctor"]).out.contains("is held on every address"));
}
