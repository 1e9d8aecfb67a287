//! Containers' metrics for Prometheus, read with an independent parser.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::agent::{Agent, PATIENCE};
use crate::tools;

const OPENMETRICS: &str = "accept: application/openmetrics-text; version=1.0.0";
const CLASSIC: &str = "accept: text/plain; version=0.0.4";
/// The header with which Prometheus 3 requests UTF-8 names.
pub(crate) const OPENMETRICS_UTF8: &str =
    "accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.1";
pub(crate) const CLASSIC_UTF8: &str = "accept: text/plain;version=1.0.0;escaping=allow-utf-8";

/// A name, labels and a value.
pub(crate) type Sample<V> = (String, BTreeMap<String, String>, V);

/// One page as parsed.
pub(crate) struct Page {
    families: BTreeMap<String, Value>,
    pub(crate) samples: Vec<Sample<f64>>,
    /// Fields that only protobuf has.
    pub(crate) natives: Vec<Sample<Value>>,
}

/// A page as text.
pub(crate) fn text(agent: &Agent, path: &str, headers: &str) -> String {
    String::from_utf8(fetch(agent, path, headers)).unwrap()
}

/// The whole body of an answer.
fn fetch(agent: &Agent, path: &str, headers: &str) -> Vec<u8> {
    fetch_whole(agent, path, headers).1
}

/// Head and body of an answer. HTTP/1.0, so that the body is not chunked and ends with the connection.
pub(crate) fn fetch_whole(agent: &Agent, path: &str, headers: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(agent.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n{headers}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    assert!(answer.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&answer));
    let body = answer.split_off(head + 4);
    (String::from_utf8(answer).unwrap().to_lowercase(), body)
}

/// Parses a page with Python's library for Prometheus, or for protobuf.
pub(crate) fn parsed(python: &Path, text: &[u8], format: &str) -> Page {
    let mut child = Command::new(python)
        .arg(tools::root().join("integration/prometheus/read.py"))
        .arg(format)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{format}:\n{}", String::from_utf8_lossy(text));
    let families: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let (mut samples, mut natives) = (Vec::new(), Vec::new());
    for sample in families.iter().flat_map(|family| family["samples"].as_array().unwrap()) {
        let labels = serde_json::from_value(sample["labels"].clone()).unwrap();
        let (name, value) = (sample["name"].as_str().unwrap().to_owned(), &sample["value"]);
        match value.as_f64() {
            Some(number) => samples.push((name, labels, number)),
            None => natives.push((name, labels, value.clone())),
        }
    }
    Page {
        samples,
        natives,
        families: families.iter().map(|f| (f["name"].as_str().unwrap().to_owned(), f.clone())).collect(),
    }
}

impl Page {
    pub(crate) fn openmetrics(agent: &Agent, python: &Path, query: &str) -> Self {
        Self::openmetrics_as(agent, python, query, OPENMETRICS)
    }

    pub(crate) fn openmetrics_as(agent: &Agent, python: &Path, query: &str, accept: &str) -> Self {
        let page = fetch(agent, &format!("/metrics/tasks{query}"), accept);
        assert!(page.ends_with(b"# EOF\n"), "{}", String::from_utf8_lossy(&page));
        parsed(python, &page, "openmetrics")
    }

    pub(crate) fn classic(agent: &Agent, python: &Path, query: &str) -> Self {
        parsed(python, &fetch(agent, &format!("/metrics/tasks{query}"), CLASSIC), "classic")
    }

    /// The number of samples without a quantile or a bound, and without `tallyport_task_info`.
    pub(crate) fn bare(&self) -> usize {
        let bare = self.samples.iter().filter(|(name, labels, _)| {
            let several = labels.contains_key("quantile") || labels.contains_key("le");
            !several && name != "tallyport_task_info"
        });
        bare.count()
    }

    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.samples.iter().map(|(name, ..)| name.as_str()).collect()
    }

    /// The value of the only sample that has a name and these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |has: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| has.get(*key).is_some_and(|has| has == value))
        };
        let found: Vec<_> = self.samples.iter().filter(|(n, has, _)| n == name && fits(has)).collect();
        assert!(found.len() < 2, "{name}: {found:?}");
        found.first().map(|(.., value)| *value)
    }

    pub(crate) fn kind(&self, family: &str) -> &str {
        self.families.get(family).map_or("", |family| family["type"].as_str().unwrap())
    }
}

