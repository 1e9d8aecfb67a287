//! Names of metrics and tags on a page: as readers expect, and distinguished if two would become one.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::{Address, Agent};
use crate::prometheus::{CLASSIC_UTF8, OPENMETRICS_UTF8, Page, fetch_whole, parsed};
use crate::restart::Sleeper;
use crate::tools;

const FLAGS: &[&str] = &["--window", "1s"];

/// Some lines of Envoy's sinks.
const OF_ENVOY: &str = "envoy.cluster.upstream_cx_overflow:3|c|#envoy.cluster_name:web\n\
    envoy.cluster.upstream_rq_total:5|c|#envoy.cluster_name:web\n\
    envoy.cluster.upstream_rq:5|c|#envoy.cluster_name:web,envoy.response_code:200\n\
    envoy.cluster.membership_healthy:1|g|#envoy.cluster_name:web\n\
    envoy.cluster.upstream_rq_time:7|ms|#envoy.cluster_name:web,envoy.response_code_class:2xx\n\
    envoy.listener.127.0.0.1_10000.downstream_cx_active:1|g\n\
    envoy.http.ingress-http.downstream_rq_2xx:5|c";

fn closed(agent: &Agent, task: &str, series: usize) {
    agent.until("the window is closed", || agent.metrics(task, "?window=last").len() >= series);
}

#[test]
fn names_and_tags_are_what_their_readers_expect() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::with(FLAGS);
    agent.reserve("c-1", "web.1").send(OF_ENVOY);
    closed(&agent, "web.1", 7);
    let page = Page::openmetrics(&agent, &python, "");
    let cluster = [("envoy_cluster_name", "web")];
    assert_eq!(page.value("envoy_cluster_upstream_cx_overflow_total", &cluster), Some(3.0));
    let both = ["envoy_cluster_upstream_rq_total", "envoy_cluster_upstream_rq_total_total"];
    assert_eq!(both.map(|name| page.value(name, &cluster)), [Some(5.0), Some(5.0)]);
    assert_eq!(page.value("envoy_cluster_membership_healthy", &cluster), Some(1.0));
    let class = [("envoy_response_code_class", "2xx")];
    assert_eq!(page.value("envoy_cluster_upstream_rq_time_seconds_sum", &class), Some(0.007));
    assert_eq!(page.value("envoy_listener_127_0_0_1_10000_downstream_cx_active", &[]), Some(1.0));
    assert_eq!(page.value("envoy_http_ingress_http_downstream_rq_2xx_total", &[]), Some(5.0));
    assert!(page.names().iter().all(|name| !name.contains("__")), "{:?}", page.names());
    assert_eq!(agent.own_metric("tallyport_names_marked"), 0.0);
}

#[test]
fn a_scraper_that_negotiates_utf_8_gets_names_as_they_are() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::with(FLAGS);
    agent.reserve("c-1", "web.1").send(OF_ENVOY);
    closed(&agent, "web.1", 7);
    let cluster = [("envoy.cluster_name", "web")];
    let whole = |accept: &str, format: &str| {
        let (head, body) = fetch_whole(&agent, "/metrics/tasks", accept);
        assert!(head.contains("escaping=allow-utf-8"), "{head}");
        parsed(&python, &body, format)
    };
    let protobuf = "accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                    encoding=delimited;escaping=allow-utf-8";
    for (accept, format) in
        [(OPENMETRICS_UTF8, "openmetrics"), (CLASSIC_UTF8, "classic"), (protobuf, "protobuf")]
    {
        let page = whole(accept, format);
        let gauge = page.value("envoy.cluster.membership_healthy", &cluster);
        assert_eq!(gauge, Some(1.0), "{format}: {:?}", page.names());
        assert_eq!(page.value("envoy.cluster.upstream_cx_overflow_total", &cluster), Some(3.0), "{format}");
        assert_eq!(page.value("envoy.http.ingress-http.downstream_rq_2xx_total", &[]), Some(5.0), "{format}");
        let sum = page.value("envoy.cluster.upstream_rq_time_seconds_sum", &[("task", "web.1")]);
        assert_eq!(sum, Some(0.007), "{format}");
    }
    let names = Page::openmetrics_as(&agent, &python, "?naming=statsd_exporter", OPENMETRICS_UTF8);
    assert!(names.names().contains("envoy_cluster_membership_healthy"), "{:?}", names.names());
}

