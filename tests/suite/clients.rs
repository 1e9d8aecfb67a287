//! Popular clients, each sending every kind of metric to a real agent, and the expected totals.
//!
//! The programs in `integration/clients` count the lines that leave their sockets, by name, and print the counts. So
//! randomly sampled lines are known, and every loss is detected.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use cadence::prelude::*;
use cadence::{BufferedUdpMetricSink, MetricSink, QueuingMetricSink, StatsdClient, UdpMetricSink};
use serde_json::{Value, json};
use tallyport::model::Timestamp;

use crate::agent::{Agent, ran};
use crate::tools;

/// Runs a command as a container of a task, waits until all of its data is readable, and returns its output.
fn run(agent: &Agent, task: &str, command: &[&str]) -> String {
    let mut args = vec!["run", "--task-id", task, "--"];
    args.extend(command);
    let mut launcher = agent.command(&args);
    // Settings of a developer's own agent must not reach the clients.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["DD_", "DATADOG_", "STATSD_"].iter().any(|prefix| name.starts_with(prefix)) {
            launcher.env_remove(&*name);
        }
    }
    let ran = ran(&mut launcher);
    assert_eq!(ran.code, 0, "{}", ran.err);
    agent.until("the container is gone", || agent.get(&format!("/v1/tasks/{task}")).1["state"] == "gone");
    ran.out
}

/// Runs one of the programs in `integration/clients`.
fn run_program(agent: &Agent, task: &str, interpreter: &Path, program: &str) -> Sent {
    let program = tools::root().join("integration/clients").join(program);
    let printed = run(agent, task, &[interpreter.to_str().unwrap(), program.to_str().unwrap()]);
    Sent(serde_json::from_str(&printed).unwrap())
}

/// The counts that a program printed.
struct Sent(Value);

impl Sent {
    fn number(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap()
    }

    /// The number of lines sent with a name.
    fn times(&self, name: &str) -> u64 {
        self.0["names"][name].as_u64().unwrap()
    }

    /// The number of lines sent with a name in `calls` sampled calls.
    fn sampled(&self, name: &str, calls: u64) -> u64 {
        let times = self.times(name);
        assert!(0 < times && times < calls, "{name} was sent {times} times, so nothing was sampled");
        times
    }

    /// A time this many seconds before the program's current time.
    fn before_now(&self, seconds: u64) -> Value {
        let now = Timestamp::from_secs(self.0["now"].as_i64().unwrap());
        json!(now.saturating_sub(Duration::from_secs(seconds)))
    }
}

/// Checks that every datagram, byte and line that was sent was received, parsed and kept.
fn assert_all_arrived(agent: &Agent, task: &str, sent: &Sent) {
    let (_, shown) = agent.get(&format!("/v1/tasks/{task}"));
    let (datagrams, lines) = (sent.number("datagrams"), sent.number("lines"));
    let events = sent.0["events"].as_u64().unwrap_or(0);
    let values = lines - events;
    let totals = &shown["totals"];
    assert_eq!(
        *totals,
        json!({
            "datagrams": {
                "arrived": datagrams, "received": datagrams, "bytes": sent.number("bytes"),
                "kernel_drops": 0, "dropped": {}
            },
            "lines": {"received": lines, "accepted": lines, "rejected": {}},
            "values": {"accepted": values, "in_records": values, "open": 0, "folded": 0, "dropped": {}},
            "events": events, "over_limit": {}, "evicted_series": 0, "invalid_utf8": 0, "renamed_tags": totals["renamed_tags"], "balanced": true
        })
    );
    let records = Records::of(agent, task);
    let checks = records.0.iter().filter(|record| record["type"] == "service_check");
    let checks: u64 = checks.map(|record| record["agg"]["samples"].as_u64().unwrap()).sum();
    assert_eq!(checks, sent.0["checks"].as_u64().unwrap_or(0));
    for (name, times) in sent.0["names"].as_object().unwrap() {
        // Tags in a name are removed from it if their style is enabled.
        let plain = name.split(',').next().unwrap();
        let samples: u64 = records
            .metrics()
            .filter(|record| record["name"] == *name || record["name"] == plain)
            .map(|record| record["agg"]["samples"].as_u64().unwrap())
            .sum();
        assert_eq!(samples, times.as_u64().unwrap(), "{name}");
    }
    assert_eq!(records.metrics().count(), records.names_and_tags(), "a series is there once");
}

/// All records of a task, merged to one for each series.
struct Records(Vec<Value>);

impl Records {
    fn of(agent: &Agent, task: &str) -> Self {
        Self(agent.metrics(task, "?window=all&merge"))
    }