/// The complaints of `promtool check metrics` about a page in the classic format. `None` if it is not installed.
fn promtool(page: &[u8]) -> Option<String> {
    let promtool = tools::promtool()?;
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() || !said.is_empty());
    Some(said)
}

/// An agent with settings.
pub(crate) fn configured(settings: &str) -> Agent {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, settings).unwrap();
    let flags = ["--window", "1s", "--config", file.to_str().unwrap()];
    Agent::in_directory(directory, &flags)
}

/// Sends one of each type under names that conform to the conventions.
pub(crate) fn send_one_of_each(agent: &Agent, container: &str, task: &str) {
    let address = agent.reserve(container, task);
    address.send(
        "jobs.done:3|c|#route:/pay\njobs.done:4|c|#route:/buy\nqueue.depth:7|g\nusers:ann|s\nusers:bob|s",
    );
    address.send("request.latency:7:2:91:11|ms|#route:/pay\nbody.bytes:10:30|h\nspread:0.5|d\n_sc|db|2");
    agent.until("the window is closed", || agent.metrics(task, "?window=last").len() == 8);
}

#[test]
fn a_page_of_a_node_without_series_is_empty_and_has_a_type() {
    let agent = Agent::start();
    let (head, body) = fetch_whole(&agent, "/metrics/tasks", CLASSIC);
    assert!(body.is_empty() && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
}

#[test]
fn every_type_maps_to_the_matching_prometheus_type() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::start();
    send_one_of_each(&agent, "c-1", "web.1");
    let page = Page::openmetrics(&agent, &python, "");
    let (pay, buy) = ([("task", "web.1"), ("route", "/pay")], [("task", "web.1"), ("route", "/buy")]);
    assert_eq!(
        (page.value("jobs_done_total", &pay), page.value("jobs_done_total", &buy)),
        (Some(3.0), Some(4.0))
    );
    assert_eq!((page.value("queue_depth", &[]), page.value("users_unique", &[])), (Some(7.0), Some(2.0)));
    let quantile = |q| page.value("request_latency_seconds", &[("quantile", q), ("route", "/pay")]);
    assert_eq!(["0.5", "0.99"].map(quantile), [Some(0.007), Some(0.091)]);
    let sums = ["request_latency_seconds", "body_bytes", "spread_distribution"]
        .map(|name| (page.value(&format!("{name}_sum"), &[]), page.value(&format!("{name}_count"), &[])));
    assert_eq!(sums, [(Some(0.111), Some(4.0)), (Some(40.0), Some(2.0)), (Some(0.5), Some(1.0))]);
    let kinds =
        ["jobs_done", "queue_depth", "users_unique", "request_latency_seconds"].map(|name| page.kind(name));
    assert_eq!(kinds, ["counter", "gauge", "gauge", "summary"]);
    assert_eq!(page.families["request_latency_seconds"]["unit"], "seconds");
    let known = [("task", "web.1"), ("container_id", "c-1"), ("task_id", "web.1"), ("generation", "1")];
    assert_eq!(page.value("tallyport_task_info", &known), Some(1.0));
    let classic = Page::classic(&agent, &python, "");
    assert_eq!(classic.names(), page.names(), "both formats have the same series");
}

#[test]
fn promtool_has_nothing_against_our_own_metrics_nor_against_names_that_conform() {
    let agent = Agent::start();
    send_one_of_each(&agent, "c-1", "web.1");
    for path in ["/metrics", "/metrics/tasks"] {
        let Some(said) = promtool(&fetch(&agent, path, CLASSIC)) else { return };
        assert_eq!(said, "", "{path}");
    }
}

