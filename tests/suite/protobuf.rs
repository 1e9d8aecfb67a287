//! The protobuf format for Prometheus, above all native histograms, read with an independent library.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::prometheus::{
    HISTOGRAMS, Page, Sample, configured, fetch_whole, parsed, run_a_job, send_anything, send_one_of_each,
};
use crate::tools;

/// The header that Prometheus sends if native histograms are enabled.
const PROTOBUF: &str = "accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                        application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

const NATIVE: &str = "[prometheus]\ntimers = \"native\"\n";

fn page(agent: &Agent, python: &Path, query: &str) -> Page {
    let (head, body) = fetch_whole(agent, &format!("/metrics/tasks{query}"), PROTOBUF);
    let media = "content-type: application/vnd.google.protobuf; proto=io.prometheus.client.metricfamily; encoding=delimited";
    assert!(head.contains(media), "{head}");
    parsed(python, &body, "protobuf")
}

/// The only native histogram with a name and these labels.
fn native<'p>(page: &'p Page, name: &str, labels: &[(&str, &str)]) -> Option<&'p Value> {
    let fits = |has: &BTreeMap<String, String>| {
        labels.iter().all(|(key, value)| has.get(*key).is_some_and(|has| has == value))
    };
    let found: Vec<_> = page.natives.iter().filter(|(n, has, _)| n == name && fits(has)).collect();
    assert!(found.len() < 2, "{name}: {found:?}");
    found.first().map(|(.., value)| value)
}

/// The count of these values in each bucket of the finest schema, computed with logarithms. None of them equals a
/// bound.
fn spread(values: &[f64]) -> Vec<(i64, f64)> {
    let mut counts = BTreeMap::new();
    for value in values {
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm is small")]
        let index = (value.log2() * 8.0).ceil() as i64;
        *counts.entry(index).or_insert(0.0) += 1.0;
    }
    counts.into_iter().collect()
}

fn counts(of: &Value) -> Vec<(i64, f64)> {
    of.as_array()
        .unwrap()
        .iter()
        .map(|bucket| (bucket[0].as_i64().unwrap(), bucket[1].as_f64().unwrap()))
        .collect()
}

#[test]
fn values_are_counted_in_native_histograms_for_scrapers_that_ask_for_protobuf() {
    let Some(python) = tools::python() else { return };
    let agent = configured(NATIVE);
    send_one_of_each(&agent, "c-1", "web.1");
    let shown = page(&agent, &python, "");
    let timer = native(&shown, "request_latency_seconds", &[("task", "web.1"), ("route", "/pay")]).unwrap();
    assert_eq!(counts(&timer["positive"]), spread(&[0.007, 0.002, 0.091, 0.011]));
    assert_eq!((&timer["count"], &timer["sum"], &timer["schema"]), (&json!(4), &json!(0.111), &json!(3)));
    assert_eq!((&timer["zero"], &timer["threshold"]), (&json!(0), &json!(2_f64.powi(-128))));
    assert_eq!(counts(&native(&shown, "body_bytes", &[]).unwrap()["positive"]), spread(&[10.0, 30.0]));
    assert_eq!(
        counts(&native(&shown, "spread_distribution", &[]).unwrap()["positive"]),
        [(-8, 1.0)],
        "a half is a bound"
    );
    let began = page(&agent, &python, "?created");
    for name in ["jobs_done_created", "request_latency_seconds_created", "body_bytes_created"] {
        let labels: &[_] = if name.starts_with("jobs") { &[("route", "/pay")] } else { &[] };
        let now = tallyport::net::clock::wall_time().as_micros() as f64 / 1e6;
        let created = began.value(name, labels).unwrap();
        assert!((now - 60.0..=now).contains(&created), "{name} {created}");
        assert_eq!(shown.value(name, labels), None);
    }
    assert_eq!(
        ["request_latency_seconds", "jobs_done_total"].map(|name| shown.kind(name)),
        ["histogram", "counter"]
    );
    let texts = ["", "?timers=summary"].map(|query| Page::openmetrics(&agent, &python, query));
    for text in &texts {
        assert_eq!(text.value("request_latency_seconds", &[("quantile", "0.99")]), Some(0.091));
        assert_eq!(text.value("body_bytes_count", &[]), Some(2.0));
    }
    let summary = page(&agent, &python, "?timers=summary");
    assert_eq!(summary.value("request_latency_seconds", &[("quantile", "0.99")]), Some(0.091));
    assert!(summary.natives.is_empty());
    let other = page(&agent, &python, "?naming=statsd_exporter");
    assert_eq!(native(&other, "request_latency", &[]), Some(timer), "in seconds, too");
    assert_eq!(page(&agent, &python, "?naming=datadog").value("request_latency_count", &[]), Some(4.0));
    let (status, error) = agent.get("/metrics/tasks?timers=histogram");
    assert_eq!((status, &error["code"]), (400, &json!("bad_parameter")));
    assert!(error["message"].as_str().unwrap().contains("prometheus.timers is native"), "{error}");
}

