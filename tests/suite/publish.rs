//! Publishers of a real agent, and backends that answer as a script says.

mod batch;
mod datadog;
mod otlp;
mod receiver;
mod remote_write;
mod spool;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::{Agent, of_this_test, ran};

/// A request that a backend has received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    at: Instant,
    target: String,
    headers: BTreeMap<String, String>,
    /// Its body, unpacked if it was compressed with gzip.
    body: Vec<u8>,
    /// The lines of a body of text.
    lines: Vec<String>,
}

/// What a backend answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A status, a header field or none, and a body.
    Status(u16, &'static str, &'static str),
    /// Nothing, until the client gives up.
    Hang,
}

const TAKEN: Reply = Reply::Status(204, "", "");

type Script = Arc<Mutex<Box<dyn FnMut(&Received) -> Reply + Send>>>;

/// A server that takes requests as InfluxDB does, and answers by its script.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<(Received, u16)>>>,
    script: Script,
    /// How long it takes for each answer, in milliseconds.
    delay: Arc<AtomicU64>,
}

impl Received {
    /// The path and the query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// The value of a header field, by its name in lower case; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The lines of its body.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }
}

impl Backend {
    pub(crate) fn new(script: impl FnMut(&Received) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<_>>> = Arc::default();
        let script: Script = Arc::new(Mutex::new(Box::new(script)));
        let delay: Arc<AtomicU64> = Arc::default();
        let (kept, said, late) = (Arc::clone(&received), Arc::clone(&script), Arc::clone(&delay));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, said, late) = (Arc::clone(&kept), Arc::clone(&said), Arc::clone(&late));
                std::thread::spawn(move || serve(stream, &kept, &said, &late));
            }
        });
        Self { address, received, script, delay }
    }

    /// Takes this long for each answer from now on.
    fn answer_after(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Answers by another script from now on.
    pub(crate) fn follow(&self, script: impl FnMut(&Received) -> Reply + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// All requests, with the status that each was answered with.
    pub(crate) fn requests(&self) -> Vec<(Received, u16)> {
        self.received.lock().unwrap().clone()
    }

    /// The points of accepted requests: measurement, tags and time to the field `value`. A point that comes again replaces itself.
    fn points(&self) -> BTreeMap<(String, String), f64> {
        let taken = self.requests().into_iter().filter(|(_, status)| *status == 204);
        taken.flat_map(|(request, _)| request.lines).map(|line| parse_point(&line)).collect()
    }

    /// The sum over all points of a measurement.
    fn sum(&self, measurement: &str) -> f64 {
        let of = |key: &str| key == measurement || key.starts_with(&format!("{measurement},"));
        self.points().iter().filter(|((key, _), _)| of(key)).map(|(_, value)| value).sum()
    }
}

fn parse_point(line: &str) -> ((String, String), f64) {
    let (key, rest) = line.split_once(' ').unwrap();
    let (fields, time) = rest.rsplit_once(' ').unwrap();
    let value = fields.split(',').find_map(|field| field.strip_prefix("value=")).unwrap();
    ((key.to_owned(), time.to_owned()), value.parse().unwrap())
}

/// Serves one connection.
fn serve(stream: TcpStream, kept: &Mutex<Vec<(Received, u16)>>, script: &Script, delay: &AtomicU64) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let reply = (script.lock().unwrap())(&request);
        match reply {
            Reply::Status(status, header, body) => {
                kept.lock().unwrap().push((request, status));
                let length =
                    if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
                let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
                let answer = format!("HTTP/1.1 {status} X\r\n{length}{header}\r\n{body}");
                std::thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
                if writer.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Reply::Hang => {
                kept.lock().unwrap().push((request, 0));
                let _until_it_gives_up = reader.read(&mut [0]);
                return;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let target = head.first()?.split(' ').nth(1)?.to_owned();
    let headers = head.iter().skip(1).filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<_, _> = headers.map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut unpacked).unwrap();
        body = unpacked;
    }
    let is_text = !headers.get("content-type").is_some_and(|of| of.contains("protobuf"));
    let text = if is_text { std::str::from_utf8(&body).unwrap() } else { "" };
    let lines = text.lines().map(str::to_owned).collect();
    Some(Received { at: Instant::now(), target, headers, body, lines })
}

/// An agent with these lines in its configuration. Windows are of a second.
fn agent_with(text: &str) -> Agent {
    agent_in(tempfile::tempdir().unwrap(), text)
}

fn agent_in(directory: tempfile::TempDir, text: &str) -> Agent {
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, format!("publish.settle = \"100ms\"\n{text}")).unwrap();
    Agent::in_directory(directory, &["--window", "1s", "--config", file.to_str().unwrap()])
}

