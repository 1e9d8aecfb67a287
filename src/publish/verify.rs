//! Whether a destination holds what the node knows: the kept windows, as they were sent, beside what the destination answers to
//! queries.
//!
//! Only whole rounds are compared that the publisher has passed, and one part of the identities at a time, so that memory and the
//! time of an answer are bounded however much is kept. What is expected is made by the encoders that the publisher sends with.

mod comparison;
mod file;
mod influx;
mod line_protocol;
mod prometheus;
mod query_client;
mod rounds;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use self::comparison::{DeliveryComparison, VerifyError};
use self::file::FileExpected;
use self::influx::InfluxExpected;
use self::prometheus::PrometheusExpected;
use self::rounds::{PlaceLimits, RoundPlaces, choose_rounds};
use super::round::{CutRecords, RecordReading, RoundRules, RoundScope};
use super::selection::SeriesSelection;
use crate::aggregate::WindowSpan;
use crate::config::{PublisherConfig, SinkConfig};
use crate::model::{Series, SeriesKey, Timestamp};
use crate::net::clock;
use crate::render::prometheus::{Level, SeriesIdentity};
use crate::render::publish::{RequestRoom, Round};
use crate::store::{Cursor, Published, Store};
use crate::wire::PublisherVerifyDocument;

/// How long the destination may take for the queries of a part. The client of the agent waits ten seconds for an answer.
const PATIENCE: Duration = Duration::from_secs(7);
/// How old a round has to be: what a destination has accepted can be found a little later.
const SETTLED: Duration = Duration::from_secs(5);
/// Series that a part has about.
const PART_SERIES: usize = 2000;
/// The most parts that a caller may ask for.
pub const MOST_PARTS: u64 = 1_000_000;
/// Labels that identify where a series comes from. No tag of a client has one of these names.
const IDENTITY_LABELS: [&str; 7] =
    ["container", "container_id", "generation", "namespace", "pod", "task", "workload"];
/// As large as a round is.
const ANY_SIZE: RequestRoom = RequestRoom { bytes: usize::MAX, records: usize::MAX };

/// Pairs of labels that tell identities apart.
type IdentityPairs = Vec<(String, String)>;

/// What is to be compared.
#[derive(Copy, Clone, Debug)]
pub struct VerifyRequest {
    /// Only rounds that end after this moment.
    pub since: Timestamp,
    /// Only rounds that have ended by this moment.
    pub until: Option<Timestamp>,
    /// Which part, from 0.
    pub part: u64,
    /// Into how many parts series are divided; as many as are needed if it is not given.
    pub parts: Option<u64>,
}

/// What a publisher has sent, and where it is kept.
#[derive(Debug)]
pub(super) struct VerifySource {
    pub(super) config: PublisherConfig,
    pub(super) settle: Duration,
    pub(super) node: String,
    pub(super) store: Arc<Store>,
    /// The last place that is sent or given up.
    pub(super) sent: u64,
    /// The last place before the publisher began.
    pub(super) begun: u64,
}

/// What a destination should hold.
#[derive(Debug)]
enum ExpectedDelivery {
    File(FileExpected),
    Influx(InfluxExpected),
    Prometheus(PrometheusExpected),
}

/// What was gathered of the kept windows.
#[derive(Debug)]
struct GatheredPart {
    expected: ExpectedDelivery,
    rounds: Vec<RoundPlaces>,
    parts: u64,
    /// Series that are not compared because late samples have changed what is known.
    late: u64,
}

