//! Whether a destination holds what the node knows: the windows in memory and in files, as they were sent, beside what the
//! destination answers to queries.
//!
//! Only whole rounds are compared that the publisher has passed, and one part of the identities at a time, so that memory and the
//! time of an answer are bounded however much is kept. What is expected is made by the encoders that the publisher sends with.

mod comparison;
mod file;
mod influx;
mod kept;
mod line_protocol;
mod prometheus;
mod query_client;
mod rounds;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::Xxh3;

use self::comparison::{DeliveryComparison, VerifyError};
use self::file::FileExpected;
use self::influx::InfluxExpected;
use self::kept::{FileWindows, MemoryWindows, WindowPlace};
use self::prometheus::PrometheusExpected;
use self::rounds::{PlaceLimits, ReachLimit, RoundPlaces, choose_rounds, describe_reach};
use super::round::{CutRecords, RecordReading, RoundRules, RoundScope};
use super::selection::SeriesSelection;
use crate::aggregate::WindowSpan;
use crate::config::{PublisherConfig, SinkConfig};
use crate::model::{Series, SeriesKey, Timestamp};
use crate::net::clock;
use crate::render::prometheus::{Level, SeriesIdentity};
use crate::render::publish::{RequestRoom, Round};
use crate::store::{Published, Store};
use crate::window_log::Spool;
use crate::wire::PublisherVerifyDocument;

/// How long the destination may take for the queries of a part. The client of the agent waits ten seconds for an answer, and two of
/// them are for another comparison to end.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long files may be read, which is done twice for the first part.
const READING: Duration = Duration::from_millis(800);
/// How old a round has to be: what a destination has accepted can be found a little later.
const SETTLED: Duration = Duration::from_secs(5);
/// Series that a part has about.
const PART_SERIES: usize = 2000;
/// Records of all rounds that a part has about.
const PART_RECORDS: usize = 100_000;
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
    pub(super) spool: Arc<Spool>,
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

/// What was gathered of the windows.
#[derive(Debug)]
struct GatheredPart {
    expected: ExpectedDelivery,
    rounds: Vec<RoundPlaces>,
    parts: u64,
    /// What of the requested time is not compared, and why.
    not_compared: Option<String>,
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
    let GatheredPart { expected, rounds, parts, not_compared, late } = match gathering.await {
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
        not_compared,
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
        not_compared: None,
        rounds: 0,
        part: 0,
        parts: 0,
        series: 0,
        late: 0,
        differing: 0,
        differences: Vec::new(),
    }
}

/// Reads the windows of a part, and holds none of them afterwards.
fn gather_expected(
    source: &VerifySource,
    request: &VerifyRequest,
    mut expected: ExpectedDelivery,
    now: Timestamp,
) -> GatheredPart {
    let epoch = source.store.end_cursor().epoch;
    let (interval, settle) = (source.config.interval, source.settle);
    let rules = RoundRules { interval, batch: Duration::ZERO, settle, records: usize::MAX, floor: None };
    let level = expected.identity_level(source.config.identity);
    let choice = WindowChoice { source, request, rules: &rules, level, now };
    let ChosenWindows { mut windows, rounds, parts, not_compared } =
        choice.choose_windows(true).or_else(|| choice.choose_windows(false)).unwrap_or_default();
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
    GatheredPart { expected, rounds, parts, not_compared, late: late_here.len() as u64 }
}

/// Which windows are compared.
#[derive(Copy, Clone, Debug)]
struct WindowChoice<'a> {
    source: &'a VerifySource,
    request: &'a VerifyRequest,
    rules: &'a RoundRules,
    level: Level,
    now: Timestamp,
}

/// The windows of a part, and the rounds that are compared of them.
#[derive(Default, Debug)]
struct ChosenWindows {
    windows: Vec<Arc<Published>>,
    rounds: Vec<RoundPlaces>,
    parts: u64,
    not_compared: Option<String>,
}

impl WindowChoice<'_> {
    /// Chooses among the windows in memory and, `with_files`, those that only files still have. `None` if there are so many of
    /// those that reading them takes too long.
    fn choose_windows(&self, with_files: bool) -> Option<ChosenWindows> {
        let Self { source, request, rules, .. } = *self;
        let memory = MemoryWindows::read(&source.store);
        let read_files = |parts: Option<u64>| {
            if !with_files || memory.lost == 0 {
                return Some(FileWindows::default());
            }
            let since = Instant::now();
            let is_wanted = |published: &Published| {
                let end = round_end(rules, published.window().span);
                end > request.since && parts.is_some_and(|parts| self.is_of_part(published, parts))
            };
            memory.read_files(&source.spool, &source.store, || since.elapsed() > READING, is_wanted)
        };
        let mut files = read_files(request.parts)?;
        let known = memory.find_known(&files);
        let settled = self.now.saturating_sub(SETTLED);
        let limits = PlaceLimits {
            known: known.max(source.begun),
            sent: source.sent,
            since: request.since,
            until: request.until.map_or(settled, |until| until.min(settled)),
        };
        let places = place_rounds(rules, memory.places.iter().chain(&files.places));
        let rounds = choose_rounds(&places, &limits);
        let parts = request.parts.unwrap_or_else(|| count_parts(&rounds)).clamp(1, MOST_PARTS);
        if request.parts.is_none() && !files.places.is_empty() {
            // Now that it is known which ones are wanted.
            files = read_files(Some(parts))?;
        }
        let reason = match (with_files, known) {
            (false, _) => ReachLimit::Files,
            (true, known) if source.begun >= known && source.begun > 0 => ReachLimit::Begun,
            (true, 0) => ReachLimit::Start,
            (true, _) => ReachLimit::Kept,
        };
        let not_compared = describe_reach(&places, &rounds, &limits, reason);
        let mut windows = memory.windows;
        windows.retain(|published| self.is_of_part(published, parts));
        windows.extend(files.windows);
        Some(ChosenWindows { windows, rounds, parts, not_compared })
    }

    fn is_of_part(&self, published: &Published, parts: u64) -> bool {
        hash_identity(published, self.level) % parts == self.request.part
    }
}

/// Into how many parts the series of some rounds are divided.
fn count_parts(rounds: &[RoundPlaces]) -> u64 {
    let largest = rounds.iter().map(|round| round.records).max().unwrap_or_default();
    let all: usize = rounds.iter().map(|round| round.records).sum();
    largest.div_ceil(PART_SERIES).max(all.div_ceil(PART_RECORDS)) as u64
}

/// The places of each round.
fn place_rounds<'p>(rules: &RoundRules, windows: impl Iterator<Item = &'p WindowPlace>) -> Vec<RoundPlaces> {
    let mut rounds: BTreeMap<Timestamp, RoundPlaces> = BTreeMap::new();
    for WindowPlace { span, first, last, records } in windows.copied() {
        let (start, end) = (rules.round_start(span), round_end(rules, span));
        let round = rounds.entry(start).or_insert(RoundPlaces { start, end, first, last, records: 0 });
        round.end = round.end.max(end);
        (round.first, round.last) = (round.first.min(first), round.last.max(last));
        round.records += records;
    }
    rounds.into_values().collect()
}

/// When the round that a window belongs to ends. A window that is as long as a round is one.
fn round_end(rules: &RoundRules, span: WindowSpan) -> Timestamp {
    match span.nominal_length() >= rules.interval {
        true => span.end,
        false => span.end.max(rules.round_start(span).saturating_add(rules.interval)),
    }
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
