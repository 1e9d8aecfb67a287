//! Publishers that gather rounds: fewer requests with the same records, also where the agent is killed or ended in between.

use std::time::SystemTime;

use nix::sys::signal::Signal;

use super::*;

/// The moments that the lines of a request are of.
fn times(request: &Received) -> BTreeSet<String> {
    request.lines.iter().map(|line| parse_point(line).0.1).collect()
}

/// Waits for the beginning of a batch of this many seconds.
pub(super) fn wait_for_batch(seconds: u64) {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let within = now.as_millis() % (u128::from(seconds) * 1000);
    let left = seconds * 1000 - u64::try_from(within).unwrap();
    std::thread::sleep(Duration::from_millis(left + 50));
}

/// Sends for some time. Returns the sum of what was sent.
fn send_for(agent: &Agent, containers: &[&str], time: Duration) -> f64 {
    let containers: Vec<_> = containers.iter().map(|name| of_this_test(name)).collect();
    let addresses: Vec<_> = containers.iter().map(|name| agent.reserve(name, "web.1")).collect();
    let (mut sent, deadline) = (0.0, Instant::now() + time);
    while Instant::now() < deadline {
        for address in &addresses {
            address.send("hits:2|c\nhits:1|c|#route:/pay\nlatency:7|ms");
            sent += 3.0;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    sent
}

#[test]
fn rounds_of_a_batch_share_requests_and_the_sums_are_the_same() {
    let (alone, batched) = (Backend::new(|_| TAKEN), Backend::new(|_| TAKEN));
    let records = tempfile::tempdir().unwrap();
    let path = records.path().join("records.ndjson");
    let gathering = influx(batched.address).replace("publish.i", "publish.b");
    let file =
        format!("[publish.f]\ntype = \"file\"\npath = {:?}\nbatch = \"3s\"\n", path.display().to_string());
    let agent = agent_with(&format!("{}{gathering}batch = \"3s\"\n{file}", influx(alone.address)));
    wait_for_batch(3);
    let sent = send_for(&agent, &["c-1", "c-2"], Duration::from_millis(5500));
    let publishers = || agent.get("/v1/publishers").1.as_array().unwrap().clone();
    let gathers = publishers().iter().find(|one| one["name"] == "b").unwrap().clone();
    assert!(
        gathers["records"]["pending"].as_u64() > Some(0) && gathers["next_attempt"].is_string(),
        "{gathers}"
    );
    agent.until("all arrive", || batched.sum("hits") == sent && alone.sum("hits") == sent);
    agent.until("the file has all", || file_sum(&path, "hits") == sent);
    agent.until("nothing is left", || publishers().iter().all(|one| one["records"]["pending"] == 0));
    assert_eq!(batched.points(), alone.points());
    let rounds = alone.requests().len();
    let requests = batched.requests();
    assert!(rounds >= 6 && requests.len() <= rounds / 2, "{} of {rounds}", requests.len());
    assert_eq!(times(&requests[0].0).len(), 3);
    for publisher in publishers() {
        let records = &publisher["records"];
        assert_eq!((&records["dropped"], &records["dead"]), (&json!({}), &json!(0)), "{publisher:#}");
    }
}

#[test]
fn a_batch_of_points_with_increases_and_one_for_each_route_adds_up() {
    let (otlp, datadog) =
        (Backend::new(|_| Reply::Status(200, "", "")), Backend::new(|_| Reply::Status(202, "", "")));
    let secret = tempfile::tempdir().unwrap();
    let key = secret.path().join("key");
    std::fs::write(&key, "k\n").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let more = "timeout = \"1s\"\nproxy = \"\"\nbatch = \"3s\"\n";
    let agent = agent_with(&format!(
        "[publish.o]\ntype = \"otlp\"\nurl = \"http://{}/v1/metrics\"\ntemporality = \"delta\"\n{more}\
         [publish.d]\ntype = \"datadog\"\nurl = \"http://{}\"\ntoken_file = {:?}\n{more}",
        otlp.address,
        datadog.address,
        key.display().to_string()
    ));
    wait_for_batch(3);
    let sent = send_for(&agent, &["c-1"], Duration::from_millis(2500));
    let increases = || {
        let requests = otlp.requests();
        let points = requests.iter().flat_map(|(request, _)| otlp::points(request));
        points.filter(|(name, _)| name == "hits_total").map(|(_, (.., value))| value).sum::<f64>()
    };
    let series_of = |request: &Received| {
        let document: Value = serde_json::from_slice(&request.body).unwrap();
        document["series"].as_array().unwrap().clone()
    };
    let of_route = |route: &str| {
        let requests = datadog.requests().into_iter().map(|(request, _)| request);
        requests.filter(|request| request.target == route).collect::<Vec<_>>()
    };
    let counts = || {
        let series = of_route("/api/v2/series").iter().flat_map(series_of).collect::<Vec<_>>();
        series.iter().map(|one| one["points"][0]["value"].as_f64().unwrap()).sum::<f64>()
    };
    agent.until("all arrive", || increases() == sent && counts() == sent);
    assert!(otlp.requests().len() <= 2, "{}", otlp.requests().len());
    let (series, sketches) = (of_route("/api/v2/series"), of_route("/api/beta/sketches"));
    assert!(series.len() <= 2 && sketches.len() == series.len(), "{} {}", series.len(), sketches.len());
    assert!(series_of(&series[0]).len() >= 4, "two series of several rounds");
}

#[test]
fn a_kill_while_a_batch_is_sent_repeats_the_same_bytes() {
    let backend = Backend::new(|_| Reply::Hang);
    let config = format!("{}batch = \"3s\"\n", influx(backend.address));
    let mut agent = agent_with(&config);
    wait_for_batch(3);
    let sent = send_for(&agent, &["c-1", "c-2"], Duration::from_millis(2600));
    agent.until("the batch is sent", || !backend.requests().is_empty());
    agent.signal(Signal::SIGKILL);
    agent.wait();
    backend.follow(|_| TAKEN);
    let agent = agent_in(agent.into_dead_directory(), &config);
    agent.until("all arrive", || backend.sum("hits") == sent);
    until_delivered(&agent);
    let requests = backend.requests();
    let unanswered = requests.iter().find(|(_, status)| *status == 0).unwrap();
    let taken = requests.iter().find(|(_, status)| *status == 204).unwrap();
    assert_eq!(unanswered.0.lines, taken.0.lines);
    assert!(times(&taken.0).len() >= 3, "{:?}", times(&taken.0));
    assert_eq!(publisher(&agent)["records"]["dropped"], json!({}));
}

#[test]
fn a_kill_while_rounds_are_gathered_loses_none_and_repeats_none() {
    let backend = Backend::new(|_| TAKEN);
    let config = format!("{}batch = \"6s\"\n", influx(backend.address));
    let mut agent = agent_with(&config);
    wait_for_batch(6);
    let sent = send_for(&agent, &["c-1"], Duration::from_millis(1800));
    agent.until("its windows are closed", || publisher(&agent)["records"]["pending"].as_u64() >= Some(6));
    // They are on the disk some hundredths of a second later.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(backend.requests().len(), 0);
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let agent = agent_in(agent.into_dead_directory(), &config);
    agent.until("all arrive", || backend.sum("hits") == sent);
    until_delivered(&agent);
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn the_end_of_an_agent_and_a_hand_over_do_not_wait_for_a_batch() {
    let backend = Backend::new(|_| TAKEN);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml").display().to_string();
    let agent = agent_in(directory, &format!("{}batch = \"1h\"\n", influx(backend.address)));
    let mut sent = send_for(&agent, &["c-1"], Duration::from_millis(1200));
    let began = Instant::now();
    let agent = agent.handed_over(&["--window", "1s", "--config", &file]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    sent += send_for(&agent, &["c-2"], Duration::from_millis(1200));
    assert_eq!(backend.requests().len(), 0);
    let _directory = agent.into_directory();
    assert_eq!(backend.sum("hits"), sent);
}

#[test]
fn one_refused_series_costs_a_batch_no_other_record() {
    let poison = |request: &Received| request.lines.iter().any(|line| line.starts_with("poison"));
    let backend = Backend::new(move |request| match poison(request) {
        true => Reply::Status(400, "", "{\"error\":\"partial write: field type conflict dropped=1\"}"),
        false => TAKEN,
    });
    let agent = agent_with(&format!("{}batch = \"3s\"\n", influx(backend.address)));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    wait_for_batch(3);
    for _ in 0..3 {
        for n in 0..100 {
            address.send(format!("series.{n}:1|c"));
        }
        address.send("poison:1|c");
        std::thread::sleep(Duration::from_millis(900));
    }
    let arrived = || (0..100).map(|n| backend.sum(&format!("series.{n}"))).sum::<f64>();
    agent.until("all others arrive", || arrived() == 300.0);
    until_delivered(&agent);
    let publisher = publisher(&agent);
    let dead = publisher["records"]["dead"].as_u64().unwrap();
    assert!((1..=3).contains(&dead) && publisher["dead_letters"] == dead, "{publisher:#}");
    let letters = agent.cli(&["publish", "dead", "i"]);
    assert!(letters.out.lines().all(|line| line.contains("counter poison of web.1")), "{letters:?}");
}

#[test]
fn a_server_with_a_limit_gets_a_batch_in_smaller_requests() {
    const LIMIT: usize = 6000;
    let backend =
        Backend::new(|request| match request.lines.iter().map(String::len).sum::<usize>() > LIMIT {
            true => Reply::Status(413, "", "too large"),
            false => TAKEN,
        });
    let agent = agent_with(&format!("{}batch = \"3s\"\n", influx(backend.address)));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    for _ in 0..3 {
        for n in 0..100 {
            address.send(format!("series.{n}:1|c"));
        }
        std::thread::sleep(Duration::from_millis(900));
    }
    let arrived = || (0..100).map(|n| backend.sum(&format!("series.{n}"))).sum::<f64>();
    agent.until("all arrive", || arrived() == 300.0);
    until_delivered(&agent);
    assert_eq!(publisher(&agent)["records"]["dead"], 0);
}