    /// The records without those of service checks.
    fn metrics(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|record| record["type"] != "service_check")
    }

    fn names_and_tags(&self) -> usize {
        let series = self.metrics().map(|record| format!("{} {}", record["name"], record["tags"]));
        series.collect::<std::collections::HashSet<_>>().len()
    }

    /// The one series with this name.
    fn only(&self, name: &str) -> Record<'_> {
        let found: Vec<&Value> = self.metrics().filter(|record| record["name"] == name).collect();
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        Record(found[0])
    }

    /// The series with this name and exactly these tags.
    fn tagged(&self, name: &str, tags: &Value) -> Record<'_> {
        let mut named = self.metrics().filter(|record| record["name"] == name);
        let found = named.find(|record| record["tags"] == *tags);
        Record(found.unwrap_or_else(|| panic!("{name} with {tags}: {:?}", self.0)))
    }
}

/// A record, to be compared with the expected one.
#[derive(Copy, Clone)]
struct Record<'a>(&'a Value);

impl<'a> Record<'a> {
    fn agg(self, keys: &[&str]) -> Vec<&'a Value> {
        keys.iter().map(|key| &self.0["agg"][*key]).collect()
    }

    fn assert_type(self, kind: &str) {
        assert_eq!(self.0["type"], kind, "{}", self.0);
        let unit = if kind == "timer" { "ms" } else { "" };
        assert_eq!(self.0["unit"], unit, "{}", self.0);
    }

    fn has_tags(self, tags: &Value) -> Self {
        assert_eq!(self.0["tags"], *tags, "{}", self.0);
        self
    }

    /// A counter with samples of this `weight`.
    fn is_counter(self, samples: u64, weight: u64, sum: f64) {
        self.sums_up_to(samples, weight, sum);
        assert_eq!(self.0["agg"]["total"], sum, "{}", self.0);
    }

    /// The same without checking the ledger.
    fn sums_up_to(self, samples: u64, weight: u64, sum: f64) {
        self.assert_type("counter");
        let expected = [json!(samples), json!(samples * weight), json!(sum)];
        assert_eq!(self.agg(&["samples", "count", "sum"]), expected.iter().collect::<Vec<_>>(), "{}", self.0);
        assert_eq!(self.0["value"], sum);
    }

    fn is_gauge(self, samples: u64, weight: u64, [last, min, max]: [f64; 3]) -> Self {
        self.assert_type("gauge");
        let expected = [json!(samples), json!(samples * weight), json!(last), json!(min), json!(max)];
        let found = self.agg(&["samples", "count", "last", "min", "max"]);
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{}", self.0);
        assert_eq!(self.0["value"], last);
        self
    }

    /// A timer, histogram or distribution of these values in this order, with this `weight` each.
    fn is(self, kind: &str, values: &[f64], weight: u64) {
        self.assert_type(kind);
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = values.len() as u64 * weight;
        let sum = values.iter().sum::<f64>() * weight as f64;
        let mean = sum / count as f64;
        let expected = [
            json!(values.len()),
            json!(count),
            json!(sum),
            json!(sorted[0]),
            json!(sorted[values.len() - 1]),
            json!(mean),
            json!(values[0]),
            json!(values[values.len() - 1]),
        ];
        let found = self.agg(&["samples", "count", "sum", "min", "max", "mean", "first", "last"]);
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{}", self.0);
        assert_eq!(self.0["value"], mean);
        let stddev =
            (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        let found = self.0["agg"]["stddev"].as_f64().unwrap();
        assert!((found - stddev).abs() <= 1e-9 * stddev, "stddev {stddev}: {}", self.0);
        for (name, percent) in [("p50", 50), ("p75", 75), ("p90", 90), ("p95", 95), ("p99", 99)] {
            // Nearest rank; a few values are exact, many within 1 %.
            let value = sorted[(values.len() * percent).div_ceil(100) - 1];
            let found = self.0["agg"][name].as_f64().unwrap();
            let most = if values.len() <= 16 { 0.0 } else { 0.01 * value.abs() };
            assert!((found - value).abs() <= most, "{name} {value}: {}", self.0);
        }
    }

    /// A series of measured durations: their number is known, their values are not.
    fn is_elapsed(self, kind: &str, samples: u64) {
        self.assert_type(kind);
        assert_eq!(self.agg(&["samples", "count"]), [&json!(samples), &json!(samples)], "{}", self.0);
        let numbers: Vec<f64> =
            self.agg(&["min", "p50", "max"]).iter().map(|n| n.as_f64().unwrap()).collect();
        assert!(numbers[0] >= 0.0 && numbers.is_sorted() && numbers[2] < 20_000.0, "{}", self.0);
    }

    fn is_set(self, samples: u64, weight: u64, members: u64) {
        self.assert_type("set");
        let expected = [json!(samples), json!(samples * weight), json!(members)];
        assert_eq!(
            self.agg(&["samples", "count", "cardinality"]),
            expected.iter().collect::<Vec<_>>(),
            "{}",
            self.0
        );
        assert_eq!(self.0["value"], members as f64);
    }
}

