//! Service checks, as the check route has them.

use serde::Serialize;
use tallyport_core::aggregate::View;

use crate::publish::text::push_json;
use crate::publish::{LeftOutReason, Round, RoundRecord};

/// The most characters of a message that Datadog keeps.
const MESSAGE: usize = 500;

#[derive(Serialize)]
struct DatadogCheck<'a> {
    check: &'a str,
    /// The node, which the client cannot forge.
    host_name: &'a str,
    timestamp: i64,
    /// DogStatsD's number of the status, which is Datadog's as well.
    status: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    tags: Vec<String>,
}

/// Writes a record as an element of the list of checks.
pub(super) fn push_check(
    out: &mut Vec<u8>,
    round: &Round<'_>,
    record: &RoundRecord<'_>,
    tags: Vec<String>,
) -> Result<(), LeftOutReason> {
    let View::Check { outcome, .. } = record.view else { return Err(LeftOutReason::Unsupported) };
    let document = DatadogCheck {
        check: &record.series.name,
        host_name: round.node,
        timestamp: round.end.as_secs(),
        status: outcome.status as u8,
        message: outcome.message.as_ref().map(|message| message.chars().take(MESSAGE).collect()),
        tags,
    };
    push_json(out, &document);
    Ok(())
}