#[test]
fn creation_times_are_optional_and_only_in_formats_that_have_them() {
    let Some(python) = tools::python() else { return };
    let agent = configured("prometheus.created = true\n");
    send_one_of_each(&agent, "c-1", "web.1");
    let created =
        Page::openmetrics(&agent, &python, "").value("jobs_done_created", &[("route", "/pay")]).unwrap();
    let now = tallyport::net::clock::wall_time().as_micros() as f64 / 1e6;
    assert!((now - 60.0..=now).contains(&created), "{created}");
    for page in [Page::openmetrics(&agent, &python, "?created=false"), Page::classic(&agent, &python, "")] {
        assert!(!page.names().contains("jobs_done_created"));
    }
}

#[test]
fn filters_select_series_and_shards_are_disjoint_and_complete() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::start();
    for n in 0..6 {
        send_one_of_each(&agent, &format!("c-{n}"), &format!("web{n}.1"));
    }
    let page = |query: &str| Page::openmetrics(&agent, &python, query);
    let tasks = |page: &Page| -> BTreeSet<String> {
        page.samples.iter().filter_map(|(_, labels, _)| labels.get("task").cloned()).collect()
    };
    assert_eq!(tasks(&page("?task=web3*")).len(), 1);
    let filtered = page("?container=c-2&name=jobs.*&tag=route=/pay");
    let found: Vec<_> = filtered.samples.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(found, ["tallyport_task_info", "jobs_done_total"]);
    let parts: Vec<_> = (0..3).map(|n| tasks(&page(&format!("?shard={n}/3")))).collect();
    assert_eq!(parts.iter().map(BTreeSet::len).sum::<usize>(), 6, "{parts:?}");
    assert_eq!(parts.iter().flatten().collect::<BTreeSet<_>>().len(), 6, "{parts:?}");
    for (query, code) in [
        ("shard=3/3", "bad_parameter"),
        ("naming=own", "bad_parameter"),
        ("identiy=low", "unknown_parameter"),
    ] {
        let (status, error) = agent.get(&format!("/metrics/tasks?{query}"));
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{query}");
    }
}

#[test]
fn other_namings_call_things_as_other_servers_do() {
    let Some(python) = tools::python() else { return };
    let agent = configured("prometheus.naming = \"statsd_exporter\"\n");
    send_one_of_each(&agent, "c-1", "web.1");
    let names = |query: &str| {
        let names = |page: Page| -> BTreeSet<String> {
            // The classic parser adds this suffix to every counter.
            let bare = |name: &str| name.strip_suffix("_total").unwrap_or(name).to_owned();
            page.names().into_iter().map(bare).collect()
        };
        [names(Page::openmetrics(&agent, &python, query)), names(Page::classic(&agent, &python, query))]
    };
    for (query, wanted) in [
        ("", "jobs_done queue_depth users request_latency request_latency_sum body_bytes_count spread"),
        ("?naming=statsd_exporter", "jobs_done queue_depth"),
        (
            "?naming=datadog",
            "jobs_done queue_depth request_latency_max request_latency_median request_latency_avg \
          request_latency_95percentile request_latency_count spread_max users",
        ),
        (
            "?naming=graphite",
            "stats_counters_jobs_done_count stats_gauges_queue_depth stats_sets_users_count \
          stats_timers_request_latency_upper_90 stats_timers_request_latency_mean stats_timers_body_bytes_lower",
        ),
        ("?naming=openmetrics", "jobs_done request_latency_seconds"),
    ] {
        let [openmetrics, classic] = names(query);
        assert_eq!(openmetrics, classic, "{query}");
        for name in wanted.split_whitespace() {
            assert!(openmetrics.contains(name), "{query}: {name} is not in {openmetrics:?}");
        }
    }
    let datadog = Page::openmetrics(&agent, &python, "?naming=datadog");
    assert_eq!(datadog.value("request_latency_max", &[]), Some(91.0), "in milliseconds, as it was sent");
    // Two types with one name: one is served, the other is counted.
    let address = agent.reserve("c-2", "web.2");
    address.send("twice:1|c\ntwice:2|g");
    agent.until("the window is closed", || agent.metrics("web.2", "?window=last").len() == 2);
    assert_eq!(Page::openmetrics(&agent, &python, "?task=web.2").value("twice", &[]), Some(1.0));
    let own = parsed(&python, &fetch(&agent, "/metrics", OPENMETRICS), "openmetrics");
    assert!(own.value("tallyport_scrape_clashes_total", &[]).unwrap() >= 1.0);
}

