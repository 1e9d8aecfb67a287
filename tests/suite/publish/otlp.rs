//! Publishers of OTLP over HTTP, to a receiver that answers as a script says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::json;

use super::{Backend, Received, Reply, agent_with, publisher, until_delivered};
use crate::agent::of_this_test;

#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<Points>,
    #[prost(message, optional, tag = "7")]
    sum: Option<Points>,
    #[prost(message, optional, tag = "10")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Points {
    #[prost(message, repeated, tag = "1")]
    points: Vec<Point>,
    #[prost(int32, tag = "2")]
    temporality: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Point {
    #[prost(fixed64, tag = "2")]
    start: u64,
    #[prost(fixed64, tag = "3")]
    at: u64,
    #[prost(double, optional, tag = "4")]
    value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(message, repeated, tag = "1")]
    points: Vec<HistogramPoint>,
    #[prost(int32, tag = "2")]
    temporality: i32,
}

#[derive(Clone, PartialEq, Message)]
struct HistogramPoint {
    #[prost(fixed64, tag = "2")]
    start: u64,
    #[prost(fixed64, tag = "3")]
    at: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
}

/// One data point: temporality (0 of a gauge), start, end, and value or count.
pub(super) type DataPoint = (i32, u64, u64, f64);

/// The points of a request, by name.
pub(super) fn points(request: &Received) -> Vec<(String, DataPoint)> {
    let decoded = ExportRequest::decode(request.body.as_slice()).unwrap();
    let scopes = decoded.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
    let mut all = Vec::new();
    for Metric { name, gauge, sum, histogram } in scopes.flat_map(|scope| scope.metrics) {
        for Points { points, temporality } in gauge.into_iter().chain(sum) {
            let points = points.into_iter().map(|it| (temporality, it.start, it.at, it.value.unwrap()));
            all.extend(points.map(|point| (name.clone(), point)));
        }
        if let Some(Histogram { points, temporality }) = histogram {
            #[expect(clippy::cast_precision_loss, reason = "counts in tests are small")]
            let points = points.into_iter().map(|it| (temporality, it.start, it.at, it.count as f64));
            all.extend(points.map(|point| (name.clone(), point)));
        }
    }
    all
}

/// The points of accepted requests of this name, in order.
fn accepted(backend: &Backend, name: &str) -> Vec<DataPoint> {
    let taken = backend.requests().into_iter().filter(|(_, status)| *status == 200);
    let all = taken.flat_map(|(request, _)| points(&request));
    all.filter(|(named, _)| named == name).map(|(_, point)| point).collect()
}

fn otlp(address: SocketAddr, more: &str) -> String {
    format!(
        "[publish.o]\ntype = \"otlp\"\nurl = \"http://{address}/v1/metrics\"\ntimeout = \"1s\"\nproxy = \"\"\n{more}"
    )
}

const TAKEN: Reply = Reply::Status(200, "", "");

#[test]
fn cumulative_points_end_at_what_was_sent_and_deltas_add_up_to_it() {
    for temporality in ["cumulative", "delta"] {
        let backend = Backend::new(|_| TAKEN);
        let agent = agent_with(&otlp(backend.address, &format!("temporality = \"{temporality}\"\n")));
        let address = agent.reserve(&of_this_test("c-1"), "web.1");
        let (mut sent, deadline) = (0.0, Instant::now() + Duration::from_millis(2500));
        while Instant::now() < deadline {
            address.send("http.hits:2|c\nlatency:7:8|ms\nlevel:3|g");
            sent += 2.0;
            std::thread::sleep(Duration::from_millis(20));
        }
        let value = |name: &str| {
            let values = accepted(&backend, name).into_iter().map(|(.., value)| value);
            if temporality == "delta" { values.sum() } else { values.fold(0.0, f64::max) }
        };
        agent.until("the sums arrive", || value("http.hits_total") == sent);
        until_delivered(&agent);
        let points = accepted(&backend, "http.hits_total");
        assert_eq!(value("latency_seconds"), sent, "{:?}", accepted(&backend, "latency_seconds"));
        assert!(points.iter().all(|(of, ..)| *of == if temporality == "delta" { 1 } else { 2 }));
        let in_order = points.windows(2).all(|pair| match temporality {
            "delta" => pair[0].2 <= pair[1].1,
            _ => pair[0].1 == pair[1].1 && pair[0].2 < pair[1].2 && pair[0].3 <= pair[1].3,
        });
        assert!(in_order && points.len() > 1, "{points:?}");
        assert_eq!(accepted(&backend, "level").last().unwrap().3, 3.0);
        let (request, _) = backend.requests().remove(0);
        assert_eq!(request.target, "/v1/metrics");
        assert_eq!(request.headers["content-type"], "application/x-protobuf");
    }
}

