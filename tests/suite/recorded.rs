//! Compares the DC/OS metrics API with recorded answers of DC/OS: every key, datapoint, kind of value, unit and tag.
//! Differences are listed here with their reasons; a listed difference that no longer exists is a failure, too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::agent::{Address, Agent};
use crate::namespaces::Namespace;
use crate::reading::raw;
use crate::resources::Groups;
use crate::tools;

/// A difference: the name of a fact, and the reason.
type Differences<'a> = &'a [(&'a str, &'a str)];

/// An answer of DC/OS.
fn recorded(file: &str) -> Value {
    let text = std::fs::read_to_string(tools::root().join("testdata/dcos").join(file)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

/// The facts of an answer without its figures, by name.
fn facts(message: &Value) -> BTreeMap<String, String> {
    let mut facts: BTreeMap<String, String> = keys(message)
        .into_iter()
        .map(|key| (format!("key {key}"), kind(&message[&key]).to_owned()))
        .collect();
    for (key, value) in message["dimensions"].as_object().unwrap() {
        facts.insert(format!("dimension {key}"), kind(value).to_owned());
    }
    for point in message["datapoints"].as_array().unwrap() {
        let name = point["name"].as_str().unwrap();
        facts.insert(name.to_owned(), format!("a {} in {}", kind(&point["value"]), point["unit"]));
        for tag in keys(&point["tags"]) {
            facts.insert(format!("tag {tag} of {name}"), kind(&point["tags"][&tag]).to_owned());
        }
        for key in keys(point).iter().filter(|key| *key != "tags") {
            facts.insert(format!("key {key} of datapoints"), kind(&point[key]).to_owned());
        }
        let at = point["timestamp"].as_str().unwrap();
        assert!(at.parse::<tallyport::model::Timestamp>().is_ok() && at.ends_with('Z'), "{at} of {name}");
    }
    facts
}

/// Checks that both answers agree except for listed differences. A name that ends with `*` is a prefix.
fn compare(theirs: &Value, ours: &Value, differences: Differences<'_>) {
    let (theirs, ours) = (facts(theirs), facts(ours));
    let both: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let listed = |fact: &str| {
        differences.iter().position(|(name, _)| match name.strip_suffix('*') {
            Some(start) => fact.starts_with(start),
            None => *name == fact,
        })
    };
    let mut seen = BTreeSet::new();
    for fact in both {
        let (their, our) = (theirs.get(fact), ours.get(fact));
        // A datapoint that only one of them has is one difference, regardless of its tags.
        let of_one = fact.strip_prefix("tag ").and_then(|tag| tag.split_once(" of "));
        let of_one = of_one.is_some_and(|(_, name)| theirs.contains_key(name) != ours.contains_key(name));
        if their == our || of_one {
            continue;
        }
        let at = listed(fact).unwrap_or_else(|| panic!("{fact}: theirs {their:?}, ours {our:?}"));
        seen.insert(at);
    }
    for (at, (name, why)) in differences.iter().enumerate() {
        assert!(seen.contains(&at), "{name} differs no more, though it is listed: {why}");
    }
}

/// Labels as a Mesos launcher sets them.
fn labels() -> Value {
    let dimensions = recorded("container.json")["dimensions"].clone();
    let mut labels = dimensions["labels"].clone();
    for key in keys(&dimensions) {
        if !["container_id", "task_id", "hostname", "labels"].contains(&key.as_str()) {
            labels[&key] = dimensions[&key].clone();
        }
    }
    labels
}

#[test]
fn the_node_answers_as_dcos_did() {
    let agent = Agent::start();
    let mut ours = Value::Null;
    agent.until("processors are measured", || {
        ours = agent.get("/v0/node").1;
        ours["datapoints"].as_array().unwrap().iter().any(|point| point["name"] == "cpu.total")
    });
    let differences = [("dimension cluster_id", "the agent belongs to no cluster that it knows of")];
    compare(&recorded("node.json"), &ours, &differences);
}

#[test]
fn a_containers_resources_are_answered_as_dcos_did() {
    let Some(()) = tools::guard().and(tools::network_namespaces()) else { return };
    let Some(groups) = Groups::new("c-recorded") else { return };
    groups.write("memory", ("memory.limit_in_bytes", "268435456"), ("memory.max", "268435456"));
    groups.write("memory", ("memory.soft_limit_in_bytes", "134217728"), ("memory.high", "134217728"));
    groups.write("cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"));
    let namespace = Namespace::new();
    let network = format!("--net={}", namespace.path().display());
    let process = groups.start(&["nsenter", &network, "sleep", "600"]);
    let agent = Agent::start();
    let body = json!({
        "container_id": "c-recorded", "task_id": "foo.1", "labels": labels(), "pid": process.pid(),
        "network": {"mode": "netns", "path": namespace.path()},
    });
    agent.until("its process is in the network", || agent.admin("POST", "/v1/containers", &body).0 == 201);
    let (status, ours) = agent.get("/v0/containers/c-recorded");
    assert_eq!(status, 200, "{ours}");
    let differences: Differences<'_> = &[
        ("tag executor_id*", "a dimension; 1.12 left it out of the tags, too"),
        ("tag executor_name*", "only Mesos knows it"),
        ("tag framework_id*", "a dimension; 1.12 left it out of the tags, too"),
        ("tag source*", "the task's id, which is a dimension; 1.12 left it out, too"),
        ("mem.low.pressure", "Mesos listened for it; the agent does nothing between requests"),
        ("mem.medium.pressure", "the same"),
        ("mem.critical.pressure", "the same"),
        ("disk.limit", "Mesos' isolator of disks knew it; no control group does"),
        ("disk.used", "the same"),
        ("blkio.*", "io.* has both versions of control groups; blkio was the first's"),
        ("io.*", "instead of blkio.*"),
    ];
    compare(&recorded("container.json"), &ours, differences);
}