/// The names of the counters that end in `_b_total`, or have a mark, with their values.
fn counters(agent: &Agent, python: &Path) -> BTreeSet<(String, String)> {
    let page = Page::openmetrics(agent, python, "");
    let counters = page.samples.into_iter().filter(|(name, ..)| name.starts_with("a_b"));
    counters.map(|(name, labels, value)| (name, format!("{} {value}", labels["task"]))).collect()
}

#[test]
fn the_name_that_was_there_first_is_plain_however_the_agent_ends() {
    let Some(python) = tools::python() else { return };
    let stopped = |mut agent: Agent| {
        agent.stop();
        Agent::in_directory(agent.into_dead_directory(), FLAGS)
    };
    let killed = |mut agent: Agent| {
        agent.signal(Signal::SIGKILL);
        agent.wait();
        Agent::in_directory(agent.into_dead_directory(), FLAGS)
    };
    let handed_over = |agent: Agent| agent.handed_over(FLAGS);
    let ways: [(&str, &dyn Fn(Agent) -> Agent); 3] =
        [("stopped", &stopped), ("killed", &killed), ("handed over", &handed_over)];
    let process = Sleeper::start();
    let mut agent = Agent::with(FLAGS);
    let reserved = json!({"container_id": "c1", "task_id": "web.1", "pid": process.pid()});
    let address: Address = agent.reserve_with(&reserved);
    address.send("a.b:1|c");
    closed(&agent, "web.1", 1);
    address.send("a_b:1|c");
    agent.until("both are on the page", || counters(&agent, &python).len() == 2);
    let names: BTreeSet<String> = counters(&agent, &python).into_iter().map(|(name, _)| name).collect();
    assert!(names.contains("a_b_total"), "{names:?}");
    let marked = names.iter().find(|name| name.starts_with("a_b__")).unwrap().clone();
    let plain = |agent: &Agent| counters(agent, &python).into_iter().find(|(name, _)| name == "a_b_total");
    for (n, (way, ended)) in (10..).zip(ways) {
        let before = plain(&agent);
        agent.until("names are written", || agent.own_metric("tallyport_window_log_windows_total") >= 1.0);
        agent = ended(agent);
        // The second one is now the first, and the only one for a while.
        address.send("a_b:5|c");
        agent.until(way, || {
            let shown = counters(&agent, &python);
            shown.iter().any(|(name, value)| *name == marked && *value != "web.1 1")
        });
        let after = plain(&agent);
        assert!(after.is_none() || after == before, "{way}: it goes on under another's name: {after:?}");
        address.send(format!("a.b:{n}|c"));
        agent.until(way, || plain(&agent).is_some_and(|now| Some(now) != before));
    }
    drop(process);
}

#[test]
fn doctor_names_both_names_that_meet_and_a_metric_counts_them() {
    let agent = Agent::with(FLAGS);
    let address = agent.reserve("c-1", "web.1");
    address.send("page.load:1|c|#http.method:GET\nq:1|c");
    closed(&agent, "web.1", 2);
    assert!(!agent.cli(&["doctor"]).out.contains("had the plain name first"), "no two names meet");
    address.send("page_load:1|c\njobs_total:1|g\njobs:1|c\nq:1|c|#http_method:GET");
    closed(&agent, "web.1", 6);
    agent.until("they are counted", || agent.own_metric("tallyport_names_marked") >= 3.0);
    assert_eq!(agent.own_metric("tallyport_names_marked"), 3.0);
    let said = agent.cli(&["doctor"]).out;
    for part in [
        "the counter page_load of {workload=\"web\"} is page_load__",
        "the counter page.load had the plain name first",
        "the tag http_method of {workload=\"web\"} is http_method__",
        "the tag http.method had the plain name first",
        "the gauge jobs_total had the plain name first",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[test]
fn names_of_other_tasks_change_none_of_a_task() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::with(FLAGS);
    agent.reserve("c-1", "web.1").send("a.b:1|c");
    closed(&agent, "web.1", 1);
    agent.reserve("c-2", "shop.1").send("a_b:2|c");
    closed(&agent, "shop.1", 1);
    let wanted = [("web.1", "1"), ("shop.1", "2")];
    let wanted = wanted.map(|(task, value)| ("a_b_total".to_owned(), format!("{task} {value}")));
    assert_eq!(counters(&agent, &python), wanted.into_iter().collect());
}
