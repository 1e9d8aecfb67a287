//! How a datagram was read, as `tallyport parse` prints it.

use std::borrow::Cow;

use serde::Serialize;
use tallyport_core::statsd::style::escaped_key;
use tallyport_core::statsd::tags;
use tallyport_core::statsd::{
    self, AlertType, Check, Event, Identity, Item, Priority, Sample, TagStyles, Values,
};

/// The reading of one datagram.
#[derive(Serialize, Debug)]
pub struct Parsed<'a> {
    samples: Vec<Reading<'a>>,
    rejected: Vec<RejectedLine<'a>>,
}

#[derive(Serialize, Debug)]
struct RejectedLine<'a> {
    line: Cow<'a, str>,
    code: &'static str,
}

#[derive(Serialize, Debug)]
struct Reading<'a> {
    name: Cow<'a, str>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<Written<'a>>,
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
enum Written<'a> {
    Numbers(Vec<f64>),
    Members([Cow<'a, str>; 1]),
}

/// What only events and service checks have.
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

/// Reads a datagram and says how.
#[must_use]
pub fn parsed(datagram: &[u8], styles: TagStyles) -> Parsed<'_> {
    let mut parsed = Parsed { samples: Vec::new(), rejected: Vec::new() };
    for line in statsd::lines(datagram) {
        match statsd::parse(line, styles) {
            Ok(Item::Sample(sample)) => parsed.samples.extend(of_sample(&sample)),
            Ok(Item::Event(event)) => parsed.samples.push(of_event(&event)),
            Ok(Item::Check(check)) => parsed.samples.push(of_check(&check)),
            Err(code) => parsed.rejected.push(RejectedLine { line: text(line), code: code.code() }),
        }
    }
    parsed
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// One reading; one for each value where the client wrote its tags in brackets (`statsd_exporter`).
fn of_sample<'a>(sample: &Sample<'a>) -> Vec<Reading<'a>> {
    let each = matches!(sample.style, statsd::style::NameStyle::SignalFx { .. });
    let numbers: Vec<f64> = sample.values.numbers().map(|number| number.value).collect();
    let written: Vec<Written<'a>> = match sample.values {
        Values::Member(member) => vec![Written::Members([text(member)])],
        _ if each => numbers.iter().map(|value| Written::Numbers(vec![*value])).collect(),
        _ => vec![Written::Numbers(numbers)],
    };
    let delta = sample.metric_type == tallyport_core::model::MetricType::Gauge && sample.values.signed();
    let (head, tail) = sample.style.name(sample.name);
    let reading = |values| {
        let mut name = text(head);
        if !tail.is_empty() {
            name.to_mut().push_str(&text(tail));
        }
        let mut reading = with_identity(name, sample.tags, &sample.identity);
        for (key, value) in sample.style.pairs(sample.name) {
            let (escaped, text) = (escaped_key(key), text(value));
            match (key, value) {
                (_, []) => reading.bare_tags.push(escaped),
                ([], _) => reading.bare_tags.push(format!(":{text}")),
                _ => reading.tags.push(Cow::Owned(format!("{escaped}:{text}"))),
            }
        }
        Reading {
            r#type: if delta { "gauge_delta" } else { sample.metric_type.as_str() },
            values: Some(values),
            rate: Some(sample.rate),
            timestamp: sample.timestamp,
            ..reading
        }
    };
    written.into_iter().map(reading).collect()
}

fn of_event<'a>(event: &Event<'a>) -> Reading<'a> {
    Reading {
        r#type: "event",
        more: More {
            text: event.text(),
            alert_type: Some(event.alert_type),
            priority: Some(event.priority),
            hostname: event.hostname.map(text),
            aggregation_key: event.aggregation_key.map(text),
            source_type: event.source_type.map(text),
            ..More::default()
        },
        timestamp: event.timestamp,
        ..with_identity(event.title(), event.tags, &event.identity)
    }
}

fn of_check<'a>(check: &Check<'a>) -> Reading<'a> {
    Reading {
        r#type: "service_check",
        more: More {
            status: Some(check.status.as_str()),
            message: check.message.map(text),
            hostname: check.hostname.map(text),
            ..More::default()
        },
        timestamp: check.timestamp,
        ..with_identity(text(check.name), check.tags, &check.identity)
    }
}

fn with_identity<'a>(name: Cow<'a, str>, raw_tags: &'a [u8], identity: &Identity<'a>) -> Reading<'a> {
    Reading {
        name,
        r#type: "",
        values: None,
        rate: None,
        tags: tags::split(raw_tags).map(text).collect(),
        bare_tags: Vec::new(),
        more: More::default(),
        timestamp: None,
        container_id: identity.container_id().map(text),
        external_data: identity.external_data().map(|data| External {
            container_name: data.container_name.map(text),
            init: data.init,
            pod_uid: data.pod_uid.map(text),
        }),
        cardinality: identity.cardinality().map(text),
    }
}