#[test]
fn the_labels_of_a_series_say_as_much_of_its_origin_as_is_wanted() {
    let Some(python) = tools::python() else { return };
    let agent = configured("prometheus.identity = \"high\"\n");
    let labels = json!({"namespace": "shop", "pod": "web-7f9-x2x", "container": "main", "workload": "web", "team": "a"});
    let address =
        agent.reserve_with(&json!({"container_id": "c-1", "task_id": "t-1", "labels": labels, "ttl": null}));
    address.send("hits:1|c|#pod:forged,job:forged,container_id:forged,route:/pay,a.b:1,live");
    agent.until("the window is closed", || agent.metrics("t-1", "?window=last").len() == 1);
    let labels = |query: &str| {
        let page = Page::openmetrics(&agent, &python, query);
        let (_, labels, _) = page.samples.iter().find(|(name, ..)| name == "hits_total").unwrap();
        labels.clone()
    };
    let high = labels("");
    let wanted = [
        ("namespace", "shop"),
        ("pod", "web-7f9-x2x"),
        ("container", "main"),
        ("container_id", "c-1"),
        ("generation", "1"),
        ("client_pod", "forged"),
        ("client_job", "forged"),
        ("client_container_id", "forged"),
        ("route", "/pay"),
        ("live", "true"),
    ];
    for (key, value) in wanted {
        assert_eq!(high.get(key).map(String::as_str), Some(value), "{key}: {high:?}");
    }
    assert!(high.contains_key("a_b") && !high.contains_key("team"), "{high:?}");
    let placed = labels("?identity=orchestrator");
    assert!(placed.contains_key("pod") && !placed.contains_key("container_id"), "{placed:?}");
    let low = labels("?identity=low");
    assert_eq!(low.get("workload").map(String::as_str), Some("web"));
    assert!(!low.contains_key("pod"), "{low:?}");
    let infos = |query: &str| {
        Page::openmetrics(&agent, &python, query).value("tallyport_task_info", &[("team", "a")])
    };
    assert_eq!((infos(""), infos("?identity=low")), (Some(1.0), None));
}

/// Settings for histograms whose bounds equal values of the tests.
pub(crate) const HISTOGRAMS: &str = "[prometheus]\ntimers = \"histogram\"\ntimer_buckets = [0.002, 0.01, 1, 2.5e6]\n\
                          value_buckets = [0.5, 10]\n";

/// A histogram's buckets in order, its sum and its count.
fn histogram(page: &Page, name: &str, labels: &[(&str, &str)]) -> (Vec<(String, f64)>, f64, f64) {
    let bucket = format!("{name}_bucket");
    let fits = |has: &BTreeMap<String, String>| {
        labels.iter().all(|(key, value)| has.get(*key).is_some_and(|has| has == value))
    };
    let buckets = page.samples.iter().filter(|(name, has, _)| *name == bucket && fits(has));
    let buckets = buckets.map(|(_, labels, value)| (labels["le"].clone(), *value)).collect();
    let [sum, count] = ["_sum", "_count"].map(|part| page.value(&format!("{name}{part}"), labels).unwrap());
    (buckets, sum, count)
}

fn buckets<const N: usize>(counts: [(&str, f64); N]) -> Vec<(String, f64)> {
    counts.map(|(le, count)| (le.to_owned(), count)).to_vec()
}