/// Compares a part of the series.
pub(super) async fn verify_part(source: VerifySource, request: VerifyRequest) -> PublisherVerifyDocument {
    let Some(expected) = ExpectedDelivery::for_sink(&source.config.sink) else {
        let answer = format!(
            "a destination of the type {} answers no queries",
            source.config.sink.sink_type().as_str()
        );
        return describe_outcome("unsupported", Some(answer));
    };
    let now = clock::wall_time();
    let gathering = tokio::task::spawn_blocking(move || gather_expected(&source, &request, expected, now));
    let GatheredPart { expected, rounds, parts, late } = match gathering.await {
        Ok(gathered) => gathered,
        Err(failed) => return describe_outcome("failed", Some(failed.to_string())),
    };
    let (Some(first), Some(last)) = (rounds.first(), rounds.last()) else {
        let why = "no whole round is kept that the publisher has sent; try again after the next ones";
        return describe_outcome("nothing", Some(why.to_owned()));
    };
    let compared = tokio::time::timeout(PATIENCE, expected.compare_delivery()).await;
    let compared = compared.unwrap_or(Err(VerifyError::Slow { limit: PATIENCE }));
    let (outcome, answer, comparison) = match compared {
        Ok(comparison) if comparison.differing == 0 => ("ok", None, comparison),
        Ok(comparison) => ("differs", comparison.answer.clone(), comparison),
        Err(error) => ("failed", Some(error.to_string()), DeliveryComparison::default()),
    };
    PublisherVerifyDocument {
        outcome: Cow::Borrowed(outcome),
        answer,
        from: Some(first.start),
        to: Some(last.end),
        rounds: rounds.len() as u64,
        part: request.part,
        parts,
        series: comparison.series,
        late,
        differing: comparison.differing,
        differences: comparison.differences,
    }
}

/// The answer where nothing was compared.
pub(super) fn describe_outcome(outcome: &'static str, answer: Option<String>) -> PublisherVerifyDocument {
    PublisherVerifyDocument {
        outcome: Cow::Borrowed(outcome),
        answer,
        from: None,
        to: None,
        rounds: 0,
        part: 0,
        parts: 0,
        series: 0,
        late: 0,
        differing: 0,
        differences: Vec::new(),
    }
}

/// Reads the kept windows of a part, and holds none of them afterwards.
fn gather_expected(
    source: &VerifySource,
    request: &VerifyRequest,
    mut expected: ExpectedDelivery,
    now: Timestamp,
) -> GatheredPart {
    let epoch = source.store.end_cursor().epoch;
    let (lost, windows) = match source.store.read_since(Cursor { epoch, seq: 0 }) {
        Ok(since) => (0, since.published),
        Err(expired) => (expired.oldest.seq, source.store.kept_after(0)),
    };
    let (interval, settle) = (source.config.interval, source.settle);
    let rules = RoundRules { interval, batch: Duration::ZERO, settle, records: usize::MAX, floor: None };
    let settled = now.saturating_sub(SETTLED);
    let limits = PlaceLimits {
        known: lost.max(source.begun),
        sent: source.sent,
        since: request.since,
        until: request.until.map_or(settled, |until| until.min(settled)),
    };
    let places = place_rounds(&rules, &windows, epoch);
    let rounds = choose_rounds(&places, &limits);
    let largest = rounds.iter().map(|round| round.records).max().unwrap_or_default();
    let needed = (largest.div_ceil(PART_SERIES) as u64).max(1);
    let parts = request.parts.unwrap_or(needed).clamp(1, MOST_PARTS);
    let level = expected.identity_level(source.config.identity);
    let mut windows = windows;
    windows.retain(|published| hash_identity(published, level) % parts == request.part);
    let late = match &expected {
        // What is added later is in the totals of another round.
        ExpectedDelivery::Prometheus(_) => find_late_series(&windows, level),
        ExpectedDelivery::File(_) | ExpectedDelivery::Influx(_) => HashSet::new(),
    };
    let starts: HashSet<_> = rounds.iter().map(|round| round.start).collect();
    windows.retain(|published| starts.contains(&rules.round_start(published.window().span)));
    // The configuration was checked; a query that cannot be read would have been refused.
    let selection = SeriesSelection::from_config(&source.config).unwrap_or_default();
    // What records became is what they have added, since late series are left out.
    let reading = RecordReading::Became;
    let scope = RoundScope { rules, level, selection: &selection, epoch, reading, group: |_| 0 };
    let marks = source.store.snapshot_at_level(level).2;
    let records = CutRecords::collect_records(&windows, &[], 0..=u64::MAX, scope);
    let mut late_here = HashSet::new();
    for interval in &records.intervals {
        let mut round = interval.as_round(&source.node, epoch, &marks);
        round.records.retain(|record| {
            let key = hash_series(record.identity, record.series);
            let is_late = late.contains(&key);
            if is_late {
                late_here.insert(key);
            }
            !is_late
        });
        expected.add_round(&round);
    }
    GatheredPart { expected, rounds, parts, late: late_here.len() as u64 }
}

