//! Lists: their order, their filters, CSV, and ids that are shortened.

use serde_json::{Value, json};

use crate::agent::Agent;

/// Three tasks whose names are in the opposite order of their numbers of values.
fn agent_with_tasks() -> Agent {
    let agent = Agent::with(&["--window", "10s"]);
    for (id, task, lines) in [("c3", "a", 1), ("c1", "b", 3), ("c2", "c", 5)] {
        agent.reserve(id, task).send(vec!["hits:1|c"; lines].join("\n"));
        agent.until("its values have arrived", || {
            agent.get(&format!("/v1/tasks/{task}")).1["totals"]["values"]["accepted"] == lines
        });
    }
    agent.finish("c2");
    agent
}

/// The first words of the lines of a table.
fn first_column(table: &str) -> Vec<&str> {
    table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn lists_are_sorted_limited_and_filtered_in_every_format() {
    let agent = agent_with_tasks();
    let tasks = |args: &[&str]| agent.cli(&[&["tasks"], args].concat());
    assert_eq!(first_column(&tasks(&[]).out), ["a", "b", "c"]);
    assert_eq!(first_column(&tasks(&["--sort", "values"]).out), ["c", "b", "a"], "numbers from the highest");
    assert_eq!(first_column(&tasks(&["--sort", "-values"]).out), ["a", "b", "c"]);
    assert_eq!(first_column(&tasks(&["--sort", "task"]).out), ["a", "b", "c"], "names from A to Z");
    assert_eq!(first_column(&tasks(&["--state", "gone"]).out), ["c"]);
    let limited = tasks(&["--sort", "values", "--limit", "1"]);
    assert_eq!(
        (first_column(&limited.out), limited.err.as_str()),
        (vec!["c"], "2 more not shown (--limit)\n")
    );
    let json = tasks(&["--sort", "values", "--limit", "2", "--json"]);
    let ids: Vec<Value> = serde_json::from_str(&json.out).unwrap();
    assert_eq!(ids.iter().map(|task| &task["task_id"]).collect::<Vec<_>>(), ["c", "b"]);
    assert_eq!(json.err, "", "a document is not commented on");
    let none = tasks(&["--task", "nope"]);
    assert_eq!((none.code, none.out.as_str()), (3, ""));
    assert!(none.err.contains("no task of this node matches --task nope"), "{}", none.err);
    let none = tasks(&["--state", "lost", "--json"]);
    assert_eq!((none.code, none.out.as_str()), (3, "[]\n"));
    assert!(none.err.contains("matches --state lost"), "{}", none.err);

    let containers = |args: &[&str]| agent.cli(&[&["containers", "list"], args].concat());
    assert_eq!(first_column(&containers(&[]).out), ["c3", "c1", "c2"], "by task");
    assert_eq!(first_column(&containers(&["--sort", "container"]).out), ["c1", "c2", "c3"]);
    assert_eq!(first_column(&containers(&["--state", "listening", "--limit", "1"]).out), ["c3"]);
}

#[test]
fn a_wrong_key_state_type_or_format_is_refused_with_those_that_exist() {
    let agent = Agent::start();
    for (args, offered) in [
        (vec!["tasks", "--sort", "size"], "values"),
        (vec!["containers", "list", "--sort", "-size"], "received"),
        (vec!["metrics", "details", "x", "--sort", "size"], "p99"),
        (vec!["tasks", "--state", "asleep"], "listening"),
        (vec!["metrics", "details", "x", "--type", "number"], "service_check"),
        (vec!["tasks", "-o", "prom"], "csv"),
        (vec!["doctor", "-o", "csv"], "ndjson"),
        (vec!["version", "-o", "hdr"], "json"),
        (vec!["config", "show", "-o", "prom"], "json"),
    ] {
        let ran = agent.cli(&args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.err);
        let possible =
            ran.err.split("possible values: ").nth(1).unwrap_or_else(|| panic!("{args:?}: {}", ran.err));
        assert!(possible.contains(offered), "{args:?}: {}", ran.err);
        assert!(!possible.contains("hdr"), "{args:?}: {}", ran.err);
    }
}

#[test]
fn series_are_sorted_by_their_quantiles_and_selected_by_type() {
    let agent = Agent::with(&["--window", "10s"]);
    agent.reserve("c1", "web.1").send("slow:90|ms\nfast:3|ms\nhits:700|c\nqueue:8|g");
    agent.finish("c1");
    let details = |args: &[&str]| agent.cli(&[&["metrics", "details", "web.1"], args].concat());
    assert_eq!(first_column(&details(&["--sort", "p99"]).out), ["slow", "fast", "hits", "queue"]);
    assert_eq!(first_column(&details(&["--sort", "value"]).out), ["hits", "slow", "queue", "fast"]);
    assert_eq!(first_column(&details(&["--type", "timer", "--sort", "-p99"]).out), ["fast", "slow"]);
    let limited = details(&["--limit", "3"]);
    assert_eq!(
        (first_column(&limited.out).len(), limited.err.lines().next()),
        (3, Some("1 more not shown (--limit)"))
    );
    let none = details(&["--type", "set"]);
    assert!(none.code == 4 && none.err.contains("has no matching record"), "{none:?}");
    let counters = details(&["--type", "counter"]).out;
    let head: Vec<&str> = counters.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "TYPE", "VALUE", "AGE"], "what no row has takes no column");
}