#[test]
fn values_are_counted_in_buckets_where_that_is_asked_for() {
    let Some(python) = tools::python() else { return };
    let agent = configured(HISTOGRAMS);
    send_one_of_each(&agent, "c-1", "web.1");
    let timer =
        (buckets([("0.002", 1.0), ("0.01", 2.0), ("1.0", 4.0), ("2.5e+06", 4.0), ("+Inf", 4.0)]), 0.111, 4.0);
    let values = (buckets([("0.5", 0.0), ("10.0", 1.0), ("+Inf", 2.0)]), 40.0, 2.0);
    let spread = (buckets([("0.5", 1.0), ("10.0", 1.0), ("+Inf", 1.0)]), 0.5, 1.0);
    for page in [Page::openmetrics(&agent, &python, ""), Page::classic(&agent, &python, "")] {
        assert_eq!(histogram(&page, "request_latency_seconds", &[("route", "/pay")]), timer);
        assert_eq!(histogram(&page, "body_bytes", &[]), values);
        assert_eq!(histogram(&page, "spread_distribution", &[]), spread);
        assert_eq!(page.kind("body_bytes"), "histogram");
        assert!(page.samples.iter().all(|(_, labels, _)| !labels.contains_key("quantile")));
    }
    let other = Page::openmetrics(&agent, &python, "?naming=statsd_exporter");
    assert_eq!(histogram(&other, "request_latency", &[]), timer, "in seconds, too");
    // Cumulative sums in namings without histograms, and percentiles on request.
    let [datadog, summary] =
        ["?naming=datadog", "?timers=summary"].map(|query| Page::openmetrics(&agent, &python, query));
    assert_eq!(datadog.value("request_latency_count", &[]), Some(4.0));
    assert_eq!(summary.value("body_bytes", &[("quantile", "0.99")]), Some(30.0));
    assert!(!summary.names().contains("body_bytes_bucket"));
    if let Some(said) = promtool(&fetch(&agent, "/metrics/tasks", CLASSIC)) {
        assert_eq!(said, "");
    }
    let now = tallyport::net::clock::wall_time().as_micros() as f64 / 1e6;
    let created = Page::openmetrics(&agent, &python, "?created").value("body_bytes_created", &[]).unwrap();
    assert!((now - 60.0..=now).contains(&created), "{created}");
    // Histograms that are not counted cannot be served.
    let (status, error) = Agent::start().get("/metrics/tasks?timers=histogram");
    assert_eq!((status, &error["code"]), (400, &json!("bad_parameter")));
}

#[test]
fn sampled_values_and_odd_tags_leave_histograms_that_every_reader_takes() {
    let Some(python) = tools::python() else { return };
    let agent = configured(HISTOGRAMS);
    let address = agent.reserve("c-1", "web.1");
    // Ten thirds is not an integer, and OpenMetrics requires integer counts.
    address.send("t:1:5|ms|@0.3|#le:x,quantile:y\nh:-3:20|h|@0.1\nx:1|h\nx.bucket:5|g\nx.bucket:6|h");
    agent.until("the window is closed", || agent.metrics("web.1", "?window=last").len() == 5);
    for page in [Page::openmetrics(&agent, &python, ""), Page::classic(&agent, &python, "")] {
        let labels = [("client_le", "x"), ("client_quantile", "y")];
        let (counts, _, count) = histogram(&page, "t_seconds", &labels);
        let wanted = [("0.002", 3.0), ("0.01", 7.0), ("1.0", 7.0), ("2.5e+06", 7.0), ("+Inf", 7.0)];
        assert_eq!((counts, count), (buckets(wanted), 7.0));
        let values = histogram(&page, "h", &[]);
        assert_eq!(values, (buckets([("0.5", 10.0), ("10.0", 10.0), ("+Inf", 20.0)]), 170.0, 20.0));
        let plain =
            page.samples.iter().find(|(name, labels, _)| name == "x_bucket" && !labels.contains_key("le"));
        assert_eq!(plain.unwrap().2, 5.0, "a gauge keeps its name");
        assert_eq!(histogram(&page, "x_bucket", &[]).2, 1.0);
    }
}

