//! The names of a task's metrics for Prometheus: one exporter for the page, the API and the commands.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::agent::Agent;
use crate::tools;

/// A metric of every type, two names that meet, and more series than a limit allows.
const LINES: &str = "request.latency:4:5:6|ms|#route:/pay\nhits:3|c\nhits:-1|c\npage.views:2|c\npage_views:5|c\n\
    temp:21.5|g\nusers:ann|s\nsize:7|h\nspread:1.5|d\n_sc|db|1\nup:1|g";

fn agent_with_metrics(flags: &[&str]) -> Agent {
    let agent = Agent::with(&[&["--window", "1s"], flags].concat());
    agent.reserve("c1", "shop").send(LINES);
    agent.reserve("c2", "other").send("request.latency:1|ms\nother.only:1|c");
    agent.until("both windows are closed", || {
        agent.metrics("shop", "?window=last").len() >= 10 && agent.metrics("other", "?window=last").len() >= 2
    });
    agent
}

fn names_of(agent: &Agent, query: &str) -> Vec<Value> {
    let (status, answer) = agent.get(&format!("/v1/tasks/shop/names{query}"));
    assert_eq!((status, &answer["task_id"]), (200, &Value::from("shop")), "{answer}");
    answer["names"].as_array().unwrap().clone()
}

/// The names of the samples in a text of the classic format.
fn sample_names(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let names = samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned());
    names.filter(|name| name != "tallyport_task_info").collect()
}

/// The lines of one metric type with its selected name and expression.
fn expression<'n>(names: &'n [Value], name: &str) -> [&'n str; 3] {
    let found = names.iter().find(|document| document["name"] == name).unwrap_or_else(|| panic!("{name}"));
    ["scraped", "selector", "promql"].map(|key| found[key].as_str().unwrap())
}

#[test]
fn the_names_of_a_task_are_exactly_those_on_its_page() {
    for settings in [
        vec![],
        vec!["prometheus.timers=histogram"],
        vec!["prometheus.identity=high"],
        vec!["prometheus.identity=low"],
        vec!["prometheus.naming=statsd_exporter"],
        vec!["prometheus.naming=datadog"],
        vec!["prometheus.naming=graphite"],
    ] {
        let flags: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        let agent = agent_with_metrics(&flags);
        let page = String::from_utf8(agent.get_raw("/metrics/tasks?task=shop").body.to_vec()).unwrap();
        let names = names_of(&agent, "");
        let samples = names.iter().flat_map(|name| name["samples"].as_array().unwrap());
        let samples: BTreeSet<String> = samples.map(|name| name.as_str().unwrap().to_owned()).collect();
        assert_eq!(samples, sample_names(&page), "{settings:?}");
        for name in &names {
            let [scraped, selector] = ["scraped", "selector"].map(|key| name[key].as_str().unwrap());
            let labels = selector.strip_prefix(scraped).and_then(|rest| rest.strip_prefix('{'));
            let labels = labels.and_then(|rest| rest.strip_suffix('}')).unwrap_or_else(|| panic!("{name}"));
            let line = format!("{scraped}{{{labels}");
            assert!(page.lines().any(|text| text.starts_with(&line)), "{settings:?}: {line} in\n{page}");
        }
        assert!(names.iter().all(|name| name["name"] != "other.only"), "{names:?}");
    }
}

#[test]
fn each_type_has_an_expression_that_fits_how_it_is_exported() {
    let agent = agent_with_metrics(&[]);
    let names = names_of(&agent, "");
    let latency = expression(&names, "request.latency");
    assert_eq!(
        latency,
        [
            "request_latency_seconds",
            "request_latency_seconds{task=\"shop\"}",
            "request_latency_seconds{task=\"shop\",quantile=\"0.99\"}"
        ]
    );
    assert_eq!(expression(&names, "page.views")[2], "sum(rate(page_views_total{task=\"shop\"}[5m]))");
    let [marked, ..] = expression(&names, "page_views");
    assert!(marked.starts_with("page_views__") && marked.ends_with("_total"), "{marked}");
    assert_eq!(
        expression(&names, "hits")[2],
        "sum(delta(hits_total{task=\"shop\"}[5m]))",
        "it has decreased"
    );
    assert_eq!(expression(&names, "temp")[2], "temp{task=\"shop\"}");
    assert_eq!(expression(&names, "users")[2], "users_unique{task=\"shop\"}");
    let one = names_of(&agent, "?name=request.*");
    assert_eq!(one.len(), 1, "{one:?}");
    assert_eq!((&one[0]["type"], &one[0]["unit"]), (&Value::from("timer"), &Value::from("ms")));

    let agent = agent_with_metrics(&["--set", "prometheus.timers=histogram"]);
    let [scraped, _, promql] = expression(&names_of(&agent, ""), "request.latency").map(str::to_owned);
    assert_eq!(scraped, "request_latency_seconds_bucket");
    assert_eq!(
        promql,
        "histogram_quantile(0.99, sum by (le) (rate(request_latency_seconds_bucket{task=\"shop\"}[5m])))"
    );

    let agent = agent_with_metrics(&["--set", "prometheus.timers=native"]);
    let [scraped, _, promql] = expression(&names_of(&agent, ""), "request.latency").map(str::to_owned);
    assert_eq!(scraped, "request_latency_seconds");
    assert_eq!(promql, "histogram_quantile(0.99, sum(rate(request_latency_seconds{task=\"shop\"}[5m])))");
}