/// The values 1 to 100.
fn one_to_a_hundred() -> Vec<f64> {
    (1..=100).map(f64::from).collect()
}

/// A list without the keys that vary: the time of arrival and the container.
fn listed(agent: &Agent, task: &str, what: &str) -> Value {
    let (status, mut answer) = agent.get(&format!("/v1/tasks/{task}/{what}"));
    assert_eq!(status, 200, "{answer}");
    for item in answer[what].as_array_mut().unwrap() {
        let item = item.as_object_mut().unwrap();
        assert!(item.remove("received_at").unwrap().is_string());
        assert!(item.remove("container_id").unwrap().as_str().unwrap().starts_with("run-"));
    }
    answer[what].take()
}

#[test]
fn all_that_pythons_statsd_package_sends_adds_up() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::start();
    let sent = run_program(&agent, "py", &python, "python/statsd_client.py");
    assert_all_arrived(&agent, "py", &sent);
    let records = Records::of(&agent, "py");

    records.only("hits").has_tags(&json!({})).is_counter(4, 1, 3.0);
    records.only("bytes").is_counter(2, 1, 1_000_000_000_001.5);
    let half = sent.sampled("half", 60);
    records.only("half").is_counter(half, 2, (half * 2 * 3) as f64);
    let quarter = sent.sampled("quarter", 60);
    records.only("quarter").is_counter(quarter, 4, -((quarter * 4 * 2) as f64));
    records.only("small_datagrams").is_counter(30, 1, 435.0);

    records.only("level").is_gauge(4, 1, [18.0, 18.0, 23.5]);
    records.only("below_zero").is_gauge(3, 1, [-7.0, -7.0, 3.0]);
    records.only("first_change").is_gauge(1, 1, [-4.0, -4.0, -4.0]);
    let sampled = sent.sampled("sampled_level", 20);
    records.only("sampled_level").is_gauge(sampled, 2, [42.0, 42.0, 42.0]);

    records.only("query").is("timer", &[320.0, 1.5, 2250.0], 1);
    let sampled = usize::try_from(sent.sampled("sampled_query", 20)).unwrap();
    records.only("sampled_query").is("timer", &vec![8.0; sampled], 2);
    for (name, times) in [("block", 3), ("decorated", 4), ("decorated_async", 2), ("by_hand", 1)] {
        records.only(name).is_elapsed("timer", times);
    }

    records.only("users").is_set(6, 1, 4);
    let sampled = sent.sampled("sampled_users", 20);
    records.only("sampled_users").is_set(sampled, 2, sampled);

    records.only("app.latency").is("timer", &one_to_a_hundred(), 1);
    records.only("app.hits").is_counter(4, 1, 113.0);
    records.only("app.level").is_gauge(2, 1, [10.0, 9.0, 10.0]);
    records.only("app.users").is_set(1, 1, 1);
    let half = sent.sampled("app.half", 40);
    records.only("app.half").is_counter(half, 2, (half * 2) as f64);
    assert_eq!(records.0.len(), 22, "and nothing else is there");
}

/// Checks the data of `datadog_client.py`, independent of the meaning of signs; the caller checks `below_zero`.
fn assert_datadog_adds_up(agent: &Agent, task: &str, sent: &Sent) {
    assert_all_arrived(agent, task, sent);
    let records = Records::of(agent, task);
    let tags = json!({"env": "test", "région": "île"});

    records.only("hits").has_tags(&tags).is_counter(5, 1, 4.25);
    let half = sent.sampled("half", 60);
    records.only("half").has_tags(&tags).is_counter(half, 2, (half * 2 * 3) as f64);
    let quarter = sent.sampled("quarter", 60);
    records.only("quarter").is_counter(quarter, 4, -((quarter * 4 * 2) as f64));

    records.only("level").has_tags(&tags).is_gauge(2, 1, [21.5, 20.0, 21.5]);
    let sampled = sent.sampled("sampled_level", 20);
    records.only("sampled_level").is_gauge(sampled, 2, [42.0, 42.0, 42.0]);
    records.only("stamped_hits").has_tags(&tags).sums_up_to(3, 1, 7.0);
    // The last one by time, not by arrival.
    records.only("stamped_level").is_gauge(3, 1, [11.0, 7.0, 30.0]);

    records.only("sizes").has_tags(&tags).is("histogram", &one_to_a_hundred(), 1);
    records.only("spread").is("distribution", &[0.5, -2.0, 8.0], 1);
    records.only("query").is("timer", &[320.0, 1.5, 40.0], 1);
    let sampled = usize::try_from(sent.sampled("sampled_sizes", 60)).unwrap();
    records.only("sampled_sizes").is("histogram", &vec![6.0; sampled], 2);
    records.only("block").is_elapsed("timer", 2);
    records.only("decorated").is_elapsed("timer", 3);
    records.only("decorated_async").is_elapsed("distribution", 1);
    records.only("distributed").is_elapsed("distribution", 1);

    records.only("users").has_tags(&tags).is_set(7, 1, 5);
    assert_datadog_tags(&records);
    assert_datadog_modes(&records, sent);
    assert_eq!(records.metrics().count(), 34, "and nothing else is there");
    let (_, shown) = agent.get(&format!("/v1/tasks/{task}"));
    assert_eq!(shown["totals"]["renamed_tags"], 2, "task_id and container_id");
}