#[test]
fn csv_is_read_back_exactly() {
    let agent = Agent::with(&["--window", "10s"]);
    let body = json!({"container_id": "c1", "task_id": "we,b\"1", "labels": {"team": "shop"}, "ttl": null});
    agent.reserve_with(&body).send("=hits:3|c|#route:/pay,x:a\"b\nlatency:4:5:6.25|ms\nquiet:-0.5|g");
    agent.finish("c1");
    let read = |args: &[&str]| {
        let ran = agent.cli(&[args, &["-o", "csv"]].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert!(ran.out.lines().count() > 1 && ran.out.ends_with("\r\n"), "{:?}", ran.out);
        let mut reader = csv::Reader::from_reader(ran.out.as_bytes());
        let headings = reader.headers().unwrap().clone();
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        move |row: usize, heading: &str| {
            let at = headings.iter().position(|it| it == heading).unwrap();
            rows[row].get(at).unwrap().to_owned()
        }
    };
    let record = read(&["metrics", "details", "we,b\"1"]);
    assert_eq!((record(0, "name"), record(0, "value")), ("=hits".to_owned(), "3.0".to_owned()));
    let tags: Value = serde_json::from_str(&record(0, "tags")).unwrap();
    assert_eq!(tags, json!({"route": "/pay", "x": "a\"b"}));
    assert_eq!((record(1, "name"), record(1, "max")), ("latency".to_owned(), "6.25".to_owned()));
    assert_eq!((record(1, "unit"), record(1, "container_id")), ("ms".to_owned(), "c1".to_owned()));
    assert_eq!((record(2, "value"), record(2, "p99")), ("-0.5".to_owned(), String::new()));
    let task = read(&["tasks"]);
    assert_eq!((task(0, "task_id"), task(0, "values")), ("we,b\"1".to_owned(), "5".to_owned()));
    let container = read(&["containers", "list"]);
    assert_eq!(
        (container(0, "container_id"), container(0, "labels")),
        ("c1".to_owned(), r#"{"team":"shop"}"#.to_owned())
    );
}

#[test]
fn a_container_is_named_by_the_start_of_its_id_wherever_one_is_named() {
    let agent = Agent::with(&["--window", "10s"]);
    let ids = [format!("a1{}", "0".repeat(62)), format!("a1{}", "1".repeat(62))];
    for (id, container) in ids.iter().zip(["main", "sidecar"]) {
        let labels = json!({"namespace": "shop", "pod": "web-0", "container": container});
        let body = json!({"container_id": id, "task_id": "shop_web-0_u", "labels": labels, "ttl": null});
        agent.reserve_with(&body).send(format!("from.{container}:1|c"));
    }
    agent.until("both have arrived", || {
        agent.get("/v1/tasks/shop_web-0_u").1["totals"]["values"]["accepted"] == 2
    });
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let shown = agent.cli(&["containers", "show", &short(&ids[0]), "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&shown.out).unwrap()["container_id"], ids[0]);
    let ambiguous = agent.cli(&["containers", "release", "a1"]);
    assert_eq!(ambiguous.code, 6);
    assert!(ids.iter().all(|id| ambiguous.err.contains(&format!("{id}  listening"))), "{}", ambiguous.err);
    assert_eq!(agent.cli(&["containers", "show", "b"]).code, 3);
    assert_eq!(agent.cli(&["containers", "release", ""]).code, 2, "an empty variable is no container");

    let names = |args: &[&str]| -> Vec<String> {
        let command = [&["metrics", "details", "--json"], args].concat();
        let records: Vec<Value> = serde_json::from_str(&agent.cli(&command).out).unwrap_or_default();
        records.iter().map(|record| record["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&["-n", "shop", "web-0", "-c", &short(&ids[1])]), ["from.sidecar"]);
    assert_eq!(names(&["-n", "shop", "web-0", "-c", "main"]), ["from.main"]);
    assert_eq!(agent.cli(&["metrics", "details", "-n", "shop", "web-0", "-c", "a1"]).code, 6);
    assert_eq!(names(&["shop_web-0_u", "--container", &short(&ids[1])]), ["from.sidecar"]);
    for id in [&ids[0], &short(&ids[0])] {
        assert_eq!(names(&[id]), ["from.main"], "a container in place of its task");
    }
    assert_eq!(agent.cli(&["metrics", "details", "a1"]).code, 6, "both start so");
    let listed = agent.cli(&["containers", "list", "--container", &short(&ids[0])]);
    assert_eq!(first_column(&listed.out), [&ids[0]], "whole in a pipe");

    assert_eq!(agent.cli(&["containers", "release", &short(&ids[0])]).code, 0);
    let state =
        |id: &str| agent.admin("GET", &format!("/v1/containers/{id}"), &Value::Null).1["state"].clone();
    agent.until("it has been released", || state(&ids[0]) == "gone");
    assert_eq!(state(&ids[1]), "listening");
}
