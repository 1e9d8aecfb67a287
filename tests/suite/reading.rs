//! Answers of a real agent about received data.

use std::collections::BTreeMap;
use std::io::Read as _;

use serde_json::{Value, json};
use tallyport::client::Client;

use crate::agent::{Agent, PATIENCE};

/// Records by name.
fn named(records: &[Value]) -> BTreeMap<String, Value> {
    records.iter().map(|record| (record["name"].as_str().unwrap().to_owned(), record.clone())).collect()
}

/// A task with one finished container that has sent every kind of line.
fn everything(agent: &Agent) {
    let address = agent.reserve_with(&json!({
        "container_id": "c1", "task_id": "web.1", "ttl": null, "labels": {"framework_name": "marathon", "team": "shop"}
    }));
    address.send("hits:3|c|@0.1|#route:/pay\nhits:1|c|#route:/buy\ntemp:20|g\ntemp:+1.5|g");
    address.send(
        "latency:7:2:91:11|ms|#route:/pay\nsize:10|h\nspread:0.5|d\nusers:ann|s\nusers:bob|s\nusers:ann|s",
    );
    address.send("_sc|db|2|#env:dev|m:down\n_e{6,10}:deploy|all\\nis up|t:success|#env:dev\nbad\nbad:x|c");
    agent.finish("c1");
}

#[test]
fn every_type_is_served_with_its_numbers() {
    let agent = Agent::with(&["--window", "10s"]);
    everything(&agent);
    let records = agent.metrics("web.1", "");
    assert_eq!(records.len(), 8);
    let latency = &named(&records)["latency"];
    let agg = &latency["agg"];
    assert_eq!((&agg["count"], &agg["sum"], &agg["mean"]), (&json!(4), &json!(111.0), &json!(27.75)));
    assert_eq!(
        (&agg["first"], &agg["last"], &agg["p50"], &agg["p99"]),
        (&json!(7.0), &json!(11.0), &json!(7.0), &json!(91.0))
    );
    assert_eq!((&latency["unit"], &latency["tags"]), (&json!("ms"), &json!({"route": "/pay"})));
    let origin = json!({"container_id": "c1", "generation": 1, "task_id": "web.1",
        "labels": {"framework_name": "marathon", "team": "shop"}});
    assert_eq!(latency["origin"], origin);
    let found = named(&records);
    let values = ["temp", "size", "spread", "users", "db"].map(|name| found[name]["value"].clone());
    assert_eq!(values, [json!(21.5), json!(10.0), json!(0.5), json!(2.0), json!(2.0)]);
}

#[test]
fn filters_choose_and_repeated_ones_must_all_hold() {
    let agent = Agent::with(&["--window", "10s"]);
    everything(&agent);
    let count = |query: &str| agent.metrics("web.1", query).len();
    for (query, n) in [
        ("?name=hits", 2),
        ("?name=*s", 3),
        ("?name=h*&name=*s", 2),
        ("?tag=route=/pay", 2),
        ("?tag=route:/pay&name=hits", 1),
        ("?label=team=shop", 8),
        ("?label=team=other", 0),
        ("?container=c1", 8),
        ("?container=c2", 0),
        ("?window=open", 0),
        ("?window=all&since=1h", 8),
        ("?since=2000-01-01T00:00:00Z", 8),
    ] {
        assert_eq!(count(query), n, "{query}");
    }
}

