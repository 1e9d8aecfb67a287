//! What publishers send: the records of one interval, encoded for a receiver.
//!
//! A [`Round`] has every series at most once, and all its samples have one timestamp, the end of the interval: a request
//! that is sent again then repeats the last sample of each series exactly, which every known receiver accepts. An encoder
//! is a pure function from a round to [`Encoded`]: the same round gives the same bytes, in whatever order its records were
//! collected.

mod body;
mod datadog;
mod graphite;
mod influx;
mod json;
mod labels;
mod otlp;
mod protobuf;
mod remote_write;
mod scraped;
mod split;
#[cfg(test)]
mod tests;
mod text;

use std::cmp::Ordering;
use std::ops::Range;

use tallyport_core::aggregate::{Native, View, WindowSpan};
use tallyport_core::model::{Origin, Series, Timestamp};

use crate::prometheus::{Level, MarksOfAll, SeriesIdentity};
use crate::record::RecordNumber;

pub use body::Framing;
pub use datadog::{DatadogRoute, encode_datadog};
pub use graphite::{GraphiteOptions, PathTemplate, TemplateError, encode_graphite};
pub use influx::{InfluxFields, InfluxOptions, encode_influx};
pub use json::encode_json;
pub use otlp::{OtlpAnswer, OtlpTemporality, decode_answer, encode_otlp};
pub use remote_write::{
    ENDED_AFTER, EndedRound, EndedSeries, RemoteWriteOptions, RemoteWriteProtocol, ScrapedSample,
    ScrapedValue, encode_remote_write, encode_stale_markers, encode_zero_samples, list_samples,
};

/// The records of one interval, each series once.
#[derive(Clone, Debug)]
pub struct Round<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The epoch of the node's sequence.
    pub epoch: u64,
    /// The interval's start (inclusive).
    pub start: Timestamp,
    /// The interval's end (exclusive), the timestamp of every sample.
    pub end: Timestamp,
    /// The level of the records' identities.
    pub level: Level,
    /// The marks of names that would collide if they were spelled plainly, as on a scraped page.
    pub marks: &'a MarksOfAll,
    /// The records. Sorted by [`Round::sort_records`].
    pub records: Vec<RoundRecord<'a>>,
}

/// One series in a round.
#[derive(Copy, Clone, Debug)]
pub struct RoundRecord<'a> {
    /// The container; of a merged record, the first of its containers.
    pub origin: &'a Origin,
    /// The labels that identify the origin, at the round's level.
    pub identity: &'a SeriesIdentity,
    /// The interval, and how much of it was observed.
    pub span: WindowSpan,
    /// The series.
    pub series: &'a Series,
    /// What the record has become: with all late samples that have been merged into it.
    pub view: View<'a>,
    /// Its place in the node's sequence; `None` if it was merged from several records.
    pub number: Option<RecordNumber>,
    /// From what it was merged, unless it is a record of its own.
    pub merged: Option<Merged<'a>>,
    /// The series' cumulative value at the round's end, for receivers to which increases are added.
    pub running: Option<RunningTotal<'a>>,
}

/// The records from which one was merged.
#[derive(Copy, Clone, Debug)]
pub struct Merged<'a> {
    /// Number of records.
    pub records: usize,
    /// The origins other than the first.
    pub others: &'a [&'a Origin],
}

/// A cumulative value at a round's end.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct RunningTotal<'a> {
    /// When the sums began.
    pub created: Timestamp,
    /// The sum of a counter, or of values.
    pub total: f64,
    /// Samples weighted by 1/rate.
    pub count: f64,
    /// The values in buckets by powers of two, as [`View::to_native`] counts those of a window; only of a timer, histogram or
    /// distribution. `None` if nothing that is sent contains buckets.
    pub buckets: Option<&'a Native>,
    /// Whether this is the first value that is sent of the series.
    pub first: bool,
}

impl Round<'_> {
    /// Sorts the records by identity, name, type and tags, which makes the encoded bytes independent of the order in
    /// which records were collected.
    pub fn sort_records(&mut self) {
        self.records.sort_by(RoundRecord::compare);
    }
}

impl RoundRecord<'_> {
    /// What follows the tags decides only between records that a round should not both have.
    fn compare(&self, other: &Self) -> Ordering {
        let (a, b) = (self.series, other.series);
        let number = |record: &Self| record.number.map(|number| (number.seq, number.rev));
        (self.identity, &a.name, a.metric_type, &a.tags)
            .cmp(&(other.identity, &b.name, b.metric_type, &b.tags))
            .then_with(|| self.origin.container_id.cmp(&other.origin.container_id))
            .then_with(|| self.origin.generation.cmp(&other.origin.generation))
            .then_with(|| number(self).cmp(&number(other)))
    }
}

/// The most that one request may hold.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct RequestRoom {
    /// Bytes of a body before compression.
    pub bytes: usize,
    /// Records; 0 is taken as 1.
    pub records: usize,
}

/// The requests of a round, and the records that are in none of them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Encoded {
    /// In the order of the records.
    pub requests: Vec<EncodedRequest>,
    /// In the order of the records. Every record of the encoded range is in exactly one request or one of these.
    pub left_out: Vec<LeftOut>,
}

/// One encoded request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedRequest {
    /// The body, not compressed unless `content_encoding` says so.
    pub body: Vec<u8>,
    /// The value of its `Content-Type` header.
    pub content_type: &'static str,
    /// The value of its `Content-Encoding` header.
    pub content_encoding: Option<&'static str>,
    /// The range of the round's records that it covers. Encoding this range again gives the same body; encoding its halves
    /// gives the requests of a bisection.
    pub records: Range<usize>,
    /// How many records it has. Less than the range covers if some were left out.
    pub held: usize,
}

/// A record that is in no request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// Its index in the round.
    pub record: usize,
    /// The reason.
    pub why: LeftOutReason,
}

/// Why a record is in no request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum LeftOutReason {
    /// The record alone would exceed the room of a request.
    TooLarge,
    /// The receiver has no place for this type of series, or it is sent by another route.
    Unsupported,
    /// None of its numbers is finite, or known.
    NoValue,
    /// Another record has the same name and labels in the receiver's spelling.
    Clash,
}

impl LeftOutReason {
    /// The name used in JSON and as a label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::NoValue => "no_value",
            Self::Clash => "clash",
        }
    }
}
