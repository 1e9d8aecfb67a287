//! Every table on terminals of several widths and in a pipe, compared with files in `testdata/tables`.
//!
//! `INSTA_UPDATE=always cargo test --lib cli::snapshots` writes them anew. Look at the difference before it is committed.

use serde_json::{Value, json};

use super::containers::{build_container_table, print_properties};
use super::doctor::finding::{Finding, FindingStatus, print_findings};
use super::output::Console;
use super::publish::build_publisher_table;
use super::records::build_record_table;
use super::summary::{build_summary, print_summary};
use super::tasks::build_task_table;
use super::units::Precision;
use crate::model::Timestamp;
use crate::wire::{ContainerDocument, PublisherDocument, RecordDocument, Task};

const CJK: &str = "応答時間.決済サービス";
const RIGHT_TO_LEFT: &str = "זמן.תגובה";
const EMOJI: &str = "cafe\u{301}.👩\u{200d}🚒.🇨🇭";
/// Clears the screen, rings the bell, breaks the line and reverses it.
pub(super) const HOSTILE: &str = "a\u{1b}[2J\u{7}\n\tb\u{202e}c";
const LONG: &str = "checkout.payment.authorization.provider.response.latency";

fn now() -> Timestamp {
    "2026-01-01T00:01:00Z".parse().unwrap()
}

/// Compares what is printed at each width with the file of that name.
pub(super) fn compare_with_files(name: &str, print: impl Fn(Precision, &mut Console) -> std::io::Result<()>) {
    for terminal in [Some(20), Some(40), Some(80), Some(120), Some(200), None] {
        let (mut out, captured) = Console::with_capture(terminal);
        print(out.choose_precision(false), &mut out).unwrap();
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../testdata/tables");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_snapshot_suffix(terminal.map_or("pipe".to_owned(), |width| width.to_string()));
        settings.bind(|| insta::assert_snapshot!(name, captured.take_text()));
    }
}

fn generated_id(digit: char) -> String {
    format!("{digit}0123456789abcdef{}", digit.to_string().repeat(47))
}

fn container(id: &str, task: &str, state: &str) -> Value {
    json!({
        "container_id": id, "task_id": task, "generation": 1, "statsd_host": "127.0.5.17", "statsd_port": 18125,
        "state": state, "attached": true, "env": {"STATSD_UDP_HOST": "127.0.5.17", "STATSD_UDP_PORT": "18125"},
        "warnings": [], "labels": {"team": "shop", "note": HOSTILE, "会社": CJK}, "pid": 4_194_301,
        "last_datagram": "2026-01-01T00:00:57Z", "received": 1_234_567, "kernel_drops": 12_000, "dropped": 345,
        "rejected": 7, "series": 4321, "memory": 2_362_232, "origin_guard": "cgroup", "origin_guard_missing": null,
        "gauge_sign": "auto", "timer_unit": "ms", "client": null, "receive_buffer": 262_144,
        "reserved_at": "2026-01-01T00:00:00Z", "image": "registry.example.org/shop/checkout@sha256:0123456789abcdef0123456789abcdef",
    })
}

pub(super) fn sample_task(id: &str, state: &str, values: u64) -> Task {
    let totals = json!({
        "datagrams": {"received": values / 8, "kernel_drops": 12_000, "dropped": {"rate_limit": 345}},
        "lines": {"received": values + 7, "accepted": values, "rejected": {"missing_type": 7}},
        "values": {"accepted": values, "in_records": values, "open": 0, "folded": 0, "dropped": {}},
        "events": 3, "over_limit": {}, "balanced": true,
    });
    let document = json!({
        "task_id": id, "state": state, "finished": state == "gone", "totals": totals, "series": values / 1000,
        "containers": [container(&generated_id('a'), id, state)], "labels": {"team": "shop", "note": HOSTILE},
        "last_datagram": "2026-01-01T00:00:57Z", "recent_rejected": [], "last_scrape": null,
    });
    serde_json::from_value(document).unwrap()
}

fn record(name: &str, metric_type: &str, tags: &Value, agg: &Value, value: Option<f64>) -> RecordDocument {
    let unit = if metric_type == "timer" { "ms" } else { "" };
    let document = json!({
        "start": "2026-01-01T00:00:40Z", "end": "2026-01-01T00:00:50Z", "covered": 10.0, "name": name,
        "type": metric_type, "unit": unit, "tags": tags, "agg": agg, "value": value,
        "origin": {"container_id": generated_id('a'), "task_id": "web.1"},
    });
    serde_json::from_value(document).unwrap()
}

fn quantiles(scale: f64) -> Value {
    json!({
        "samples": 1280, "count": 12_800.0, "sum": 14_100.5 * scale, "min": 0.25 * scale, "max": 91.75 * scale,
        "mean": 14.41 * scale, "p50": 11.0 * scale, "p95": 40.125 * scale, "p99": 77.333_333 * scale,
    })
}

