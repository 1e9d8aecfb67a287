//! Distributions as HdrHistogram's readers decode them.

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

use crate::agent::Agent;

/// The scale of values.
const SCALE: f64 = 1e6;

/// Windows so long that none ends between two datagrams; a container's end closes its window.
fn start_agent() -> Agent {
    Agent::with(&["--window", "1h"])
}

fn decode(text: &str) -> Histogram<u64> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap()
}

/// Two hundred latencies, and a series of each kind that has no encoding.
fn send_some(agent: &Agent) {
    let address = agent.reserve("c1", "web.1");
    for first in (1..=200).step_by(20) {
        let values: Vec<String> = (first..first + 20).map(|n| format!("{}", f64::from(n) * 0.25)).collect();
        address.send(format!("latency:{}|ms|#route:/pay", values.join(":")));
    }
    address.send("latency:12|h\nbalance:-3:4|d\nhits:3|c\nlevel:4|g");
    agent.finish("c1");
}

/// Compares a decoded distribution with the numbers of its record.
fn assert_agrees(read: &Histogram<u64>, record: &Value) {
    let agg = |key: &str| record["agg"][key].as_f64().unwrap();
    assert_eq!(read.len() as f64, agg("count"), "{record}");
    let quantile = |percent| read.value_at_percentile(percent);
    for (found, key, share) in [
        (read.min(), "min", 0.001),
        (read.max(), "max", 0.001),
        (quantile(50.0), "p50", 0.01),
        (quantile(90.0), "p90", 0.01),
        (quantile(99.0), "p99", 0.01),
    ] {
        let (found, wanted) = (found as f64 / SCALE, agg(key));
        assert!((found - wanted).abs() <= wanted * share, "{key}: {found} is not {wanted}");
    }
}

#[test]
fn a_task_is_printed_as_a_log_that_hdrhistogram_reads() {
    let agent = start_agent();
    send_some(&agent);
    let ran = agent.cli(&["metrics", "details", "web.1", "--window", "all", "--merge", "-o", "hdr"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("below 0") && ran.err.contains(": 1;"), "{}", ran.err);
    let entries: Vec<_> = IntervalLogIterator::new(ran.out.as_bytes()).map(Result::unwrap).collect();
    let [LogEntry::StartTime(began), LogEntry::Interval(first), LogEntry::Interval(second)] =
        entries.as_slice()
    else {
        panic!("{}", ran.out)
    };
    let records = agent.metrics("web.1", "?window=all&merge&name=latency");
    for interval in [first, second] {
        let tag = interval.tag().unwrap().as_str().to_owned();
        let kind = if tag.contains("type=timer") { "timer" } else { "histogram" };
        let record = records.iter().find(|record| record["type"] == kind).unwrap();
        let tags = if kind == "timer" { ";route=/pay" } else { "" };
        assert_eq!(tag, format!("latency{tags};type={kind};container=c1"));
        assert_agrees(&decode(interval.encoded_histogram()), record);
        assert_eq!(interval.max(), record["agg"]["max"].as_f64().unwrap());
        assert!(interval.start_timestamp() >= *began && interval.duration().as_secs() >= 3600, "{}", ran.out);
    }
}

#[test]
fn a_log_without_a_line_is_reported_and_other_commands_refuse_the_format() {
    let agent = start_agent();
    send_some(&agent);
    let counters = agent.cli(&["metrics", "details", "web.1", "--name", "hits", "-o", "hdr"]);
    assert_eq!(
        (counters.code, IntervalLogIterator::new(counters.out.as_bytes()).count()),
        (4, 0),
        "{counters:?}"
    );
    assert!(counters.err.contains("no matching timer, histogram or distribution"), "{}", counters.err);
    assert_eq!(agent.cli(&["metrics", "details", "web.1", "--name", "nope", "-o", "hdr"]).code, 4);
    assert_eq!(agent.cli(&["metrics", "summary", "web.1", "-o", "hdr"]).code, 2);
}

#[test]
fn records_have_their_distribution_on_request_alone_on_both_routes() {
    let agent = start_agent();
    send_some(&agent);
    let encoded = |records: &[Value]| -> Vec<String> {
        let name = |record: &Value| format!("{}/{}", record["name"], record["type"]).replace('"', "");
        records.iter().filter(|record| !record["hdr"].is_null()).map(name).collect()
    };
    let wanted = ["latency/histogram", "latency/timer"];
    for off in ["?window=all", "?window=all&hdr=0"] {
        assert_eq!(encoded(&agent.metrics("web.1", off)), [""; 0], "{off}");
    }
    for on in ["?hdr", "?window=all&merge&hdr=true"] {
        let records = agent.metrics("web.1", on);
        let mut names = encoded(&records);
        names.sort();
        names.dedup();
        assert_eq!(names, wanted, "{on}");
        for record in records.iter().filter(|record| !record["hdr"].is_null()) {
            assert_agrees(&decode(record["hdr"].as_str().unwrap()), record);
        }
    }
    let (status, node) = agent.get("/v1/metrics?hdr=1&name=latency&tag=route");
    assert_eq!(status, 200, "{node}");
    let records = node["metrics"].as_array().unwrap();
    assert_eq!(encoded(records).first().map(String::as_str), Some("latency/timer"));
    assert_agrees(&decode(records[0]["hdr"].as_str().unwrap()), &records[0]);
    let (_, plain) = agent.get("/v1/metrics?name=latency");
    assert_eq!(encoded(plain["metrics"].as_array().unwrap()), [""; 0]);
    for target in ["/v1/metrics?hdr=v2", "/v1/tasks/web.1/metrics?hdr=v2"] {
        let (status, refusal) = agent.get(target);
        assert_eq!((status, &refusal["code"]), (400, &Value::from("bad_parameter")), "{target}");
        let message = refusal["message"].as_str().unwrap();
        assert!(message.contains("hdr") && message.contains("is not true or false"), "{message}");
    }
}