fn assert_datadog_tags(records: &Records) {
    let with = |key: &str, value: &str| json!({"env": "test", "région": "île", key: value});
    let pay = json!({"env": "test", "région": "île", "route": "/pay", "live": ""});
    records.tagged("tagged", &pay).is_counter(2, 1, 3.0);
    let buy = json!({"env": "test", "région": "île", "route": "/buy", "url": "http://h:80/p"});
    records.tagged("tagged", &buy).is_counter(1, 1, 4.0);
    records.tagged("tagged", &with("a_b", "c_d_e")).is_counter(1, 1, 8.0);
    let unicode = json!({"env": "test", "région": "île", "größe": "groß", "城市": "東京"});
    records.only("größe.日本").has_tags(&unicode).is_counter(1, 1, 3.0);
    let forged =
        json!({"env": "test", "région": "île", "client_task_id": "forged", "client_container_id": "forged"});
    records.only("origin").has_tags(&forged).is_counter(1, 1, 1.0);
    records.only("fields").has_tags(&with("a", "1")).is_gauge(1, 1, [5.0; 3]);
}

/// The client with a namespace, with a buffer, with its own aggregation and with a sending thread.
fn assert_datadog_modes(records: &Records, sent: &Sent) {
    let hits = sent.sampled("shop.hits", 40);
    records.only("shop.hits").has_tags(&json!({})).is_counter(hits, 2, (hits * 2 * 2) as f64);
    records.only("shop.level").is_gauge(1, 1, [1.0; 3]);
    records.only("buffered.hits").is_counter(51, 1, 2225.0);
    let values: Vec<f64> = (0..50).map(f64::from).collect();
    records.only("buffered.query").is("timer", &values, 1);
    records.only("aggregated.hits").is_counter(1, 1, 32.0);
    records.only("aggregated.level").is_gauge(1, 1, [15.0; 3]);
    records.only("aggregated.users").is_set(4, 1, 4);
    // It kept 8 of 16 values, and set the rate accordingly.
    records.only("aggregated.sizes").is("histogram", &[5.0; 8], 2);
    records.only("aggregated.query").is("timer", &[10.0; 8], 2);
    records.only("aggregated.spread").is("distribution", &[20.0; 8], 2);
    records.only("queued.hits").has_tags(&json!({})).is_counter(10, 1, 30.0);
}

#[test]
fn all_that_pythons_datadog_package_sends_adds_up() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::start();
    let sent = run_program(&agent, "dd", &python, "python/datadog_client.py");
    assert_datadog_adds_up(&agent, "dd", &sent);
    // 3 and -5: a level, since its lines have tags.
    Records::of(&agent, "dd").only("below_zero").is_gauge(2, 1, [-5.0, -5.0, 3.0]);
}

#[test]
fn with_the_datadog_preset_a_negative_gauge_of_its_package_is_a_level() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::with(&["--window", "1s", "--set", "env.presets=datadog"]);
    let sent = run_program(&agent, "dd", &python, "python/datadog_client.py");
    assert_datadog_adds_up(&agent, "dd", &sent);
    Records::of(&agent, "dd").only("below_zero").is_gauge(2, 1, [-5.0, -5.0, 3.0]);
}

#[test]
fn events_and_checks_of_pythons_datadog_package_arrive_whole() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::start();
    let sent = run_program(&agent, "dd", &python, "python/datadog_client.py");
    let tags = json!({"env": "test", "région": "île"});
    assert_eq!(
        listed(&agent, "dd", "events"),
        json!([
            {"title": "deploy", "text": "all is up", "alert_type": "info", "priority": "normal", "tags": tags},
            {
                "title": "Größe | geändert", "text": "first line\nzweite Zeile | ok",
                "timestamp": sent.before_now(100), "alert_type": "error", "priority": "low",
                "hostname": "host-1", "aggregation_key": "deploys", "source_type": "ci",
                "tags": {"env": "test", "région": "île", "route": "/pay"}
            },
            {"title": "warning", "alert_type": "warning", "priority": "normal", "tags": tags},
            {"title": "info", "alert_type": "info", "priority": "normal", "tags": tags},
            {"title": "success", "alert_type": "success", "priority": "normal", "tags": tags},
        ])
    );
    assert_eq!(
        listed(&agent, "dd", "checks"),
        json!([
            // The client escapes `m:` and line ends, and no server undoes that.
            {"name": "cache", "tags": tags, "status": "unknown", "message": "m\\: two\\nlines"},
            {"name": "db", "tags": tags, "status": "ok"},
            {
                "name": "db", "tags": {"env": "test", "région": "île", "shard": "1"}, "status": "critical",
                "message": "außer Betrieb", "hostname": "host-2", "timestamp": sent.before_now(50)
            },
            {"name": "queue", "tags": tags, "status": "warning"},
        ])
    );
}

