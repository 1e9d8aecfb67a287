//! Counters, gauges and sets, as version 2 of the series route has them.

use serde::Serialize;
use tallyport_core::aggregate::View;

use super::sanitize_name;
use crate::number::Whole;
use crate::publish::text::push_json;
use crate::publish::{LeftOutReason, Round, RoundRecord};
use crate::record::value;

/// The increase within an interval.
const COUNT: u8 = 1;
/// A level.
const GAUGE: u8 = 3;

#[derive(Serialize)]
struct DatadogSeries<'a> {
    metric: &'a str,
    #[serde(rename = "type")]
    kind: u8,
    /// In seconds. Datadog divides counts by it where a rate is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<u64>,
    points: [DatadogPoint; 1],
    resources: [DatadogResource<'a>; 1],
    tags: Vec<String>,
}

#[derive(Serialize)]
struct DatadogPoint {
    timestamp: i64,
    value: Whole,
}

#[derive(Serialize)]
struct DatadogResource<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
}

/// Writes a record as an element of the list of series.
pub(super) fn push_series(
    out: &mut Vec<u8>,
    round: &Round<'_>,
    record: &RoundRecord<'_>,
    tags: Vec<String>,
) -> Result<(), LeftOutReason> {
    let value = value(&record.view).ok_or(LeftOutReason::NoValue)?;
    let name = sanitize_name(&record.series.name);
    let counts = matches!(record.view, View::Counter { .. });
    let interval = round.end.duration_since(round.start).as_secs().max(1);
    let document = DatadogSeries {
        metric: &name,
        kind: if counts { COUNT } else { GAUGE },
        interval: counts.then_some(interval),
        points: [DatadogPoint { timestamp: round.end.as_secs(), value: Whole(value) }],
        resources: [DatadogResource { kind: "host", name: round.node }],
        tags,
    };
    push_json(out, &document);
    Ok(())
}
