//! What was sent, compared with what a destination answers to queries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tallyport::model::Timestamp;

use crate::agent::{Agent, of_this_test};
use crate::publish::{Backend, Received, Reply};

const TAKEN: Reply = Reply::Status(204, "", "");

/// A database of points: measurement and tags, then time, then fields.
type Points = BTreeMap<String, BTreeMap<i64, BTreeMap<String, f64>>>;

/// A server that keeps points and answers the queries of `publish verify`, as far as names need no escapes.
#[derive(Clone, Default)]
struct Database(Arc<Mutex<Points>>);

impl Database {
    fn serve(&self) -> Backend {
        let database = self.clone();
        Backend::new(move |request| match request.target() {
            "/query" => reply(&database.answer(request)),
            _ => {
                database.write(request);
                TAKEN
            }
        })
    }

    fn write(&self, request: &Received) {
        let mut points = self.0.lock().unwrap();
        for line in request.lines() {
            let [series, fields, time] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let fields = fields.split(',').filter_map(|field| {
                let (key, value) = field.split_once('=').unwrap();
                Some((key.to_owned(), value.parse().ok()?))
            });
            points.entry(series.to_owned()).or_default().insert(time.parse().unwrap(), fields.collect());
        }
    }

    fn answer(&self, request: &Received) -> Value {
        let form: BTreeMap<_, _> =
            form_urlencoded::parse(request.lines()[0].as_bytes()).into_owned().collect();
        assert_eq!((form["db"].as_str(), form["epoch"].as_str()), ("kadabra", "ms"));
        let points = self.0.lock().unwrap();
        let results = form["q"].split(';').enumerate().map(|(index, statement)| {
            let series: Vec<_> =
                points.iter().filter_map(|(series, of)| select(statement, series, of)).collect();
            json!({"statement_id": index, "series": series})
        });
        json!({"results": results.collect::<Vec<_>>()})
    }
}

/// The row of a series, if a statement asks for it.
fn select(statement: &str, series: &str, points: &BTreeMap<i64, BTreeMap<String, f64>>) -> Option<Value> {
    let between = |start: &str, end: &str| statement.split_once(start).unwrap().1.split_once(end).unwrap().0;
    let (name, tags) = series.split_once(',').unwrap();
    let tags: BTreeMap<_, _> = tags.split(',').map(|tag| tag.split_once('=').unwrap()).collect();
    let asked =
        between("FROM \"", "\"") == name && statement.contains(&format!("\"task\" = '{}'", tags["task"]));
    let (first, last): (i64, i64) =
        (between("time >= ", "ms").parse().unwrap(), between("time <= ", "ms").parse().unwrap());
    let within: Vec<_> = points.range(first..=last).map(|(_, fields)| fields).collect();
    if !asked || within.is_empty() {
        return None;
    }
    let of = |field: &'static str| within.iter().filter_map(move |fields| fields.get(field));
    let sum = |field| of(field).next().map(|_| of(field).sum::<f64>());
    Some(json!({
        "name": name,
        "tags": tags,
        "columns": ["time", "points", "value", "count", "sum"],
        "values": [[first, of("value").count(), sum("value"), sum("count"), sum("sum")]],
    }))
}

fn reply(document: &Value) -> Reply {
    Reply::Status(200, "content-type: application/json", Box::leak(document.to_string().into_boxed_str()))
}

/// An agent with windows of a second and this configuration of publishers.
fn agent_with(text: &str) -> Agent {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, format!("publish.settle = \"100ms\"\n{text}")).unwrap();
    Agent::in_directory(directory, &["--window", "1s", "--config", file.to_str().unwrap()])
}

fn influx(address: SocketAddr) -> String {
    format!("[publish.i]\ntype = \"influxdb\"\nurl = \"http://{address}\"\nproxy = \"\"\n")
}

