//! What a receiver of remote write holds, by the query API of Prometheus, which `VictoriaMetrics`, Mimir and others have as well.
//!
//! The samples themselves are asked for, not what functions make of them: a range selector as the whole query is answered with
//! every stored sample, and nothing is extrapolated. Of cumulative series the increase is compared from the first sample on that
//! the receiver has, since the totals before are those of other rounds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use super::comparison::{DeliveryComparison, NumberPair, VerifyError};
use super::query_client::QueryClient;
use super::{IDENTITY_LABELS, IdentityPairs};
use crate::aggregate::View;
use crate::config::RemoteWriteSink;
use crate::render::exposition::Escaping;
use crate::render::publish::{
    RemoteWriteOptions, RemoteWriteProtocol, Round, RoundRecord, RunningTotal, ScrapedSample, ScrapedValue,
    list_samples,
};

/// Identities that one query asks for.
const IDENTITIES: usize = 50;
const NAME: &str = "__name__";
/// The path of queries.
const QUERY: &str = "/api/v1/query";

/// The samples that a receiver should hold.
#[derive(Debug)]
pub(super) struct PrometheusExpected {
    sink: RemoteWriteSink,
    options: RemoteWriteOptions,
    series: BTreeMap<SampleSeries, ExpectedSamples>,
    /// The times of the first and the last round, in milliseconds.
    times: Option<(i64, i64)>,
}

/// The labels of a series, sorted by name, and which number of its samples.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct SampleSeries {
    labels: Vec<(String, String)>,
    number: SampleNumber,
}

#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum SampleNumber {
    Value,
    HistogramCount,
    HistogramSum,
}

/// Numbers by time, in milliseconds; of a cumulative series what each round adds.
#[derive(Clone, Default, Debug)]
struct ExpectedSamples {
    cumulative: bool,
    numbers: BTreeMap<i64, f64>,
}

/// The numbers that a receiver holds of a series, by time in milliseconds.
type FoundSamples = BTreeMap<i64, f64>;
impl PrometheusExpected {
    pub(super) fn new(sink: &RemoteWriteSink) -> Self {
        let options = RemoteWriteOptions {
            protocol: RemoteWriteProtocol::V1,
            naming: sink.naming,
            escaping: Escaping::Underscores,
            timers: sink.timers,
            labels: sink.labels.clone(),
            metadata: false,
        };
        Self { sink: sink.clone(), options, series: BTreeMap::new(), times: None }
    }

    pub(super) fn add_round(&mut self, round: &Round<'_>) {
        let at = round.end.as_micros().div_euclid(1000);
        let (first, last) = self.times.unwrap_or((at, at));
        self.times = Some((first.min(at), last.max(at)));
        // With the sums of the round as totals, cumulative samples say what the round has added.
        let natives: Vec<_> =
            round.records.iter().map(|record| record.view.to_native(record.series.metric_type)).collect();
        let records = round.records.iter().zip(&natives).map(|(record, buckets)| {
            let running =
                sum_round(record).map(|running| RunningTotal { buckets: buckets.as_ref(), ..running });
            RoundRecord { running, ..*record }
        });
        let round = Round { records: records.collect(), ..round.clone() };
        for sample in list_samples(&round, 0..round.records.len(), &self.options) {
            self.add_sample(at, sample);
        }
    }

    fn add_sample(&mut self, at: i64, sample: ScrapedSample) {
        let ScrapedSample { labels, value, cumulative } = sample;
        let numbers = match value {
            ScrapedValue::Number(number) => vec![(SampleNumber::Value, number)],
            ScrapedValue::Histogram { count, sum } => {
                vec![(SampleNumber::HistogramCount, count), (SampleNumber::HistogramSum, sum)]
            }
        };
        for (number, value) in numbers {
            let series = self.series.entry(SampleSeries { labels: labels.clone(), number }).or_default();
            series.cumulative = cumulative;
            series.numbers.insert(at, value);
        }
    }

    pub(super) async fn compare_receiver(self) -> Result<DeliveryComparison, VerifyError> {
        let Some(times) = self.times else { return Ok(DeliveryComparison::default()) };
        let query_url = self.query_url()?;
        let client = QueryClient::new(&self.sink.target, query_url, "Bearer");
        let identities: BTreeSet<IdentityPairs> = self.series.keys().map(SampleSeries::identity).collect();
        let identities: Vec<_> = identities.into_iter().collect();
        let common = find_common_labels(self.series.keys());
        let mut found = HashMap::new();
        for identities in identities.chunks(IDENTITIES) {
            let query = build_query(identities, &common, times);
            let time = format_seconds(times.1);
            // Without this, VictoriaMetrics answers for half a minute ago.
            let fields = [("query", query.as_str()), ("time", &time), ("latency_offset", "1ms")];
            let body = client.post_form(&fields).await?;
            let answer: PrometheusAnswer = serde_json::from_slice(&body)
                .map_err(|error| VerifyError::Garbled { queries: "PromQL", why: error.to_string() })?;
            answer.read_into(times, &mut found)?;
        }
        Ok(compare_samples(&self.series, &found))
    }
}