#[test]
fn zeros_negatives_and_samples_are_in_the_buckets_that_they_belong_to() {
    let Some(python) = tools::python() else { return };
    let agent = configured(NATIVE);
    let address = agent.reserve("c-1", "web.1");
    address.send("h:0:-3:-3:5:1e300|h\nt:1:5|ms|@0.3\nten:1|ms|@0.1");
    agent.until("the window is closed", || agent.metrics("web.1", "?window=last").len() == 3);
    let shown = page(&agent, &python, "");
    let of = |name| native(&shown, name, &[]).unwrap();
    let h = of("h");
    assert_eq!(
        (counts(&h["negative"]), &h["zero"], &h["float"]),
        (vec![(13, 2.0)], &json!(1), &json!(false))
    );
    assert_eq!(counts(&h["positive"]), spread(&[5.0, 1e300]));
    // Ten thirds each, which only a float histogram can represent.
    let t = of("t_seconds");
    let each = 1.0 / 0.3;
    assert_eq!(
        counts(&t["positive"]),
        spread(&[0.001, 0.005]).into_iter().map(|(i, n)| (i, n * each)).collect::<Vec<_>>()
    );
    assert_eq!((&t["count"], &t["float"]), (&json!(2.0 * each), &json!(true)));
    assert_eq!((&of("ten_seconds")["count"], &of("ten_seconds")["float"]), (&json!(10), &json!(false)));
}

/// Samples in a form that both formats share.
fn comparable(samples: &[Sample<f64>]) -> BTreeSet<String> {
    let bound = |key: &str, value: &str| match key {
        "le" | "quantile" => value.parse::<f64>().map_or(value.to_owned(), |number| number.to_string()),
        _ => value.to_owned(),
    };
    let line = |(name, labels, value): &Sample<f64>| {
        let labels: Vec<_> = labels.iter().map(|(key, value)| (key, bound(key, value))).collect();
        format!("{name} {labels:?} {value}")
    };
    samples.iter().map(line).collect()
}

#[test]
fn whatever_applications_send_is_the_same_as_messages_and_as_text() {
    let Some(python) = tools::python() else { return };
    let agent = configured(&format!("{HISTOGRAMS}[windows]\ngauge_carry = \"1h\"\n"));
    send_anything(&agent);
    for naming in ["openmetrics", "statsd_exporter", "datadog", "graphite"] {
        for (timers, identity) in [("summary", "low"), ("histogram", "orchestrator"), ("histogram", "high")] {
            let query = format!("?naming={naming}&timers={timers}&identity={identity}");
            let compare = || {
                let messages = comparable(&page(&agent, &python, &query).samples);
                let text = comparable(&Page::openmetrics(&agent, &python, &query).samples);
                assert!(messages.len() > 1000);
                text.symmetric_difference(&messages).cloned().collect::<Vec<_>>()
            };
            // Sets and percentiles of the last minute leave the page when it is over, which may be between the two.
            let different = Some(compare()).filter(Vec::is_empty).unwrap_or_else(compare);
            assert!(different.is_empty(), "{query}: {different:#?}");
        }
    }
}

#[test]
fn whatever_applications_send_leaves_no_series_out_and_none_twice_beside_native_histograms() {
    let Some(python) = tools::python() else { return };
    let agent = configured(NATIVE);
    let sent = send_anything(&agent);
    for utf8 in ["", ";escaping=allow-utf-8"] {
        let (_, body) = fetch_whole(
            &agent,
            "/metrics/tasks",
            &PROTOBUF.replace("delimited", &format!("delimited{utf8}")),
        );
        let shown = parsed(&python, &body, "protobuf");
        assert!(shown.natives.len() > 300, "{}", shown.natives.len());
        assert_eq!(shown.bare() + 2 * shown.natives.len(), sent.single + 2 * sent.values, "{utf8}");
    }
    for naming in ["statsd_exporter", "datadog", "graphite"] {
        for identity in ["low", "orchestrator", "high"] {
            page(&agent, &python, &format!("?naming={naming}&identity={identity}&created"));
        }
    }
}

#[test]
fn a_counter_that_was_counted_down_is_untyped_in_messages_too_and_a_native_histogram_keeps_its_type() {
    let Some(python) = tools::python() else { return };
    let agent = configured(NATIVE);
    agent.reserve("c-1", "web.1").send("active:100|c\nactive:-1|c\nhits:1|c\nsize:-5|h\nsize:5|h");
    agent.until("a window is closed", || agent.metrics("web.1", "?window=last").len() == 3);
    let shown = page(&agent, &python, "");
    let task = [("task", "web.1")];
    assert_eq!(
        ["active_total", "hits_total", "size"].map(|name| shown.kind(name)),
        ["unknown", "counter", "histogram"]
    );
    assert_eq!(shown.value("active_total", &task), Some(99.0));
    assert_eq!(native(&shown, "size", &task).unwrap()["count"], 2);
}