#[test]
fn buckets_of_a_workload_go_on_from_life_to_life_and_other_bounds_begin_anew() {
    let Some(python) = tools::python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    let lives = "linger = \"0s\"\n[containers]\ntombstone = \"1s\"\n";
    std::fs::write(&file, format!("{HISTOGRAMS}{lives}")).unwrap();
    let flags = ["--window", "1s", "--config", file.to_str().unwrap()];
    let agent = Agent::in_directory(directory, &flags);
    let page = || Page::openmetrics(&agent, &python, "?identity=low");
    let labels = [("workload", "report")];
    for n in 1..4 {
        run_a_job(&agent, n);
        assert_eq!(histogram(&page(), "run_time_seconds", &labels).2, f64::from(n));
    }
    agent.until("the jobs are forgotten", || agent.get("/v1/tasks/report.3").0 == 404);
    let (counts, sum, count) = histogram(&page(), "run_time_seconds", &labels);
    assert_eq!(counts[1..3], [("0.01".to_owned(), 0.0), ("1.0".to_owned(), 3.0)]);
    assert_eq!((sum, count), (0.06, 3.0));
    let other = HISTOGRAMS.replace("0.01, 1", "0.02, 1");
    std::fs::write(&file, format!("{other}{lives}")).unwrap();
    agent.signal(nix::sys::signal::Signal::SIGHUP);
    agent.until("nothing is counted by them yet", || !page().names().contains("run_time_seconds_count"));
    run_a_job(&agent, 4);
    let (counts, sum, count) = histogram(&page(), "run_time_seconds", &labels);
    assert_eq!(counts[1], ("0.02".to_owned(), 1.0), "20 ms are within 0.02 s");
    assert_eq!((sum, count), (0.02, 1.0));
    assert_eq!(page().value("rows_done_total", &labels), Some(20.0), "counters go on");
}

/// Runs a job that counts for a moment and is gone.
pub(crate) fn run_a_job(agent: &Agent, n: u32) {
    let task = format!("report.{n}");
    let address = agent.reserve(&format!("job-{n}"), &task);
    address.send("rows.done:5|c\nrun.time:20|ms\nprogress:1|g");
    agent.finish(&format!("job-{n}"));
}

#[test]
fn lives_of_a_workload_are_one_counter_that_never_goes_back() {
    let Some(python) = tools::python() else { return };
    let agent = configured("prometheus.linger = \"0s\"\ncontainers.tombstone = \"1s\"\n");
    let low =
        |name| Page::openmetrics(&agent, &python, "?identity=low").value(name, &[("workload", "report")]);
    let mut before = 0.0;
    for n in 1..4 {
        run_a_job(&agent, n);
        let now = low("rows_done_total").unwrap();
        assert!(now >= before, "{now} after {before}");
        assert_eq!(now, f64::from(n) * 5.0);
        before = now;
    }
    agent.until("the jobs are forgotten", || agent.get("/v1/tasks/report.3").0 == 404);
    let sums = ["rows_done_total", "run_time_seconds_sum", "run_time_seconds_count"].map(low);
    assert_eq!(sums, [Some(15.0), Some(0.06), Some(3.0)]);
    assert_eq!(low("progress"), None, "no container has that level any more");
    let placed = Page::openmetrics(&agent, &python, "");
    assert!(placed.samples.is_empty(), "series of what is gone have ended: {:?}", placed.samples);
}

#[test]
fn a_task_that_comes_again_goes_on_counting_and_one_that_does_not_ends() {
    let Some(python) = tools::python() else { return };
    let agent = configured("prometheus.linger = \"2s\"\ncontainers.tombstone = \"1h\"\n");
    let hits = |page: &Page| page.value("hits_total", &[("task", "web.1")]);
    let page = || Page::openmetrics(&agent, &python, "");
    agent.reserve("c-1", "web.1").send("hits:5|c");
    agent.finish("c-1");
    assert_eq!(hits(&page()), Some(5.0), "a scraper has time to see what came last");
    let address = agent.reserve("c-1", "web.1");
    address.send("hits:2|c");
    agent.until("both are one counter", || hits(&page()) == Some(7.0));
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(hits(&page()), Some(7.0), "the new container continues the total");
    let apart = Page::openmetrics(&agent, &python, "?identity=high");
    assert_eq!(apart.value("hits_total", &[("generation", "2")]), Some(2.0));
    assert_eq!(apart.value("hits_total", &[("generation", "1")]), None);
    agent.finish("c-1");
    agent.until("its series have ended", || page().samples.is_empty());
}