/// The places of each round.
fn place_rounds(rules: &RoundRules, windows: &[Arc<Published>], epoch: u64) -> Vec<RoundPlaces> {
    let mut rounds: BTreeMap<Timestamp, RoundPlaces> = BTreeMap::new();
    for published in windows {
        let span = published.window().span;
        let start = rules.round_start(span);
        // Of rounds that an earlier run has published some of, it is not known what is lost.
        let is_of_this_run = published.birth_in(epoch).epoch == epoch;
        let (first, last) =
            if is_of_this_run { (published.first_seq(), published.last_seq()) } else { (0, 0) };
        let end = round_end(start, span, rules.interval);
        let round = rounds.entry(start).or_insert(RoundPlaces { start, end, first, last, records: 0 });
        round.end = round.end.max(end);
        (round.first, round.last) = (round.first.min(first), round.last.max(last));
        round.records += published.window().len();
    }
    rounds.into_values().collect()
}

/// When the round that a window belongs to ends. A window that is as long as a round is one.
fn round_end(start: Timestamp, span: WindowSpan, interval: Duration) -> Timestamp {
    if span.nominal_length() >= interval { span.end } else { span.end.max(start.saturating_add(interval)) }
}

fn hash_identity(published: &Published, level: Level) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(SeriesIdentity::from_origin(published.origin(), level).as_str().as_bytes());
    hasher.digest()
}

fn hash_series(identity: &SeriesIdentity, series: &Series) -> u64 {
    let mut hasher = Xxh3::new();
    (identity.as_str(), SeriesKey(series)).hash(&mut hasher);
    hasher.finish()
}

/// Series of which a record was revised.
fn find_late_series(windows: &[Arc<Published>], level: Level) -> HashSet<u64> {
    let mut late = HashSet::new();
    for published in windows.iter().filter(|published| published.revision_counts().iter().any(|rev| *rev > 0))
    {
        let identity = SeriesIdentity::from_origin(published.origin(), level);
        let revised = published.numbered_records().filter(|(number, _)| number.rev > 0);
        late.extend(revised.map(|(_, record)| hash_series(&identity, record.series)));
    }
    late
}

impl ExpectedDelivery {
    /// What is expected of a destination; `None` if its type answers no queries.
    fn for_sink(sink: &SinkConfig) -> Option<Self> {
        match sink {
            SinkConfig::File(sink) => Some(Self::File(FileExpected::new(sink))),
            SinkConfig::Influxdb(sink) => Some(Self::Influx(InfluxExpected::new(sink))),
            SinkConfig::RemoteWrite(sink) => Some(Self::Prometheus(PrometheusExpected::new(sink))),
            SinkConfig::Debug(_) | SinkConfig::Graphite(_) | SinkConfig::Otlp(_) | SinkConfig::Datadog(_) => {
                None
            }
        }
    }

    /// The level of identities that the publisher sends.
    const fn identity_level(&self, configured: Level) -> Level {
        match self {
            // Records of a file name their container and are not merged.
            Self::File(_) => Level::High,
            Self::Influx(_) | Self::Prometheus(_) => configured,
        }
    }

    fn add_round(&mut self, round: &Round<'_>) {
        match self {
            Self::File(expected) => expected.add_round(round),
            Self::Influx(expected) => expected.add_round(round),
            Self::Prometheus(expected) => expected.add_round(round),
        }
    }

    async fn compare_delivery(self) -> Result<DeliveryComparison, VerifyError> {
        match self {
            Self::File(expected) => expected.compare_file().await,
            Self::Influx(expected) => expected.compare_database().await,
            Self::Prometheus(expected) => expected.compare_receiver().await,
        }
    }
}

#[cfg(test)]
mod tests;
