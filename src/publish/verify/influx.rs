//! What `InfluxDB` holds, by its query language, which versions 1 to 3 answer at `/query`.
//!
//! The destination counts and adds up the points of each series, so that an answer has one row for each, however many points there
//! are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use serde::Deserialize;

use super::comparison::{DeliveryComparison, NumberPair, VerifyError};
use super::line_protocol::parse_line;
use super::query_client::QueryClient;
use super::{ANY_SIZE, IDENTITY_LABELS, IdentityPairs};
use crate::config::{InfluxApi, InfluxSink};
use crate::render::publish::{InfluxOptions, Round, encode_influx};

/// The fields that are added up.
const FIELDS: [&str; 3] = ["value", "count", "sum"];
/// Identities that one statement asks for.
const IDENTITIES: usize = 50;
/// Statements that may fail, of fields that have another type for example, before the whole comparison does.
const MOST_ERRORS: usize = 20;
/// Bytes after which a request has enough statements.
const LONG_QUERY: usize = 32 << 10;

/// The points that a database should hold.
#[derive(Debug)]
pub(super) struct InfluxExpected {
    sink: InfluxSink,
    options: InfluxOptions,
    points: BTreeMap<PointSeries, PointSums>,
    /// The times of the first and the last round, in milliseconds.
    times: Option<(i64, i64)>,
}

/// The measurement and the tags, sorted by key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct PointSeries {
    measurement: String,
    tags: Vec<(String, String)>,
}

/// The points of a series.
#[derive(Clone, Default, Debug)]
struct PointSums {
    /// Points with a value.
    points: f64,
    fields: [FieldSum; FIELDS.len()],
}

#[derive(Copy, Clone, Default, Debug)]
struct FieldSum {
    sum: Option<f64>,
    /// The sum without signs.
    size: f64,
}

impl InfluxExpected {
    pub(super) fn new(sink: &InfluxSink) -> Self {
        let options = InfluxOptions { fields: sink.fields, metadata: BTreeSet::new() };
        Self { sink: sink.clone(), options, points: BTreeMap::new(), times: None }
    }

    pub(super) fn add_round(&mut self, round: &Round<'_>) {
        let encoded = encode_influx(round, 0..round.records.len(), &self.options, ANY_SIZE);
        for request in &encoded.requests {
            let text = String::from_utf8_lossy(&request.body);
            for point in text.lines().filter_map(parse_line) {
                let (first, last) = self.times.unwrap_or((point.at, point.at));
                self.times = Some((first.min(point.at), last.max(point.at)));
                let series = PointSeries { measurement: point.measurement, tags: point.tags };
                self.points.entry(series).or_default().add_point(&point.numbers);
            }
        }
    }

    pub(super) async fn compare_database(self) -> Result<DeliveryComparison, VerifyError> {
        let Some(times) = self.times else { return Ok(DeliveryComparison::default()) };
        let client = self.query_client();
        let statements = build_statements(&self.points, times);
        let mut found: HashMap<PointSeries, FoundSums> = HashMap::new();
        let (mut errors, mut next) = (Vec::new(), 0);
        while let Some(rest) = statements.get(next..).filter(|rest| !rest.is_empty()) {
            let sent = rest.get(..count_fitting(rest, self.takes_several())).unwrap_or(rest);
            let answer = self.send_query(&client, &sent.join(";")).await?;
            next += match answer.read_into(&mut found) {
                None => sent.len(),
                // The statements after one that fails are not executed.
                Some((index, error)) => {
                    errors.push(error);
                    index + 1
                }
            };
            if errors.len() > MOST_ERRORS {
                break;
            }
        }
        if (found.is_empty() || errors.len() > MOST_ERRORS)
            && let Some(error) = errors.first()
        {
            return Err(VerifyError::Refused(format!("a query is answered with: {error}")));
        }
        let mut comparison = compare_points(&self.points, found);
        comparison.answer = errors.into_iter().next();
        Ok(comparison)
    }

    fn query_client(&self) -> QueryClient {
        let url = format!("{}/query", self.sink.target.url.trim_end_matches('/'));
        let scheme = match self.sink.api {
            InfluxApi::V1 { .. } | InfluxApi::V2 { .. } => "Token",
            InfluxApi::V3 { .. } => "Bearer",
        };
        QueryClient::new(&self.sink.target, url, scheme)
    }

    /// Whether a request may have several statements.
    const fn takes_several(&self) -> bool {
        !matches!(self.sink.api, InfluxApi::V3 { .. })
    }

    async fn send_query(&self, client: &QueryClient, query: &str) -> Result<InfluxAnswer, VerifyError> {
        let mut fields = vec![("epoch", "ms"), ("q", query)];
        match &self.sink.api {
            InfluxApi::V1 { database } | InfluxApi::V3 { database } => fields.push(("db", database)),
            // As the write route maps them: a database and a retention policy, or a database alone.
            InfluxApi::V2 { bucket, .. } => match bucket.split_once('/') {
                Some((database, policy)) => fields.extend([("db", database), ("rp", policy)]),
                None => fields.push(("db", bucket)),
            },
        }
        let body = client.post_form(&fields).await?;
        let answer: InfluxAnswer = serde_json::from_slice(&body)
            .map_err(|error| VerifyError::Garbled { queries: "InfluxQL", why: error.to_string() })?;
        match answer.error {
            Some(error) => Err(VerifyError::Refused(format!("a query is answered with: {error}"))),
            None => Ok(answer),
        }
    }
}