impl PrometheusExpected {
    /// Where queries are sent to: where the configuration says, or where the receiver usually answers them.
    fn query_url(&self) -> Result<String, VerifyError> {
        if let Some(base) = &self.sink.query_url {
            let base = base.trim_end_matches('/');
            return Ok(format!("{}{QUERY}", base.strip_suffix(QUERY).unwrap_or(base)));
        }
        let url = &self.sink.target.url;
        find_query_url(url).ok_or_else(|| VerifyError::NoAddress { url: url.clone() })
    }
}

/// What a record adds to the totals of its series.
fn sum_round<'r>(record: &RoundRecord<'r>) -> Option<RunningTotal<'r>> {
    let (total, count) = match record.view {
        View::Counter { counter, .. } => (counter.sum, counter.count),
        View::Distribution { summary, .. } => (summary.sum, summary.count),
        View::Gauge(_) | View::Set { .. } | View::Check { .. } => return None,
    };
    let created = record.span.start;
    Some(RunningTotal { created, total, count: count.as_f64(), buckets: None, first: false })
}

/// Where a receiver answers queries, by where it takes samples.
fn find_query_url(write_url: &str) -> Option<String> {
    let url = write_url.split(['?', '#']).next()?.trim_end_matches('/');
    for (write, query) in [
        ("/api/v1/write", "/api/v1/query"),
        ("/api/v1/push", "/prometheus/api/v1/query"),
        ("/api/prom/push", "/api/prom/api/v1/query"),
    ] {
        if let Some(base) = url.strip_suffix(write) {
            // In a cluster of VictoriaMetrics, behind one address.
            return Some(format!("{}{query}", base.replace("/insert/", "/select/")));
        }
    }
    None
}

/// A selector of everything that has one of the identities, over the time of the rounds.
fn build_query(identities: &[IdentityPairs], common: &[(&str, &str)], (first, last): (i64, i64)) -> String {
    let mut of_name: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in identities.iter().flatten() {
        of_name.entry(name).or_default().insert(value);
    }
    let identity = of_name.iter().map(|(name, values)| {
        // An identity without the label has the empty value.
        let all = identities.iter().all(|identity| identity.iter().any(|(key, _)| key == name));
        let none = if all { "" } else { "|" };
        let values: Vec<_> = values.iter().map(|value| escape_pattern(value)).collect();
        format!("{name}=~{}", quote_text(&format!("{}{none}", values.join("|"))))
    });
    let common = common
        .iter()
        .filter(|(name, _)| is_plain_name(name) && !of_name.contains_key(name))
        .map(|(name, value)| format!("{name}={}", quote_text(value)));
    let matchers: Vec<_> = identity.chain(common).collect();
    // A range does not contain its beginning, at least from Prometheus 3 on.
    format!("{{{}}}[{}ms]", matchers.join(","), last.saturating_sub(first).saturating_add(1))
}

/// The labels that all series have.
fn find_common_labels<'s>(series: impl IntoIterator<Item = &'s SampleSeries>) -> Vec<(&'s str, &'s str)> {
    let mut series = series.into_iter();
    let Some(first) = series.next() else { return Vec::new() };
    let mut common: Vec<_> =
        first.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    common.retain(|(name, _)| *name != NAME);
    for other in series {
        common.retain(|(name, value)| other.label(name) == Some(value));
    }
    common
}