#[test]
fn series_are_added_up_over_tags_and_containers_but_levels_are_not() {
    let agent = Agent::start();
    for (container, factor) in [("c1", 1), ("c2", 10)] {
        let address = agent.reserve(container, "web.1");
        address.send(format!(
            "hits:{factor}|c|#route:/pay,status:200\nhits:{}|c|#route:/pay,status:500\nhits:{}|c|#route:/cart,status:200",
            2 * factor,
            4 * factor
        ));
        address.send(format!(
            "level:{factor}|g|#route:/pay\nusers:a:b{factor}|s|#route:/pay\nusers:a|s|#route:/cart"
        ));
        let times: Vec<String> = (1..=50).map(|n| (n * factor).to_string()).collect();
        address.send(format!("t:{}|ms|#route:/pay", times.join(":")));
        agent.finish(container);
    }
    let sums = |query: &str| -> Vec<(Value, Value, Value)> {
        let records = agent.metrics("web.1", query);
        let of = |record: &Value| (record["name"].clone(), record["tags"].clone(), record["value"].clone());
        records.iter().map(of).collect()
    };
    let hits = |tags: Value, value: f64| (json!("hits"), tags, json!(value));
    assert_eq!(
        sums("?window=all&merge&by=route&name=hits"),
        [hits(json!({"route": "/cart"}), 44.0), hits(json!({"route": "/pay"}), 33.0)]
    );
    assert_eq!(sums("?window=all&merge&by=&name=hits"), [hits(json!({}), 77.0)]);
    let both = json!({"route": "/cart", "status": "200"});
    assert_eq!(sums("?window=all&merge&by=route,status&name=hits")[0], hits(both, 44.0));
    assert_eq!(sums("?window=all&merge&by=&container=c2&name=hits"), [hits(json!({}), 70.0)]);
    assert_eq!(
        sums("?window=all&merge&by=&name=users")[0].2,
        json!(3.0),
        "members of several series count once"
    );
    assert_eq!(sums("?window=all&by=&name=level"), [], "levels have no sum");
    let [merged] = &*agent.metrics("web.1", "?window=all&merge&by=&name=t") else { panic!("not one record") };
    let p50 = merged["agg"]["p50"].as_f64().unwrap();
    assert!(
        (p50 - 46.0).abs() <= 1.0 && merged["agg"]["samples"] == 100,
        "of the merged distribution: {merged}"
    );
    assert_eq!(merged["origin"]["containers"], json!(["c1", "c2"]));
    let totals = agent.metrics("web.1", "?window=all&merge&by=&name=hits");
    assert_eq!(totals[0]["agg"]["total"], 77.0, "each series of each container has a total of its own");
    // Without `merge`, each window stays a record, and its time counts once however many series it has.
    let windows = agent.metrics("web.1", "?window=all&by=&name=hits");
    let sum: f64 = windows.iter().map(|record| record["value"].as_f64().unwrap()).sum();
    assert!((sum - 77.0).abs() < 1e-9, "{windows:?}");
    assert!(
        windows.iter().all(|record| record["covered"].as_f64() <= record["seconds"].as_f64()),
        "{windows:?}"
    );
}

#[test]
fn merging_gives_one_record_for_each_series_over_the_whole_span() {
    let agent = Agent::start();
    let address = agent.reserve("c1", "web.1");
    for round in 0..3 {
        for value in 1..=40 {
            address.send(format!("t:{}|ms\nc:1|c|@0.5", round * 40 + value));
        }
        let records = || agent.metrics("web.1", "?window=all&name=c").len();
        let before = records();
        agent.until("a window is closed", || records() > before);
    }
    agent.finish("c1");
    let windows = agent.metrics("web.1", "?window=all&name=t");
    assert!(windows.len() >= 3, "{}", windows.len());
    let merged = agent.totals("web.1");
    let (t, c) = (&merged["t"]["agg"], &merged["c"]);
    assert_eq!(
        (&t["samples"], &t["min"], &t["max"], &t["first"], &t["last"]),
        (&json!(120), &json!(1.0), &json!(120.0), &json!(1.0), &json!(120.0))
    );
    let p50 = t["p50"].as_f64().unwrap();
    assert!((p50 - 60.0).abs() <= 0.6, "{p50}");
    assert_eq!((&c["agg"]["sum"], &c["agg"]["total"]), (&json!(240.0), &json!(240.0)));
    assert_eq!(merged["t"]["merged"], windows.len());
    assert_eq!((&merged["t"]["seq"], &merged["t"]["start"]), (&Value::Null, &windows[0]["start"]));
}

#[test]
fn containers_of_one_task_are_merged_or_told_apart() {
    let agent = Agent::with(&["--window", "10s"]);
    for (container, value) in [("c1", 1), ("c2", 3)] {
        agent.reserve(container, "pod").send(format!("a:{value}|c"));
        agent
            .until("it has arrived", || !agent.metrics("pod", &format!("?container={container}")).is_empty());
    }
    assert_eq!(agent.metrics("pod", "").len(), 2);
    let merged = agent.metrics("pod", "?merge");
    assert_eq!((merged.len(), &merged[0]["value"]), (1, &json!(4.0)));
    assert_eq!(merged[0]["origin"], json!({"task_id": "pod", "containers": ["c1", "c2"]}));
}

