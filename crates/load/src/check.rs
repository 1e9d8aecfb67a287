//! Reserving sockets before, and comparing totals after.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tallyport_client::{Client, Response};

use super::LoadError;
use super::cycle::{Expected, ExpectedTotal};

/// A total that is not what it must be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mismatch {
    /// Id of the container.
    pub container: String,
    /// Name of the total.
    pub what: String,
    /// The value that follows from what was sent.
    pub expected: f64,
    /// The value that the agent reports.
    pub found: f64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} expected, {} found", self.container, self.what, self.expected, self.found)
    }
}

/// What the agent says of one container.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Datagrams read.
    pub received: u64,
    /// Datagrams the kernel dropped.
    pub kernel_drops: u64,
    /// Values in records.
    pub in_records: u64,
    /// Values dropped.
    pub dropped: u64,
    /// What differs.
    pub mismatches: Vec<Mismatch>,
}

#[derive(Deserialize)]
struct ReservationReply {
    statsd_host: std::net::IpAddr,
    statsd_port: u16,
}

#[derive(Deserialize)]
struct StateReply {
    state: String,
}

#[derive(Deserialize)]
struct AccountingReply {
    containers: Vec<ContainerReply>,
}

#[derive(Deserialize)]
struct ContainerReply {
    datagrams: DatagramsReply,
    lines: LinesReply,
    values: ValuesReply,
    balanced: bool,
}

#[derive(Deserialize)]
struct DatagramsReply {
    arrived: u64,
    received: u64,
    kernel_drops: u64,
}

#[derive(Deserialize)]
struct LinesReply {
    received: u64,
    accepted: u64,
}

#[derive(Deserialize)]
struct ValuesReply {
    accepted: u64,
    in_records: u64,
    open: u64,
    dropped: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct MetricsReply {
    metrics: Vec<RecordReply>,
}

#[derive(Deserialize)]
struct RecordReply {
    name: String,
    #[serde(default)]
    value: f64,
    agg: Agg,
}

#[derive(Deserialize)]
struct Agg {
    #[serde(default)]
    count: f64,
    #[serde(default)]
    sum: f64,
    #[serde(default)]
    total: f64,
}

/// Reserves a socket for each container, whose process is `pid` where there is one.
pub(super) async fn reserve_sockets(
    admin: &Client,
    names: &[String],
    pid: Option<u32>,
) -> Result<Vec<SocketAddr>, LoadError> {
    let mut addresses = Vec::with_capacity(names.len());
    for name in names {
        // Its gauges are changed beside tags and timestamps.
        let options = serde_json::json!({"gauge_sign": "delta"});
        let body = serde_json::json!({"container_id": name, "ttl": null, "pid": pid, "options": options})
            .to_string();
        let response = admin.send_request("POST", "/v1/containers", body.into_bytes()).await?;
        let reserved: ReservationReply = read(&format!("reserving {name}"), &response)?;
        addresses.push(SocketAddr::new(reserved.statsd_host, reserved.statsd_port));
    }
    Ok(addresses)
}

/// Releases each container, and waits until all that they sent is in records.
pub(super) async fn release_containers(admin: &Client, names: &[String]) -> Result<(), LoadError> {
    for name in names {
        let response = admin.send_request("DELETE", &format!("/v1/containers/{name}"), Vec::new()).await?;
        read::<Value>(&format!("releasing {name}"), &response)?;
    }
    for name in names {
        while read::<StateReply>(name, &admin.get(&format!("/v1/containers/{name}")).await?)?.state != "gone"
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// Compares one container's totals with what they must be.
pub(super) async fn compare_container(
    http: &Client,
    name: &str,
    expected: &Expected,
) -> Result<Checked, LoadError> {
    let accounting: AccountingReply =
        read(name, &http.get(&format!("/v1/accounting?container={name}")).await?)?;
    let metrics: MetricsReply =
        read(name, &http.get(&format!("/v1/tasks/{name}/metrics?window=all&merge")).await?)?;
    let Some(counts) = accounting.containers.first() else { return Ok(Checked::default()) };
    let mut found = Comparison { container: name, mismatches: Vec::new() };
    found.expect_equal(
        "datagrams: sent = received + kernel drops",
        expected.datagrams as f64,
        counts.datagrams.arrived as f64,
    );
    found.expect_equal(
        "identities hold",
        1.0,
        f64::from(u8::from(counts.balanced && counts.values.open == 0)),
    );
    // What the kernel dropped nobody has seen; then only the identities can be checked.
    if counts.datagrams.kernel_drops == 0 {
        found.compare_counts(expected, counts);
        found.compare_series(expected, &metrics.metrics);
    }
    Ok(Checked {
        received: counts.datagrams.received,
        kernel_drops: counts.datagrams.kernel_drops,
        in_records: counts.values.in_records,
        dropped: sum(&counts.values.dropped),
        mismatches: found.mismatches,
    })
}

fn sum(counts: &serde_json::Map<String, Value>) -> u64 {
    counts.values().filter_map(Value::as_u64).sum()
}

fn read<T: for<'de> Deserialize<'de>>(what: &str, response: &Response) -> Result<T, LoadError> {
    if !(200..300).contains(&response.status) {
        let body = String::from_utf8_lossy(&response.body).into_owned();
        return Err(LoadError::Refused { what: what.to_owned(), status: response.status, body });
    }
    Ok(serde_json::from_slice(&response.body)?)
}

struct Comparison<'a> {
    container: &'a str,
    mismatches: Vec<Mismatch>,
}

impl Comparison<'_> {
    /// Totals are whole numbers or halves far below 2^53: equal to the last bit, or wrong.
    fn expect_equal(&mut self, what: &str, expected: f64, found: f64) {
        if expected.to_bits() != found.to_bits() {
            let (container, what) = (self.container.to_owned(), what.to_owned());
            self.mismatches.push(Mismatch { container, what, expected, found });
        }
    }

    fn compare_counts(&mut self, expected: &Expected, counts: &ContainerReply) {
        self.expect_equal(
            "lines rejected",
            expected.bad_lines as f64,
            (counts.lines.received - counts.lines.accepted) as f64,
        );
        self.expect_equal("values accepted", expected.values as f64, counts.values.accepted as f64);
        self.expect_equal("values dropped", expected.dropped as f64, sum(&counts.values.dropped) as f64);
        self.expect_equal(
            "values in records",
            (expected.values - expected.dropped) as f64,
            counts.values.in_records as f64,
        );
    }

    fn compare_series(&mut self, expected: &Expected, records: &[RecordReply]) {
        self.expect_equal("series", expected.series.len() as f64, records.len() as f64);
        for record in records {
            let name = &record.name;
            match expected.series.get(name) {
                Some(ExpectedTotal::Counter(sum)) => {
                    self.expect_equal(&format!("{name} sum"), *sum, record.agg.sum);
                    self.expect_equal(&format!("{name} total"), *sum, record.agg.total);
                }
                Some(ExpectedTotal::Level(level) | ExpectedTotal::Change(level)) => {
                    self.expect_equal(&format!("{name} level"), *level, record.value);
                }
                Some(ExpectedTotal::Values { count, sum }) => {
                    self.expect_equal(&format!("{name} count"), *count, record.agg.count);
                    self.expect_equal(&format!("{name} sum"), *sum, record.agg.sum);
                }
                Some(ExpectedTotal::Members(members)) => {
                    self.expect_equal(&format!("{name} members"), *members as f64, record.value);
                }
                None => self.expect_equal(&format!("{name} was not sent"), 0.0, 1.0),
            }
        }
    }
}