fn is_plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn escape_pattern(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn quote_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn format_seconds(millis: i64) -> String {
    format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
}

impl SampleSeries {
    fn label(&self, name: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok()?;
        self.labels.get(at).map(|(_, value)| value.as_str())
    }

    fn identity(&self) -> IdentityPairs {
        self.labels.iter().filter(|(key, _)| IDENTITY_LABELS.contains(&key.as_str())).cloned().collect()
    }
}

/// What a receiver answers.
#[derive(Debug, Deserialize)]
struct PrometheusAnswer {
    #[serde(default)]
    data: Option<PrometheusData>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PrometheusData {
    result: Vec<PrometheusRow>,
}

#[derive(Debug, Deserialize)]
struct PrometheusRow {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
    #[serde(default)]
    histograms: Vec<(f64, PrometheusHistogram)>,
}

#[derive(Debug, Deserialize)]
struct PrometheusHistogram {
    count: String,
    sum: String,
}

impl PrometheusAnswer {
    fn read_into(
        self,
        (first, last): (i64, i64),
        found: &mut HashMap<SampleSeries, FoundSamples>,
    ) -> Result<(), VerifyError> {
        if let Some(error) = self.error {
            return Err(VerifyError::Refused(format!("a query is answered with: {error}")));
        }
        let garbled = |why: &str| VerifyError::Garbled { queries: "PromQL", why: why.to_owned() };
        let data = self.data.ok_or_else(|| garbled("there is no result"))?;
        for PrometheusRow { metric, values, histograms } in data.result {
            let labels: Vec<_> = metric.into_iter().collect();
            let counts = histograms.iter().map(|(at, it)| (SampleNumber::HistogramCount, *at, &it.count));
            let sums = histograms.iter().map(|(at, it)| (SampleNumber::HistogramSum, *at, &it.sum));
            let values = values.iter().map(|(at, text)| (SampleNumber::Value, *at, text));
            for (number, at, text) in values.chain(counts).chain(sums) {
                let at = to_millis(at);
                let value: f64 = text.parse().map_err(|_| garbled("a value is no number"))?;
                // `VictoriaMetrics` returns the markers of ended series as samples.
                if (first..=last).contains(&at) && !value.is_nan() {
                    let series = SampleSeries { labels: labels.clone(), number };
                    found.entry(series).or_default().insert(at, value);
                }
            }
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a time beyond all bounds becomes the last one, which is no round's"
)]
fn to_millis(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

fn compare_samples(
    expected: &BTreeMap<SampleSeries, ExpectedSamples>,
    found: &HashMap<SampleSeries, FoundSamples>,
) -> DeliveryComparison {
    let mut comparison = DeliveryComparison::default();
    let none = FoundSamples::new();
    for (series, samples) in expected {
        let held = found.get(series).unwrap_or(&none);
        let differing = match samples.cumulative {
            true => compare_increase(&samples.numbers, held),
            false => compare_levels(&samples.numbers, held),
        };
        let labels = series.labels.iter().filter(|(name, _)| name != NAME).cloned();
        comparison.add_series(series.label(NAME).unwrap_or_default(), labels, differing);
    }
    comparison
}

/// Compares how many of the expected samples are there, and their sum.
fn compare_levels(expected: &BTreeMap<i64, f64>, found: &FoundSamples) -> Vec<NumberPair> {
    let points = count_points(expected, found);
    let is_whole = points.is_none();
    let (mut of_expected, mut of_found, mut size) = (0.0, 0.0, 0.0_f64);
    for (at, value) in expected {
        let Some(held) = found.get(at) else { continue };
        of_expected += value;
        of_found += held;
        size += value.abs();
    }
    // Where some are missing, the others are compared nevertheless.
    let sum = NumberPair::if_different("value", of_expected, Some(of_found), size);
    points.into_iter().chain(sum.filter(|_| is_whole || of_found != 0.0)).collect()
}

/// Compares how many of the expected samples are there, and the increase between the first and the last of them.
fn compare_increase(expected: &BTreeMap<i64, f64>, found: &FoundSamples) -> Vec<NumberPair> {
    let points = count_points(expected, found);
    let (Some((first, base)), Some((last, total))) = (found.first_key_value(), found.last_key_value()) else {
        return points.into_iter().collect();
    };
    let added = expected.range((std::ops::Bound::Excluded(first), std::ops::Bound::Included(last)));
    let added: Vec<f64> = added.map(|(_, value)| *value).collect();
    let increase = match added.iter().any(|value| *value < 0.0) {
        true => total - base,
        false => sum_increases(found),
    };
    // The sum of nothing is negative zero, which would be shown as that.
    let expected = added.iter().fold(0.0, |sum, value| sum + value);
    // Totals are rounded at their own size, which may be far above what a few rounds add.
    let size = added.iter().map(|value| value.abs()).sum::<f64>() + base.abs() * 1e-3;
    let increase = NumberPair::if_different("increase", expected, Some(increase), size);
    points.into_iter().chain(increase).collect()
}

/// The increase over all samples. A total that falls has begun anew at zero.
fn sum_increases(found: &FoundSamples) -> f64 {
    let (mut sum, mut before) = (0.0, None::<f64>);
    for total in found.values() {
        sum += match before {
            Some(before) if *total >= before => total - before,
            Some(_) => *total,
            None => 0.0,
        };
        before = Some(*total);
    }
    sum
}

fn count_points(expected: &BTreeMap<i64, f64>, found: &FoundSamples) -> Option<NumberPair> {
    let held = expected.keys().filter(|at| found.contains_key(at)).count();
    NumberPair::if_different("points", expected.len() as f64, Some(held as f64), 0.0)
}

#[cfg(test)]
mod tests;