fn influx(address: SocketAddr) -> String {
    format!("[publish.i]\ntype = \"influxdb\"\nurl = \"http://{address}\"\ntimeout = \"1s\"\nproxy = \"\"\n")
}

/// The document of the only publisher. Its counts must add up, whatever has happened.
fn publisher(agent: &Agent) -> Value {
    let (status, publishers) = agent.get("/v1/publishers");
    assert_eq!(status, 200, "{publishers}");
    let publisher = publishers[0].clone();
    let records: tallyport::wire::PublishedRecordsDocument =
        serde_json::from_value(publisher["records"].clone()).unwrap();
    assert!(records.is_balanced(), "{publisher:#}");
    publisher
}

fn until_delivered(agent: &Agent) {
    agent.until("everything is delivered", || {
        let publisher = publisher(agent);
        publisher["records"]["pending"] == 0 && publisher["state"] == "idle"
    });
}

#[test]
fn a_file_has_every_closed_window_once_also_across_a_restart() {
    let records = tempfile::tempdir().unwrap();
    let path = records.path().join("records.ndjson");
    let config = format!("[publish.f]\ntype = \"file\"\npath = {:?}\n", path.display().to_string());
    let mut sent = 0;
    let mut directory = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let agent = agent_in(directory, &config);
        let (one, other) = (of_this_test(&format!("c-a{run}")), of_this_test(&format!("c-b{run}")));
        let addresses = [agent.reserve(&one, "web.1"), agent.reserve(&other, "web.1")];
        let deadline = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < deadline {
            for address in &addresses {
                address.send("hits:2|c\nhits:1|c|#route:/pay\nlatency:7|ms");
                sent += 3;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        agent.finish(&other);
        // The windows that are open now are closed by the end of the agent, and written before it ends.
        directory = agent.into_directory();
    }
    assert_eq!(file_sum(&path, "hits"), f64::from(sent));
}

/// The sum over the last revision of each record. Fails if a revision of a record is there twice.
fn file_sum(path: &Path, name: &str) -> f64 {
    let text = std::fs::read_to_string(path).unwrap();
    let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::new());
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let key = (record["id"].to_string(), record["start"].to_string());
        let rev = record["rev"].as_u64().unwrap();
        assert!(seen.insert((key.clone(), rev)), "twice: {line}");
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

#[test]
fn influxdb_gets_the_sums_that_were_sent_with_nothing_set_but_the_server() {
    let backend = Backend::new(|_| TAKEN);
    let agent = agent_with(&influx(backend.address));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    for _ in 0..50 {
        address.send("hits:2|c|#route:/pay\nhits:1|c");
    }
    agent.until("both series arrive", || backend.sum("hits") == 150.0);
    let (request, _) = backend.requests().remove(0);
    assert_eq!(request.target, "/write?db=kadabra&precision=ms");
    assert!(request.headers["user-agent"].starts_with("tallyport/"));
    until_delivered(&agent);
    let publisher = publisher(&agent);
    assert_eq!(
        (&publisher["type"], &publisher["destination"]),
        (&json!("influxdb"), &json!(format!("http://{}", backend.address)))
    );
    assert_eq!(publisher["records"]["dropped"], json!({}));
}

#[test]
fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    let mut answered = false;
    let backend = Backend::new(move |_| match std::mem::replace(&mut answered, true) {
        false => Reply::Status(429, "retry-after: 3", ""),
        true => TAKEN,
    });
    let agent = agent_with(&influx(backend.address));
    agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c");
    agent.until("it waits", || publisher(&agent)["state"] == "retrying");
    agent.until("the record arrives", || backend.sum("hits") == 5.0);
    let requests = backend.requests();
    let gap = requests[1].0.at - requests[0].0.at;
    assert!(gap >= Duration::from_millis(2990), "{gap:?}");
    until_delivered(&agent);
}