/// Sends until a comparison has rounds of all of it, and returns its document and exit code.
fn verified(agent: &Agent, name: &str, rounds: u64) -> (Value, i32) {
    let mut last = (Value::Null, 0);
    agent.until("there are enough rounds to compare", || {
        let ran = agent.cli(&["publish", "verify", name, "-o", "json"]);
        last = (serde_json::from_str(&ran.out).unwrap_or_default(), ran.code);
        last.0["outcome"] != "nothing" && last.0["rounds"].as_u64() >= Some(rounds)
    });
    last
}

fn differences(document: &Value) -> BTreeSet<(String, String)> {
    let all = document["differences"].as_array().unwrap().iter();
    all.map(|it| (it["name"].as_str().unwrap().to_owned(), it["what"].as_str().unwrap().to_owned())).collect()
}

fn send_for_three_windows(agent: &Agent) {
    for (container, task) in [("c-1", "web.1"), ("c-2", "web.2")] {
        let address = agent.reserve(&of_this_test(container), task);
        for _ in 0..3 {
            address.send("hits:3|c|#route:/pay\nhits:1|c\nlevel:7|g\nlatency:20:30|ms\nvisitors:a|s");
            std::thread::sleep(std::time::Duration::from_millis(1050));
        }
    }
}

#[test]
fn a_database_that_holds_everything_is_the_same_and_every_loss_is_named() {
    let database = Database::default();
    let backend = database.serve();
    let agent = agent_with(&influx(backend.address));
    send_for_three_windows(&agent);
    let (same, code) = verified(&agent, "i", 5);
    assert_eq!((&same["outcome"], code), (&json!("ok"), 0), "{same:#}");
    assert_eq!((&same["series"], &same["differing"], &same["parts"]), (&json!(10), &json!(0), &json!(1)));
    let shown = agent.cli(&["publish", "verify", "i"]);
    assert!(shown.code == 0 && shown.out.starts_with("10 series are the same over "), "{shown:?}");
    let doctor = agent.cli(&["doctor", "--publish", "--json"]);
    assert!(
        doctor.out.contains("i, compared with its destination: 10 series are the same"),
        "{}",
        doctor.out
    );
    // A point is lost, one has another value, a whole series is gone, and one is there that was never sent.
    {
        let mut points = database.0.lock().unwrap();
        let key = |name: &str, task: &str| {
            let of =
                |key: &&String| key.starts_with(&format!("{name},")) && key.contains(&format!("task={task}"));
            points.keys().find(of).unwrap().clone()
        };
        let (hits, level, visitors) = (key("hits", "web.1"), key("level", "web.1"), key("visitors", "web.2"));
        points.get_mut(&hits).unwrap().pop_first();
        points.get_mut(&level).unwrap().first_entry().unwrap().get_mut().insert("value".to_owned(), 8.0);
        let stranger = points.remove(&visitors).unwrap();
        points.insert(visitors.replace("metric_type=set", "metric_type=set,route=none"), stranger);
    }
    let (document, code) = verified(&agent, "i", 5);
    assert_eq!((&document["outcome"], code), (&json!("differs"), 1));
    let wanted = [("hits", "points"), ("hits", "value"), ("level", "value"), ("visitors", "points")];
    let found = differences(&document);
    for (name, what) in wanted {
        assert!(found.contains(&(name.to_owned(), what.to_owned())), "{name} {what}: {document:#}");
    }
    assert!(!found.iter().any(|(name, _)| name == "latency"), "{document:#}");
    let shown = agent.cli(&["publish", "verify", "i"]).out;
    assert!(
        shown.contains("visitors{metric_type=\"set\",route=\"none\",task=\"web.2\"} points: 0 expected, "),
        "{shown}"
    );
    let doctor = agent.cli(&["doctor", "--publish", "--json"]);
    assert!(
        doctor.code == 1 && doctor.out.contains("tallyport publish verify i --since 1h"),
        "{}",
        doctor.out
    );
}