#[test]
fn lives_of_one_container_in_one_window_add_up() {
    let agent = Agent::with(&["--window", "1h"]);
    for value in [1, 2] {
        agent.reserve("c1", "job").send(format!("a:{value}|c"));
        std::thread::sleep(std::time::Duration::from_millis(50));
        agent.finish("c1");
    }
    let lives = agent.metrics("job", "?container=c1&window=all");
    let covered = |record: &Value| record["covered"].as_f64().unwrap();
    assert_eq!(lives.len(), 2);
    let merged = &agent.metrics("job", "?container=c1&window=all&merge")[0];
    assert!((covered(merged) - covered(&lives[0]) - covered(&lives[1])).abs() < 0.002, "{merged}");
    assert_eq!((&merged["agg"]["sum"], &merged["agg"]["total"]), (&json!(3.0), &json!(3.0)));
    assert_eq!(
        (&merged["origin"]["container_id"], &merged["origin"]["generation"]),
        (&json!("c1"), &Value::Null)
    );
}

#[test]
fn the_open_window_is_shown_until_one_is_closed() {
    let agent = Agent::with(&["--window", "1h"]);
    let address = agent.reserve("c1", "web.1");
    assert_eq!(agent.metrics("web.1", ""), Vec::<Value>::new(), "a silent task has an empty list");
    address.send("a:1|c");
    agent.until("it is in the open window", || !agent.metrics("web.1", "").is_empty());
    let open = &agent.metrics("web.1", "?window=open")[0];
    assert_eq!((&open["open"], &open["value"], &open["seq"]), (&json!(true), &json!(1.0), &Value::Null));
    assert!(agent.metrics("web.1", "?window=last").is_empty());
    agent.finish("c1");
    let closed = &agent.metrics("web.1", "")[0];
    assert_eq!((&closed["open"], &closed["partial"]), (&Value::Null, &json!(true)));
}

#[test]
fn a_task_says_what_it_received_and_what_was_wrong_with_it() {
    let agent = Agent::with(&["--window", "10s"]);
    everything(&agent);
    let (status, task) = agent.get("/v1/tasks/web.1");
    assert_eq!((status, &task["state"], &task["series"]), (200, &json!("gone"), &json!(8)));
    let totals = &task["totals"];
    assert_eq!(totals["datagrams"]["received"], 3);
    assert_eq!(
        totals["lines"],
        json!({"received": 14, "accepted": 12, "rejected": {"missing_type": 1, "invalid_value": 1}})
    );
    assert_eq!(
        totals["values"],
        json!({"accepted": 14, "in_records": 14, "open": 0, "folded": 0, "dropped": {}})
    );
    assert_eq!((&totals["events"], &totals["balanced"]), (&json!(1), &json!(true)));
    let recent = task["recent_rejected"].as_array().unwrap();
    assert_eq!(
        (recent.len(), &recent[1]["code"], &recent[1]["line"]),
        (2, &json!("invalid_value"), &Value::Null)
    );
    let (_, on_admin) = agent.admin("GET", "/v1/tasks/web.1", &Value::Null);
    assert_eq!(on_admin["recent_rejected"][1]["line"], "bad:x|c", "raw lines are on the admin socket only");
    assert_eq!(agent.get("/v1/tasks").1[0]["task_id"], "web.1");
}

#[test]
fn events_and_checks_are_kept_beside_the_series() {
    let agent = Agent::with(&["--window", "10s"]);
    everything(&agent);
    let (_, events) = agent.get("/v1/tasks/web.1/events");
    let event = &events["events"][0];
    assert_eq!((&event["title"], &event["text"]), (&json!("deploy"), &json!("all\nis up")));
    assert_eq!((&event["alert_type"], &event["tags"]), (&json!("success"), &json!({"env": "dev"})));
    let (_, checks) = agent.get("/v1/tasks/web.1/checks");
    let check = &checks["checks"][0];
    assert_eq!(
        (&check["name"], &check["status"], &check["message"]),
        (&json!("db"), &json!("critical"), &json!("down"))
    );
}

#[test]
fn an_unknown_task_is_404_with_the_nearest_names_and_odd_names_work() {
    let agent = Agent::start();
    agent.reserve("c1", "web.1");
    agent.reserve("c2", "/prod/wéb #1?");
    let (status, error) = agent.get("/v1/tasks/wbe.1/metrics");
    assert_eq!(
        (status, &error["code"], &error["nearest"][0]),
        (404, &json!("unknown_task"), &json!("web.1"))
    );
    assert_eq!(agent.get("/v1/tasks/web").0, 404, "HTTP takes whole names only");
    assert_eq!(agent.get("/v1/tasks/%2Fprod%2Fw%C3%A9b%20%231%3F/metrics").0, 200);
}