#[test]
fn a_gauge_ends_when_it_is_too_old() {
    let Some(python) = tools::python() else { return };
    let agent = configured("windows.gauge_carry = \"3s\"\n");
    let address = agent.reserve("c-1", "web.1");
    address.send("depth:7|g");
    let page = || {
        address.send("hits:1|c");
        Page::openmetrics(&agent, &python, "")
    };
    agent.until("it is there", || page().value("depth", &[]) == Some(7.0));
    agent.until("it has ended", || page().value("depth", &[]).is_none());
    assert!(page().value("hits_total", &[]).is_some());
}

/// A deterministic pseudorandom generator.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.next(of.len())]
    }

    /// Parts of names that collide, that are reserved, or that are invalid.
    fn name(&mut self) -> String {
        const PIECES: [&str; 40] = [
            "a",
            "a",
            "b",
            "a.b",
            "a_b",
            "a-b",
            "total",
            ".total",
            "_total",
            ".sum",
            ".count",
            "_count",
            ".created",
            ".bucket",
            ".seconds",
            "_seconds",
            ".unique",
            ".distribution",
            "_info",
            "tallyport.task",
            "tallyport_task_info",
            "up",
            "scrape",
            " ",
            "/",
            "..",
            "__",
            "é",
            "日本",
            "\u{0}",
            "\u{7}",
            "\r",
            "\\",
            "\"",
            "{",
            "}",
            "=",
            "1",
            "e",
            "NaN",
        ];
        let n = 1 + self.next(3);
        (0..n).map(|_| self.pick(&PIECES)).collect()
    }

    fn tags(&mut self) -> String {
        const KEYS: [&str; 22] = [
            "a",
            "a.b",
            "a_b",
            "le",
            "quantile",
            "job",
            "client_job",
            "__name__",
            "",
            "task",
            "container_id",
            "client_task_id",
            "1",
            "é",
            "a b",
            "\"",
            "\\",
            "{",
            "\u{0}",
            "A",
            "generation",
            "pod",
        ];
        let tags: Vec<_> = (0..self.next(4))
            .map(|_| match self.next(4) {
                0 => self.pick(&KEYS).to_owned(),
                _ => format!("{}:{}", self.pick(&KEYS), self.name()),
            })
            .collect();
        if tags.is_empty() { String::new() } else { format!("|#{}", tags.join(",")) }
    }

    fn line(&mut self) -> String {
        let (name, tags) = (self.name(), self.tags());
        match self.next(7) {
            0 | 1 => format!("{name}:{}|c{}{tags}", self.next(9), self.pick(&["", "|@0.3", "|@0.1"])),
            2 => format!("{name}:-{}|c{tags}", self.next(5)),
            3 => format!("{name}:{}|g{tags}", self.pick(&["1e300", "-7", "0.1", "+3", "NaN", "1e-300"])),
            4 => {
                let (kind, rate) = (self.pick(&["ms", "h", "d"]), self.pick(&["", "|@0.3"]));
                format!("{name}:{}:-1:2|{kind}{rate}{tags}", self.next(9))
            }
            5 => format!("{name}:{}|s{tags}", self.name().replace('|', "")),
            _ => format!("{name}:{}|{}{tags}", self.next(99), self.pick(&["ms", "h", "d", "g", "c"])),
        }
    }
}

/// All kept series, by their identity.
fn kept(agent: &Agent, tasks: &[&str]) -> BTreeSet<String> {
    let records = tasks.iter().flat_map(|task| {
        agent
            .metrics(task, "?window=all&merge")
            .into_iter()
            .map(move |record| format!("{task} {} {} {}", record["type"], record["name"], record["tags"]))
    });
    records.collect()
}

/// The number of kept series of types with one sample, and of types with a sum and a count.
pub(crate) struct Sent {
    pub(crate) single: usize,
    pub(crate) values: usize,
}