#[test]
fn a_line_end_in_the_title_of_an_event_arrives_as_one() {
    let Some(python) = tools::python() else { return };
    let agent = Agent::with(&["--window", "1s", "--set", "env.presets=datadog"]);
    let program =
        "from datadog import statsd; statsd.disable_telemetry(); statsd.event('two\\nlines', 'a\\nb')";
    run(&agent, "dd", &[python.to_str().unwrap(), "-c", program]);
    let event = listed(&agent, "dd", "events")[0].take();
    assert_eq!((&event["title"], &event["text"]), (&json!("two\nlines"), &json!("a\nb")));
}

/// Checks the data of `hot_shots_client.js`, independent of the meaning of signs; the caller checks some gauges.
fn assert_hot_shots_adds_up(agent: &Agent, task: &str, sent: &Sent) {
    assert_all_arrived(agent, task, sent);
    let records = Records::of(agent, task);
    let tags = json!({"env": "test", "région": "île"});

    records.only("hits").has_tags(&tags).is_counter(6, 1, 4.25);
    records.only("first").is_counter(1, 1, 7.0);
    records.only("second").is_counter(1, 1, 7.0);
    let half = sent.sampled("half", 60);
    records.only("half").has_tags(&tags).is_counter(half, 2, (half * 2 * 3) as f64);
    let quarter = sent.sampled("quarter", 60);
    records.only("quarter").is_counter(quarter, 4, -((quarter * 4 * 2) as f64));

    records.only("level").has_tags(&tags).is_gauge(2, 1, [21.5, 20.0, 21.5]);
    let sampled = sent.sampled("sampled_level", 20);
    records.only("sampled_level").is_gauge(sampled, 2, [42.0, 42.0, 42.0]);
    records.only("stamped_hits").has_tags(&tags).sums_up_to(2, 1, 6.0);
    // The last one by time, not by arrival.
    let stamped = records.only("stamped_level").is_gauge(2, 1, [7.0, 7.0, 30.0]);
    assert_eq!(stamped.0["agg"]["last_at"], sent.before_now(3));

    records.only("sizes").has_tags(&tags).is("histogram", &[0.5, 2.0, 8.0], 1);
    records.only("spread").is("distribution", &[0.5, -2.0, 8.0], 1);
    records.only("query").is("timer", &[320.0, 1.5, 40.0], 1);
    let sampled = usize::try_from(sent.sampled("sampled_query", 60)).unwrap();
    records.only("sampled_query").is("timer", &vec![6.0; sampled], 2);
    records.only("since").is_elapsed("timer", 1);
    records.only("called").is_elapsed("timer", 2);
    records.only("awaited").is_elapsed("timer", 1);
    let added = json!({"env": "test", "région": "île", "a": "1", "cached": "no"});
    records.only("distributed").has_tags(&added).is_elapsed("distribution", 1);

    records.only("users").has_tags(&tags).is_set(8, 1, 6);
    assert_hot_shots_tags(&records);
    assert_hot_shots_modes(&records, sent);
    assert_eq!(records.metrics().count(), 38, "and nothing else is there");
    let (_, shown) = agent.get(&format!("/v1/tasks/{task}"));
    assert_eq!(shown["totals"]["renamed_tags"], 2, "task_id and container_id");
}

fn assert_hot_shots_tags(records: &Records) {
    let pay = json!({"env": "test", "région": "île", "route": "/pay", "live": ""});
    records.tagged("tagged", &pay).is_counter(2, 1, 3.0);
    let buy = json!({"env": "test", "région": "île", "route": "/buy", "url": "http://h:80/p"});
    records.tagged("tagged", &buy).is_counter(1, 1, 4.0);
    let overridden = json!({"env": "other", "région": "île", "a_b": "c_d_e_f_g"});
    records.tagged("tagged", &overridden).is_counter(1, 1, 8.0);
    let unicode = json!({"env": "test", "région": "île", "größe": "groß", "城市": "東京"});
    records.only("größe.日本").has_tags(&unicode).is_counter(1, 1, 3.0);
    let forged =
        json!({"env": "test", "région": "île", "client_task_id": "forged", "client_container_id": "forged"});
    records.only("origin").has_tags(&forged).is_counter(1, 1, 1.0);
    let both = json!({"env": "test", "région": "île", "a": "1"});
    records.only("both").has_tags(&both).is("histogram", &[5.0], 1);
}