#[test]
fn what_cannot_be_compared_is_said_and_is_no_success() {
    let database = Database::default();
    let backend = database.serve();
    let agent = agent_with(&format!("{}[publish.log]\ntype = \"debug\"\n", influx(backend.address)));
    let early = agent.cli(&["publish", "verify", "i"]);
    assert!(early.code == 1 && early.out.contains("no whole round is kept"), "{early:?}");
    send_for_three_windows(&agent);
    verified(&agent, "i", 3);
    let unsupported = agent.cli(&["publish", "verify", "log"]);
    assert!(
        unsupported.code == 1 && unsupported.out.contains("type debug answers no queries"),
        "{unsupported:?}"
    );
    let unknown = agent.cli(&["publish", "verify", "nope"]);
    assert!(unknown.code == 1 && unknown.err.contains("there is no publisher \"nope\""), "{unknown:?}");
    for (reply, said) in [
        (Reply::Status(401, "", "who are you"), "401 Unauthorized: who are you"),
        (Reply::Status(200, "", "<html>"), "does not answer InfluxQL"),
        (Reply::Status(200, "", r#"{"results":[{"error":"database not found"}]}"#), "database not found"),
        (Reply::Status(200, "", r#"{"error":"unable to parse"}"#), "unable to parse"),
        (Reply::Hang, "within 5 s"),
    ] {
        backend.follow(move |request| if request.target() == "/query" { reply.clone() } else { TAKEN });
        let failed = agent.cli(&["publish", "verify", "i"]);
        assert!(failed.code == 1 && failed.out.contains(said), "{said}: {failed:?}");
    }
    for bad in ["part=1&parts=1", "parts=0", "part=x", "until=soon", "series=1"] {
        let (status, _) = agent.admin("POST", &format!("/v1/publishers/i/verify?{bad}"), &Value::Null);
        assert_eq!(status, 400, "{bad}");
    }
}

#[test]
fn parts_have_every_series_once() {
    let database = Database::default();
    let backend = database.serve();
    let agent = agent_with(&influx(backend.address));
    let addresses: Vec<_> =
        (0..20).map(|n| agent.reserve(&of_this_test(&format!("c-{n}")), &format!("web.{n}"))).collect();
    for address in &addresses {
        address.send("hits:1|c\nlevel:2|g");
    }
    verified(&agent, "i", 1);
    let part = |part: u64| {
        let path = format!("/v1/publishers/i/verify?part={part}&parts=4");
        agent.admin("POST", &path, &Value::Null).1
    };
    let parts: Vec<_> = (0..4).map(part).collect();
    let series: Vec<_> = parts.iter().map(|part| part["series"].as_u64().unwrap()).collect();
    assert_eq!(series.iter().sum::<u64>(), 40, "{parts:?}");
    assert!(series.iter().all(|series| *series < 40), "{series:?}");
    assert!(parts.iter().all(|part| part["outcome"] == "ok" && part["parts"] == 4), "{parts:?}");
}

#[test]
fn a_file_is_read_back() {
    let records = tempfile::tempdir().unwrap();
    let path = records.path().join("records.ndjson");
    let agent =
        agent_with(&format!("[publish.f]\ntype = \"file\"\npath = {:?}\n", path.display().to_string()));
    send_for_three_windows(&agent);
    let (same, code) = verified(&agent, "f", 5);
    assert_eq!((&same["outcome"], code), (&json!("ok"), 0), "{same:#}");
    assert_eq!(same["series"], 10);
    let text = std::fs::read_to_string(&path).unwrap();
    let kept: Vec<_> = text.lines().filter(|line| !line.contains("\"visitors\"")).collect();
    let changed = kept.join("\n").replace("\"last\":7.0", "\"last\":8.0") + "\n";
    assert!(changed.contains("\"last\":8.0"), "{text}");
    std::fs::write(&path, changed).unwrap();
    let (document, code) = verified(&agent, "f", 5);
    assert_eq!((&document["outcome"], code), (&json!("differs"), 1));
    let wanted = [("level", "value"), ("visitors", "records")];
    assert_eq!(
        differences(&document),
        wanted.map(|(name, what)| (name.to_owned(), what.to_owned())).into(),
        "{document:#}"
    );
}

#[test]
fn rounds_that_only_files_still_have_are_compared_and_those_that_nothing_has_are_named() {
    let database = Database::default();
    let backend = database.serve();
    let down = Backend::new(|_| Reply::Status(503, "", "down"));
    // What waits for the second publisher keeps the files of the window log.
    let waiting = influx(down.address).replace("publish.i", "publish.waiting");
    let in_files = agent_with(&format!("windows.keep = 3\n{}{waiting}", influx(backend.address)));
    let forgetful =
        agent_with(&format!("windows.keep = 9\nwindows.log = false\n{}", influx(backend.address)));
    let addresses =
        [in_files.reserve(&of_this_test("a"), "web.a"), forgetful.reserve(&of_this_test("b"), "web.b")];
    let verify = |agent: &Agent| -> (Value, i32) {
        let ran = agent.cli(&["publish", "verify", "i", "-o", "json"]);
        (serde_json::from_str(&ran.out).unwrap_or_default(), ran.code)
    };
    let mut last = Value::Null;
    in_files.until("there are far more rounds than memory has", || {
        addresses.iter().for_each(|address| address.send("hits:1|c\nlevel:7|g"));
        last = verify(&in_files).0;
        last["rounds"].as_u64() >= Some(9)
    });
    assert_eq!((&last["outcome"], &last["series"]), (&json!("ok"), &json!(2)), "{last:#}");
    let said = last["not_compared"].as_str().unwrap();
    assert!(said.contains("nothing before") && !said.contains("no longer kept"), "{said}");
    // The oldest point, which is in no memory any more.
    let mut points = database.0.lock().unwrap();
    let hits = points.keys().find(|key| key.starts_with("hits,") && key.contains("web.a")).unwrap().clone();
    let from: Timestamp = last["from"].as_str().unwrap().parse().unwrap();
    points.get_mut(&hits).unwrap().retain(|at, _| *at > from.as_micros() / 1000 + 1000);
    drop(points);
    let (document, code) = verify(&in_files);
    assert_eq!((&document["outcome"], code), (&json!("differs"), 1), "{document:#}");
    assert!(differences(&document).contains(&("hits".to_owned(), "points".to_owned())), "{document:#}");

    let (document, _) = verify(&forgetful);
    assert!(document["rounds"].as_u64() < Some(5), "{document:#}");
    let said = document["not_compared"].as_str().unwrap();
    assert!(said.contains("no longer kept, neither in memory nor in files"), "{said}");
    let shown = forgetful.cli(&["publish", "verify", "i"]).out;
    assert!(shown.contains("nothing before 2"), "{shown}");
}

#[test]
fn a_receiver_that_answers_queries_elsewhere_is_asked_there_with_the_credentials_of_writing() {
    let receiver = Backend::new(|_| TAKEN);
    let nothing = json!({"status": "success", "data": {"resultType": "matrix", "result": []}});
    let queries = Backend::new(move |_| reply(&nothing));
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "t0k3n\n").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let agent = agent_with(&format!(
        "[publish.r]\ntype = \"remote_write\"\nurl = \"http://{}/api/v1/receive\"\nquery_url = \"http://{}/prometheus\"\n\
         headers = [\"THANOS-TENANT=shop\"]\ntoken_file = {:?}\nproxy = \"\"\n",
        receiver.address,
        queries.address,
        token.display().to_string()
    ));
    agent.reserve(&of_this_test("c"), "web.1").send("hits:1|c");
    let (document, code) = verified(&agent, "r", 1);
    assert_eq!((&document["outcome"], code), (&json!("differs"), 1), "{document:#}");
    let requests = queries.requests();
    let (first, _) = &requests[0];
    assert_eq!(first.target(), "/prometheus/api/v1/query");
    assert_eq!((first.header("authorization"), first.header("thanos-tenant")), ("Bearer t0k3n", "shop"));
    assert!(receiver.requests().iter().all(|(request, _)| request.target() == "/api/v1/receive"));
}