#[test]
fn a_server_with_a_limit_gets_smaller_requests_and_never_again_larger_ones() {
    const LIMIT: usize = 6000;
    let backend =
        Backend::new(|request| match request.lines.iter().map(String::len).sum::<usize>() > LIMIT {
            true => Reply::Status(413, "", "too large"),
            false => TAKEN,
        });
    let agent = agent_with(&influx(backend.address));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    let send = || {
        for n in 0..200 {
            address.send(format!("series.{n}:1|c"));
        }
    };
    send();
    let arrived = || (0..200).map(|n| backend.sum(&format!("series.{n}"))).sum::<f64>();
    agent.until("all arrive", || arrived() == 200.0);
    until_delivered(&agent);
    let refused = || backend.requests().iter().filter(|(_, status)| *status == 413).count();
    let before = refused();
    assert!(before > 0);
    send();
    agent.until("all arrive again", || arrived() == 400.0);
    assert_eq!(refused(), before);
}

#[test]
fn a_failing_server_and_one_that_hangs_are_tried_again_and_nothing_is_lost() {
    for reply in [Reply::Status(503, "", "overloaded"), Reply::Hang] {
        let backend = Backend::new({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let agent = agent_with(&influx(backend.address));
        let address = agent.reserve(&of_this_test("c-1"), "web.1");
        address.send("hits:5|c");
        agent.until("it is tried again", || backend.requests().len() >= 3);
        let failing = publisher(&agent);
        assert!(["retrying", "sending"].contains(&failing["state"].as_str().unwrap()), "{failing}");
        assert!(failing["last_answer"].is_string() && failing["records"]["pending"].as_u64() > Some(0));
        address.send("hits:6|c");
        backend.follow(|_| TAKEN);
        agent.until("all arrive", || backend.sum("hits") == 11.0);
        until_delivered(&agent);
        let records = &publisher(&agent)["records"];
        assert_eq!((&records["dropped"], &records["dead"]), (&json!({}), &json!(0)));
    }
}

#[test]
fn nothing_is_dropped_for_a_wrong_token_or_a_missing_database_and_doctor_says_what_to_do() {
    let secret = tempfile::tempdir().unwrap();
    let token = secret.path().join("token");
    std::fs::write(&token, "geheim\n").unwrap();
    let mut mode = std::fs::metadata(&token).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
    std::fs::set_permissions(&token, mode).unwrap();
    let missing = "{\"error\":\"database not found: \\\"kadabra\\\"\"}";
    for (reply, reason, advice) in [
        (Reply::Status(401, "", "unauthorized"), "auth", token.to_str().unwrap()),
        (Reply::Status(404, "", missing), "gone", "create the database kadabra"),
    ] {
        let backend = Backend::new(move |_| reply.clone());
        let text = format!("{}token_file = {:?}\n", influx(backend.address), token.display().to_string());
        let agent = agent_with(&text);
        let address = agent.reserve(&of_this_test("c-1"), "web.1");
        address.send("hits:5|c");
        agent.until("it is held", || publisher(&agent)["state"] == "held");
        let held = publisher(&agent);
        assert_eq!(held["reason"], reason);
        assert!(held["advice"].as_str().unwrap().contains(advice), "{held}");
        let doctor = agent.cli(&["doctor", "--json"]);
        assert!(doctor.out.contains(advice), "{}", doctor.out);
        let explain = agent.cli(&["explain", "web.1"]);
        assert!(explain.out.contains("published") && explain.out.contains("held"), "{}", explain.out);
        let (authorization, log) = (backend.requests()[0].0.headers["authorization"].clone(), agent.log());
        assert_eq!(authorization, "Token geheim");
        assert!(!log.contains("geheim") && !doctor.out.contains("geheim"));
        backend.follow(|_| TAKEN);
        agent.until("it arrives", || backend.sum("hits") == 5.0);
        until_delivered(&agent);
        assert_eq!(publisher(&agent)["records"]["dead"], 0);
    }
}

#[test]
fn a_poisonous_series_is_found_and_kept_and_everything_else_arrives() {
    let poison = |request: &Received| request.lines.iter().any(|line| line.starts_with("poison"));
    let backend = Backend::new(move |request| match poison(request) {
        true => Reply::Status(400, "", "{\"error\":\"partial write: field type conflict dropped=1\"}"),
        false => TAKEN,
    });
    let agent = agent_with(&influx(backend.address));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    // In one datagram each, so that all are in one window unless one closes in between.
    for n in 0..400 {
        address.send(format!("series.{n}:1|c"));
    }
    address.send("poison:1|c");
    let arrived = || (0..400).map(|n| backend.sum(&format!("series.{n}"))).sum::<f64>();
    agent.until("all others arrive", || arrived() == 400.0);
    agent.until("it is dead", || publisher(&agent)["records"]["dead"] == 1);
    until_delivered(&agent);
    assert!(backend.requests().len() <= 30, "{}", backend.requests().len());
    let dead = agent.cli(&["publish", "dead", "i"]);
    assert!(
        dead.out.contains("counter poison of web.1") && dead.out.contains("field type conflict"),
        "{dead:?}"
    );
    assert_eq!(dead.out.lines().count(), 1);
    // It is refused once more, and accepted once the cause is gone.
    assert_eq!(agent.cli(&["publish", "replay", "i"]).code, 1);
    backend.follow(|_| TAKEN);
    let replayed = agent.cli(&["publish", "replay", "i"]);
    assert_eq!((replayed.code, replayed.out.as_str()), (0, "1 records were accepted, 0 were not\n"));
    assert_eq!(backend.sum("poison"), 1.0);
    assert_eq!(agent.cli(&["publish", "dead", "i", "--json"]).out.trim(), "[]");
}

#[test]
fn a_server_that_fails_with_one_text_whatever_it_is_sent_kills_nothing() {
    let backend = Backend::new(|_| Reply::Status(500, "", "the disk is full"));
    let agent = agent_with(&influx(backend.address));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    for n in 0..50 {
        address.send(format!("series.{n}:1|c"));
    }
    agent.until("it has searched for a cause", || backend.requests().len() >= 12);
    backend.follow(|_| TAKEN);
    let arrived = || (0..50).map(|n| backend.sum(&format!("series.{n}"))).sum::<f64>();
    agent.until("all arrive", || arrived() == 50.0);
    until_delivered(&agent);
    assert_eq!(publisher(&agent)["records"]["dead"], 0);
}

#[test]
fn what_was_sent_can_be_sent_again_and_makes_no_further_point() {
    let backend = Backend::new(|_| TAKEN);
    let agent = agent_with(&influx(backend.address));
    agent.reserve(&of_this_test("c-1"), "web.1").send("runTime:0.828|ms|#program:fibonacci");
    agent.until("it arrives", || backend.sum("runTime") == 0.828);
    until_delivered(&agent);
    let points = backend.points();
    for _ in 0..3 {
        let replayed = agent.cli(&["publish", "replay", "i", "--since", "5m"]);
        assert_eq!((replayed.code, replayed.out.as_str()), (0, "1 records were accepted, 0 were not\n"));
    }
    assert_eq!(backend.points(), points);
    assert_eq!(backend.requests().len(), 4);
}

#[test]
fn an_outage_is_made_up_for_oldest_first() {
    let backend = Backend::new(|_| Reply::Status(503, "", ""));
    let agent = agent_with(&influx(backend.address));
    for n in 0..5 {
        let address = agent.reserve(&of_this_test(&format!("c-{n}")), "web.1");
        address.send("hits:3|c");
        std::thread::sleep(Duration::from_secs(1));
        agent.finish(&of_this_test(&format!("c-{n}")));
    }
    backend.follow(|_| TAKEN);
    agent.until("all arrive", || backend.sum("hits") == 15.0);
    until_delivered(&agent);
    let taken = backend.requests().into_iter().filter(|(_, status)| *status == 204);
    let times: Vec<String> = taken.map(|(request, _)| parse_point(&request.lines[0]).0.1).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_changed_address_takes_over_what_is_left_and_a_removed_publisher_stops() {
    let (old, new) = (Backend::new(|_| Reply::Hang), Backend::new(|_| TAKEN));
    let agent = agent_with(&influx(old.address));
    agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c");
    agent.until("the old one hangs", || !old.requests().is_empty());
    let file = agent.admin_socket().with_file_name("agent.toml");
    std::fs::write(&file, influx(new.address)).unwrap();
    let (status, answer) = agent.admin("POST", "/v1/config/reload", &Value::Null);
    assert_eq!(status, 200, "{answer}");
    agent.until("the new one gets it", || new.sum("hits") == 5.0);
    until_delivered(&agent);
    std::fs::write(&file, "").unwrap();
    assert_eq!(agent.admin("POST", "/v1/config/reload", &Value::Null).0, 200);
    assert_eq!(agent.get("/v1/publishers").1, json!([]));
}

#[test]
fn an_agent_ends_in_order_while_a_server_hangs() {
    let backend = Backend::new(|_| Reply::Hang);
    let mut agent = agent_with(&influx(backend.address));
    agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c");
    agent.until("the server hangs", || !backend.requests().is_empty());
    assert!(agent.stop().success(), "{}", agent.log());
}

#[test]
fn what_was_not_delivered_before_the_end_of_an_agent_is_delivered_by_the_next() {
    let backend = Backend::new(|_| Reply::Status(503, "", ""));
    let agent = agent_with(&influx(backend.address));
    agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c");
    agent.until("it is tried", || !backend.requests().is_empty());
    let directory = agent.into_directory();
    backend.follow(|_| TAKEN);
    let agent = agent_in(directory, &influx(backend.address));
    agent.until("it arrives", || backend.sum("hits") == 5.0);
    until_delivered(&agent);
}

#[test]
fn graphite_gets_lines_and_a_restarted_one_gets_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&lines);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // One line for each connection, as if it restarted all the time.
            let mut line = String::new();
            if BufReader::new(stream).read_line(&mut line).is_ok_and(|n| n > 0) {
                kept.lock().unwrap().push(line);
            }
        }
    });
    let agent =
        agent_with(&format!("[publish.g]\ntype = \"graphite\"\nhost = \"127.0.0.1\"\nport = {port}\n"));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    agent.until("lines of two rounds arrive", || {
        address.send("hits:5|c");
        lines.lock().unwrap().len() >= 2
    });
    let line = lines.lock().unwrap()[0].clone();
    assert!(line.contains("hits") && line.split(' ').count() == 3, "{line}");
}