#[test]
fn a_gauge_of_the_same_name_makes_a_summary_of_a_histogram_of_the_same_tags_alone() {
    let Some(python) = tools::python() else { return };
    let agent = configured(NATIVE);
    let lines = "depth:7|g|#a:1\ndepth:5|h|#a:1\ndepth:5|h|#a:2";
    agent.reserve("c-1", "web.1").send(lines);
    agent.reserve("c-2", "web.2").send("depth:5|h|#a:1");
    agent.until("both are closed", || {
        ["web.1", "web.2"].map(|task| agent.metrics(task, "?window=last").len()) == [3, 1]
    });
    let shown = page(&agent, &python, "");
    let both = [("task", "web.1"), ("a", "1")];
    let gauge =
        shown.samples.iter().find(|(name, labels, _)| name == "depth" && !labels.contains_key("quantile"));
    assert_eq!(gauge.map(|(.., value)| *value), Some(7.0));
    assert_eq!(shown.value("depth_count", &both), Some(1.0));
    assert_eq!(shown.value("depth", &[("quantile", "0.5")]), Some(5.0));
    assert_eq!(native(&shown, "depth", &both), None);
    for others in [[("task", "web.1"), ("a", "2")], [("task", "web.2"), ("a", "1")]] {
        assert_eq!(native(&shown, "depth", &others).unwrap()["count"], 1, "{others:?}");
    }
}

#[test]
fn native_histograms_of_a_workload_go_on_from_life_to_life_and_another_setting_begins_anew() {
    let Some(python) = tools::python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    let lives = "linger = \"0s\"\ncreated = true\n[containers]\ntombstone = \"1s\"\n";
    std::fs::write(&file, format!("{NATIVE}{lives}")).unwrap();
    let flags = ["--window", "1s", "--config", file.to_str().unwrap()];
    let agent = Agent::in_directory(directory, &flags);
    let shown = || page(&agent, &python, "?identity=low");
    let of = |page: &Page| native(page, "run_time_seconds", &[("workload", "report")]).cloned();
    (1..4).for_each(|n| run_a_job(&agent, n));
    agent.until("the jobs are forgotten", || agent.get("/v1/tasks/report.3").0 == 404);
    let before = shown();
    let summed = of(&before).unwrap();
    assert_eq!((counts(&summed["positive"]), &summed["sum"]), (vec![(-45, 3.0)], &json!(0.06)), "20 ms each");
    let created = before.value("run_time_seconds_created", &[]).unwrap();
    let reload = |settings: &str| {
        std::fs::write(&file, format!("{settings}{lives}")).unwrap();
        agent.signal(Signal::SIGHUP);
    };
    reload("[prometheus]\ntimers = \"summary\"\n");
    agent.until("there are summaries", || shown().value("run_time_seconds_count", &[]) == Some(3.0));
    reload(HISTOGRAMS);
    agent.until("classic ones are asked for", || shown().value("run_time_seconds_count", &[]).is_none());
    run_a_job(&agent, 4);
    assert_eq!(shown().value("run_time_seconds_count", &[]), Some(1.0));
    agent.until("the job is forgotten", || agent.get("/v1/tasks/report.4").0 == 404);
    reload(NATIVE);
    agent.until("native ones are asked for", || shown().value("run_time_seconds_count", &[]).is_none());
    run_a_job(&agent, 5);
    let after = shown();
    assert_eq!(of(&after).unwrap()["count"], 1);
    assert!(after.value("run_time_seconds_created", &[]).unwrap() > created);
    assert_eq!(after.value("rows_done_total", &[]), Some(25.0), "counters go on");
}

#[test]
fn native_histograms_go_over_to_another_process() {
    let Some(python) = tools::python() else { return };
    let mut flags = vec!["--window", "1s", "--set", "containers.tombstone=0s"];
    flags.extend(["--set", "prometheus.identity=low", "--set", "prometheus.timers=native"]);
    let agent = Agent::with(&flags);
    let reserve = |agent: &Agent, id: &str| {
        agent.reserve_with(&json!({"container_id": id, "task_id": "job", "labels": {"job": "j"}}))
    };
    let address = reserve(&agent, "c1");
    reserve(&agent, "c2").send("time:7:11|ms");
    agent.finish("c2");
    let spread_of = |agent: &Agent| {
        let shown = page(agent, &python, "");
        native(&shown, "time_seconds", &[("workload", "job")])
            .map(|of| counts(&of["positive"]))
            .unwrap_or_default()
    };
    address.send("time:3|ms");
    agent.until("both are one", || spread_of(&agent) == spread(&[0.003, 0.007, 0.011]));
    let agent = agent.handed_over(&flags);
    assert_eq!(spread_of(&agent), spread(&[0.003, 0.007, 0.011]));
    address.send("time:10|ms");
    agent.until("all of it goes on", || spread_of(&agent) == spread(&[0.003, 0.007, 0.010, 0.011]));
}
