//! Publishers: what they have sent, and what holds them up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tallyport_time::Timestamp;

use super::Word;

/// One publisher, in the answer of `GET /v1/publishers`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PublisherDocument {
    /// Its name.
    pub name: String,
    /// The type of its destination.
    #[serde(rename = "type")]
    pub sink_type: Word,
    /// Its destination: a URL, an address or a file.
    pub destination: String,
    /// `idle`, `sending`, `retrying`, `held` or `stopped`.
    pub state: Word,
    /// Why it is held or repeats a request: `failing`, `auth`, `gone` or `refusing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Word>,
    /// Everything up to this place of the node's sequence has been sent or given up.
    pub cursor: String,
    /// Its records since the agent started.
    pub records: PublishedRecordsDocument,
    /// How long ago the oldest round or batch ended that should have been sent by now, in seconds.
    pub behind_seconds: f64,
    /// Requests since the agent started, by what their answers meant.
    pub requests: BTreeMap<Word, u64>,
    /// When records were last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<Timestamp>,
    /// What the destination said last, if it did not accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_answer: Option<String>,
    /// When the next request is made, if it waits to repeat one, or for the end of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
    /// What to do, if it needs help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Dead letters that are kept.
    pub dead_letters: u64,
    /// Records that were sent again by `publish replay`.
    #[serde(default)]
    pub replayed: u64,
    /// How often it was started again because it had failed or hung.
    #[serde(default)]
    pub restarts: u64,
}

/// What became of a publisher's records: `closed = delivered + excluded + dropped + dead + pending`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct PublishedRecordsDocument {
    /// Closed since the agent started, and those that an earlier agent had left.
    pub closed: u64,
    /// Accepted by the destination.
    pub delivered: u64,
    /// Left out by `include` or `exclude`.
    pub excluded: u64,
    /// Lost, by reason.
    pub dropped: BTreeMap<Word, u64>,
    /// Refused for good, and kept as dead letters.
    pub dead: u64,
    /// Not sent yet.
    pub pending: u64,
}

impl PublishedRecordsDocument {
    /// Whether every closed record is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let dropped: u64 = self.dropped.values().sum();
        self.closed == self.delivered + self.excluded + dropped + self.dead + self.pending
    }
}

/// One line of a publisher's dead letters: a record that its destination refused.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DeadLetterDocument {
    /// When it was refused.
    pub at: Timestamp,
    /// What the destination said.
    pub answer: String,
    /// The record.
    pub record: serde_json::Value,
    /// The request that was refused, which had no other record.
    pub request: DeadRequestDocument,
}

/// A request that was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadRequestDocument {
    /// Its `Content-Type`.
    pub content_type: String,
    /// Its `Content-Encoding`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// The body, as text if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The body in base64 otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// The answer of `POST /v1/publishers/{name}/check`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PublisherCheckDocument {
    /// What the answer meant: `ok`, `partly`, `retry`, `reject`, `auth`, `gone` or `too_large`.
    pub outcome: Word,
    /// What the destination said, or why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// How many series it would send of what the node keeps now.
    pub series: u64,
}

/// The answer of `POST /v1/publishers/{name}/replay`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplayedDocument {
    /// Records that were accepted now.
    pub delivered: u64,
    /// Records that were not.
    pub refused: u64,
    /// What the destination said last, if it did not accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// The answer of `POST /v1/publishers/{name}/verify`: one part of the series, compared with what the destination holds of them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PublisherVerifyDocument {
    /// `ok`, `differs`, `nothing` if no whole round is kept that was sent, `failed` if the destination cannot be asked, or
    /// `unsupported` if its type answers no queries.
    pub outcome: Word,
    /// What the destination said, or why nothing was compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The start of the first round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// The end of the last round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// What of the requested time was not compared, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
    /// The number of rounds.
    pub rounds: u64,
    /// Which part this is, from 0.
    pub part: u64,
    /// The number of parts into which the series are divided.
    pub parts: u64,
    /// The number of series that were compared, as the destination counts them.
    pub series: u64,
    /// Series that were not compared because late samples changed what is known of them.
    pub late: u64,
    /// Series of which something differs.
    pub differing: u64,
    /// What differs, by series; the first ones if there are many.
    pub differences: Vec<PublishedDifferenceDocument>,
}

/// A number that the destination has otherwise, or not at all.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PublishedDifferenceDocument {
    /// The name of the series at the destination.
    pub name: String,
    /// Its labels or tags there.
    pub labels: BTreeMap<String, String>,
    /// `points`, `records`, `value`, `count`, `sum` or `increase`.
    pub what: Word,
    /// What the node knows.
    pub expected: f64,
    /// What the destination holds; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<f64>,
}