#[test]
fn a_bad_request_gets_400_and_the_reason() {
    let agent = Agent::start();
    agent.reserve("c1", "web.1");
    for (path, code) in [
        ("/v1/tasks/web.1/metrics?window=newest", "bad_parameter"),
        ("/v1/tasks/web.1/metrics?since=soon", "bad_parameter"),
        ("/v1/tasks/web.1/metrics?naem=x", "unknown_parameter"),
        ("/v1/metrics?since=1", "bad_parameter"),
        ("/v1/metrics?format=xml", "bad_parameter"),
        ("/v1/tasks?name=x", "unknown_parameter"),
        ("/v1/tasks/web.1?window=all", "unknown_parameter"),
        ("/v1/tasks/web.1/events?name=x", "unknown_parameter"),
        ("/v1/node?x", "unknown_parameter"),
    ] {
        let (status, error) = agent.get(path);
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{path}");
    }
    assert_eq!(agent.get("/v1/nonsense").1["code"], "unknown_route");
    assert_eq!(agent.get("/v1/node").1["last_scrape"], Value::Null, "what was refused is no scrape");
}

#[test]
fn a_scraper_follows_its_cursor_and_misses_nothing() {
    let agent = Agent::start();
    let address = agent.reserve("c1", "web.1");
    let (_, first) = agent.get("/v1/metrics");
    assert_eq!(first["metrics"], json!([]));
    let mut cursor = first["cursor"].as_str().unwrap().to_owned();
    let mut sum = 0.0;
    let mut last_seq = 0;
    for n in 1..=3 {
        address.send(format!("a:{n}|c\nb:{n}|c"));
        agent.until("new records are there", || {
            let (status, page) = agent.get(&format!("/v1/metrics?since={cursor}&name=*"));
            assert_eq!(status, 200);
            let records = page["metrics"].as_array().unwrap();
            for record in records {
                let seq = record["seq"].as_u64().unwrap();
                assert!(seq > last_seq, "{seq} after {last_seq}");
                last_seq = seq;
                sum += record["value"].as_f64().unwrap();
            }
            page["cursor"].as_str().unwrap().clone_into(&mut cursor);
            !records.is_empty()
        });
    }
    assert_eq!(sum, 12.0);
}

#[test]
fn a_scrape_comes_as_lines_and_compressed_when_asked_for() {
    let agent = Agent::with(&["--window", "10s"]);
    everything(&agent);
    let plain = agent.get_raw("/v1/metrics?format=ndjson");
    let lines: Vec<Value> = std::str::from_utf8(&plain.body)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 9);
    assert!(lines[8]["cursor"].is_string(), "the last line is the next cursor");
    let answer = raw(
        &agent,
        "GET /v1/metrics HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n",
    );
    let (head, body) = answer;
    assert!(head.contains("content-encoding: gzip") && head.contains("application/x-ndjson"), "{head}");
    assert!(head.contains(&format!("tallyport-cursor: {}", lines[8]["cursor"].as_str().unwrap())), "{head}");
    let mut text = String::new();
    flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text.as_bytes(), plain.body.as_ref());
    let (_, filtered) = agent.get("/v1/metrics?task=other");
    assert_eq!(filtered["metrics"], json!([]));
    let (_, node) = agent.get("/v1/node");
    assert!(node["last_scrape"].is_string());
}

/// Sends a raw request. Returns the answer's head and body, with chunks joined.
pub(crate) fn raw(agent: &Agent, request: &str) -> (String, Vec<u8>) {
    use std::io::Write as _;
    let mut stream = std::net::TcpStream::connect(agent.http).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..at].to_vec()).unwrap();
    let mut rest = &answer[at + 4..];
    if !head.contains("chunked") {
        return (head, rest.to_vec());
    }
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|bytes| bytes == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return (head, body);
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
}