fn records() -> Vec<RecordDocument> {
    let counter = json!({"samples": 3, "count": 3, "total": 3.0});
    vec![
        record("hits", "counter", &json!({"route": "/pay"}), &counter, Some(1_234_567.0)),
        record("queue.length", "gauge", &json!({}), &json!({"samples": 1}), Some(-0.0)),
        record(
            "request.latency",
            "timer",
            &json!({"route": "/pay", "method": "GET"}),
            &quantiles(1.0),
            Some(14.4),
        ),
        record("db", "service_check", &json!({}), &json!({"status": "critical", "samples": 1}), Some(2.0)),
        record("users", "set", &json!({"cdn": ""}), &json!({"samples": 9}), Some(42.0)),
    ]
}

/// Names and tags that break a table that counts characters, or prints them as they are.
fn odd_records() -> Vec<RecordDocument> {
    let tags =
        json!({"route": "/checkout/payment/authorization", "region": "eu-central-1", "version": "2026.01.1"});
    let mut records = vec![
        record(LONG, "timer", &tags, &quantiles(100.0), Some(1441.0)),
        record(CJK, "timer", &json!({"都市": "東京"}), &quantiles(0.01), Some(0.14)),
        record(RIGHT_TO_LEFT, "gauge", &json!({"עיר": "חיפה"}), &json!({"samples": 1}), Some(12.5)),
        record(EMOJI, "gauge", &json!({"mood": "🙂"}), &json!({"samples": 1}), Some(1e-9)),
        record(HOSTILE, "counter", &json!({"tag": HOSTILE}), &json!({"samples": 1}), Some(7.0)),
        record(
            &"long.".repeat(820),
            "counter",
            &json!({"k": "v".repeat(500)}),
            &json!({"samples": 1}),
            Some(1e20),
        ),
    ];
    records[1].origin.container_id = Some(generated_id('b'));
    records
}

#[test]
fn details_fit_every_width() {
    compare_with_files("details", |precision, out| {
        build_record_table(&records(), precision, now()).print_to(out)
    });
}

#[test]
fn details_with_odd_names_fit_every_width() {
    compare_with_files("details-odd", |precision, out| {
        build_record_table(&odd_records(), precision, now()).print_to(out)
    });
}

#[test]
fn details_of_counters_alone_have_no_columns_of_timers() {
    compare_with_files("details-counters", |precision, out| {
        build_record_table(&records()[..2], precision, now()).print_to(out)
    });
}

#[test]
fn tasks_fit_every_width() {
    let tasks = [
        sample_task("web.1", "listening", 1_234_567),
        sample_task(CJK, "draining", 42),
        sample_task(RIGHT_TO_LEFT, "listening", 9_999),
        sample_task(HOSTILE, "mute", 0),
        sample_task(
            "prod_checkout-payment-authorization-7d9f8b6c5d-x2x4z_0b9bb04e-6a35-4b2f",
            "gone",
            987_654_321,
        ),
        sample_task(&"long.".repeat(820), "reserved", 1),
    ];
    compare_with_files("tasks", |precision, out| {
        build_task_table(tasks.iter(), precision, now()).print_to(out)
    });
}

#[test]
fn folded_values_are_shown_where_there_are_some() {
    let mut folding = sample_task("billing.worker", "listening", 2_000);
    folding.totals.values.folded = 996;
    let tasks = [folding, sample_task("web.1", "listening", 42)];
    compare_with_files("tasks_folded", |precision, out| {
        build_task_table(tasks.iter(), precision, now()).print_to(out)
    });
    let mut containers = tasks.iter().flat_map(|task| task.containers.clone()).collect::<Vec<_>>();
    let print = |containers: &[ContainerDocument]| {
        let (mut out, captured) = Console::with_capture(Some(200));
        build_container_table(containers.iter(), Precision::Rounded, now()).print_to(&mut out).unwrap();
        captured.take_text()
    };
    assert!(!print(&containers).contains("FOLDED"), "{}", print(&containers));
    containers[0].folded = 996;
    let text = print(&containers);
    assert!(text.contains("DROPPED  FOLDED  LAST") && text.contains("  996    3s\n"), "{text}");
    let summary = build_summary(&tasks[0], &records());
    compare_with_files("summary_folded", |precision, out| {
        print_summary(&tasks[0], &summary, precision, now(), out)
    });
}

#[test]
fn columns_of_zeros_are_left_out_before_others_on_40_columns() {
    let mut task = sample_task("web.1", "listening", 42);
    task.series = 3;
    task.totals.lines.received = task.totals.lines.accepted;
    let container = &mut task.containers[0];
    (container.dropped, container.kernel_drops) = (0, 0);
    let (mut out, captured) = Console::with_capture(Some(40));
    build_task_table(std::iter::once(&task), Precision::Rounded, now()).print_to(&mut out).unwrap();
    let text = captured.take_text();
    let headings: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(headings, ["TASK", "STATE", "SERIES", "VALUES", "LAST"]);
}

