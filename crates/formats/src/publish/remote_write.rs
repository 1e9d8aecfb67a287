//! Prometheus remote write, 1.0 and 2.0 (2.0-rc.4).
//!
//! Names, labels and shapes are those of a scrape, and the external labels are those that a scrape adds. Counters, and sums
//! and counts of values, are cumulative, from [`RunningTotal`](super::RunningTotal); percentiles are those of the interval.
//!
//! A request has at most one sample of each series. A receiver that has a request already, or half of it, then accepts it
//! once more: every sample is an exact repeat of the last one of its series. Two samples of a series in one request would be
//! refused on repetition, the first of them as too old, and with protocol 1.0 everything else with it. That is why the zeros
//! of new series are requests of their own before the round's, and stale markers are requests after it.

mod ended;
mod labels;
mod listed;
mod point;
mod samples;
mod v1;
mod v2;

use std::ops::Range;
use std::time::Duration;

use super::scraped::{IdentityRuns, NamedItem, ScrapeSpelling, ScrapedSeries};
use super::split::{EncodedBody, RequestBody, RequestSplitter};
use super::{Encoded, EncodedRequest, LeftOutReason, RequestRoom, Round};
use crate::exposition::Escaping;
use crate::prometheus::{Level, MarksOfAll, Naming, Timers};
pub use ended::{EndedRound, EndedSeries};
use labels::{IdentityLabels, NAME};
pub use listed::{ScrapedSample, ScrapedValue, list_samples};
use point::SeriesBody;
use samples::SampleWriter;
use v1::WriteRequest;
use v2::InternedRequest;

/// How long after the end of the last round stale markers are: after every sample of it, and before the zeros of the next round.
pub const ENDED_AFTER: Duration = Duration::from_millis(1);

/// A version of the protocol.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RemoteWriteProtocol {
    /// 1.0, which every receiver understands.
    V1,
    /// 2.0. A receiver that answers 2xx without a header `X-Prometheus-Remote-Write-Samples-Written` has not understood it,
    /// and has stored nothing.
    V2,
}

impl RemoteWriteProtocol {
    /// The header with the version, which every request has.
    #[must_use]
    pub const fn version_header(self) -> (&'static str, &'static str) {
        let version = match self {
            Self::V1 => "0.1.0",
            Self::V2 => "2.0.0",
        };
        ("X-Prometheus-Remote-Write-Version", version)
    }

    /// The version of a request, from its `Content-Type` header.
    #[must_use]
    pub fn for_content_type(content_type: &str) -> Self {
        if content_type == V2_CONTENT { Self::V2 } else { Self::V1 }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::V1 => V1_CONTENT,
            Self::V2 => V2_CONTENT,
        }
    }
}

const V1_CONTENT: &str = "application/x-protobuf";
const V2_CONTENT: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// How a round is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteWriteOptions {
    /// The version of the protocol.
    pub protocol: RemoteWriteProtocol,
    /// How metrics are named.
    pub naming: Naming,
    /// Which characters names may have.
    pub escaping: Escaping,
    /// Native histograms, or percentiles, sum and count for any other choice. Only records with
    /// [`RunningTotal::buckets`](super::RunningTotal::buckets) can be native histograms.
    pub timers: Timers,
    /// Labels of every series, in addition to `node`, `job` and `instance`, or in their place. An empty value removes a label.
    /// A label that identifies a series' origin, or that a tag became, is not replaced.
    pub labels: Vec<(String, String)>,
    /// Whether requests of 1.0 describe the families in them. Those of 2.0 always do.
    pub metadata: bool,
}

impl RemoteWriteOptions {
    fn spelling(&self) -> ScrapeSpelling {
        ScrapeSpelling { naming: self.naming, escaping: self.escaping, timers: self.timers }
    }

    /// What a scrape would have added to every series, sorted by name.
    fn external_labels<'a>(&'a self, node: &'a str) -> Vec<(&'a str, &'a str)> {
        let configured = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let usual = [("node", node), ("job", "tallyport"), ("instance", node)];
        let mut labels: Vec<_> = configured.chain(usual).filter(|(name, _)| *name != NAME).collect();
        // Of two with one name, the first is kept.
        labels.sort_by_key(|(name, _)| *name);
        labels.dedup_by_key(|(name, _)| *name);
        labels.retain(|(_, value)| !value.is_empty());
        labels
    }
}

/// Encodes a range of a round: one sample of each series, at the round's end.
#[must_use]
pub fn encode_remote_write(
    round: &Round<'_>,
    records: Range<usize>,
    options: &RemoteWriteOptions,
    room: RequestRoom,
) -> Encoded {
    let source = Source::of_round(round, records, options, room);
    source.encode(
        |_| true,
        |out, series| {
            if let Some(record) = round.records.get(series.index) {
                out.write_record(record, series, round.end);
            }
        },
    )
}

