//! `reserve → attach → release` through the admin socket of a real agent, in both dialects.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::{Address, Agent};
use crate::namespaces::Process;

#[test]
fn a_reserve_call_answers_the_address_and_the_environment() {
    let agent = Agent::start();
    let body =
        json!({"container_id": "c1", "task_id": "web.1", "labels": {"team": "shop"}, "colour": "ignored"});
    let (status, reserved) = agent.admin("POST", "/v1/containers", &body);
    assert_eq!(status, 201);
    let (host, port) = (reserved["statsd_host"].as_str().unwrap(), reserved["statsd_port"].as_u64().unwrap());
    assert!(host.starts_with("127.") && !host.starts_with("127.0."), "{host}");
    assert_eq!(
        reserved,
        json!({
            "container_id": "c1", "task_id": "web.1", "generation": 1, "statsd_host": host, "statsd_port": port,
            "state": "listening", "attached": false,
            "env": {"STATSD_UDP_HOST": host, "STATSD_UDP_PORT": port.to_string()}, "warnings": []
        })
    );
    assert_eq!(agent.admin("POST", "/v1/containers", &body), (200, reserved));
}

#[test]
fn a_process_with_too_many_calls_at_a_time_is_told_so_and_other_launchers_are_served() {
    let agent = Agent::with(&["--set", "http.max_connections=8"]);
    let own = || String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
    let has = |line: &str| own().lines().any(|own| own == line);
    // Requests with incomplete bodies.
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = std::os::unix::net::UnixStream::connect(agent.admin_socket()).unwrap();
            stream
                .write_all(b"POST /v1/containers HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
                .unwrap();
            stream
        })
        .collect();
    agent.until("they are open", || has("tallyport_http_connections{listener=\"admin\"} 4"));
    let refused = "tallyport_http_connections_refused_total{listener=\"admin\",reason=\"client\"}";
    assert!(has(&format!("{refused} 0")), "{}", own());
    let (status, answer) = agent.admin("GET", "/v1/containers", &Value::Null);
    assert_eq!((status, &answer["code"]), (503, &json!("too_many_connections")), "{answer}");
    assert!(has(&format!("{refused} 1")), "{}", own());
    agent.until_logged("refused connections to the admin socket");
    let launched = agent.cli(&["run", "--fail-closed", "--", "true"]);
    assert_eq!(launched.code, 0, "another process has its own share: {launched:?}");
    drop(held);
    agent.until("there is room again", || agent.admin("GET", "/v1/containers", &Value::Null).0 == 200);
}