#[test]
fn losses_are_shown_before_sizes_on_every_width() {
    let mut losing = sample_task("billing", "listening", 2_000);
    losing.totals.values.folded = 996;
    let headings = |width| {
        let (mut out, captured) = Console::with_capture(Some(width));
        build_task_table(std::iter::once(&losing), Precision::Rounded, now())
            .print_rows_to(&mut out)
            .unwrap();
        let text = captured.take_text();
        text.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (width, expected) in [
        (40, "TASK VALUES REJECTED DROPPED"),
        (50, "TASK STATE VALUES REJECTED DROPPED"),
        (60, "TASK STATE SERIES VALUES REJECTED DROPPED"),
        (66, "TASK STATE SERIES VALUES REJECTED DROPPED FOLDED"),
        (77, "TASK STATE SERIES VALUES REJECTED DROPPED FOLDED LAST"),
    ] {
        assert_eq!(headings(width), expected, "{width} columns");
    }
}

#[test]
fn publishers_fit_every_width() {
    let publisher = |name: &str, state: &str, losses: u64| -> PublisherDocument {
        let records = json!({
            "closed": 1_234_567 + losses * 5, "delivered": 1_234_567, "excluded": 0, "dropped": {"limit": losses},
            "dead": losses, "pending": losses * 3,
        });
        let document = json!({
            "name": name, "type": "influxdb", "destination": "http://127.0.0.1:8086", "state": state,
            "cursor": "1:2", "records": records, "behind_seconds": 75.0, "requests": {}, "dead_letters": losses,
            "last_delivery": "2026-01-01T00:00:57Z",
        });
        serde_json::from_value(document).unwrap()
    };
    let publishers =
        [publisher("influx", "idle", 0), publisher("a-name-of-thirty-one-characters", "retrying", 9)];
    compare_with_files("publishers", |precision, out| {
        build_publisher_table(publishers.iter(), precision, now()).print_to(out)
    });
}

#[test]
fn containers_fit_every_width() {
    let containers: Vec<ContainerDocument> = [
        (&*generated_id('a'), "web.1", "listening"),
        (&*generated_id('b'), "prod_checkout-payment-authorization-7d9f8b6c5d-x2x4z_0b9bb04e", "gone"),
        ("run-4711", CJK, "lost"),
        (HOSTILE, RIGHT_TO_LEFT, "mute"),
    ]
    .map(|(id, task, state)| serde_json::from_value(container(id, task, state)).unwrap())
    .into();
    compare_with_files("containers", |precision, out| {
        build_container_table(containers.iter(), precision, now()).print_to(out)
    });
}

#[test]
fn one_container_is_shown_whole_at_every_width() {
    let container = container(&generated_id('a'), CJK, "listening");
    compare_with_files("container", |precision, out| print_properties(&container, precision, out));
}

#[test]
fn a_summary_fits_every_width() {
    let task = sample_task(LONG, "listening", 1_234_567);
    let records = [records(), odd_records()].concat();
    let summary = build_summary(&task, &records);
    compare_with_files("summary", |precision, out| print_summary(&task, &summary, precision, now(), out));
}

#[test]
fn findings_are_readable_at_every_width() {
    let findings = [
        Finding::new("memory", FindingStatus::Ok, "3 MiB of 2048 MiB (0 %), 4 containers"),
        Finding::new("receive buffers", FindingStatus::Warning, "208 KiB a socket; 4096 KiB were asked for")
            .with_advice("sysctl -w net.core.rmem_max=4194304, or run with CAP_NET_ADMIN"),
        Finding::new("container", FindingStatus::Failed, format!("{CJK} of task {HOSTILE} is lost"))
            .with_advice("its metrics are lost until its address can be opened"),
    ];
    compare_with_files("doctor", |_, out| print_findings(&findings, out));
}

#[test]
fn no_line_of_a_table_is_wider_than_the_terminal() {
    let tables: [&dyn Fn(Precision) -> super::table::TextTable; 2] =
        [&|precision| build_record_table(&records(), precision, now()), &|precision| {
            build_record_table(&odd_records(), precision, now())
        }];
    for table in tables {
        for width in 20..=200 {
            let (mut out, captured) = Console::with_capture(Some(width));
            table(Precision::Rounded).print_to(&mut out).unwrap();
            for line in captured.take_text().lines() {
                assert!(super::cells::count_cells(line) <= width, "{width}: {line}");
                assert!(!line.contains(char::is_control), "{width}: {line:?}");
            }
        }
    }
}
