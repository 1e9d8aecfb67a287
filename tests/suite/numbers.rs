//! Levels, totals and units as clients mean them, which servers often misread.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::fd_store::Manager;
use crate::keeping::Keeper;
use crate::prometheus::text;
use crate::tools;

const OPENMETRICS: &str = "accept: application/openmetrics-text; version=1.0.0";
const CLASSIC: &str = "accept: text/plain; version=0.0.4";

/// A way from one agent to the next.
#[derive(Copy, Clone, PartialEq, Debug)]
enum Way {
    Stopped,
    Killed,
    HandedOver,
    KeptByAKeeper,
    KeptByTheServiceManager,
}

impl Way {
    const ALL: [Self; 5] =
        [Self::Stopped, Self::Killed, Self::HandedOver, Self::KeptByAKeeper, Self::KeptByTheServiceManager];

    /// Starts an agent, lets `before` use it, and gives the next one to `after`.
    fn leads_on<T>(self, flags: &[&str], before: impl FnOnce(&Agent) -> T, after: impl FnOnce(&Agent, T)) {
        let directory = tempfile::tempdir().unwrap();
        let keeper = (self == Self::KeptByAKeeper).then(|| Keeper::start(directory.path(), &[]));
        let manager = (self == Self::KeptByTheServiceManager).then(Manager::start);
        let start = |directory| match &manager {
            Some(manager) => manager.service_with(directory, 4096, flags),
            None => Agent::in_directory(directory, flags),
        };
        let agent = start(directory);
        let known = before(&agent);
        let agent = match self {
            Self::HandedOver => agent.handed_over(flags),
            Self::Killed => {
                let checkpoints = || agent.own_metric("tallyport_checkpoints_total");
                let now = checkpoints();
                agent.until("everything is written", || checkpoints() >= now + 2.0);
                let mut agent = agent;
                agent.signal(Signal::SIGKILL);
                assert!(!agent.wait().success());
                start(agent.into_dead_directory())
            }
            Self::Stopped | Self::KeptByAKeeper | Self::KeptByTheServiceManager => {
                start(agent.into_directory())
            }
        };
        after(&agent, known);
        drop(agent);
        drop(keeper);
    }

    /// The ways that are possible on this machine.
    fn possible() -> impl Iterator<Item = Self> {
        let guard = tools::guard().is_some();
        Self::ALL.into_iter().filter(move |way| guard || *way != Self::KeptByTheServiceManager)
    }
}

/// The newest level of a gauge, the time when it was set, and whether it is carried.
fn level(agent: &Agent, name: &str) -> Option<(Value, Value, bool)> {
    let records = agent.metrics("web", "?window=last");
    let record = records.iter().find(|record| record["name"] == name)?;
    let agg = &record["agg"];
    Some((agg["last"].clone(), agg["last_at"].clone(), agg["carried"] == true))
}

fn closed(agent: &Agent, name: &str) {
    agent.until("a window is closed", || level(agent, name).is_some());
}