/// The client with prefix and suffix and its children, with a buffer, with its own aggregation, and in Datadog mode.
fn assert_hot_shots_modes(records: &Records, sent: &Sent) {
    let hits = sent.sampled("shop.hits.v2", 40);
    let parent = json!({"env": "test", "tier": "1"});
    records.only("shop.hits.v2").has_tags(&parent).is_counter(hits, 2, (hits * 2 * 2) as f64);
    let child = json!({"env": "test", "tier": "2", "pod": "a"});
    records.tagged("cart.shop.level.v2.x", &child).is_gauge(1, 1, [4.0; 3]);
    let grandchild = json!({"env": "test", "tier": "2", "pod": "a", "leaf": ""});
    records.tagged("cart.shop.level.v2.x", &grandchild).is_gauge(1, 1, [5.0; 3]);

    records.only("buffered.hits").has_tags(&json!({})).is_counter(50, 1, 1225.0);
    let values: Vec<f64> = (0..50).map(f64::from).collect();
    records.only("buffered.query").is("timer", &values, 1);
    records.only("buffered.sizes").is("distribution", &one_to_a_hundred(), 1);

    records.only("aggregated.hits").is_counter(1, 1, 32.0);
    records.only("aggregated.users").is_set(4, 1, 4);

    let tags = json!({"a": "1"});
    records.only("datadog.hits").has_tags(&tags).is_counter(10, 1, 30.0);
    let level = records.only("datadog.level").has_tags(&tags).is_gauge(1, 1, [6.0; 3]);
    assert_eq!(level.0["agg"]["last_at"], sent.before_now(0));
}

#[test]
fn all_that_hot_shots_sends_adds_up() {
    let Some(node) = tools::node() else { return };
    // It supports changes of gauges, which Datadog's agent does not, and writes them with a plus sign.
    let agent = Agent::start();
    let sent = run_program(&agent, "js", &node, "node/hot_shots_client.js");
    assert_hot_shots_adds_up(&agent, "js", &sent);
    let records = Records::of(&agent, "js");
    records.only("changed").is_gauge(3, 1, [8.5, 8.5, 12.5]);
    records.only("aggregated.level").is_gauge(2, 1, [16.0, 15.0, 16.0]);
    records.only("below_zero").is_gauge(2, 1, [-2.0, -2.0, 3.0]);
    // Telegraf's tags are part of the name unless that tag style is enabled.
    records.only("telegraf.hits,env=test,route=/pay").has_tags(&json!({})).is_counter(1, 1, 9.0);
}

#[test]
fn hot_shots_is_read_by_the_datadog_preset_and_telegrafs_tag_style() {
    let Some(node) = tools::node() else { return };
    let settings = ["--window", "1s", "--set", "env.presets=datadog", "--set", "statsd.tag_styles=influx"];
    let agent = Agent::with(&settings);
    let sent = run_program(&agent, "js", &node, "node/hot_shots_client.js");
    assert_hot_shots_adds_up(&agent, "js", &sent);
    let records = Records::of(&agent, "js");
    records.only("below_zero").is_gauge(2, 1, [-5.0, -5.0, 3.0]);
    // A Datadog client sends no changes; one that does needs `tallyport.gauge-sign`.
    records.only("changed").is_gauge(3, 1, [-4.0, -4.0, 10.0]);
    records.only("aggregated.level").is_gauge(2, 1, [1.0, 1.0, 15.0]);
    let tags = json!({"env": "test", "route": "/pay"});
    records.only("telegraf.hits").has_tags(&tags).is_counter(1, 1, 9.0);
}

#[test]
fn events_and_checks_of_hot_shots_arrive_whole() {
    let Some(node) = tools::node() else { return };
    let agent = Agent::start();
    let sent = run_program(&agent, "js", &node, "node/hot_shots_client.js");
    let tags = json!({"env": "test", "région": "île"});
    let child = json!({"env": "test", "tier": "2", "pod": "a"});
    assert_eq!(
        listed(&agent, "js", "events"),
        json!([
            {"title": "deploy", "text": "deploy", "alert_type": "info", "priority": "normal", "tags": tags},
            {
                "title": "changed | twice", "text": "first line\nsecond line | ok",
                "timestamp": sent.before_now(100), "alert_type": "error", "priority": "low",
                "hostname": "host-1", "aggregation_key": "deploys", "source_type": "ci",
                "tags": {"env": "test", "région": "île", "route": "/pay"}
            },
            {"title": "warning", "text": "text", "alert_type": "warning", "priority": "normal", "tags": tags},
            {"title": "info", "text": "text", "alert_type": "info", "priority": "normal", "tags": tags},
            {"title": "success", "text": "text", "alert_type": "success", "priority": "normal", "tags": tags},
            {
                "title": "cart.shop.born.v2.x", "text": "small", "alert_type": "info", "priority": "normal",
                "tags": child
            },
        ])
    );
    assert_eq!(
        listed(&agent, "js", "checks"),
        json!([
            {"name": "cache", "tags": tags, "status": "unknown"},
            {"name": "cart.shop.alive.v2.x", "tags": child, "status": "ok"},
            {"name": "db", "tags": tags, "status": "ok"},
            {
                "name": "db", "tags": {"env": "test", "région": "île", "shard": "1"}, "status": "critical",
                "message": "außer Betrieb", "hostname": "host-2", "timestamp": sent.before_now(50)
            },
            {"name": "queue", "tags": tags, "status": "warning"},
        ])
    );
}

