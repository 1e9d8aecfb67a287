//! Reserves sockets before sending, and compares totals afterwards.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tallyport_client::{Client, Response};
use tallyport_wire::{
    AccountingDocument, ContainerDocument, CountsDocument, OptionsDocument, RecordDocument,
    ReservationDocument, ReservedDocument, TallyMap, TaskMetrics, TtlDocument,
};

use super::LoadError;
use super::cycle::{Expected, ExpectedTotal};

/// A total that differs from the expected value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mismatch {
    /// Id of the container.
    pub container: String,
    /// Name of the total.
    pub what: String,
    /// The value expected from the sent traffic.
    pub expected: f64,
    /// The value that the agent reports.
    pub found: f64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} expected, {} found", self.container, self.what, self.expected, self.found)
    }
}

/// The agent's counts for one container.
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

/// Reserves a socket for each container, with `pid` as its process if given.
pub(super) async fn reserve_sockets(
    admin: &Client,
    names: &[String],
    pid: Option<u32>,
) -> Result<Vec<SocketAddr>, LoadError> {
    let mut addresses = Vec::with_capacity(names.len());
    for name in names {
        // The traffic has gauge deltas together with tags and timestamps.
        let options = OptionsDocument { gauge_sign: Some("delta".into()), ..OptionsDocument::default() };
        let pid = pid.and_then(|pid| pid.try_into().ok());
        let reservation: ReservationDocument<'_> = ReservationDocument {
            pid,
            ttl: TtlDocument::Never,
            options: Some(options),
            ..ReservationDocument::new(name)
        };
        let response =
            admin.send_request("POST", "/v1/containers", serde_json::to_vec(&reservation)?).await?;
        let reserved: ReservedDocument = read(&format!("reserving {name}"), &response)?;
        let address = reserved.statsd_address().parse();
        addresses.push(address.map_err(|_| refused(&format!("reserving {name}"), &response))?);
    }
    Ok(addresses)
}

/// Releases each container, and waits until everything they sent is in records.
pub(super) async fn release_containers(admin: &Client, names: &[String]) -> Result<(), LoadError> {
    for name in names {
        let response = admin.send_request("DELETE", &format!("/v1/containers/{name}"), Vec::new()).await?;
        read::<Value>(&format!("releasing {name}"), &response)?;
    }
    for name in names {
        let path = format!("/v1/containers/{name}");
        while read::<ContainerDocument>(name, &admin.get(&path).await?)?.reserved.state != "gone" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// Compares one container's totals with the expected ones.
pub(super) async fn compare_container(
    http: &Client,
    name: &str,
    expected: &Expected,
) -> Result<Checked, LoadError> {
    let accounting: AccountingDocument =
        read(name, &http.get(&format!("/v1/accounting?container={name}")).await?)?;
    let metrics: TaskMetrics =
        read(name, &http.get(&format!("/v1/tasks/{name}/metrics?window=all&merge")).await?)?;
    let Some(counts) = accounting.containers.first().map(|container| &container.counts) else {
        return Ok(Checked::default());
    };
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
    // What the kernel dropped is unknown; then only the identities can be checked.
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

fn sum(counts: &TallyMap) -> u64 {
    counts.values().sum()
}

fn read<T: for<'de> Deserialize<'de>>(what: &str, response: &Response) -> Result<T, LoadError> {
    if !(200..300).contains(&response.status) {
        return Err(refused(what, response));
    }
    Ok(serde_json::from_slice(&response.body)?)
}

fn refused(what: &str, response: &Response) -> LoadError {
    let body = String::from_utf8_lossy(&response.body).into_owned();
    LoadError::Refused { what: what.to_owned(), status: response.status, body }
}

struct Comparison<'a> {
    container: &'a str,
    mismatches: Vec<Mismatch>,
}

impl Comparison<'_> {
    /// Requires equality to the last bit: totals are multiples of one half far below 2^53, so sums are exact.
    fn expect_equal(&mut self, what: &str, expected: f64, found: f64) {
        if expected.to_bits() != found.to_bits() {
            let (container, what) = (self.container.to_owned(), what.to_owned());
            self.mismatches.push(Mismatch { container, what, expected, found });
        }
    }

    fn compare_counts(&mut self, expected: &Expected, counts: &CountsDocument) {
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

    fn compare_series(&mut self, expected: &Expected, records: &[RecordDocument]) {
        self.expect_equal("series", expected.series.len() as f64, records.len() as f64);
        for record in records {
            let name = &record.name;
            match expected.series.get(name) {
                Some(ExpectedTotal::Counter(sum)) => {
                    self.expect_equal(
                        &format!("{name} sum"),
                        *sum,
                        record.agg_value("sum").unwrap_or_default(),
                    );
                    self.expect_equal(
                        &format!("{name} total"),
                        *sum,
                        record.agg_value("total").unwrap_or_default(),
                    );
                }
                Some(ExpectedTotal::Level(level) | ExpectedTotal::Change(level)) => {
                    self.expect_equal(&format!("{name} level"), *level, record.value.unwrap_or_default());
                }
                Some(ExpectedTotal::Values { count, sum }) => {
                    self.expect_equal(
                        &format!("{name} count"),
                        *count,
                        record.agg_value("count").unwrap_or_default(),
                    );
                    self.expect_equal(
                        &format!("{name} sum"),
                        *sum,
                        record.agg_value("sum").unwrap_or_default(),
                    );
                }
                Some(ExpectedTotal::Members(members)) => {
                    self.expect_equal(
                        &format!("{name} members"),
                        *members as f64,
                        record.value.unwrap_or_default(),
                    );
                }
                None => self.expect_equal(&format!("{name} was not sent"), 0.0, 1.0),
            }
        }
    }
}
