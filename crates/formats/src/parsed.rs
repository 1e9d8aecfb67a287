//! The interpretation of a datagram, as `tallyport parse` prints it.

use std::borrow::Cow;

use serde::Serialize;
use tallyport_core::statsd::style::escaped_key;
use tallyport_core::statsd::tags;
use tallyport_core::statsd::{
    self, AlertType, Check, ClientIdentity, Event, ParsedLine, Priority, Sample, TagStyles, Values,
};

/// The interpretation of one datagram.
#[derive(Serialize, Debug)]
pub struct Parsed<'a> {
    samples: Vec<ParsedSample<'a>>,
    rejected: Vec<ParseRejection<'a>>,
}

impl Parsed<'_> {
    /// Whether any line was rejected.
    #[must_use]
    pub const fn has_rejected(&self) -> bool {
        !self.rejected.is_empty()
    }
}

#[derive(Serialize, Debug)]
struct ParseRejection<'a> {
    line: Cow<'a, str>,
    code: &'static str,
}

#[derive(Serialize, Debug)]
struct ParsedSample<'a> {
    name: Cow<'a, str>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<ParsedValues<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    tags: Vec<Cow<'a, str>>,
    /// Tags in the name that are not `key=value`. Their series have them with an empty value, or an empty key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bare_tags: Vec<String>,
    #[serde(flatten)]
    more: More<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_data: Option<External<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cardinality: Option<Cow<'a, str>>,
}

#[derive(Serialize, Debug)]
#[serde(untagged)]
enum ParsedValues<'a> {
    Numbers(Vec<f64>),
    Members([Cow<'a, str>; 1]),
}

/// Fields that only events and service checks have.
#[derive(Serialize, Debug, Default)]
struct More<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alert_type: Option<AlertType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Priority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregation_key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_type: Option<Cow<'a, str>>,
}

#[derive(Serialize, Debug)]
struct External<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: Option<Cow<'a, str>>,
}

/// Parses a datagram and describes the result.
#[must_use]
pub fn describe_datagram(datagram: &[u8], styles: TagStyles) -> Parsed<'_> {
    let mut parsed = Parsed { samples: Vec::new(), rejected: Vec::new() };
    for line in statsd::split_lines(datagram) {
        match statsd::parse(line, styles) {
            Ok(ParsedLine::Sample(sample)) => parsed.samples.extend(of_sample(&sample)),
            Ok(ParsedLine::Event(event)) => parsed.samples.push(of_event(&event)),
            Ok(ParsedLine::Check(check)) => parsed.samples.push(of_check(&check)),
            Err(code) => {
                parsed.rejected.push(ParseRejection { line: decode_lossy(line), code: code.as_str() });
            }
        }
    }
    parsed
}

fn decode_lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// One document per sample, or per value if the client wrote its tags in brackets (`statsd_exporter`).
fn of_sample<'a>(sample: &Sample<'a>) -> Vec<ParsedSample<'a>> {
    let each = matches!(sample.style, statsd::style::NameStyle::SignalFx { .. });
    let numbers: Vec<f64> = sample.values.numbers().map(|number| number.value).collect();
    let written: Vec<ParsedValues<'a>> = match sample.values {
        Values::Member(member) => vec![ParsedValues::Members([decode_lossy(member)])],
        _ if each => numbers.iter().map(|value| ParsedValues::Numbers(vec![*value])).collect(),
        _ => vec![ParsedValues::Numbers(numbers)],
    };
    let delta = sample.metric_type == tallyport_core::model::MetricType::Gauge && sample.values.has_sign();
    let (head, tail) = sample.style.name(sample.name);
    let reading = |values| {
        let mut name = decode_lossy(head);
        if !tail.is_empty() {
            name.to_mut().push_str(&decode_lossy(tail));
        }
        let mut reading = with_identity(name, sample.tags, &sample.identity);
        for (key, value) in sample.style.tag_pairs(sample.name) {
            let (escaped, text) = (escaped_key(key), decode_lossy(value));
            match (key, value) {
                (_, []) => reading.bare_tags.push(escaped),
                ([], _) => reading.bare_tags.push(format!(":{text}")),
                _ => reading.tags.push(Cow::Owned(format!("{escaped}:{text}"))),
            }
        }
        ParsedSample {
            r#type: if delta { "gauge_delta" } else { sample.metric_type.as_str() },
            values: Some(values),
            rate: Some(sample.rate),
            timestamp: sample.timestamp,
            ..reading
        }
    };
    written.into_iter().map(reading).collect()
}

fn of_event<'a>(event: &Event<'a>) -> ParsedSample<'a> {
    ParsedSample {
        r#type: "event",
        more: More {
            text: event.unescaped_text(),
            alert_type: Some(event.alert_type),
            priority: Some(event.priority),
            hostname: event.hostname.map(decode_lossy),
            aggregation_key: event.aggregation_key.map(decode_lossy),
            source_type: event.source_type.map(decode_lossy),
            ..More::default()
        },
        timestamp: event.timestamp,
        ..with_identity(event.unescaped_title(), event.tags, &event.identity)
    }
}

fn of_check<'a>(check: &Check<'a>) -> ParsedSample<'a> {
    ParsedSample {
        r#type: "service_check",
        more: More {
            status: Some(check.status.as_str()),
            message: check.message.map(decode_lossy),
            hostname: check.hostname.map(decode_lossy),
            ..More::default()
        },
        timestamp: check.timestamp,
        ..with_identity(decode_lossy(check.name), check.tags, &check.identity)
    }
}

fn with_identity<'a>(
    name: Cow<'a, str>,
    raw_tags: &'a [u8],
    identity: &ClientIdentity<'a>,
) -> ParsedSample<'a> {
    ParsedSample {
        name,
        r#type: "",
        values: None,
        rate: None,
        tags: tags::split_tags(raw_tags).map(decode_lossy).collect(),
        bare_tags: Vec::new(),
        more: More::default(),
        timestamp: None,
        container_id: identity.container_id().map(decode_lossy),
        external_data: identity.external_data().map(|data| External {
            container_name: data.container_name.map(decode_lossy),
            init: data.init,
            pod_uid: data.pod_uid.map(decode_lossy),
        }),
        cardinality: identity.cardinality_level().map(decode_lossy),
    }
}