#[test]
fn commands_show_what_is_delivered_and_try_a_destination() {
    let backend = Backend::new(|_| TAKEN);
    let agent = agent_with(&influx(backend.address));
    agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c");
    agent.until("it arrives", || backend.sum("hits") == 5.0);
    until_delivered(&agent);
    let list = agent.cli(&["publish", "list"]);
    assert!(list.out.contains("influxdb") && list.out.contains("idle"), "{list:?}");
    let show = agent.cli(&["publish", "show", "i"]);
    assert!(show.out.contains("records.delivered") && show.out.contains("behind_seconds"), "{show:?}");
    assert_eq!(agent.cli(&["publish", "show", "j"]).code, 1);
    let check = agent.cli(&["publish", "check", "i"]);
    assert_eq!(
        (check.code, check.out.as_str()),
        (0, "accepted\nit would send 1 series of the windows that are kept\n")
    );
    assert_eq!(backend.sum("tallyport.publish.check"), 1.0);
    backend.follow(|_| Reply::Status(404, "", "{\"error\":\"database not found\"}"));
    let check = agent.cli(&["publish", "check", "i"]);
    assert!(check.code == 1 && check.out.contains("create the database"), "{check:?}");
    assert_eq!(agent.cli(&["publish", "check", "j"]).code, 1);
    let own = String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
    for sample in [
        "tallyport_publish_records_total{publisher=\"i\",outcome=\"delivered\"}",
        "tallyport_publish_dropped_total{publisher=\"i\",reason=\"expired\"} 0",
        "tallyport_publish_pending_records{publisher=\"i\"}",
    ] {
        assert!(own.contains(sample), "{sample}\n{own}");
    }
    let doctor = agent.cli(&["doctor"]);
    assert!(doctor.out.contains("i has delivered"), "{}", doctor.out);
}

#[test]
fn a_setting_that_cannot_be_delivered_with_is_refused_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    for (text, part) in [
        ("type = \"influxdb\"\nworkers = 17", "publish.x.workers = \"17\""),
        ("type = \"graphite\"\nworkers = 2", "publish.x.workers is not a setting of type graphite"),
        ("type = \"influxdb\"\nbatch = \"15s\"", "publish.x.batch = \"15s\" is not a multiple of interval"),
        (
            "type = \"remote_write\"\nurl = \"http://h/\"\nbatch = \"1m\"",
            "a receiver refuses a repeated request with two samples of a series",
        ),
        (
            "type = \"otlp\"\nurl = \"http://h/\"\nbatch = \"1m\"",
            "publish.x.batch = \"1m\" needs temporality = \"delta\"",
        ),
        ("type = \"graphite\"\ntemplate = \"a..{name}\"", "publish.x.template"),
    ] {
        std::fs::write(&file, format!("[publish.x]\n{text}\n")).unwrap();
        let checked = ran(std::process::Command::new(crate::agent::BINARY)
            .args(["config", "check", "--config"])
            .arg(&file));
        assert!(checked.code != 0 && checked.err.contains(part), "{text}: {checked:?}");
    }
}