#[test]
fn what_a_receiver_refuses_of_a_request_that_it_accepted_is_counted_and_not_sent_again() {
    let mut first = true;
    let backend = Backend::new(move |_| match std::mem::replace(&mut first, false) {
        true => Reply::Status(
            200,
            "",
            "{\"partialSuccess\":{\"rejectedDataPoints\":\"2\",\"errorMessage\":\"too old\"}}",
        ),
        false => TAKEN,
    });
    let agent = agent_with(&otlp(backend.address, ""));
    agent.reserve(&of_this_test("c-1"), "web.1").send("a:1|c\nb:1|c\nc:1|c");
    agent.until("it is counted", || publisher(&agent)["records"]["dropped"]["refused"] == 2);
    until_delivered(&agent);
    let shown = publisher(&agent);
    assert_eq!((&shown["records"]["delivered"], &shown["requests"]), (&json!(1), &json!({"partly": 1})));
    assert_eq!(backend.requests().len(), 1);
    assert!(agent.log().contains("2 data points were refused: too old"), "{}", agent.log());
}

#[test]
fn a_refused_point_is_found_and_everything_else_arrives_once() {
    let backend = Backend::new(|request| {
        match points(request).iter().any(|(name, _)| name == "poison_total") {
            // Nothing of the request is stored.
            true => Reply::Status(400, "", "out of order sample"),
            false => TAKEN,
        }
    });
    let agent = agent_with(&otlp(backend.address, ""));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    for n in 0..200 {
        address.send(format!("series.{n}:1|c"));
    }
    address.send("poison:1|c");
    agent.until("it is dead", || publisher(&agent)["records"]["dead"] == 1);
    until_delivered(&agent);
    let mut arrived = BTreeMap::new();
    for n in 0..200 {
        let name = format!("series.{n}_total");
        arrived.insert(n, accepted(&backend, &name).len());
    }
    assert!(arrived.values().all(|times| *times == 1), "{arrived:?}");
    assert!(backend.requests().len() <= 30, "{}", backend.requests().len());
}

#[test]
fn what_is_no_receiver_and_what_fails_lose_nothing() {
    for (reply, state) in [
        (Reply::Status(200, "", "<html>sign in</html>"), "held"),
        (Reply::Status(401, "", ""), "held"),
        (Reply::Status(404, "", ""), "held"),
        (Reply::Status(503, "retry-after: 1", ""), "retrying"),
        (Reply::Status(500, "", "invalid temporality"), "retrying"),
    ] {
        let backend = Backend::new({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let agent = agent_with(&otlp(backend.address, ""));
        agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c");
        agent.until("it waits", || publisher(&agent)["state"] == state);
        backend.follow(|_| TAKEN);
        let before = backend.requests().len();
        agent.until("it is sent again", || backend.requests().len() > before);
        until_delivered(&agent);
        let records = &publisher(&agent)["records"];
        assert_eq!((&records["delivered"], &records["dead"]), (&json!(1), &json!(0)), "{reply:?}");
    }
}