/// What an expression is, what it reads, and what is said about it, for a query that one metric fits.
fn view_of(agent: &Agent, query: &str) -> (String, String, String) {
    let names = names_of(agent, query);
    let [name] = names.as_slice() else { panic!("{query}: {names:?}") };
    let notes = name["notes"].as_array().into_iter().flatten().map(|note| note.as_str().unwrap());
    let text = |key: &str| name[key].as_str().unwrap().to_owned();
    (text("promql"), text("reads"), notes.collect::<Vec<_>>().join(" "))
}

/// The agent of the other tests, with a second container of the task.
fn agent_with_two_containers(flags: &[&str]) -> Agent {
    let agent = agent_with_metrics(flags);
    let lines = "request.latency:9|ms|#route:/cart,status:200\nbuilds:1|c|#branch:main,task:x\nvisitors:a|s|#route:/pay";
    agent.reserve("c3", "shop").send(lines);
    agent.until("its window is closed", || agent.metrics("shop", "?window=last&container=c3").len() >= 3);
    agent
}

fn id_of(agent: &Agent, query: &str) -> String {
    agent.metrics("shop", query)[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn an_expression_is_about_the_series_or_the_sum_and_the_statistic_that_is_asked_for() {
    let agent = agent_with_two_containers(&[]);
    let timer = id_of(&agent, "?name=request.latency&tag=route:/pay");
    let (promql, reads, notes) = view_of(&agent, &format!("?series={timer}&stat=p50"));
    let own = "task=\"shop\",route=\"/pay\",status=\"\"";
    assert_eq!(promql, format!("request_latency_seconds{{{own},quantile=\"0.5\"}}"));
    assert!(reads == "p50" && notes.contains("one series for all containers"), "{reads}: {notes}");
    let (promql, reads, notes) = view_of(&agent, &format!("?series={timer}&by=route&stat=p95"));
    assert_eq!(promql, "max by (route) (request_latency_seconds{task=\"shop\",quantile=\"0.95\"})");
    assert!(reads == "p95" && notes.contains("the largest one of the series"), "{notes}");
    let (promql, reads, notes) = view_of(&agent, &format!("?series={timer}&by=route&stat=mean"));
    let rate = |part| format!("sum by (route) (rate(request_latency_seconds_{part}{{task=\"shop\"}}[5m]))");
    assert_eq!((promql, &*reads, &*notes), (format!("{} / {}", rate("sum"), rate("count")), "mean", ""));
    let (_, reads, notes) = view_of(&agent, &format!("?series={timer}&stat=max"));
    assert!(reads == "p99" && notes.contains("no maximum"), "{notes}");
    let counter = id_of(&agent, "?name=builds");
    assert_eq!(
        view_of(&agent, &format!("?series={counter}")).0,
        "sum(rate(builds_total{task=\"shop\",branch=\"main\",client_task=\"x\"}[5m]))"
    );
    assert_eq!(
        view_of(&agent, &format!("?series={counter}&by=task,branch")).0,
        "sum by (client_task, branch) (rate(builds_total{task=\"shop\"}[5m]))"
    );
    let set = id_of(&agent, "?name=visitors");
    let (promql, reads, notes) = view_of(&agent, &format!("?series={set}&by="));
    assert_eq!((&*promql, &*reads), ("sum(visitors_unique{task=\"shop\"})", "members"));
    assert!(notes.contains("an upper bound"), "{notes}");
    assert_eq!(view_of(&agent, "?name=temp&by=").0, "temp{task=\"shop\"}", "gauges have no sum");
    assert!(names_of(&agent, &format!("?series={}", "0".repeat(32))).is_empty());
    for wrong in ["stat=p90", "series=x", "by=route&compare"] {
        let (status, error) = agent.get(&format!("/v1/tasks/shop/names?{wrong}"));
        assert_eq!((status, &error["code"]), (400, &Value::from("bad_parameter")), "{wrong}");
    }
}

#[test]
fn an_expression_tells_containers_apart_where_the_page_does() {
    let agent = agent_with_two_containers(&["--set", "prometheus.identity=high"]);
    let timer = id_of(&agent, "?name=request.latency&container=c3");
    let own = "task=\"shop\",container_id=\"c3\",route=\"/cart\",status=\"200\"";
    let (promql, _, notes) = view_of(&agent, &format!("?series={timer}"));
    assert_eq!((promql, &*notes), (format!("request_latency_seconds{{{own},quantile=\"0.99\"}}"), ""));
    assert_eq!(
        view_of(&agent, "?name=builds&compare").0,
        "sum by (container_id) (rate(builds_total{task=\"shop\"}[5m]))"
    );
    let agent = agent_with_two_containers(&["--set", "prometheus.timers=histogram"]);
    let timer = id_of(&agent, "?name=request.latency&container=c3");
    assert_eq!(
        view_of(&agent, &format!("?series={timer}&by=route&stat=p50")).0,
        "histogram_quantile(0.5, sum by (le, route) (rate(request_latency_seconds_bucket{task=\"shop\"}[5m])))"
    );
    let agent = agent_with_two_containers(&["--set", "prometheus.naming=datadog"]);
    let timer = id_of(&agent, "?name=request.latency&container=c3");
    let one = |stat: &str| view_of(&agent, &format!("?series={timer}&stat={stat}"));
    let own = "task=\"shop\",route=\"/cart\",status=\"200\"";
    assert_eq!(one("max").0, format!("request_latency_max{{{own}}}"));
    let (promql, reads, notes) = one("p99");
    assert_eq!((promql, &*reads), (format!("request_latency_95percentile{{{own}}}"), "p95"));
    assert!(notes.contains("nearest"), "{notes}");
}

#[test]
fn names_are_spelled_as_the_last_scraper_asked_for_them() {
    let agent = agent_with_metrics(&[]);
    let utf8 = "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8";
    crate::prometheus::fetch_whole(&agent, "/metrics/tasks", utf8);
    let names = names_of(&agent, "?name=request.latency");
    let [scraped, selector, _] = expression(&names, "request.latency");
    assert_eq!(scraped, "request.latency_seconds");
    assert_eq!(selector, "{\"request.latency_seconds\",task=\"shop\"}");
    crate::prometheus::fetch_whole(&agent, "/metrics/tasks", "accept: */*");
    assert_eq!(names_of(&agent, "?name=request.latency"), names, "a person who looks is no scraper");
}

#[test]
fn promtool_can_parse_every_expression() {
    let Some(promtool) = tools::promtool() else { return };
    let directory = tempfile::tempdir().unwrap();
    for timers in ["summary", "histogram", "native"] {
        let agent = agent_with_metrics(&["--set", &format!("prometheus.timers={timers}")]);
        agent.reserve("c3", "odd \"name\"\\").send("a:1|c");
        agent.until("the odd task has a name", || {
            let (_, odd) = agent.get("/v1/tasks/odd%20%22name%22%5C/names");
            odd["names"].as_array().is_some_and(|names| names.len() == 1)
        });
        let (_, odd) = agent.get("/v1/tasks/odd%20%22name%22%5C/names");
        let views =
            ["by=route", "by=&stat=mean", "compare&stat=max", "by=route&stat=max", "stat=mean", "stat=p50"];
        let mut names = names_of(&agent, "");
        names.extend(views.iter().flat_map(|view| names_of(&agent, &format!("?{view}"))));
        let expressions = names.iter().chain(odd["names"].as_array().unwrap()).flat_map(|name| {
            ["selector", "promql"].map(|key| serde_json::json!({"record": "a:b", "expr": name[key]}))
        });
        let rules = expressions.enumerate().map(|(number, mut rule)| {
            rule["record"] = format!("a:b{number}").into();
            rule
        });
        let rules: Vec<Value> = rules.collect();
        assert!(rules.len() > 15, "{rules:?}");
        // JSON is YAML.
        let file = directory.path().join("rules.yml");
        let groups = serde_json::json!({"groups": [{"name": "g", "rules": rules}]});
        std::fs::write(&file, groups.to_string()).unwrap();
        let output = Command::new(&promtool).args(["check", "rules"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn details_for_prometheus_are_the_page_and_no_scrape() {
    let agent = agent_with_metrics(&[]);
    let page = || String::from_utf8(agent.get_raw("/metrics/tasks?task=shop").body.to_vec()).unwrap();
    let printed = || agent.cli(&["metrics", "details", "shop", "-o", "prom"]);
    // The page changes with every window.
    agent.until("both are of one window", || {
        let before = page();
        printed().out == before
    });
    assert!(printed().out.contains("hits_total{task=\"shop\"} 2\n"), "{}", printed().out);
    let (_, node) = agent.get("/v1/node");
    assert_eq!(node["last_scrape"], Value::Null, "neither the command nor this test scrapes");
    let one = agent.cli(&["metrics", "details", "shop", "-o", "prom", "--name", "temp"]);
    assert_eq!(sample_names(&one.out), BTreeSet::from(["temp".to_owned()]));
    assert_eq!(agent.cli(&["metrics", "details", "shop", "-o", "prom", "--name", "none"]).code, 4);
    assert_eq!(agent.cli(&["metrics", "details", "shop", "-o", "prom", "--since", "5m"]).code, 2);
}

#[test]
fn explain_shows_the_scraped_name_and_an_expression() {
    let agent = agent_with_metrics(&[]);
    let explained = agent.cli(&["explain", "shop", "request.latency"]);
    assert_eq!(explained.code, 0);
    let lines: Vec<&str> = explained.out.lines().map(str::trim).collect();
    assert!(lines.contains(&"timer request.latency is request_latency_seconds"), "{}", explained.out);
    assert!(lines.contains(&"request_latency_seconds{task=\"shop\",quantile=\"0.99\"}"), "{}", explained.out);
}