/// Sends random lines, and waits until their window is closed.
pub(crate) fn send_anything(agent: &Agent) -> Sent {
    let mut dice = Dice(7);
    let tasks = ["web.1", "web.2", "job\"\\\n.3"];
    let tasks: Vec<_> = tasks.iter().map(|task| task.replace('\n', "")).collect();
    for (n, task) in tasks.iter().enumerate() {
        let address = agent.reserve(&format!("c-{n}"), task);
        // Few datagrams, so that the kernel drops none while the agent is slow.
        for _ in 0..35 {
            let lines: Vec<_> = (0..20).map(|_| dice.line()).collect();
            address.send(lines.join("\n"));
        }
        address.send("last.one:1|c");
    }
    let encoded = ["web.1", "web.2", "job%22%5C.3"];
    agent.until("all is closed", || {
        encoded.iter().all(|task| {
            let closed = agent.metrics(task, "?window=last&name=last.one");
            closed.len() == 1
        })
    });
    let series = kept(agent, &encoded);
    assert!(series.len() > 1000, "{}", series.len());
    let is_of_values = |series: &&String| {
        let kind = series.split(' ').nth(1).unwrap_or_default().trim_matches('"');
        ["timer", "histogram", "distribution"].contains(&kind)
    };
    let values = series.iter().filter(is_of_values).count();
    Sent { single: series.len() - values, values }
}

#[test]
fn whatever_applications_send_can_be_read_and_no_two_series_are_one() {
    let Some(python) = tools::python() else { return };
    let agent = configured(HISTOGRAMS);
    let sent = send_anything(&agent);
    // Colliding names are distinguished in both escapings, and no series is merged with another or omitted.
    for (timers, identity) in [("summary", "orchestrator"), ("histogram", "high")] {
        for accept in [OPENMETRICS, OPENMETRICS_UTF8] {
            let query = format!("?timers={timers}&identity={identity}");
            let whole = Page::openmetrics_as(&agent, &python, &query, accept);
            // Except for a tag without a value beside one with the value true, which the test does not send.
            assert_eq!(whole.bare(), sent.single + 2 * sent.values, "{timers} {accept}");
        }
    }
    let own =
        |name: &str| parsed(&python, &fetch(&agent, "/metrics", OPENMETRICS), "openmetrics").value(name, &[]);
    assert_eq!(own("tallyport_scrape_clashes_total"), Some(0.0));
    assert!(own("tallyport_names_marked") > Some(20.0), "{:?}", own("tallyport_names_marked"));
    for identity in ["low", "orchestrator", "high"] {
        let query = format!("?identity={identity}&created");
        Page::openmetrics_as(&agent, &python, &query, OPENMETRICS_UTF8);
        parsed(&python, &fetch(&agent, &format!("/metrics/tasks{query}"), CLASSIC_UTF8), "classic");
    }
    for (naming, timers) in [
        ("openmetrics", "summary"),
        ("openmetrics", "histogram"),
        ("statsd_exporter", "summary"),
        ("statsd_exporter", "histogram"),
        ("datadog", "histogram"),
        ("graphite", "histogram"),
    ] {
        for identity in ["low", "orchestrator", "high"] {
            let query = format!("?naming={naming}&timers={timers}&identity={identity}&created");
            let openmetrics = Page::openmetrics(&agent, &python, &query);
            assert!(!openmetrics.samples.is_empty());
            Page::classic(&agent, &python, &query);
            let classic = fetch(&agent, &format!("/metrics/tasks{query}"), CLASSIC);
            let said = promtool(&classic).unwrap_or_default();
            assert!(!said.contains("error while"), "{query}: {said}");
        }
    }
}

#[test]
fn a_page_is_compressed_for_clients_that_accept_it() {
    let agent = Agent::start();
    send_one_of_each(&agent, "c-1", "web.1");
    let plain = fetch(&agent, "/metrics/tasks", CLASSIC);
    let packed = fetch(&agent, "/metrics/tasks", "accept-encoding: gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(String::from_utf8(unpacked).unwrap(), String::from_utf8(plain).unwrap());
}