/// hot-shots 17.1 counts the characters of an event, but the protocol counts bytes. The Datadog Agent accepts such an
/// event and truncates its title and text; here it is rejected with a specific code.
#[test]
fn an_event_that_hot_shots_measured_in_characters_is_rejected_by_name() {
    let Some(node) = tools::node() else { return };
    let agent = Agent::with(&["--window", "1s", "--set", "env.presets=datadog"]);
    let program = hot_shots("client.event('Größe', 'geändert'); client.increment('hits', 3)");
    run(&agent, "js", &[node.to_str().unwrap(), "-e", &program]);
    let (_, shown) = agent.get("/v1/tasks/js");
    assert_eq!(shown["totals"]["lines"]["rejected"], json!({"event_length": 1}));
    assert_eq!(shown["recent_rejected"][0]["advice"], "count title and text in bytes, not in characters");
    Records::of(&agent, "js").only("hits").is_counter(1, 1, 3.0);
}

/// A program whose client has no configuration.
fn hot_shots(calls: &str) -> String {
    let package = tools::root().join("integration/clients/node/node_modules/hot-shots");
    format!("const client = new (require('{}'))(); {calls}; client.close()", package.display())
}

#[test]
fn what_clients_count_with_an_earlier_time_is_in_the_total_too() {
    let (python, node) = (tools::python(), tools::node());
    let agent = Agent::start();
    if let Some(python) = python {
        run_program(&agent, "dd", &python, "python/datadog_client.py");
        Records::of(&agent, "dd").only("stamped_hits").is_counter(3, 1, 7.0);
    }
    if let Some(node) = node {
        run_program(&agent, "js", &node, "node/hot_shots_client.js");
        Records::of(&agent, "js").only("stamped_hits").is_counter(2, 1, 6.0);
    }
}

#[test]
fn the_variables_of_a_preset_are_all_that_a_client_needs() {
    let (python, node) = (tools::python(), tools::node());
    let agent = Agent::with(&["--window", "1s", "--set", "env.presets=statsd,datadog"]);
    let check = |task: &str, command: &[&str]| {
        run(&agent, task, command);
        let (_, shown) = agent.get(&format!("/v1/tasks/{task}"));
        assert_eq!(
            (&shown["totals"]["lines"]["rejected"], &shown["totals"]["balanced"]),
            (&json!({}), &json!(true))
        );
        // There may be telemetry as well.
        Records::of(&agent, task).only("hits").is_counter(1, 1, 3.0);
    };
    if let Some(python) = python {
        let python = python.to_str().unwrap();
        check("statsd", &[python, "-c", "from statsd.defaults.env import statsd; statsd.incr('hits', 3)"]);
        check("datadog", &[python, "-c", "from datadog import statsd; statsd.increment('hits', 3)"]);
    }
    if let Some(node) = node {
        let program = hot_shots("client.increment('hits', 3)");
        check("hot-shots", &[node.to_str().unwrap(), "-e", &program]);
    }
}