#[test]
fn a_cursor_that_cannot_be_followed_is_410_with_the_oldest() {
    let agent = Agent::with(&["--window", "1s", "--keep", "1"]);
    let address = agent.reserve("c1", "web.1");
    let (_, start) = agent.get("/v1/metrics");
    let start = start["cursor"].as_str().unwrap();
    agent.until("a window is gone", || {
        address.send("a:1|c");
        agent.get(&format!("/v1/metrics?since={start}")).0 == 410
    });
    let (_, error) = agent.get(&format!("/v1/metrics?since={start}"));
    assert_eq!(error["code"], "expired_cursor");
    let oldest = error["oldest"].as_str().unwrap();
    assert_eq!(agent.get(&format!("/v1/metrics?since={oldest}")).0, 200);
    assert_eq!(agent.get("/v1/metrics?since=1-1").0, 410, "a cursor of another life");
}

#[test]
fn a_watcher_hears_of_every_closed_window_and_of_the_end() {
    let agent = Agent::start();
    let address = agent.reserve("c1", "web.1");
    let client: Client = agent.http_client();
    let mut lines = agent.runtime().block_on(client.stream_lines("/v1/tasks/web.1/watch?name=a*")).unwrap();
    let mut next = |prefix: &str| loop {
        let line = async { tokio::time::timeout(PATIENCE, lines.next()).await.unwrap().unwrap() };
        let line = agent.runtime().block_on(line);
        if let Some(data) = line.expect("the stream goes on").strip_prefix(prefix) {
            return data.to_owned();
        }
    };
    assert_eq!(next(": "), "watching");
    address.send("a:1|c\nb:1|c");
    assert_eq!(next("event: "), "window");
    let id = next("id: ");
    let window: Value = serde_json::from_str(&next("data: ")).unwrap();
    let records = window["metrics"].as_array().unwrap();
    assert_eq!((records.len(), &records[0]["name"], &window["container_id"]), (1, &json!("a"), &json!("c1")));
    assert!(id.starts_with(&records[0]["epoch"].to_string()), "{id}");
    address.send("a:2|c");
    agent.finish("c1");
    assert_eq!(next("event: "), "window");
    assert_eq!(next("event: "), "finished");
}

