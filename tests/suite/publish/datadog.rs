//! Publishers of Datadog's API, to an intake that answers as a script says.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::{Value, json};

use super::{Backend, Received, Reply, agent_with, publisher, until_delivered};
use crate::agent::of_this_test;

#[derive(Clone, PartialEq, Message)]
struct SketchPayload {
    #[prost(message, repeated, tag = "1")]
    sketches: Vec<Sketch>,
}

#[derive(Clone, PartialEq, Message)]
struct Sketch {
    #[prost(string, tag = "1")]
    metric: String,
    #[prost(message, repeated, tag = "7")]
    dogsketches: Vec<Dogsketch>,
}

#[derive(Clone, PartialEq, Message)]
struct Dogsketch {
    #[prost(int64, tag = "2")]
    count: i64,
    #[prost(double, tag = "6")]
    sum: f64,
}

const TAKEN: Reply = Reply::Status(202, "", "{\"errors\":[]}");

/// The configuration, and the directory of the key.
fn datadog(address: SocketAddr) -> (String, tempfile::TempDir) {
    let secret = tempfile::tempdir().unwrap();
    let key = secret.path().join("key");
    std::fs::write(&key, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[publish.d]\ntype = \"datadog\"\nurl = \"http://{address}\"\ntimeout = \"1s\"\nproxy = \"\"\ntoken_file = {:?}\n",
        key.display().to_string()
    );
    (text, secret)
}

fn accepted(backend: &Backend, route: &str) -> Vec<Received> {
    let taken = backend.requests().into_iter().filter(|(it, status)| *status == 202 && it.target == route);
    taken.map(|(request, _)| request).collect()
}

fn document(request: &Received) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

/// The sum of the points of a metric.
fn sum_of_series(backend: &Backend, metric: &str) -> f64 {
    let requests = accepted(backend, "/api/v2/series");
    let series = requests.iter().flat_map(|request| document(request)["series"].as_array().unwrap().clone());
    let values =
        series.filter(|one| one["metric"] == metric).map(|one| one["points"][0]["value"].as_f64().unwrap());
    values.sum()
}

/// The count and the sum of the sketches of a metric.
fn sum_of_sketches(backend: &Backend, metric: &str) -> (i64, f64) {
    let requests = accepted(backend, "/api/beta/sketches");
    let sketches =
        requests.iter().flat_map(|request| SketchPayload::decode(request.body.as_slice()).unwrap().sketches);
    let values = sketches.filter(|sketch| sketch.metric == metric).flat_map(|sketch| sketch.dogsketches);
    values.fold((0, 0.0), |(count, sum), of| (count + of.count, sum + of.sum))
}

#[test]
fn each_kind_of_record_arrives_by_its_route_with_the_key_in_a_header() {
    let backend = Backend::new(|_| TAKEN);
    let (config, _secret) = datadog(backend.address);
    let agent = agent_with(&config);
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    let (mut sent, deadline) = (0, Instant::now() + Duration::from_millis(2500));
    while Instant::now() < deadline {
        address.send("hits:2|c|#route:/pay\nlatency:7:8|ms\n_sc|db.up|2|m:no route");
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    agent.until("the counts arrive", || sum_of_series(&backend, "hits") == 2.0 * f64::from(sent));
    until_delivered(&agent);
    let (count, sum) = sum_of_sketches(&backend, "latency");
    assert_eq!((count, sum), (2 * i64::from(sent), 15.0 * f64::from(sent)));
    let checks = accepted(&backend, "/api/v1/check_run");
    let check = document(&checks[0])[0].clone();
    assert_eq!(
        (&check["check"], &check["status"], &check["message"]),
        (&json!("db.up"), &json!(2), &json!("no route"))
    );
    for (request, _) in backend.requests() {
        assert_eq!(request.headers["dd-api-key"], "0123456789abcdef");
        assert_eq!(request.headers["content-encoding"], "gzip");
        assert!(!request.headers.contains_key("authorization"));
    }
    assert!(!agent.log().contains("0123456789abcdef"));
    let records = &publisher(&agent)["records"];
    assert_eq!((&records["dropped"], &records["dead"]), (&json!({}), &json!(0)));
    let series = document(&accepted(&backend, "/api/v2/series")[0])["series"][0].clone();
    assert_eq!((&series["type"], &series["interval"]), (&json!(1), &json!(1)));
    assert!(series["tags"].as_array().unwrap().contains(&json!("route:/pay")), "{series}");
}

#[test]
fn a_refused_record_of_each_route_is_found_kept_and_sent_again_by_its_route() {
    let has =
        |request: &Received, text: &str| request.body.windows(text.len()).any(|part| part == text.as_bytes());
    let backend = Backend::new(move |request| match has(request, "poison") {
        true => Reply::Status(400, "", "{\"errors\":[\"invalid\"]}"),
        false => TAKEN,
    });
    let (config, _secret) = datadog(backend.address);
    let agent = agent_with(&config);
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    for n in 0..50 {
        address.send(format!("series.{n}:1|c\nvalues.{n}:3|ms\n_sc|check.{n}|0"));
    }
    address.send("poison:1|c\npoison.t:3|ms\n_sc|poison.s|0");
    agent.until("all three are dead", || publisher(&agent)["records"]["dead"] == 3);
    until_delivered(&agent);
    let arrived: f64 = (0..50).map(|n| sum_of_series(&backend, &format!("series.{n}"))).sum();
    let values: i64 = (0..50).map(|n| sum_of_sketches(&backend, &format!("values.{n}")).0).sum();
    assert_eq!((arrived, values), (50.0, 50));
    backend.follow(|_| TAKEN);
    let replayed = agent.cli(&["publish", "replay", "d"]);
    assert_eq!((replayed.code, replayed.out.as_str()), (0, "3 records were accepted, 0 were not\n"));
    assert_eq!((sum_of_series(&backend, "poison"), sum_of_sketches(&backend, "poison.t").0), (1.0, 1));
    assert!(accepted(&backend, "/api/v1/check_run").iter().any(|request| has(request, "poison.s")));
}

#[test]
fn an_unknown_key_holds_everything_and_a_busy_intake_is_left_alone() {
    for (reply, state) in [
        (Reply::Status(403, "", "{\"errors\":[\"Forbidden\"]}"), "held"),
        (Reply::Status(429, "retry-after: 1", ""), "retrying"),
        (Reply::Status(503, "", ""), "retrying"),
    ] {
        let backend = Backend::new({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let (config, secret) = datadog(backend.address);
        let agent = agent_with(&config);
        agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c\nlatency:7|ms");
        agent.until("it waits", || publisher(&agent)["state"] == state);
        if state == "held" {
            let doctor = agent.cli(&["doctor", "--json"]);
            assert!(doctor.out.contains(secret.path().to_str().unwrap()), "{}", doctor.out);
        }
        backend.follow(|_| TAKEN);
        agent.until("it arrives", || sum_of_series(&backend, "hits") == 5.0);
        until_delivered(&agent);
        assert_eq!(sum_of_sketches(&backend, "latency").0, 1);
        assert_eq!(publisher(&agent)["records"]["dead"], 0);
    }
}