/// Sends the lines of the emitter in DC/OS' examples and a timer, and returns the agent's document.
fn emitted() -> Value {
    let agent = Agent::start();
    let body = json!({"container_id": "c-1", "task_id": "foo.1", "labels": labels()});
    let (_, reserved) = agent.admin("POST", "/v1/containers", &body);
    let lines = "statsd_tester.time.uptime:4469331|g|#test_tag_key:test_tag_value\n\
                 statsd_tester.latency:3|ms|#test_tag_key:test_tag_value";
    Address::of(&reserved).send(lines);
    agent.until("the window is closed", || agent.get("/v0/containers/c-1/app").0 == 200);
    agent.get("/v0/containers/c-1/app").1
}

#[test]
fn an_applications_metrics_are_answered_as_dcos_did() {
    let ours = emitted();
    let differences: Differences<'_> = &[
        ("dcos.metrics.module.*", "the module's own; /v1/accounting and /metrics have every container's"),
        ("statsd_tester.latency.*", "up to 1.11 a timer was a gauge, its last value; here as from 1.12"),
    ];
    compare(&recorded("app.json"), &ours, differences);
    let differences: Differences<'_> = &[
        ("dimension executor_id", "1.12 had lost it"),
        ("dimension framework_id", "1.12 had lost it"),
        ("dimension framework_principal", "1.12 had lost it"),
        ("dimension framework_role", "1.12 had lost it"),
        ("dimension task_id", "1.12 had lost it"),
        ("dimension labels", "1.12 had them among the tags of every datapoint"),
        ("tag DCOS_SPACE*", "a label, which is in the dimensions, as up to 1.11"),
        ("tag dcos_cluster_*", "the agent belongs to no cluster that it knows of"),
        ("tag executor_name*", "only Mesos knows it"),
        ("tag host*", "the dimension hostname"),
        ("statsd_tester.latency.p*", "1.12 had no percentiles of containers"),
    ];
    compare(&recorded("app-1.12.json"), &ours, differences);
}

#[test]
fn what_is_not_there_has_the_status_that_it_had() {
    let agent = Agent::start();
    agent.reserve("silent", "t");
    for nothing in [
        "/v0/containers/nobody",
        "/v0/containers/nobody/app",
        "/v0/containers/silent/app",
        "/v0/containers/silent/app/hits",
    ] {
        assert_eq!(agent.get(nothing), (204, Value::Null), "{nothing}");
    }
    assert_eq!(agent.get("/v0/containers"), (200, json!(["silent"])));
    let (status, ping) = agent.get("/v0/ping");
    assert_eq!((status, facts_of_ping(&ping)), (200, vec![("ok", "boolean"), ("timestamp", "string")]));
    // 1.12 had it for developers: all data in one message.
    assert_eq!(agent.get("/v0/debug").0, 404);
    let (head, _) = raw(&agent, "GET /v0/node HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(head.contains("content-type: application/json"), "{head}");
}

fn facts_of_ping(ping: &Value) -> Vec<(&str, &'static str)> {
    ping.as_object().unwrap().iter().map(|(key, value)| (key.as_str(), kind(value))).collect()
}