impl PointSums {
    fn add_point(&mut self, numbers: &[(String, f64)]) {
        for (field, name) in self.fields.iter_mut().zip(FIELDS) {
            let Some((_, number)) = numbers.iter().find(|(key, _)| key == name) else { continue };
            field.sum = Some(field.sum.unwrap_or_default() + number);
            field.size += number.abs();
            if name == "value" {
                self.points += 1.0;
            }
        }
    }
}

/// One statement for each measurement and some identities: the number of values, and the sums of fields, by series.
fn build_statements(points: &BTreeMap<PointSeries, PointSums>, (first, last): (i64, i64)) -> Vec<String> {
    let mut of_measurement: BTreeMap<&str, BTreeSet<IdentityPairs>> = BTreeMap::new();
    for series in points.keys() {
        of_measurement.entry(&series.measurement).or_default().insert(series.identity());
    }
    let mut statements = Vec::new();
    for (measurement, identities) in of_measurement {
        let identities: Vec<_> = identities.into_iter().collect();
        for identities in identities.chunks(IDENTITIES) {
            let mut statement = "SELECT count(\"value\") AS \"points\"".to_owned();
            for field in FIELDS {
                // Writing to memory does not fail.
                let _infallible = write!(statement, ", sum(\"{field}\") AS \"{field}\"");
            }
            let whose: Vec<_> = identities.iter().map(format_condition).collect();
            let _infallible = write!(
                statement,
                " FROM {} WHERE ({}) AND time >= {first}ms AND time <= {last}ms GROUP BY *",
                quote_name(measurement),
                whose.join(" OR ")
            );
            statements.push(statement);
        }
    }
    statements
}

fn format_condition(identity: &IdentityPairs) -> String {
    let equal = identity.iter().map(|(key, value)| format!("{} = {}", quote_name(key), quote_text(value)));
    format!("({})", equal.collect::<Vec<_>>().join(" AND "))
}

fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// How many of the first statements a request has.
fn count_fitting(statements: &[String], several: bool) -> usize {
    let mut length = 0;
    let fitting = statements.iter().take_while(|statement| {
        let fits = length == 0 || several && length + statement.len() <= LONG_QUERY;
        length += statement.len();
        fits
    });
    fitting.count()
}

impl PointSeries {
    fn identity(&self) -> IdentityPairs {
        self.tags.iter().filter(|(key, _)| IDENTITY_LABELS.contains(&key.as_str())).cloned().collect()
    }
}

/// What a database answers.
#[derive(Debug, Deserialize)]
struct InfluxAnswer {
    #[serde(default)]
    results: Vec<InfluxStatement>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct InfluxStatement {
    #[serde(default)]
    series: Vec<InfluxRow>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct InfluxRow {
    name: String,
    #[serde(default)]
    tags: BTreeMap<String, Option<String>>,
    columns: Vec<String>,
    values: Vec<Vec<Option<f64>>>,
}

/// The numbers of a series that a database holds.
#[derive(Clone, Default, Debug)]
struct FoundSums {
    points: Option<f64>,
    fields: [Option<f64>; FIELDS.len()],
}

impl InfluxAnswer {
    /// Adds the series up to the first statement that failed, and returns which one that is, and why.
    fn read_into(self, found: &mut HashMap<PointSeries, FoundSums>) -> Option<(usize, String)> {
        for (index, statement) in self.results.into_iter().enumerate() {
            if let Some(error) = statement.error {
                return Some((index, error));
            }
            for series in statement.series {
                let (series, sums) = series.into_sums();
                found.insert(series, sums);
            }
        }
        None
    }
}

impl InfluxRow {
    fn into_sums(self) -> (PointSeries, FoundSums) {
        let row = self.values.into_iter().next().unwrap_or_default();
        let of = |name: &str| {
            let at = self.columns.iter().position(|column| column == name)?;
            row.get(at).copied().flatten()
        };
        let sums = FoundSums { points: of("points"), fields: FIELDS.map(of) };
        // A tag that a series does not have is empty in the answer.
        let tags = self.tags.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let tags = tags.filter(|(_, value)| !value.is_empty()).collect();
        (PointSeries { measurement: self.name, tags }, sums)
    }
}

fn compare_points(
    expected: &BTreeMap<PointSeries, PointSums>,
    mut found: HashMap<PointSeries, FoundSums>,
) -> DeliveryComparison {
    let mut comparison = DeliveryComparison::default();
    for (series, sums) in expected {
        let held = found.remove(series).unwrap_or_default();
        // Of a series that is not there at all, saying so once is enough.
        let points = NumberPair::if_different("points", sums.points, Some(held.points.unwrap_or(0.0)), 0.0);
        let fields = FIELDS.into_iter().zip(&sums.fields).zip(held.fields);
        let fields = fields.filter_map(|((name, field), found)| {
            NumberPair::if_different(name, field.sum?, found, field.size).filter(|_| held.points.is_some())
        });
        let differing = points.into_iter().chain(fields).collect();
        comparison.add_series(&series.measurement, series.tags.iter().cloned(), differing);
    }
    let mut unexpected: Vec<_> = found.into_iter().collect();
    unexpected.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (series, held) in unexpected {
        let points = NumberPair::if_different("points", 0.0, held.points, 0.0);
        comparison.add_series(&series.measurement, series.tags, points.into_iter().collect());
    }
    comparison
}

#[cfg(test)]
mod tests;