/// The value of a line of a page.
fn value(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(&format!("{name}{{")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn levels_carried_gauges_their_ages_checks_and_events_are_as_before_by_every_way() {
    let flags = ["--window", "1s", "--set", "windows.checkpoint=200ms"];
    for way in Way::possible() {
        way.leads_on(
            &flags,
            |agent| {
                let sent = agent.reserve("level-1", "web");
                sent.send("conns:+5|g\nplain:7|g\n_sc|backup|1|m:late");
                sent.send("_e{5,4}:title|text");
                closed(agent, "plain");
                (sent, level(agent, "plain").unwrap())
            },
            |agent, (address, (last, last_at, _))| {
                let page = text(agent, "/metrics/tasks", CLASSIC);
                assert_eq!(
                    (value(&page, "conns"), value(&page, "plain")),
                    (Some(5.0), Some(7.0)),
                    "{way:?} {page}"
                );
                agent.until("the gauge is carried on", || {
                    level(agent, "plain") == Some((last.clone(), last_at.clone(), true))
                });
                let page = text(agent, "/metrics/tasks", CLASSIC);
                assert_eq!(
                    (value(&page, "conns"), value(&page, "plain")),
                    (Some(5.0), Some(7.0)),
                    "{way:?} {page}"
                );
                let (_, checks) = agent.get("/v1/tasks/web/checks");
                assert_eq!(checks["checks"][0]["status"], "warning", "{way:?}: {checks}");
                let (_, events) = agent.get("/v1/tasks/web/events");
                assert_eq!(events["events"].as_array().map(Vec::len), Some(1), "{way:?}: {events}");
                address.send("conns:-1|g");
                agent.until("the change is added", || {
                    level(agent, "conns").is_some_and(|(last, _, carried)| last == json!(4.0) && !carried)
                });
            },
        );
    }
}

#[test]
fn a_level_and_a_check_that_no_window_shows_any_more_are_as_before_by_every_way() {
    let flags = [
        "--window",
        "1s",
        "--keep",
        "1",
        "--set",
        "windows.gauge_carry=0s",
        "--set",
        "windows.checkpoint=200ms",
    ];
    for way in Way::possible() {
        way.leads_on(
            &flags,
            |agent| {
                let sent = agent.reserve("level-2", "web");
                sent.send("conns:+5|g\n_sc|backup|2\nactive:3|c\nactive:-1|c");
                closed(agent, "conns");
                agent.until("other windows have come since", || {
                    sent.send("tick:1|c");
                    let records = agent.metrics("web", "?window=all");
                    !records.is_empty() && records.iter().all(|record| record["name"] == "tick")
                });
                sent
            },
            |agent, address| {
                let (_, checks) = agent.get("/v1/tasks/web/checks");
                assert_eq!(checks["checks"][0]["status"], "critical", "{way:?}: {checks}");
                address.send("conns:-1|g\nactive:-1|c");
                agent.until("the change is added", || {
                    level(agent, "conns").is_some_and(|(last, ..)| last == json!(4.0))
                });
                let page = text(agent, "/metrics/tasks", CLASSIC);
                assert!(page.contains("# TYPE active_total untyped"), "{way:?} {page}");
                assert_eq!(value(&page, "active_total"), Some(1.0), "{way:?} {page}");
            },
        );
    }
}

#[test]
fn a_counter_that_is_counted_down_has_no_type_in_any_format_from_then_on_and_doctor_names_it() {
    let agent = Agent::start();
    let address = agent.reserve("down-1", "web");
    address.send("active:100|c\nhits:1|c\nlatency:5|ms");
    closed_total(&agent, "active", 100.0);
    assert!(text(&agent, "/metrics/tasks", CLASSIC).contains("# TYPE active_total counter"));
    for _ in 0..5 {
        address.send("active:-1|c");
    }
    address.send("latency:-1|ms");
    closed_total(&agent, "active", 95.0);
    for round in 0..2 {
        let classic = text(&agent, "/metrics/tasks", CLASSIC);
        for line in
            ["# TYPE active_total untyped", "# TYPE latency_seconds_sum untyped", "# TYPE hits_total counter"]
        {
            assert!(classic.contains(line), "{round} {line}\n{classic}");
        }
        let open = text(&agent, "/metrics/tasks", OPENMETRICS);
        for line in
            ["# TYPE active_total unknown", "# TYPE latency_seconds_sum unknown", "# TYPE hits counter"]
        {
            assert!(open.contains(line), "{round} {line}\n{open}");
        }
        // Without further negative values, its type stays unknown.
        address.send("active:1|c\nlatency:5|ms");
        closed_total(&agent, "active", 96.0 + f64::from(round));
    }
    let records = agent.metrics("web", "?window=last");
    let of = |name: &str| {
        records.iter().find(|record| record["name"] == name).unwrap()["agg"]["monotonic"].clone()
    };
    assert_eq!((of("active"), of("hits")), (json!(false), Value::Null));
    let doctor = agent.cli(&["doctor"]).out;
    assert!(doctor.contains("negative values of active, latency"), "{doctor}");
    // The sum that remains for its workload is not a counter either.
    agent.finish("down-1");
    let low = text(&agent, "/metrics/tasks?identity=low", CLASSIC);
    assert!(low.contains("# TYPE active_total untyped"), "{low}");
}

fn closed_total(agent: &Agent, name: &str, total: f64) {
    agent.until("its total is closed", || {
        let records = agent.metrics("web", "?window=last");
        records.iter().any(|record| record["name"] == name && record["agg"]["total"] == total)
    });
}

#[test]
fn timers_in_seconds_come_out_as_seconds_by_a_setting_a_label_or_an_option_and_doctor_suspects_others() {
    let sum = |agent: &Agent, task: &str| {
        let page = text(agent, "/metrics/tasks", CLASSIC);
        let series = format!("req_time_seconds_sum{{task=\"{task}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned))
    };
    let agent = Agent::start();
    let bodies = [
        ("plain", json!({})),
        ("option", json!({"options": {"timer_unit": "s"}})),
        ("label", json!({"labels": {"tallyport.timer-unit": "s"}})),
        ("odd", json!({"labels": {"tallyport.timer-unit": "minutes"}})),
    ];
    for (task, mut body) in bodies.clone() {
        body["container_id"] = json!(format!("timed-{task}"));
        body["task_id"] = json!(task);
        body["ttl"] = Value::Null;
        let address = agent.reserve_with(&body);
        (0..3).for_each(|_| address.send("req.time:0.1|ms|#route:/pay"));
    }
    for (task, _) in &bodies {
        agent.until("a window is closed", || !agent.metrics(task, "?window=last").is_empty());
    }
    let of = |task: &str| {
        let page = text(&agent, "/metrics/tasks", CLASSIC);
        let mine = |line: &&str| {
            line.starts_with("req_time_seconds_sum{") && line.contains(&format!("task=\"{task}\""))
        };
        page.lines().find(mine).and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
    };
    let values = ["plain", "option", "label", "odd"].map(of);
    assert!(
        values
            .iter()
            .zip([0.0003, 0.3, 0.3, 0.0003])
            .all(|(is, should)| (is.unwrap() - should).abs() < 1e-12),
        "{values:?}"
    );
    let doctor = agent.cli(&["doctor"]).out;
    let suspected: Vec<_> = doctor.lines().filter(|line| line.contains("below 1 ms")).collect();
    assert!(suspected.len() == 1 && suspected[0].contains("2 containers"), "{doctor}");
    assert!(doctor.contains("timed-plain"), "{doctor}");
    let agent = Agent::with(&["--window", "1s", "--set", "statsd.timer_unit=s"]);
    let address = agent.reserve("timed", "all");
    (0..2).for_each(|_| address.send("req.time:0.5|ms"));
    agent.until("a window is closed", || sum(&agent, "all").as_deref() == Some("1"));
    let refused = agent.cli(&["config", "check", "--set", "statsd.timer_unit=min"]);
    assert!(refused.code != 0 && refused.err.contains("statsd.timer_unit"), "{refused:?}");
}

#[test]
fn a_signed_gauge_is_a_level_beside_marks_of_dogstatsd_unless_a_container_says_otherwise() {
    let agent = Agent::start();
    let marks = [
        "x:-1|g|#area:heap",
        "x:-1|g|T1",
        "x:-1|g|c:abc",
        "x:-1|g|e:cn-web",
        "x:-1|g|card:low",
        "y:1|c|#a:b\nx:-1|g",
    ];
    let last = |task: &str| {
        let records = agent.metrics(task, "?window=open");
        let record = records.iter().find(|record| record["name"] == "x").cloned();
        record.map(|record| (record["value"].as_f64(), record["agg"]["samples"].as_u64()))
    };
    let now = tallyport::net::clock::wall_time().as_secs();
    for (n, line) in marks.iter().enumerate() {
        let task = format!("marked-{n}");
        let address = agent.reserve(&task, &task);
        let line = line.replace("T1", &format!("T{now}"));
        (0..8).for_each(|_| address.send(&line));
        agent.until("all have come", || {
            let all = agent.metrics(&task, "?window=all&merge");
            all.iter().any(|record| record["name"] == "x" && record["agg"]["samples"] == 8)
        });
        let all = agent.metrics(&task, "?window=all&merge");
        let x = all.iter().find(|record| record["name"] == "x").unwrap();
        assert_eq!(x["value"], json!(-1.0), "{line}");
    }
    let address = agent.reserve("unmarked", "unmarked");
    (0..3).for_each(|_| address.send("x:-1|g"));
    agent.until("they are changes", || last("unmarked").is_some_and(|(value, _)| value == Some(-3.0)));
    let said = json!({"container_id": "said", "task_id": "said", "ttl": null,
                      "labels": {"tallyport.gauge-sign": "delta"}});
    let address = agent.reserve_with(&said);
    (0..3).for_each(|_| address.send("x:-1|g|#a:b"));
    agent.until("they are changes", || last("said").is_some_and(|(value, _)| value == Some(-3.0)));
    let doctor = agent.cli(&["doctor"]).out;
    let named: Vec<_> = doctor.lines().filter(|line| line.contains("were read as changes")).collect();
    assert!(named.len() == 1 && named[0].contains("3 signed gauge values of said"), "{doctor}");
    let (_, shown) = agent.admin("GET", "/v1/containers/said", &Value::Null);
    assert_eq!(shown["client"]["gauge_changes"], 3, "{shown}");
}

#[test]
fn two_pods_of_a_workload_are_one_series_whatever_their_clients_send_for_enrichment() {
    let agent = Agent::start();
    for pod in ["web-1", "web-2"] {
        let labels = json!({"namespace": "shop", "pod": pod, "container": "main", "workload": "web"});
        let address =
            agent.reserve_with(&json!({"container_id": pod, "task_id": pod, "ttl": null, "labels": labels}));
        address.send(format!("hits:5|c|#dd.internal.entity_id:{pod},dd.internal.card:low"));
        agent.until("a window is closed", || !agent.metrics(pod, "?window=last").is_empty());
    }
    let page = text(&agent, "/metrics/tasks?identity=low", CLASSIC);
    let series: Vec<_> = page.lines().filter(|line| line.starts_with("hits_total{")).collect();
    assert_eq!(series, ["hits_total{namespace=\"shop\",workload=\"web\",container=\"main\"} 10"]);
}

#[test]
fn the_preset_of_datadogs_host_sets_both_variables_of_the_pair() {
    let agent = Agent::with(&["--set", "env.presets=DD_AGENT_HOST"]);
    let body = json!({"container_id": "old", "task_id": "old", "ttl": null});
    let (_, reserved) = agent.admin("POST", "/v1/containers", &body);
    let env = &reserved["env"];
    assert_eq!(env["DD_AGENT_HOST"], env["STATSD_UDP_HOST"], "{env}");
    assert_eq!(env["DD_DOGSTATSD_PORT"], env["STATSD_UDP_PORT"], "{env}");
    let mut run = agent.command(&["run", "--task-id", "half", "--", "env"]);
    let printed = crate::agent::ran(run.env("DD_AGENT_HOST", "10.0.0.1").env_remove("DD_DOGSTATSD_PORT")).out;
    assert!(
        printed.contains("DD_AGENT_HOST=10.0.0.1") && !printed.contains("DD_DOGSTATSD_PORT"),
        "{printed}"
    );
}