/// Encodes a zero for each cumulative series of a range that is sent for the first time
/// ([`RunningTotal::first`](super::RunningTotal::first)), two milliseconds after its first window's start. Without it, `increase()` and
/// `rate()` would not count the first value. The requests are sent before those of the round; what they leave out, those leave
/// out as well.
#[must_use]
pub fn encode_zero_samples(
    round: &Round<'_>,
    records: Range<usize>,
    options: &RemoteWriteOptions,
    room: RequestRoom,
) -> Vec<EncodedRequest> {
    let is_first = |index: usize| {
        let record = round.records.get(index);
        record.and_then(|record| record.running).is_some_and(|running| running.first)
    };
    let source = Source::of_round(round, records, options, room);
    let encoded = source.encode(is_first, |out, series| {
        if let Some(record) = round.records.get(series.index) {
            out.write_zeros(record, series);
        }
    });
    encoded.requests
}

/// Encodes a stale marker for each sample of a range of series that ended: a query then no longer returns their last values.
/// Must not be called with series that were left out of all rounds: another series can have their names. The requests are
/// sent after those of the round; their ranges are those of the ended series.
#[must_use]
pub fn encode_stale_markers(
    ended: &EndedRound<'_>,
    series: Range<usize>,
    options: &RemoteWriteOptions,
    room: RequestRoom,
) -> Vec<EncodedRequest> {
    let EndedRound { node, level, marks, .. } = *ended;
    let source = Source { items: &ended.series, range: series, node, names: (level, marks), options, room };
    source.encode(|_| true, |out, series| out.write_stale_markers(series, ended.at)).requests
}

/// Compresses a message in Snappy's block format, which both versions demand.
fn compress(message: &[u8], protocol: RemoteWriteProtocol) -> EncodedBody {
    #[expect(clippy::expect_used, reason = "a message without its end would be a round lost without a word")]
    let body = snap::raw::Encoder::new().compress_vec(message).expect("a request is below 4 GiB");
    EncodedBody { body, content_type: protocol.content_type(), content_encoding: Some("snappy") }
}

/// The items of a range, and how to write them.
struct Source<'a, T> {
    items: &'a [T],
    range: Range<usize>,
    node: &'a str,
    names: (Level, &'a MarksOfAll),
    options: &'a RemoteWriteOptions,
    room: RequestRoom,
}

impl<'a> Source<'a, super::RoundRecord<'a>> {
    fn of_round(
        round: &'a Round<'a>,
        range: Range<usize>,
        options: &'a RemoteWriteOptions,
        room: RequestRoom,
    ) -> Self {
        let names = (round.level, round.marks);
        Self { items: &round.records, range, node: round.node, names, options, room }
    }
}

impl<T: NamedItem> Source<'_, T> {
    /// Writes every item that is `wanted`.
    fn encode(
        self,
        wanted: impl Fn(usize) -> bool,
        write: impl Fn(&mut SampleWriter<'_>, &ScrapedSeries<'_>),
    ) -> Encoded {
        match self.options.protocol {
            RemoteWriteProtocol::V1 => {
                self.encode_into(WriteRequest::new(self.options.metadata), wanted, write)
            }
            RemoteWriteProtocol::V2 => self.encode_into(InternedRequest::default(), wanted, write),
        }
    }

    fn encode_into<B: RequestBody + SeriesBody>(
        &self,
        body: B,
        wanted: impl Fn(usize) -> bool,
        write: impl Fn(&mut SampleWriter<'_>, &ScrapedSeries<'_>),
    ) -> Encoded {
        let external = self.options.external_labels(self.node);
        let end = self.range.end.min(self.items.len());
        let range = self.range.start.min(end)..end;
        let mut requests = RequestSplitter::new(body, self.room, range.clone());
        for run in IdentityRuns::new(self.items, range, self.names, self.options.spelling()) {
            let labels = IdentityLabels::new(&run.identity, &external);
            for series in &run.series {
                if series.clashes {
                    requests.leave_out(series.index, LeftOutReason::Clash);
                } else if wanted(series.index) {
                    requests.add_record(series.index, |body| {
                        let mut out = SampleWriter::new(body, series, &labels);
                        write(&mut out, series);
                        out.has_written()
                    });
                } else {
                    requests.skip_record(series.index);
                }
            }
        }
        requests.finish()
    }
}

#[cfg(test)]
mod tests;