#[test]
fn a_list_shows_what_was_received() {
    let agent = Agent::start();
    let address = agent.reserve("c1", "web.1");
    address.send("a:1|c\nbad");
    agent.until("the datagram is counted", || {
        agent.admin("GET", "/v1/containers/c1", &Value::Null).1["received"] == 1
    });
    let (status, listed) = agent.admin("GET", "/v1/containers", &Value::Null);
    let shown = &listed[0];
    assert_eq!((status, listed.as_array().unwrap().len()), (200, 1));
    assert_eq!(
        (&shown["received"], &shown["rejected"], &shown["dropped"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!((&shown["origin_guard"], &shown["labels"]), (&json!("none"), &json!({})));
    assert!(shown["last_datagram"].is_string());
    assert_eq!(agent.admin("GET", "/v1/containers?task=other", &Value::Null).1, json!([]));
}

#[test]
fn a_conflict_is_a_409_and_a_new_life_a_new_generation() {
    let agent = Agent::start();
    agent.reserve("c1", "web.1");
    let (status, error) =
        agent.admin("POST", "/v1/containers", &json!({"container_id": "c1", "task_id": "web.2"}));
    assert_eq!((status, &error["code"]), (409, &json!("conflict")));
    agent.finish("c1");
    let (status, again) =
        agent.admin("POST", "/v1/containers", &json!({"container_id": "c1", "task_id": "web.2"}));
    assert_eq!((status, &again["generation"]), (201, &json!(2)));
}

#[test]
fn a_bad_call_gets_its_reason() {
    let agent = Agent::start();
    for (body, code) in [
        (json!({"container_id": ""}), "bad_id"),
        (json!({"container_id": "x".repeat(257)}), "bad_id"),
        (json!({"container_id": "../../etc/shadow"}), "bad_id"),
        (json!({"task_id": "web"}), "bad_body"),
        (
            json!({"container_id": "c", "network": {"mode": "netns", "path": "/etc/hostname"}}),
            "not_a_namespace",
        ),
        (
            json!({"container_id": "c", "network": {"mode": "netns", "path": "/proc/self/ns/mnt"}}),
            "not_a_namespace",
        ),
        (json!({"container_id": "c", "pid": 0}), "no_such_process"),
    ] {
        let (status, error) = agent.admin("POST", "/v1/containers", &body);
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().len() > 10, "{error}");
    }
    for (method, path) in [("GET", "/v1/containers/nope"), ("DELETE", "/v1/containers/nope")] {
        assert_eq!(agent.admin(method, path, &Value::Null).0, 404);
    }
    let (status, error) = agent.admin("PUT", "/v1/containers", &json!({}));
    assert_eq!((status, &error["code"]), (405, &json!("method_not_allowed")));
    let long = json!({"container_id": "c", "labels": {"a": "x".repeat(1 << 20)}});
    assert_eq!(agent.admin("POST", "/v1/containers", &long).0, 413);
    assert_eq!(
        agent.admin("GET", "/v1/containers", &Value::Null).1,
        json!([]),
        "nothing is left of any of them"
    );
}

#[test]
fn the_lifecycle_is_on_the_admin_socket_only() {
    let agent = Agent::start();
    for path in ["/v1/containers", "/containers", "/v1/tasks/x/tail"] {
        assert_eq!(agent.get(path).0, 404, "{path}");
    }
}

#[test]
fn all_that_a_process_sent_is_readable_within_250_ms_of_its_end() {
    let agent = Agent::with(&["--window", "10s"]);
    let mut process = Process::start(Command::new("sleep").arg("600"));
    let address =
        agent.reserve_with(&json!({"container_id": "c1", "task_id": "web.1", "pid": process.pid()}));
    for _ in 0..100 {
        address.send("a:1|c");
    }
    process.end();
    let ended = Instant::now();
    agent.until("the last window is closed", || !agent.metrics("web.1", "?window=last").is_empty());
    assert!(ended.elapsed() < Duration::from_millis(250), "{:?}", ended.elapsed());
    let records = agent.metrics("web.1", "?window=all");
    assert_eq!(
        (records.len(), &records[0]["agg"]["sum"], &records[0]["partial"]),
        (1, &json!(100.0), &json!(true))
    );
    let (_, task) = agent.get("/v1/tasks/web.1");
    assert_eq!((&task["finished"], &task["state"]), (&json!(true), &json!("gone")));
}

#[test]
fn an_unused_reservation_expires_and_an_attached_one_does_not() {
    let agent = Agent::with(&["--window", "1s", "--set", "containers.reservation_ttl=1s"]);
    let process = Process::start(Command::new("sleep").arg("600"));
    agent.admin("POST", "/v1/containers", &json!({"container_id": "alone"}));
    agent.admin("POST", "/v1/containers", &json!({"container_id": "attached"}));
    agent.admin("POST", "/v1/containers", &json!({"container_id": "forever", "ttl": null}));
    let attach = || agent.admin("POST", "/v1/containers/attached/attach", &json!({"pid": process.pid()}));
    let (status, attached) = attach();
    assert_eq!((status, &attached["attached"]), (200, &json!(true)));
    assert_eq!(attach().0, 200);
    let state =
        |id: &str| agent.admin("GET", &format!("/v1/containers/{id}"), &Value::Null).1["state"].clone();
    agent.until("the reservation has expired", || state("alone") == "gone");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!((state("attached"), state("forever")), (json!("listening"), json!("listening")));
}

#[test]
fn a_container_that_opts_out_gets_204_and_the_reason() {
    let agent = Agent::start();
    let body = json!({"container_id": "c1", "labels": {"tallyport.enabled": "false"}});
    assert_eq!(agent.admin("POST", "/v1/containers", &body), (204, Value::Null));
    assert_eq!(agent.admin("GET", "/v1/containers/c1", &Value::Null).0, 404);
}

#[test]
fn presets_add_aliases_and_change_what_a_sign_means() {
    let agent = Agent::with(&["--window", "1s", "--set", "env.presets=statsd,datadog"]);
    let (_, reserved) =
        agent.admin("POST", "/v1/containers", &json!({"container_id": "c1", "task_id": "t", "ttl": null}));
    let (host, port) = (&reserved["statsd_host"], &reserved["statsd_port"]);
    assert_eq!(reserved["env"]["STATSD_HOST"], *host);
    let url = format!("udp://{}:{port}", host.as_str().unwrap());
    assert_eq!(reserved["env"]["DD_DOGSTATSD_URL"], url);
    Address::of(&reserved).send("g:5|g\ng:-3|g");
    let delta =
        json!({"container_id": "c2", "task_id": "t2", "ttl": null, "options": {"gauge_sign": "delta"}});
    agent.reserve_with(&delta).send("g:5|g\ng:-3|g");
    for (container, task, level) in [("c1", "t", -3.0), ("c2", "t2", 2.0)] {
        agent.finish(container);
        assert_eq!(agent.metrics(task, "")[0]["value"], level, "{task}");
    }
}

#[test]
fn the_dcos_isolator_finds_its_dialect() {
    let agent = Agent::start();
    let post = || agent.admin("POST", "/container", &json!({"container_id": "m1"}));
    let (status, reserved) = post();
    assert_eq!(status, 201);
    let keys: Vec<&String> = reserved.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["container_id", "statsd_host", "statsd_port"]);
    assert_eq!(post(), (201, reserved.clone()), "a repeat must not fail a launch");
    assert_eq!(agent.admin("GET", "/containers", &Value::Null), (200, json!([reserved])));
    assert_eq!(agent.admin("GET", "/container/m1", &Value::Null), (200, reserved.clone()));
    assert_eq!(agent.admin("GET", "/health", &Value::Null).0, 200);
    Address::of(&reserved).send("statsd_tester.time.uptime:7|g|#test_tag_key:test_tag_value");
    assert_eq!(agent.admin("DELETE", "/container/m1", &Value::Null), (202, Value::Null));
    assert_eq!(agent.admin("DELETE", "/container/m1", &Value::Null).0, 202, "a repeat changes nothing");
    assert_eq!(agent.admin("DELETE", "/container/m2", &Value::Null).0, 404);
    assert_eq!(agent.admin("GET", "/container/m1", &Value::Null).0, 404);
    assert_eq!(agent.admin("POST", "/container", &json!({"container_id": "../x"})).0, 400);
    agent.until("the app's metrics are there", || agent.get("/v0/containers/m1/app").0 == 200);
    let (_, message) = agent.get("/v0/containers/m1/app");
    let datapoint = &message["datapoints"][0];
    assert_eq!(datapoint["name"], "statsd_tester.time.uptime");
    assert_eq!((&datapoint["value"], &datapoint["unit"]), (&json!(7), &json!("")));
    assert_eq!(datapoint["tags"], json!({"test_tag_key": "test_tag_value"}));
}

/// Requests byte for byte as libprocess writes them: on one persistent connection, without a host name for a Unix
/// socket.
#[test]
fn the_isolators_calls_are_answered_by_one_connection_in_a_form_that_it_reads() {
    let agent = Agent::start();
    let mut stream = std::os::unix::net::UnixStream::connect(agent.admin_socket()).unwrap();
    stream.set_read_timeout(Some(crate::agent::PATIENCE)).unwrap();
    let mut ask = |head: &str, body: &str| {
        let request = format!("{head} HTTP/1.1\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).unwrap();
        (head.split_whitespace().nth(1).unwrap().to_owned(), String::from_utf8(body).unwrap())
    };
    let reserve = "Accept: application/json\r\nConnection: Keep-Alive\r\nContent-Length: 24\r\n\
                   Content-Type: application/json\r\n\r\n{\"container_id\":\"ab.cd\"}";
    for _launch in 0..2 {
        let (status, body) = ask("POST /container", reserve);
        assert_eq!(status, "201", "{body}");
        let reserved: Value = serde_json::from_str(&body).unwrap();
        assert!(
            reserved["statsd_host"].is_string() && reserved["statsd_port"].is_u64(),
            "both, or the launch fails"
        );
        let clean_up = "Accept: application/json\r\nConnection: Keep-Alive\r\n\r\n";
        assert_eq!(ask("DELETE /container/ab.cd", clean_up), ("202".to_owned(), String::new()));
    }
}

#[test]
fn the_dcos_dialect_serves_a_configured_address() {
    let agent = Agent::with(&["--window", "1s", "--set", "dcos.host=127.0.0.77"]);
    let post = |id: &str| agent.admin("POST", "/container", &json!({"container_id": id})).1;
    let (first, second) = (post("m1"), post("m2"));
    assert_eq!((&first["statsd_host"], &second["statsd_host"]), (&json!("127.0.0.77"), &json!("127.0.0.77")));
    assert_ne!(first["statsd_port"], second["statsd_port"]);
}

#[test]
fn every_admin_call_is_logged_with_its_caller() {
    let agent = Agent::start();
    agent.reserve("c1", "web.1");
    let audited = || agent.log().lines().filter(|line| line.contains("\"target\":\"audit\"")).count();
    agent.until("the call is logged", || audited() == 1);
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("audit")).unwrap();
    let document: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&document["method"], &document["path"], &document["status"]),
        (&json!("POST"), &json!("/v1/containers"), &json!(201))
    );
    assert_eq!(document["uid"], nix::unistd::getuid().as_raw());
    assert_eq!(document["pid"], std::process::id());
}
