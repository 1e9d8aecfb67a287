//! Dashboards and rules use only existing metrics and labels. promtool tests when the rules fire (`make e2e-rules`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::agent::Agent;
use crate::tools::root;

const DASHBOARDS: [&str; 3] = ["nodes.json", "agent.json", "task.json"];

/// Metrics that are not the agent's own: those at `/metrics/tasks`, for each container.
const OF_TASKS: [&str; 1] = ["tallyport_task_info"];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&read(&format!("deploy/grafana/{name}"))).unwrap()
}

/// The alert and recording rules of all groups.
fn rules() -> Vec<Value> {
    let document: Value = serde_norway::from_str(&read("deploy/prometheus/rules.yaml")).unwrap();
    let groups = document["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Every text below a key with this name.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key).and_then(Value::as_str));
            map.values().for_each(|child| texts(child, key, found));
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        _ => {}
    }
}

/// The agent's metrics in an expression, with their labels.
fn metrics(expression: &str) -> Vec<(String, Vec<String>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    // Quoted text is not a name.
    let unquoted: String = expression.split('"').step_by(2).collect();
    let mut found = Vec::new();
    let mut rest = unquoted.as_str();
    while let Some(at) = rest.find(word) {
        let (_, from) = rest.split_at(at);
        let (name, after) = from.split_at(from.find(|c| !word(c)).unwrap_or(from.len()));
        rest = after;
        if name.starts_with("tallyport_") || name.starts_with("process_") || name.contains(':') {
            let inside = after
                .strip_prefix('{')
                .and_then(|after| after.split_once('}'))
                .map_or("", |(inside, _)| inside);
            let labels = inside.split(',').filter_map(|pair| pair.split(['=', '!']).next());
            found.push((
                name.to_owned(),
                labels.filter(|label| !label.is_empty()).map(str::to_owned).collect(),
            ));
        }
    }
    found
}

/// Each metric that an agent serves, with the labels of its samples.
fn served() -> BTreeMap<String, BTreeSet<String>> {
    // With a publisher, because a family of publishers has a sample for each.
    let agent = Agent::with(&["--window", "1s", "--set", "publish.log.type=debug"]);
    agent.until("the publisher is started", || agent.get("/v1/publishers").1[0]["name"] == "log");
    let text = String::from_utf8(agent.get_raw("/metrics").body.to_vec()).unwrap();
    let mut served = BTreeMap::<_, BTreeSet<_>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = rest.strip_prefix('{').map_or("", |rest| rest.split_once('}').unwrap().0);
        let labels = labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        served.entry(name.to_owned()).or_default().extend(labels);
    }
    served
}

/// Checks an expression against the served and recorded metrics.
fn check(expression: &str, served: &BTreeMap<String, BTreeSet<String>>, recorded: &[&str]) -> usize {
    let named = metrics(expression);
    for (name, labels) in &named {
        if OF_TASKS.contains(&name.as_str()) || recorded.contains(&name.as_str()) {
            continue;
        }
        let known = served.get(name).unwrap_or_else(|| panic!("no agent serves {name}: {expression}"));
        for label in labels.iter().filter(|label| !["instance", "job"].contains(&label.as_str())) {
            assert!(known.contains(label), "{name} has no label {label}: {expression}");
        }
    }
    named.len()
}

#[test]
fn rules_name_metrics_and_labels_that_an_agent_serves() {
    let (served, rules) = (served(), rules());
    let recorded: Vec<&str> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    let named: usize =
        rules.iter().map(|rule| check(rule["expr"].as_str().unwrap(), &served, &recorded)).sum();
    assert!(named > 25 && recorded.len() > 3, "{named}");
}

#[test]
fn dashboards_name_metrics_and_labels_that_an_agent_serves() {
    let served = served();
    let mut named = 0;
    for name in DASHBOARDS {
        let document = dashboard(name);
        let mut expressions = Vec::new();
        texts(&document["panels"], "expr", &mut expressions);
        texts(&document["templating"], "query", &mut expressions);
        assert!(expressions.len() > 4, "{name}");
        named += expressions.iter().map(|expression| check(expression, &served, &[])).sum::<usize>();
    }
    assert!(named > 50, "{named}");
}

#[test]
fn nearly_every_metric_is_on_a_dashboard() {
    let all: String = DASHBOARDS.iter().map(|name| read(&format!("deploy/grafana/{name}"))).collect();
    let names = served().into_keys().filter(|name| !name.ends_with("_sum") && !name.ends_with("_count"));
    let missing: Vec<_> = names.filter(|name| !all.contains(name.as_str())).collect();
    // The epoch, sums of other metrics, and limits that only observe.
    let excused = [
        "tallyport_containers_limit",
        "tallyport_epoch",
        "tallyport_events_total",
        "tallyport_lines_accepted_total",
        "tallyport_lines_invalid_utf8_total",
        "tallyport_over_limit_total",
    ];
    assert_eq!(missing, excused);
}

#[test]
fn dashboards_can_be_imported_side_by_side() {
    let mut uids = BTreeSet::new();
    for name in DASHBOARDS {
        let document = dashboard(name);
        assert!(uids.insert(document["uid"].as_str().unwrap().to_owned()), "{name}");
        let mut places = BTreeSet::new();
        for panel in document["panels"].as_array().unwrap() {
            let grid = &panel["gridPos"];
            let (x, w) = (grid["x"].as_u64().unwrap(), grid["w"].as_u64().unwrap());
            assert!(x + w <= 24 && places.insert((grid["y"].as_u64(), x)), "{name}: {panel}");
            assert!(!panel["title"].as_str().unwrap().is_empty(), "{name}");
            // The data source is chosen on import; it is not the one that the dashboard was made with.
            let sources = panel["targets"]
                .as_array()
                .into_iter()
                .flatten()
                .chain(panel.get("datasource").map(|_| panel));
            assert!(
                sources.into_iter().all(|of| of["datasource"]["uid"] == "${datasource}"),
                "{name}: {panel}"
            );
        }
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_documented_and_tested() {
    let (page, tests) = (read("docs/reference/monitoring.md"), read("deploy/prometheus/rules.test.yaml"));
    let rules = rules();
    let alerts: Vec<&Value> = rules.iter().filter(|rule| rule["alert"].is_string()).collect();
    assert!(alerts.len() > 10);
    for rule in alerts {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            ["critical", "warning", "info"].contains(&rule["labels"]["severity"].as_str().unwrap()),
            "{name}"
        );
        for note in ["summary", "description"] {
            assert!(rule["annotations"][note].as_str().unwrap().ends_with('.'), "{name}: {note}");
        }
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not on the page");
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "no test makes {name} fire");
    }
}

#[test]
fn all_never_matches_a_missing_label() {
    // Prometheus rejects a selector in which every matcher matches the empty string; `make e2e-rules` runs every query.
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let mut found = Vec::new();
        texts(&dashboard["templating"], "allValue", &mut found);
        assert!(!found.is_empty() && found.iter().all(|text| *text == ".+"), "{name}: {found:?}");
    }
}