/// A cadence client with the given sink.
fn cadence_client<S>(prefix: &str, sink: S) -> StatsdClient
where
    S: MetricSink + Sync + Send + std::panic::RefUnwindSafe + 'static,
{
    let builder = StatsdClient::builder(prefix, sink).with_tag("env", "test").with_tag_value("live");
    builder.with_container_id("0123456789abcdef").with_error_handler(|error| panic!("{error}")).build()
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Sends one of everything; returns the number of lines and of values, excluding the meter.
fn send_by_cadence(client: &StatsdClient) -> (u64, u64) {
    let before = tallyport::net::clock::wall_time().as_secs() - 5;
    client.incr("hits").unwrap();
    client.count("hits", 5_i64).unwrap();
    client.decr("hits").unwrap();
    client.count("hits", -2_i32).unwrap();
    client.count("hits", u64::MAX >> 12).unwrap();
    client.count_with_tags("stamped_hits", 4_u32).with_timestamp(before.try_into().unwrap()).send();
    // The client does not sample; it only passes on the caller's rate.
    for _ in 0..3 {
        client.incr_with_tags("quarter").with_sampling_rate(0.25).send();
    }
    client.gauge("level", 20_u64).unwrap();
    client.gauge("level", 21.5).unwrap();
    client.gauge("changed", 3_u64).unwrap();
    client.gauge("changed", -5.0).unwrap();
    client.time("query", 320_u64).unwrap();
    client.time("query", Duration::from_millis(40)).unwrap();
    client.time("packed_query", vec![7_u64, 2, 91, 11]).unwrap();
    client.time_with_tags("sampled_query", vec![10_u64, 20, 30]).with_sampling_rate(0.5).send();
    client.histogram("sizes", 10_u64).unwrap();
    client.histogram("sizes", 0.5).unwrap();
    client.histogram("sizes", vec![-2.5, 0.125, 1e6]).unwrap();
    client.histogram("nanos", Duration::from_micros(3)).unwrap();
    client.distribution("spread", (1..=100_u64).collect::<Vec<_>>()).unwrap();
    client.distribution("spread_of_one", 0.1).unwrap();
    for member in [1, 2, -1, 1] {
        client.set("users", member).unwrap();
    }
    client.count_with_tags("größe.日本", 3).with_tag("城市", "東京").with_tag_value("groß").send();
    client.meter("meters", 1_u64).unwrap();
    client.flush().unwrap();
    (28, 28 + 3 + 2 + 2 + 99)
}

fn assert_cadence_adds_up(records: &Records, prefix: &str) {
    let only = |name: &str| records.only(&format!("{prefix}.{name}"));
    let tags = json!({"env": "test", "live": ""});
    only("hits").has_tags(&tags).is_counter(5, 1, 4_503_599_627_370_498.0);
    only("stamped_hits").has_tags(&tags).is_counter(1, 1, 4.0);
    only("quarter").is_counter(3, 4, 12.0);
    only("level").has_tags(&tags).is_gauge(2, 1, [21.5, 20.0, 21.5]);
    // 3, then -5, which is a level because its lines have tags.
    only("changed").is_gauge(2, 1, [-5.0, -5.0, 3.0]);
    only("query").has_tags(&tags).is("timer", &[320.0, 40.0], 1);
    only("packed_query").is("timer", &[7.0, 2.0, 91.0, 11.0], 1);
    only("sampled_query").is("timer", &[10.0, 20.0, 30.0], 2);
    only("sizes").has_tags(&tags).is("histogram", &[10.0, 0.5, -2.5, 0.125, 1e6], 1);
    only("nanos").is("histogram", &[3000.0], 1);
    only("spread").is("distribution", &one_to_a_hundred(), 1);
    only("spread_of_one").is("distribution", &[0.1], 1);
    only("users").has_tags(&tags).is_set(4, 1, 3);
    let unicode = json!({"env": "test", "live": "", "groß": "", "城市": "東京"});
    only("größe.日本").has_tags(&unicode).is_counter(1, 1, 3.0);
}

#[test]
fn all_that_cadence_sends_adds_up() {
    let agent = Agent::start();
    let address = agent.reserve("c1", "rs");
    let plain = cadence_client("plain", UdpMetricSink::from(address.to, socket()).unwrap());
    let (lines, values) = send_by_cadence(&plain);
    let buffered = BufferedUdpMetricSink::with_capacity(address.to, socket(), 256).unwrap();
    send_by_cadence(&cadence_client("buffered", buffered));
    let queued = QueuingMetricSink::from(BufferedUdpMetricSink::from(address.to, socket()).unwrap());
    // When it is dropped, its thread sends queued lines and ends.
    send_by_cadence(&cadence_client("queued", queued));
    let received = || agent.get("/v1/tasks/rs").1["totals"]["lines"]["received"].clone();
    agent.until("all lines are received", || received() == 3 * (lines + 1));
    agent.finish("c1");

    let (_, shown) = agent.get("/v1/tasks/rs");
    let totals = &shown["totals"];
    // Meters (`m`) are not supported: each is rejected with a code.
    let counted =
        json!({"received": 3 * (lines + 1), "accepted": 3 * lines, "rejected": {"unknown_type": 3}});
    assert_eq!(totals["lines"], counted);
    let counted =
        json!({"accepted": 3 * values, "in_records": 3 * values, "open": 0, "folded": 0, "dropped": {}});
    assert_eq!(totals["values"], counted);
    assert_eq!((&totals["balanced"], &totals["datagrams"]["kernel_drops"]), (&json!(true), &json!(0)));
    let records = Records::of(&agent, "rs");
    for prefix in ["plain", "buffered", "queued"] {
        assert_cadence_adds_up(&records, prefix);
    }
    assert_eq!(records.0.len(), 3 * 14, "and nothing else is there");
}