#[test]
fn a_watcher_that_comes_back_goes_on_where_it_was() {
    let agent = Agent::start();
    let address = agent.reserve("c1", "web.1");
    address.send("a:1|c");
    agent.until("a window is closed", || !agent.metrics("web.1", "?window=last").is_empty());
    let epoch = agent.get("/v1/node").1["epoch"].clone();
    let asked = |id: &str| {
        use std::io::{BufRead as _, Write as _};
        let mut stream = std::net::TcpStream::connect(agent.http).unwrap();
        let head =
            format!("GET /v1/tasks/web.1/watch HTTP/1.1\r\nhost: localhost\r\nlast-event-id: {id}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        std::io::BufReader::new(stream).lines().map_while(Result::ok)
    };
    let request =
        |id: &str| asked(id).find_map(|line| line.strip_prefix("event: ").map(str::to_owned)).unwrap();
    assert_eq!(request(&format!("{epoch}-0")), "window", "what was missed comes first");
    assert_eq!(request("1-1"), "gap", "and a gap is said");
    assert_eq!(
        asked("soon").next().unwrap(),
        "HTTP/1.1 400 Bad Request",
        "nothing is skipped over in silence"
    );
}

#[test]
fn everything_is_counted_once() {
    let agent = Agent::with(&["--window", "10s", "--set", "limits.series=3"]);
    everything(&agent);
    let (_, accounting) = agent.get("/v1/accounting");
    let (container, total) = (&accounting["containers"][0], &accounting["total"]);
    assert_eq!((&container["balanced"], &total["balanced"]), (&json!(true), &json!(true)));
    assert_eq!(total["values"]["accepted"], 14);
    let dropped = total["values"]["dropped"]["series_limit"].as_u64().unwrap();
    assert_eq!(total["values"]["in_records"].as_u64().unwrap() + dropped, 14);
    assert!(dropped > 0);
}

#[test]
fn the_tags_that_make_most_series_are_named() {
    let agent = Agent::with(&["--window", "1s", "--set", "limits.series=20"]);
    let web = agent.reserve("c1", "web.1");
    for n in 0..50 {
        web.send(format!("requests:1|c|#env:production,user:{n},route:{}", n % 2).as_bytes());
    }
    let widest = || agent.get("/v1/tasks/web.1").1["widest_tags"].clone();
    agent.until("a window is closed", || widest().as_array().is_some_and(|tags| !tags.is_empty()));
    let wanted = json!([
        {"key": "user", "values": 20, "series": 20},
        {"key": null, "values": 2, "series": 21},
        {"key": "route", "values": 2, "series": 20},
    ]);
    assert_eq!(widest(), wanted, "the overflow series has a name, and no tags");
    let explained = agent.cli(&["explain", "web.1"]).out;
    assert!(
        explained
            .contains("what makes most series: user (20 values in 20 series), the name itself (2 names)"),
        "{explained}"
    );
}

#[test]
fn prometheus_reads_the_agents_own_metrics() {
    let agent = Agent::with(&["--window", "10s"]);
    everything(&agent);
    let text = |accept: &str| {
        let (head, body) = raw(
            &agent,
            &format!(
                "GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
            ),
        );
        (head, String::from_utf8(body).unwrap())
    };
    let (head, classic) = text("text/plain");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    for line in [
        "tallyport_lines_accepted_total 12",
        "tallyport_lines_rejected_total{code=\"missing_type\"} 1",
        "tallyport_containers{state=\"gone\"} 1",
        "tallyport_dropped_total{reason=\"series_limit\"} 0",
    ] {
        assert!(classic.lines().any(|found| found == line), "{line} is not in\n{classic}");
    }
    let (head, open) = text("application/openmetrics-text; version=1.0.0");
    assert!(head.contains("application/openmetrics-text") && open.ends_with("# EOF\n"), "{head}");
    for family in tallyport::stats::FAMILIES {
        assert!(open.contains(&format!("# TYPE {} ", family.name)), "{} is not served", family.name);
    }
}

#[test]
fn the_dcos_metrics_api_has_its_schema_and_its_status_codes() {
    let agent = Agent::with(&["--window", "10s"]);
    agent.reserve("silent", "t");
    everything(&agent);
    assert_eq!(agent.get("/v0/ping").1["ok"], true);
    assert_eq!(agent.get("/v0/containers").1, json!(["c1", "silent"]));
    assert_eq!(agent.get("/v0/containers/nope/app"), (204, Value::Null));
    assert_eq!(agent.get("/v0/containers/silent/app"), (204, Value::Null));
    let (status, message) = agent.get("/v0/containers/c1/app");
    assert_eq!(status, 200);
    let names: Vec<&str> =
        message["datapoints"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    for name in [
        "hits",
        "temp",
        "users",
        "latency.count",
        "latency.lower",
        "latency.mean",
        "latency.stddev",
        "latency.sum",
        "latency.upper",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let keys: Vec<&String> = message["datapoints"][0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["name", "value", "unit", "timestamp", "tags"]);
    let dimensions = &message["dimensions"];
    assert_eq!(
        (&dimensions["framework_name"], &dimensions["task_id"]),
        (&json!("marathon"), &json!("web.1"))
    );
    assert_eq!((&dimensions["mesos_id"], &dimensions["labels"]), (&json!(""), &json!({"team": "shop"})));
    let one = |metric: &str| {
        let (status, message) = agent.get(&format!("/v0/containers/c1/app/{metric}"));
        (status, message["datapoints"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(
        [one("latency"), one("latency.count"), one("hits"), one("lat")],
        [(200, 11), (200, 1), (200, 2), (204, 0)]
    );
}

#[test]
fn a_late_sample_revises_its_record() {
    let agent = Agent::with(&["--window", "2s"]);
    let address = agent.reserve("c1", "web.1");
    let record = || agent.metrics("web.1", "?window=all&name=a").first().cloned().unwrap_or_default();
    address.send("a:1|c");
    agent.until("its window is closed", || record()["rev"] == 0);
    let start: tallyport::model::Timestamp = record()["start"].as_str().unwrap().parse().unwrap();
    address.send(format!("a:10|c|T{}\nold:1|c|T1000000000\nahead:1|c|T9999999999", start.as_secs()));
    agent.until("it is revised", || record()["rev"] == 1);
    assert_eq!(record()["value"], 11.0);
    let dropped = agent.get("/v1/tasks/web.1").1["totals"]["values"]["dropped"].clone();
    assert_eq!(dropped, json!({"late": 1, "future": 1}));
}

#[test]
fn the_agent_says_that_it_is_alive_and_ready() {
    let agent = Agent::start();
    assert_eq!(agent.get("/health").1["status"], "alive");
    assert_eq!(agent.get("/ready"), (200, json!({"ready": true, "pending": [], "degraded": []})));
}
